"""Building blocks shared by the backbones."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from math import sqrt
from typing import TypeAlias

import torch
from torch import Tensor, nn

Activation: TypeAlias = Callable[[], nn.Module]
LEAST_SQUARE = 1e-7  # added to the mean square of a pixel's channels; float16 has it too


def relu_inplace() -> nn.Module:
    return nn.ReLU(inplace=True)


def leaky() -> nn.Module:
    """Darknet's leaky ReLU, slope 0.1."""
    return nn.LeakyReLU(0.1, inplace=True)


def swish() -> nn.Module:
    """x * sigmoid(x) (Ramachandran et al. 2017; Elfving et al. 2018)."""
    return nn.SiLU(inplace=True)


# Activations that a recipe may name.
ACTIVATIONS: Mapping[str, Activation] = {"relu": relu_inplace, "leaky": leaky, "swish": swish}


def activation_named(name: str) -> Activation:
    """Raises ValueError for a name that ACTIVATIONS does not have."""
    if name not in ACTIVATIONS:
        raise ValueError(f"activation: expected one of {', '.join(ACTIVATIONS)}, got {name!r}")
    return ACTIVATIONS[name]


def conv_bn(
    cin: int,
    cout: int,
    kernel: int,
    stride: int = 1,
    relu: bool = True,
    groups: int = 1,
    activation: Activation = relu_inplace,
) -> nn.Sequential:
    """Bias-free convolution with "same" padding, batch normalisation and, unless ``relu`` is False, an activation."""
    layers: list[nn.Module] = [
        nn.Conv2d(cin, cout, kernel, stride, padding=kernel // 2, groups=groups, bias=False),
        nn.BatchNorm2d(cout, momentum=0.1),
    ]
    if relu:
        layers.append(activation())
    return nn.Sequential(*layers)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and an identity shortcut (He et al. 2016, fig. 5 left); the width does not change."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(channels, channels, 3), conv_bn(channels, channels, 3, relu=False))
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + x)


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut (He et al. 2016, fig. 5 right); the shortcut is a 1x1 where the width changes."""

    def __init__(self, cin: int, mid: int, cout: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(cin, mid, 1), conv_bn(mid, mid, 3), conv_bn(mid, cout, 1, relu=False))
        self.shortcut = nn.Identity() if cin == cout else conv_bn(cin, cout, 1, relu=False)
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.body(x) + self.shortcut(x))


def xavier(module: nn.Module) -> None:
    """Glorot and Bengio 2010, eq. 16, for all convolutions of a module; their biases are 0."""
    for layer in module.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            nn.init.xavier_uniform_(layer.weight)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)


def partial_add(x: Tensor, other: Tensor) -> Tensor:
    """Add only the channels that both maps have; the result is as wide as ``x`` (PRN, Wang et al. 2019, fig. 1)."""
    own, foreign = x.shape[1], other.shape[1]
    if own <= foreign:
        return x + (other if own == foreign else other[:, :own])
    return torch.cat([x[:, :foreign] + other, x[:, foreign:]], dim=1)


class L2Norm(nn.Module):
    """Every pixel's channels at length 1, times a factor learnt per channel (ParseNet, Liu et al. 2015, eq. 1 and 2).

    scale: of all factors at first: 20 in ParseNet and SSD, 10 and 8 in RefineDet
    [N, C, H, W] -> the same, in the type of the input. Lengths are float32, whose squares neither overflow nor vanish,
    with LEAST_SQUARE beneath the root: a pixel of zeros stays zero and has finite gradients.
    """

    def __init__(self, channels: int, scale: float = 20.0) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.full((1, channels, 1, 1), scale))
        self.root = sqrt(channels)

    def forward(self, x: Tensor) -> Tensor:
        if x.dtype != torch.float32:  # asked first: a cast of float32 to itself would be in the exported graph
            return self(x.float()).to(x.dtype)
        # A mean, because opset 13's ReduceSum takes its axes as an int64 tensor; Pow, because a Mul would be quantized.
        deviation = (x.pow(2).mean(dim=1, keepdim=True) + LEAST_SQUARE).sqrt()
        return self.weight / self.root * (x / deviation)
