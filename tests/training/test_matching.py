"""Matching of anchors and mining of negatives, against tables worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from edgekit.data.augment import Boxes
from edgekit.data.dataset import Item
from edgekit.runtime.preprocess import Preprocess
from edgekit.training.matching import IGNORED, PADDING, BoxBatch, _best_of_each, box_collate, hardest, match_anchors


def batch_of(*images: list[tuple[float, float, float, float, int]]) -> BoxBatch:
    """Of (x1, y1, x2, y2, label) lists."""
    rows = max(1, *(len(image) for image in images))
    padded = [[*image, *[(0.0, 0.0, 0.0, 0.0, PADDING)] * (rows - len(image))] for image in images]
    table = torch.tensor(padded, dtype=torch.float32)
    return BoxBatch(table[..., :4], table[..., 4].long())


# four anchors of 10x10 side by side, and one of 20x10 over the first two
ANCHORS = torch.tensor([[0.0, 0, 10, 10], [10, 0, 20, 10], [20, 0, 30, 10], [30, 0, 40, 10], [0, 0, 20, 10]])


def labels(batch: BoxBatch, **settings: float | bool) -> list[list[int]]:
    found: list[list[int]] = match_anchors(ANCHORS, batch, **settings).label.tolist()  # type: ignore[arg-type]
    return found


def test_by_threshold() -> None:
    """The object of class 2 is anchor 1 exactly; anchor 4 overlaps it by 1/2, which is enough."""
    batch = batch_of([(10, 0, 20, 10, 2)])
    assert labels(batch) == [[0, 3, 0, 0, 3]]
    assert labels(batch, positive=0.6) == [[0, 3, 0, 0, -1]]  # neither: between 0.5 and 0.6
    assert labels(batch, positive=0.6, negative=0.6) == [[0, 3, 0, 0, 0]]


def test_every_object_gets_its_best_anchor() -> None:
    """One of 4x4 within anchor 2 overlaps it by 0.16 only."""
    batch = batch_of([(22, 2, 26, 6, 0)])
    assert labels(batch) == [[0, 0, 1, 0, 0]]
    assert labels(batch, force=False) == [[0, 0, 0, 0, 0]]
    assert match_anchors(ANCHORS, batch).iou[0, 2] == pytest.approx(0.16)


def test_two_objects_that_want_one_anchor() -> None:
    """The nearer one has it; the other gets the next best, which the threshold would have given it too little for."""
    batch = batch_of(
        [(10, 0, 20, 6, 0), (10, 0, 20, 10, 1)]
    )  # IoU with anchor 1: 0.6 and 1; with anchor 4: 0.3 and 0.5
    found = match_anchors(ANCHORS, batch)
    assert found.label.tolist() == [[0, 2, 0, 0, 1]]
    assert found.truth[0, [1, 4]].tolist() == [1, 0]
    assert found.iou[0, [1, 4]].tolist() == pytest.approx([1.0, 0.3])
    assert found.boxes(batch)[0, 4].tolist() == [10, 0, 20, 6]


@pytest.mark.parametrize("seed", range(20))
def test_best_anchors_go_by_falling_overlap(seed: int) -> None:
    """The same as taking the largest overlap that is left, again and again."""
    torch.manual_seed(seed)
    overlap = torch.rand(3, 7, 12) * (torch.rand(3, 7, 12) > 0.6)
    expected = torch.full((3, 12), -1)
    for image, left in enumerate(overlap.clone()):
        while left.max() > 0:
            row, anchor = divmod(int(left.argmax()), 12)
            expected[image, anchor] = row
            left[row], left[:, anchor] = 0, 0
    assert _best_of_each(overlap).tolist() == expected.tolist()


def test_an_object_off_the_anchors_is_left_out() -> None:
    assert labels(batch_of([(100, 100, 110, 110, 0)])) == [[0, 0, 0, 0, 0]]


def test_ignored_boxes_are_neither() -> None:
    """Anchors that lie in one with half of their area are no background; one with an object stays positive."""
    batch = batch_of([(0, 0, 16, 10, IGNORED), (10, 0, 20, 10, 0)])
    assert labels(batch) == [[-1, 1, 0, 0, 1]]
    assert labels(batch_of([(0, 0, 16, 10, IGNORED)])) == [[-1, -1, 0, 0, -1]]


def test_images_of_a_batch_keep_apart() -> None:
    batch = batch_of([(10, 0, 20, 10, 2)], [], [(0, 0, 10, 10, 0), (20, 0, 30, 10, 1)])
    assert labels(batch) == [[0, 3, 0, 0, 3], [0, 0, 0, 0, 0], [1, 0, 2, 0, 1]]
    own = torch.stack([ANCHORS, ANCHORS, ANCHORS + torch.tensor([20.0, 0, 20, 0])])  # each image has its own anchors
    assert match_anchors(own, batch).label.tolist() == [[0, 3, 0, 0, 3], [0, 0, 0, 0, 0], [2, 0, 0, 0, 2]]


def test_boxes_of_no_object_are_empty() -> None:
    """The row of an anchor without overlap may be padding or an ignored box; no IoU is taken with that."""
    batch = batch_of([(0, 0, 40, 10, IGNORED)])
    assert match_anchors(ANCHORS, batch).boxes(batch).abs().sum() == 0


# -- mining -----------------------------------------------------------------------------------------------------------
def test_the_hardest_are_taken() -> None:
    loss = torch.tensor([[0.1, 0.9, 0.5, 0.7, 0.8], [0.3, 0.3, 0.3, 0.2, 0.1]])
    eligible = torch.tensor([[True, False, True, True, True], [True] * 5])
    taken = hardest(loss, eligible, torch.tensor([2, 2]))
    assert taken.tolist() == [[False, False, False, True, True], [True, True, False, False, False]]


@pytest.mark.parametrize("count", [0, 3, 9])
def test_at_most_what_is_there(count: int) -> None:
    loss, eligible = torch.rand(1, 5), torch.tensor([[True, False, True, True, False]])
    taken = hardest(loss, eligible, torch.tensor([count]))
    assert int(taken.sum()) == min(count, 3)
    assert not (taken & ~eligible).any()


# -- the batch --------------------------------------------------------------------------------------------------------
def item(boxes: list[list[float]], classes: list[int], ignore: list[bool]) -> Item:
    canvas, placement = Preprocess(size=(64, 32)).canvas(np.zeros((32, 64, 3), np.uint8))
    xyxy = np.array(boxes, np.float32).reshape(-1, 4)
    return Item(canvas, Boxes(xyxy, np.array(classes, np.int64), np.array(ignore, bool)), 1, placement)


def test_the_batch_pads_and_marks() -> None:
    images, batch = box_collate([item([[1, 2, 3, 4], [5, 6, 7, 8]], [1, 0], [False, True]), item([], [], [])])
    assert images.shape == (2, 3, 32, 64)
    assert images.dtype == torch.uint8
    assert batch.labels.tolist() == [[1, IGNORED], [PADDING, PADDING]]
    assert batch.objects.tolist() == [[True, False], [False, False]]
    expected: Tensor = torch.tensor([[[1.0, 2, 3, 4], [5, 6, 7, 8]], [[0, 0, 0, 0], [0, 0, 0, 0]]])
    assert torch.equal(batch.boxes, expected)


def test_a_batch_without_a_box() -> None:
    batch = box_collate([item([], [], [])])[1]
    assert labels(batch) == [[0, 0, 0, 0, 0]]
