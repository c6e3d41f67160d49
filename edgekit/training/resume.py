"""Going on after an interruption: the resume file, whole at any moment, and what must be as it was."""

from __future__ import annotations

import io
import pickle
import re
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from lightning.fabric.plugins.io.torch_io import TorchCheckpointIO
from pydantic import ValidationError

from ..recipe import Recipe, placed
from ..runtime.artifact import new_file
from ..runtime.errors import ArtifactError, BadConfig
from .place import RESUME

STAMP = "edgekit"  # our entry in Lightning's checkpoint
# What may differ between the training that was interrupted and the one that goes on. Everything else would make it
# another training: some of it (the learning rate) Lightning would even ignore, since its state holds the old value.
# Files may have moved: what they hold is compared by its hash.
MAY_CHANGE = (
    *("name", "description", "paper", "data.root", "data.images", "export", "quantize", "evaluation"),
    "postprocess",
    *("train.epochs", "train.workers", "train.validate_every", "train.init", "train.init_backbone", "teacher"),
)
# Role of what a training was made from -> where a recipe names it.
NAMED_IN = {
    "train": "data (annotations, list of images, classes)",
    "init": "train.init",
    "backbone": "train.init_backbone",
    "teacher": "teacher.weights",
}
PLACES_OF_SOURCES = re.compile(r"data\.sources\.\w+\.(root|images)")


@dataclass(frozen=True)
class Start:
    """Where a training begins.

    file: to resume from, or None;  step: optimiser steps that it has behind it
    parents: role -> hash of what its weights were made from
    """

    file: Path | None = None
    step: int = 0
    parents: Mapping[str, str] = field(default_factory=dict)


class WholeFiles(TorchCheckpointIO):
    """Lightning's resume file, renamed into its place once it is on the disk: the old one or the new one, never half.

    Lightning's own way writes to the system's temporary folder and copies from there.
    """

    def save_checkpoint(self, checkpoint: dict[str, Any], path: Any, storage_options: Any | None = None) -> None:
        buffer = io.BytesIO()
        torch.save(checkpoint, buffer)
        with new_file(path, "wb") as handle:
            handle.write(buffer.getbuffer())


def stamp(recipe: Recipe, world: int, parents: Mapping[str, str]) -> dict[str, Any]:
    """What the resume file says about the training it belongs to. parents: see ``Start``"""
    return {"recipe": recipe.model_dump(mode="json"), "world": world, "parents": dict(parents)}


def begin(
    work: Path, recipe: Recipe, world: int, resume: bool, writer: bool, parents: Mapping[str, str], out: Path
) -> Start:
    """Make ready the folder ``work`` of logs and resume file.

    A new training moves the folder of an earlier one to ``<work>.previous``, so that neither its resume file nor its
    logs are taken for the new one's. writer: whether this process does so; in a distributed training one does.
    parents: of what this process has read;  out: where it publishes, which may have replaced what it started from
    Raises ArtifactError or BadConfig when what there is to resume is damaged or belongs to another training.
    """
    file = work / RESUME
    if writer:
        _clear(work, keep=resume)
    if not resume or not file.is_file():  # interrupted in its first epoch
        return Start(parents=parents)
    content = _read(file)
    then = content.get(STAMP) or {}
    before = then.get("parents", parents)  # files of older versions do not say
    starts = {"init": recipe.train.init, "backbone": recipe.train.init_backbone}
    replaced = [role for role, path in starts.items() if path and recipe.trained(path) == out.resolve()]
    kept = {role: before[role] for role in replaced if role in before}
    _check_same(file, then, recipe, world, [*_other_parents(before, {**parents, **kept})])
    return Start(file, int(content["global_step"]), before)


def require_training(work: Path) -> None:
    """Raises ArtifactError where no training was begun. One that was killed in its first epoch begins anew."""
    if not work.is_dir():
        raise ArtifactError(f"{work / RESUME}: nothing to resume from. Start the training without --resume.")


def what_is_kept(file: Path) -> str:
    """What an interrupted training leaves, by whether its resume file is there; for whoever interrupted it."""
    if file.is_file():
        return "the last finished epoch is kept; repeat the command with --resume to go on from it"
    return "no epoch was finished, so there is nothing to go on from; the same command begins anew"


def _other_parents(before: Mapping[str, str], now: Mapping[str, str]) -> Iterator[str]:
    for role, name in NAMED_IN.items():
        if before.get(role) != now.get(role):
            was, is_now = (f"{hashes[role][:12]}..." if role in hashes else "none" for hashes in (before, now))
            yield f"  {name}: its contents' hash was {was}, now {is_now}"


def _clear(work: Path, keep: bool) -> None:
    previous = work.with_name(work.name + ".previous")
    if work.is_dir() and not keep:
        shutil.rmtree(previous, ignore_errors=True)
        work.rename(previous)
    for half in work.glob(f".{Path(RESUME).stem}.*"):  # of a process that was killed while it wrote
        half.unlink()


def _read(file: Path) -> dict[str, Any]:
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else "it is damaged"
        raise ArtifactError(
            f"{file}: not a readable resume file ({reason}). Start again without --resume; the weights of the last "
            f"validation can be the start: train.init=CHECKPOINT"
        ) from error
    if not isinstance(content, dict) or not {"state_dict", "global_step", "optimizer_states"} <= content.keys():
        raise ArtifactError(f"{file}: not a training's resume file. Start again without --resume.")
    return content


def _check_same(file: Path, then: Mapping[str, Any], recipe: Recipe, world: int, differences: list[str]) -> None:
    """Raises BadConfig for settings other than ``then``'s, or for ``differences`` that were found already."""
    if not then:
        return
    try:
        old = placed(Recipe.model_validate({**then["recipe"], "folder": recipe.folder}))
    except ValidationError as error:
        raise ArtifactError(f"{file}: written by another version of EdgeKit. Start again without --resume.") from error
    before, now = _flat(old.model_dump(mode="json")), _flat(recipe.model_dump(mode="json"))
    # a cosine's every step depends on the last one: a short training's end is no part of a long one
    fixed = {"train.epochs"} if recipe.train.schedule.kind == "cosine" else set()
    differences += [
        f"  {key}: was {before.get(key)}, now {now.get(key)}{' (a cosine goes by it)' * (key in fixed)}"
        for key in sorted(before.keys() | now.keys())
        if before.get(key) != now.get(key) and (key in fixed or not _may_change(key))
    ]
    if then["world"] != world:
        differences.append(f"  processes: was {then['world']}, now {world}")
    if differences:
        raise BadConfig(
            f"{file}: belongs to a training with other settings:\n" + "\n".join(differences) + "\nResume it with the "
            "old ones, or start a new training; train.init=CHECKPOINT lets that begin with trained weights."
        )


def _may_change(key: str) -> bool:
    return bool(PLACES_OF_SOURCES.fullmatch(key)) or any(
        key == free or key.startswith(free + ".") for free in MAY_CHANGE
    )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested mappings as one, with dotted keys."""
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat
