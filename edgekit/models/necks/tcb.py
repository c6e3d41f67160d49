"""The transfer connection blocks of RefineDet (RefineDet++, section III-A, fig. 2)."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from torch import Tensor, nn

from ..backbones.resnet import bottleneck
from ..backbones.vgg import conv_relu
from ..blocks import conv_bn

EXTRA_WIDTH = 512  # of every map beyond the backbone's: VGG's conv6_2 and the authors' res6
TCB_WIDTH = 256


class TransferConnection(nn.Module):
    """One TCB per level; all maps leave ``width`` channels wide. Convolutions have a bias and no normalisation.

    3x3, ReLU, 3x3, the sum with the coarser level's result enlarged by a 2x2 transposed convolution, ReLU, 3x3, ReLU.
    The coarsest level has nothing to add. Each map must be exactly twice as large as the next.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], width: int = TCB_WIDTH) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(
            nn.Sequential(*conv_relu(cin, width, 3), nn.Conv2d(width, width, 3, padding=1)) for cin in channels
        )
        self.enlarge = nn.ModuleList(nn.ConvTranspose2d(width, width, 2, 2) for _ in channels[1:])
        self.output = nn.ModuleList(nn.Sequential(nn.ReLU(inplace=True), *conv_relu(width, width, 3)) for _ in channels)
        self.channels = (width,) * len(channels)
        self.strides = tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for i in reversed(range(len(maps))):
            x = self.lateral[i](maps[i])
            if found:
                x = x + self.enlarge[i](found[-1])
            found.append(self.output[i](x))
        return tuple(reversed(found))


def residual_extra(cin: int, width: int) -> nn.Module:
    """res6 of the ResNets: a residual block of stride 2 (section IV-B), a quarter of its channels inside.

    Only its place is printed; the 128 inner and 512 outer channels are those of the authors' script.
    """
    return bottleneck(cin, width // 4, width, 2)


def conv_extra(cin: int, width: int) -> nn.Module:
    """VGG's conv6_1 and conv6_2, with normalisation: 1x1 to half of its channels, strided 3x3 (256 and 512)."""
    return nn.Sequential(conv_bn(cin, width // 2, 1), conv_bn(width // 2, width, 3, 2))


class Extras(nn.Module):
    """The backbone's maps and ``count`` more of ``width`` channels.

    layer: (channels of a map, width) -> what makes the next one of it, at half its size
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        layer: Callable[[int, int], nn.Module],
        count: int = 1,
        width: int = EXTRA_WIDTH,
    ) -> None:
        super().__init__()
        widths = [channels[-1]] + [width] * count
        self.extras = nn.ModuleList(layer(cin, width) for cin in widths[:-1])
        self.channels = (*channels, *widths[1:])
        self.strides = (*strides, *(strides[-1] * 2 ** (i + 1) for i in range(count)))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = list(maps)
        for layer in self.extras:
            found.append(layer(found[-1]))
        return tuple(found)
