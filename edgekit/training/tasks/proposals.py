"""Two-stage heads: ThunderNet's region proposal network and region head (Qin et al. 2019, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...models.anchors import VARIANCES, decode
from ...models.detector import Detector
from ...models.thundernet import ThunderMaps, centre_form
from ...recipe import AnchorLossSection, Recipe
from ..anchorloss import AnchorLoss, StepLoss
from ..boxes import corners, pairwise_iou
from ..matching import PADDING, BoxBatch, Matches, box_collate, match_anchors
from .anchors import anchor_responses, per_positive, prepare_focal, total_of
from .base import Collate, Responses, Share, Task, background_and_classes
from .refine import of_no_label

RPN_POSITIVE, RPN_NEGATIVE = 0.7, 0.3  # Faster R-CNN (Ren et al. 2015), section 3.1.2
RPN_VARIANCES = (1.0, 1.0, 1.0, 1.0)  # as ``heads.proposals.propose`` decodes
SAME_REGION = 0.5  # IoU of an anchor's box and a proposal from which on they show the same
BOX_TERMS, CLASS_TERMS = ("rpn_box", "region_box"), ("rpn_class", "region_class")


class ProposalCriterion(nn.Module):
    """Both stages' boxes and classes, each over its positive ones.

    The sections' thresholds are the region head's. Both stages take the hardest negative ones (ThunderNet, section 4.1,
    names OHEM), which also spares a training its random sampling. The objects' own boxes join the proposals, as in
    Faster R-CNN's code: until the first stage finds them, the second would learn nothing.
    head: the region head: (map, boxes [N, R, 4]) -> (location [N, R, 4], confidence [N, R, C + 1])
    """

    def __init__(self, section: AnchorLossSection, weights: Tensor, head: nn.Module) -> None:
        super().__init__()
        self.section = section
        plain = section.model_copy(update={"classification": "cross-entropy", "iou_guided": None, "box": "smooth-l1"})
        self.rpn = AnchorLoss(plain, torch.ones(2), variances=RPN_VARIANCES)
        self.regions = AnchorLoss(section, weights, variances=VARIANCES)
        self.total = total_of(section, BOX_TERMS, CLASS_TERMS)
        self._head = [head]  # the network's own: no part of the criterion's state

    def forward(self, maps: ThunderMaps, batch: BoxBatch, share: Share) -> dict[str, Tensor]:
        objects = BoxBatch(batch.boxes, batch.labels.clamp(max=0))
        found = match_anchors(corners(maps.rpn.anchors), objects, RPN_POSITIVE, RPN_NEGATIVE)
        spared = spared_anchors(maps, batch)
        first = self.rpn(maps.rpn.location, maps.rpn.confidence, maps.rpn.anchors, found, objects, spared)
        rpn = per_positive(first, share)
        regions = per_positive(self._regions(maps, batch), share)
        terms = {"rpn_box": rpn[0], "rpn_class": rpn[1], "region_box": regions[0], "region_class": regions[1]}
        return {**terms, "loss": self.total(terms)}

    def _regions(self, maps: ThunderMaps, batch: BoxBatch) -> StepLoss:
        own = self._head[0](maps.features[0].float(), batch.boxes)
        location = torch.cat([maps.location.float(), own[0]], dim=1)
        confidence = torch.cat([maps.confidence.float(), own[1]], dim=1)
        boxes = torch.cat([maps.proposals, batch.boxes], dim=1).float()
        matches = match_anchors(boxes, batch, self.section.positive, self.section.negative, force=False)
        return self.regions(location, confidence, centre_form(boxes), without_rows(matches, batch), batch)


@torch.no_grad()
def spared_anchors(maps: ThunderMaps, batch: BoxBatch) -> Tensor | None:
    """How likely each anchor of the first stage has found an object of a class that is not labelled in its image
    [N, A, 1]: what the second stage says of the proposals that its box overlaps by SAME_REGION. None: all are labelled.
    """
    likely = of_no_label(maps.confidence, batch)  # [N, R, 1]
    if likely is None:
        return None
    boxes = decode(maps.rpn.location.float(), maps.rpn.anchors, RPN_VARIANCES)
    same = pairwise_iou(boxes, maps.proposals.float()) >= SAME_REGION  # [N, A, R]
    return (same * likely.transpose(1, 2)).amax(-1, keepdim=True)


def without_rows(matches: Matches, batch: BoxBatch) -> Matches:
    """Matches of proposals followed by the batch's rows: rows that are no objects are no regions either."""
    rows = batch.labels.shape[1]
    label = matches.label.clone()
    label[:, -rows:] = torch.where(batch.objects, label[:, -rows:], PADDING)
    return matches._replace(label=label)


class ProposalTask(Task):
    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        return box_collate

    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        section = recipe.anchor_loss
        weights = background_and_classes(section.class_weights, counts)
        return ProposalCriterion(section, weights, model.head)  # type: ignore[arg-type]

    def prepare(self, recipe: Recipe, model: Detector) -> None:
        prepare_focal(recipe, [model.head.confidence], "softmax")  # type: ignore[union-attr, list-item]

    def responses(self, maps: ThunderMaps, model: Detector) -> Responses | None:
        """The first stage's: the second looks at other regions in either network."""
        return anchor_responses(maps.rpn, "softmax")
