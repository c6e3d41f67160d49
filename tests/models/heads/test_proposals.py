"""Suppression and region pooling as matrix arithmetic, against plain loops."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from edgekit.models.anchors import AnchorMaps, grid_anchors
from edgekit.models.heads.proposals import pairwise_iou, position_sensitive_align, propose, suppress
from edgekit.runtime.postprocess import box_iou, classwise_nms


def some_boxes(count: int, seed: int, side: float = 60.0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    corner = torch.rand(count, 2, generator=generator) * side
    return torch.cat([corner, corner + 5 + torch.rand(count, 2, generator=generator) * side], dim=1)


def test_pairwise_iou_is_the_boards_iou():
    boxes = some_boxes(12, 0)
    boxes[3, 2:] = boxes[3, :2]  # an empty box
    found = pairwise_iou(boxes.unsqueeze(0))[0].numpy()
    expected = np.array([box_iou(box, boxes.numpy()) for box in boxes.numpy()])
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("threshold", [0.3, 0.7])
def test_enough_rounds_are_greedy_nms(seed, threshold):
    boxes = some_boxes(80, seed)
    scores = torch.zeros(1, 80)  # all tied: the order decides
    kept = suppress(boxes.unsqueeze(0), scores, threshold, rounds=20)[0]
    expected = classwise_nms(boxes.numpy(), np.zeros(80, int), threshold, 80)
    assert torch.nonzero(kept).flatten().tolist() == expected.tolist()


def test_a_chain_needs_its_rounds():
    """Each box overlaps the next only: greedy keeps every second one, and a round settles one link of the chain."""
    boxes = torch.tensor([[10.0 * i, 0, 10.0 * i + 20, 20] for i in range(6)]).unsqueeze(0)
    scores = torch.arange(6, 0, -1.0).unsqueeze(0)
    assert suppress(boxes, scores, 0.3, rounds=1)[0].tolist() == [1, 0, 0, 0, 0, 0]
    assert suppress(boxes, scores, 0.3, rounds=6)[0].tolist() == [1, 0, 1, 0, 1, 0]


def test_half_precision_maps_are_suppressed_in_float32():
    """Ranks of 400 boxes: bfloat16 cannot count beyond 256, so that ties were no longer decided and boxes crossed."""
    generator = torch.Generator().manual_seed(0)
    anchors = grid_anchors((10, 10), (16.0, 16.0), [(24, 24), (28, 28), (32, 32), (36, 36)])
    location = 0.1 * torch.randn(1, 400, 4, generator=generator)
    confidence = torch.randn(1, 400, 2, generator=generator)
    half = AnchorMaps(location.bfloat16(), confidence.bfloat16(), anchors, ())
    full = half._replace(location=half.location.float(), confidence=half.confidence.float())
    found, expected = (propose(maps, (160, 160), candidates=400, proposals=100) for maps in (half, full))
    torch.testing.assert_close(found, expected, rtol=0, atol=0)


def test_proposals_fill_up_with_suppressed_boxes():
    anchors = grid_anchors((2, 2), (16.0, 16.0), [(40, 40), (41, 41)])  # overlapping pairs
    confidence = torch.zeros(1, 8, 2)
    confidence[0, :, 1] = torch.tensor([8.0, 7, 6, 5, 4, 3, 2, 1])
    maps = AnchorMaps(torch.zeros(1, 8, 4), confidence, anchors, ())
    boxes = propose(maps, (32, 32), candidates=8, proposals=6, threshold=0.9)
    assert boxes.shape == (1, 6, 4)
    assert boxes.min() >= 0
    assert boxes.max() <= 32
    kept = propose(maps, (32, 32), candidates=8, proposals=8, threshold=0.9)[0]
    np.testing.assert_array_equal(boxes[0], kept[:6])


def bilinear(plane: np.ndarray, y: float, x: float) -> float:
    """One sample of a map; beyond the outermost centres the border value."""
    height, width = plane.shape
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    top, left = min(int(y), height - 2), min(int(x), width - 2)
    dy, dx = y - top, x - left
    upper = plane[top, left] * (1 - dx) + plane[top, left + 1] * dx
    lower = plane[top + 1, left] * (1 - dx) + plane[top + 1, left + 1] * dx
    return upper * (1 - dy) + lower * dy


@pytest.mark.parametrize("samples", [1, 2])
def test_align_against_a_loop(samples):
    bins, depth, stride = 3, 2, 8.0
    features = torch.randn(2, depth * bins**2, 5, 6, generator=torch.Generator().manual_seed(1))
    boxes = torch.stack([some_boxes(4, 2, 30) - 6, some_boxes(4, 3, 30)])  # some reach beyond the map
    found = position_sensitive_align(features, boxes, stride, bins, samples)
    assert found.shape == (2, 4, depth, bins, bins)
    for n, r, c, i, j in np.ndindex(2, 4, depth, bins, bins):
        x1, y1, x2, y2 = boxes[n, r].tolist()
        plane = features[n, (c * bins + i) * bins + j].numpy()
        total = 0.0
        for a, b in np.ndindex(samples, samples):
            y = y1 + (y2 - y1) * (i + (a + 0.5) / samples) / bins
            x = x1 + (x2 - x1) * (j + (b + 0.5) / samples) / bins
            total += bilinear(plane, y / stride - 0.5, x / stride - 0.5)
        assert math.isclose(found[n, r, c, i, j].item(), total / samples**2, abs_tol=1e-5)
