"""Which graph counts for a row, on which images a network is measured, and what a whole run needs from the start."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgekit
from edgekit import measuring, spine
from edgekit.board import Board, load_board
from edgekit.data.coco import CocoSet, Sample
from edgekit.measure.bench import BenchOptions, Measurement, Target
from edgekit.measure.report import read_report
from edgekit.measure.row import LayerTime, Peaks, Row
from edgekit.runtime import machine
from edgekit.runtime.artifact import Artifact
from edgekit.runtime.errors import BadConfig, BadInput, BoardLacks

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
    assert [target.graph for target in found] == [one, two, one]
    (alone,) = measuring.targets([artifact("onnx-int8", "c")], BOARD, "onnxruntime")
    assert alone.graph is None


class Networks:
    """Artifacts of two evaluation sets, and a measuring that gives made up rows, or fails where it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        cars = ("car", "bus")
        self.artifacts = {
            "cars": self.artifact("onnx", "cars", cars),
            "cells": self.artifact("onnx", "cells", ("RBC",)),
            "cars in INT8": self.artifact("onnx-int8", "cars", cars),
        }
        self.asked: list[tuple[str, list[Artifact]]] = []
        self.failing: set[str] = set()
        monkeypatch.setattr("edgekit.spine.model", lambda name: self.artifacts[name])
        monkeypatch.setattr("edgekit.data.evaluation.evaluation_set", self.images)
        monkeypatch.setattr("edgekit.data.coco.CocoSet.digest", lambda coco: str(coco.annotations))
        monkeypatch.setattr("edgekit.measure.bench.bench_targets", self.measure)

    @staticmethod
    def artifact(kind: str, recipe: str, classes: tuple[str, ...]) -> Artifact:
        file = {"model.onnx": {"bytes": 1, "sha256": "0" * 64}}
        return artifact(kind, recipe, classes, payload=file, preprocess={"size": [64, 32]})

    @staticmethod
    def images(found: Artifact, data: str | None, unlabelled: bool) -> CocoSet:
        name = found.manifest["recipe"]["evaluation"]
        return CocoSet(Path(name), Path(name), (), tuple(found.classes), (), (), "")

    def measure(self, targets: list[Target], board: Board, coco: CocoSet, options: BenchOptions, *_: Any) -> list[Any]:
        self.asked.append((str(options.set_name), [target.artifact for target in targets]))
        if coco.annotations.name in self.failing:
            raise BadInput("boom")
        return [Measurement(self.row(target, len(self.asked)), {}) for target in targets]

    @staticmethod
    def row(target: Target, call: int) -> Row:
        peaks = Peaks(gops={"fp32": 100.0 * call}, bandwidth=10.0, source="measured", how="a product")
        layer = LayerTime(name="l", kind="Conv", ms=1.0, share=1.0, precision="fp32", macs=10**6)
        return make_row(artifact=target.artifact.digest, peaks=peaks, layers=(layer,))


@pytest.fixture
def networks(monkeypatch: pytest.MonkeyPatch) -> Networks:
    return Networks(monkeypatch)


def test_networks_of_other_classes_are_measured_on_their_own_images(networks: Networks) -> None:
    rows = edgekit.bench(list(networks.artifacts), runtime="onnxruntime")
    cars, cells, quantized = networks.artifacts.values()
    assert networks.asked == [("cars-eval", [cars, quantized]), ("cells-eval", [cells])]
    assert [row.artifact for row in rows] == [a.digest for a in (cars, cells, quantized)]  # as they were given
    assert [row.peaks.gops["fp32"] for row in rows if row.peaks] == [200.0] * 3  # the best that the machine reached
    assert {row.peaks.how for row in rows if row.peaks} == {"a product; the best of 3 measurements"}


def test_networks_whose_classes_stand_in_another_order_keep_their_accuracy(networks: Networks) -> None:
    """A group has one order of classes, and boxes of a network with another have no accuracy on it."""
    turned = networks.artifact("onnx", "cars", ("bus", "car"))
    networks.artifacts = {"cars": networks.artifacts["cars"], "turned": turned}
    edgekit.bench(list(networks.artifacts), runtime="onnxruntime")
    assert [found for _, found in networks.asked] == [[found] for found in networks.artifacts.values()]


@pytest.mark.parametrize(("failing", "measured"), [("cells", [0, 2]), ("cars", [1])])
def test_images_on_which_nothing_can_be_measured_lose_no_other_row(
    networks: Networks, tmp_path: Path, failing: str, measured: list[int]
) -> None:
    networks.failing = {f"{failing}-eval"}
    rows = edgekit.bench(list(networks.artifacts), runtime="onnxruntime", out=tmp_path / "rows.json")
    assert [n for n, row in enumerate(rows) if row.verdict.status == "valid"] == measured
    lost = [row for row in rows if row.verdict.status == "not measured"]
    assert len(lost) == 3 - len(measured)
    assert all("boom" in row.verdict.reasons[0] for row in lost)
    assert list(read_report(tmp_path / "rows.json")) == rows


def test_where_nothing_can_be_measured_the_first_error_is_raised(networks: Networks, tmp_path: Path) -> None:
    networks.failing = {"cars-eval", "cells-eval"}
    with pytest.raises(BadInput, match="boom"):
        edgekit.bench(list(networks.artifacts), runtime="onnxruntime", out=tmp_path / "rows.json")
    assert not (tmp_path / "rows.json").exists()


def test_files_that_no_runtime_loads_are_told_before_the_others_are_measured(
    networks: Networks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("edgekit.measuring._runtimes", lambda found, *_: [] if "RBC" in found.classes else ["x"])
    with pytest.raises(BoardLacks, match=r"no runtime of board 'x86-1t'.*measured on cells-eval"):
        edgekit.bench(list(networks.artifacts))
    assert networks.asked == []


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


def test_a_run_replaces_no_picture_of_somebody_else_and_says_so_before_it_measures(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    onnx, labels = artifact("onnx", "a"), np.zeros(1, np.int64)
    sample = Sample(tmp_path / "street.jpg", 1, 64, 48, np.zeros((1, 4), np.float32), labels, np.zeros(1, bool))
    images = CocoSet(tmp_path / "val.json", tmp_path, (sample,), ("car",), (1,), (), "0" * 64)
    for step in ("checkpoint", "export", "quantize"):
        monkeypatch.setattr(spine, step, lambda *_: onnx)
    monkeypatch.setattr("edgekit.data.evaluation.evaluation_set", lambda *_: images)
    monkeypatch.setattr(measuring, "bench", lambda *_: pytest.fail("it was measured"))
    theirs = tmp_path / "out" / "pictures" / "street.jpg"
    theirs.parent.mkdir(parents=True)
    theirs.write_text("holiday")
    with pytest.raises(BadConfig, match=r"street\.jpg: is there without a report\.json"):
        edgekit.run("mobile-centernet-w16-dhaka", out=tmp_path / "out")
    assert theirs.read_text() == "holiday"


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
