"""Darknet-53 and the small Darknet of YOLOv3-tiny (Redmon and Farhadi 2018), and its PRN form (Wang et al. 2019)."""

from __future__ import annotations

from itertools import pairwise

from torch import Tensor, nn
from torch.nn import functional

from ..blocks import activation_named, conv_bn, leaky


class DarknetResidual(nn.Module):
    """1x1 to half the width, 3x3 back, shortcut (YOLOv3, table 1); both convolutions are activated, the sum is not."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(channels, channels // 2, 1, activation=leaky), conv_bn(channels // 2, channels, 3, activation=leaky)
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


class Darknet53(nn.Module):
    """Image [N, 3, H, W] -> 256, 512 and 1024 channels at strides 8, 16 and 32 (YOLOv3, table 1)."""

    channels: tuple[int, ...] = (256, 512, 1024)
    strides: tuple[int, ...] = (8, 16, 32)
    BLOCKS = (1, 2, 8, 8, 4)

    def __init__(self) -> None:
        super().__init__()
        self.stem = conv_bn(3, 32, 3, activation=leaky)
        self.stages = nn.ModuleList()
        width = 32
        for blocks in self.BLOCKS:
            halved = conv_bn(width, 2 * width, 3, stride=2, activation=leaky)
            width *= 2
            self.stages.append(nn.Sequential(halved, *(DarknetResidual(width) for _ in range(blocks))))

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(image), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[2:])


class SameMaxPool(nn.MaxPool2d):
    """Darknet's 2x2 max pooling with stride 1: the map keeps its size, the window reaches right and down."""

    def __init__(self) -> None:
        super().__init__(2, stride=1, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return functional.max_pool2d(x, 2, 1, 1)[:, :, 1:, 1:]


class DarknetTiny(nn.Module):
    """The Darknet reference network as YOLOv3-tiny uses it: 3x3 convolutions 16 to 512, each followed by max pooling.

    Image [N, 3, H, W] -> 128, 256 and 1024 channels at strides 8, 16 and 32.
    prn: the last convolution keeps 512 channels and adds the one before the pooling (YOLOv3-tiny-PRN)
    """

    strides: tuple[int, ...] = (8, 16, 32)
    WIDTHS = (16, 32, 64, 128, 256, 512)

    def __init__(self, prn: bool = False, activation: str = "leaky") -> None:
        super().__init__()
        act = activation_named(activation)
        widths = (3, *self.WIDTHS)
        self.convolutions = nn.ModuleList(conv_bn(cin, cout, 3, activation=act) for cin, cout in pairwise(widths))
        self.pool = nn.MaxPool2d(2)
        self.same = SameMaxPool()
        self.prn = prn
        self.last = conv_bn(512, 512 if prn else 1024, 3, activation=act)
        self.activation = act()
        self.channels = (128, 256, 512 if prn else 1024)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = image, []
        for i, convolution in enumerate(self.convolutions):
            x = convolution(self.pool(x) if i else x)
            maps.append(x)
        last = self.last(self.same(x))
        return maps[3], maps[4], self.activation(last + x) if self.prn else last
