"""Every layout against a decoder in numpy: the same raw outputs, the same boxes and scores."""

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from edgekit.conversion.imports.convert import convert
from edgekit.runtime.errors import BadConfig

from . import networks as nets

NAMES = ["car", "bus", "bicycle"]
WIDTH, HEIGHT = nets.SIZE
OPTIONS = {"size": None, "priors": None, "top_k": 20}


def run(path, image):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return session.run(None, {session.get_inputs()[0].name: image})


@pytest.fixture(scope="module")
def image():
    return np.random.default_rng(1).uniform(0, 1, (1, 3, HEIGHT, WIDTH)).astype(np.float32)


def sigmoid(x):
    return 1 / (1 + np.exp(-x))


def softmax(x):
    e = np.exp(x - x.max(-1, keepdims=True))
    return e / e.sum(-1, keepdims=True)


def corners(rows):
    return np.concatenate([rows[..., :2] - rows[..., 2:] / 2, rows[..., :2] + rows[..., 2:] / 2], -1)


# -- what each layout means, in numpy ---------------------------------------------------------------------------------
def yolov5(rows):
    return corners(rows[..., :4]), rows[..., 5:] * rows[..., 4:5]


def yolov8(columns):
    return corners(columns.transpose(0, 2, 1)[..., :4]), columns.transpose(0, 2, 1)[..., 4:]


def end_to_end(rows):
    return selected(rows[..., :4], rows[..., 4], rows[..., 5])


def selected(boxes, scores, numbers):
    return boxes, np.where(numbers[..., None] == np.arange(len(NAMES)), scores[..., None], 0)


def ssd(offsets, scores, priors):
    centre = offsets[..., :2] * 0.1 * priors[:, 2:] + priors[:, :2]
    size = np.exp(offsets[..., 2:] * 0.2) * priors[:, 2:]
    return corners(np.concatenate([centre, size], -1)) * [WIDTH, HEIGHT, WIDTH, HEIGHT], softmax(scores)[..., 1:]


def detr(logits, boxes):
    return corners(boxes) * [WIDTH, HEIGHT, WIDTH, HEIGHT], softmax(logits)[..., :-1]


def rt_detr(logits, boxes):
    return corners(boxes) * [WIDTH, HEIGHT, WIDTH, HEIGHT], sigmoid(logits)


def centernet(heat, size, offset=None, activation=sigmoid):
    """One place after the other, as the paper says it."""
    heat = activation(heat)[0]
    _, height, width = heat.shape
    padded = np.pad(heat, ((0, 0), (1, 1), (1, 1)), constant_values=-1)
    around = np.stack([padded[:, y : y + height, x : x + width] for y in range(3) for x in range(3)]).max(0)
    scores = np.where(around == heat, heat, 0)
    order = np.argsort(-scores.max(0).ravel(), kind="stable")[: OPTIONS["top_k"]]
    ys, xs = np.divmod(order, width)
    boxes = []
    for y, x in zip(ys, xs, strict=True):
        dx, dy = offset[0, :, y, x] if offset is not None else (0.5, 0.5)
        w, h = size[0, :, y, x]
        boxes.append([x + dx - w / 2, y + dy - h / 2, x + dx + w / 2, y + dy + h / 2])
    return np.array(boxes)[None] * WIDTH / width, scores[:, ys, xs].T[None]


YAMLS = {
    "corners.yaml": "boxes: {output: a, format: xyxy, units: normalised}\nscores: {output: b, activation: sigmoid}\n",
    "yxyx.yaml": "boxes: {output: a, format: yxyx}\nscores: {output: b, activation: sigmoid}\n",
    "xywh.yaml": "boxes: {output: a, format: xywh}\nscores: {output: b, activation: softmax, background: last}\n",
    "pieces.yaml": (
        "boxes: {output: out, columns: [0, 4], format: cxcywh}\nobjectness: {output: out, columns: [4, 5]}\n"
        "scores: {output: out, columns: [5, 8]}\nnms: none\n"
    ),
}


class Turned(torch.nn.Module):
    """The outputs of a network in another order."""

    def __init__(self, network, order):
        super().__init__()
        self.network, self.order = network, order

    def forward(self, image):
        outputs = self.network(image)
        return tuple(outputs[i] for i in self.order)


SCALE = np.array([WIDTH, HEIGHT, WIDTH, HEIGHT])
CASES = {
    "yolov5": (nets.YoloV5, ["output0"], "yolov5", yolov5, 13),
    "yolov8": (nets.YoloV8, ["output0"], "yolov8", yolov8, 13),
    "yolo11 from opset 17": (nets.YoloV8, ["output0"], "yolo11", yolov8, 17),
    "yolov8 from opset 11": (nets.YoloV8, ["output0"], "yolov8", yolov8, 11),
    "end to end": (nets.EndToEnd, ["output0"], "end2end", end_to_end, 13),
    "selected": (nets.Selected, ["boxes", "scores", "labels"], "selected", selected, 13),
    "ssd": (nets.Ssd, ["loc", "conf", "priors"], "ssd", ssd, 13),
    "ssd after its softmax": (
        lambda: nets.Ssd(softmax=True),
        ["loc", "conf", "priors"],
        "ssd",
        lambda loc, conf, priors: (ssd(loc, conf, priors)[0], conf[..., 1:]),
        13,
    ),
    "centernet": (nets.CenterNet, ["hm", "wh", "reg"], "centernet", centernet, 13),
    "centernet in another order": (nets.CenterNet, ["heat", "size", "off"], "centernet", centernet, 18),
    "centernet whose offsets are called after the centre": (
        lambda: Turned(nets.CenterNet(), (2, 1, 0)),
        ["center_offset", "size", "heatmap"],
        "centernet",
        lambda offset, size, heat: centernet(heat, size, offset),
        13,
    ),
    "centernet after its sigmoid": (
        lambda: nets.CenterNet(sigmoid=True),
        ["hm", "wh", "reg"],
        "centernet",
        lambda *maps: centernet(*maps, activation=lambda x: x),
        13,
    ),
    "centernet without offsets": (lambda: nets.CenterNet(offset=False), ["hm", "wh"], "centernet", centernet, 13),
    "detr": (nets.Detr, ["logits", "pred_boxes"], "detr", detr, 13),
    "rt-detr": (lambda: nets.Detr(extra=0), ["logits", "boxes"], "rt-detr", rt_detr, 13),
    "corners": (
        lambda: nets.Detr(extra=0),
        ["b", "a"],
        "corners.yaml",
        lambda scores, boxes: (boxes * SCALE, sigmoid(scores)),
        13,
    ),
    "yxyx": (
        lambda: nets.Detr(extra=0),
        ["b", "a"],
        "yxyx.yaml",
        lambda scores, boxes: (boxes[..., [1, 0, 3, 2]], sigmoid(scores)),
        13,
    ),
    "xywh": (
        nets.Detr,
        ["b", "a"],
        "xywh.yaml",
        lambda scores, boxes: (
            np.concatenate([boxes[..., :2], boxes[..., :2] + boxes[..., 2:]], -1),
            softmax(scores)[..., :-1],
        ),
        13,
    ),
    "pieces": (nets.YoloV5, ["out"], "pieces.yaml", yolov5, 13),
}


@pytest.mark.parametrize("name", CASES)
def test_the_decode_is_numpys(name, image, tmp_path):
    network, outputs, layout, decode, opset = CASES[name]
    source = nets.export(network(), tmp_path / "foreign.onnx", outputs, opset)
    if layout in YAMLS:
        (tmp_path / layout).write_text(YAMLS[layout])
        layout = str(tmp_path / layout)
    found = convert(str(source), str(tmp_path / "made.onnx"), layout, NAMES, OPTIONS)
    boxes, scores = run(tmp_path / "made.onnx", image)
    wanted_boxes, wanted_scores = decode(*run(source, image))
    order = _order(scores, wanted_scores)
    np.testing.assert_allclose(scores, wanted_scores[:, order], rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(boxes, wanted_boxes[:, order], rtol=1e-4, atol=1e-3)
    assert boxes.shape == (1, scores.shape[1], 4)
    assert scores.shape[2] == len(NAMES)
    assert found["classes"] == NAMES
    assert found["notes"] == []
    made = onnx.load(tmp_path / "made.onnx")
    assert made.opset_import[0].version == 13
    assert [v.name for v in made.graph.input] == ["image"]
    assert [v.name for v in made.graph.output] == ["boxes", "scores"]


def _order(scores, wanted):
    """Equal peaks may come in another order; rows are compared best first in both."""
    if scores.shape[1] != OPTIONS["top_k"]:
        return np.arange(scores.shape[1])
    return np.argsort(-wanted[0].max(1), kind="stable")


def test_ssd_with_priors_from_a_file(image, tmp_path):
    network = nets.Ssd(priors=False)
    source = nets.export(network, tmp_path / "foreign.onnx", ["loc", "conf"])
    np.save(tmp_path / "priors.npy", network.table.numpy())
    options = {**OPTIONS, "priors": str(tmp_path / "priors.npy")}
    convert(str(source), str(tmp_path / "made.onnx"), "ssd", NAMES, options)
    boxes, scores = run(tmp_path / "made.onnx", image)
    wanted_boxes, wanted_scores = ssd(*run(source, image), network.table.numpy())
    np.testing.assert_allclose(scores, wanted_scores, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(boxes, wanted_boxes, rtol=1e-4, atol=1e-3)


def test_dynamic_axes_are_fixed_to_the_size_that_is_asked_for(image, tmp_path):
    axes = {"images": {0: "n", 2: "h", 3: "w"}, "output0": {0: "n", 2: "a"}}
    source = nets.export(nets.YoloV8(), tmp_path / "foreign.onnx", ["output0"], 17, axes)
    with pytest.raises(BadConfig, match=r"'images' is \[n, 3, h, w\]: give the size: --size WIDTHxHEIGHT"):
        convert(str(source), str(tmp_path / "made.onnx"), "yolov8", NAMES, OPTIONS)
    convert(str(source), str(tmp_path / "made.onnx"), "yolov8", NAMES, {**OPTIONS, "size": nets.SIZE})
    boxes, scores = run(tmp_path / "made.onnx", image)
    wanted = yolov8(*run(source, image))
    np.testing.assert_allclose(boxes, wanted[0], rtol=1e-4, atol=1e-3)
    np.testing.assert_allclose(scores, wanted[1], rtol=1e-4, atol=1e-5)
    shape = [d.dim_value for d in onnx.load(tmp_path / "made.onnx").graph.output[0].type.tensor_type.shape.dim]
    assert shape == [1, nets.ANCHORS, 4]
