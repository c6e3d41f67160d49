"""ThunderNet: exact counts and the way of a two-stage detector to ONNX."""

from __future__ import annotations

import pytest
import torch

from edgekit.models import zoo
from edgekit.runtime.errors import BadConfig

from .conformance import exported, macs, parameters

ALIGN = 7 * 200 * 20 * (5 * 7 * 20)  # products of the region pooling, which the paper does not count

# SNet, repeats, classes -> parameters, MACs at 320x320 without the region pooling
COUNTS = [
    (49, None, 80, 1_154_199, 263_456_240),
    (49, None, 20, 1_092_699, 251_168_240),
    (146, None, 80, 1_878_519, 502_282_560),
    (146, (4, 8, 2), 80, 1_583_367, 473_084_160),
    (146, (4, 8, 2), 20, 1_521_867, 460_796_160),
    (535, None, 80, 4_661_115, 1_299_261_040),
    (535, None, 20, 4_599_615, 1_286_973_040),
]


@pytest.mark.parametrize(("version", "repeats", "classes", "weights", "products"), COUNTS)
def test_counts(version, repeats, classes, weights, products):
    with torch.device("meta"):
        detector = zoo.build("thundernet", classes, {"snet_version": version, "repeats": repeats})
    assert parameters(detector) == weights
    assert macs(detector, (320, 320)) - ALIGN == products


def test_shapes_of_both_stages():
    torch.manual_seed(0)
    detector = zoo.build("thundernet", 3, {"size": (96, 64), "proposals": 20, "candidates": 100}).eval()
    with torch.inference_mode():
        maps = detector(torch.zeros(2, 3, 64, 96))
        boxes, scores = detector.detect(torch.zeros(2, 3, 64, 96))
    assert maps.rpn.location.shape == (2, 4 * 6 * 25, 4)
    assert maps.proposals.shape == maps.location.shape == boxes.shape == (2, 20, 4)
    assert maps.confidence.shape == (2, 20, 4)
    assert scores.shape == (2, 20, 3)


def test_training_reaches_both_stages_but_not_through_the_proposals():
    torch.manual_seed(0)
    detector = zoo.build("thundernet", 3, {"size": (64, 64), "proposals": 10, "candidates": 50})
    maps = detector(torch.randn(2, 3, 64, 64))
    assert not maps.proposals.requires_grad
    (maps.location.sum() + maps.confidence.sum()).backward()
    assert detector.head.hidden[0].weight.grad is not None
    assert detector.attention.gate[0].weight.grad is not None
    assert detector.rpn.location.weight.grad is None


def test_onnx_sees_the_same_boxes(tmp_path):
    torch.manual_seed(0)
    options = {"size": (96, 96), "proposals": 40, "candidates": 200}
    detector = zoo.build("thundernet", 3, options)
    comparison, operators = exported(detector, options["size"], tmp_path)
    assert comparison.same, str(comparison)
    assert comparison.boxes == 40
    assert not {"RoiAlign", "NonMaxSuppression", "NonZero", "Loop", "Einsum", "Trilu", "CumSum"} & set(operators)


def test_unknown_snet():
    with pytest.raises(BadConfig, match="snet_version: expected one of 49, 146, 535, got 50"):
        zoo.build("thundernet", 3, {"snet_version": 50})
