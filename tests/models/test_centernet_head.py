"""Peaks and decoding on maps made by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekit.models.heads.centernet import CenterMaps, decode, peaks


def maps(heatmap: Tensor, size: Tensor | None = None, offset: Tensor | None = None) -> CenterMaps:
    shape = (heatmap.shape[0], 2, *heatmap.shape[2:])
    return CenterMaps(
        heatmap,
        torch.zeros(shape) if size is None else size,
        torch.zeros(shape) if offset is None else offset,
        torch.zeros(shape),
    )


def test_a_known_peak_gives_a_known_box() -> None:
    heatmap = torch.full((1, 2, 4, 6), -10.0)
    size, offset = torch.rand(1, 2, 4, 6), torch.rand(1, 2, 4, 6)  # what other pixels say must not matter
    heatmap[0, 1, 2, 3] = 4.0  # class 1 at row 2, column 3
    size[0, :, 2, 3] = torch.tensor([2.0, 1.5])  # width, height in strides
    offset[0, :, 2, 3] = torch.tensor([0.25, 0.5])  # x, y
    boxes, scores = decode(maps(heatmap, size, offset), stride=4, top_k=1)
    # centre (3.25, 2.5) * 4 = (13, 10), half size (4, 3)
    assert boxes.tolist() == [[[9.0, 7.0, 17.0, 13.0]]]
    assert scores[0, 0, 1] == pytest.approx(1 / (1 + math.exp(-4)))
    assert scores[0, 0, 0] == pytest.approx(1 / (1 + math.exp(10)))  # its plateau: equal neighbours are all peaks


def test_each_image_has_its_own_boxes() -> None:
    heatmap = torch.full((2, 1, 3, 5), -9.0)
    heatmap[0, 0, 0, 4] = 1.0
    heatmap[1, 0, 2, 0] = 2.0
    boxes, scores = decode(maps(heatmap), stride=4, top_k=1)
    assert boxes.tolist() == [[[16.0, 0.0, 16.0, 0.0]], [[0.0, 8.0, 0.0, 8.0]]]
    assert scores.flatten().tolist() == pytest.approx([torch.tensor(v).sigmoid().item() for v in (1.0, 2.0)])


def test_two_classes_may_peak_at_one_pixel() -> None:
    heatmap = torch.full((1, 3, 3, 3), -9.0)
    heatmap[0, 0, 1, 1], heatmap[0, 2, 1, 1] = 1.0, 2.0
    heatmap[0, 1, 1, 0] = 5.0  # class 1 peaks beside it, and suppresses no other class
    boxes, scores = decode(maps(heatmap), stride=1, top_k=2)
    assert boxes[0, :, :2].tolist() == [[0.0, 1.0], [1.0, 1.0]]
    expected = torch.tensor([[-9.0, 5.0, -9.0], [1.0, -9.0, 2.0]]).sigmoid()
    expected[0, [0, 2]] = expected[1, 1] = 0  # beside a higher value of that class: no peak
    torch.testing.assert_close(scores[0], expected)


def test_the_best_pairs_of_class_and_pixel_are_among_the_boxes() -> None:
    """Choosing pixels and not (class, pixel) pairs loses none of the K best pairs, which CenterNet's decoding takes."""
    torch.manual_seed(0)
    heatmap = torch.randn(3, 4, 12, 16)
    k = 15
    wanted = peaks(heatmap.sigmoid()).flatten(1).topk(k).values
    _, scores = decode(maps(heatmap), stride=4, top_k=k)
    torch.testing.assert_close(scores.flatten(1).topk(k).values, wanted)


def row_of_peaks(values: list[float]) -> list[float]:
    """What ``peaks`` leaves of one row."""
    result: list[float] = peaks(torch.tensor(values).view(1, 1, 1, -1)).flatten().tolist()
    return result


@pytest.mark.parametrize(
    ("values", "left"),
    [
        ([0.25, 0.5, 0.25], [0, 0.5, 0]),
        ([0.5, 0.25, 0.125], [0.5, 0, 0]),  # at the border
        ([0.125, 0.25, 0.5], [0, 0, 0.5]),
        ([0.5, 0.25, 0.5], [0.5, 0, 0.5]),  # two, one pixel apart
        ([0.5, 0.5, 0.25], [0.5, 0.5, 0]),  # a tie: both stay
        ([0.0, 0.0, 0.0], [0, 0, 0]),
    ],
)
def test_peaks_of_a_row(values: list[float], left: list[float]) -> None:
    assert row_of_peaks(values) == left


def test_peaks_look_at_diagonals_and_at_one_class_only() -> None:
    heatmap = torch.zeros(1, 2, 3, 3)
    heatmap[0, 0, 0, 0], heatmap[0, 0, 1, 1], heatmap[0, 1, 0, 1] = 0.5, 0.75, 0.25
    assert peaks(heatmap).nonzero().tolist() == [[0, 0, 1, 1], [0, 1, 0, 1]]
