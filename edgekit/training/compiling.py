"""torch.compile for training: faster steps after minutes of compiling, under the network's own names."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from ..runtime.errors import MissingDependency


def compile_network(model: nn.Module, backend: Any = "inductor") -> None:
    """Let ``model`` compile its forward pass at the first batch of each shape, in place.

    Parameters, state dict and copies stay as they were: the compiled code is no part of them.
    backend: a name that torch.compile knows, or a function
    Raises MissingDependency when this machine has no working compiler for it (a C++ one, on a GPU Triton too).
    """
    _probe(backend)
    model.compile(backend=backend)


def _probe(backend: Any) -> None:
    device = "cuda" if torch.cuda.is_available() else "cpu"

    def tiny(x: Tensor) -> Tensor:
        return (2 * x + 1).relu()

    try:
        torch.compile(tiny, backend=backend)(torch.ones(8, device=device))
    except RuntimeError as error:  # the base of all that torch.compile raises
        reason = str(error).strip().splitlines()
        raise MissingDependency(
            f"train.compile: PyTorch cannot compile here ({reason[0] if reason else type(error).__name__}). It needs a "
            "C++ compiler and Python's headers: apt-get install g++ python3-dev, or conda install gxx; or leave it "
            "out: train.compile=false"
        ) from error
