"""A whole training on two sources, of which one has no pedestrians; what it leaves behind, and what it says."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest
import torch

from edgekit import pipeline
from edgekit.evaluation.coco import Metrics
from edgekit.models.checkpoint import save_weights
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.errors import BadConfig
from edgekit.training.fit import fit, training_sets
from edgekit.training.resume import _may_change

from ..data.test_sources import RECIPE, content_of
from . import jobs
from .conftest import result_of

SETTINGS = [
    "train={epochs: 1, batch_size: 4, precision: fp32, workers: 0, ema: 0.5, schedule: {warmup_steps: 1}}",
    "augment.mosaic=0.5",
]


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Three images of roads without labels of pedestrians, and four of a town without scooters, under other names."""
    folder = tmp_path / "data"
    (folder / "town").mkdir(parents=True)
    roads = content_of(slice(0, 3), ["vehicle", "scooter"], ["vehicle", "scooter"])
    town = content_of(slice(3, 7), ["bus", "person", "car"], ["person", "car", "bus"])
    (folder / "roads.json").write_text(json.dumps(roads), encoding="utf-8")
    (folder / "town" / "t.json").write_text(json.dumps(town), encoding="utf-8")
    (folder / "map.yaml").write_text("classes: {pedestrian: [person], vehicle: [car, bus]}", encoding="utf-8")
    (folder / "recipe.yaml").write_text(RECIPE, encoding="utf-8")
    return folder / "recipe.yaml"


@pytest.mark.parametrize("teacher", [False, True])
def test_a_training_on_two_sources(file: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture, teacher: bool) -> None:
    """From weights of three other classes, of which one has a namesake; once with a teacher of all classes."""
    torch.manual_seed(0)
    save_weights(build("mobile-centernet", 3), tmp_path / "old.safetensors", ("car", "scooter", "van"))
    init = [f"train.init={tmp_path / 'old.safetensors'}", "train.init_classes={vehicle: car}"]
    taught = []
    if teacher:
        torch.manual_seed(1)
        weights = tmp_path / "teacher.safetensors"
        save_weights(build("mobile-centernet", 3), weights, ("pedestrian", "vehicle", "scooter"))
        taught = [f"teacher={{recipe: {file}, weights: {weights}}}", "distillation={}"]
    with caplog.at_level(logging.WARNING):
        fit(load_recipe(file, [*SETTINGS, *init, *taught]), tmp_path / "run")
    assert "source roads: pedestrian not labelled" in caplog.text
    assert "loaded vehicle from car, scooter; anew pedestrian; not used van" in caplog.text
    result = result_of(tmp_path / "run")
    measured = {k for row in result.table for k, v in row.items() if k.startswith("val/") and v}
    of_roads = {"val/roads/map50", "val/roads/map", "val/roads/ap50/vehicle", "val/roads/ap50/scooter"}
    of_town = {"val/town/map50", "val/town/map", "val/town/ap50/pedestrian", "val/town/ap50/vehicle"}
    assert measured == of_roads | of_town
    assert {f"val/{name}" for name in result.metrics if name not in ("epochs", "steps")} == measured
    assert any(float(row.get("train/pair") or 0) > 0 for row in result.table) is teacher
    if not teacher:
        evaluated_by_source(tmp_path / "run", result.metrics)


def evaluated_by_source(out: Path, metrics: dict[str, float]) -> None:
    """``edgekit evaluate --data SOURCE`` finds what the training's validation found."""
    assert read_artifact(out).manifest["category_ids"] == [1, 2, 3]
    with pytest.raises(BadConfig, match="or one of its sources: roads, town"):
        pipeline.evaluate(out)
    recipe = {**read_artifact(out).manifest["recipe"]}
    assert recipe["data"]["sources"]["roads"]["labelled"] == ["scooter", "vehicle"]
    file = out.parent / "data" / "roads.json"
    content = json.loads(file.read_text(encoding="utf-8"))
    for image in content["images"]:
        image["file_name"] = str(jobs.CALIBRATION.name) + "/images/" + image["file_name"]
    (out.parent / jobs.CALIBRATION.name).symlink_to(jobs.CALIBRATION)
    (out.parent / "some.json").write_text(json.dumps(content), encoding="utf-8")
    measured = pipeline.evaluate(out, data=str(out.parent / "some.json"))
    assert isinstance(measured, Metrics)
    assert set(measured.per_class) == {"vehicle", "scooter"}
    assert measured.map50 == pytest.approx(metrics["roads/map50"], abs=1e-4)


def test_evaluate_finds_a_source_by_its_name(file: Path, tmp_path: Path) -> None:
    """Its folder is looked for beside the recipe, from wherever one stands."""
    fit(load_recipe(file, SETTINGS), tmp_path / "run")
    measured = pipeline.evaluate(tmp_path / "run", data="roads")
    assert isinstance(measured, Metrics)
    assert set(measured.per_class) == {"vehicle", "scooter"}


def test_a_mix_without_training_sources(file: Path) -> None:
    only = f"data={{root: ., sources: {{roads: {{images: {jobs.CALIBRATION / 'images'}, val: roads.json}}}}}}"
    with pytest.raises(BadConfig, match="no source has train"):
        training_sets(load_recipe(file, [only]))
    with pytest.raises(BadConfig, match="no source has train"):
        pipeline.data_recipe(file, overrides=[only])  # what is said before a training


def test_a_training_may_go_on_where_its_sources_have_moved() -> None:
    assert _may_change("data.sources.town.root")
    assert not _may_change("data.sources.town.labelled")
    assert not _may_change("data.sources.town.train")
