"""Mosaic: four images in one (Bochkovskiy et al. 2020, YOLOv4, section 3.3; Lightweight SSD, section 3.4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..runtime.preprocess import Preprocess
from .augment import MIN_VISIBLE, Boxes, window

MARGIN = 0.2  # the cutting lines keep this share of the sides free


def mosaic(
    parts: Sequence[tuple[np.ndarray, Boxes]],
    preprocess: Preprocess,
    rng: np.random.Generator,
    min_visible: float = MIN_VISIBLE,
) -> tuple[np.ndarray, Boxes]:
    """Four BGR images and their boxes -> one of ``preprocess.size``, still BGR, cut at a random point.

    Each image is brought to the network's input as in validation, by the same mode and interpolation, and gives a
    random window of its quarter's size: objects keep the scale and the shape that they would have alone. A letterbox's
    window lies in the picture, or holds all of it where the picture is the smaller one, so that a quarter shows no more
    of the border than it must; the border has its ``pad_value``. Boxes are cut as ``window`` says.
    """
    width, height = preprocess.size
    bgr = Preprocess.from_dict({**preprocess.to_dict(), "colour": "bgr"})  # colours are swapped when the mosaic is made
    x, y = (int(rng.uniform(MARGIN, 1 - MARGIN) * side) for side in (width, height))
    canvas = np.empty((height, width, 3), np.uint8)
    found = []
    quarters = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    for (image, boxes), (x1, y1, x2, y2) in zip(parts, quarters, strict=True):
        whole, where = bgr.canvas(image)
        placed = Boxes(where.to_canvas(boxes.xyxy), boxes.labels, boxes.ignore)
        left = _start(where.left, round(where.scale_x * where.width), width, x2 - x1, rng)
        top = _start(where.top, round(where.scale_y * where.height), height, y2 - y1, rng)
        canvas[y1:y2, x1:x2], cut = window(whole, placed, left, top, x2 - x1, y2 - y1, min_visible)
        found.append(Boxes(cut.xyxy + np.array([x1, y1, x1, y1], np.float32), cut.labels, cut.ignore))
    return canvas, Boxes(*(np.concatenate(values) for values in zip(*found, strict=True)))


def _start(border: int, picture: int, side: int, length: int, rng: np.random.Generator) -> int:
    """Where a window of ``length`` begins on one axis of a canvas of ``side``: within the picture, or around it.

    border, picture: where the picture begins there and how long it is, in pixels
    """
    ends = border, border + picture - length
    return int(rng.integers(max(min(ends), 0), min(max(ends), side - length) + 1))
