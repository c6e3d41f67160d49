"""DDB-Net, the backbone of Tiny-DSOD (Li et al. 2018, section 3.1): dense blocks of depthwise convolutions."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..blocks import conv_bn

# Table 1: layers and growth of the dense stages, and the width of the transition after each.
STAGES = ((4, 32, 128), (6, 48, 128), (6, 64, 256), (6, 80, 64))


def pointwise_depthwise(cin: int, cout: int, stride: int = 1) -> nn.Sequential:
    """1x1, depthwise 3x3, and one batch normalisation and ReLU after both."""
    return nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), conv_bn(cout, cout, 3, stride, groups=cout))


class DepthwiseDenseLayer(nn.Module):
    """DDB-b (fig. 1b): 1x1 to ``growth``, depthwise 3x3; what it computes is concatenated to its input."""

    def __init__(self, cin: int, growth: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, growth, 1, relu=False), conv_bn(growth, growth, 3, groups=growth))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.body(x)], dim=1)


def dense_stage(cin: int, layers: int, growth: int, cout: int) -> nn.Sequential:
    """``layers`` dense layers, and the transition to ``cout`` channels."""
    dense = [DepthwiseDenseLayer(cin + i * growth, growth) for i in range(layers)]
    return nn.Sequential(*dense, conv_bn(cin + layers * growth, cout, 1))


def halve() -> nn.MaxPool2d:
    """Maximum of 2x2; an odd row or column at the border stands alone, as in Caffe (75 -> 38)."""
    return nn.MaxPool2d(2, ceil_mode=True)


class DDBNet(nn.Module):
    """Table 1: stem, four dense stages. Image -> 128 channels at stride 8 and at stride 16.

    The coarser map is half dense stages, half a shortcut from the finer one.
    """

    channels: tuple[int, ...] = (128, 128)
    strides: tuple[int, ...] = (8, 16)

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            conv_bn(3, 64, 3, 2), pointwise_depthwise(64, 64), pointwise_depthwise(64, 128), halve()
        )
        widths = [128, *(cout for _, _, cout in STAGES)]
        stages = [dense_stage(cin, *stage) for cin, stage in zip(widths, STAGES, strict=False)]
        self.fine = nn.Sequential(stages[0], halve(), stages[1])
        self.pool = halve()
        self.coarse = nn.Sequential(stages[2], stages[3])
        self.shortcut = conv_bn(128, 64, 1)

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        fine = self.fine(self.stem(image))
        pooled = self.pool(fine)
        return fine, torch.cat([self.shortcut(pooled), self.coarse(pooled)], dim=1)
