"""Keypoint heads: Mobile CenterNet, eq. 1-7."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...data.dataset import Item, stack_canvases, stack_labelled
from ...models.detector import Detector
from ...models.heads.centernet import CenterMaps
from ...recipe import Recipe
from ..losses import CenterBatch, DetectionLoss, class_weights
from ..matching import box_collate
from ..regions import Regions, regions
from ..targets import CenterTargets, Radius, batch_targets, center_targets
from .aligned import AlignedCriterion
from .base import Collate, Responses, Share, Task

FIRST_SIZE = 5.0  # units of the stride
FIRST_SCORE = 0.001  # of every pixel and class: nearly all of ten thousand pixels are background


class CenterCollate:
    """Items -> (images uint8 [N, 3, H, W], CenterBatch); runs in the loader's workers. stride: of the heat maps.

    spread: of ``regions``; None learns boxes at centres
    """

    def __init__(self, classes: int, stride: int, radius: Radius, spread: float | None = None) -> None:
        self.classes, self.stride, self.radius, self.spread = classes, stride, radius, spread

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, CenterBatch]:
        targets = batch_targets([self._targets(item) for item in items])
        return stack_canvases(items), targets._replace(labelled=stack_labelled(items), regions=self._regions(items))

    def _regions(self, items: Sequence[Item]) -> Regions | None:
        if self.spread is None:
            return None
        boxes = [item.boxes.xyxy[~item.boxes.ignore] / self.stride for item in items]
        height, width = (side // self.stride for side in items[0].canvas.shape[:2])
        return regions(boxes, (height, width), self.spread)

    def _targets(self, item: Item) -> CenterTargets:
        boxes = item.boxes
        height, width = item.canvas.shape[:2]
        return center_targets(
            boxes.xyxy, boxes.labels, boxes.ignore, self.classes, (width, height), self.stride, self.radius
        )


class CenterCriterion(DetectionLoss):
    """Eq. 7 of a batch; N of eq. 3, 5, 6 is the number of its objects."""

    def forward(self, maps: CenterMaps, batch: CenterBatch, share: Share) -> dict[str, Tensor]:  # type: ignore[override]
        here = torch.tensor(float(len(batch.centres)), device=batch.heatmap.device)
        return super().forward(maps, batch, share(here))


class CenterTask(Task):
    section = "loss"
    unread = ("box",)

    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        if recipe.loss.aligned is not None:
            return box_collate
        loss, stride = recipe.loss, model.backbone.stride
        spread = None if loss.regions is None else loss.regions.spread
        return CenterCollate(len(recipe.classes), stride, loss.radius, spread)  # type: ignore[arg-type]

    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        loss = recipe.loss
        weights = class_weights(counts, loss.gamma, loss.max_weight) if loss.balanced else torch.ones(len(counts))
        if loss.aligned is not None:
            return AlignedCriterion(loss.aligned, weights, model.backbone.stride)  # type: ignore[arg-type]
        return CenterCriterion(
            weights,
            loss.alpha,
            loss.beta,
            loss.size,
            loss.offset,
            loss.l1_mean,
            *(() if loss.regions is None else (loss.regions.box, loss.regions.weight)),
        )

    def prepare(self, recipe: Recipe, model: Detector) -> None:
        """An overlap teaches nothing while boxes have no area, so boxes of regions do not start from size 0."""
        if recipe.loss.regions is not None or recipe.loss.aligned is not None:
            nn.init.constant_(model.head.size[-1].bias, FIRST_SIZE)  # type: ignore[union-attr, index]
        if recipe.loss.aligned is not None:
            nn.init.constant_(model.head.heatmap[-1].bias, math.log(FIRST_SCORE))  # type: ignore[union-attr, index]

    def responses(self, maps: CenterMaps, model: Detector) -> Responses | None:
        return None
