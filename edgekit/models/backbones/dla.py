"""DLA-34, deep layer aggregation (Yu et al. 2018, fig. 3, table 1), without its classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..blocks import conv_bn
from .staged import StagedBackbone

# Table 1, DLA-34: depth of the tree and width of the stages at strides 4, 8, 16 and 32.
STAGES = ((1, 64), (2, 128), (2, 256), (1, 512))


class Root(nn.Module):
    """Aggregation node: 1x1 over the concatenation of its children (section 3.2)."""

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.conv = conv_bn(cin, cout, 1)

    def forward(self, children: Sequence[Tensor]) -> Tensor:
        return self.conv(torch.cat(list(children), dim=1))


class AggregatedBlock(nn.Module):
    """Two 3x3s; the shortcut is given from outside, because a tree shares its projection."""

    def __init__(self, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, cout, 3, stride), conv_bn(cout, cout, 3, relu=False))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        return self.relu(self.body(x) + shortcut)


class Pair(nn.Module):
    """The smallest tree: two blocks and the root that joins them with what came before (fig. 3)."""

    def __init__(self, cin: int, cout: int, stride: int, extra: int) -> None:
        super().__init__()
        self.pool = nn.MaxPool2d(stride) if stride > 1 else nn.Identity()
        self.project = nn.Identity() if cin == cout else conv_bn(cin, cout, 1, relu=False)
        self.first = AggregatedBlock(cin, cout, stride)
        self.second = AggregatedBlock(cout, cout, 1)
        self.root = Root(2 * cout + extra, cout)

    def forward(self, x: Tensor, before: Sequence[Tensor] = ()) -> Tensor:
        first = self.first(x, self.project(self.pool(x)))
        return self.root([self.second(first, first), first, *before])


class Stage(nn.Module):
    """A tree of one or two pairs that halves its input; the last root also reads the pooled input (except first).

    pairs: 1 or 2;  joined: does the root read the input of the stage, as at strides 8 to 32
    """

    def __init__(self, cin: int, cout: int, pairs: int, joined: bool) -> None:
        super().__init__()
        own = cin if joined else 0
        self.pool = nn.MaxPool2d(2)
        self.joined = joined
        self.early = nn.ModuleList([Pair(cin, cout, 2, 0)] if pairs == 2 else [])
        self.late = Pair(cout, cout, 1, own + cout) if pairs == 2 else Pair(cin, cout, 2, own)

    def forward(self, x: Tensor) -> Tensor:
        before = [self.pool(x)] if self.joined else []
        for tree in self.early:
            x = tree(x)
            before = [*before, x]
        return self.late(x, before)


def dla34(levels: Sequence[int] = (4, 8, 16, 32)) -> StagedBackbone:
    """64, 128, 256 and 512 channels at strides 4, 8, 16 and 32; levels: strides of the maps, out of those."""
    stem = nn.Sequential(conv_bn(3, 16, 7), conv_bn(16, 16, 3), conv_bn(16, 32, 3, 2))
    stages, cin = [], 32
    for i, (depth, width) in enumerate(STAGES):
        stages.append(Stage(cin, width, depth, joined=i > 0))
        cin = width
    return StagedBackbone(stem, stages, [width for _, width in STAGES], (4, 8, 16, 32), levels)
