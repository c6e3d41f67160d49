"""The loss of one step of any anchor head: which anchors count, and what their boxes and classes cost."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..models.anchors import VARIANCES, bounded, decode
from ..models.heads.anchor import Activation
from ..recipe import AnchorLossSection
from ..runtime.errors import BadConfig
from .boxes import iou, regression_loss
from .classification import cross_entropy, focal, iou_guided
from .matching import BoxBatch, Matches, hardest


class StepLoss(NamedTuple):
    """Sums over the anchors of a batch, to be divided by the number of positive ones."""

    box: Tensor
    classes: Tensor
    positives: Tensor


class AnchorLoss(nn.Module):
    """SSD's loss (Liu et al. 2016, section 2.2, eq. 1-3) and what later papers put in the place of its parts.

    weights: of the background and the classes [C + 1] (RefineDetLite, eq. 5)
    variances: of the coding of boxes, see ``models.anchors``
    """

    weights: Tensor

    def __init__(
        self,
        section: AnchorLossSection,
        weights: Tensor,
        activation: Activation = "softmax",
        variances: tuple[float, ...] = VARIANCES,
    ) -> None:
        super().__init__()
        if section.iou_guided is not None and activation != "softmax":
            raise BadConfig(
                "anchor_loss.iou_guided is a loss of softmax scores (RefineDetLite, eq. 2), and this head has sigmoid "
                "scores: take it out of the recipe"
            )
        self.section, self.variances = section, variances
        self.activation: Activation = activation
        self.register_buffer("weights", weights, persistent=False)

    def forward(
        self,
        location: Tensor,
        confidence: Tensor,
        anchors: Tensor,
        matches: Matches,
        batch: BoxBatch,
        spared: Tensor | None = None,
    ) -> StepLoss:
        """location: [N, A, 4];  confidence: [N, A, C + 1];  anchors: [A, 4] or [N, A, 4], cx, cy, w, h.

        spared: [N, A or 1, C], see ``cross_entropy``; None takes the classes that are not labelled
        """
        location, logits = location.float(), confidence.float()
        anchors = anchors.float().expand_as(location)
        positive, boxes = matches.positive, matches.boxes(batch)
        box = regression_loss(
            self.section.box, location[positive], anchors[positive], boxes[positive], self.variances
        ).sum()
        label = matches.label.clamp(min=0)
        spared = batch.unlabelled if spared is None else spared
        counted = self._counted(logits, label, matches, spared)
        overlap = None if self.section.iou_guided is None else self._overlap(location, anchors, boxes)
        cost = self._class_loss(logits, label, overlap, spared)
        return StepLoss(box, cost[counted].sum(), positive.sum())

    def _class_loss(self, logits: Tensor, label: Tensor, overlap: Tensor | None, spared: Tensor | None) -> Tensor:
        """overlap: IoU of each predicted box with its object [N, A], for the loss that it guides"""
        section = self.section
        if section.classification == "focal":
            return focal(logits, label, self.activation, self.weights, section.alpha, section.gamma, spared)
        if section.iou_guided is not None and overlap is not None:
            guide = section.iou_guided
            return iou_guided(logits, label, overlap, self.weights, guide.alpha, guide.beta, spared)
        return cross_entropy(logits, label, self.activation, self.weights, spared)

    @torch.no_grad()
    def _overlap(self, location: Tensor, anchors: Tensor, boxes: Tensor) -> Tensor:
        return iou(decode(bounded(location, self.variances), anchors, self.variances), boxes)

    def _counted(self, logits: Tensor, label: Tensor, matches: Matches, spared: Tensor | None) -> Tensor:
        """Anchors whose classes count [N, A]: all of focal loss; else positive ones and the hardest negative ones."""
        if self.section.classification == "focal":
            return matches.label >= 0
        ones = torch.ones_like(self.weights)
        difficulty = cross_entropy(logits.detach(), label, self.activation, ones, spared)
        wanted = (self.section.mining * matches.positive.sum(1)).long()
        return matches.positive | hardest(difficulty, matches.label == 0, wanted)
