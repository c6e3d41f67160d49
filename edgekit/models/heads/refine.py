"""The second step of RefineDet: heads that start from refined anchors, and the decode of the cascade."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..anchors import AnchorMaps, RefineMaps, bounded, in_float32, refine
from ..deformable import lowering_named, sampled_conv
from .anchor import decode_anchor_maps
from .ssd import Predictor, SSDHead, cells

THETA = 0.99  # negative anchor filtering (RefineDet++, section III-B)
KERNELS = (3, 5, 7)


class PlainODM(nn.Module):
    """The object detection module of RefineDet: ordinary predictors, which do not look where their anchors went."""

    def __init__(
        self, channels: Sequence[int], boxes: Sequence[int], classes: int, predictor: Predictor, anchors: Tensor
    ) -> None:
        super().__init__()
        self.head = SSDHead(channels, boxes, classes, predictor, anchors)

    def forward(self, maps: Sequence[Tensor], first: AnchorMaps) -> AnchorMaps:
        return self.head(maps)


class AlignODM(nn.Module):
    """The alignment detection module (RefineDet++, section III-D, fig. 1 right, fig. 3).

    Each refined anchor is cut into K x K parts, and the taps of the convolution read the map at their centres. Every
    anchor of a cell has a filter bank of its own, so that there are exactly as many parameters as in ``PlainODM`` with
    a K x K predictor, in the same order. The paper pairs the row i with x in its formula; here columns go with x.

    strides: input pixels per cell of each map;  kernel: K, one of KERNELS;  lowering: see ``edgekit.models.deformable``
    """

    def __init__(
        self,
        channels: Sequence[int],
        boxes: Sequence[int],
        classes: int,
        strides: Sequence[float],
        anchors: Tensor,
        kernel: int = 3,
        lowering: str = "gather",
    ) -> None:
        super().__init__()
        if kernel not in KERNELS:
            raise ValueError(f"align: expected one of {', '.join(map(str, KERNELS))}, got {kernel!r}")
        self.classes = classes
        self.boxes = tuple(boxes)
        self.map_strides = tuple(strides)
        self.kernel = kernel
        self.lowering = lowering_named(lowering)
        levels = list(zip(channels, boxes, strict=True))
        self.location = nn.ModuleList(nn.Conv2d(width, count * 4, kernel) for width, count in levels)
        self.confidence = nn.ModuleList(nn.Conv2d(width, count * (classes + 1), kernel) for width, count in levels)
        self.register_buffer("anchors", anchors, persistent=False)

    anchors: Tensor

    def forward(self, maps: Sequence[Tensor], first: AnchorMaps) -> AnchorMaps:
        """maps [N, C, H, W] per level, and what the first step predicted; the refined anchors get no gradient.

        They are computed in here, so that quantization leaves them in float together with this module.
        """
        location = in_float32(first.location.detach())
        if not torch.onnx.is_in_onnx_export():
            location = bounded(location)  # a tap at infinity has no cell
        return self.aligned(maps, refine(location, first.anchors))

    def aligned(self, maps: Sequence[Tensor], refined: Tensor) -> AnchorMaps:
        """maps [N, C, H, W] per level and refined anchors [N, A, 4] (cx, cy, w, h in pixels)."""
        location, confidence, start = [], [], 0
        for level, x in enumerate(maps):
            count = x.shape[-2] * x.shape[-1] * self.boxes[level]
            found = self._level(level, x, refined[:, start : start + count])
            location.append(found[..., :4])
            confidence.append(found[..., 4:])
            start += count
        return AnchorMaps(torch.cat(location, dim=1), torch.cat(confidence, dim=1), self.anchors, tuple(maps))

    def _level(self, level: int, x: Tensor, refined: Tensor) -> Tensor:
        """One map and its anchors [N, H * W * boxes, 4] -> offsets and logits [N, H * W * boxes, 4 + C + 1]."""
        n, _, height, width = x.shape
        boxes, values = self.boxes[level], 5 + self.classes
        weight, bias = self._banks(level)
        own = refined.reshape(n, height, width, boxes, 4)
        found = [
            sampled_conv(
                x,
                part_centres(own[:, :, :, i], self.kernel, self.map_strides[level]),
                weight[i],
                bias[i],
                lowering=self.lowering,
            )
            for i in range(boxes)
        ]
        return cells([torch.cat(found, dim=1)], values)

    def _banks(self, level: int) -> tuple[Tensor, Tensor]:
        """Filters [boxes, 4 + C + 1, width, K, K] and biases [boxes, 4 + C + 1]: location and confidence together."""
        boxes = self.boxes[level]
        weights, biases = [], []
        for part in (self.location[level], self.confidence[level]):
            assert isinstance(part, nn.Conv2d)
            assert part.bias is not None
            weights.append(part.weight.reshape(boxes, -1, *part.weight.shape[1:]))
            biases.append(part.bias.reshape(boxes, -1))
        return torch.cat(weights, dim=1), torch.cat(biases, dim=1)


def part_centres(boxes: Tensor, kernel: int, stride: float) -> tuple[Tensor, Tensor]:
    """Centres of the K x K parts of boxes [N, H, W, 4] (cx, cy, w, h in pixels) -> columns and rows [N, K * K, H, W].

    They are in cells of a map of ``stride`` pixels, whose cell k has its centre at (k + 0.5) * stride.
    """
    places = (torch.arange(kernel, dtype=boxes.dtype, device=boxes.device) + 0.5) / kernel - 0.5
    across = places.repeat(kernel).view(1, -1, 1, 1)
    down = places.repeat_interleave(kernel).view(1, -1, 1, 1)
    cx, cy, width, height = (boxes[..., k].unsqueeze(1) for k in range(4))
    return (cx + across * width) / stride - 0.5, (cy + down * height) / stride - 0.5


def filtered(maps: RefineMaps, theta: float = THETA) -> Tensor:
    """1 for anchors that the first step lets pass, 0 for easy negatives [N, A, 1]: background above ``theta``."""
    background = maps.arm_scores.softmax(dim=-1)[..., :1]
    return 1 - (background > theta).to(background.dtype)


def second_anchors(maps: RefineMaps, steps: int = 2) -> Tensor:
    """Where the second offsets start, cx, cy, w, h in pixels.

    steps: 2: at anchors [N, A, 4] that the first have moved, two-step cascaded regression (RefineDet++, section III-C);
        1: at the anchors [A, 4] as they stand (table II, fourth column), and the first step only filters
    """
    return refine(in_float32(maps.arm_boxes), maps.anchors) if steps == 2 else maps.anchors


def decode_refine_maps(
    maps: RefineMaps, top_k: int | None = None, theta: float = THETA, steps: int = 2
) -> tuple[Tensor, Tensor]:
    """Raw maps -> (boxes [N, K, 4] xyxy in input pixels, scores [N, K, C] foreground probabilities).

    Scores of filtered anchors are zero: a static graph cannot drop them. top_k: see ``decode_anchor_maps``
    steps: see ``second_anchors``
    """
    second = AnchorMaps(maps.odm_boxes, maps.odm_scores, second_anchors(maps, steps), maps.features)
    return decode_anchor_maps(second, top_k, keep=filtered(maps, theta))
