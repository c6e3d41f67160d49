"""A network that learns too fast predicts boxes beyond all bounds: losses and gradients stay finite all the same."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from edgekit.models import zoo
from edgekit.models.anchors import AnchorMaps, RefineMaps, bounded
from edgekit.models.heads.yolo import YOLOMaps
from edgekit.recipe import AnchorLossSection, YoloLossSection
from edgekit.training.distillation import box_response
from edgekit.training.tasks import TASKS
from edgekit.training.tasks.anchors import AnchorCriterion
from edgekit.training.tasks.refine import RefineCriterion
from edgekit.training.tasks.yolo import YoloCriterion

from .test_matching import batch_of
from .test_tasks import OBJECT, TARGET, TwoSteps, alone, anchor_maps, yolo_head
from .test_tasks import refine_maps as plain_refine_maps


def wild(offsets: Tensor, *empty: int) -> Tensor:
    """The same; its first box is infinite, and those in ``empty`` infinitely wide and of no height: inf * 0 is NaN."""
    offsets = offsets.detach().clone()
    offsets[..., 0, 2:4] = 1e3
    offsets[..., empty, 2:4] = torch.tensor([1e3, -1e3])
    return offsets.requires_grad_()


def refine_maps() -> RefineMaps:
    maps = plain_refine_maps()
    return maps._replace(arm_boxes=wild(maps.arm_boxes, 2), odm_boxes=wild(maps.odm_boxes, 2))


def yolo_maps() -> YOLOMaps:
    """All widths are infinite, and all heights 0."""
    rows = (torch.zeros(1, 2, 7, 4, 8), torch.zeros(1, 2, 7, 2, 4))
    for each in rows:
        each[:, :, 2], each[:, :, 3] = 1e3, -1e3
    return YOLOMaps(tuple(each.flatten(1, 2).requires_grad_() for each in rows), ())


def check(loss: Tensor, *leaves: Tensor) -> None:
    assert loss.isfinite()
    loss.backward()
    assert all(x.grad is None or x.grad.isfinite().all() for x in leaves)


def test_sane_offsets_are_not_touched() -> None:
    offsets = torch.tensor([[300.0, -300, 20.6, -20.6], [0, 0, 20.7, -1e9]])
    found = bounded(offsets)
    assert torch.equal(found[0], offsets[0])
    assert found[1].tolist() == pytest.approx([0, 0, math.log(1000 / 16) / 0.2, -math.log(1000 / 16) / 0.2])


def test_anchors_whose_classes_look_at_their_boxes() -> None:
    maps = anchor_maps(wild(torch.zeros(1, 5, 4), 2, 4))
    criterion = AnchorCriterion(AnchorLossSection.model_validate({"iou_guided": {}}), torch.ones(3), "softmax")
    check(criterion(maps, TARGET, alone)["loss"], maps.location)


def test_refined_anchors() -> None:
    """An object that no anchor overlaps by half has the best one, which NaN among them would take from it."""
    small, maps = batch_of([(12, 2, 15, 5, 1)]), refine_maps()
    criterion = RefineCriterion(AnchorLossSection(mining=1e-9), torch.ones(3), 0.99)
    terms, usual = criterion(maps, small, alone), criterion(plain_refine_maps(), small, alone)
    assert usual["odm_class"] > 0
    torch.testing.assert_close(terms["odm_class"], usual["odm_class"])
    check(terms["odm_box"], maps.odm_boxes)


@pytest.mark.parametrize("box", ["giou", "ciou"])
def test_yolo(box: Any) -> None:
    maps = yolo_maps()
    check(YoloCriterion(YoloLossSection(box=box), torch.ones(2), yolo_head())(maps, OBJECT, alone)["loss"])


class Yolo(TwoSteps):
    head = yolo_head()


@pytest.mark.parametrize(
    ("task", "maps"),
    [("anchors", lambda: anchor_maps(wild(torch.zeros(1, 5, 4), 2, 4))), ("refine", refine_maps), ("yolo", yolo_maps)],
    ids=["anchors", "refine", "yolo"],
)
def test_responses(task: str, maps: Any) -> None:
    model = Yolo() if task == "yolo" else TwoSteps()
    model.activation = "softmax"
    student, teacher = (TASKS[task].responses(maps(), model) for _ in range(2))
    assert student is not None
    assert teacher is not None
    check(box_response(student, teacher._replace(boxes=teacher.boxes.flip(1)), alone))


def test_the_taps_of_align_conv() -> None:
    """In training and in validation; an exported graph has no bound."""
    torch.manual_seed(0)
    odm = zoo.build("refinedet", 3, {"backbone": "mobilenet-v2", "align": 3}, (64, 64)).odm
    maps = [torch.randn(1, 256, n, n) for n in (8, 4, 2, 1)]
    first = AnchorMaps(wild(torch.zeros(1, 255, 4), 2), torch.zeros(1, 255, 2), odm.anchors, ())
    found = odm(maps, first)
    assert found.location.isfinite().all()
    assert found.confidence.isfinite().all()
