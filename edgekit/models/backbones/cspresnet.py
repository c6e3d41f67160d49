"""ResNet-10, and cross stage partial networks of residual blocks (Wang et al. 2020, fig. 5, table 3).

ResNet-10 and CSPResNeXt-50 follow the authors' published cfgs. CSPResNet-10 was never published: its structure is a
reading that meets its parameters and BFLOPs, see docs/readings.md.
"""

from __future__ import annotations

from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Tensor, nn

from ..blocks import conv_bn, leaky, partial_add
from .staged import StagedBackbone


def _stem() -> nn.Sequential:
    """7x7 with stride 2 and 2x2 max pooling: 3 -> 64 channels at stride 4."""
    return nn.Sequential(conv_bn(3, 64, 7, stride=2, activation=leaky), nn.MaxPool2d(2))


class PartialBasicBlock(nn.Module):
    """Two 3x3s and darknet's shortcut: no projection, the channels and positions that both maps have are added."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(cin, cout, 3, stride=stride, activation=leaky), conv_bn(cout, cout, 3, relu=False)
        )
        self.stride = stride
        self.activation = leaky()

    def forward(self, x: Tensor) -> Tensor:
        kept = x if self.stride == 1 else x[:, :, :: self.stride, :: self.stride]
        return self.activation(partial_add(self.body(x), kept))


LEVELS = (8, 16, 32)


class ResNet10(StagedBackbone):
    """128, 256 and 512 channels at strides 8, 16 and 32 (He et al. 2016, one block per stage)."""

    def __init__(self) -> None:
        widths = (64, 64, 128, 256, 512)
        stages = [PartialBasicBlock(cin, cout, 1 if i == 0 else 2) for i, (cin, cout) in enumerate(pairwise(widths))]
        super().__init__(_stem(), stages, widths[1:], (4, *LEVELS), LEVELS)


# -- CSPResNet-10 -----------------------------------------------------------------------------------------------------
class ResidualUnit(nn.Module):
    """One 3x3 and an identity shortcut; without a bottleneck, because half of the channels pass by (section 3.1)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = conv_bn(channels, channels, 3, relu=False)
        self.activation = leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(self.body(x) + x)


class CSPResStage(nn.Module):
    """Strided 3x3 to half of ``cout``, split by two 1x1s, a residual unit, transition, concatenation (fig. 5).

    The next stage's strided convolution is the second transition.
    """

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        half = cout // 2
        self.reduce = conv_bn(cin, half, 3, stride=2, activation=leaky)
        self.part1 = conv_bn(half, half, 1, activation=leaky)
        self.part2 = nn.Sequential(
            conv_bn(half, half, 1, activation=leaky), ResidualUnit(half), conv_bn(half, half, 1, activation=leaky)
        )

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return torch.cat([self.part2(x), self.part1(x)], dim=1)


class CSPResNet10(StagedBackbone):
    """256, 256 and 512 channels at strides 8, 16 and 32; a reading (open)."""

    def __init__(self) -> None:
        widths = (64, 256, 256, 512)
        stem = nn.Sequential(*_stem(), PartialBasicBlock(64, 64, 1))
        super().__init__(stem, [CSPResStage(cin, cout) for cin, cout in pairwise(widths)], widths[1:], LEVELS, LEVELS)


# -- CSPResNeXt-50 ----------------------------------------------------------------------------------------------------
CARDINALITY = 32


class ResXBlock(nn.Module):
    """1x1, 3x3 in 32 groups, linear 1x1, all ``channels`` wide, and the partial addition of the input (fig. 5)."""

    def __init__(self, cin: int, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(cin, channels, 1, activation=leaky),
            conv_bn(channels, channels, 3, groups=CARDINALITY, activation=leaky),
            conv_bn(channels, channels, 1, relu=False),
        )
        self.activation = leaky()

    def forward(self, x: Tensor) -> Tensor:
        return self.activation(partial_add(self.body(x), x))


class XStage(NamedTuple):
    """width: channels of each part, half of what leaves the stage;  linear: are the two splitting 1x1s not activated"""

    width: int
    blocks: int
    linear: bool


X_STAGES = (XStage(128, 3, False), XStage(256, 3, True), XStage(512, 5, True), XStage(1024, 2, False))


class CSPResXStage(nn.Module):
    """Split by two 1x1s, ResX blocks on part 2, transition, concatenation with part 1, transition (fig. 5).

    first: the stage at stride 4, which reads 64 channels and keeps them in part 2; the others begin with a strided
    grouped 3x3 that keeps the width, and both of their parts have it
    """

    def __init__(self, cin: int, stage: XStage, first: bool) -> None:
        super().__init__()
        width, activated = stage.width, not stage.linear
        self.reduce = nn.Identity() if first else conv_bn(cin, cin, 3, stride=2, groups=CARDINALITY, activation=leaky)
        inner = cin if first else width
        self.part1 = conv_bn(cin, width, 1, relu=activated, activation=leaky)
        self.part2 = conv_bn(cin, inner, 1, relu=activated, activation=leaky)
        blocks = [ResXBlock(inner if i == 0 else width, width) for i in range(stage.blocks)]
        self.blocks = nn.Sequential(*blocks, conv_bn(width, width, 1, activation=leaky))
        self.output = conv_bn(2 * width, 2 * width, 1, activation=leaky)

    def forward(self, x: Tensor) -> Tensor:
        x = self.reduce(x)
        return self.output(torch.cat([self.blocks(self.part2(x)), self.part1(x)], dim=1))


class CSPResNeXt50(StagedBackbone):
    """512, 1024 and 2048 channels at strides 8, 16 and 32."""

    def __init__(self) -> None:
        widths = (64, *(2 * stage.width for stage in X_STAGES))
        stages = [
            CSPResXStage(cin, stage, i == 0) for i, (cin, stage) in enumerate(zip(widths, X_STAGES, strict=False))
        ]
        super().__init__(_stem(), stages, widths[1:], (4, *LEVELS), LEVELS)
