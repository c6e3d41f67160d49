"""The spine as a user walks it: a small recipe with real images, every verb, and what is kept, skipped and refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import onnx
import pytest
import torch
import yaml
from onnx import numpy_helper

import edgekit
from edgekit import measuring, spine
from edgekit.board import load_board
from edgekit.conversion.engine import engine_of
from edgekit.data.calibration import load_set
from edgekit.data.evaluation import evaluation_set
from edgekit.models.checkpoint import checkpoint_manifest, save_weights, write_checkpoint
from edgekit.models.detector import Detector
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks
from edgekit.runtime.images import read_image
from edgekit.runtime.preprocess import Preprocess

SIMULATOR = Path(__file__).parent / "twin" / "simulator"
CLASSES = ("vehicle", "scooter", "bicycle")
RECIPE = {
    "name": "tiny",
    "classes": list(CLASSES),
    "model": {"name": "mobile-centernet"},
    "preprocess": {"size": [128, 96]},
    # a random network finds nothing, so INT8 has nothing to lose; the gate itself is tested with the quantizer
    "quantize": {"calibration": "dhaka-calib", "max_drop": 100},
    "evaluation": "dhaka-eval",
}


@pytest.fixture(scope="module")
def recipe(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A recipe folder that ships weights: a random network with distinct peaks."""
    folder = tmp_path_factory.mktemp("tiny")
    torch.manual_seed(3)
    model = build("mobile-centernet", len(CLASSES)).eval()
    _spread_outputs(model)
    save_weights(model, folder / "weights.safetensors", CLASSES)
    (folder / "recipe.yaml").write_text(yaml.safe_dump(RECIPE))
    return folder


def _spread_outputs(model: Detector) -> None:
    """Scale the head's last convolutions to outputs as a trained network has them: distinct peaks, no saturation."""
    preprocess = Preprocess(RECIPE["preprocess"]["size"])
    image = torch.from_numpy(preprocess(read_image(load_set("dhaka-eval").images[0]))[0])
    with torch.no_grad():
        features = model.backbone(image)
        for branch, mean, std in ((model.head.heatmap, -2, 2), (model.head.size, 8, 1), (model.head.offset, 0.5, 0.2)):
            last, out = branch[-1], branch(features)
            last.weight *= (std / (out - last.bias.view(1, -1, 1, 1)).std(dim=(0, 2, 3))).view(-1, 1, 1, 1)
            last.bias += mean - branch(features).mean(dim=(0, 2, 3))


@pytest.fixture(scope="module")
def walked(recipe: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("out") / "spine"
    rows = edgekit.run(recipe, out=out, seconds=0.1)
    assert [(r.runtime, r.precision) for r in rows] == [
        ("pytorch", "fp32"),
        ("onnxruntime", "fp32"),
        ("openvino", "fp32"),
        ("onnxruntime", "int8"),
        ("openvino", "int8"),
    ]
    return out


def test_the_spine_leaves_artifacts_a_report_and_pictures(walked: Path) -> None:
    assert [read_artifact(walked / k).kind for k in ("checkpoint", "onnx", "onnx-int8")] == [
        "checkpoint",
        "onnx",
        "onnx-int8",
    ]
    report = json.loads((walked / "report.json").read_text())
    assert len(report["rows"]) == 5
    assert "| model | board | runtime | precision | mAP@0.5 | mAP |" in (walked / "report.md").read_text()
    page = (walked / "report.html").read_text()
    assert "http://" not in page
    assert "https://" not in page
    pictures = list((walked / "pictures").glob("*.jpg"))
    assert pictures
    assert all(cv2.imread(str(p)) is not None for p in pictures)


def test_every_row_was_measured_on_the_file_that_it_names(walked: Path) -> None:
    rows = json.loads((walked / "report.json").read_text())["rows"]
    files = [read_artifact(walked / k) for k in ("checkpoint", "onnx", "onnx-int8")]
    shas = [next(iter(a.manifest["payload"].values()))["sha256"] for a in files]
    assert [r["model_file"]["sha256"] for r in rows] == [shas[0], shas[1], shas[1], shas[2], shas[2]]
    assert all(r["accuracy"]["images"] == len(load_set("dhaka-eval")) for r in rows)
    # FP32 is the same network in three libraries: the same detections, so the same accuracy
    fp32 = [r["accuracy"]["map50"] for r in rows[:3]]
    assert max(fp32) - min(fp32) < 0.002


def test_calibrating_with_an_image_that_is_measured_on_is_told(walked: Path, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    shutil.copy(load_set("dhaka-eval").images[3], tmp_path / "mine" / "another-name.jpg")
    made = edgekit.quantize(walked / "onnx", calibration=str(tmp_path / "mine"), out=tmp_path / "int8")
    (note,) = [note for note in made.manifest["notes"] if "calibrated with" in note]
    assert note.startswith(f"1 of the {len(load_set('dhaka-eval'))} images")
    assert any(note.startswith("the ranges are those of 1 image, and") for note in made.manifest["notes"])
    assert not any("calibrated with" in note for note in read_artifact(walked / "onnx-int8").manifest["notes"])


def test_a_batch_and_weights_of_seven_bits_can_be_asked_for(recipe: Path, walked: Path, tmp_path: Path) -> None:
    batch = edgekit.export(walked / "checkpoint", batch=2, out=tmp_path / "batch")
    assert batch.manifest["input"]["shape"][0] == 2
    assert edgekit.evaluate(batch.path).map50 == pytest.approx(edgekit.evaluate(walked / "onnx").map50, abs=1e-4)
    with pytest.raises(BadConfig, match="--batch"):
        edgekit.export(recipe, batch=0)
    made = edgekit.quantize(walked / "onnx", reduce_range=True, out=tmp_path / "int8")
    most = {
        name: max(_int8_weights(a.file("model.onnx")))
        for name, a in (("7", made), ("8", read_artifact(walked / "onnx-int8")))
    }
    assert most == {"7": 64, "8": 127}


def _int8_weights(file: str) -> list[int]:
    """The largest magnitude of each int8 tensor."""
    tensors = onnx.load(file).graph.initializer
    arrays = [numpy_helper.to_array(t) for t in tensors if t.data_type == onnx.TensorProto.INT8]
    return [int(np.abs(a.astype(int)).max()) for a in arrays if a.size > 1]


def test_a_second_run_skips_what_is_up_to_date(recipe: Path, walked: Path) -> None:
    before = {p: p.stat().st_mtime_ns for p in walked.rglob("*") if p.is_file()}
    rows = edgekit.run(recipe, out=walked, seconds=0.1)
    assert len(rows) == 5
    assert {p: p.stat().st_mtime_ns for p in walked.rglob("*") if p.is_file()} == before
    pages = [walked / "report.html", walked / "report.tex"]
    pictures = pages[0].read_text().count("data:image")
    for page in pages:
        page.unlink()  # as where the writing was interrupted
    assert edgekit.run(recipe, out=walked, seconds=0.1) == rows
    assert all(page.is_file() for page in pages)
    assert pages[0].read_text().count("data:image") == pictures > 0


def test_a_damaged_payload_is_made_again(recipe: Path, walked: Path) -> None:
    model = walked / "onnx" / "model.onnx"
    whole = model.read_bytes()
    model.write_bytes(whole[:1000])
    with pytest.raises(ArtifactError, match=r"model\.onnx.*SHA-256"):
        edgekit.evaluate(walked / "onnx")
    edgekit.run(recipe, out=walked, seconds=0.1)
    assert model.read_bytes() == whole  # the same inputs give the same file


def test_where_tensorrt_is_the_spine_builds_and_measures_an_engine(
    recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """TensorRT is the twin's simulator, of a GPU without INT8; this machine passes for a board that has it."""
    monkeypatch.syspath_prepend(str(SIMULATOR))
    monkeypatch.setenv("PYTHONPATH", str(SIMULATOR))
    monkeypatch.setattr(measuring, "board_here", load_board)
    monkeypatch.setattr("edgekit.conversion.engine.check_machine", lambda *_: None)
    wishes = {"board": "jetson-xavier-nx", "overrides": ["quantize=null"]}
    rows = edgekit.run(recipe, out=tmp_path, seconds=0.1, **wishes)
    engines = [(r.runtime, r.precision, r.verdict.status) for r in rows if r.runtime.startswith("tensorrt")]
    assert engines == [("tensorrt8", "fp16", "simulated")]
    built = read_artifact(tmp_path / "engine-fp16")
    assert built.manifest["parents"]["onnx"] == read_artifact(tmp_path / "onnx").digest
    assert edgekit.run(recipe, out=tmp_path, seconds=0.1, **wishes) == rows  # nothing was measured again
    assert read_artifact(tmp_path / "engine-fp16").digest == built.digest  # it holds the time that the build took
    assert engine_of(read_artifact(tmp_path / "checkpoint"), tmp_path / "engine-fp16") is None


def test_changed_weights_change_everything_after_them(recipe: Path, walked: Path, tmp_path: Path) -> None:
    out, other = tmp_path / "spine", tmp_path / "recipe"
    shutil.copytree(walked, out)
    shutil.copytree(recipe, other)
    model = build("mobile-centernet", len(CLASSES))
    save_weights(model, other / "weights.safetensors", CLASSES)
    checkpoint, onnx = (read_artifact(out / k).digest for k in ("checkpoint", "onnx"))
    edgekit.export(other, out=out / "onnx")  # looks in runs/, finds nothing, takes the shipped weights
    assert read_artifact(out / "onnx").digest != onnx
    assert read_artifact(out / "checkpoint").digest == checkpoint


def test_an_override_is_not_lost_on_an_older_copy_of_the_shipped_weights(tmp_path: Path) -> None:
    shipped = load_recipe("mobile-centernet-w16-dhaka")
    other = load_recipe("mobile-centernet-w16-dhaka", ["postprocess.score_threshold=0.25"])
    spine.checkpoint(shipped, tmp_path / "c", (), None)
    assert spine.fitting_checkpoint(shipped, tmp_path / "c") is not None
    assert spine.fitting_checkpoint(other, tmp_path / "c") is None
    again = spine.checkpoint(other, tmp_path / "c", (), None)
    assert again.manifest["recipe"]["postprocess"]["score_threshold"] == 0.25


def test_what_comes_after_training_follows_the_recipe(tmp_path: Path) -> None:
    """A training in OUT is used again with today's export, INT8 and post-processing, and later steps see the change."""
    trained, place = load_recipe("mobile-centernet-w16-dhaka"), tmp_path / "c"
    written = write_checkpoint(place, build("mobile-centernet", len(CLASSES)), checkpoint_manifest(trained))
    assert spine.checkpoint(trained, place, (), None).digest == written.digest
    now = load_recipe("mobile-centernet-w16-dhaka", ["export.top_k=50", "postprocess.iou_threshold=0.4"])
    found = spine.checkpoint(now, place, (), None)
    assert found.manifest["recipe"]["export"]["top_k"] == 50
    assert found.manifest["recipe"]["postprocess"]["iou_threshold"] == 0.4
    assert found.manifest["payload"] == written.manifest["payload"]
    assert found.digest != written.digest
    longer = load_recipe("mobile-centernet-w16-dhaka", ["train.epochs=7"])  # says how it was trained, and stays so
    assert spine.checkpoint(longer, place, (), None).manifest["recipe"]["train"] == written.manifest["recipe"]["train"]


def test_evaluate_agrees_with_the_row_of_the_report(walked: Path) -> None:
    rows = json.loads((walked / "report.json").read_text())["rows"]
    metrics = edgekit.evaluate(walked / "onnx", runtime="onnxruntime")
    assert metrics.map50 == pytest.approx(rows[1]["accuracy"]["map50"], abs=1e-9)


def test_evaluate_takes_a_coco_file(walked: Path) -> None:
    annotations = load_set("dhaka-eval").annotations
    assert edgekit.evaluate(walked / "onnx", data=str(annotations)) == edgekit.evaluate(walked / "onnx")


def test_evaluate_by_the_voc_metric(walked: Path) -> None:
    coco, voc = (edgekit.evaluate(walked / "onnx", metric=metric) for metric in ("coco", "voc-area"))
    assert voc.per_class.keys() == coco.per_class.keys()
    assert voc.map == pytest.approx(coco.map50, abs=0.05)  # the same matches, another average
    with pytest.raises(BadConfig, match="voc2007"):
        edgekit.evaluate(walked / "onnx", metric="voc")


@pytest.fixture
def own(recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A recipe of one's own in ``rec/own`` below the current folder, with both of its sets beside it."""
    monkeypatch.chdir(tmp_path)
    place = tmp_path / "rec" / "own"
    place.mkdir(parents=True)
    shutil.copy(recipe / "weights.safetensors", place)
    shipped = load_set("dhaka-eval")
    for name in ("mine-calib", "mine-eval"):
        shutil.copytree(shipped.folder, place / name)
    values = {"name": "own", "quantize": {"calibration": "mine-calib", "max_drop": 100}, "evaluation": "mine-eval"}
    (place / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **values}))
    return place


def test_sets_beside_a_recipe_are_found_from_any_folder(
    own: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measuring.require_sets(load_recipe("rec/own"), load_board("x86-1t"))
    made = edgekit.export("rec/own", out="onnx")
    monkeypatch.chdir(tmp_path.parent)
    folder = own.resolve()
    assert made.manifest["recipe"]["evaluation"] == str(folder / "mine-eval")
    assert made.manifest["recipe"]["quantize"]["calibration"] == str(folder / "mine-calib")
    assert made.manifest["parity"] is not None  # compared on the set's real images
    assert evaluation_set(made, None).digest() == evaluation_set(made, "dhaka-eval").digest()


def test_a_coco_file_and_a_folder_serve_a_recipe_as_named_sets_do(own: Path) -> None:
    sets = ["evaluation=mine-eval/annotations.json", "quantize={calibration: mine-calib/images, max_drop: 100}"]
    measuring.require_sets(load_recipe("rec/own", sets), load_board("x86-1t"))
    onnx = edgekit.export("rec/own", overrides=sets)
    assert onnx.manifest["parity"]["boxes"] > 0  # compared on real images
    made = edgekit.quantize(onnx.path).manifest
    assert made["metrics"]["images"] == made["quantization"]["images"] == len(load_set("dhaka-eval"))
    assert made["quantization"]["set"].endswith("mine-eval/annotations.json")
    assert made["calibration"]["set"].endswith("mine-calib/images")


def test_a_recipe_of_ones_own_is_a_model_by_folder_file_and_name(own: Path) -> None:
    """What ships is taken until something was made in runs/; then the newest of that, by each of the three."""
    names = ("rec/own", "rec/own/recipe.yaml", own)
    for name in names:
        assert spine.model(name).kind == "checkpoint"
    shutil.rmtree("runs")
    with pytest.raises(BadConfig, match="no artifact or recipe named 'own'"):
        spine.model("own")
    with pytest.raises(BadConfig, match="no recipe named 'own'"):
        edgekit.export("own")
    trained = edgekit.export("rec/own").manifest["parents"]["checkpoint"]
    for name in (*names, "own"):
        assert spine.model(name).kind == "onnx"
        assert spine.checkpoint(name, None, (), None).digest == trained
    with pytest.raises(BadConfig, match="keeps the one that it was trained by"):
        edgekit.export("own", overrides=["export.top_k=3"])
    (own / "weights.safetensors").unlink()
    shutil.rmtree("runs")
    with pytest.raises(BadConfig, match=r"Train it: edgekit train rec/own$"):
        spine.model("rec/own")
    Path("empty").mkdir()
    with pytest.raises(ArtifactError, match=r"not an artifact .* and no recipe"):
        spine.model("empty")


def test_the_folder_of_a_run_names_its_artifacts(walked: Path) -> None:
    with pytest.raises(ArtifactError, match=rf"one is wanted: {walked}/checkpoint, {walked}/onnx, {walked}/onnx-int8"):
        spine.model(walked)


def test_labels_of_a_teacher_are_a_set_to_train_on(walked: Path, tmp_path: Path) -> None:
    folder = load_set("dhaka-eval").images_root
    edgekit.label(walked / "onnx", folder, out=tmp_path / "all.json", score=0, doubt=0)
    score = float(np.median([a["score"] for a in json.loads((tmp_path / "all.json").read_text())["annotations"]]))
    summary = edgekit.label(walked / "onnx", folder, out=tmp_path / "pseudo.json", score=score, doubt=0)
    labelled = edgekit.data_check(tmp_path / "pseudo.json", images=folder)
    assert labelled.class_counts().sum() == summary["labels"]
    assert sum(int(s.ignore.sum()) for s in labelled.samples) == summary["ignored"] > 0
    records = json.loads((tmp_path / "pseudo.json").read_text())["annotations"]
    assert all((a["score"] < score) == bool(a.get("ignore")) == bool(a["iscrowd"]) for a in records)
    with pytest.raises(BadConfig, match="doubt"):
        edgekit.label(walked / "onnx", folder, out=tmp_path / "x.json", score=0.1, doubt=0.5)
    with pytest.raises(BadInput, match="no such folder of images"):
        edgekit.label(walked / "onnx", tmp_path / "empty", out=tmp_path / "x.json")
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no image in this folder or below it"):
        edgekit.label(walked / "onnx", tmp_path / "empty", out=tmp_path / "x.json")


def test_predict_writes_pictures_and_coco_json(walked: Path, tmp_path: Path) -> None:
    images = list(load_set("dhaka-eval").images[:3])
    summary = edgekit.predict(walked / "onnx-int8", images, out=tmp_path / "boxes", score=0.1)
    found = json.loads((tmp_path / "boxes" / "detections.json").read_text())
    assert [r["id"] for r in found["images"]] == [1, 2, 3]
    assert summary["boxes"] == len(found["annotations"]) > 0
    for annotation in found["annotations"]:
        image = found["images"][annotation["image_id"] - 1]
        x, y, w, h = annotation["bbox"]
        assert annotation["score"] >= 0.1
        assert x >= 0
        assert y >= 0
        assert x + w <= image["width"] + 0.01
        assert y + h <= image["height"] + 0.01
    for image, picture in zip(images, summary["pictures"], strict=True):
        drawn, plain = cv2.imread(picture), cv2.imread(str(image))
        assert drawn.shape == plain.shape
        assert np.abs(drawn.astype(int) - plain).max() > 60  # something was drawn


def test_report_has_each_measurement_once(walked: Path, tmp_path: Path) -> None:
    place = edgekit.report([walked / "report.json", walked / "report.json"], out=tmp_path / "both")
    assert len(json.loads((place / "report.json").read_text())["rows"]) == 5


def test_bench_writes_its_rows(walked: Path, tmp_path: Path) -> None:
    rows = edgekit.bench([walked / "onnx"], runtime="onnxruntime", seconds=0.1, out=tmp_path / "rows.json")
    assert len(rows) == 1
    edgekit.report([tmp_path / "rows.json", walked / "report.json"], out=tmp_path / "report")
    assert (tmp_path / "report" / "report.html").is_file()
    assert len(json.loads((tmp_path / "report" / "report.json").read_text())["rows"]) == 6


@pytest.mark.parametrize(
    ("call", "error", "match"),
    [
        (lambda s: edgekit.run("mobile-centernet-w16-dakha"), BadConfig, "mobile-centernet-w16-dhaka"),
        (lambda s: edgekit.run("mobile-centernet-w16-dhaka", board="x86-1"), BadConfig, "x86-1t"),
        (lambda s: edgekit.export(s / "onnx"), ArtifactError, "needed 'checkpoint'"),
        (lambda s: edgekit.quantize(s / "checkpoint"), ArtifactError, "needed 'onnx'"),
        (lambda s: edgekit.quantize(s / "onnx", calibration="dhaka-kalib"), BadConfig, "dhaka-calib"),
        (lambda s: edgekit.quantize(s / "onnx", flavour="trt"), BadConfig, "nchw_float"),
        (lambda s: edgekit.evaluate(s / "nothing"), BadInput, "no such folder"),
        (lambda s: edgekit.evaluate(s / "onnx" / "model.onnx"), BadInput, "edgekit import-onnx"),
        (lambda s: edgekit.evaluate("nothing"), BadConfig, "no artifact or recipe"),
        (lambda s: edgekit.evaluate(s / "onnx", runtime="openvyno"), BadConfig, "openvino"),
        (lambda s: edgekit.evaluate(s / "onnx", data="nothing.json"), BadInput, r"nothing\.json"),
        (lambda s: edgekit.bench([s / "onnx"], runtime="tensorrt8"), BoardLacks, "has no runtime 'tensorrt8'"),
        (lambda s: edgekit.predict(s / "onnx", [s / "no.jpg"], out=s / "p"), BadInput, r"no\.jpg"),
        (lambda s: edgekit.report([s / "onnx" / "manifest.json"], out=s / "r"), BadInput, r"manifest\.json"),
    ],
)
def test_mistakes_are_told(walked: Path, call, error, match) -> None:
    with pytest.raises(error, match=match):
        call(walked)


def test_an_empty_calibration_folder_is_refused(walked: Path, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(BadInput, match="no images"):
        edgekit.quantize(walked / "onnx", calibration=str(tmp_path / "empty"), out=tmp_path / "int8")
    assert not (tmp_path / "int8").exists()


def test_weights_of_other_classes_are_refused(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    shutil.copytree(recipe, folder)
    values = yaml.safe_load((folder / "recipe.yaml").read_text())
    values["classes"] = ["car", "bus", "bike"]
    (folder / "recipe.yaml").write_text(yaml.safe_dump(values))
    with pytest.raises(BadInput, match=r"weights\.safetensors.*vehicle, scooter, bicycle.*car, bus, bike"):
        edgekit.run(folder, out=tmp_path / "out")


def test_a_cut_weights_file_is_named(recipe: Path, tmp_path: Path) -> None:
    folder = tmp_path / "recipe"
    shutil.copytree(recipe, folder)
    file = folder / "weights.safetensors"
    file.write_bytes(file.read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"weights\.safetensors"):
        edgekit.run(folder, out=tmp_path / "out")


def test_zoo_and_boards_list_what_ships() -> None:
    names = [r["name"] for r in edgekit.zoo()]
    assert "mobile-centernet-w16-dhaka" in names
    assert all(load_recipe(n).name == n for n in names)
    assert "x86-1t" in [b["name"] for b in edgekit.boards()]
    assert edgekit.boards("x86-1t")[0]["threads"] == 1


def test_zoo_says_what_is_yet_to_be_trained() -> None:
    assert {r["name"]: r["weights"] for r in edgekit.zoo()}["yolov3-tiny"] == "to be trained"
