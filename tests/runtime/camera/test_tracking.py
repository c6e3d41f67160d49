"""Numbers that stay with their objects."""

import itertools

import numpy as np
import pytest

from edgekit.runtime.camera import kalman
from edgekit.runtime.camera.assignment import assign
from edgekit.runtime.camera.tracking import DOUBLE, NONE, Options, Tracker
from edgekit.runtime.detections import Detections


@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 5), (5, 2), (6, 6), (4, 7)])
@pytest.mark.parametrize("seed", range(8))
def test_an_assignment_is_the_cheapest_of_all(shape, seed):
    cost = np.random.default_rng(seed).random(shape)
    pairs, rows, columns = assign(cost, 2.0)
    n, m = min(shape), max(shape)
    tall = cost if shape[0] <= shape[1] else cost.T
    best = min(tall[range(n), list(chosen)].sum() for chosen in itertools.permutations(range(m), n))
    assert cost[pairs[:, 0], pairs[:, 1]].sum() == pytest.approx(best)
    assert len(pairs) == n
    assert sorted([*pairs[:, 0], *rows]) == list(range(shape[0]))
    assert sorted([*pairs[:, 1], *columns]) == list(range(shape[1]))


def test_an_assignment_drops_what_is_above_the_limit():
    pairs, rows, columns = assign(np.array([[0.1, 0.9], [0.9, 0.95]]), 0.5)
    assert pairs.tolist() == [[0, 0]]
    assert (rows.tolist(), columns.tolist()) == ([1], [1])


@pytest.mark.parametrize("shape", [(0, 0), (0, 3), (3, 0)])
def test_nothing_to_assign(shape):
    pairs, rows, columns = assign(np.zeros(shape), 1.0)
    assert (len(pairs), len(rows), len(columns)) == (0, *shape)


def test_a_filter_learns_the_velocity_at_any_frame_rate():
    for fps in (30.0, 12.5):
        measured = kalman.measure([[0, 0, 40, 80]])
        mean, covariance = kalman.begin(measured)
        for i in range(1, 40):
            mean, covariance = kalman.predict(mean, covariance, 1 / fps)
            box = np.array([[60 * i / fps, 0, 60 * i / fps + 40, 80]])
            mean, covariance = kalman.update(mean, covariance, kalman.measure(box))
        assert mean[0, 4] / kalman.STEP == pytest.approx(60, rel=0.1)  # pixels a second
        assert np.allclose(kalman.to_boxes(mean), box, atol=2.0)


def test_boxes_survive_the_filters_coordinates():
    boxes = np.array([[1.0, 2, 30, 60], [5, 5, 6, 9]])
    np.testing.assert_allclose(kalman.to_boxes(kalman.measure(boxes)), boxes)


# -- the tracker ------------------------------------------------------------------------------------------------------
def seen(*boxes, scores=None, classes=None):
    count = len(boxes)
    return Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.8) if scores is None else scores,
        np.zeros(count, int) if classes is None else classes,
    )


def moving(x, y=50, size=40):
    return [x, y, x + size, y + size]


def walk(tracker, frames, fps=25.0):
    return [tracker(found, i / fps).tolist() for i, found in enumerate(frames)]


def test_two_objects_that_pass_keep_their_numbers():
    frames = [seen(moving(5 * i, 0), moving(300 - 5 * i, 45)) for i in range(60)]
    ids = walk(Tracker(), frames)
    assert all(i == ids[0] for i in ids)
    assert sorted(ids[0]) == [1, 2]


@pytest.mark.parametrize("missing", [1, 5, 15])
def test_a_number_survives_a_short_occlusion(missing):
    frames = [seen() if 20 <= i < 20 + missing else seen(moving(6 * i)) for i in range(60)]
    ids = [i for i in walk(Tracker(), frames) if i]
    assert {n for i in ids for n in i} == {1}
    assert len(ids) == 60 - missing


def test_after_a_long_absence_it_is_another_object():
    frames = [seen() if 10 <= i < 50 else seen(moving(2 * i)) for i in range(60)]
    numbers = [i[0] for i in walk(Tracker(), frames) if i]
    assert numbers[:10] == [1] * 10
    assert numbers[-1] == 2


def test_a_weak_box_continues_a_track_and_begins_none():
    tracker = Tracker(Options(high=0.5, low=0.1))
    frames = [seen(moving(4 * i), scores=[0.2 if 5 <= i < 10 else 0.8]) for i in range(15)]
    assert walk(tracker, frames) == [[1]] * 15
    assert walk(Tracker(Options(high=0.5)), [seen(moving(4 * i), scores=[0.2]) for i in range(10)]) == [[NONE]] * 10


def test_a_box_seen_once_gets_no_number():
    frames = [seen(moving(10)), seen(moving(12), moving(300)), seen(moving(14)), seen(moving(16))]
    assert walk(Tracker(), frames)[1] == [1, NONE]


def test_a_new_object_has_its_number_from_the_second_sighting_on():
    frames = [seen(moving(10)), *[seen(moving(12 + 2 * i), moving(300)) for i in range(3)]]
    assert walk(Tracker(), frames) == [[1], [1, NONE], [1, 2], [1, 2]]


@pytest.mark.parametrize("first", [0, 3])
def test_a_second_box_on_one_object_is_a_double(first):
    frames = [seen(moving(3 * i)) for i in range(first)]
    frames += [seen(moving(3 * i), moving(3 * i + 3), scores=[0.9, 0.7]) for i in range(first, 10)]
    ids = walk(Tracker(), frames)
    assert all(i == [1, DOUBLE] for i in ids[first:])


def test_a_box_of_another_class_is_another_object():
    frames = [seen(moving(3 * i), moving(3 * i), classes=[0, 1]) for i in range(5)]
    assert walk(Tracker(), frames)[-1] == [1, 2]


def test_trails_follow_and_stay_short():
    tracker = Tracker()
    walk(tracker, [seen(moving(i)) for i in range(200)])
    (trail,) = tracker.trails().values()
    assert len(trail) == 48
    assert trail[-1] == (199 + 20, 70)


def test_a_restart_begins_anew_with_fresh_numbers():
    tracker = Tracker()
    walk(tracker, [seen(moving(0))] * 3)
    tracker.restart()
    assert tracker(seen(moving(0)), 99.0).tolist() == [2]


def test_many_objects_at_an_uneven_frame_rate():
    rng = np.random.default_rng(0)
    starts, speed = rng.uniform(0, 4000, (40, 2)) * [1, 0.5], rng.uniform(-60, 60, (40, 2))
    tracker, moment, before = Tracker(), 0.0, None
    for _ in range(50):
        moment += rng.choice([0.02, 0.04, 0.12])
        corners = starts + speed * moment
        ids = tracker(seen(*np.hstack([corners, corners + 50])), moment)
        singles = ids > NONE
        if before is not None:
            both = singles & (before > NONE)
            assert (ids[both] == before[both]).mean() > 0.95
        before = ids
    assert tracker.numbers < 60
