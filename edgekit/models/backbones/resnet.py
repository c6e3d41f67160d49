"""ResNet (He et al. 2016) and ResNeXt (Xie et al. 2017) without classifiers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..blocks import conv_bn
from .staged import StagedBackbone


class Residual(nn.Module):
    """ReLU of a body and its shortcut, which is a 1x1 where the shape changes (He et al. 2016, section 3.3 B)."""

    def __init__(self, body: nn.Module, cin: int, cout: int, stride: int) -> None:
        super().__init__()
        self.body = body
        same = cin == cout and stride == 1
        self.shortcut = nn.Identity() if same else conv_bn(cin, cout, 1, stride, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def basic(cin: int, cout: int, stride: int) -> Residual:
    """Two 3x3s (fig. 5 left)."""
    body = nn.Sequential(conv_bn(cin, cout, 3, stride), conv_bn(cout, cout, 3, relu=False))
    return Residual(body, cin, cout, stride)


def bottleneck(cin: int, mid: int, cout: int, stride: int, groups: int = 1) -> Residual:
    """1x1, 3x3, 1x1 (fig. 5 right); the 3x3 has the stride, as in every later implementation, and ResNeXt's groups."""
    body = nn.Sequential(
        conv_bn(cin, mid, 1), conv_bn(mid, mid, 3, stride, groups=groups), conv_bn(mid, cout, 1, relu=False)
    )
    return Residual(body, cin, cout, stride)


class Depth(NamedTuple):
    """blocks: per stage, conv2 to conv5;  expansion: output over inner width of ResNet's bottleneck; 1: basic blocks"""

    blocks: tuple[int, int, int, int]
    expansion: int = 4


# Table 1.
DEPTHS: Mapping[int, Depth] = {
    18: Depth((2, 2, 2, 2), 1),
    34: Depth((3, 4, 6, 3), 1),
    50: Depth((3, 4, 6, 3)),
    101: Depth((3, 4, 23, 3)),
    152: Depth((3, 8, 36, 3)),
}


def resnet(
    depth: int = 50, groups: int = 1, group_width: int = 64, levels: Sequence[int] = (8, 16, 32)
) -> StagedBackbone:
    """ResNet of a depth in DEPTHS; with ``groups=32, group_width=4`` ResNeXt 32x4d. levels: out of 4, 8, 16, 32."""
    if depth not in DEPTHS:
        raise ValueError(f"depth: expected one of {', '.join(map(str, DEPTHS))}, got {depth!r}")
    blocks, expansion = DEPTHS[depth]
    if expansion == 1 and groups != 1:
        raise ValueError(f"groups: ResNet-{depth} has no bottlenecks to group, got {groups}")
    stages, widths, cin = [], [], 64
    for i, count in enumerate(blocks):
        mid = groups * group_width * 2**i
        cout = 64 * 2**i * expansion
        steps = [1 if i == 0 else 2] + [1] * (count - 1)
        parts = []
        for stride in steps:
            parts.append(basic(cin, cout, stride) if expansion == 1 else bottleneck(cin, mid, cout, stride, groups))
            cin = cout
        stages.append(nn.Sequential(*parts))
        widths.append(cout)
    stem = nn.Sequential(*conv_bn(3, 64, 7, 2), nn.MaxPool2d(3, 2, padding=1))
    return StagedBackbone(stem, stages, widths, (4, 8, 16, 32), levels)


def resnext(depth: int = 50, levels: Sequence[int] = (8, 16, 32)) -> StagedBackbone:
    """ResNeXt 32x4d: 32 groups, four channels wide in conv2 (Xie et al. 2017, table 1)."""
    return resnet(depth, 32, 4, levels)
