"""The INT8 graphs themselves, on the small detector; accuracy and the gate are in test_quantize."""

import time
from dataclasses import replace

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from edgekit.conversion import qdq
from edgekit.conversion.calibrate import calibrate
from edgekit.conversion.compare import compare_outputs, network_inputs, run_onnx
from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.conversion.graph import (
    constants,
    consumers,
    layer_name,
    load_model,
    module_of,
    producers,
    weighted_layers,
)
from edgekit.conversion.qdq import quantize_file, refused_by_tensorrt
from edgekit.conversion.simplify import simplify_file
from edgekit.models.modules import matches
from edgekit.models.zoo import build
from edgekit.runtime.errors import ChildDied
from edgekit.runtime.preprocess import Preprocess

from .graphs import f32, graph, run
from .test_lint import found

LAST = ("head.heatmap.2", "head.size.2", "head.offset.2")


@pytest.fixture(scope="module")
def ranges(request, photos, preprocess, tmp_path_factory):
    """Calibrated ranges by layout."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.mktemp("cache")))
        return {
            layout: calibrate(request.getfixturevalue(name).file("model.onnx"), photos, preprocess, layout).ranges
            for layout, name in (("nhwc_uint8", "pixels"), ("nchw_float", "floats"))
        }


def last_nodes(artifact):
    return [n.name for n in load_model(artifact.file("model.onnx")).graph.node if module_of(n.name) in LAST]


def make(artifact, ranges, flavour, target, float_nodes=None, reduce_range=False):
    chosen = last_nodes(artifact) if float_nodes is None else float_nodes
    layout = artifact.manifest["input"]["layout"]
    quantize_file(artifact.file("model.onnx"), str(target), ranges[layout], flavour, chosen, reduce_range)
    return load_model(target)


@pytest.fixture(scope="module")
def x86(pixels, ranges, tmp_path_factory):
    return make(pixels, ranges, "x86", tmp_path_factory.mktemp("x86") / "model.onnx")


@pytest.fixture(scope="module")
def trt(floats, ranges, tmp_path_factory):
    return make(floats, ranges, "trt", tmp_path_factory.mktemp("trt") / "model.onnx")


def stored_type(model, name):
    """Type of the constant behind a DequantizeLinear, or None for a float tensor."""
    maker, values = producers(model).get(name), constants(model)
    return str(values[maker.input[0]].dtype) if maker is not None and maker.input[0] in values else None


def in_int8(model):
    """Modules of the convolutions that read INT8 activations and weights."""
    makers = producers(model)
    return {
        module_of(n.name)
        for n in model.graph.node
        if n.op_type == "Conv"
        and all(makers[name].op_type == "DequantizeLinear" for name in n.input[:2] if name in makers)
        and n.input[0] in makers
        and n.input[1] in makers
    }


@pytest.mark.parametrize("flavour", ["x86", "trt"])
def test_both_flavours_are_plain_opset_13(flavour, request):
    model = request.getfixturevalue(flavour)
    assert [(e.domain, e.version) for e in model.opset_import] == [("", 13)]
    assert model.ir_version == 7
    assert {n.domain for n in model.graph.node} == {""}
    onnx.checker.check_model(model, full_check=True)


@pytest.mark.parametrize("flavour", ["x86", "trt"])
def test_every_convolution_but_the_last_ones_is_int8(flavour, request):
    model = request.getfixturevalue(flavour)
    every = {module_of(n.name) for n in model.graph.node if n.op_type == "Conv"}
    assert len(every) == 73
    assert every - in_int8(model) == set(LAST)


@pytest.mark.parametrize("flavour", ["x86", "trt"])
def test_the_decode_stays_float(flavour, request):
    model = request.getfixturevalue(flavour)
    order = [n.op_type for n in model.graph.node]
    last = max(k for k, n in enumerate(model.graph.node) if module_of(n.name) in LAST)
    assert not {"QuantizeLinear", "DequantizeLinear"} & set(order[last:])
    assert {"Sigmoid", "MaxPool", "TopK", "GatherElements"} <= set(order)
    makers = producers(model)
    for node in model.graph.node:
        if node.op_type in ("Sigmoid", "MaxPool", "TopK", "GatherElements", "ReduceMax"):
            assert makers[node.input[0]].op_type != "DequantizeLinear"


def test_x86_types(x86):
    for node in x86.graph.node:
        if node.op_type == "Conv" and module_of(node.name) not in LAST:
            weight, bias = producers(x86)[node.input[1]], node.input[2]
            assert stored_type(x86, node.input[1]) == "int8"
            assert stored_type(x86, bias) == "int32"
            assert constants(x86)[weight.input[1]].shape == (constants(x86)[weight.input[0]].shape[0],)
    zeros = [constants(x86)[n.input[2]] for n in x86.graph.node if n.op_type == "QuantizeLinear"]
    assert {z.dtype for z in zeros} == {np.dtype(np.uint8)}


def test_trt_types(trt):
    assert refused_by_tensorrt(trt) == []
    for node in trt.graph.node:
        if node.op_type == "Conv":
            assert node.input[2] in constants(trt)  # the bias stays float
    assert {n.op_type for n in trt.graph.node} >= {"Relu", "Resize"}


def behind_pair(model, name):
    """The constant that reaches ``name`` through QuantizeLinear and DequantizeLinear, or None."""
    makers = producers(model)
    for kind in ("DequantizeLinear", "QuantizeLinear"):
        if name not in makers or makers[name].op_type != kind:
            return None
        name = makers[name].input[0]
    return constants(model).get(name)


def test_trt_keeps_the_float_weights_as_they_were(trt, floats):
    """TensorRT 8 refuses a file that stores them in INT8; it quantizes them itself, by the scale that is there."""
    before = {n.name: constants(load_model(floats.file("model.onnx")))[n.input[1]] for n in convolutions(floats)}
    layers = [n for n in trt.graph.node if n.op_type == "Conv" and module_of(n.name) not in LAST]
    assert len(layers) == 70
    for node in layers:
        assert np.array_equal(behind_pair(trt, node.input[1]), before[node.name])


@pytest.mark.parametrize("release", ["4.6.6", "5.1.6"])
def test_lint_finds_nothing_for_a_xavier(trt, release):
    assert [f for f in found(trt, "jetson-xavier-nx", release) if f.severity == "error"] == []


def convolutions(artifact):
    return [n for n in load_model(artifact.file("model.onnx")).graph.node if n.op_type == "Conv"]


def test_float_weights_give_the_boxes_of_int8_weights(trt, floats, ranges, photos, preprocess, tmp_path, monkeypatch):
    stored = replace(qdq.FLAVOURS["trt"], float_weights=False)
    monkeypatch.setattr(qdq, "FLAVOURS", {"trt": stored})
    monkeypatch.setattr(qdq, "refused_by_tensorrt", lambda model: [])
    other = make(floats, ranges, "trt", tmp_path / "stored.onnx")
    weights = [stored_type(other, n.input[1]) for n in other.graph.node if n.op_type == "Conv"]
    assert weights.count("int8") == 70
    onnx.save(trt, tmp_path / "float.onnx")
    images = network_inputs(photos, preprocess, "nchw_float")
    results, wanted = (run_onnx(tmp_path / name, images) for name in ("float.onnx", "stored.onnx"))
    for one, two in zip(results, wanted, strict=True):
        assert [np.array_equal(a, b) for a, b in zip(one, two, strict=True)] == [True, True]


def test_trt_adds_the_int8_shortcut_to_the_float_result(trt):
    """Every residual addition of a block reads one DequantizeLinear and one convolution."""
    makers = producers(trt)
    blocks = [n for n in trt.graph.node if n.op_type == "Add" and ".branches." in module_of(n.name)]
    assert len(blocks) == 2 * (2 + 3 + 4)
    for node in blocks:
        assert {makers[name].op_type for name in node.input} == {"DequantizeLinear", "Conv"}


@pytest.mark.parametrize(
    ("zero", "value", "problem"),
    [
        (np.uint8(0), np.ones(4, np.uint8), "zero point is not int8 0"),
        (np.int8(3), np.ones(4, np.int8), "zero point is not int8 0"),
        (np.int32(0), np.ones(4, np.int32), "dequantizes int32"),
        (np.int8(0), np.ones(4, np.int8), "dequantizes int8"),
    ],
)
def test_what_tensorrt_refuses(zero, value, problem):
    model = graph(
        [("DequantizeLinear", ["v", "s", "z"], ["d"], {}), ("Add", ["x", "d"], ["y"], {})],
        {"x": ("float", [4])},
        {"y": ("float", [4])},
        {"v": value, "s": f32(0.5), "z": zero},
    )
    assert any(problem in line for line in refused_by_tensorrt(model))


def test_layers_that_are_asked_for_stay_float(pixels, ranges, tmp_path):
    stem = "/detector/backbone/stem/stem.0/stem.0.0/Conv"
    model = make(pixels, ranges, "x86", tmp_path / "model.onnx", [stem])
    every = {module_of(n.name) for n in model.graph.node if n.op_type == "Conv"}
    assert every - in_int8(model) == {"backbone.stem.0.0"}
    first = next(n for n in model.graph.node if n.name == stem)
    assert producers(model)[first.input[0]].op_type == "Sub"  # it reads normalised floats


def test_reduced_range_gives_seven_bit_weights(pixels, ranges, tmp_path):
    model = make(pixels, ranges, "x86", tmp_path / "model.onnx", reduce_range=True)
    weights = [v for v in constants(model).values() if v.dtype == np.int8 and v.ndim == 4]
    assert len(weights) == 70
    assert max(int(np.abs(w.astype(int)).max()) for w in weights) <= 64


def relus(links):
    """links: (input, output) of each Relu, in the order of the file."""
    nodes = [onnx.helper.make_node("Relu", [a], [b], name=b) for a, b in links]
    made = onnx.helper.make_graph(nodes, "g", [], [])
    return onnx.helper.make_model(made)


def test_nodes_come_after_what_they_read_in_one_order():
    for _ in range(2):
        model = relus([("b", "c"), ("x", "a"), ("a", "b"), ("x", "d"), ("c", "e")])
        qdq._sort(model)
        assert [n.name for n in model.graph.node] == ["a", "d", "b", "c", "e"]
    with pytest.raises(ChildDied, match="cycle"):
        qdq._sort(relus([("a", "b"), ("b", "a")]))


def test_a_deep_graph_is_sorted_in_time():
    """3000 nodes in a row, the last one first, took minutes when each round looked at all that were left."""
    model = relus([(f"t{i}", f"t{i + 1}") for i in reversed(range(3000))])
    began = time.process_time()
    qdq._sort(model)
    assert time.process_time() - began < 2
    assert [n.name for n in model.graph.node][:2] == ["t1", "t2"]


def test_a_stem_with_automatic_padding_is_not_turned_into_blocks(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 3), dtype=np.uint8)
    model = stem([114] * 3)
    (conv,) = [n for n in model.graph.node if n.output[0] == "c"]
    for entry in [a for a in conv.attribute if a.name == "pads"]:
        conv.attribute.remove(entry)
    conv.attribute.append(onnx.helper.make_attribute("auto_pad", "SAME_UPPER"))
    made, values = quantized_stem(model, image, tmp_path, blocks=True)
    assert "Split" not in {n.op_type for n in made.graph.node}
    np.testing.assert_allclose(run(made, {"image": image})[0], values["y"], atol=10 * values["r"].max() / 255)


def test_names_take_little_room(x86, pixels, tmp_path):
    weights = sum(t.ByteSize() for t in x86.graph.initializer)
    assert x86.ByteSize() < weights + 75_000
    assert [v.name for v in (*x86.graph.input, *x86.graph.output)] == ["image", "boxes", "scores"]


# -- raw pixels -------------------------------------------------------------------------------------------------------
def test_the_first_convolution_reads_pixels_in_blocks(x86):
    quantizers = ("DequantizeLinear", "QuantizeLinear")
    kinds = [n.op_type for n in x86.graph.node if n.op_type not in quantizers]
    assert kinds[:6] == ["Reshape", "Split", "Concat", "Reshape", "Transpose", "Conv"]
    first = next(n for n in x86.graph.node if n.op_type == "Conv")
    weight = constants(x86)[producers(x86)[first.input[1]].input[0]]
    assert weight.shape == (64, 12, 2, 2)
    scale = constants(x86)[producers(x86)[first.input[0]].input[1]]
    assert scale == 1


def test_blocks_are_exact(pixels, ranges, photos, preprocess, x86, tmp_path, monkeypatch):
    monkeypatch.setattr(qdq, "pixels_in_blocks", lambda model: False)
    plain = make(pixels, ranges, "x86", tmp_path / "plain.onnx")
    assert not [n for n in plain.graph.node if n.name == "split_rows"]
    onnx.save(x86, tmp_path / "blocks.onnx")
    images = network_inputs(photos, preprocess, "nhwc_uint8")
    for a, b in zip(run_onnx(tmp_path / "plain.onnx", images), run_onnx(tmp_path / "blocks.onnx", images), strict=True):
        assert compare_outputs(a, b, 1e-3, 1e-6).same


def stem(mean, kernel=3, pad=1, stride=2, size=(8, 6)):
    """uint8 image -> Transpose -> Cast -> Sub -> Conv -> Relu, in float."""
    weight = np.random.default_rng(0).normal(size=(5, 3, kernel, kernel)).astype(np.float32) / 50
    out = [(edge + 2 * pad - kernel) // stride + 1 for edge in size]
    nodes = [
        ("Transpose", ["image"], ["t"], {"perm": [0, 3, 1, 2]}),
        ("Cast", ["t"], ["f"], {"to": 1}),
        ("Sub", ["f", "mean"], ["m"], {}),
        ("Conv", ["m", "w", "b"], ["c"], {"pads": [pad] * 4, "strides": [stride] * 2}),
        ("Relu", ["c"], ["r"], {}),
        ("Conv", ["r", "v"], ["y"], {}),
    ]
    constants = {
        "mean": f32(mean).reshape(1, 3, 1, 1),
        "w": weight,
        "b": np.linspace(-1, 1, 5, dtype=np.float32),
        "v": np.ones((1, 5, 1, 1), np.float32),
    }
    return graph(nodes, {"image": ("uint8", [1, *size, 3])}, {"y": ("float", [1, 1, *out])}, constants)


def quantized_stem(model, image, folder, blocks):
    """Through quantize_file, with the exact ranges of this image."""
    names = ("m", "c", "r", "y")
    outputs = onnx.ModelProto()
    outputs.CopyFrom(model)
    outputs.graph.output.extend(onnx.helper.make_empty_tensor_value_info(n) for n in names if n != "y")
    values = dict(zip(("y", "m", "c", "r"), run(outputs, {"image": image}), strict=True))
    ranges = {name: [float(values[name].min()), float(values[name].max())] for name in names}
    onnx.save(model, folder / "float.onnx")
    with pytest.MonkeyPatch.context() as patch:
        if not blocks:
            patch.setattr(qdq, "pixels_in_blocks", lambda model: False)
        quantize_file(str(folder / "float.onnx"), str(folder / "int8.onnx"), ranges, "x86", ["n_y"], False)
    return load_model(folder / "int8.onnx"), values


@pytest.mark.parametrize("blocks", [False, True])
@pytest.mark.parametrize(
    ("kernel", "pad", "stride", "fits"),
    [(3, 1, 2, True), (6, 2, 2, True), (5, 2, 2, True), (2, 0, 2, True), (3, 0, 2, True), (3, 1, 1, False)],
)
def test_pixel_stems(kernel, pad, stride, fits, blocks, tmp_path):
    """With equal means the zero point is the mean, so the only error left is INT8's own, at the border too."""
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 3), dtype=np.uint8)
    model, values = quantized_stem(stem([114] * 3, kernel, pad, stride), image, tmp_path, blocks)
    found = run(model, {"image": image})[0]
    assert ("Split" in {n.op_type for n in model.graph.node}) == (blocks and fits)
    step = 5 * values["r"].max() / 255
    np.testing.assert_allclose(found, values["y"], atol=2 * step)


@pytest.mark.parametrize("opset", [13, 18, 19])
def test_blocks_of_every_opset(opset, tmp_path):
    """From 18 on a split tells its parts; deformable convolutions need 19."""
    image = np.random.default_rng(1).integers(0, 256, (1, 8, 6, 3), dtype=np.uint8)
    model = stem([114] * 3)
    model.opset_import[0].version = opset
    made, values = quantized_stem(model, image, tmp_path, blocks=True)
    onnx.checker.check_model(made, full_check=True)
    assert "Split" in {n.op_type for n in made.graph.node}
    step = 5 * values["r"].max() / 255
    np.testing.assert_allclose(run(made, {"image": image})[0], values["y"], atol=2 * step)


def test_a_stem_with_a_filter_for_each_colour_keeps_its_mean(tmp_path):
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    model = stem([20, 120, 220], size=(16, 16))
    conv = next(n for n in model.graph.node if n.output[0] == "c")
    conv.attribute.append(onnx.helper.make_attribute("group", 3))
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    changed = {"w": numpy_helper.to_array(tensors["w"])[:3, :1] * 9, "b": np.zeros(3), "v": np.ones((1, 3, 1, 1))}
    for name, value in changed.items():
        tensors[name].CopyFrom(numpy_helper.from_array(value.astype(np.float32), name))
    made, values = quantized_stem(model, image, tmp_path, blocks=True)
    error = np.abs(run(made, {"image": image})[0] - values["y"])
    assert error.max() <= 0.05 * values["y"].max()


def test_unequal_means_move_into_the_bias(tmp_path):
    """Exact inside; only the padded border, which now stands for the middle grey, differs a little."""
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    model, values = quantized_stem(stem([103.53, 116.28, 123.675], size=(16, 16)), image, tmp_path, blocks=True)
    error = np.abs(run(model, {"image": image})[0] - values["y"])[0, 0]
    step = 5 * values["r"].max() / 255
    assert error[1:, 1:].max() <= 2 * step
    assert "Sub" not in {n.op_type for n in model.graph.node}


def nearly_dead(bias, factor):
    model = stem([123.675, 116.28, 103.53], pad=0, size=(16, 16))
    for tensor in model.graph.initializer:
        value = numpy_helper.to_array(tensor).copy()
        if tensor.name == "w":
            value[2] *= factor
        elif tensor.name == "b":
            value[2] = bias
        tensor.CopyFrom(numpy_helper.from_array(value, tensor.name))
    return model


@pytest.mark.parametrize(("bias", "factor"), [(1.5, 1e-9), (-1.5, 1e-9), (40.0, 1e-8), (1.5, 1e-7)])
@pytest.mark.parametrize("blocks", [False, True])
def test_the_bias_of_a_nearly_dead_channel_keeps_its_sign(bias, factor, blocks, tmp_path):
    """Its weights' scale is so small that the bias fills int32: beside the input's scale 1, 1.5 became -1.39."""
    image = np.random.default_rng(1).integers(0, 256, (1, 16, 16, 3), dtype=np.uint8)
    model, values = quantized_stem(nearly_dead(bias, factor), image, tmp_path, blocks)
    (sums,) = [n for n in model.graph.node if n.op_type == "Conv" and n.name == "n_c"]
    stored = constants(model)[producers(model)[sums.input[2]].input[0]]
    assert np.abs(stored.astype(np.int64)).max() <= 2**30
    step = values["r"].max() / 255
    np.testing.assert_allclose(run(model, {"image": image})[0], values["y"], atol=5 * step * 2)


def test_odd_images_stay_as_they_are(tmp_path):
    image = np.zeros((1, 7, 6, 3), np.uint8)
    image[0, 2:5, 2:5] = 200
    model, _ = quantized_stem(stem([0.5] * 3, size=(7, 6)), image, tmp_path, blocks=True)
    assert "Split" not in {n.op_type for n in model.graph.node}


def test_an_image_with_two_readers_stays_as_it_is(x86, tmp_path):
    model = stem([114] * 3)
    extra = onnx.helper.make_node("ReduceMax", ["f"], ["top"], name="top")
    model.graph.node.insert(2, extra)
    model.graph.output.append(onnx.helper.make_empty_tensor_value_info("top"))
    assert qdq.input_as_pixels(model) is False
    assert consumers(model)["f"][0].op_type == "ReduceMax"
    assert numpy_helper.to_array(model.graph.initializer[0]).size == 3


def test_box_offsets_between_two_steps_are_not_rounded(photos, tmp_path, monkeypatch):
    """RefineDet++ joins the first step's offsets of all levels; one scale for them cost 3.2 points of mAP@0.5."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    torch.manual_seed(0)
    detector = build("refinedet", 3, {"backbone": "mobilenet-v2", "align": 3}, (64, 64)).eval()
    preprocess, file = Preprocess(size=(64, 64)), tmp_path / "model.onnx"
    simplify_file(str(export_onnx(detector, preprocess, ExportOptions(), tmp_path / "plain.onnx")), str(file))
    layers = {node.name: layer_name(node) for node in weighted_layers(load_model(file))}
    kept = [name for name, layer in layers.items() if matches(layer, detector.float_modules)]
    assert {layers[name].split(".")[0] for name in kept} == {"arm", "odm"}  # the simplifier's Gemms are the ODM's
    ranges = calibrate(file, photos[:1], preprocess, "nhwc_uint8").ranges
    quantize_file(str(file), str(tmp_path / "int8.onnx"), ranges, "x86", kept, False, detector.float_modules)
    model = load_model(tmp_path / "int8.onnx")
    makers = producers(model)
    read = [makers[n.input[0]] for n in model.graph.node if n.op_type == "QuantizeLinear" and n.input[0] in makers]
    rounded = {module_of(maker.name) for maker in read if maker.op_type != "DequantizeLinear"}  # one to another scale
    assert {module.split(".")[0] for module in rounded} == {"sources", "transfer"}
