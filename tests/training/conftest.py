from __future__ import annotations

import csv
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch

from edgekit.runtime.artifact import read_artifact

from . import jobs


@pytest.fixture(autouse=True)
def one_thread(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Here and in the processes that tests start: sums in the same order, and no fight for the cores."""
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def tiny(tmp_path: Path) -> Path:
    """The file of a recipe that trains in seconds: four epochs of two steps, published after the second and fourth."""
    return jobs.write_tiny(tmp_path / "data")


@dataclass(frozen=True)
class Result:
    """What a training left behind."""

    weights: bytes
    table: list[dict[str, str]]  # metrics.csv without what clocks said
    metrics: dict[str, float]


def result_of(out: Path) -> Result:
    artifact = read_artifact(out)
    with (out.with_name(out.name + "-training") / "metrics.csv").open(newline="") as handle:
        clocks = ("train/seconds", "train/data_wait")
        table = [{k: v for k, v in row.items() if k not in clocks} for row in csv.DictReader(handle)]
    return Result(Path(artifact.file("weights.safetensors")).read_bytes(), table, artifact.manifest["metrics"])


@pytest.fixture(scope="session")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The tiny training that nobody disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    assert jobs.run(jobs.train, jobs.write_tiny(folder / "data"), folder / "run", [], False, None) == 0
    return result_of(folder / "run")


@pytest.fixture(scope="session")
def trained(uninterrupted: Result, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Its weights as a file."""
    file = tmp_path_factory.mktemp("trained") / "weights.safetensors"
    file.write_bytes(uninterrupted.weights)
    return file
