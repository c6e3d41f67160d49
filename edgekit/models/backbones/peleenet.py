"""PeleeNet (Wang, Li and Ling, NeurIPS 2018): stem block, two-way dense layers, transitions that keep the width.

As CSPNet trains it in darknet (table 3): batch normalisation and leaky ReLU after every convolution; "swish" and
squeeze-and-excitation are options. The stem and the dense layers are also those of CSPPeleeNet (cspnet.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ..blocks import Activation, activation_named, conv_bn

STEM_CHANNELS = 32


class Stem(nn.Module):
    """The stem block (Pelee, fig. 4): two ways to halve the map twice, concatenated; 3 -> 32 channels at stride 4."""

    def __init__(self, activation: Activation) -> None:
        super().__init__()
        self.first = conv_bn(3, 32, 3, stride=2, activation=activation)
        self.pool = nn.MaxPool2d(2)
        self.strided = nn.Sequential(
            conv_bn(32, 16, 1, activation=activation), conv_bn(16, 32, 3, stride=2, activation=activation)
        )
        self.fuse = conv_bn(64, STEM_CHANNELS, 1, activation=activation)

    def forward(self, image: Tensor) -> Tensor:
        x = self.first(image)
        return self.fuse(torch.cat([self.pool(x), self.strided(x)], dim=1))


class SqueezeExcite(nn.Module):
    """Attention over channels (Hu et al. 2018): mean, 1x1 to ``hidden``, activation, 1x1 back, sigmoid, product."""

    def __init__(self, channels: int, hidden: int, activation: Activation) -> None:
        super().__init__()
        self.gate = nn.Sequential(
            nn.AdaptiveAvgPool2d(1),
            nn.Conv2d(channels, hidden, 1),
            activation(),
            nn.Conv2d(hidden, channels, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x * self.gate(x)


class DenseLayer(nn.Module):
    """1x1 to ``inter``, 3x3 to ``growth``; what it computes is concatenated to its input (DenseNet)."""

    def __init__(self, cin: int, inter: int, growth: int, activation: Activation, attention: bool) -> None:
        super().__init__()
        self.body = nn.Sequential(
            conv_bn(cin, inter, 1, activation=activation), conv_bn(inter, growth, 3, activation=activation)
        )
        self.attention = _attention(growth, activation) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.attention(self.body(x))], dim=1)


class TwoWayDenseLayer(nn.Module):
    """The two-way dense layer (Pelee, fig. 2): one way sees 3x3, the other 5x5; each adds half of ``growth``."""

    def __init__(self, cin: int, inter: int, growth: int, activation: Activation, attention: bool) -> None:
        super().__init__()
        half = growth // 2
        self.narrow = nn.Sequential(
            conv_bn(cin, inter, 1, activation=activation), conv_bn(inter, half, 3, activation=activation)
        )
        self.wide = nn.Sequential(
            conv_bn(cin, inter, 1, activation=activation),
            conv_bn(inter, half, 3, activation=activation),
            conv_bn(half, half, 3, activation=activation),
        )
        self.attention = _attention(growth, activation) if attention else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, self.attention(torch.cat([self.narrow(x), self.wide(x)], dim=1))], dim=1)


def _attention(growth: int, activation: Activation) -> SqueezeExcite:
    """On the channels that a dense layer adds, squeezed by two: a reading that meets the paper's + 0.02 M."""
    return SqueezeExcite(growth, growth // 2, activation)


Layer: TypeAlias = Callable[[int, int, int, Activation, bool], nn.Module]


def dense_block(
    cin: int, layers: int, inter: int, growth: int, activation: Activation, attention: bool, layer: Layer
) -> nn.Sequential:
    """``layers`` dense layers; ``cin + layers * growth`` channels leave it."""
    return nn.Sequential(*(layer(cin + i * growth, inter, growth, activation, attention) for i in range(layers)))


class Stage(NamedTuple):
    """layers: dense layers;  inter: width of their 1x1 convolutions."""

    layers: int
    inter: int


STAGES = (Stage(3, 16), Stage(4, 32), Stage(8, 64), Stage(6, 64))  # Pelee, table 1
GROWTH = 32


class PeleeNet(nn.Module):
    """Image [N, 3, H, W] -> the maps after the transitions of stages 2, 3 and 4, before they are pooled.

    activation: "leaky", "relu" or "swish";  se: squeeze-and-excitation on what each dense layer adds
    """

    channels: tuple[int, ...] = (256, 512, 704)
    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(self, activation: str = "leaky", se: bool = False) -> None:
        super().__init__()
        act = activation_named(activation)
        self.stem = Stem(act)
        self.stages = nn.ModuleList()
        width = STEM_CHANNELS
        for layers, inter in STAGES:
            block = dense_block(width, layers, inter, GROWTH, act, se, TwoWayDenseLayer)
            width += layers * GROWTH
            self.stages.append(nn.Sequential(*block, conv_bn(width, width, 1, activation=act)))
        self.pool = nn.AvgPool2d(2)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(image), []
        for i, stage in enumerate(self.stages):
            x = stage(self.pool(x) if i else x)
            maps.append(x)
        return tuple(maps[1:])
