"""SSD's augmentation, GrayMixRGB and Mosaic: boxes follow their pixels, and the draws follow the papers."""

import numpy as np
import pytest

from edgekit.data.augment import Boxes, gray_mix_rgb
from edgekit.data.coco import read_coco
from edgekit.data.dataset import DetectionDataset
from edgekit.data.mosaic import MARGIN, mosaic
from edgekit.data.ssd_augment import SsdAugment, constrained_crop, distort, expand
from edgekit.paths import share
from edgekit.runtime.preprocess import Preprocess

EVAL = share("calibration") / "dhaka-eval"


def marked(box, width=96, height=64, value=255):
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = value
    return image


def boxes(*xyxy):
    n = len(xyxy)
    return Boxes(np.array(xyxy, np.float32).reshape(-1, 4), np.arange(n), np.zeros(n, bool))


def white_box(image, value=255):
    ys, xs = np.nonzero((image == value).all(2))
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


# -- GrayMixRGB -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("bgr", "mixed"),
    [
        ((10, 200, 100), (148, 200, 100)),  # .114 * 10 + .587 * 200 + .299 * 100 = 148.44, for the smallest, blue
        ((200, 100, 10), (200, 100, 84)),  # .114 * 200 + .587 * 100 + .299 * 10 = 84.49, for red
        ((50, 20, 20), (50, 20, 23)),  # red and green are equal: the first in R, G, B order
        ((7, 7, 7), (7, 7, 7)),
    ],
)
def test_gray_mix_rgb_by_hand(bgr, mixed):
    before = np.array([[bgr]], np.uint8)
    assert gray_mix_rgb(before)[0, 0].tolist() == list(mixed)
    assert before[0, 0].tolist() == list(bgr)  # the image itself stays


# -- SSD --------------------------------------------------------------------------------------------------------------
def test_expansion_moves_the_box_with_its_pixels():
    for seed in range(20):
        ratio = 1 + seed / 6
        image, found = expand(
            marked((10, 20, 30, 40)), boxes((10, 20, 30, 40)), ratio, (4, 5, 6), np.random.default_rng(seed)
        )
        assert image.shape == (round(64 * ratio), round(96 * ratio), 3)
        assert found.xyxy[0].tolist() == white_box(image)
        if ratio > 1.5:
            assert (image == (4, 5, 6)).all(2).any()


def test_crops_keep_centres_and_clip_boxes_to_their_pixels():
    cropped = 0
    for seed in range(200):
        image, found = constrained_crop(marked((30, 20, 60, 50)), boxes((30, 20, 60, 50)), np.random.default_rng(seed))
        cropped += image.shape != (64, 96, 3)
        assert found.xyxy[0].tolist() == white_box(image)
        height, width = image.shape[:2]
        assert width >= 0.3 * 96 - 1
        assert height >= 0.3 * 64 - 1
        assert image.shape == (64, 96, 3) or 0.5 <= width / height <= 2
    assert 60 < cropped < 200


def test_an_object_whose_centre_is_outside_the_crop_is_dropped():
    pair = boxes((0, 0, 10, 10), (80, 50, 96, 64))
    for seed in range(200):
        image, found = constrained_crop(marked((0, 0, 10, 10)), pair, np.random.default_rng(seed))
        assert len(found.xyxy) >= 1
        assert (found.xyxy >= 0).all()
        assert (found.xyxy[:, 2:] <= np.array(image.shape[1::-1])).all()
        assert (found.xyxy[:, 2:] > found.xyxy[:, :2]).all()


def test_an_ignored_box_stays_wherever_the_crop_touches_it():
    """A crowd over the right two thirds, and one object at the left: the crowd's centre is often left out."""
    crowd = boxes((0, 20, 30, 50), (32, 0, 96, 64))._replace(ignore=np.array([False, True]))
    outside = 0
    for seed in range(200):
        image, found = constrained_crop(marked((32, 0, 96, 64)), crowd, np.random.default_rng(seed))
        assert not found.ignore.all()  # the object is what the crop was accepted for
        assert found.ignore.any() == image.any()
        for box in found.xyxy[found.ignore]:
            assert box.tolist() == white_box(image)
            outside += box[2] - box[0] < 32
    assert outside > 20


@pytest.mark.parametrize("crowd", [boxes(), boxes((0, 0, 96, 64))._replace(ignore=np.array([True]))])
def test_an_image_without_objects_is_never_cropped(crowd):
    for seed in range(20):
        image, found = constrained_crop(marked((0, 0, 4, 4)), crowd, np.random.default_rng(seed))
        assert image.shape == (64, 96, 3)
        np.testing.assert_array_equal(found.xyxy, crowd.xyxy)


def test_distortion_can_be_switched_off_and_changes_no_shape():
    image = np.random.default_rng(0).integers(0, 256, (16, 24, 3)).astype(np.uint8)
    np.testing.assert_array_equal(distort(image, 0.0, np.random.default_rng(1)), image)
    changed = [distort(image, 1.0, np.random.default_rng(seed)) for seed in range(8)]
    assert all(c.shape == image.shape and c.dtype == np.uint8 for c in changed)
    assert all(abs(c.astype(int) - image).mean() > 2 for c in changed)


def test_the_same_seed_gives_the_same_picture():
    coco = read_coco(EVAL / "annotations.json", EVAL / "images")
    preprocess = Preprocess(size=(128, 96))
    twice = [DetectionDataset(coco, preprocess, SsdAugment(gray_mix=0.5), seed=3, mosaic=0.5) for _ in range(2)]
    for index in range(6):
        one, other = (dataset[2, index] for dataset in twice)
        np.testing.assert_array_equal(one.canvas, other.canvas)
        np.testing.assert_array_equal(one.boxes.xyxy, other.boxes.xyxy)
    assert any((twice[0][0, i].canvas != twice[0][1, i].canvas).any() for i in range(3))


# -- Mosaic -----------------------------------------------------------------------------------------------------------
def test_mosaic_boxes_lie_on_their_own_pixels():
    values = (200, 210, 220, 230)
    for seed in range(30):
        parts = [
            (marked((12, 8, 84, 56), value=value), boxes((12, 8, 84, 56))._replace(labels=np.array([i])))
            for i, value in enumerate(values)
        ]
        image, found = mosaic(parts, Preprocess((96, 64)), np.random.default_rng(seed))
        assert image.shape == (64, 96, 3)
        for box, label in zip(found.xyxy, found.labels, strict=True):
            assert box.tolist() == white_box(image, values[label])
        assert len(found.xyxy) >= 3


def test_mosaic_scales_each_image_to_the_whole_size():
    parts = [(marked((0, 0, 192, 128), 192, 128, 255), boxes((0, 0, 192, 128))) for _ in range(4)]
    image, found = mosaic(parts, Preprocess((96, 64)), np.random.default_rng(0))
    assert (image == 255).all()
    assert found.xyxy[:, 2].max() == 96
    assert found.xyxy[:, 3].max() == 64
    areas = (found.xyxy[:, 2:] - found.xyxy[:, :2]).prod(1)
    assert areas.sum() == pytest.approx(96 * 64)


def test_a_mosaic_of_letterboxes_keeps_shapes_and_shows_no_more_border_than_it_must():
    """192x66 images are 96x33 on a canvas of 96x96: squares of 24 become squares of 12, and the border is grey 50."""
    preprocess = Preprocess((96, 96), "letterbox", pad_value=50)
    whole = 0
    for seed in range(30):
        parts = [
            (marked((100, 20, 124, 44), 192, 66, value), boxes((100, 20, 124, 44))._replace(labels=np.array([i])))
            for i, value in enumerate((200, 210, 220, 230))
        ]
        image, found = mosaic(parts, preprocess, np.random.default_rng(seed))
        for box, label in zip(found.xyxy, found.labels, strict=True):
            assert box.tolist() == white_box(image, (200, 210, 220, 230)[label])
            whole += (box[2:] - box[:2]).tolist() == [12, 12]
        _, y = (96 * np.random.default_rng(seed).uniform(MARGIN, 1 - MARGIN, 2)).astype(int)  # where it was cut
        assert ((image != 50).any(2).sum(0) == min(33, y) + min(33, 96 - y)).all()
    assert whole > 30


@pytest.mark.parametrize(("interpolation", "values"), [("nearest", {0, 240}), ("area", {120})])
def test_a_mosaic_is_resized_as_in_validation(interpolation, values):
    """Columns of 0 and 240 at half the size; nearest takes every second one."""
    image = np.zeros((128, 192, 3), np.uint8)
    image[:, :96:2], image[:, 97::2] = 240, 240
    found, _ = mosaic(
        [(image, boxes())] * 4, Preprocess((96, 64), interpolation=interpolation), np.random.default_rng(0)
    )
    assert set(found.flatten()) == values


@pytest.mark.parametrize(("least", "ignored"), [(0.0, 0), (1.0, 4)])
def test_boxes_that_a_mosaic_cuts_are_ignored_as_the_recipe_says(least, ignored):
    parts = [(marked((0, 0, 96, 64)), boxes((0, 0, 96, 64)))] * 4
    _, found = mosaic(parts, Preprocess((96, 64)), np.random.default_rng(0), least)
    assert found.ignore.sum() == ignored
    coco = read_coco(EVAL / "annotations.json", EVAL / "images")
    dataset = DetectionDataset(coco, Preprocess((96, 64)), mosaic=1.0, min_visible=least)
    assert any(dataset[0, i].boxes.ignore.any() for i in range(6)) == bool(ignored)


def test_the_colours_of_a_mosaic_are_swapped_once():
    """Blue images, and a network that reads RGB."""
    coco = read_coco(EVAL / "annotations.json", EVAL / "images")
    blue = lambda image, found, _: (np.full_like(image, (255, 0, 0)), found)  # noqa: E731
    item = DetectionDataset(coco, Preprocess((96, 64), colour="rgb"), blue, mosaic=1.0)[0, 0]
    assert (item.canvas == (0, 0, 255)).all()
