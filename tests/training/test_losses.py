"""Losses against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekit.models.heads.centernet import CenterMaps
from edgekit.training.losses import (
    PROBABILITY_FLOOR,
    CenterBatch,
    DetectionLoss,
    category_balanced_focal,
    class_weights,
    l1_at_centres,
)


def logit(probability: float) -> float:
    return math.log(probability / (1 - probability))


# -- eq. 4 ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        ([100, 100, 100], [1, 1, 1]),
        ([7], [1]),
        ([160, 10], [1, 10]),  # the ends, whatever the ratio
        ([1000, 10], [1, 10]),
        # r = 1, 16, 81: r^0.75 = 1, 8, 27, so the middle one is 9 / 26 * 7 + 1
        ([1296, 81, 16], [1, 1 + 63 / 26, 10]),
        ([16, 1296, 81], [10, 1, 1 + 63 / 26]),
        ([160, 0, 10], [1, 1, 10]),  # a class without boxes changes nothing for the others
        ([5, 0], [1, 1]),
        ([0, 0], [1, 1]),
    ],
)
def test_eq_4(counts: list[int], weights: list[float]) -> None:
    assert class_weights(counts).tolist() == pytest.approx(weights, rel=1e-6)


def test_eq_4_with_other_hyperparameters() -> None:
    assert class_weights([64, 16, 4], gamma=0.5, max_weight=4).tolist() == pytest.approx([1, 2, 4])
    assert class_weights([64, 16, 4], max_weight=1).tolist() == [1, 1, 1]


# -- eq. 3 ------------------------------------------------------------------------------------------------------------
def focal(probabilities: list[list[float]], targets: list[list[float]], weights: list[float]) -> float:
    """Of classes [C] times pixels [P]."""
    heatmap = torch.tensor(probabilities).logit().view(1, len(weights), 1, -1)
    target = torch.tensor(targets).view_as(heatmap)
    return float(category_balanced_focal(heatmap, target, torch.tensor(weights), torch.ones(1, 1, 1, 1)))


def test_eq_3_at_a_centre() -> None:
    assert focal([[0.8]], [[1.0]], [1.0]) == pytest.approx(-(0.2**2) * math.log(0.8))


def test_eq_3_off_the_centre() -> None:
    assert focal([[0.6]], [[0.0]], [1.0]) == pytest.approx(-(0.6**2) * math.log(0.4))
    assert focal([[0.6]], [[0.5]], [1.0]) == pytest.approx(-(0.5**4) * 0.6**2 * math.log(0.4))


def test_eq_3_weighs_both_branches_of_a_class() -> None:
    centre, other = -(0.2**2) * math.log(0.8), -(0.3**4) * 0.4**2 * math.log(0.6)
    assert focal([[0.8, 0.4], [0.4, 0.8]], [[1.0, 0.7], [0.7, 1.0]], [1.0, 10.0]) == pytest.approx(
        11 * (centre + other)
    )


def test_eq_3_stays_finite() -> None:
    """Predictions are clamped, so a wrong and certain one costs the same as one at the limit, and not infinity."""
    heatmap = torch.tensor([-200.0, 200.0]).view(1, 1, 1, 2).requires_grad_()
    target = torch.tensor([1.0, 0.0]).view(1, 1, 1, 2)
    loss = category_balanced_focal(heatmap, target, torch.ones(1), torch.ones(1, 1, 1, 1))
    floor = PROBABILITY_FLOOR
    assert float(loss.detach()) == pytest.approx(-2 * (1 - floor) ** 2 * math.log(floor), rel=1e-3)
    loss.backward()
    assert heatmap.grad is not None
    assert heatmap.grad.isfinite().all()


def test_eq_3_leaves_masked_pixels_out() -> None:
    heatmap = torch.zeros(1, 2, 1, 3)
    target = torch.zeros(1, 2, 1, 3)
    valid = torch.tensor([1.0, 0.0, 1.0]).view(1, 1, 1, 3)
    loss = category_balanced_focal(heatmap, target, torch.tensor([1.0, 3.0]), valid)
    assert float(loss) == pytest.approx(2 * (1 + 3) * 0.25 * math.log(2))  # two pixels of both classes


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_losses_are_computed_in_float32(dtype: torch.dtype) -> None:
    torch.manual_seed(0)
    heatmap, target = torch.randn(1, 2, 4, 4).to(dtype), torch.rand(1, 2, 4, 4)
    args = (target, torch.ones(2), torch.ones(1, 1, 4, 4))
    half = category_balanced_focal(heatmap, *args)
    assert half.dtype == torch.float32
    assert half == category_balanced_focal(heatmap.float(), *args)


# -- eq. 5, 6, 7 ------------------------------------------------------------------------------------------------------
def example() -> tuple[CenterMaps, CenterBatch]:
    """Two images with three objects, two of them in one pixel."""
    size, offset = torch.zeros(2, 2, 2, 3), torch.zeros(2, 2, 2, 3)
    size[0, :, 1, 2] = torch.tensor([3.0, 1.0])
    size[1, :, 0, 0] = torch.tensor([2.0, 2.0])
    offset[0, :, 1, 2] = torch.tensor([0.5, 0.25])
    heatmap, target = torch.full((2, 1, 2, 3), logit(0.5)), torch.zeros(2, 1, 2, 3)
    target[0, 0, 1, 2] = target[1, 0, 0, 0] = 1
    batch = CenterBatch(
        heatmap=target,
        weight=torch.ones(2, 1, 2, 3),
        centres=torch.tensor([[0, 1, 2], [1, 0, 0], [1, 0, 0]]),
        size=torch.tensor([[1.0, 2.0], [2.0, 5.0], [4.0, 2.0]]),
        offset=torch.tensor([[0.25, 0.5], [0.0, 0.5], [0.0, 0.0]]),
    )
    return CenterMaps(heatmap, size, offset, torch.zeros(2, 1, 2, 3)), batch


def test_eq_5_and_6_look_at_centres_only() -> None:
    maps, batch = example()
    assert l1_at_centres(maps.size, batch.centres, batch.size) == pytest.approx((2 + 1) + (0 + 3) + (2 + 0))
    assert l1_at_centres(maps.offset, batch.centres, batch.offset) == pytest.approx((0.25 + 0.25) + 0.5 + 0)


@pytest.mark.parametrize(("l1_mean", "size", "offset"), [("components", 8 / 6, 1 / 6), ("objects", 8 / 3, 1 / 3)])
def test_eq_7(l1_mean: str, size: float, offset: float) -> None:
    maps, batch = example()
    # 12 pixels at probability 0.5: each costs 0.25 ln 2, centre or not
    focal_term = 12 * 0.25 * math.log(2) / 3
    terms = DetectionLoss(torch.ones(1), l1_mean=l1_mean)(maps, batch, torch.tensor(3.0))  # type: ignore[arg-type]
    assert {name: float(value) for name, value in terms.items()} == pytest.approx(
        {"focal": focal_term, "size": size, "offset": offset, "loss": focal_term + 0.1 * size + offset}, rel=1e-6
    )


def test_eq_7_without_objects() -> None:
    """A batch of empty streets still teaches what is background, and every head still has a gradient."""
    maps = CenterMaps(*(torch.zeros(1, c, 2, 2, requires_grad=True) for c in (1, 2, 2, 4)))
    nothing = torch.zeros(0, 2)
    batch = CenterBatch(
        torch.zeros(1, 1, 2, 2), torch.ones(1, 1, 2, 2), torch.zeros(0, 3, dtype=torch.int64), nothing, nothing
    )
    terms: dict[str, Tensor] = DetectionLoss(torch.ones(1))(maps, batch, torch.tensor(1.0))
    assert float(terms["loss"]) == pytest.approx(4 * 0.25 * math.log(2))
    terms["loss"].backward()
    assert maps.heatmap.grad is not None
    assert maps.heatmap.grad.abs().min() > 0
    for values in (maps.size, maps.offset):
        assert values.grad is not None
        assert not values.grad.any()
