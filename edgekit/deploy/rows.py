"""From what a board measured to a ``Row``, by the same code that makes the rows of this machine."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..board import Board
from ..measure.row import Row
from ..runtime.artifact import Artifact, read_artifact
from ..runtime.errors import ArtifactError

if TYPE_CHECKING:
    from ..data.coco import CocoSet


def row_from_board(told: Mapping[str, Any], profile: Board, index: Mapping[str, Any], place: Path) -> Row:
    """The row of a bench on a board.

    told: the answer of the board's ``bench``; profile: of the bundle's board; index, place: bundle.json and the
    unpacked bundle, where the evaluation images are. The board's own answer decides what it is: a simulator's row
    belongs to the board "twin" and is "simulated", whatever the profile says.
    """
    from ..measure.bench import BenchOptions, Target, measured

    shipped = read_artifact(place / "artifact")
    artifact = Artifact(f"{told['board']['host']}:{told['artifact']['path']}", told["engine"])
    target = Target(artifact, index["build"]["runtime"], shipped)
    coco = _measured_on(index, place, shipped)
    result = {**told, "detections": _renamed(told, coco), "telemetry": _telemetry(told)}
    options = BenchOptions(set_name=(index["evaluation"] or {}).get("set"))
    row = measured(target, profile, coco, options, told["job"], result, None, told["started"]).row
    return Row.from_dict(_completed(row, told, index), "the board's answer")


def _completed(row: Row, told: Mapping[str, Any], index: Mapping[str, Any]) -> dict[str, Any]:
    """The row with what only a board tells: who it is, its power mode, its room. Validated once more by the caller."""
    values = row.to_dict()
    values["machine"] |= {"board": dict(told["board"]), "power": dict(told["power"]), "room": dict(told["resources"])}
    if values["accuracy"] is not None:
        values["accuracy"]["set_digest"] = index["evaluation"]["digest"]
    return values


_MHZ, _CELSIUS, _WATT = "MHz", "C", "W"


def _telemetry(told: Mapping[str, Any]) -> dict[str, Any]:
    """The worker's telemetry with what the board's sensors saw meanwhile; what they did not see is left out."""
    kept, seen = dict(told.get("telemetry") or {}), told["sensors"]
    if not isinstance(seen, Mapping):
        return kept
    seconds = told["timed"]["wall_seconds"]
    joules = seen["energy_j"].get("total")
    if joules is not None and seen["seconds"] > 0:
        source = "INA3221 " + " + ".join(seen["total_rails"])
        # the sampler's time and the timed part differ by a sample; its mean power holds for both
        kept |= {"energy": [{"source": source, "joules": joules / seen["seconds"] * seconds}], "seconds": seconds}
    known = {track["name"] for track in kept.get("tracks", ())}
    kept["tracks"] = [*kept.get("tracks", ()), *(track for track in _tracks(seen) if track["name"] not in known)]
    return kept


def _tracks(seen: Mapping[str, Any]) -> Iterator[dict[str, Any]]:
    for name, unit in (("gpu_mhz", _MHZ), ("emc_mhz", _MHZ)):
        if name in seen["clocks"]:
            yield _track(name.replace("_mhz", " clock"), unit, "devfreq", seen["clocks"][name])
    for zone, course in sorted(seen["temperatures_c"].items()):
        yield _track(f"{zone} temperature", _CELSIUS, "thermal zone", course)
    for rail, course in sorted(seen["power_mw"].items()):
        watts = {key: value / 1e3 for key, value in course.items()}
        yield _track(f"{rail} power", _WATT, "INA3221", watts)


def _track(name: str, unit: str, source: str, course: Mapping[str, float]) -> dict[str, Any]:
    return {"name": name, "unit": unit, "source": source} | {k: course[k] for k in ("first", "last", "min", "max")}


def _measured_on(index: Mapping[str, Any], place: Path, shipped: Artifact) -> CocoSet:
    """The annotated images of the bundle; without any, its golden images, on which no accuracy is known."""
    from ..data.coco import CocoSet, Sample, read_coco

    if index["evaluation"] is not None:
        folder = place / "evaluation"
        return read_coco(folder / "annotations.json", folder / "images", shipped.classes, check_images=False)
    images = sorted((place / "golden" / "images").iterdir())
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    samples = tuple(Sample(path, number, 0, 0, *none) for number, path in enumerate(images))
    classes = tuple(shipped.classes)
    return CocoSet(place / "golden.json", place / "golden", samples, classes, tuple(range(len(classes))), ())


def _renamed(told: Mapping[str, Any], coco: CocoSet) -> list[dict[str, Any]]:
    """The board's detections under this machine's paths; both lists are in the order of the set."""
    here = [str(sample.path.resolve()) for sample in coco.samples]
    there = [record["image"] for record in told["detections"]]
    if [Path(path).name for path in here] != [path.rpartition("/")[2] for path in there]:
        raise ArtifactError("the board answered for other images than those of the bundle. Flash it again: --force")
    return [{**record, "image": path} for record, path in zip(told["detections"], here, strict=True)]


__all__ = ["row_from_board"]
