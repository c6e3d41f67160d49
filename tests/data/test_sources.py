"""Recipes with several sources: what is labelled where, what an epoch sees, and mistakes."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from edgekit import pipeline
from edgekit.data.augment import Augment
from edgekit.data.coco import read_coco
from edgekit.data.dataset import DetectionDataset, EpochSampler, MixedDataset
from edgekit.data.evaluation import evaluation_set, recipe_images
from edgekit.data.sources import (
    Mixture,
    Source,
    evaluated_classes,
    read_sources,
    recipe_sources,
    source_notes,
    validation_set,
    widened,
)
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import Artifact
from edgekit.runtime.errors import BadConfig, BadInput, EdgeKitError
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.worker import DEFAULT_TIMED
from tests.training import jobs

SAMPLE = Path(__file__).resolve().parents[2] / "calibration" / "dhaka-calib"
CLASSES = ("pedestrian", "vehicle", "scooter")
MAP = "classes: {pedestrian: [person], vehicle: [car, bus]}\ndrop: [sign]\n"

RECIPE = f"""
name: mixed
classes: [pedestrian, vehicle, scooter]
model: {{name: mobile-centernet}}
preprocess: {{size: [96, 64]}}
data:
  root: .
  sources:
    roads: {{images: {SAMPLE / "images"}, train: roads.json, val: roads.json, labelled: [scooter, vehicle]}}
    town: {{root: town, images: {SAMPLE / "images"}, train: t.json, val: t.json, class_map: map.yaml, repeat: 1.5}}
"""


def content_of(images: slice, categories: list[str], boxes: list[str]) -> dict[str, Any]:
    """Some of the sample's images, each with one box of every class of ``boxes``."""
    records = json.loads((SAMPLE / "annotations.json").read_text(encoding="utf-8"))["images"][images]
    table = [{"id": i, "name": name} for i, name in enumerate(categories, 7)]
    found = [
        {"id": 100 * n + k, "image_id": r["id"], "category_id": 7 + categories.index(name), "bbox": [9 * k, 9, 20, 30]}
        for n, r in enumerate(records)
        for k, name in enumerate(boxes)
    ]
    return {"images": records, "annotations": found, "categories": table}


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three images of roads, where nobody looked for pedestrians, and four of a town under other names."""
    (tmp_path / "town").mkdir()
    roads = content_of(slice(0, 3), ["vehicle", "scooter"], ["vehicle", "scooter", "scooter"])
    town = content_of(slice(3, 7), ["sign", "bus", "person", "car"], ["person", "car", "bus", "sign"])
    (tmp_path / "roads.json").write_text(json.dumps(roads), encoding="utf-8")
    (tmp_path / "town" / "t.json").write_text(json.dumps(town), encoding="utf-8")
    (tmp_path / "map.yaml").write_text(MAP, encoding="utf-8")
    (tmp_path / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return tmp_path / "recipe.yaml"


def mixture(file: Path, *overrides: str) -> Mixture:
    recipe = load_recipe(file, list(overrides))
    return Mixture(read_sources(recipe), recipe.classes)


# -- what is read -----------------------------------------------------------------------------------------------------
def test_each_source_has_the_detectors_classes_and_says_which_are_labelled(file: Path) -> None:
    roads, town = read_sources(load_recipe(file))
    assert roads.labelled == ("vehicle", "scooter")
    assert town.labelled == ("pedestrian", "vehicle")  # without being told: what the map makes of its classes
    for source, counts in ((roads, [0, 3, 6]), (town, [4, 8, 0])):
        for coco in (source.train, source.val):
            assert coco is not None
            assert coco.classes == CLASSES
            assert coco.category_ids == (1, 2, 3)
            assert coco.class_counts().tolist() == counts


def test_boxes_of_classes_that_are_not_labelled_are_left_out_and_counted(file: Path) -> None:
    """Where only some objects of a class were labelled, none of them may be taken for all."""
    sources = read_sources(load_recipe(file, ["data.sources.town.labelled=[pedestrian]"]))
    assert sources[1].train is not None
    assert sources[1].train.class_counts().tolist() == [4, 0, 0]
    notes = source_notes(sources, CLASSES)
    assert "source roads: pedestrian not labelled; no loss there, and in no mean" in notes
    assert "source town, train: 8 boxes of class 'vehicle' left out: not asked for" in notes
    assert "source town, val: 4 of 4 images are trained on too" in notes


def test_a_recipe_of_one_set_is_one_source(file: Path) -> None:
    whole = ["classes=[vehicle, scooter]", f"data={{root: ., images: {SAMPLE / 'images'}, train: roads.json}}"]
    (source,) = recipe_sources(load_recipe(file, whole))
    assert (source.name, source.labelled, source.val) == ("", ("vehicle", "scooter"), None)
    assert source.train is not None
    mix = Mixture.of(source.train)
    assert mix.labelled(mix.sources[0]) is None
    assert mix.draw(0, 3).tolist() == [0, 1, 2]


def test_one_sources_validation_set(file: Path) -> None:
    assert validation_set(load_recipe(file), "town").class_counts().tolist() == [4, 8, 0]
    with pytest.raises(BadConfig, match="toun"):
        validation_set(load_recipe(file), "toun")


def test_an_artifact_finds_the_sources_of_its_recipe_from_any_folder(
    file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its manifest keeps the recipe and not the folder that data.root and the class map are relative to."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    recipe = load_recipe(file).model_dump(mode="json")
    artifact = Artifact("runs/mixed/onnx", {"recipe": recipe, "classes": list(CLASSES)})
    assert evaluation_set(artifact, "town").digest() == validation_set(load_recipe(file), "town").digest()
    (tmp_path / "town").rename(tmp_path / "moved")
    told = "town: no such folder, where the recipe that runs/mixed/onnx keeps has its source 'town'.*--data"
    with pytest.raises(BadInput, match=told):
        evaluation_set(artifact, "town")


def test_an_artifacts_real_images_are_of_a_source_only_where_there_are_no_others(file: Path, tmp_path: Path) -> None:
    """What is exported on another machine than it was trained on has no data there."""
    folder = tmp_path / "photos"
    shutil.copytree(SAMPLE / "images", folder)
    calibrated = load_recipe(file, ["evaluation=town", f"quantize.calibration={folder}"]).model_dump(mode="json")
    bare = {**calibrated, "quantize": None}
    town = [sample.path for sample in validation_set(load_recipe(file), "town").samples]
    assert recipe_images(Artifact("x", {"recipe": bare, "classes": list(CLASSES)}), 2) == town[:2]
    (tmp_path / "town").rename(tmp_path / "moved")
    images = recipe_images(Artifact("x", {"recipe": calibrated, "classes": list(CLASSES)}), 3)
    assert images == sorted(folder.iterdir())[:3]
    assert not recipe_images(Artifact("x", {"classes": list(CLASSES)}), 3)


def test_a_set_of_some_classes_measures_these(file: Path) -> None:
    """A set whose classes are all the detector's lacks the others; one with foreign classes is a mistake."""
    roads = file.with_name("roads.json")
    assert evaluated_classes(roads, CLASSES) == ["vehicle", "scooter"]
    assert evaluated_classes(roads, ("vehicle", "scoter")) == ["vehicle", "scoter"]
    assert evaluated_classes(roads, ("scooter", "vehicle")) == ["scooter", "vehicle"]
    coco = read_coco(roads, SAMPLE / "images", ["scooter"])
    wide = widened(coco, CLASSES)
    assert wide.class_counts().tolist() == [0, 0, 6]
    assert set(wide.samples[0].labels.tolist()) == {2}


def test_the_digest_of_a_widened_set_tells_which_classes_count(file: Path) -> None:
    """mAP of other classes is another figure; the others, and the order in which a network has them, change nothing."""
    sets = [read_coco(file.with_name("roads.json"), SAMPLE / "images", [name]) for name in ("scooter", "vehicle")]
    scooter, vehicle = (widened(coco, CLASSES) for coco in sets)
    assert scooter.digest() != vehicle.digest()
    assert widened(sets[0], CLASSES[::-1]).digest() == widened(scooter, (*CLASSES, "cart")).digest() == scooter.digest()


# -- what an epoch sees -----------------------------------------------------------------------------------------------
def test_an_epoch_sees_each_source_as_often_as_it_says(file: Path) -> None:
    mix = mixture(file)
    assert len(mix) == 3 + 6
    assert list(mix.starts()) == [0, 3]
    first, second = mix.draw(0, 0), mix.draw(0, 1)
    for drawn in (first, second):
        assert drawn[:7].tolist() == [0, 1, 2, 3, 4, 5, 6]
        assert len(set(drawn.tolist())) == len(drawn) == 9
        assert set(drawn[7:].tolist()) <= {7, 8, 9, 10}
    assert any(mix.draw(0, epoch).tolist() != first.tolist() for epoch in range(1, 6))
    assert mix.draw(0, 1).tolist() == second.tolist()
    assert mix.class_counts().tolist() == [6, 3 + 12, 6]


def test_two_processes_share_an_epoch(file: Path) -> None:
    mix = mixture(file)
    parts = []
    for rank in range(2):
        sampler = EpochSampler(len(mix), True, 5, rank, 2, 2, lambda epoch: mix.draw(5, epoch))
        sampler.set_epoch(2)
        parts.append([index for _, index in sampler])
    assert [len(part) for part in parts] == [4, 4]
    assert not set(parts[0]) & set(parts[1])
    assert set(parts[0] + parts[1]) <= set(mix.draw(5, 2).tolist())


def datasets(mix: Mixture, mosaic: float = 0.0) -> MixedDataset:
    preprocess = Preprocess((96, 64))
    return MixedDataset(
        [
            DetectionDataset(coco, preprocess, Augment(), 0, mosaic, mix.labelled(source), start)
            for coco, source, start in zip(mix.sets, mix.sources, mix.starts(), strict=True)
        ]
    )


def test_items_know_what_is_labelled_and_repeats_differ(file: Path) -> None:
    mix = mixture(file)
    items = datasets(mix)
    for index, labelled in ((0, [False, True, True]), (2, [False, True, True]), (3, [True, True, False])):
        mask = items[0, index].labelled
        assert mask is not None
        assert mask.tolist() == labelled
    again = items[0, 3 + 4]  # the town's first image a second time
    assert again.image_id == items[0, 3].image_id
    assert (again.canvas != items[0, 3].canvas).any()
    np.testing.assert_array_equal(items[0, 7].canvas, again.canvas)


def test_a_mosaic_is_of_one_source(file: Path) -> None:
    """Labels of a canvas are those of the image that it began with, so all four must have the same."""
    items = datasets(mixture(file), mosaic=1.0)
    for epoch in range(4):
        assert set(items[epoch, 0].boxes.labels.tolist()) <= {1, 2}
        assert set(items[epoch, 4].boxes.labels.tolist()) <= {0, 1}


def test_a_source_alone_is_the_dataset_that_it_was(file: Path) -> None:
    coco = read_coco(file.with_name("roads.json"), SAMPLE / "images")
    mix = Mixture.of(coco)
    alone = DetectionDataset(coco, Preprocess((96, 64)), Augment(), 0)
    for index in range(3):
        np.testing.assert_array_equal(datasets(mix)[1, index].canvas, alone[1, index].canvas)
    assert EpochSampler(3, True, 4, draw=lambda e: mix.draw(4, e)).__iter__().__next__() == next(
        iter(EpochSampler(3, True, 4))
    )


# -- data check -------------------------------------------------------------------------------------------------------
def test_data_check_of_a_recipe(file: Path) -> None:
    found = pipeline.data_recipe(file)
    assert found["images_per_epoch"] == 9
    assert [(s["source"], s["split"], s["images"]) for s in found["sources"]] == [
        ("roads", "train", 3),
        ("roads", "val", 3),
        ("town", "train", 4),
        ("town", "val", 4),
    ]
    assert found["sources"][2]["labelled"] == ["pedestrian", "vehicle"]


# -- one set, whose splits do not have all classes --------------------------------------------------------------------
@pytest.fixture
def voc(tmp_path: Path) -> Path:
    """A recipe of a VOC set: train shows a car and a bus, val a car only, other a bike."""
    for folder in ("Annotations", "ImageSets/Main"):
        (tmp_path / folder).mkdir(parents=True)
    images = sorted((SAMPLE / "images").iterdir())
    for split, image, names in zip(
        ("train", "val", "other"), images, (["car", "bus"], ["car"], ["bike"]), strict=False
    ):
        corners = "<bndbox><xmin>9</xmin><ymin>9</ymin><xmax>60</xmax><ymax>60</ymax></bndbox>"
        objects = "".join(f"<object><name>{name}</name>{corners}</object>" for name in names)
        (tmp_path / "Annotations" / f"{image.stem}.xml").write_text(f"<annotation>{objects}</annotation>")
        (tmp_path / "ImageSets" / "Main" / f"{split}.txt").write_text(f"{image.stem}\n")
    lists = "train: ImageSets/Main/train.txt, val: ImageSets/Main/val.txt"
    text = "name: voc\nclasses: [bus, car]\nmodel: {name: mobile-centernet}\npreprocess: {size: [96, 64]}\n"
    (tmp_path / "recipe.yaml").write_text(
        f"{text}data: {{root: ., layout: voc, images: {SAMPLE / 'images'}, {lists}}}\n", encoding="utf-8"
    )
    return tmp_path / "recipe.yaml"


def test_a_class_may_be_in_one_split_alone(voc: Path) -> None:
    """VOC has no list of its classes: they are those that the images of a split show."""
    (source,) = recipe_sources(load_recipe(voc))
    assert source.train is not None
    assert source.val is not None
    assert source.train.classes == source.val.classes == ("bus", "car")
    assert source.train.class_counts().tolist() == [1, 1]
    assert source.val.class_counts().tolist() == [0, 1]
    turned = ["data.train=ImageSets/Main/val.txt", "data.val=ImageSets/Main/train.txt"]
    sources = recipe_sources(load_recipe(voc, turned))
    assert sources[0].train is not None
    assert sources[0].train.class_counts().tolist() == [0, 1]
    assert "no box of bus to train on; it cannot be learnt" in source_notes(sources, ("bus", "car"))
    assert not any("to train on;" in note for note in source_notes((source,), ("bus", "car")))


def test_a_set_whose_boxes_were_all_left_out_says_why(tmp_path: Path) -> None:
    recipe = jobs.write_tiny(tmp_path)
    content = json.loads((tmp_path / "train.json").read_text())
    for number, annotation in enumerate(content["annotations"]):
        annotation["bbox"][2] = 0
        if number == 0:
            annotation.update(iscrowd=1, bbox=[1, 1, 9, 9])
    (tmp_path / "train.json").write_text(json.dumps(content))
    boxes = len(content["annotations"])
    with pytest.raises(BadInput) as error:
        recipe_sources(load_recipe(recipe))
    for word in ("no box of vehicle, scooter, bicycle", f"; {boxes - 1} boxes without area left out", "; 1 crowd"):
        assert word in str(error.value)


def test_a_class_that_is_listed_and_in_no_split_is_told(tmp_path: Path) -> None:
    """COCO's categories are a list of what was looked for; docs/own-data.md."""
    recipe = jobs.write_tiny(tmp_path)
    for name in ("train.json", "val.json"):
        content = json.loads((tmp_path / name).read_text())
        content["categories"].append({"id": 99, "name": "tram"})
        (tmp_path / name).write_text(json.dumps(content))
    classes = ("vehicle", "scooter", "bicycle", "tram")
    sources = recipe_sources(load_recipe(recipe, [f"classes=[{', '.join(classes)}]"]))
    assert "no box of tram to train on; it cannot be learnt" in source_notes(sources, classes)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["classes=[buss, car, bike]"], ["'buss': did you mean bus?", "'bike'", "data.class_map", "val.txt: no such"]),
        (["data.val=ImageSets/Main/other.txt"], ["other.txt", "class 'bus'", "it has: bike"]),
    ],
)
def test_a_class_that_no_split_has_is_named(voc: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(BadInput) as error:
        recipe_sources(load_recipe(voc, overrides))
    for word in words:
        assert word in str(error.value)


def test_a_file_that_is_no_set_says_so_rather_than_that_it_has_no_classes(file: Path) -> None:
    broken = {"train": "broken.json, val: roads.json", "val": "roads.json, val: broken.json"}
    (file.parent / "broken.json").write_text("{}", encoding="utf-8")
    for files in broken.values():
        whole = ["classes=[vehicle]", f"data={{root: ., images: {SAMPLE / 'images'}, train: {files}}}"]
        with pytest.raises(BadInput, match=r"broken\.json.*\n.*images: missing"):
            recipe_sources(load_recipe(file, whole))


# -- mistakes ---------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["data.sources.town.labelled=[pedestrain]"], ["data.sources.town.labelled", "did you mean pedestrian"]),
        (["data.sources.town.labelled=[vehicle, vehicle]"], ["appears twice"]),
        (["data.sources.town.labelled=[]"], ["data.sources.town.labelled"]),
        (["data.sources.town.labelled=[scooter, vehicle]"], ["no class scooter", "it has: pedestrian, vehicle"]),
        (["data.sources.town.rot=x"], ["data.sources.town.rot", "did you mean root"]),
        (["data.sources.town.repeat=0"], ["data.sources.town.repeat", "greater than 0"]),
        (
            ["data.sources.town.train=gone.json"],
            [
                "gone.json: no such annotations.",
                "say where yours are: edgekit train mixed data.sources.town.train=FILE",
            ],
        ),
        (["data.sources.town.class_map=gone.yaml"], ["gone.yaml"]),
        (["data.sources.town.root=gone"], ["gone", "no such folder", "data.root=FOLDER"]),
        (["data.sources.town.class_map=null"], ["town", "no class of the recipe's", "sign, bus, person, car"]),
        (["data.sources.town={root: town}"], ["data.sources.town", "neither train nor val"]),
        (["data.train=roads.json"], ["train beside sources"]),
        (["data.sources={a-b: {train: x}}"], ["a-b"]),
        (
            ["data.sources.town.train=null", "data.sources.town.val=null"],
            ["data.sources.town", "neither train nor val"],
        ),
        (["data.sources.town.labelled=[vehicle]"], ["pedestrian", "labelled in no training source"]),
        (["data.sources.town.train=null"], ["pedestrian", "labelled in no training source"]),
    ],
)
def test_mistakes_are_named(file: Path, overrides: list[str], words: list[str]) -> None:
    with pytest.raises(EdgeKitError) as error:
        read_sources(load_recipe(file, overrides))
    for word in words:
        assert word in str(error.value)


def changed(file: Path, name: str, **values: Any) -> Recipe:
    path = file.parent / name
    path.write_text(json.dumps({**json.loads(path.read_text(encoding="utf-8")), **values}), encoding="utf-8")
    return load_recipe(file)


def test_a_class_that_is_listed_and_never_labelled_must_be_explained(file: Path) -> None:
    """CamVid's scooters: the category is there and no box, though scooters are in the pictures."""
    (file.parent / "map.yaml").write_text(MAP.replace("classes: {", "classes: {scooter: [moped], "), encoding="utf-8")
    with pytest.raises(BadInput, match=r"lists scooter and has no box of it.*labelled=\[pedestrian, vehicle\]"):
        read_sources(load_recipe(file))
    told = ["data.sources.town.labelled=[pedestrian, vehicle, scooter]"]
    assert read_sources(load_recipe(file, told))[1].labelled == CLASSES


def test_sources_without_images_or_boxes(file: Path) -> None:
    with pytest.raises(BadInput, match=r"t\.json.*\n.*images: the list is empty"):
        read_sources(changed(file, "town/t.json", images=[], annotations=[]))
    recipe = changed(file, "roads.json", annotations=[])
    with pytest.raises(BadInput, match=r"roads\.json: no box of vehicle, scooter"):
        read_sources(recipe)


def test_a_class_with_labels_and_no_box_anywhere(file: Path) -> None:
    boxes = content_of(slice(0, 3), ["vehicle", "scooter"], ["vehicle"])["annotations"]
    with pytest.raises(BadInput, match="no box of class scooter in roads"):
        read_sources(changed(file, "roads.json", annotations=boxes))


def test_a_map_that_names_a_class_twice_or_forgets_one(file: Path) -> None:
    (file.parent / "map.yaml").write_text("classes: {vehicle: [car], pedestrian: [car, person]}", encoding="utf-8")
    with pytest.raises(BadConfig, match="named more than once: car"):
        read_sources(load_recipe(file))
    (file.parent / "map.yaml").write_text("classes: {vehicle: [car], pedestrian: [person]}", encoding="utf-8")
    with pytest.raises(BadInput, match="says nothing about bus, sign"):
        read_sources(load_recipe(file))


def test_identity_depends_on_what_is_labelled_and_how_often_it_is_seen(file: Path) -> None:
    digests = {
        mixture(file, *more).digest()
        for more in ((), ("data.sources.town.repeat=2",), ("data.sources.roads.labelled=[vehicle, scooter]",))
    }
    assert len(digests) == 2
    source = read_sources(load_recipe(file))[0]
    assert Mixture((Source("x", source.train, None, source.labelled),), CLASSES).digest() not in digests


@pytest.mark.parametrize("wrong", ["rods", "dhaka-evil", "annotations.jsn"])
@pytest.mark.parametrize("several", [True, False])
def test_a_misspelled_set_is_answered_with_all_that_there_are(file: Path, wrong: str, several: bool) -> None:
    """Sources of the artifact's recipe stand beside the sets that ship, and are found by their nearest name."""
    recipe = load_recipe(file).model_dump(mode="json")
    artifact = Artifact(
        "network", {"classes": list(CLASSES), "recipe": recipe if several else {**recipe, "data": None}}
    )
    with pytest.raises(BadConfig) as caught:
        evaluation_set(artifact, wrong)
    said = str(caught.value)
    assert f"no set named '{wrong}'" in said
    assert "dhaka-calib, dhaka-eval" in said
    assert "A COCO file works too" in said
    assert ("Sources of its recipe: roads, town." in said) == several
    assert ("Did you mean roads" in said) == (several and wrong == "rods")


@pytest.mark.parametrize("name", [None, 3, ["a.jpg"]])
def test_a_file_name_that_is_none_is_the_readers_to_tell(name: object, tmp_path: Path) -> None:
    file = tmp_path / "val.json"
    file.write_text(json.dumps({"images": [{"id": 1, "file_name": name}], "annotations": [], "categories": []}))
    with pytest.raises(BadInput, match="file_name"):
        evaluation_set(Artifact("network", {"classes": ["car"], "recipe": {}}), str(file))


@pytest.mark.parametrize(
    ("ways", "told"),
    [
        ({}, "Give one: --data SET or --data annotations.json"),
        ({"option": "--evaluation"}, "Give one: --evaluation SET or --evaluation annotations.json"),
        ({"unlabelled": True}, "annotations.json; or images without labels, for the time alone: --data FOLDER"),
    ],
)
def test_a_set_that_is_missing_is_asked_for_by_the_commands_own_option(ways: dict[str, Any], told: str) -> None:
    with pytest.raises(BadConfig) as caught:
        evaluation_set(Artifact("network", {"classes": ["car"], "recipe": {}}), None, **ways)
    assert str(caught.value).endswith(told)


def test_a_folder_without_labels_is_a_set_only_where_labels_are_not_needed(tmp_path: Path) -> None:
    for number, (width, height) in enumerate([(64, 48), (80, 32)]):
        cv2.imwrite(str(tmp_path / f"{number}.png"), np.zeros((height, width, 3), np.uint8))
    artifact = Artifact("network", {"classes": ["car", "bus"], "recipe": {}})
    with pytest.raises(BadInput, match="has no annotations"):
        evaluation_set(artifact, str(tmp_path))
    found = evaluation_set(artifact, str(tmp_path), unlabelled=True)
    assert [(s.path.name, s.width, s.height, len(s.boxes)) for s in found.samples] == [
        ("0.png", 64, 48, 0),
        ("1.png", 80, 32, 0),
    ]
    assert (found.classes, found.class_counts().tolist()) == (("car", "bus"), [0, 0])
    before = found.digest()
    cv2.imwrite(str(tmp_path / "1.png"), np.ones((32, 80, 3), np.uint8))
    assert evaluation_set(artifact, str(tmp_path), unlabelled=True).digest() != before
    for number in range(2, DEFAULT_TIMED + 3):
        shutil.copy(tmp_path / "1.png", tmp_path / f"{number}.png")
    assert len(evaluation_set(artifact, str(tmp_path), unlabelled=True)) == DEFAULT_TIMED  # those that are timed


def coco_file(file: Path, boxes: int, category: str = "car") -> Path:
    """One image, which is no image, in ``images`` beside the file."""
    (file.parent / "images").mkdir(exist_ok=True)
    cv2.imwrite(str(file.parent / "images" / "a.png"), np.zeros((20, 20, 3), np.uint8))
    box = {"image_id": 1, "category_id": 1, "bbox": [1, 1, 8, 8], "area": 64, "iscrowd": 0}
    content = {
        "images": [{"id": 1, "file_name": "a.png", "width": 20, "height": 20}],
        "categories": [{"id": 1, "name": category}],
        "annotations": [{"id": k, **box} for k in range(boxes)],
    }
    file.write_text(json.dumps(content))
    return file


def network(evaluation: str | None = None) -> Artifact:
    return Artifact("network", {"classes": ["car"], "recipe": {"evaluation": evaluation}})


def test_a_byte_order_mark_hides_no_images(tmp_path: Path) -> None:
    """PowerShell and spreadsheets write one; the reader takes it, and the images lie where they lie without."""
    file = coco_file(tmp_path / "val.json", 1)
    file.write_bytes(b"\xef\xbb\xbf" + file.read_bytes())
    assert len(evaluation_set(network(), str(file))) == 1


def test_a_set_without_boxes_is_refused_before_anything_is_detected(tmp_path: Path) -> None:
    file = coco_file(tmp_path / "val.json", 0)
    with pytest.raises(BadInput, match="no box to find in this set"):
        evaluation_set(network(), str(file))
    assert len(evaluation_set(network(), str(file), unlabelled=True)) == 1  # for the time alone


def test_a_recipes_set_that_does_not_fit_says_how_to_name_another(tmp_path: Path) -> None:
    file = coco_file(tmp_path / "val.json", 1, "bus")
    with pytest.raises(BadInput, match=r"To measure on yours: --evaluation annotations\.json$"):
        evaluation_set(network(str(file)), None, "--evaluation")
    with pytest.raises(BadInput) as caught:
        evaluation_set(network(), str(file))
    assert "To measure on yours" not in str(caught.value)
