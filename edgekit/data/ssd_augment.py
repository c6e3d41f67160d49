"""SSD's augmentation: colour distortion, expansion, IoU-constrained crop, flip (Liu et al. 2016, sections 2.2, 3.6)."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from ..runtime.postprocess import box_iou
from .augment import Boxes, flip, gray_mix_rgb

MIN_IOUS = (None, 0.1, 0.3, 0.5, 0.7, 0.9, 0.0)  # None: the whole image; 0: any crop
TRIALS = 50
BRIGHTNESS, CONTRAST, SATURATION, HUE = 32, (0.5, 1.5), (0.5, 1.5), 18  # pixel values; factors; degrees


@dataclass(frozen=True)
class SsdAugment:
    """What may happen to a training image.

    flip, expand, distort, gray_mix: probabilities; distort is that of each of brightness, contrast, saturation and hue
    max_expand: the canvas is up to so many times as wide and high as the image
    fill: BGR of the canvas around the image, the mean that the network subtracts
    """

    flip: float = 0.5
    expand: float = 0.5
    max_expand: float = 4.0
    distort: float = 0.5
    gray_mix: float = 0.0
    fill: tuple[float, float, float] = (104.0, 117.0, 123.0)

    def __call__(self, image: np.ndarray, boxes: Boxes, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
        """uint8 BGR image [h, w, 3] and its boxes -> the same, changed. All randomness comes from ``rng``."""
        image = distort(image, self.distort, rng)
        if rng.random() < self.expand:
            image, boxes = expand(image, boxes, rng.uniform(1, self.max_expand), self.fill, rng)
        image, boxes = constrained_crop(image, boxes, rng)
        if rng.random() < self.flip:
            image, boxes = flip(image, boxes)
        if self.gray_mix and rng.random() < self.gray_mix:
            image = gray_mix_rgb(image)
        return image, boxes


def distort(image: np.ndarray, probability: float, rng: np.random.Generator) -> np.ndarray:
    """Brightness, contrast, saturation, hue, each with ``probability``; contrast before the last two or after them."""
    pixels = image.astype(np.float32)
    if rng.random() < probability:
        pixels += rng.uniform(-BRIGHTNESS, BRIGHTNESS)
    contrast = rng.uniform(*CONTRAST) if rng.random() < probability else 1.0
    early = rng.random() < 0.5
    pixels *= contrast if early else 1.0
    saturation = rng.uniform(*SATURATION) if rng.random() < probability else 1.0
    hue = rng.uniform(-HUE, HUE) if rng.random() < probability else 0.0
    if saturation != 1 or hue != 0:
        hsv = cv2.cvtColor(np.clip(pixels, 0, 255), cv2.COLOR_BGR2HSV)  # hue 0..360, value as the pixels
        hsv[..., 0] = (hsv[..., 0] + hue) % 360
        hsv[..., 1] = np.clip(hsv[..., 1] * saturation, 0, 1)
        pixels = np.asarray(cv2.cvtColor(hsv, cv2.COLOR_HSV2BGR), np.float32)
    pixels *= 1.0 if early else contrast
    return np.clip(np.rint(pixels), 0, 255).astype(np.uint8)


def expand(
    image: np.ndarray, boxes: Boxes, ratio: float, fill: tuple[float, float, float], rng: np.random.Generator
) -> tuple[np.ndarray, Boxes]:
    """The image somewhere on a canvas that is ``ratio`` times as wide and high: small objects become frequent."""
    height, width = image.shape[:2]
    canvas = np.empty((round(height * ratio), round(width * ratio), 3), np.uint8)
    canvas[:] = np.rint(fill)
    left = int(rng.integers(0, canvas.shape[1] - width + 1))
    top = int(rng.integers(0, canvas.shape[0] - height + 1))
    canvas[top : top + height, left : left + width] = image
    return canvas, Boxes(boxes.xyxy + np.array([left, top, left, top], np.float32), boxes.labels, boxes.ignore)


def constrained_crop(image: np.ndarray, boxes: Boxes, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
    """A crop of 0.3 to 1 of each side and of aspect 1/2 to 2 that overlaps an object by the drawn least IoU.

    Objects whose centre lies in the crop stay, clipped to it; what is left of others is background, as in SSD. Ignored
    boxes stay wherever the crop touches them: they count for no IoU, and what they show is no background. After TRIALS
    crops that do not fit, the whole image.
    """
    least = MIN_IOUS[int(rng.integers(len(MIN_IOUS)))]
    objects = boxes.xyxy[~boxes.ignore]
    if least is None or not len(objects):
        return image, boxes
    height, width = image.shape[:2]
    for _ in range(TRIALS):
        w, h = (int(side * rng.uniform(0.3, 1)) for side in (width, height))
        if not 0.5 <= w / max(h, 1) <= 2 or min(w, h) < 1:
            continue
        left, top = int(rng.integers(0, width - w + 1)), int(rng.integers(0, height - h + 1))
        crop = np.array([left, top, left + w, top + h], np.float32)
        if _centres_inside(objects, crop).any() and box_iou(objects, crop).max() >= least:
            return image[top : top + h, left : left + w], _cut(boxes, crop)
    return image, boxes


def _centres_inside(xyxy: np.ndarray, crop: np.ndarray) -> np.ndarray:
    centres = (xyxy[:, :2] + xyxy[:, 2:]) / 2
    inside: np.ndarray = ((centres > crop[:2]) & (centres < crop[2:])).all(1)
    return inside


def _cut(boxes: Boxes, crop: np.ndarray) -> Boxes:
    clipped = np.clip(boxes.xyxy, np.tile(crop[:2], 2), np.tile(crop[2:], 2)) - np.tile(crop[:2], 2)
    touched = (clipped[:, 2:] > clipped[:, :2]).all(1)
    keep = np.where(boxes.ignore, touched, _centres_inside(boxes.xyxy, crop))
    return Boxes(clipped, boxes.labels, boxes.ignore).select(keep)
