"""Two processes under torchrun, on gloo, against one process with the doubled batch.

Synchronised batch normalisation exists on GPUs only. Here the norms keep their statistics (``train.freeze_norm``), so
that each image's maps do not depend on who shares its batch; everything else is as in any distributed training.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import load

from edgekit.recipe import load_recipe
from edgekit.training.fit import fit

from . import jobs
from .conftest import result_of


def torchrun(file: Path, out: Path, overrides: list[str]) -> None:
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = [*launcher, "-m", "edgekit", "train", str(file), *overrides, "--out", str(out)]
    environment = {**os.environ, "PYTHONPATH": str(jobs.REPO)}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600, check=False)
    assert done.returncode == 0, done.stderr[-3000:]


@pytest.mark.slow
def test_two_processes_equal_one_with_the_doubled_batch(tiny: Path, tmp_path: Path, trained: Path) -> None:
    settings = [f"train.init={trained}", "train.freeze_norm=true", "train.epochs=3", "train.validate_every=1"]
    torchrun(tiny, tmp_path / "two", [*settings, "train.batch_size=2"])
    fit(load_recipe(tiny, [*settings, "train.batch_size=4"]), tmp_path / "one")
    two, one = result_of(tmp_path / "two"), result_of(tmp_path / "one")
    assert [row.keys() for row in two.table] == [row.keys() for row in one.table]
    for a, b in zip(two.table, one.table, strict=True):
        for name in a:  # losses of both processes; mAP over the images of both
            assert float(a[name]) == pytest.approx(float(b[name]), rel=1e-4, abs=1e-6), name
    assert two.metrics == pytest.approx(one.metrics, rel=1e-4, abs=1e-6)
    before, after = load(one.weights), load(two.weights)
    start = load(trained.read_bytes())
    for name, value in before.items():
        torch.testing.assert_close(after[name], value, rtol=1e-3, atol=2e-5)
    moved = max(float((before[n] - start[n]).abs().max()) for n in start if n.endswith("weight"))
    assert moved > 1e-3  # fifty times the tolerance: the trainings did train
