"""A training that is killed at any moment and resumed reaches the weights of one that was never killed, bit for bit."""

from __future__ import annotations

import csv
import signal
from pathlib import Path

import pytest

from edgekit.runtime.artifact import read_artifact

from . import jobs
from .jobs import Death

# four epochs of two steps, published after the second and the fourth
DEATHS = [
    Death("step", 1),  # before anything was saved
    Death("step", 3),  # in the middle of the second epoch
    Death("step", 6),  # in the last step of the third
    Death("after save", 1),
    Death("after save", 3),
    Death("in save", 2),  # half of the file is written
    Death("in publish", 1),
    Death("in publish", 2),  # in the last epoch
]


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> tuple[bytes, list[dict[str, str]]]:
    """Weights and metrics of the training that nobody killed."""
    folder = tmp_path_factory.mktemp("whole")
    assert jobs.run(jobs.train, jobs.write_tiny(folder / "data"), folder / "run", [], False, None) == 0
    return weights(folder / "run"), table(folder / "run")


def weights(out: Path) -> bytes:
    return Path(read_artifact(out).file("weights.safetensors")).read_bytes()


def table(out: Path) -> list[dict[str, str]]:
    with (out.with_name(out.name + "-training") / "metrics.csv").open(newline="") as handle:
        clocks = ("train/seconds", "train/data_wait")
        return [{k: v for k, v in row.items() if k not in clocks} for row in csv.DictReader(handle)]


@pytest.mark.parametrize("death", DEATHS, ids=str)
def test_killed_and_resumed(death: Death, tiny: Path, tmp_path: Path, uninterrupted: tuple[bytes, object]) -> None:
    out = tmp_path / "run"
    assert jobs.run(jobs.train, tiny, out, [], False, death) == -signal.SIGKILL
    if out.exists():
        read_artifact(out)  # whole: raises if a hash does not match
    assert jobs.run(jobs.train, tiny, out, [], True, None) == 0
    assert weights(out) == uninterrupted[0]
    assert not list(out.with_name("run-training").glob(".resume*"))


def test_killed_twice_with_other_workers(tiny: Path, tmp_path: Path, uninterrupted: tuple[bytes, object]) -> None:
    out = tmp_path / "run"
    jobs.run(jobs.train, tiny, out, ["train.workers=2"], False, Death("step", 3))
    jobs.run(jobs.train, tiny, out, ["train.workers=0"], True, Death("step", 7))
    assert jobs.run(jobs.train, tiny, out, ["train.workers=1"], True, None) == 0
    assert weights(out) == uninterrupted[0]


def test_table_continues(tiny: Path, tmp_path: Path, uninterrupted: tuple[object, list[dict[str, str]]]) -> None:
    """Every epoch once, as in the uninterrupted training."""
    out = tmp_path / "run"
    jobs.run(jobs.train, tiny, out, [], False, Death("step", 5))
    assert [row["epoch"] for row in table(out)] == ["0", "1"]
    jobs.run(jobs.train, tiny, out, [], True, None)
    assert [row["epoch"] for row in table(out)] == ["0", "1", "2", "3"]
    assert table(out) == uninterrupted[1]
