"""Region proposals inside a static graph: suppression and region pooling as matrix arithmetic.

TensorRT 8.2 has no RoiAlign, and its NonMaxSuppression leaves the graph's shapes open; both are written here with
operators that every board reads.
"""

from __future__ import annotations

import torch
from torch import Tensor

from ..anchors import AnchorMaps, decode, in_float32
from .anchor import pick


def pairwise_iou(boxes: Tensor) -> Tensor:
    """Boxes [N, K, 4] (xyxy) -> intersection over union of all pairs [N, K, K]."""
    ends, others = boxes.unsqueeze(2), boxes.unsqueeze(1)
    extent = (torch.minimum(ends[..., 2:], others[..., 2:]) - torch.maximum(ends[..., :2], others[..., :2])).relu()
    overlap = extent[..., 0] * extent[..., 1]
    side = (boxes[..., 2:] - boxes[..., :2]).relu()
    area = side[..., 0] * side[..., 1]
    return overlap / (area.unsqueeze(2) + area.unsqueeze(1) - overlap + 1e-9)


def suppress(boxes: Tensor, scores: Tensor, threshold: float, rounds: int) -> Tensor:
    """NMS of boxes [N, K, 4] that are sorted by their scores [N, K], best first -> 1 for kept, 0 for suppressed [N, K].

    Cluster NMS (Zheng et al. 2021, section 3.3): in every round a box is suppressed that overlaps a better one which
    the round before had kept. After as many rounds as the longest chain of suppressions it is exactly greedy NMS;
    with fewer, boxes at the end of longer chains may be kept or suppressed otherwise.
    threshold: intersection over union above which the lower box goes
    """
    rank = torch.arange(scores.shape[1], dtype=scores.dtype, device=scores.device)
    key = scores - rank  # falls by at least one from box to box: ties are decided, and the difference clips to 0 or 1
    better = (key.unsqueeze(2) - key.unsqueeze(1)).clamp(0, 1)
    conflict = better * (pairwise_iou(boxes) > threshold).to(scores.dtype)  # [n, i, j]: i, if kept, suppresses j
    kept = torch.ones_like(scores)
    for _ in range(rounds):
        kept = 1 - (conflict * kept.unsqueeze(2)).amax(dim=1)
    return kept


def propose(
    maps: AnchorMaps, size: tuple[int, int], candidates: int, proposals: int, threshold: float = 0.7, rounds: int = 4
) -> Tensor:
    """A region proposal network's maps (one class) -> proposals [N, proposals, 4], xyxy inside the image, best first.

    size: width and height of the input;  candidates: anchors that enter NMS, at most 3840
    Where NMS leaves fewer than ``proposals``, the best suppressed boxes fill up, so that the shape is static.
    """
    location, confidence = in_float32(maps.location), in_float32(maps.confidence)  # bfloat16 cannot count beyond 256
    scores, index = (confidence[..., 1] - confidence[..., 0]).topk(candidates, dim=1)
    anchors = pick(maps.anchors.expand_as(location), index)
    boxes = clip(decode(pick(location, index), anchors, variances=(1.0, 1.0, 1.0, 1.0)), size)
    kept = suppress(boxes, scores, threshold, rounds)
    _, order = (scores - 1e6 * (1 - kept)).topk(proposals, dim=1)
    return pick(boxes, order)


def clip(boxes: Tensor, size: tuple[int, int]) -> Tensor:
    """Boxes [..., 4] (xyxy) cut at the borders of an image of ``size`` (width, height)."""
    x = boxes[..., 0::2].clamp(0, size[0])
    y = boxes[..., 1::2].clamp(0, size[1])
    return torch.stack([x[..., 0], y[..., 0], x[..., 1], y[..., 1]], dim=-1)


def position_sensitive_align(features: Tensor, boxes: Tensor, stride: float, bins: int, samples: int = 2) -> Tensor:
    """Position-sensitive RoI align: a map [N, C * bins^2, H, W] at boxes [N, R, 4] -> [N, R, C, bins, bins].

    boxes: xyxy in input pixels;  stride: input pixels per cell of the map
    Bin (i, j) of output channel c reads map channel (c * bins + i) * bins + j (R-FCN's order), as the mean of
    ``samples`` x ``samples`` bilinear samples. Samples and weights are separable, so that the pooling is two matrix
    products with the hat functions max(0, 1 - |u - cell|): exact, with no gathering. Cell k's centre lies at
    (k + 0.5) * stride; samples beyond the outermost centres read the outermost cells.
    """
    n, channels, height, width = features.shape
    depth = channels // bins**2
    rows = _hats(boxes[..., 1], boxes[..., 3], stride, bins, samples, height).transpose(1, 2)  # [N, bins, R, H]
    columns = _hats(boxes[..., 0], boxes[..., 2], stride, bins, samples, width)  # [N, R, bins, W]
    table = features.reshape(n, depth, bins, bins, height, width).permute(0, 2, 4, 1, 3, 5)  # [N, i, H, C, j, W]
    by_row = rows @ table.reshape(n, bins, height, depth * bins * width)  # [N, i, R, C * j * W]
    by_row = by_row.reshape(n, bins, -1, depth, bins, width)
    # A mean times its length: opset 13's ReduceSum takes its axes as an int64 tensor, ReduceMean does not.
    pooled = (by_row * columns.unsqueeze(1).unsqueeze(3)).mean(dim=-1) * width  # [N, i, R, C, j]
    return pooled.permute(0, 2, 3, 1, 4)


def _hats(start: Tensor, end: Tensor, stride: float, bins: int, samples: int, cells: int) -> Tensor:
    """Weight of every cell in every bin along one axis [N, R, bins, cells]; boxes from ``start`` to ``end`` [N, R]."""
    count = bins * samples
    places = (torch.arange(count, dtype=start.dtype, device=start.device) + 0.5) / count
    position = start.unsqueeze(-1) + (end - start).unsqueeze(-1) * places  # [N, R, bins * samples]
    position = (position / stride - 0.5).clamp(0, cells - 1)
    grid = torch.arange(cells, dtype=start.dtype, device=start.device)
    hats = (1 - (position.unsqueeze(-1) - grid).abs()).relu()
    return hats.reshape(*start.shape, bins, samples, cells).mean(dim=3)
