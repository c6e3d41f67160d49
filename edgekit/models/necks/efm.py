"""The Exact Fusion Model, and GFM and CEM, its comparisons (CSPNet, Wang et al. 2020, section 3.2, fig. 6, table 2).

Which scales meet, the widths of the outputs and where maxout stands are the paper's and its authors' words. The widths
inside are readings that meet its BFLOPs and parameters, see docs/readings.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..blocks import Activation, activation_named, conv_bn
from .parts import SAM, SPP, Maxout, Resize, three_levels

COMPRESSED = 64  # every source is reduced to this many channels by maxout before the concatenation


class Scale(NamedTuple):
    """One scale of the pyramid, strides 8, 16, 32.

    lateral: width of the 1x1 on the backbone's map;  inner, out: the 1x1 and the 3x3 behind the concatenation
    """

    lateral: int
    inner: int
    out: int


EXACT = (Scale(64, 64, 128), Scale(256, 128, 256), Scale(128, 256, 256))
GLOBAL = (Scale(64, 64, 128), Scale(256, 128, 256), Scale(128, 128, 256))


class EFM(nn.Module):
    """Exact fusion (fig. 6 c): a scale sees itself and its two neighbours, the range of its anchors' field of view.

    Maps at strides 8, 16 and 32 -> 128, 256 and 256 channels at the same strides. Coarser maps come by upsampling,
    finer ones by a strided 3x3.
    sam: spatial attention on each output;  spp: spatial pyramid pooling before the last 3x3 of stride 32
    """

    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(
        self, channels: Sequence[int], activation: str = "leaky", sam: bool = False, spp: bool = False
    ) -> None:
        super().__init__()
        act = activation_named(activation)
        self.laterals = _laterals(three_levels(channels), EXACT, act)
        self.down = nn.ModuleList(
            conv_bn(scale.lateral, scale.lateral, 3, stride=2, activation=act) for scale in EXACT[:-1]
        )
        self.maxouts = nn.ModuleList(Maxout(scale.lateral, COMPRESSED) for scale in EXACT)
        self.up = Resize(1)
        sources = (2, 3, 2)
        self.outputs = nn.ModuleList(
            _output(n * COMPRESSED, scale, act, sam, spp and scale is EXACT[-1])
            for n, scale in zip(sources, EXACT, strict=True)
        )
        self.channels = tuple(scale.out for scale in EXACT)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wide = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        narrow = [maxout(x) for maxout, x in zip(self.maxouts, wide, strict=True)]
        fine = [maxout(down(x)) for maxout, down, x in zip(self.maxouts, self.down, wide, strict=False)]
        coarse = [self.up(x) for x in narrow[1:]]
        fused = ([narrow[0], coarse[0]], [fine[0], narrow[1], coarse[1]], [fine[1], narrow[2]])
        return tuple(output(torch.cat(sources, dim=1)) for output, sources in zip(self.outputs, fused, strict=True))


class GFM(nn.Module):
    """Global fusion (fig. 6 b): every scale sees all three; finer maps come down by max pooling. EFM's widths."""

    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(self, channels: Sequence[int], activation: str = "leaky") -> None:
        super().__init__()
        act = activation_named(activation)
        self.laterals = _laterals(three_levels(channels), GLOBAL, act)
        self.maxouts = nn.ModuleList(Maxout(scale.lateral, COMPRESSED) for scale in GLOBAL)
        self.resize = _all_to_all()
        self.outputs = nn.ModuleList(_output(3 * COMPRESSED, scale, act, sam=False, spp=False) for scale in GLOBAL)
        self.channels = tuple(scale.out for scale in GLOBAL)

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        wide = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        narrow = [maxout(x) for maxout, x in zip(self.maxouts, wide, strict=True)]
        fused = [_resized(row, narrow) for row in self.resize]
        return tuple(output(torch.cat(sources, 1)) for output, sources in zip(self.outputs, fused, strict=True))


class CEM(nn.Module):
    """ThunderNet's context enhancement for three scales (table 2): each one is the sum of all, and of the image's mean.

    Maps at strides 8, 16 and 32 -> 128 channels each: 1x1 laterals, sum, maxout, 3x3. sam as in EFM.
    """

    strides: tuple[int, ...] = (8, 16, 32)
    WIDTH = 128

    def __init__(self, channels: Sequence[int], activation: str = "leaky", sam: bool = False) -> None:
        super().__init__()
        act = activation_named(activation)
        widths = three_levels(channels)
        self.laterals = nn.ModuleList(conv_bn(cin, self.WIDTH, 1, activation=act) for cin in widths)
        self.context = nn.Sequential(nn.AdaptiveAvgPool2d(1), conv_bn(widths[-1], self.WIDTH, 1, activation=act))
        self.resize = _all_to_all()
        self.maxout = Maxout(self.WIDTH, COMPRESSED)
        self.outputs = nn.ModuleList(
            nn.Sequential(conv_bn(COMPRESSED, self.WIDTH, 3, activation=act), SAM(self.WIDTH) if sam else nn.Identity())
            for _ in widths
        )
        self.channels = (self.WIDTH,) * 3

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        laterals = [lateral(x) for lateral, x in zip(self.laterals, maps, strict=True)]
        context = self.context(maps[-1])
        fused = [sum(_resized(row, laterals), start=context) for row in self.resize]
        return tuple(output(self.maxout(x)) for output, x in zip(self.outputs, fused, strict=True))


def _laterals(channels: Sequence[int], scales: Sequence[Scale], activation: Activation) -> nn.ModuleList:
    return nn.ModuleList(
        conv_bn(cin, scale.lateral, 1, activation=activation) for cin, scale in zip(channels, scales, strict=True)
    )


def _all_to_all() -> nn.ModuleList:
    """[target][source]: how a scale's map comes to another scale's size."""
    return nn.ModuleList(nn.ModuleList(Resize(source - target) for source in range(3)) for target in range(3))


def _resized(row: nn.Module, maps: Sequence[Tensor]) -> list[Tensor]:
    assert isinstance(row, nn.ModuleList)
    return [resize(x) for resize, x in zip(row, maps, strict=True)]


def _output(cin: int, scale: Scale, activation: Activation, sam: bool, spp: bool) -> nn.Sequential:
    """1x1, 3x3 and attention; with ``spp`` the 1x1 is four times narrower, and pooling makes the width again."""
    inner = scale.inner // 4 if spp else scale.inner
    return nn.Sequential(
        conv_bn(cin, inner, 1, activation=activation),
        *([SPP()] if spp else []),
        conv_bn(scale.inner, scale.out, 3, activation=activation),
        *([SAM(scale.out)] if sam else []),
    )
