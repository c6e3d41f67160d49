"""VOC's mAP against answers worked out by hand."""

from pathlib import Path

import numpy as np
import pytest

from edgekit.data.coco import CocoSet, Sample
from edgekit.evaluation.voc import average_precision, evaluate_voc
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import BadInput


def sample(image_id, boxes, ignore=None, labels=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    labels = np.zeros(len(boxes), np.int64) if labels is None else np.array(labels)
    return Sample(Path(f"{image_id}.jpg"), image_id, 100, 100, boxes, labels, ignore)


def coco_set(*samples, classes=("car",)):
    return CocoSet(Path("a.json"), Path("."), samples, classes, tuple(range(1, len(classes) + 1)), ())


def found(boxes, scores, ids=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    return Detections(boxes, np.array(scores, np.float32), np.array(ids or [0] * len(scores), np.int64))


@pytest.mark.parametrize(
    ("hits", "objects", "eleven", "area"),
    [
        ([1], 1, 1.0, 1.0),
        ([0], 1, 0.0, 0.0),
        ([], 3, 0.0, 0.0),
        # recall .5 at precision 1, then a false alarm, then recall 1 at 2/3:
        # levels 0 to .5 take 1 (six of them), .6 to 1 take 2/3 (five); the area is .5 * 1 + .5 * 2/3
        ([1, 0, 1], 2, (6 + 5 * 2 / 3) / 11, 0.5 + 1 / 3),
        # the envelope: precision 1/2, 2/3, 3/4 at recall 1/3, 2/3, 1 becomes 3/4 everywhere
        ([0, 1, 1, 1], 3, 0.75, 0.75),
        # one of two found: levels 0 to .5 take 1
        ([1], 2, 6 / 11, 0.5),
    ],
)
def test_average_precision(hits, objects, eleven, area):
    assert average_precision(np.array(hits, bool), objects, "voc2007") == pytest.approx(eleven)
    assert average_precision(np.array(hits, bool), objects, "area") == pytest.approx(area)


def test_a_second_find_is_a_false_alarm_and_the_better_score_comes_first():
    truth = coco_set(sample(1, [[0, 0, 10, 10]]), sample(2, [[0, 0, 10, 10]]))
    detections = {1: found([[0, 0, 10, 9], [0, 0, 10, 10]], [0.9, 0.8]), 2: found([[0, 0, 10, 10]], [0.7])}
    # ranked: find, false alarm, find, of two objects
    assert evaluate_voc(truth, detections, "area").map == pytest.approx(0.5 + 1 / 3)


def test_a_difficult_object_is_neither_to_be_found_nor_a_false_alarm_however_often():
    truth = coco_set(sample(1, [[0, 0, 10, 10], [50, 50, 60, 60]], ignore=[True, False]))
    twice = found([[0, 0, 10, 10], [0, 0, 10, 10], [50, 50, 60, 60]], [0.9, 0.8, 0.7])
    assert evaluate_voc(truth, {1: twice}).map == pytest.approx(1.0)


def test_the_best_overlap_decides_even_when_it_is_taken():
    # as in the devkit: the second box overlaps the first object more, so it is a second find of that one
    truth = coco_set(sample(1, [[0, 0, 10, 10], [0, 2, 10, 12]]))
    detections = {1: found([[0, 0, 10, 10], [0, 0.5, 10, 10.5]], [0.9, 0.8])}
    assert evaluate_voc(truth, detections, "area").map == pytest.approx(0.5)


def test_iou_must_reach_a_half():
    truth = coco_set(sample(1, [[0, 0, 10, 10]]))
    assert evaluate_voc(truth, {1: found([[0, 0, 10, 5]], [0.9])}).map == pytest.approx(1.0)
    assert evaluate_voc(truth, {1: found([[0, 0, 10, 4.9]], [0.9])}).map == 0.0


def test_the_mean_is_over_classes_with_objects():
    truth = coco_set(sample(1, [[0, 0, 10, 10]], labels=[1]), classes=("car", "bus", "van"))
    metrics = evaluate_voc(truth, {1: found([[0, 0, 10, 10]], [0.9], [1])})
    assert metrics.per_class == {"bus": pytest.approx(1.0)}
    assert metrics.map == pytest.approx(1.0)


def test_nothing_to_find():
    with pytest.raises(BadInput, match="no box to find"):
        evaluate_voc(coco_set(sample(1, [])), {1: found([], [])})
