"""Overlaps and the losses made of them, against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from edgekit.models.anchors import VARIANCES, encode
from edgekit.training.boxes import BOX_LOSSES, corners, iou, pairwise_iou, regression_loss


def box(*values: float) -> Tensor:
    return torch.tensor([values], dtype=torch.float32)


# v of eq. 7 for a square that should be twice as wide as high, and the alpha that goes with an IoU of 1/2
V = 4 / math.pi**2 * (math.atan(2) - math.atan(1)) ** 2
ALPHA = V / (0.5 + V)

CASES = {
    # two squares of 2 that share a square of 1: union 7, hull 9 with a diagonal^2 of 18, centres 2 apart (squared)
    "corner": (
        box(0, 0, 2, 2),
        box(1, 1, 3, 3),
        {"iou": 6 / 7, "giou": 6 / 7 + 2 / 9, "diou": 6 / 7 + 2 / 18, "ciou": 6 / 7 + 2 / 18, "bll": 6 / 7 + 2 / 18},
    ),
    # half of a target: union 8, hull 8 with 20, centres 1 apart, width 2 less
    "half": (
        box(0, 0, 2, 2),
        box(0, 0, 4, 2),
        {"iou": 0.5, "giou": 0.5, "diou": 0.5 + 1 / 20, "ciou": 0.5 + 1 / 20 + ALPHA * V, "bll": 0.5 + (1 + 4) / 20},
    ),
    # one apart: hull 3 of which 2 are covered, diagonal^2 10, centres 4 apart (squared)
    "apart": (
        box(0, 0, 1, 1),
        box(2, 0, 3, 1),
        {"iou": 1.0, "giou": 1 + 1 / 3, "diou": 1 + 4 / 10, "ciou": 1 + 4 / 10, "bll": 1 + 4 / 10},
    ),
    "equal": (box(3, 4, 7, 9), box(3, 4, 7, 9), dict.fromkeys(BOX_LOSSES, 0.0)),
}


@pytest.mark.parametrize("kind", BOX_LOSSES)
@pytest.mark.parametrize("case", CASES)
def test_losses_by_hand(case: str, kind: str) -> None:
    prediction, target, expected = CASES[case]
    assert BOX_LOSSES[kind](prediction, target).tolist() == pytest.approx([expected[kind]], abs=1e-6)


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_descent_finds_the_box(kind: str) -> None:
    """Its gradient leads from an overlapping box to the target, and is finite for an empty one."""
    target = box(10, 10, 30, 20)
    found = box(12, 6, 26, 18).requires_grad_()
    optimizer = torch.optim.Adam([found], lr=0.3)
    for _ in range(100):
        optimizer.zero_grad()
        BOX_LOSSES[kind](found, target).sum().backward()
        optimizer.step()
    assert iou(found.detach(), target).item() > 0.9
    empty = box(5, 5, 5, 5).requires_grad_()
    BOX_LOSSES[kind](empty, target).sum().backward()
    assert empty.grad is not None
    assert empty.grad.isfinite().all()


side = st.floats(0.5, 50)
place = st.floats(-50, 50)
boxes = st.tuples(place, place, side, side)


@settings(max_examples=20, deadline=None)
@given(boxes, boxes, st.floats(0.1, 10))
def test_losses_know_no_scale_and_keep_their_range(a: tuple[float, ...], b: tuple[float, ...], scale: float) -> None:
    one, other = (torch.tensor([[x, y, x + w, y + h]], dtype=torch.float64) for x, y, w, h in (a, b))
    most = {"iou": 1, "giou": 2, "diou": 2, "ciou": 3, "bll": 4}
    for kind, loss in BOX_LOSSES.items():
        value = loss(one, other)
        assert -1e-9 <= value.item() <= most[kind] + 1e-9
        torch.testing.assert_close(loss(one * scale, other * scale), value, rtol=1e-5, atol=1e-6)


def test_pairwise_iou() -> None:
    a = torch.tensor([[0.0, 0, 2, 2], [5, 5, 6, 6], [1, 1, 1, 1]])
    b = torch.tensor([[1.0, 1, 3, 3], [0, 0, 2, 2]])
    torch.testing.assert_close(pairwise_iou(a, b), torch.tensor([[1 / 7, 1.0], [0, 0], [0, 0]]))


def test_corners() -> None:
    assert corners(box(10, 20, 4, 6))[0].tolist() == [8, 17, 12, 23]


# -- offsets against anchors ------------------------------------------------------------------------------------------
ANCHOR = box(50, 50, 20, 10)


def test_smooth_l1_by_hand() -> None:
    """Centre x is 1 px off: 1 / 20 / 0.1 = 0.5, which costs 0.125; y 4 px: 4, which costs 3.5; the height is e^0.2 too
    much: 1, at the joint of both branches, 0.5.
    """
    height = 10 * math.exp(0.2)
    target = box(51 - 10, 54 - height / 2, 51 + 10, 54 + height / 2)
    loss = regression_loss("smooth-l1", torch.zeros(1, 4), ANCHOR, target, VARIANCES)
    assert loss.tolist() == pytest.approx([0.125 + 3.5 + 0.5], rel=1e-5)


@pytest.mark.parametrize("kind", ["smooth-l1", *BOX_LOSSES])
def test_the_coded_target_costs_nothing(kind: str) -> None:
    target = box(35, 48, 66, 61)
    loss = regression_loss(kind, encode(target, ANCHOR), ANCHOR, target, VARIANCES)
    assert loss.tolist() == pytest.approx([0], abs=1e-5)


@pytest.mark.parametrize("kind", BOX_LOSSES)
def test_wild_offsets_stay_finite(kind: str) -> None:
    location = torch.tensor([[1e3, -1e3, 1e4, -1e4]], requires_grad=True)
    loss = regression_loss(kind, location, ANCHOR, box(40, 45, 60, 55), VARIANCES).sum()
    loss.backward()
    assert loss.isfinite()
    assert location.grad is not None
    assert location.grad.isfinite().all()
