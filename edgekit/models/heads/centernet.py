"""The CenterNet head: a heat map per class, and size and offset at every pixel (Mobile CenterNet, section 3.1)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn


class CenterMaps(NamedTuple):
    """What the head predicts at stride 4, before decoding.

    heatmap: [N, C, H', W'] logits; ``sigmoid`` gives the paper's H-hat
    size: [N, 2, H', W'] box width and height in units of the output stride
    offset: [N, 2, H', W'] sub-pixel shift of the centre in units of the output stride, eq. 5
    features: [N, width, H', W'] the stage-4 map the heads read; pair-wise distillation compares it, eq. 9
    """

    heatmap: Tensor
    size: Tensor
    offset: Tensor
    features: Tensor


class CenterNetHead(nn.Module):
    """Three branches of 3x3 -> filters, ReLU, 1x1; convolutions with bias, no normalisation.

    filters: 32 in the student, 64 in the teacher (section 3.2)
    """

    def __init__(self, in_channels: int, filters: int, classes: int) -> None:
        super().__init__()
        self.heatmap = _branch(in_channels, filters, classes)
        self.size = _branch(in_channels, filters, 2)
        self.offset = _branch(in_channels, filters, 2)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """No bias on the last convolutions, but for the heat map: it starts at sigmoid(-2.19) = 0.1, for focal loss.

        Their weights keep PyTorch's spread. With CenterNet's 0.001 all of them follow the background down before the
        first centre is found: the map of a rare class, whose w_c weighs the background too, then ends as its bias.
        """
        for branch, bias in ((self.heatmap, -2.19), (self.size, 0.0), (self.offset, 0.0)):
            last = branch[-1]
            assert isinstance(last, nn.Conv2d)
            assert last.bias is not None
            nn.init.constant_(last.bias, bias)

    def forward(self, features: Tensor) -> CenterMaps:
        return CenterMaps(self.heatmap(features), self.size(features), self.offset(features), features)


def _branch(cin: int, filters: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, filters, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(filters, cout, 1))


def peaks(heatmap: Tensor) -> Tensor:
    """Zero every probability that is not the maximum of its 3x3 neighbourhood (CenterNet's stand-in for NMS)."""
    pooled = torch.nn.functional.max_pool2d(heatmap, 3, stride=1, padding=1)
    return heatmap * (pooled == heatmap).to(heatmap.dtype)


def decode(maps: CenterMaps, stride: int, top_k: int) -> tuple[Tensor, Tensor]:
    """Center maps -> (boxes [N, K, 4] xyxy in input pixels, scores [N, K, C] probabilities).

    The K pixels with the strongest peak of any class are kept; each carries its peak score in every class, zero where
    it is no peak. That keeps the class out of the index, so the exported graph needs no integer division, which
    TensorRT 8.2 dislikes.
    """
    n, classes, height, width = maps.heatmap.shape
    scores = peaks(maps.heatmap.sigmoid()).flatten(2)  # [N, C, H'W']
    _, index = scores.amax(dim=1).topk(min(top_k, height * width), dim=1)  # [N, K]
    geometry = torch.cat([pixel_grid(height, width, maps.size).expand(n, -1, -1, -1) + maps.offset, maps.size], dim=1)
    picked = geometry.flatten(2).gather(2, index.unsqueeze(1).expand(-1, 4, -1)) * stride
    centre, half = picked[:, :2], picked[:, 2:] / 2
    boxes = torch.cat([centre - half, centre + half], dim=1)
    scores = scores.gather(2, index.unsqueeze(1).expand(-1, classes, -1))
    return boxes.transpose(1, 2), scores.transpose(1, 2)


def pixel_grid(height: int, width: int, like: Tensor) -> Tensor:
    """Pixel coordinates [1, 2, H', W'], x first."""
    ys = torch.arange(height, dtype=like.dtype, device=like.device).view(1, 1, height, 1).expand(1, 1, height, width)
    xs = torch.arange(width, dtype=like.dtype, device=like.device).view(1, 1, 1, width).expand(1, 1, height, width)
    return torch.cat([xs, ys], dim=1)
