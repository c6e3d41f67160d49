"""Pelee's layers between PeleeNet and the SSD predictors (Wang, Li and Ling 2018, section 3)."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..blocks import conv_bn
from .ssd import Extra

# 10 -> 5 -> 3 -> 1 cells a side at 304x304.
PELEE_EXTRAS = (Extra(256, 256), Extra(128, 256, valid=True), Extra(128, 256, valid=True))


class ResidualPrediction(nn.Module):
    """The residual block before every predictor (fig. 4, ResBlock): a 1x1 beside 1x1, 3x3, 1x1; 256 channels out."""

    def __init__(self, cin: int, cout: int = 256) -> None:
        super().__init__()
        mid = cout // 2
        self.shortcut = conv_bn(cin, cout, 1, relu=False)
        self.body = nn.Sequential(conv_bn(cin, mid, 1), conv_bn(mid, mid, 3), conv_bn(mid, cout, 1, relu=False))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.shortcut(x) + self.body(x))


def plain_extra(cin: int, extra: Extra) -> nn.Sequential:
    """1x1 and 3x3 with bias and ReLU; Pelee's extra layers have no batch normalisation."""
    stride, padding = (1, 0) if extra.valid else (2, 1)
    return nn.Sequential(
        nn.Conv2d(cin, extra.mid, 1),
        nn.ReLU(inplace=True),
        nn.Conv2d(extra.mid, extra.out, 3, stride, padding),
        nn.ReLU(inplace=True),
    )


class PeleeNeck(nn.Module):
    """PeleeNet's two coarsest maps and three extra ones, each through a residual prediction block.

    The finest map is handed out twice: two predictors with boxes of different size read it (table 5, 19x19).
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 256) -> None:
        super().__init__()
        widths = [channels[-1], *(extra.out for extra in PELEE_EXTRAS)]
        self.extras = nn.ModuleList(plain_extra(cin, extra) for cin, extra in zip(widths, PELEE_EXTRAS, strict=False))
        self.residual = nn.ModuleList(ResidualPrediction(cin, width) for cin in (*channels[-2:], *widths[1:]))
        self.channels = (width,) * 6
        fine, coarse = strides[-2:]
        self.strides = (fine, fine, coarse, 2 * coarse, 2 * coarse, 2 * coarse)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = list(maps[-2:])
        for layer in self.extras:
            found.append(layer(found[-1]))
        first, *others = (block(x) for block, x in zip(self.residual, found, strict=True))
        return (first, first, *others)
