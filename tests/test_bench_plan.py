"""How long ``bench`` measures, and that it says so beforehand: the worker's job is looked at, nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit.cli import main
from edgekit.runtime.artifact import new_artifact
from edgekit.runtime.errors import BadConfig, BoardLacks, ChildDied

CLASSES = ["vehicle", "scooter", "bicycle"]


@pytest.fixture
def network(tmp_path: Path) -> Path:
    manifest: dict[str, Any] = {"classes": CLASSES, "category_ids": [1, 2, 3], "precision": "fp32"}
    manifest |= {"preprocess": {"size": [64, 32]}, "complexity": None}
    manifest |= {"recipe": {"name": "r", "evaluation": "dhaka-eval"}, "input": {"layout": "nhwc_uint8"}}
    with new_artifact(tmp_path / "onnx", "onnx", manifest) as folder:
        (Path(folder) / "model.onnx").write_bytes(b"no network")
    return tmp_path / "onnx"


@pytest.fixture
def jobs(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """What the workers are asked; none of them starts."""
    asked: list[Mapping[str, Any]] = []

    def run_worker(job: Mapping[str, Any], *_: Any) -> None:
        asked.append(job)
        raise ChildDied("the worker was not started")

    monkeypatch.setattr("edgekit.measure.bench.run_worker", run_worker)
    return asked


@pytest.mark.parametrize(
    ("wishes", "seconds", "count", "plan"),
    [
        ([], 20.0, 64, "rows, each at least 20 s, together 40 s or more 0/2"),
        (["--full"], 600.0, 662, "rows, each at least 600 s, together 20 min or more 0/2"),
        (["--full", "--offline"], 600.0, 662, "rows, each at least 1200 s, together 40 min or more 0/2"),
        (["--seconds", "2.5"], 2.5, 64, "rows, each at least 2.5 s, together 5 s or more 0/2"),
    ],
)
def test_the_duration_is_what_was_asked_for_and_is_told(network, jobs, wishes, seconds, count, plan, capsys) -> None:
    assert main(["bench", str(network), str(network), "--board", "x86", "--runtime", "onnxruntime", *wishes]) == 2
    assert [(job["min_seconds"], job["min_count"]) for job in jobs] == [(seconds, count)] * 2
    assert plan in capsys.readouterr().err


def test_full_and_another_time_are_refused(network, jobs) -> None:
    with pytest.raises(BadConfig, match="leave one of them out"):
        edgekit.bench([network], full=True, seconds=5)
    assert jobs == []


def test_help_says_how_long_full_is(capsys) -> None:
    assert main(["bench", "--help"]) == 0
    said = " ".join(capsys.readouterr().out.replace("│", " ").split())
    assert "600 seconds and 662 frames of each row at least" in said


@pytest.mark.parametrize("board", ["jetson-tx2", "desktop-gpu"])
def test_a_board_with_no_runtime_for_the_file_is_told(tmp_path: Path, board: str, jobs) -> None:
    manifest = {"classes": CLASSES, "category_ids": [1, 2, 3], "recipe": {"name": "r", "evaluation": "dhaka-eval"}}
    with new_artifact(tmp_path / "checkpoint", "checkpoint", manifest) as folder:
        (Path(folder) / "weights.safetensors").write_bytes(b"no weights")
    with pytest.raises(BoardLacks, match=rf"no runtime of board '{board}'.*edgekit doctor"):
        edgekit.bench([tmp_path / "checkpoint"], board=board)
    assert jobs == []
