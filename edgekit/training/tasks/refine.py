"""Two-step anchor heads: RefineDet, RefineDet++ and RefineDetLite."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...models.anchors import AnchorMaps, RefineMaps, bounded
from ...models.detector import Detector
from ...models.heads.refine import PlainODM, second_anchors
from ...recipe import AnchorLossSection, Recipe
from ..anchorloss import AnchorLoss
from ..boxes import corners
from ..matching import BoxBatch, Matches, box_collate, match_anchors
from .anchors import anchor_responses, per_positive, prepare_focal, total_of
from .base import Collate, Responses, Share, Task, background_and_classes

BOX_TERMS, CLASS_TERMS = ("arm_box", "odm_box"), ("arm_class", "odm_class")


class RefineCriterion(nn.Module):
    """RefineDet++'s eq. 1, RefineDetLite's eq. 1 or 6: both steps' boxes and classes, each over its positive anchors.

    The first step finds objects of no class: cross-entropy and hard negatives, whatever the second one is asked for.
    theta: of the negative anchor filtering;  steps: of the regression; both as the network itself has them
    """

    def __init__(self, section: AnchorLossSection, weights: Tensor, theta: float, steps: int = 2) -> None:
        super().__init__()
        self.section, self.theta, self.steps = section, theta, steps
        plain = section.model_copy(update={"classification": "cross-entropy", "iou_guided": None})
        self.arm = AnchorLoss(plain, torch.ones(2))
        self.odm = AnchorLoss(section, weights)
        self.total = total_of(section, BOX_TERMS, CLASS_TERMS)

    def forward(self, maps: RefineMaps, batch: BoxBatch, share: Share) -> dict[str, Tensor]:
        section = self.section
        objects = BoxBatch(batch.boxes, batch.labels.clamp(max=0))
        first = match_anchors(corners(maps.anchors), objects, section.positive, section.negative)
        starts = taught_anchors(maps, self.steps)
        second = match_anchors(corners(starts), batch, section.positive, section.negative)
        second = without_easy_negatives(second, maps.arm_scores, self.theta)
        spared = of_no_label(maps.odm_scores, batch)
        arm = per_positive(self.arm(maps.arm_boxes, maps.arm_scores, maps.anchors, first, objects, spared), share)
        odm = per_positive(self.odm(maps.odm_boxes, maps.odm_scores, starts, second, batch), share)
        terms = {"arm_box": arm[0], "arm_class": arm[1], "odm_box": odm[0], "odm_class": odm[1]}
        return {**terms, "loss": self.total(terms)}


def taught_anchors(maps: RefineMaps, steps: int) -> Tensor:
    """Where the second offsets start, see ``second_anchors``: without a gradient, and no anchor beyond all bounds."""
    return second_anchors(maps._replace(arm_boxes=bounded(maps.arm_boxes.float())), steps).detach()


def of_no_label(confidence: Tensor, batch: BoxBatch) -> Tensor | None:
    """How likely each place shows an object of a class that is not labelled in its image [N, A, 1]; None where all are.

    confidence: logits [N, A, C + 1], background first, of a stage that knows the classes; there is no gradient to it
    """
    if batch.unlabelled is None:
        return None
    likely = confidence.detach().float().softmax(-1)[..., 1:] * batch.unlabelled
    return likely.sum(-1, keepdim=True).clamp(max=1)


def without_easy_negatives(matches: Matches, arm_scores: Tensor, theta: float) -> Matches:
    """Negative anchor filtering (RefineDet++, section III-B): an easy negative is neither positive nor negative in the
    second step.
    """
    return matches._replace(label=torch.where(easy_negatives(arm_scores, theta), -1, matches.label))


def easy_negatives(arm_scores: Tensor, theta: float) -> Tensor:
    """Anchors that the first step takes for background with more than ``theta`` [N, A].

    arm_scores: logits [N, A, 2], background first
    """
    return arm_scores.detach().float().softmax(-1)[..., 0] > theta


class RefineTask(Task):
    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        return box_collate

    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        section = recipe.anchor_loss
        weights = background_and_classes(section.class_weights, counts)
        return RefineCriterion(section, weights, model.theta, model.steps)  # type: ignore[arg-type]

    def prepare(self, recipe: Recipe, model: Detector) -> None:
        odm = model.odm.head if isinstance(model.odm, PlainODM) else model.odm
        prepare_focal(recipe, odm.confidence, "softmax")  # type: ignore[union-attr, arg-type]

    def responses(self, maps: RefineMaps, model: Detector) -> Responses | None:
        """The second step's, on the anchors as this network refined them, which are not differentiated through.

        Anchors that the first step filters have no foreground: their second step is never taught, and never read.
        """
        starts = taught_anchors(maps, model.steps)  # type: ignore[arg-type]
        found = anchor_responses(AnchorMaps(maps.odm_boxes, maps.odm_scores, starts, maps.features), "softmax")
        easy = easy_negatives(maps.arm_scores, model.theta)  # type: ignore[arg-type]
        return found._replace(foreground=found.foreground.masked_fill(easy, 0))
