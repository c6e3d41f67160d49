"""Mosaic: four images in one (Bochkovskiy et al. 2020, YOLOv4, section 3.3; Lightweight SSD, section 3.4.3)."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from .augment import Boxes, window

MARGIN = 0.2  # the cutting lines keep this share of the sides free


def mosaic(
    parts: Sequence[tuple[np.ndarray, Boxes]], size: tuple[int, ...], rng: np.random.Generator
) -> tuple[np.ndarray, Boxes]:
    """Four images and their boxes -> one of ``size`` (width, height), cut at a random point.

    Each image is brought to the whole size first and gives a random window of its quarter's size, so objects keep the
    scale that they would have alone. Boxes are cut as ``window`` says.
    """
    width, height = size
    x, y = (int(rng.uniform(MARGIN, 1 - MARGIN) * side) for side in (width, height))
    canvas = np.empty((height, width, 3), np.uint8)
    found = []
    quarters = ((0, 0, x, y), (x, 0, width, y), (0, y, x, height), (x, y, width, height))
    for (image, boxes), (x1, y1, x2, y2) in zip(parts, quarters, strict=True):
        whole, scaled = _resized(image, boxes, size)
        left, top = int(rng.integers(0, width - (x2 - x1) + 1)), int(rng.integers(0, height - (y2 - y1) + 1))
        canvas[y1:y2, x1:x2], cut = window(whole, scaled, left, top, x2 - x1, y2 - y1)
        found.append(Boxes(cut.xyxy + np.array([x1, y1, x1, y1], np.float32), cut.labels, cut.ignore))
    return canvas, Boxes(*(np.concatenate(values) for values in zip(*found, strict=True)))


def _resized(image: np.ndarray, boxes: Boxes, size: tuple[int, ...]) -> tuple[np.ndarray, Boxes]:
    scale = np.array([size[0] / image.shape[1], size[1] / image.shape[0]] * 2, np.float32)
    shrinks = scale[0] * scale[1] < 1
    resized = cv2.resize(image, size, interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_LINEAR)
    return resized, Boxes(boxes.xyxy * scale, boxes.labels, boxes.ignore)
