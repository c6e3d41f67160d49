"""The memory forecast: liveness by hand, and verdicts against a board's memory."""

import numpy as np
import onnx
import pytest

from edgekit.board import load_board
from edgekit.conversion.findings import Graph
from edgekit.conversion.forecast import forecast, live_peak
from edgekit.conversion.foreign import infer
from edgekit.conversion.lint import lint_file
from edgekit.conversion.operators import load_operators
from tests.conversion.test_lint import i64, model

MIB = 2**20
SIDE = 512  # float32 [1, 1, 512, 512] is 1 MiB
PLANE = {"x": ("f", [1, 1, SIDE, SIDE])}


def graph(nodes, constants=None, inputs=PLANE, board="jetson-tx2", outputs=None):
    profile = load_board(board)
    stack = profile.stack() if profile.stacks else None
    return Graph(
        infer(model(nodes, inputs, constants, outputs=outputs)),
        profile,
        stack,
        load_operators(stack.operators) if stack else None,
    )


@pytest.mark.parametrize(
    ("nodes", "mib", "node"),
    [
        ([("Relu", ["x"], ["y"], {})], 2, "Relu_0"),  # input and output
        ([("Relu", ["x"], ["a"], {}), ("Relu", ["a"], ["b"], {}), ("Relu", ["b"], ["y"], {})], 2, "Relu_0"),
        # x lives until the addition
        ([("Relu", ["x"], ["a"], {}), ("Relu", ["a"], ["b"], {}), ("Add", ["b", "x"], ["y"], {})], 3, "Relu_1"),
        # a view takes no memory of its own, and keeps what it looks at
        ([("Reshape", ["x", "s"], ["a"], {}), ("Relu", ["a"], ["y"], {})], 2, "Relu_1"),
        # a concatenation holds all its parts and the result
        ([("Relu", ["x"], ["a"], {}), ("Concat", ["x", "a"], ["y"], {"axis": 1})], 4, "Concat_1"),
        # what nobody reads is not held
        ([("Relu", ["x"], ["a"], {}), ("Relu", ["x"], ["y"], {})], 2, "Relu_1"),
    ],
)
def test_the_peak_is_the_largest_sum_of_live_tensors(nodes, mib, node):
    peak = live_peak(graph(nodes, {"s": i64(1, 1, SIDE * SIDE)}), 4)
    assert peak.mib == pytest.approx(mib)
    assert peak.node.endswith(node)
    assert peak.unknown == ()


def test_half_precision_takes_half_and_integers_their_own_size():
    nodes = [("Relu", ["x"], ["a"], {}), ("Cast", ["a"], ["y"], {"to": onnx.TensorProto.INT8})]
    ends = {"y": ("i8", [1, 1, SIDE, SIDE])}
    assert live_peak(graph(nodes, outputs=ends), 2).mib == pytest.approx(1.0)
    only_cast = graph(nodes[1:], inputs={"a": ("f", [1, 1, SIDE, SIDE])}, outputs=ends)
    assert live_peak(only_cast, 4).mib == pytest.approx(1.25)


def test_the_parts_add_up_and_are_the_boards():
    weights = np.zeros((64, 1, 64, 64), np.float32)  # 1 MiB
    made = forecast(graph([("Conv", ["x", "w"], ["y"], {"strides": [64, 64]})], {"w": weights}), "fp16")
    memory = load_board("jetson-tx2").memory
    assert made.run["weights"] == pytest.approx(0.5)
    assert made.build["weights in float32"] == pytest.approx(1)
    assert made.build["the file, as bytes and parsed"] == pytest.approx(2)
    assert made.build["workspace"] == memory.workspace_mb
    assert (made.run["idle system"], made.run["CUDA and TensorRT libraries"]) == (memory.idle_mb, memory.overhead_mb)
    assert made.build_total == pytest.approx(sum(made.build.values()))
    assert made.available == memory.total_mb


def test_a_cpu_board_has_no_build():
    made = forecast(graph([("Relu", ["x"], ["y"], {})], board="x86"), "fp32")
    assert made.build == {}
    assert made.run == {"weights": 0, "activations": pytest.approx(2), "inputs and outputs": pytest.approx(4)}


@pytest.mark.parametrize(("board", "precision"), [("x86", "int8"), ("raspberry-pi-4", "int8"), ("jetson-tx2", "fp16")])
def test_an_int8_file_is_forecast_as_it_is_stored_where_there_is_no_engine(board, precision, tmp_path):
    """8-bit weights and the activations between Q and DQ take a byte each; what is float in the file takes four."""
    nodes = [
        ("DequantizeLinear", ["w", "s", "z"], ["d"], {}),
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["f"], {}),
        ("Conv", ["f", "d"], ["y"], {"strides": [64, 64]}),
    ]
    constants = {"w": np.ones((256, 1, 64, 64), np.int8), "s": np.float32(0.1), "z": np.int8(0)}  # 1 MiB of weights
    onnx.save(model(nodes, PLANE, constants), tmp_path / "m.onnx")
    made = lint_file(str(tmp_path / "m.onnx"), "m", board, None)["forecast"]
    assert made["precision"] == precision
    if precision == "int8":
        assert made["run"]["weights"] == pytest.approx(1, abs=0.001)
        assert made["run"]["activations"] == pytest.approx(1.25)  # x and q, then q and f


@pytest.mark.parametrize(
    ("side", "severity", "told"),
    [
        (64, None, ""),
        (16000, "warning", "left for the workspace"),
        (20500, "error", "building it"),
        (22000, "error", "running it"),
    ],
)
def test_the_verdict_for_a_nano(tmp_path, side, severity, told):
    """4 GB, three planes alive; one of 16000 x 4000 has 244 MiB in float32."""
    nodes = [("Relu", ["x"], ["a"], {}), ("Add", ["x", "a"], ["y"], {})]
    made = model(nodes, {"x": ("f", [1, 1, side, side // 4])}, outputs={"y": ("f", [1, 1, side, side // 4])})
    onnx.save(made, tmp_path / "m.onnx")
    record = lint_file(str(tmp_path / "m.onnx"), "m", "jetson-nano", None)
    verdict = [(f["severity"], f["found"]) for f in record["findings"] if f["rule"] == "memory"]
    assert [v[0] for v in verdict] == ([severity] if severity else [])
    assert all(told in v[1] for v in verdict)


def test_shapes_that_are_not_fixed_are_told(tmp_path):
    made = model([("Relu", ["x"], ["y"], {})], {"x": ("f", ["n", 3, 8, 8])})
    onnx.save(made, tmp_path / "m.onnx")
    record = lint_file(str(tmp_path / "m.onnx"), "m", "jetson-tx2", None)
    assert any("2 tensors have no fixed shape (x, y" in f["found"] for f in record["findings"])
