"""CFPN, the circle feature pyramid of Lightweight SSD (Guo et al. 2021, section 3.3, fig. 5b)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from ..blocks import conv_bn
from .fpn import FPN, resize_to


def halve(x: Tensor) -> Tensor:
    """Maximum of 3x3 with stride 2; fits every pair of levels (38 -> 19 -> 10 -> 5 -> 3)."""
    return F.max_pool2d(x, 3, stride=2, padding=1)


class TwicePassed(nn.Module):
    """An output block whose convolutions both passes use, with a batch normalisation for each pass.

    The two passes give it maps of different distributions. Running statistics of one shared normalisation would fit
    neither: a network so built learns its images by heart and finds nothing once it is in evaluation mode.
    """

    def __init__(self, block: nn.Module) -> None:
        super().__init__()
        convolutions = [m for m in block.modules() if isinstance(m, nn.Conv2d)]
        self.convolutions = nn.ModuleList(convolutions)
        self.norms = nn.ModuleList(
            nn.ModuleList(nn.BatchNorm2d(c.out_channels, momentum=0.1) for c in convolutions) for _ in range(2)
        )

    def forward(self, x: Tensor, bottom_up: bool) -> Tensor:
        norms: Any = self.norms[int(bottom_up)]
        for convolution, norm in zip(self.convolutions, norms, strict=True):
            x = F.relu(norm(convolution(x)))
        return x


class CFPN(FPN):
    """The circle of eq. 4 and 5, walked through once.

    As printed the equations have no beginning: P6_mid needs P7_out, P7_out needs P6_out, and P6_out needs P5_mid, which
    needs P6_out. So the outputs that eq. 4 feeds back are made from the middle maps alone, with the same convolutions:

    top-down, i = 7 ... 3:   mid_7 = in_7,   mid_i = in_i + up(mid_{i+1}) + F_i(up(Conv_{i+1}(mid_{i+1})))
    bottom-up, i = 3 ... 7:  out_3 = Conv_3(mid_3),   out_i = Conv_i(mid_i + down(mid_{i-1})),
                             out_7 = Conv_7(mid_7 + down(out_6))

    F_i is a linear 1x1 on each of the four feedback paths; it is the reading that gives the paper's 4.86 M parameters.
    Conv_4 to Conv_7 are normalised on their own in each pass; see ``TwicePassed``.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        """The arguments are those of ``FPN``."""
        super().__init__(*args, **options)
        width = self.channels[0]
        self.output = nn.ModuleList([self.output[0], *(TwicePassed(block) for block in self.output[1:])])
        self.feedback = nn.ModuleList(conv_bn(width, width, 1, relu=False) for _ in self.channels[1:])

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        middle = self._top_down(maps)
        outputs = [self.output[0](middle[0])]
        for i in range(1, len(middle)):
            finer = outputs[-1] if i == len(middle) - 1 else middle[i - 1]
            outputs.append(self.output[i](middle[i] + halve(finer), bottom_up=True))
        return tuple(outputs)

    def _top_down(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """P_mid of eq. 4, fine to coarse."""
        middle = self.inputs(maps)
        for i in reversed(range(len(middle) - 1)):
            coarser = middle[i + 1]
            returned = resize_to(self.output[i + 1](coarser, bottom_up=False), middle[i])
            middle[i] = middle[i] + resize_to(coarser, middle[i]) + self.feedback[i](returned)
        return middle
