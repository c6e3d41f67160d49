"""Which anchor is to find which object: the boxes of a batch, and SSD's matching (Liu et al. 2016, section 2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data.dataset import Item, stack_canvases, stack_labelled
from .boxes import area, intersection, pairwise_iou

PADDING, IGNORED = -1, -2  # labels of rows that are no objects
COVERED = 0.5  # share of an anchor's area in an ignored box, from which on it is no background either
TOUCHING = 1e-6  # an object overlaps its anchor by more than this


class BoxBatch(NamedTuple):
    """The boxes of a batch, as many rows an image as the image with the most boxes has.

    boxes: [N, G, 4] xyxy in input pixels;  labels: int64 [N, G], the class, or PADDING, or IGNORED for a box that is
    neither an object nor background
    labelled: bool [N, C], the classes that are labelled in each image; None: all in all
    """

    boxes: Tensor
    labels: Tensor
    labelled: Tensor | None = None

    @property
    def objects(self) -> Tensor:
        """[N, G], true where a row is an object."""
        return self.labels >= 0

    @property
    def unlabelled(self) -> Tensor | None:
        """[N, 1, C], 1 for a class that is not labelled in the image, 0 for the others; None where all are."""
        return None if self.labelled is None else (~self.labelled).float().unsqueeze(1)


def box_collate(items: Sequence[Item]) -> tuple[Tensor, BoxBatch]:
    """Items -> (images uint8 [N, 3, H, W], BoxBatch); runs in the loader's workers."""
    rows = max([1, *(len(item.boxes.labels) for item in items)])
    boxes = np.zeros((len(items), rows, 4), np.float32)
    labels = np.full((len(items), rows), PADDING, np.int64)
    for i, item in enumerate(items):
        count = len(item.boxes.labels)
        boxes[i, :count] = item.boxes.xyxy
        labels[i, :count] = np.where(item.boxes.ignore, IGNORED, item.boxes.labels)
    return stack_canvases(items), BoxBatch(torch.from_numpy(boxes), torch.from_numpy(labels), stack_labelled(items))


class Matches(NamedTuple):
    """label: int64 [N, A], 0 background, class + 1 for an object, -1 for neither;  truth: int64 [N, A], the row of the
    batch's boxes that an anchor overlaps most, or has to find;  iou: [N, A], with that row; 0 without any
    """

    label: Tensor
    truth: Tensor
    iou: Tensor

    @property
    def positive(self) -> Tensor:
        return self.label > 0

    def boxes(self, batch: BoxBatch) -> Tensor:
        """The box of each anchor's row [N, A, 4]; an empty one where the row is no object."""
        boxes = torch.where(batch.objects.unsqueeze(-1), batch.boxes, 0.0)
        return boxes.gather(1, self.truth.unsqueeze(-1).expand(-1, -1, 4))


@torch.no_grad()
def match_anchors(
    anchors: Tensor, batch: BoxBatch, positive: float = 0.5, negative: float = 0.5, force: bool = True
) -> Matches:
    """SSD's matching (Liu et al. 2016, section 2.2; RefineDet++, section IV-D).

    anchors: [A, 4] or [N, A, 4], xyxy
    An anchor is positive for the object that it overlaps most, from an IoU of ``positive`` on; background below
    ``negative``; neither in between, and neither if it lies in an ignored box.
    force: before that, every object gets the anchor that it overlaps most, each anchor at most one object, by falling
        overlap (as SSD's code)
    """
    overlap = pairwise_iou(anchors.expand(len(batch.boxes), -1, 4), batch.boxes)  # [N, A, G]
    overlap = overlap.masked_fill(~batch.objects.unsqueeze(1), 0.0)
    best, truth = overlap.max(dim=2)
    chosen = best >= positive
    if force:
        forced = _best_of_each(overlap.transpose(1, 2))
        truth = torch.where(forced >= 0, forced, truth)
        chosen = chosen | (forced >= 0)
        best = overlap.gather(2, truth.unsqueeze(2)).squeeze(2)
    neither = (best >= negative) | _covered(anchors, batch)
    label = torch.where(chosen, batch.labels.gather(1, truth) + 1, torch.where(neither, -1, 0))
    return Matches(label, truth, best)


def _best_of_each(overlap: Tensor) -> Tensor:
    """Overlaps [N, G, A] -> the row that each anchor is the best of [N, A], or -1: bipartite, by falling overlap.

    A round joins each row and anchor that are one another's best among those left, which is what falling overlap comes
    to: a few rounds instead of one for every row. Of rows that overlap an anchor equally the first has it.
    """
    n, rows, anchors = overlap.shape
    forced = torch.full((n, anchors), -1, dtype=torch.int64, device=overlap.device)
    image, row = (overlap.amax(2) > TOUCHING).nonzero(as_tuple=True)  # padding touches nothing
    while len(row):
        left = overlap[image, row].masked_fill(forced[image] >= 0, 0.0)
        value, anchor = left.max(dim=1)
        keep = value > TOUCHING
        image, row, value, anchor, left = (each[keep] for each in (image, row, value, anchor, left))
        most = left.new_zeros(n, anchors).scatter_reduce(0, image.unsqueeze(1).expand_as(left), left, "amax")
        wins = value == most[image, anchor]
        place = image[wins] * anchors + anchor[wins]
        first = forced.new_full((n * anchors,), rows).scatter_reduce(0, place, row[wins], "amin")
        wins &= first[image * anchors + anchor] == row
        forced[image[wins], anchor[wins]] = row[wins]
        image, row = image[~wins], row[~wins]
    return forced


def _covered(anchors: Tensor, batch: BoxBatch) -> Tensor:
    """[N, A], true for anchors that lie in an ignored box with at least COVERED of their area."""
    ignored = batch.labels == IGNORED
    if not ignored.any():  # most batches: the overlaps below are a third of the matching
        return torch.zeros(len(batch.boxes), anchors.shape[-2], dtype=torch.bool, device=anchors.device)
    boxes = torch.where(ignored.unsqueeze(-1), batch.boxes, 0.0)
    every = anchors.expand(len(batch.boxes), -1, 4)
    common = intersection(every.unsqueeze(2), boxes.unsqueeze(1)).amax(dim=2)
    return common >= COVERED * area(every).clamp(min=TOUCHING)


@torch.no_grad()
def hardest(loss: Tensor, eligible: Tensor, count: Tensor) -> Tensor:
    """Online hard example mining (SSD, section 2.2): the ``count`` [N] eligible anchors of each image with the highest
    loss, as a mask. loss, eligible: [N, A]; among equal losses the earlier anchor goes first.
    """
    ranked = loss.masked_fill(~eligible, -torch.inf).sort(dim=1, descending=True, stable=True).indices
    order = torch.arange(loss.shape[1], device=loss.device).expand_as(ranked)
    rank = torch.empty_like(ranked).scatter_(1, ranked, order)
    return eligible & (rank < count.unsqueeze(1))
