"""Lint on small graphs: each finding by its rule, severity, node and words; and files that should pass."""

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.board import load_board
from edgekit.conversion.findings import Graph
from edgekit.conversion.foreign import infer
from edgekit.conversion.lint import lint, lint_file
from edgekit.conversion.operators import load_operators
from edgekit.conversion.rules_file import tensorrt_findings
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.errors import BadConfig, BadInput, BoardLacks, MissingDependency

KINDS = {
    "f": TensorProto.FLOAT,
    "h": TensorProto.FLOAT16,
    "u8": TensorProto.UINT8,
    "i8": TensorProto.INT8,
    "i32": TensorProto.INT32,
    "i64": TensorProto.INT64,
    "b": TensorProto.BOOL,
    "d": TensorProto.DOUBLE,
}
IMAGE = {"x": ("f", [1, 8, 16, 16])}
VECTOR = {"x": ("f", [1, 5000])}


def f32(*values):
    return np.array(values, np.float32)


def i64(*values):
    return np.array(values, np.int64)


def model(nodes, inputs, constants=None, opset=13, outputs=None):
    """nodes: (operator, inputs, outputs, attributes); the last node's outputs are the graph's."""
    made = [
        helper.make_node(kind, i, o, name=f"/detector/head/{kind}_{n}", **a) for n, (kind, i, o, a) in enumerate(nodes)
    ]
    values = [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, (kind, shape) in inputs.items()]
    ends = outputs or {name: ("f", None) for name in nodes[-1][2] if name}
    ends = [helper.make_tensor_value_info(name, KINDS[kind], shape) for name, (kind, shape) in ends.items()]
    tensors = [numpy_helper.from_array(np.asarray(value), name) for name, value in (constants or {}).items()]
    graph = helper.make_graph(made, "g", values, ends, tensors)
    finished = infer(helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=7))
    for value in finished.graph.output:
        value.type.tensor_type.shape.SetInParent()  # a file must say something, be it nothing
    return finished


def found(made, board="jetson-tx2", release=None):
    profile = load_board(board)
    stack = profile.stack(release)
    graph = Graph(infer(made), profile, stack, load_operators(stack.operators))
    return list(tensorrt_findings(graph))


def one(made, rule, board="jetson-tx2", release=None):
    """The single finding of a rule."""
    hits = [f for f in found(made, board, release) if f.rule == rule]
    assert len(hits) == 1, [(f.rule, f.found) for f in found(made, board, release)]
    return hits[0]


# -- one case a row: the graph, the rule, the severity, words of the finding, words of the advice ----------------------
def topk(k):
    return model([("TopK", ["x", "k"], ["v", "i"], {})], VECTOR, {"k": i64(k)})


def resize(opset=13, scales=None, **attributes):
    more = {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", **attributes}
    return model(
        [("Resize", ["x", "", "s"], ["y"], more)], IMAGE, {"s": f32(1, 1, 2, 2) if scales is None else scales}, opset
    )


def quantized(zero, scale=0.1, **attributes):
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], attributes),
        ("DequantizeLinear", ["q", "s", "z"], ["y"], attributes),
    ]
    return model(nodes, IMAGE, {"s": np.asarray(scale, np.float32), "z": zero})


def weights(axis, operator="Conv"):
    """An FP32 weight with a scale per channel, quantized and dequantized along ``axis``."""
    constants = {"w": np.ones((8, 8, 3, 3), np.float32), "s": np.full(8, 0.1, np.float32), "z": np.zeros(8, np.int8)}
    nodes = [
        ("QuantizeLinear", ["w", "s", "z"], ["q"], {"axis": axis}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {"axis": axis}),
        (operator, ["x", "d"], ["y"], {}),
    ]
    return model(nodes, IMAGE, constants)


def stored(kind=np.int8):
    """A weight that the file holds in INT8, dequantized only."""
    constants = {"w": np.ones((8, 8, 3, 3), kind), "s": np.full(8, 0.1, np.float32), "z": np.zeros(8, kind)}
    nodes = [("DequantizeLinear", ["w", "s", "z"], ["d"], {"axis": 0}), ("Conv", ["x", "d"], ["y"], {})]
    return model(nodes, IMAGE, constants)


def nms(**attributes):
    inputs = {"b": ("f", [1, 100, 4]), "s": ("f", [1, 100, 3])}
    kinds = {"n": ("i32", [1, 1]), "o": ("f", [1, 10, 4]), "p": ("f", [1, 10]), "c": ("i32", [1, 10])}
    return model([("EfficientNMS_TRT", ["b", "s"], list(kinds), attributes)], inputs, outputs=kinds)


CASES = {
    "topk": (topk(3841), "topk", "error", "K = 3841", "Keep at most 3840"),
    "topk computed": (
        model(
            [("Shape", ["x"], ["s"], {}), ("Slice", ["s", "a", "b"], ["k"], {}), ("TopK", ["x", "k"], ["v", "i"], {})],
            {"x": ("f", [1, "n"])},
            {"a": i64(1), "b": i64(2)},
        ),
        "topk",
        "error",
        "K is computed",
        "static shapes",
    ),
    "hardswish": (
        model([("HardSwish", ["x"], ["y"], {})], IMAGE, opset=14),
        "operator",
        "error",
        "TensorRT 8.2 has no HardSwish",
        "opset 13",
    ),
    "nonzero": (
        model([("NonZero", ["x"], ["y"], {})], IMAGE, outputs={"y": ("i64", [4, "n"])}),
        "operator",
        "error",
        "no NonZero",
        "TopK",
    ),
    "custom domain": (
        model([("Swish", ["x"], ["y"], {"domain": "my.ops"})], IMAGE),
        "operator",
        "error",
        "no Swish (domain 'my.ops')",
        "Replace it",
    ),
    "type": (
        model([("ArgMax", ["x"], ["y"], {})], {"x": ("i32", [1, 9])}, outputs={"y": ("i64", [1, 9])}),
        "type",
        "error",
        "ArgMax of INT32 (x)",
        "Cast to FP32",
    ),
    "bool where": (
        model([("Where", ["c", "x", "x"], ["y"], {})], {"x": ("u8", [4]), "c": ("b", [4])}, outputs={"y": ("u8", [4])}),
        "input-type",
        "error",
        "'x' is uint8",
        "float input",
    ),
    "resize cubic": (resize(mode="cubic"), "resize", "error", "'cubic'", "bilinear"),
    "resize crop": (
        resize(coordinate_transformation_mode="tf_crop_and_resize"),
        "resize",
        "error",
        "tf_crop_and_resize",
        "half_pixel",
    ),
    "resize rounding": (
        resize(coordinate_transformation_mode="tf_half_pixel_for_nn", nearest_mode="floor"),
        "resize",
        "error",
        "'floor'",
        "round_prefer_floor",
    ),
    "resize axes": (resize(opset=18, scales=f32(2, 2), axes=[2, 3]), "resize", "error", "axes = [2, 3]", "every axis"),
    "resize policy": (
        resize(opset=18, keep_aspect_ratio_policy="not_smaller"),
        "resize",
        "error",
        "keep_aspect_ratio_policy = not_smaller",
        "without it",
    ),
    "resize antialias": (resize(opset=18, antialias=1), "resize", "error", "antialias = 1", "without it"),
    "constant without a tensor": (
        model([("Constant", [], ["c"], {"value_float": 1.0}), ("Add", ["x", "c"], ["y"], {})], IMAGE),
        "constant",
        "warning",
        "value_float",
        "import-onnx",
    ),
    "resize channels": (
        model(
            [("Resize", ["x", "", "s"], ["y"], {"mode": "linear"})],
            {"x": ("f", [1, 2, 3, 4, 5])},
            {"s": f32(1, 2, 1, 1, 1)},
        ),
        "resize",
        "error",
        "last three",
        "height and width",
    ),
    "pool indices": (
        model([("MaxPool", ["x"], ["y", "i"], {"kernel_shape": [2, 2]}), ("Cast", ["i"], ["f"], {"to": 1})], IMAGE),
        "pool",
        "error",
        "indices",
        "Do without",
    ),
    "pool indices as output": (
        model(
            [("MaxPool", ["x"], ["y", "i"], {"kernel_shape": [2, 2]})],
            IMAGE,
            outputs={"y": ("f", None), "i": ("i64", None)},
        ),
        "pool",
        "error",
        "indices",
        "Do without",
    ),
    "pool dilation": (
        model([("MaxPool", ["x"], ["y"], {"kernel_shape": [2, 2], "dilations": [2, 2]})], IMAGE),
        "pool",
        "error",
        "dilations [2, 2]",
        "larger kernel",
    ),
    "pad wrap": (
        model([("Pad", ["x", "p"], ["y"], {"mode": "wrap"})], IMAGE, {"p": i64(0, 0, 1, 1, 0, 0, 1, 1)}),
        "pad",
        "error",
        "'wrap'",
        "edge",
    ),
    "clip computed": (
        model([("ReduceMax", ["x"], ["m"], {"keepdims": 0}), ("Clip", ["x", "", "m"], ["y"], {})], IMAGE),
        "constant",
        "error",
        "max of Clip",
        "constant",
    ),
    "float range": (
        model(
            [("ReduceMax", ["x"], ["m"], {"keepdims": 0}), ("Range", ["a", "m", "b"], ["y"], {})],
            IMAGE,
            {"a": np.float32(0), "b": np.float32(1)},
        ),
        "range",
        "error",
        "floating-point",
        "grid",
    ),
    "einsum": (
        model([("Einsum", ["x", "x"], ["y"], {"equation": "...ij,...jk->...ik"})], IMAGE),
        "einsum",
        "error",
        "ellipsis",
        "MatMul",
    ),
    "scatter": (
        model(
            [("ScatterND", ["x", "i", "u"], ["y"], {"reduction": "add"})],
            {"x": ("f", [8]), "u": ("f", [1])},
            {"i": np.zeros((1, 1), np.int64)},
            opset=16,
        ),
        "scatter",
        "error",
        "'add'",
        "without",
    ),
    "cast double": (
        model([("Cast", ["x"], ["y"], {"to": TensorProto.DOUBLE})], IMAGE, outputs={"y": ("d", [1, 8, 16, 16])}),
        "cast",
        "warning",
        "clamped",
        "FP32",
    ),
    "agnostic": (nms(class_agnostic=1, score_threshold=0.1), "plugin-attribute", "error", "per class", "8.6"),
    "agnostic off": (nms(class_agnostic=0, score_threshold=0.1), "plugin-attribute", "note", "not read", "Remove"),
    "slow nms": (nms(score_threshold=0.001), "nms", "warning", "slow path", "0.01"),
    "opset": (model([("Relu", ["x"], ["y"], {})], IMAGE, opset=17), "opset", "error", "opset 17", "opset_version=13"),
    "uint8 input": (
        model([("Cast", ["x"], ["y"], {"to": 1})], {"x": ("u8", [1, 4, 4, 3])}),
        "input-type",
        "error",
        "UINT8 from TensorRT 8.5",
        "float input",
    ),
    "dynamic": (
        model([("Relu", ["x"], ["y"], {})], {"x": ("f", ["n", 3, 8, 8])}),
        "dynamic-shape",
        "error",
        "[?, 3, 8, 8]",
        "import-onnx",
    ),
    "int8": (quantized(np.int8(0)), "int8", "error", "2 Q/DQ nodes) for sm_62", "FP32 file"),
    "fp16 range": (
        model([("Add", ["x", "c"], ["y"], {})], IMAGE, {"c": f32(1e9)}),
        "fp16-range",
        "warning",
        "1e+09",
        "FP32",
    ),
    "wide int64": (
        model([("Add", ["x", "c"], ["y"], {})], {"x": ("i64", [4])}, {"c": i64(2**40)}, outputs={"y": ("i64", [4])}),
        "int64",
        "error",
        "range of INT32",
        "smaller",
    ),
    "wide int64 that is carried": (
        model(
            [
                ("Unsqueeze", ["c", "a"], ["u"], {}),
                ("Concat", ["u", "u"], ["v"], {"axis": 0}),
                ("Add", ["x", "v"], ["y"], {}),
            ],
            {"x": ("i64", [2])},
            {"c": np.int64(2**40), "a": i64(0)},
            outputs={"y": ("i64", [2])},
        ),
        "int64",
        "error",
        "range of INT32",
        "smaller",
    ),
    "if": (
        model(
            [
                (
                    "If",
                    ["c"],
                    ["y"],
                    {
                        f"{name}_branch": helper.make_graph(
                            [helper.make_node("Mish", ["x"], [name], name=f"in_{name}")],
                            name,
                            [],
                            [helper.make_tensor_value_info(name, TensorProto.FLOAT, [1])],
                        )
                        for name in ("then", "else")
                    },
                )
            ],
            {"c": ("b", []), "x": ("f", [1])},
            opset=18,
        ),
        "control-flow",
        "warning",
        "restricted",
        "forward()",
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_what_tensorrt_8_2_refuses(name):
    made, rule, severity, told, advice = CASES[name]
    hits = [f for f in found(made) if f.rule == rule and told in f.found]
    assert hits, [(f.rule, f.found) for f in found(made)]
    finding = hits[0]
    assert finding.severity == severity
    assert advice in finding.advice


def test_a_finding_names_the_node_its_operator_and_the_module():
    finding = one(topk(4000), "topk")
    assert (finding.node, finding.op, finding.module) == ("/detector/head/TopK_0", "TopK", "head")


def test_nodes_inside_a_branch_are_looked_at_too():
    assert {f.node for f in found(CASES["if"][0]) if f.rule == "operator"} == {"in_then", "in_else"}


@pytest.mark.parametrize(
    ("made", "told"),
    [
        (quantized(np.int8(3)), "zero point 3"),
        (quantized(np.uint8(0)), "UINT8"),
        (quantized(np.int8(0), 0.0), "not positive"),
        (weights(1), "along axis 1; the output channels are axis 0"),
        (weights(0, "ConvTranspose"), "along axis 0; the output channels are axis 1"),
        (
            model(
                [("DequantizeLinear", ["w", "s", "z"], ["y"], {})],
                IMAGE,
                {"w": np.ones(8, np.int32), "s": f32(0.1)[0], "z": np.int32(0)},
            ),
            "INT32",
        ),
        (stored(), "weights stored in INT8"),
    ],
)
def test_int8_that_tensorrt_refuses_where_the_board_has_int8(made, told):
    hits = [f for f in found(made, "jetson-xavier-nx") if f.rule == "qdq"]
    assert any(told in f.found for f in hits), hits
    assert all(f.severity == "error" for f in hits)


@pytest.mark.parametrize(
    ("made", "board", "severity", "told"),
    [
        (
            quantized(np.zeros(8, np.int8), [0.1] * 8, axis=1),
            "jetson-xavier-nx",
            "warning",
            "8 scales for an activation",
        ),
        (weights(1), "jetson-xavier-nx", "error", "along axis 1"),
        (weights(1), "desktop-gpu", "warning", "along axis 1"),
    ],
)
def test_scales_of_channels_that_cannot_be_fused(made, board, severity, told):
    assert {f.severity for f in found(made, board) if told in f.found} == {severity}


@pytest.mark.parametrize("made", [quantized(np.int8(0)), weights(0), weights(1, "ConvTranspose")])
def test_symmetric_int8_passes_where_the_board_has_int8(made):
    assert [f for f in found(made, "jetson-xavier-nx") if f.severity == "error"] == []


LAST = np.int64(np.iinfo(np.int64).max)  # what "to the end" is in the files of PyTorch


def test_the_end_of_a_slice_may_be_carried_there_by_other_nodes():
    nodes = [
        ("Unsqueeze", ["end", "axis"], ["e"], {}),
        ("Cast", ["e"], ["f"], {"to": TensorProto.INT64}),
        ("Concat", ["f", "f"], ["g"], {"axis": 0}),
        ("Identity", ["g"], ["h"], {}),
        ("Reshape", ["h", "two"], ["ends"], {}),
        ("Slice", ["x", "starts", "ends"], ["y"], {}),
    ]
    constants = {"end": LAST, "axis": i64(0), "two": i64(2), "starts": i64(0, 0)}
    assert [f for f in found(model(nodes, IMAGE, constants)) if f.rule == "int64"] == []
    narrow = [
        nodes[0],
        ("Cast", ["e"], ["f"], {"to": TensorProto.INT32}),
        *nodes[2:4],
        ("Slice", ["x", "s", "h"], ["y"], {}),
    ]
    made = model(narrow, IMAGE, {**constants, "s": np.zeros(2, np.int32)})
    assert one(made, "int64").op == "Cast"  # ONNX makes -1 of it


def plain(**value):
    """A Constant whose numbers are an attribute."""
    return ("Constant", [], [f"c{next(iter(value))}"], value)


def test_constants_without_a_tensor_are_constants():
    nodes = [
        plain(value_floats=[1.0, 1.0, 2.0, 2.0]),
        plain(value_float=0.0),
        plain(value_ints=[5]),
        plain(value_int=2),
        ("Resize", ["x", "", "cvalue_floats"], ["r"], {"mode": "nearest"}),
        ("Clip", ["r", "cvalue_float"], ["c"], {}),
        ("Unsqueeze", ["cvalue_int", "zero"], ["axes"], {}),
        ("Unsqueeze", ["c", "axes"], ["u"], {}),
        ("TopK", ["u", "cvalue_ints"], ["v", "i"], {}),
    ]
    made = model(nodes, IMAGE, {"zero": i64(0)})
    assert [f for f in found(made) if f.severity == "error"] == []
    assert [f for f in found(made, "jetson-orin-nano", "5.1.2") if f.rule == "constant"] == []  # 8.5 reads them


@pytest.mark.parametrize(
    ("made", "board", "release", "rules"),
    [
        (resize(axes=[0, 1, 2, 3], opset=18), "jetson-orin-nano", None, set()),
        (resize(scales=f32(2, 2), axes=[2, 3], opset=18), "jetson-orin-nano", None, {"resize"}),
        (resize(scales=f32(2, 2), axes=[-2, -1], opset=18), "jetson-orin-nano", None, {"resize"}),
        (topk(3840), "jetson-tx2", None, set()),
        (resize(), "jetson-tx2", None, set()),
        (nms(class_agnostic=1, score_threshold=0.1), "jetson-orin-nano", None, set()),
        (nms(class_agnostic=1, score_threshold=0.1), "jetson-orin-nano", "5.1.2", {"plugin-attribute"}),
        (model([("HardSwish", ["x"], ["y"], {})], IMAGE, opset=14), "jetson-orin-nano", "5.1.2", set()),
        (stored(), "jetson-orin-nano", None, set()),
        (stored(), "jetson-orin-nano", "5.1.2", {"qdq"}),
        (stored(), "jetson-xavier-nx", "4.6.6", {"qdq"}),
        (model([("Cast", ["x"], ["y"], {"to": 1})], {"x": ("u8", [1, 4, 4, 3])}), "jetson-orin-nano", None, set()),
        (model([("Relu", ["x"], ["y"], {})], IMAGE, opset=17), "jetson-xavier-nx", "35.4.1", set()),
        (model([("Relu", ["x"], ["y"], {})], IMAGE, opset=17), "jetson-xavier-nx", "32.7.6", {"opset"}),
        (
            model([("NonZero", ["x"], ["y"], {})], IMAGE, outputs={"y": ("i64", [4, "n"])}),
            "jetson-agx-orin",
            None,
            {"data-dependent"},
        ),
    ],
)
def test_each_release_has_its_own_rules(made, board, release, rules):
    assert {f.rule for f in found(made, board, release)} == rules


def test_batched_nms_is_gone_from_11():
    made = model([("BatchedNMS_TRT", ["x"], ["y"], {})], IMAGE)
    assert one(made, "plugin", "desktop-gpu", "TensorRT 11").severity == "error"
    assert [f for f in found(made, "desktop-gpu", "TensorRT 10") if f.rule == "plugin"] == []


# -- the verb ---------------------------------------------------------------------------------------------------------
def saved(made, folder):
    onnx.save(made, folder / "m.onnx")
    return folder / "m.onnx"


def test_lint_runs_in_a_child_and_sorts_by_severity(tmp_path):
    made = model(
        [("HardSwish", ["x"], ["y"], {}), ("TopK", ["y", "k"], ["v", "i"], {})], VECTOR, {"k": i64(5)}, opset=14
    )
    report = lint(saved(made, tmp_path), board="jetson-tx2")
    assert report.stack == "JetPack 4.6.1 - 4.6.6"
    assert [f.rule for f in report.findings if f.severity == "error"] == ["opset", "operator"]
    assert report.findings[-1].rule == "contract"
    record = report.to_dict()
    assert (record["errors"], record["ok"], record["facts"]["opset"]) == (2, False, 14)
    assert record["facts"]["operators"] == {"HardSwish": 1, "TopK": 1}


def test_a_release_that_the_profile_does_not_list_is_told(tmp_path):
    (note,) = [
        f
        for f in lint(saved(topk(5), tmp_path), board="jetson-xavier-nx", release="35.6.5").findings
        if f.rule == "release"
    ]
    assert note.severity == "note"
    assert note.found.endswith("taken for JetPack 5.1.3 - 5.1.6")
    assert note.advice == "See whether the board has TensorRT 8.5.2."


@pytest.mark.parametrize("beside", [True, False])
def test_an_advice_names_what_is_known(tmp_path, beside):
    """The checkpoint that an artifact was made of, where it is found, and the board."""
    with new_artifact(tmp_path / "mine", "checkpoint", {"classes": ["car"]}):
        pass
    parents = {"checkpoint": read_artifact(tmp_path / "mine").digest if beside else "0" * 64}
    with new_artifact(tmp_path / "mine-onnx", "onnx", {"classes": ["car"], "parents": parents}) as folder:
        onnx.save(model([("Cast", ["x"], ["y"], {"to": 1})], {"x": ("u8", [1, 8, 16, 3])}), f"{folder}/model.onnx")
    (advice,) = [f.advice for f in lint(tmp_path / "mine-onnx").findings if f.rule == "input-type"]
    assert f"edgekit export {tmp_path / 'mine' if beside else 'CHECKPOINT'} --board jetson-tx2 takes" in advice


def test_a_cpu_board_knows_every_onnx_operator_and_no_plugin(tmp_path):
    assert [f["rule"] for f in lint_file(str(saved(topk(4000), tmp_path)), "m", "x86", None)["findings"]] == [
        "contract"
    ]
    plugin = lint_file(str(saved(nms(score_threshold=0.1), tmp_path)), "m", "x86", None)
    assert [(f["severity"], f["rule"]) for f in plugin["findings"]] == [("error", "operator"), ("note", "contract")]


def test_signed_activations_are_slow_on_a_cpu(tmp_path):
    found_there = lint_file(str(saved(quantized(np.int8(0)), tmp_path)), "m", "x86", None)["findings"]
    assert next(f["found"] for f in found_there if f["rule"] == "int8").startswith("1 activation in signed INT8")


def test_a_recipe_without_pytorch_is_told_before_any_child(monkeypatch):
    monkeypatch.setattr("edgekit.extras.find_spec", lambda name: None)
    monkeypatch.setattr("edgekit.conversion.lint.run_in_child", lambda *_: pytest.fail("a child was started"))
    with pytest.raises(MissingDependency, match=r"^torch is not installed.*pip install 'edgekit\[train\]'"):
        lint("mobile-centernet-w16-dhaka")


@pytest.mark.parametrize(
    ("source", "board", "release", "error", "told"),
    [
        ("nothing", "jetson-tx2", None, BadConfig, "no ONNX file, artifact folder or recipe named 'nothing'"),
        ("refinedetlite-dhakka", "jetson-tx2", None, BadConfig, "Did you mean refinedetlite-dhaka"),
        ("no/where", "jetson-tx2", None, BadInput, "no such ONNX file or folder.*export RECIPE --board jetson-tx2"),
        ("nothing.onnx", "jetson-tx2", None, BadInput, "no such file"),
        ("nothing.onnx", "jetson-tx3", None, BadConfig, "Did you mean jetson-tx2"),
        ("nothing.onnx", "jetson-tx2", "36.4.0", BoardLacks, "no software stack '36.4.0'"),
        ("nothing.onnx", "x86", "36.4.0", BoardLacks, "leave --release out"),
    ],
)
def test_mistakes_in_the_call(source, board, release, error, told):
    with pytest.raises(error, match=told):
        lint(source, board=board, release=release)
