"""Pascal VOC: one XML file per image. The ivslab competition's layout is the same with a folder for each clip.

    Annotations/000005.xml          Annotations/All/CLIP/CLIP_0001.xml
    JPEGImages/000005.jpg           JPEGImages/All/CLIP/CLIP_0001.jpg
    ImageSets/Main/train.txt        ImageSets/...

``annotations`` is a list of ImageSets/, or the folder of the XML files, or the folder above all three.
"""

from __future__ import annotations

import re
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

from ...runtime.errors import BadInput
from ..imagefile import SUFFIXES
from ..problems import Problems
from .content import CocoBuilder

_NUMBER = re.compile(r"\s+(-?\d+)$")
_FLAGS = {"0": False, "1": True, "false": False, "true": True}
CORNERS = ("xmin", "ymin", "xmax", "ymax")


def read(annotations: Path, images: Path) -> tuple[dict[str, Any], Path]:
    """COCO object and image folder of a VOC set.

    VOC counts pixels from 1 and its corners are pixels inside the box: [xmin, xmax] is xmin - 1 ... xmax in ours.
    ``difficult`` objects are marked so: training and the COCO metric ignore them, the VOC metric does as the benchmark.
    """
    return _read(annotations, images, first_pixel=1)


def read_ivslab(annotations: Path, images: Path) -> tuple[dict[str, Any], Path]:
    """The same for the ivslab layout, whose corners count from 0."""
    return _read(annotations, images, first_pixel=0)


def _read(annotations: Path, images: Path, first_pixel: int) -> tuple[dict[str, Any], Path]:
    xml_folder, names = _listing(annotations)
    folder = images if images.is_dir() else xml_folder.parent / "JPEGImages"
    if not folder.is_dir():
        raise BadInput(f"{folder}: no such folder of images (needed by {annotations})")
    problems = Problems(annotations)
    builder = CocoBuilder(folder, problems)
    for name in names:
        _read_one(xml_folder / f"{name}.xml", name, builder, first_pixel)
    return builder.content(), folder


def _listing(annotations: Path) -> tuple[Path, list[str]]:
    """The folder of the XML files, and their names relative to it, without suffix."""
    if annotations.is_file():
        lines = annotations.read_text(encoding="utf-8", errors="replace").splitlines()
        root = next((p.parent for p in annotations.parents if p.name == "ImageSets"), None)
        folder = annotations if root is None else root / "Annotations"
        names = [name for line in lines if (name := _listed(line.strip(), folder))]
        if root is None or not names:
            raise BadInput(f"{annotations}: expected a list of image names below an ImageSets folder")
        return folder, names
    folder = annotations / "Annotations" if (annotations / "Annotations").is_dir() else annotations
    names = sorted(p.relative_to(folder).with_suffix("").as_posix() for p in folder.rglob("*.xml"))
    if not names:
        raise BadInput(f"{annotations}: no XML file in it; expected Pascal VOC's Annotations, or a list of ImageSets")
    return folder, names


def _listed(line: str, folder: Path) -> str:
    """The image that a line of ImageSets chooses, spaces in its name and all; empty if none.

    The lists of one class have a flag behind the name: 1 if it is there, 0 if only difficult ones are, -1 if none is;
    other lists have the number of an object. A name may end so too: then there is an annotation of it.
    """
    name = line
    numbers: list[str] = []
    while not (folder / f"{name}.xml").is_file() and (number := _NUMBER.search(name)):
        name, numbers = name[: number.start()], [*numbers, number[1]]
    return "" if "-1" in numbers else name


def _read_one(file: Path, name: str, builder: CocoBuilder, first_pixel: int) -> None:
    root, size, objects = None, None, []
    try:
        root = _parse(file)
        objects = [_object(number, item, first_pixel) for number, item in enumerate(root.iter("object"))]
        size = _size(root)
    except FileNotFoundError:
        builder.problems.add(str(file), "no such annotation file")
    except (OSError, ValueError) as error:
        builder.problems.add(str(file), str(error))
    except ET.ParseError as error:
        builder.problems.add(str(file), f"truncated or not XML ({error})")
    # without a size, as after a problem, the image is looked at now: what is wrong with both is told at once
    image = builder.image(_image_file(name, root, builder.images), size)
    if image is not None:
        for label, box, difficult in objects:
            builder.box(image, label, box, difficult=difficult)


def _object(number: int, item: ET.Element, first_pixel: int) -> tuple[str, tuple[float, float, float, float], bool]:
    """(class, corners, difficult). Raises ValueError."""
    label = (item.findtext("name") or "").strip()
    box = item.find("bndbox")
    if not label or box is None:
        raise ValueError(f"object {number} has no name or no bndbox")
    x1, y1, x2, y2 = (_number(box, corner, number) for corner in CORNERS)
    said = (item.findtext("difficult") or "0").strip()
    difficult = _FLAGS.get(said.lower())
    if difficult is None:
        raise ValueError(f"object {number}: difficult is {said!r}, expected 0 or 1")
    return label, (x1 - first_pixel, y1 - first_pixel, x2, y2), difficult


def _number(box: ET.Element, corner: str, number: int) -> float:
    text = box.findtext(corner)
    try:
        return float(text or "")
    except ValueError as error:
        raise ValueError(f"object {number}: {corner} is {text!r}, not a number") from error


def _parse(file: Path) -> ET.Element:
    return ET.fromstring(file.read_bytes(), ET.XMLParser(target=_Plain()))


class _Plain(ET.TreeBuilder):
    """Refuses a document type, in whatever encoding the file declares it."""

    def doctype(self, *declared: Any) -> None:
        raise ValueError("declares a document type; annotations have none, and entities can be made to fill the memory")


def _size(root: ET.Element) -> tuple[int, int] | None:
    said = [root.findtext(f"size/{side}") or "0" for side in ("width", "height")]
    try:
        width, height = (int(float(text)) for text in said)
    except (ValueError, OverflowError) as error:  # of inf
        raise ValueError(f"size: expected pixels, found width {said[0]!r} and height {said[1]!r}") from error
    return (width, height) if width > 0 and height > 0 else None


def _image_file(name: str, root: ET.Element | None, images: Path) -> str:
    """Beside the annotation's own place; ``filename`` gives the suffix, for in many sets the rest of it is wrong."""
    named = "" if root is None else root.findtext("filename") or ""
    suffixes = [Path(named).suffix, ".jpg", *sorted(SUFFIXES)]
    found = next((name + s for s in suffixes if s.lower() in SUFFIXES and (images / (name + s)).is_file()), None)
    return found or f"{name}.jpg"
