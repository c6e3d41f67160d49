import json

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto

from edgekit.conversion.compare import compare_with_torch, network_input, run_onnx
from edgekit.conversion.export import ExportOptions, export_onnx, onnx_artifact
from edgekit.conversion.graph import constants, int64_arithmetic, load_model, opset
from edgekit.runtime.errors import AccuracyDrop, BadConfig, ChildDied

LAYOUTS = ("nhwc_uint8", "nchw_float")


@pytest.fixture
def artifact(request, layout):
    return request.getfixturevalue({"nhwc_uint8": "pixels", "nchw_float": "floats"}[layout])


@pytest.fixture
def graph(artifact):
    return load_model(artifact.file("model.onnx"))


@pytest.mark.parametrize("layout", LAYOUTS)
class TestArtifact:
    def test_onnx_runtime_sees_pytorchs_boxes(self, layout, artifact, detect, photos, preprocess):
        found = compare_with_torch(detect, artifact.file("model.onnx"), photos, preprocess, layout)
        assert found.same, str(found)
        assert found.boxes == 20 * len(photos)
        assert found.ties <= 2

    def test_inputs_and_outputs_are_the_contract(self, layout, graph):
        def signature(value):
            tensor = value.type.tensor_type
            return value.name, tensor.elem_type, [d.dim_value for d in tensor.shape.dim]

        image = ("image", TensorProto.UINT8, [1, 96, 128, 3])
        if layout == "nchw_float":
            image = ("image", TensorProto.FLOAT, [1, 3, 96, 128])
        assert [signature(v) for v in graph.graph.input] == [image]
        assert [signature(v)[:2] for v in graph.graph.output] == [("boxes", 1), ("scores", 1)]

    def test_old_boards_can_read_it(self, layout, graph):
        assert opset(graph) == 13
        assert [e.domain for e in graph.opset_import] == [""]
        assert graph.ir_version == 7
        kinds = {node.op_type for node in graph.graph.node}
        assert not kinds & {
            "BatchNormalization",
            "Identity",
            "Constant",
            "Shape",
            "If",
            "Loop",
            "NonZero",
            "Mod",
            "Xor",
        }
        assert int64_arithmetic(graph) == []

    def test_upsampling_is_what_tensorrt_8_2_takes(self, layout, graph):
        resizes = [node for node in graph.graph.node if node.op_type == "Resize"]
        assert len(resizes) == 7
        for node in resizes:
            attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
            assert attributes["mode"] == b"nearest"
            assert attributes["coordinate_transformation_mode"] == b"asymmetric"
            assert attributes["nearest_mode"] == b"floor"
            scales = constants(graph)[node.input[2]]
            assert scales[2] == scales[3] in (2, 4, 8)

    def test_manifest(self, layout, artifact, facts):
        manifest = artifact.manifest
        assert {k: manifest[k] for k in facts} == facts
        assert manifest["kind"] == "onnx"
        assert manifest["precision"] == "fp32"
        assert manifest["input"]["layout"] == layout
        assert manifest["postprocess"] == {"nms": "none", "score_threshold": 0.01, "top_k": 20, "iou_threshold": 0.5}
        assert manifest["learnable_parameters"] == 1_616_366 - 7 * 33
        # a 15th of the paper's pixels, and 7 classes of 32 weights less at each of 24 x 32 places
        assert manifest["complexity"]["macs"] == 5_604_433_920 / 15 - 7 * 32 * 24 * 32
        assert manifest["notes"] == []
        assert manifest["parity"]["boxes"] == 40
        assert manifest["parity"]["unpaired"] == 0
        assert set(manifest["payload"]) == {"model.onnx"}
        assert "/" not in json.dumps({k: manifest[k] for k in ("tools", "input", "complexity", "notes")})


def test_the_mean_is_subtracted_and_the_scale_folded(pixels):
    kinds = [node.op_type for node in load_model(pixels.file("model.onnx")).graph.node]
    assert kinds[:4] == ["Transpose", "Cast", "Sub", "Conv"]


def test_the_model_is_not_touched(detector, preprocess, tmp_path):
    before = {name: value.clone() for name, value in detector.state_dict().items()}
    detector.train()
    try:
        export_onnx(detector, preprocess, ExportOptions(), tmp_path / "model.onnx")
        assert detector.training
    finally:
        detector.eval()
    after = detector.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())


def test_a_batch_gives_each_image_its_boxes(detector, preprocess, photos, pixels, tmp_path):
    path = export_onnx(detector, preprocess, ExportOptions(batch=2, top_k=20), tmp_path / "model.onnx")
    images = [network_input(photo, preprocess, "nhwc_uint8") for photo in photos[:2]]
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    boxes, scores = session.run(["boxes", "scores"], {"image": np.concatenate(images)})
    for k, (one_boxes, one_scores) in enumerate(run_onnx(pixels.file("model.onnx"), images)):
        np.testing.assert_allclose(boxes[k], one_boxes[0], atol=0.01)
        np.testing.assert_allclose(scores[k], one_scores[0], atol=1e-5)


@pytest.mark.parametrize("options", [{"layout": "nhwc"}, {"batch": 0}, {"top_k": 0}])
def test_wrong_options(options):
    with pytest.raises(BadConfig):
        ExportOptions(**options)


def test_the_key_depends_on_options_and_parents():
    parents = {"checkpoint": "a"}
    keys = {
        ExportOptions().key(parents),
        ExportOptions(top_k=50).key(parents),
        ExportOptions(layout="nchw_float").key(parents),
        ExportOptions().key({"checkpoint": "b"}),
    }
    assert len(keys) == 4
    assert ExportOptions().key(parents) in keys


def test_another_opset_than_asked_is_refused(detector, preprocess, tmp_path, monkeypatch):
    def other(wrapper, example, path, **more):
        model = load_model(ready)
        model.opset_import[0].version = 14
        onnx.save(model, path)

    ready = export_onnx(detector, preprocess, ExportOptions(), tmp_path / "ready.onnx")
    monkeypatch.setattr(torch.onnx, "export", other)
    with pytest.raises(ChildDied, match=r"asked PyTorch .* for opset 13, got 14"):
        export_onnx(detector, preprocess, ExportOptions(), tmp_path / "model.onnx")


def test_without_images_the_plain_file_is_kept_and_said_so(detector, facts, tmp_path):
    artifact, outcome = onnx_artifact(detector, facts, {}, tmp_path / "onnx", [], ExportOptions(top_k=20))
    assert not outcome.simplified
    assert "no image to compare" in artifact.manifest["notes"][0]
    assert "BatchNormalization" not in {n.op_type for n in load_model(artifact.file("model.onnx")).graph.node}


def test_boxes_that_differ_from_pytorchs_stop_the_export(detector, facts, photos, tmp_path, monkeypatch):
    """A file of another network in the exporter's place."""
    import copy

    from edgekit.conversion import export as room

    def other(model, *arguments):
        stranger = copy.deepcopy(model)
        with torch.no_grad():
            stranger.head.size[-1].bias += 0.5
        return export_onnx(stranger, *arguments)

    monkeypatch.setattr(room, "export_onnx", other)
    with pytest.raises(AccuracyDrop, match="sees other boxes than PyTorch"):
        onnx_artifact(detector, facts, {}, tmp_path / "onnx", photos[:1], ExportOptions(top_k=20))
    assert list(tmp_path.iterdir()) == []
