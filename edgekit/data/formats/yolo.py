"""The YOLO text layout: ``labels/NAME.txt`` beside ``images/NAME.jpg``, with ``data.yaml`` above them.

Each line is ``class x y width height``: the class's index, and the box's centre and size as shares of the image. A line
with more numbers is a polygon, whose bounding box is taken; or, where data.yaml has ``kpt_shape``, a box and then the
points of a pose, which are left out. An image without a text file has no objects.

The shares are of the picture as it is shown, turned by its EXIF tag: so Ultralytics' loader has it. In a CocoSet
boxes are of the stored pixels.

``annotations`` is the ``data.yaml`` or its folder, with ``#SPLIT`` behind it for another split than ``train``:
``data.yaml#val``.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from ...config import read_mapping
from ...paths import expanded
from ...runtime.artifact import new_file
from ...runtime.errors import BadConfig, BadInput
from ..coco import CocoSet, Sample
from ..imagefile import SUFFIXES, read_header, shown_to_stored, stored_to_shown
from ..problems import Problems
from .content import CocoBuilder

CONFIG = "data.yaml"
SPLITS = ("train", "val", "test")


def read(annotations: Path, images: Path) -> tuple[dict[str, Any], Path]:
    """COCO object and image folder, which is the set's own: ``images`` is not needed."""
    text, _, split = str(annotations).partition("#")
    file = Path(text) / CONFIG if Path(text).is_dir() else Path(text)
    if not file.is_file():
        raise BadInput(
            f"{file}: no such file; the YOLO layout is described by a data.yaml. Give data.yaml#val for a split"
        )
    if file.suffix.lower() == ".json":
        raise BadInput(
            f"{file}: found a .json file, as the COCO layout has, and the YOLO layout needs its data.yaml. For COCO: "
            "data.layout=coco in a recipe, --layout coco on the command line"
        )
    config = read_mapping(file)
    root = _root(file, config)
    names, points = _names(file, config.get("names")), _points(file, config.get("kpt_shape"))
    problems = Problems(file)
    builder = CocoBuilder(root, problems, names)
    for image in _images(file, root, config, split or "train"):
        record = builder.image(image.relative_to(root).as_posix())
        if record is not None:
            _read_labels(label_file(image), record, names, points, builder)
    return builder.content(), root


def label_file(image: Path) -> Path:
    """Where the boxes of an image are: the last ``images`` of its path becomes ``labels``."""
    parts = list(image.with_suffix(".txt").parts)
    places = [i for i, part in enumerate(parts[:-1]) if part == "images"]
    if places:
        parts[places[-1]] = "labels"
    return Path(*parts)


def check_split(folder: Path, split: str) -> None:
    """Raises BadConfig where ``write`` would mix its images with others: what lies there stays as it is."""
    taken = {name: [p for p in (folder / "images" / name, folder / "labels" / name) if p.exists()] for name in SPLITS}
    if taken[split]:
        free = ", ".join(f"--split {name}" for name in SPLITS if not taken[name])
        raise BadConfig(
            f"{taken[split][0]}: is there already, and two sets in one split could not be told apart again. "
            f"{f'Free in this folder: {free}. Or name' if free else 'Name'} another folder, or remove it."
        )


def write(coco: CocoSet, folder: Path, split: str = "train") -> Path:
    """Write a set as the split of a YOLO folder: text files, and links to its images; returns data.yaml.

    It appears whole or not at all. Other splits of the folder stay, if they have the same classes: their lines hold
    indices into the one list of names. Ignored boxes are left out, for the layout cannot say so.

    Raises BadConfig for a split that is there already, and for a folder whose classes are others.
    """
    check_split(folder, split)
    config = _joined(folder / CONFIG, coco.classes, split)
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(prefix=f".{split}.", dir=folder))
    try:
        for kind in ("images", "labels"):
            (beside / kind / split).mkdir(parents=True)
        for sample in coco.samples:
            _write_sample(sample, beside / "images" / split / sample.path.relative_to(coco.images))
        for kind in ("labels", "images"):
            (folder / kind).mkdir(exist_ok=True)
            (beside / kind / split).rename(folder / kind / split)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
        if new:
            with suppress(OSError):  # one that holds the split stays
                folder.rmdir()
    with new_file(folder / CONFIG) as handle:  # last: what it does not name is not there for a reader
        yaml.safe_dump(config, handle, sort_keys=False)
    return folder / CONFIG


def _write_sample(sample: Sample, place: Path) -> None:
    """A link to the image at ``place``, and its boxes where ``label_file`` looks for them."""
    file = label_file(place)
    if file.exists():
        raise BadInput(
            f"{sample.path}: another image differs only in its suffix, and both would need {file.name}. Rename one"
        )
    for needed in (place, file):
        needed.parent.mkdir(parents=True, exist_ok=True)
    place.symlink_to(sample.path.resolve())
    stored = sample.boxes[~sample.ignore].reshape(-1, 2, 2) / np.array([sample.width, sample.height], np.float64)
    corners = np.sort(stored_to_shown(stored, read_header(sample.path).orientation), axis=1)
    values = np.concatenate([corners.mean(axis=1), corners[:, 1] - corners[:, 0]], axis=1)
    rows = zip(sample.labels[~sample.ignore], values, strict=True)
    file.write_text("".join(f"{label} " + " ".join(f"{v:.6f}" for v in row) + "\n" for label, row in rows))


def _joined(file: Path, classes: Sequence[str], split: str) -> dict[str, Any]:
    """The folder's data.yaml with one more split. Raises BadConfig where its lines would mean other classes."""
    config = read_mapping(file) if file.is_file() else {"path": "."}
    known = _names(file, config["names"]) if "names" in config else list(classes)
    if known != list(classes):
        raise BadConfig(
            f"{file}: names {', '.join(known)}, and what is to be written {', '.join(classes)}. All splits share one "
            f"list: give --classes {','.join(known)}, or another folder."
        )
    return config | {split: f"images/{split}", "names": dict(enumerate(classes))}


def _root(file: Path, config: dict[str, Any]) -> Path:
    path = expanded(str(config.get("path") or "."))
    root = path if path.is_absolute() else file.parent / path
    # many a data.yaml carries the path of another machine; the files then lie beside it
    return root.resolve() if root.is_dir() else file.parent.resolve()


def _names(file: Path, names: Any) -> list[str]:
    if isinstance(names, dict) and sorted(names) == list(range(len(names))):
        names = [names[i] for i in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(n, str) for n in names):
        raise BadInput(f"{file}: names: expected the class names, as a list or by index from 0")
    if twice := [name for name, count in Counter(names).items() if count > 1]:
        raise BadInput(f"{file}: names: {', '.join(twice)}: more than once; their boxes could not be told apart")
    return names


def _points(file: Path, shape: Any) -> int:
    """Numbers behind the box of a line, by data.yaml's ``kpt_shape``: [points, 2 or 3 numbers each]; 0 without one."""
    if shape is None:
        return 0
    if not isinstance(shape, list) or [type(n) for n in shape] != [int, int] or shape[0] < 1 or shape[1] not in (2, 3):
        raise BadInput(f"{file}: kpt_shape: expected [number of points, 2 or 3], found {shape!r}")
    return int(shape[0] * shape[1])


def _images(file: Path, root: Path, config: dict[str, Any], split: str) -> list[Path]:
    if split not in config or not config[split]:
        splits = [k for k in SPLITS if config.get(k)]
        raise BadInput(f"{file}: no split {split!r}; it has: {', '.join(splits) or 'none'}")
    entries = config[split] if isinstance(config[split], list) else [config[split]]
    found: list[Path] = []
    for entry in entries:
        place = _below(root, entry)
        if not place.exists():  # exporters write ../train/images, relative to a folder that is not there
            place = _below(root, str(entry).removeprefix("../"))
        if place.is_dir():
            found += sorted(p for p in place.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
        elif place.is_file():
            found += [_below(root, line) for line in _listed(place)]
        else:
            raise BadInput(f"{file}: {split}: {place} does not exist")
    outside = [p for p in found if root not in p.parents]
    if outside or not found:
        raise BadInput(f"{file}: {split}: " + (f"{outside[0]} lies outside {root}" if outside else "no image found"))
    return found


def _listed(file: Path) -> list[str]:
    """The lines of a list of images."""
    try:
        lines = file.read_text(encoding="utf-8").split("\n")
    except UnicodeDecodeError as error:
        raise BadInput(f"{file}: expected a list of images, one path a line, in UTF-8 ({error})") from error
    return [line.strip() for line in lines if line.strip()]


def _below(root: Path, entry: Any) -> Path:
    """A path of data.yaml without its dots; links are not followed, for images may be links to where they are kept."""
    return Path(os.path.normpath(root / str(entry)))


def _read_labels(file: Path, image: dict[str, Any], names: list[str], points: int, builder: CocoBuilder) -> None:
    header = builder.headers[image["id"] - 1]
    if header is None or not file.is_file():
        return
    for number, line in enumerate(file.read_text(encoding="utf-8", errors="replace").splitlines(), 1):
        if not line.strip():
            continue
        try:
            first, *rest = line.split()
            label, values = _class(first, len(names)), np.array(rest, float)
            if points:
                values = _without_points(values, points)
            corners = shown_to_stored(_corners(values), header.orientation)
            (x1, y1), (x2, y2) = (np.sort(corners, axis=0) * (image["width"], image["height"])).tolist()
            builder.box(image, names[label], (x1, y1, x2, y2))
        except ValueError as error:
            builder.problems.add(f"{file}, line {number}", str(error))


def _class(text: str, count: int) -> int:
    """The index of one of ``count`` classes; some tools write 1.0."""
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"class {text!r}: expected its index, 0 to {count - 1}, as data.yaml lists them") from None
    if not number.is_integer():
        raise ValueError(f"class {text}: expected a whole number")
    if not 0 <= number < count:
        raise ValueError(f"class {text}, but data.yaml names {count} classes")
    return int(number)


def _without_points(values: np.ndarray, points: int) -> np.ndarray:
    if len(values) not in (4, 4 + points):
        raise ValueError(
            f"expected class x y width height and {points} numbers of points (kpt_shape), found {len(values) + 1}"
        )
    return values[:4]


def _corners(values: np.ndarray) -> np.ndarray:
    """Two opposite corners [2, 2] in shares of the picture, of a box or of a polygon x, y, x, y, ..."""
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise ValueError(f"expected class x y width height, found {len(values) + 1} numbers")
    if not np.isfinite(values).all() or values.max() > 1.5:
        raise ValueError("the numbers are shares of the image, 0..1; these are pixels or not finite")
    if len(values) == 4:
        centre, size = values[:2], values[2:]
        if size.min() < 0:
            raise ValueError(f"width {size[0]} and height {size[1]}: neither can be negative")
        return np.stack([centre - size / 2, centre + size / 2])
    points = values.reshape(-1, 2)
    return np.stack([points.min(0), points.max(0)])
