"""Overlap of boxes, and the losses that are made of it. Boxes are xyxy; everything is computed in float32."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor
from torch.nn import functional as F

from ..models.anchors import bounded, decode, encode

EPSILON = 1e-7


def corners(anchors: Tensor) -> Tensor:
    """Anchors [..., 4], cx, cy, w, h -> boxes [..., 4], xyxy."""
    half = anchors[..., 2:] / 2
    return torch.cat([anchors[..., :2] - half, anchors[..., :2] + half], dim=-1)


def area(boxes: Tensor) -> Tensor:
    """Boxes [..., 4] -> areas [...]; 0 for a box that is turned inside out."""
    extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=0)
    return extent[..., 0] * extent[..., 1]


def intersection(a: Tensor, b: Tensor) -> Tensor:
    """Area in common of boxes [..., 4] and [..., 4], which broadcast."""
    corners = torch.cat([torch.maximum(a[..., :2], b[..., :2]), torch.minimum(a[..., 2:], b[..., 2:])], dim=-1)
    return area(corners)


def iou(a: Tensor, b: Tensor) -> Tensor:
    """Intersection over union of boxes that broadcast; 0 where both are empty."""
    common = intersection(a, b)
    return common / (area(a) + area(b) - common).clamp(min=EPSILON)


def pairwise_iou(a: Tensor, b: Tensor) -> Tensor:
    """Boxes [..., A, 4] and [..., B, 4] -> intersection over union of all pairs [..., A, B]."""
    return iou(a.unsqueeze(-2), b.unsqueeze(-3))


# -- losses of pairs of boxes: prediction and target [M, 4] -> [M] ----------------------------------------------------
class _Hull(NamedTuple):
    """The smallest box around two: its area and the square of its diagonal."""

    area: Tensor
    diagonal2: Tensor


def _hull(a: Tensor, b: Tensor) -> _Hull:
    extent = torch.maximum(a[..., 2:], b[..., 2:]) - torch.minimum(a[..., :2], b[..., :2])
    return _Hull(extent[..., 0] * extent[..., 1], extent.square().sum(-1).clamp(min=EPSILON))


def _centre(boxes: Tensor) -> Tensor:
    return (boxes[..., :2] + boxes[..., 2:]) / 2


def _extent(boxes: Tensor) -> Tensor:
    return boxes[..., 2:] - boxes[..., :2]


def iou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - IoU (UnitBox, Yu et al. 2016, in its linear form); no gradient where the boxes do not touch."""
    return 1 - iou(prediction, target)


def giou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - GIoU, 0..2 (Rezatofighi et al. 2019, algorithm 1): IoU less the share of the hull that neither box covers."""
    common = intersection(prediction, target)
    union = (area(prediction) + area(target) - common).clamp(min=EPSILON)
    hull = _hull(prediction, target).area.clamp(min=EPSILON)
    return 1 - common / union + (hull - union) / hull


def diou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """1 - IoU + rho^2 / c^2 (Zheng et al. 2020, eq. 7; Lightweight SSD, eq. 6).

    rho: distance of the centres;  c: diagonal of the hull
    """
    distance2 = (_centre(prediction) - _centre(target)).square().sum(-1)
    return 1 - iou(prediction, target) + distance2 / _hull(prediction, target).diagonal2


def ciou_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """DIoU + alpha v (Zheng et al. 2020, eq. 8-11; Lightweight SSD, eq. 7).

    v = 4 / pi^2 (arctan(w* / h*) - arctan(w / h))^2,  alpha = v / ((1 - IoU) + v), which is not differentiated
    """
    w, h = _extent(prediction).clamp(min=EPSILON).unbind(-1)
    target_w, target_h = _extent(target).clamp(min=EPSILON).unbind(-1)
    v = 4 / math.pi**2 * (torch.atan2(target_w, target_h) - torch.atan2(w, h)).square()
    with torch.no_grad():
        alpha = v / (1 - iou(prediction, target) + v).clamp(min=EPSILON)
    return diou_loss(prediction, target) + alpha * v


def bll_loss(prediction: Tensor, target: Tensor) -> Tensor:
    """BLL, 1 - IoU + L2 / c^2 (Lightweight SSD, eq. 8).

    The paper does not define its L2 loss. Our reading: the squared differences of centre x, y, width and height,
    summed, in the units of the hull's diagonal c; so the term is dimensionless, and at most 3.
    """
    shift = (_centre(prediction) - _centre(target)).square().sum(-1)
    growth = (_extent(prediction) - _extent(target)).square().sum(-1)
    return 1 - iou(prediction, target) + (shift + growth) / _hull(prediction, target).diagonal2


BoxLoss: TypeAlias = Callable[[Tensor, Tensor], Tensor]
BOX_LOSSES: Mapping[str, BoxLoss] = {
    "iou": iou_loss,
    "giou": giou_loss,
    "diou": diou_loss,
    "ciou": ciou_loss,
    "bll": bll_loss,
}


# -- losses of offsets against anchors --------------------------------------------------------------------------------
def regression_loss(
    kind: str, location: Tensor, anchors: Tensor, boxes: Tensor, variances: tuple[float, ...]
) -> Tensor:
    """Loss of predicted offsets [M, 4] against the anchors [M, 4] (cx, cy, w, h) that should become ``boxes`` -> [M].

    kind: "smooth-l1" (Fast R-CNN, Girshick 2015, eq. 3: 0.5 x^2 below 1, |x| - 0.5 above; summed over the four coded
        offsets), or one of BOX_LOSSES, of the decoded box
    """
    location, anchors = location.float(), anchors.float()
    if kind == "smooth-l1":
        return F.smooth_l1_loss(location, encode(boxes, anchors, variances), reduction="none").sum(-1)
    return BOX_LOSSES[kind](decode(bounded(location, variances), anchors, variances), boxes)
