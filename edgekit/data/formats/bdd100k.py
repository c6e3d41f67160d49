"""BDD100K's JSON: the list of 2018, the Scalabel list of 2020, and a folder of one file per image.

Only labels with ``box2d`` count; lanes and drivable areas have none. Corners are pixels from 0. Class names changed in
2020 (bike, motor, person -> bicycle, motorcycle, pedestrian); they are kept as found, and a class map can take both.

In Scalabel's format x2 and y2 are the last pixels inside the box: the official evaluation (scalabel/eval/detect.py in
github.com/scalabel/scalabel) goes through ``box2d_to_bbox``, whose width is x2 - x1 + 1. Its labels are known by their
``id``, which is a text (scalabel.ai/doc/format.html); in 2018 it was a number (doc/format.md of ucbdrive/bdd-data), and
those boxes are taken as they are, as the converter of that time did (bdd100k/bdd2coco.py).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from ..coco import load_json
from ..problems import Problems
from .content import CocoBuilder


def read(annotations: Path, images: Path) -> tuple[dict[str, Any], Path]:
    """COCO object and image folder. annotations: a JSON file, or a folder of them; images: the folder of the files."""
    problems = Problems(annotations)
    builder = CocoBuilder(images, problems)
    frames = _frames(annotations)
    if not frames:
        raise BadInput(f"{annotations}: no frame in it; expected BDD100K's list of frames with labels")
    for where, frame in frames:
        _read_frame(where, frame, builder)
    return builder.content(), images


def _frames(annotations: Path) -> list[tuple[str, Any]]:
    """(where it stands, frame) of every image."""
    files = sorted(annotations.rglob("*.json")) if annotations.is_dir() else [annotations]
    frames: list[tuple[str, Any]] = []
    for file in files:
        content = load_json(file)[0]
        if isinstance(content, dict) and isinstance(content.get("frames"), list):
            # Scalabel's {"frames": [...], "config": ...}; a file of one image has a name
            several = "name" not in content
            content = content["frames"] if several else [content]
        if not isinstance(content, list):
            raise BadInput(f"{file}: expected a list of frames, found {type(content).__name__}")
        frames += [(f"{file.name}[{i}]", frame) for i, frame in enumerate(content)]
    return frames


def _read_frame(where: str, frame: Any, builder: CocoBuilder) -> None:
    if not isinstance(frame, dict) or not isinstance(frame.get("name"), str):
        builder.problems.add(where, "expected an object with a name")
        return
    name = frame["name"] if Path(frame["name"]).suffix else frame["name"] + ".jpg"
    clip = frame.get("videoName")
    image = builder.image(f"{clip}/{name}" if isinstance(clip, str) and clip else name)
    if image is None:
        return
    for number, label in enumerate(_labels(frame)):
        box = label.get("box2d") if isinstance(label, dict) else None
        if box is None:
            continue
        try:
            x1, y1, x2, y2 = (float(box[key]) for key in ("x1", "y1", "x2", "y2"))
            last = 1 if isinstance(label.get("id"), str) else 0  # Scalabel's corner lies inside the box
            builder.box(image, str(label["category"]), (x1, y1, x2 + last, y2 + last), iscrowd=_is_crowd(label))
        except (KeyError, TypeError, ValueError) as error:
            builder.problems.add(f"{where}, label {number}", f"no valid box2d or category ({error!r})")


def _labels(frame: dict[str, Any]) -> list[Any]:
    parts = frame["frames"][0].get("objects") if isinstance(frame.get("frames"), list) and frame["frames"] else None
    labels = parts if parts is not None else frame.get("labels")
    return labels if isinstance(labels, list) else []


def _is_crowd(label: dict[str, Any]) -> bool:
    attributes = label.get("attributes")
    return bool(isinstance(attributes, dict) and (attributes.get("crowd") or attributes.get("Crowd")))
