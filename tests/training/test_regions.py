"""Regions of TTFNet against values worked out by hand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch

from edgekit.models.heads.centernet import CenterMaps
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig
from edgekit.training.losses import CenterBatch, DetectionLoss
from edgekit.training.regions import Regions, region_loss, regions

SHAPE = (8, 12)


def of(*boxes: Sequence[float], spread: float = 0.5) -> Regions:
    return regions([np.array(boxes, np.float32).reshape(-1, 4)], SHAPE, spread)


def test_an_object_of_one_pixel_has_one_place() -> None:
    found = of([4.25, 2.5, 5.25, 3.0])
    assert found.places.tolist() == [[0, 2, 4]]
    assert found.boxes.tolist() == [[0.25, 0.5, 1.25, 1.0]]  # from the pixel's own corner
    assert found.share.tolist() == [1]


def test_weights_fall_off_as_a_gaussian_and_are_one_together() -> None:
    """Width 4, half of it is 2, so one pixel to each side; height 1: none. Sigma is 3/6."""
    found = of([3, 2, 7, 3])
    assert found.places.tolist() == [[0, 2, 4], [0, 2, 5], [0, 2, 6]]
    side = math.exp(-1 / (2 * 0.5**2))
    assert found.share.tolist() == pytest.approx([side / (1 + 2 * side), 1 / (1 + 2 * side), side / (1 + 2 * side)])
    assert found.boxes[0].tolist() == [-1, 0, 3, 1]
    assert found.boxes[2].tolist() == [-3, 0, 1, 1]


def test_the_smaller_object_takes_a_pixel_that_two_claim_and_centres_stay_with_their_own() -> None:
    large, small = [0.0, 0.0, 12.0, 8.0], [6.5, 4.5, 7.5, 5.5]
    found = of(small, large, spread=1.0)
    owners = {
        tuple(place[1:]): tuple(box) for place, box in zip(found.places.tolist(), found.boxes.tolist(), strict=True)
    }
    assert len(found.places) == 12 * 8
    assert owners[5, 7] == (-0.5, -0.5, 0.5, 0.5)  # the small one's centre
    assert owners[4, 6] == (-6, -4, 6, 4)  # the large one's
    assert found.share.sum() == pytest.approx(2)


@pytest.mark.parametrize("order", [[0, 1], [1, 0]])
def test_a_centre_of_two_objects_is_the_smaller_ones(order: list[int]) -> None:
    small, large = [4.0, 3.0, 5.0, 4.0], [1.0, 1.0, 8.0, 6.0]
    found = of(*[(small, large)[i] for i in order])
    (at,) = np.flatnonzero((found.places == torch.tensor([0, 3, 4])).all(1))
    assert found.boxes[at].tolist() == [0, 0, 1, 1]
    assert found.share.sum() == pytest.approx(2)


def test_an_object_at_the_border_keeps_what_is_inside() -> None:
    found = of([10, 6, 14, 10], spread=1.0)  # its centre (12, 8) is outside: the last pixel stands for it
    assert found.places[:, 1].max() == 7
    assert found.places[:, 2].max() == 11
    assert found.share.sum() == pytest.approx(1)


def test_images_of_a_batch_and_an_empty_one() -> None:
    one = np.array([[4, 2, 5, 3]], np.float32)
    found = regions([one, np.zeros((0, 4), np.float32), one], SHAPE, 0.5)
    assert found.places.tolist() == [[0, 2, 4], [2, 2, 4]]
    assert (of().places.shape, of().boxes.shape, of().share.shape) == ((0, 3), (0, 4), (0,))


def test_the_loss_of_a_box_that_covers_half() -> None:
    """Predicted 2x1 around the object's 1x1: IoU 1/2, hull = union, so 1 - GIoU is 1/2; a second place is exact."""
    size, offset = torch.zeros(1, 2, *SHAPE), torch.zeros(1, 2, *SHAPE)
    size[0, :, 2, 4], offset[0, :, 2, 4] = torch.tensor([2.0, 1.0]), torch.tensor([1.0, 0.5])
    size[0, :, 2, 5], offset[0, :, 2, 5] = torch.tensor([1.0, 1.0]), torch.tensor([-0.5, 0.5])
    places = torch.tensor([[0, 2, 4], [0, 2, 5]])
    goal = torch.tensor([[0.0, 0.0, 1.0, 1.0], [-1.0, 0.0, 0.0, 1.0]])
    found = Regions(places, goal, torch.tensor([0.75, 0.25]))
    assert float(region_loss("giou", size, offset, found)) == pytest.approx(0.75 * 0.5)


def test_it_takes_the_place_of_size_and_offset_in_eq_7() -> None:
    maps = CenterMaps(*(torch.zeros(1, c, *SHAPE, requires_grad=True) for c in (1, 2, 2, 4)))
    found = of([3, 2, 7, 3])
    one = torch.ones(1, 2)
    heat = torch.zeros(1, 1, *SHAPE)
    batch = CenterBatch(heat, torch.ones(1, 1, *SHAPE), torch.tensor([[0, 2, 5]]), one, one, None, found)
    terms: dict[str, Any] = DetectionLoss(torch.ones(1), box="iou", box_weight=3.0)(maps, batch, torch.tensor(1.0))
    assert set(terms) == {"focal", "box", "loss"}
    assert terms["box"].item() == pytest.approx(1)  # boxes without area overlap nothing
    assert terms["loss"].item() == pytest.approx(terms["focal"].item() + 3)


def test_gradients_reach_every_place_and_nothing_else() -> None:
    size = torch.full((1, 2, *SHAPE), 5.0, requires_grad=True)
    offset = torch.zeros(1, 2, *SHAPE, requires_grad=True)
    found = of([3, 2, 7, 3])
    region_loss("giou", size, offset, found).backward()
    assert size.grad is not None
    touched = torch.nonzero(size.grad.abs().sum(1))
    assert touched.tolist() == found.places.tolist()


@pytest.mark.parametrize("also", ["size: 0.2", "offset: 2", "l1_mean: objects"])
def test_what_regions_would_leave_unread_is_refused(also: str) -> None:
    with pytest.raises(BadConfig, match="beside regions"):
        load_recipe("mobile-centernet-w16-dhaka", [f"loss={{{also}, regions: {{}}}}"])
