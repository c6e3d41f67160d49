"""Feature pyramids: the classical one (Lin et al. 2017, fig. 3), and FPNLite of TensorFlow's object detection API."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.mobilenet import relu6
from ..blocks import Activation, conv_bn


def separable_output(width: int) -> nn.Sequential:
    """Depthwise 3x3 and 1x1, batch normalisation and ReLU after both."""
    return nn.Sequential(conv_bn(width, width, 3, groups=width), conv_bn(width, width, 1))


def dense_output(width: int) -> nn.Sequential:
    """3x3, batch normalisation and ReLU."""
    return conv_bn(width, width, 3)


def resize_to(x: Tensor, other: Tensor) -> Tensor:
    """Nearest neighbour to the height and width of ``other``; the sizes need not be multiples (10 -> 19)."""
    return F.interpolate(x, size=other.shape[-2:], mode="nearest")


class FPN(nn.Module):
    """Lateral 1x1 on every level, sums from coarse to fine, an output convolution per level (Guo et al., fig. 5a).

    dense: output convolutions are 3x3 as in Lin et al., else depthwise separable
    subsampled: coarser levels that are added by taking every second cell of the coarsest one (Lin et al., footnote 2)
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        width: int = 256,
        dense: bool = False,
        subsampled: int = 0,
    ) -> None:
        super().__init__()
        levels = len(channels) + subsampled
        output = dense_output if dense else separable_output
        self.subsampled = subsampled
        self.lateral = nn.ModuleList(conv_bn(cin, width, 1, relu=False) for cin in channels)
        self.output = nn.ModuleList(output(width) for _ in range(levels))
        self.channels = (width,) * levels
        self.strides = (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(subsampled)))

    def inputs(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """P_in: the maps at one width, and the subsampled ones."""
        found = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for _ in range(self.subsampled):
            found.append(F.max_pool2d(found[-1], 1, stride=2))
        return found

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        merged = self.inputs(maps)
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + resize_to(merged[i + 1], merged[i])
        return tuple(output(x) for output, x in zip(self.output, merged, strict=True))


def tensorflow_separable(width: int, stride: int = 1, activation: Activation = relu6) -> nn.Sequential:
    """TensorFlow's separable convolution: depthwise 3x3 and 1x1, one batch normalisation after both."""
    depthwise = nn.Conv2d(width, width, 3, stride, padding=1, groups=width, bias=False)
    return nn.Sequential(depthwise, conv_bn(width, width, 1, activation=activation))


class FPNLite(nn.Module):
    """``ssd_mobilenet_v2_fpn`` with ``use_depthwise``: the pyramid of FPNLite.

    Lateral and top 1x1s have a bias and no normalisation. The sums of the finer levels are smoothed by separable
    convolutions, the coarsest lateral is not; ``coarser`` further levels are strided separable convolutions.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = 128, coarser: int = 2) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(nn.Conv2d(cin, width, 1) for cin in channels)
        self.smooth = nn.ModuleList(tensorflow_separable(width) for _ in channels[1:])
        self.down = nn.ModuleList(tensorflow_separable(width, stride=2) for _ in range(coarser))
        self.channels = (width,) * (len(channels) + coarser)
        self.strides = (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(coarser)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        merged = [lateral(x) for lateral, x in zip(self.lateral, maps, strict=True)]
        for i in reversed(range(len(merged) - 1)):
            merged[i] = merged[i] + resize_to(merged[i + 1], merged[i])
        found = [smooth(x) for smooth, x in zip(self.smooth, merged[:-1], strict=True)] + merged[-1:]
        for layer in self.down:
            found.append(layer(found[-1]))
        return tuple(found)
