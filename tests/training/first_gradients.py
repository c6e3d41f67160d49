"""``edgekit train`` that also keeps the gradients of its first step: python -m tests.training.first_gradients FILE ...

The rest of the arguments are those of ``edgekit train``; works under torchrun, where every process has the mean.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from edgekit.cli import main
from edgekit.training.module import DetectorModule


def keep(file: Path, module: DetectorModule, _: Any) -> None:
    """Called before an optimiser step, and before clipping."""
    if module.global_step == 0 and module.global_rank == 0:
        save_file({n: p.grad.contiguous() for n, p in module.model.named_parameters() if p.grad is not None}, file)


if __name__ == "__main__":
    file = Path(sys.argv[1])
    torch.set_num_threads(1)
    DetectorModule.on_before_optimizer_step = lambda *args: keep(file, *args)  # type: ignore[method-assign]
    assert os.environ["OMP_NUM_THREADS"] == "1"
    sys.exit(main(["train", *sys.argv[2:]]))
