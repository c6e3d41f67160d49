"""Whole trainings on eight real street scenes: what they write, what they say, what they refuse."""

from __future__ import annotations

import json
import logging
import time
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from edgekit.data import dataset
from edgekit.models.centernet import CenterNet
from edgekit.models.checkpoint import save_weights
from edgekit.models.zoo import build
from edgekit.recipe import TeacherSection, load_recipe
from edgekit.runtime.artifact import file_sha256, read_artifact
from edgekit.runtime.errors import BadConfig, EdgeKitError
from edgekit.training.fit import _from_nothing, _teacher, fit
from edgekit.training.watch import FirstOdd, StaysFinite

from . import jobs
from .conftest import result_of

SHORT = ["train.epochs=1", "train.workers=0", "data.val=null"]


def other_weights(file: Path, seed: int = 5, classes: Sequence[str] = jobs.CLASSES) -> Path:
    torch.manual_seed(seed)
    save_weights(build("mobile-centernet", len(classes)), file, classes)
    return file


# -- what a training leaves -------------------------------------------------------------------------------------------
def test_what_a_training_writes_and_says(
    tiny: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str], recwarn: pytest.WarningsRecorder
) -> None:
    """Checkpoint, table, TensorBoard file and resume file; progress by step; and not a word otherwise."""
    steps: list[tuple[str, int, int]] = []
    out = tmp_path / "runs" / "checkpoint"
    wishes = ["train.epochs=3", "train.schedule.drops=[2]"]
    artifact = fit(load_recipe(tiny, wishes), out, progress=lambda *step: steps.append(step))
    assert [step[1:] for step in steps] == [(n, 6) for n in (1, 2, 2, 3, 4, 4, 5, 6, 6)]  # epochs end with two steps
    loss, validated = (
        [float(row[name]) for row in result_of(out).table if row[name]] for name in ("train/loss", "val/map50")
    )
    assert dict.fromkeys(phase for phase, *_ in steps) == dict.fromkeys(
        [
            "train",
            f"train, epoch 1/3, loss {loss[0]:.4g}",
            f"train, epoch 2/3, loss {loss[1]:.4g}, val mAP@0.5 {validated[0]:.3f}",
            f"train, epoch 3/3, loss {loss[2]:.4g}",
        ]
    )
    assert artifact.kind == "checkpoint"
    assert artifact.classes == list(jobs.CLASSES)
    assert artifact.manifest["metrics"].keys() == {
        *("map", "map50", "epochs", "steps"),
        *(f"ap50/{name}" for name in jobs.CLASSES),
    }
    assert (artifact.manifest["metrics"]["epochs"], artifact.manifest["metrics"]["steps"]) == (3, 6)
    work = tmp_path / "runs" / "checkpoint-training"
    names = {path.name.split(".")[0] for path in work.iterdir()}
    assert names == {"metrics", "resume", "events", "hparams"}
    assert {path.name for path in out.parent.iterdir()} == {"checkpoint", "checkpoint-training"}
    captured = capfd.readouterr()
    assert captured.out == ""
    assert [line for line in captured.err.splitlines() if "train.workers" not in line] == []
    assert [str(w.message) for w in recwarn] == []


def test_what_should_be_known_of_the_data_is_told(tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Of a recipe with one set as of one with several: what was left out or ignored, and images in both splits."""
    content = json.loads(tiny.with_name("train.json").read_text(encoding="utf-8"))
    content["categories"].append({"id": 99, "name": "kiosk"})
    box, *_ = content["annotations"]
    content["annotations"].append({**box, "id": 99_999, "category_id": 99})
    tiny.with_name("train.json").write_text(json.dumps(content), encoding="utf-8")
    fit(load_recipe(tiny, ["train.epochs=1", "train.workers=0"]), tmp_path / "checkpoint")
    assert "train: 1 box of class 'kiosk' left out: not asked for" in caplog.messages
    assert "val: 8 of 8 images are trained on too" in caplog.messages


@pytest.mark.parametrize(
    ("schedule", "told"), [("{}", True), ("{drops: [1]}", False), ("{kind: cosine}", False), ("{drops: []}", False)]
)
def test_a_rate_that_would_never_fall_is_told(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, schedule: str, told: bool
) -> None:
    """The default falls at epochs 45 and 55: a try of two is at the full rate to its end."""
    recipe = load_recipe(tiny, [*SHORT, "train.epochs=2", f"train.schedule={schedule}"])
    fit(recipe, tmp_path / "checkpoint")
    said = "train.schedule never lowers the rate: its drops, 45, 55, come after the last epoch, 2"
    assert any(said in message for message in caplog.messages) == told


def test_the_table_of_metrics(tiny: Path, tmp_path: Path) -> None:
    """Every epoch has its losses, its clock and its learning rate; validated ones have mAP, and so has the last."""
    fit(load_recipe(tiny, ["train.epochs=3"]), tmp_path / "run")
    rows = result_of(tmp_path / "run").table
    trained = [row for row in rows if row["train/loss"]]
    assert [row["epoch"] for row in trained] == ["0", "1", "2"]
    for row in trained:
        terms = {name: float(row[f"train/{name}"]) for name in ("focal", "size", "offset", "loss", "lr")}
        assert terms["loss"] == pytest.approx(terms["focal"] + 0.1 * terms["size"] + terms["offset"], rel=1e-4)
        assert 0 < terms["lr"] <= 1e-3
    assert [row["step"] for row in rows if row["val/map50"]] == ["3", "6"]
    table = (tmp_path / "run-training" / "metrics.csv").read_text(encoding="utf-8").splitlines()
    waits = [float(line.split(",")[table[0].split(",").index("train/data_wait")] or 0) for line in table[1:]]
    assert all(0 <= wait <= 1 for wait in waits)


def test_tensorboard_has_the_curves(tiny: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    fit(load_recipe(tiny, ["train.epochs=2"]), tmp_path / "run")
    events = EventAccumulator(str(tmp_path / "run-training"))
    events.Reload()
    assert {"train/loss", "train/focal", "train/data_wait", "val/map50"} <= set(events.Tags()["scalars"])
    assert len(events.Scalars("train/loss")) == 2


def test_a_slow_disk_is_told(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def slowly(path: Any, read: Any = dataset.read_image) -> np.ndarray:
        time.sleep(0.2)
        image: np.ndarray = read(path)
        return image

    monkeypatch.setattr(dataset, "read_image", slowly)
    with caplog.at_level(logging.WARNING):
        fit(load_recipe(tiny, [*SHORT, "train.epochs=3"]), tmp_path / "run")
    told = [record.getMessage() for record in caplog.records if "train.workers" in record.getMessage()]
    assert len(told) == 1  # once, and not for the first epoch, in which workers start


def test_the_previous_checkpoint_stays_until_the_first_validation(tiny: Path, tmp_path: Path) -> None:
    out = tmp_path / "run"
    before = fit(load_recipe(tiny, SHORT), out).digest

    def stop(*_: object) -> None:
        assert read_artifact(out).digest == before
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fit(load_recipe(tiny, [*SHORT, "train.seed=1"]), out, progress=stop)
    assert read_artifact(out).digest == before


@pytest.mark.parametrize("validate_every", [1, 2])
def test_a_training_that_diverges_ends(tiny: Path, tmp_path: Path, validate_every: int) -> None:
    """With the place and what to try; no weights that are no numbers are published or kept."""
    out = tmp_path / "run"
    wishes = ["train.lr=1e30", "train.schedule.warmup_steps=0", f"train.validate_every={validate_every}"]
    with pytest.raises(BadConfig, match=r"epoch 1, step 2.*first not finite: .*loss, step 1.*train\.lr \(now 1e\+30\)"):
        fit(load_recipe(tiny, wishes), out)
    assert not out.exists()
    assert not (tmp_path / "run-training" / "resume.ckpt").exists()


def test_images_for_which_the_network_gives_no_numbers_are_told(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    detect = CenterNet.detect

    def oddly(self: Any, image: torch.Tensor, top_k: int) -> tuple[torch.Tensor, torch.Tensor]:
        boxes, scores = detect(self, image, top_k)
        boxes[0, 0, 0] = torch.nan
        return boxes, scores

    with caplog.at_level(logging.WARNING):
        fit(load_recipe(tiny, SHORT[:2]), tmp_path / "fine")
        assert "infinite" not in caplog.text
        monkeypatch.setattr(CenterNet, "detect", oddly)
        fit(load_recipe(tiny, SHORT[:2]), tmp_path / "odd")
    assert "for 1 image of validation, such as id 6, the network gives NaN or infinite boxes" in caplog.text


def test_a_step_that_fp16_skips_ends_nothing() -> None:
    """Its loss may be no number; the weights stayed what they were."""
    odd = FirstOdd()
    odd.see({"box": torch.tensor(1.0), "loss": torch.tensor(1.0)}, 3)
    odd.see({"box": torch.tensor(torch.inf), "loss": torch.tensor(torch.nan)}, 4)
    odd.see({"box": torch.tensor(1.0), "loss": torch.tensor(torch.nan)}, 5)
    assert str(odd) == "; first not finite: box, loss, step 4"
    module = SimpleNamespace(average=SimpleNamespace(model=torch.nn.BatchNorm2d(2)), odd=odd)
    StaysFinite().on_train_epoch_end(None, module)  # type: ignore[arg-type]


def test_the_seed_decides(tiny: Path, tmp_path: Path) -> None:
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        fit(load_recipe(tiny, [*SHORT, f"train.seed={seed}"]), tmp_path / name)
    a, b, c = (result_of(tmp_path / name).weights for name in "abc")
    assert a == b != c


# -- starting from weights --------------------------------------------------------------------------------------------
@pytest.mark.parametrize("kind", ["file", "artifact"])
def test_init_starts_from_trained_weights(tiny: Path, tmp_path: Path, trained: Path, kind: str) -> None:
    """With a learning rate of next to nothing they come out as they went in, and the manifest names them."""
    source = trained
    if kind == "artifact":
        artifact = fit(load_recipe(tiny, SHORT), tmp_path / "first")
        source = Path(artifact.path)
    careful = [*SHORT, f"train.init={source}", "train.lr=1e-12", "train.freeze_norm=true"]
    artifact = fit(load_recipe(tiny, careful), tmp_path / "second")
    file = source / "weights.safetensors" if kind == "artifact" else source
    before, after = load_file(file), load_file(artifact.file("weights.safetensors"))
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-5, atol=1e-7)
    assert artifact.manifest["parents"]["init"] == file_sha256(file)


def test_a_training_from_nothing_names_the_weights_that_ship(
    tiny: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Where it begins, and not where it goes on."""
    told = "starts from random weights; to start from those that ship: train.init=edgekit-road"
    named = load_recipe(tiny, [*SHORT, "name=edgekit-road"])
    fit(named, tmp_path / "run")
    assert told in caplog.text
    caplog.clear()
    fit(load_recipe(tiny, [*SHORT, "name=edgekit-road", "train.epochs=2"]), tmp_path / "run", resume=True)
    assert told not in caplog.text
    for other in ("train.init=edgekit-road", "train.init_backbone=edgekit-road", "name=fpnlite-64"):
        assert _from_nothing(load_recipe(tiny, ["name=edgekit-road", other])) == []


def test_a_teacher_is_named_as_what_to_start_from() -> None:
    """A shipped recipe stands for its weights."""
    student = load_recipe("edgekit-road", ["teacher={recipe: edgekit-road, weights: edgekit-road}", "distillation={}"])
    assert student.teacher is not None
    assert student.weights is not None
    assert _teacher(student.teacher, student)[1] == file_sha256(student.weights)
    alone = load_recipe("edgekit-road", ["teacher={weights: edgekit-road}", "distillation={}"])  # it knows its recipe
    assert alone.teacher is not None
    assert _teacher(alone.teacher, alone)[1] == file_sha256(student.weights)


def test_a_teacher_is_what_its_weights_were_trained_as(tiny: Path, tmp_path: Path) -> None:
    """README's quick start sets classes on the command line; the recipe's own are others then."""
    changed = ["classes=[vehicle]", "preprocess.mean=[1, 2, 3]"]
    fit(load_recipe(tiny, [*SHORT, *changed]), tmp_path / "teacher")
    teacher = f"teacher={{recipe: edgekit-road, weights: {tmp_path / 'teacher'}}}"
    student = load_recipe(tiny, [*changed, teacher, "distillation={}"])
    assert student.teacher is not None
    network, digest = _teacher(student.teacher, student)
    assert digest == file_sha256(tmp_path / "teacher" / "weights.safetensors")
    unnamed = TeacherSection(weights=str(tmp_path / "teacher"))
    assert _teacher(unnamed, student)[1] == digest
    own = build(student.model.name, 1, student.model.options, student.preprocess.size).state_dict()
    assert {k: v.shape for k, v in network.state_dict().items()} == {k: v.shape for k, v in own.items()}


# -- distillation -----------------------------------------------------------------------------------------------------
def test_distillation_is_the_same_training_with_two_more_terms(tiny: Path, tmp_path: Path) -> None:
    weights = other_weights(tmp_path / "teacher.safetensors")
    taught = [*SHORT, f"teacher={{recipe: {tiny}, weights: {weights}}}", "distillation={pixel: 0.5, pair: 20}"]
    artifact = fit(load_recipe(tiny, taught), tmp_path / "taught")
    fit(load_recipe(tiny, SHORT), tmp_path / "alone")
    with_teacher, alone = result_of(tmp_path / "taught"), result_of(tmp_path / "alone")
    row, plain = with_teacher.table[0], alone.table[0]
    assert row.keys() == plain.keys() | {"train/pixel", "train/pair"}
    terms = {k.removeprefix("train/"): float(v) for k, v in row.items() if k.startswith("train/")}
    assert terms["pixel"] > 0
    assert terms["pair"] > 0
    detection = terms["focal"] + 0.1 * terms["size"] + terms["offset"]
    assert terms["loss"] == pytest.approx(detection + 0.5 * terms["pixel"] + 20 * terms["pair"], rel=1e-4)
    assert with_teacher.weights != alone.weights
    assert artifact.manifest["parents"]["teacher"] == file_sha256(weights)
    assert other_weights(tmp_path / "again.safetensors").read_bytes() == weights.read_bytes()


def test_a_teacher_of_another_width(tiny: Path, tmp_path: Path) -> None:
    """The paper's own case: 32 channels teach 16."""
    wide = {"backbone": "hrnet-w32", "head_filters": 64}
    recipe = tmp_path / "wide.yaml"
    text = tiny.read_text(encoding="utf-8").replace(
        "{name: mobile-centernet}", f"{{name: mobile-centernet, options: {wide}}}"
    )
    recipe.write_text(text, encoding="utf-8")
    torch.manual_seed(1)
    save_weights(build("mobile-centernet", 3, wide), tmp_path / "wide.safetensors", jobs.CLASSES)
    teacher = f"teacher={{recipe: {recipe}, weights: {tmp_path / 'wide.safetensors'}}}"
    fit(load_recipe(tiny, [*SHORT, teacher, "distillation={}"]), tmp_path / "run")
    assert float(result_of(tmp_path / "run").table[0]["train/pair"]) > 0


# -- what it refuses --------------------------------------------------------------------------------------------------
def refused(recipe_file: Path, out: Path, overrides: Sequence[str]) -> str:
    """The message; nothing may have been written."""
    before = sorted(out.parent.rglob("*"))
    with pytest.raises(EdgeKitError) as error:
        fit(load_recipe(recipe_file, list(overrides)), out)
    assert sorted(out.parent.rglob("*")) == before
    return str(error.value)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.root=/no/such/folder"], ["/no/such/folder", "data.root=FOLDER"]),
        (["data=null"], ["data.train"]),
        (["data.train=gone.json"], ["gone.json"]),
        (["data.images=gone"], ["gone"]),
        (["classes=[vehicle, scoter]"], ["scoter", "did you mean scooter"]),
        (["train.batch_size=9"], ["train.json", "8 images", "batch of 9", "train.batch_size"]),
        (["train.init=gone.safetensors"], ["gone.safetensors", "no such weights", "edgekit zoo"]),
        (
            ["train.init=mobile-centernet-w32"],
            [
                "recipe mobile-centernet-w32 ships no weights. Train it first: edgekit train mobile-centernet-w32",
            ],
        ),
        (["train.init=edgekit-roads"], ["edgekit-roads", "no such weights", "Did you mean edgekit-road?"]),
        (["train.init_backbone=edgekit-roads"], ["edgekit-roads", "no such weights", "Did you mean edgekit-road?"]),
        (
            ["train.init=cspdensenetb-ref-prn-dhaka"],
            [
                "does not fit the network",
                "weights of cspdensenetb-ref-prn-dhaka, another network",
                "model.name is yolo",
            ],
        ),
        (
            ["train.init_backbone=cspdensenetb-ref-prn-dhaka"],
            ["has no backbone", "weights of cspdensenetb-ref-prn-dhaka, another network", "mobile-centernet here"],
        ),
        (
            ["train.init=edgekit-road", "model.options.head_filters=64"],
            ["does not fit the network", "weights of edgekit-road", "model.options.head_filters is", "and 64 here"],
        ),
        (["distillation={}", "teacher={weights: edgekit-roads}"], ["Did you mean edgekit-road?"]),
        (["distillation={}", "teacher={weights: yolov3}"], ["recipe yolov3 ships no weights"]),
        (["model.name=mobile-centrenet"], ["mobile-centrenet", "mobile-centernet"]),
        (["model.name=mobilenet-ssd", "augment.crop=[64, 64]"], ["augment.crop", "mobilenet-ssd", "preprocess.size"]),
        (["model.name=mobilenet-ssd", "train.multiscale={sizes: [[64, 64]]}"], ["train.multiscale", "mobilenet-ssd"]),
        (["augment.crop=[64, 64]", "train.multiscale={sizes: [[64, 64]]}"], ["augment.crop", "train.multiscale"]),
        pytest.param(
            ["train.precision=fp16"],
            ["train.precision=fp16 needs a GPU", "train.precision=bf16"],
            marks=pytest.mark.skipif(torch.cuda.is_available(), reason="a GPU trains in it"),
        ),
        (["name=../../x"], ["name: a name for a folder is needed", "'../../x'"]),
        (["name=.."], ["name: a name for a folder is needed"]),
        (["train.seed=-1"], ["train.seed", "greater than or equal to 0"]),
        (["train.seed=4294967296"], ["train.seed", "less than 4294967296"]),
        (["yolo_loss={ignore: 0.7}"], ["yolo_loss", "mobile-centernet", "in loss"]),
        (["model.name=yolo", "loss={alpha: 1}"], ["loss", "yolo_loss"]),
        (["distillation={}", "teacher={recipe: nobody, weights: x}"], ["nobody"]),
        (
            ["distillation={}", "teacher={recipe: mobile-centernet-w32-bccd, weights: x}"],
            ["mobile-centernet-w32-bccd", "classes", "RBC", "vehicle"],
        ),
        (
            ["distillation={}", "teacher={recipe: mobile-centernet-w16-dhaka, weights: gone}"],
            ["gone", "edgekit train mobile-centernet-w16-dhaka"],
        ),
        (
            [
                "distillation={}",
                "teacher={recipe: mobile-centernet-w16-dhaka, weights: gone}",
                "preprocess.mean=[0, 0, 0]",
            ],
            ["preprocess.mean"],
        ),
    ],
    ids=lambda value: value[0] if value and "=" in value[0] else "",
)
def test_mistakes_are_told_before_anything_is_written(
    tiny: Path, tmp_path: Path, overrides: list[str], words: list[str]
) -> None:
    message = refused(tiny, tmp_path / "run", overrides)
    for word in words:
        assert word in message


def test_bare_weights_of_a_teacher_need_its_recipe(tiny: Path, tmp_path: Path) -> None:
    weights = other_weights(tmp_path / "teacher.safetensors")
    message = refused(tiny, tmp_path / "run", ["distillation={}", f"teacher={{weights: {weights}}}"])
    assert f"{weights} does not say which network" in message
    assert "teacher.recipe=RECIPE" in message


def test_a_teacher_whose_anchors_are_made_for_another_size_is_named(tiny: Path, tmp_path: Path) -> None:
    student = json.dumps(load_recipe("fpnlite-64-dhaka").model.model_dump())
    names = json.dumps(jobs.CLASSES)
    other = tmp_path / "teacher.yaml"
    other.write_text(
        f"name: teacher\nclasses: {names}\nmodel: {student}\npreprocess: {{size: [192, 128]}}\n", encoding="utf-8"
    )
    taught = [f"model={student}", "distillation={pair: 0}", f"teacher={{recipe: {other}, weights: gone}}"]
    message = refused(tiny, tmp_path / "run", [*taught, "preprocess.size=[96, 96]"])
    for word in ("teacher teacher", "192x128", "96x96", "preprocess.size=[96,96]"):
        assert word in message
    assert "no such weights" in refused(tiny, tmp_path / "run", [*taught, "preprocess.size=[192, 128]"])


def test_weights_that_do_not_fit_are_named(tiny: Path, tmp_path: Path, trained: Path) -> None:
    other = other_weights(tmp_path / "other.safetensors", classes=("a", "b", "c"))
    cut = tmp_path / "cut.safetensors"
    cut.write_bytes(trained.read_bytes()[:100_000])
    wider = ["model.options={head_filters: 64}"]
    for file, more, word in ((other, [], "a, b, c"), (cut, [], "safetensors"), (trained, wider, "shape")):
        message = refused(tiny, tmp_path / "run", [f"train.init={file}", *more])
        assert str(file) in message
        assert word in message


@pytest.mark.parametrize("split", ["train", "val"])
def test_a_set_without_boxes_is_named(tiny: Path, tmp_path: Path, split: str) -> None:
    """Before the training, and not at its first validation."""
    file = tiny.with_name(f"{split}.json")
    content = json.loads(file.read_text(encoding="utf-8"))
    file.write_text(json.dumps({**content, "annotations": []}), encoding="utf-8")
    message = refused(tiny, tmp_path / "run", [])
    assert str(file) in message
    assert "no box" in message
