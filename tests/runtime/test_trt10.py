"""The session for TensorRT 8.5 on, over a simulated tensor API: addresses, and outputs whose size the data decide."""

import hashlib
import struct
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.engines.tensorrt10 import Tensorrt10
from edgekit.runtime.errors import BadInput
from edgekit.runtime.runner import open_runner
from edgekit.runtime.sessions import open_session, trt

from .simulated import SIMULATOR, loaded

VERSION = "10.3.0"  # what the module says; the plans that it writes say 10.3.0.26
HEADER = b"ftrt" + struct.pack("<I", 0) + bytes(16) + bytes([10, 3, 0, 26])
MOST = 40  # detections that NMS in the simulated engine may select


SELECTED = [
    {"name": "detection_boxes", "shape": (-1, 4), "dtype": "FLOAT", "input": False},
    {"name": "num_detections", "shape": (), "dtype": "INT32", "input": False},
    {"name": "detection_scores", "shape": (-1,), "dtype": "FLOAT", "input": False},
    {"name": "detection_classes", "shape": (-1,), "dtype": "INT32", "input": False},
]


class Engine:
    """The tensor API over the simulator's engine. suppressed: NMS in the graph, as INMSLayer leaves it."""

    def __init__(self, simulator, onnx, suppressed):
        ends = [("image", (1, 3, 64, 96), "FLOAT", True), ("boxes", (1, 100, 4), "FLOAT", False)]
        ends.append(("scores", (1, 100, 3), "FLOAT", False))
        bindings = [{"name": n, "shape": s, "dtype": d, "input": i} for n, s, d, i in ends]
        self.simulator = simulator
        self.inner = simulator._Engine({"flags": [], "nms": None, "bindings": bindings}, onnx)
        self.ends = bindings[:1] + SELECTED if suppressed else bindings

    num_io_tensors = property(lambda self: len(self.ends))

    def _end(self, name):
        return next(end for end in self.ends if end["name"] == name)

    def get_tensor_name(self, index):
        return self.ends[index]["name"]

    def get_tensor_shape(self, name):
        return self._end(name)["shape"]

    def get_tensor_dtype(self, name):
        return getattr(self.simulator.DataType, self._end(name)["dtype"])

    def get_tensor_location(self, name):
        return "DEVICE"

    def get_tensor_mode(self, name):
        return "INPUT" if self._end(name)["input"] else "OUTPUT"

    def create_execution_context(self):
        return Context(self)


class Context:
    def __init__(self, engine):
        self.engine, self.addresses = engine, {}

    def get_max_output_size(self, name):
        return MOST * (16 if name == "detection_boxes" else 4)

    def set_tensor_address(self, name, address):
        self.addresses[name] = address
        return True

    def _memory(self, name, shape):
        return self.engine.simulator._memory(self.addresses[name], dict(self.engine._end(name), shape=shape))

    def execute_async_v3(self, stream):
        image = self._memory("image", (1, 3, 64, 96)).copy()
        boxes, scores = self.engine.inner.session.run(["boxes", "scores"], {"image": image})
        if "boxes" in self.addresses:
            self._memory("boxes", boxes.shape)[...] = boxes
            self._memory("scores", scores.shape)[...] = scores
            return True
        best = np.argsort(-scores[0].max(1), kind="stable")[:MOST]
        found = {
            "detection_boxes": boxes[0][best],
            "detection_scores": scores[0][best].max(1),
            "detection_classes": scores[0][best].argmax(1),
        }
        self._memory("num_detections", (1,))[...] = len(best)
        for name, values in found.items():
            self._memory(name, values.shape)[...] = values
        return True


@pytest.fixture
def newer(monkeypatch):
    """``newer(suppressed)`` makes this process's TensorRT a simulated 10.3."""
    monkeypatch.syspath_prepend(str(SIMULATOR))
    import tensorrt as simulator

    def install(suppressed=False):
        class Runtime:
            def __init__(self, logger):
                pass

            def deserialize_cuda_engine(self, plan):
                return Engine(simulator, plan[len(HEADER) :], suppressed) if plan.startswith(HEADER) else None

        module = types.SimpleNamespace(
            __version__=VERSION,
            ILogger=simulator.ILogger,
            Runtime=Runtime,
            TensorLocation=types.SimpleNamespace(HOST="HOST", DEVICE="DEVICE"),
            TensorIOMode=types.SimpleNamespace(INPUT="INPUT"),
            init_libnvinfer_plugins=simulator.init_libnvinfer_plugins,
        )
        monkeypatch.setattr(trt, "load_tensorrt", lambda: module)

    yield install
    for name in loaded():
        del sys.modules[name]


@pytest.fixture
def engine(onnx_float, tmp_path):
    """An engine artifact as TensorRT 10.3 would have left it, with the ONNX file behind the plan's header."""
    values = {k: v for k, v in onnx_float.manifest.items() if k not in ("kind", "payload")}
    with new_artifact(tmp_path / "engine", "engine", values) as folder:
        plan = HEADER + Path(onnx_float.file("model.onnx")).read_bytes()
        (Path(folder) / "model.plan").write_bytes(plan)
        values["engine"] = {
            "tensorrt": VERSION,
            "cuda": "10.2",
            "sm": 62,
            "device": "EdgeKit TX2 twin (simulated)",
            "l4t": None,
            "builder": "tensorrt10",
            "nms": "host",
            "plan": {"layout": "ftrt", "version": "10.3.0.26"},
            "onnx_sha256": "0" * 64,
            "plan_sha256": hashlib.sha256(plan).hexdigest(),
        }
    return read_artifact(tmp_path / "engine")


def test_it_sees_what_onnx_runtime_sees(engine, newer, onnx_float, images):
    newer()
    with open_runner(onnx_float.path) as reference, open_runner(engine.path, "tensorrt10") as runner:
        for image in images[:2]:
            expected, found = reference(image)[0], runner(image)[0]
            np.testing.assert_array_equal(found.scores, expected.scores)
            np.testing.assert_array_equal(found.boxes, expected.boxes)
        assert sorted(runner.session.spans) == ["compute", "device_to_host", "host_to_device"]
        assert runner.session.describe()["version"] == VERSION


def test_outputs_whose_size_the_data_decide(engine, newer, onnx_float, images):
    newer(suppressed=True)
    with open_runner(onnx_float.path) as reference, open_runner(engine.path, "tensorrt10") as runner:
        expected, found = reference(images[0])[0], runner(images[0])[0]
        assert 30 < len(found.scores) <= MOST
        # further down the reference has boxes of two classes, which the simulated NMS gives once
        np.testing.assert_allclose(found.scores[:30], expected.scores[:30], atol=1e-6)
        np.testing.assert_allclose(found.boxes[:30], expected.boxes[:30], atol=1e-3)
        np.testing.assert_array_equal(found.class_ids[:30], expected.class_ids[:30])
        assert "no CUDA graph: the data decide the size of an output" in runner.session.describe()["notes"]
        outputs = runner.session.infer({"image": runner.preprocess(images[0])[0]})
        assert outputs["boxes"].shape == (1, MOST, 4)
        assert outputs["scores"].shape == (1, MOST, 3)


def test_an_engine_that_tensorrt_refuses_is_one_sentence(engine, newer):
    newer()
    module = trt.load_tensorrt()
    module.Runtime.deserialize_cuda_engine = lambda self, plan: None
    with pytest.raises(BadInput, match=r"TensorRT 10\.3\.0 cannot load the engine: no message"):
        open_session("tensorrt10", engine)


def test_a_type_that_numpy_has_not_is_one_sentence(engine, newer, monkeypatch):
    newer()
    monkeypatch.setattr(Engine, "get_tensor_dtype", lambda self, name: types.SimpleNamespace(name="BF16"))
    with pytest.raises(BadInput, match=r"the engine's image is of type BF16; a session takes BOOL, FLOAT, HALF"):
        open_session("tensorrt10", engine)


def test_an_output_without_an_upper_bound_is_refused(engine, newer, monkeypatch):
    newer(suppressed=True)
    monkeypatch.setattr(Context, "get_max_output_size", lambda self, name: -1)
    with pytest.raises(BadInput, match=r"the engine's detection_boxes has no upper bound .*--nms host"):
        open_session("tensorrt10", engine)


def test_a_tensor_of_the_host_gets_no_address_of_the_device(engine, newer, monkeypatch):
    newer()
    monkeypatch.setattr(Engine, "get_tensor_location", lambda self, name: "HOST" if name == "scores" else "DEVICE")
    with pytest.raises(BadInput, match="the engine's scores is a tensor of the host"):
        open_session("tensorrt10", engine)


@pytest.mark.parametrize(("version", "flags"), [("8.6.1", 1), ("9.3.0.1", 1), ("10.3.0", 0), ("10.16.1.11", 0)])
def test_explicit_batch_is_asked_for_where_it_is_a_choice(version, flags, newer):
    newer()
    import tensorrt as simulator

    kinds = simulator.NetworkDefinitionCreationFlag
    module = types.SimpleNamespace(__version__=version, ILogger=simulator.ILogger, NetworkDefinitionCreationFlag=kinds)
    given = []
    builder = types.SimpleNamespace(create_network=given.append)
    Tensorrt10(module)._create_network(builder)
    assert given == [flags << int(kinds.EXPLICIT_BATCH)]


def test_every_type_has_the_size_that_tensorrt_gives_it():
    sizes = {"FLOAT": 4, "HALF": 2, "INT8": 1, "INT32": 4, "INT64": 8, "BOOL": 1, "UINT8": 1}
    assert {kind: np.dtype(name).itemsize for kind, name in trt.DTYPES.items()} == sizes
