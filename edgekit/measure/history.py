"""History: the same rows over many reports, one report per commit. A folder of report.json files is all it takes.

The file's name without ``.json`` is what the commit is called; the order is that of the rows' own time of measurement,
a report being as old as its newest row. Only what can be compared stands in one line: mAP of the same images, times of
the same machine.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from statistics import median
from typing import NamedTuple

from ..runtime.errors import BadInput
from ..words import counted
from .matching import DISTURBED, group_rows, machine_differences, measured_at, measurement
from .metrics import METRICS, Metric
from .row import Row

SHOWN = ("mAP50", "size", "gops", "latency")
_BARS = "▁▂▃▄▅▆▇█"
MOST_BARS = 24  # of the last steps, in text
THIS_REPORT = "this report"  # the step of the rows whose history is asked for
_MOST_NAMES = 5  # of steps, in a sentence
_UNKNOWN = datetime.min.replace(tzinfo=timezone.utc)


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
    """One metric of one row over the steps that have it, the oldest first; at least one dot.

    left_out: steps that have it too, measured on other images (mAP) or on another machine (times) than the last one
    """

    metric: Metric
    dots: tuple[Dot, ...]
    left_out: int = 0

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
        found = "is no folder" if place.exists() else "no such folder"
        raise BadInput(f"{place}: {found}. A history is a folder of report.json files, one for each commit")
    files = sorted(place.glob("*.json"))
    if not files:
        raise BadInput(
            f"{place}: holds no report. Put one there for each commit: "
            f"cp runs/demo/report.json {place}/$(git rev-parse --short HEAD).json"
        )
    steps = [Step(file.stem, read_report(file)) for file in files]
    return sorted((step for step in steps if step.rows), key=lambda step: (_when(step.rows) or _UNKNOWN, step.name))


def _when(rows: Sequence[Row]) -> datetime | None:
    """When the newest of them was measured; None where no row tells."""
    return max((time for row in rows if (time := measured_at(row)) is not None), default=None)


def earlier(steps: Sequence[Step], rows: Sequence[Row]) -> list[Step]:
    """The steps that are older than ``rows``, without what these hold themselves: the report may be in the folder."""
    own = _measurements(rows)
    left = [Step(s.name, tuple(row for row in s.rows if measurement(row) not in own)) for s in _split(steps, rows)[0]]
    return [step for step in left if step.rows]


def newer_text(steps: Sequence[Step], rows: Sequence[Row]) -> str:
    """Which steps are newer than ``rows`` and no past of them, for a reader who put them there; "" without one."""
    names = [step.name for step in _split(steps, rows)[1]]
    if not names:
        return ""
    more = f" and {len(names) - _MOST_NAMES} more" if len(names) > _MOST_NAMES else ""
    told = f"{', '.join(names[:_MOST_NAMES])}{more}"
    return f"{counted(len(names), 'step')} of the history newer than this report, so left out: {told}"


def _split(steps: Sequence[Step], rows: Sequence[Row]) -> tuple[list[Step], list[Step]]:
    """The steps before ``rows`` and those after them; one that holds all of these is the report itself."""
    own, when = _measurements(rows), _when(rows)
    sides: tuple[list[Step], list[Step]] = [], []
    for step in steps:
        time = _when(step.rows)
        if not own or not own <= _measurements(step.rows):
            sides[bool(when and time and time > when)].append(step)
    return sides


def _measurements(rows: Sequence[Row]) -> set[str]:
    return {same for row in rows if (same := measurement(row)) is not None}


def tracks(steps: Sequence[Step], rows: Sequence[Row] = (), metrics: Sequence[str] = SHOWN) -> list[Track]:
    """The history of every row of the last step; or of ``rows``, up to them."""
    if rows:
        steps = [*earlier(steps, rows), Step(THIS_REPORT, tuple(rows))]
    if not steps:
        return []
    grouped = group_rows(*(step.rows for step in steps))
    found = []
    for key in grouped[-1]:
        runs = [(step.name, group.get(key, [])) for step, group in zip(steps, grouped, strict=True)]
        series = [_series(METRICS[name], runs) for name in metrics]
        found.append(Track(key.label, tuple(s for s in series if s is not None)))
    return found


def with_past(found: Sequence[Track]) -> list[Track]:
    """The rows that an earlier step has too; all of them where none has."""
    return [track for track in found if any(len(series.dots) > 1 for series in track.series)] or list(found)


def _series(metric: Metric, runs: Sequence[tuple[str, Sequence[Row]]]) -> Series | None:
    """runs: the rows of each step. None where no row has the metric."""
    known = [(name, [row for row in rows if metric.value(row) is not None]) for name, rows in runs]
    known = [(name, rows) for name, rows in known if rows]
    if not known:
        return None
    last = known[-1][1][0]
    like = [(name, [row for row in rows if _comparable(metric, row, last)]) for name, rows in known]
    dots = tuple(_dot(metric, name, rows) for name, rows in like if rows)
    return Series(metric, dots, len(known) - len(dots))


def _comparable(metric: Metric, row: Row, last: Row) -> bool:
    if row.accuracy and last.accuracy and metric.of_images:
        return row.accuracy.set_digest == last.accuracy.set_digest
    return not (metric.of_machine and machine_differences(row, last))


def _dot(metric: Metric, name: str, rows: Sequence[Row]) -> Dot:
    quiet = [row for row in rows if row.verdict.status not in DISTURBED]
    values = [float(value) for row in quiet or rows if (value := metric.value(row)) is not None]
    return Dot(name, median(values), not quiet and metric.of_machine)


def spark_text(values: Sequence[float]) -> str:
    """A line of bars, the lowest value the lowest bar: for Markdown and the terminal."""
    low, high = min(values), max(values)
    if high == low:
        return _BARS[3] * len(values)
    return "".join(_BARS[round((value - low) / (high - low) * (len(_BARS) - 1))] for value in values)


def change_text(series: Series) -> str:
    """``+3.1 %`` against the step before, in points where the metric is in percent; empty for the first step.

    A value that was measured on a disturbed machine says so: here a bar of text has no hollow dot. So do steps that
    cannot be compared with the last one, and are in no line.
    """
    disturbed = "disturbed" if series.dots[-1].disturbed else ""
    return ", ".join(filter(None, [_change(series), disturbed, _left_out(series)]))


def _left_out(series: Series) -> str:
    if not series.left_out:
        return ""
    where = "on other images" if series.metric.of_images else "on another machine"
    return f"{counted(series.left_out, 'step')} {where} left out"


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
