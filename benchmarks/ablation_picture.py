"""The picture of an ablation table: what each row changed, with its interval, beside what it changed in its paper."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

from trainings import change

from edgekit.measure.charts import Axis, nice_axis

WIDTH, LEFT, RIGHT, TOP, ROW, BOTTOM = 880, 400, 110, 66, 34, 40  # pixels
PAPER = "#888"
FOR, AGAINST, OPEN = "#1b7a3d", "#b3261e", "#1b6ca8"
COLOURS = {"agrees": FOR, "helps": FOR, "disagrees": AGAINST, "hurts": AGAINST, "cannot tell": OPEN}


def differences(lines: Sequence[Mapping[str, Any]], metric: str) -> str | None:
    """An SVG of the rows that are compared with another; None where there is none.

    lines: of ``ablations.lines``;  metric: how it is called beside the axis
    """
    compared = [line for line in lines if line["difference"] is not None]
    if not compared:
        return None
    axis, height = _axis(compared), TOP + ROW * len(compared) + BOTTOM
    published = any(line["published_difference"] is not None for line in compared)
    parts = [*_frame(axis, height, metric, published)]
    for place, line in enumerate(compared):
        parts += _row(line, place, axis)
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" font-family="sans-serif" '
        f'font-size="12" stroke-width="1.5">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def _axis(lines: Sequence[Mapping[str, Any]]) -> Axis:
    """From the lowest to the highest end of what is drawn, zero among it."""
    ends = [0.0, *(line["published_difference"] or 0.0 for line in lines)]
    ends += [line["difference"] + sign * (line["half_95"] or 0.0) for line in lines for sign in (-1, 1)]
    return nice_axis(min(ends), max(ends), 6)


def _x(value: float, axis: Axis) -> float:
    low, high = axis.ticks[0], axis.ticks[-1]
    return LEFT + (WIDTH - LEFT - RIGHT) * (value - low) / (high - low)


def _frame(axis: Axis, height: int, metric: str, published: bool) -> Iterator[str]:
    """The grid, and above it what the marks are."""
    paper = f', and <tspan fill="{PAPER}">◇ the paper\'s</tspan>' if published else ""
    yield (
        f'<text x="12" y="20" fill="#333">What each row changes, in points of {escape(metric)}: ours with the 95 % '
        f"interval over the seeds{paper}</text>"
    )
    yield (
        f'<text x="12" y="38"><tspan fill="{FOR}">as in the paper, or it helps</tspan> · '
        f'<tspan fill="{AGAINST}">the contrary, or it hurts</tspan> · '
        f'<tspan fill="{OPEN}">the seeds cannot tell</tspan></text>'
    )
    for tick in axis.ticks:
        x, stroke = f"{_x(tick, axis):.1f}", "#666" if tick == 0 else "#ddd"
        yield f'<line x1="{x}" x2="{x}" y1="{TOP - 10}" y2="{height - BOTTOM}" stroke="{stroke}"/>'
        yield f'<text x="{x}" y="{height - BOTTOM + 18}" text-anchor="middle">{f"{tick:+g}" if tick else 0}</text>'


def _row(line: Mapping[str, Any], place: int, axis: Axis) -> Iterator[str]:
    y, ours, half = TOP + ROW * (place + 0.5) - 5, line["difference"], line["half_95"]
    colour, x = COLOURS[line["verdict"]], _x(ours, axis)
    yield f'<text x="12" y="{y + 1}">{escape(line["title"])}</text>'
    yield f'<text x="12" y="{y + 14}" font-size="10" fill="#777">against {escape(line["against"])}</text>'
    if line["published_difference"] is not None:
        at = _x(line["published_difference"], axis)
        yield f'<path d="M{at - 6:.1f} {y} l6 -6 6 6 -6 6z" fill="none" stroke="{PAPER}"/>'
    if half is not None:
        low, high = _x(ours - half, axis), _x(ours + half, axis)
        ends = "".join(f"M{at:.1f} {y - 4} v8 " for at in (low, high))
        yield f'<path d="M{low:.1f} {y} H{high:.1f} {ends}" stroke="{colour}" fill="none"/>'
    fill = colour if half is not None else "white"  # one seed has no interval
    yield f'<circle cx="{x:.1f}" cy="{y}" r="4" fill="{fill}" stroke="{colour}"/>'
    yield f'<text x="{WIDTH - 12}" y="{y + 4}" text-anchor="end" fill="{colour}">{change(ours, half)}</text>'
