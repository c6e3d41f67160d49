"""Structured knowledge distillation: pixel-wise and pair-wise terms (Mobile CenterNet, section 3.2, eq. 8-11)."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.heads.centernet import CenterMaps
from .losses import PROBABILITY_FLOOR

NORM_FLOOR = 1e-4  # shorter feature vectors count as zero: the cosine's gradient grows with 1 / length

Divergence = Literal["bernoulli", "softmax"]
Direction = Literal["student-teacher", "teacher-student"]


def pixel_wise(
    student: Tensor, teacher: Tensor, divergence: Divergence = "bernoulli", direction: Direction = "student-teacher"
) -> Tensor:
    """Eq. 8: mean over pixels (and over the batch) of KL(student || teacher) between heat maps [N, C, H', W'] (logits).

    The heat maps are sigmoid outputs, not a distribution over classes, so eq. 8 leaves its KL open. "bernoulli" takes
    the KL of each class's Bernoulli variable and sums over classes; "softmax" makes a distribution over classes first.
    direction: which distribution the expectation is taken under; eq. 8 prints student || teacher.
    """
    student, teacher = student.float(), teacher.detach().float()
    p, q = (student, teacher) if direction == "student-teacher" else (teacher, student)
    if divergence == "softmax":
        log_p, log_q = p.log_softmax(1), q.log_softmax(1)
        return (log_p.exp() * (log_p - log_q)).sum(1).mean()
    p, q = (x.sigmoid().clamp(PROBABILITY_FLOOR, 1 - PROBABILITY_FLOOR) for x in (p, q))
    kl = p * (p / q).log() + (1 - p) * ((1 - p) / (1 - q)).log()
    return kl.sum(1).mean()


def pair_wise(student: Tensor, teacher: Tensor) -> Tensor:
    """Eq. 9, 10: mean squared difference of the cosine similarities of all pixel pairs, mean over the batch.

    student: [N, Cs, H', W'], teacher: [N, Ct, H', W']; the widths may differ.
    With pixels as unit rows of F [P, C], the sum over pairs of (Fs Fs^T - Ft Ft^T)^2 is a Frobenius norm, and
    |Fs Fs^T - Ft Ft^T|^2 = |Fs^T Fs|^2 + |Ft^T Ft|^2 - 2 |Fs^T Ft|^2
    needs only C x C matrices. That is exact, where eq. 10 as printed takes two P x P ones: at 144x80, P = 11,520 and
    each is half a gigabyte.
    """
    # the difference of three nearly equal numbers: float64 keeps the digits that float32 would lose
    s = F.normalize(student.double().flatten(2), dim=1, eps=NORM_FLOOR)  # [N, Cs, P]
    t = F.normalize(teacher.detach().double().flatten(2), dim=1, eps=NORM_FLOOR)
    pixels = s.shape[2]
    total = _gram(s, s) + _gram(t, t) - 2 * _gram(s, t)
    return (total / pixels**2).mean().float()


def _gram(a: Tensor, b: Tensor) -> Tensor:
    """Squared Frobenius norm of a b^T for each image: [N, Ca, P], [N, Cb, P] -> [N]."""
    return (a @ b.transpose(1, 2)).square().sum((1, 2))


class DistillationLoss(torch.nn.Module):
    """Eq. 11's two additional terms: lambda_pa L_pa + lambda_pi L_pi. A weight of 0 skips the term's computation."""

    def __init__(
        self,
        pixel: float = 0.1,
        pair: float = 10.0,
        divergence: Divergence = "bernoulli",
        direction: Direction = "student-teacher",
    ) -> None:
        super().__init__()
        self.pixel, self.pair = pixel, pair
        self.divergence: Divergence = divergence
        self.direction: Direction = direction

    def forward(self, student: CenterMaps, teacher: CenterMaps) -> dict[str, Tensor]:
        """The named terms and, under ``loss``, their weighted sum."""
        terms: dict[str, Tensor] = {}
        if self.pixel:
            terms["pixel"] = pixel_wise(student.heatmap, teacher.heatmap, self.divergence, self.direction)
        if self.pair:
            terms["pair"] = pair_wise(student.features, teacher.features)
        zero = student.heatmap.new_zeros((), dtype=torch.float32)
        terms["loss"] = self.pixel * terms.get("pixel", zero) + self.pair * terms.get("pair", zero)
        return terms
