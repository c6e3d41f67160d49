"""benchmarks/training_speed.py: what is counted in a block, the ratio, and a real run of a few steps."""

from __future__ import annotations

import json
from types import SimpleNamespace

import pytest
import torch
import training_speed
from safetensors.torch import load_file
from training_speed import Turns, interval, main

from edgekit.models.deformable import offset_parameters
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import EdgeKitError
from edgekit.training.depthwise import DepthwiseConv2d
from edgekit.training.fit import fit
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


def test_one_gpu_is_no_machine_for_two_processes(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(training_speed.torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(training_speed.torch.cuda, "device_count", lambda: 1)
    found = training_speed.processes([], 1, tmp_path)
    assert found == {"left out": "one GPU only, and each process needs its own"}
    training_speed.show({"processes": found})
    assert "left out: one GPU only" in capsys.readouterr().out


def test_two_trainings_apart_have_a_gpu_each(monkeypatch, tmp_path):
    monkeypatch.setattr(training_speed.torch.cuda, "is_available", lambda: True)
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5,3")
    seen = []

    def run(command, env, **_):
        seen.append(env["CUDA_VISIBLE_DEVICES"])
        return SimpleNamespace(returncode=1, stderr="")

    monkeypatch.setattr(training_speed.subprocess, "run", run)
    for count, core in ((2, 0), (1, 0), (1, 1)):
        with pytest.raises(EdgeKitError):
            training_speed.epoch_seconds(count, [], tmp_path / "out", core)
    assert seen == ["5,3", "5", "3"]


def test_what_was_measured_outlives_a_part_that_fails(monkeypatch, tmp_path):
    def fails(*_):
        raise EdgeKitError("no more memory")

    monkeypatch.setattr(training_speed, "loop", lambda *_: {"ratio": 0.95})
    monkeypatch.setattr(training_speed, "options", fails)
    recipe = jobs.write_tiny(tmp_path / "data")
    out = tmp_path / "speed.json"
    assert main(["--data", str(recipe.parent), "--recipe", str(recipe), "--out", str(out)]) == 2
    found = json.loads(out.read_text())
    assert found["loop"] == {"ratio": 0.95}
    assert {"before", "after"} < found.keys()


@pytest.mark.slow
@pytest.mark.parametrize("name", ["fpnlite-64-dhaka", "centernet-resnet18"])
def test_a_bare_step_is_a_step_of_fit(tmp_path, name):
    """With gradients that are clipped, on fast depthwise convolutions, and with offsets that learn slowly."""
    train = "{epochs: 1, batch_size: 8, workers: 0, precision: fp32, ema: 0, clip_norm: 0.1, optimizer: {kind: sgd}}"
    model = json.dumps(load_recipe(name).model.model_dump())
    file = jobs.write_tiny(tmp_path / "data")
    recipe = load_recipe(file, [f"model={model}", "preprocess.size=[96, 96]", "data.val=null", f"train={train}"])
    bare = training_speed.Bare(recipe)
    bare()
    network = bare.losses.__self__.model
    special = any(isinstance(module, DepthwiseConv2d) for module in network.modules()), bool(offset_parameters(network))
    assert special == (name == "fpnlite-64-dhaka", name == "centernet-resnet18")
    trained = load_file(fit(recipe, tmp_path / "run").file("weights.safetensors"))
    for name, value in network.state_dict().items():
        assert torch.equal(value, trained[name]), name


@pytest.mark.parametrize("name", ["--rounds", "--steps", "--images", "--threads"])
@pytest.mark.parametrize("value", ["0", "-2"])
def test_numbers_that_make_no_sense_are_refused(name, value, capsys):
    with pytest.raises(SystemExit) as end:
        training_speed.parse(["--data", "x", name, value])
    assert end.value.code == 2
    assert f"{name}: expected 1 or more, found {value}" in capsys.readouterr().err
