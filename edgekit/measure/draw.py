"""Draw detections on pictures: for a person to look at."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np

from ..data.coco import CocoSet
from ..data.stats import typical_samples
from ..runtime.artifact import check_place, new_file
from ..runtime.colours import FONT, FONT_HEIGHT, INK, class_colour, ink_on, line_width
from ..runtime.detections import Detections
from ..runtime.errors import BadInput
from ..runtime.images import read_image

Colour = tuple[int, int, int]
Area = tuple[int, int, int, int]  # x1, y1, x2, y2

SHEET: Colour = (32, 32, 32)
LEAST_TEXT = 9  # pixels of height under which nobody can read


def draw_detections(
    image: np.ndarray,
    detections: Detections,
    classes: Sequence[str],
    score_threshold: float = 0.3,
    show_scores: bool = True,
) -> np.ndarray:
    """A copy of a uint8 BGR image [h, w, 3] with the boxes of at least ``score_threshold``, labelled "class score %".

    Lines and letters grow with the image. A label never leaves the image and never covers a surer one; where neither
    above, below nor inside its box is room for it, the colour alone tells the class.
    """
    picture = image.copy()
    width = line_width(picture.shape)
    chosen = detections[detections.scores >= score_threshold]
    order = np.argsort(-chosen.scores, kind="stable")
    for i in reversed(order):  # the surest is drawn last, on top
        low, high = _corners(chosen.boxes[i], picture)
        # the dark rim keeps every colour visible on a bright picture
        cv2.rectangle(picture, low, high, INK, width + 2)
        cv2.rectangle(picture, low, high, class_colour(int(chosen.class_ids[i])), width)
    taken: list[Area] = []
    for i in order:
        class_id = int(chosen.class_ids[i])
        text = f"{classes[class_id]} {chosen.scores[i]:.0%}" if show_scores else classes[class_id]
        _label(picture, text, _corners(chosen.boxes[i], picture), class_colour(class_id), taken)
    return picture


def _corners(box: np.ndarray, image: np.ndarray) -> tuple[tuple[int, int], tuple[int, int]]:
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(float(v)) for v in np.clip(box, 0, [width - 1, height - 1, width - 1, height - 1]))
    return (x1, y1), (x2, y2)


def _label(
    image: np.ndarray, text: str, box: tuple[tuple[int, int], tuple[int, int]], colour: Colour, taken: list[Area]
) -> None:
    line = line_width(image.shape)
    scale = max(LEAST_TEXT, 4 + 3.5 * line) / FONT_HEIGHT
    stroke = max(1, line // 2)
    (text_width, text_height), base = cv2.getTextSize(text, FONT, scale, stroke)
    pad = 1 + line
    wide, high = text_width + 2 * pad, text_height + base + pad
    area = _free_place(box, wide, high, image.shape, taken)
    if area is None:
        return
    taken.append(area)
    x, y = area[:2]
    cv2.rectangle(image, (x, y), (x + wide - 1, y + high - 1), colour, cv2.FILLED)
    cv2.putText(image, text, (x + pad, y + text_height + pad - 1), FONT, scale, ink_on(colour), stroke, cv2.LINE_AA)


def _free_place(
    box: tuple[tuple[int, int], tuple[int, int]], wide: int, high: int, shape: tuple[int, ...], taken: list[Area]
) -> Area | None:
    """The first of above, below and inside the box that is in the picture (pushed sideways if need be) and free."""
    height, width = shape[:2]
    (left, top), (_, bottom) = box
    x = min(max(left - line_width(shape), 0), width - wide)
    if x < 0:
        return None
    for y in (top - high, bottom + 1, top):
        area = (x, y, x + wide, y + high)
        if y >= 0 and y + high <= height and not any(_meet(area, other) for other in taken):
            return area
    return None


def _meet(a: Area, b: Area) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


def contact_sheet(
    images: Sequence[np.ndarray], columns: int | None = None, tile: tuple[int, int] = (480, 320), gap: int = 8
) -> np.ndarray:
    """One picture of many: a grid of tiles (width, height), each image whole in the middle of its tile.

    columns: None makes the grid about as wide as it is high. Raises ValueError without images.
    """
    if not images:
        raise ValueError("a contact sheet needs at least one image")
    columns = min(columns or math.ceil(math.sqrt(len(images))), len(images))
    rows = math.ceil(len(images) / columns)
    width, height = tile
    sheet = np.full((rows * (height + gap) + gap, columns * (width + gap) + gap, 3), SHEET, np.uint8)
    for place, image in enumerate(images):
        fitted = fit(image, width, height)
        row, column = divmod(place, columns)
        y = gap + row * (height + gap) + (height - fitted.shape[0]) // 2
        x = gap + column * (width + gap) + (width - fitted.shape[1]) // 2
        sheet[y : y + fitted.shape[0], x : x + fitted.shape[1]] = fitted
    return sheet


def labelled_sheet(coco: CocoSet, count: int) -> np.ndarray:
    """A contact sheet of up to ``count`` images of a set with the boxes that it labels; ignored ones are left out."""
    pictures = []
    for sample in typical_samples(coco, count):
        kept = ~sample.ignore
        truth = Detections(sample.boxes[kept], np.ones(int(kept.sum()), np.float32), sample.labels[kept])
        pictures.append(draw_detections(read_image(sample.path), truth, coco.classes, show_scores=False))
    return contact_sheet(pictures)


def fit(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """The image, scaled with its aspect kept to fit into width x height pixels."""
    scale = min(width / image.shape[1], height / image.shape[0])
    size = (max(1, round(image.shape[1] * scale)), max(1, round(image.shape[0] * scale)))
    return cv2.resize(image, size, interpolation=cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR)


def encode_jpeg(image: np.ndarray, quality: int = 88) -> bytes:
    """JPEG bytes of a uint8 BGR image."""
    return _encode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, quality])


def check_picture(path: str | Path) -> None:
    """What ``save_image`` would refuse, before there is a picture. Raises BadInput, or BadConfig for the place."""
    _encode(Path(path).suffix, np.zeros((1, 1, 3), np.uint8), [])
    check_place(path, "file")


def save_image(path: str | Path, image: np.ndarray) -> None:
    """Write a picture whole or not at all; the suffix chooses the format. BadInput for a suffix that has no format."""
    data = _encode(Path(path).suffix, image, [])
    with new_file(path, "wb") as handle:
        handle.write(data)


def _encode(suffix: str, image: np.ndarray, options: list[int]) -> bytes:
    try:
        done, data = cv2.imencode(suffix, image, options)
    except cv2.error as error:
        raise BadInput(f"{suffix or 'no suffix'}: not a picture format that OpenCV writes; use .jpg or .png") from error
    if not done:
        raise BadInput(f"{suffix}: OpenCV could not write a picture of shape {image.shape} in this format")
    return bytes(data.tobytes())
