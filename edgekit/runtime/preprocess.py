"""The one definition of how an image becomes a network input; trainer, calibrator, evaluator and board all call it."""

import hashlib
import json
import math

import cv2
import numpy as np

INTERPOLATIONS = {
    "linear": cv2.INTER_LINEAR,
    "area": cv2.INTER_AREA,
    "nearest": cv2.INTER_NEAREST,
    "cubic": cv2.INTER_CUBIC,
}
MODES = ("stretch", "letterbox")
COLOURS = ("bgr", "rgb")
LAYOUTS = ("nhwc_uint8", "nchw_float")  # raw pixels, which the graph normalises, or normalised ones


class Placement(object):
    """Where an image landed on the canvas: ``canvas = original * (scale_x, scale_y) + (left, top)``, in pixels."""

    __slots__ = ("height", "left", "scale_x", "scale_y", "top", "width")

    def __init__(self, scale_x, scale_y, left, top, width, height):
        self.scale_x, self.scale_y, self.left, self.top = scale_x, scale_y, left, top
        self.width, self.height = width, height  # of the original image

    def to_canvas(self, boxes):
        """Boxes [n, 4] (xyxy) from original pixels to canvas pixels."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        return np.asarray(boxes, np.float32).reshape(-1, 4) * scale + shift

    def to_original(self, boxes):
        """Boxes [n, 4] (xyxy) from canvas pixels to original pixels, clipped to the image."""
        scale = np.array([self.scale_x, self.scale_y, self.scale_x, self.scale_y], np.float32)
        shift = np.array([self.left, self.top, self.left, self.top], np.float32)
        limit = np.array([self.width, self.height, self.width, self.height], np.float32)
        return np.clip((np.asarray(boxes, np.float32).reshape(-1, 4) - shift) / scale, 0, limit)


class Preprocess(object):
    """Geometry, colour and normalisation in one value.

    size: (width, height) of the network input in pixels
    mode: "stretch" resizes to the size whatever the aspect; "letterbox" keeps the aspect and pads both sides equally
    pad_value: grey level 0..255 of the letterbox border
    colour: channel order that the network was trained with; cv2 decodes to "bgr"
    mean, std: per channel in that order, on the 0..255 scale: ``x = (pixel - mean) / std``
    interpolation: "linear", "area", "nearest" or "cubic"

    Raises ValueError naming every field that is out of range.
    """

    FIELDS = ("size", "mode", "pad_value", "colour", "mean", "std", "interpolation")

    def __init__(
        self,
        size,
        mode="stretch",
        pad_value=114,
        colour="bgr",
        mean=(0.0, 0.0, 0.0),
        std=(255.0, 255.0, 255.0),
        interpolation="linear",
    ):
        self.size = tuple(int(v) for v in size)
        self.mode = mode
        self.pad_value = int(pad_value)
        self.colour = colour
        self.mean = tuple(float(v) for v in mean)
        self.std = tuple(float(v) for v in std)
        self.interpolation = interpolation
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self):
        if len(self.size) != 2 or min(self.size) < 1:
            yield "size: expected (width, height), both positive, got {}".format(self.size)
        if self.mode not in MODES:
            yield "mode: expected one of {}, got {!r}".format(", ".join(MODES), self.mode)
        if not 0 <= self.pad_value <= 255:
            yield "pad_value: expected 0..255, got {}".format(self.pad_value)
        if self.colour not in COLOURS:
            yield "colour: expected one of {}, got {!r}".format(", ".join(COLOURS), self.colour)
        finite = all(map(math.isfinite, self.mean + self.std))
        if len(self.mean) != 3 or len(self.std) != 3 or min(self.std) <= 0 or not finite:
            yield "mean, std: expected three finite numbers each, std positive, got {} and {}".format(
                self.mean, self.std
            )
        if self.interpolation not in INTERPOLATIONS:
            yield "interpolation: expected one of {}, got {!r}".format(
                ", ".join(sorted(INTERPOLATIONS)), self.interpolation
            )

    # -- the value ---------------------------------------------------------------------------------------------------
    def to_dict(self):
        return {
            name: list(v) if isinstance(v, tuple) else v for name, v in ((n, getattr(self, n)) for n in self.FIELDS)
        }

    @classmethod
    def from_dict(cls, values):
        unknown = sorted(set(values) - set(cls.FIELDS))
        if unknown:
            raise ValueError("unknown preprocess fields: {}".format(", ".join(unknown)))
        return cls(**values)

    def digest(self):
        """SHA-256 of the value; part of every key that depends on how images were prepared."""
        return hashlib.sha256(json.dumps(self.to_dict(), sort_keys=True).encode()).hexdigest()

    def __eq__(self, other):
        return isinstance(other, Preprocess) and self.to_dict() == other.to_dict()

    def __hash__(self):
        return hash(self.digest())

    def __repr__(self):
        return "Preprocess({})".format(", ".join("{}={!r}".format(n, getattr(self, n)) for n in self.FIELDS))

    # -- what it does ------------------------------------------------------------------------------------------------
    def place(self, width, height):
        """Placement of a width x height image on the canvas."""
        w, h = self.size
        if self.mode == "stretch":
            return Placement(w / float(width), h / float(height), 0, 0, width, height)
        scale = min(w / float(width), h / float(height))
        new_w, new_h = max(1, _rounded(width * scale)), max(1, _rounded(height * scale))
        # the scale that the rounded size really has: boxes must follow the pixels
        return Placement(new_w / float(width), new_h / float(height), (w - new_w) // 2, (h - new_h) // 2, width, height)

    def canvas(self, image):
        """uint8 BGR image [h, w, 3] -> (uint8 canvas [H, W, 3] in the network's colour order, Placement).

        The canvas is contiguous; it is the image itself where nothing had to be done.
        """
        if image is None or image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            found = "nothing" if image is None else "{} {}".format(image.dtype, image.shape)
            raise ValueError("expected a uint8 image [height, width, 3], got {}".format(found))
        height, width = image.shape[:2]
        where = self.place(width, height)
        flag = INTERPOLATIONS[self.interpolation]
        if self.mode == "stretch":
            out = image if (width, height) == self.size else cv2.resize(image, self.size, interpolation=flag)
        else:
            new_w, new_h = _rounded(width * where.scale_x), _rounded(height * where.scale_y)
            out = np.full((self.size[1], self.size[0], 3), self.pad_value, np.uint8)
            out[where.top : where.top + new_h, where.left : where.left + new_w] = (
                image if (new_w, new_h) == (width, height) else cv2.resize(image, (new_w, new_h), interpolation=flag)
            )
        return cv2.cvtColor(out, cv2.COLOR_BGR2RGB) if self.colour == "rgb" else np.ascontiguousarray(out), where

    def normalise(self, canvas):
        """uint8 canvas [H, W, 3] -> float32 [3, H, W]."""
        x = np.empty((3,) + canvas.shape[:2], np.float32)
        for channel, plane, mean, std in zip(x, cv2.split(canvas), self.mean, self.std):  # noqa: B905 - Python 3.6
            channel[...] = plane
            channel -= np.float32(mean)
            channel /= np.float32(std)
        return x

    def __call__(self, image, layout="nchw_float"):
        """uint8 BGR image -> (network input with batch axis, Placement).

        layout: "nchw_float" (normalised here) or "nhwc_uint8" (the graph normalises; the cheaper way on a CPU)
        """
        canvas, where = self.canvas(image)
        if layout == "nhwc_uint8":
            return canvas[None], where
        if layout == "nchw_float":
            return self.normalise(canvas)[None], where
        raise ValueError("layout: expected nchw_float or nhwc_uint8, got {!r}".format(layout))


def _rounded(value):
    return int(value + 0.5)
