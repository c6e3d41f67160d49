"""The gate, the fallback and the artifact; the graphs themselves are in test_qdq."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.conversion import calibrate as calibration_room
from edgekit.conversion import quantize as room
from edgekit.conversion.compare import network_inputs, run_onnx
from edgekit.conversion.quantize import QuantizeOptions, quantize
from edgekit.runtime.artifact import Artifact, new_artifact, read_artifact
from edgekit.runtime.errors import AccuracyDrop, BadConfig, BadInput

from .graphs import f32, graph

LAST = ["head.heatmap.2", "head.size.2", "head.offset.2"]
PARENTS = {"onnx": "1" * 64, "calibration": "2" * 64}


@pytest.fixture(autouse=True)
def _shared_cache(tmp_path_factory, monkeypatch):
    """One calibration pass for the whole file."""
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "quantize-cache"))


@pytest.fixture
def ranking(monkeypatch, pixels):
    """A ranking without its 70 runs: the convolutions in the order of the graph."""
    asked = []

    def rank_layers(model, images, preprocess, layout, ranges, skip, progress):
        asked.append(list(skip))
        names = [name for name in room._layers(model) if name not in skip]
        return [(name, 1.0 / (1 + k)) for k, name in enumerate(names)]

    monkeypatch.setattr(room, "rank_layers", rank_layers)
    return asked


def accuracies(*values):
    """A measure that gives these mAPs one after the other, and remembers what it was asked for."""
    left = iter(values)
    asked = []

    def measure(artifact):
        asked.append((artifact.kind, artifact.manifest["payload"]["model.onnx"]["sha256"]))
        return {"map50": next(left), "map": 0.1, "images": 4}

    return measure, asked


def peaks(path, images, count):
    """(x, y, class) of the strongest boxes of each image."""
    found = []
    for boxes, scores in run_onnx(path, images):
        order = np.argsort(-scores[0].max(1))[:count]
        x, y = boxes[0][order, 0::2].mean(1), boxes[0][order, 1::2].mean(1)
        found.append(np.stack([x, y, scores[0][order].argmax(1) * 1000], 1))
    return found


def test_int8_sees_what_float_sees(pixels, photos, preprocess, tmp_path):
    artifact = quantize(pixels, photos, PARENTS, tmp_path / "int8")
    images = network_inputs(photos, preprocess, "nhwc_uint8")
    hits = []
    few, many = peaks(pixels.file("model.onnx"), images, 5), peaks(artifact.file("model.onnx"), images, 20)
    for expected, found in zip(few, many, strict=True):
        distance = np.abs(expected[:, None] - found[None]).max(2).min(1)
        hits += list(distance < 6)  # one and a half cells of the heat map
    assert np.mean(hits) >= 0.8
    manifest = artifact.manifest
    assert artifact.kind == "onnx-int8"
    same = ("classes", "category_ids", "preprocess", "recipe", "input", "postprocess", "complexity")
    assert {k: manifest[k] for k in same} == {k: pixels.manifest[k] for k in same}
    assert (manifest["precision"], manifest["flavour"], manifest["parents"]) == ("int8", "x86", PARENTS)
    assert manifest["float_layers"] == LAST
    assert manifest["calibration"]["method"] == "minmax"
    assert len(manifest["calibration"]["images"]) == len(photos)
    assert "metrics" not in manifest
    small, large = (a.manifest["payload"]["model.onnx"]["bytes"] for a in (artifact, pixels))
    assert small < 0.3 * large


def test_the_gate_keeps_the_file_it_measured(pixels, photos, tmp_path):
    measure, asked = accuracies(0.500, 0.491)
    phases = []
    artifact = quantize(
        pixels, photos, PARENTS, tmp_path / "int8", measure=measure, progress=lambda *step: phases.append(step)
    )
    assert [kind for kind, _ in asked] == ["onnx", "onnx-int8"]
    assert artifact.manifest["payload"]["model.onnx"]["sha256"] == asked[1][1]
    assert artifact.manifest["metrics"] == {"map50": 0.491, "map": 0.1, "images": 4}
    record = artifact.manifest["quantization"]
    assert (record["map50_before"], record["map50_after"], record["tries"]) == (0.5, 0.491, 1)
    assert record["drop"] == pytest.approx(0.9)
    assert ("quantize", 1, 1) in phases


def test_a_better_int8_passes_any_gate(pixels, photos, tmp_path):
    measure, _ = accuracies(0.5, 0.52)
    artifact = quantize(pixels, photos, PARENTS, tmp_path / "int8", QuantizeOptions(max_drop=0), measure)
    assert artifact.manifest["quantization"]["drop"] == pytest.approx(-2)


@pytest.mark.parametrize(("before", "idle"), [(0.0, True), (0.01, True), (0.0101, False)])
def test_a_gate_that_cannot_fail_is_told(pixels, photos, tmp_path, before, idle):
    """A detector that finds nothing on these images has nothing to lose."""
    measure, _ = accuracies(before, before)
    artifact = quantize(pixels, photos, PARENTS, tmp_path / "int8", QuantizeOptions(max_drop=1.0), measure)
    told = [note for note in artifact.manifest["notes"] if "--max-drop 1 cannot fail there" in note]
    assert len(told) == idle
    assert all(f"FP32 has mAP@0.5 {before:.3g}" in note for note in told)


def test_layers_go_back_to_float_in_growing_groups(pixels, photos, ranking, tmp_path):
    measure, asked = accuracies(0.50, 0.40, 0.45, 0.495)
    artifact = quantize(pixels, photos, PARENTS, tmp_path / "int8", measure=measure)
    assert [kind for kind, _ in asked] == ["onnx"] + 3 * ["onnx-int8"]
    assert len({digest for _, digest in asked}) == 4
    assert artifact.manifest["quantization"]["tries"] == 3
    stem = ["backbone.stem.0.0", "backbone.stem.1.0", "backbone.stage1.0.body.0.0", "backbone.stage1.0.body.1.0"]
    assert artifact.manifest["float_layers"] == LAST + stem
    assert artifact.manifest["payload"]["model.onnx"]["sha256"] == asked[-1][1]
    assert len(ranking) == 1
    assert [name.rsplit("/", 2)[1] for name in ranking[0]] == ["heatmap.2", "size.2", "offset.2"]


def test_when_nothing_helps_every_number_is_told_and_nothing_is_left(pixels, photos, ranking, tmp_path):
    measure, _ = accuracies(0.50, 0.40, 0.41, 0.42, 0.43, 0.44)
    with pytest.raises(AccuracyDrop) as failure:
        quantize(pixels, photos, PARENTS, tmp_path / "int8", measure=measure)
    message = str(failure.value)
    assert "more than 1 point of mAP" in message
    assert "3 layers in float: 50.00 -> 40.00, a drop of 10.00" in message
    assert "19 layers in float: 50.00 -> 44.00, a drop of 6.00" in message
    assert "--max-drop" in message
    assert list(tmp_path.iterdir()) == []


def test_a_failure_leaves_the_old_artifact(pixels, photos, ranking, tmp_path):
    measure, _ = accuracies(0.5, 0.5)
    before = quantize(pixels, photos, PARENTS, tmp_path / "int8", measure=measure)

    def interrupt(artifact):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        quantize(pixels, photos, PARENTS, tmp_path / "int8", measure=interrupt)
    assert read_artifact(tmp_path / "int8").digest == before.digest


def test_another_flavour_skips_the_calibration_pass(floats, photos, tmp_path, monkeypatch):
    quantize(floats, photos, PARENTS, tmp_path / "x86")

    def forbidden(*arguments, **more):
        raise AssertionError("calibrated again")

    monkeypatch.setattr(calibration_room, "run_in_child", forbidden)
    options = QuantizeOptions(flavour="trt", float_modules=("head",))
    artifact = quantize(floats, photos, PARENTS, tmp_path / "trt", options)
    assert artifact.manifest["flavour"] == "trt"
    assert len(artifact.manifest["float_layers"]) == 6


def test_tensorrt_has_no_uint8_input(pixels, photos, tmp_path):
    with pytest.raises(BadConfig, match="needs an artifact with input layout nchw_float, found nhwc_uint8"):
        quantize(pixels, photos, PARENTS, tmp_path / "int8", QuantizeOptions(flavour="trt"))
    assert list(tmp_path.iterdir()) == []


def test_an_empty_calibration_set(pixels, tmp_path):
    with pytest.raises(BadInput, match="calibration set is empty"):
        quantize(pixels, [], PARENTS, tmp_path / "int8")
    assert list(tmp_path.iterdir()) == []


def test_an_unknown_layer_is_named(pixels, photos, tmp_path):
    with pytest.raises(BadConfig, match=r"no layer is called neck\. Layers: backbone"):
        quantize(pixels, photos, PARENTS, tmp_path / "int8", QuantizeOptions(float_modules=("head", "neck")))


def test_a_loss_of_just_what_may_be_lost_passes(pixels, photos, tmp_path):
    """In binary 31.7 - 30.7 is a little more than 1."""
    measure, _ = accuracies(0.317, 0.307)
    artifact = quantize(pixels, photos, PARENTS, tmp_path / "int8", QuantizeOptions(max_drop=1.0), measure)
    assert artifact.manifest["quantization"]["drop"] == 1.0


@pytest.mark.parametrize(
    "options", [{"flavour": "arm"}, {"method": "kl"}, {"max_drop": -1}, {"max_drop": float("nan")}], ids=str
)
def test_wrong_options(options):
    with pytest.raises(BadConfig, match=next(iter(options))):
        QuantizeOptions(**options)


def test_seven_bits_are_for_x86():
    with pytest.raises(BadConfig, match="reduce_range is for x86 CPUs"):
        QuantizeOptions(flavour="trt", reduce_range=True)


def test_the_key_depends_on_options_and_parents():
    keys = {
        QuantizeOptions().key(PARENTS),
        QuantizeOptions(flavour="trt").key(PARENTS),
        QuantizeOptions(method="entropy").key(PARENTS),
        QuantizeOptions(float_modules=("head",)).key(PARENTS),
        QuantizeOptions().key({**PARENTS, "calibration": "3" * 64}),
    }
    assert len(keys) == 5


def test_the_key_follows_what_a_flavour_is(monkeypatch):
    """So `run` makes files with INT8 weights, as earlier versions wrote them, anew."""
    now = QuantizeOptions(flavour="trt").key(PARENTS)
    before = replace(room.FLAVOURS["trt"], float_weights=False)
    monkeypatch.setattr(room, "FLAVOURS", {"trt": before})
    assert QuantizeOptions(flavour="trt").key(PARENTS) != now


def test_the_key_follows_how_ranges_are_found(monkeypatch):
    now = {method: QuantizeOptions(method=method).key(PARENTS) for method in calibration_room.FORMATS}
    monkeypatch.setitem(calibration_room.FORMATS, "entropy", 99)
    assert [m for m in now if QuantizeOptions(method=m).key(PARENTS) != now[m]] == ["entropy"]


def test_a_batch_is_calibrated_too_and_an_old_opset_refused(detector, facts, photos, tmp_path):
    from edgekit.conversion.export import ExportOptions, onnx_artifact

    batch = onnx_artifact(detector, facts, {}, tmp_path / "b", photos[:1], ExportOptions(batch=2, top_k=20))[0]
    assert quantize(batch, photos[:1], PARENTS, tmp_path / "int8").manifest["input"]["shape"] == [2, 96, 128, 3]
    old = onnx_artifact(detector, facts, {}, tmp_path / "o", photos[:1], ExportOptions(opset=12, top_k=20))[0]
    with pytest.raises(BadConfig, match=r"found opset 12, needed 13.*edgekit export toy export\.opset=13"):
        quantize(old, photos[:1], PARENTS, tmp_path / "never")
    foreign = Artifact(old.path, {**old.manifest, "recipe": {"name": "yolo", "imported": {"file": "yolo.onnx"}}})
    with pytest.raises(BadConfig, match=r"anew from its framework with opset 13, then: edgekit import-onnx FILE"):
        quantize(foreign, photos[:1], PARENTS, tmp_path / "never")


@pytest.mark.parametrize("numbers", ["int8", "fp16"])
def test_int8_is_made_of_fp32_only(numbers, floats, photos, tmp_path):
    """What another project quantized, or typed FP16, has no float weights to take scales from."""
    values = {k: v for k, v in floats.manifest.items() if k not in ("kind", "payload")}
    with new_artifact(tmp_path / "low", "onnx", values | {"precision": numbers}) as folder:
        shutil.copy(floats.file("model.onnx"), folder)
    with pytest.raises(BadConfig, match=f"found a file in {numbers.upper()}, needed one in FP32.*import the network"):
        quantize(read_artifact(tmp_path / "low"), photos[:1], PARENTS, tmp_path / "int8")


@pytest.mark.parametrize(
    ("flavour", "groups", "kept"), [("x86", 2, True), ("x86", 1, False), ("x86", 4, False), ("trt", 2, False)]
)
def test_a_bias_that_gets_no_scale_keeps_its_layer_in_float_and_is_told(
    flavour, groups, kept, floats, photos, tmp_path
):
    weights = np.random.default_rng(0).normal(size=(4, 4 // groups, 2, 2))
    nodes = [
        ("Conv", ["image", "w"], ["c"], {}),
        ("ConvTranspose", ["c", "up", "b"], ["u"], {"strides": [2, 2], "group": groups}),
        ("Conv", ["u", "v"], ["y"], {}),
    ]
    constants = {"w": np.ones((4, 3, 1, 1)), "up": weights, "b": np.arange(4), "v": np.ones((1, 4, 1, 1))}
    constants = {name: f32(value) for name, value in constants.items()}
    ends = {"image": ("float", [1, 3, 96, 128])}, {"y": ("float", [1, 1, 192, 256])}
    values = {k: v for k, v in floats.manifest.items() if k not in ("kind", "payload", "float_modules")}
    with new_artifact(tmp_path / "float", "onnx", values) as folder:
        onnx.save(graph(nodes, *ends, constants), str(Path(folder) / "model.onnx"))
    source = read_artifact(tmp_path / "float")
    made = quantize(source, photos[:1], PARENTS, tmp_path / "int8", QuantizeOptions(flavour=flavour))
    assert made.manifest["float_layers"] == ["n_u"] * kept
    assert any("n_u stays in float" in note for note in made.manifest["notes"]) == kept
