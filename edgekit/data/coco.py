"""COCO-format detection sets, read once and checked whole: what leaves here needs no further checks.

Format: https://cocodataset.org/#format-data (object detection). Boxes become xyxy pixels of the stored image.
"""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path, PurePosixPath
from reprlib import repr as show  # shortens what a broken file may hold
from typing import Any

import numpy as np

from ..progress import Count
from ..runtime.artifact import new_file, value_sha256
from ..runtime.errors import BadInput
from ..words import counted, plural
from .imagefile import ImageHeader, read_header, read_image, turned_text
from .problems import Problems

# How far a box may reach over the border and still be clipped: rounding by an annotation tool or by a resize.
TOLERANCE_PIXELS = 2.0
TOLERANCE_FRACTION = 0.01  # of the image's side, where that is more
NOTED_PIXELS = 0.01  # clipping less is no change: texts of six digits come back with that
MAX_COORDINATE = 2.0**24  # float32 counts whole pixels up to there
SHARE = 1.5  # boxes that are all below it are in shares of the image, not in pixels


__all__ = ["CocoSet", "Sample", "read_coco", "read_image"]


@dataclass(frozen=True, eq=False)
class Sample:
    """One image and its boxes.

    path: the image file; width, height: of the stored pixels
    boxes: float32 [n, 4], x1, y1, x2, y2 in pixels, inside the image, x2 > x1 and y2 > y1
    labels: int64 [n], index into the set's classes
    ignore: bool [n], crowd, difficult or ignore: neither a target nor a negative
    areas: float64 [n], pixels, by which COCO calls an object small, medium or large: the annotation's own, which is of
        the object's outline, or that of the box where it has none; None: of the boxes
    """

    path: Path
    image_id: int
    width: int
    height: int
    boxes: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray
    areas: np.ndarray | None = None

    @property
    def object_areas(self) -> list[float]:
        """``areas``, never None."""
        if self.areas is not None:
            return self.areas.tolist()
        return (self.boxes[:, 2:] - self.boxes[:, :2]).astype(float).prod(axis=1).tolist()


@dataclass(frozen=True, eq=False)
class CocoSet:
    """A checked set. ``classes[i]`` has the COCO category id ``category_ids[i]``; ``notes`` say what was mended.

    labelled: the classes that its labels know, where a detector's others were added (``sources.widened``); else empty
    """

    annotations: Path
    images: Path
    samples: tuple[Sample, ...]
    classes: tuple[str, ...]
    category_ids: tuple[int, ...]
    notes: tuple[str, ...]
    annotations_sha256: str = ""
    labelled: tuple[str, ...] = ()

    def __len__(self) -> int:
        return len(self.samples)

    def class_counts(self) -> np.ndarray:
        """Boxes per class, int64 [classes], without the ignored ones."""
        counts = np.zeros(len(self.classes), np.int64)
        for sample in self.samples:
            counts += np.bincount(sample.labels[~sample.ignore], minlength=len(self.classes))
        return counts

    def require_boxes(self) -> None:
        """Raises BadInput for a set in which there is nothing to find."""
        if not self.class_counts().any():
            raise BadInput(
                f"{self.annotations}: no box to find in this set, so mAP has no meaning; give a labelled set"
            )

    def digest(self) -> str:
        """Identity of content: hash of the annotation file, the image list and the classes by id; no path.

        Of a widened set the classes by name, in any order: they alone are in the mean of its evaluation.
        """
        return self._digest

    @cached_property
    def _digest(self) -> str:
        return self.hash_with(sorted(self.labelled) or list(self.category_ids))

    def hash_with(self, classes: Sequence[str] | Sequence[int]) -> str:
        """Hash of the annotation file, the image list and ``classes``."""
        names = [s.path.relative_to(self.images).as_posix() for s in self.samples]
        return value_sha256([self.annotations_sha256, names, list(classes)])


def read_coco(
    annotations: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    check_images: bool = True,
    progress: Count | None = None,
) -> CocoSet:
    """Read and check a COCO detection file.

    annotations: the JSON file; images: the folder that its file names are relative to
    classes: the classes wanted, in the order of the labels; None takes all, by category id
    check_images: also look at every image file (is it there, whole, and of the recorded size)
    progress: called with (done, total) while the image files are looked at

    Boxes that reach over the border by a rounding error are clipped, zero-sized ones and classes not asked for are left
    out, all counted in ``notes``. Images without boxes stay, as negatives. Everything else that is wrong raises
    BadInput, which names the file and up to ten annotations or images.
    """
    annotations = Path(annotations)
    content, sha256 = load_json(annotations)
    return checked_set(content, sha256, annotations, Path(images), classes, check_images, progress)


def checked_set(
    content: Any,
    sha256: str,
    annotations: Path,
    images: Path,
    classes: Sequence[str] | None = None,
    check_images: bool = True,
    progress: Count | None = None,
) -> CocoSet:
    """The set that ``content``, a COCO object, describes; checked as ``read_coco`` does, whatever file it came from.

    sha256: what identifies the annotations' content
    """
    if not isinstance(content, dict):
        raise BadInput(
            f"{annotations}: expected a COCO object with images, annotations and categories, found a {_kind(content)}"
        )
    problems = Problems(annotations)
    _check_tables(content, problems)
    names = _categories(content["categories"], problems)
    records = _image_records(content["images"], problems)
    problems.raise_any()
    chosen = _choose(annotations, names, classes)
    reader = _BoxReader(names, {category: label for label, category in enumerate(chosen)}, records, problems)
    for index, annotation in enumerate(content["annotations"]):
        reader.add(index, annotation)
    reader.check_unit()
    notes = reader.notes()
    if check_images:
        notes += _check_files(images, records, problems, progress)
    problems.raise_any()
    samples = tuple(reader.sample(record, images) for record in records.values())
    return CocoSet(annotations, images, samples, tuple(names[c] for c in chosen), tuple(chosen), tuple(notes), sha256)


def write_coco(coco: CocoSet, file: Path) -> Path:
    """Write a set as a COCO file: names relative to the set's folder of images, ignored boxes marked so.

    They are marked ``iscrowd`` too: it is the one key that COCOeval, and so every other tool, goes by.
    """
    annotations = [
        {
            "image_id": sample.image_id,
            "category_id": coco.category_ids[int(label)],
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "area": area,
            "iscrowd": int(ignore),
            **({"ignore": 1, "difficult": 1} if ignore else {}),
        }
        for sample in coco.samples
        for (x1, y1, x2, y2), label, ignore, area in zip(
            sample.boxes.astype(float).tolist(), sample.labels, sample.ignore, sample.object_areas, strict=True
        )
    ]
    content = {
        "images": [
            {
                "id": s.image_id,
                "file_name": s.path.relative_to(coco.images).as_posix(),
                "width": s.width,
                "height": s.height,
            }
            for s in coco.samples
        ],
        "annotations": [{"id": number, **a} for number, a in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": n} for i, n in zip(coco.category_ids, coco.classes, strict=True)],
    }
    with new_file(file) as handle:
        json.dump(content, handle)
    return file


def load_json(path: Path) -> tuple[Any, str]:
    """A JSON file's value and SHA-256. Raises BadInput naming the file."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such annotation file") from error
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error
    try:
        # a hook on every object costs a fifth of the time, so it is there only where a table may be told twice
        repeated = any(data.count(table) > 1 for table in _TABLES)
        content = json.loads(data, object_pairs_hook=_once if repeated else None)
    except (ValueError, RecursionError) as error:
        what = "truncated JSON" if _is_cut(error) else "not valid JSON"
        raise BadInput(f"{path}: {what} ({error}). Export or download the annotations again.") from error
    return content, hashlib.sha256(data).hexdigest()


_TABLES = (b'"images"', b'"annotations"', b'"categories"', b'"frames"')


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, of which Python would keep the last of equal keys. Raises ValueError."""
    content = dict(pairs)
    if len(content) < len(pairs):
        twice = next(key for key, count in Counter(key for key, _ in pairs).items() if count > 1)
        raise ValueError(f"the key {show(twice)} is there twice in one object")
    return content


def category_names(content: Any) -> tuple[str, ...]:
    """The names in a COCO object's categories; whether they are whole is for ``checked_set`` to say."""
    table = content.get("categories") if isinstance(content, dict) else None
    names = [c.get("name") for c in table if isinstance(c, dict)] if isinstance(table, list) else []
    return tuple(name for name in names if isinstance(name, str))


def _is_cut(error: Exception) -> bool:
    """Whether the text ended too early, rather than being wrong in its middle."""
    if not isinstance(error, json.JSONDecodeError):
        return False
    return error.msg.startswith("Unterminated") or not error.doc[error.pos :].strip()


def _kind(value: Any) -> str:
    names = {
        dict: "object",
        list: "list",
        str: "text",
        bool: "boolean",
        type(None): "null",
        int: "number",
        float: "number",
    }
    return names[type(value)]


def _check_tables(content: dict[str, Any], problems: Problems) -> None:
    for key in ("images", "annotations", "categories"):
        if key not in content:
            problems.add(key, f"missing; the file has the keys {', '.join(sorted(content)) or 'none'}")
        elif not isinstance(content[key], list):
            problems.add(key, f"expected a list, found a {_kind(content[key])}")
        elif not content[key] and key != "annotations":
            problems.add(key, "the list is empty")
    problems.raise_any()


def _whole(value: Any) -> int | None:
    """An integer, or None; JSON writers that know only floats give 640.0."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < 2**63:
        return None
    return int(value) if value == int(value) else None


def flag(record: Mapping[str, Any], key: str) -> bool:
    """A yes or no of JSON: true, false, 0 or 1; what is missing is a no. Raises ValueError that names the key."""
    value = record.get(key)
    if value is None or (isinstance(value, int | float) and value in (0, 1)):
        return bool(value)
    raise ValueError(f"{key}: expected 0 or 1, found {show(value)}")


def _fields(record: Any, needed: Sequence[str], where: str, problems: Problems) -> bool:
    if not isinstance(record, dict):
        problems.add(where, f"expected an object, found a {_kind(record)}")
        return False
    missing = [key for key in needed if key not in record]
    if missing:
        problems.add(where, f"missing {', '.join(missing)}")
    return not missing


def _categories(table: list[Any], problems: Problems) -> dict[int, str]:
    """Category id -> name, by ascending id."""
    names: dict[int, str] = {}
    for index, record in enumerate(table):
        where = f"categories[{index}]"
        if not _fields(record, ("id", "name"), where, problems):
            continue
        category, name = _whole(record["id"]), record["name"]
        if category is None or not isinstance(name, str) or not name:
            problems.add(where, f"expected a whole-number id and a name, found {show(record['id'])} and {show(name)}")
        elif category in names:
            problems.add(where, f"category id {category} appears twice ({names[category]!r} and {show(name)})")
        elif name in names.values():
            problems.add(where, f"category name {name!r} appears twice")
        else:
            names[category] = name
    return dict(sorted(names.items()))


@dataclass(frozen=True)
class _ImageRecord:
    image_id: int
    file_name: str
    width: int
    height: int


def _image_records(table: list[Any], problems: Problems) -> dict[int, _ImageRecord]:
    records: dict[int, _ImageRecord] = {}
    for index, record in enumerate(table):
        where = f"images[{index}]"
        if not _fields(record, ("id", "file_name", "width", "height"), where, problems):
            continue
        image_id, width, height = (_whole(record[k]) for k in ("id", "width", "height"))
        name = record["file_name"]
        if image_id is None:
            problems.add(where, f"id: expected a whole number, found {show(record['id'])}")
        elif what := _wrong_name(name):
            problems.add(f"image {image_id}", f"file_name: {what}, found {show(name)}")
        elif width is None or height is None or width < 1 or height < 1:
            problems.add(f"image {image_id} ({name})", f"bad size {show(record['width'])} x {show(record['height'])}")
        elif image_id in records:
            problems.add(where, f"image id {image_id} appears twice ({records[image_id].file_name} and {name})")
        else:
            records[image_id] = _ImageRecord(image_id, name, width, height)
    return records


def _wrong_name(name: Any) -> str:
    """What was expected of a file's name, empty when it is that. Every printed character and space is welcome."""
    inside = isinstance(name, str) and name and not PurePosixPath(name).is_absolute()
    if not inside or ".." in PurePosixPath(name).parts:
        return "expected a path inside the images' folder"
    if any(unicodedata.category(character) in ("Cc", "Cs") for character in name):
        return "expected text without control characters and halves of surrogate pairs"
    return ""


def nearest(name: str, known: Sequence[str]) -> str:
    """What to say of a class that is not among the known ones."""
    near = get_close_matches(name, known, n=3, cutoff=0.4)
    return f"did you mean {' or '.join(near)}?" if near else f"it has: {', '.join(known)}"


def _choose(file: Path, names: dict[int, str], classes: Sequence[str] | None) -> list[int]:
    """Category ids in label order."""
    if classes is None:
        return list(names)
    ids = {name: category for category, name in names.items()}
    problems = Problems(file)
    for name in classes:
        if name not in ids:
            problems.add(f"class {name!r}", f"the file has no such category; {nearest(name, list(ids))}")
    for name, count in Counter(classes).items():
        if count > 1:
            problems.add(f"class {name!r}", "asked for twice")
    if not classes:
        problems.add("classes", f"none asked for; the file has: {', '.join(ids)}")
    problems.raise_any()
    return [ids[name] for name in classes]


class _BoxReader:
    """Checks annotations one by one and gathers the boxes of each image."""

    def __init__(
        self,
        names: dict[int, str],
        labels: dict[int, int],
        records: dict[int, _ImageRecord],
        problems: Problems,
    ) -> None:
        self.names, self.labels, self.records, self.problems = names, labels, records, problems
        self.rows: dict[int, list[tuple[list[float], int, bool, float]]] = {image_id: [] for image_id in records}
        self.seen: set[int] = set()
        self.clipped, self.ignored = 0, 0
        self.empty: list[int] = []
        self.dropped: Counter[str] = Counter()
        self.shared = len(records) - len({record.file_name for record in records.values()})

    def add(self, index: int, annotation: Any) -> None:
        where = f"annotations[{index}]"
        if not _fields(annotation, ("id", "image_id", "category_id", "bbox"), where, self.problems):
            return
        number = _whole(annotation["id"])
        if number is None:
            self.problems.add(where, f"id: expected a whole number, found {show(annotation['id'])}")
            return
        image_id = _whole(annotation["image_id"])
        record = None if image_id is None else self.records.get(image_id)
        where = f"annotation {number}" + (f" (image {record.image_id}, {record.file_name})" if record else "")
        if number in self.seen:
            self.problems.add(where, "the annotation id appears twice")
        self.seen.add(number)
        category = _whole(annotation["category_id"])
        if record is None:
            self.problems.add(where, f"image_id {show(annotation['image_id'])} is not among the images")
        elif category is None or category not in self.names:
            known = ", ".join(f"{c} {n}" for c, n in self.names.items())
            found = show(annotation["category_id"])
            self.problems.add(where, f"category_id {found} is not among the categories ({known})")
        else:
            self._box(where, number, category, annotation, record)

    def _box(self, where: str, number: int, category: int, annotation: dict[str, Any], record: _ImageRecord) -> None:
        if category not in self.labels:
            self.dropped[self.names[category]] += 1
            return
        box, what = _xyxy(annotation["bbox"])
        if what:
            self.problems.add(where, what)
            return
        inside, over = _clip(box, record.width, record.height)
        if box[0] == box[2] or box[1] == box[3]:
            self.empty.append(number)
        elif over is not None:
            self.problems.add(where, f"bbox {annotation['bbox']} {over} the {record.width} x {record.height} image")
        else:
            ignore = self._ignored(where, annotation)
            self.clipped += max(abs(a - b) for a, b in zip(inside, box, strict=True)) > NOTED_PIXELS
            self.ignored += ignore
            self.rows[record.image_id].append((inside, self.labels[category], ignore, _area(annotation, inside)))

    def _ignored(self, where: str, annotation: dict[str, Any]) -> bool:
        """Whether the box counts neither way. A flag that is no flag is a problem: mAP depends on it."""
        marked = False
        for key in ("iscrowd", "difficult", "ignore"):
            try:
                marked |= flag(annotation, key)
            except ValueError as error:
                self.problems.add(where, str(error))
        return marked

    def check_unit(self) -> None:
        """Boxes that all lie in the first pixel are shares of the image, as YOLO has them."""
        rows = [row for of_image in self.rows.values() for row in of_image]
        sides = [min(record.width, record.height) for record in self.records.values()]
        if rows and min(sides) > SHARE and max(max(box) for box, *_ in rows) <= SHARE:
            self.problems.add(
                "bbox",
                f"every box lies within 0..{SHARE:g}; shares of the image? COCO boxes are pixels: multiply by its size",
            )

    def notes(self) -> list[str]:
        """What was mended, in words."""
        dropped = sorted(self.dropped.items())
        notes = [f"{counted(n, 'box')} of class {name!r} left out: not asked for" for name, n in dropped]
        if self.clipped:
            notes.append(f"{counted(self.clipped, 'box')} clipped: over the border by a little")
        if self.empty:
            shown = ", ".join(map(str, self.empty[:5])) + (", ..." if len(self.empty) > 5 else "")
            those = f"{plural('annotation', len(self.empty))} {shown}"
            notes.append(f"{counted(len(self.empty), 'box')} without area left out ({those})")
        if self.ignored:
            notes.append(f"{counted(self.ignored, 'crowd, difficult or ignore box')}: neither target nor negative")
        if self.shared:
            notes.append(f"{counted(self.shared, 'image record')} with the same file as another record")
        bare = sum(not rows for rows in self.rows.values())
        if bare:
            notes.append(f"{counted(bare, 'image')} without boxes kept as {plural('negative', bare)}")
        return notes

    def sample(self, record: _ImageRecord, images: Path) -> Sample:
        rows = self.rows[record.image_id]
        boxes = np.array([r[0] for r in rows], np.float32).reshape(-1, 4)
        labels = np.array([r[1] for r in rows], np.int64)
        ignore = np.array([r[2] for r in rows], bool)
        areas = np.array([r[3] for r in rows], np.float64)
        for array in (boxes, labels, ignore, areas):
            array.setflags(write=False)  # shared by every epoch
        place = images / record.file_name
        return Sample(place, record.image_id, record.width, record.height, boxes, labels, ignore, areas)


def _xyxy(bbox: Any) -> tuple[list[float], str]:
    """COCO [x, y, w, h] -> [x1, y1, x2, y2], or what is wrong with it."""
    numbers = isinstance(bbox, list) and all(isinstance(v, int | float) and not isinstance(v, bool) for v in bbox)
    if not numbers or len(bbox) != 4:
        return [], f"bbox: expected four numbers [x, y, width, height], found {show(bbox)}"
    if not all(abs(v) < MAX_COORDINATE for v in bbox):  # not so for NaN either
        return [], f"bbox {bbox} is not finite, or beyond any image"
    x, y, w, h = bbox
    if w < 0 or h < 0:
        return [], f"bbox {bbox} has a negative size; expected [x, y, width, height]"
    return [float(v) for v in np.array([x, y, x + w, y + h], np.float32)], ""


def _area(annotation: dict[str, Any], box: Sequence[float]) -> float:
    """The annotation's own area where it has one; many tools leave it out or write 0."""
    area = annotation.get("area")
    if isinstance(area, int | float) and not isinstance(area, bool) and 0 < area < MAX_COORDINATE**2:
        return float(area)
    return (box[2] - box[0]) * (box[3] - box[1])


def _clip(box: list[float], width: int, height: int) -> tuple[list[float], str | None]:
    """The box inside the image; or why not, when it lies outside or reaches over by more than rounding."""
    x1, y1, x2, y2 = box
    if x1 >= width or y1 >= height or x2 <= 0 or y2 <= 0:
        return box, "lies outside"
    over_x, over_y = max(-x1, x2 - width), max(-y1, y2 - height)
    for over, side in ((over_x, width), (over_y, height)):
        if over > max(TOLERANCE_PIXELS, TOLERANCE_FRACTION * side):
            return box, f"reaches {over:.1f} pixels out of"
    return [max(x1, 0.0), max(y1, 0.0), min(x2, float(width)), min(y2, float(height))], None


def _check_files(
    images: Path, records: dict[int, _ImageRecord], problems: Problems, progress: Count | None
) -> list[str]:
    """Look at every image file; returns notes."""
    if not images.is_dir():
        raise BadInput(f"{images}: no such folder of images (needed by {problems.file})")
    turned = missing = 0
    for done, record in enumerate(records.values(), 1):
        path = images / record.file_name
        try:
            header = read_header(path)
        except BadInput as error:
            missing += isinstance(error.__cause__, FileNotFoundError)
            problems.add(f"image {record.image_id}", str(error))
        else:
            turned += header.orientation != 1
            if what := _size_differs(header, record):
                problems.add(f"image {record.image_id}", f"{path} {what}")
        if progress is not None:
            progress(done, len(records))
    if missing == len(records):
        problems.advice = f"Not one image file is in {images}: is that the right folder?"
    return list(filter(None, [turned_text(turned)]))


def _size_differs(header: ImageHeader, record: _ImageRecord) -> str:
    if (header.width, header.height) == (record.width, record.height):
        return ""
    what = f"is {header.width} x {header.height}, the record says {record.width} x {record.height}"
    if header.orientation > 4 and (header.height, header.width) == (record.width, record.height):
        # what annotation tools do that turn the picture by its tag before they show it
        what += "; the record counts in the EXIF rotation, COCO boxes do not: save the image upright, without the tag"
    return what
