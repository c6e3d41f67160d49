"""From a backbone's maps to the one map at stride 4 that a CenterNet head reads (Zhou et al. 2019, appendix A)."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TypeAlias

from torch import Tensor, nn

from ..blocks import conv_bn
from ..deformable import DeformableConv, TransposedConv

Conv3x3: TypeAlias = Callable[[int, int], nn.Module]
FILTERS = (256, 128, 64)


def conv_kind(deformable: bool, lowering: str = "gather") -> Conv3x3:
    """A deformable 3x3, or an ordinary one for boards that have no operator for it; both normalised, with ReLU."""
    if deformable:
        return partial(DeformableConv, lowering=lowering)
    return partial(conv_bn, kernel=3)


class DeconvNeck(nn.Module):
    """Three times a 3x3 to 256, 128, 64 channels and a 4x4 transposed convolution: stride 32 -> 4 (fig. 6b)."""

    def __init__(self, channels: int, stride: int, conv: Conv3x3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        cin = channels
        for width in FILTERS:
            layers += [conv(cin, width), TransposedConv(width, width)]
            cin = width
        self.layers = nn.Sequential(*layers)
        self.out_channels, self.stride = cin, stride // 8

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        return self.layers(maps[-1])


class Merge(nn.Module):
    """Bring coarser maps into a finer one, one after the other: project, enlarge, add, 3x3 (fig. 6d).

    steps: how many times coarser each of the maps after the first is
    """

    def __init__(self, channels: Sequence[int], steps: Sequence[int], width: int, conv: Conv3x3) -> None:
        super().__init__()
        self.project = nn.ModuleList(conv(cin, width) for cin in channels[1:])
        self.enlarge = nn.ModuleList(
            nn.ConvTranspose2d(width, width, 2 * step, step, padding=step // 2, groups=width, bias=False)
            for step in steps
        )
        self.node = nn.ModuleList(conv(width, width) for _ in steps)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """maps, fine to coarse -> the merged map after each coarser one."""
        x, found = maps[0], []
        for project, enlarge, node, coarser in zip(self.project, self.enlarge, self.node, maps[1:], strict=True):
            x = node(x + enlarge(project(coarser)))
            found.append(x)
        return found


class DLAUp(nn.Module):
    """DLA's iterative aggregation towards stride 4, with deformable convolutions on every edge (fig. 6d).

    Coarse maps are merged pairwise until every level has seen all coarser ones; then the three finest are merged.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], conv: Conv3x3) -> None:
        super().__init__()
        widths = list(channels)
        rounds = []
        for i in reversed(range(len(channels) - 1)):
            rounds.append(Merge(widths[i:], [2] * (len(widths) - i - 1), widths[i], conv))
            widths[i + 1 :] = [widths[i]] * (len(widths) - i - 1)
        self.rounds = nn.ModuleList(rounds)
        kept = list(channels[:-1])
        self.last = Merge(kept, [2**k for k in range(1, len(kept))], channels[0], conv)
        self.out_channels, self.stride = channels[0], strides[0]

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        levels = list(maps)
        found = [levels[-1]]
        for i, step in zip(reversed(range(len(maps) - 1)), self.rounds, strict=True):
            levels[i + 1 :] = step(levels[i:])
            found.insert(0, levels[-1])
        return self.last(found[: len(maps) - 1])[-1]
