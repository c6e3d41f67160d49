"""Two processes under torchrun, on gloo, against one process with the doubled batch.

Synchronised batch normalisation exists on GPUs only. Here the norms keep their statistics (``train.freeze_norm``), so
that an image's maps do not depend on who shares its batch; everything else is as in any distributed training. Adam
divides a gradient by its size, so that rounding decides over the sign of the smallest ones: the first gradients are
compared closely, and the losses with a rate that keeps the two trainings together.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from . import jobs
from .conftest import Result, result_of

TWO = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]


def train(launcher: list[str], file: Path, out: Path, *settings: str) -> tuple[Result, torch.Tensor]:
    """The result, and all first gradients in one vector."""
    gradients = out.with_suffix(".safetensors")
    module = ["-m", "tests.training.first_gradients", str(gradients)]
    command = [sys.executable, *launcher, *module, str(file), *settings, "--out", str(out)]
    done = subprocess.run(
        command, capture_output=True, text=True, cwd=jobs.REPO, env={**os.environ}, timeout=600, check=False
    )
    assert done.returncode == 0, done.stderr[-3000:]
    return result_of(out), torch.cat([g.flatten() for _, g in sorted(load_file(gradients).items())])


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(tiny: Path, tmp_path: Path, trained: Path) -> None:
    settings = [f"train.init={trained}", "train.freeze_norm=true", "train.validate_every=1", "train.lr=1e-6"]
    two, two_gradients = train(TWO, tiny, tmp_path / "two", *settings, "train.batch_size=2")
    one, one_gradients = train([], tiny, tmp_path / "one", *settings, "train.batch_size=4")
    error = (two_gradients - one_gradients).norm() / one_gradients.norm()
    assert error < 1e-5
    assert [row.keys() for row in two.table] == [row.keys() for row in one.table]
    for a, b in zip(two.table, one.table, strict=True):
        for name in a:  # losses of both processes' images, and mAP over all images
            assert float(a[name]) == pytest.approx(float(b[name]), rel=2e-5, abs=1e-6), name
    assert two.metrics == pytest.approx(one.metrics, rel=2e-5, abs=1e-6)
