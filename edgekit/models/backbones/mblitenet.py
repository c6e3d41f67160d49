"""MBlitenet, the backbone of Lightweight SSD (Guo et al. 2021, section 3.2)."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..blocks import conv_bn, relu_inplace
from .mobilenet import InvertedResidual, InvertedResidualNet

# Table 2: kind, expansion factor t, output channels c, repeats n, stride s. The stride of the 96-wide row is an option.
ROWS = (
    ("plain", 1, 16, 1, 1),
    ("plain", 6, 24, 2, 2),
    ("attentive", 6, 32, 3, 2),
    ("mix", 6, 64, 4, 2),
    ("attentive", 6, 96, 3, 1),
    ("mix", 6, 160, 3, 2),
    ("attentive", 6, 320, 1, 1),
)


class MixedDepthwise(nn.Module):
    """Half of the channels 3x3, half 5x5 depthwise (fig. 4, eq. 1), each with batch normalisation and ReLU."""

    def __init__(self, channels: int, stride: int = 1) -> None:
        super().__init__()
        self.width = half = channels // 2
        self.small = conv_bn(half, half, 3, stride, groups=half)
        self.large = conv_bn(half, half, 5, stride, groups=half)

    def forward(self, x: Tensor) -> Tensor:
        first, second = x.split(self.width, dim=1)  # a plain Split in ONNX; chunk computes its borders
        return torch.cat([self.small(first), self.large(second)], dim=1)


class SpatialAttention(nn.Module):
    """SAM (fig. 3 left): mean and maximum over channels, 7x7 convolution, sigmoid, product with the input.

    The paper prints "matrix multiplication" and no kernel size; an element-wise product and 7x7 are the usual SAM.
    """

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(2, 1, 7, padding=3)

    def forward(self, x: Tensor) -> Tensor:
        pooled = torch.cat([x.mean(dim=1, keepdim=True), x.amax(dim=1, keepdim=True)], dim=1)
        return x * self.conv(pooled).sigmoid()


def bottleneck(kind: str, cin: int, factor: int, cout: int, stride: int) -> InvertedResidual:
    """One bottleneck of table 2: "plain" (fig. 3 right), "mix", or "attentive" (mixed, with SAM; table 1)."""
    mid = cin * factor
    plain = kind == "plain"
    depthwise = conv_bn(mid, mid, 3, stride, groups=mid) if plain else MixedDepthwise(mid, stride)
    attention = SpatialAttention() if kind == "attentive" else None
    return InvertedResidual(cin, mid, cout, stride, relu_inplace, depthwise, attention)


def mblitenet(levels: tuple[int, ...] | None = None, s96: int = 1) -> InvertedResidualNet:
    """Table 2 up to its 320 channels; the 1x1 to 1280 belongs to the classifier.

    s96: stride of the 96-wide row. Table 2 prints 1, but a size column that halves there: 2. With 1 the maps of 32, 96
        and 320 channels lie at strides 8, 16 and 32, with 2 at 8, 32 and 64. The parameters are the same.
    levels: strides of the maps; None for those three
    """
    if s96 not in (1, 2):
        raise ValueError(f"s96: expected 1 or 2, got {s96!r}")
    blocks = []
    width = 32
    for kind, factor, cout, repeats, stride in ROWS:
        first = s96 if cout == 96 else stride
        for step in [first] + [1] * (repeats - 1):
            blocks.append(bottleneck(kind, width, factor, cout, step))
            width = cout
    stem = nn.Sequential(conv_bn(3, 64, 3), conv_bn(64, 32, 3, 2))
    return InvertedResidualNet(stem, 32, blocks, levels or (8, 16 * s96, 32 * s96))
