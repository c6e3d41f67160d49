"""What a CenterNet head should predict for the boxes of one image (Mobile CenterNet, section 3.1, eq. 1, 2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from .losses import CenterBatch

Radius = Literal["centernet", "cornernet"]


@dataclass(frozen=True)
class CenterTargets:
    """Targets of one image at the output stride R.

    heatmap: float32 [C, H', W'], eq. 2; exactly 1 at the centre pixel of every object, less elsewhere
    centres: int64 [M, 2], row and column of each object's centre pixel
    size: float32 [M, 2], width and height in units of R
    offset: float32 [M, 2], x and y of p/R - floor(p/R), eq. 5
    weight: float32 [H', W'], 0 where an ignored box lies, 1 elsewhere and at every centre pixel
    """

    heatmap: np.ndarray
    centres: np.ndarray
    size: np.ndarray
    offset: np.ndarray
    weight: np.ndarray


def gaussian_radius(height: float, width: float, min_iou: float = 0.7, reading: Radius = "centernet") -> float:
    """How far the corners of a box may move, on each axis, for the paper's "object size-adaptive" deviation.

    "cornernet": CornerNet's definition (section 3.1 there), solved exactly. It is the smallest of three roots: both
        corners outwards, both inwards, or both the same way. Any box whose corners stay within it overlaps the given
        one by at least ``min_iou``.
    "centernet": what CenterNet's code computes, and so what the published weights of its losses belong to. It comes
        from CornerNet's first release, which solved the quadratics with a wrong denominator and, in two of three cases,
        for the wrong root; of its three values the smallest is always 4 min_iou times the exact outward one. So it is
        about three times as wide and promises nothing: with corners that far inside, a square keeps an IoU of only 0.2.
    """
    total, area = height + width, height * width
    outwards = math.sqrt((min_iou * total) ** 2 + 4 * min_iou * (1 - min_iou) * area) - min_iou * total
    if reading == "centernet":
        return outwards
    inwards = (total - math.sqrt(total**2 - 4 * (1 - min_iou) * area)) / 4
    shifted = (total - math.sqrt(total**2 - 4 * (1 - min_iou) / (1 + min_iou) * area)) / 2
    return min(outwards / (4 * min_iou), inwards, shifted)


def center_targets(
    boxes: np.ndarray,
    labels: np.ndarray,
    ignore: np.ndarray,
    classes: int,
    size: tuple[int, int],
    stride: int = 4,
    radius: Radius = "centernet",
) -> CenterTargets:
    """Targets for boxes [M, 4] (xyxy, input pixels), labels [M], ignore [M]; ``size`` is the input's width, height.

    An ignored box is neither an object nor background, for any class: its pixels weigh 0 in the focal loss. The centre
    pixel of an object that lies in it counts all the same.
    """
    width, height = size[0] // stride, size[1] // stride
    heatmap = np.zeros((classes, height, width), np.float32)
    weight = np.ones((height, width), np.float32)
    for x1, y1, x2, y2 in boxes[ignore] / stride:
        weight[max(int(y1), 0) : math.ceil(y2), max(int(x1), 0) : math.ceil(x2)] = 0
    kept = boxes[~ignore] / stride
    wh = kept[:, 2:] - kept[:, :2]
    points = (kept[:, :2] + kept[:, 2:]) / 2  # eq. 1, whose second component is misprinted
    cells = np.clip(np.floor(points).astype(np.int64), 0, (width - 1, height - 1))
    for (x, y), (w, h), label in zip(cells, wh, labels[~ignore], strict=True):
        draw_gaussian(heatmap[label], int(x), int(y), int(gaussian_radius(math.ceil(h), math.ceil(w), reading=radius)))
        weight[y, x] = 1
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


def batch_targets(targets: Sequence[CenterTargets]) -> CenterBatch:
    """Stack the targets of several images; objects carry the index of their image."""
    centres = [np.insert(t.centres, 0, i, axis=1) for i, t in enumerate(targets)]
    return CenterBatch(
        heatmap=torch.from_numpy(np.stack([t.heatmap for t in targets])),
        weight=torch.from_numpy(np.stack([t.weight for t in targets]))[:, None],
        centres=torch.from_numpy(np.concatenate(centres)),
        size=torch.from_numpy(np.concatenate([t.size for t in targets])),
        offset=torch.from_numpy(np.concatenate([t.offset for t in targets])),
    )
