"""Targets against values worked out by hand."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgekit.training.targets import CenterTargets, batch_targets, center_targets, draw_gaussian, gaussian_radius


def targets(
    boxes: list[list[float]], labels: list[int], ignore: list[bool] | None = None, classes: int = 2
) -> CenterTargets:
    """Of a 64x32 input: a map of 16x8 pixels."""
    return center_targets(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.array(labels, np.int64),
        np.array(ignore or [False] * len(boxes), bool),
        classes,
        (64, 32),
    )


# -- the radius -------------------------------------------------------------------------------------------------------
def iou_after(height: float, width: float, moves: Sequence[float]) -> float:
    """IoU of a box at the origin and the one whose sides moved by (left, top, right, bottom)."""
    left, top, right, bottom = moves[0], moves[1], width + moves[2], height + moves[3]
    inside = max(0.0, min(width, right) - max(0.0, left)) * max(0.0, min(height, bottom) - max(0.0, top))
    return inside / (height * width + (right - left) * (bottom - top) - inside)


side = st.floats(1, 200)
minimum = st.floats(0.3, 0.9)
share = st.floats(-1, 1)


@given(side, side, minimum, st.tuples(share, share, share, share))
def test_cornernets_radius_guarantees_the_overlap(
    height: float, width: float, min_iou: float, moves: tuple[float, float, float, float]
) -> None:
    """Whatever the corners do within the radius, each side on its own."""
    radius = gaussian_radius(height, width, min_iou, "cornernet")
    a, b, c, d = (move * radius for move in moves)
    assert iou_after(height, width, (a, b, c, d)) >= min_iou - 1e-9


@given(side, side, minimum)
def test_cornernets_radius_is_the_largest_with_that_guarantee(height: float, width: float, min_iou: float) -> None:
    """One of its three cases meets the overlap exactly, so a larger radius would break the promise."""
    r = gaussian_radius(height, width, min_iou, "cornernet")
    cases = ((-r, -r, r, r), (r, r, -r, -r), (r, r, r, r))  # outwards, inwards, both the same way
    assert min(iou_after(height, width, case) for case in cases) == pytest.approx(min_iou, abs=1e-9)


@given(st.integers(1, 400), st.integers(1, 400))
def test_centernets_radius_is_the_smallest_of_its_three_values(height: int, width: int) -> None:
    """As CenterNet's code has it: (b + sqrt(b^2 - 4 a c)) / 2 for each quadratic a r^2 + b r + c of CornerNet."""
    m, total, area = 0.7, height + width, height * width
    cases = (
        (1, total, area * (1 - m) / (1 + m)),
        (4, 2 * total, (1 - m) * area),
        (4 * m, -2 * m * total, (m - 1) * area),
    )
    values = [(b + math.sqrt(b * b - 4 * a * c)) / 2 for a, b, c in cases]
    assert gaussian_radius(height, width) == pytest.approx(min(values), rel=1e-9)
    assert int(gaussian_radius(height, width)) == int(min(values))


def test_centernets_radius_promises_no_overlap() -> None:
    """The default: about three times CornerNet's, so corners within it may leave an IoU of a fifth."""
    r = gaussian_radius(10, 10)
    assert r == pytest.approx(2.7332, abs=1e-4)
    assert gaussian_radius(10, 10, reading="cornernet") == pytest.approx(5 * (1 - math.sqrt(0.7)))  # (10 - 2 r)^2 = 70
    assert min(iou_after(10, 10, m) for m in itertools.product((-r, r), repeat=4)) == pytest.approx(0.2055, abs=1e-4)


# -- one object -------------------------------------------------------------------------------------------------------
def test_the_targets_of_one_box() -> None:
    t = targets([[13, 6, 29, 17]], [1])  # centre (21, 11.5), 16 x 11 pixels
    assert t.heatmap.shape == (2, 8, 16)
    assert t.heatmap.dtype == t.size.dtype == t.offset.dtype == t.weight.dtype == np.float32
    assert t.centres.tolist() == [[2, 5]]  # floor of (11.5, 21) / 4: row, column
    assert t.offset.tolist() == [[0.25, 0.875]]  # x, y
    assert t.size.tolist() == [[4.0, 2.75]]  # width, height in strides
    assert (t.weight == 1).all()
    assert not t.heatmap[0].any()


def test_eq_2_around_a_centre() -> None:
    """A box of 32 x 28 pixels is 8 x 7 strides: CenterNet's radius is 2.04, so 2, and sigma is 5/6."""
    plane = targets([[16, 2, 48, 30]], [0]).heatmap[0]
    assert int(gaussian_radius(7, 8)) == 2
    row, column = 4, 8
    for dy, dx in itertools.product(range(-3, 4), repeat=2):
        inside = max(abs(dy), abs(dx)) <= 2
        expected = math.exp(-(dx * dx + dy * dy) / (2 * (5 / 6) ** 2)) if inside else 0.0
        assert plane[row + dy, column + dx] == pytest.approx(expected, rel=1e-6)
    assert np.count_nonzero(plane) == 25


def test_the_other_radius_is_narrower() -> None:
    box = (np.array([[4, 2, 60, 30]], np.float32), np.zeros(1, np.int64), np.zeros(1, bool), 1, (64, 32), 4)
    wide, narrow = (np.count_nonzero(center_targets(*box, radius=r).heatmap) for r in ("centernet", "cornernet"))
    assert (wide, narrow) == (25, 1)  # radius 2 and 0


def test_a_small_box_marks_its_centre_alone() -> None:
    plane = targets([[20, 20, 22, 23]], [0]).heatmap[0]
    assert plane[5, 5] == 1
    assert np.count_nonzero(plane) == 1


# -- several objects --------------------------------------------------------------------------------------------------
def test_a_centre_is_exactly_one() -> None:
    """The loss finds centres by ``== 1``: whatever the size and the neighbours, also when two share a pixel."""
    rng = np.random.default_rng(0)
    corner = rng.uniform(0, (60, 28), (60, 2))
    boxes = np.concatenate([corner, np.minimum(corner + rng.uniform(1, 60, (60, 2)), (64, 32))], 1)
    labels = rng.integers(0, 2, 60)
    t = targets(boxes.tolist(), labels.tolist())
    cells = {(int(label), int(y), int(x)) for label, (y, x) in zip(labels, t.centres, strict=True)}
    assert len(cells) < 60  # some share a pixel
    assert {tuple(cell) for cell in np.argwhere(t.heatmap == 1).tolist()} == cells


def test_overlapping_gaussians_keep_the_larger_value() -> None:
    first, second = [8.0, 2.0, 40.0, 30.0], [16.0, 2.0, 48.0, 30.0]
    both = targets([first, second], [0, 0]).heatmap
    alone = [targets([box], [0]).heatmap for box in (first, second)]
    np.testing.assert_array_equal(both, np.maximum(*alone))


def test_gaussians_are_cut_at_the_border() -> None:
    plane = np.zeros((4, 5), np.float32)
    draw_gaussian(plane, 4, 0, 2)
    assert plane[0, 4] == 1
    assert np.count_nonzero(plane) == 9
    assert (plane[0, 2], plane[2, 4]) == pytest.approx([math.exp(-4 / (2 * 25 / 36))] * 2)


def test_a_centre_on_the_far_border_stays_on_the_map() -> None:
    t = targets([[64, 30, 64, 34]], [0])
    assert t.centres.tolist() == [[7, 15]]
    assert t.offset.tolist() == [[1.0, 1.0]]


def test_no_boxes() -> None:
    t = targets([], [])
    assert not t.heatmap.any()
    assert t.centres.shape == t.size.shape == t.offset.shape == (0, 2)


# -- ignored boxes ----------------------------------------------------------------------------------------------------
def test_an_ignored_box_is_no_object_and_no_background() -> None:
    t = targets([[8, 8, 18, 15]], [0], [True])
    assert not t.heatmap.any()
    assert len(t.centres) == 0
    masked = np.ones((8, 16), np.float32)
    masked[2:4, 2:5] = 0  # every pixel of the map that the box touches
    np.testing.assert_array_equal(t.weight, masked)


def test_an_object_inside_an_ignored_region_still_counts() -> None:
    t = targets([[0, 0, 64, 32], [20, 8, 28, 16]], [0, 1], [True, False])
    assert t.centres.tolist() == [[3, 6]]
    assert t.weight.sum() == t.weight[3, 6] == 1
    assert t.heatmap[1, 3, 6] == 1


# -- batches ----------------------------------------------------------------------------------------------------------
def test_a_batch_numbers_its_images() -> None:
    batch = batch_targets([targets([[0, 0, 8, 8]], [0]), targets([], []), targets([[8, 8, 16, 24]] * 2, [0, 1])])
    assert batch.centres.tolist() == [[0, 1, 1], [2, 4, 3], [2, 4, 3]]
    assert batch.size.tolist() == [[2, 2], [2, 4], [2, 4]]
    assert batch.heatmap.shape == (3, 2, 8, 16)
    assert batch.weight.shape == (3, 1, 8, 16)
