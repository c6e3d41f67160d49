"""Cross Stage Partial DenseNets: CSPPeleeNet and the "Reference" networks for CPUs (Wang et al. 2020, sections 3.1, 4).

The authors published no layer table of these networks. The structure here is a reading of the paper that meets its
parameter counts and BFLOPs; what was tried, and what stays open, is in docs/readings.md.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

from ..blocks import Activation, activation_named, conv_bn
from .peleenet import STAGES, STEM_CHANNELS, DenseLayer, Layer, Stem, TwoWayDenseLayer, dense_block

Fusion: TypeAlias = Literal["both", "first", "last"]
Reading: TypeAlias = Literal["table-3", "table-1"]
Split: TypeAlias = Literal["convolutions", "bypass"]


@dataclass(frozen=True)
class StagePlan:
    """layers, inter, growth: of the dense block
    bypass: channels of part 1, x0' of eq. 3;  part: channels of part 2, x0'', which the dense block reads
    transition: channels of x_T, eq. 3; 0 leaves that transition out ("fusion first", fig. 3 c)
    width: channels of x_U, eq. 3; 0 leaves that transition out ("fusion last", fig. 3 d)
    """

    layers: int
    inter: int
    growth: int
    bypass: int
    part: int
    transition: int
    width: int

    @property
    def dense(self) -> int:
        """Channels that leave the dense block."""
        return self.part + self.layers * self.growth

    @property
    def fused(self) -> int:
        """Channels of the concatenation of part 1 and x_T."""
        return self.bypass + (self.transition or self.dense)

    @property
    def out(self) -> int:
        return self.width or self.fused


class CSPDenseStage(nn.Module):
    """A stage of CSPDenseNet (fig. 2 b): split, partial dense block, and the partial transition layer of eq. 3.

    [N, C, H, W] -> the concatenation [N, fused, H, W], which detectors read, and the output, halved by ``pool``.
    The second transition stands behind the pooling, where it costs a quarter.
    split: "convolutions" makes both parts with 1x1s, as the authors' published cfgs do; "bypass" makes only part 1, and
        part 2 is a slice of the input
    """

    def __init__(
        self, cin: int, plan: StagePlan, layer: Layer, split: Split, pool: bool, activation: Activation, se: bool
    ) -> None:
        super().__init__()
        self.part1 = conv_bn(cin, plan.bypass, 1, activation=activation)
        self.part2 = conv_bn(cin, plan.part, 1, activation=activation) if split == "convolutions" else None
        self.skipped = cin - plan.part
        self.dense = dense_block(plan.part, plan.layers, plan.inter, plan.growth, activation, se, layer)
        self.transition = _transition(plan.dense, plan.transition, activation)
        self.pool = nn.AvgPool2d(2) if pool else nn.Identity()
        self.output = _transition(plan.fused, plan.width, activation)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        part2 = x[:, self.skipped :] if self.part2 is None else self.part2(x)
        fused = torch.cat([self.part1(x), self.transition(self.dense(part2))], dim=1)
        return fused, self.output(self.pool(fused))


def _transition(cin: int, cout: int, activation: Activation) -> nn.Module:
    return conv_bn(cin, cout, 1, activation=activation) if cout else nn.Identity()


class CSPDenseNet(nn.Module):
    """Image [N, 3, H, W] -> the concatenations at strides 8 and 16 (before pooling) and the last map, stride 32.

    plans: the last one of four does not pool; three of them always do, and ``tail`` follows
    tail: kernel of a last convolution that keeps the width and adds its own input (as YOLOv3-tiny-PRN's), or 0
    """

    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(
        self, plans: Sequence[StagePlan], layer: Layer, split: Split, tail: int, activation: str, se: bool
    ) -> None:
        super().__init__()
        act = activation_named(activation)
        self.stem = Stem(act)
        widths = [STEM_CHANNELS, *(plan.out for plan in plans)]
        self.stages = nn.ModuleList(
            CSPDenseStage(cin, plan, layer, split, i < 3, act, se)
            for i, (cin, plan) in enumerate(zip(widths[:-1], plans, strict=True))
        )
        self.tail = conv_bn(widths[-1], widths[-1], tail, activation=act) if tail else None
        self.activation = act()
        self.channels = (plans[1].fused, plans[2].fused, widths[-1])

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(image), []
        for stage in self.stages:
            fused, x = stage(x)
            maps.append(fused)
        if self.tail is not None:
            x = self.activation(self.tail(x) + x)
        return maps[1], maps[2], x


# -- CSPPeleeNet ------------------------------------------------------------------------------------------------------
GROWTH = 32
WIDTHS = (128, 256, 512, 704)  # PeleeNet's


def csp_peleenet(
    gamma: float = 0.5,
    fusion: Fusion = "both",
    reading: Reading = "table-3",
    activation: str = "leaky",
    se: bool = False,
) -> CSPDenseNet:
    """CSPPeleeNet (tables 1 and 3): PeleeNet's stages with a fraction ``gamma`` of the channels passing by.

    fusion: "both" is the proposed partial transition, fig. 3 b; "first" and "last" are its ablations, fig. 3 c and d
    reading: "table-3" meets the parameters and the BFLOPs at gamma = 0.5; "table-1" meets the BFLOPs at every gamma,
        with 11 % fewer parameters than the paper prints
    """
    if not 0 < gamma < 1:
        raise ValueError(f"gamma: expected more than 0 and less than 1, got {gamma}")
    for name, value, known in (("fusion", fusion, Fusion), ("reading", reading, Reading)):
        if value not in known.__args__:  # type: ignore[attr-defined]
            raise ValueError(f"{name}: expected one of {', '.join(known.__args__)}, got {value!r}")  # type: ignore[attr-defined]
    plans = [_pelee_plan(stage, gamma, fusion, reading) for stage in range(4)]
    return CSPDenseNet(plans, TwoWayDenseLayer, "convolutions" if reading == "table-3" else "bypass", 0, activation, se)


def _pelee_plan(stage: int, gamma: float, fusion: Fusion, reading: Reading) -> StagePlan:
    """Table 3: x_T is as wide as what the dense layers add, in the last stage as what entered them. Table 1: x_T
    fills the concatenation to PeleeNet's width, both transitions keep theirs, and the last stage has no second one.
    """
    cin, width, last = (STEM_CHANNELS, *WIDTHS)[stage], WIDTHS[stage], stage == 3
    layers, inter = STAGES[stage]
    bypass = round(gamma * cin)
    filling = width - bypass
    if fusion == "last" or reading == "table-1":
        transition, out = filling, 0 if last or fusion == "last" else width
    else:
        transition, out = cin - bypass if last else layers * GROWTH, width
    if fusion == "first":
        transition, out = 0, width
    return StagePlan(layers, inter, GROWTH, bypass, cin - bypass, transition, out)


# -- the Reference networks -------------------------------------------------------------------------------------------
REFERENCE_WIDTHS = (128, 256, 512)


def csp_peleenet_reference(b: bool = False, activation: str = "leaky", se: bool = False) -> CSPDenseNet:
    """CSPPeleeNet Reference (table 3): three short stages whose growth doubles.

    b: the lighter variant, whose last convolution is 1x1 instead of 3x3 (2.10 M parameters less)
    """
    plans = _reference_plans(layers=(2, 2, 3), inter=(32, 64, 128), growth=(32, 64, 128))
    return CSPDenseNet(plans, TwoWayDenseLayer, "convolutions", 1 if b else 3, activation, se)


def csp_densenet_reference(b: bool = False, activation: str = "leaky", se: bool = False) -> CSPDenseNet:
    """CSPDenseNet Reference (table 3): plain dense layers with growth 32; ``b`` as in ``csp_peleenet_reference``."""
    plans = _reference_plans(layers=(3, 3, 6), inter=(32, 64, 64), growth=(32, 32, 32))
    return CSPDenseNet(plans, DenseLayer, "convolutions", 1 if b else 3, activation, se)


def _reference_plans(layers: Sequence[int], inter: Sequence[int], growth: Sequence[int]) -> list[StagePlan]:
    """Half of the channels pass by, and x_T is as wide as the other half."""
    halves = [cin // 2 for cin in (STEM_CHANNELS, *REFERENCE_WIDTHS)]
    rows = zip(layers, inter, growth, halves, REFERENCE_WIDTHS, strict=False)
    return [StagePlan(k, i, g, half, half, half, width) for k, i, g, half, width in rows]
