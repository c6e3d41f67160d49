"""The report as one HTML page that needs no network: styles, drawings and pictures are inside."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jinja2 import Environment, FileSystemLoader, StrictUndefined

from .. import __version__
from . import charts
from .draw import encode_jpeg, fit
from .row import COLUMNS, NUMERIC, SYMBOLS, Column, Row, table_cells
from .words import (
    conditions,
    file_facts,
    findings,
    labels,
    machines,
    map_text,
    run_facts,
    speed,
    subtitle,
    verdict_text,
)

TEMPLATES = Path(__file__).resolve().parent / "templates"
PICTURE_SIZE = (960, 960)  # pixels that a picture in the page has at most


class Picture(NamedTuple):
    """A picture for the report. name: file name without suffix; image: uint8 BGR [h, w, 3]."""

    name: str
    title: str
    image: np.ndarray


def render_html(rows: Sequence[Row], pictures: Sequence[Picture] = (), title: str = "EdgeKit report") -> str:
    """The whole page as text; ``write_report`` writes it."""
    environment = Environment(
        loader=FileSystemLoader(TEMPLATES),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        title=title,
        subtitle=subtitle(rows),
        css=(TEMPLATES / "report.css").read_text(encoding="utf-8"),
        findings=findings(rows),
        conditions=conditions(rows),
        columns=COLUMNS,
        numeric=NUMERIC,
        rows=[_view(number, rows) for number in range(1, len(rows) + 1)],
        best=_best_cells(rows),
        precisions=list(dict.fromkeys(row.precision for row in rows)),
        span_names=list(dict.fromkeys(name for row in rows for name in row.spans)),
        scatter=_scatter(rows),
        machines=machines(rows),
        pictures=[(p.title, _data_uri(p.image)) for p in pictures],
        version=__version__,
    )


class View(NamedTuple):
    """A row as the page shows it."""

    number: int
    label: str
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


def _view(number: int, rows: Sequence[Row]) -> View:
    row = rows[number - 1]
    latency = row.latency
    limit = 1.03 * max((r.latency.p90 or r.latency.p50 for r in rows if r.latency), default=1.0)
    names = dict.fromkeys(name for r in rows for name in r.spans)
    return View(
        number=number,
        label=labels(rows)[number - 1],
        row=row,
        cells=list(zip(COLUMNS, table_cells([row])[0], strict=True)),
        symbol=SYMBOLS[row.verdict.status],
        verdict=verdict_text(row),
        run=run_facts(row),
        file=file_facts(row),
        bar=charts.latency_bar(latency.p50, latency.p90, limit, _style(row)) if latency else None,
        spans=charts.stacked_bar([(name, row.spans.get(name, 0.0)) for name in names]) if row.spans else None,
        timeline=charts.timeline(row.samples, latency.p50) if latency and row.samples else None,
        histogram=charts.histogram(row.samples, latency.p50, latency.p90) if latency and row.samples else None,
    )


def _style(row: Row) -> str:
    return f"p-{row.precision}"


def _scatter(rows: Sequence[Row]) -> str | None:
    points = [
        charts.Point(
            row.latency.p50,
            100 * row.accuracy.map50,
            number,
            _style(row),
            f"{number} {row.label}, {speed(row)}{map_text(row)}",
        )
        for number, row in enumerate(rows, 1)
        if row.latency and row.accuracy
    ]
    return charts.scatter(points) if points else None


def _best_cells(rows: Sequence[Row]) -> set[tuple[int, str]]:
    """(row number, header) of the best value of each column in which rows differ as printed."""
    best = set()
    for column in COLUMNS:
        known = [(number, value) for number, row in enumerate(rows, 1) if (value := column.value(row)) is not None]
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
