"""Which annotated images an artifact's accuracy is measured on."""

from __future__ import annotations

import json
from pathlib import Path

from ..paths import expanded, share, unknown_name
from ..recipe import Recipe
from ..runtime.artifact import Artifact
from ..runtime.errors import BadConfig, BadInput
from .calibration import load_set, set_names
from .coco import CocoSet, read_coco
from .sources import evaluated_classes, validation_set, widened


def evaluation_set(artifact: Artifact, data: str | None) -> CocoSet:
    """The annotated set to measure an artifact on: ``data`` (a source of its recipe, a named set or a COCO file), else
    its recipe's own. Classes that are not labelled in it are in no mean.
    """
    recipe = artifact.manifest["recipe"]
    sources = [k for k, v in ((recipe.get("data") or {}).get("sources") or {}).items() if v.get("val")]
    name = data or recipe.get("evaluation")
    if name is None:
        raise BadConfig(
            f"{artifact.path}: its recipe names no evaluation set. Give one: --data SET or --data annotations.json"
            f"{'; or one of its sources: ' if sources else ''}{', '.join(sources)}"
        )
    if name in sources:
        folder = share("recipes") / recipe["name"]
        folder = folder if folder.is_dir() else Path()  # of one's own recipe: the paths that it names, from here
        return validation_set(Recipe.model_validate({**recipe, "folder": folder}), name)
    if not str(name).lower().endswith(".json"):
        if name not in set_names() and not expanded(name).exists():
            own = f"Sources of its recipe: {', '.join(sources)}. " if sources else ""
            raise unknown_name("set", name, [*sources, *set_names()], f"{own}A COCO file works too: annotations.json")
        found = load_set(name)
        wanted = evaluated_classes(found.annotations, artifact.classes)
        coco = found.coco(wanted)
    else:
        file = expanded(name)
        wanted = evaluated_classes(file, artifact.classes)
        coco = read_coco(file, images_of(file), wanted)
    return coco if wanted == list(artifact.classes) else widened(coco, artifact.classes)


def images_of(annotations: Path) -> Path:
    """Where the images of a COCO file lie: the first of three usual folders that has the first image."""
    folders = [annotations.parent, annotations.parent / "images", annotations.parent.parent / "images"]
    try:
        first = json.loads(annotations.read_text(encoding="utf-8"))["images"][0]["file_name"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return folders[0]  # the reader says what is wrong with the file
    if not isinstance(first, str):
        return folders[0]
    for folder in folders:
        if (folder / first).is_file():
            return folder
    raise BadInput(
        f"{annotations}: its first image {first!r} is in none of {', '.join(map(str, folders))}. "
        f"Put the images into one of them."
    )
