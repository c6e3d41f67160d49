"""Two processes under torchrun, on gloo, against one process with the doubled batch.

Synchronised batch normalisation exists on GPUs only. Here the norms keep their statistics (``train.freeze_norm``), so
that an image's maps do not depend on who shares its batch; everything else is as in any distributed training. Adam
divides a gradient by its size, so that rounding decides over the sign of the smallest ones: the first gradients are
compared closely, and the losses with a rate that keeps the two trainings together.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import lightning.pytorch as lightning
import pytest
import torch
from safetensors.torch import load_file

from edgekit.models.backbones.res2netlite import InputNorm
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig
from edgekit.training.fit import _processes, _trainer
from edgekit.training.resume import Start

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


def test_every_process_needs_a_gpu_where_there_are_some(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.distributed, "is_torchelastic_launched", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    environment = {"LOCAL_WORLD_SIZE": "3", "WORLD_SIZE": "6"}
    assert _processes(environment) == (3, 2)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    with pytest.raises(BadConfig, match=r"started 3 processes.*this machine has 2: torchrun --nproc-per-node=2"):
        _processes(environment)
    assert _processes({"LOCAL_WORLD_SIZE": "2", "WORLD_SIZE": "2"}) == (2, 1)


@pytest.mark.parametrize(
    ("wishes", "synchronised"),
    [([], True), (["train.freeze_norm=true"], False), (["quantization_aware={}", "train.init=x"], False)],
)
def test_norms_are_synchronised_on_gpus_if_they_learn(
    monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path, wishes: list[str], synchronised: bool
) -> None:
    """Fine-tuning for INT8 follows the network's own operators, which SyncBatchNorm would replace."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(lightning, "Trainer", lambda **wanted: wanted)
    wanted = _trainer(load_recipe(tiny, wishes), tmp_path, Start(None, 0), [], 2, 1)
    assert wanted["sync_batchnorm"] is synchronised  # type: ignore[index]


def test_the_norm_of_the_image_keeps_its_meaning_when_it_is_synchronised() -> None:
    """The class is PyTorch's then; what it computes and the names of its weights are the same."""
    norm = InputNorm(3)
    norm(torch.randn(4, 3, 8, 8, generator=torch.manual_seed(0)) * 3 + 1)
    image, weights = torch.randn(2, 3, 8, 8), {name: value.clone() for name, value in norm.state_dict().items()}
    synchronised = torch.nn.SyncBatchNorm.convert_sync_batchnorm(torch.nn.Sequential(norm)).eval()
    assert type(synchronised[0]) is torch.nn.SyncBatchNorm
    again = InputNorm(3).eval()
    again.load_state_dict(synchronised[0].state_dict())
    assert synchronised[0].state_dict().keys() == weights.keys()
    torch.testing.assert_close(synchronised(image), norm.eval()(image))
    assert torch.equal(again(image), norm(image))


@pytest.mark.slow
def test_fewer_images_to_validate_on_than_processes(tiny: Path, tmp_path: Path) -> None:
    """The process that had none did not come to the gathering, and the other waited for ever."""
    content = json.loads(tiny.with_name("val.json").read_text(encoding="utf-8"))
    first = next(i["id"] for i in content["images"] if i["id"] in {a["image_id"] for a in content["annotations"]})
    content["images"] = [i for i in content["images"] if i["id"] == first]
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] == first]
    tiny.with_name("val.json").write_text(json.dumps(content), encoding="utf-8")
    wishes = ["train.batch_size=2", "train.epochs=1", "train.workers=0"]
    command = [sys.executable, *TWO, "-m", "edgekit", "train", str(tiny), *wishes, "--out", str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True, cwd=jobs.REPO, timeout=300, check=False)
    assert done.returncode != 0
    assert "val.json: 1 images to validate on, fewer than the 2 processes" in done.stderr
    assert not (tmp_path / "run").exists()


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
