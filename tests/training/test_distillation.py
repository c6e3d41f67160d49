"""Eq. 8 to 11: hand values, and the cheap pair-wise form against the one as printed."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from edgekit.models.heads.centernet import CenterMaps
from edgekit.training.distillation import DistillationLoss, pair_wise, pixel_wise

READINGS = [
    (divergence, direction)
    for divergence in ("bernoulli", "softmax")
    for direction in ("student-teacher", "teacher-student")
]


# -- eq. 8 ------------------------------------------------------------------------------------------------------------
def kl(p: float, q: float) -> float:
    """KL of two Bernoulli variables."""
    return p * math.log(p / q) + (1 - p) * math.log((1 - p) / (1 - q))


def pixel(student: list[float], teacher: list[float], divergence: Any, direction: Any) -> float:
    """Of one pixel with as many classes as there are probabilities."""
    s, t = (torch.tensor(v).logit().view(1, -1, 1, 1) for v in (student, teacher))
    return float(pixel_wise(s, t, divergence, direction))


@pytest.mark.parametrize(
    ("direction", "expected"),
    [("student-teacher", kl(0.2, 0.6) + kl(0.5, 0.9)), ("teacher-student", kl(0.6, 0.2) + kl(0.9, 0.5))],
)
def test_eq_8_bernoulli(direction: str, expected: float) -> None:
    assert pixel([0.2, 0.5], [0.6, 0.9], "bernoulli", direction) == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("direction", ["student-teacher", "teacher-student"])
def test_eq_8_softmax(direction: str) -> None:
    """Logits ln 1 and ln 3 make 1/4 and 3/4 of two classes; equal logits make halves."""
    student, teacher = (torch.tensor(v).log().view(1, 2, 1, 1) for v in ([1.0, 3.0], [5.0, 5.0]))
    p, q = (0.25, 0.5) if direction == "student-teacher" else (0.5, 0.25)
    assert float(pixel_wise(student, teacher, "softmax", direction)) == pytest.approx(kl(p, q), rel=1e-5)  # type: ignore[arg-type]


@pytest.mark.parametrize(("divergence", "direction"), READINGS)
def test_eq_8_is_a_mean_over_pixels_and_zero_for_equal_maps(divergence: Any, direction: Any) -> None:
    torch.manual_seed(0)
    student, teacher = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 4, 5)
    assert float(pixel_wise(student, student, divergence, direction)) == pytest.approx(0, abs=1e-7)
    whole = pixel_wise(student, teacher, divergence, direction)
    assert whole > 0
    one_by_one = [
        pixel_wise(student[n, :, y, x].view(1, 3, 1, 1), teacher[n, :, y, x].view(1, 3, 1, 1), divergence, direction)
        for n in range(2)
        for y in range(4)
        for x in range(5)
    ]
    torch.testing.assert_close(whole, torch.stack(one_by_one).mean())


@pytest.mark.parametrize(("divergence", "direction"), READINGS)
def test_eq_8_pulls_the_student_and_not_the_teacher(divergence: Any, direction: Any) -> None:
    torch.manual_seed(0)
    student, teacher = (torch.randn(1, 3, 4, 4, requires_grad=True) for _ in range(2))
    before = pixel_wise(student, teacher, divergence, direction)
    before.backward()
    assert teacher.grad is None
    assert student.grad is not None
    assert pixel_wise(student.detach() - student.grad, teacher, divergence, direction) < before


def test_eq_8_stays_finite_for_certain_maps() -> None:
    student = torch.tensor([-300.0, 300.0]).view(1, 2, 1, 1).requires_grad_()
    loss = pixel_wise(student, -student)
    loss.backward()
    assert loss.isfinite()
    assert student.grad is not None
    assert student.grad.isfinite().all()


# -- eq. 9, 10 --------------------------------------------------------------------------------------------------------
def as_printed(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 9 and 10 with both P x P similarity matrices."""
    similarities = []
    for features in (student, teacher):
        f = features.flatten(2).transpose(1, 2)  # [N, P, C]
        similarities.append(F.cosine_similarity(f[:, :, None], f[:, None], dim=3))
    return (similarities[0] - similarities[1]).square().mean((1, 2)).mean()


@pytest.mark.parametrize(("student", "teacher"), [(16, 32), (16, 16), (3, 1), (32, 16)])
@pytest.mark.parametrize("scale", [1e-2, 1.0, 1e3])
def test_the_cheap_form_equals_eq_10(student: int, teacher: int, scale: float) -> None:
    torch.manual_seed(student)
    s = (torch.randn(2, student, 6, 7, dtype=torch.float64) * scale).requires_grad_()
    t = torch.randn(2, teacher, 6, 7, dtype=torch.float64).relu()
    t[:, 0] += 0.1  # no pixel is zero in all channels
    expected = as_printed(s, t)
    (expected_gradient,) = torch.autograd.grad(expected, s)
    found = pair_wise(s, t)
    (gradient,) = torch.autograd.grad(found, s)
    assert float(found.detach()) == pytest.approx(float(expected.detach()), rel=1e-6)
    torch.testing.assert_close(gradient, expected_gradient, rtol=1e-6, atol=1e-9 * float(expected_gradient.abs().max()))


def test_the_cheap_form_keeps_its_digits_near_equality() -> None:
    """Where three nearly equal numbers cancel."""
    torch.manual_seed(0)
    t = torch.rand(1, 16, 12, 12) + 0.1
    s = t + 1e-3 * torch.randn_like(t)
    assert float(pair_wise(s, t)) == pytest.approx(float(as_printed(s.double(), t.double())), rel=1e-6)


def test_eq_10_by_hand() -> None:
    """Two pixels, orthogonal in the student and parallel in the teacher: two of four pairs differ, by 1."""
    student = torch.tensor([[1.0, 0.0], [0.0, 2.0]]).view(1, 2, 1, 2)
    teacher = torch.tensor([[3.0, 1.0]]).view(1, 1, 1, 2)
    assert float(pair_wise(student, teacher)) == pytest.approx(2 / 4)


def test_eq_10_is_zero_for_equal_and_for_scaled_maps() -> None:
    torch.manual_seed(0)
    features = torch.randn(2, 8, 5, 5)
    assert float(pair_wise(features, features)) == 0
    assert float(pair_wise(3 * features, features)) == pytest.approx(0, abs=1e-9)


def test_a_pixel_without_features_has_a_bounded_gradient() -> None:
    """After ReLU a pixel may be zero in every channel; the cosine's gradient there would be 1 / 0."""
    torch.manual_seed(0)
    student = torch.rand(1, 4, 3, 3)
    student[..., 0, 0] = 0
    student[..., 1, 1] = 1e-20
    student.requires_grad_()
    pair_wise(student, torch.rand(1, 8, 3, 3)).backward()
    assert student.grad is not None
    assert student.grad.isfinite().all()
    assert student.grad.abs().max() < 1e5


class Largest(TorchDispatchMode):
    """Bytes of the largest tensor that any operation returned."""

    bytes = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        out = func(*args, **(kwargs or {}))
        if isinstance(out, Tensor):
            self.bytes = max(self.bytes, out.numel() * out.element_size())
        return out


def test_the_cheap_form_needs_little_memory() -> None:
    """At the paper's map of 144x80 one similarity matrix is half a gigabyte; nothing here is over four megabytes."""
    pixels = 80 * 144
    assert pixels**2 * 4 > 0.53e9
    with Largest() as largest:
        pair_wise(torch.rand(1, 16, 80, 144, requires_grad=True), torch.rand(1, 32, 80, 144)).backward()
    assert 32 * pixels * 8 <= largest.bytes < 4e6


# -- eq. 11 -----------------------------------------------------------------------------------------------------------
def maps(width: int, seed: int) -> CenterMaps:
    torch.manual_seed(seed)
    return CenterMaps(*(torch.randn(1, c, 4, 4) for c in (3, 2, 2, width)))


def test_eq_11() -> None:
    student, teacher = maps(16, 0), maps(32, 1)
    terms = DistillationLoss(pixel=0.1, pair=10)(student, teacher)
    assert terms.keys() == {"pixel", "pair", "loss"}
    torch.testing.assert_close(terms["pixel"], pixel_wise(student.heatmap, teacher.heatmap))
    torch.testing.assert_close(terms["pair"], pair_wise(student.features, teacher.features))
    torch.testing.assert_close(terms["loss"], 0.1 * terms["pixel"] + 10 * terms["pair"])


@pytest.mark.parametrize(("weights", "kept"), [((0, 10), {"pair"}), ((0.1, 0), {"pixel"}), ((0, 0), set())])
def test_a_weight_of_zero_leaves_a_term_out(weights: tuple[float, float], kept: set[str]) -> None:
    terms = DistillationLoss(*weights)(maps(16, 0), maps(32, 1))
    assert terms.keys() == kept | {"loss"}
    if not kept:
        assert float(terms["loss"]) == 0
