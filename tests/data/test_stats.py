"""What a set holds, counted by hand."""

from pathlib import Path

import numpy as np
import pytest

import edgekit
from edgekit.data.coco import CocoSet, Sample, read_coco
from edgekit.data.stats import class_weights, set_stats, typical_samples
from edgekit.paths import share
from edgekit.runtime.errors import BadConfig, BadInput
from edgekit.runtime.images import read_image

EVAL = share("calibration") / "dhaka-eval"


def sample(image_id, boxes, labels, ignore=None):
    boxes = np.array(boxes, np.float32).reshape(-1, 4)
    ignore = np.zeros(len(boxes), bool) if ignore is None else np.array(ignore)
    return Sample(Path(f"{image_id}.jpg"), image_id, 640, 480, boxes, np.array(labels, np.int64), ignore)


def test_counts_sizes_and_weights():
    samples = (
        sample(1, [[0, 0, 31, 33], [200, 100, 232, 132], [0, 0, 96, 96], [0, 0, 5, 5]], [0, 0, 0, 1]),
        sample(2, [[0, 0, 9, 9]], [1], [True]),
        sample(3, [], []),
    )
    stats = set_stats(CocoSet(Path("a.json"), Path(), samples, ("car", "bus"), (1, 2), ("a note",)))
    assert (stats["images"], stats["images_without_boxes"], stats["boxes"]) == (3, 2, 4)
    assert stats["boxes_per_image"] == {"min": 0, "median": 0, "max": 4}
    assert stats["image_sizes"] == {"640x480": 3}
    assert stats["notes"] == ["a note"]
    # 31 x 33 is 1023 square pixels, under COCO's 32 x 32; 96 x 96 is large
    assert stats["per_class"]["car"] == {
        "boxes": 3, "ignored": 0, "images": 1, "small": 1, "medium": 1, "large": 1, "median_size": [32, 33],
        "class_weight": 1,
    }  # fmt: skip
    assert stats["per_class"]["bus"] == {
        "boxes": 1, "ignored": 1, "images": 1, "small": 1, "medium": 0, "large": 0, "median_size": [5, 5],
        "class_weight": 10,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("counts", "weights"),
    # (W - 1) / (r_max^g - 1) * (r^g - 1) + 1 with g = .75, W = 10: 16^.75 = 8, 81^.75 = 27
    [([16, 1], [1, 10]), ([81, 81 / 16, 1], [1, 1 + 9 / 26 * 7, 10]), ([5, 5], [1, 1]), ([8, 0, 1], [1, 1, 10])],
)
def test_class_weights(counts, weights):
    assert class_weights(counts) == pytest.approx(weights)


def test_typical_samples_show_the_rarest_class_first_and_never_twice():
    coco = read_coco(EVAL / "annotations.json", EVAL / "images")
    chosen = typical_samples(coco, 12)
    assert len(chosen) == len({s.image_id for s in chosen}) == 12
    rarest = int(coco.class_counts().argmin())
    assert (chosen[0].labels == rarest).any()
    assert {int(label) for s in chosen for label in s.labels} == set(range(len(coco.classes)))


@pytest.mark.parametrize("count", [31, 40, 50, 59, 60, 70])
def test_typical_samples_leave_no_part_of_the_set_out(count):
    """More than half of a set were its beginning: of 60 images in 100 none came after the 88th."""
    coco = read_coco(EVAL / "annotations.json", EVAL / "images")
    chosen = typical_samples(coco, count)
    assert len(chosen) == min(count, len(coco))
    places = sorted(coco.samples.index(s) for s in chosen)
    assert max(np.diff([-1, *places, len(coco)])) <= 5


def test_the_sheet_is_a_picture_and_conversion_keeps_every_box(tmp_path):
    coco = edgekit.data_check(EVAL / "annotations.json")
    stats = edgekit.data_stats(coco, sheet=tmp_path / "sheet.jpg", count=4)
    assert read_image(tmp_path / "sheet.jpg").shape[0] > 300
    again = edgekit.data_check(edgekit.data_convert(coco, out=tmp_path / "x.json"), images=coco.images)
    np.testing.assert_allclose(again.samples[3].boxes, coco.samples[3].boxes, atol=1e-3)
    yolo = edgekit.data_check(edgekit.data_convert(coco, out=tmp_path / "y", layout="yolo"), layout="yolo")
    for other in (again, yolo):
        assert edgekit.data_stats(other)["boxes"] == stats["boxes"]


@pytest.mark.parametrize(
    ("call", "error", "said"),
    [
        (lambda: edgekit.data_check(Path("data.yaml")), BadInput, "--layout"),
        (lambda: edgekit.data_check(Path("nothing.json")), BadInput, "no such annotation file"),
        (lambda: edgekit.data_check(Path("nothing.yaml"), layout="yolo"), BadInput, "no such file"),
        (lambda: edgekit.data_check(EVAL, layout="voc"), BadInput, "no XML file"),
        (lambda: edgekit.data_check(EVAL / "annotations.json", class_map="bdd100k"), BadConfig, "bdd100k-traffic4"),
        (lambda: edgekit.data_convert(None, out=Path("x"), layout="voc"), BadConfig, "layout to write"),
    ],
)
def test_mistakes_are_named(call, error, said):
    with pytest.raises(error, match=said):
        call()
