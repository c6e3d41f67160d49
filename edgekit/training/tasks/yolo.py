"""YOLOv3's head, whatever the neck: YOLOv3, PRN, EFM, PANet (Redmon and Farhadi 2018, section 2; CSPNet, section 4)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.anchors import bounded
from ...models.detector import Detector
from ...models.heads.yolo import YOLOHead, YOLOMaps, yolo_boxes
from ...recipe import Recipe, YoloLossSection
from ..boxes import BOX_LOSSES, area, intersection, pairwise_iou
from ..losses import class_weights
from ..matching import COVERED, IGNORED, BoxBatch, box_collate
from .base import Collate, Responses, Share, Task


class Assignment(NamedTuple):
    """One entry for each pair of an object and a prediction that has to find it.

    image, row: int64 [M], where the prediction is in ``YOLOHead.rows``;  truth: int64 [M], the batch's row of boxes
    """

    image: Tensor
    row: Tensor
    truth: Tensor


def assign(head: YOLOHead, shapes: Sequence[tuple[int, int]], batch: BoxBatch) -> Assignment:
    """YOLOv3's assignment (section 2.1): to each object the one prior of the best overlap, at the cell of its centre.

    Priors and objects are compared by size alone. A prior that two scales share predicts at both. The published code
    also compares with priors that no scale uses, and so gives up the smallest objects of the tiny networks; we do not.
    shapes: height and width of each scale's map
    """
    image, truth = batch.objects.nonzero(as_tuple=True)
    boxes = batch.boxes[image, truth]
    used = sorted({index for mask in head.anchors.masks for index in mask})
    priors = boxes.new_tensor([head.anchors.boxes[index] for index in used])
    best = boxes.new_tensor(used).long()[_shape_iou(boxes, priors).argmax(1)]
    parts: list[Assignment] = []
    start = 0
    for stride, mask, (height, width) in zip(head.strides, head.anchors.masks, shapes, strict=True):
        cells = ((boxes[:, :2] + boxes[:, 2:]) / (2 * stride)).floor().long()
        x, y = cells[:, 0].clamp(0, width - 1), cells[:, 1].clamp(0, height - 1)
        for place, index in enumerate(mask):
            mine = best == index
            row = start + (y * width + x) * len(mask) + place
            parts.append(Assignment(image[mine], row[mine], truth[mine]))
        start += height * width * len(mask)
    return Assignment(*(torch.cat(each) for each in zip(*parts, strict=True)))


def _shape_iou(boxes: Tensor, priors: Tensor) -> Tensor:
    """IoU of boxes [M, 4] and priors [P, 2] (width, height) as if they had one centre [M, P]."""
    zero = priors.new_zeros(())
    own = torch.cat([zero.expand(len(boxes), 2), boxes[:, 2:] - boxes[:, :2]], dim=1)
    return pairwise_iou(own, torch.cat([zero.expand(len(priors), 2), priors], dim=1))


class YoloCriterion(nn.Module):
    """Section 2.1: boxes and classes of the assigned predictions, objectness of all; summed, per image as in darknet.

    Terms: box, object, class. Predictions that overlap an object by more than ``ignore`` without having been assigned
    to one, or that lie in an ignored box, cost no objectness. Centres are learnt by cross-entropy of the shift within
    the cell, which has the gradient of darknet's code; width and height by half the squared error of their logarithms;
    both are weighted by 2 - area / image area, which favours small objects as darknet does.
    """

    weights: Tensor

    def __init__(self, section: YoloLossSection, weights: Tensor, head: YOLOHead) -> None:
        super().__init__()
        self.section = section
        self.register_buffer("weights", weights, persistent=False)
        self._head = [head]  # the network's own: no part of the criterion's state

    def forward(self, maps: YOLOMaps, batch: BoxBatch, share: Share) -> dict[str, Tensor]:
        head, section = self._head[0], self.section
        rows, priors = head.rows(maps).float(), head.priors(maps)
        shapes = [(int(x.shape[2]), int(x.shape[3])) for x in maps.predictions]
        found = assign(head, shapes, batch)
        images = share(torch.tensor(float(len(rows)), device=rows.device))
        mine, prior = rows[found.image, found.row], priors[found.row]
        boxes, labels = batch.boxes[found.image, found.truth], batch.labels[found.image, found.truth]
        stride, (height, width) = head.strides[0], shapes[0]
        pixels = float(stride * stride * height * width)
        target = F.one_hot(labels, head.classes).float()
        classes = F.binary_cross_entropy_with_logits(mine[:, 5:], target, reduction="none") * self.weights
        if batch.labelled is not None:
            classes = classes * batch.labelled[found.image]
        terms = {
            "box": self._box(mine, prior, boxes, pixels).sum() / images,
            "object": self._objectness(rows, priors, found, batch) / images,
            "class": classes.sum() / images,
        }
        terms["loss"] = (
            section.box_weight * terms["box"]
            + section.object_weight * terms["object"]
            + section.class_weight * terms["class"]
        )
        return terms

    def _box(self, rows: Tensor, priors: Tensor, boxes: Tensor, pixels: float) -> Tensor:
        if self.section.box != "squared":
            return BOX_LOSSES[self.section.box](taught_boxes(rows, priors), boxes)
        centre = (boxes[:, :2] + boxes[:, 2:]) / 2
        extent = (boxes[:, 2:] - boxes[:, :2]).clamp(min=1e-3)
        shift = ((centre - priors[:, :2]) / priors[:, 2:3]).clamp(0, 1)
        xy = F.binary_cross_entropy_with_logits(rows[:, :2], shift, reduction="none")
        wh = (rows[:, 2:4] - (extent / priors[:, 3:]).log()).square() / 2
        return (2 - area(boxes) / pixels) * (xy + wh).sum(1)

    def _objectness(self, rows: Tensor, priors: Tensor, found: Assignment, batch: BoxBatch) -> Tensor:
        target = torch.zeros_like(rows[..., 4])
        target[found.image, found.row] = 1
        with torch.no_grad():
            excused = self._excused(taught_boxes(rows, priors.unsqueeze(0)), batch)
        counted = (target > 0) | ~excused
        cost = F.binary_cross_entropy_with_logits(rows[..., 4], target, reduction="none")
        if batch.unlabelled is not None:
            hidden = (rows[..., 5:].detach().sigmoid() * batch.unlabelled).amax(-1)
            cost = torch.where(target > 0, cost, no_labelled_object(rows[..., 4], hidden))
        return cost[counted].sum()

    def _excused(self, predicted: Tensor, batch: BoxBatch) -> Tensor:
        """[N, A]: predictions that find an object although it is not theirs, or lie in an ignored box."""
        objects = batch.objects.unsqueeze(1)
        near = ((pairwise_iou(predicted, batch.boxes) > self.section.ignore) & objects).any(2)
        inside = intersection(predicted.unsqueeze(2), batch.boxes.unsqueeze(1)) >= COVERED * area(predicted).unsqueeze(
            2
        )
        return near | (inside & (batch.labels == IGNORED).unsqueeze(1)).any(2)


def taught_boxes(rows: Tensor, priors: Tensor) -> Tensor:
    """``yolo_boxes``, of which none is beyond all bounds."""
    return yolo_boxes(bounded(rows, (1.0, 1.0, 1.0, 1.0)), priors)


def no_labelled_object(objectness: Tensor, hidden: Tensor) -> Tensor:
    """-log(1 - o (1 - q)): there is no object, or one of a class that is not labelled here; q = 0 is cross-entropy.

    objectness: logits of o [N, A];  hidden: q [N, A], how likely an object there is of such a class
    """
    return F.softplus(objectness) - F.softplus(objectness + hidden.log())


class YoloTask(Task):
    section = "yolo_loss"

    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        return box_collate

    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        section, weights = recipe.yolo_loss, torch.ones(len(counts))
        if section.class_weights is not None:
            weights = class_weights(counts, section.class_weights.gamma, section.class_weights.max_weight)
        return YoloCriterion(section, weights, model.head)  # type: ignore[arg-type]

    def responses(self, maps: YOLOMaps, model: Detector) -> Responses | None:
        head = model.head
        assert isinstance(head, YOLOHead)
        rows, priors = head.rows(maps).float(), head.priors(maps).unsqueeze(0)
        return Responses(rows[..., 4:], "sigmoid", taught_boxes(rows, priors), rows[..., 4].sigmoid())
