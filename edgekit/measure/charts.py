"""Small SVG drawings for the report, as text.

Horizontal places are percentages and everything else is pixels, so a drawing fills its box at any width while letters
and lines keep their size. Colours come from the page's style sheet by class.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from markupsafe import Markup, escape

BAR_HEIGHT = 22
PLOT_HEIGHT, MOST_HEIGHT = 300, 520  # of a scatter plot; it grows with its points
STRIP_HEIGHT = 72
CHIP = 10  # radius of a numbered point
WIDTHS = (
    300,
    420,
    560,
    720,
    900,
    1080,
)  # pixels of plot width, from a phone to a desktop; chips collide on none of them
BINS = 48
MOST_POINTS = 600  # a longer timeline is drawn as the span between the lowest and highest frame of each piece


class Point(NamedTuple):
    """A numbered point of a scatter plot. style: its class in the style sheet; title: shown on hover and read aloud.

    disturbed: its x is not to be relied on, so it beats no other
    """

    x: float
    y: float
    number: int
    style: str
    title: str
    disturbed: bool = False


class Axis(NamedTuple):
    """A range that starts and ends on a round number, and the round numbers in it."""

    low: float
    high: float
    ticks: tuple[float, ...]

    def share(self, value: float) -> float:
        """Place of a value on the axis, in percent."""
        return 100 * (value - self.low) / (self.high - self.low)


def nice_axis(low: float, high: float, count: int = 5) -> Axis:
    """The smallest axis with steps of 1, 2 or 5 times a power of ten that holds low..high in about ``count`` steps."""
    high = high if high > low else low + max(abs(low), 1.0) * 0.1
    raw = (high - low) / count
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * f for f in (1, 2, 5, 10) if power * f >= raw * 0.999)
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 10) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], ticks)


def pareto(points: Sequence[Point]) -> list[Point]:
    """The points, by x, that no other beats: one that is at most as slow (x), at least as accurate (y), and better in
    one of the two. Of equal points none beats the other. Disturbed ones neither beat nor are on the front.
    """
    front: list[Point] = []
    for point in sorted((p for p in points if not p.disturbed), key=lambda p: (p.x, -p.y)):
        if not front or point.y > front[-1].y or (point.x, point.y) == (front[-1].x, front[-1].y):
            front.append(point)
    return front


def latency_bar(p50: float, p90: float | None, limit: float, style: str) -> Markup:
    """A bar to p50 with a whisker to p90, where ``limit`` ms is the full width."""
    middle = BAR_HEIGHT / 2
    parts = [_rect(0, 3, 100 * p50 / limit, BAR_HEIGHT - 6, style, 3)]
    label = f"p50 {p50:.2f} ms"
    if p90 is not None:
        label += f", p90 {p90:.2f} ms"
        parts.append(_line(100 * p50 / limit, middle, 100 * p90 / limit, middle, "whisker"))
        parts.append(_line(100 * p90 / limit, middle - 6, 100 * p90 / limit, middle + 6, "whisker"))
    return _svg(BAR_HEIGHT, label, parts)


def stacked_bar(shares: Sequence[tuple[str, float]]) -> Markup:
    """Parts of a whole, side by side. shares: (name, any amount >= 0); the n-th has the class ``span-n``."""
    total = sum(amount for _, amount in shares) or 1.0
    parts, x = [], 0.0
    for number, (name, amount) in enumerate(shares):
        width = 100 * amount / total
        parts.append(_rect(x, 3, width, BAR_HEIGHT - 6, f"span-{number}", 0, f"{name} {width:.1f} %"))
        x += width
    return _svg(BAR_HEIGHT, ", ".join(f"{name} {100 * amount / total:.1f} %" for name, amount in shares), parts)


def scatter(points: Sequence[Point], y_digits: int = 0) -> Markup:
    """Points over a grid, x from 0, with the Pareto front (small x, large y) as a staircase; the others are hollow, and
    disturbed ones dashed.
    """
    x_axis = nice_axis(0, max(p.x for p in points))
    ys = [p.y for p in points]
    spread = max(max(ys) - min(ys), 1.0)
    front = pareto(points)
    y_axis = nice_axis(max(0.0, min(ys) - 0.35 * spread), max(ys) + 0.35 * spread)

    height = min(MOST_HEIGHT, max(PLOT_HEIGHT, 24 * len(points)))

    def place(x: float, y: float) -> tuple[float, float]:
        return x_axis.share(x), height * (1 - y_axis.share(y) / 100)

    parts = [*_grid(x_axis, y_axis, y_digits, height), *_staircase([place(p.x, p.y) for p in front])]
    taken: list[Spot] = []
    chips = []
    for point in points:
        x, y = place(point.x, point.y)
        offset = _free_offset(x, y, taken, height - CHIP)
        parts += _anchor(point, x, y, offset)  # below every chip, so that none of them is covered
        chips.append(_chip(point, x, y, offset, point in front))
    parts += chips
    return _svg(height, "accuracy over latency: " + "; ".join(p.title for p in points), parts, "plot")


def _grid(x_axis: Axis, y_axis: Axis, y_digits: int, height: float) -> list[Markup]:
    parts = []
    for value in y_axis.ticks:
        y = height * (1 - y_axis.share(value) / 100)
        parts += [_line(0, y, 100, y, "grid"), _text(0, y + 4, f"{value:.{_digits(y_axis, y_digits)}f}", "end", -8)]
    for value in x_axis.ticks:
        x = x_axis.share(value)
        parts += [_line(x, height, x, height + 5, "grid"), _text(x, height + 19, f"{value:g}", "middle")]
    return parts


def _digits(axis: Axis, least: int) -> int:
    return max(least, -math.floor(math.log10(axis.ticks[1] - axis.ticks[0]) + 1e-9))


def _staircase(front: Sequence[tuple[float, float]]) -> list[Markup]:
    parts = []
    for (x1, y1), (x2, y2) in zip(front, [*front[1:], *((100.0, y) for _, y in front[-1:])], strict=True):
        parts += [_line(x1, y1, x2, y1, "front"), _line(x2, y1, x2, y2, "front")]
    return parts


class Spot(NamedTuple):
    """The middle of a chip: ``dx`` pixels beside ``share`` percent of the width, ``y`` pixels from the top."""

    share: float
    dx: float
    y: float

    def touches(self, other: Spot) -> bool:
        """Whether two chips cover each other on a page of any width from a phone's to a desktop's."""
        return any(
            math.hypot((self.share - other.share) / 100 * width + self.dx - other.dx, self.y - other.y) < 2 * CHIP + 2
            for width in WIDTHS
        )


def _free_offset(x: float, y: float, taken: list[Spot], lowest: float) -> tuple[float, float]:
    """Pixels by which a chip moves from its point so that it covers no other chip; remembers where it lies.

    x: percent of the width; y: pixels from the top, at most ``lowest``
    """
    narrow = WIDTHS[0]
    for dx, dy in _RINGS:
        spot = Spot(x, float(dx), y + dy)
        inside = CHIP <= spot.y <= lowest and CHIP <= x / 100 * narrow + dx <= narrow
        if inside and not any(map(spot.touches, taken)):
            taken.append(spot)
            return float(dx), float(dy)
    taken.append(Spot(x, 0.0, y))
    return 0.0, 0.0


# Of pi, clockwise from the right; first above, then below
_ANGLES = np.pi * np.array((-0.5, 0.5, -0.25, -0.75, 0.25, 0.75, 0.0, 1.0))
_RINGS = (
    (0.0, 0.0),
    *((r * math.cos(a), r * math.sin(a)) for r in (24, 46, 68) for a in _ANGLES),
    # between those directions too where it is full, for a board with dozens of rows
    *((r * math.cos(a + b), r * math.sin(a + b)) for r in range(90, 301, 22) for b in (0, np.pi / 8) for a in _ANGLES),
)


def _anchor(point: Point, x: float, y: float, offset: tuple[float, float]) -> list[Markup]:
    """Where a chip that moved belongs: a dot, and a line to the chip."""
    if not any(offset):
        return []
    return [
        Markup(
            '<svg x="{:.3f}%" y="{:.1f}" overflow="visible"><line class="leader" x1="0" y1="0" x2="{:.1f}" '
            'y2="{:.1f}"/><circle class="{} anchor" r="4"/></svg>'
        ).format(x, y, *offset, point.style)
    ]


def _chip(point: Point, x: float, y: float, offset: tuple[float, float], on_front: bool) -> Markup:
    dx, dy = offset
    kind = " ".join(["point", *["behind"] * (not on_front), *["disturbed"] * point.disturbed])
    return Markup(
        '<svg x="{:.3f}%" y="{:.1f}" overflow="visible"><g class="{}"><title>{}</title>'
        '<circle class="{}" cx="{:.1f}" cy="{:.1f}" r="{}"/><text class="on" x="{:.1f}" y="{:.1f}">{}</text></g></svg>'
    ).format(x, y, kind, point.title, point.style, dx, dy, CHIP, dx, dy + 4, point.number)


def timeline(samples: Sequence[float], p50: float) -> Markup:
    """Every frame's latency in order, from 0 to the slowest, with p50 as a dashed line."""
    top = max(samples)
    ys = 100 * (1 - np.asarray(samples, np.float64) / top)
    if len(ys) <= MOST_POINTS:
        shape = '<polyline class="trace" points="{}"/>'
        places = [(1000 * i / max(1, len(ys) - 1), y) for i, y in enumerate(ys)]
    else:
        shape = '<polygon class="envelope" points="{}"/>'
        pieces = np.array_split(ys, MOST_POINTS)
        xs = np.linspace(0, 1000, MOST_POINTS)
        upper, lower = [p.min() for p in pieces], [p.max() for p in pieces]
        places = [*zip(xs, upper, strict=True), *zip(xs[::-1], lower[::-1], strict=True)]
    path = Markup(shape).format(" ".join(f"{x:.1f},{y:.2f}" for x, y in places))
    stretched = Markup(
        '<svg width="100%" height="{}" viewBox="0 0 1000 100" preserveAspectRatio="none" overflow="visible">{}</svg>'
    ).format(STRIP_HEIGHT, path)
    y50 = STRIP_HEIGHT * (1 - p50 / top)
    label = f"latency of {len(samples)} frames in order, slowest {top:.2f} ms"
    base = _line(0, STRIP_HEIGHT, 100, STRIP_HEIGHT, "axis")
    return _svg(STRIP_HEIGHT, label, [stretched, _line(0, y50, 100, y50, "median"), base])


class Histogram(NamedTuple):
    """svg, its range in ms, and how many frames were slower than the range; those are in the last bar."""

    svg: Markup
    low: float
    high: float
    beyond: int


def histogram(samples: Sequence[float], p50: float, p90: float | None) -> Histogram:
    """How often each latency came. Rare slow frames stand in a bar of their own, so that the rest can be seen."""
    values = np.asarray(samples, np.float64)
    tail = float(np.percentile(values, 90))
    low, high = float(values.min()), float(min(values.max(), max(tail + 2 * (tail - p50), 1.05 * p50)))
    high = high if high > low else low + max(low, 1e-3) * 0.01
    counts, _ = np.histogram(values[values <= high], bins=BINS - 1, range=(low, high))
    beyond = int((values > high).sum())
    heights = STRIP_HEIGHT * np.append(counts, beyond) / max(counts.max(), beyond, 1)
    parts = [
        _rect(100 * i / BINS, STRIP_HEIGHT - h, 94 / BINS, h, "beyond" if i == BINS - 1 else "bin")
        for i, h in enumerate(heights)
        if h > 0
    ]
    for value, style in ((p50, "median"), (p90, "p90")):
        if value is not None and value <= high:
            x = 100 * (BINS - 1) / BINS * (value - low) / (high - low)
            parts.append(_line(x, 0, x, STRIP_HEIGHT, style))
    parts.append(_line(0, STRIP_HEIGHT, 100, STRIP_HEIGHT, "axis"))
    label = f"histogram of {len(samples)} frames from {low:.2f} to {high:.2f} ms, {beyond} slower"
    return Histogram(_svg(STRIP_HEIGHT, label, parts), low, high, beyond)


def strip(seconds: Sequence[float], values: Sequence[float], label: str, height: int = 40) -> Markup:
    """A sensor's values over time, between their lowest and highest with a little room."""
    low, high = min(values), max(values)
    room = max(0.15 * (high - low), 0.01 * max(abs(high), 1e-9))
    start, length = seconds[0], max(seconds[-1] - seconds[0], 1e-9)
    places = [
        (1000 * (t - start) / length, 100 * (high + room - v) / (high - low + 2 * room))
        for t, v in zip(seconds, values, strict=True)
    ]
    return _svg(height, label, [_trace(places, height), _line(0, height, 100, height, "axis")])


def sparkline(values: Sequence[float], titles: Sequence[str], hollow: Sequence[bool], height: int = 34) -> Markup:
    """A small line over the steps of a history with a dot at each; the last one is larger.

    titles: told on hover; hollow: dots that were measured on a disturbed machine
    """
    low, high = min(values), max(values)
    spread = (high - low) or 1.0
    ys = [height / 2 if high == low else 5 + (height - 10) * (high - v) / spread for v in values]
    xs = [
        100 * (i + 0.5) / len(values) if len(values) < 3 else 4 + 92 * i / (len(values) - 1) for i in range(len(values))
    ]
    parts = [_line(x1, y1, x2, y2, "spark") for x1, y1, x2, y2 in zip(xs, ys, xs[1:], ys[1:], strict=False)]
    for i, (x, y, title) in enumerate(zip(xs, ys, titles, strict=True)):
        style = "dot hollow" if hollow[i] else "dot"
        radius = 3.5 if i == len(values) - 1 else 2.0
        parts.append(
            Markup('<circle class="{}" cx="{:.3f}%" cy="{:.1f}" r="{}"><title>{}</title></circle>').format(
                style, x, y, radius, title
            )
        )
    return _svg(height, f"{len(values)} steps: " + "; ".join(titles), parts, "sparks")


def _trace(places: Sequence[tuple[float, float]], height: int) -> Markup:
    """A line in a box of 1000 x 100 that is stretched over the width."""
    return Markup(
        '<svg width="100%" height="{}" viewBox="0 0 1000 100" preserveAspectRatio="none" overflow="visible">'
        '<polyline class="trace" points="{}"/></svg>'
    ).format(height, " ".join(f"{x:.1f},{y:.2f}" for x, y in places))


# -- elements: x in percent, y in pixels ------------------------------------------------------------------------------
def _svg(height: float, label: str, parts: Sequence[Markup], style: str = "") -> Markup:
    return Markup(
        '<svg class="chart {}" width="100%" height="{}" overflow="visible" role="img" aria-label="{}">{}</svg>'
    ).format(style, height, label, Markup("").join(parts))


def _rect(x: float, y: float, width: float, height: float, style: str, radius: int = 0, title: str = "") -> Markup:
    inner = Markup("<title>{}</title>").format(title) if title else ""
    return Markup('<rect class="{}" x="{:.3f}%" y="{:.1f}" width="{:.3f}%" height="{:.1f}" rx="{}">{}</rect>').format(
        style, x, y, width, height, radius, inner
    )


def _line(x1: float, y1: float, x2: float, y2: float, style: str) -> Markup:
    return Markup('<line class="{}" x1="{:.3f}%" y1="{:.1f}" x2="{:.3f}%" y2="{:.1f}"/>').format(style, x1, y1, x2, y2)


def _text(x: float, y: float, text: str, anchor: str, dx: int = 0, style: str = "tick") -> Markup:
    return Markup('<text class="{}" x="{:.3f}%" y="{:.1f}" dx="{}" text-anchor="{}">{}</text>').format(
        style, x, y, dx, anchor, escape(text)
    )
