"""Drawings of why a network is slow: the roofline with a point per layer, and a bar per layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

from markupsafe import Markup

from .charts import BAR_HEIGHT, CHIP, Point, Spot, _chip, _free_offset, _line, _rect, _svg, _text
from .row import LayerTime, Row

MOST_LAYERS = 10
PLOT_HEIGHT = 380
DOT, LEAST_DOT = 14.0, 1.2  # radius of the slowest layer's point in pixels, and that of one which takes no time


class Decades(NamedTuple):
    """A logarithmic axis from 10^low to 10^high."""

    low: float
    high: float

    def share(self, value: float) -> float:
        """Place of a value on the axis, in percent; beyond its ends too."""
        return 100 * (math.log10(value) - self.low) / (self.high - self.low)

    def ticks(self) -> list[float]:
        """Powers of ten inside; with 2 and 5 between them on a short axis."""
        steps = (1, 2, 5) if self.high - self.low < 2.2 else (1,)
        powers = range(math.floor(self.low), math.ceil(self.high) + 1)
        return [f * 10.0**p for p in powers for f in steps if self.low <= math.log10(f * 10.0**p) <= self.high + 1e-9]


class Roof(NamedTuple):
    """One limit line. gops: the flat part; bandwidth: GB/s, the slope: x operations a byte may run at x times it."""

    name: str
    gops: float
    bandwidth: float


def decades(values: Sequence[float], room: float = 0.15) -> Decades:
    """The axis that holds all values (> 0), with some room and at least one decade."""
    low, high = math.log10(min(values)) - room, math.log10(max(values)) + room
    middle, half = (low + high) / 2, max((high - low) / 2, 0.5)
    return Decades(middle - half, middle + half)


def roofs(row: Row) -> list[Roof]:
    """The limits of the precisions in which the row's layers ran; empty where the peaks are not known."""
    if row.peaks is None or not row.peaks.bandwidth:
        return []
    used = dict.fromkeys(layer.precision or row.precision for layer in row.layers if layer.macs) or {
        row.precision: None
    }
    known = row.peaks.gops
    return [Roof(name, known[name], row.peaks.bandwidth) for name in used if known.get(name)]


def intensity(layer: LayerTime) -> float | None:
    """Operations (2 x MAC) for each byte moved; None where nothing is multiplied or the bytes are not known."""
    return 2 * layer.macs / layer.bytes if layer.macs and layer.bytes else None


def worst_layers(row: Row, count: int = MOST_LAYERS) -> list[LayerTime]:
    """The first of the row's layers: those where most time is lost against the roofline; of one without a bound all of
    its time counts, so that none is hidden.
    """
    return list(row.layers[:count])


def roofline(row: Row) -> Markup | None:
    """GOPS reached over operations per byte, both logarithmic, under the board's limits; a point's area is its time.

    Numbered are ``worst_layers``. None when there is no layer with both figures, or no limit is known.
    """
    limits = roofs(row)
    points = [(layer, x, layer.gops) for layer in row.layers if (x := intensity(layer)) and layer.gops]
    if not limits or not points:
        return None
    ridges = [roof.gops / roof.bandwidth for roof in limits]
    x_axis = decades([x for _, x, _ in points] + ridges)
    y_axis = decades([y for _, _, y in points] + [roof.gops for roof in limits])
    parts = _log_grid(x_axis, y_axis)
    for roof in limits:
        parts += _roof(roof, x_axis, y_axis)
    spots = {id(layer): (x_axis.share(x), _y(y_axis, y)) for layer, x, y in points}
    longest = max(layer.ms for layer, _, _ in points)
    parts += [_dot(layer, *spots[id(layer)], longest) for layer, _, _ in sorted(points, key=lambda p: -p[0].ms)]
    parts += _numbers(worst_layers(row), spots)
    parts += [_roof_name(roof, y_axis) for roof in limits]  # last, so that no point covers a name
    label = f"roofline of {len(points)} layers under " + ", ".join(f"{r.gops:.0f} GOPS {r.name}" for r in limits)
    return _svg(PLOT_HEIGHT, label, parts, "plot")


def _numbers(worst: Sequence[LayerTime], spots: dict[int, tuple[float, float]]) -> list[Markup]:
    """A numbered chip for each of the worst layers: beside its point, whose size it must not hide."""
    shown = [(number, layer, *spots[id(layer)]) for number, layer in enumerate(worst, 1) if id(layer) in spots]
    taken = [Spot(x, 0.0, y) for _, _, x, y in shown]
    lines, chips = [], []
    for number, layer, x, y in shown:
        offset = _free_offset(x, y, taken, PLOT_HEIGHT - CHIP)
        lines.append(_leader(x, y, offset))
        chips.append(_chip(Point(0.0, 0.0, number, "number", layer_title(layer)), x, y, offset, on_front=True))
    return lines + chips


def _leader(x: float, y: float, offset: tuple[float, float]) -> Markup:
    return Markup(
        '<svg x="{:.3f}%" y="{:.1f}" overflow="visible"><line class="leader" x1="0" y1="0" x2="{:.1f}" y2="{:.1f}"/>'
        "</svg>"
    ).format(x, y, *offset)


def _bound(layer: LayerTime) -> str:
    """The layer's class in the style sheet."""
    return f"bound-{layer.bound or 'unknown'}"


def _y(axis: Decades, value: float) -> float:
    return PLOT_HEIGHT * (1 - axis.share(value) / 100)


def _log_grid(x_axis: Decades, y_axis: Decades) -> list[Markup]:
    parts = []
    for value in y_axis.ticks():
        y = _y(y_axis, value)
        parts += [_line(0, y, 100, y, "grid"), _text(0, y + 4, f"{value:g}", "end", -8)]
    for value in x_axis.ticks():
        x = x_axis.share(value)
        parts += [_line(x, PLOT_HEIGHT, x, PLOT_HEIGHT + 5, "grid"), _text(x, PLOT_HEIGHT + 19, f"{value:g}", "middle")]
    return parts


def _roof(roof: Roof, x_axis: Decades, y_axis: Decades) -> list[Markup]:
    """The slope from where it enters the plot, and the flat part to the right end."""
    ridge = roof.gops / roof.bandwidth
    left = max(10**x_axis.low, 10**y_axis.low / roof.bandwidth)
    top = _y(y_axis, roof.gops)
    return [
        _line(x_axis.share(left), _y(y_axis, left * roof.bandwidth), x_axis.share(ridge), top, "roof"),
        _line(x_axis.share(ridge), top, 100, top, "roof"),
    ]


def _roof_name(roof: Roof, y_axis: Decades) -> Markup:
    name = f"{roof.name} {roof.gops:.0f} GOPS, {roof.bandwidth:.0f} GB/s"
    return _text(100, _y(y_axis, roof.gops) - 6, name, "end", style="tick roof-name")


def _dot(layer: LayerTime, x: float, y: float, longest: float) -> Markup:
    radius = max(LEAST_DOT, DOT * math.sqrt(layer.ms / longest)) if longest else LEAST_DOT
    return Markup(
        '<svg x="{:.3f}%" y="{:.1f}" overflow="visible"><g class="layer"><title>{}</title>'
        '<circle class="{}" r="{:.1f}"/></g></svg>'
    ).format(x, y, layer_title(layer), _bound(layer), radius)


def layer_title(layer: LayerTime) -> str:
    """What a pointer over the layer tells."""
    reached = f", {layer.gops:.1f} GOPS" if layer.gops else ""
    least = f", bound {layer.bound_ms:.3f} ms ({layer.bound})" if layer.bound_ms is not None else ""
    return f"{layer.name} ({layer.kind}), {layer.ms:.3f} ms, {100 * layer.share:.1f} %{reached}{least}"


def layer_bar(layer: LayerTime, longest: float) -> Markup:
    """The layer's time as a bar, of which the part that the roofline explains is solid. longest: ms of full width."""
    least = min(layer.bound_ms or 0.0, layer.ms)
    style = _bound(layer)
    width, solid = 100 * layer.ms / longest, 100 * least / longest
    parts = [_rect(0, 3, width, BAR_HEIGHT - 6, f"{style} lost", 3)]
    if solid:
        parts.append(_rect(0, 3, solid, BAR_HEIGHT - 6, style, 3))
    return _svg(BAR_HEIGHT, layer_title(layer), parts)
