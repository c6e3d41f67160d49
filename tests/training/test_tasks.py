"""What each family of heads is taught, on small tables worked out by hand; and that every detector belongs to one."""

from __future__ import annotations

import functools
import math
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from edgekit.models import zoo
from edgekit.models.anchors import AnchorMaps, RefineMaps, encode
from edgekit.models.detector import Detector, host_postprocess
from edgekit.models.heads.anchor import foreground
from edgekit.models.heads.yolo import AnchorSet, YOLOHead, YOLOMaps
from edgekit.models.thundernet import ThunderMaps
from edgekit.recipe import AnchorLossSection, IouGuidedSection, Recipe, YoloLossSection, load_recipe, recipe_names
from edgekit.runtime.errors import BadConfig
from edgekit.runtime.postprocess import Postprocess
from edgekit.training.anchorloss import AnchorLoss
from edgekit.training.matching import PADDING, BoxBatch, Matches, match_anchors
from edgekit.training.tasks import TASKS, task_of
from edgekit.training.tasks.anchors import AnchorCriterion, anchor_responses, start_from_prior
from edgekit.training.tasks.proposals import ProposalCriterion, without_rows
from edgekit.training.tasks.refine import RefineCriterion, without_easy_negatives
from edgekit.training.tasks.yolo import YoloCriterion, assign

from .test_matching import ANCHORS as BOXES
from .test_matching import batch_of

LN2, LN3 = math.log(2), math.log(3)
ANCHORS = torch.cat([(BOXES[:, :2] + BOXES[:, 2:]) / 2, BOXES[:, 2:] - BOXES[:, :2]], dim=1)  # cx, cy, w, h
TARGET = batch_of([(10, 0, 20, 10, 1)])  # anchor 1 exactly, anchor 4 by a half; class 1 of 2


def alone(count: Tensor) -> Tensor:
    """The share of a single process."""
    return count.clamp(min=1)


def anchor_maps(location: Tensor | None = None) -> AnchorMaps:
    """Five anchors that know nothing: logits 0 for background and two classes."""
    location = torch.zeros(1, 5, 4) if location is None else location
    return AnchorMaps(location, torch.zeros(1, 5, 3), ANCHORS, ())


# -- SSD --------------------------------------------------------------------------------------------------------------
# anchor 4 is 20 wide with its centre 5 left of the object's: 5 / 20 / 0.1 = 2.5 and ln(10 / 20) / 0.2
BOX_4 = (2.5 - 0.5) + (LN2 / 0.2 - 0.5)


@pytest.mark.parametrize(("mining", "negatives"), [(0.5, 1), (1.0, 2), (3.0, 3)])
def test_ssd_by_hand(mining: float, negatives: int) -> None:
    """Two positive anchors; of the three others at most ``mining`` times as many; each costs ln 3."""
    criterion = AnchorCriterion(AnchorLossSection(mining=mining), torch.ones(3), "softmax")
    terms = criterion(anchor_maps(), TARGET, alone)
    assert terms["box"].item() == pytest.approx(BOX_4 / 2, rel=1e-5)
    assert terms["class"].item() == pytest.approx((2 + negatives) * LN3 / 2, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(terms["box"].item() + terms["class"].item())


def test_ssd_weighs_classes_and_boxes() -> None:
    section = AnchorLossSection(box_weight=2.0)
    terms = AnchorCriterion(section, torch.tensor([1.0, 5.0, 7.0]), "softmax")(anchor_maps(), TARGET, alone)
    assert terms["class"].item() == pytest.approx((2 * 7 + 3) * LN3 / 2, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(2 * BOX_4 / 2 + terms["class"].item(), rel=1e-5)


def test_focal_loss_counts_every_anchor() -> None:
    section = AnchorLossSection(classification="focal", mining=0.5)
    terms = AnchorCriterion(section, torch.ones(3), "softmax")(anchor_maps(), TARGET, alone)
    expected = (2 * 0.25 + 3 * 0.75) * (2 / 3) ** 2 * LN3
    assert terms["class"].item() == pytest.approx(expected / 2, rel=1e-5)


def test_the_iou_guided_loss_looks_at_predicted_boxes() -> None:
    """Eq. 2-4: anchor 4's own box has an IoU of 1/2, so its label is 1 - 0.25 / 2 and its weight 1 / (1 - 0.9 / 2)."""
    guided = AnchorLossSection.model_validate({"iou_guided": {}, "mining": 1e-9})
    terms = AnchorCriterion(guided, torch.ones(3), "softmax")(anchor_maps(), TARGET, alone)
    entropy = 0.875 * math.log(0.875) + 2 * 0.0625 * math.log(0.0625)
    assert terms["class"].item() == pytest.approx((LN3 + (LN3 + entropy) / 0.55) / 2, rel=1e-5)
    perfect = anchor_maps(encode(TARGET.boxes[:, :1].expand(1, 5, 4), ANCHORS))
    terms = AnchorCriterion(guided, torch.ones(3), "softmax")(perfect, TARGET, alone)
    assert terms["class"].item() == pytest.approx(LN3, rel=1e-4)


def test_a_batch_without_objects_costs_nothing_by_mining_and_something_by_focal_loss() -> None:
    empty = batch_of([])
    mined = AnchorCriterion(AnchorLossSection(), torch.ones(3), "softmax")(anchor_maps(), empty, alone)
    assert mined["loss"].item() == 0
    focal = AnchorCriterion(AnchorLossSection(classification="focal"), torch.ones(3), "softmax")
    assert focal(anchor_maps(), empty, alone)["class"].item() == pytest.approx(5 * 0.75 * (2 / 3) ** 2 * LN3, rel=1e-5)


def test_balanced_terms_are_learnt() -> None:
    criterion = AnchorCriterion(AnchorLossSection(balanced=True), torch.ones(3), "softmax")
    terms = criterion(anchor_maps(), TARGET, alone)
    assert terms["loss"].item() == pytest.approx(terms["box"].item() / 2 + terms["class"].item(), rel=1e-5)
    terms["loss"].backward()
    (variances,) = criterion.parameters()
    assert variances.grad is not None
    assert variances.grad.abs().min() > 0


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("norm", [False, True])
def test_focal_loss_starts_from_its_prior(activation: str, norm: bool) -> None:
    """Every anchor begins with 0.01 for an object (softmax) or for each class (sigmoid)."""
    last: nn.Module = nn.Conv2d(4, 6, 1)
    if norm:
        last = nn.Sequential(nn.Conv2d(4, 6, 1, bias=False), nn.BatchNorm2d(6))
    start_from_prior(nn.ModuleList([last]), 3, activation)  # type: ignore[arg-type]
    logits = last.eval()(torch.zeros(1, 4, 1, 1)).view(1, 2, 3)
    found = foreground(logits, activation)  # type: ignore[arg-type]
    per_anchor = found.sum(-1) if activation == "softmax" else found
    torch.testing.assert_close(per_anchor, torch.full_like(per_anchor, 0.01))


@pytest.mark.parametrize(
    ("name", "options", "predictors"),
    [
        ("mobilenet-ssd", {}, "head.confidence"),
        ("refinedet", {"backbone": "mobilenet-v2"}, "odm.head.confidence"),
        ("refinedet", {"backbone": "mobilenet-v2", "align": 3}, "odm.confidence"),
        ("thundernet", {}, "head.confidence"),
    ],
)
@pytest.mark.parametrize("classification", ["focal", "cross-entropy"])
def test_every_head_that_focal_loss_teaches_starts_from_its_prior(
    name: str, options: dict[str, Any], predictors: str, classification: str
) -> None:
    model = zoo.build(name, 3, options, (128, 128))
    values = {"name": "r", "classes": ["a", "b", "c"], "model": {"name": name}, "preprocess": {"size": [128, 128]}}
    recipe = Recipe.model_validate({**values, "anchor_loss": {"classification": classification}})
    task_of(model, name).prepare(recipe, model)
    biases = [m.bias for m in model.get_submodule(predictors).modules() if isinstance(m, nn.Conv2d)]
    assert biases
    for bias in biases:
        assert bias is not None
        found = bias.view(-1, 4).softmax(-1)[:, 1:].sum(-1)
        assert torch.allclose(found, torch.full_like(found, 0.01)) == (classification == "focal")


# -- RefineDet --------------------------------------------------------------------------------------------------------
def refine_maps(arm_scores: Tensor | None = None) -> RefineMaps:
    """The first step moves anchor 3 onto the object; the second knows nothing."""
    arm = torch.zeros(1, 5, 4)
    arm[0, 3] = encode(TARGET.boxes[0, 0], ANCHORS[3])
    scores = torch.zeros(1, 5, 2) if arm_scores is None else arm_scores
    return RefineMaps(
        arm.requires_grad_(), scores, torch.zeros(1, 5, 4, requires_grad=True), torch.zeros(1, 5, 3), ANCHORS
    )


def test_the_second_step_is_matched_with_refined_anchors() -> None:
    """The first has anchors 1 and 4 to move; the second 1, 3 and 4, of which 1 and 3 cost nothing."""
    maps = refine_maps()
    terms = RefineCriterion(AnchorLossSection(mining=1e-9), torch.ones(3), 0.99)(maps, TARGET, alone)
    assert terms["arm_box"].item() == pytest.approx(BOX_4 / 2, rel=1e-5)
    assert terms["arm_class"].item() == pytest.approx(LN2, rel=1e-5)
    assert terms["odm_box"].item() == pytest.approx(BOX_4 / 3, rel=1e-4)
    assert terms["odm_class"].item() == pytest.approx(LN3, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(sum(v.item() for k, v in terms.items() if k != "loss"), rel=1e-5)


def test_one_step_regression_is_matched_with_the_anchors_as_they_stand() -> None:
    """RefineDet++, table II, fourth column: anchor 3, which the first step moves onto the object, is background."""
    section = AnchorLossSection(mining=1e-9)
    terms = RefineCriterion(section, torch.ones(3), 0.99, steps=1)(refine_maps(), TARGET, alone)
    assert terms["arm_box"].item() == pytest.approx(BOX_4 / 2, rel=1e-5)  # the first step is taught as ever
    assert terms["odm_box"].item() == pytest.approx(BOX_4 / 2, rel=1e-5)
    every = RefineCriterion(AnchorLossSection(mining=3.0), torch.ones(3), 0.99, steps=1)(refine_maps(), TARGET, alone)
    assert every["odm_class"].item() == pytest.approx((2 + 3) * LN3 / 2, rel=1e-5)


def test_the_second_step_does_not_move_the_first() -> None:
    maps = refine_maps()
    RefineCriterion(AnchorLossSection(), torch.ones(3), 0.99)(maps, TARGET, alone)["odm_box"].backward()
    assert maps.arm_boxes.grad is None
    assert maps.odm_boxes.grad is not None


def test_negative_anchor_filtering() -> None:
    """Anchors with a background of over theta are neither positive nor negative in the second step."""
    scores = torch.zeros(1, 5, 2)
    scores[0, [0, 1], 0] = math.log(0.995 / 0.005)
    scores[0, 2, 0] = math.log(0.98 / 0.02)
    matches = without_easy_negatives(match_anchors(BOXES, TARGET), scores, 0.99)
    assert matches.label.tolist() == [[-1, -1, 0, 0, 2]]
    terms = RefineCriterion(AnchorLossSection(mining=9), torch.ones(3), 0.99)(refine_maps(scores), TARGET, alone)
    assert terms["odm_class"].item() == pytest.approx((2 + 1) * LN3 / 2, rel=1e-5)  # 3 and 4 positive, 2 negative


class TwoSteps(Detector):
    theta, steps = 0.99, 2


def test_responses_of_refinedet_are_of_anchors_that_pass_the_filter() -> None:
    """Decode and labels pass over an anchor with a background of over theta; so does the weight of distillation."""
    scores = torch.zeros(1, 5, 2)
    scores[0, [0, 3], 0] = math.log(0.995 / 0.005)
    scores[0, 2, 0] = math.log(0.98 / 0.02)
    found = TASKS["refine"].responses(refine_maps(scores), TwoSteps())
    assert found is not None
    torch.testing.assert_close(found.foreground, torch.tensor([[0, 2 / 3, 2 / 3, 0, 2 / 3]]))


def test_distilled_boxes_do_not_move_the_first_step() -> None:
    """The refined anchors are not differentiated through, in distillation as in the criterion."""
    maps = refine_maps()
    found = TASKS["refine"].responses(maps, TwoSteps())
    assert found is not None
    torch.testing.assert_close(found.boxes[0, 3], TARGET.boxes[0, 0], atol=1e-4, rtol=1e-4)  # and yet they are refined
    found.boxes.sum().backward()
    assert maps.arm_boxes.grad is None
    assert maps.odm_boxes.grad is not None


# -- ThunderNet -------------------------------------------------------------------------------------------------------
def test_rows_that_are_no_objects_are_no_regions() -> None:
    batch = batch_of([(0, 0, 10, 10, 0)], [(0, 0, 5, 5, 1), (0, 0, 10, 10, -2)])
    matches = Matches(torch.ones(2, 4, dtype=torch.int64), torch.zeros(2, 4), torch.zeros(2, 4))
    assert without_rows(matches, batch).label.tolist() == [[1, 1, 1, PADDING], [1, 1, 1, PADDING]]


def test_objects_join_the_proposals() -> None:
    """No proposal finds the object, yet the region head has one positive region, whose box costs nothing."""
    rpn = AnchorMaps(torch.zeros(1, 5, 4), torch.zeros(1, 5, 2), ANCHORS, ())
    proposals = torch.tensor([[[30.0, 0, 40, 10], [0, 0, 5, 5]]])
    maps = ThunderMaps(rpn, proposals, torch.zeros(1, 2, 4), torch.zeros(1, 2, 3), (torch.zeros(1, 1, 1, 1),))

    class Head(nn.Module):
        def forward(self, features: Tensor, boxes: Tensor) -> tuple[Tensor, Tensor]:
            return torch.zeros(*boxes.shape[:2], 4), torch.zeros(*boxes.shape[:2], 3)

    terms = ProposalCriterion(AnchorLossSection(), torch.ones(3), Head())(maps, TARGET, alone)
    assert terms["region_box"].item() == pytest.approx(0, abs=1e-6)
    assert terms["region_class"].item() == pytest.approx(3 * LN3, rel=1e-5)  # it, and both proposals as background
    assert terms["rpn_class"].item() == pytest.approx((1 + 3) * LN2, rel=1e-5)  # anchor 4 is neither, at 0.5


# -- YOLO -------------------------------------------------------------------------------------------------------------
OBJECT = batch_of([(10, 4, 30, 24, 1)])  # 20x20 around (20, 14)


def yolo_head() -> YOLOHead:
    """Two scales of a 64x32 input: 8x4 and 4x2 cells; both predict the 20x20 prior."""
    return YOLOHead((1, 1), (8, 16), 2, AnchorSet(((10, 10), (20, 20), (40, 40)), ((0, 1), (1, 2))), (1.0, 1.0))


def yolo_maps(value: float = 0.0) -> YOLOMaps:
    return YOLOMaps((torch.full((1, 14, 4, 8), value), torch.full((1, 14, 2, 4), value)), ())


def test_yolo_assignment_by_hand() -> None:
    """Cell (2, 1) of the fine map, its second prior; cell (1, 0) of the coarse one, its first, after 64 rows."""
    found = assign(yolo_head(), [(4, 8), (2, 4)], OBJECT)
    assert found.row.tolist() == [(1 * 8 + 2) * 2 + 1, 64 + 1 * 2 + 0]
    assert found.image.tolist() == [0, 0]
    assert found.truth.tolist() == [0, 0]


@pytest.mark.parametrize(
    ("box", "rows"),
    [
        ((0, 0, 9, 12, 0), [0]),  # 10x10, the first cell; only the fine scale has that prior
        ((60, 28, 70, 38, 0), [(3 * 8 + 7) * 2]),  # its centre is outside: the last cell
        ((0, 0, 64, 30, 0), [64 + (0 * 4 + 2) * 2 + 1]),  # 40x40
    ],
)
def test_yolo_gives_an_object_the_prior_of_its_shape(
    box: tuple[float, float, float, float, int], rows: list[int]
) -> None:
    assert assign(yolo_head(), [(4, 8), (2, 4)], batch_of([box])).row.tolist() == rows


def test_yolo_losses_by_hand() -> None:
    """Logits 0: every cross-entropy is ln 2, and boxes have the size of their priors.

    Both assigned boxes have the right size: only x and y cost. Of 80 objectnesses one is excused: the 20x20 box of the
    cell below the assigned one overlaps the object by 280 / 520.
    """
    terms = YoloCriterion(YoloLossSection(), torch.ones(2), yolo_head())(yolo_maps(), OBJECT, alone)
    assert terms["box"].item() == pytest.approx(2 * (2 - 400 / 2048) * 2 * LN2, rel=1e-5)
    assert terms["object"].item() == pytest.approx(79 * LN2, rel=1e-5)
    assert terms["class"].item() == pytest.approx(2 * 2 * LN2, rel=1e-5)
    strict = YoloCriterion(YoloLossSection(ignore=0.6), torch.ones(2), yolo_head())(yolo_maps(), OBJECT, alone)
    assert strict["object"].item() == pytest.approx(80 * LN2, rel=1e-5)


def test_yolo_weights_and_box_losses() -> None:
    """GIoU of the two assigned boxes: 360 of 440 with a hull of 20x22; 224 of 576 with one of 24x26."""
    section = YoloLossSection(box="giou", box_weight=3, object_weight=0.5, class_weight=0)
    terms = YoloCriterion(section, torch.tensor([1.0, 4.0]), yolo_head())(yolo_maps(), OBJECT, alone)
    expected = (1 - 360 / 440) + (1 - 224 / 576 + (624 - 576) / 624)
    assert terms["box"].item() == pytest.approx(expected, rel=1e-4)
    assert terms["class"].item() == pytest.approx(2 * (1 + 4) * LN2, rel=1e-5)
    assert terms["loss"].item() == pytest.approx(3 * expected + 0.5 * terms["object"].item(), rel=1e-4)


def test_yolo_without_objects_and_with_ignored_ones() -> None:
    criterion = YoloCriterion(YoloLossSection(), torch.ones(2), yolo_head())
    empty = criterion(yolo_maps(), batch_of([]), alone)
    assert (empty["box"].item(), empty["class"].item()) == (0, 0)
    assert empty["object"].item() == pytest.approx(80 * LN2, rel=1e-5)
    ignored = criterion(yolo_maps(), batch_of([(-100, -100, 200, 200, -2)]), alone)
    assert ignored["object"].item() == 0


def test_yolo_centres_that_may_leave_their_cell() -> None:
    """With scale_x_y 2 a centre at the cell's border is not at infinity: the target of x is (1 + 0.5) / 2."""
    head = YOLOHead((1,), (16,), 2, AnchorSet(((20, 20),), ((0,),)), (2.0,))
    batch = batch_of([(22, 14, 42, 34, 0)])  # centre (32, 24): the left border of cell 2
    maps = YOLOMaps((torch.zeros(1, 7, 2, 4),), ())
    rows = torch.zeros(1, 7, 2, 4)
    rows[0, 0] = math.log(0.25 / 0.75)  # sigmoid 0.25 * 2 - 0.5 = 0
    best = YoloCriterion(YoloLossSection(box="iou"), torch.ones(2), head)(YOLOMaps((rows,), ()), batch, alone)
    assert best["box"].item() == pytest.approx(0, abs=1e-6)
    assert YoloCriterion(YoloLossSection(), torch.ones(2), head)(maps, batch, alone)["box"].isfinite()


# -- every detector ---------------------------------------------------------------------------------------------------
@functools.cache
def on_meta(name: str) -> Detector:
    """The network without its weights."""
    with torch.device("meta"):
        return zoo.build(name, 3)


@pytest.mark.parametrize("name", zoo.DETECTORS)
def test_every_detector_of_the_zoo_has_a_task(name: str) -> None:
    assert task_of(on_meta(name), name) is TASKS[on_meta(name).task]


def test_every_shipped_recipe_sets_the_losses_of_its_own_family() -> None:
    tasks = {name: task_of(on_meta(name), name) for name in zoo.DETECTORS}
    for name in recipe_names():
        recipe = load_recipe(name)
        tasks[recipe.model.name].check(recipe)


def test_a_network_without_a_task_is_named() -> None:
    with pytest.raises(BadConfig, match="mine cannot be trained"):
        task_of(Detector(), "mine")


def test_responses_of_anchors() -> None:
    maps = anchor_maps()._replace(confidence=torch.tensor([1.0, 2.0, 5.0]).log().expand(1, 5, 3))
    found = anchor_responses(maps, "softmax")
    torch.testing.assert_close(found.foreground, torch.full((1, 5), 7 / 8))
    torch.testing.assert_close(found.boxes, BOXES[None])
    single = anchor_responses(maps, "sigmoid")
    assert single.logits.shape == (1, 5, 2)
    torch.testing.assert_close(single.foreground, torch.full((1, 5), 5 / 6))


def test_half_precision_maps_have_float32_losses() -> None:
    maps = anchor_maps()
    half = AnchorMaps(maps.location.bfloat16(), maps.confidence.bfloat16(), ANCHORS, ())
    matches = match_anchors(BOXES, TARGET)
    step = AnchorLoss(AnchorLossSection(), torch.ones(3))(half.location, half.confidence, ANCHORS, matches, TARGET)
    assert step.box.dtype == step.classes.dtype == torch.float32
    batch = BoxBatch(OBJECT.boxes, OBJECT.labels)
    half_yolo = YOLOMaps(tuple(x.bfloat16() for x in yolo_maps().predictions), ())
    assert (
        YoloCriterion(YoloLossSection(), torch.ones(2), yolo_head())(half_yolo, batch, alone)["loss"].dtype
        == torch.float32
    )


# -- what the host does with the boxes --------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("recipe", "expected"),
    [
        ({}, {"nms": "classwise", "top_k": 100}),
        (
            {"export": {"top_k": 7}, "postprocess": {"nms": None, "sigma": 0.3}},
            {"nms": "classwise", "top_k": 7, "sigma": 0.3},
        ),
        ({"postprocess": {"nms": "soft", "decay": "linear"}}, {"nms": "soft", "decay": "linear", "top_k": 100}),
    ],
)
def test_a_recipe_may_wish_for_another_suppression(recipe: dict[str, Any], expected: dict[str, Any]) -> None:
    found = host_postprocess(on_meta("tiny-dsod"), recipe)
    assert found == expected
    assert Postprocess.from_dict(found).nms == expected["nms"]


def test_several_pixels_of_an_object_need_nms() -> None:
    model = on_meta("mobile-centernet")
    assert host_postprocess(model, {"loss": {"aligned": None}})["nms"] == "none"
    assert host_postprocess(model, {"loss": {"aligned": {}}})["nms"] == "classwise"
    assert host_postprocess(model, {"loss": {"aligned": {}}, "postprocess": {"nms": "none"}})["nms"] == "none"


# -- what a family does not read --------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("recipe", "wish", "said"),
    [
        ("mobile-centernet-w16-dhaka", "distillation={box: 1}", "distillation.box is not read by mobile-centernet"),
        ("refinedetlite-dhaka", "distillation={divergence: softmax}", "distillation.divergence is not read"),
        ("refinedetlite-dhaka", "yolo_loss={}", "yolo_loss is not read by .*; its losses are in anchor_loss"),
    ],
)
def test_what_a_family_does_not_read_is_an_error(recipe: str, wish: str, said: str) -> None:
    teacher = ["teacher={recipe: a, weights: b}"] if wish.startswith("distillation") else []
    found = load_recipe(recipe, [wish, *teacher])
    with pytest.raises(BadConfig, match=said):
        task_of(on_meta(found.model.name), found.model.name).check(found)


def test_iou_guided_labels_need_softmax_scores() -> None:
    with pytest.raises(BadConfig, match="this head has sigmoid scores"):
        AnchorLoss(AnchorLossSection(iou_guided=IouGuidedSection()), torch.ones(3), "sigmoid")
