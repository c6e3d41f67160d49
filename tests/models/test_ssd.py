"""Single-shot detectors: exact counts, shapes of the maps, anchors, and the way to ONNX."""

from __future__ import annotations

import pytest
import torch

from edgekit.models import ssd, zoo
from edgekit.runtime.errors import BadConfig

from .conformance import exported, macs, parameters

# name, options, classes, input -> parameters, MACs, anchors. Our own integers; the papers' are in benchmarks/papers.
COUNTS = [
    ("lightweight-ssd", {"neck": "ssd"}, 20, (300, 300), 4_158_830, 1_144_115_142, 1917),
    ("lightweight-ssd", {"neck": "fpn"}, 20, (300, 300), 4_591_491, 1_938_577_958, 11634),
    ("lightweight-ssd", {"neck": "cfpn"}, 20, (300, 300), 4_859_779, 2_098_643_238, 11634),
    ("lightweight-ssd", {"neck": "ssd", "s96": 2}, 20, (300, 300), 4_158_830, 927_820_210, 540),
    ("lightweight-ssd", {"neck": "cfpn", "s96": 2}, 20, (300, 300), 4_503_171, 1_895_941_426, 11634),
    ("mobilenet-ssd", {"backbone": "mobilenet-v1"}, 90, (300, 300), 6_819_839, 1_237_129_408, 1917),
    ("mobilenet-ssd", {"backbone": "mobilenet-v2"}, 90, (300, 300), 6_066_431, 772_779_056, 1917),
    ("mobilenet-ssd", {"backbone": "mobilenet-v1", "lite": True}, 80, (320, 320), 5_100_661, 1_309_162_944, 2034),
    ("mobilenet-ssd", {"backbone": "mobilenet-v2", "lite": True}, 80, (320, 320), 4_337_013, 788_830_144, 2034),
    ("mobilenet-ssd", {"backbone": "mobilenet-v3-large", "lite": True}, 90, (320, 320), 5_006_735, 613_143_104, 2034),
    (
        *("mobilenet-ssd", {"backbone": "mobilenet-v2", "reduce_lowest": False}, 90),
        *((300, 300), 6_230_876, 832_040_816, 3000),
    ),
    ("mobilenet-fpn", {}, 20, (300, 300), 6_608_366, 2_364_846_064, 11634),
    ("fpnlite", {"width": 64}, 80, (320, 320), 2_388_926, 746_634_368, 12804),
    ("fpnlite", {"width": 128}, 80, (320, 320), 2_619_006, 968_645_376, 12804),
    ("pelee", {}, 20, (304, 304), 5_425_892, 1_204_968_960, 5142),
    ("pelee", {}, 80, (304, 304), 5_981_012, 1_283_950_080, 5142),
    ("tiny-dsod", {}, 20, (300, 300), 926_650, 1_105_660_040, 8744),
    ("tiny-dsod", {"pointwise": 2}, 20, (300, 300), 943_034, 1_111_574_664, 8744),
    ("tiny-dsod", {}, 80, (300, 300), 1_176_850, 1_177_535_720, 8744),
    ("ssd", {}, 20, (320, 320), 7_861_721, 900_044_032, 2034),
    ("ssd", {"backbone": "peleenet", "neck": "fpn"}, 20, (320, 320), 4_548_686, 2_092_392_960, 12804),
    (
        "ssd",
        {"backbone": "shufflenet-v2", "neck": "cfpn", "predictor": "ssdlite"},
        20,
        (320, 320),
        2_439_890,
        803_165_792,
        12804,
    ),
]


@pytest.mark.parametrize(
    ("name", "options", "classes", "size", "weights", "products", "anchors"), COUNTS, ids=lambda v: str(v)
)
def test_counts(name, options, classes, size, weights, products, anchors):
    with torch.device("meta"):
        detector = zoo.build(name, classes, options)
    assert parameters(detector) == weights
    assert macs(detector, size) == products
    assert len(detector.head.anchors) == anchors


def test_state_dict_holds_no_anchors():
    with torch.device("meta"):
        detector = ssd.lightweight_ssd(20, "ssd")
    assert not [name for name in detector.state_dict() if "anchors" in name]


EXPORTS = [
    ("lightweight-ssd", {"neck": "ssd", "size": (96, 96)}),
    ("lightweight-ssd", {"neck": "fpn", "size": (96, 64)}),
    ("lightweight-ssd", {"neck": "cfpn", "size": (150, 150), "candidates": 200}),  # 19, 10, 5, 3, 2: no multiples
    ("lightweight-ssd", {"neck": "cfpn", "s96": 2, "size": (64, 64)}),
    ("mobilenet-ssd", {"backbone": "mobilenet-v1", "size": (96, 96)}),
    ("mobilenet-ssd", {"backbone": "mobilenet-v2", "lite": True, "size": (96, 64)}),
    ("mobilenet-ssd", {"backbone": "mobilenet-v3-large", "lite": True, "size": (96, 96)}),
    ("mobilenet-fpn", {"size": (64, 64)}),
    ("fpnlite", {"width": 64, "size": (96, 64)}),
    ("pelee", {"size": (272, 272), "candidates": 200}),  # 17 -> 9: Caffe's pooling rounds up
    ("tiny-dsod", {"size": (96, 96)}),
    ("ssd", {"backbone": "shufflenet-v2", "neck": "cfpn", "predictor": "ssdlite", "size": (64, 64)}),
]


@pytest.mark.parametrize(("name", "options"), EXPORTS, ids=lambda v: str(v))
def test_onnx_sees_the_same_boxes(name, options, tmp_path):
    torch.manual_seed(0)
    detector = zoo.build(name, 3, options)
    comparison, operators = exported(detector, options["size"], tmp_path)
    assert comparison.same, str(comparison)
    assert comparison.boxes == options.get("candidates", len(detector.head.anchors))
    assert operators["TopK"] == ("candidates" in options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "pan"}, "expected ssd, fpn or cfpn, got 'pan'"),
        ({"s96": 3}, "s96: expected 1 or 2"),
        ({"nec": "ssd"}, "unknown nec"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(BadConfig, match=message):
        zoo.build("lightweight-ssd", 20, options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"neck": "prn"}, "neck: expected one of ssd, ssdlite, fpn, cfpn, pelee, got 'prn'"),
        ({"predictor": "5x5"}, "predictor: expected one of 1x1, 3x3, ssdlite, depthwise-last, got '5x5'"),
        ({"backbone": "vgg"}, "backbone: expected one of .*mobilenet-v2.*, got 'vgg'"),
        ({"backbone": "ddb-net", "neck": "fpn"}, "this neck reads 3 maps, the backbone makes 2"),
        ({"backbone_options": {"levels": [7]}}, "levels: expected increasing ones out of"),
    ],
)
def test_parts_that_do_not_fit_are_named(options, message):
    with pytest.raises(BadConfig, match=message):
        zoo.build("ssd", 20, options)


def test_an_input_that_is_too_small_is_named():
    with pytest.raises(BadConfig, match="size: the network cannot work on 64x64 pixels"):
        zoo.build("pelee", 20, {"size": (64, 64)})


def test_quantization_leaves_the_predictors_last_convolution_in_float():
    with torch.device("meta"):
        dense = ssd.lightweight_ssd(20, "ssd")
        lite = ssd.mobilenet_ssd(20, lite=True)
    assert dense.float_modules == tuple(f"head.{part}.{i}" for part in ("location", "confidence") for i in range(6))
    assert lite.float_modules == tuple(f"head.{part}.{i}.1" for part in ("location", "confidence") for i in range(6))
