"""Feature pyramid (Lin et al. 2017, fig. 3) with the depthwise separable output convolutions of light detectors."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks import conv_bn


def separable_output(width: int) -> nn.Sequential:
    """Depthwise 3x3 and 1x1, batch normalisation and ReLU after both."""
    return nn.Sequential(conv_bn(width, width, 3, groups=width), conv_bn(width, width, 1))


def resize_to(x: Tensor, other: Tensor) -> Tensor:
    """Nearest neighbour to the height and width of ``other``; the sizes need not be multiples (10 -> 19)."""
    return F.interpolate(x, size=other.shape[-2:], mode="nearest")


class FPN(nn.Module):
    """Lateral 1x1 on every level, sums from coarse to fine, an output convolution per level (Guo et al., fig. 5a)."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 256) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(conv_bn(cin, width, 1, relu=False) for cin in channels)
        self.output = nn.ModuleList(separable_output(width) for _ in channels)
        self.channels = (width,) * len(channels)
        self.strides = tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + resize_to(merged[i + 1], merged[i])
        return tuple(output(x) for output, x in zip(self.output, merged, strict=True))
