"""Annotation layouts other than COCO. Each reader turns its files into a COCO object; one checker serves them all.

A new layout is one module with ``read`` and one line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...paths import unknown_name
from ...progress import Count
from ...runtime.artifact import value_sha256
from ..classmap import ClassMap
from ..coco import CocoSet, category_names, checked_set, load_json
from . import bdd100k, voc, yolo
from .content import every_nth


def _coco(annotations: Path, images: Path) -> tuple[dict[str, Any], Path]:
    return load_json(annotations)[0], images


# layout -> read(annotations, images) -> (COCO object, folder of images)
FORMATS: dict[str, Callable[[Path, Path], tuple[dict[str, Any], Path]]] = {
    "coco": _coco,
    "voc": voc.read,
    "ivslab": voc.read_ivslab,
    "bdd100k": bdd100k.read,
    "yolo": yolo.read,
}


@dataclass(frozen=True, eq=False)
class LoadedSet:
    """An annotation file in memory, not yet checked: ``content`` should be a COCO object.

    names: the classes that it can have boxes of, in its order
    """

    annotations: Path
    images: Path
    content: Any
    sha256: str
    names: tuple[str, ...]

    def checked(
        self, classes: Sequence[str] | None = None, check_images: bool = True, progress: Count | None = None
    ) -> CocoSet:
        """The set, checked as ``read_coco`` does. Raises BadInput for all that is wrong with it."""
        return checked_set(self.content, self.sha256, self.annotations, self.images, classes, check_images, progress)


def load_set(
    annotations: Path,
    images: Path,
    layout: str = "coco",
    class_map: ClassMap | None = None,
    frame_stride: int = 1,
) -> LoadedSet:
    """Read annotations in any known layout; see the layout's module for what ``annotations`` may be.

    class_map: merges and drops the file's classes
    frame_stride: of each clip's frames take one of so many, from the first on

    Raises BadConfig for an unknown layout, and BadInput for files that cannot be read.
    """
    if layout not in FORMATS:
        raise unknown_name("annotation layout", layout, list(FORMATS), "")
    annotations, images = Path(annotations), Path(images)
    if layout == "coco" and class_map is None and frame_stride == 1:
        content, sha256 = load_json(annotations)
        return LoadedSet(annotations, images, content, sha256, category_names(content))
    content, folder = FORMATS[layout](annotations, images)
    if layout == "coco":  # written by anybody: what follows must be able to trust its tables
        checked_set(content, "", annotations, folder, check_images=False)
    names = category_names(content)
    if class_map is not None:
        content = class_map.apply(content, annotations)
        names = tuple(name for name, olds in class_map.classes.items() if olds)
    if frame_stride > 1:
        content = every_nth(content, frame_stride)
    return LoadedSet(annotations, folder, content, value_sha256(content), names)


def read_set(
    annotations: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    layout: str = "coco",
    class_map: ClassMap | None = None,
    frame_stride: int = 1,
    check_images: bool = True,
    progress: Count | None = None,
) -> CocoSet:
    """Read and check annotated images: ``load_set``, of which ``classes`` are chosen, in this order."""
    return load_set(annotations, images, layout, class_map, frame_stride).checked(classes, check_images, progress)
