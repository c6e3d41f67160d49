"""Typed FP16: which tensors change their type, where casts stand, and that the boxes stay."""

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper, shape_inference

from edgekit.conversion import precision
from edgekit.conversion.graph import load_model, name_nodes
from edgekit.conversion.half import float_tensors, rounding_model, write_half
from edgekit.conversion.overflow import LIMIT, nodes_to_pin, scan_overflow, tensor_peaks
from edgekit.conversion.precision import half_artifact, nodes_of_layers, parity, pins_for_fp16
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.errors import AccuracyDrop, BadConfig, BadInput
from edgekit.runtime.images import read_image

from .graphs import f32, graph, run

KERNEL = f32(np.eye(2)).reshape(2, 2, 1, 1)


def chain(scale=1.0, extra=(), **more):
    """image -> conv a -> relu -> conv b -> sigmoid (the decode) -> boxes."""
    nodes = [
        ("Conv", ["image", "wa"], ["a"], {}),
        ("Relu", ["a"], ["r"], {}),
        *extra,
        ("Conv", [more.get("into", "r"), "wb"], ["b"], {}),
        ("Sigmoid", ["b"], ["boxes"], {}),
    ]
    constants = {"wa": KERNEL * f32(scale), "wb": KERNEL / f32(scale), **more.get("constants", {})}
    outputs = {"boxes": ("float", [1, 2, *more.get("size", (4, 4))])}
    return graph(nodes, {"image": ("float", [1, 2, 4, 4])}, outputs, constants)


def half(model, tmp_path, pins=()):
    onnx.save(model, str(tmp_path / "float.onnx"))
    report = write_half(tmp_path / "float.onnx", tmp_path / "half.onnx", pins)
    return onnx.load(str(tmp_path / "half.onnx")), report


def types(model):
    found = shape_inference.infer_shapes(model, strict_mode=True).graph
    table = {v.name: v.type.tensor_type.elem_type for v in (*found.input, *found.value_info, *found.output)}
    return {name: TensorProto.DataType.Name(kind) for name, kind in table.items()}


def kinds(model):
    return [node.op_type for node in model.graph.node]


def test_weights_and_activations_are_half_and_the_ends_are_float(tmp_path):
    model, report = half(chain(), tmp_path)
    assert kinds(model) == ["Cast", "Conv", "Relu", "Conv", "Cast", "Sigmoid"]
    found = types(model)
    assert (found["image"], found["boxes"]) == ("FLOAT", "FLOAT")
    assert {found[name] for name in ("a", "r", "b")} == {"FLOAT16"}
    assert {t.data_type for t in model.graph.initializer} == {TensorProto.FLOAT16}
    assert (report.half, report.float_pins, report.casts) == (("n_a", "n_r", "n_b"), (), 2)


def test_a_pinned_layer_computes_in_float_between_two_casts(tmp_path):
    model, report = half(chain(), tmp_path, pins=["n_r"])
    assert kinds(model) == ["Cast", "Conv", "Cast", "Relu", "Cast", "Conv", "Cast", "Sigmoid"]
    assert types(model)["r"] == "FLOAT"
    assert report.float_pins == ("n_r",)


def test_a_tensor_is_cast_once_however_many_read_it(tmp_path):
    extra: Any = [("Add", ["r", "image"], ["s"], {}), ("Mul", ["s", "image"], ["m"], {})]
    model, report = half(chain(extra=extra, into="m"), tmp_path)
    assert kinds(model).count("Cast") == report.casts == 2


def test_a_resize_keeps_its_scales_in_float(tmp_path):
    extra: Any = [("Resize", ["r", "", "scales"], ["u"], {"mode": "nearest", "nearest_mode": "floor"})]
    more = {"constants": {"scales": f32([1, 1, 2, 2])}, "into": "u", "size": (8, 8)}
    model, _ = half(chain(extra=extra, **more), tmp_path)
    stored = {t.name: t.data_type for t in model.graph.initializer}
    assert stored["scales"] == TensorProto.FLOAT
    assert types(model)["u"] == "FLOAT16"


def test_a_constant_that_float_layers_read_too_is_kept_twice(tmp_path):
    extra: Any = [("Mul", ["r", "k"], ["m"], {})]
    model, _ = half(chain(extra=extra, into="m", constants={"k": f32(2)}), tmp_path, pins=["n_r"])
    assert {t.name for t in model.graph.initializer} >= {"k.half"}
    assert "k" not in {t.name for t in model.graph.initializer}


def test_the_branches_of_an_if_read_what_they_capture_in_float(tmp_path):
    kind, shape = TensorProto.FLOAT, [1, 2, 4, 4]
    then = helper.make_graph(
        [helper.make_node("Mul", ["a", "two"], ["t"])], "then", [], [helper.make_tensor_value_info("t", kind, shape)]
    )
    other = helper.make_graph(
        [helper.make_node("Neg", ["r"], ["e"])], "else", [], [helper.make_tensor_value_info("e", kind, shape)]
    )
    branch = ("If", ["yes"], ["i"], {"then_branch": then, "else_branch": other})
    made = chain(extra=[branch], into="i", constants={"two": f32([2]), "yes": np.array(True)})
    model, report = half(made, tmp_path)
    assert kinds(model) == ["Cast", "Conv", "Cast", "Relu", "If", "Cast", "Conv", "Cast", "Sigmoid"]
    assert report.casts == 4
    image = np.random.default_rng(1).normal(size=(1, 2, 4, 4)).astype(np.float32)
    assert np.allclose(run(model, {"image": image})[0], run(made, {"image": image})[0], atol=2e-3)


def test_a_layer_whose_weights_exceed_half_stays_float(tmp_path):
    model, report = half(chain(scale=1e6), tmp_path)
    assert report.float_pins == ("n_a",)
    assert {t.name: t.data_type for t in model.graph.initializer} == {
        "wa": TensorProto.FLOAT,
        "wb.half": TensorProto.FLOAT16,
    }


CONSTANTS = {
    "large": ([("Div", ["r", "k"], ["v"], {}), ("Mul", ["v", "k"], ["m"], {})], 1e5, ("n_v", "n_m", "n_b")),
    "small": ([("Mul", ["r", "k"], ["v"], {}), ("Div", ["v", "k"], ["m"], {})], 1e-8, ("n_v", "n_m", "n_b")),
    "epsilon": ([("Add", ["r", "k"], ["v"], {}), ("Div", ["r", "v"], ["m"], {})], 1e-9, ("n_v", "n_m")),
    "guard": (  # as PyTorch exports F.normalize, which divides zeros by the bound
        [
            ("ReduceL2", ["r"], ["norm"], {"axes": [1]}),
            ("Max", ["norm", "k"], ["least"], {}),
            ("Expand", ["least", "shape"], ["wide"], {}),
            ("Div", ["r", "wide"], ["m"], {}),
        ],
        1e-12,
        ("n_least", "n_wide", "n_m"),
    ),
    "bound": ([("Min", ["r", "k"], ["m"], {})], 1e6, ()),
    "infinite": ([("Min", ["r", "k"], ["m"], {})], np.inf, ()),
}


@pytest.mark.parametrize("case", CONSTANTS)
def test_what_computes_with_a_constant_that_half_cannot_hold_stays_float(case, tmp_path):
    extra, value, pins = CONSTANTS[case]
    network = chain(extra=extra, into="m", constants={"k": f32(value), "shape": np.array([1, 2, 4, 4])})
    image = f32(np.random.default_rng(0).normal(size=(1, 2, 4, 4)))
    model, report = half(network, tmp_path)
    assert report.float_pins == pins
    np.testing.assert_allclose(rounded(model, image), run(network, {"image": image})[0], atol=2e-3)


def test_weights_that_vanish_are_no_reason_to_keep_a_layer_in_float(tmp_path):
    _, report = half(chain(constants={"wb": KERNEL * f32(1e-9)}), tmp_path)
    assert report.float_pins == ()


def rounded(model, image):
    """As a GPU would store it; see ``rounding_model``."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    return onnxruntime.InferenceSession(rounding_model(model).SerializeToString(), options).run(None, {"image": image})[
        0
    ]


def test_an_overflow_that_onnx_runtime_hides_is_seen(tmp_path):
    """Its CPU kernels compute FP16 in FP32; the rounding model does not let a value beyond 65504 pass."""
    image = f32(np.random.default_rng(0).normal(size=(1, 2, 4, 4)))
    model, _ = half(chain(scale=6e4), tmp_path)
    expected = run(chain(scale=6e4), {"image": image})[0]
    assert np.allclose(run(model, {"image": image})[0], expected, atol=1e-2)
    assert not np.allclose(rounded(model, image), expected, atol=1e-2)


def test_results_agree_to_eleven_bits(tmp_path):
    image = f32(np.random.default_rng(0).normal(size=(1, 2, 4, 4)))
    model, _ = half(chain(), tmp_path)
    found, expected = rounded(model, image), run(chain(), {"image": image})[0]
    np.testing.assert_allclose(found, expected, atol=2e-3)
    assert np.abs(found - expected).max() > 1e-5  # it is rounded at all


def test_mistakes_are_told(tmp_path):
    with pytest.raises(BadConfig, match="has no node called nothing"):
        half(chain(), tmp_path, pins=["nothing"])
    with pytest.raises(BadInput, match="no layer could become FP16"):
        half(chain(), tmp_path, pins=["n_a", "n_r", "n_b"])
    scale = {"scale": f32(0.1), "zero": np.int8(0)}
    extra: Any = [
        ("QuantizeLinear", ["r", "scale", "zero"], ["q"], {}),
        ("DequantizeLinear", ["q", "scale", "zero"], ["d"], {}),
    ]
    with pytest.raises(BadInput, match="has INT8 nodes"):
        half(chain(extra=extra, into="d", constants=scale), tmp_path)


def test_types_that_cannot_be_inferred_are_told(tmp_path):
    """Strict inference knows nothing behind another project's operator, or a shape that does not fit."""
    model = chain()
    model.graph.node[1].CopyFrom(helper.make_node("Reshape", ["a", "s"], ["r"], name="n_r"))
    model.graph.initializer.append(numpy_helper.from_array(np.array([1, 2, 5, 5]), "s"))
    with pytest.raises(BadInput, match=r"float\.onnx: found a graph whose types ONNX cannot infer, needed.*stay with"):
        half(model, tmp_path)
    model.graph.node.append(helper.make_node("Swisher", ["a"], ["never"], name="n_s"))
    with pytest.raises(BadInput, match=r"which holds plugins \(Swisher\)"):
        float_tensors(model, "file")


# -- the scan ---------------------------------------------------------------------------------------------------------
def test_makers_and_readers_of_a_large_tensor_are_pinned():
    model = chain(extra=[("Mul", ["r", "k"], ["m"], {})], into="m", constants={"k": f32(2)})
    name_nodes(model)
    assert nodes_to_pin(model, {"r"}) == ("n_r", "n_m")
    assert nodes_to_pin(model, {"image"}) == ("n_a",)
    assert nodes_to_pin(model, {"b"}) == ("n_b",)  # not the decode, which is float anyway


def test_the_scan_looks_at_constants_too(photos, preprocess, tmp_path):
    extra, value, pins = CONSTANTS["epsilon"]
    network = chain(extra=extra, into="m", constants={"k": f32(value), "shape": np.array([1, 2, 4, 4])})
    network.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 3
    network.graph.node[0].input[1] = "first"
    network.graph.initializer.append(numpy_helper.from_array(f32(np.ones((2, 3, 1, 1))), "first"))
    for size, axis in zip(preprocess.size[::-1], (2, 3), strict=True):
        for value_info in (network.graph.input[0], network.graph.output[0]):
            value_info.type.tensor_type.shape.dim[axis].dim_value = size
    onnx.save(network, str(tmp_path / "model.onnx"))
    assert scan_overflow(tmp_path / "model.onnx", photos[:1], preprocess, "nchw_float").pins == pins


@pytest.fixture(scope="module")
def hot(floats, tmp_path_factory):
    """The detector with one layer whose results are far beyond FP16, and the next one that takes them back."""
    folder = tmp_path_factory.mktemp("hot")
    model = load_model(floats.file("model.onnx"))
    name_nodes(model)
    tensors = {t.name: t for t in model.graph.initializer}
    convs = [n for n in model.graph.node if n.op_type == "Conv" and "heatmap" in n.name]
    for node, names, factor in ((convs[0], convs[0].input[1:], 1e6), (convs[1], convs[1].input[1:2], 1e-6)):
        for name in names:
            tensors[name].CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensors[name]) * f32(factor), name))
        assert node.op_type == "Conv"
    onnx.save(model, str(folder / "model.onnx"))
    return folder / "model.onnx", convs[0].name


def test_the_scan_names_the_layer_that_overflows(hot, photos, preprocess):
    file, name = hot
    scan = scan_overflow(file, photos[:1], preprocess, "nchw_float")
    assert scan.peaks[0].layer == "head.heatmap.0"
    assert scan.peaks[0].largest > LIMIT
    assert name in scan.pins
    assert {"head.heatmap.0", "head.heatmap.1", "head.heatmap.2"} == set(scan.layers)
    assert scan.to_dict()["peaks"][0]["node"] == name


def test_with_its_pins_fp16_sees_the_boxes_and_without_it_does_not(hot, floats, photos, tmp_path):
    values = {k: v for k, v in floats.manifest.items() if k not in ("kind", "payload")}
    with new_artifact(tmp_path / "hot", "onnx", values) as folder:
        shutil.copy(hot[0], folder)
    source = read_artifact(tmp_path / "hot")
    made = half_artifact(source, tmp_path / "half", photos[:1])
    assert made.kind == "onnx"
    assert made.manifest["precision"] == "fp16"
    assert made.manifest["parents"] == {"onnx": source.digest}
    assert set(made.manifest["fp16"]["float_pins"]) >= {hot[1]}
    assert made.manifest["parity"]["unpaired"] <= 0.05 * made.manifest["parity"]["boxes"]
    naked = tmp_path / "naked.onnx"
    write_half(source.file("model.onnx"), naked, ())
    with pytest.raises(AccuracyDrop, match=r"FP16 sees other boxes than FP32.*--pin"):
        parity(source, naked, photos[:1])


def test_fp16_that_loses_the_objects_alone_is_refused(floats, photos, monkeypatch):
    """Of 8400 anchors 80 find something: 1 % of all, where 5 % were allowed."""
    lost = {"boxes": 8400, "worst_box": 200.0, "worst_score": 0.0, "unpaired": 80, "ties": 0, "strong": 80, "lost": 80}
    monkeypatch.setattr(precision, "run_in_child", lambda *args: lost)
    with pytest.raises(AccuracyDrop, match="80 of the 80 strong ones"):
        parity(floats, Path(floats.file("model.onnx")), photos[:1])


def test_typed_fp16_is_made_of_fp32_only(floats, photos, tmp_path):
    for kind, numbers in (("onnx", "fp16"), ("onnx", "int8"), ("onnx-int8", "int8")):
        values = {k: v for k, v in floats.manifest.items() if k not in ("kind", "payload")}
        with new_artifact(tmp_path / kind, kind, values | {"precision": numbers, "flavour": "trt"}) as folder:
            shutil.copy(floats.file("model.onnx"), folder)
        with pytest.raises(BadConfig, match=f"found an {kind} artifact in {numbers.upper()}, needed"):
            half_artifact(read_artifact(tmp_path / kind), tmp_path / "half", photos[:1])


def test_the_scan_wants_images_and_finite_values(hot, photos, preprocess, tmp_path):
    with pytest.raises(BadInput, match="needs real images"):
        scan_overflow(hot[0], [], preprocess, "nchw_float")
    model = load_model(hot[0])
    tensor = next(t for t in model.graph.initializer if t.name.endswith("weight") or len(t.dims) == 4)
    broken = numpy_helper.to_array(tensor).copy()
    broken.flat[0] = np.nan
    tensor.CopyFrom(numpy_helper.from_array(broken, tensor.name))
    onnx.save(model, str(tmp_path / "broken.onnx"))
    with pytest.raises(BadInput, match="yields NaN or infinity in FP32 already"):
        scan_overflow(tmp_path / "broken.onnx", photos[:1], preprocess, "nchw_float")


def test_layers_are_named_by_module_or_node(floats):
    file = floats.file("model.onnx")
    nodes = nodes_of_layers(file, ["head.size"])
    assert nodes
    assert all("/size/" in name for name in nodes)
    assert nodes_of_layers(file, [nodes[0]]) == nodes[:1]
    with pytest.raises(BadConfig, match=r"no layer is called head.sizes. Layers: .*head.size.0"):
        nodes_of_layers(file, ["head.sizes"])
    pins, scan = pins_for_fp16(floats, [], ["head.size"])
    assert (pins, scan) == (nodes, None)


def test_the_peaks_are_those_of_the_network(floats, photos, preprocess):
    file = floats.file("model.onnx")
    found = tensor_peaks(file, [str(photos[0])], preprocess.to_dict(), "nchw_float", lambda done, total: None)
    assert len(found) == len({one["tensor"] for one in found}) > 20
    model = load_model(file)
    some = [one["tensor"] for one in found[::25]]
    model.graph.output.extend(onnx.helper.make_empty_tensor_value_info(name) for name in some)
    session = onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    values = session.run(some, {"image": preprocess(read_image(photos[0]), "nchw_float")[0]})
    for one, value in zip(found[::25], values, strict=True):
        assert one["largest"] == pytest.approx(float(np.abs(value).max()), rel=1e-5)
