"""What a finished training leaves in result.json: read by later versions, so its fields stay; and no training twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import ablations
import pytest
import training_table
import trainings

from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import Artifact, value_sha256
from edgekit.runtime.errors import EdgeKitError

METRICS = {"map50": 0.5, "map": 0.25, "steps": 7, "epochs": 2, "ap50/vehicle": 0.75, "ap50/bicycle": 0.25}
# as they are on the disks of those who trained
MEASURED = {"map50": 0.5, "map": 0.25, "ap50": {"vehicle": 0.75, "bicycle": 0.25}, "images": 56, "seconds": 3.5}
COMMON = {"seed": 5, "failed": ""}


@pytest.fixture
def recipe() -> Recipe:
    return load_recipe("mobile-centernet-w16-dhaka", ["train.seed=5", "train.batch_size=8"])


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """The folders that were trained in: a training that writes its curve and is over."""
    folders = []

    def trained(_: Recipe, folder: Path, key: str) -> Artifact:
        folders.append(folder)
        (folder / "checkpoint-training").mkdir(parents=True)
        (folder / "checkpoint-training" / "metrics.csv").write_text("epoch,train/seconds\n0,2.5\n1,1\n2,\n")
        return Artifact(folder / "checkpoint", {"metrics": METRICS})

    monkeypatch.setattr(trainings, "trained", trained)
    return folders


def test_the_training_table_keeps_its_fields(recipe: Recipe, counted: list[Path], tmp_path: Path) -> None:
    first = training_table.train(recipe, tmp_path / "one", speed=False)
    values = json.loads((tmp_path / "one" / "result.json").read_text())
    key = values.pop("key")
    assert values == {"recipe": "mobile-centernet-w16-dhaka", **COMMON, **MEASURED, "speed": {}, "unmeasured": ""}
    assert key == value_sha256(trainings.settings(recipe))
    assert training_table.train(recipe, tmp_path / "one", speed=False) == first
    assert counted == [tmp_path / "one"]
    other = load_recipe("mobile-centernet-w16-dhaka", ["train.seed=6"])
    with pytest.raises(EdgeKitError, match="made with other settings"):
        training_table.train(other, tmp_path / "one", speed=False)


def test_other_annotations_are_another_training_and_another_place_is_not(tmp_path: Path) -> None:
    """Even if they have the same name."""

    def key(folder: str, content: str, *more: str) -> str:
        (tmp_path / folder / "annotations").mkdir(parents=True, exist_ok=True)
        (tmp_path / folder / "annotations" / "vehicles3_train.json").write_text(content)
        wishes = [f"data.root={tmp_path / folder}", *more]
        return value_sha256(trainings.settings(load_recipe("mobile-centernet-w16-dhaka", wishes)))

    assert key("here", "a") == key("there", "a")
    assert key("here", "a") != key("there", "b")
    assert key("here", "a") != key("here", "a", "data.frame_stride=10")


@pytest.mark.parametrize("key", ["init", "init_backbone"])
def test_weights_that_a_training_starts_from_are_told_by_content(tmp_path: Path, key: str) -> None:
    def settings(name: str, content: bytes) -> dict[str, Any]:
        file = tmp_path / name
        file.write_bytes(content)
        return trainings.settings(load_recipe("mobile-centernet-w16", [f"train.{key}={file}"]))

    assert settings("a.safetensors", b"one") == settings("b.safetensors", b"one")
    assert settings("a.safetensors", b"one") != settings("a.safetensors", b"two")
    assert settings("a.safetensors", b"one") != trainings.settings(load_recipe("mobile-centernet-w16"))


def test_what_a_source_counts_as_labelled_is_part_of_a_training() -> None:
    keys = {
        value_sha256(trainings.settings(load_recipe("edgekit-road-traffic4", more)))
        for more in ([], ["data.sources.camvid.labelled=[vehicle]"], ["data.sources.traffic4.repeat=3"])
    }
    assert len(keys) == 3


def test_the_ablations_keep_their_fields(counted: list[Path], tmp_path: Path) -> None:
    row = ablations.Row(name="base", title="", published=1.0)
    table = ablations.Table(
        paper="", tested_on="", metric="map50", recipe="mobile-centernet-w16-dhaka", rows=(row,)
    )  # fmt: skip
    wishes = (ablations.Work(table, ("train.batch_size=8",), tmp_path), row, 5)
    first = ablations.run(*wishes)
    values = json.loads((tmp_path / "base-5" / "result.json").read_text())
    assert len(values.pop("key")) == 64
    assert values == {"row": "base", **COMMON, **MEASURED}
    assert ablations.run(*wishes) == first
    assert counted == [tmp_path / "base-5"]


def test_a_row_of_another_rows_network_took_no_training(counted: list[Path], tmp_path: Path, monkeypatch) -> None:
    rows = (
        ablations.Row(name="base", title="", published=1.0),
        ablations.Row(name="tested", title="", published=1.0, weights="base", set=("export.top_k=7",)),
    )
    table = ablations.Table(paper="", tested_on="", metric="map50", recipe="mobile-centernet-w16-dhaka", rows=rows)
    monkeypatch.setattr(ablations, "validate", lambda *_: {"map50": 0.75, "map": 0.5})
    work = ablations.Work(table, ("train.batch_size=8",), tmp_path)
    ablations.run(work, rows[0], 5)
    found = ablations.run(work, rows[1], 5)
    assert (found.map50, found.map, found.ap50, found.images, found.seconds) == (0.75, 0.5, {}, 56, 0.0)
    assert counted == [tmp_path / "base-5"]


def test_latencies_name_the_runtime_and_what_is_not_valid() -> None:
    speed = {"ms_fp32": 31.26, "runtime_fp32": "openvino", "verdict_fp32": "valid"}
    assert training_table._milliseconds(speed, "fp32") == "31.3 (openvino)"
    assert training_table._milliseconds({**speed, "verdict_fp32": "noisy"}, "fp32") == "31.3 (openvino, noisy)"
    assert training_table._milliseconds(speed, "int8") == "-"
