"""The front-end of Tiny-DSOD: four extra levels and D-FPN, the depthwise feature pyramid (Li et al. 2018, fig. 2)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..backbones.tinydsod import halve, pointwise_depthwise
from ..blocks import L2Norm, conv_bn
from .fpn import resize_to


class DownSampling(nn.Module):
    """Half of the channels by a strided depthwise convolution, half by pooling and a 1x1 (fig. 2, left)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.strided = pointwise_depthwise(channels, half, stride=2)
        self.pooled = nn.Sequential(halve(), conv_bn(channels, half, 1))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pooled(x), self.strided(x)], dim=1)


class UpSampling(nn.Module):
    """Resize, depthwise 3x3 with bias and, where ``pointwise``, a 1x1; added to the finer map, ReLU (fig. 2, right)."""

    def __init__(self, channels: int, pointwise: bool) -> None:
        super().__init__()
        self.smooth = nn.Conv2d(channels, channels, 3, padding=1, groups=channels)
        self.mix = nn.Conv2d(channels, channels, 1, bias=False) if pointwise else nn.Identity()

    def forward(self, coarse: Tensor, fine: Tensor) -> Tensor:
        return torch.relu(fine + self.mix(self.smooth(resize_to(coarse, fine))))


class DFPN(nn.Module):
    """Two maps of the backbone -> six of the same width, normalised; the three finest are fused with all coarser ones.

    The authors' script fuses all levels, but lets the predictors of the three coarsest read the maps before fusion.
    pointwise: on how many of the finest levels the up-sampling path has a 1x1: 1 in the script
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], pointwise: int = 1) -> None:
        super().__init__()
        width = channels[-1]
        self.down = nn.ModuleList(DownSampling(width) for _ in range(4))
        self.up = nn.ModuleList(UpSampling(width, i < pointwise) for i in range(5))
        self.norm = nn.ModuleList(L2Norm(width) for _ in range(6))
        self.channels = (width,) * 6
        self.strides = (*strides, *(strides[-1] * 2**i for i in range(1, 5)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        levels = list(maps)
        for layer in self.down:
            levels.append(layer(levels[-1]))
        fused = list(levels)
        for i in reversed(range(5)):
            fused[i] = self.up[i](fused[i + 1], levels[i])
        read = [*fused[:3], *levels[3:]]
        return tuple(norm(x) for norm, x in zip(self.norm, read, strict=True))
