"""Anchor layouts against the numbers that the papers and their code give."""

from __future__ import annotations

import pytest
import torch

from edgekit.models import layouts


def test_tensorflow_scales_and_boxes():
    layout = layouts.tensorflow_ssd((300, 300))
    assert [len(level.sizes) for level in layout] == [3, 6, 6, 6, 6, 6]
    assert layout[0].sizes[0] == pytest.approx((30, 30))
    assert layout[0].sizes[1] == pytest.approx((60 * 2**0.5, 60 / 2**0.5))
    squares = [level.sizes[0][0] / 300 for level in layout[1:]]
    assert squares == pytest.approx([0.35, 0.5, 0.65, 0.8, 0.95])
    assert layout[-1].sizes[5] == pytest.approx((300 * 0.95**0.5,) * 2)


def test_tensorflow_sizes_follow_the_shorter_side():
    wide, square = layouts.tensorflow_ssd((600, 300)), layouts.tensorflow_ssd((300, 300))
    assert wide == square


def test_ssd300_is_the_paper():
    """SSD's code: min sizes 30, 60, 111, 162, 213, 264, max sizes the next one, 315 at the end; 8732 boxes."""
    layout = layouts.ssd_paper(300, layouts.SSD300_SCALES, layouts.SSD300_RATIOS, (None,) * 6)
    assert [level.sizes[0][0] for level in layout] == pytest.approx([30, 60, 111, 162, 213, 264])
    assert layout[-1].sizes[1][0] == pytest.approx((264 * 315) ** 0.5)
    assert layout[1].sizes[4] == pytest.approx((60 * 3**0.5, 60 / 3**0.5))
    shapes = [(38, 38), (19, 19), (10, 10), (5, 5), (3, 3), (1, 1)]
    anchors = layouts.anchors_on(layout, shapes, (300, 300))
    assert anchors.shape == (8732, 4)
    assert anchors[-1, :2].tolist() == [150, 150]


def test_octaves():
    (level,) = layouts.octaves([8])
    assert level.sizes[0] == pytest.approx((32, 32))
    assert level.sizes[3] == pytest.approx((32 * 2**0.5,) * 2)
    assert level.sizes[1] == pytest.approx((32 * 2**0.5, 32 / 2**0.5))


def test_anchors_stand_in_the_middle_of_their_cells():
    layout = (layouts.AnchorLevel(((10.0, 20.0),)), layouts.AnchorLevel(((1.0, 1.0),), step=16.0))
    anchors = layouts.anchors_on(layout, [(2, 3), (1, 1)], (30, 40))
    expected = [[5, 10], [15, 10], [25, 10], [5, 30], [15, 30], [25, 30], [8, 8]]
    assert anchors[:, :2].tolist() == expected
    assert anchors[0, 2:].tolist() == [10, 20]


def test_map_shapes_leaves_the_network_as_it_was():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, 2, 1), torch.nn.BatchNorm2d(4), Twice())
    before = {name: value.clone() for name, value in network.state_dict().items()}
    assert layouts.map_shapes(network, (7, 5)) == [(3, 4), (3, 4)]
    assert network.training
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())


class Twice(torch.nn.Module):
    def forward(self, x):
        return x, x
