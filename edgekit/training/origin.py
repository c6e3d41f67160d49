"""The trained weights that a recipe names: where they are, and what they tell of the network that they are of."""

from __future__ import annotations

from difflib import get_close_matches
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from ..models.checkpoint import weights_file
from ..paths import WEIGHTS
from ..recipe import Recipe, load_recipe, recipe_names, shipped_weights
from ..runtime.artifact import MANIFEST, read_artifact
from ..runtime.errors import ArtifactError, BadInput, EdgeKitError


def named_weights(recipe: Recipe, name: str) -> Path:
    """The safetensors file that ``train.init`` and its kin name (verified). Raises BadInput where there is none."""
    path = recipe.trained(name)
    if not path.exists() and name in recipe_names():
        raise BadInput(f"recipe {name} ships no weights. Train it first: edgekit train {name}")
    if not path.exists() and (near := get_close_matches(name, shipped_weights(), n=1, cutoff=0.7)):
        raise BadInput(f"{path}: no such weights. Did you mean {near[0]}? Recipes whose weights ship: edgekit zoo")
    return weights_file(path)


def trained_as(path: Path) -> Recipe | None:
    """What a checkpoint was trained as, overrides included, or the recipe whose weights ship; None for bare weights and
    for what is not there.

    path: a checkpoint's folder, or a file of weights
    """
    folder = path.parent if path.name == WEIGHTS else path
    if (folder / MANIFEST).is_file():
        try:
            return Recipe.model_validate(read_artifact(folder, kinds=("checkpoint",)).manifest["recipe"])
        except ValidationError as error:
            raise ArtifactError(f"{folder}: made by another version of EdgeKit. Train it again.") from error
    shipped = path.is_file() and (folder / "recipe.yaml").is_file()
    return load_recipe(folder) if shipped else None


def other_network(recipe: Recipe, file: Path) -> str:
    """What the network of these weights has otherwise than the recipe's, to end a message; empty where nobody knows."""
    try:
        theirs = trained_as(file)
    except EdgeKitError:  # there is a message already
        return ""
    if theirs is None:
        return ""
    there, here = (
        {"model.name": m.name, **{f"model.options.{key}": value for key, value in m.options.items()}}
        for m in (theirs.model, recipe.model)
    )
    keys = [key for key in {**there, **here} if there.get(key) != here.get(key)]
    if "model.name" in keys:
        keys = ["model.name"]  # options of another kind of network compare with nothing
    shown = ", ".join(f"{key} is {_said(there, key)} there and {_said(here, key)} here" for key in keys)
    return f". They are weights of {theirs.name}, another network: {shown}" if shown else ""


def _said(model: dict[str, Any], key: str) -> str:
    return str(model[key]) if key in model else "the default"
