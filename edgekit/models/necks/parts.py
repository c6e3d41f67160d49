"""Pieces that the necks of the YOLO family share."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ..blocks import Activation, conv_bn


def upsample() -> nn.Upsample:
    """Twice the size, nearest neighbour, as in darknet."""
    return nn.Upsample(scale_factor=2, mode="nearest")


def raise_octave(cin: int, cout: int, activation: Activation) -> nn.Sequential:
    """1x1, then twice the size."""
    return nn.Sequential(conv_bn(cin, cout, 1, activation=activation), upsample())


def conv_set(cin: int, narrow: int, activation: Activation, pairs: int = 2) -> nn.Sequential:
    """YOLOv3's alternation: ``pairs`` times 1x1 to ``narrow`` and 3x3 to its double, then 1x1 to ``narrow``."""
    layers: list[nn.Module] = []
    for i in range(pairs):
        layers.append(conv_bn(cin if i == 0 else 2 * narrow, narrow, 1, activation=activation))
        layers.append(conv_bn(narrow, 2 * narrow, 3, activation=activation))
    return nn.Sequential(*layers, conv_bn(2 * narrow, narrow, 1, activation=activation))


class SPP(nn.Module):
    """Spatial pyramid pooling as YOLO uses it: the map and its maxima over 5x5, 9x9 and 13x13, four times as wide."""

    WINDOWS = (5, 9, 13)

    def __init__(self) -> None:
        super().__init__()
        self.pools = nn.ModuleList(nn.MaxPool2d(window, stride=1, padding=window // 2) for window in self.WINDOWS)

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([*(pool(x) for pool in self.pools), x], dim=1)


def spp_set(cin: int, narrow: int, activation: Activation) -> nn.Sequential:
    """1x1, 3x3, 1x1, pooling to four times the width, 1x1, 3x3, 1x1."""
    return nn.Sequential(
        *conv_set(cin, narrow, activation, pairs=1), SPP(), *conv_set(4 * narrow, narrow, activation, pairs=1)
    )


class SAM(nn.Module):
    """Spatial attention of CSPNet's table 2, after ThunderNet: x * sigmoid(BN(1x1(x))), every pixel and channel."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.gate = nn.Sequential(*conv_bn(channels, channels, 1, relu=False), nn.Sigmoid())

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class Maxout(nn.Module):
    """Cross-channel pooling to ``channels`` (Goodfellow et al. 2013; CSPNet, section 3.2). Free of multiplications.

    Output channel i is the maximum of the input channels i, i + channels, i + 2 channels, ...: darknet's order.
    """

    def __init__(self, cin: int, channels: int) -> None:
        super().__init__()
        if cin % channels:
            raise ValueError(f"maxout: {cin} channels do not divide into groups for {channels}")
        self.channels = channels

    def forward(self, x: Tensor) -> Tensor:
        best, *others = x.split(self.channels, dim=1)  # a plain Split in ONNX; chunk computes its borders
        for piece in others:
            best = torch.maximum(best, piece)
        return best


class Resize(nn.Module):
    """Bring a map ``steps`` octaves up (nearest) or, where negative, down (max pooling)."""

    def __init__(self, steps: int) -> None:
        super().__init__()
        factor = 2 ** abs(steps)
        self.body: nn.Module = nn.Identity()
        if steps:
            self.body = nn.Upsample(scale_factor=factor, mode="nearest") if steps > 0 else nn.MaxPool2d(factor)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


def three_levels(channels: Sequence[int]) -> tuple[int, int, int]:
    """The widths of strides 8, 16 and 32. Raises ValueError where the backbone does not give three maps."""
    if len(channels) != 3:
        raise ValueError(f"neck: needs the three maps at strides 8, 16 and 32, the backbone gives {len(channels)}")
    return channels[0], channels[1], channels[2]
