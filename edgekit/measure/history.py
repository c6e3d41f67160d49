"""History: the same rows over many reports, one report per commit. A folder of report.json files is all it takes.

The file's name without ``.json`` is what the commit is called; the order is that of the rows' own time of measurement.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..runtime.errors import BadInput
from .matching import DISTURBED, group_rows
from .metrics import METRICS, Metric
from .row import Row

SHOWN = ("mAP50", "size", "gops", "latency")
_BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 24  # of the last steps, in text


class Step(NamedTuple):
    """One report of the history. name: how it is called, usually a commit."""

    name: str
    rows: tuple[Row, ...]


class Dot(NamedTuple):
    """A metric at one step: the median of its runs. disturbed: every one of them was."""

    step: str
    value: float
    disturbed: bool


class Series(NamedTuple):
    """One metric of one row over the steps that have it, the oldest first; at least one dot."""

    metric: Metric
    dots: tuple[Dot, ...]

    @property
    def change(self) -> float | None:
        """From the last step but one to the last, relative; None for one step or from 0."""
        if len(self.dots) < 2 or self.dots[-2].value == 0:
            return None
        return self.dots[-1].value / self.dots[-2].value - 1


class Track(NamedTuple):
    """The history of one row."""

    label: str
    series: tuple[Series, ...]


def read_history(folder: str | Path) -> list[Step]:
    """The reports of a folder, the oldest first. Raises BadInput when there is none, or naming a damaged one."""
    from .report import read_report

    place = Path(folder)
    if not place.is_dir():
        raise BadInput(f"{place}: no such folder. A history is a folder of report.json files, one for each commit")
    files = sorted(place.glob("*.json"))
    if not files:
        raise BadInput(
            f"{place}: holds no report. Put one there for each commit: "
            f"cp runs/demo/report.json {place}/$(git rev-parse --short HEAD).json"
        )
    steps = [Step(file.stem, read_report(file)) for file in files]
    return sorted((step for step in steps if step.rows), key=lambda step: (_when(step.rows), step.name))


def _when(rows: Sequence[Row]) -> str:
    return min((row.started for row in rows if row.started), default="")


def tracks(steps: Sequence[Step], rows: Sequence[Row] = (), metrics: Sequence[str] = SHOWN) -> list[Track]:
    """The history of every row of the last step, or of ``rows`` when they are newer: these are the step "now"."""
    known = [row for step in steps for row in step.rows]
    if rows and not all(row in known for row in rows):
        steps = [*steps, Step("now", tuple(rows))]
    if not steps:
        return []
    grouped = group_rows(*(step.rows for step in steps))
    found = []
    for key in grouped[-1]:
        runs = [(step.name, group.get(key, [])) for step, group in zip(steps, grouped, strict=True)]
        series = [Series(METRICS[name], tuple(_dots(METRICS[name], runs))) for name in metrics]
        found.append(Track(key.label, tuple(s for s in series if s.dots)))
    return found


def with_past(found: Sequence[Track]) -> list[Track]:
    """The rows that an earlier step has too; all of them where none has."""
    return [track for track in found if any(len(series.dots) > 1 for series in track.series)] or list(found)


def _dots(metric: Metric, runs: Sequence[tuple[str, Sequence[Row]]]) -> Iterator[Dot]:
    for name, rows in runs:
        quiet = [row for row in rows if row.verdict.status not in DISTURBED]
        values = [float(value) for row in quiet or rows if (value := metric.value(row)) is not None]
        if values:
            yield Dot(name, median(values), not quiet and metric.noise is not None)


def spark_text(values: Sequence[float]) -> str:
    """A line of bars, the lowest value the lowest bar: for Markdown and the terminal."""
    low, high = min(values), max(values)
    if high == low:
        return _BARS[3] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def change_text(series: Series) -> str:
    """``+3.1 %`` against the step before, in points where the metric is in percent; empty for the first step.

    A value that was measured on a disturbed machine says so: here a bar of text has no hollow dot.
    """
    return ", ".join(filter(None, [_change(series), "disturbed" if series.dots[-1].disturbed else ""]))


def _change(series: Series) -> str:
    if len(series.dots) < 2:
        return ""
    before, now = series.dots[-2].value, series.dots[-1].value
    if now == before:
        return "no change"
    if series.metric.unit == "%":
        return f"{now - before:+.2f} pt"
    return "" if series.change is None else f"{series.change:+.1%}"


def history_cells(found: Sequence[Track]) -> tuple[list[str], list[list[str]]]:
    """Headers and lines of one table: for each row and metric the bars, the last value and its change."""
    titles = dict.fromkeys(series.metric.title for track in found for series in track.series)
    body = []
    for track in found:
        known = {title: " ".join(filter(None, texts)) for title, *texts in history_lines(track)}
        body.append([track.label, *(known.get(title, "-") for title in titles)])
    return ["row", *titles], body


def history_lines(track: Track) -> list[list[str]]:
    """Of one row: a metric, its bars, its last value and that one's change."""
    return [
        [
            series.metric.title,
            spark_text([dot.value for dot in series.dots[-MOST_BARS:]]),
            series.metric.text(series.dots[-1].value),
            change_text(series),
        ]
        for series in track.series
    ]
