"""Class losses: cross-entropy, focal, and RefineDetLite's eq. 2 to 6, against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
import torch
from torch import Tensor

from edgekit.training.classification import (
    BalancedSum,
    PlainSum,
    anchor_weights,
    cross_entropy,
    focal,
    iou_guided,
    soft_labels,
)

ONES = torch.ones(3)


def logits_of(probabilities: Sequence[float]) -> Tensor:
    """Of one anchor whose softmax is ``probabilities``."""
    return torch.tensor(probabilities).log().view(1, 1, -1)


def sigmoid_logits(probabilities: Sequence[float]) -> Tensor:
    """Of one anchor whose sigmoids are ``probabilities``; the background's logit is not looked at."""
    return torch.cat([torch.tensor([77.0]), torch.tensor(probabilities).logit()]).view(1, 1, -1)


def label(value: int) -> Tensor:
    return torch.tensor([[value]])


@pytest.mark.parametrize(
    ("target", "expected"), [(0, -math.log(0.5)), (1, -2 * math.log(0.3)), (2, -5 * math.log(0.2))]
)
def test_weighted_cross_entropy(target: int, expected: float) -> None:
    weights = torch.tensor([1.0, 2.0, 5.0])
    loss = cross_entropy(logits_of([0.5, 0.3, 0.2]), label(target), "softmax", weights)
    assert loss.tolist() == [[pytest.approx(expected)]]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0, -2 * math.log(0.7) - 5 * math.log(0.8)),
        (1, -2 * math.log(0.3) - 5 * math.log(0.8)),
        (2, -2 * math.log(0.7) - 5 * math.log(0.2)),
    ],
)
def test_binary_cross_entropies(target: int, expected: float) -> None:
    weights = torch.tensor([1.0, 2.0, 5.0])
    loss = cross_entropy(sigmoid_logits([0.3, 0.2]), label(target), "sigmoid", weights)
    assert loss.tolist() == [[pytest.approx(expected, rel=1e-5)]]


@pytest.mark.parametrize(
    ("target", "expected"), [(0, -0.75 * 0.5**2 * math.log(0.5)), (2, -0.25 * 0.8**2 * math.log(0.2))]
)
def test_focal_of_softmax(target: int, expected: float) -> None:
    assert focal(logits_of([0.5, 0.3, 0.2]), label(target), "softmax", ONES).tolist() == [[pytest.approx(expected)]]


@pytest.mark.parametrize(
    ("target", "expected"),
    [
        (0, -0.75 * (0.3**2 * math.log(0.7) + 0.2**2 * math.log(0.8))),
        (1, -0.25 * 0.7**2 * math.log(0.3) - 0.75 * 0.2**2 * math.log(0.8)),
    ],
)
def test_focal_of_sigmoids(target: int, expected: float) -> None:
    """RetinaNet's eq. 5."""
    found = focal(sigmoid_logits([0.3, 0.2]), label(target), "sigmoid", ONES)
    assert found.tolist() == [[pytest.approx(expected, rel=1e-5)]]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
def test_focal_with_gamma_0_is_half_of_cross_entropy(activation: str) -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 7, 3), torch.randint(0, 3, (2, 7))
    half = focal(logits, target, activation, ONES, alpha=0.5, gamma=0)  # type: ignore[arg-type]
    torch.testing.assert_close(2 * half, cross_entropy(logits, target, activation, ONES))  # type: ignore[arg-type]


@pytest.mark.parametrize("activation", ["softmax", "sigmoid"])
@pytest.mark.parametrize("gamma", [0.2, 1.5])
@pytest.mark.parametrize("spared", [None, [0.0, 1.0], [1.0, 1.0]])
def test_focal_of_what_is_certain_is_finite(activation: str, gamma: float, spared: list[float] | None) -> None:
    """In float32 p_t is 1 at these logits, or, where likelihoods add up, a little above it."""
    torch.manual_seed(0)
    logits, target = (torch.randn(1, 2000, 3) * 12).requires_grad_(), torch.randint(0, 3, (1, 2000))
    left = None if spared is None else torch.tensor([[spared]])
    loss = focal(logits, target, activation, ONES, gamma=gamma, spared=left)  # type: ignore[arg-type]
    (slope,) = torch.autograd.grad(loss.sum(), logits)
    assert loss.isfinite().all()
    assert slope.isfinite().all()


# -- RefineDetLite ----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("target", "iou", "expected"),
    [
        (1, 1.0, [0, 1, 0]),  # a perfect box: one-hot
        (1, 0.2, [0.1, 0.8, 0.1]),  # 1 - 0.25 * 0.8; the rest is shared by the K - 1 = 2 others
        (0, 0.0, [1, 0, 0]),
        (0, 0.4, [0.9, 0.05, 0.05]),  # 1 - 0.25 * 0.4
    ],
)
def test_eq_3(target: int, iou: float, expected: list[float]) -> None:
    found = soft_labels(label(target), torch.tensor([[iou]]), 3)
    assert found[0, 0].tolist() == pytest.approx(expected)


def test_eq_4() -> None:
    found = anchor_weights(torch.tensor([[1, 1, 1, 0]]), torch.tensor([[1.0, 0.5, 0.0, 0.0]]))
    assert found[0].tolist() == pytest.approx([1, 1 / 0.55, 10, 1])


def test_eq_2() -> None:
    """Class weights 1, 2, 5; a positive anchor of class 1 with a box of IoU 0.2, predicted as 0.5, 0.3, 0.2."""
    weights = torch.tensor([1.0, 2.0, 5.0])
    y, p, w = [0.1, 0.8, 0.1], [0.5, 0.3, 0.2], [1, 2, 5]
    expected = sum(wi * yi * math.log(yi / pi) for wi, yi, pi in zip(w, y, p, strict=True)) / (1 + 0.9 * (0.2 - 1))
    found = iou_guided(logits_of(p), label(1), torch.tensor([[0.2]]), weights)
    assert found.tolist() == [[pytest.approx(expected, rel=1e-5)]]


def test_eq_2_with_perfect_boxes_is_cross_entropy() -> None:
    torch.manual_seed(0)
    logits, target = torch.randn(2, 7, 3), torch.randint(0, 3, (2, 7))
    iou = (target > 0).float()  # 1 for positive anchors, 0 for negative ones
    weights = torch.tensor([1.0, 3.0, 7.0])
    torch.testing.assert_close(
        iou_guided(logits, target, iou, weights), cross_entropy(logits, target, "softmax", weights)
    )


def test_eq_6() -> None:
    """sigma^2 = 1 at the start; with s = ln 4 a regression weighs 1/8 and a classification 1/4, and each adds ln 2."""
    balanced = BalancedSum({"box": True, "class": False})
    terms = {"box": torch.tensor(6.0), "class": torch.tensor(5.0)}
    assert balanced(terms).item() == pytest.approx(6 / 2 + 5)
    with torch.no_grad():
        balanced.log_variance.fill_(math.log(4))
    assert balanced(terms).item() == pytest.approx(6 / 8 + 5 / 4 + 2 * math.log(2))


def test_eq_6_is_least_where_the_variances_fit() -> None:
    """d/ds of 1/2 e^-s L + s/2 is zero at sigma^2 = L; of e^-s L + s/2 at sigma^2 = 2 L."""
    balanced = BalancedSum({"box": True, "class": False})
    with torch.no_grad():
        balanced.log_variance.copy_(torch.tensor([3.0, 0.5]).log())
    balanced({"box": torch.tensor(3.0), "class": torch.tensor(0.25)}).backward()
    assert balanced.log_variance.grad is not None
    assert balanced.log_variance.grad.tolist() == pytest.approx([0, 0], abs=1e-6)


def test_eq_1() -> None:
    total = PlainSum({"box": 2.0, "class": 1.0})
    assert total({"box": torch.tensor(3.0), "class": torch.tensor(4.0)}).item() == 10
    assert not list(total.parameters())
