"""ShuffleNetV2 (Ma et al. 2018) without its classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..blocks import conv_bn
from .staged import StagedBackbone

REPEATS = (4, 8, 4)  # units of stages 2, 3 and 4, the one that halves the map included
# Table 5: width -> channels of the first convolution, of stages 2 to 4, and of the 1x1 after them.
WIDTHS: dict[str, tuple[int, ...]] = {
    "0.5": (24, 48, 96, 192, 1024),
    "1.0": (24, 116, 232, 464, 1024),
    "1.5": (24, 176, 352, 704, 1024),
    "2.0": (24, 244, 488, 976, 2048),
}


def shuffle(x: Tensor) -> Tensor:
    """Channel shuffle of two groups: 0, n/2, 1, n/2 + 1, ..."""
    n, channels, height, width = x.shape
    return x.reshape(n, 2, channels // 2, height, width).transpose(1, 2).reshape(n, channels, height, width)


def branch(cin: int, cout: int, kernel: int, stride: int) -> nn.Sequential:
    """1x1, depthwise, 1x1; the depthwise convolution has no activation (fig. 3c, d)."""
    return nn.Sequential(
        conv_bn(cin, cout, 1),
        conv_bn(cout, cout, kernel, stride, relu=False, groups=cout),
        conv_bn(cout, cout, 1),
    )


class Unit(nn.Module):
    """Split the channels, work on one half, concatenate, shuffle (fig. 3c)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()
        self.width = channels // 2
        self.body = branch(self.width, self.width, kernel, 1)

    def forward(self, x: Tensor) -> Tensor:
        kept, worked = x.split(self.width, dim=1)  # a plain Split in ONNX; chunk computes its borders
        return shuffle(torch.cat([kept, self.body(worked)], dim=1))


class HalvingUnit(nn.Module):
    """Both branches see the whole input and halve it (fig. 3d)."""

    def __init__(self, cin: int, cout: int, kernel: int) -> None:
        super().__init__()
        half = cout // 2
        self.beside = nn.Sequential(
            conv_bn(cin, cin, kernel, 2, relu=False, groups=cin),
            conv_bn(cin, half, 1),
        )
        self.body = branch(cin, half, kernel, 2)

    def forward(self, x: Tensor) -> Tensor:
        return shuffle(torch.cat([self.beside(x), self.body(x)], dim=1))


class ShuffleNetV2(StagedBackbone):
    """Table 5. Maps after stages 2, 3 and 4: strides 8, 16 and 32; the last one after the 1x1 where there is one.

    widths: channels of the first convolution, of the three stages and, if given, of the last 1x1
    kernel: of the depthwise convolutions;  levels: strides of the maps, out of 8, 16 and 32
    repeats: units of the three stages
    """

    def __init__(
        self,
        widths: Sequence[int] = WIDTHS["1.0"],
        kernel: int = 3,
        levels: Sequence[int] = (8, 16, 32),
        repeats: Sequence[int] = REPEATS,
    ) -> None:
        stem = nn.Sequential(conv_bn(3, widths[0], 3, 2), nn.MaxPool2d(3, 2, padding=1))
        stages = [
            nn.Sequential(HalvingUnit(cin, cout, kernel), *(Unit(cout, kernel) for _ in range(count - 1)))
            for cin, cout, count in zip(widths[:3], widths[1:4], repeats, strict=True)
        ]
        channels = list(widths[1:4])
        if len(widths) == 5:
            stages[-1].append(conv_bn(widths[3], widths[4], 1))
            channels[-1] = widths[4]
        super().__init__(stem, stages, channels, (8, 16, 32), levels)


def shufflenet_v2(width: str | float = "1.0", levels: Sequence[int] = (8, 16, 32)) -> ShuffleNetV2:
    """width: "0.5", "1.0", "1.5" or "2.0", a column of table 5;  levels: strides of the maps, out of 8, 16 and 32."""
    if str(width) not in WIDTHS:
        raise ValueError(f"width: expected one of {', '.join(WIDTHS)}, got {width!r}")
    return ShuffleNetV2(WIDTHS[str(width)], levels=levels)
