"""HRNet as Mobile CenterNet uses it: only the highest-resolution map of stage 4 leaves the network.

Paper: Mobile CenterNet, section 3.1 and fig. 1; HRNet (Sun et al. 2019). The student's depth is a reading of the paper
that meets its parameter count and its complexity (1.62 M, 11.16 GOPS); no HRNet-W16 was ever published.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from ..blocks import BasicBlock, Bottleneck, conv_bn


@dataclass(frozen=True)
class HRNetConfig:
    """width: channels of the highest-resolution branch; each lower branch doubles them.
    modules: exchange modules in stages 2, 3 and 4.  blocks: basic blocks per branch and module.
    slim: the width of a stem and a first stage of two basic blocks, in the place of HRNet's 64 and four bottlenecks
    """

    width: int
    modules: tuple[int, int, int]
    blocks: int
    slim: int | None = None


HRNET_W16 = HRNetConfig(width=16, modules=(1, 1, 1), blocks=2)  # the student
HRNET_W32 = HRNetConfig(width=32, modules=(1, 4, 3), blocks=4)  # the teacher
# Ours: the first stage, four bottlenecks of 256 channels at stride 4, has 58 % of the student's arithmetic.
HRNET_W16_SLIM = HRNetConfig(width=16, modules=(1, 1, 1), blocks=2, slim=32)


class Exchange(nn.Module):
    """One HRNet module: basic blocks on every branch, then each output branch sums all inputs brought to its size.

    rows: how many output branches are built, from the highest resolution down. The last module of stage 4 builds one.
    """

    def __init__(self, widths: Sequence[int], blocks: int, rows: int) -> None:
        super().__init__()
        self.branches = nn.ModuleList(nn.Sequential(*(BasicBlock(w) for _ in range(blocks))) for w in widths)
        self.fusion = nn.ModuleList(
            nn.ModuleList(_resample(widths, source, row) for source in range(len(widths))) for row in range(rows)
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        maps = [branch(x) for branch, x in zip(self.branches, maps, strict=True)]
        outputs = []
        for row in self.fusion:
            assert isinstance(row, nn.ModuleList)
            terms = [path(x) for path, x in zip(row, maps, strict=True)]
            outputs.append(self.relu(sum(terms[1:], start=terms[0])))
        return outputs


def _resample(widths: Sequence[int], source: int, target: int) -> nn.Module:
    """The path from branch ``source`` to branch ``target`` of a fusion (branch k has stride 4 * 2^k)."""
    cin, cout = widths[source], widths[target]
    if source == target:
        return nn.Identity()
    if source > target:  # lower resolution: 1x1, then nearest upsampling
        return nn.Sequential(
            *conv_bn(cin, cout, 1, relu=False), nn.Upsample(scale_factor=2 ** (source - target), mode="nearest")
        )
    steps = target - source  # higher resolution: strided 3x3s; only the last one changes the width, and has no ReLU
    keep = [conv_bn(cin, cin, 3, stride=2) for _ in range(steps - 1)]
    return nn.Sequential(*keep, conv_bn(cin, cout, 3, stride=2, relu=False))


class HRNet(nn.Module):
    """Image [N, 3, H, W] -> features [N, width, H/4, W/4]. H and W must be divisible by 32."""

    stride = 4

    def __init__(self, config: HRNetConfig) -> None:
        super().__init__()
        c = config.width
        self.out_channels = c
        stem = config.slim or 64
        self.stem = nn.Sequential(conv_bn(3, stem, 3, stride=2), conv_bn(stem, stem, 3, stride=2))
        self.stage1, first = _first_stage(config.slim)
        self.transition1 = nn.ModuleList([conv_bn(first, c, 3), conv_bn(first, 2 * c, 3, stride=2)])
        self.stage2 = _stage([c, 2 * c], config.modules[0], config.blocks)
        self.transition2 = conv_bn(2 * c, 4 * c, 3, stride=2)
        self.stage3 = _stage([c, 2 * c, 4 * c], config.modules[1], config.blocks)
        self.transition3 = conv_bn(4 * c, 8 * c, 3, stride=2)
        self.stage4 = _stage([c, 2 * c, 4 * c, 8 * c], config.modules[2], config.blocks, last_rows=1)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stage1(self.stem(image))
        maps = _run(self.stage2, [transition(x) for transition in self.transition1])
        maps = _run(self.stage3, [*maps, self.transition2(maps[-1])])
        maps = _run(self.stage4, [*maps, self.transition3(maps[-1])])
        return maps[0]


def _first_stage(slim: int | None) -> tuple[nn.Sequential, int]:
    """The stage at one resolution, and its channels."""
    if slim:
        return nn.Sequential(BasicBlock(slim), BasicBlock(slim)), slim
    return nn.Sequential(Bottleneck(64, 64, 256), *(Bottleneck(256, 64, 256) for _ in range(3))), 256


def _stage(widths: Sequence[int], modules: int, blocks: int, last_rows: int | None = None) -> nn.ModuleList:
    rows = [len(widths)] * (modules - 1) + [last_rows or len(widths)]
    return nn.ModuleList(Exchange(widths, blocks, r) for r in rows)


def _run(stage: nn.ModuleList, maps: list[Tensor]) -> list[Tensor]:
    for module in stage:
        maps = module(maps)
    return maps
