"""Are these the same boxes? Moved, missing, new, of another class, near the threshold."""

import numpy as np
import pytest

from edgekit.runtime.detections import Detections
from edgekit.runtime.onboard.golden import choose_threshold, compare


def boxes(count, scores=None, shift=0.0, classes=None):
    x = np.arange(count, dtype=np.float32)[:, None] * 100 + shift
    corners = np.concatenate([x, np.full_like(x, 10), x + 50, np.full_like(x, 60)], 1)
    return Detections(corners, [0.8] * count if scores is None else scores, [0] * count if classes is None else classes)


@pytest.mark.parametrize(
    ("found", "precision", "same", "unpaired"),
    [
        (boxes(3), "fp32", True, 0),
        (boxes(3, shift=0.2), "fp32", True, 0),
        (boxes(3, shift=2), "fp32", False, 6),  # IoU 0.92: each is missing, and each found one is new
        (boxes(3, shift=2), "fp16", True, 0),
        (boxes(3, shift=9), "fp16", False, 6),
        (boxes(3, shift=9), "int8", True, 0),
        (boxes(2), "fp32", False, 1),
        (boxes(4), "fp32", False, 1),
        (boxes(4), "fp16", False, 1),
        (boxes(3, scores=[0.8, 0.8, 0.78]), "fp32", False, 2),
        (boxes(3, scores=[0.8, 0.8, 0.78]), "fp16", True, 0),
        (boxes(3, classes=[0, 0, 1]), "int8", False, 2),
        (boxes(4, scores=[0.8, 0.8, 0.8, 0.31]), "fp16", True, 0),  # new, but at the threshold
        (boxes(4, scores=[0.8, 0.8, 0.8, 0.2]), "fp32", True, 0),  # below it
        (Detections.empty(), "int8", False, 3),
    ],
)
def test_one_image(found, precision, same, unpaired):
    report = compare([boxes(3)], [found], 0.3, precision)
    assert (report["same"], report["unpaired"]) == (same, unpaired)
    assert bool(report["faults"]) == (unpaired > 0)


def test_boxes_without_an_area_are_left_out():
    flat = [[0, 20, 0, 40], [10, 5, 90, 5]]
    both = Detections([[10, 10, 50, 50], *flat], [0.9, 0.6, 0.6], [0, 0, 0])
    one = both[:1]
    for expected, found in ((both, both), (both, one), (one, both)):
        report = compare([expected], [found], 0.3, "fp32")
        assert (report["same"], report["boxes"], report["unpaired"]) == (True, 1, 0)
    assert not compare([both[1:]], [both[1:]], 0.3, "fp32")["same"]  # nothing but these proves nothing
    assert choose_threshold([both], 0.01, "fp32", wanted=1) == (0.3, 1)


def test_a_box_that_is_nan_is_not_expected():
    broken = Detections([[10, 10, 50, 50], [np.nan] * 4], [0.9, 0.6], [0, 0])
    report = compare([broken[:1]], [broken], 0.3, "fp32")
    assert (report["same"], report["unpaired"]) == (False, 1)


def test_nothing_expected_proves_nothing():
    assert not compare([Detections.empty()], [Detections.empty()], 0.3, "fp32")["same"]


def test_two_overlapping_boxes_do_not_share_a_partner():
    pair = Detections([[0, 0, 50, 50], [1, 0, 51, 50]], [0.8, 0.79], [0, 0])
    one = Detections([[0, 0, 50, 50]], [0.8], [0])
    assert compare([pair], [one], 0.3, "fp16")["unpaired"] == 1
    assert compare([pair], [pair], 0.3, "fp16")["unpaired"] == 0


def test_a_small_share_may_differ_in_fp16():
    many = [boxes(10) for _ in range(10)]
    fewer = [boxes(9), *many[1:]]
    assert compare(many, fewer, 0.3, "fp16")["same"]
    assert not compare(many, fewer, 0.3, "fp32")["same"]
    assert not compare(many, [boxes(7), *many[1:]], 0.3, "fp16")["same"]


def test_worst_is_told():
    report = compare([boxes(2)], [boxes(2, scores=[0.83, 0.8], shift=1)], 0.3, "fp16")
    assert report["worst_score"] == pytest.approx(0.03)
    assert report["worst_iou"] == pytest.approx(49 / 51)
    assert report["boxes"] == 2


def test_lists_of_different_length_are_a_mistake():
    with pytest.raises(ValueError, match="expected 1 images, got 2"):
        compare([boxes(1)], [boxes(1)] * 2, 0.3, "fp32")


@pytest.mark.parametrize(
    ("scores", "precision", "threshold", "judged"),
    [
        ([0.9] * 8, "fp32", 0.3, 8),
        ([0.9] * 7 + [0.25], "fp32", 0.2, 8),
        ([0.065] * 8, "fp32", 0.05, 8),
        ([0.32] * 8, "fp32", 0.3, 8),
        ([0.32] * 8, "fp16", 0.2, 8),  # from 0.35 on it would judge none
        ([0.54] * 8, "int8", 0.2, 8),
        ([0.065] * 8, "fp16", 0.01, 8),
        ([0.9] * 3, "fp16", 0.01, 3),
        ([0.05], "fp16", 0.01, 0),
        ([], "fp32", 0.01, 0),
    ],
)
def test_the_threshold_falls_until_boxes_are_judged(scores, precision, threshold, judged):
    assert choose_threshold([boxes(len(scores), scores)], 0.01, precision) == (threshold, judged)


@pytest.mark.parametrize(
    ("score", "threshold", "precision"), [(0.54, 0.3, "int8"), (0.098, 0.05, "fp16"), (0.305, 0.3, "fp32")]
)
def test_an_engine_that_detects_nothing_is_never_the_same(score, threshold, precision):
    """Boxes so near the threshold that none is judged prove nothing, however many they are."""
    unsure = boxes(10, scores=[score] * 10)
    for found in (Detections.empty(), unsure):
        report = compare([unsure], [found], threshold, precision)
        assert (report["same"], report["boxes"], report["paired"]) == (False, 0, 0)


def test_the_share_is_of_the_boxes_that_are_judged():
    """One of four is missing; beside a hundred unsure ones that would be one in a hundred."""
    unsure = boxes(100, scores=[0.32] * 100)
    report = compare([boxes(4), unsure], [boxes(3), unsure], 0.3, "fp16")
    assert (report["same"], report["boxes"], report["paired"], report["unpaired"]) == (False, 4, 3, 1)
