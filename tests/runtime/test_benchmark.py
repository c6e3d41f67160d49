"""benchmarks/end_to_end.py: its statistics, and that it runs."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

SCRIPT = Path(__file__).resolve().parents[2] / "benchmarks" / "end_to_end.py"


@pytest.fixture(scope="module")
def script():
    spec = importlib.util.spec_from_file_location("end_to_end", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def times(script, values):
    return [script.Times(v, v / 2) for v in values]


def test_the_interval_holds_the_ratio_and_shrinks_with_the_noise(script):
    rng = np.random.default_rng(0)
    intervals = []
    for noise in (0.2, 0.02):
        bare = 10 * (1 + noise * rng.standard_normal(200))
        around = 10.4 * (1 + noise * rng.standard_normal(200))
        found = script.ratio(times(script, around), times(script, bare), None, at_most=True)
        assert found["low"] < 1.04 < found["high"]
        assert found["cpu"]["ratio"] == pytest.approx(found["ratio"])
        assert "met" not in found
        intervals.append(found["high"] - found["low"])
    assert intervals[1] < intervals[0] / 5


def test_what_disturbs_a_whole_round_widens_nothing(script):
    """Rounds, not calls, are drawn again: noise that both sides share does not count."""
    shared = 10 * (1 + 0.5 * np.random.default_rng(1).random(200))
    found = script.ratio(times(script, 1.03 * shared), times(script, shared), None, at_most=True)
    assert found["high"] - found["low"] < 1e-9


@pytest.mark.parametrize(("goal", "at_most", "met"), [(1.2, True, True), (1.05, True, False), (1.05, False, True)])
def test_goals(script, goal, at_most, met):
    found = script.ratio(times(script, [1.1] * 9), times(script, [1.0] * 9), goal, at_most)
    assert found["met"] is met


@pytest.mark.slow
def test_it_runs(onnx, int8, tmp_path):
    command = [sys.executable, SCRIPT, "--fp32", onnx.path, "--int8", int8.path, "--rounds", "3"]
    done = subprocess.run([*command, "--out", tmp_path / "out.json"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "out.json").read_text())
    names = ["onnxruntime fp32", "onnxruntime int8", "openvino fp32", "openvino int8"]
    names = [n for n in names if n.split()[0] in {m.split()[0] for m in report["milliseconds"]}]
    assert list(report["milliseconds"]) == list(report["peak_rss_mb"]) == names
    assert report["milliseconds"]["onnxruntime fp32"]["bare"]["count"] == 3
    assert report["ratios"]["end to end / bare, onnxruntime fp32"]["goal"] == "<= 1.05"
    assert report["ratios"]["FP32 / INT8, onnxruntime"]["ratio"] > 0
    assert all(name in done.stdout for name in report["ratios"])
    assert 20 < report["peak_rss_mb"]["onnxruntime fp32"] < 350


def test_mistakes_are_told(tmp_path):
    done = subprocess.run([sys.executable, SCRIPT, "--fp32", tmp_path / "none"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "not an artifact" in done.stderr
    assert "Traceback" not in done.stderr
