"""Drawing a result on its frame: boxes, tracks, counters and the numbers that do not lie about latency."""

from typing import Any

import cv2
import numpy as np

from ..colours import FONT, FONT_HEIGHT, INK, PAPER, class_colour, ink_on, line_width
from .counters import scaled
from .tracking import DOUBLE, NONE


def css_colour(class_id):
    """The same as ``#rrggbb``."""
    return "#{2:02x}{1:02x}{0:02x}".format(*class_colour(class_id))


def shown(result, score):
    """Indices of the boxes that people see: at least ``score``, and none twice on one tracked object."""
    return np.flatnonzero((result.detections.scores >= score) & (result.ids != DOUBLE))


class Painter(object):
    """``painter(result, live)`` -> a copy of the frame with everything on it. live: of ``Stats.readable``, or None."""

    def __init__(self, classes, score, title=""):
        self.classes = classes
        self.score = score
        self.title = title
        self._status: Any = (None, None)  # (what it was made of, ``status_text`` of it): the numbers change seldom

    def __call__(self, result, live=None):
        picture = result.frame.image.copy()
        line = line_width(picture.shape)
        for counter in result.counts:  # of this result: the counters themselves go on meanwhile, in another thread
            draw_counter(picture, counter, line)
        chosen = shown(result, self.score)
        for number, trail in result.trails.items():
            points = np.round(trail).astype(np.int32).reshape(-1, 1, 2)
            cv2.polylines(picture, [points], False, class_colour(number), line, cv2.LINE_AA)
        for i in chosen[::-1]:  # the surest is drawn last, on top
            self._box(picture, result, i, line)
        if live is not None:
            self._numbers(picture, [self.title] * bool(self.title) + status_lines(live))
        return picture

    def _numbers(self, picture, lines):
        made_of, text = self._status
        if made_of != (lines, picture.shape):
            text = status_text(picture.shape, lines)
            self._status = ((lines, picture.shape), text)
        lay(picture, text)

    def _box(self, picture, result, i, line):
        x1, y1, x2, y2 = (round(float(v)) for v in result.detections.boxes[i])
        class_id = int(result.detections.class_ids[i])
        colour, number = class_colour(class_id), int(result.ids[i])
        cv2.rectangle(picture, (x1, y1), (x2, y2), INK, line + 2)
        cv2.rectangle(picture, (x1, y1), (x2, y2), colour, line)
        text = "{} {:.0f}%".format(self.classes[class_id], 100 * result.detections.scores[i])
        label(picture, "#{} {}".format(number, text) if number != NONE else text, (x1, y1), colour, line)


def label(picture, text, corner, colour, line):
    """Text on a patch of colour above ``corner``, pushed into the picture where it would leave it."""
    scale, stroke, pad = (4 + 3.0 * line) / FONT_HEIGHT, max(1, line // 2), 1 + line
    (wide, high), base = cv2.getTextSize(text, FONT, scale, stroke)
    x = min(max(corner[0] - line, 0), max(picture.shape[1] - wide - 2 * pad, 0))
    y = max(corner[1] - high - base - pad, 0)
    cv2.rectangle(picture, (x, y), (x + wide + 2 * pad, y + high + base + pad), colour, cv2.FILLED)
    cv2.putText(picture, text, (x + pad, y + high + pad), FONT, scale, ink_on(colour), stroke, cv2.LINE_AA)


def draw_counter(picture, counter, line):
    """A count line or a zone (``to_dict`` of ``counters``), with its totals over all classes."""
    height, width = picture.shape[:2]
    points = np.round(scaled(counter["points"], width, height)).astype(np.int32)
    zone, totals = counter["kind"] == "zone", counter["totals"].values()
    cv2.polylines(picture, [points.reshape(-1, 1, 2)], zone, PAPER, line, cv2.LINE_AA)
    form, names = ("{}: {} now, {} in all", ("inside", "total")) if zone else ("{}: in {}, out {}", ("in", "out"))
    text = form.format(counter["name"], *(sum(t[n] for t in totals) for n in names))
    label(picture, text, tuple(int(v) for v in points[0]), PAPER, line)


def status_lines(live):
    """The numbers as people read them; what is not known is a dash, never a zero."""
    latency = live["latency_ms"]
    lines = [
        "latency p50 {} p90 {} p99 {} ms".format(*(number(latency[n], "{:.0f}") for n in ("p50", "p90", "p99"))),
        "age {} ms, {:.1f} fps shown of {:.1f} captured".format(
            number(live["age_ms"], "{:.0f}"), live["displayed_fps"], live["captured_fps"]
        ),
        "dropped {}, stale {}".format(live["dropped"], live["stale"]),
    ]
    return lines + ["{} {}".format(name, value) for name, value in sorted(live.get("sensors", {}).items())]


def number(value, form):
    return "-" if value is None else form.format(value)


def status_text(shape, lines):
    """Small text, uint8 BGR on black, for the upper left corner of a picture of ``shape``."""
    line = line_width(shape)
    scale, stroke, step = (3 + 2.5 * line) / FONT_HEIGHT, max(1, line // 2), int(9 + 4.5 * line)
    wide = max(cv2.getTextSize(text, FONT, scale, stroke)[0][0] for text in lines) + 4 * line
    patch = np.zeros((min(shape[0], step * len(lines) + 2 * line), min(shape[1], wide), 3), np.uint8)
    for row, text in enumerate(lines, 1):
        cv2.putText(patch, text, (2 * line, row * step), FONT, scale, PAPER, stroke, cv2.LINE_AA)
    return patch


def lay(picture, text):
    """Put the text on the picture's upper left corner, which gets dark for it."""
    under = picture[: text.shape[0], : text.shape[1]]
    under[:] = cv2.addWeighted(under, 1.0 / 3, text, 1.0, 0)
