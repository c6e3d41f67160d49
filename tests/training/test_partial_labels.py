"""What images cost in which some classes are not labelled: for every family of heads, worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from edgekit.data.augment import Boxes
from edgekit.data.dataset import Item
from edgekit.models.anchors import AnchorMaps, RefineMaps
from edgekit.models.heads.centernet import CenterMaps
from edgekit.models.heads.yolo import YOLOMaps
from edgekit.models.thundernet import ThunderMaps
from edgekit.recipe import AnchorLossSection, YoloLossSection
from edgekit.runtime.preprocess import Preprocess
from edgekit.training.classification import focal, iou_guided
from edgekit.training.losses import CenterBatch, DetectionLoss
from edgekit.training.matching import BoxBatch, box_collate
from edgekit.training.tasks.anchors import AnchorCriterion
from edgekit.training.tasks.center import CenterCollate, CenterCriterion
from edgekit.training.tasks.proposals import ProposalCriterion, spared_anchors
from edgekit.training.tasks.refine import RefineCriterion
from edgekit.training.tasks.yolo import YoloCriterion, no_labelled_object

from .test_matching import batch_of
from .test_tasks import ANCHORS, OBJECT, TARGET, alone, yolo_head

LN2, LN3, LN1_5 = math.log(2), math.log(3), math.log(1.5)
PARTIAL = torch.tensor([[False, True]])  # of two classes the first is not labelled


def grad_of(value: Tensor, of: Tensor) -> Tensor:
    (gradient,) = torch.autograd.grad(value, of, retain_graph=True)
    return gradient


# -- center -----------------------------------------------------------------------------------------------------------
def center_batch(labelled: Tensor | None) -> CenterBatch:
    """One object, of the second class, in a 2x3 map."""
    heatmap = torch.zeros(1, 2, 2, 3)
    heatmap[0, 1, 1, 2] = 1
    centre, both = torch.tensor([[0, 1, 2]]), torch.zeros(1, 2)
    return CenterBatch(heatmap, torch.ones(1, 1, 2, 3), centre, both, both, labelled)


def test_heat_maps_of_unlabelled_classes_cost_nothing() -> None:
    """At probability 0.5 every pixel of a class costs 0.25 ln 2, centre or not: six of twelve are left."""
    heatmap = torch.zeros(1, 2, 2, 3, requires_grad=True)
    maps = CenterMaps(heatmap, torch.zeros(1, 2, 2, 3), torch.zeros(1, 2, 2, 3), torch.zeros(1, 1, 2, 3))
    loss = DetectionLoss(torch.ones(2))
    assert loss(maps, center_batch(None), torch.tensor(1.0))["focal"].item() == pytest.approx(12 * 0.25 * LN2)
    focal_term = loss(maps, center_batch(PARTIAL), torch.tensor(1.0))["focal"]
    assert focal_term.item() == pytest.approx(6 * 0.25 * LN2)
    gradient = grad_of(focal_term, heatmap)
    assert not gradient[:, 0].any()
    assert gradient[:, 1].abs().min() > 0


# -- softmax and sigmoid anchors --------------------------------------------------------------------------------------
def anchor_maps(logits: Tensor) -> AnchorMaps:
    return AnchorMaps(torch.zeros(1, 5, 4), logits, ANCHORS, ())


def test_ssd_takes_unlabelled_classes_for_background_where_no_object_is() -> None:
    """Anchors 1 and 4 find the object, whose class is known: ln 3. The others are nothing or the first class: 2/3."""
    logits = torch.zeros(1, 5, 3, requires_grad=True)
    batch = TARGET._replace(labelled=PARTIAL)
    terms = AnchorCriterion(AnchorLossSection(), torch.ones(3), "softmax")(anchor_maps(logits), batch, alone)
    assert terms["class"].item() == pytest.approx((2 * LN3 + 3 * LN1_5) / 2, rel=1e-6)
    gradient = grad_of(terms["class"], logits)[0]
    background = [0, 2, 3]
    assert not gradient[background, 1].any()
    # of ln(sum e^z) - ln(e^z0 + e^z1): 1/3 - 1/2 for the background, 1/3 for the labelled class; over two positives
    torch.testing.assert_close(gradient[background, 0], torch.full((3,), (1 / 3 - 1 / 2) / 2))
    torch.testing.assert_close(gradient[background, 2], torch.full((3,), 1 / 3 / 2))
    torch.testing.assert_close(gradient[[1, 4]], torch.tensor([[1 / 3, 1 / 3, -2 / 3]] * 2) / 2)


def test_what_the_network_knows_of_an_unlabelled_class_is_left_alone() -> None:
    """An anchor with 0.98 for the unlabelled class costs -ln 0.99 in place of -ln 0.01, and is no hard negative."""
    logits = torch.zeros(1, 5, 3)
    logits[0, 2] = torch.tensor([0.01, 0.98, 0.01]).log()
    logits[0, 0] = torch.tensor([0.2, 0.2, 0.6]).log()
    one = AnchorLossSection(mining=0.5)  # two positives, so one negative
    terms = AnchorCriterion(one, torch.ones(3), "softmax")(
        anchor_maps(logits), TARGET._replace(labelled=PARTIAL), alone
    )
    assert terms["class"].item() == pytest.approx((2 * LN3 - math.log(0.4)) / 2, rel=1e-5)
    every = AnchorLossSection(mining=3)
    terms = AnchorCriterion(every, torch.ones(3), "softmax")(
        anchor_maps(logits), TARGET._replace(labelled=PARTIAL), alone
    )
    assert terms["class"].item() == pytest.approx((2 * LN3 - math.log(0.4) - math.log(0.99) + LN1_5) / 2, rel=1e-5)


def test_sigmoid_anchors_leave_unlabelled_classes_out() -> None:
    logits = torch.zeros(1, 5, 3, requires_grad=True)
    batch = TARGET._replace(labelled=PARTIAL)
    for section, each in (
        (AnchorLossSection(), [LN2] * 2),
        (AnchorLossSection(classification="focal"), [0.25 * 0.25 * LN2, 0.75 * 0.25 * LN2]),
    ):
        terms = AnchorCriterion(section, torch.ones(3), "sigmoid")(anchor_maps(logits), batch, alone)
        assert terms["class"].item() == pytest.approx((2 * each[0] + 3 * each[1]) / 2, rel=1e-6)
        gradient = grad_of(terms["class"], logits)[0]
        assert not gradient[:, 1].any()
        assert gradient[:, 2].abs().min() > 0


def test_focal_loss_on_softmax() -> None:
    """p_t of a background anchor is 2/3: 0.75 (1/3)^2 ln 1.5."""
    logits = torch.zeros(1, 2, 3, requires_grad=True)
    spared = torch.tensor([[[1.0, 0.0]]])
    loss = focal(logits, torch.tensor([[0, 2]]), "softmax", torch.ones(3), spared=spared)
    assert loss[0].tolist() == pytest.approx([0.75 / 9 * LN1_5, 0.25 * 4 / 9 * LN3], rel=1e-5)
    assert grad_of(loss[0, 0], logits)[0, 0, 1].item() == 0


def test_iou_guided_labels_of_unlabelled_classes_are_the_backgrounds() -> None:
    """An IoU of 1/2: y = (7/8, 1/16, 1/16) becomes (15/16, 0, 1/16), against (2/3, -, 1/3)."""
    logits = torch.zeros(1, 1, 3, requires_grad=True)
    loss = iou_guided(
        logits, torch.tensor([[0]]), torch.tensor([[0.5]]), torch.ones(3), spared=torch.tensor([[[1.0, 0.0]]])
    )
    expected = 15 / 16 * math.log(15 / 16 * 3 / 2) + 1 / 16 * math.log(1 / 16 * 3)
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    gradient = grad_of(loss.sum(), logits)[0, 0]
    assert gradient[1].item() == 0
    assert gradient[2].item() == pytest.approx(1 / 3 - 1 / 16, rel=1e-5)


# -- heads that know one class, object --------------------------------------------------------------------------------
def test_refinedets_first_step_asks_the_second() -> None:
    """Its second step gives every anchor 1/3 for the unlabelled class: background costs -ln(1/2 + 1/2 * 1/3)."""
    scores, odm = torch.zeros(1, 5, 2, requires_grad=True), torch.zeros(1, 5, 3, requires_grad=True)
    maps = RefineMaps(torch.zeros(1, 5, 4), scores, torch.zeros(1, 5, 4), odm, ANCHORS)
    criterion = RefineCriterion(AnchorLossSection(), torch.ones(3), 0.99)
    terms = criterion(maps, TARGET._replace(labelled=PARTIAL), alone)
    assert terms["arm_class"].item() == pytest.approx((2 * LN2 + 3 * LN1_5) / 2, rel=1e-6)
    assert terms["odm_class"].item() == pytest.approx((2 * LN3 + 3 * LN1_5) / 2, rel=1e-6)
    assert torch.autograd.grad(terms["arm_class"], odm, retain_graph=True, allow_unused=True)[0] is None
    assert not grad_of(terms["odm_class"], odm)[0, [0, 2, 3], 1].any()
    # 1/2 - (1/2 * 1/3) / (2/3) = 1/4 for the object's logit, in place of 1/2; over two positives
    torch.testing.assert_close(grad_of(terms["arm_class"], scores)[0, [0, 2, 3], 1], torch.full((3,), 1 / 4 / 2))


def test_refinedets_first_step_keeps_what_the_second_takes_for_an_unlabelled_object() -> None:
    scores, odm = torch.zeros(1, 5, 2, requires_grad=True), torch.zeros(1, 5, 3)
    odm[0, 0, 1] = 30
    maps = RefineMaps(torch.zeros(1, 5, 4), scores, torch.zeros(1, 5, 4), odm, ANCHORS)
    criterion = RefineCriterion(AnchorLossSection(), torch.ones(3), 0.99)
    gradient = grad_of(criterion(maps, TARGET._replace(labelled=PARTIAL), alone)["arm_class"], scores)
    assert gradient[0, 0].abs().max().item() < 1e-6
    assert gradient[0, 2, 1].item() == pytest.approx(1 / 8)
    full = grad_of(criterion(maps, TARGET, alone)["arm_class"], scores)
    assert full[0, 0, 1].item() == pytest.approx(1 / 4)


class ZeroHead(nn.Module):
    def forward(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
        return torch.zeros(*boxes.shape[:2], 4), torch.zeros(*boxes.shape[:2], 3)


def thunder_maps(scores: Tensor, regions: Tensor) -> ThunderMaps:
    """Two proposals, of which the first is anchor 2."""
    rpn = AnchorMaps(torch.zeros(1, 5, 4), scores, ANCHORS, ())
    proposals = torch.tensor([[[20.0, 0, 30, 10], [0, 0, 5, 5]]])
    return ThunderMaps(rpn, proposals, torch.zeros(1, 2, 4), regions, (torch.zeros(1, 1, 1, 1),))


def test_thundernets_first_stage_asks_the_second_where_it_looked() -> None:
    scores, regions = torch.zeros(1, 5, 2, requires_grad=True), torch.zeros(1, 2, 3, requires_grad=True)
    maps, batch = thunder_maps(scores, regions), TARGET._replace(labelled=PARTIAL)
    spared = spared_anchors(maps, batch)
    assert spared is not None
    torch.testing.assert_close(spared[0, :, 0], torch.tensor([0, 0, 1 / 3, 0, 0]))
    assert spared_anchors(maps, TARGET) is None
    terms = ProposalCriterion(AnchorLossSection(), torch.ones(3), ZeroHead())(maps, batch, alone)
    # anchor 1 is positive, anchor 4 neither at 0.5; the object itself is a region, both proposals are background
    assert terms["rpn_class"].item() == pytest.approx(LN2 + 2 * LN2 + LN1_5, rel=1e-6)
    assert terms["region_class"].item() == pytest.approx(LN3 + 2 * LN1_5, rel=1e-6)
    assert torch.autograd.grad(terms["rpn_class"], regions, retain_graph=True, allow_unused=True)[0] is None
    assert not grad_of(terms["region_class"], regions)[0, :, 1].any()


def test_yolo_by_hand() -> None:
    """Logits 0. Two assigned predictions with one class each; 77 others that are no object, or one of the first class:
    -ln(1 - 1/2 (1 - 1/2)) = ln 4/3, with the slope 1/4 * 1/2 / (3/4).
    """
    fine, coarse = (torch.zeros(1, 14, h, w, requires_grad=True) for h, w in ((4, 8), (2, 4)))
    criterion = YoloCriterion(YoloLossSection(), torch.ones(2), yolo_head())
    terms = criterion(YOLOMaps((fine, coarse), ()), OBJECT._replace(labelled=PARTIAL), alone)
    assert terms["class"].item() == pytest.approx(2 * LN2, rel=1e-6)
    assert terms["object"].item() == pytest.approx(2 * LN2 + 77 * math.log(4 / 3), rel=1e-5)
    assert terms["box"].item() == pytest.approx(2 * (2 - 400 / 2048) * 2 * LN2, rel=1e-5)
    for predictions in (fine, coarse):
        gradient = grad_of(terms["loss"], predictions).reshape(2, 7, -1)  # of two priors: x, y, w, h, o, c0, c1
        assert not gradient[:, 5].any()
        assert gradient[:, 6].any()
    background = grad_of(terms["object"], coarse).reshape(2, 7, -1)[1, 4]
    torch.testing.assert_close(background, torch.full((8,), 1 / 6))


@pytest.mark.parametrize("logit", [-40.0, -2.0, 0.0, 3.0, 40.0])
def test_objectness_between_full_labels_and_none(logit: float) -> None:
    """q = 0 is cross-entropy; q = 1 costs nothing and teaches nothing; no value overflows."""
    z = torch.tensor([logit] * 3, requires_grad=True)
    q = torch.tensor([0.0, 0.9, 1.0])
    cost = no_labelled_object(z, q)
    gradient = grad_of(cost.sum(), z)
    torch.testing.assert_close(cost[0], nn.functional.softplus(torch.tensor(logit)))
    exact = -math.log1p(-0.1 / (1 + math.exp(-logit)))
    assert cost[1].item() == pytest.approx(exact, rel=1e-4, abs=1e-6)
    assert (cost[2].item(), gradient[2].item()) == (0, 0)
    assert 0 <= gradient[1].item() <= gradient[0].item()
    assert gradient.isfinite().all()


# -- every family -----------------------------------------------------------------------------------------------------
def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


def randn(*shape: int, of: torch.Generator) -> Tensor:
    return torch.randn(*shape, generator=of)


TWO_IMAGES = batch_of([(10, 0, 20, 10, 1)], [(0, 0, 10, 10, 0), (20, 0, 30, 10, 1)])._replace(
    labelled=torch.tensor([[False, True], [True, True]])
)


def centers() -> tuple[nn.Module, Any, Any]:
    of = generator()
    heatmap = torch.zeros(2, 2, 2, 3)
    heatmap[0, 1, 1, 2] = heatmap[1, 0, 0, 0] = heatmap[1, 1, 0, 1] = 1
    centres = torch.tensor([[0, 1, 2], [1, 0, 0], [1, 0, 1]])
    maps = CenterMaps(*(randn(2, 2, 2, 3, of=of) for _ in range(4)))
    both = torch.ones(3, 2)
    batch = CenterBatch(heatmap, torch.ones(2, 1, 2, 3), centres, both, both, TWO_IMAGES.labelled)
    return CenterCriterion(torch.tensor([1.0, 3.0])), maps, batch


def anchors() -> tuple[nn.Module, Any, Any]:
    of = generator()
    maps = AnchorMaps(randn(2, 5, 4, of=of), randn(2, 5, 3, of=of), ANCHORS, ())
    return AnchorCriterion(AnchorLossSection(), torch.tensor([1.0, 2, 3]), "softmax"), maps, TWO_IMAGES


def refined() -> tuple[nn.Module, Any, Any]:
    of = generator()
    arm_boxes, arm_scores, odm_boxes, odm_scores = (randn(2, 5, width, of=of) for width in (4, 2, 4, 3))
    maps = RefineMaps(arm_boxes, arm_scores, odm_boxes, odm_scores, ANCHORS)
    return RefineCriterion(AnchorLossSection(), torch.ones(3), 0.99), maps, TWO_IMAGES


def proposals() -> tuple[nn.Module, Any, Any]:
    of = generator()
    rpn = AnchorMaps(randn(2, 5, 4, of=of) / 10, randn(2, 5, 2, of=of), ANCHORS, ())
    regions = torch.tensor([[20.0, 0, 30, 10], [0, 0, 9, 9]]).expand(2, 2, 4)
    maps = ThunderMaps(rpn, regions, randn(2, 2, 4, of=of), randn(2, 2, 3, of=of), (torch.zeros(2, 1, 1, 1),))
    return ProposalCriterion(AnchorLossSection(), torch.ones(3), ZeroHead()), maps, TWO_IMAGES


def yolo() -> tuple[nn.Module, Any, Any]:
    of = generator()
    maps = YOLOMaps((randn(2, 14, 4, 8, of=of), randn(2, 14, 2, 4, of=of)), ())
    return YoloCriterion(YoloLossSection(), torch.tensor([1.0, 2.0]), yolo_head()), maps, TWO_IMAGES


def image_of(value: Any, i: int) -> Any:
    """The i-th image of maps or of a batch."""
    if isinstance(value, CenterBatch):
        mine = value.centres[:, 0] == i
        centres = value.centres[mine].clone()
        centres[:, 0] = 0
        rest = (value.heatmap[i : i + 1], value.weight[i : i + 1], centres, value.size[mine], value.offset[mine])
        return CenterBatch(*rest, None if value.labelled is None else value.labelled[i : i + 1])
    if value is ANCHORS or value is None:
        return value
    if isinstance(value, Tensor):
        return value[i : i + 1]
    parts = [image_of(part, i) for part in value]
    return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)


FAMILIES = [centers, anchors, refined, proposals, yolo]


@pytest.mark.parametrize("family", FAMILIES)
def test_two_processes_with_an_image_each_equal_one_with_both(family: Callable[[], tuple[nn.Module, Any, Any]]) -> None:
    """Sums are divided by a count over all processes; gradients are then averaged over them."""
    criterion, maps, batch = family()
    counts: list[Tensor] = []

    def whole(count: Tensor) -> Tensor:
        counts.append(count)
        return count.clamp(min=1)

    together = criterion(maps, batch, whole)
    shares = []
    for i in range(2):
        remaining = iter(counts)
        shares.append(criterion(image_of(maps, i), image_of(batch, i), lambda _, r=remaining: next(r) / 2))
    for name, value in together.items():
        torch.testing.assert_close(torch.stack([share[name] for share in shares]).mean(), value, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("family", FAMILIES)
def test_labels_of_every_class_are_the_loss_as_it_was(family: Callable[[], tuple[nn.Module, Any, Any]]) -> None:
    criterion, maps, batch = family()
    every = criterion(maps, batch._replace(labelled=torch.ones(2, 2, dtype=torch.bool)), alone)
    plain = criterion(maps, batch._replace(labelled=None), alone)
    partial = criterion(maps, batch, alone)
    for name in plain:
        torch.testing.assert_close(every[name], plain[name])
    assert partial["loss"] < plain["loss"]


# -- batches ----------------------------------------------------------------------------------------------------------
def item(labelled: list[bool] | None) -> Item:
    canvas, placement = Preprocess((16, 16)).canvas(np.zeros((16, 16, 3), np.uint8))
    boxes = Boxes(np.array([[2, 2, 8, 8]], np.float32), np.array([1]), np.array([False]))
    return Item(canvas, boxes, 1, placement, None if labelled is None else np.array(labelled))


def test_batches_say_what_is_labelled_in_each_image() -> None:
    for collate in (box_collate, CenterCollate(2, 4, "centernet")):
        assert collate([item(None), item(None)])[1].labelled is None
        mixed = collate([item([False, True]), item(None)])[1].labelled
        assert mixed is not None
        assert mixed.tolist() == [[False, True], [True, True]]
        assert mixed.dtype == torch.bool
    assert BoxBatch(torch.zeros(1, 1, 4), torch.zeros(1, 1), PARTIAL).unlabelled is not None
