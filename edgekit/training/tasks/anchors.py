"""One-stage anchor heads: SSD and its kin (Liu et al. 2016, section 2.2; Lightweight SSD, section 3.4)."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

from torch import Tensor, nn

from ...models.anchors import AnchorMaps, bounded, decode
from ...models.detector import Detector
from ...models.heads.anchor import Activation, foreground
from ...recipe import AnchorLossSection, Recipe
from ..anchorloss import AnchorLoss, StepLoss
from ..boxes import corners
from ..classification import BalancedSum, PlainSum
from ..matching import BoxBatch, box_collate, match_anchors
from .base import Collate, Responses, Share, Task, background_and_classes

PRIOR = 0.01  # RetinaNet's pi (Lin et al. 2017, section 3.3): what focal loss starts from


def total_of(section: AnchorLossSection, boxes: Sequence[str], classes: Sequence[str]) -> nn.Module:
    """How the named terms become one loss: RefineDetLite's eq. 6 if ``balanced``, else its eq. 1."""
    if section.balanced:
        return BalancedSum({**dict.fromkeys(boxes, True), **dict.fromkeys(classes, False)})
    return PlainSum({**dict.fromkeys(boxes, section.box_weight), **dict.fromkeys(classes, 1.0)})


def per_positive(step: StepLoss, share: Share) -> tuple[Tensor, Tensor]:
    """Both sums of a step, divided by the positive anchors."""
    positives = share(step.positives.float())
    return step.box / positives, step.classes / positives


class AnchorCriterion(nn.Module):
    """L = (L_conf + L_loc) / N, N the matched anchors (SSD, eq. 1). Terms: box, class."""

    def __init__(self, section: AnchorLossSection, weights: Tensor, activation: Activation) -> None:
        super().__init__()
        self.section = section
        self.step = AnchorLoss(section, weights, activation)
        self.total = total_of(section, ["box"], ["class"])

    def forward(self, maps: AnchorMaps, batch: BoxBatch, share: Share) -> dict[str, Tensor]:
        matches = match_anchors(corners(maps.anchors), batch, self.section.positive, self.section.negative)
        step = self.step(maps.location, maps.confidence, maps.anchors, matches, batch)
        box, classes = per_positive(step, share)
        terms = {"box": box, "class": classes}
        return {**terms, "loss": self.total(terms)}


class AnchorTask(Task):
    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        return box_collate

    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        section = recipe.anchor_loss
        weights = background_and_classes(section.class_weights, counts)
        return AnchorCriterion(section, weights, model.activation)  # type: ignore[arg-type]

    def responses(self, maps: AnchorMaps, model: Detector) -> Responses | None:
        return anchor_responses(maps, model.activation)  # type: ignore[arg-type]

    def prepare(self, recipe: Recipe, model: Detector) -> None:
        prepare_focal(recipe, model.head.confidence, model.activation)  # type: ignore[union-attr, arg-type]


def anchor_responses(maps: AnchorMaps, activation: Activation) -> Responses:
    """Class logits and boxes of every anchor; how likely it is one: 1 - p(background), or the best class."""
    likely = foreground(maps.confidence.float(), activation)
    likely = likely.sum(-1) if activation == "softmax" else likely.amax(-1)
    logits = maps.confidence if activation == "softmax" else maps.confidence[..., 1:]
    return Responses(logits, activation, decode(bounded(maps.location.float()), maps.anchors), likely)


def prepare_focal(recipe: Recipe, predictors: Iterable[nn.Module], activation: Activation) -> None:
    """Let the predictors of classes that focal loss will teach start from its prior; nothing with another loss."""
    if recipe.anchor_loss.classification == "focal":
        start_from_prior(predictors, len(recipe.classes) + 1, activation)


def start_from_prior(
    predictors: Iterable[nn.Module], outputs: int, activation: Activation, prior: float = PRIOR
) -> None:
    """Biases such that every anchor begins with ``prior`` for an object: without it the many background anchors make
    focal loss leap in the first steps (RetinaNet, section 4.1). outputs: of an anchor, the background first.

    A predictor that ends in a batch normalisation has it set there; the background's logit alone with "softmax".
    """
    foreground_logit = math.log(prior / (1 - prior))
    for predictor in predictors:
        last = [m for m in predictor.modules() if isinstance(m, nn.Conv2d | nn.BatchNorm2d)][-1]
        bias = last.bias
        assert bias is not None
        table = bias.data.view(-1, outputs)
        table.zero_()
        if activation == "softmax":
            table[:, 0] = -foreground_logit + math.log(outputs - 1)
        else:
            table[:, 1:] = foreground_logit
