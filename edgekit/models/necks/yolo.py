"""The feature pyramids of YOLOv3 and YOLOv3-tiny (Redmon and Farhadi 2018), up to the head's 1x1 predictors."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..blocks import activation_named, conv_bn
from .parts import conv_set, raise_octave, spp_set, three_levels


class YOLOv3Neck(nn.Module):
    """Maps at strides 8, 16 and 32 -> 256, 512 and 1024 channels: a set of five convolutions per scale, then a 3x3.

    spp: spatial pyramid pooling in the middle of the coarsest set (YOLOv3-SPP)
    """

    channels: tuple[int, ...] = (256, 512, 1024)
    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(self, channels: Sequence[int], activation: str = "leaky", spp: bool = False) -> None:
        super().__init__()
        act = activation_named(activation)
        c3, c4, c5 = three_levels(channels)
        self.top = spp_set(c5, 512, act) if spp else conv_set(c5, 512, act)
        self.raise4, self.raise3 = raise_octave(512, 256, act), raise_octave(256, 128, act)
        self.set4, self.set3 = conv_set(256 + c4, 256, act), conv_set(128 + c3, 128, act)
        self.outputs = nn.ModuleList(conv_bn(width // 2, width, 3, activation=act) for width in self.channels)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        c3, c4, c5 = maps
        p5 = self.top(c5)
        p4 = self.set4(torch.cat([self.raise4(p5), c4], dim=1))
        p3 = self.set3(torch.cat([self.raise3(p4), c3], dim=1))
        return tuple(output(x) for output, x in zip(self.outputs, (p3, p4, p5), strict=True))


class YOLOv3TinyNeck(nn.Module):
    """Maps at strides 16 and 32 -> 256 and 512 channels; the map at stride 8 is not read."""

    channels: tuple[int, ...] = (256, 512)
    strides: tuple[int, ...] = (16, 32)

    def __init__(self, channels: Sequence[int], activation: str = "leaky") -> None:
        super().__init__()
        act = activation_named(activation)
        _, c4, c5 = three_levels(channels)
        self.reduce = conv_bn(c5, 256, 1, activation=act)
        self.raise4 = raise_octave(256, 128, act)
        self.output5 = conv_bn(256, 512, 3, activation=act)
        self.output4 = conv_bn(128 + c4, 256, 3, activation=act)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        _, c4, c5 = maps
        p5 = self.reduce(c5)
        return self.output4(torch.cat([self.raise4(p5), c4], dim=1)), self.output5(p5)
