"""What a weights' card says of the training: stages, read off their checkpoints, that follow each other."""

from __future__ import annotations

import csv
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import trainings
from pydantic import ValidationError

from edgekit.models.checkpoint import WEIGHTS
from edgekit.recipe import Recipe, shipped_weights
from edgekit.runtime.artifact import Artifact, file_sha256, read_artifact
from edgekit.runtime.errors import BadInput

SECTIONS = {"data", "model", "preprocess", "augment", "loss", "anchor_loss", "yolo_loss", "train"}
SECTIONS |= {"quantization_aware", "teacher", "distillation"}


@dataclass(frozen=True)
class Stage:
    """One training. artifact: what it made, None where only its curves are left; rows: of its epochs, in order."""

    folder: Path
    artifact: Artifact | None
    rows: list[dict[str, str]]


def read_stage(folder: Path) -> Stage:
    """A ``...-training`` folder and the checkpoint beside it; epochs after that checkpoint are none of its training."""
    file, place = folder / "metrics.csv", folder.with_name(folder.name.removesuffix("-training"))
    if not file.is_file():
        raise BadInput(f"{folder}: no metrics.csv in it. --training takes the folder CHECKPOINT-training of a training")
    artifact = read_artifact(place, kinds=("checkpoint",)) if (place / "manifest.json").is_file() else None
    try:
        with file.open(newline="", encoding="utf-8") as handle:
            rows = list(csv.DictReader(handle))
        epochs = artifact.manifest["metrics"]["epochs"] if artifact else math.inf
        kept = [row for row in rows if int(row["epoch"]) < epochs]
    except (ValueError, KeyError, TypeError) as error:
        raise BadInput(f"{file}: not the epochs of a training ({type(error).__name__}: {error})") from error
    if not kept:
        raise BadInput(f"{file}: no epoch of a training in it")
    return Stage(folder, artifact, kept)


def check_stages(
    stages: Sequence[Stage], checkpoint: Artifact, how: Sequence[str], replaced: Path | None = None
) -> None:
    """Raises BadInput where the stages do not lead to these weights, or what began them is not told.

    replaced: the weights in whose place these will ship, and from which nobody can start again then
    """
    first, last = stages[0].artifact, stages[-1].artifact
    if last is not None and sha(last) != sha(checkpoint):
        raise BadInput(f"{stages[-1].folder}: the training of other weights than those of {checkpoint.path}")
    for before, stage in pairwise(stages):
        if before.artifact and stage.artifact and parents(stage).get("init") != sha(before.artifact):
            raise BadInput(f"{stage.folder}: its training did not start from the weights of {before.folder}")
    if any(stage.artifact is None for stage in stages) and not how:
        raise BadInput("a --training has no checkpoint beside it to tell its settings: give the commands, --how '...'")
    told = how or shipped_start(stages[0]) not in (None, replaced)
    if first is not None and "init" in parents(stages[0]) and not told:
        raise BadInput(
            f"{stages[0].folder}: started from other weights. Give that training's folder first, or all commands: --how"
        )


def shipped_start(stage: Stage) -> Path | None:
    """The weights of a shipped recipe that a training names as its start, if they still are those that it read."""
    name = stage.artifact.manifest["recipe"]["train"].get("init") if stage.artifact else None
    file = shipped_weights().get(name or "")
    return file if file and file_sha256(file) == parents(stage).get("init") else None


def parents(stage: Stage) -> Mapping[str, str]:
    return stage.artifact.manifest.get("parents", {}) if stage.artifact else {}


def sha(checkpoint: Artifact) -> str:
    return str(checkpoint.manifest["payload"][WEIGHTS]["sha256"])


def differences(now: Any, then: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys whose value was another, with that value."""
    if isinstance(now, Mapping) and isinstance(then, Mapping):
        for name in dict.fromkeys([*then, *now]):
            yield from differences(now.get(name), then.get(name), f"{key}.{name}" if key else name)
    elif now != then:
        yield key, then


def changed(recipe: Recipe, artifact: Artifact, before: str) -> dict[str, str]:
    """What a training set otherwise than the recipe does today, as overrides; what it did not know has its default.

    Places are words: ``before`` for the weights that it started from, unless they are a shipped recipe's, FOLDER for
    data, WEIGHTS for a teacher's
    """
    try:
        then = Recipe.model_validate(artifact.manifest["recipe"])
    except ValidationError as error:
        raise BadInput(f"{artifact.path}: its recipe is of another version: give the command, --how '...'") from error
    now, past = (one.model_dump(mode="json", include=SECTIONS) for one in (recipe, then))
    found = {key: value for key, value in differences(now, past) if key != "data.root"}
    for key, value in found.items():
        if key == "train.init" and value is not None and value not in shipped_weights():
            found[key] = before
        elif isinstance(value, str) and Path(value).expanduser().is_absolute():
            found[key] = key.rpartition(".")[2].upper()
    return {key: value if isinstance(value, str) else json.dumps(value) for key, value in found.items()}


def command(recipe: Recipe, stage: Stage, number: int, count: int) -> str:
    """The call that trains a stage again."""
    assert stage.artifact is not None
    words = ["edgekit", "train", recipe.name, "data.root=FOLDER"]
    words += [f"{key}={value}" for key, value in changed(recipe, stage.artifact, f"STAGE{number - 1}").items()]
    return shlex.join(words + (["--out", f"STAGE{number}"] if count > 1 else []))


def section(recipe: Recipe, stages: Sequence[Stage], how: Sequence[str], machine: str, picture: str) -> str:
    """Commands, a row for each stage, and the picture of its curves."""
    told = list(how) or [command(recipe, stage, k, len(stages)) for k, stage in enumerate(stages, 1)]
    text, last = "\n".join(["```", *told, "```", ""]), stages[-1].artifact
    other = {} if last is None else changed_or_told(recipe, last, how)
    if len(stages) > 1 and not how:
        text += (
            f"\nNot in one go, as the recipe stands today, but in {len(stages)} stages. Where they weigh the terms of "
        )
        text += "the loss otherwise, their losses do not compare.\n"
    else:
        text += trained_otherwise(other)
    head = ["stage", "epochs", "images seen", "input", "seed", "minutes", "mAP@0.5 then"]
    text += "\n" + trainings.markdown(head, (stage_cells(k, stage) for k, stage in enumerate(stages, 1)))
    seconds = sum(float(row.get("train/seconds") or 0) for stage in stages for row in stage.rows)
    text += f"\n{length(seconds)} of training in all"
    text += f", on {machine}." if machine else "; the machine is not recorded."
    text += " mAP@0.5 then: on the validation set, as the training itself measured it, at its own input size.\n"
    return text + f"\n![Loss and mAP by epoch]({picture})\n"


def changed_or_told(recipe: Recipe, last: Artifact, how: Sequence[str]) -> dict[str, str]:
    """``changed`` of the last stage; nothing of a recipe of another version whose commands are told."""
    try:
        return changed(recipe, last, "WEIGHTS")
    except BadInput:
        if not how:
            raise
        return {}


def trained_otherwise(other: Mapping[str, str]) -> str:
    shown = ", ".join(f"`{key}: {value}`" for key, value in other.items())
    return f"\nThese weights were not trained as the recipe stands today, but with {shown}.\n" if other else ""


def without_curves(recipe: Recipe, checkpoint: Artifact, how: Sequence[str], machine: str) -> str:
    """Commands alone, of a training whose files are lost, and what the checkpoint itself knows of it."""
    text = "\n".join(["```", *how, "```", ""]) + trained_otherwise(changed_or_told(recipe, checkpoint, how))
    return (
        text + f"\nTrained on {machine or 'a machine that is not recorded'}; the files with its curves were not kept.\n"
    )


def stage_cells(number: int, stage: Stage) -> list[str]:
    """One row of the table. epochs: "5 of 10" where a training was ended early."""
    epochs = len({row["epoch"] for row in stage.rows})
    timed = [float(row["train/seconds"]) for row in stage.rows if row.get("train/seconds")]
    minutes = f"{sum(timed) / 60:.0f}" + (f" (of {len(timed)} epochs)" if len(timed) < epochs else "")
    if stage.artifact is None:
        return [str(number), str(epochs), "-", "-", "-", minutes, "-"]
    recipe, metrics = stage.artifact.manifest["recipe"], stage.artifact.manifest["metrics"]
    train, crop = recipe["train"], recipe["augment"].get("crop")
    size = "x".join(map(str, recipe["preprocess"]["size"])) + (", crops of {}x{}".format(*crop) if crop else "")
    planned = f" of {train['epochs']}" if train["epochs"] != metrics["epochs"] else ""
    images = metrics["steps"] * train["batch_size"]
    then = f"{100 * metrics['map50']:.1f}" if "map50" in metrics else "-"
    return [str(number), f"{metrics['epochs']}{planned}", f"{images:,}", size, str(train["seed"]), minutes, then]


def length(seconds: float) -> str:
    return f"{seconds / 60:.0f} minutes" if seconds < 5400 else f"{seconds / 3600:.1f} hours"
