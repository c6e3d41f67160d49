"""The losses of Mobile CenterNet, eq. 3 to 7. All are computed in float32, whatever the network runs in."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, NamedTuple

import numpy as np
import torch
from torch import Tensor

from ..data import stats
from ..models.heads.centernet import CenterMaps
from .regions import Regions, region_loss

PROBABILITY_FLOOR = 1e-4  # predictions are kept in [1e-4, 1 - 1e-4] so that the logarithms stay finite


class CenterBatch(NamedTuple):
    """Targets of a batch; see ``targets.CenterTargets`` for the units.

    heatmap: [N, C, H', W'];  weight: [N, 1, H', W']
    centres: int64 [M, 3], image, row and column of every object of the batch;  size, offset: [M, 2]
    labelled: bool [N, C], the classes that are labelled in each image; None: all in all
    regions: where boxes are learnt, when that is not at the centres
    """

    heatmap: Tensor
    weight: Tensor
    centres: Tensor
    size: Tensor
    offset: Tensor
    labelled: Tensor | None = None
    regions: Regions | None = None


def class_weights(counts: Sequence[int] | Tensor, gamma: float = 0.75, max_weight: float = 10.0) -> Tensor:
    """``data.stats.class_weights``, eq. 4, as float32 [classes]."""
    return torch.from_numpy(stats.class_weights(np.asarray(counts), gamma, max_weight)).float()


def category_balanced_focal(
    heatmap: Tensor, target: Tensor, weights: Tensor, valid: Tensor, alpha: float = 2.0, beta: float = 4.0
) -> Tensor:
    """Sum of eq. 3 over a batch; the caller divides by N, the number of objects.

    heatmap: logits [N, C, H', W'];  target: [N, C, H', W'], 1 exactly at centres
    weights: w_c [C] of eq. 4 (all 1 gives CenterNet's loss);  valid: [N, 1, H', W'], 0 masks a pixel out, or
        [N, C, H', W'], which does so for each class
    """
    probability = heatmap.float().sigmoid().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR)
    centre = target.eq(1)
    positive = (1 - probability) ** alpha * probability.log()
    negative = (1 - target) ** beta * probability**alpha * (1 - probability).log()
    return -(torch.where(centre, positive, negative) * valid * weights.view(1, -1, 1, 1)).sum()


def l1_at_centres(prediction: Tensor, centres: Tensor, target: Tensor) -> Tensor:
    """Sum of |prediction - target| over objects and both components (eq. 5 for the offset, eq. 6 for the size).

    prediction: [N, 2, H', W'];  centres: [M, 3];  target: [M, 2]
    """
    image, row, column = centres.unbind(1)
    return (prediction.float()[image, :, row, column] - target).abs().sum()


class DetectionLoss(torch.nn.Module):
    """Eq. 7: L_k + lambda_size L_size + lambda_off L_off, each divided by the number of objects in the batch.

    l1_mean: "components" also takes the mean over the two components (divides by 2N), as in the code that the published
    lambdas come from; "objects" divides by N as eq. 5 and 6 are printed.
    box, box_weight: of a batch with regions; one term in the place of size and offset
    """

    weights: Tensor

    def __init__(
        self,
        weights: Tensor,
        alpha: float = 2.0,
        beta: float = 4.0,
        size: float = 0.1,
        offset: float = 1.0,
        l1_mean: Literal["components", "objects"] = "components",
        box: str = "giou",
        box_weight: float = 1.0,
    ) -> None:
        super().__init__()
        self.register_buffer("weights", weights)
        self.alpha, self.beta = alpha, beta
        self.size, self.offset = size, offset
        self.components = 2 if l1_mean == "components" else 1
        self.box, self.box_weight = box, box_weight

    def forward(self, maps: CenterMaps, batch: CenterBatch, objects: Tensor) -> dict[str, Tensor]:
        """The named terms, unweighted by the lambdas, and their weighted sum under ``loss``.

        objects: N, a scalar; the caller sees to it that it is not 0
        """
        valid = batch.weight
        if batch.labelled is not None:
            valid = valid * batch.labelled[:, :, None, None]
        focal = category_balanced_focal(maps.heatmap, batch.heatmap, self.weights, valid, self.alpha, self.beta)
        terms = {"focal": focal / objects, **self._boxes(maps, batch, objects)}
        weights = {"size": self.size, "offset": self.offset, "box": self.box_weight}
        terms["loss"] = sum((weights.get(name, 1) * term for name, term in terms.items()), start=focal.new_zeros(()))
        return terms

    def _boxes(self, maps: CenterMaps, batch: CenterBatch, objects: Tensor) -> dict[str, Tensor]:
        if batch.regions is not None:
            return {"box": region_loss(self.box, maps.size, maps.offset, batch.regions) / objects}
        return {
            "size": l1_at_centres(maps.size, batch.centres, batch.size) / (objects * self.components),
            "offset": l1_at_centres(maps.offset, batch.centres, batch.offset) / (objects * self.components),
        }
