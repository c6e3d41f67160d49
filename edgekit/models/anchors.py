"""Anchor boxes and the coding of boxes against them (SSD, Liu et al. 2016, section 2.2)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

VARIANCES = (0.1, 0.1, 0.2, 0.2)  # SSD's scaling of the four offsets: centre x, y and log width, height
LARGEST_SCALE = math.log(1000 / 16)  # of a predicted width or height against its anchor, as in Detectron: see bounded


class AnchorMaps(NamedTuple):
    """What an anchor head predicts, before decoding; A anchors, C foreground classes.

    location: [N, A, 4] offsets coded against the anchors;  confidence: [N, A, C + 1] logits, background first
    anchors: [A, 4] centre x, centre y, width, height in input pixels
    features: the maps that the head reads, high resolution first; distillation compares them
    """

    location: Tensor
    confidence: Tensor
    anchors: Tensor
    features: tuple[Tensor, ...]


class RefineMaps(NamedTuple):
    """What a RefineDet predicts, before decoding; A anchors, C foreground classes (RefineDet++, section III).

    arm_boxes: [N, A, 4] offsets coded against ``anchors``: the first step of the cascade
    arm_scores: [N, A, 2] logits of the anchor refinement module, background first; no class
    odm_boxes: [N, A, 4] offsets coded against the refined anchors, which are ``decode(arm_boxes, anchors)`` in
        centre form: the second step. The refined anchors are not differentiated through: detach them
    odm_scores: [N, A, C + 1] logits, background first, not yet filtered by ``arm_scores``
    anchors: [A, 4] centre x, centre y, width, height in input pixels
    features: the maps that the object detection module reads, high resolution first; distillation compares them
    """

    arm_boxes: Tensor
    arm_scores: Tensor
    odm_boxes: Tensor
    odm_scores: Tensor
    anchors: Tensor
    features: tuple[Tensor, ...] = ()


def grid_anchors(
    shape: tuple[int, int], step: tuple[float, float], sizes: Sequence[tuple[float, float]], centre: float = 0.5
) -> Tensor:
    """Anchors of one level, [H * W * len(sizes), 4] as cx, cy, w, h in pixels; anchors of one cell are neighbours.

    shape: height and width of the map;  step: pixels between cells in y and x;  sizes: (width, height) in pixels
    centre: where in its cell an anchor sits; 0.5 is the middle
    """
    height, width = shape
    ys = (torch.arange(height, dtype=torch.float32) + centre) * step[0]
    xs = (torch.arange(width, dtype=torch.float32) + centre) * step[1]
    centres = torch.stack(torch.meshgrid(xs, ys, indexing="xy"), dim=-1).view(-1, 1, 2)  # row by row
    extents = torch.tensor(sizes, dtype=torch.float32).view(1, -1, 2)
    cells, boxes = centres.shape[0], extents.shape[1]
    return torch.cat([centres.expand(cells, boxes, 2), extents.expand(cells, boxes, 2)], dim=-1).reshape(-1, 4)


def encode(boxes: Tensor, anchors: Tensor, variances: Sequence[float] = VARIANCES) -> Tensor:
    """Boxes [..., 4] (xyxy) as offsets against anchors [..., 4] (cx, cy, w, h): the inverse of ``decode``."""
    centre = (boxes[..., :2] + boxes[..., 2:]) / 2
    extent = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-6)
    shift = (centre - anchors[..., :2]) / anchors[..., 2:]
    scale = (extent / anchors[..., 2:]).log()
    return torch.cat([shift, scale], dim=-1) / boxes.new_tensor(variances)


def decode(location: Tensor, anchors: Tensor, variances: Sequence[float] = VARIANCES) -> Tensor:
    """Offsets [..., 4] and anchors [..., 4] (cx, cy, w, h) -> boxes [..., 4] (xyxy, the anchors' pixels)."""
    offsets = location * location.new_tensor(variances)
    centre = anchors[..., :2] + offsets[..., :2] * anchors[..., 2:]
    half = anchors[..., 2:] * offsets[..., 2:].exp() / 2
    return torch.cat([centre - half, centre + half], dim=-1)


def refine(location: Tensor, anchors: Tensor, variances: Sequence[float] = VARIANCES) -> Tensor:
    """Anchors moved by their offsets, again as anchors [..., 4] (cx, cy, w, h): RefineDet's first step."""
    offsets = location * location.new_tensor(variances)
    centre = anchors[..., :2] + offsets[..., :2] * anchors[..., 2:]
    return torch.cat([centre, anchors[..., 2:] * offsets[..., 2:].exp()], dim=-1)


def bounded(offsets: Tensor, variances: Sequence[float] = VARIANCES) -> Tensor:
    """Offsets [..., 4 or more] whose width and height decode to at most exp(LARGEST_SCALE) times the anchor's, and to
    that part of it at least: an infinite box has an IoU of NaN. For training; a graph decodes what the network says.
    """
    limit = LARGEST_SCALE / variances[2]
    return torch.cat([offsets[..., :2], offsets[..., 2:4].clamp(-limit, limit), offsets[..., 4:]], dim=-1)


def in_float32(x: Tensor) -> Tensor:
    """``x`` in float32: places in an image have more digits than bfloat16 or float16 hold.

    Itself where it is that already, since a cast to its own type would be in the exported graph.
    """
    return x if x.dtype == torch.float32 else x.float()
