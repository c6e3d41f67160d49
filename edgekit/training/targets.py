"""What a CenterNet head should predict for the boxes of one image (Mobile CenterNet, section 3.1, eq. 1, 2)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True)
class CenterTargets:
    """Targets of one image at the output stride R.

    heatmap: float32 [C, H', W'], eq. 2
    centres: int64 [M, 2], row and column of each object's centre pixel
    size: float32 [M, 2], width and height in units of R
    offset: float32 [M, 2], x and y of p/R - floor(p/R), eq. 5
    weight: float32 [H', W'], 0 where an ignored box lies, 1 elsewhere
    """

    heatmap: np.ndarray
    centres: np.ndarray
    size: np.ndarray
    offset: np.ndarray
    weight: np.ndarray


def gaussian_radius(height: float, width: float, min_iou: float = 0.7) -> float:
    """How far both corners of a box may move and still overlap it with at least ``min_iou`` (CornerNet, section 3.1).

    The smallest of the three cases: both corners outwards, both inwards, one each. The quadratics are those of the
    overlap condition; CornerNet's released code solves two of them with a wrong denominator, which the field kept:
    so do we, because the published loss weights belong to it.
    """
    cases = (
        (1.0, height + width, width * height * (1 - min_iou) / (1 + min_iou)),
        (4.0, 2 * (height + width), (1 - min_iou) * width * height),
        (4 * min_iou, -2 * min_iou * (height + width), (min_iou - 1) * width * height),
    )
    (_, b1, c1), (a2, b2, c2), (a3, b3, c3) = cases
    r1 = (b1 + math.sqrt(max(b1 * b1 - 4 * c1, 0.0))) / 2
    r2 = (b2 + math.sqrt(max(b2 * b2 - 4 * a2 * c2, 0.0))) / 2
    r3 = (b3 + math.sqrt(max(b3 * b3 - 4 * a3 * c3, 0.0))) / 2
    return min(r1, r2, r3)


def center_targets(
    boxes: np.ndarray, labels: np.ndarray, ignore: np.ndarray, classes: int, size: tuple[int, int], stride: int = 4
) -> CenterTargets:
    """Targets for boxes [M, 4] (xyxy, input pixels), labels [M], ignore [M]; ``size`` is the input's width, height."""
    width, height = size[0] // stride, size[1] // stride
    heatmap = np.zeros((classes, height, width), np.float32)
    weight = np.ones((height, width), np.float32)
    for x1, y1, x2, y2 in boxes[ignore] / stride:
        weight[max(int(y1), 0) : math.ceil(y2), max(int(x1), 0) : math.ceil(x2)] = 0
    kept = boxes[~ignore] / stride
    wh = kept[:, 2:] - kept[:, :2]
    points = (kept[:, :2] + kept[:, 2:]) / 2
    cells = np.clip(np.floor(points).astype(np.int64), 0, (width - 1, height - 1))
    for (x, y), (w, h), label in zip(cells, wh, labels[~ignore], strict=True):
        radius = max(0, int(gaussian_radius(math.ceil(h), math.ceil(w))))
        draw_gaussian(heatmap[label], int(x), int(y), radius)
        weight[y, x] = 1  # an object inside an ignored region is still an object
    return CenterTargets(
        heatmap, cells[:, ::-1].copy(), wh.astype(np.float32), (points - cells).astype(np.float32), weight
    )


def draw_gaussian(plane: np.ndarray, x: int, y: int, radius: int) -> None:
    """Eq. 2 on one class plane [H', W'], sigma = (2 radius + 1) / 6; overlapping objects take the larger value."""
    sigma = (2 * radius + 1) / 6
    height, width = plane.shape
    left, right = max(x - radius, 0), min(x + radius + 1, width)
    top, bottom = max(y - radius, 0), min(y + radius + 1, height)
    ys, xs = np.ogrid[top - y : bottom - y, left - x : right - x]
    patch = plane[top:bottom, left:right]
    np.maximum(patch, np.exp(-(xs * xs + ys * ys) / (2 * sigma * sigma)).astype(np.float32), out=patch)
