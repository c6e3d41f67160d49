"""CenterNet on other backbones, the baselines of Mobile CenterNet's table 2: exact counts and the way to ONNX."""

from __future__ import annotations

import pytest
import torch

from edgekit.models import zoo
from edgekit.runtime.errors import BadConfig

from .conformance import exported, macs, parameters

# options -> parameters, MACs at 576x320 with ten classes. Our own integers; the paper's are in benchmarks/papers.
COUNTS = [
    ({"backbone": "resnet-18"}, 14_432_799, 9_306_408_960),
    ({"backbone": "resnet-18", "deformable": False}, 14_214_542, 9_149_644_800),
    ({"backbone": "resnet-50"}, 30_676_511, 18_362_511_360),
    ({"backbone": "resnet-50", "deformable": False}, 30_085_006, 18_138_562_560),
    ({"backbone": "dla-34"}, 19_281_134, 19_166_607_360),
    ({"backbone": "dla-34", "deformable": False}, 18_641_406, 17_531_781_120),
]


@pytest.mark.parametrize(("options", "weights", "products"), COUNTS, ids=str)
def test_counts(options, weights, products):
    with torch.device("meta"):
        detector = zoo.build("centernet", 10, options)
        maps = detector.eval()(torch.empty(1, 3, 320, 576))
    assert parameters(detector) == weights
    assert macs(detector, (576, 320)) == products
    assert maps.heatmap.shape == (1, 10, 80, 144)


@pytest.mark.parametrize(
    "options",
    [
        {"backbone": "resnet-18"},
        {"backbone": "resnet-18", "deformable": False},
        {"backbone": "dla-34", "deformable": False},
        pytest.param({"backbone": "dla-34"}, marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_onnx_sees_the_same_boxes(options, tmp_path):
    torch.manual_seed(0)
    detector = zoo.build("centernet", 3, options)
    comparison, operators = exported(detector, (96, 64), tmp_path, top_k=30)
    assert comparison.same, str(comparison)
    assert comparison.boxes == 30
    assert "BatchNormalization" not in operators
    assert operators["ConvTranspose"] > 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"backbone": "resnet-19"}, "backbone: expected one of resnet-18, .*dla-34, got 'resnet-19'"),
        ({"lowering": "magic"}, "lowering: expected one of gather, grid-sample, deform-conv, got 'magic'"),
    ],
)
def test_wrong_options_are_named(options, message):
    with pytest.raises(BadConfig, match=message):
        zoo.build("centernet", 3, options)
