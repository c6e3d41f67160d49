import json
import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest

from edgekit.conversion import calibrate as room
from edgekit.conversion.calibrate import calibrate
from edgekit.conversion.compare import network_input
from edgekit.runtime.engines.caches import cache_folder
from edgekit.runtime.errors import BadConfig, BadInput
from edgekit.runtime.preprocess import Preprocess

from .graphs import graph, run

SMALL = Preprocess((32, 32), mean=(100, 100, 100), std=(50, 50, 50))
RNG = np.random.default_rng(0)
WEIGHT = RNG.normal(size=(4, 3, 3, 3)).astype(np.float32)


def network(weight=WEIGHT):
    """Two convolutions, and a decode that divides by zero."""
    nodes = [
        ("Conv", ["image", "w"], ["c"], {"pads": [1] * 4}),
        ("Relu", ["c"], ["y"], {}),
        ("Conv", ["y", "v"], ["z"], {}),
        ("Sub", ["z", "z"], ["zero"], {}),
        ("Div", ["z", "zero"], ["scores"], {}),
    ]
    outputs = {"y": ("float", [1, 4, 32, 32]), "scores": ("float", [1, 2, 32, 32])}
    constants = {"w": weight, "v": np.ones((2, 4, 1, 1), np.float32)}
    return graph(nodes, {"image": ("float", [1, 3, 32, 32])}, outputs, constants)


@pytest.fixture(autouse=True)
def _empty_cache(tmp_path, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def model(tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(network(), path)
    return path


@pytest.fixture
def no_child(monkeypatch):
    """From here on, the calibration pass is not available."""

    def forbid():
        def run_in_child(*arguments, **more):
            raise AssertionError("calibrated again")

        monkeypatch.setattr(room, "run_in_child", run_in_child)

    return forbid


def truth(photos):
    """All values of both tensors over the photos."""
    images = [network_input(photo, SMALL, "nchw_float") for photo in photos]
    found = [run(network(), {"image": image})[0] for image in images]
    return np.concatenate(images), np.concatenate(found)


def test_minmax_gives_the_extremes_and_is_kept(model, photos, no_child):
    steps = []
    first = calibrate(model, photos, SMALL, "nchw_float", progress=lambda *step: steps.append(step))
    images, outputs = truth(photos)
    assert first.ranges["image"] == pytest.approx((images.min(), images.max()))
    assert first.ranges["y"] == pytest.approx((outputs.min(), outputs.max()))
    assert not first.cached
    assert steps == [(k, len(photos)) for k in range(len(photos) + 1)]
    no_child()
    again = calibrate(model, photos, SMALL, "nchw_float")
    assert again.cached
    assert (again.ranges, again.digest, again.images) == (first.ranges, first.digest, first.images)


@pytest.mark.parametrize("method", ["percentile", "entropy"])
def test_other_methods_stay_inside_the_extremes(method, model, photos):
    found = calibrate(model, photos[:2], SMALL, "nchw_float", method).ranges
    _, outputs = truth(photos[:2])
    assert 0 <= found["y"][0] < 0.3 * outputs.max()
    assert 0.3 * outputs.max() < found["y"][1] <= outputs.max() * 1.001


def test_the_key_is_content_not_names(model, photos, tmp_path, no_child):
    first = calibrate(model, photos[:2], SMALL, "nchw_float")
    copies = [shutil.copyfile(photo, tmp_path / f"{k}.jpg") for k, photo in enumerate(photos[:2])]
    other_model = shutil.copyfile(model, tmp_path / "other.onnx")
    no_child()
    assert calibrate(other_model, copies, SMALL, "nchw_float").digest == first.digest


@pytest.mark.parametrize(
    "change",
    [
        {"images": 1},
        {"preprocess": Preprocess((32, 32), mean=(0, 0, 0))},
        {"method": "percentile"},
        {"weight": WEIGHT * 2},
    ],
    ids=lambda change: next(iter(change)),
)
def test_anything_that_matters_changes_the_key(change, model, photos, no_child):
    calibrate(model, photos[:2], SMALL, "nchw_float")
    no_child()
    if "weight" in change:
        onnx.save(network(change["weight"]), model)
    images = photos[: change.get("images", 2)]
    with pytest.raises(AssertionError, match="calibrated again"):
        calibrate(model, images, change.get("preprocess", SMALL), "nchw_float", change.get("method", "minmax"))


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: text[: len(text) // 2],
        lambda text: "{}",
        lambda text: "[1]",
        lambda text: json.dumps({**json.loads(text), "facts": {}}),
        lambda text: text.replace('"y": [\n', '"y": [\n NaN,\n'),
        lambda text: json.dumps({**json.loads(text), "ranges": {"y": [1.0, 0.0]}}),
        lambda text: json.dumps({**json.loads(text), "ranges": {}}),
    ],
    ids=["truncated", "empty", "list", "of something else", "three numbers", "upside down", "no ranges"],
)
def test_a_damaged_cache_is_named_and_made_again(damage, model, photos, monkeypatch):
    first = calibrate(model, photos[:1], SMALL, "nchw_float")
    file = Path(cache_folder(), "calibration", f"{first.digest}.json")
    damaged = damage(file.read_text())
    assert damaged != file.read_text()
    file.write_text(damaged)
    monkeypatch.setattr(room, "run_in_child", lambda *a, **k: {n: list(pair) for n, pair in first.ranges.items()})
    again = calibrate(model, photos[:1], SMALL, "nchw_float")
    assert not again.cached
    assert str(file) in again.notes[0]
    assert again.ranges == first.ranges
    assert calibrate(model, photos[:1], SMALL, "nchw_float").cached


def test_a_cache_that_cannot_be_written_is_said_so(model, photos, tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path / "file"))
    found = calibrate(model, photos[:1], SMALL, "nchw_float")
    assert "could not be written" in found.notes[-1]
    assert set(found.ranges) == {"image", "c", "y", "z"}


def test_an_empty_set(model):
    with pytest.raises(BadInput, match="the calibration set is empty"):
        calibrate(model, [], SMALL, "nchw_float")


def test_a_missing_image(model, photos, tmp_path):
    with pytest.raises(BadInput, match=r"missing: .*nothing\.jpg"):
        calibrate(model, [*photos[:1], tmp_path / "nothing.jpg"], SMALL, "nchw_float")


def test_a_truncated_image_is_named(model, photos, tmp_path):
    (tmp_path / "cut.jpg").write_bytes(photos[0].read_bytes()[:5000])
    with pytest.raises(BadInput, match=r"cut\.jpg"):
        calibrate(model, [*photos[:1], tmp_path / "cut.jpg"], SMALL, "nchw_float")


def test_an_unknown_method(model, photos):
    with pytest.raises(BadConfig, match="minmax, entropy, percentile"):
        calibrate(model, photos, SMALL, "nchw_float", "kl")


def test_a_network_that_yields_nan(photos, tmp_path):
    path = tmp_path / "model.onnx"
    onnx.save(network(np.full_like(WEIGHT, np.inf)), path)
    with pytest.raises(BadInput, match="NaN or infinity at"):
        calibrate(path, photos[:1], SMALL, "nchw_float")
