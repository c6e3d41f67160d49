"""Exponential moving average of a network's weights: what is validated and published."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn


class WeightAverage(nn.Module):
    """A shadow copy of ``model``: after optimiser step n = 0, 1, ... every float is d * shadow + (1 - d) * model.

    d = min(decay, (1 + n) / (10 + n)), so that early steps are not dragged by the initial weights. Batch-norm
    statistics are averaged too; integer buffers are copied. decay = 0 follows the model exactly.

    A step that fp16 skips because a gradient overflowed counts too: the average moves on towards weights that stayed.
    """

    steps: torch.Tensor

    def __init__(self, model: nn.Module, decay: float) -> None:
        super().__init__()
        self.model = copy.deepcopy(model).eval().requires_grad_(False)
        self.decay = decay
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        n = int(self.steps)
        decay = min(self.decay, (1 + n) / (10 + n))
        theirs = model.state_dict()
        shadows, sources = [], []
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                shadows.append(value)
                sources.append(theirs[name].detach())
            else:
                value.copy_(theirs[name])
        get_ema_multi_avg_fn(decay)(shadows, sources, None)
        self.steps += 1

    def train(self, mode: bool = True) -> WeightAverage:
        """Always in evaluation mode: the shadow is never trained."""
        return super().train(False)
