import os
import sys
from types import SimpleNamespace

import numpy as np
import onnx as onnx_library
import pytest

from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput, MissingDependency
from edgekit.runtime.sessions import open_session
from edgekit.runtime.sessions.cuda_ort import CudaOrtSession

ON_ONNX = ("onnxruntime", "openvino")


@pytest.fixture(params=["onnxruntime", "openvino", "pytorch"])
def runtime(request):
    if request.param == "openvino":
        pytest.importorskip("openvino")
    return request.param


@pytest.fixture
def session_of(onnx, checkpoint):
    return lambda runtime, **more: open_session(runtime, checkpoint if runtime == "pytorch" else onnx, **more)


def pixels(images, i=0):
    return np.ascontiguousarray(images[i][None, :64, :96])


def test_the_output_contract(runtime, session_of, images):
    with session_of(runtime) as session:
        assert session.layout == "nhwc_uint8"
        outputs = session.infer({"image": pixels(images)})
        assert sorted(outputs) == ["boxes", "scores"]
        assert outputs["boxes"].shape == (1, 100, 4)
        assert outputs["scores"].shape == (1, 100, 3)
        assert {a.dtype for a in outputs.values()} == {np.dtype(np.float32)}
        assert session.spans == {}


def by_score(outputs):
    """Boxes and scores of the peaks, best first; where the picture has fewer than top-k, the rest are any pixels."""
    boxes, scores = outputs["boxes"][0], outputs["scores"][0]
    order = np.argsort(-scores.max(1))[: (scores.max(1) > 0.01).sum()]
    assert len(order) > 10
    return boxes[order], scores[order]


def test_all_runtimes_agree(runtime, session_of, images):
    with session_of("onnxruntime") as reference, session_of(runtime) as session:
        for i in range(3):
            expected = by_score(reference.infer({"image": pixels(images, i)}))
            found = by_score(session.infer({"image": pixels(images, i)}))
            np.testing.assert_allclose(found[0], expected[0], atol=0.05)
            np.testing.assert_allclose(found[1], expected[1], atol=1e-4)


def test_pictures_give_different_outputs(runtime, session_of, images):
    """With memory shared both ways, the last input or output must not come back."""
    with session_of(runtime) as session:
        first = session.infer({"image": pixels(images, 0)})["scores"].copy()
        second = session.infer({"image": pixels(images, 1)})["scores"].copy()
        again = session.infer({"image": pixels(images, 0)})["scores"]
        assert np.abs(first - second).max() > 1e-3
        np.testing.assert_array_equal(first, again)


def test_describes_what_computes(runtime, session_of):
    with session_of(runtime) as session:
        about = session.describe()
    assert about["library"] == runtime
    assert about["version"].split(".")[0].isdigit()
    assert about["precision"] == "fp32"  # OpenVINO by itself would take bf16 where the CPU has it
    assert about["threads"] == 1


def test_two_threads(runtime, session_of, images):
    with session_of(runtime, threads=2) as session:
        assert session.describe()["threads"] == 2
        assert session.infer({"image": pixels(images)})["boxes"].shape == (1, 100, 4)
    with session_of(runtime, threads=1):  # torch counts threads for the whole process: set it back
        pass


def test_the_float_layout(onnx, onnx_float, images):
    from edgekit.runtime.runner import Runner

    for runtime in ON_ONNX:
        with open_session(runtime, onnx) as raw, open_session(runtime, onnx_float) as normalised:
            assert normalised.layout == "nchw_float"
            a, b = Runner(onnx, raw)(images[0])[0], Runner(onnx_float, normalised)(images[0])[0]
            np.testing.assert_allclose(a.scores, b.scores, atol=1e-4)


# -- what can go wrong ------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("onnxruntme", "no runtime 'onnxruntme'; did you mean onnxruntime"),
        ("OpenVino", "did you mean openvino"),
        ("???", "there are: cuda, onnxruntime, openvino, pytorch"),
    ],
)
def test_unknown_runtime(name, message, onnx):
    with pytest.raises(BadConfig, match=message):
        open_session(name, onnx)


@pytest.mark.parametrize("threads", [0, -1, 1.5, "2"])
def test_wrong_threads(threads, onnx):
    with pytest.raises(BadConfig, match="threads: expected a whole number"):
        open_session("onnxruntime", onnx, threads)


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("pytorch", "found an artifact of kind 'onnx'; runtime pytorch loads checkpoint. .* edgekit train"),
        ("onnxruntime", "kind 'checkpoint'; runtime onnxruntime loads onnx or onnx-int8. .* edgekit export"),
        ("openvino", "kind 'checkpoint'; runtime openvino loads onnx or onnx-int8"),
    ],
)
def test_wrong_kind(runtime, message, onnx, checkpoint):
    with pytest.raises(ArtifactError, match=message):
        open_session(runtime, onnx if runtime == "pytorch" else checkpoint)


@pytest.mark.parametrize(
    ("runtime", "module", "package"),
    [
        ("onnxruntime", "onnxruntime", "onnxruntime"),
        ("openvino", "openvino", r"edgekit\[openvino\]"),
        ("pytorch", "torch", r"edgekit\[train\]"),
    ],
)
def test_missing_library(runtime, module, package, session_of, monkeypatch):
    monkeypatch.setitem(sys.modules, module, None)  # import then raises ImportError
    monkeypatch.delitem(sys.modules, "edgekit.models.session", raising=False)
    with pytest.raises(MissingDependency, match=f"pip install '{package}'"):
        session_of(runtime)


DAMAGED = {
    "empty": lambda data: b"",
    "text": lambda data: b"this is no model",
    "cut short": lambda data: data[: len(data) // 2],
    "zeroed": lambda data: data[:2000] + bytes(len(data) - 2000),
}


@pytest.mark.parametrize("case", DAMAGED)
@pytest.mark.parametrize("runtime", ON_ONNX)
def test_a_damaged_onnx_is_named(runtime, case, onnx, copy_of):
    with open(onnx.file("model.onnx"), "rb") as handle:
        broken = copy_of(onnx, {"model.onnx": DAMAGED[case](handle.read())})
    with pytest.raises(BadInput, match=r"refuses it|has inputs") as caught:
        open_session(runtime, broken)
    assert broken.file("model.onnx") in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("runtime", ON_ONNX)
def test_other_names_than_the_contracts(runtime, onnx, copy_of):
    model = onnx_library.load(onnx.file("model.onnx"))
    for node in model.graph.node:
        node.output[:] = ["dets" if o == "boxes" else o for o in node.output]
        node.input[:] = ["dets" if o == "boxes" else o for o in node.input]
    model.graph.output[0].name = "dets"
    other = copy_of(onnx, {"model.onnx": model.SerializeToString()})
    with pytest.raises(BadInput, match="outputs dets, scores; needed input image and outputs boxes and scores"):
        open_session(runtime, other)


def test_damaged_weights_are_named(checkpoint, copy_of):
    broken = copy_of(checkpoint, {"weights.safetensors": b"\x10\0\0\0\0\0\0\0garbage"})
    with pytest.raises(BadInput, match=r"weights.safetensors: cannot be read as safetensors"):
        open_session("pytorch", broken)


def test_weights_of_another_network(checkpoint, copy_of):
    other = copy_of(checkpoint, classes=["car", "bus"], category_ids=[1, 2])
    with pytest.raises(BadInput, match=r"weights.safetensors: does not fit the network .*head.heatmap.2"):
        open_session("pytorch", other)


def test_torch_folds_batch_normalisation_and_computes_the_same(network, checkpoint, images):
    import torch

    from edgekit.models.session import TorchSession

    with TorchSession(checkpoint) as session:
        found = session.infer({"image": pixels(images)})
        assert not any(isinstance(m, torch.nn.BatchNorm2d) for m in session._model.modules())
    p = checkpoint.preprocess
    with torch.inference_mode():
        boxes, scores = network.detect(torch.from_numpy(p.normalise(pixels(images)[0])[None]), 100)
    expected = by_score({"boxes": boxes.numpy(), "scores": scores.numpy()})
    np.testing.assert_allclose(by_score(found)[0], expected[0], atol=0.05)
    np.testing.assert_allclose(by_score(found)[1], expected[1], atol=1e-4)


@pytest.mark.parametrize("runtime", ON_ONNX)
def test_int8_really_is(runtime, int8, onnx, images):
    pytest.importorskip(runtime)
    with open_session(runtime, int8) as session, open_session(runtime, onnx) as plain:
        about = session.describe()
        assert about["precision"] == "int8"
        difference = (
            session.infer({"image": pixels(images)})["scores"].max()
            - plain.infer({"image": pixels(images)})["scores"].max()
        )
        assert 0 < abs(difference) < 0.2
    if runtime == "openvino":  # it tells by layer
        assert about["layers"].get("f32", 0) < sum(about["layers"].values()) / 4
        assert about["float_type"] == "f32"


TF32 = [("1.31.1", ("CUDAExecutionProvider", {"use_tf32": "0"})), ("1.17.3", "CUDAExecutionProvider")]


@pytest.mark.parametrize(("version", "wanted"), TF32)
def test_fp32_on_an_nvidia_gpu_is_never_tf32(version, wanted, monkeypatch):
    """The option is refused before 1.18, and cuDNN's graphs do not heed it; the variable is heeded by all."""
    monkeypatch.setenv("NVIDIA_TF32_OVERRIDE", "1")
    ort = SimpleNamespace(__version__=version, get_available_providers=lambda: ["CUDAExecutionProvider"])
    session = object.__new__(CudaOrtSession)
    assert session._providers(ort) == [wanted, "CPUExecutionProvider"]
    assert os.environ["NVIDIA_TF32_OVERRIDE"] == "0"
