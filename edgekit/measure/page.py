"""The report as one HTML page that needs no network: styles, drawings and pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from . import charts, charts_layers
from .draw import encode_jpeg, fit
from .history import Series, Step, change_text, earlier, newer_text, tracks, with_past
from .labels import by_machine, evaluated_on, labels, places, set_names, table_cells
from .matching import DISTURBED
from .row import COLUMNS, NOT_MEASURED, NUMERIC, SYMBOLS, Column, LayerTime, Row, Track
from .words import (
    conditions,
    file_facts,
    findings,
    machines,
    map_text,
    run_facts,
    span_names,
    speed,
    subtitle,
    verdict_text,
)

TEMPLATES = Path(__file__).resolve().parent / "templates"
PICTURE_SIZE = (960, 960)  # pixels that a picture in the page has at most
_TIMED = ("ms/frame p50", "p90", "fps")  # columns in which a row that was disturbed is not the best
_EVALUATED = ("mAP@0.5", "mAP")  # columns in which only rows with the same images and classes are compared


class Picture(NamedTuple):
    """A picture for the report. name: file name without suffix; image: uint8 BGR [h, w, 3]."""

    name: str
    title: str
    image: np.ndarray


def render_html(
    rows: Sequence[Row],
    pictures: Sequence[Picture] = (),
    title: str = "EdgeKit report",
    history: Sequence[Step] = (),
) -> str:
    """The whole page as text; ``write_report`` writes it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    views, past = _views(rows), earlier(history, rows)
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle(rows),
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        findings=findings(rows),
        conditions=conditions(rows),
        columns=COLUMNS,
        numeric=NUMERIC,
        rows=views,
        boards=_boards(views),
        precisions=list(dict.fromkeys(row.precision for row in rows)),
        span_names=span_names(rows),
        history=_histories(past, rows) if past else [],
        steps=[step.name for step in past],
        left_out=newer_text(history, rows),
        unmeasured=_unmeasured(rows),
        machines=machines(rows),
        pictures=[(p.title, _data_uri(p.image)) for p in pictures],
        version=__version__,
    )


class View(NamedTuple):
    """A row as the page shows it. place: the machine that it ran on; short: the label among the rows of its own."""

    number: int
    place: str
    label: str
    short: str
    row: Row
    cells: list[tuple[Column, str]]
    symbol: str
    verdict: str
    run: list[tuple[str, str]]
    file: list[tuple[str, str]]
    bar: str | None
    spans: str | None
    timeline: str | None
    histogram: charts.Histogram | None
    sensors: list[Strip]
    layers: Layers | None


class BoardView(NamedTuple):
    """The rows of one machine; only they are compared with each other. best: cells that are the best of their column.

    name: its board, with the processor where the report has several machines of that board
    """

    name: str
    rows: list[View]
    best: set[tuple[int, str]]
    scatters: list[Scatter]


class Scatter(NamedTuple):
    """Accuracy over latency on one evaluation set. title: its name where the machine has rows of several.

    quiet, disturbed: whether it has rows that nothing disturbed, and such that something did
    """

    title: str
    rows: list[View]
    svg: str
    quiet: bool
    disturbed: bool


class Strip(NamedTuple):
    """A sensor during the timed part."""

    name: str
    svg: str
    text: str


class Layers(NamedTuple):
    """Why a row is slow. bars: (number, layer, module, svg, text) of the worst ones; rest: what the others took."""

    roofline: str | None
    bars: Sequence[tuple[int, str, str, str, str]]
    rest: str
    how: str


class HistoryView(NamedTuple):
    """The history of one row: (metric, sparkline, value, change) for each."""

    label: str
    cells: list[tuple[str, str, str, str]]


def _views(rows: Sequence[Row]) -> list[View]:
    groups = by_machine(rows)
    limits = {
        place: 1.03 * max((r.latency.p90 or r.latency.p50 for r in group if r.latency), default=1.0)
        for place, group in groups.items()
    }
    spans = span_names(rows)
    absent = _unmeasured(rows)
    short = {place: iter(labels(group)) for place, group in groups.items()}
    return [
        _view(number, (place, name, next(short[place])), row, cells, limits[place], spans, absent)
        for number, (place, name, row, cells) in enumerate(
            zip(places(rows), labels(rows), rows, table_cells(rows), strict=True), 1
        )
    ]


def _unmeasured(rows: Sequence[Row]) -> list[str]:
    """Facts that no row has; they are told once instead of in every row."""
    known = {name for row in rows for name, value in run_facts(row) if value != NOT_MEASURED}
    return [name for name, _ in run_facts(rows[0]) if name not in known]


def _view(
    number: int,
    names: tuple[str, str, str],
    row: Row,
    cells: Sequence[str],
    limit: float,
    spans: Sequence[str],
    unmeasured: Sequence[str],
) -> View:
    """names: the machine, the label, and the short one; cells: of the table; limit: ms of the machine's longest bar"""
    latency = row.latency
    place, label, short = names
    return View(
        number=number,
        place=place,
        label=label,
        short=short,
        row=row,
        cells=list(zip(COLUMNS, cells, strict=True)),
        symbol=SYMBOLS[row.verdict.status],
        verdict=verdict_text(row),
        run=[fact for fact in run_facts(row) if fact[0] not in unmeasured],
        file=file_facts(row),
        bar=charts.latency_bar(latency.p50, latency.p90, limit, _style(row)) if latency else None,
        spans=charts.stacked_bar([(name, row.spans.get(name, 0.0)) for name in spans]) if row.spans else None,
        timeline=charts.timeline(row.samples, latency.p50) if latency and row.samples else None,
        histogram=charts.histogram(row.samples, latency.p50, latency.p90) if latency and row.samples else None,
        sensors=[_sensor(track) for track in row.tracks if len(track.values) > 1],
        layers=_layers(row) if row.layers else None,
    )


def _sensor(track: Track) -> Strip:
    text = f"{track.first:.4g} to {track.last:.4g} {track.unit}, from {track.min:.4g} to {track.max:.4g}"
    return Strip(track.name, charts.strip(track.seconds, track.values, f"{track.name}: {text}"), text)


def _layers(row: Row) -> Layers:
    worst = charts_layers.worst_layers(row)
    longest = max(layer.ms for layer in worst) or 1.0
    bars = [
        (n, layer.name, ", ".join(layer.modules), charts_layers.layer_bar(layer, longest), _layer_text(layer))
        for n, layer in enumerate(worst, 1)
    ]
    others = len(row.layers) - len(worst)
    left = sum(layer.ms for layer in row.layers) - sum(layer.ms for layer in worst)
    rest = f"The other {others} layers take {left:.2f} ms." if others else ""
    return Layers(charts_layers.roofline(row), bars, rest, _how(row))


def _layer_text(layer: LayerTime) -> str:
    least = f" ({layer.bound_ms:.3f} by {layer.bound})" if layer.bound_ms is not None else ""
    reached = f", {layer.gops:.1f} GOPS" if layer.gops else ""
    return f"{layer.ms:.3f} ms{least}{reached}"


def _how(row: Row) -> str:
    """On what the layers' times and the limits rest."""
    run, peaks = row.layer_run, row.peaks
    timed = f"Timed by {run.profiler}, mean of {run.runs} runs: {run.total_ms:.2f} ms in all" if run else ""
    plain = f" (inference without a profiler: {run.inference_ms:.2f} ms)" if run and run.inference_ms else ""
    limits = f"Limits: {peaks.source}{', ' + peaks.how if peaks.how else ''}" if peaks else "Limits: not known"
    return ". ".join(filter(None, [timed + plain, limits])) + "."


def _histories(history: Sequence[Step], rows: Sequence[Row]) -> list[HistoryView]:
    return [
        HistoryView(track.label, [_history_cell(series) for series in track.series])
        for track in with_past(tracks(history, rows))
    ]


def _history_cell(series: Series) -> tuple[str, str, str, str]:
    metric, dots = series.metric, series.dots
    titles = [f"{dot.step}: {metric.text(dot.value)}{' (disturbed)' if dot.disturbed else ''}" for dot in dots]
    svg = charts.sparkline([dot.value for dot in dots], titles, [dot.disturbed for dot in dots])
    return metric.title, svg, metric.text(dots[-1].value), change_text(series)


def _boards(views: Sequence[View]) -> list[BoardView]:
    return [
        BoardView(place, group, _best_cells(group), _scatters(group))
        for place in dict.fromkeys(view.place for view in views)
        for group in [[view for view in views if view.place == place]]
    ]


def _style(row: Row) -> str:
    return f"p-{row.precision}"


def _scatters(views: Sequence[View]) -> list[Scatter]:
    """A drawing for each evaluation set: mAP of other images or classes is no better and no worse.

    Rows without mAP are in none, and are told once, beside the last.
    """
    points = {view.number: point for view in views if (point := _point(view))}
    drawn = [view for view in views if view.number in points]
    names = set_names([view.row for view in drawn])
    digests = {evaluated_on(view.row): name for view, name in zip(drawn, names, strict=True)}
    found = []
    for digest, name in digests.items():
        others = [None] if digest == list(digests)[-1] else []
        shown = [view for view in views if evaluated_on(view.row) in (digest, *others)]
        own = [points[view.number] for view in shown if view.number in points]
        marks = {point.disturbed for point in own}
        title = f"evaluated on {name}" if len(digests) > 1 else ""
        found.append(Scatter(title, shown, charts.scatter(own), quiet=False in marks, disturbed=True in marks))
    return found


def _point(view: View) -> charts.Point | None:
    row = view.row
    if row.latency is None or row.accuracy is None:
        return None
    disturbed = _disturbed(row)
    told = f"{view.number} {view.label}, {speed(row)}{map_text(row)}{f', {row.verdict.status}' if disturbed else ''}"
    return charts.Point(row.latency.p50, 100 * row.accuracy.map50, view.number, _style(row), told, disturbed)


def _disturbed(row: Row) -> bool:
    return row.verdict.status in DISTURBED


def _best_cells(views: Sequence[View]) -> set[tuple[int, str]]:
    """(row number, header) of the best value of each column in which rows differ as printed.

    Of what was timed only runs that nothing disturbed can be the best; of mAP none where the images were not the same.
    """
    best = set()
    mixed = len({evaluated_on(view.row) for view in views if view.row.accuracy}) > 1
    for column in COLUMNS:
        if mixed and column.header in _EVALUATED:
            continue
        trusted = [v for v in views if column.header not in _TIMED or not _disturbed(v.row)]
        known = [(view.number, value) for view in trusted if (value := column.value(view.row)) is not None]
        shown = {number: column.style.format(value) for number, value in known}
        if column.better is None or len(set(shown.values())) < 2:
            continue
        pick = max if column.better == "high" else min
        top, _ = pick(known, key=lambda item: float(item[1]))
        best |= {(number, column.header) for number, text in shown.items() if text == shown[top]}
    return best


def _data_uri(image: np.ndarray) -> str:
    width, height = PICTURE_SIZE
    small = fit(image, width, height) if image.shape[1] > width or image.shape[0] > height else image
    return "data:image/jpeg;base64," + base64.b64encode(encode_jpeg(small)).decode("ascii")
