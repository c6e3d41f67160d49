"""SSD's extra layers: coarser maps for larger objects (Liu et al. 2016, section 2.1)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from torch import Tensor, nn

from ..blocks import Activation, conv_bn, relu_inplace


class Extra(NamedTuple):
    """One extra level: 1x1 to ``mid``, then 3x3 to ``out``; ``valid``: the 3x3 has stride 1 and no padding instead."""

    mid: int
    out: int
    valid: bool = False


# TensorFlow's object detection API: every 1x1 has half of the width of its 3x3.
TENSORFLOW_EXTRAS = (Extra(256, 512), Extra(128, 256), Extra(128, 256), Extra(64, 128))


def extra_layer(cin: int, extra: Extra, depthwise: bool, activation: Activation) -> nn.Sequential:
    """depthwise: SSDLite's form, the 3x3 as a depthwise 3x3 and a 1x1; only the 1x1 widens."""
    stride = 1 if extra.valid else 2
    groups, width = (extra.mid, extra.mid) if depthwise else (1, extra.out)
    spatial = conv_bn(extra.mid, width, 3, stride, groups=groups, activation=activation)
    if extra.valid:
        spatial[0].padding = (0, 0)  # type: ignore[assignment]
    layers = [conv_bn(cin, extra.mid, 1, activation=activation), spatial]
    if depthwise:
        layers.append(conv_bn(width, extra.out, 1, activation=activation))
    return nn.Sequential(*layers)


class SSDExtras(nn.Module):
    """The backbone's maps, and one more for each of ``extras``, each half the size of the one before."""

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        extras: Sequence[Extra] = TENSORFLOW_EXTRAS,
        depthwise: bool = False,
        activation: Activation = relu_inplace,
    ) -> None:
        super().__init__()
        widths = [channels[-1], *(extra.out for extra in extras)]
        self.extras = nn.ModuleList(
            extra_layer(width, extra, depthwise, activation) for width, extra in zip(widths, extras, strict=False)
        )
        self.channels = (*channels, *widths[1:])
        steps = [1 if extra.valid else 2 for extra in extras]
        self.strides = (*strides[:-1], *accumulate(steps, mul, initial=strides[-1]))

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found = list(maps)
        for layer in self.extras:
            found.append(layer(found[-1]))
        return tuple(found)
