"""Reports: report.json for machines, Markdown, one HTML page, and a table for the terminal. Pure functions of rows."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic import ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..runtime.artifact import new_file
from ..runtime.errors import BadInput
from .draw import save_image
from .page import Picture, render_html
from .row import COLUMNS, NOT_MEASURED, NUMERIC, SYMBOLS, Record, Row, table_cells, table_values
from .words import Machine, conditions, facts, findings, labels, machines, subtitle, verdict_text

__all__ = [
    "Picture",
    "Report",
    "ReportFiles",
    "TerminalTable",
    "markdown_grid",
    "markdown_table",
    "read_report",
    "render_html",
    "render_markdown",
    "report_json",
    "report_schema",
    "terminal_table",
    "terminal_verdicts",
    "write_report",
]


class Report(Record):
    """report.json. ``table`` repeats the printed columns as numbers; ``rows`` hold everything."""

    format: Literal["edgekit-report"] = "edgekit-report"
    version: Literal[1] = 1
    edgekit: str
    table: tuple[dict[str, str | float | None], ...]
    rows: tuple[Row, ...]


class ReportFiles(NamedTuple):
    """What ``write_report`` wrote."""

    json: Path
    markdown: Path
    html: Path
    pictures: tuple[Path, ...]


def write_report(
    rows: Sequence[Row], folder: str | Path, pictures: Sequence[Picture] = (), title: str = "EdgeKit report"
) -> ReportFiles:
    """Write report.json, report.md and report.html into ``folder``, and the pictures beside them.

    Raises BadInput when there is no row to report.
    """
    place = Path(folder)
    if not rows:
        raise BadInput(f"{place}: no measured row to report. Measure something first: edgekit bench")
    files = tuple(place / "pictures" / f"{picture.name}.jpg" for picture in pictures)
    texts = {
        "report.json": report_json(rows),
        "report.md": render_markdown(rows, pictures, title),
        "report.html": render_html(rows, pictures, title),
    }
    for file, picture in zip(files, pictures, strict=True):
        save_image(file, picture.image)
    for name, text in texts.items():
        with new_file(place / name) as handle:
            handle.write(text)
    return ReportFiles(place / "report.json", place / "report.md", place / "report.html", files)


# -- JSON -------------------------------------------------------------------------------------------------------------
def report_json(rows: Sequence[Row]) -> str:
    report = Report(edgekit=__version__, table=tuple(table_values(rows)), rows=tuple(rows))
    return json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def report_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of report.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
    }


def read_report(path: str | Path) -> tuple[Row, ...]:
    """Rows of a report.json. Raises BadInput naming the file when it is missing, damaged or of another version."""
    try:
        values = json.loads(Path(path).read_text(encoding="utf-8"))
        return Report.model_validate(values).rows
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise BadInput(f"{path}: cannot read the report: {error}. Write one with: edgekit bench") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, p['loc'])) or 'report'}: {p['msg']}" for p in error.errors()]
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        told = "; ".join(faults[:5]) + more
        raise BadInput(
            f"{path}: not a report of EdgeKit {__version__} ({told}). Measure again: edgekit bench"
        ) from error


# -- Markdown ---------------------------------------------------------------------------------------------------------
def render_markdown(rows: Sequence[Row], pictures: Sequence[Picture] = (), title: str = "EdgeKit report") -> str:
    names, titles = [name for name, _ in facts(rows[0])], labels(rows)
    details = [[name, *(dict(facts(row))[name] for row in rows)] for name in names]
    spans = dict.fromkeys(name for row in rows for name in row.spans)
    parts = [
        f"# {title}",
        subtitle(rows),
        "\n".join(f"- {text}" for text in findings(rows)),
        markdown_table(rows),
        "\n".join(conditions(rows)),
        "## Verdicts",
        "\n".join(
            f"{n}. {title}: {verdict_text(row)}" for n, (title, row) in enumerate(zip(titles, rows, strict=True), 1)
        ),
        "## Where the time goes (p50, ms)",
        markdown_grid(
            ["", *spans],
            [[title, *(_show_span(row, span) for span in spans)] for title, row in zip(titles, rows, strict=True)],
        ),
        "## Details",
        markdown_grid(["", *titles], details),
        *(_machine_markdown(machine) for machine in machines(rows)),
        "## What the columns mean",
        "\n".join(f"- **{column.header}**: {column.meaning}" for column in COLUMNS),
    ]
    if pictures:
        parts += ["## Pictures", "\n\n".join(f"![{_cell(p.title)}](pictures/{quote(p.name)}.jpg)" for p in pictures)]
    return "\n\n".join(parts) + "\n"


def _show_span(row: Row, span: str) -> str:
    return f"{row.spans[span]:.3f}" if span in row.spans else NOT_MEASURED


def markdown_table(rows: Sequence[Row]) -> str:
    """The competition table alone."""
    return markdown_grid([column.header for column in COLUMNS], table_cells(rows), numeric=NUMERIC)


def _machine_markdown(machine: Machine) -> str:
    numbers = ", ".join(map(str, machine.numbers))
    return f"## Machine (rows {numbers})\n\n" + markdown_grid(["fact", "value"], [list(fact) for fact in machine.facts])


def markdown_grid(headers: Sequence[str], body: Sequence[Sequence[str]], numeric: frozenset[str] = frozenset()) -> str:
    """A Markdown table; the columns in ``numeric`` are set to the right."""
    rules = ["---:" if header in numeric else "---" for header in headers]
    lines = [[_cell(h) for h in headers], rules, *([_cell(c) for c in row] for row in body)]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def _cell(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("\n", " ")


# -- terminal ---------------------------------------------------------------------------------------------------------
class TerminalTable:
    """The competition table for rich; where the terminal is too narrow for it, the columns stand below each other."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = rows

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        wide = terminal_table(self.rows)
        if Width.get(console, options.update(max_width=10_000), wide).minimum <= options.max_width:
            yield wide
        else:
            yield _tall_table(self.rows)


def terminal_table(rows: Sequence[Row]) -> Table:
    """The competition table for rich, one line per row. It needs about 150 columns."""
    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    for column in COLUMNS:
        table.add_column(column.header, justify="right" if column.header in NUMERIC else "left", no_wrap=True)
    for cells in table_cells(rows):
        table.add_row(*(Text(cell) for cell in cells))
    return table


def _tall_table(rows: Sequence[Row]) -> Table:
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 1))
    table.add_column(style="bold")
    table.add_column(overflow="fold")
    for number, cells in enumerate(table_cells(rows)):
        if number:
            table.add_row("", "")
        for column, cell in zip(COLUMNS, cells, strict=True):
            table.add_row(column.header, Text(cell))
    return table


def terminal_verdicts(rows: Sequence[Row]) -> Text:
    """One line per row: symbol, label, verdict with its reasons."""
    colours = {"valid": "green", "noisy": "yellow", "throttled": "yellow", NOT_MEASURED: "red"}
    lines = []
    for title, row in zip(labels(rows), rows, strict=True):
        symbol = (f"{SYMBOLS[row.verdict.status]} ", colours.get(row.verdict.status, "cyan"))
        lines.append(Text.assemble(symbol, f"{title}: {verdict_text(row)}"))
    return Text("\n").join(lines)
