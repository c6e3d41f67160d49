import numpy as np
import onnx
import pytest
from onnx import numpy_helper

from edgekit.conversion.sensitivity import _round_weights, _with_one_quantized, rank_layers
from edgekit.runtime.preprocess import Preprocess

from .graphs import f32, graph

RNG = np.random.default_rng(0)


def weights(*shape):
    return RNG.normal(size=shape).astype(np.float32)


@pytest.fixture
def model(tmp_path):
    """Three layers; in the middle one, a single weight dwarfs the rest of its channel, so that INT8 loses the rest."""
    spoiled = weights(4, 4, 3, 3)
    spoiled[:, 0, 0, 0] = 400
    nodes = [
        ("Conv", ["image", "a"], ["x"], {"pads": [1] * 4}),
        ("Conv", ["x", "b"], ["y"], {"pads": [1] * 4}),
        ("Conv", ["y", "c"], ["z"], {}),
    ]
    constants = {"a": weights(4, 3, 3, 3), "b": spoiled, "c": weights(2, 4, 1, 1)}
    # the first channel of x is empty, so the giant weights do no work
    constants["a"][0] = 0
    path = tmp_path / "model.onnx"
    onnx.save(graph(nodes, {"image": ("float", [1, 3, 32, 32])}, {"z": ("float", [1, 2, 32, 32])}, constants), path)
    return path


def test_the_spoiled_layer_comes_first(model, photos):
    seen = []
    ranges = {"image": [-3.0, 3.0], "x": [-40.0, 40.0], "y": [-500.0, 500.0]}
    ranked = rank_layers(
        model,
        photos,
        Preprocess((32, 32), mean=(100,) * 3, std=(60,) * 3),
        "nchw_float",
        ranges,
        progress=lambda *step: seen.append(step),
    )
    assert ranked[0][0] == "n_y"
    assert {name for name, _ in ranked} == {"n_x", "n_y", "n_z"}
    errors = [error for _, error in ranked]
    assert errors == sorted(errors, reverse=True)
    assert errors[0] > 3 * errors[1] > 0
    assert seen[-1] == (3, 3)


def test_a_layer_that_shares_its_weights_leaves_the_other_its_own():
    shared = weights(3, 3, 1, 1)
    nodes = [("Conv", ["image", "w"], ["x"], {}), ("Conv", ["x", "w"], ["y"], {})]
    made = graph(nodes, {"image": ("float", [1, 3, 4, 4])}, {"y": ("float", [1, 3, 4, 4])}, {"w": shared})
    found = _with_one_quantized(made, "n_x", {"image": (-1.0, 1.0)})
    tensors = {t.name: numpy_helper.to_array(t) for t in found.graph.initializer}
    one, other = (tensors[n.input[1]] for n in found.graph.node if n.op_type == "Conv")
    assert np.array_equal(other, shared)
    assert 0 < np.abs(one - shared).max() < 0.02


@pytest.mark.parametrize("transposed", [0, 1])
def test_a_gemm_is_rounded_by_output_channel(transposed):
    """Outputs a thousand times as large as each other: one scale for both would lose the small one."""
    stored = weights(3, 2) * f32([1, 1000])
    made = graph(
        [("Gemm", ["x", "w"], ["y"], {"transB": transposed})],
        {"x": ("float", [1, 3])},
        {"y": ("float", [1, 2])},
        {"w": stored.T if transposed else stored},
    )
    _round_weights(made, made.graph.node[0])
    read = made.graph.node[0].input[1]
    rounded = numpy_helper.to_array(next(t for t in made.graph.initializer if t.name == read))
    rounded = rounded.T if transposed else rounded
    assert np.all(np.abs(rounded - stored) <= np.abs(stored).max(0) / 250)
    assert not np.array_equal(rounded, stored)


def test_layers_that_are_float_anyway_are_left_out(model, photos):
    ranges = {"image": [-3.0, 3.0], "x": [-40.0, 40.0], "y": [-500.0, 500.0]}
    ranked = rank_layers(model, photos[:1], Preprocess((32, 32)), "nchw_float", ranges, skip=["n_y"])
    assert {name for name, _ in ranked} == {"n_x", "n_z"}
