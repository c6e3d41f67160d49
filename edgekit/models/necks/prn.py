"""PRN, the partial residual head of YOLOv3-tiny-PRN (Wang et al., ICCV Workshops 2019, fig. 4), at two or three scales.

Maps of different widths are added as far as their channels go, instead of being concatenated.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from ..blocks import Activation, activation_named, conv_bn, partial_add
from .parts import three_levels, upsample


class PartialLevel(nn.Module):
    """One step down the pyramid: 1x1, upsampling, the backbone's map added before and after a 3x3.

    The 3x3 has a shortcut besides; every sum is activated.
    """

    WIDTH = 128

    def __init__(self, cin: int, activation: Activation) -> None:
        super().__init__()
        self.reduce = nn.Sequential(conv_bn(cin, self.WIDTH, 1, activation=activation), upsample())
        self.body = conv_bn(self.WIDTH, self.WIDTH, 3, activation=activation)
        self.activation = activation()

    def forward(self, coarse: Tensor, lateral: Tensor) -> Tensor:
        raised = self.reduce(coarse)
        x = self.activation(partial_add(raised, lateral))
        x = self.activation(self.body(x) + raised)
        return self.activation(partial_add(x, lateral))


class PRN(nn.Module):
    """Maps at strides 8, 16 and 32 -> 256 channels at stride 32 and 128 at stride 16, with ``levels`` = 3 also at 8.

    levels: 2 for PRN, 3 for "PRN-3l"
    """

    def __init__(self, channels: Sequence[int], activation: str = "leaky", levels: int = 2) -> None:
        super().__init__()
        if levels not in (2, 3):
            raise ValueError(f"levels: expected 2 or 3, got {levels}")
        act = activation_named(activation)
        self.reduce = conv_bn(three_levels(channels)[-1], 256, 1, activation=act)
        self.body = conv_bn(256, 256, 3, activation=act)
        self.activation = act()
        width = PartialLevel.WIDTH
        self.levels = nn.ModuleList(PartialLevel(256 if i == 0 else width, act) for i in range(levels - 1))
        self.channels = (*[width] * (levels - 1), 256)
        self.strides = (8, 16, 32)[3 - levels :]

    def forward(self, maps: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        reduced = self.reduce(maps[-1])
        coarse = self.body(reduced)  # goes down the pyramid without its shortcut
        outputs = [self.activation(coarse + reduced)]
        for level, lateral in zip(self.levels, reversed(maps[:-1]), strict=False):
            coarse = level(coarse, lateral)
            outputs.append(coarse)
        return tuple(reversed(outputs))
