"""Per-layer times: mapped back to nodes and modules, against the roofline; scripted, and with the real runtimes."""

import json

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import helper
from torch import nn

from edgekit.board import load_board
from edgekit.measure.layers import (
    against_roofline,
    attribute,
    macs_of_nodes,
    measure_peaks,
    roofline,
    with_assumptions,
    with_common_peaks,
)
from edgekit.measure.row import Peaks
from edgekit.runtime.errors import BadInput
from edgekit.runtime.layers import ort_steps, profile, tensorrt_steps
from edgekit.runtime.sessions.trt import TensorrtSession

from .test_row import make_row

PEAKS = Peaks(gops={"fp32": 100.0, "int8": 400.0}, bandwidth=10.0, source="measured")


class Net(nn.Module):
    """A convolution with its activation, and a residual block, as an exporter sees them."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 16, 3, padding=1), nn.ReLU())
        self.body = nn.Conv2d(16, 16, 3, padding=1)
        self.relu = nn.ReLU()
        self.head = nn.Conv2d(16, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        x = self.relu(self.body(x) + x)
        return self.head(x).flatten(2).transpose(1, 2), torch.sigmoid(self.head(x)).flatten(2).transpose(1, 2)


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    path = tmp_path_factory.mktemp("layers") / "model.onnx"
    names = {"input_names": ["image"], "output_names": ["boxes", "scores"]}
    torch.onnx.export(Net().eval(), (torch.zeros(1, 3, 16, 24),), str(path), dynamo=False, opset_version=13, **names)
    return path


@pytest.fixture(scope="module")
def original(file):
    return onnx.shape_inference.infer_shapes(onnx.load(file))


def step(name, nodes=None, ms=1.0, **more):
    return {"name": name, "kind": "Conv", "ms": ms, "precision": "fp32", "bytes": 1000, "nodes": nodes, **more}


def found_nodes(steps):
    return [s["nodes"] for s in steps]


# -- attribution ------------------------------------------------------------------------------------------------------
def test_a_runtime_that_tells_is_believed_and_a_node_counts_once(original):
    steps = [
        step("a", ["/stem/stem.0/Conv/WithoutBiases", "/stem/stem.0/Conv", "/stem/stem.1/Relu", "made up"]),
        step("b", ["/stem/stem.1/Relu", "/body/Conv"]),
        step("reorder", []),
    ]
    assert found_nodes(attribute(steps, original)) == [
        ["/stem/stem.0/Conv", "/stem/stem.1/Relu"],
        ["/body/Conv"],
        [],
    ]


def test_openvinos_convolution_without_bias_is_the_convolution(original):
    assert found_nodes(attribute([step("a", ["/body/Conv/WithoutBiases"])], original)) == [["/body/Conv"]]


@pytest.mark.parametrize(
    ("name", "nodes"),
    [
        ("/stem/stem.0/Conv", ["/stem/stem.0/Conv"]),
        ("/stem/stem.0/Conv + /stem/stem.1/Relu", ["/stem/stem.0/Conv", "/stem/stem.1/Relu"]),
        ("PWN(PWN(/Sigmoid), /Transpose)", ["/Transpose", "/Sigmoid"]),
        ("/head/Conv || /nowhere/Conv", ["/head/Conv"]),
        ("Reformatting CopyNode for Input Tensor 0 to /body/Conv + /Add", []),
        ("/body/Conv_output_0 copy", []),
        ("(Unnamed Layer* 3) [Shuffle]", []),
        ("{ForeignNode[/stem/stem.0/Conv.../Add]}", ["/stem/stem.0/Conv", "/stem/stem.1/Relu", "/body/Conv", "/Add"]),
    ],
)
def test_tensorrts_names(original, name, nodes):
    (found,) = attribute([step(name)], original)
    order = [n.name for n in original.graph.node]
    assert found["nodes"] == sorted(nodes, key=order.index)


def optimised(*nodes):
    made = [helper.make_node(kind, ins, outs, name=name, **attrs) for kind, name, ins, outs, attrs in nodes]
    return helper.make_model(helper.make_graph(made, "optimised", [], []))


def test_onnxruntimes_fused_additions_belong_to_their_convolution(original):
    """NCHWc convolutions have inner names; the one with a fourth input has swallowed the Add, and the Relu after it."""
    graph = optimised(
        ("Conv", "/stem/stem.1/Relu_output_0_nchwc", ["image", "w", "b"], ["inner"], {"activation": "Relu"}),
        ("Conv", "/body/Conv_output_0_nchwc", ["inner", "w", "b", "inner"], ["inner2"], {"activation": "Relu"}),
        ("ReorderOutput", "ReorderOutput_token_7", ["inner2"], ["nchw"], {}),
    )
    steps = [
        step(n) for n in ("/stem/stem.1/Relu_output_0_nchwc", "/body/Conv_output_0_nchwc", "ReorderOutput_token_7")
    ]
    assert found_nodes(attribute(steps, original, graph)) == [
        ["/stem/stem.0/Conv", "/stem/stem.1/Relu"],
        ["/body/Conv", "/Add", "/relu/Relu"],
        [],
    ]


def test_an_activation_that_is_not_there_is_not_taken(original):
    graph = optimised(("Conv", "/body/Conv_output_0_nchwc", ["x", "w", "b"], ["inner"], {"activation": "Relu"}))
    (found,) = attribute([step("/body/Conv_output_0_nchwc")], original, graph)
    assert "/relu/Relu" not in found["nodes"]  # the Add stands between, and it was not fused
    assert "/body/Conv" in found["nodes"]


def test_a_step_of_no_graph_has_no_nodes(original):
    assert found_nodes(attribute([step("strange")], original, optimised())) == [[]]


def test_what_no_profiler_tells_is_assumed_and_said(original):
    """The step's nodes take the image and weights from others, and leave one tensor; 384 positions, fp16."""
    told = [
        step("a", ["/stem/stem.0/Conv", "/stem/stem.1/Relu"], precision=None, bytes=None),
        step("copy", [], precision=None, bytes=None),
    ]
    (conv, copy), note = with_assumptions(told, original, "fp16")
    assert conv["precision"] == "fp16"
    assert conv["bytes"] == 2 * (384 * 3 + 16 * 27 + 16 + 384 * 16)
    assert copy["bytes"] is None
    assert "fp16 is assumed" in note
    known = [step("a", ["/body/Conv"]), step("of integers", ["/Add"], precision=None, bytes=8)]
    assert with_assumptions(known, original, "fp16") == (known, "")


def test_an_engines_steps_belong_to_the_file_that_it_was_built_from(tmp_path, artifact):
    from edgekit.measure.bench import Target
    from edgekit.measure.layers import _graph_file

    from .conftest import make_artifact

    engine = make_artifact(tmp_path / "engine", "engine", "model.plan")
    assert _graph_file(Target(engine, "tensorrt8", graph=artifact)) == artifact.file("model.onnx")
    assert _graph_file(Target(artifact, "onnxruntime")) == artifact.file("model.onnx")
    with pytest.raises(BadInput, match=r"has no model\.onnx, and none is known that it was made from"):
        _graph_file(Target(engine, "tensorrt8"))


# -- the roofline -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("macs", "moved", "precision", "bound"),
    [
        (50_000_000, 1_000, "fp32", (1.0, "compute")),  # 0.1 G operations at 100 G/s
        (50_000_000, 1_000, "int8", (0.25, "compute")),
        (1_000, 20_000_000, "fp32", (2.0, "memory")),  # 20 MB at 10 GB/s
        (0, 10_000_000, "fp32", (1.0, "memory")),
        (0, None, "fp32", (None, None)),
        (50_000_000, None, "fp32", (1.0, "compute")),
        (50_000_000, 1_000, "fp16", (None, None)),  # no peak of that precision: no bound, not half of one
        (50_000_000, 1_000, None, (None, None)),
        (0, 10_000_000, None, (1.0, "memory")),
    ],
)
def test_roofline_by_hand(macs, moved, precision, bound):
    assert roofline(macs, moved, precision, PEAKS) == pytest.approx(bound)
    assert roofline(macs, moved, precision, None) == (None, None)


def test_layers_by_hand(original):
    """16 x 24 positions: 16 x 27 and 16 x 144 MACs at each."""
    macs = macs_of_nodes(original)
    assert macs["/stem/stem.0/Conv"] == 384 * 16 * 27
    assert macs["/body/Conv"] == 384 * 16 * 144
    steps = [
        step("quick", ["/stem/stem.0/Conv"], ms=0.01, bytes=0),
        step("slow", ["/body/Conv", "/Add"], ms=2.99, bytes=1000),
        step("layout", [], ms=1.0, bytes=5_000_000),
    ]
    slow, layout, quick = against_roofline(steps, macs, PEAKS)
    assert (slow.name, layout.name, quick.name) == ("slow", "layout", "quick")
    assert slow.modules == ("body",)
    assert slow.macs == 884_736
    assert slow.gops == pytest.approx(2 * 884_736 / 2.99e-3 / 1e9)
    assert slow.lost_ms == pytest.approx(2.99 - 2 * 884_736 / 100e6)
    assert (layout.bound, layout.bound_ms, layout.gops) == ("memory", pytest.approx(0.5), None)
    assert quick.share == pytest.approx(0.01 / 4)
    assert [layer.name for layer in against_roofline(steps, macs, None)] == ["slow", "layout", "quick"]


def test_rows_of_one_call_share_the_best_peaks():
    """A neighbour that halves the machine while one row is measured does not lower its roof."""

    def row(gops, bandwidth, threads=1, source="measured"):
        peaks = Peaks(gops={"fp32": gops}, bandwidth=bandwidth, source=source, how="a GEMM")
        steps = [step("conv", ["conv"], ms=3.0, bytes=1000), step("copy", [], ms=2.0, bytes=10_000_000)]
        layers = against_roofline(steps, {"conv": 50_000_000}, peaks)
        process = {"threads": threads, "core": 0, "warmup": 10}
        return make_row(layers=[layer.model_dump() for layer in layers], peaks=peaks.model_dump(), process=process)

    rows = [row(50.0, 10.0), row(100.0, 8.0), row(400.0, 40.0, threads=2), row(10.0, 1.0, source="board profile")]
    first, second, *others = with_common_peaks([*rows, make_row()])
    assert first.peaks == second.peaks
    assert (first.peaks.gops, first.peaks.bandwidth) == ({"fp32": 100.0}, 10.0)
    assert first.peaks.how == "a GEMM; the best of 2 measurements"
    assert [(layer.name, layer.bound_ms, layer.lost_ms) for layer in first.layers] == [
        ("conv", pytest.approx(1.0), pytest.approx(2.0)),
        ("copy", pytest.approx(1.0), pytest.approx(1.0)),
    ]
    assert others == [*rows[2:], make_row()]
    assert with_common_peaks([first, second]) == [first, second]  # of several sets, each is put under its own first


@settings(deadline=None)
@given(st.lists(st.tuples(st.floats(0, 100), st.integers(0, 10**9)), min_size=1, max_size=20))
def test_shares_add_up_and_nothing_is_lost_below_zero(times):
    steps = [step(str(i), [], ms=ms, bytes=moved) for i, (ms, moved) in enumerate(times)]
    layers = against_roofline(steps, {}, PEAKS)
    total = sum(ms for ms, _ in times)
    assert sum(layer.share for layer in layers) == pytest.approx(1.0 if total else 0.0)
    assert [layer.lost_ms for layer in layers] == sorted((layer.lost_ms for layer in layers), reverse=True)
    assert [layer.lost_ms for layer in layers] == [pytest.approx(max(0.0, x.ms - x.bound_ms)) for x in layers]


# -- the profilers ----------------------------------------------------------------------------------------------------
def test_onnxruntimes_trace(tmp_path):
    def event(name, dur, shapes):
        values = [{"float": shape} for shape in shapes]
        args = {"op_name": "Conv", "input_type_shape": values[:-1], "output_type_shape": values[-1:]}
        return {"cat": "Node", "name": f"{name}_kernel_time", "dur": dur, "args": args}

    shapes = ([1, 3, 4], [2, 3], [1, 2, 4])
    trace = [
        {"cat": "Session", "name": "model_run", "dur": 9},
        *(event("a", dur, shapes) for dur in (9000, 1000, 3000)),  # the first is the warm-up
        {"cat": "Node", "name": "a_fence_before", "dur": 1, "args": {}},
    ]
    (found,) = ort_steps(json.loads(json.dumps(trace)), 2)
    assert found == {
        "name": "a",
        "kind": "Conv",
        "ms": 2.0,
        "precision": "fp32",
        "bytes": 4 * (12 + 6 + 8),
        "nodes": None,
    }


def test_an_old_onnxruntime_tells_no_shapes():
    (found,) = ort_steps([{"cat": "Node", "name": "a_kernel_time", "dur": 5, "args": {"op_name": "Conv"}}], 1)
    assert (found["bytes"], found["precision"]) == (None, None)


def test_tensorrts_times():
    found = tensorrt_steps({"Reformatting x": [9.0, 1.0], "conv": [9.0, 2.0, 4.0]}, 2)
    assert [(s["kind"], s["ms"]) for s in found] == [("Reformat", 5.0), ("Layer", 3.0)]


class Session:
    threads = 1

    def __init__(self, path):
        self.artifact = self
        self.path = path

    def file(self, _name):
        return str(self.path)


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino"])
def test_a_real_profiler_gives_every_mac_to_a_step(runtime, file, original, tmp_path):
    pytest.importorskip(runtime)
    image = np.zeros((1, 3, 16, 24), np.float32)
    told = profile(runtime, Session(file), image, 2, str(tmp_path))
    assert told["profiler"].startswith(runtime)
    optimised_file = tmp_path / "optimised.onnx"
    graph = onnx.load(optimised_file) if optimised_file.exists() else None
    assert (graph is not None) == (runtime == "onnxruntime")
    layers = against_roofline(attribute(told["steps"], original, graph), macs_of_nodes(original), PEAKS)
    macs = macs_of_nodes(original)
    # the head is called twice with the same input: a runtime may compute it once
    assert sum(layer.macs for layer in layers) in (sum(macs.values()), sum(macs.values()) - macs["/head/Conv"])
    body = next(layer for layer in layers if "/body/Conv" in layer.nodes)
    assert body.modules[0] == "body"
    assert {"/Add", "/relu/Relu"} <= set(body.nodes) or runtime == "openvino"
    assert body.precision == "fp32"
    assert body.bytes >= 4 * (2 * 384 * 16 + 16 * 144)


class FakeTensorrt:
    __version__ = "8.2.1"

    class IProfiler:
        pass


class Engine:
    """As a TensorRT session: the context calls its profiler back, unless a captured graph is launched instead."""

    threads = 1
    profiled = TensorrtSession.profiled

    def __init__(self):
        self._run, self._graph, self.profiler, self.context = self, "captured", None, self

    def infer(self, _inputs):
        if self._graph is None and self.profiler is not None:
            self.profiler.report_layer_time("/body/Conv + /Add", 0.5)


def test_tensorrts_profiler_is_called_without_the_graph_and_taken_off_again(monkeypatch):
    import sys

    monkeypatch.setitem(sys.modules, "tensorrt", FakeTensorrt)
    engine = Engine()
    told = profile("tensorrt8", engine, None, 4, ".")
    assert (told["profiler"], told["steps"][0]["ms"]) == ("tensorrt 8.2.1", 0.5)
    assert (engine._graph, engine.profiler) == ("captured", None)


def test_a_runtime_without_a_profiler_is_named():
    with pytest.raises(BadInput, match="runtime pytorch: it has no layer profiler; there is one for onnxruntime"):
        profile("pytorch", None, None, 1, ".")


# -- peaks ------------------------------------------------------------------------------------------------------------
def test_a_boards_peaks_come_from_its_profile():
    peaks = measure_peaks(load_board("jetson-tx2"), {})
    assert peaks.source == "board profile"
    assert peaks.gops["fp16"] > peaks.gops["fp32"] > 0
    assert peaks.bandwidth > 0


def test_peaks_of_this_machine(tmp_path, monkeypatch):
    monkeypatch.setattr("edgekit.measure.peaks.SECONDS", 0.0)
    from edgekit.measure import peaks

    found = Peaks.model_validate(peaks.measure_peaks(1))
    assert found.source == "measured"
    assert found.gops["fp32"] > 0.1
    assert found.gops["int8"] > 0.1
    assert found.bandwidth > 0.01


def test_a_wrong_job_is_told_as_the_worker_tells_it(tmp_path):
    from edgekit.measure import peaks

    (tmp_path / "job.json").write_text("{}")
    assert peaks.main([str(tmp_path / "job.json"), str(tmp_path / "result.json")]) == 2
    assert json.loads((tmp_path / "result.json").read_text())["type"] == "BadConfig"
