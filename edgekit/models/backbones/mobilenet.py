"""MobileNetV1 (Howard et al. 2017), V2 (Sandler et al. 2018), V3-Large (Howard et al. 2019), without classifiers.

A map is taken where a resolution ends: the last one before the network halves it again.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from torch import Tensor, nn

from ..blocks import Activation, conv_bn, relu_inplace
from .staged import StagedBackbone


def relu6() -> nn.Module:
    return nn.ReLU6(inplace=True)


def hard_swish() -> nn.Module:
    return nn.Hardswish(inplace=True)


class SqueezeExcite(nn.Module):
    """MobileNetV3's light attention over channels: mean, 1x1 to a quarter, ReLU, 1x1 back, hard sigmoid, product."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        squeezed = round_to_eight(channels / 4)
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, squeezed, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(squeezed, channels, 1),
            nn.Hardsigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


def round_to_eight(channels: float) -> int:
    """Nearest multiple of eight that is not more than a tenth below ``channels`` (the MobileNets' rule)."""
    rounded = max(8, int(channels + 4) // 8 * 8)
    return rounded if rounded >= 0.9 * channels else rounded + 8


class InvertedResidual(nn.Module):
    """1x1 expansion, depthwise convolution, linear 1x1; a shortcut where the shape does not change (V2, fig. 3b).

    mid: width of the expansion; equal to ``cin`` means that there is no expansion
    depthwise: ``mid`` channels in and out, with ``stride``;  attention: stands before the last 1x1 (V3, fig. 4)
    """

    def __init__(
        self,
        cin: int,
        mid: int,
        cout: int,
        stride: int,
        activation: Activation,
        depthwise: nn.Module,
        attention: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.mid, self.cout, self.stride = mid, cout, stride
        self.expand = nn.Identity() if mid == cin else conv_bn(cin, mid, 1, activation=activation)
        self.depthwise = depthwise
        self.attention = attention or nn.Identity()
        self.project = conv_bn(mid, cout, 1, relu=False)
        self.shortcut = stride == 1 and cin == cout

    def forward(self, x: Tensor) -> Tensor:
        return self.reduce(x, self.expand(x))

    def reduce(self, x: Tensor, expanded: Tensor) -> Tensor:
        """What follows the expansion of ``x``."""
        y = self.project(self.attention(self.depthwise(expanded)))
        return x + y if self.shortcut else y


class InvertedResidualNet(nn.Module):
    """A stem that halves the image, inverted residuals, and a last layer: MobileNetV2, V3 and MBlitenet.

    levels: strides of the maps that are wanted; blocks beyond the last one are left out
    expansion: take a map from the expansion inside the block that halves it, as TensorFlow's SSD does
        (``layer_15/expansion_output``), instead of from the block before it; not at the coarsest level
    last: layer over the final block; it belongs to the coarsest level and is left out with it
    """

    def __init__(
        self,
        stem: nn.Module,
        width: int,
        blocks: Sequence[InvertedResidual],
        levels: Sequence[int],
        last: tuple[nn.Module, int] | None = None,
        expansion: bool = False,
    ) -> None:
        super().__init__()
        ends = list(_resolutions(width, blocks))
        kept = [end for end in ends if end.stride <= max(levels, default=0)]
        known = [end.stride for end in kept]
        if not levels or not set(levels) <= set(known) or list(levels) != sorted(set(levels)):
            possible = [end.stride for end in ends]
            raise ValueError(f"levels: expected increasing ones out of {possible}, got {list(levels)}")
        whole = kept[-1].blocks == len(blocks)
        self.stem = stem
        self.blocks = nn.ModuleList(blocks[: kept[-1].blocks])
        self.last = last[0] if whole and last else nn.Identity()
        self.expansion = expansion
        self._kept = tuple(known.index(level) for level in levels)
        widths = [end.expanded if expansion else end.channels for end in kept[:-1]] + [kept[-1].channels]
        if whole and last:
            widths[-1] = last[1]
        self.channels = tuple(widths[i] for i in self._kept)
        self.strides = tuple(levels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image [N, 3, H, W] -> a map [N, channels[i], H / strides[i], W / strides[i]] per level, sizes rounded up."""
        x = self.stem(image)
        maps = []
        for block in self.blocks:
            assert isinstance(block, InvertedResidual)
            expanded = block.expand(x)
            if block.stride == 2:
                maps.append(expanded if self.expansion else x)
            x = block.reduce(x, expanded)
        maps.append(self.last(x))
        return tuple(maps[i] for i in self._kept)


class _End(NamedTuple):
    """Where a resolution ends: stride, width, width of the next expansion, blocks so far."""

    stride: int
    channels: int
    expanded: int
    blocks: int


def _resolutions(width: int, blocks: Sequence[InvertedResidual]) -> Iterator[_End]:
    stride = 2
    for count, block in enumerate(blocks):
        if block.stride == 2:
            yield _End(stride, width, block.mid, count)
            stride *= 2
        width = block.cout
    yield _End(stride, width, width, len(blocks))


# -- V1 ---------------------------------------------------------------------------------------------------------------
V1_ROWS = ((64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), *((512, 1),) * 5, (1024, 2), (1024, 1))


def separable(cin: int, cout: int, kernel: int = 3, stride: int = 1, activation: Activation = relu6) -> nn.Sequential:
    """Depthwise separable convolution, batch normalisation and activation after both parts (V1, fig. 3 right)."""
    return nn.Sequential(
        conv_bn(cin, cin, kernel, stride, groups=cin, activation=activation),
        conv_bn(cin, cout, 1, activation=activation),
    )


class MobileNetV1(StagedBackbone):
    """V1, table 1, with the ReLU6 of its TensorFlow release. levels: strides out of 2, 4, 8, 16, 32."""

    def __init__(self, levels: Sequence[int] = (8, 16, 32)) -> None:
        stages: dict[int, list[nn.Module]] = {}
        widths, stride, width = {}, 2, 32
        for cout, step in V1_ROWS:
            stride *= step
            stages.setdefault(stride, []).append(separable(width, cout, stride=step))
            widths[stride] = width = cout
        stem = conv_bn(3, 32, 3, 2, activation=relu6)
        bodies = [nn.Sequential(*layers) for layers in stages.values()]
        super().__init__(stem, bodies, list(widths.values()), list(stages), levels)


# -- V2 ---------------------------------------------------------------------------------------------------------------
# V2, table 2: expansion factor t, output channels c, repeats n, stride s.
V2_ROWS = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)


def mobilenet_v2(
    levels: Sequence[int] = (8, 16, 32), expansion: bool = False, last: int | None = 1280
) -> InvertedResidualNet:
    """V2, table 2, up to its 1x1 of ``last`` channels (None: without it). levels: strides out of 2, 4, 8, 16, 32.

    expansion: see InvertedResidualNet; with it the map at stride 16 has 576 channels instead of 96
    """
    blocks = []
    width = 32
    for factor, cout, repeats, stride in V2_ROWS:
        for step in [stride] + [1] * (repeats - 1):
            mid = width * factor
            depthwise = conv_bn(mid, mid, 3, step, groups=mid, activation=relu6)
            blocks.append(InvertedResidual(width, mid, cout, step, relu6, depthwise))
            width = cout
    tail = (conv_bn(width, last, 1, activation=relu6), last) if last else None
    return InvertedResidualNet(conv_bn(3, 32, 3, 2, activation=relu6), 32, blocks, levels, tail, expansion)


# -- V3-Large ---------------------------------------------------------------------------------------------------------
# V3, table 1: kernel, expansion size, output channels, squeeze-and-excite, h-swish (else ReLU), stride.
V3_LARGE_ROWS = (
    (3, 16, 16, False, False, 1),
    (3, 64, 24, False, False, 2),
    (3, 72, 24, False, False, 1),
    (5, 72, 40, True, False, 2),
    (5, 120, 40, True, False, 1),
    (5, 120, 40, True, False, 1),
    (3, 240, 80, False, True, 2),
    (3, 200, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 184, 80, False, True, 1),
    (3, 480, 112, True, True, 1),
    (3, 672, 112, True, True, 1),
    (5, 672, 160, True, True, 2),
    (5, 960, 160, True, True, 1),
    (5, 960, 160, True, True, 1),
)


def mobilenet_v3_large(
    levels: Sequence[int] = (8, 16, 32), expansion: bool = False, last: int | None = 960
) -> InvertedResidualNet:
    """V3-Large, table 1, up to its 1x1 of ``last`` channels (None: without it). levels: strides out of 2 ... 32.

    expansion: see InvertedResidualNet; with it the map at stride 16 has 672 channels instead of 112 (section 6.3)
    """
    blocks = []
    width = 16
    for kernel, mid, cout, squeeze, swish, stride in V3_LARGE_ROWS:
        activation = hard_swish if swish else relu_inplace
        depthwise = conv_bn(mid, mid, kernel, stride, groups=mid, activation=activation)
        attention = SqueezeExcite(mid) if squeeze else None
        blocks.append(InvertedResidual(width, mid, cout, stride, activation, depthwise, attention))
        width = cout
    tail = (conv_bn(width, last, 1, activation=hard_swish), last) if last else None
    return InvertedResidualNet(conv_bn(3, 16, 3, 2, activation=hard_swish), 16, blocks, levels, tail, expansion)
