"""benchmarks/gpu_check.py: what it says without a GPU, and its checks over the simulated TensorRT 8.2 of the twin."""

import os
import subprocess
import sys
from pathlib import Path

import gpu_check
import pytest

from edgekit.runtime.engines.build import BUILDERS, choose_builder
from tests.twin import network

SCRIPT = Path(gpu_check.__file__)
SIMULATOR = Path(__file__).parents[1] / "twin" / "simulator"


@pytest.fixture(scope="module")
def blocks(tmp_path_factory):
    """A small detector whose head needs class-wise NMS."""
    return network.artifact(tmp_path_factory.mktemp("gpu") / "blocks").path


def run(folder, *words, simulated=False):
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "EDGEKIT_"))}
    environment |= {"EDGEKIT_CACHE": str(folder / "cache")} | ({"PYTHONPATH": str(SIMULATOR)} if simulated else {})
    command = [sys.executable, SCRIPT, *words]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def checks(told):
    """name -> (result, what was seen) of the printed table."""
    rows = [line.strip("| ").split(" | ") for line in told.splitlines() if line.startswith("| ")]
    return {row[0]: tuple(row[1:]) for row in rows if len(row) == 3 and row[0] != "check"}


def test_without_a_gpu_nothing_is_claimed(blocks, tmp_path):
    done = run(tmp_path, "--onnx", blocks, "--log", tmp_path / "log.md")
    assert done.returncode == 0, done.stderr
    found = checks(done.stdout)
    assert set(found) == {"kernel", "cuda", "engine fp32", "engine fp16", "engine nms"}
    assert {result for result, _ in found.values()} == {"not run"}
    assert "no GPU is not hardware" in done.stderr
    assert not (tmp_path / "log.md").exists()


def test_nms_is_measured_on_the_host_and_in_the_engine_in_turns(blocks, tmp_path):
    """The simulator's times mean nothing, and so never come into the log."""
    log = tmp_path / "log.md"
    done = run(tmp_path, "--onnx", blocks, "--images", "2", "--seconds", "0.2", "--log", log, simulated=True)
    assert done.returncode == 0, done.stdout + done.stderr
    found = checks(done.stdout)
    assert {found[f"engine {name}"][0] for name in ("fp32", "fp16", "nms")} == {"passed"}
    host, plugin, first, second = found["engine nms"][1].split("; ")
    for way, told in (("host", host), ("plugin", plugin)):
        assert told.startswith(f"{way}: ")
        assert "boxes of 2 images as on the CPU" in told
    count = first.split()[1]
    assert first.startswith(f"host {count} runs, ms p50 ")
    assert second.startswith(f"plugin {count} runs, ms p50 ")  # as many of each: they took turns
    assert "postprocess" in first
    assert second.endswith(" x host")
    assert "a simulator is not hardware" in done.stderr
    assert not log.exists()


def test_every_way_of_nms_is_one_that_can_be_asked_for():
    ways = {name: choose_builder("", name).suppressions for name in BUILDERS}
    assert ways == {"tensorrt8": ("plugin",), "tensorrt10": ("plugin", "layer"), "tensorrt11": ("layer",)}


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (["--images", "0"], "expected 1 to 60, got 0"),
        (["--seconds", "-1"], "expected 0 or more, got -1"),
        (["--onnx", "/nowhere"], "/nowhere: not an artifact"),
        (["--log", "/nowhere/log/log.md", "--onnx", "/nowhere"], "/nowhere"),
    ],
)
def test_mistakes(words, told, tmp_path):
    done = run(tmp_path, *words)
    assert (done.returncode, done.stdout) == (2, "")
    assert told in done.stderr
    assert "Traceback" not in done.stderr
