"""Which graph counts for a row, on which images a network is measured, and what a whole run needs from the start."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit import measuring, spine
from edgekit.board import load_board
from edgekit.data.coco import CocoSet
from edgekit.measure.row import Row
from edgekit.runtime import machine
from edgekit.runtime.artifact import Artifact
from edgekit.runtime.errors import BadConfig

from .measure.test_row import make_row

BOARD = load_board("x86-1t")


def artifact(kind: str, recipe: str, classes: tuple[str, ...] = ("car",), **manifest: Any) -> Artifact:
    """One that was never written: nothing is loaded here."""
    section = {"name": recipe, "model": {"name": "m"}, "evaluation": f"{recipe}-eval"}
    return Artifact(
        f"{recipe}/{kind}", {"kind": kind, "classes": classes, "recipe": section, "payload": {}, **manifest}
    )


def test_each_file_has_the_graph_of_its_own_network() -> None:
    checkpoint, one, two = artifact("checkpoint", "a"), artifact("onnx", "a"), artifact("onnx", "b")
    found = measuring.targets([checkpoint, two, one], BOARD, "onnxruntime")
    assert [target.shipped for target in found] == [one, two, one]
    (alone,) = measuring.targets([artifact("onnx-int8", "c")], BOARD, "onnxruntime")
    assert alone.shipped is None


def test_networks_of_other_classes_are_measured_on_their_own_images(monkeypatch: pytest.MonkeyPatch) -> None:
    artifacts = {
        "cars": artifact("onnx", "cars", ("car", "bus")),
        "cars in INT8": artifact("onnx-int8", "cars", ("car", "bus")),
        "cells": artifact("onnx", "cells", ("RBC",)),
    }
    asked: list[tuple[str, list[Artifact]]] = []

    def images(found: Artifact, data: str | None) -> CocoSet:
        name = found.manifest["recipe"]["evaluation"]
        return CocoSet(Path(name), Path(name), (), tuple(found.classes), (), (), "")

    def bench(targets: list[Any], board: Any, coco: CocoSet, *rest: Any, **more: Any) -> list[Any]:
        asked.append((coco.annotations.name, list(dict.fromkeys(target.artifact for target in targets))))
        return []

    monkeypatch.setattr("edgekit.spine.model", lambda name: artifacts[name])
    monkeypatch.setattr("edgekit.data.evaluation.evaluation_set", images)
    monkeypatch.setattr("edgekit.data.coco.CocoSet.digest", lambda self: str(self.annotations))
    monkeypatch.setattr(measuring, "bench", bench)
    edgekit.bench(list(artifacts), runtime="onnxruntime")
    assert asked == [
        ("cars-eval", [artifacts["cars"], artifacts["cars in INT8"]]),
        ("cells-eval", [artifacts["cells"]]),
    ]


@pytest.mark.parametrize(
    ("recipe", "overrides", "words"),
    [
        ("refinedetlite", (), "edgekit run refinedetlite evaluation=SET"),
        ("edgekit-road", ("evaluation=dhaka-evil",), "dhaka-eval"),
        ("edgekit-road", ("quantize.calibration=nowhere",), "nowhere"),
    ],
)
def test_what_a_run_will_miss_is_told_before_its_training(
    recipe: str, overrides: tuple[str, ...], words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spine, "checkpoint", lambda *_: pytest.fail("the training began"))
    with pytest.raises(BadConfig, match=words):
        edgekit.run(recipe, overrides=overrides, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()


class Coco:
    def digest(self) -> str:
        return "images"


@pytest.mark.parametrize(("measured", "asked", "kept"), [(20.1, None, True), (1.0, None, False), (1.0, 0.5, True)])
def test_rows_of_a_short_run_are_no_rows_of_a_long_one(
    measured: float, asked: float | None, kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = artifact("onnx", "a")
    row = row_of(onnx, process={"threads": 1, "core": 1, "warmup": 10, "seconds": measured})
    assert is_kept(row, onnx, asked, monkeypatch) == kept


def row_of(onnx: Artifact, **changes: Any) -> Row:
    """What this machine would have measured."""
    known = make_row()
    assert known.accuracy is not None
    fields = {
        "accuracy": {**known.accuracy.model_dump(), "set_digest": "images"},
        "process": {"threads": 1, "core": 1, "warmup": 10, "seconds": 60.0},
        "machine": {"before": machine.facts()},
        "runtime_version": version("onnxruntime"),
    }
    return make_row(artifact=onnx.digest, **{**fields, **changes})


def is_kept(row: Row, onnx: Artifact, asked: float | None, monkeypatch: pytest.MonkeyPatch) -> bool:
    monkeypatch.setattr("edgekit.measure.report.read_report", lambda file: [row])
    targets = measuring.targets([onnx], BOARD, row.runtime)
    found = measuring.kept_rows(Path("report.json"), targets, BOARD, Coco(), asked)  # type: ignore[arg-type]
    assert found in (None, [row])
    return found is not None


@pytest.mark.parametrize(
    ("changes", "kept"),
    [
        ({}, True),
        ({"verdict": {"status": "noisy", "reasons": ["x"]}}, True),  # a busy machine would measure for ever
        ({"machine": {}}, True),  # nothing is known of it
        ({"machine": {"before": {"cpu": "another <CPU>"}}}, False),
        ({"machine": {"before": {"memory_mb": 1}}}, False),
        ({"process": {"threads": 7, "core": None, "warmup": 10, "seconds": 60.0}}, False),
        ({"runtime_version": "1.0.0"}, False),
        ({"runtime_version": None}, True),
        ({"runtime": "openvino", "runtime_version": f"{version('openvino')}-22982-e213a147257"}, True),
        ({"runtime": "openvino", "runtime_version": "2020.1-1"}, False),
        ({"runtime": "pytorch", "runtime_version": version("torch")}, True),
        ({"runtime": "tensorrt8", "runtime_version": "8.2.1"}, True),  # not installed by a package
    ],
)
def test_only_rows_of_this_machine_and_its_libraries_are_kept(
    changes: dict[str, Any], kept: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx = artifact("onnx", "a")
    assert is_kept(row_of(onnx, **changes), onnx, None, monkeypatch) == kept
