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
from reprlib import repr as show  # shortens what a broken file may hold
from typing import Any

from ...runtime.errors import BadInput
from ..coco import flag, load_json
from ..problems import Problems
from .content import CocoBuilder

CORNERS = ("x1", "y1", "x2", "y2")


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
    try:
        labels = _labels(frame)
    except ValueError as error:
        builder.problems.add(where, str(error))
        return
    for number, label in enumerate(labels):
        try:
            _read_label(label, image, builder)
        except ValueError as error:
            builder.problems.add(f"{where}, label {number}", str(error))


def _labels(frame: dict[str, Any]) -> list[Any]:
    """Those of the frame itself, or of the one frame of a file of one image. Raises ValueError."""
    frames = frame.get("frames")
    if frames and not (isinstance(frames, list) and isinstance(frames[0], dict)):
        raise ValueError(f"frames: expected a list of objects, found {show(frames)}")
    labels = frames[0].get("objects") if frames else None
    if labels is None:
        labels = frame.get("labels")
    if labels is not None and not isinstance(labels, list):
        raise ValueError(f"labels: expected a list, found {show(labels)}")
    return labels or []


def _read_label(label: Any, image: dict[str, Any], builder: CocoBuilder) -> None:
    """Add its box, if it has one. Raises ValueError."""
    if not isinstance(label, dict):
        raise ValueError(f"expected an object, found {show(label)}")
    box, name = label.get("box2d"), label.get("category")
    if box is None:
        return
    corners: list[Any] = [box.get(key) for key in CORNERS] if isinstance(box, dict) else []
    if not corners or not all(isinstance(v, int | float) and not isinstance(v, bool) for v in corners):
        raise ValueError(f"box2d: expected the numbers {', '.join(CORNERS)}, found {show(box)}")
    if not isinstance(name, str) or not name:
        raise ValueError(f"category: expected a name, found {show(name)}")
    last = 1 if isinstance(label.get("id"), str) else 0  # Scalabel's corner lies inside the box
    x1, y1, x2, y2 = corners
    builder.box(image, name, (x1, y1, x2 + last, y2 + last), iscrowd=_is_crowd(label))


def _is_crowd(label: dict[str, Any]) -> bool:
    """Raises ValueError."""
    attributes = label.get("attributes")
    return isinstance(attributes, dict) and flag(attributes, "crowd") | flag(attributes, "Crowd")
