"""decode_anchor_maps against a loop over the anchors, and through ONNX."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgekit.models.anchors import AnchorMaps, grid_anchors
from edgekit.models.heads.anchor import decode_anchor_maps


def some_maps(images: int = 2, classes: int = 3, own_anchors: bool = False) -> AnchorMaps:
    generator = torch.Generator().manual_seed(0)
    anchors = grid_anchors((3, 4), (16.0, 16.0), [(20, 20), (30, 15)])
    count = len(anchors)
    location = torch.randn(images, count, 4, generator=generator)
    confidence = 2 * torch.randn(images, count, classes + 1, generator=generator)
    if own_anchors:
        anchors = anchors + torch.rand(images, count, 4, generator=generator)
    return AnchorMaps(location, confidence, anchors, ())


def by_hand(maps: AnchorMaps, image: int, anchor: int) -> tuple[list[float], list[float]]:
    """One anchor's box and scores, from SSD's formulas written out."""
    own = maps.anchors[image, anchor] if maps.anchors.ndim == 3 else maps.anchors[anchor]
    cx, cy, w, h = own.tolist()
    dx, dy, dw, dh = maps.location[image, anchor].tolist()
    x, y = cx + 0.1 * dx * w, cy + 0.1 * dy * h
    half = (w * math.exp(0.2 * dw) / 2, h * math.exp(0.2 * dh) / 2)
    powers = [math.exp(v) for v in maps.confidence[image, anchor].tolist()]
    return [x - half[0], y - half[1], x + half[0], y + half[1]], [p / sum(powers) for p in powers[1:]]


@pytest.mark.parametrize("own_anchors", [False, True])
@pytest.mark.parametrize("top_k", [None, 24, 1000])
def test_all_anchors_in_their_order(own_anchors, top_k):
    maps = some_maps(own_anchors=own_anchors)
    boxes, scores = decode_anchor_maps(maps, top_k)
    assert boxes.shape == (2, 24, 4)
    assert scores.shape == (2, 24, 3)
    for image in range(2):
        for anchor in range(24):
            box, score = by_hand(maps, image, anchor)
            assert boxes[image, anchor].tolist() == pytest.approx(box, abs=1e-4)
            assert scores[image, anchor].tolist() == pytest.approx(score, abs=1e-6)


@pytest.mark.parametrize("own_anchors", [False, True])
def test_top_k_keeps_the_best_of_any_class(own_anchors):
    maps = some_maps(own_anchors=own_anchors)
    boxes, scores = decode_anchor_maps(maps, 5)
    for image in range(2):
        every = [by_hand(maps, image, anchor) for anchor in range(24)]
        best = sorted(every, key=lambda found: -max(found[1]))[:5]
        np.testing.assert_allclose(boxes[image].numpy(), [box for box, _ in best], atol=1e-4)
        np.testing.assert_allclose(scores[image].numpy(), [score for _, score in best], atol=1e-6)


def test_sigmoid_leaves_the_background_out():
    maps = some_maps()
    _, scores = decode_anchor_maps(maps, activation="sigmoid")
    expected = 1 / (1 + np.exp(-maps.confidence[..., 1:].numpy().astype(np.float64)))
    np.testing.assert_allclose(scores.numpy(), expected, atol=1e-6)


@pytest.mark.parametrize("top_k", [0, 3841])
def test_top_k_out_of_range(top_k):
    location = torch.zeros(1, 4000, 4)
    maps = AnchorMaps(location, torch.zeros(1, 4000, 2), torch.ones(4000, 4), ())
    with pytest.raises(ValueError, match="top_k"):
        decode_anchor_maps(maps, top_k)
