"""The verb: artifacts that work like our own, and mistakes that are told in one sentence."""

import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from edgekit.conversion.foreign import precision_of
from edgekit.conversion.half import write_half
from edgekit.conversion.imports import opset
from edgekit.conversion.imports.convert import convert
from edgekit.conversion.imports.inputs import class_names
from edgekit.conversion.imports.layouts import LAYOUTS, find_spec
from edgekit.conversion.imports.look import judge
from edgekit.conversion.imports.verb import ImportOptions, given_names, import_onnx
from edgekit.data.evaluation import recipe_images
from edgekit.measure.complexity import Complexity
from edgekit.paths import share
from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput
from edgekit.runtime.images import read_image
from edgekit.runtime.runner import open_runner

from . import networks as nets

NAMES = ["car", "bus", "bicycle"]
OPTIONS = {"size": None, "priors": None, "top_k": 20}


@pytest.fixture(scope="module")
def files(tmp_path_factory):
    """Exported once: name -> path."""
    folder = tmp_path_factory.mktemp("foreign")
    made = {
        "v5": (nets.YoloV5(), ["output0"]),
        "v8": (nets.YoloV8(), ["output0"]),
        "e2e": (nets.EndToEnd(), ["output0"]),
        "ssd": (nets.Ssd(priors=False), ["loc", "conf"]),
        "centers": (nets.CenterNet(), ["hm", "wh", "reg"]),
        "detr": (nets.Detr(), ["logits", "boxes"]),
    }
    return {name: nets.export(net, folder / f"{name}.onnx", outputs) for name, (net, outputs) in made.items()}


def brought(files, name, layout, tmp_path, classes=NAMES, **options):
    return convert(str(files[name]), str(tmp_path / "made.onnx"), layout, classes, {**OPTIONS, **options})


# -- what comes out ---------------------------------------------------------------------------------------------------
@pytest.mark.slow
def test_an_imported_file_is_an_artifact_like_our_own(files, tmp_path):
    photos = sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))[:1]
    made = import_onnx(files["v8"], layout="yolov8", classes=NAMES, images=photos, out=tmp_path / "onnx")
    assert made.kind == "onnx"
    assert made.classes == NAMES
    assert (made.preprocess.mode, made.preprocess.colour, made.preprocess.size) == ("letterbox", "rgb", nets.SIZE)
    assert made.manifest["postprocess"]["nms"] == "classwise"
    assert made.manifest["input"] == {"name": "image", "layout": "nchw_float", "shape": [1, 3, 48, 64]}
    assert made.manifest["complexity"]["macs"] > 0
    assert made.manifest["recipe"]["imported"]["outputs"] == "output0 float [1, 7, 192]"
    assert read_artifact(tmp_path / "onnx").digest == made.digest
    with open_runner(made.path) as runner:
        runner.check(read_image(photos[0]))
        found, _ = runner(read_image(photos[0]))
    assert len(found) > 0
    again = import_onnx(files["v8"], layout="yolov8", classes=NAMES, images=photos, out=tmp_path / "again")
    assert again.digest == made.digest


@pytest.mark.slow
def test_an_imported_file_that_nobody_counts_says_so(files, tmp_path, monkeypatch):
    unknown = Complexity(None, 3, (), uncounted=("1 LSTM",))
    monkeypatch.setattr("edgekit.conversion.imports.verb.complexity", lambda path: unknown)
    made = import_onnx(files["v8"], layout="yolov8", classes=NAMES, out=tmp_path / "onnx")
    assert made.manifest["complexity"] == {"macs": None, "gops": None, "parameters": 3}
    assert "MACs and GOPS are not known: uncounted: 1 LSTM" in made.manifest["notes"]


@pytest.mark.slow
def test_the_artifact_remembers_real_images_for_what_comes_later(files, tmp_path):
    """FP16 is looked at for overflow, and a bundle proves its boxes, on the user's images or on those that ship."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for photo in sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))[:2]:
        shutil.copy(photo, folder)
    given = {"layout": "yolov8", "classes": NAMES}
    mine = import_onnx(files["v8"], **given, images=[folder], out=tmp_path / "a")
    assert recipe_images(mine, 8) == sorted(folder.iterdir())
    one = [next(folder.iterdir())]
    files_only = import_onnx(files["v8"], **given, images=one, out=tmp_path / "b")
    assert {p.parent.parent.name for p in recipe_images(files_only, 8)} == {"dhaka-eval"}


def test_the_users_preprocessing_wins_over_the_layouts(files, tmp_path):
    options = ImportOptions(mode="stretch", mean=(1, 2, 3), std=(4, 5, 6), colour="bgr", nms="soft")
    made = import_onnx(files["e2e"], layout="end2end", classes="car,bus,bicycle", options=options, out=tmp_path / "o")
    assert made.preprocess.to_dict() == {
        "size": [64, 48],
        "mode": "stretch",
        "pad_value": 114,
        "colour": "bgr",
        "mean": [1, 2, 3],
        "std": [4, 5, 6],
        "interpolation": "linear",
    }
    assert made.manifest["postprocess"]["nms"] == "soft"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("{0: 'car', 1: 'bus'}", ["car", "bus"]),
        ("{1: 'bus', 0: 'car', 10: 'tram'}", ["car", "bus", "tram"]),
        ('["car", "bus"]', ["car", "bus"]),
        ('{"0": "car", "1": "bus"}', ["car", "bus"]),
        ('{"\u00b2": "car", "1": "bus"}', ["bus", "car"]),
        ('["car", "car"]', None),
        ("__import__('os').getcwd()", None),
        ("", None),
        ("[]", None),
        ("(" * 5000, None),
    ],
)
def test_class_names_of_the_metadata(files, text, expected):
    model = onnx.load(files["v8"])
    helper.set_model_props(model, {"names": text})
    assert class_names(model) == expected


def test_names_of_the_file_are_used(files, tmp_path):
    model = onnx.load(files["v8"])
    helper.set_model_props(model, {"names": "{0: 'a', 1: 'b', 2: 'c'}"})
    onnx.save(model, tmp_path / "named.onnx")
    found = convert(str(tmp_path / "named.onnx"), str(tmp_path / "made.onnx"), "yolov8", None, OPTIONS)
    assert found["classes"] == ["a", "b", "c"]


# -- inputs of other kinds --------------------------------------------------------------------------------------------
def wrapped(kind, shape, perm=None):
    """YOLOv8's output from an image of another type and order: the mean over channels, as 7 values of 4 boxes."""
    nodes = [helper.make_node("Cast", ["in"], ["f"], to=TensorProto.FLOAT)]
    nodes += [helper.make_node("Transpose", ["f"], ["chw"], perm=perm or [0, 1, 2, 3])]
    nodes += [helper.make_node("GlobalAveragePool", ["chw"], ["mean"]), helper.make_node("Flatten", ["mean"], ["flat"])]
    nodes += [helper.make_node("MatMul", ["flat", "w"], ["row"]), helper.make_node("Sigmoid", ["row"], ["p"])]
    nodes += [helper.make_node("Reshape", ["p", "s"], ["out"])]
    tensors = [
        numpy_helper.from_array(np.linspace(-1, 1, 3 * 7 * 8, dtype=np.float32).reshape(3, 56), "w"),
        numpy_helper.from_array(np.array([1, 7, 8]), "s"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("in", kind, shape)],
        [helper.make_tensor_value_info("out", TensorProto.FLOAT, [1, 7, 8])],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)


@pytest.mark.parametrize(
    ("kind", "shape", "perm", "layout", "given"),
    [
        (TensorProto.FLOAT, [1, 3, 8, 16], None, "nchw_float", [1, 3, 8, 16]),
        (TensorProto.FLOAT, ["n", 3, 8, 16], None, "nchw_float", [1, 3, 8, 16]),
        (TensorProto.FLOAT, [1, 8, 16, 3], [0, 3, 1, 2], "nchw_float", [1, 3, 8, 16]),
        (TensorProto.FLOAT16, [1, 3, 8, 16], None, "nchw_float", [1, 3, 8, 16]),
        (TensorProto.UINT8, [1, 8, 16, 3], [0, 3, 1, 2], "nhwc_uint8", [1, 8, 16, 3]),
        (TensorProto.UINT8, [1, 3, 8, 16], None, "nhwc_uint8", [1, 8, 16, 3]),
    ],
)
def test_images_of_other_types_and_orders(tmp_path, kind, shape, perm, layout, given):
    onnx.save(wrapped(kind, shape, perm), tmp_path / "in.onnx")
    found = convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)
    assert (found["layout"], found["shape"], found["size"]) == (layout, given, [16, 8])
    value = onnx.load(tmp_path / "made.onnx").graph.input[0]
    wanted = TensorProto.UINT8 if layout == "nhwc_uint8" else TensorProto.FLOAT
    assert value.type.tensor_type.elem_type == wanted
    assert [d.dim_value for d in value.type.tensor_type.shape.dim] == given


@pytest.mark.parametrize(
    ("kind", "shape", "size", "told"),
    [
        (TensorProto.FLOAT, [1, 4, 8, 16], None, "three channels"),
        (TensorProto.FLOAT, [1, 24], None, "needed one image"),
        (TensorProto.INT32, [1, 3, 8, 16], None, "INT32; needed FLOAT"),
        (TensorProto.FLOAT, [1, 3, 8, 16], (32, 32), "the file is exported for 16x8"),
        (TensorProto.FLOAT, [1, 3, 8, "w"], None, "give the size"),
        (TensorProto.FLOAT, [1, 3, 0, 0], None, "give the size"),
        (TensorProto.FLOAT, [1, 3, 8, "w"], (32, 32), "anyx8"),
    ],
)
def test_images_that_are_none(tmp_path, kind, shape, size, told):
    onnx.save(wrapped(kind, shape), tmp_path / "in.onnx")
    with pytest.raises(BadConfig, match=told):
        convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, {**OPTIONS, "size": size})


def test_further_inputs_become_constants(tmp_path):
    made = wrapped(TensorProto.FLOAT, [1, 3, 8, 16])
    made.graph.input.append(helper.make_tensor_value_info("scale", TensorProto.FLOAT, [1]))
    made.graph.node.append(helper.make_node("Mul", ["out", "scale"], ["scaled"]))
    made.graph.output[0].name = "scaled"
    onnx.save(made, tmp_path / "in.onnx")
    with pytest.raises(BadConfig, match=r"inputs: in \[1, 3, 8, 16\], scale \[1\].*constants"):
        convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)
    spec = "boxes: {output: scaled, transposed: true, columns: [0, 4], format: cxcywh}\n"
    spec += "scores: {output: scaled, transposed: true, columns: [4, 7]}\nconstants: {scale: [0.5]}\n"
    (tmp_path / "l.yaml").write_text(spec)
    convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), str(tmp_path / "l.yaml"), NAMES, OPTIONS)
    assert [v.name for v in onnx.load(tmp_path / "made.onnx").graph.input] == ["image"]


# -- wrong layouts ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "layout", "told"),
    [
        (
            "v8",
            "yolov5",
            r"layout 'yolov5' needs .*outputs of the file are: output0 float \[1, 7, 192\]\. They would fit: yolov8",
        ),
        ("v5", "end2end", r"output0 float \[1, 192, 8\].* They would fit: yolov5"),
        ("detr", "centernet", r"logits float \[1, 192, 4\], boxes float \[1, 192, 4\].* They would fit: ssd, detr"),
        ("centers", "yolov8", r"hm float \[1, 3, 12, 16\].* They would fit: centernet"),
        ("ssd", "ssd", r"give --priors FILE\.npy"),
        ("ssd", "selected", r"loc float"),
    ],
)
def test_a_wrong_layout_shows_the_outputs_and_what_fits(files, tmp_path, name, layout, told):
    with pytest.raises(BadConfig, match=told):
        brought(files, name, layout, tmp_path)


def test_priors_of_another_count_are_told(files, tmp_path):
    few = tmp_path / "pri.npy"
    np.save(few, np.full((10, 4), 0.5, np.float32))
    with pytest.raises(BadConfig, match=r"pri\.npy has 10 priors, output loc has 192 boxes"):
        brought(files, "ssd", "ssd", tmp_path, priors=str(few))


@pytest.mark.parametrize("layout", ["detr", "rt-detr", "edgekit"])
@pytest.mark.parametrize("outputs", [["out0", "out1"], ["out1_boxes", "out0_boxes"]])
def test_two_outputs_that_may_both_be_boxes_must_be_described(layout, outputs, tmp_path):
    extra = 1 if layout == "detr" else 0
    source = nets.export(nets.Detr(1), tmp_path / "two.onnx", outputs)
    names = ["a", "b", "c", "d"][: 4 - extra]
    with pytest.raises(BadConfig, match=rf"neither shapes nor names.*{outputs[0]} float \[1, 192, 4\].*FILE\.yaml"):
        brought({"two": source}, "two", layout, tmp_path, names)


@pytest.mark.parametrize(
    ("outputs", "boxes"),
    [
        (["logits", "boxes"], "boxes"),
        (["pred_logits", "out"], "out"),
        (["out", "pred_boxes"], "pred_boxes"),
        (["anchor_scores", "bbox_reg"], "bbox_reg"),
    ],
)
def test_names_tell_which_of_two_outputs_are_boxes(outputs, boxes, tmp_path):
    source = nets.export(nets.Detr(1), tmp_path / "two.onnx", outputs)
    spec = find_spec("detr", onnx.shape_inference.infer_shapes(onnx.load(source)), 3)
    assert spec.boxes.output == boxes


@pytest.mark.parametrize("layout", ["selected", "yaml"])
def test_an_output_may_be_called_image(layout, tmp_path):
    source = nets.export(nets.Selected(), tmp_path / "s.onnx", ["image", "scores", "labels"])
    text = "boxes: {output: image}\nselected: {scores: {output: scores}, classes: {output: labels}}\nnms: none\n"
    (tmp_path / "l.yaml").write_text(text)
    chosen = str(tmp_path / "l.yaml") if layout == "yaml" else layout
    found = brought({"s": source}, "s", chosen, tmp_path)
    assert found["outputs"].startswith("image float [1, 10, 4]")
    image = np.random.default_rng(0).uniform(0, 1, (1, 3, nets.SIZE[1], nets.SIZE[0])).astype(np.float32)
    expected = onnxruntime.InferenceSession(str(source)).run(["image"], {"images": image})[0]
    made = onnxruntime.InferenceSession(str(tmp_path / "made.onnx")).run(["boxes"], {"image": image})[0]
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "layout", "classes", "told"),
    [
        ("v8", "yolov8", None, "has 3 classes and does not name them: give --classes"),
        ("v8", "yolov8", ["a", "b"], r"another number of classes: 2 names are given.*\[1, 7, 192\]"),
        ("e2e", "end2end", None, "how many classes there are: name them with --classes"),
        ("detr", "rt-detr", NAMES, "another number of classes: 3 names"),
    ],
)
def test_classes_that_do_not_fit(files, tmp_path, name, layout, classes, told):
    with pytest.raises(BadConfig, match=told):
        brought(files, name, layout, tmp_path, classes)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        (
            "boxes: {output: nothing}\nscores: {output: output0}\n",
            "outputs that the file does not have: nothing; it has: output0",
        ),
        (
            "boxes: {output: output0, columns: [0, 9]}\nscores: {output: output0}\n",
            "columns 0 to 9 of output0: it has 8",
        ),
        ("boxes: {output: output0}\nscores: {output: output0}\n", "four values for each box, found 8"),
        ("boxes: {output: output0, columns: [0, 4]}\nscores: {output: output0, columns: [5, 7]}\n", "finds 2"),
        ("boxes: {outputs: x}\nscores: {output: y}\n", "boxes.outputs: unknown key; did you mean output"),
        ("scores: {output: y}\n", "boxes: needed with scores"),
        ("boxes: {output: output0}\n", "exactly one of: scores, selected, centers"),
        ("- a list\n", "expected a mapping"),
        ("{broken", "not valid YAML"),
        (
            "constants: {x: 1}\nboxes: {output: output0}\nscores: {output: output0}\n",
            "has no input 'x'; it has: images",
        ),
    ],
)
def test_yaml_layouts_that_are_wrong(files, tmp_path, text, told):
    (tmp_path / "l.yaml").write_text(text)
    with pytest.raises(BadConfig, match=told):
        brought(files, "v5", str(tmp_path / "l.yaml"), tmp_path)


@pytest.mark.parametrize(
    ("call", "error", "told"),
    [
        ({"layout": "yolov9"}, BadConfig, "no layout named 'yolov9'. Did you mean"),
        ({"layout": "missing.yaml"}, BadInput, "no such file. A layout is one of"),
        ({"layout": "ssd"}, BadConfig, "give --mode --colour --mean --std"),
        ({"layout": "yolov8", "classes": "missing.txt"}, BadInput, "no such file"),
        ({"layout": "yolov8", "classes": ["a", "a", "b"]}, BadConfig, "named twice: a"),
        ({"layout": "yolov8", "options": ImportOptions(mode="squeeze")}, BadConfig, "mode: expected one of"),
        ({"layout": "yolov8", "options": ImportOptions(std=(1.0, 0.0, 1.0))}, BadConfig, "std positive"),
        ({"layout": "yolov8", "options": ImportOptions(nms="hard")}, BadConfig, "nms: expected one of"),
        ({"layout": "yolov8", "images": [Path("nowhere")]}, BadInput, "nowhere"),
    ],
)
def test_mistakes_in_the_call(files, tmp_path, call, error, told):
    settings = {"classes": NAMES, **call}
    if str(settings["layout"]).endswith("yaml"):
        settings["options"] = ImportOptions(mode="stretch", colour="rgb", mean=(0, 0, 0), std=(1, 1, 1))
    with pytest.raises(error, match=told):
        import_onnx(files["v8"], out=tmp_path / "out", **settings)
    assert not (tmp_path / "out").exists()


def test_what_is_no_artifact_is_not_replaced(files, tmp_path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "precious.txt").write_text("mine")
    with pytest.raises(ArtifactError, match="exists and is not an artifact"):
        import_onnx(files["v8"], layout="yolov8", classes=NAMES, out=tmp_path / "out")
    assert (tmp_path / "out" / "precious.txt").read_text() == "mine"


@pytest.mark.parametrize("text", ["car\nbus\n\nbicycle\n", '["car", "bus", "bicycle"]', "car\r\nbus\r\nbicycle"])
def test_class_files(tmp_path, text):
    (tmp_path / "names.txt").write_text(text)
    assert given_names(tmp_path / "names.txt") == NAMES


@pytest.mark.parametrize("value", ["car,bus,bicycle", "car, bus ,bicycle", NAMES, tuple(NAMES)])
def test_class_names_of_the_call(value):
    assert given_names(value) == NAMES


def test_a_class_list_that_is_no_json(tmp_path):
    (tmp_path / "names.txt").write_text("[car, bus")
    with pytest.raises(BadInput, match=r"names\.txt: not a JSON list"):
        given_names(tmp_path / "names.txt")


# -- files that mean ill, or are broken -------------------------------------------------------------------------------
def test_a_truncated_file(files, tmp_path):
    whole = files["v8"].read_bytes()
    for length in (0, 1, 10, len(whole) // 2, len(whole) - 1):
        (tmp_path / "cut.onnx").write_bytes(whole[:length])
        with pytest.raises(BadInput, match=r"cut\.onnx"):
            convert(str(tmp_path / "cut.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


@pytest.mark.parametrize("location", ["/etc/passwd", "../secret.bin", "sub/../../secret.bin", ""])
def test_weights_outside_the_folder_are_refused(files, tmp_path, location):
    (tmp_path / "secret.bin").write_bytes(b"\0" * 10_000)
    folder = tmp_path / "model"
    folder.mkdir()
    model = onnx.load(files["v8"])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", location
    onnx.save(model, folder / "m.onnx")
    with pytest.raises(BadInput, match="outside the model's folder"):
        convert(str(folder / "m.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


def test_a_link_that_leaves_the_folder_is_refused(files, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    (tmp_path / "secret.bin").write_bytes(b"\0" * 10_000)
    (folder / "weights.bin").symlink_to(tmp_path / "secret.bin")
    model = onnx.load(files["v8"])
    tensor = model.graph.initializer[0]
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    entry = tensor.external_data.add()
    entry.key, entry.value = "location", "weights.bin"
    onnx.save(model, folder / "m.onnx")
    with pytest.raises(BadInput, match="outside the model's folder"):
        convert(str(folder / "m.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


def test_weights_beside_the_file_are_read(files, tmp_path):
    folder = tmp_path / "model"
    folder.mkdir()
    onnx.save(onnx.load(files["v8"]), folder / "m.onnx", save_as_external_data=True, location="w.bin", size_threshold=0)
    convert(str(folder / "m.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)
    (folder / "w.bin").unlink()
    with pytest.raises(BadInput, match="not beside the model"):
        convert(str(folder / "m.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


@pytest.mark.parametrize("dims", [[2**40, 2**40], [2**31], [-5, 3]])
def test_impossible_sizes_are_refused_before_anything_is_allocated(files, tmp_path, dims):
    model = onnx.load(files["v8"])
    tensor = model.graph.initializer[0]
    del tensor.dims[:]
    tensor.dims.extend(dims)
    onnx.save(model, tmp_path / "huge.onnx")
    with pytest.raises(BadInput, match="says that its shape is"):
        convert(str(tmp_path / "huge.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


def test_a_huge_input_is_refused(tmp_path):
    onnx.save(wrapped(TensorProto.FLOAT, [1, 3, 2**20, 2**20]), tmp_path / "in.onnx")
    with pytest.raises(BadInput, match="no such tensor can be computed"):
        convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


def test_an_opset_that_cannot_be_lowered_is_kept_and_told(tmp_path):
    made = wrapped(TensorProto.FLOAT, [1, 3, 8, 16])
    made.graph.node[5].CopyFrom(helper.make_node("GroupNormalization", ["row4", "g", "b"], ["p4"], num_groups=1))
    tensors = {"g": np.ones(1, np.float32), "b": np.zeros(1, np.float32), "s4": np.array([1, 1, 7, 8])}
    made.graph.initializer.extend(numpy_helper.from_array(v, n) for n, v in tensors.items())
    made.graph.node.insert(5, helper.make_node("Reshape", ["row", "s4"], ["row4"]))
    made.graph.node[7].CopyFrom(helper.make_node("Reshape", ["p4", "s"], ["normal"]))
    made.graph.node.append(helper.make_node("Sigmoid", ["normal"], ["out"]))
    made.opset_import[0].version = 21
    made.ir_version = 10
    onnx.save(made, tmp_path / "in.onnx")
    found = convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)
    assert found["notes"] == ["the file stays in opset 21: opset 13 has no GroupNormalization ()"]
    assert onnx.load(tmp_path / "made.onnx").opset_import[0].version == 21


# -- the numbers that it computes in ----------------------------------------------------------------------------------
def in_int8(model):
    """The image through QuantizeLinear and DequantizeLinear."""
    scale = [numpy_helper.from_array(np.float32(1 / 255), "scale"), numpy_helper.from_array(np.uint8(0), "zero")]
    model.graph.initializer.extend(scale)
    image = model.graph.input[0].name
    for node in model.graph.node:
        node.input[:] = ["rounded" if name == image else name for name in node.input]
    pair = [("QuantizeLinear", image, "steps"), ("DequantizeLinear", "steps", "rounded")]
    for place, (kind, source, target) in enumerate(pair):
        model.graph.node.insert(place, helper.make_node(kind, [source, "scale", "zero"], [target], name=target))
    return model


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_artifact_says_what_numbers_the_file_computes_in(precision, files, tmp_path):
    """All were called FP32: rows, words and the steps behind took a quantized file for the float one."""
    model = onnx.load(files["e2e"])
    onnx.save(in_int8(model) if precision == "int8" else model, tmp_path / "in.onnx")
    if precision == "fp16":
        write_half(files["e2e"], tmp_path / "in.onnx")
    made = import_onnx(tmp_path / "in.onnx", layout="end2end", classes=NAMES, out=tmp_path / "onnx")
    assert made.manifest["precision"] == precision


@pytest.mark.parametrize("kind", ["QLinearConv", "ConvInteger", "MatMulInteger", "DynamicQuantizeLinear"])
def test_integer_operators_are_int8_whatever_the_weights(kind):
    model = wrapped(TensorProto.FLOAT, [1, 3, 8, 16])
    assert precision_of(model) == "fp32"
    model.graph.node[0].op_type = kind
    assert precision_of(model) == "int8"


# -- opsets -----------------------------------------------------------------------------------------------------------
def upsampled(operator, version, mode, scale=1.5):
    """An image, resized the way of the opsets before 11."""
    return helper.make_model(
        helper.make_graph(
            [helper.make_node(operator, ["x", "s"], ["y"], mode=mode)],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 3, 6, 6])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 3, int(6 * scale), int(6 * scale)])],
            [numpy_helper.from_array(np.float32([1, 1, scale, scale]), "s")],
        ),
        opset_imports=[helper.make_opsetid("", version)],
        ir_version=7,
    )


def computed(model):
    image = np.random.default_rng(1).uniform(0, 1, (1, 3, 6, 6)).astype(np.float32)
    return onnxruntime.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"]).run(
        None, {"x": image}
    )[0]


@pytest.mark.parametrize("mode", ["nearest", "linear"])
@pytest.mark.parametrize(("operator", "version"), [("Upsample", 9), ("Resize", 10)])
def test_an_old_upsampling_stays_where_it_was(operator, version, mode):
    """ONNX's converter shifts the linear ones by half a pixel: boxes of a detector moved by 55."""
    model = upsampled(operator, version, mode)
    raised, note = opset.to_opset_13(model)
    assert (raised.opset_import[0].version, note) == (13, "")
    np.testing.assert_allclose(computed(raised), computed(model), atol=1e-6)


def test_a_raised_file_that_computes_something_else_is_not_taken(monkeypatch):
    monkeypatch.setattr(opset, "_as_before_opset_11", lambda node: None)
    model, note = opset.to_opset_13(upsampled("Resize", 10, "linear"))
    assert note == "the file stays in opset 10: it computes something else in opset 13"
    assert model.opset_import[0].version == 10


def stays(model, made, version):
    raise opset.CannotConvert("it computes something else in opset 13")


@pytest.mark.parametrize("version", [11, 12])
@pytest.mark.parametrize(("layout", "network"), [("selected", nets.Selected), ("centernet", nets.CenterNet)])
def test_the_decode_is_written_in_the_opset_that_the_file_keeps(version, layout, network, tmp_path, monkeypatch):
    """Squeeze and Unsqueeze have their axes as attributes there."""
    outputs = ["b", "s", "labels"] if layout == "selected" else ["hm", "wh", "reg"]
    source = nets.export(network(), tmp_path / "old.onnx", outputs, version)
    image = np.random.default_rng(0).uniform(0, 1, (1, 3, nets.SIZE[1], nets.SIZE[0])).astype(np.float32)

    def boxes():
        brought({"old": source}, "old", layout, tmp_path)
        made = onnxruntime.InferenceSession(str(tmp_path / "made.onnx"))
        return onnx.load(tmp_path / "made.onnx").opset_import[0].version, made.run(None, {"image": image})

    raised, expected = boxes()
    monkeypatch.setattr(opset, "_compared", stays)
    kept, found = boxes()
    assert (raised, kept) == (13, version)
    for a, b in zip(found, expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)


def test_a_file_that_stays_too_old_for_the_decode_is_refused(tmp_path, monkeypatch):
    made = wrapped(TensorProto.FLOAT, [1, 3, 8, 16])
    made.opset_import[0].version = 10
    onnx.save(made, tmp_path / "in.onnx")
    monkeypatch.setattr(opset, "_compared", stays)
    with pytest.raises(BadConfig, match=r"stays in opset 10: it computes something else.*anew from its framework"):
        convert(str(tmp_path / "in.onnx"), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)


def test_a_file_that_onnx_runtime_does_not_run_is_not_brought_down(monkeypatch):
    def refuse(*args, **kwargs):
        raise NotImplementedError("no kernel for it\nat all")

    monkeypatch.setattr(onnxruntime, "InferenceSession", refuse)
    for version, target in ((6, 13), (10, 10), (17, 17)):
        model = wrapped(TensorProto.FLOAT, [1, 3, 8, 16])
        del model.graph.node[3:]
        model.graph.node.append(helper.make_node("Reshape", ["mean", "s"], ["out"]))
        model.opset_import[0].version = version
        made, note = opset.to_opset_13(model)
        assert made.opset_import[0].version == target
        assert f"ONNX Runtime does not run it in opset {version} (no kernel for it)" in note


# -- the look at real images ------------------------------------------------------------------------------------------
SEEN = {"finite": True, "scores": [0.0, 1.0], "sides": [0.2, 0.05], "reach": 0.5}


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"finite": False}, "NaN or infinite"),
        ({"scores": [-3.0, 0.5]}, "no probabilities"),
        ({"scores": [0.0, 12.0]}, "no probabilities"),
    ],
)
def test_what_cannot_be_boxes_is_refused(change, told, tmp_path):
    with pytest.raises(BadConfig, match=told):
        list(judge({**SEEN, **change}, tmp_path / "m.onnx"))


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, None),
        ({"sides": [0.001, 0.0005], "reach": 0.0015}, "0..1 instead of pixels"),
        ({"reach": 50.0}, "far outside"),
        ({"sides": [0.2, -0.3]}, "end before they begin"),
    ],
)
def test_doubts_become_notes(change, told, tmp_path):
    notes = list(judge({**SEEN, **change}, tmp_path / "m.onnx"))
    assert len(notes) == (told is not None)
    assert all(told in note for note in notes)


def test_every_layout_is_documented():
    assert all(layout.needs for layout in LAYOUTS.values())
    assert json.dumps({name: dict(layout.preprocess) for name, layout in LAYOUTS.items()})
