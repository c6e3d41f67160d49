import numpy as np
import pytest

from edgekit.runtime.errors import ArtifactError, BadInput
from edgekit.runtime.postprocess import Postprocess
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.runner import Runner, open_runner
from edgekit.runtime.sessions import Session


class Fixed(Session):
    """A session that answers what it was told, and keeps what it was asked."""

    def __init__(self, artifact, boxes, scores):
        super().__init__(artifact)
        self.answer = {"boxes": np.asarray(boxes, np.float32), "scores": np.asarray(scores, np.float32)}
        self.asked, self.closed = [], False

    def infer(self, inputs):
        self.asked.append(inputs)
        return self.answer

    def close(self):
        self.closed = True


BOXES = [[[0, 0, 48, 32], [48, 32, 96, 64]]]
SCORES = [[[0.9, 0.0, 0.005], [0.0, 0.3, 0.0]]]


def test_image_to_detections(onnx, images):
    session = Fixed(onnx, BOXES, SCORES)
    with Runner(onnx, session) as runner:
        detections, timing = runner(images[0])
    height, width = images[0].shape[:2]
    np.testing.assert_allclose(
        detections.boxes, [[0, 0, width / 2, height / 2], [width / 2, height / 2, width, height]]
    )
    assert detections.class_ids.tolist() == [0, 1]
    assert list(timing.spans) == ["preprocess", "inference", "postprocess"]
    assert min(timing.spans.values()) > 0
    np.testing.assert_array_equal(session.asked[0]["image"], onnx.preprocess(images[0], "nhwc_uint8")[0])
    assert session.closed


def test_letterbox_boxes_come_back_to_the_original(onnx, images, copy_of):
    letterbox = Preprocess((96, 64), mode="letterbox")
    artifact = copy_of(onnx, preprocess=letterbox.to_dict())
    image = np.ascontiguousarray(images[0][:200, :200])
    placed = letterbox.place(200, 200).to_canvas([[20, 40, 120, 160]])
    detections, _ = Runner(artifact, Fixed(artifact, placed[None], [[[0.5, 0, 0]]]))(image)
    np.testing.assert_allclose(detections.boxes, [[20, 40, 120, 160]], atol=1e-3)


def test_the_threshold_can_be_replaced(onnx, images):
    session = Fixed(onnx, BOXES, SCORES)
    assert len(Runner(onnx, session, score_threshold=0.5)(images[0])[0]) == 1
    assert len(Runner(onnx, session, score_threshold=0.001)(images[0])[0]) == 3


def test_the_manifest_decides_the_postprocess_and_a_checkpoint_leaves_it_to_its_session(onnx, checkpoint):
    assert Runner(onnx, Fixed(onnx, BOXES, SCORES)).postprocess == Postprocess.from_dict(onnx.manifest["postprocess"])
    session = Fixed(checkpoint, BOXES, SCORES)
    session.postprocess = {"nms": "classwise", "top_k": 7}
    assert Runner(checkpoint, session).postprocess == Postprocess(nms="classwise", top_k=7)


def test_a_wrong_postprocess_is_told(onnx, copy_of):
    for wrong in ({"nms": "hard"}, {"topk": 3}, {"top_k": "many"}, {"top_k": float("inf")}):
        artifact = copy_of(onnx, postprocess=wrong)
        with pytest.raises(ArtifactError, match="the manifest's postprocess is wrong"):
            Runner(artifact, Fixed(artifact, BOXES, SCORES))


@pytest.mark.parametrize("names", [["bus", "van"], ["car", "bus", "van", "tram"]])
def test_classes_that_the_network_does_not_have_are_told(names, onnx, images, copy_of):
    """One name fewer, and every box would be called by its neighbour's."""
    wrong = copy_of(onnx, classes=names, category_ids=None)
    with open_runner(wrong.path) as runner, pytest.raises(BadInput, match=f"scores 3 classes, .* names {len(names)}"):
        runner(images[0])


@pytest.mark.parametrize(
    ("boxes", "scores", "message"),
    [
        (
            BOXES,
            np.zeros((1, 2, 4)),
            r"gives boxes \(1, 2, 4\) and scores \(1, 2, 4\); needed \[N, A, 4\] and \[N, A, 3\]",
        ),
        (np.zeros((1, 2, 5)), SCORES, r"gives boxes \(1, 2, 5\)"),
        (np.zeros((2, 4)), SCORES, r"gives boxes \(2, 4\)"),
        (BOXES, np.zeros((1, 3, 3)), "needed"),
        (np.full((1, 2, 4), np.nan), SCORES, "NaN or infinite"),
        (BOXES, np.full((1, 2, 3), np.inf), "NaN or infinite"),
    ],
)
def test_check_refuses_what_breaks_the_contract(boxes, scores, message, onnx, images):
    runner = Runner(onnx, Fixed(onnx, boxes, scores))
    with pytest.raises(BadInput, match=message):
        runner.check(images[0])


@pytest.mark.parametrize("runtime", ["onnxruntime", "openvino", "pytorch"])
def test_every_runtime_sees_the_same(runtime, onnx, checkpoint, images):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    path = checkpoint.path if runtime == "pytorch" else onnx.path
    with open_runner(onnx.path) as reference, open_runner(path, runtime) as runner:
        runner.check(images[0])
        results = [runner(image)[0] for image in images]  # kept while the session's memory is used again
        for image, found in zip(images, results, strict=True):
            expected, _ = reference(image)
            assert len(found) == len(expected) > 10
            np.testing.assert_allclose(found.scores, expected.scores, atol=1e-4)
            np.testing.assert_allclose(found.boxes, expected.boxes, atol=0.1)
            np.testing.assert_array_equal(found.class_ids, expected.class_ids)


@pytest.mark.parametrize("name", ["boxes", "scores"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_an_output_that_is_not_finite_is_told_for_any_image(name, wrong, onnx, images):
    session = Fixed(onnx, BOXES, SCORES)
    runner = Runner(onnx, session)
    runner(images[0])
    session.answer[name][0, 0, 1] = wrong
    for run in (lambda: runner(images[1]), lambda: runner.many([images[1]])):
        with pytest.raises(BadInput, match="the network gives NaN or infinite boxes or scores"):
            run()
