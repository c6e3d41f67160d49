"""Post-processing against references written as the papers say it, one box at a time."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.runtime.postprocess import Postprocess, all_finite, best_pairs, box_iou, pairwise_iou, soft_nms
from edgekit.runtime.preprocess import Placement

SAME = Placement(1, 1, 0, 0, 1000, 1000)


# -- references -------------------------------------------------------------------------------------------------------
def naive_iou(a, b):
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    overlap = max(width, 0) * max(height, 0)
    union = (a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - overlap
    return overlap / union if union > 0 else 0.0


def pairs(boxes, scores, threshold):
    found = [
        (float(scores[a, c]), a, c)
        for a in range(scores.shape[0])
        for c in range(scores.shape[1])
        if scores[a, c] >= threshold
    ]
    return sorted(found, key=lambda f: (-f[0], f[1], f[2]))


def naive_none(boxes, scores, p):
    return pairs(boxes, scores, p.score_threshold)[: p.top_k]


def naive_classwise(boxes, scores, p):
    kept = []
    for score, a, c in pairs(boxes, scores, p.score_threshold)[: max(p.candidates, p.top_k)]:
        if all(c != kc or naive_iou(boxes[a], boxes[ka]) <= p.iou_threshold for _, ka, kc in kept):
            kept.append((score, a, c))
    return kept[: p.top_k]


def naive_soft(boxes, scores, p):
    left = [list(f) for f in pairs(boxes, scores, p.score_threshold)[: max(p.candidates, p.top_k)]]
    kept = []
    while left and len(kept) < p.top_k:
        best = max(left, key=lambda f: f[0])
        left.remove(best)
        if best[0] < p.score_threshold:
            break
        kept.append(tuple(best))
        for other in left:
            if other[2] == best[2]:
                iou = naive_iou(boxes[best[1]], boxes[other[1]])
                if p.decay == "gaussian":
                    other[0] *= math.exp(-iou * iou / p.sigma)
                elif iou >= p.iou_threshold:
                    other[0] *= 1 - iou
    return kept


CASES = {
    "none": (Postprocess(), naive_none),
    "none-top-10": (Postprocess(top_k=10, score_threshold=0.3), naive_none),
    "classwise": (Postprocess(nms="classwise"), naive_classwise),
    "classwise-strict": (Postprocess(nms="classwise", iou_threshold=0.1, top_k=7), naive_classwise),
    "classwise-few-candidates": (Postprocess(nms="classwise", candidates=30, top_k=20), naive_classwise),
    "soft-gaussian": (Postprocess(nms="soft"), naive_soft),
    "soft-linear": (Postprocess(nms="soft", decay="linear", iou_threshold=0.3, score_threshold=0.2), naive_soft),
}


def scene(seed, anchors=60, classes=3):
    """Boxes in clumps, so that many of them overlap; scores all different."""
    rng = np.random.RandomState(seed)
    centres = rng.uniform(100, 900, (8, 2))[rng.randint(0, 8, anchors)] + rng.normal(0, 12, (anchors, 2))
    half = rng.uniform(10, 60, (anchors, 2))
    boxes = np.concatenate([centres - half, centres + half], 1).astype(np.float32)
    scores = (rng.permutation(anchors * classes).reshape(anchors, classes) / (anchors * classes)).astype(np.float32)
    return boxes, scores


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("case", CASES)
def test_equals_the_naive_reference(case, seed):
    options, reference = CASES[case]
    boxes, scores = scene(seed)
    found, expected = options(boxes, scores, SAME), reference(boxes, scores, options)
    assert len(expected) > 4
    assert found.class_ids.tolist() == [c for _, _, c in expected]
    np.testing.assert_allclose(found.scores, [s for s, _, _ in expected], rtol=1e-5)
    np.testing.assert_array_equal(found.boxes, boxes[[a for _, a, _ in expected]])


def test_soft_nms_takes_no_box_twice_when_others_fall_to_nothing():
    boxes = np.array([[0, 0, 10, 10]] * 3 + [[30, 30, 40, 40]], np.float32)
    scores = np.array([0.9, 0.8, 0.7, 0.6], np.float32)
    options = Postprocess(nms="soft", decay="linear", score_threshold=0)
    kept, decayed = soft_nms(boxes, scores, np.zeros(4, np.int64), options)
    assert sorted(kept.tolist()) == [0, 1, 2, 3]
    np.testing.assert_array_equal(decayed, np.array([0.9, 0.6, 0, 0], np.float32))


@pytest.mark.parametrize("case", ["classwise", "soft-linear"])
def test_nms_suppresses_here(case):
    """The scenes above would prove nothing if no box were suppressed or decayed."""
    boxes, scores = scene(0)
    options = CASES[case][0].replace(top_k=1000)
    plain = options.replace(nms="none")(boxes, scores, SAME)
    assert options(boxes, scores, SAME).scores.sum() < 0.8 * plain.scores.sum()


def test_one_detection_for_each_box_and_class_that_reaches_the_threshold():
    scores = np.array([[0.5, 0.01, 0.0], [0.009, 0.7, 0.5]], np.float32)
    boxes = np.array([[0, 0, 10, 10], [20, 20, 40, 40]], np.float32)
    found = Postprocess(score_threshold=0.01)(boxes, scores, SAME)
    assert found.class_ids.tolist() == [1, 0, 2, 1]
    np.testing.assert_array_equal(found.scores, np.array([0.7, 0.5, 0.5, 0.01], np.float32))
    assert found.boxes[:, 0].tolist() == [20, 0, 20, 0]


def test_equal_scores_keep_the_order_of_boxes_even_when_there_are_too_many():
    scores = np.full((500, 2), 0.25, np.float32)
    scores[400] = 0.5
    boxes = np.arange(2000, dtype=np.float32).reshape(500, 4) / 2
    found = Postprocess(top_k=5)(boxes, scores, Placement(1, 1, 0, 0, 2000, 2000))
    assert found.boxes[:, 0].tolist() == [800, 800, 0, 0, 2]
    assert found.class_ids.tolist() == [0, 1, 0, 1, 0]


@given(st.lists(st.integers(0, 6), min_size=1, max_size=60), st.integers(1, 12))
@settings(max_examples=200, deadline=None)
def test_the_cut_before_the_sort_changes_nothing(values, limit):
    scores = np.array(values, np.float32)[:, None] / 6
    index, kept = best_pairs(scores, 0.3, limit)
    expected = sorted((i for i in range(len(values)) if scores[i, 0] >= 0.3), key=lambda i: -scores[i, 0])[:limit]
    assert index.tolist() == expected
    np.testing.assert_array_equal(kept, scores[expected, 0])


def test_boxes_come_back_in_original_pixels_clipped_to_the_image():
    where = Placement(0.5, 0.25, 8, 4, 640, 480)
    boxes = np.array([[8, 4, 108, 54], [-50, -50, 1000, 1000]], np.float32)
    found = Postprocess()(boxes, np.array([[0.9], [0.8]], np.float32), where)
    assert found.boxes.tolist() == [[0, 0, 200, 200], [0, 0, 640, 480]]


@pytest.mark.parametrize("nms", ["none", "classwise", "soft"])
def test_nothing_found_and_nan(nms):
    boxes = np.zeros((4, 4), np.float32)
    for scores in (np.zeros((4, 3), np.float32), np.full((4, 3), np.nan, np.float32)):
        found = Postprocess(nms=nms)(boxes, scores, SAME)
        assert len(found) == 0
        assert found.boxes.shape == (0, 4)


def test_the_inputs_are_left_alone():
    boxes, scores = scene(1)
    before = boxes.copy(), scores.copy()
    for options, _ in CASES.values():
        found = options(boxes, scores, SAME)
        found.boxes[:] = -1
        found.scores[:] = -1
    np.testing.assert_array_equal(boxes, before[0])
    np.testing.assert_array_equal(scores, before[1])


@pytest.mark.parametrize(
    ("a", "b", "iou"),
    [
        ([0, 0, 10, 10], [0, 0, 10, 10], 1.0),
        ([0, 0, 10, 10], [5, 0, 15, 10], 1 / 3),
        ([0, 0, 10, 10], [10, 0, 20, 10], 0.0),
        ([0, 0, 10, 10], [50, 50, 60, 60], 0.0),
        ([3, 3, 3, 3], [3, 3, 3, 3], 0.0),
        ([0, 0, 10, 10], [9, 9, 1, 1], 0.0),  # inside out
    ],
)
def test_iou(a, b, iou):
    assert box_iou(np.float32(a), np.float32([b]))[0] == pytest.approx(iou)


def test_iou_of_every_box_with_every_other():
    found = pairwise_iou([[0, 0, 10, 10], [0, 0, 0, 0]], [[5, 0, 15, 10], [0, 0, 10, 10], [20, 20, 30, 30]])
    np.testing.assert_allclose(found, [[1 / 3, 1, 0], [0, 0, 0]])
    assert pairwise_iou(np.zeros((0, 4)), np.zeros((3, 4))).shape == (0, 3)


# -- the value --------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("options", [o for o, _ in CASES.values()], ids=list(CASES))
def test_round_trip(options):
    again = Postprocess.from_dict(options.to_dict())
    assert again == options
    assert hash(again) == hash(options)
    assert again != options.replace(top_k=99)


def test_absent_fields_take_their_default_and_unknown_ones_are_refused():
    assert Postprocess.from_dict({"top_k": 5}) == Postprocess(top_k=5)
    with pytest.raises(ValueError, match="unknown postprocess fields: topk"):
        Postprocess.from_dict({"topk": 5})


def test_all_problems_at_once():
    with pytest.raises(ValueError) as caught:
        Postprocess(nms="hard", score_threshold=2, top_k=0, iou_threshold=-1, decay="x", sigma=0)
    for name in ("nms", "score_threshold", "top_k", "iou_threshold", "decay", "sigma"):
        assert f"{name}: expected" in str(caught.value)


@pytest.mark.parametrize("top_k", [40, 1000])
def test_more_boxes_than_one_block_holds(top_k):
    """400 boxes that crowd each other: what an early block keeps suppresses boxes of later ones."""
    chance = np.random.default_rng(5)
    corner = chance.random((400, 2)).astype(np.float32) * 150
    boxes = np.concatenate([corner, corner + 10 + 30 * chance.random((400, 2)).astype(np.float32)], 1)
    scores = chance.random((400, 2)).astype(np.float32)
    p = Postprocess(nms="classwise", top_k=top_k)
    found = p(boxes, scores, SAME)
    expected = naive_classwise(boxes, scores, p)
    assert 40 <= len(found) < 800
    assert len(found) == len(expected)
    np.testing.assert_array_equal(found.scores, np.float32([score for score, *_ in expected]))


@pytest.mark.parametrize("nms", ["none", "classwise", "soft"])
@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_left_out_and_suppresses_nothing(nms, wrong):
    boxes = np.array([[0, 0, 9, wrong], [0, 0, 10, 10], [20, 20, 30, 30], [40, 40, 50, 50]], np.float32)
    scores = np.array([[0.9], [0.8], [np.inf], [0.7]], np.float32)
    with np.errstate(all="raise"):
        found = Postprocess(nms=nms)(boxes, scores, SAME)
    assert found.boxes.tolist() == [[0, 0, 10, 10], [40, 40, 50, 50]]
    assert not all_finite(boxes, scores)
    assert all_finite(boxes[1:], scores[:2])
