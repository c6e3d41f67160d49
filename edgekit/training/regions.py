"""Boxes learnt all over the middle of objects, not at one pixel of each: TTFNet (Liu et al., AAAI 2020), section 3.3.

A network that starts from nothing learns boxes faster so. The head and its decoding stay CenterNet's: size and offset
stand for the same box at every pixel of a region, so that an offset reaches further than to the next pixel.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from .boxes import BOX_LOSSES

SIGMAS = 6  # a Gaussian is cut off where it ends as in eq. 2 of Mobile CenterNet: sigma is a sixth of its extent


class Regions(NamedTuple):
    """Where boxes are learnt, and which.

    places: int64 [P, 3], image, row and column;  boxes: float32 [P, 4] xyxy, from the place, in units of the stride
    share: float32 [P], how much a place counts; the places of an object count 1 together
    """

    places: Tensor
    boxes: Tensor
    share: Tensor


def regions(boxes: Sequence[np.ndarray], shape: tuple[int, int], spread: float) -> Regions:
    """Regions of a batch: for each image its objects' boxes [M, 4], xyxy in units of the stride; shape: H', W'.

    spread: the part of an object's width and height that its region takes; weights fall off as a Gaussian. A pixel
        that two objects claim is the smaller one's, but every object keeps its centre pixel, unless that is a smaller
        one's centre too.
    """
    parts = [_of_image(each, shape, spread) for each in boxes]
    places = np.concatenate([np.insert(places, 0, i, axis=1) for i, (places, _, _) in enumerate(parts)])
    return Regions(
        torch.from_numpy(places),
        torch.from_numpy(np.concatenate([part[1] for part in parts])),
        torch.from_numpy(np.concatenate([part[2] for part in parts])),
    )


def _of_image(boxes: np.ndarray, shape: tuple[int, int], spread: float) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(row and column [P, 2], boxes from there [P, 4], share [P]) of one image."""
    owner, value = _owners(boxes, shape, spread)
    rows, columns = np.nonzero(owner >= 0)
    own = owner[rows, columns]
    weight = value[rows, columns]
    whole = np.bincount(own, weight, minlength=len(boxes))[own]
    origin = np.stack([columns, rows, columns, rows], 1)
    return (
        np.stack([rows, columns], 1),
        (boxes.reshape(-1, 4)[own] - origin).astype(np.float32),
        (weight / whole).astype(np.float32),
    )


def _owners(boxes: np.ndarray, shape: tuple[int, int], spread: float) -> tuple[np.ndarray, np.ndarray]:
    """Which object each pixel of [H', W'] belongs to, -1 for none, and the value of its Gaussian there."""
    owner, value = np.full(shape, -1), np.zeros(shape)
    extent = boxes[:, 2:] - boxes[:, :2]
    centres = np.floor((boxes[:, :2] + boxes[:, 2:]) / 2).astype(np.int64)
    centres = np.clip(centres, 0, (shape[1] - 1, shape[0] - 1))
    by_size = np.argsort(-extent.prod(1), kind="stable")
    for i in by_size:  # the smallest last: it takes what it wants
        (x, y), (w, h) = centres[i], (spread * extent[i] / 2).astype(np.int64)
        window = np.s_[max(y - h, 0) : y + h + 1, max(x - w, 0) : x + w + 1]
        ys, xs = np.ogrid[
            window[0].start - y : min(y + h + 1, shape[0]) - y, window[1].start - x : min(x + w + 1, shape[1]) - x
        ]
        owner[window] = i
        value[window] = np.exp(-((xs * SIGMAS / (2 * w + 1)) ** 2 + (ys * SIGMAS / (2 * h + 1)) ** 2) / 2)
    for i in by_size:
        x, y = centres[i]
        owner[y, x], value[y, x] = i, 1
    return owner, value


def region_loss(kind: str, size: Tensor, offset: Tensor, found: Regions) -> Tensor:
    """Sum over objects of a loss of decoded boxes; TTFNet's is "giou" (eq. 6 there). kind: one of BOX_LOSSES.

    size, offset: [N, 2, H', W'], as the head gives them
    """
    image, row, column = found.places.unbind(1)
    extent = size.float()[image, :, row, column]
    centre = offset.float()[image, :, row, column]
    boxes = torch.cat([centre - extent / 2, centre + extent / 2], dim=1)
    return (BOX_LOSSES[kind](boxes, found.boxes) * found.share).sum()
