import numpy as np
import pytest

from edgekit.runtime.detections import Detections


@pytest.fixture
def three():
    boxes = [[0, 0, 10, 20], [5, 5, 6, 6], [1.25, 2.5, 4, 8]]
    return Detections(boxes, [0.9, 0.5, 0.1], [2, 0, 1])


def test_types_and_selection(three):
    assert (three.boxes.dtype, three.scores.dtype, three.class_ids.dtype) == (np.float32, np.float32, np.int64)
    assert len(three) == 3
    assert three[three.scores >= 0.5].class_ids.tolist() == [2, 0]
    assert three[[2, 0]].class_ids.tolist() == [1, 2]
    assert three[1].boxes.tolist() == [[5, 5, 6, 6]]
    assert len(three[three.scores > 1]) == 0


@pytest.mark.parametrize("empty", [Detections.empty(), Detections([], [], [])])
def test_empty(empty):
    assert len(empty) == 0
    assert empty.boxes.shape == (0, 4)
    assert empty.to_coco(1, [1]) == []


@pytest.mark.parametrize(
    ("boxes", "scores", "class_ids", "message"),
    [
        ([[0, 0, 1]], [1], [0], r"boxes: expected shape \(n, 4\), got \(1, 3\)"),
        ([0, 0, 1, 1], [1], [0], "boxes: expected"),
        ([[0, 0, 1, 1]], [1, 1], [0], r"scores: expected shape \(1,\), got \(2,\)"),
        ([[0, 0, 1, 1]], [1], [[0]], "class_ids: expected"),
    ],
)
def test_disagreement_is_refused(boxes, scores, class_ids, message):
    with pytest.raises(ValueError, match=message):
        Detections(boxes, scores, class_ids)


def test_boxes_without_a_size_that_coco_records_could_tell():
    boxes = [[1, 1, 2, 2], [2, 1, 1, 2], [1, 2, 2, 1], [1, 1, 1.0004, 2], [1, 1, 1.002, 2], [1, 1, np.nan, 2]]
    found = Detections(boxes, [0.5] * 6, [0] * 6)
    assert found.sized.tolist() == [True, False, False, False, True, False]
    assert all(min(r["bbox"][2:]) > 0 for r in found[found.sized].to_coco(1, [1]))
    assert Detections.empty().sized.shape == (0,)


def test_coco_records(three):
    records = three.to_coco(7, [1, 3, 8])
    assert records[2] == {"image_id": 7, "category_id": 3, "bbox": [1.25, 2.5, 2.75, 5.5], "score": 0.1}
    assert [r["category_id"] for r in records] == [8, 1, 3]
