import numpy as np
import onnx
import pytest

from edgekit.conversion import simplify as room
from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.conversion.graph import load_model
from edgekit.conversion.simplify import simplify
from edgekit.runtime.errors import ChildDied


@pytest.fixture(scope="module")
def plain(detector, preprocess, tmp_path_factory):
    return export_onnx(detector, preprocess, ExportOptions(top_k=20), tmp_path_factory.mktemp("plain") / "model.onnx")


def test_fewer_nodes_and_the_same_boxes(plain, photos, preprocess, tmp_path):
    outcome = simplify(plain, tmp_path / "model.onnx", photos[:2], preprocess, "nhwc_uint8")
    assert outcome.simplified
    assert outcome.notes == ()
    assert outcome.comparison is not None
    assert outcome.comparison.boxes == 40
    assert outcome.comparison.same
    before, after = (len(load_model(path).graph.node) for path in (plain, tmp_path / "model.onnx"))
    assert after < 0.8 * before
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def test_a_crash_keeps_the_plain_file_and_says_so(plain, photos, preprocess, tmp_path, monkeypatch):
    def crash(function, arguments, step, file, progress=None):
        raise ChildDied(f"step {step!r} of {file} was killed by SIGSEGV")

    monkeypatch.setattr(room, "run_in_child", crash)
    outcome = simplify(plain, tmp_path / "model.onnx", photos[:1], preprocess, "nhwc_uint8")
    assert not outcome.simplified
    assert "killed by SIGSEGV" in outcome.notes[0]
    assert (tmp_path / "model.onnx").read_bytes() == plain.read_bytes()
    assert "int64 arithmetic is left" in outcome.notes[1]


def test_other_boxes_keep_the_plain_file_and_say_so(plain, photos, preprocess, tmp_path, monkeypatch):
    real = room.run_in_child

    def spoil(function, arguments, step, file, progress=None):
        result = real(function, arguments, step, file, progress)
        if step == "simplify":
            _spoil_a_bias(arguments["target"])
        return result

    monkeypatch.setattr(room, "run_in_child", spoil)
    outcome = simplify(plain, tmp_path / "model.onnx", photos[:1], preprocess, "nhwc_uint8")
    assert not outcome.simplified
    assert "the boxes would change" in outcome.notes[0]
    assert (tmp_path / "model.onnx").read_bytes() == plain.read_bytes()
    assert [p.name for p in tmp_path.iterdir()] == ["model.onnx"]


def _spoil_a_bias(path):
    model = load_model(path)
    name = next(n.input[2] for n in model.graph.node if n.name.endswith("heatmap.2/Conv"))
    tensor = next(t for t in model.graph.initializer if t.name == name)
    tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor) + np.float32(0.01), name))
    onnx.save(model, path)
