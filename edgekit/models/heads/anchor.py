"""From the raw maps of any anchor head (SSD, RefineDet, FPN, ...) to the output contract."""

from __future__ import annotations

from typing import Literal, TypeAlias

import torch
from torch import Tensor

from ..anchors import AnchorMaps, decode

Activation: TypeAlias = Literal["softmax", "sigmoid"]
# TensorRT's TopK takes at most this many.
MAX_TOP_K = 3840


def decode_anchor_maps(
    maps: AnchorMaps, top_k: int | None = None, activation: Activation = "softmax", keep: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Raw maps -> (boxes [N, K, 4] xyxy in input pixels, scores [N, K, C] foreground probabilities).

    top_k: keep the anchors with the ``top_k`` best scores of any class, best first; None, or at least as many as there
        are anchors, keeps all A in their own order. NMS comes after it, on the host: give it a few hundred.
    activation: "softmax" over the classes and the background (SSD), or "sigmoid" of each class (focal loss)
    keep: [N, A, 1], factors of the scores: zero for anchors that RefineDet's first step has filtered
    ``maps.anchors`` is [A, 4], or [N, A, 4] where every image has its own (RefineDet's refined anchors).

    Raises ValueError when ``top_k`` cuts and is more than TensorRT's TopK takes, 3840.
    """
    scores = foreground(maps.confidence, activation)
    if keep is not None:
        scores = scores * keep
    index = strongest(scores, top_k)
    if index is None:
        return decode(maps.location, maps.anchors), scores
    boxes = decode(pick(maps.location, index), pick(maps.anchors.expand_as(maps.location), index))
    return boxes, pick(scores, index)


def strongest(scores: Tensor, top_k: int | None) -> Tensor | None:
    """Indices [N, K] of the ``top_k`` anchors of ``scores`` [N, A, C] with the best score of any class, best first.

    None where all A are kept. Raises ValueError when ``top_k`` cuts and is more than TensorRT's TopK takes, 3840.
    """
    count = scores.shape[1]
    if top_k is None or top_k >= count:
        return None
    if not 1 <= top_k <= MAX_TOP_K:
        raise ValueError(f"top_k: expected 1..{MAX_TOP_K} or all {count} anchors, got {top_k}")
    return scores.amax(dim=2).topk(top_k, dim=1)[1]


def foreground(confidence: Tensor, activation: Activation = "softmax") -> Tensor:
    """Logits [N, A, C + 1], background first -> foreground probabilities [N, A, C]."""
    if activation == "softmax":
        return confidence.softmax(dim=-1)[..., 1:]
    return confidence[..., 1:].sigmoid()


def pick(values: Tensor, index: Tensor) -> Tensor:
    """Rows ``index`` [N, K] of ``values`` [N, A, D] -> [N, K, D]."""
    return torch.gather(values, 1, index.unsqueeze(-1).expand(-1, -1, values.shape[-1]))
