from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from edgekit.measure import conventions
from edgekit.measure.complexity import complexity
from edgekit.measure.graph import load_graph
from edgekit.measure.layers import macs_of_nodes
from edgekit.models.zoo import build
from edgekit.runtime.errors import BadConfig, BadInput
from tests.conversion.graphs import graph

X = {"x": ("float", [1, 4, 10, 8])}


def ones(*shape):
    return np.ones(shape, np.float32)


@pytest.fixture
def save(tmp_path):
    def write(*arguments, **more) -> Path:
        path = tmp_path / "model.onnx"
        onnx.save(graph(*arguments, **more), path)
        return path

    return write


@pytest.mark.parametrize(
    ("node", "weights", "output", "macs", "parameters"),
    [
        (("Conv", {"pads": [1] * 4}), [(6, 4, 3, 3), (6,)], [1, 6, 10, 8], 10 * 8 * 6 * 4 * 9, 6 * 4 * 9 + 6),
        (("Conv", {"strides": [2, 2]}), [(6, 4, 1, 1)], [1, 6, 5, 4], 5 * 4 * 6 * 4, 24),
        (("Conv", {"group": 4, "pads": [1] * 4}), [(4, 1, 3, 3)], [1, 4, 10, 8], 10 * 8 * 4 * 9, 36),
        (("ConvTranspose", {"strides": [2, 2]}), [(4, 6, 2, 2), (6,)], [1, 6, 20, 16], 10 * 8 * 4 * 6 * 4, 102),
        (("MatMul", {}), [(8, 5)], [1, 4, 10, 5], 4 * 10 * 8 * 5, 40),
        (("PRelu", {}), [(4, 1, 1)], [1, 4, 10, 8], 0, 4),
        (("Add", {}), [(1, 4, 10, 8)], [1, 4, 10, 8], 0, 0),
    ],
    ids=["conv", "strided conv without bias", "depthwise", "transposed", "matmul", "prelu", "a grid is no parameter"],
)
def test_operators(save, node, weights, output, macs, parameters):
    names = [f"w{k}" for k in range(len(weights))]
    constants = {name: ones(*shape) for name, shape in zip(names, weights, strict=True)}
    path = save([(node[0], ["x", *names], ["y"], node[1])], X, {"y": ("float", output)}, constants)
    found = complexity(path)
    assert (found.macs, found.parameters) == (macs, parameters)
    assert found.gops == 2 * macs / 1e9


@pytest.mark.parametrize("transposed", [0, 1])
def test_gemm(save, transposed):
    nodes = [("Gemm", ["a", "w", "b"], ["y"], {"transA": transposed})]
    shape = [7, 3] if transposed else [3, 7]
    found = complexity(save(nodes, {"a": ("float", shape)}, {"y": ("float", [3, 5])}, {"w": ones(7, 5), "b": ones(5)}))
    assert (found.macs, found.parameters) == (3 * 7 * 5, 40)


def test_products_of_activations_have_no_parameters_and_linear_biases_have(save):
    nodes = [
        ("MatMul", ["x", "w"], ["l"], {}),
        ("Add", ["b", "l"], ["k"], {}),
        ("Transpose", ["k"], ["t"], {"perm": [0, 1, 3, 2]}),
        ("MatMul", ["k", "t"], ["y"], {}),
    ]
    found = complexity(save(nodes, X, {"y": ("float", [1, 4, 10, 10])}, {"w": ones(8, 5), "b": ones(5)}))
    assert found.macs == 4 * 10 * 8 * 5 + 4 * 10 * 5 * 10
    assert found.parameters == 45
    assert [(layer.kind, layer.macs, layer.parameters) for layer in found.layers] == [
        ("MatMul", 1600, 40),
        ("Add", 0, 5),
        ("MatMul", 2000, 0),
    ]


def test_a_deformable_convolution_has_weights_and_its_offsets_are_none(save):
    constants = {"w": ones(6, 4, 1, 1), "o": ones(1, 2, 10, 8), "b": ones(6)}
    nodes = [("DeformConv", ["x", "w", "o", "b"], ["y"], {})]
    found = complexity(save(nodes, X, {"y": ("float", [1, 6, 10, 8])}, constants, opset=19))
    assert (found.macs, found.parameters) == (80 * 24, 30)


def test_shared_weights_count_once_and_work_twice(save):
    nodes: list[Any] = [("Conv", ["x", "w"], ["a"], {}), ("Conv", ["a", "w"], ["y"], {})]
    found = complexity(save(nodes, X, {"y": ("float", [1, 4, 10, 8])}, {"w": ones(4, 4, 1, 1)}))
    assert (found.macs, found.parameters) == (2 * 80 * 16, 16)


def test_quantized_weights_are_looked_through(save):
    nodes = [
        ("QuantizeLinear", ["x", "s", "z"], ["q"], {}),
        ("DequantizeLinear", ["q", "s", "z"], ["d"], {}),
        ("DequantizeLinear", ["w", "ws", "wz"], ["wd"], {"axis": 0}),
        ("DequantizeLinear", ["b", "ws", "bz"], ["bd"], {"axis": 0}),
        ("Conv", ["d", "wd", "bd"], ["y"], {}),
    ]
    constants = {
        "s": np.float32(0.1),
        "z": np.uint8(3),
        "w": np.ones((6, 4, 1, 1), np.int8),
        "ws": ones(6),
        "wz": np.zeros(6, np.int8),
        "b": np.ones(6, np.int32),
        "bz": np.zeros(6, np.int32),
    }
    found = complexity(save(nodes, X, {"y": ("float", [1, 6, 10, 8])}, constants))
    assert (found.macs, found.parameters) == (80 * 24, 30)


def test_float_weights_behind_a_pair_are_looked_through(save):
    """As the flavour trt stores them."""
    nodes = [
        ("QuantizeLinear", ["w", "ws", "wz"], ["wq"], {"axis": 0}),
        ("DequantizeLinear", ["wq", "ws", "wz"], ["wd"], {"axis": 0}),
        ("Conv", ["x", "wd", "b"], ["y"], {}),
    ]
    constants = {"w": ones(6, 4, 1, 1), "ws": ones(6), "wz": np.zeros(6, np.int8), "b": ones(6)}
    found = complexity(save(nodes, X, {"y": ("float", [1, 6, 10, 8])}, constants))
    assert (found.macs, found.parameters) == (80 * 24, 30)


def test_a_symbolic_batch_counts_as_one(save):
    path = save([("Conv", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    assert complexity(opened(path, 0)).macs == 80 * 24


def opened(path, *axes):
    """The same file with open dimensions in its input and nothing said of its output."""
    model = onnx.load(path)
    for axis in axes:
        model.graph.input[0].type.tensor_type.shape.dim[axis].dim_param = f"d{axis}"
    model.graph.output[0].type.tensor_type.ClearField("shape")
    onnx.save(model, path)
    return path


def test_an_open_size_is_no_image_of_one_pixel(save):
    path = save([("Conv", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    told = r"'x' leaves its sizes open .*axis 2 is 'd2', axis 3 is 'd3'.*--input_shape 1,4,SIZE,SIZE"
    with pytest.raises(BadInput, match=told):
        complexity(opened(path, 0, 2, 3))


@pytest.mark.parametrize("batch", [0, -1])
def test_a_batch_of_zero_is_an_open_one(save, batch):
    """Some exporters write it so, in the results too."""
    nodes: list[Any] = [("Conv", ["x", "w"], ["a"], {}), ("Relu", ["a"], ["y"], {})]
    path = save(nodes, X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    model = onnx.load(path)
    between = onnx.helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, [batch, 6, 10, 8])
    model.graph.value_info.append(between)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.shape.dim[0].dim_value = batch
    onnx.save(model, path)
    found = complexity(path)
    assert (found.macs, found.batch, found.layers[0].output) == (80 * 24, 1, (1, 6, 10, 8))
    assert found.activation_bytes == 2 * 80 * 6 * 4


def test_a_size_of_zero_is_an_open_one(save):
    path = save([("Conv", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.shape.dim[2].dim_value = 0
    onnx.save(model, path)
    with pytest.raises(BadInput, match=r"leaves its sizes open \(axis 2 is 0\)"):
        complexity(path)


def test_an_empty_constant_that_is_listed_among_the_inputs_is_no_open_one(save):
    """Older files list their constants there; the regions of Resize are often empty."""
    nodes = [("Resize", ["x", "roi", "scales"], ["y"], {"mode": "nearest"})]
    path = save(nodes, X, {"y": ("float", [1, 4, 20, 16])}, {"roi": ones(0), "scales": np.float32([1, 1, 2, 2])})
    model = onnx.load(path)
    model.graph.input.append(onnx.helper.make_tensor_value_info("roi", onnx.TensorProto.FLOAT, [0]))
    onnx.save(model, path)
    assert complexity(path).macs == 0


@pytest.mark.parametrize("names", [("conv", "conv", "conv"), ("b", "b", "c"), ("", "a", "")])
def test_nodes_that_share_a_name_are_counted_each_for_itself(save, names):
    """ONNX does not ask for names that differ; a node without one is called as its output."""
    weights = {"u": ones(8, 4, 1, 1), "v": ones(2, 8, 1, 1), "w": ones(6, 2, 1, 1)}
    nodes: list[Any] = [(("Conv", [x, w], [y], {})) for x, w, y in (("x", "u", "a"), ("a", "v", "b"), ("b", "w", "c"))]
    path = save(nodes, X, {"c": ("float", [1, 6, 10, 8])}, weights)
    model = onnx.load(path)
    for node, name in zip(model.graph.node, names, strict=True):
        node.name = name
    onnx.save(model, path)
    found = complexity(path)
    assert [(layer.counted, layer.parameters) for layer in found.layers] == [(2 * 80 * n, n) for n in (32, 16, 12)]
    assert len({layer.name for layer in found.layers}) == 3
    assert sorted(macs_of_nodes(load_graph(path)).values()) == [80 * 12, 80 * 16, 80 * 32]
    assert complexity(path, "macs").counted == found.macs == 80 * 60


U8 = {"x": ("uint8", [1, 4, 10, 8])}
QUANTIZED = {"s": np.float32(0.1), "z": np.uint8(3), "wz": np.int8(0), "b": np.ones(6, np.int32)}


@pytest.mark.parametrize(
    ("operator", "inputs", "weight", "output", "macs", "parameters"),
    [
        ("QLinearConv", ["x", "s", "z", "w", "s", "wz", "s", "z", "b"], (6, 4, 1, 1), "uint8", 80 * 24, 30),
        ("ConvInteger", ["x", "w", "z"], (6, 4, 1, 1), "int32", 80 * 24, 24),
        ("QLinearMatMul", ["x", "s", "z", "w", "s", "wz", "s", "z"], (8, 5), "uint8", 40 * 8 * 5, 40),
        ("MatMulInteger", ["x", "w", "z"], (8, 5), "int32", 40 * 8 * 5, 40),
    ],
)
def test_quantized_operators_count(save, operator, inputs, weight, output, macs, parameters):
    constants = {**{k: v for k, v in QUANTIZED.items() if k in inputs}, "w": np.ones(weight, np.int8)}
    shape = [1, 6, 10, 8] if len(weight) == 4 else [1, 4, 10, 5]
    found = complexity(save([(operator, inputs, ["y"], {})], U8, {"y": (output, shape)}, constants), "macs")
    assert (found.macs, found.parameters, found.counted, found.uncounted) == (macs, parameters, macs, ())


@pytest.mark.parametrize(
    ("equation", "macs", "lacking"),
    [
        ("nchw,wk->nchk", 4 * 10 * 8 * 5, ()),
        ("...w,wk->...k", None, ("1 Einsum",)),
        ("n...w,wk->n...k", None, ("1 Einsum",)),
    ],
)
def test_einsum(save, equation, macs, lacking):
    nodes = [("Einsum", ["x", "w"], ["y"], {"equation": equation})]
    found = complexity(save(nodes, X, {"y": ("float", [1, 4, 10, 5])}, {"w": ones(8, 5)}))
    assert (found.macs, found.uncounted) == (macs, lacking)


def test_an_einsum_whose_axis_is_broadcast(save):
    nodes = [("Einsum", ["x", "w"], ["y"], {"equation": "nchw,ncwk->nchk"})]
    found = complexity(save(nodes, X, {"y": ("float", [1, 4, 10, 5])}, {"w": ones(1, 1, 8, 5)}))
    assert found.macs == 4 * 10 * 8 * 5


def test_what_nobody_counts_is_named_and_makes_no_small_figure(save):
    nodes = [
        ("Conv", ["x", "w"], ["c"], {}),
        ("Reshape", ["c", "shape"], ["s"], {}),
        ("LSTM", ["s", "lw", "lr"], ["y"], {"hidden_size": 2}),
    ]
    constants = {"w": ones(6, 4, 1, 1), "shape": np.array([6, 1, 80], np.int64)}
    constants |= {"lw": ones(1, 8, 80), "lr": ones(1, 8, 2)}
    found = complexity(save(nodes, X, {"y": ("float", [6, 1, 1, 2])}, constants))
    assert (found.macs, found.gops, found.counted, found.uncounted) == (None, None, None, ("1 LSTM",))
    assert found.notes == ["MACs and GOPS are not known: uncounted: 1 LSTM"]
    assert found.summary() == {"macs": None, "gops": None, "parameters": 24}


def rename(path, operator, domain):
    """Make a file's first node one of another operator set."""
    model = onnx.load(path)
    model.graph.node[0].op_type, model.graph.node[0].domain = operator, domain
    if domain:
        model.opset_import.append(onnx.helper.make_opsetid(domain, 13))
    onnx.save(model, path)
    return model


@pytest.mark.parametrize(
    ("operator", "domain", "lacking"),
    [
        ("Foo", "", ("1 Foo",)),
        ("DCNv2_TRT", "trt.plugins", ("1 DCNv2_TRT",)),
        ("Conv", "trt.plugins", ("1 Conv",)),
        ("FusedConv", "com.microsoft", ("1 FusedConv",)),
        ("BiasGelu", "com.microsoft", ()),
        ("Mul", "ai.onnx", ()),
    ],
)
def test_what_is_not_onnxs_may_multiply_as_much_as_it_likes(save, operator, domain, lacking):
    path = save([("Mul", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 4, 10, 8])}, {"w": ones(8)})
    rename(path, operator, domain)
    found = complexity(path)
    assert (found.uncounted, found.macs) == (lacking, None if lacking else 0)


def test_a_function_of_the_file_is_known_by_its_body(save):
    path = save([("Relu", ["x"], ["y"], {})], X, {"y": ("float", [1, 4, 10, 8])}, {})
    model = rename(path, "Mine", "own")
    body = [onnx.helper.make_node("Relu", ["a"], ["b"])]
    opsets = [onnx.helper.make_opsetid("", 13)]
    model.functions.append(onnx.helper.make_function("own", "Mine", ["a"], ["b"], body, opsets))
    onnx.save(model, path)
    assert complexity(path).uncounted == ()
    model.functions[0].node[0].op_type = "Foo"
    onnx.save(model, path)
    assert complexity(path).uncounted == ("1 Mine with Foo in it",)


def own_function(path, called):
    """A file whose one operator is the function own.Relu, in whose body there is another Relu."""
    model = rename(path, "Relu", "own")
    body = [onnx.helper.make_node("Relu", ["a"], ["b"], domain=called)]
    opsets = [onnx.helper.make_opsetid("", 13), onnx.helper.make_opsetid("own", 13)]
    model.functions.append(onnx.helper.make_function("own", "Relu", ["a"], ["b"], body, opsets))
    onnx.save(model, path)
    return path


def test_a_function_may_have_the_name_of_an_operator_and_does_not_call_itself(save):
    path = own_function(save([("Relu", ["x"], ["y"], {})], X, {"y": X["x"]}, {}), called="")
    assert complexity(path).uncounted == ()
    path = own_function(save([("Relu", ["x"], ["y"], {})], X, {"y": X["x"]}, {}), called="own")
    with pytest.raises(BadInput, match=r"model\.onnx: .*must not be recursive"):
        complexity(path)


def test_a_weight_that_is_made_of_itself_is_none(save):
    nodes: list[Any] = [("Identity", ["x"], ["u"], {}), ("MatMul", ["x", "u"], ["y"], {})]
    path = save(nodes, {"x": ("float", [1, 1, 8, 8])}, {"y": ("float", [1, 1, 8, 8])}, {})
    model = onnx.load(path)
    model.graph.node[0].input[0] = "u"
    onnx.save(model, path)
    assert complexity(path).parameters == 0


@pytest.mark.parametrize(("kind", "access"), [("FLOAT8E4M3FN", 80), ("INT4", 40), ("INT16", 160), ("UINT32", 320)])
def test_small_numbers_are_few_bytes(save, kind, access):
    path = save(
        [("Cast", ["x"], ["y"], {"to": 1})], {"x": ("float", [1, 1, 10, 8])}, {"y": ("float", [1, 1, 10, 8])}, {}
    )
    model = onnx.load(path)
    model.graph.input[0].type.tensor_type.elem_type = getattr(onnx.TensorProto, kind)
    onnx.save(model, path)
    found = complexity(path)
    assert found.access_bytes - found.activation_bytes == access


def test_products_in_a_body_are_not_counted_as_nothing(save):
    def branch(operator):
        out = onnx.helper.make_tensor_value_info("o", onnx.TensorProto.FLOAT, [1, 6, 10, 8])
        nodes = [onnx.helper.make_node("Conv", ["x", "w"], ["a"]), onnx.helper.make_node(operator, ["a"], ["o"])]
        return onnx.helper.make_graph(nodes, operator, [], [out])

    inputs = {**X, "c": ("bool", [])}
    nodes = [("If", ["c"], ["y"], {"then_branch": branch("Relu"), "else_branch": branch("Neg")})]
    found = complexity(save(nodes, inputs, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)}))
    assert (found.macs, found.uncounted) == (None, ("1 If with Conv in it",))


def test_a_manifest_tells_a_frame_of_a_batch(save):
    x = {"x": ("float", [4, 4, 10, 8])}
    found = complexity(
        save([("Conv", ["x", "w"], ["y"], {})], x, {"y": ("float", [4, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    )
    assert (found.macs, found.batch) == (4 * 1920, 4)
    assert found.summary() == {"macs": 1920, "gops": round(2 * 1920 / 1e9, 6), "parameters": 24}


@pytest.mark.parametrize("content", [None, b"not onnx"])
def test_bad_files_are_named(content, tmp_path):
    path = tmp_path / "model.onnx"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(BadInput, match=r"model\.onnx"):
        complexity(path)


@pytest.mark.parametrize(
    ("operator", "inputs", "attributes"),
    [
        ("Conv", ["x"], {}),
        ("Conv", [], {}),
        ("Gemm", ["v", "w"], {}),
        ("MatMul", ["s", "w"], {}),
        ("Einsum", ["x", "w"], {"equation": "abcd->abcd"}),
        ("Einsum", ["x", "w"], {"equation": "ab,cd->ad"}),
    ],
)
def test_an_operator_with_inputs_that_do_not_fit_it_is_named(tmp_path, operator, inputs, attributes):
    constants = [onnx.numpy_helper.from_array(a, k) for k, a in {"s": ones(), "v": ones(4), "w": ones(4, 4)}.items()]
    values = [onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, [1, 4, 4, 4]) for name in ("x", "y")]
    node = onnx.helper.make_node(operator, inputs, ["y"], "odd", **attributes)
    made = onnx.helper.make_graph([node], "g", values[:1], values[1:], constants)
    path = tmp_path / "model.onnx"
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("", 13)]), path)
    with pytest.raises(BadInput, match=rf"model\.onnx: .*(odd is a {operator} with inputs|node name: odd)"):
        complexity(path)
    made.node[0].domain = "trt.plugins"  # of which nothing is known, so nothing of it is wrong
    onnx.save(onnx.helper.make_model(made, opset_imports=[onnx.helper.make_opsetid("trt.plugins", 1)]), path)
    assert complexity(path).uncounted == (f"1 {operator}",)


def test_a_damaged_name_and_an_operator_without_a_result_are_told(save):
    path = save([("Relu", ["x"], ["y"], {})], X, {"y": X["x"]}, {})
    path.write_bytes(path.read_bytes().replace(b"Relu", b"Rel\xff"))
    with pytest.raises(BadInput, match=r"model\.onnx: .*a op_type in it is no text"):
        complexity(path)
    model = graph([("Constant", [], ["c"], {"value_float": 1.0}), ("Relu", ["x"], ["y"], {})], X, {"y": X["x"]}, {})
    del model.graph.node[0].output[:]
    onnx.save(model, path)
    with pytest.raises(BadInput, match=r"model\.onnx: .*has no output"):
        complexity(path)


def test_a_graph_that_computes_nothing_has_no_figure(save):
    path = save([], X, {"x": X["x"]}, {})
    with pytest.raises(BadInput, match=r"model\.onnx.*no operator"):
        complexity(path)


def test_a_weight_cannot_be_smaller_than_nothing(save):
    path = save([("Conv", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    model = onnx.load(path)
    model.graph.initializer[0].dims[0] = -6
    onnx.save(model, path)
    with pytest.raises(BadInput, match="w has a size below 0"):
        complexity(path)


def test_pytorchs_own_counter_agrees(tmp_path):
    """Within 0.5 %: the student with 10 classes, at a 15th of the pixels."""
    from edgekit.conversion.export import ExportOptions, export_onnx
    from edgekit.runtime.preprocess import Preprocess

    torch.manual_seed(0)
    model = build("mobile-centernet", 10).eval()
    for tensor in (*model.parameters(), *model.buffers()):
        if tensor.dtype == torch.float32:
            tensor.data.uniform_(0.5, 1.5)  # no two biases are equal
    path = export_onnx(model, Preprocess((128, 96)), ExportOptions(layout="nchw_float"), tmp_path / "model.onnx")
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, 96, 128))
    found = complexity(path)
    assert found.macs == pytest.approx(counter.get_total_flops() / 2, rel=0.005)
    assert found.macs * 15 == 5_604_433_920  # at 576 x 320: 5.604 GMAC, 11.21 GOPS
    learnable = sum(p.numel() for p in model.parameters())
    normalised = sum(m.num_features for m in model.modules() if isinstance(m, torch.nn.BatchNorm2d))
    assert learnable == 1_616_366
    assert found.parameters == learnable - normalised  # folding leaves one bias of each scale and shift


# -- traffic and conventions ------------------------------------------------------------------------------------------
def test_traffic_by_hand(save):
    """A convolution 4 -> 6 channels with bias, a ReLU, and a Reshape, which moves nothing; 80 positions, floats."""
    nodes: list[Any] = [
        ("Conv", ["x", "w", "b"], ["a"], {}),
        ("Relu", ["a"], ["r"], {}),
        ("Reshape", ["r", "shape"], ["y"], {}),
    ]
    constants = {"w": ones(6, 4, 1, 1), "b": ones(6), "shape": np.array([1, 480], np.int64)}
    found = complexity(save(nodes, X, {"y": ("float", [1, 480])}, constants))
    (conv,) = found.layers
    assert (conv.activation_bytes, conv.cio) == (480 * 4, 320 + 480)
    assert conv.access_bytes == (320 + 24 + 6 + 480) * 4
    assert found.activation_bytes == 2 * 480 * 4
    assert found.access_bytes == conv.access_bytes + 2 * 480 * 4
    assert found.cio == 800


def test_the_cio_of_a_dense_block_is_cspnets_formula(save):
    """CSPNet, section 3.1: m layers of growth d on c channels read and write, per position, c m + (m^2 + m) d / 2.

    The formula counts what the layers read of the block's input and write; a layer reads c + (i - 1) d and writes d.
    """
    c, d, m = 4, 2, 3
    nodes: list[Any] = []
    constants, features = {}, "x"
    for i in range(m):
        nodes.append(("Conv", [features, f"w{i}"], [f"g{i}"], {}))
        nodes.append(("Concat", [features, f"g{i}"], [f"f{i}"], {"axis": 1}))
        constants[f"w{i}"] = ones(d, c + i * d, 1, 1)
        features = f"f{i}"
    found = complexity(save(nodes, X, {features: ("float", [1, c + m * d, 10, 8])}, constants))
    assert found.cio == 80 * (c * m + (m * m + m) * d // 2)


def test_bytes_follow_the_types(save):
    nodes = [("QuantizeLinear", ["x", "s", "z"], ["y"], {})]
    found = complexity(save(nodes, X, {"y": ("uint8", [1, 4, 10, 8])}, {"s": np.float32(0.1), "z": np.uint8(3)}))
    assert found.activation_bytes == 320
    assert found.access_bytes == 320 * 4 + 4 + 1 + 320


@pytest.mark.parametrize(
    ("convention", "counted"),
    [("macs", 1920), ("flops", 3840), ("darknet", 3840 + 4 * 120), ("elementwise", 1920 + 480 + 480)],
)
def test_a_convention_counts_what_it_counts(save, convention, counted):
    """1920 MACs with 480 biases, 480 activations, and 120 outputs of a 2 x 2 maximum."""
    nodes: list[Any] = [
        ("Conv", ["x", "w", "b"], ["a"], {}),
        ("Relu", ["a"], ["r"], {}),
        ("MaxPool", ["r"], ["y"], {"kernel_shape": [2, 2], "strides": [2, 2]}),
    ]
    path = save(nodes, X, {"y": ("float", [1, 6, 5, 4])}, {"w": ones(6, 4, 1, 1), "b": ones(6)})
    found = complexity(path, convention)
    assert (found.convention, found.counted) == (convention, counted)
    assert found.counted == sum(layer.counted for layer in found.layers)
    assert (found.macs, found.parameters) == (1920, 30)  # whatever the convention


def test_an_artifacts_folder_works_too(save):
    path = save([("Conv", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    assert complexity(path.parent) == complexity(path)


def test_mistakes_name_what_there_is(tmp_path, save):
    with pytest.raises(BadInput, match=r"no such ONNX file, and no folder with a model\.onnx"):
        complexity(tmp_path / "nowhere")
    path = save([("Conv", ["x", "w"], ["y"], {})], X, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 1, 1)})
    with pytest.raises(BadConfig, match="no 'gflops'; there are: macs, flops, macs-dense, darknet"):
        complexity(path, "gflops")


def test_a_deformable_convolution_counts_as_a_convolution(save):
    inputs = {**X, "offset": ("float", [1, 18, 10, 8])}
    nodes = [("DeformConv", ["x", "w", "offset"], ["y"], {"kernel_shape": [3, 3], "pads": [1] * 4})]
    path = save(nodes, inputs, {"y": ("float", [1, 6, 10, 8])}, {"w": ones(6, 4, 3, 3)}, opset=19)
    assert complexity(path).macs == 10 * 8 * 6 * 4 * 9
    assert conventions.total(conventions.onnx_operations(path), "flops") == 2 * 10 * 8 * 6 * 4 * 9
