"""A small real network, trained by nobody, as the artifacts that the sessions load; and real street scenes."""

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.models.zoo import build
from edgekit.paths import share
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.engines import build_engine
from edgekit.runtime.images import read_image
from edgekit.runtime.preprocess import Preprocess

from .simulated import SIMULATOR, loaded

CLASSES = ["car", "bus", "van"]
PREPROCESS = Preprocess((96, 64), mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))
POSTPROCESS = {"nms": "none", "score_threshold": 0.01, "top_k": 100}


@pytest.fixture(scope="session")
def network():
    """HRNet-W16 with random weights; the last layers are strong enough for scores and sizes that differ."""
    torch.manual_seed(3)
    model = build("mobile-centernet", len(CLASSES)).eval()
    for branch in (model.head.heatmap, model.head.size, model.head.offset):
        torch.nn.init.normal_(branch[-1].weight, std=20.0)
    torch.nn.init.constant_(model.head.size[-1].bias, 4.0)
    return model


def manifest(**more):
    recipe = {"name": "toy", "model": {"name": "mobile-centernet", "options": {}}, "export": {"top_k": 100}}
    values = {"classes": CLASSES, "category_ids": [1, 2, 3], "preprocess": PREPROCESS.to_dict(), "recipe": recipe}
    return dict(values, parents={}, tools={}, key="toy", **more)


@pytest.fixture(scope="session")
def checkpoint(network, tmp_path_factory):
    path = tmp_path_factory.mktemp("artifacts") / "checkpoint"
    with new_artifact(path, "checkpoint", manifest()) as folder:
        save_file(network.state_dict(), f"{folder}/weights.safetensors")
    return read_artifact(path)


def export(network, path, layout):
    options = ExportOptions(layout=layout)
    size = [1, 64, 96, 3] if layout == "nhwc_uint8" else [1, 3, 64, 96]
    about = {"input": {"name": "image", "layout": layout, "shape": size}, "precision": "fp32"}
    with new_artifact(path, "onnx", manifest(postprocess=POSTPROCESS, **about)) as folder:
        export_onnx(network, PREPROCESS, options, f"{folder}/model.onnx")
    return read_artifact(path)


@pytest.fixture(scope="session")
def onnx(network, tmp_path_factory):
    return export(network, tmp_path_factory.mktemp("artifacts") / "onnx", "nhwc_uint8")


@pytest.fixture(scope="session")
def onnx_float(network, tmp_path_factory):
    """The same network for boards that take no uint8: normalised on the host."""
    return export(network, tmp_path_factory.mktemp("artifacts") / "onnx-float", "nchw_float")


@pytest.fixture
def copy_of(tmp_path):
    """Copies an artifact; with ``payload`` (name -> bytes) and manifest changes, hashes set right again."""

    def copy(artifact, payload=None, kind=None, **changes):
        values = {k: v for k, v in artifact.manifest.items() if k not in ("kind", "payload")}
        path = tmp_path / "copy"
        with new_artifact(path, kind or artifact.kind, dict(values, **changes)) as folder:
            for name in artifact.manifest["payload"]:
                shutil.copy(artifact.file(name), folder)
            for name, content in (payload or {}).items():
                (Path(folder) / name).write_bytes(content)
        return read_artifact(path)

    return copy


@pytest.fixture(scope="session")
def image_paths():
    return [str(p) for p in sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))[:6]]


@pytest.fixture(scope="session")
def images(image_paths):
    return [read_image(p) for p in image_paths]


@pytest.fixture
def write_job(tmp_path, onnx, image_paths):
    """Writes a job file of the worker; gives its path and the result's."""

    def write(**changes):
        job = {"artifact": onnx.path, "images": image_paths, "warmup": 2, "min_seconds": 0.05, "min_count": 5}
        (tmp_path / "job.json").write_text(json.dumps(dict(job, **changes)))
        return tmp_path / "job.json", tmp_path / "result.json"

    return write


@pytest.fixture(scope="session")
def int8(onnx, images, tmp_path_factory):
    """The network with every convolution in INT8 (u8 activations, s8 weights), calibrated on four pictures."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):
        def __init__(self):
            self.left = [{"image": PREPROCESS(image, "nhwc_uint8")[0]} for image in images[:4]]

        def get_next(self):
            return self.left.pop() if self.left else None

    path = tmp_path_factory.mktemp("artifacts") / "int8"
    about = {"input": onnx.manifest["input"], "precision": "int8", "flavour": "x86"}
    with new_artifact(path, "onnx-int8", manifest(postprocess=POSTPROCESS, **about)) as folder:
        quantize_static(
            onnx.file("model.onnx"),
            f"{folder}/model.onnx",
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            activation_type=QuantType.QUInt8,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=["Conv"],
        )
    return read_artifact(path)


@pytest.fixture
def simulator(monkeypatch, tmp_path):
    """The simulated TensorRT and pycuda, here and in the child that builds."""
    monkeypatch.setenv("PYTHONPATH", str(SIMULATOR))
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.syspath_prepend(str(SIMULATOR))
    for name in loaded():
        monkeypatch.delitem(sys.modules, name)
    yield
    for name in loaded():
        del sys.modules[name]


@pytest.fixture(scope="session")
def engine(onnx_float, tmp_path_factory):
    """One FP16 engine, built by the simulator in a child process."""
    folder = tmp_path_factory.mktemp("engine")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(SIMULATOR))
        patch.setenv("EDGEKIT_CACHE", str(folder / "cache"))
        steps = []
        made = build_engine(onnx_float, folder / "engine", {"board": "twin"}, lambda *step: steps.append(step))
    assert steps == [(0, 3), (1, 3), (2, 3), (3, 3)]
    assert list((folder / "cache" / "timing").iterdir())
    return made
