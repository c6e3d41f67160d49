"""Augmentation of a training image in its own pixels, before ``Preprocess``: flip, crop and colour, as CenterNet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import cv2
import numpy as np

MIN_VISIBLE = 0.25  # see Augment.min_visible


class Boxes(NamedTuple):
    """The boxes of one image while it is changed: xyxy float32 [n, 4] in pixels, labels [n], ignore [n]."""

    xyxy: np.ndarray
    labels: np.ndarray
    ignore: np.ndarray

    def select(self, keep: np.ndarray) -> Boxes:
        return Boxes(self.xyxy[keep], self.labels[keep], self.ignore[keep])


@dataclass(frozen=True)
class Augment:
    """What may happen to a training image, and how strongly.

    min_visible: a box that a crop leaves with less of its area is ignored: neither target nor background. Near 1 where
        annotators pass over objects that the picture's border cuts, or the network learns to report them

    flip: probability of mirroring left and right; flip_vertical: of turning upside down, for what has no upright
    scale: range of zoom, log-uniform (2 doubles the objects)
    shift: the window's centre moves by up to this share of the image. colour: strength of jitter, 0 for none
    view: share of the image's width and height that a window shows at zoom 1; under 1 when training on crops that are
        smaller than the network's input
    """

    flip: float = 0.5
    scale: tuple[float, float] = (0.6, 1.4)
    shift: float = 0.1
    colour: float = 0.4
    gray_mix: float = 0.0
    view: tuple[float, float] = (1.0, 1.0)
    flip_vertical: float = 0.0
    min_visible: float = MIN_VISIBLE

    def __call__(self, image: np.ndarray, boxes: Boxes, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
        """uint8 BGR image [h, w, 3] and its boxes -> the same, changed. All randomness comes from ``rng``."""
        image, boxes = self._crop(image, boxes, rng)
        if rng.random() < self.flip:
            image, boxes = flip(image, boxes)
        if self.flip_vertical and rng.random() < self.flip_vertical:
            image, boxes = flip_vertical(image, boxes)
        image = jitter_colour(image, self.colour, rng)
        if self.gray_mix and rng.random() < self.gray_mix:  # no draw when it is off: old trainings stay what they were
            image = gray_mix_rgb(image)
        return image, boxes

    def _crop(self, image: np.ndarray, boxes: Boxes, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
        height, width = image.shape[:2]
        zoom = float(np.exp(rng.uniform(*np.log(self.scale))))
        dx, dy = rng.uniform(-self.shift, self.shift, 2)
        w, h = (max(32, round(side * view / zoom)) for side, view in zip((width, height), self.view, strict=True))
        # a window smaller than the image may lie anywhere in it; a larger one is centred; then both are shifted
        left = rng.uniform(0, width - w) if w < width else (width - w) / 2
        top = rng.uniform(0, height - h) if h < height else (height - h) / 2
        return window(image, boxes, round(left + dx * width), round(top + dy * height), w, h, self.min_visible)


def window(
    image: np.ndarray,
    boxes: Boxes,
    left: int,
    top: int,
    width: int,
    height: int,
    min_visible: float = MIN_VISIBLE,
) -> tuple[np.ndarray, Boxes]:
    """Cut a window out of an image; what lies outside the image is grey. Boxes are clipped to the window.

    A box that keeps less than ``min_visible`` of its area becomes ignored; one that keeps less than a pixel of width
    or height is dropped.
    """
    h, w = image.shape[:2]
    out = np.full((height, width, 3), 114, np.uint8)
    x1, y1, x2, y2 = max(left, 0), max(top, 0), min(left + width, w), min(top + height, h)
    if x1 < x2 and y1 < y2:
        out[y1 - top : y2 - top, x1 - left : x2 - left] = image[y1:y2, x1:x2]
    moved = boxes.xyxy - np.array([left, top, left, top], np.float32)
    clipped = np.clip(moved, 0, np.array([width, height, width, height], np.float32))
    visible = _area(clipped) / np.maximum(_area(moved), 1e-6)
    cut = Boxes(clipped, boxes.labels, boxes.ignore | (visible < min_visible))
    return out, cut.select((clipped[:, 2] - clipped[:, 0] >= 1) & (clipped[:, 3] - clipped[:, 1] >= 1))


def flip(image: np.ndarray, boxes: Boxes) -> tuple[np.ndarray, Boxes]:
    """Mirror left and right."""
    width = image.shape[1]
    xyxy = boxes.xyxy.copy()
    xyxy[:, [0, 2]] = width - boxes.xyxy[:, [2, 0]]
    return cv2.flip(image, 1), Boxes(xyxy, boxes.labels, boxes.ignore)


def flip_vertical(image: np.ndarray, boxes: Boxes) -> tuple[np.ndarray, Boxes]:
    """Turn top to bottom."""
    height = image.shape[0]
    xyxy = boxes.xyxy.copy()
    xyxy[:, [1, 3]] = height - boxes.xyxy[:, [3, 1]]
    return cv2.flip(image, 0), Boxes(xyxy, boxes.labels, boxes.ignore)


def jitter_colour(image: np.ndarray, strength: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast and saturation, each by a factor in 1 +- strength, as one linear map of the channels."""
    if not strength:
        return image
    brightness, contrast, saturation = rng.uniform(1 - strength, 1 + strength, 3)
    grey = np.array([0.114, 0.587, 0.299], np.float32)  # of B, G, R
    mix = saturation * np.eye(3, dtype=np.float32) + (1 - saturation) * np.tile(grey, (3, 1))
    gain = brightness * contrast
    mean = sum(cv2.sumElems(image)) / image.size  # exact, as image.mean() is, in a tenth of its time
    bias = brightness * (1 - contrast) * mean
    matrix = np.concatenate([gain * mix, np.full((3, 1), bias)], axis=1)
    return cv2.transform(image, matrix)  # rounds and saturates to uint8


def gray_mix_rgb(image: np.ndarray) -> np.ndarray:
    """GrayMixRGB (Lightweight SSD, section 3.4.2): the smallest channel of every pixel becomes the pixel's grey value.

    uint8 BGR [h, w, 3]. Grey is 0.299 R + 0.587 G + 0.114 B; of equal channels the first in R, G, B order is replaced.
    The printed program never resets its minimum from pixel to pixel; it has to.
    """
    grey = cv2.cvtColor(image, cv2.COLOR_BGR2GRAY)
    smallest = 2 - image[..., ::-1].argmin(axis=2)  # argmin takes the first, so the order is turned to R, G, B
    mixed = image.copy()
    np.put_along_axis(mixed, smallest[..., None], grey[..., None], axis=2)
    return mixed


def _area(boxes: np.ndarray) -> np.ndarray:
    return (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
