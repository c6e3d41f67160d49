"""Annotation layouts other than COCO. Each reader turns its files into a COCO object; one checker serves them all.

A new layout is one module with ``read`` and one line in FORMATS.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from ...paths import unknown_name
from ...runtime.artifact import value_sha256
from ..classmap import ClassMap
from ..coco import CocoSet, Progress, checked_set, load_json, read_coco
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


def read_set(
    annotations: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    layout: str = "coco",
    class_map: ClassMap | None = None,
    frame_stride: int = 1,
    check_images: bool = True,
    progress: Progress | None = None,
) -> CocoSet:
    """Read and check annotated images in any known layout; see the layout's module for what ``annotations`` may be.

    class_map: merges and drops the file's classes before ``classes`` chooses among them
    frame_stride: of each clip's frames take one of so many, from the first on

    Raises BadConfig for an unknown layout, and BadInput for what is wrong with the files.
    """
    if layout not in FORMATS:
        raise unknown_name("annotation layout", layout, list(FORMATS), "")
    if layout == "coco" and class_map is None and frame_stride == 1:
        return read_coco(annotations, images, classes, check_images, progress)
    content, folder = FORMATS[layout](Path(annotations), Path(images))
    if layout == "coco":  # written by anybody: what follows must be able to trust its tables
        checked_set(content, "", Path(annotations), folder, check_images=False)
    if class_map is not None:
        content = class_map.apply(content, Path(annotations))
    if frame_stride > 1:
        content = every_nth(content, frame_stride)
    return checked_set(content, value_sha256(content), Path(annotations), folder, classes, check_images, progress)
