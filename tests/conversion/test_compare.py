import numpy as np
import pytest

from edgekit.conversion.compare import NOTHING, Comparison, compare_outputs, compare_with_torch

from .graphs import f32

RNG = np.random.default_rng(0)
BOXES = RNG.uniform(0, 100, (1, 6, 4)).astype(np.float32)
SCORES = f32([[[0.9, 0], [0.8, 0], [0, 0.7], [0.3, 0], [0.2, 0], [0, 0.1]]])


def changed(array, index, by):
    out = array.copy()
    out[index] += by
    return out


@pytest.mark.parametrize(
    ("boxes", "scores", "unpaired"),
    [
        (BOXES, SCORES, 0),
        (BOXES + 0.09, SCORES + 9e-5, 0),
        (changed(BOXES, (0, 2, 1), 0.2), SCORES, 1),
        (BOXES, changed(SCORES, (0, 1, 0), 2e-4), 1),
        (BOXES, changed(SCORES, (0, 1, 1), 0.5), 1),
        (BOXES[:, ::-1], SCORES[:, ::-1], 0),
        (BOXES[:, [0, 0, 2, 3, 4, 5]], SCORES[:, [0, 0, 2, 3, 4, 5]], 1),
        (np.full_like(BOXES, np.nan), SCORES, 5),
        (np.full_like(BOXES, np.inf), SCORES, 5),
    ],
    ids=["same", "within tolerance", "box", "score", "score of another class", "order", "one twice", "nan", "inf"],
)
def test_boxes_are_paired_one_to_one(boxes, scores, unpaired):
    found = compare_outputs((BOXES, SCORES), (boxes, scores))
    assert found.unpaired == unpaired
    assert found.same == (unpaired == 0)


def test_the_worst_difference_is_told():
    found = compare_outputs((BOXES, SCORES), (changed(BOXES, (0, 3, 2), 5), changed(SCORES, (0, 0, 0), 5e-5)))
    assert found.unpaired == 1
    assert found.worst_box == pytest.approx(5, abs=1e-4)
    assert "1 have no partner" in str(found)
    assert found.worst_score == pytest.approx(5e-5, rel=0.01)


def test_a_tie_at_the_border_of_the_top_k_is_no_alarm():
    """Two peaks of one score, and room for one: either may be kept."""
    other = BOXES.copy()
    other[0, 5] = [1, 2, 3, 4]
    found = compare_outputs((BOXES, SCORES), (other, changed(SCORES, (0, 5, 1), 5e-5)))
    assert found.same
    assert found.ties == 1


def test_a_missing_box_above_the_border_is_an_alarm():
    other = BOXES.copy()
    other[0, 4] = [1, 2, 3, 4]
    assert compare_outputs((BOXES, SCORES), (other, SCORES)).unpaired == 1


def test_near_twins_are_told_apart():
    """The first box could take either partner; only one choice leaves one for the second."""
    boxes = f32([[[0, 0, 10, 10], [0.1, 0, 10, 10]]])
    found = f32([[[0.05, 0, 10, 10], [-0.05, 0, 10, 10]]])
    scores = f32([[[0.5], [0.5]]])
    assert compare_outputs((boxes, scores), (found, scores)).same


def test_corners_far_outside_are_all_the_same():
    far, further = changed(BOXES, (0, 1, 2), 1e30), changed(BOXES, (0, 1, 2), 2e30)
    assert compare_outputs((far, SCORES), (further, SCORES)).same
    assert not compare_outputs((far, SCORES), (BOXES, SCORES)).same


def test_many_equal_boxes_are_no_problem():
    boxes, scores = np.zeros((1, 900, 4), np.float32), np.full((1, 900, 2), 0.5, np.float32)
    assert compare_outputs((boxes, scores), (boxes, scores)).same


def test_a_long_chain_of_boxes_that_must_all_move():
    """Each box takes the nearer of two partners; the last one finds its only one taken, and moves all of the others."""
    count = 1000
    boxes = np.repeat(np.arange(count, dtype=np.float32)[None, :, None], 4, axis=2)
    scores = np.full((1, count, 1), 0.5, np.float32)
    assert compare_outputs((boxes, scores), (boxes - np.float32(0.6), scores), 0.7, 1e-3).unpaired == 0


def test_anchors_are_compared_in_their_order():
    boxes, scores = RNG.uniform(0, 100, (1, 4000, 4)), RNG.uniform(0, 1, (1, 4000, 3))
    assert compare_outputs((boxes, scores), (boxes + 0.05, scores)).same
    found = compare_outputs((boxes, scores), (changed(boxes, (0, 7, 2), np.nan), changed(scores, (0, 9, 1), 0.3)))
    assert (found.unpaired, found.boxes) == (2, 4000)
    assert found.worst_score == pytest.approx(0.3)


def test_every_image_of_a_batch_counts():
    two = (np.concatenate([BOXES, BOXES]), np.concatenate([SCORES, SCORES]))
    other = (changed(two[0], (1, 0, 0), 1), two[1])
    found = compare_outputs(two, other)
    assert (found.boxes, found.unpaired) == (12, 1)


def test_shapes_must_agree():
    with pytest.raises(ValueError, match=r"\[1, 6, 4\].*\[1, 5, 4\]"):
        compare_outputs((BOXES, SCORES), (BOXES[:, :5], SCORES[:, :5]))


def test_comparisons_add_up():
    one, two = Comparison(3, 0.1, 0.0, 0, 1, 2, 0), Comparison(4, 0.0, 0.2, 2, 0, 3, 1)
    assert NOTHING + one + two == Comparison(7, 0.1, 0.2, 2, 1, 5, 1)


def anchors(objects=80, score=0.9, background=1e-4):
    """8400 boxes, as YOLO gives them, of which some are objects."""
    boxes = np.random.default_rng(0).uniform(0, 600, (1, 8400, 4))
    scores = np.full((1, 8400, 8), background)
    scores[0, :objects, 3] = score
    return boxes, scores


@pytest.mark.parametrize("objects", [2, 8, 80])
def test_lost_objects_do_not_hide_among_thousands_of_background_anchors(objects):
    boxes, scores = anchors(objects)
    moved, none = boxes.copy(), np.full_like(scores, 1e-4)
    moved[0, :objects] += 200
    for expected, found in (
        ((boxes, scores), (moved, scores)),
        ((boxes, scores), (boxes, none)),
        ((boxes, none), (boxes, scores)),
    ):
        for tolerances in ((), (2.0, 0.02)):
            compared = compare_outputs(expected, found, *tolerances)
            assert (compared.strong, compared.lost) == (objects, objects)
            assert not compared.within(0.05)
            assert f"({objects} of the {objects} strong ones)" in str(compared)


def test_rounding_may_move_a_peak_among_few_objects():
    boxes, scores = anchors(5)
    assert compare_outputs((boxes, scores), (changed(boxes, (0, 1, 0), 9), scores)).alike
    assert compare_outputs((boxes, scores), (changed(boxes, (0, slice(0, 2)), 9), scores)).alike
    assert not compare_outputs((boxes, scores), (changed(boxes, (0, slice(0, 3)), 9), scores)).alike


@pytest.mark.parametrize("score", [0.01, 0.5])
def test_scores_that_all_lie_on_one_side_are_no_objects_lost(score):
    """Of random weights all or none of the scores are high: one box in a hundred may move, as among few boxes."""
    boxes, scores = anchors(0, background=score)
    found = compare_outputs((boxes, scores), (changed(boxes, (0, slice(0, 80)), 9), scores))
    assert (found.strong, found.lost, found.alike) == (8400, 80, True)


def test_the_objects_of_a_weak_network_count_too():
    boxes, scores = anchors(80, score=0.04)
    assert not compare_outputs((boxes, scores), (changed(boxes, (0, slice(0, 80)), 9), scores)).alike


def test_a_file_that_is_always_sure_is_another_network():
    """All its boxes lie at its own border of the top-k, which is no excuse for those of the other one."""
    sure = np.full_like(SCORES, 0.95)
    assert not compare_outputs((BOXES, SCORES), (BOXES + 50, sure)).alike


def test_a_changed_network_is_noticed(detect, pixels, photos, preprocess):
    def other(image):
        boxes, scores = detect(image)
        return boxes + f32([0.2, 0, 0, 0]), scores

    assert not compare_with_torch(other, pixels.file("model.onnx"), photos[:1], preprocess, "nhwc_uint8").same


@pytest.mark.parametrize(
    ("boxes", "unpaired", "alike"), [(800, 0, True), (800, 8, True), (800, 9, False), (24, 1, False)]
)
def test_a_single_peak_that_rounding_moved_is_no_other_network(boxes, unpaired, alike):
    """One of 800 kept edgekit-road8 from being simplified: half as slow again in INT8, and int64 for a TX2."""
    found = Comparison(boxes, 1e-4, 3e-4, unpaired, 0)
    assert found.alike == alike
    assert found.same == (unpaired == 0)
