"""YOLO: the decode against a loop over cells, the necks against the paper's figures, and the way to ONNX."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn

from edgekit.models.heads.yolo import ANCHORS, AnchorSet, YOLOHead, YOLOMaps, anchor_set
from edgekit.models.necks.efm import CEM, EFM, GFM
from edgekit.models.necks.parts import SAM, SPP, Maxout
from edgekit.models.necks.prn import PRN
from edgekit.models.yolo import NECKS, YOLO
from edgekit.models.zoo import build
from edgekit.runtime.errors import BadConfig

from .conformance import exported

SMALL = AnchorSet(((10, 14), (23, 27), (37, 58)), ((0, 1), (1, 2)))


def sigmoid(value: float) -> float:
    return 1 / (1 + math.exp(-value))


def decoded_one_by_one(head: YOLOHead, maps: YOLOMaps, image: int) -> list[tuple[list[float], list[float]]]:
    """YOLOv3, section 2.1, with a loop over scales, rows, columns and anchors."""
    found = []
    for level, prediction in enumerate(x.detach() for x in maps.predictions):
        _, _, height, width = prediction.shape
        stride, scale = head.strides[level], head.scale_x_y[level]
        for row in range(height):
            for column in range(width):
                for index, (anchor_width, anchor_height) in enumerate(head.anchors.level(level)):
                    start = index * (5 + head.classes)
                    x, y, w, h, objectness, *classes = prediction[image, start : start + 5 + head.classes, row, column]
                    cx = (sigmoid(x) * scale - (scale - 1) / 2 + column) * stride
                    cy = (sigmoid(y) * scale - (scale - 1) / 2 + row) * stride
                    w, h = anchor_width * math.exp(w), anchor_height * math.exp(h)
                    scores = [sigmoid(objectness) * sigmoid(c) for c in classes]
                    found.append(([cx - w / 2, cy - h / 2, cx + w / 2, cy + h / 2], scores))
    return found


def head_and_maps(scale_x_y=(1.0, 1.0), classes=3, images=2):
    torch.manual_seed(0)
    head = YOLOHead((4, 6), (16, 32), classes, SMALL, scale_x_y)
    return head, head((torch.randn(images, 4, 4, 6), torch.randn(images, 6, 2, 3)))


@pytest.mark.parametrize("scale_x_y", [(1.0, 1.0), (1.2, 1.05)])
def test_decode_agrees_with_a_loop_over_cells(scale_x_y):
    head, maps = head_and_maps(scale_x_y)
    boxes, scores = head.decode(maps)
    assert (boxes.shape, scores.shape) == ((2, 60, 4), (2, 60, 3))
    for image in range(2):
        expected = decoded_one_by_one(head, maps, image)
        torch.testing.assert_close(boxes[image], torch.tensor([box for box, _ in expected]), atol=1e-4, rtol=1e-5)
        torch.testing.assert_close(scores[image], torch.tensor([score for _, score in expected]))


def test_an_empty_prediction_is_the_anchor_in_the_middle_of_its_cell():
    head = YOLOHead((1,), (16,), 1, AnchorSet(((10, 20),), ((0,),)), (1.0,))
    boxes, scores = head.decode(YOLOMaps((torch.zeros(1, 6, 2, 3),), ()))
    assert boxes[0, 4].tolist() == [19.0, 14.0, 29.0, 34.0]  # row 1, column 1: centre (24, 24)
    assert scores[0].unique().tolist() == [0.25]


def test_the_best_anchors_leave_first():
    head, maps = head_and_maps()
    every_box, every_score = head.decode(maps)
    boxes, scores = head.decode(maps, 7)
    for image in range(2):
        best = every_score[image].amax(1).argsort(descending=True)[:7]
        torch.testing.assert_close(boxes[image], every_box[image][best])
        torch.testing.assert_close(scores[image], every_score[image][best])
    assert torch.equal(head.decode(maps, 60)[0], every_box)


def test_decode_can_be_trained_through():
    head, maps = head_and_maps()
    boxes, scores = head.decode(maps)
    (boxes.mean() + scores.mean()).backward()
    assert all(p.weight.grad.abs().sum() > 0 for p in head.predictors)


def test_tiny_leaves_its_smallest_anchor_out_as_its_cfg_does():
    tiny = ANCHORS["yolov3-tiny"]
    assert tiny.level(0) == ((23, 27), (37, 58), (81, 82))
    assert tiny.level(1) == ((81, 82), (135, 169), (344, 319))


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("yolov4", "expected one of yolov3, yolov3-tiny or boxes and masks, got 'yolov4'"),
        ({"boxes": [[1, 2]]}, "expected boxes and masks, got boxes"),
        ({"boxes": [[1, 2]], "masks": [[1]]}, "masks must be equally long and name boxes 0..0"),
        ({"boxes": [[1, 2]], "masks": [[0], [0, 0]]}, "masks must be equally long"),
    ],
)
def test_wrong_anchors_are_named(value, message):
    with pytest.raises(ValueError, match=message):
        anchor_set(value)


def test_anchors_of_a_recipe():
    detector = build(
        "yolo", 2, {"backbone": "darknet-tiny", "neck": "prn", "anchors": {"boxes": [[8, 9]], "masks": [[0], [0]]}}
    )
    assert detector.head.anchors == AnchorSet(((8.0, 9.0),), ((0,), (0,)))
    assert [p.out_channels for p in detector.head.predictors] == [7, 7]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "darknet"}, "backbone: expected one of .*, got 'darknet'"),
        ({"neck": "fpn"}, "neck: expected one of yolov3, .*, got 'fpn'"),
        (
            {"backbone": "snet", "backbone_options": {"levels": [16, 32]}},
            r"needs maps at strides 8, 16 and 32, snet gives \(16, 32\)",
        ),
        ({"neck": "prn", "anchors": "yolov3", "backbone": "darknet-tiny"}, "the neck gives 2 maps, there are 3 masks"),
        (
            {"backbone": "darknet-tiny", "neck": "efm", "neck_options": {"sma": True}},
            "unknown sma; efm takes: activation, sam, spp",
        ),
        ({"backbone_options": {"gamma": 0.5}}, "unknown gamma; darknet-53 takes: none"),
        (
            {"backbone": "peleenet", "backbone_options": {"gamma:2": None}},
            "unknown gamma:2; peleenet takes: activation",
        ),
        ({"backbone": "darknet-tiny", "neck": "prn", "neck_options": {"levels": 4}}, "levels: expected 2 or 3, got 4"),
        ({"bacbone": "darknet-tiny"}, "unknown bacbone; yolo takes: backbone, neck"),
    ],
)
def test_wrong_options_are_named(options, message):
    with torch.device("meta"), pytest.raises(BadConfig, match=message):
        build("yolo", 80, options)


# -- parts ------------------------------------------------------------------------------------------------------------
def test_maxout_takes_the_best_of_each_group_of_channels():
    x = torch.tensor([1.0, -2.0, 3.0, 0.0, 5.0, -1.0]).view(1, 6, 1, 1)
    assert Maxout(6, 2)(x).flatten().tolist() == [5.0, 0.0]  # channels 0, 2, 4 and 1, 3, 5
    with pytest.raises(ValueError, match="6 channels do not divide into groups for 4"):
        Maxout(6, 4)


def test_sam_scales_every_value_by_its_own_gate():
    sam = SAM(2).eval()
    with torch.no_grad():
        sam.gate[0].weight.copy_(torch.eye(2).view(2, 2, 1, 1))
        x = torch.tensor([2.0, -1.0]).view(1, 2, 1, 1)
        out = sam(x).flatten()
    torch.testing.assert_close(out, torch.tensor([2 * sigmoid(2.0), -sigmoid(-1.0)]), atol=1e-4, rtol=1e-4)


def test_spp_sees_5_9_and_13_cells():
    x = torch.zeros(1, 1, 15, 15)
    x[0, 0, 7, 7] = 1
    assert [int(part.sum()) for part in SPP()(x)[0]] == [25, 81, 169, 1]


WIDTHS = (192, 384, 704)  # CSPPeleeNet


def maps_of(widths=WIDTHS, size=64):
    torch.manual_seed(0)
    return [torch.randn(1, w, size // s, size // s) for w, s in zip(widths, (8, 16, 32), strict=True)]


@pytest.mark.parametrize("name", NECKS)
def test_maps_are_what_the_neck_announces(name):
    with torch.device("meta"):
        neck = NECKS[name](WIDTHS)
        maps = neck(tuple(torch.empty(2, w, 96 // s, 160 // s) for w, s in zip(WIDTHS, (8, 16, 32), strict=True)))
    shapes = [(2, w, 96 // s, 160 // s) for w, s in zip(neck.channels, neck.strides, strict=True)]
    assert [tuple(x.shape) for x in maps] == shapes


# Which maps of the backbone (rows: strides 8, 16, 32) each output sees: figure 6.
SEES = [
    (EFM, [[1, 1, 0], [1, 1, 1], [0, 1, 1]]),
    (GFM, [[1, 1, 1]] * 3),
    (CEM, [[1, 1, 1]] * 3),
]


@pytest.mark.parametrize(("neck", "expected"), SEES, ids=lambda v: getattr(v, "__name__", ""))
def test_scales_that_meet(neck, expected):
    torch.manual_seed(0)
    network = neck((8, 8, 8)).eval()
    with torch.no_grad():
        maps = maps_of((8, 8, 8))
        before = network(tuple(maps))
        seen = []
        for i, x in enumerate(maps):
            changed = network(tuple(x + 1 if i == j else y for j, y in enumerate(maps)))
            seen.append([int(not torch.equal(a, b)) for a, b in zip(before, changed, strict=True)])
    assert [list(column) for column in zip(*seen, strict=True)] == expected


def test_prn_follows_its_published_cfg():
    """Layers 14 to 26 of yolov3-tiny-prn.cfg, written down one by one; shortcuts add what both maps have."""
    torch.manual_seed(0)
    neck = PRN((16, 192, 32)).eval()
    c3, c4, c5 = maps_of((16, 192, 32))
    act = nn.LeakyReLU(0.1)
    level = neck.levels[0]
    with torch.no_grad():
        out16, out32 = neck((c3, c4, c5))
        layer14 = neck.reduce(c5)
        layer15 = neck.body(layer14)
        layer16 = act(layer15 + layer14)
        layer20 = level.reduce[0](layer15)
        layer21 = nn.functional.interpolate(layer20, scale_factor=2, mode="nearest")
        layer22 = act(layer21 + c4[:, :128])
        layer23 = level.body(layer22)
        layer24 = act(layer23 + layer21)
        layer25 = act(layer24 + c4[:, :128])
    torch.testing.assert_close(out32, layer16)
    torch.testing.assert_close(out16, layer25)


# -- the way to the board ---------------------------------------------------------------------------------------------
TINY = "darknet-tiny"
LIGHT = "cspdensenet-reference"
EXPORTS = [
    (TINY, "yolov3-tiny", {}, {}, {}),
    (TINY, "prn", {"prn": True}, {}, {"candidates": 50}),
    (LIGHT, "prn", {"b": True}, {"levels": 3}, {}),
    (LIGHT, "efm", {"activation": "swish", "se": True}, {"sam": True}, {"scale_x_y": [1.2, 1.1, 1.05]}),
    (LIGHT, "efm", {}, {"spp": True, "activation": "swish"}, {}),
    (LIGHT, "gfm", {}, {}, {}),
    (LIGHT, "cem", {}, {"sam": True}, {}),
    ("peleenet", "prn", {}, {}, {}),
    ("csppeleenet", "efm", {"gamma": 0.25, "reading": "table-1"}, {"sam": True}, {}),
    ("csppeleenet-reference", "prn", {}, {}, {}),
    ("resnet-10", "prn", {}, {}, {}),
    ("cspresnet-10", "prn", {}, {}, {}),
]
SLOW_EXPORTS = [
    ("cspresnext-50", "panet", {}, {}, {}),
    ("darknet-53", "yolov3", {}, {"spp": True}, {"candidates": 100}),
]


@pytest.mark.parametrize(
    ("backbone", "neck", "backbone_options", "neck_options", "options"),
    [*EXPORTS, *(pytest.param(*case, marks=pytest.mark.slow) for case in SLOW_EXPORTS)],
    ids=str,
)
def test_onnx_sees_the_same_boxes(backbone, neck, backbone_options, neck_options, options, tmp_path):
    torch.manual_seed(0)
    detector = YOLO(3, backbone, neck, backbone_options, neck_options, **options)
    comparison, operators = exported(detector, (96, 64), tmp_path, top_k=20)
    assert comparison.same, str(comparison)
    cells = sum(96 * 64 // stride**2 for stride in detector.head.strides)
    assert comparison.boxes == options.get("candidates", 3 * cells)
    assert operators["TopK"] == ("candidates" in options)


def test_quantization_leaves_the_predictors_in_float():
    with torch.device("meta"):
        detector = YOLO(3, TINY, "prn")
    names = [name for name, module in detector.named_modules() if isinstance(module, nn.Conv2d)]
    kept = [name for name in names if any(name.startswith(prefix) for prefix in detector.float_modules)]
    assert kept == ["head.predictors.0", "head.predictors.1"]
    assert detector.nms == "classwise"
