"""Losses of class predictions: cross-entropy, focal, and RefineDetLite's soft labels, weights and balance of terms."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..models.heads.anchor import Activation

MISS_FLOOR = 1e-12  # of 1 - p_t: at 0 a power below 1 has no slope, and below 0, where rounding takes it, no value


def log_probabilities(logits: Tensor, label: Tensor, spared: Tensor | None) -> Tensor:
    """Log softmax [N, A, C + 1]; at background anchors the first is log(p_0 + sum_c spared_c p_c).

    There is no object of a labelled class there; it may be background or one of the spared classes, whose likelihoods
    add up. Logits of classes that are spared whole are constants there: what nobody labelled teaches nothing of them.
    """
    if spared is None:
        return logits.log_softmax(-1)
    constant = (spared == 1) & (label == 0).unsqueeze(-1)
    foreground = torch.where(constant, logits[..., 1:].detach(), logits[..., 1:])
    log_p = torch.cat([logits[..., :1], foreground], dim=-1).log_softmax(-1)
    either = torch.cat([log_p[..., :1], log_p[..., 1:] + spared.log()], dim=-1).logsumexp(-1)
    return torch.cat([torch.where(label == 0, either, log_p[..., 0]).unsqueeze(-1), log_p[..., 1:]], dim=-1)


def cross_entropy(
    logits: Tensor, label: Tensor, activation: Activation, weights: Tensor, spared: Tensor | None = None
) -> Tensor:
    """Weighted cross-entropy of each anchor [N, A].

    logits: [N, A, C + 1], background first;  label: int64 [N, A], 0 background
    activation: "softmax" over all, or "sigmoid": the sum over the C classes of binary cross-entropies
    weights: w_i [C + 1] of RefineDetLite's eq. 5, 1 for the background
    spared: [N, A or 1, C], 1 for classes that are not labelled in the image, 0 for the others; None: all are labelled.
        With "softmax" they count as background where no object is; with "sigmoid" they cost nothing
    """
    if activation == "softmax" and spared is None:
        return F.cross_entropy(logits.transpose(1, 2), label, reduction="none") * weights[label]
    if activation == "softmax":
        log_p = log_probabilities(logits, label, spared)
        return -log_p.gather(-1, label.unsqueeze(-1)).squeeze(-1) * weights[label]
    target = one_hot(label, logits)
    loss = F.binary_cross_entropy_with_logits(logits[..., 1:], target, reduction="none")
    return (loss * weights[1:] * _counts(spared)).sum(-1)


def _counts(spared: Tensor | None) -> Tensor | float:
    return 1.0 if spared is None else 1 - spared


def focal(
    logits: Tensor,
    label: Tensor,
    activation: Activation,
    weights: Tensor,
    alpha: float = 0.25,
    gamma: float = 2.0,
    spared: Tensor | None = None,
) -> Tensor:
    """Focal loss of each anchor [N, A]: -alpha_t (1 - p_t)^gamma log p_t (Lin et al. 2017, eq. 5).

    With "sigmoid" it is RetinaNet's: a sum over classes, alpha_t = alpha where a class is the anchor's, else 1 - alpha.
    With "softmax", p_t is the probability of the anchor's own class, and alpha_t = 1 - alpha for the background.
    spared: as in ``cross_entropy``
    """
    if activation == "softmax":
        log_p = log_probabilities(logits, label, spared).gather(-1, label.unsqueeze(-1)).squeeze(-1)
        alpha_t = torch.where(label > 0, alpha, 1 - alpha)
        miss = (-torch.expm1(log_p)).clamp(min=MISS_FLOOR)  # 1 - p_t
        return -alpha_t * miss**gamma * log_p * weights[label]
    target = one_hot(label, logits)
    loss = F.binary_cross_entropy_with_logits(logits[..., 1:], target, reduction="none")
    p = logits[..., 1:].sigmoid()
    miss = (p * (1 - target) + (1 - p) * target).clamp(min=MISS_FLOOR)
    alpha_t = alpha * target + (1 - alpha) * (1 - target)
    return (alpha_t * miss**gamma * loss * weights[1:] * _counts(spared)).sum(-1)


def one_hot(label: Tensor, logits: Tensor) -> Tensor:
    """Labels [N, A], 0 background -> [N, A, C] as the logits' kind of number."""
    return F.one_hot(label, logits.shape[-1])[..., 1:].to(logits.dtype)


# -- RefineDetLite, section 4.2: the IoU-guided loss ------------------------------------------------------------------
def soft_labels(label: Tensor, iou: Tensor, classes: int, alpha: float = 0.25) -> Tensor:
    """Eq. 3: the target distribution y [N, A, K] over K = ``classes`` classes, the background among them.

    y_t = 1 - alpha (1 - IoU) for a positive anchor, 1 - alpha IoU for a negative one; the others share the rest.
    label: int64 [N, A];  iou: [N, A], of the predicted box with the object that the anchor was assigned to
    """
    own = 1 - alpha * torch.where(label > 0, 1 - iou, iou)
    rest = ((1 - own) / (classes - 1)).unsqueeze(-1).expand(*label.shape, classes)
    return rest.scatter(-1, label.unsqueeze(-1), own.unsqueeze(-1))


def anchor_weights(label: Tensor, iou: Tensor, beta: float = 0.9) -> Tensor:
    """Eq. 4: eta = 1 / (1 + beta (IoU - 1)) for positive anchors, 10 at IoU 0 and beta 0.9; 1 for negative ones."""
    return torch.where(label > 0, 1 / (1 + beta * (iou - 1)), 1.0)


def iou_guided(
    logits: Tensor,
    label: Tensor,
    iou: Tensor,
    weights: Tensor,
    alpha: float = 0.25,
    beta: float = 0.9,
    spared: Tensor | None = None,
) -> Tensor:
    """Eq. 2 of each anchor [N, A]: eta sum_i w_i y_i log(y_i / softmax(x)_i), with eq. 3's labels and eq. 4's eta.

    spared: as in ``cross_entropy``; at background anchors the spared classes' part of y is the background's too
    """
    y = soft_labels(label, iou, logits.shape[-1], alpha)
    if spared is not None:
        moved = y[..., 1:] * spared * (label == 0).unsqueeze(-1)
        y = torch.cat([y[..., :1] + moved.sum(-1, keepdim=True), y[..., 1:] - moved], dim=-1)
    log_p = log_probabilities(logits, label, spared)
    divergence = (weights * (torch.xlogy(y, y) - y * log_p)).sum(-1)
    return anchor_weights(label, iou, beta) * divergence


# -- RefineDetLite, section 4.4: balanced multi-task learning ---------------------------------------------------------
class BalancedSum(nn.Module):
    """Eq. 6: the sum of 1/2 e^-s L + s/2 (regression) or e^-s L + s/2 (classification); s = log sigma^2 is learnt.

    regression: name of each term -> whether it is one of regression. The s start at 0 and take no weight decay.
    """

    def __init__(self, regression: Mapping[str, bool]) -> None:
        super().__init__()
        self.names = tuple(regression)
        self.log_variance = nn.Parameter(torch.zeros(len(regression)))
        self.register_buffer("_share", torch.tensor([0.5 if r else 1.0 for r in regression.values()]), persistent=False)

    _share: Tensor

    def forward(self, terms: Mapping[str, Tensor]) -> Tensor:
        losses = torch.stack([terms[name] for name in self.names])
        s = self.log_variance
        return (self._share * (-s).exp() * losses + s / 2).sum()


class PlainSum(nn.Module):
    """Eq. 1: the terms times their lambdas, which are fixed."""

    def __init__(self, lambdas: Mapping[str, float]) -> None:
        super().__init__()
        self.lambdas = dict(lambdas)

    def forward(self, terms: Mapping[str, Tensor]) -> Tensor:
        total = [weight * terms[name] for name, weight in self.lambdas.items()]
        return torch.stack(total).sum()
