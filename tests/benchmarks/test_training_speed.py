"""benchmarks/training_speed.py: what is counted in a block, the ratio, and a real run of a few steps."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import training_speed
from training_speed import Turns, interval, main

from tests.training import jobs


def test_blocks_are_timed_in_turn_and_their_first_steps_are_not(monkeypatch):
    """A step of fit takes 3 seconds, a bare one 2; the first two steps of each block of fit are instantaneous."""
    clock = SimpleNamespace(time=0.0)
    monkeypatch.setattr(training_speed, "now", lambda: clock.time)

    def bare():
        clock.time += 2

    turns = Turns(bare, rounds=2, steps=4, settle=2)

    def train():
        for step in range(100):
            clock.time += 0 if step % 6 < 2 else 3
            turns("train", step, 100)

    with pytest.raises(KeyboardInterrupt):
        train()
    assert turns.seconds == [(12, 8), (12, 8)]
    assert interval(turns.seconds) == pytest.approx({"ratio": 2 / 3, "low": 2 / 3, "high": 2 / 3})


def test_the_interval_holds_the_median():
    found = interval([(1.0, 0.9), (1.0, 0.95), (1.0, 0.7), (1.0, 0.92), (1.0, 0.91)])
    assert found["ratio"] == pytest.approx(0.91)
    assert found["low"] <= 0.91 <= found["high"]


def test_two_processes_are_compared_with_one_and_with_two_apart(monkeypatch, tmp_path):
    """Seconds a batch: one 6, two 4; apart 10 on the first core and 15 on the second, so 6 of both together."""
    started = []

    def seconds(count, arguments, out, core=0):
        started.append((count, core, out.name))
        return {"1-0": 6.0, "2-0": 4.0, "apart-0-0": 10.0, "apart-0-1": 15.0}[out.name]

    monkeypatch.setattr(training_speed, "epoch_seconds", seconds)
    monkeypatch.setattr(training_speed.os, "sched_getaffinity", lambda _: {0, 1})
    found = training_speed.processes([], 1, tmp_path)
    assert found["ratio"] == pytest.approx(1.5)
    assert found["apart"]["ratio"] == pytest.approx(1.0)
    assert sorted(started) == [(1, 0, "1-0"), (1, 0, "apart-0-0"), (1, 1, "apart-0-1"), (2, 0, "2-0")]


@pytest.mark.slow
def test_a_real_run(tmp_path, capsys):
    recipe = jobs.write_tiny(tmp_path / "data")
    arguments = ["--data", str(recipe.parent), "--recipe", str(recipe), "--parts", "loop", "--rounds", "2"]
    assert main([*arguments, "--steps", "2", "--threads", "1", "--out", str(tmp_path / "speed.json")]) == 0
    found = json.loads((tmp_path / "speed.json").read_text())["loop"]
    assert found["ratio"] > 0
    assert len(found["seconds"]) == 2
    assert "of bare steps" in capsys.readouterr().out


def test_a_recipe_that_does_not_exist(tmp_path, capsys):
    assert main(["--data", str(tmp_path), "--recipe", "nonesuch"]) == 2
    assert "nonesuch" in capsys.readouterr().err
