"""PANet (Liu et al. 2018) with spatial pyramid pooling, as in CSPNet's table 4 on CSPResNeXt-50 (published cfg)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..blocks import activation_named, conv_bn
from .parts import conv_set, raise_octave, spp_set, three_levels


class PANet(nn.Module):
    """YOLOv3's pyramid with a second way from fine to coarse (Liu et al. 2018), and pooling at the top.

    Maps at strides 8, 16 and 32 -> 256, 512 and 1024 channels. The laterals are reduced to the width of what comes from
    above before the concatenation.
    """

    channels: tuple[int, ...] = (256, 512, 1024)
    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(self, channels: Sequence[int], activation: str = "leaky", spp: bool = True) -> None:
        super().__init__()
        act = activation_named(activation)
        c3, c4, c5 = three_levels(channels)
        self.top = spp_set(c5, 512, act) if spp else conv_set(c5, 512, act)
        self.lateral4, self.lateral3 = conv_bn(c4, 256, 1, activation=act), conv_bn(c3, 128, 1, activation=act)
        self.raise4, self.raise3 = raise_octave(512, 256, act), raise_octave(256, 128, act)
        self.set4, self.set3 = conv_set(512, 256, act), conv_set(256, 128, act)
        self.down4, self.back4 = conv_bn(128, 256, 3, stride=2, activation=act), conv_set(512, 256, act)
        self.down5, self.back5 = conv_bn(256, 512, 3, stride=2, activation=act), conv_set(1024, 512, act)
        self.outputs = nn.ModuleList(conv_bn(width // 2, width, 3, activation=act) for width in self.channels)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        c3, c4, c5 = maps
        top = self.top(c5)
        middle = self.set4(torch.cat([self.lateral4(c4), self.raise4(top)], dim=1))
        p3 = self.set3(torch.cat([self.lateral3(c3), self.raise3(middle)], dim=1))
        p4 = self.back4(torch.cat([self.down4(p3), middle], dim=1))
        p5 = self.back5(torch.cat([self.down5(p4), top], dim=1))
        return tuple(output(x) for output, x in zip(self.outputs, (p3, p4, p5), strict=True))
