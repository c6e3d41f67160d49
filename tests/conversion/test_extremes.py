"""Extremes of activations: the true ones, without keeping the activations."""

import subprocess
import sys

import numpy as np
import onnx
import pytest

from edgekit.conversion.calibrate import _groups, calibrate, collect_ranges
from edgekit.conversion.extremes import extremes
from edgekit.runtime.errors import BadInput
from edgekit.runtime.preprocess import Preprocess

from .graphs import graph, run

RNG = np.random.default_rng(0)
SIDE = 16
SMALL = Preprocess((SIDE, SIDE))


def network(weight):
    nodes = [
        ("Conv", ["image", "w"], ["c"], {"pads": [1] * 4}),
        ("Relu", ["c"], ["y"], {}),
        ("Conv", ["y", "v"], ["scores"], {}),
    ]
    outputs = {"scores": ("float", [1, 2, SIDE, SIDE])}
    constants = {"w": weight, "v": RNG.normal(size=(2, 4, 1, 1)).astype(np.float32)}
    return graph(nodes, {"image": ("float", [1, 3, SIDE, SIDE])}, outputs, constants)


@pytest.fixture
def weight():
    return RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


@pytest.fixture
def image():
    return RNG.normal(size=(1, 3, SIDE, SIDE)).astype(np.float32)


def test_they_are_those_of_the_tensors(weight, image):
    model = network(weight)
    low, high = extremes(model, ["image", "c", "y", "scores"])(image)
    scores = run(model, {"image": image})[0]
    assert (low[0], high[0]) == (image.min(), image.max())
    assert low[1] < 0 == low[2]  # the ReLU took it
    assert high[1] == high[2] > 0
    assert (low[3], high[3]) == (pytest.approx(scores.min()), pytest.approx(scores.max()))
    assert [o.name for o in model.graph.output] == ["scores"]  # the model itself is left as it was


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_single_value_that_is_no_number_is_seen(value, weight, image):
    """ONNX Runtime's ReduceMin and ReduceMax pass over a NaN."""
    image[0, 0, 5, 5] = value
    low, high = extremes(network(weight), ["image", "c"])(image)
    assert np.isnan([*low, *high]).all()


def test_finite_values_whose_sum_is_not_are_numbers(weight, image):
    """Attention masks hold the lowest of all floats."""
    image[0, 0, :2, 5] = np.finfo(np.float32).min
    low, high = extremes(network(weight), ["image"])(image)
    assert low[0] == np.finfo(np.float32).min
    assert high[0] == image.max()


@pytest.mark.parametrize("method", ["minmax", "percentile", "entropy"])
def test_calibration_refuses_a_network_that_yields_nan(method, weight, photos, tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))
    weight[1, 1, 1, 1] = np.nan
    onnx.save(network(weight), tmp_path / "model.onnx")
    with pytest.raises(BadInput, match="yields NaN or infinity at c"):
        calibrate(tmp_path / "model.onnx", photos[:1], SMALL, "nchw_float", method)


CHAIN = """
import resource, sys
import numpy as np
from tests.conversion.graphs import graph
from edgekit.conversion.extremes import extremes

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

names = ["t{}".format(i) for i in range(41)]
nodes = [("Relu", [a], [b], {}) for a, b in zip(["image", *names], names)]
shape = [1, 1, 2048, 2048]  # 16 MB each
model = graph(nodes, {"image": ("float", shape)}, {names[-1]: ("float", shape)}, {})
look = extremes(model, names)
before = peak()
low, high = look(np.ones(shape, np.float32))
assert (low == 1).all() and (high == 1).all()
print(peak() - before)
"""


def test_the_activations_are_not_kept():
    """41 tensors of 16 MB; a run that keeps them all takes 656 MB."""
    done = subprocess.run([sys.executable, "-c", CHAIN], check=True, capture_output=True, text=True)
    assert float(done.stdout) < 250


def test_lots_of_tensors(monkeypatch):
    monkeypatch.setattr("edgekit.conversion.calibrate.BYTES_AT_ONCE", 10)
    assert _groups({"a": 4, "b": 6, "c": 1, "d": 50, "e": 2}) == [["a", "b"], ["c"], ["d"], ["e"]]
    assert _groups({}) == []


def test_histograms_in_several_passes_are_those_of_one(weight, photos, tmp_path, monkeypatch):
    onnx.save(network(weight), tmp_path / "model.onnx")
    steps = []

    def ranges(room):
        monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / str(room)))
        monkeypatch.setattr("edgekit.conversion.calibrate.BYTES_AT_ONCE", room)
        steps.clear()
        watch = (SMALL, "nchw_float", "percentile", lambda *step: steps.append(step))
        return calibrate(tmp_path / "model.onnx", photos[:2], *watch).ranges

    monkeypatch.setattr("edgekit.conversion.calibrate.run_in_child", here)
    whole = ranges(1 << 30)
    assert steps == [(0, 2), (1, 2), (2, 2)]
    assert ranges(5000) == whole  # "image" has 3072 bytes, "c" and "y" 4096 each: four passes
    assert (steps[0], steps[-1]) == ((0, 8), (8, 8))
    assert steps == sorted(steps)


def here(child, request, *more):
    """``run_in_child`` in this process, whose constants are changed."""
    return collect_ranges(**request, progress=more[-1])
