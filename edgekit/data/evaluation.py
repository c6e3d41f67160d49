"""Which annotated images an artifact's accuracy is measured on."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..paths import expanded, share, unknown_name
from ..recipe import Recipe
from ..runtime.artifact import Artifact
from ..runtime.errors import BadConfig, BadInput
from ..runtime.worker import DEFAULT_TIMED
from .calibration import ImageSet, load_set, set_names
from .coco import CocoSet, Sample, read_coco
from .imagefile import read_header
from .sources import evaluated_classes, source_root, validation_set, widened


def evaluation_set(artifact: Artifact, data: str | None, option: str = "--data", unlabelled: bool = False) -> CocoSet:
    """The annotated set to measure an artifact on: ``data`` (a source of its recipe, a named set or a COCO file), else
    its recipe's own. Classes that are not labelled in it are in no mean.

    option: the command's, by which ``data`` is given;  unlabelled: a set or folder without labels is taken too
    """
    recipe = artifact.manifest["recipe"]
    sources = _validated(recipe)
    name = data or own_set(artifact)
    if name is None:
        raise BadConfig(
            f"{artifact.path}: its recipe names no evaluation set. Give one: {option} SET or {option} annotations.json"
            f"{'; or one of its sources: ' if sources else ''}{', '.join(sources)}"
            f"{f'; or images without labels, for the time alone: {option} FOLDER' if unlabelled else ''}"
        )
    if name in sources:
        shipped = share("recipes") / recipe["name"]
        folder = shipped if shipped.is_dir() else Path()  # one's own recipe has whole paths of what lay beside it
        return _of_source(Recipe.model_validate({**recipe, "folder": folder}), name, artifact)
    try:
        return _named_set(artifact, name, sources, unlabelled)
    except BadInput as error:
        if data is not None:
            raise
        raise BadInput(f"{error}\nThat set is its recipe's. To measure on yours: {option} annotations.json") from error


def own_set(artifact: Artifact) -> str | None:
    """What an artifact is measured on where nobody names another set: a source, a named set or a file of its recipe."""
    name: str | None = artifact.manifest["recipe"].get("evaluation")
    return name


def _named_set(artifact: Artifact, name: str, sources: Sequence[str], unlabelled: bool) -> CocoSet:
    if not is_annotations(name):
        if name not in set_names() and not expanded(name).exists():
            own = f"Sources of its recipe: {', '.join(sources)}. " if sources else ""
            raise unknown_name("set", name, [*sources, *set_names()], f"{own}A COCO file works too: annotations.json")
        found = load_set(name)
        if unlabelled and found.annotations is None:
            return _without_labels(found, artifact.classes)
        wanted = evaluated_classes(found.annotations, artifact.classes)
        coco = found.coco(wanted)
    else:
        file = expanded(name)
        wanted = evaluated_classes(file, artifact.classes)
        coco = read_coco(file, images_of(file), wanted)
    if not unlabelled:
        coco.require_boxes()
    return coco if wanted == list(artifact.classes) else widened(coco, artifact.classes)


def recipe_images(artifact: Artifact, most: int) -> list[Path]:
    """Up to ``most`` real images that an artifact's recipe names: those that it measures on, calibrates with or was
    imported with. Of a source of its data only where it names no others: the data need not be on this machine.

    Empty where it names none. Raises as ``evaluation_set`` and ``load_set`` for a set that is gone.
    """
    recipe = artifact.manifest.get("recipe", {})
    own = recipe.get("evaluation")
    others = (recipe.get("quantize") or {}).get("calibration") or recipe.get("images")
    is_source = own in _validated(recipe)
    if own and (is_annotations(own) or (is_source and not others)):
        return [sample.path for sample in evaluation_set(artifact, None).samples[:most]]
    name = others if is_source else own or others
    return list(load_set(name).images[:most]) if name else []


def is_annotations(name: str) -> bool:
    """Whether an evaluation set that is no source of a recipe is a COCO file, and not a named set."""
    return name.lower().endswith(".json")


def _validated(recipe: Mapping[str, Any]) -> list[str]:
    """The sources of an artifact's recipe that have a validation set."""
    return [name for name, source in ((recipe.get("data") or {}).get("sources") or {}).items() if source.get("val")]


def _without_labels(images: ImageSet, classes: Sequence[str]) -> CocoSet:
    """Those that an artifact is timed on: no accuracy is known of them, so nothing would be learnt of the others."""
    none = np.zeros((0, 4), np.float32), np.zeros(0, np.int64), np.zeros(0, bool)
    timed = images.images[:DEFAULT_TIMED]
    headers = [read_header(path) for path in timed]
    samples = tuple(
        Sample(path, number, header.width, header.height, *none)
        for number, (path, header) in enumerate(zip(timed, headers, strict=True), 1)
    )
    ids = tuple(range(1, len(classes) + 1))
    return CocoSet(images.folder, images.images_root, samples, tuple(classes), ids, (), images.digest)


def _of_source(recipe: Recipe, name: str, artifact: Artifact) -> CocoSet:
    """The validation set of a source of the recipe that an artifact keeps, where nobody can change a path."""
    assert recipe.data is not None
    root = source_root(recipe, recipe.data.sources[name])
    if not root.is_dir():
        raise BadInput(
            f"{root}: no such folder, where the recipe that {artifact.path} keeps has its source {name!r}. Put the "
            "data there, or name a COCO file of it: --data annotations.json"
        )
    return validation_set(recipe, name)


def images_of(annotations: Path) -> Path:
    """Where the images of a COCO file lie: the first of three usual folders that has the first image."""
    folders = [annotations.parent, annotations.parent / "images", annotations.parent.parent / "images"]
    try:
        first = json.loads(annotations.read_bytes())["images"][0]["file_name"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return folders[0]  # the reader says what is wrong with the file
    if not isinstance(first, str):
        return folders[0]
    for folder in folders:
        if (folder / first).is_file():
            return folder
    raise BadInput(
        f"{annotations}: its first image {first!r} is in none of {', '.join(map(str, folders))}. "
        f"Put the images into one of them, or name their folder where the command takes one: --images FOLDER"
    )
