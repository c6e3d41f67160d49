import numpy as np
import onnx
import pytest
from onnx import helper

from edgekit.conversion import graph as edits
from edgekit.runtime.errors import BadInput

from .graphs import f32, graph, run

X = {"x": ("float", [1, 3, 8, 8])}
RNG = np.random.default_rng(0)
IMAGE = RNG.normal(size=(1, 3, 8, 8)).astype(np.float32)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)
STD = np.array([57.0, 0.5, 3.0], np.float32).reshape(1, 3, 1, 1)


@pytest.mark.parametrize(
    ("name", "module"),
    [
        ("/detector/head/heatmap/heatmap.2/Conv", "head.heatmap.2"),
        (
            "/detector/backbone/stage2.0/branches.0/branches.0.1/body/body.0/body.0.0/Conv",
            "backbone.stage2.0.branches.0.1.body.0.0",
        ),
        ("/head/size/size.2/Conv", "head.size.2"),
        ("/Sigmoid", ""),
        ("Conv_12", ""),
    ],
)
def test_module_of(name, module):
    assert edits.module_of(name) == module


@pytest.mark.parametrize(
    ("nodes", "expected"),
    [
        ([("Add", ["i", "i"], ["o"], {})], ["n_o"]),
        ([("Shape", ["x"], ["s"], {}), ("Mul", ["s", "four"], ["o"], {})], ["n_o"]),
        ([("Equal", ["i", "i"], ["b"], {}), ("Where", ["b", "i", "four"], ["o"], {})], ["n_b", "n_o"]),
        ([("Gather", ["i", "four"], ["g"], {}), ("Reshape", ["g", "all"], ["o"], {})], []),
        ([("Add", ["x", "x"], ["y"], {}), ("Shape", ["y"], ["o"], {})], []),
    ],
)
def test_int64_arithmetic(nodes, expected):
    model = graph(
        nodes,
        {"i": ("int64", [4]), **X},
        {"o": ("int64", [4])},
        {"four": np.full(4, 3), "all": np.array([-1])},
    )
    assert edits.int64_arithmetic(model) == expected


@pytest.mark.parametrize(("kind", "scale"), [("Div", STD), ("Mul", 1 / STD)])
def test_the_inputs_scale_moves_into_the_weights(kind, scale):
    model = graph(
        [
            ("Sub", ["x", "mean"], ["a"], {}),
            (kind, ["a", "scale"], ["b"], {}),
            ("Conv", ["b", "w"], ["y"], {"pads": [1] * 4}),
        ],
        X,
        {"y": ("float", [1, 4, 8, 8])},
        {"mean": STD * 2, "scale": scale, "w": WEIGHT},
    )
    before = run(model, {"x": IMAGE})[0]
    assert edits.fold_input_scale(model) == 1
    assert [n.op_type for n in model.graph.node] == ["Sub", "Conv"]
    np.testing.assert_allclose(run(model, {"x": IMAGE})[0], before, atol=1e-4)


@pytest.mark.parametrize(
    "nodes",
    [
        [
            ("Div", ["x", "scale"], ["b"], {}),
            ("Conv", ["b", "w"], ["c"], {"pads": [1] * 4}),
            ("Add", ["c", "b"], ["y"], {}),
        ],
        [("Div", ["x", "scale"], ["b"], {}), ("Conv", ["b", "g"], ["y"], {"pads": [1] * 4, "group": 3})],
    ],
    ids=["also read by another node", "grouped"],
)
def test_the_scale_stays_where_folding_would_change_something(nodes):
    constants = {"scale": STD, "w": WEIGHT[:3], "g": WEIGHT[:3, :1]}
    model = graph(nodes, X, {"y": ("float", [1, 3, 8, 8])}, constants)
    assert edits.fold_input_scale(model) == 0
    assert len(model.graph.node) == len(nodes)


def test_tidy_shares_constants_but_not_biases_and_keeps_the_result():
    zeros = np.zeros(4, np.float32)
    model = graph(
        [
            ("Identity", ["b1"], ["b2"], {}),
            ("Conv", ["x", "w1", "b1"], ["c"], {"pads": [1] * 4}),
            ("Conv", ["c", "w2", "b2"], ["d"], {"pads": [1] * 4}),
            ("Add", ["d", "two"], ["e"], {}),
            ("Mul", ["e", "too"], ["y"], {}),
            ("Relu", ["x"], ["nobody"], {}),
        ],
        X,
        {"y": ("float", [1, 4, 8, 8])},
        {
            "w1": WEIGHT,
            "w2": RNG.normal(size=(4, 4, 3, 3)).astype(np.float32),
            "b1": zeros,
            "two": f32([2]),
            "too": f32([2]),
        },
    )
    before = run(model, {"x": IMAGE})[0]
    edits.tidy(model)
    assert [n.op_type for n in model.graph.node] == ["Conv", "Conv", "Add", "Mul"]
    first, second, add, mul = model.graph.node
    assert first.input[2] != second.input[2]
    assert add.input[1] == mul.input[1]
    assert len(model.graph.initializer) == 5
    np.testing.assert_array_equal(run(model, {"x": IMAGE})[0], before)


def test_constant_nodes_become_initializers():
    tensor = onnx.numpy_helper.from_array(f32([3]))
    model = graph([("Add", ["x", "three"], ["y"], {})], X, {"y": ("float", [1, 3, 8, 8])}, {"three": f32([3])})
    del model.graph.initializer[:]
    model.graph.node.insert(0, helper.make_node("Constant", [], ["three"], value=tensor))
    edits.constants_to_initializers(model)
    assert [n.op_type for n in model.graph.node] == ["Add"]
    np.testing.assert_allclose(run(model, {"x": IMAGE})[0], IMAGE + 3)


def test_roles_in_a_small_detector():
    model = graph(
        [
            ("Add", ["x", "one"], ["prepared"], {}),
            ("Conv", ["prepared", "w"], ["c1"], {"pads": [1] * 4}),
            ("Relu", ["c1"], ["r"], {}),
            ("Conv", ["r", "v"], ["c2"], {}),
            ("Conv", ["r", "v"], ["c3"], {}),
            ("Sigmoid", ["c2"], ["s"], {}),
            ("Mul", ["s", "c3"], ["y"], {}),
        ],
        X,
        {"y": ("float", [1, 2, 8, 8])},
        {"one": f32([1]), "w": WEIGHT, "v": RNG.normal(size=(2, 4, 1, 1)).astype(np.float32)},
    )
    assert [n.name for n in edits.weighted_layers(model)] == ["n_c1", "n_c2", "n_c3"]
    assert [n.name for n in edits.last_layers(model)] == ["n_c2", "n_c3"]
    assert edits.inner_nodes(model) == {"n_c1", "n_r", "n_c2", "n_c3"}


def test_the_body_ends_at_the_last_layers():
    nodes = [("Conv", ["x", "w"], ["c"], {"pads": [1] * 4}), ("Relu", ["c"], ["r"], {}), ("Log", ["r"], ["y"], {})]
    model = graph(nodes, X, {"y": ("float", [1, 4, 8, 8])}, {"w": WEIGHT})
    body = edits.body_of(model)
    assert [n.op_type for n in body.graph.node] == ["Conv"]
    assert [v.name for v in body.graph.output] == ["c"]
    assert len(model.graph.node) == 3
    np.testing.assert_allclose(
        np.maximum(run(body, {"x": IMAGE})[0], 0), np.exp(run(model, {"x": IMAGE})[0]), atol=1e-5
    )


def test_names_become_unique():
    model = graph([("Relu", ["x"], ["a"], {}), ("Relu", ["a"], ["y"], {})], X, {"y": ("float", [1, 3, 8, 8])})
    model.graph.node[0].name = model.graph.node[1].name = ""
    edits.name_nodes(model)
    assert len({n.name for n in model.graph.node} - {""}) == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "not a readable ONNX file"),
        (b"\x08\x07\x12\xff\xff\xff", "not a readable ONNX file"),
    ],
    ids=["missing", "empty", "damaged"],
)
def test_bad_files_are_named(content, message, tmp_path):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=rf"model\.onnx: {message}"):
        edits.load_model(path)


def test_a_truncated_file_is_named(pixels, tmp_path):
    path = tmp_path / "model.onnx"
    with open(pixels.file("model.onnx"), "rb") as handle:
        path.write_bytes(handle.read(100_000))
    with pytest.raises(BadInput, match=r"model\.onnx: not a readable ONNX file"):
        edits.load_model(path)


def test_deformable_convolutions_do_not_share_their_bias_either():
    nodes = [
        ("DeformConv", ["x", "w", "offset", "b"], ["y"], {"kernel_shape": [3, 3], "pads": [1] * 4}),
        ("DeformConv", ["y", "v", "offset", "b"], ["o"], {"kernel_shape": [3, 3], "pads": [1] * 4}),
    ]
    constants = {"w": RNG.normal(size=(3, 3, 3, 3)).astype(np.float32), "b": np.zeros(3, np.float32)}
    constants |= {"v": RNG.normal(size=(3, 3, 3, 3)).astype(np.float32)}
    offset = {"offset": ("float", [1, 18, 8, 8])}
    model = graph(nodes, {**X, **offset}, {"o": ("float", [1, 3, 8, 8])}, constants, opset=19)
    edits.tidy(model)
    onnx.checker.check_model(model, full_check=True)
    assert [list(node.input) for node in model.graph.node] == [
        ["x", "w", "offset", "b"],
        ["y", "v", "offset", "v.bias"],
    ]


# -- bodies -----------------------------------------------------------------------------------------------------------
def branching():
    """A convolution whose map an If's branches read, one of them with a constant that nobody else reads."""
    kind, shape = onnx.TensorProto.FLOAT, [1, 4, 6, 6]
    then = helper.make_graph(
        [helper.make_node("Mul", ["same", "two"], ["t"])], "then", [], [helper.make_tensor_value_info("t", kind, shape)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["same"], ["e"])], "else", [], [helper.make_tensor_value_info("e", kind, shape)]
    )
    branches = {"then_branch": then, "else_branch": other}
    return graph(
        [
            ("Conv", ["x", "w"], ["c"], {}),
            ("Identity", ["c"], ["same"], {}),
            ("If", ["yes"], ["i"], branches),
            ("Conv", ["i", "v"], ["o"], {}),
        ],
        X,
        {"o": ("float", [1, 2, 6, 6])},
        {
            "w": WEIGHT,
            "v": RNG.normal(size=(2, 4, 1, 1)).astype(np.float32),
            "two": np.float32([2]),
            "again": np.float32([2]),
            "yes": np.array(True),
        },
    )


def test_what_a_body_reads_is_kept_and_follows_a_new_name():
    model = branching()
    before = run(model, {"x": IMAGE})
    edits.tidy(model)
    onnx.checker.check_model(model, full_check=True)
    assert [n.op_type for n in model.graph.node] == ["Conv", "If", "Conv"]
    assert {t.name for t in model.graph.initializer} == {"w", "v", "two", "yes"}
    assert np.array_equal(run(model, {"x": IMAGE})[0], before[0])
