"""Augmentation: boxes follow their pixels."""

from __future__ import annotations

import itertools

import cv2
import numpy as np
import pytest

from edgekit.data.augment import MIN_VISIBLE, Augment, Boxes, flip, flip_vertical, jitter_colour, window

STILL = Augment(flip=0, scale=(1, 1), shift=0, colour=0)


def boxes(*xyxy: tuple[float, float, float, float], ignore: tuple[bool, ...] | None = None) -> Boxes:
    n = len(xyxy)
    return Boxes(
        np.array(xyxy, np.float32).reshape(-1, 4), np.arange(n), np.array(ignore if ignore else [False] * n, bool)
    )


def picture(width: int = 96, height: int = 64) -> np.ndarray:
    """Every pixel different: blue counts columns, green rows."""
    image = np.zeros((height, width, 3), np.uint8)
    image[..., 0], image[..., 1] = np.arange(width), np.arange(height)[:, None]
    return image


def marked(box: tuple[int, int, int, int], width: int = 96, height: int = 64) -> np.ndarray:
    """White inside the box, black outside."""
    image = np.zeros((height, width, 3), np.uint8)
    image[box[1] : box[3], box[0] : box[2]] = 255
    return image


def white_box(image: np.ndarray) -> list[int]:
    """The box around the white pixels."""
    ys, xs = np.nonzero((image == 255).all(2))
    return [int(xs.min()), int(ys.min()), int(xs.max()) + 1, int(ys.max()) + 1]


def test_upside_down_is_its_own_inverse_and_boxes_follow() -> None:
    image, turned = flip_vertical(marked((10, 5, 30, 20)), boxes((10, 5, 30, 20)))
    assert turned.xyxy[0].tolist() == white_box(image) == [10, 44, 30, 59]
    back, same = flip_vertical(image, turned)
    np.testing.assert_array_equal(back, marked((10, 5, 30, 20)))
    assert same.xyxy[0].tolist() == [10, 5, 30, 20]
    always = Augment(flip=0, scale=(1, 1), shift=0, colour=0, flip_vertical=1.0)
    np.testing.assert_array_equal(always(marked((10, 5, 30, 20)), boxes(), np.random.default_rng(0))[0], image)


@pytest.mark.parametrize(("least", "ignored"), [(0.25, False), (0.5, False), (0.51, True), (1.0, True)])
def test_how_much_of_a_box_must_be_left(least: float, ignored: bool) -> None:
    _, cut = window(picture(), boxes((0, 0, 20, 20)), 10, 0, 40, 40, least)  # half of it
    assert cut.ignore.tolist() == [ignored]
    # a box that the picture's own border cuts is whole
    assert not window(picture(), boxes((0, 0, 20, 20)), 0, 0, 40, 40, least)[1].ignore.any()


# -- windows ----------------------------------------------------------------------------------------------------------
def test_a_window_inside_the_image() -> None:
    image, cut = window(picture(), boxes((30, 20, 40, 30)), left=24, top=16, width=48, height=32)
    np.testing.assert_array_equal(image, picture()[16:48, 24:72])
    assert cut.xyxy.tolist() == [[6, 4, 16, 14]]
    assert cut.labels.tolist() == [0]
    assert not cut.ignore.any()


def test_a_window_beyond_the_image_is_grey_there() -> None:
    image, cut = window(picture(8, 4), boxes((0, 0, 8, 4)), left=-2, top=-1, width=12, height=6)
    np.testing.assert_array_equal(image[1:5, 2:10], picture(8, 4))
    outside = np.ones((6, 12), bool)
    outside[1:5, 2:10] = False
    assert (image[outside] == 114).all()
    assert cut.xyxy.tolist() == [[2, 1, 10, 5]]


def test_a_window_that_misses_the_image() -> None:
    image, cut = window(picture(), boxes((0, 0, 10, 10)), left=500, top=0, width=32, height=32)
    assert (image == 114).all()
    assert len(cut.labels) == 0


@pytest.mark.parametrize(
    ("left", "ignored"),
    [
        (0, False),
        (12, False),  # 8 of 20 columns are left
        (15, False),  # exactly a quarter
        (16, True),
        (19, True),
    ],
)
def test_a_box_mostly_cut_away_is_ignored(left: int, ignored: bool) -> None:
    assert MIN_VISIBLE == 0.25
    _, cut = window(picture(), boxes((0, 0, 20, 20)), left, 0, 48, 48)
    assert cut.ignore.tolist() == [ignored]
    assert cut.xyxy.tolist() == [[0, 0, 20 - left, 20]]


def test_slivers_and_boxes_outside_are_dropped_and_labels_stay_with_their_boxes() -> None:
    before = boxes((0, 0, 10.5, 20), (20, 5, 30, 15), (90, 60, 96, 64), ignore=(False, True, False))
    _, cut = window(picture(), before, left=10, top=0, width=40, height=40)
    assert cut.xyxy.tolist() == [[10, 5, 20, 15]]
    assert cut.labels.tolist() == [1]
    assert cut.ignore.tolist() == [True]


# -- flip -------------------------------------------------------------------------------------------------------------
def test_flip_moves_boxes_with_their_pixels() -> None:
    box = (10, 20, 25, 50)
    image, flipped = flip(marked(box), boxes(box))
    assert flipped.xyxy.tolist() == [white_box(image)] == [[71, 20, 86, 50]]


def test_flip_twice_is_nothing() -> None:
    before = boxes((0, 1, 95.5, 64), (3, 4, 5, 6))
    image, after = flip(*flip(picture(), before))
    np.testing.assert_array_equal(image, picture())
    np.testing.assert_array_equal(after.xyxy, before.xyxy)


# -- colour -----------------------------------------------------------------------------------------------------------
class Fixed(np.random.Generator):
    """Brightness, contrast and saturation as told."""

    def __init__(self, *factors: float) -> None:
        super().__init__(np.random.PCG64(0))
        self.factors = np.array(factors)

    def uniform(self, *_: object, **__: object) -> np.ndarray:  # type: ignore[override]
        return self.factors


def test_colour_that_changes_nothing() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    np.testing.assert_array_equal(jitter_colour(image, 0, np.random.default_rng()), image)
    np.testing.assert_array_equal(jitter_colour(image, 0.5, Fixed(1, 1, 1)), image)


def test_brightness_scales_and_saturates() -> None:
    image = np.array([[[10, 100, 250]]], np.uint8)
    assert jitter_colour(image, 0.5, Fixed(1.5, 1, 1)).tolist() == [[[15, 150, 255]]]


def test_contrast_turns_about_the_mean() -> None:
    image = np.array([[[50] * 3, [150] * 3]], np.uint8)
    assert jitter_colour(image, 0.5, Fixed(1, 0.5, 1)).tolist() == [[[75] * 3, [125] * 3]]


def test_no_saturation_is_grey() -> None:
    image = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    grey = jitter_colour(image, 0.9, Fixed(1, 1, 0))
    assert np.ptp(grey.astype(int), axis=2).max() == 0
    assert np.abs(grey[..., 0].astype(int) - cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)).max() <= 1


def test_jitter_stays_within_its_strength() -> None:
    image = np.full((4, 4, 3), 100, np.uint8)
    values = [int(jitter_colour(image, 0.3, np.random.default_rng(seed))[0, 0, 0]) for seed in range(200)]
    assert 69 <= min(values) < 78  # grey: only brightness shows
    assert 122 < max(values) <= 131


# -- all together -----------------------------------------------------------------------------------------------------
def test_nothing_to_do() -> None:
    image, same = STILL(picture(), boxes((1, 2, 30, 40)), np.random.default_rng(0))
    np.testing.assert_array_equal(image, picture())
    assert same.xyxy.tolist() == [[1, 2, 30, 40]]


@pytest.mark.parametrize("seed", range(25))
def test_boxes_follow_their_pixels(seed: int) -> None:
    box = (30, 20, 60, 44)
    augment = Augment(flip=0.5, scale=(0.5, 2), shift=0.3, colour=0)
    image, after = augment(marked(box), boxes(box), np.random.default_rng(seed))
    if len(after.labels):
        assert after.xyxy.tolist() == [white_box(image)]
    else:
        assert not (image == 255).all(2).any()


@pytest.mark.parametrize(("zoom", "view"), itertools.product([0.5, 1, 2], [(1.0, 1.0), (0.5, 0.75)]))
def test_the_window_shows_its_share_of_the_image(zoom: float, view: tuple[float, float]) -> None:
    """At zoom 2 objects double, so the window is half; a crop's window is a share of the full input's."""
    augment = Augment(flip=0, scale=(zoom, zoom), shift=0, colour=0, view=view)
    image, _ = augment(picture(192, 128), boxes(), np.random.default_rng(0))
    assert image.shape == (round(128 * view[1] / zoom), round(192 * view[0] / zoom), 3)


def test_the_same_generator_gives_the_same_picture() -> None:
    augment = Augment()
    first, second = (augment(picture(), boxes((9, 9, 60, 60)), np.random.default_rng(5)) for _ in range(2))
    np.testing.assert_array_equal(first[0], second[0])
    np.testing.assert_array_equal(first[1].xyxy, second[1].xyxy)
    other, _ = augment(picture(), boxes((9, 9, 60, 60)), np.random.default_rng(6))
    assert other.shape != first[0].shape or (other != first[0]).any()


def test_windows_reach_every_part_of_the_image() -> None:
    augment = Augment(flip=0, scale=(2, 2), shift=0, colour=0)
    corners = [augment(picture(), boxes(), np.random.default_rng(s))[0][0, 0, :2] for s in range(300)]
    assert np.min(corners, 0).tolist() == [0, 0]
    assert np.max(corners, 0).tolist() == [48, 32]


def test_flip_has_its_probability() -> None:
    augment = Augment(flip=0.25, scale=(1, 1), shift=0, colour=0)
    flips = [augment(picture(), boxes(), np.random.default_rng(s))[0][0, 0, 0] != 0 for s in range(400)]
    assert 0.18 < np.mean(flips) < 0.32
