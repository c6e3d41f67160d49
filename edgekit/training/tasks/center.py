"""Keypoint heads: Mobile CenterNet, eq. 1-7."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...data.dataset import Item, stack_canvases, stack_labelled
from ...models.detector import Detector
from ...models.heads.centernet import CenterMaps
from ...recipe import Recipe
from ..losses import CenterBatch, DetectionLoss, class_weights
from ..targets import CenterTargets, Radius, batch_targets, center_targets
from .base import Collate, Responses, Share, Task


class CenterCollate:
    """Items -> (images uint8 [N, 3, H, W], CenterBatch); runs in the loader's workers. stride: of the heat maps."""

    def __init__(self, classes: int, stride: int, radius: Radius) -> None:
        self.classes, self.stride, self.radius = classes, stride, radius

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, CenterBatch]:
        targets = batch_targets([self._targets(item) for item in items])
        return stack_canvases(items), targets._replace(labelled=stack_labelled(items))

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

    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        return CenterCollate(len(recipe.classes), model.backbone.stride, recipe.loss.radius)  # type: ignore[arg-type]

    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        loss = recipe.loss
        weights = class_weights(counts, loss.gamma, loss.max_weight)
        return CenterCriterion(
            weights if loss.balanced else torch.ones_like(weights),
            loss.alpha,
            loss.beta,
            loss.size,
            loss.offset,
            loss.l1_mean,
        )

    def responses(self, maps: CenterMaps, model: Detector) -> Responses | None:
        return None
