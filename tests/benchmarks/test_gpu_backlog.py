"""The backlog for a GPU: its commands are real ones, and a stage that runs out of time is stopped and goes on."""

from __future__ import annotations

import importlib
import json
import sys
import time
from pathlib import Path

import gpu_backlog
import pytest

STAGES = gpu_backlog.load_plan().stages


@pytest.mark.parametrize("trial", [False, True])
@pytest.mark.parametrize("stage", STAGES, ids=lambda stage: stage.name)
def test_a_stage_is_a_command_that_its_script_reads(stage: gpu_backlog.Stage, trial: bool, tmp_path: Path) -> None:
    _, script, *arguments = stage.arguments(trial, dhaka=tmp_path, out=tmp_path)
    importlib.import_module(Path(script).stem).parse(arguments)


def plan(monkeypatch: pytest.MonkeyPatch, *stages: gpu_backlog.Stage) -> None:
    monkeypatch.setattr(gpu_backlog, "load_plan", lambda: gpu_backlog.Plan(stages=stages))
    monkeypatch.setattr(gpu_backlog.Stage, "arguments", lambda self, *_, **__: [sys.executable, "-c", self.command])
    monkeypatch.setattr(gpu_backlog, "GRACE", 0.5)


def test_finished_stages_are_skipped_and_stopped_ones_go_on(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    out = tmp_path / "out"
    count = f"open({str(tmp_path / 'count')!r}, 'a').write('x')"
    slow = f"import os, time; os.path.exists({str(tmp_path / 'quick')!r}) or time.sleep(60)"
    plan(
        monkeypatch,
        gpu_backlog.Stage(name="one", command=f"print('said'); {count}"),
        gpu_backlog.Stage(name="bad", command="raise SystemExit(3)"),
        gpu_backlog.Stage(name="slow", command=slow),
        gpu_backlog.Stage(name="last", command="pass"),
    )

    def ended(minutes: float) -> dict[str, str]:
        assert gpu_backlog.main(["--data", str(tmp_path), "--out", str(out), f"--minutes={minutes}"]) == 1
        return {name: entry["ended"] for name, entry in json.loads((out / "backlog.json").read_text()).items()}

    began = time.monotonic()
    first = {"one": "done", "bad": "failed with exit code 3", "slow": "stopped"}
    assert ended(0.1) == first
    assert time.monotonic() - began < 30
    assert (out / "one.log").read_text() == "said\n"
    (tmp_path / "quick").touch()
    assert ended(1) == first | {"slow": "done", "last": "done"}
    assert (tmp_path / "count").read_text() == "x"


def test_a_trial_leaves_nothing_that_a_full_run_would_take_for_its_own(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    write = "from pathlib import Path; Path(r'{out}', 'result').write_text('of one epoch')"
    plan(monkeypatch, gpu_backlog.Stage(name="one", command=write, **{"try": ""}))
    monkeypatch.setattr(
        gpu_backlog.Stage, "arguments", lambda self, _, **places: [sys.executable, "-c", write.format(**places)]
    )
    out = tmp_path / "out"
    assert gpu_backlog.main(["--data", str(tmp_path), "--out", str(out), "--try"]) == 0
    assert [path.name for path in out.iterdir()] == ["try"]
    assert (out / "try" / "result").read_text() == "of one epoch"


def test_no_data_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    assert gpu_backlog.main(["--data", "/nowhere"]) == 2
    assert "/nowhere: no such folder" in capsys.readouterr().err
