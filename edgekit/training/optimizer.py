"""The optimisers that the papers train with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeAlias

import torch
from torch import nn

from ..recipe import OptimizerSection, TrainSection

Groups: TypeAlias = list[dict[str, Any]]


def _sgd(groups: Groups, section: OptimizerSection, lr: float) -> torch.optim.Optimizer:
    return torch.optim.SGD(groups, lr, momentum=section.momentum)


def _adam(groups: Groups, section: OptimizerSection, lr: float) -> torch.optim.Optimizer:
    return torch.optim.Adam(groups, lr, eps=section.epsilon or 1e-8)


def _adamw(groups: Groups, section: OptimizerSection, lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, lr, eps=section.epsilon or 1e-8)


def _rmsprop(groups: Groups, section: OptimizerSection, lr: float) -> torch.optim.Optimizer:
    """PyTorch adds epsilon to the root, TensorFlow beneath it: with TensorFlow's epsilon of 1 steps differ a little."""
    return torch.optim.RMSprop(groups, lr, section.decay, section.epsilon or 1e-8, momentum=section.momentum)


OPTIMIZERS: Mapping[str, Callable[..., torch.optim.Optimizer]] = {
    "sgd": _sgd,
    "adam": _adam,
    "adamw": _adamw,
    "rmsprop": _rmsprop,
}


OFFSETS = 0.1  # of the learning rate, for the layers that move the taps of deformable convolutions


def optimizer_of(
    train: TrainSection,
    network: Iterable[nn.Parameter],
    beside: Iterable[nn.Parameter] = (),
    offsets: Iterable[nn.Parameter] = (),
) -> torch.optim.Optimizer:
    """The recipe's optimiser over a network's parameters, and those learnt beside it, which take no weight decay.

    offsets: those of the network's parameters that learn at a tenth of the rate (DCNv2, Zhu et al. 2019, section 3.2);
        at the full one Adam moves taps beyond the map, where there is no gradient that would bring them back
    """
    moving, others = list(offsets), list(beside)
    slow = set(map(id, moving))
    groups: Groups = [{"params": [p for p in network if id(p) not in slow], "weight_decay": train.weight_decay}]
    if moving:
        groups.append({"params": moving, "weight_decay": train.weight_decay, "lr": OFFSETS * train.lr})
    if others:
        groups.append({"params": others, "weight_decay": 0.0})
    section = train.optimizer
    return OPTIMIZERS[section.kind](groups, section, train.lr)
