"""Task-aligned learning against values worked out by hand."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from edgekit.models.heads.centernet import CenterMaps
from edgekit.recipe import AlignedSection, load_recipe
from edgekit.runtime.errors import BadConfig
from edgekit.training.matching import BoxBatch
from edgekit.training.tasks.aligned import Aligned, AlignedCriterion, align, pixel_boxes

STRIDE = 4


def batch_of(*images: list[tuple[float, float, float, float, int]], labelled: Tensor | None = None) -> BoxBatch:
    rows = max(map(len, images))
    boxes, labels = torch.zeros(len(images), rows, 4), torch.full((len(images), rows), -1)
    for i, objects in enumerate(images):
        for j, (*box, label) in enumerate(objects):
            boxes[i, j], labels[i, j] = torch.tensor(box), label
    return BoxBatch(boxes, labels, labelled)


def maps_of(size: float = 2.0, logit: float = 0.0, classes: int = 2, shape: tuple[int, int] = (4, 6)) -> CenterMaps:
    """Every pixel predicts a square of ``size`` strides around its own centre."""
    heatmap = torch.full((1, classes, *shape), logit)
    return CenterMaps(heatmap, torch.full((1, 2, *shape), size), torch.full((1, 2, *shape), 0.5), heatmap)


def found_in(maps: CenterMaps, batch: BoxBatch, **section: float) -> dict[int, tuple[int, float]]:
    """pixel -> (row of the object, t-hat)."""
    boxes, centres = pixel_boxes(maps, STRIDE)
    scores = maps.heatmap.flatten(2).transpose(1, 2).sigmoid()
    found: Aligned = align(scores, boxes, centres, batch, AlignedSection(**section))  # type: ignore[arg-type]
    assert found.pixel.unique().numel() == found.pixel.numel()
    rows = zip(found.pixel.tolist(), found.truth.tolist(), found.score.tolist(), strict=True)
    return {pixel: (row, score) for pixel, row, score in rows}


def test_boxes_of_pixels() -> None:
    boxes, centres = pixel_boxes(maps_of(), STRIDE)
    assert centres[7].tolist() == [6, 6]  # the second of the second row
    assert boxes[0, 7].tolist() == [2, 2, 10, 10]


def test_the_best_pixels_of_an_object_answer_for_it() -> None:
    """Two pixel centres lie in it. Their boxes overlap it by 64 of 72 and 40 of 96."""
    batch = batch_of([(2, 2, 11, 10, 1)])
    found = found_in(maps_of(), batch, top=3, alpha=1, beta=1)
    assert found == {7: (0, pytest.approx(8 / 9)), 8: (0, pytest.approx(5 / 12))}  # t-hat's largest: the best overlap
    assert found_in(maps_of(), batch, top=1) == {7: (0, pytest.approx(8 / 9))}


def test_scores_count_by_alpha() -> None:
    maps = maps_of()
    maps.heatmap[0, 1, 1, 2] = 100  # the right one is certain of class 1: t = 1 x 5/12 against 1/4 x 8/9
    found = found_in(maps, batch_of([(2, 2, 11, 10, 1)]), top=2, alpha=2, beta=1)
    assert found == {7: (0, pytest.approx(8 / 9 * (2 / 9) / (5 / 12))), 8: (0, pytest.approx(8 / 9))}


def test_a_pixel_has_the_object_it_overlaps_most() -> None:
    """Both would have pixel 7, which overlaps the larger one by 64 of 144."""
    batch = batch_of([(2, 2, 10, 10, 0), (0, 0, 12, 12, 1)])
    assert found_in(maps_of(), batch, top=1) == {7: (0, pytest.approx(1))}
    assert {row for row, _ in found_in(maps_of(), batch, top=3).values()} == {0, 1}


def test_an_object_between_pixels_has_the_nearest() -> None:
    found = found_in(maps_of(), batch_of([(8.5, 8.5, 9.5, 9.5, 0)]))
    assert list(found) == [14]
    assert found[14] == (0, pytest.approx(1 / 64))


def test_rows_that_are_no_objects_have_no_pixels() -> None:
    assert found_in(maps_of(), batch_of([(0, 0, 8, 8, -2), (0, 0, 0, 0, -1)])) == {}


def terms_of(maps: CenterMaps, batch: BoxBatch, **section: float) -> dict[str, float]:
    criterion = AlignedCriterion(AlignedSection(**section), torch.ones(maps.heatmap.shape[1]), STRIDE)  # type: ignore[arg-type]
    terms = criterion(maps, batch, lambda count: count.clamp(min=1))
    return {name: float(value) for name, value in terms.items()}


def test_terms_of_one_object() -> None:
    """48 scores of 1/2 cost log 2 each, whatever t-hat is; the one box is exact."""
    terms = terms_of(maps_of(), batch_of([(2, 2, 10, 10, 1)]), top=1, gamma=0, weight=3)
    assert terms == {
        "class": pytest.approx(48 * math.log(2)),
        "box": pytest.approx(0),
        "loss": pytest.approx(48 * math.log(2)),
    }


def test_the_focal_factor() -> None:
    """|t-hat - s|^2 is 1/4 everywhere: at the pixel of the object 1 - 1/2, elsewhere 1/2."""
    terms = terms_of(maps_of(), batch_of([(2, 2, 10, 10, 1)]), top=1, gamma=2)
    assert terms["class"] == pytest.approx(48 * math.log(2) / 4)


def test_boxes_count_by_their_score() -> None:
    """Both boxes fill their hull with the object, so GIoU is IoU: 8/9 and 5/12, which are the weights too."""
    terms = terms_of(maps_of(), batch_of([(2, 2, 11, 10, 1)]), top=2, alpha=1, beta=1, weight=2)
    first, second = 8 / 9, 5 / 12
    assert terms["box"] == pytest.approx((first * (1 - first) + second * (1 - second)) / (first + second))
    assert terms["loss"] == pytest.approx(terms["class"] + 2 * terms["box"])


def test_no_loss_where_a_class_has_no_labels_or_a_box_is_ignored() -> None:
    labelled = torch.tensor([[True, False]])
    only = terms_of(maps_of(), batch_of([(2, 2, 10, 10, 0)], labelled=labelled), top=1, gamma=0)
    assert only["class"] == pytest.approx(24 * math.log(2))
    beside = terms_of(maps_of(), batch_of([(2, 2, 10, 10, 0), (0, 0, 24, 16, -2)]), top=1, gamma=0)
    assert beside["class"] == pytest.approx(math.log(2))  # all are ignored but the object's pixel in its class


def test_an_image_without_objects_teaches_background() -> None:
    terms = terms_of(maps_of(), batch_of([(0, 0, 0, 0, -1)]), gamma=0)
    assert terms["class"] == pytest.approx(48 * math.log(2))
    assert terms["box"] == 0


def test_gradients_reach_scores_and_boxes() -> None:
    maps = CenterMaps(*(m.clone().requires_grad_() for m in maps_of()))
    criterion = AlignedCriterion(AlignedSection(), torch.ones(2), STRIDE)
    criterion(maps, batch_of([(1, 2, 11, 10, 1)]), lambda count: count.clamp(min=1))["loss"].backward()
    for map_ in maps[:3]:
        assert map_.grad is not None
        assert torch.isfinite(map_.grad).all()
        assert map_.grad.abs().sum() > 0


@pytest.mark.parametrize("override", ["loss.regions={spread: 0.5}", "loss.size=0.3", "loss.radius=cornernet"])
def test_what_aligned_does_not_read_is_refused(override: str) -> None:
    with pytest.raises(BadConfig, match="beside aligned"):
        load_recipe("mobile-centernet-w16-dhaka", ["loss.aligned={top: 9}", override])
