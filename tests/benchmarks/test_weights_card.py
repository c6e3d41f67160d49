"""benchmarks/weights_card.py: what a card says is what the weights do, and what it will not say."""

from __future__ import annotations

import argparse
import csv
import json
import re
import shutil
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import card_pictures
import card_training
import card_words
import cv2
import numpy as np
import pytest
import torch
import weights_card
import yaml
from card_training import Stage, changed, check_stages, command, read_stage
from weights_card import refuse_paths, section, with_measured

from edgekit import pipeline
from edgekit.data.calibration import load_set
from edgekit.data.coco import Sample
from edgekit.measure import listing
from edgekit.models.checkpoint import (
    WEIGHTS,
    checkpoint_manifest,
    read_weights,
    save_tensors,
    save_weights,
    shipped_checkpoint,
    write_checkpoint,
)
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.artifact import Artifact, file_sha256, new_artifact
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import BadInput
from edgekit.runtime.images import read_image
from tests.measure.test_row import make_row
from tests.training import jobs

EPOCHS = "epoch,step,train/loss,train/seconds,val/map,val/map50\n0,1,9,30,,\n1,3,4,30,0.1,0.2\n2,5,3,30,0.2,0.4\n"


# -- recipe.yaml ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("before", "after"),
    [
        ("a: 1  # one\nmeasured: {set: x, map50: 0.1}\nb: 2\n", "a: 1  # one\nNEW\nb: 2\n"),
        ("measured: {map50: 0.1}  # of val\nb: 2\n", "NEW      # of val\nb: 2\n"),
        ("measured:\n  set: x\n  # why\n  map50: 0.1\nb: 2  # two\n", "NEW\n  # why\nb: 2  # two\n"),
        ("a: 1\n# the end", "a: 1\n# the end\nNEW\n"),
        ("a: 1\nmeasured: {map50: 0.1}", "a: 1\nNEW\n"),
        ("# measured: in words\na: {measured: 3}\n", "# measured: in words\na: {measured: 3}\nNEW\n"),
    ],
)
def test_only_measured_changes_in_a_recipe(before, after):
    found = with_measured(before, {"set": "bccd val", "map50": 0.8119, "map": 0.47})
    assert found == after.replace("NEW", "measured: {set: bccd val, map50: 0.8119, map: 0.47}")
    rest = {k: v for k, v in yaml.safe_load(before).items() if k != "measured"}
    assert yaml.safe_load(found) == {**rest, "measured": {"set": "bccd val", "map50": 0.8119, "map": 0.47}}


def test_a_measured_that_cannot_be_replaced_is_said(tmp_path):
    (tmp_path / "recipe.yaml").write_text("measured: {set: x,\nmap50: 1}\na: 2\n")
    with pytest.raises(BadInput, match="write it in one line"):
        weights_card.measured_edit(SimpleNamespace(folder=tmp_path), {"map": 1})


# -- what was found ---------------------------------------------------------------------------------------------------
def sample(boxes, labels, ignore=None, image_id=1, name="a.jpg"):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ignored = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    return Sample(Path(name), image_id, 100, 80, boxes, np.array(labels, np.int64), ignored)


def test_matching_by_hand():
    """A sure box takes the object; a second one, another class and a lonely one are false; one lies in a crowd."""
    truth = sample([[0, 0, 20, 20], [40, 40, 60, 60], [70, 0, 90, 20]], [0, 1, 0], [False, False, True])
    seen = Detections(
        [[1, 0, 21, 20], [0, 0, 20, 20], [40, 40, 60, 60], [70, 0, 90, 20], [0, 60, 9, 70]],
        [0.6, 0.9, 0.8, 0.7, 0.5],
        [0, 0, 0, 0, 1],
    )
    counts = card_pictures.matched(truth, seen)
    assert counts.hit.tolist() == [False, True, False, False, False]
    assert counts.false.tolist() == [True, False, True, False, True]
    assert counts.found.tolist() == [True, False]
    assert counts.f1 == pytest.approx(2 / (2 + 3 + 1))


def test_an_image_without_anything_is_right_and_one_with_a_false_alarm_is_not():
    assert card_pictures.matched(sample([], []), Detections.empty()).f1 == 1
    assert card_pictures.matched(sample([], []), Detections([[0, 0, 9, 9]], [0.9], [0])).f1 == 0


def choice(hits, allowed=None, **more):
    """The choice among images of two objects of which ``hits`` were found."""
    boxes = [[0, 0, 20, 20], [40, 40, 60, 60]]
    samples = [sample(boxes, [0, 0], image_id=k, name=f"{k}.jpg") for k in range(len(hits))]
    seen = {k: Detections(boxes[:n], [0.9] * n, [0] * n) for k, n in enumerate(hits)}
    coco = SimpleNamespace(samples=samples, classes=("x",))
    ids = set(range(len(hits))) if allowed is None else allowed
    return coco, seen, card_pictures.choose(coco, seen, ids, **{"score": 0.3, "objects": 2, **more})


def test_best_and_worst_by_f1_of_what_may_be_shown():
    _, _, found = choice([2, 0, 1, 2, 0, 1], allowed={1, 2, 3, 5}, count=1)
    assert ([s.image_id for s in found.best], [s.image_id for s in found.worst]) == ([3], [1])
    assert found.pool == 4
    coco, seen, found = choice([2, 1, 0])  # no image on both sides
    assert ([s.image_id for s in found.best], [s.image_id for s in found.worst]) == ([0], [2])
    assert card_pictures.count_classes(coco, seen, 0.3) == {"x": (3, 3, 0)}
    assert card_pictures.count_classes(coco, seen, 0.95) == {"x": (0, 6, 0)}
    with pytest.raises(BadInput, match="0 images with 3 labelled objects"):
        choice([2, 1, 0], objects=3)
    with pytest.raises(BadInput, match="1 image with 2 labelled objects may be shown; two are needed"):
        choice([2, 1, 0], allowed={1})


# -- curves -----------------------------------------------------------------------------------------------------------
def curves(*texts):
    return ElementTree.fromstring(card_pictures.curves([list(csv.DictReader(text.splitlines())) for text in texts]))


def test_curves_of_consecutive_stages_follow_each_other():
    root = curves(EPOCHS, EPOCHS)
    lines = {e.get("stroke"): e.get("points").split() for e in root.iter() if e.tag.endswith("polyline")}
    assert {colour: len(points) for colour, points in lines.items()} == {"#1b6ca8": 4, "#c2571a": 4, "#3a3a3a": 6}
    loss = [float(p.split(",")[0]) for p in lines["#3a3a3a"]]
    assert np.allclose(np.diff(loss), (720 - 52 - 16) / 6, atol=0.11)
    between = [e.get("x1") for e in root.iter() if e.get("stroke-dasharray")]
    assert between == [f"{52 + (720 - 52 - 16) / 2:.1f}"] * 2
    assert root[0].get("fill") == "white"


def test_a_training_that_was_never_validated_has_a_loss():
    root = curves("epoch,train/loss\n0,3\n1,1\n")
    assert any("nothing was written down" in (e.text or "") for e in root.iter())
    assert sum(e.tag.endswith("polyline") for e in root.iter()) == 1


@pytest.mark.parametrize(
    ("low", "high", "ticks"), [(1.4, 13, [1, 2, 5, 10, 20]), (2, 2, [2, 5]), (0.03, 0.2, [0.02, 0.05, 0.1, 0.2])]
)
def test_ticks_of_a_loss(low, high, ticks):
    assert card_pictures.loss_ticks(low, high) == pytest.approx(ticks)


# -- the training -----------------------------------------------------------------------------------------------------
def trained(folder: Path, seed: int, overrides=(), parents=None, epochs=3) -> Artifact:
    """A checkpoint of random weights with the files that a training leaves beside it."""
    recipe = load_recipe(folder.parent / "recipe.yaml", [*overrides, f"train.seed={seed}"])
    torch.manual_seed(seed)
    manifest = checkpoint_manifest(recipe) | {"parents": parents or {}}
    manifest["metrics"] = {"epochs": epochs, "steps": 2 * epochs, "map50": 0.4, "map": 0.2}
    work = folder.with_name(f"{folder.name}-training")
    work.mkdir()
    (work / "metrics.csv").write_text(EPOCHS)
    return write_checkpoint(folder, build(recipe.model.name, 3, recipe.model.options), manifest)


@pytest.fixture(scope="module")
def chain(tmp_path_factory):
    """Two stages, the second from the first: 4 then 3 epochs planned, the last ended after 2."""
    folder = tmp_path_factory.mktemp("chain")
    jobs.write_tiny(folder)
    first = trained(folder / "one", 1, ["train.lr=0.002"])
    init = {"init": card_training.sha(first)}
    trained(folder / "two", 2, ["train.epochs=3", f"train.init={folder / 'one'}"], init, epochs=2)
    return [read_stage(folder / f"{name}-training") for name in ("one", "two")]


def test_commands_are_what_the_stages_did_otherwise_than_the_recipe(chain):
    recipe = load_recipe(chain[0].folder.parent / "recipe.yaml")
    told = [command(recipe, stage, k, 2) for k, stage in enumerate(chain, 1)]
    assert told == [
        "edgekit train tiny data.root=FOLDER train.lr=0.002 train.seed=1 --out STAGE1",
        "edgekit train tiny data.root=FOLDER train.epochs=3 train.seed=2 train.init=STAGE1 --out STAGE2",
    ]
    again = load_recipe(chain[0].folder.parent / "recipe.yaml", ["train.lr=0.002", "train.seed=1"])
    assert changed(again, chain[0].artifact, "") == {}


def test_a_recipe_that_differs_from_the_training_is_told(chain):
    recipe = load_recipe(chain[0].folder.parent / "recipe.yaml")
    alone = card_training.section(recipe, chain[:1], [], "", "curves.svg")
    assert "not trained as the recipe stands today, but with `train.lr: 0.002`, `train.seed: 1`.\n" in alone
    assert "the machine is not recorded" in alone
    text = card_training.section(recipe, chain, [], "a laptop", "curves.svg")
    assert "in 2 stages" in text
    assert "| 1 | 3 of 4 | 24 | 96x64 | 1 | 2 | 40.0 |" in text
    assert "| 2 | 2 of 3 | 16 | 96x64 | 2 | 1 | 40.0 |" in text  # the third epoch is none of these weights'
    assert "2 minutes of training in all, on a laptop." in text  # five epochs of 30 seconds
    refuse_paths(text)


def test_stages_that_do_not_lead_to_the_weights_are_refused(chain, tmp_path):
    one, two = chain
    check_stages(chain, two.artifact, [])
    with pytest.raises(BadInput, match="the training of other weights"):
        check_stages([one], two.artifact, [])
    with pytest.raises(BadInput, match="one-training: its training did not start from the weights of"):
        check_stages([two, one], one.artifact, [])
    with pytest.raises(BadInput, match="started from other weights"):
        check_stages([two], two.artifact, [])
    check_stages([two], two.artifact, ["edgekit train tiny train.init=ELSEWHERE"])
    lonely = Stage(one.folder, None, one.rows)
    with pytest.raises(BadInput, match="--how"):
        check_stages([lonely, two], two.artifact, [])


def test_commands_that_are_given_leave_nothing_out_that_the_checkpoint_knows(chain):
    recipe, how = load_recipe(chain[0].folder.parent / "recipe.yaml"), ["edgekit train tiny"]
    known = "not trained as the recipe stands today, but with `train.lr: 0.002`, `train.seed: 1`.\n"
    assert known in card_training.section(recipe, chain[:1], how, "", "curves.svg")
    assert known in card_training.without_curves(recipe, chain[0].artifact, how, "")
    text = card_training.without_curves(recipe, chain[1].artifact, how, "")
    assert "`train.init: WEIGHTS`" in text
    refuse_paths(text)
    manifest = {**chain[0].artifact.manifest, "recipe": {"name": "of another version"}}
    older = Artifact(chain[0].artifact.path, manifest)
    assert "stands today" not in card_training.without_curves(recipe, older, how, "")


def test_a_start_from_shipped_weights_tells_itself(tmp_path):
    """As long as they are the same, and these do not ship in their place."""
    recipe, road = load_recipe(jobs.write_tiny(tmp_path)), load_recipe("edgekit-road").weights
    begun = trained(tmp_path / "begun", 1, ["train.init=edgekit-road"], {"init": file_sha256(road)})
    stage = read_stage(tmp_path / "begun-training")
    check_stages([stage], begun, [])
    assert command(recipe, stage, 1, 1).endswith("data.root=FOLDER train.seed=1 train.init=edgekit-road")
    assert "`train.init: edgekit-road`" in card_training.section(recipe, [stage], [], "", "curves.svg")
    with pytest.raises(BadInput, match="started from other weights"):
        check_stages([stage], begun, [], road)
    trained(tmp_path / "older", 1, ["train.init=edgekit-road"], {"init": "0" * 64})
    with pytest.raises(BadInput, match="started from other weights"):
        check_stages([read_stage(tmp_path / "older-training")], begun, [])


@pytest.mark.parametrize(
    ("text", "said"),
    [(None, "no metrics.csv"), ("epoch,step\n", "no epoch"), ("step\n3\n", "KeyError"), ("epoch\nx\n", "ValueError")],
)
def test_a_folder_that_is_no_training_is_named(tmp_path, text, said):
    if text is not None:
        (tmp_path / "metrics.csv").write_text(text)
    with pytest.raises(BadInput, match=f"{tmp_path}.*{said}"):
        read_stage(tmp_path)


# -- words ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    "text", ["data.root=/home/me/data", "in `~/runs/x`", "see file:///tmp/x", "/data", "(/mnt/disk/a b)", "a\n/srv"]
)
def test_a_path_of_this_machine_is_refused(text):
    with pytest.raises(BadInput, match="a path of this machine"):
        refuse_paths(text)


@pytest.mark.parametrize(
    "text", ["https://a.b/c/d", "train/loss and/or 3/4", "`recipes/x/README.md`", "train / val", "./a/b", "km/h"]
)
def test_what_is_no_path_of_a_machine_passes(text):
    refuse_paths(text)


def test_a_section_of_a_card():
    card = "# A\n\n## Training\n\nwords\n\n```\n# a comment\n```\n\n## Accuracy\n\nmore\n"
    assert section(card, "Training") == "words\n\n```\n# a comment\n```\n"
    assert section(card, "Accuracy") == "more\n"
    assert section(card, "INT8") is None


def test_a_noisy_latency_says_so():
    rows = [make_row(), make_row(verdict={"status": "noisy", "reasons": ["p90 is 2.00 x p50"]})]
    valid, noisy = card_words.latency(rows).splitlines()[-2:]
    assert "| valid |" in valid
    assert "| **noisy**: p90 is 2.00 x p50 |" in noisy
    assert card_words.latency([]) == "Not measured yet.\n"


# -- the data ---------------------------------------------------------------------------------------------------------
WISHES = {"data_licence": "", "attribution": []}


def test_licences_are_told_by_the_set_or_its_file_and_never_invented(tmp_path):
    file = tmp_path / "val.json"
    val = SimpleNamespace(annotations=file)
    ask = argparse.Namespace(**WISHES)
    file.write_text(json.dumps({"images": [{"source_repo": "b/a"}, {"source_repo": "b/a"}], "licenses": []}))
    with pytest.raises(BadInput, match="tells no licence"):
        weights_card.licence_lines(ask, val, None, "")
    file.write_text(json.dumps({"images": [{"source_repo": "b/a"}], "licenses": [{"name": "MIT", "url": "x.y"}]}))
    assert weights_card.licence_lines(ask, val, None, "") == ["Licence: MIT, x.y", "Source: b/a"]
    told = weights_card.licence_lines(ask, val, load_set("dhaka-eval"), "")
    assert [line.split(":")[0] for line in told] == ["Licence", "Attribution", "Source"]
    said = argparse.Namespace(data_licence="CC0", attribution=["me"])
    assert weights_card.licence_lines(said, val, load_set("dhaka-eval"), "") == ["Licence: CC0", "Attribution: me"]
    card = "## Data\n\n| a |\n| --- |\n\n- Licence: kept\n\n## Training\n\n- no\n"
    assert weights_card.licence_lines(ask, val, None, card) == ["Licence: kept"]


def test_only_images_of_the_named_set_may_be_shown(tmp_path):
    named = load_set("dhaka-eval")
    (tmp_path / "other-name.jpg").write_bytes(named.images[3].read_bytes())
    (tmp_path / named.images[0].name).write_bytes(named.images[0].read_bytes() + b"\0")
    names = ["other-name.jpg", named.images[0].name]
    val = SimpleNamespace(samples=[SimpleNamespace(image_id=k, path=tmp_path / name) for k, name in enumerate(names)])
    assert weights_card.showable(val, named) == {0}


# -- the weights ------------------------------------------------------------------------------------------------------
def weights_of(place: Path, value: torch.Tensor) -> SimpleNamespace:
    """A checkpoint with one tensor, as far as its file matters."""
    place.mkdir()
    save_tensors({"w": value}, place / WEIGHTS, ["a"])
    return SimpleNamespace(path=place, file=lambda name: str(place / name))


def test_weights_too_large_to_ship_may_be_stored_in_half_the_bytes(tmp_path, monkeypatch):
    monkeypatch.setattr(weights_card, "MOST_BYTES", 3000)
    checkpoint = weights_of(tmp_path / "a", torch.linspace(0, 1, 1000))
    with pytest.raises(BadInput, match="Store them in FP16: --half"):
        weights_card.to_ship(checkpoint, False, tmp_path / "work")
    state, classes = read_weights(weights_card.to_ship(checkpoint, True, tmp_path / "work"))
    assert torch.equal(state["w"], torch.linspace(0, 1, 1000).half())
    assert classes == ["a"]
    monkeypatch.setattr(weights_card, "MOST_BYTES", 1000)
    with pytest.raises(BadInput, match="Make the network narrower"):
        weights_card.to_ship(checkpoint, True, tmp_path / "work")


def test_numbers_that_half_precision_has_not_are_not_lost_in_silence(tmp_path):
    checkpoint = weights_of(tmp_path / "a", torch.tensor([1.0, 70000.0]))
    with pytest.raises(BadInput, match="w: numbers that FP16 cannot hold"):
        weights_card.to_ship(checkpoint, True, tmp_path / "work")


# -- the command ------------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A recipe of eight street scenes beside it, and a checkpoint of random weights that sees something in them."""
    folder = tmp_path_factory.mktemp("recipes") / "tiny"
    file = jobs.write_tiny(folder)
    file.write_text(re.sub("images: [^,]*", "images: images", file.read_text()) + "# the end\n")
    content = json.loads((folder / "val.json").read_text())
    (folder / "images").mkdir()
    for record in content["images"]:
        name = record["file_name"]
        (folder / "images" / name).write_bytes((jobs.CALIBRATION / "images" / name).read_bytes())
    (folder / "val.json").write_text(json.dumps({**content, "licenses": [{"name": "DbCL-1.0", "url": ""}]}))
    artifact = trained(folder / "checkpoint", 0)
    recipe, model = load_recipe(file), build("mobile-centernet", 3)
    image = read_image(next((folder / "images").iterdir()))
    spread_outputs(model.eval(), torch.from_numpy(recipe.preprocess.value()(image)[0]))
    with new_artifact(folder / "checkpoint", "checkpoint", artifact.manifest) as inside:
        save_weights(model, Path(inside) / WEIGHTS, recipe.classes)
    return folder


def spread_outputs(model, image) -> None:
    """Distinct peaks with boxes of some pixels, as a trained network has them."""
    with torch.no_grad():
        features = model.backbone(image)
        for branch, mean, std in ((model.head.heatmap, -1, 2), (model.head.size, 4, 1), (model.head.offset, 0.5, 0.2)):
            last, out = branch[-1], branch(features)
            last.weight *= (std / (out - last.bias.view(1, -1, 1, 1)).std(dim=(0, 2, 3))).view(-1, 1, 1, 1)
            last.bias += mean - branch(features).mean(dim=(0, 2, 3))


def call(place: Path, *more: str) -> int:
    fixed = ["--data", str(place), "--no-latency", "--work", str(place / "work")]
    return weights_card.main([str(place), str(place / "checkpoint"), *fixed, *more])


@pytest.fixture(scope="module")
def shipped(place):
    training = ["--training", str(place / "checkpoint-training"), "--note", "It was never trained.", "--objects", "2"]
    assert call(place, *training, "--pictures", "val") == 0
    return place


@pytest.mark.slow
def test_what_the_card_says_is_what_the_weights_do(shipped):
    card = (shipped / "README.md").read_text()
    metrics = pipeline.evaluate(shipped / "checkpoint", data=str(shipped / "val.json"), runtime="pytorch")
    assert metrics.map50 > 0
    assert f"| **mean** |  | **{100 * metrics.map50:.1f}** | **{100 * metrics.map:.1f}** |" in card
    for name, one in metrics.per_class.items():
        assert f"| {name} | {one['boxes']} | {100 * one['ap50']:.1f} | {100 * one['ap']:.1f} |" in card
    int8 = pipeline.evaluate(shipped / "work" / "onnx-trt-int8", data=str(shipped / "val.json"))
    lost = round(100 * (metrics.map50 - int8.map50), 1) + 0
    assert f"| INT8 trt | onnxruntime | {100 * int8.map50:.1f} | {100 * int8.map:.1f} | {lost:.1f} |" in card
    assert "- Licence: DbCL-1.0\n" in card
    assert "## Weak spots\n\n- It was never trained.\n" in card
    assert str(shipped) not in card
    recipe = load_recipe(shipped)
    assert recipe.measured == {"set": "tiny val", "map50": round(metrics.map50, 4), "map": round(metrics.map, 4)}
    assert (shipped / "recipe.yaml").read_text().split("measured:")[0].endswith("# the end\n")
    assert file_sha256(recipe.weights) == file_sha256(shipped / "checkpoint" / WEIGHTS)
    assert file_sha256(recipe.weights) in card


@pytest.mark.slow
def test_the_sheet_is_a_small_picture_of_both_columns(shipped):
    file = shipped / "examples.jpg"
    assert 1000 < file.stat().st_size <= card_pictures.MOST_BYTES
    picture = cv2.imread(str(file))
    assert picture.shape[1] == 2 * card_pictures.TILE + 3 * 8
    assert picture[:, : card_pictures.TILE].std() > 20
    assert picture[:, -card_pictures.TILE :].std() > 20


@pytest.mark.slow
def test_without_a_training_the_card_is_written_again_and_keeps_it(shipped, capsys):
    names = ("README.md", "curves.svg", "recipe.yaml", "examples.jpg")
    before = {name: (shipped / name).read_bytes() for name in names}
    assert call(shipped, "--pictures", "val", "--objects", "2") == 0, capsys.readouterr().err
    assert {name: (shipped / name).read_bytes() for name in names} == before


@pytest.mark.slow
def test_commands_alone_make_a_card_without_curves_that_is_kept_too(shipped, tmp_path):
    """Of weights whose training left no files."""
    place = tmp_path / "shipped"
    shutil.copytree(shipped, place)
    for name in ("README.md", "curves.svg"):
        (place / name).unlink()
    told = "```\nedgekit train tiny\n```\n\nTrained on a laptop; the files with its curves were not kept.\n"
    for more in (["--how", "edgekit train tiny", "--machine", "a laptop"], []):
        assert call(place, "--pictures", "val", "--objects", "2", *more) == 0
        assert section((place / "README.md").read_text(), "Training") == told
        assert not (place / "curves.svg").exists()


@pytest.mark.slow
def test_weights_in_half_precision_are_what_the_card_measured(shipped, tmp_path):
    place = tmp_path / "shipped"
    shutil.copytree(shipped, place)
    training = ["--training", str(place / "checkpoint-training"), "--pictures", "val", "--objects", "2"]
    assert call(place, "--half", *training) == 0
    recipe, card = load_recipe(place), (place / "README.md").read_text()
    trained, stored = read_weights(shipped / "checkpoint" / WEIGHTS)[0], read_weights(recipe.weights)[0]
    for name, value in trained.items():
        assert torch.equal(stored[name], value.half() if value.is_floating_point() else value)
    assert any(value.dtype == torch.int64 for value in stored.values())  # counters are not rounded
    assert file_sha256(recipe.weights) in card
    assert "MB, rounded to FP16 from what was trained |" in card
    checkpoint = shipped_checkpoint(recipe, tmp_path / "again")
    assert {value.dtype for value in read_weights(Path(checkpoint.file(WEIGHTS)))[0].values()} == {
        torch.float32,
        torch.int64,
    }
    metrics = pipeline.evaluate(checkpoint.path, data=str(place / "val.json"), runtime="pytorch")
    assert recipe.measured == {"set": "shipped val", "map50": round(metrics.map50, 4), "map": round(metrics.map, 4)}


@pytest.mark.slow
def test_the_verb_card_names_the_card_and_shows_what_it_measured(shipped):
    text = listing.card(shipped)
    card = (shipped / "README.md").read_text()
    assert f"{shipped.name}/README.md" in text
    assert f"### Accuracy\n\n{section(card, 'Accuracy')}" in text
    assert f"### INT8\n\n{section(card, 'INT8')}" in text
    assert "curves.svg" not in text  # which is not beside the reader


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--training", "TRAINING", "--pictures", "val", "--note", "see /home/me/x"], "a path of this machine"),
        (["--training", "TRAINING"], "names no set whose images may be shown"),
        (["--training", "TRAINING", "--pictures", "nowhere"], "no image set named 'nowhere'"),
        (["--training", "TRAINING", "--pictures", "val", "--objects", "999"], "0 images with 999 labelled objects"),
        (["--training", "TRAINING", "--pictures", "dhaka-eval"], "has none of the images"),
        (["--pictures", "val"], "Give the training: --training"),
        (["--training", "TRAINING", "--pictures", "val", "--rows", "nowhere.json"], "nowhere.json: cannot read"),
        (["--training", "TRAINING", "--pictures", "val", "--data", "nowhere"], "nowhere: no such folder. --data names"),
    ],
)
def test_a_mistake_is_said_in_a_line_and_nothing_is_written(place, tmp_path, capsys, monkeypatch, more, said):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text((place / "recipe.yaml").read_text().split("measured:")[0])
    monkeypatch.setattr(weights_card, "measure_all", lambda *_: pytest.fail("measured before all was checked"))
    training = str(place / "checkpoint-training")
    options = [training if word == "TRAINING" else word for word in more]
    wishes = [str(tmp_path), str(place / "checkpoint"), "--no-latency", "--data", str(place), *options]
    assert weights_card.main(wishes) == 2
    assert said in capsys.readouterr().err
    assert [p.name for p in tmp_path.iterdir()] == ["recipe.yaml"]


def test_weights_that_are_too_large_or_of_another_network_are_refused(place, tmp_path, capsys, monkeypatch):
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(
        (place / "recipe.yaml")
        .read_text()
        .replace("mobile-centernet}", "mobile-centernet, options: {head_filters: 64}}")
    )
    wishes = [str(tmp_path), str(place / "checkpoint"), "--no-latency", "--data", str(place)]
    assert weights_card.main(wishes) == 2
    assert "trained as another network" in capsys.readouterr().err
    monkeypatch.setattr(weights_card, "MOST_BYTES", 1000)
    assert call(place, "--work", str(tmp_path / "work")) == 2
    assert "weights that ship have at most 10 MB" in capsys.readouterr().err
