"""Res2NetLite, the backbone of RefineDetLite (Chen et al. 2019, section 3.2, table 1, fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..blocks import conv_bn
from .staged import StagedBackbone

GROUPS = 2  # "maximal g = 2": grouped convolutions are not free on a CPU
REPEATS = (3, 7, 3)  # Res2Blocks of stages 1, 2 and 3
SCALES = 4  # parts of a Res2Block
Block: TypeAlias = Callable[[int, int], nn.Module]


class InputNorm(nn.BatchNorm2d):
    """Batch normalisation of the image itself (table 1, stage 0).

    It stands before a padded convolution, into which it cannot be folded; at inference it is one product and one sum.

    On several GPUs PyTorch's SyncBatchNorm takes its place, as that of every norm that learns its statistics: the same
    normalisation, over the images of all processes, under the same names of weights. What is exported is built anew.
    """

    def forward(self, input: Tensor) -> Tensor:
        if self.training:
            return super().forward(input)
        assert self.running_mean is not None
        assert self.running_var is not None
        scale = self.weight / (self.running_var + self.eps).sqrt()
        shift = self.bias - self.running_mean * scale
        return input * scale.view(1, -1, 1, 1) + shift.view(1, -1, 1, 1)


def downsample(cin: int, mid: int, cout: int) -> nn.Sequential:
    """Bottleneck (fig. 2a): 1x1, strided 3x3 in two groups, 1x1; no shortcut."""
    return nn.Sequential(conv_bn(cin, mid, 1), conv_bn(mid, mid, 3, 2, groups=GROUPS), conv_bn(mid, cout, 1))


class Res2Block(nn.Module):
    """1x1, four parts in a hierarchy of 3x3s, 1x1, shortcut (fig. 2b; Gao et al. 2019, fig. 2b).

    The first part passes by, every other one is added to what the one before it gave. mid: width of the four together
    """

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.part = part = mid // SCALES
        self.reduce = conv_bn(channels, mid, 1)
        self.parts = nn.ModuleList(conv_bn(part, part, 3, groups=GROUPS) for _ in range(SCALES - 1))
        self.restore = conv_bn(mid, channels, 1, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        first, *others = self.reduce(x).split(self.part, dim=1)  # a plain Split in ONNX; chunk computes its borders
        found = [first]
        for i, (layer, part) in enumerate(zip(self.parts, others, strict=True)):
            found.append(layer(part if i == 0 else part + found[-1]))
        return self.relu(x + self.restore(torch.cat(found, dim=1)))


class ResBlock(nn.Module):
    """The classical bottleneck of table 3, row (a): 1x1, 3x3, 1x1, shortcut. mid: width of the 3x3"""

    def __init__(self, channels: int, mid: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(channels, mid, 1), conv_bn(mid, mid, 3), conv_bn(mid, channels, 1, relu=False)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(x + self.body(x))


BLOCKS: Mapping[str, Block] = {"res2": Res2Block, "res": ResBlock}


def res2netlite(
    width: int = 72, mid_ratio: float = 1.0, block: str = "res2", levels: Sequence[int] = (16, 32)
) -> StagedBackbone:
    """Table 1 without stage 4: maps of 4c, 8c and 16c channels at strides 8, 16 and 32.

    width: c, 72 in Res2NetLite72;  block: one of BLOCKS
    mid_ratio: inner width of a block over its own width: 1 as in the text and in the cfg of CSPNet's authors, 1/2, or
        1/4 as in the third-party port
    """
    if block not in BLOCKS:
        raise ValueError(f"block: expected one of {', '.join(BLOCKS)}, got {block!r}")
    mids = [round(4 * width * 2**i * mid_ratio) for i in range(3)]
    if width < 1 or any(mid < SCALES * GROUPS or mid % (SCALES * GROUPS) for mid in mids):
        raise ValueError(
            f"mid_ratio: {mid_ratio} of width {width} gives inner widths {mids}; needed multiples of {SCALES * GROUPS}"
        )
    stem = nn.Sequential(InputNorm(3), *conv_bn(3, 32, 3, 2), nn.MaxPool2d(3, 2, padding=1))
    stages, widths, cin = [], [], 32
    for i, (mid, count) in enumerate(zip(mids, REPEATS, strict=True)):
        cout = 4 * width * 2**i
        stages.append(
            nn.Sequential(downsample(cin, cout // 4, cout), *(BLOCKS[block](cout, mid) for _ in range(count)))
        )
        widths.append(cout)
        cin = cout
    return StagedBackbone(stem, stages, widths, (8, 16, 32), levels)
