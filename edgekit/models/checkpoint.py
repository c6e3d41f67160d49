"""Checkpoints: trained weights as safetensors, in an artifact that says which network and classes they belong to."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Any

import safetensors
import safetensors.torch
import torch
from torch import Tensor, nn

from ..paths import WEIGHTS
from ..runtime.artifact import (
    MANIFEST,
    Artifact,
    file_sha256,
    new_artifact,
    no_artifact,
    read_artifact,
    value_sha256,
)
from ..runtime.errors import BadInput
from .detector import Detector
from .zoo import build

if TYPE_CHECKING:  # the measured process runs without pydantic
    from ..recipe import Recipe

# Sections of a recipe that do not touch the weights
AFTER_TRAINING = ("export", "quantize", "postprocess", "evaluation")


def model_of(artifact: Artifact) -> Detector:
    """The network of a checkpoint artifact with its weights, on the CPU, in evaluation mode."""
    section = artifact.manifest["recipe"]["model"]
    model = build(section["name"], len(artifact.classes), section.get("options"), artifact.preprocess.size)
    load_weights(model, Path(artifact.file(WEIGHTS)), artifact.classes)
    return model.eval()


def weights_file(path: Path) -> Path:
    """The safetensors file of a checkpoint artifact (verified), or the file itself."""
    if path.is_dir() and not (path / MANIFEST).is_file():
        raise no_artifact(path, make="edgekit train RECIPE")
    if path.is_dir():
        return Path(read_artifact(path, kinds=("checkpoint",)).file(WEIGHTS))
    if not path.is_file():
        raise BadInput(
            f"{path}: no such weights. Train them, or name a checkpoint folder, a .safetensors file or a recipe whose "
            f"weights ship (edgekit zoo)."
        )
    return path


def load_weights(model: nn.Module, file: Path, classes: Sequence[str]) -> None:
    """Load a safetensors file into ``model``.

    Raises BadInput naming the file when it cannot be read, holds other classes, or does not fit the network.
    """
    state, stored = read_weights(file)
    if stored and stored != list(classes):
        raise BadInput(
            f"{file}: trained for the classes {', '.join(stored)}; the recipe has {', '.join(classes)}. "
            f"Use weights and recipe that belong together."
        )
    wrong = misfits(state, {name: value.shape for name, value in model.state_dict().items()})
    if wrong:
        raise BadInput(f"{file}: does not fit the network ({len(wrong)} tensors): {'; '.join(wrong[:3])}")
    model.load_state_dict(state)


def read_weights(file: Path) -> tuple[dict[str, Tensor], list[str]]:
    """The tensors of a safetensors file, and the classes that it was trained for if it says so. Raises BadInput."""
    try:
        return safetensors.torch.load_file(file), _stored_classes(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as safetensors ({error}). Copy or train it again.") from error


def misfits(state: Mapping[str, Tensor], own: Mapping[str, torch.Size]) -> list[str]:
    """What is wrong with tensors for a network of such shapes, in words."""
    lost = [f"{name}: missing" for name in own if name not in state]
    strange = [f"{name}: not in the network" for name in state if name not in own]
    shapes = [
        f"{name}: shape {list(state[name].shape)}, needed {list(shape)}"
        for name, shape in own.items()
        if name in state and state[name].shape != shape
    ]
    return lost + strange + shapes


def _stored_classes(file: Path) -> list[str]:
    with safetensors.safe_open(file, framework="pt") as handle:
        text = (handle.metadata() or {}).get("classes", "")
    return text.split("\n") if text else []


def save_weights(model: nn.Module, file: Path, classes: Sequence[str]) -> None:
    """All tensors as contiguous safetensors, with the class list in the header."""
    save_tensors({name: value.detach().cpu().contiguous() for name, value in model.state_dict().items()}, file, classes)


def save_tensors(state: dict[str, Tensor], file: Path, classes: Sequence[str]) -> None:
    safetensors.torch.save_file(state, file, metadata={"classes": "\n".join(classes)})
    file.chmod(0o644)  # safetensors lets nobody else read it


def checkpoint_manifest(recipe: Recipe, category_ids: Sequence[int] | None = None) -> dict[str, Any]:
    """The manifest of a checkpoint that ``recipe`` made; ``metrics`` and ``parents`` are the caller's to fill."""
    resolved = recipe.model_dump(mode="json")
    return {
        "key": value_sha256({"step": "train", "recipe": resolved}),
        "parents": {},
        "recipe": resolved,
        "classes": list(recipe.classes),
        "category_ids": list(category_ids or range(1, len(recipe.classes) + 1)),
        "preprocess": recipe.preprocess.value().to_dict(),
        "tools": {"torch": torch.__version__, "safetensors": version("safetensors")},
        "metrics": {},
    }


def write_checkpoint(out: Path, model: nn.Module, manifest: dict[str, Any]) -> Artifact:
    """Write a checkpoint artifact whole or not at all."""
    with new_artifact(out, "checkpoint", manifest) as folder:
        save_weights(model, Path(folder) / WEIGHTS, manifest["classes"])
    return read_artifact(out)


def shipped_checkpoint(recipe: Recipe, out: Path) -> Artifact:
    """Make a checkpoint artifact from the weights that ship beside a recipe, after checking that they fit it."""
    if recipe.weights is None:
        raise BadInput(f"recipe {recipe.name} ships no weights. Train it first: edgekit train {recipe.name}")
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size)
    load_weights(model, recipe.weights, recipe.classes)
    manifest = checkpoint_manifest(recipe)
    manifest["parents"] = shipped_parents(recipe)
    return write_checkpoint(out, model, manifest)


def follow_recipe(trained: Artifact, recipe: Recipe) -> Artifact:
    """A trained checkpoint with what ``recipe`` says today of the steps after training; the weights stay as they are.

    It is written anew where that differs, so that its digest changes and later steps see that they are out of date.
    """
    now = recipe.model_dump(mode="json")
    wanted = {**trained.manifest["recipe"], **{section: now[section] for section in AFTER_TRAINING}}
    if wanted == trained.manifest["recipe"]:
        return trained
    with new_artifact(trained.path, "checkpoint", {**trained.manifest, "recipe": wanted}) as folder:
        shutil.copy2(trained.file(WEIGHTS), folder)
    return read_artifact(trained.path)


def shipped_parents(recipe: Recipe) -> dict[str, str]:
    """``parents`` of a checkpoint made from a recipe's shipped weights."""
    return {"weights": file_sha256(recipe.weights)} if recipe.weights else {}
