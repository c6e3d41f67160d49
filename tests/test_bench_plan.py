"""How long ``bench`` measures, and that it says so beforehand: the worker's job is looked at, nothing is measured."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import cv2
import numpy as np
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


def test_a_board_with_no_runtime_for_the_file_is_told(network: Path, tmp_path: Path, jobs) -> None:
    board = tmp_path / "my-gpu.yaml"
    board.write_text(
        "{name: my-gpu, title: mine, kind: x86, runtimes: [tensorrt10], precisions: [fp32], "
        "input_layouts: [nhwc_uint8]}"
    )
    with pytest.raises(BoardLacks, match=r"no runtime of board 'my-gpu' \(tensorrt10\).*edgekit doctor"):
        edgekit.bench([network], board=str(board))
    assert jobs == []


@pytest.mark.parametrize("board", ["jetson-tx2", "raspberry-pi-5", "desktop-gpu"])
def test_nothing_is_measured_as_another_board_than_this_machine(network, jobs, board, tmp_path, monkeypatch) -> None:
    """A row would say that the board had taken the time that this machine took."""
    monkeypatch.setattr("edgekit.checkup.kinds", lambda: {"x86"})
    for measure in (
        lambda: edgekit.bench([network], board=board, runtime="onnxruntime"),
        lambda: edgekit.bench_compare(network, network, board=board, runtime="onnxruntime"),
        lambda: edgekit.run("mobile-centernet-w16-dhaka", board=board, out=tmp_path / "out"),
    ):
        with pytest.raises(BoardLacks, match=f"cannot measure '{board}' here: this machine is x86.*edgekit flash"):
            measure()
    assert jobs == []
    assert not (tmp_path / "out").exists()


def test_a_board_of_the_same_processor_is_not_another(network, jobs, monkeypatch) -> None:
    found = {"model": "Raspberry Pi 4 Model B", "compatible": [], "dts": "", "l4t": "unknown"}
    monkeypatch.setattr("edgekit.checkup.kinds", lambda: {"arm"})
    monkeypatch.setattr("edgekit.checkup.identity.identity", lambda: found)
    with pytest.raises(BoardLacks, match="calls itself 'Raspberry Pi 4 Model B'"):
        edgekit.bench([network], board="raspberry-pi-5")
    with pytest.raises(ChildDied, match="not started"):
        edgekit.bench([network], board="raspberry-pi-4")


def test_images_without_labels_are_timed(network, jobs, tmp_path) -> None:
    """``images`` of the job are those of the folder; that their row is perf-only is the bench's (test_bench.py)."""
    folder = tmp_path / "frames"
    folder.mkdir()
    cv2.imwrite(str(folder / "a.png"), np.zeros((32, 64, 3), np.uint8))
    assert main(["bench", str(network), "--board", "x86", "--runtime", "onnxruntime", "--data", str(folder)]) == 2
    assert jobs[0]["images"] == [str(folder / "a.png")]
