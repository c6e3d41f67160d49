"""Reports: report.json for machines, Markdown, one HTML page, CSV, LaTeX, and a table for the terminal.

All of them are pure functions of rows.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple
from urllib.parse import quote

from pydantic import AfterValidator, ValidationError
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement as Width
from rich.table import Table
from rich.text import Text

from .. import __version__
from ..runtime.artifact import check_place, new_file
from ..runtime.errors import BadConfig, BadInput
from .charts_layers import worst_layers
from .draw import save_image
from .exports import render_csv, render_latex
from .history import Step, earlier, history_cells, newer_text, tracks, with_past
from .labels import by_machine, labels, table_cells
from .matching import measurement
from .page import Picture, render_html
from .row import COLUMNS, NOT_MEASURED, NUMERIC, SYMBOLS, LayerTime, Record, Row, table_values
from .words import Machine, conditions, facts, findings, machines, span_names, subtitle, verdict_text

__all__ = [
    "Picture",
    "Report",
    "ReportFiles",
    "TerminalTable",
    "markdown_grid",
    "markdown_table",
    "read_pictures",
    "read_report",
    "render_csv",
    "render_html",
    "render_latex",
    "render_markdown",
    "report_json",
    "report_schema",
    "terminal_table",
    "terminal_verdicts",
    "write_report",
]


def _inside(file: str) -> str:
    """A report must not name files outside its own folder."""
    path = PurePosixPath(file)
    if path.is_absolute() or ".." in path.parts:
        raise ValueError("must be a path inside the report's folder")
    return file


class PictureFile(Record):
    """A picture beside report.json."""

    file: Annotated[str, AfterValidator(_inside)]
    title: str


class Report(Record):
    """report.json. ``table`` repeats the printed columns as numbers; ``rows`` hold everything."""

    format: Literal["edgekit-report"] = "edgekit-report"
    version: Literal[1] = 1
    edgekit: str
    table: tuple[dict[str, str | float | None], ...]
    rows: tuple[Row, ...]
    pictures: tuple[PictureFile, ...] = ()


class ReportFiles(NamedTuple):
    """What ``write_report`` wrote."""

    json: Path
    markdown: Path
    html: Path
    csv: Path
    latex: Path
    pictures: tuple[Path, ...]


PICTURES = "pictures"  # the folder beside report.json
RENDERED = ("md", "html", "csv", "tex")  # made of report.json, which holds everything


def report_is_whole(folder: str | Path) -> bool:
    """Whether every rendering lies beside report.json; ``write_report`` that was interrupted leaves some out."""
    return all((Path(folder) / f"report.{suffix}").is_file() for suffix in ("json", *RENDERED))


def check_report_file(path: str | Path) -> None:
    """``check_place`` of a file for a report. Raises BadConfig where a file is there that is none."""
    place = Path(check_place(path, "file"))
    if not place.is_file() or not place.stat().st_size:
        return
    try:
        own = json.loads(place.read_text(encoding="utf-8"))["format"] == Report.model_fields["format"].default
    except (OSError, ValueError, KeyError, TypeError):
        own = False
    if not own:
        raise BadConfig(f"{path}: is there and is no report; it will not be replaced. Choose another --out.")


def check_report_place(folder: str | Path, pictures: Sequence[Path] = ()) -> Path:
    """``check_place`` of a folder for a report. Raises BadConfig where one of its files is there and somebody else's.

    pictures: the files of those that will be written
    """
    place = Path(check_place(folder, "folder"))
    if (place / "report.json").is_file():
        return place
    for file in (*(place / f"report.{suffix}" for suffix in RENDERED), *pictures):
        if file.exists():
            raise BadConfig(
                f"{file}: is there without a report.json, so it is no report of EdgeKit's, and will not be replaced. "
                "Choose another --out."
            )
    return place


def write_report(
    rows: Sequence[Row],
    folder: str | Path,
    pictures: Sequence[Picture] = (),
    title: str = "EdgeKit report",
    history: Sequence[Step] = (),
) -> ReportFiles:
    """Write report.json, .md, .html, .csv and .tex into ``folder``, and the pictures beside them.

    history: earlier reports of the same rows, for sparklines. Raises BadInput when there is no row to report, or text
    that no file can hold, and BadConfig where it would replace what is not its own; then nothing is changed.
    """
    place = Path(folder)
    if title != title.encode("utf-8", "replace").decode():
        raise BadConfig(f"title: {title!r} holds a byte that is no text. Write it in UTF-8")
    if not rows:
        raise BadInput(f"{place}: no measured row to report. Measure something first: edgekit bench")
    pictures = _named_once(pictures)
    files = tuple(place / picture_file(picture.name) for picture in pictures)
    check_report_place(place, files)
    texts = {
        "json": report_json(rows, pictures),
        "md": render_markdown(rows, pictures, title, history),
        "html": render_html(rows, pictures, title, history),
        "csv": render_csv(rows),
        "tex": render_latex(rows),
    }
    encoded = {suffix: utf8(place / f"report.{suffix}", text) for suffix, text in texts.items()}
    # What lies beside no report.json would be somebody else's (``check_report_place``), so it comes first. Older
    # renderings go before it: what stands beside it is of its rows, and what an interruption left out is seen missing
    for suffix in RENDERED:
        (place / f"report.{suffix}").unlink(missing_ok=True)
    for suffix, data in encoded.items():
        with new_file(place / f"report.{suffix}", "wb") as handle:
            handle.write(data)
        if suffix == "json":
            for file, picture in zip(files, pictures, strict=True):
                save_image(file, picture.image)
    at = {suffix: place / f"report.{suffix}" for suffix in texts}
    return ReportFiles(at["json"], at["md"], at["html"], at["csv"], at["tex"], files)


def utf8(file: str | Path, text: str) -> bytes:
    """The bytes of a file about rows. Raises BadInput where they hold text that no file can."""
    try:
        return text.encode("utf-8")
    except UnicodeEncodeError as error:
        raise BadInput(
            f"{file}: was not written, for the rows hold text that is no Unicode: "
            f"{text[max(0, error.start - 20) : error.end]!r}. Correct it in the reports that were given."
        ) from error


def _named_once(pictures: Sequence[Picture]) -> list[Picture]:
    """Pictures of several reports may share a name; the later ones get a number."""
    taken: set[str] = set()
    named = []
    for picture in pictures:
        # a file's name may hold bytes that are no UTF-8, which no text can
        own, title = (text.encode("utf-8", "replace").decode() for text in (picture.name, picture.title))
        name, number = own, 2
        while name in taken:
            name, number = f"{own}-{number}", number + 1
        taken.add(name)
        named.append(picture._replace(name=name, title=title))
    return named


def picture_file(name: str) -> str:
    """Where a picture lies, from the report's folder."""
    return f"{PICTURES}/{name}.jpg"


# -- JSON -------------------------------------------------------------------------------------------------------------
def report_json(rows: Sequence[Row], pictures: Sequence[Picture] = ()) -> str:
    """The text of report.json. Of the pictures it holds the files' names and titles."""
    report = Report(
        edgekit=__version__,
        table=tuple(table_values(rows)),
        rows=tuple(rows),
        pictures=tuple(PictureFile(file=picture_file(p.name), title=p.title) for p in pictures),
    )
    return json.dumps(report.model_dump(mode="json"), indent=1, ensure_ascii=False) + "\n"


def report_schema() -> dict[str, Any]:
    """JSON Schema (draft 2020-12) of report.json."""
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        **Report.model_json_schema(mode="serialization"),
    }


def read_report(path: str | Path) -> tuple[Row, ...]:
    """Rows of a report.json. Raises BadInput naming the file when it is missing, damaged or of another version."""
    return load_report(path).rows


def read_runs(files: Sequence[str | Path]) -> list[Row]:
    """The rows of repeated runs. Raises BadInput where one measurement is given twice: that is no second witness."""
    seen: dict[str, int] = {}
    rows = []
    for number, file in enumerate(files):
        for row in read_report(file):
            same = measurement(row)
            if same is not None and same in seen:
                there = "twice" if seen[same] == number else f"in {files[seen[same]]} too"
                raise BadInput(
                    f"{file}: the measurement of {row.label} is there {there}. Repeated runs are independent "
                    "measurements; give each file once, and no copies"
                )
            if same is not None:
                seen[same] = number
            rows.append(row)
    return rows


def read_pictures(path: str | Path) -> list[Picture]:
    """The pictures that lie beside a report.json; one that is gone is left out."""
    from ..runtime.images import read_image

    folder = report_file(path).parent
    found = [(folder / record.file, record.title) for record in load_report(path).pictures]
    return [Picture(file.stem, title, read_image(file)) for file, title in found if file.is_file()]


def load_report(path: str | Path) -> Report:
    """The whole report.json, or that of a folder. Raises BadInput as ``read_report`` does."""
    path = report_file(path)
    try:
        values = _readable(json.loads(path.read_text(encoding="utf-8")), path)
        if told := _another_file(values):
            raise BadInput(f"{path}: {told}")
        return Report.model_validate(values)
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        raise BadInput(f"{path}: cannot read the report: {reason}. Write one with: edgekit bench") from error
    except (UnicodeDecodeError, json.JSONDecodeError, RecursionError) as error:
        raise BadInput(f"{path}: not valid JSON: {error}. Write it again: edgekit bench") from error
    except ValidationError as error:
        faults = [f"{'.'.join(map(str, p['loc'])) or 'report'}: {p['msg']}" for p in error.errors()]
        more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
        told = "; ".join(faults[:5]) + more
        raise BadInput(
            f"{path}: not a report of EdgeKit {__version__} ({told}). Measure again: edgekit bench"
        ) from error


_CONTROL = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f]")  # all but the tabulator and the end of a line


def _readable(value: Any, path: Path) -> Any:
    """What a report holds, without control characters: names in a foreign one would tell the terminal what to do.

    Raises BadInput for text that no file and no terminal can hold.
    """
    if isinstance(value, str) and not value.isprintable():
        if any("\ud800" <= char <= "\udfff" for char in value):
            raise BadInput(f"{path}: holds text that is no Unicode: {value[:60]!r}. Correct it, or measure again")
        return _CONTROL.sub("\ufffd", value)
    if isinstance(value, list):
        return [_readable(item, path) if isinstance(item, str | list | dict) else item for item in value]
    if isinstance(value, dict):
        return {_readable(key, path): _readable(item, path) for key, item in value.items()}
    return value


_OTHERS = {
    "edgekit-comparison": "what bench --compare wrote: two rows that took turns, and their ratio. For a report measure "
    "without --compare: edgekit bench A B --out rows.json",
    "edgekit-gate": "what gate --json printed. It takes the reports that were gated: edgekit report run-1.json",
    "board": "what the bench on a board left there. Rows are made by flash alone, which measures again only where it "
    "is asked for something else: edgekit flash BUNDLE --host USER@BOARD --out rows.json",
}
_OF_A_BOARD = {"asked", "timed", "engine", "bundle", "resources"}  # keys of a board's bench.json, which has no format


def _another_file(values: Any) -> str | None:
    """What a JSON value is that looks like EdgeKit's and is no report of this version; None when it may be one."""
    kind, own = (
        (values.get("format"), Report.model_fields["format"].default) if isinstance(values, dict) else (None, "")
    )
    if isinstance(values, dict) and values.keys() >= _OF_A_BOARD:
        kind = "board"
    if isinstance(kind, str) and kind in _OTHERS:
        return f"no report, but {_OTHERS[kind]}"
    if kind == own and values.get("version") != (known := Report.model_fields["version"].default):
        return (
            f"a report of version {values.get('version')}, and EdgeKit {__version__} reads version {known}. "
            "Use the EdgeKit that wrote it, or measure again: edgekit bench"
        )
    return None


def report_file(path: str | Path) -> Path:
    """The file that is read where a report, or the folder of one, is given."""
    return Path(path) / "report.json" if Path(path).is_dir() else Path(path)


# -- Markdown ---------------------------------------------------------------------------------------------------------
def render_markdown(
    rows: Sequence[Row],
    pictures: Sequence[Picture] = (),
    title: str = "EdgeKit report",
    history: Sequence[Step] = (),
) -> str:
    titles = labels(rows)
    verdicts = [f"{n}. {name}: {verdict_text(row)}" for n, (name, row) in enumerate(zip(titles, rows, strict=True), 1)]
    parts = [
        f"# {title}",
        subtitle(rows),
        "\n".join(f"- {text}" for text in findings(rows)),
        _tables_markdown(rows),
        "\n".join(conditions(rows)),
        "## Verdicts",
        "\n".join(verdicts),
        *_spans_markdown(rows, titles),
        *_layers_markdown(rows, titles),
        *_history_markdown(rows, history),
        "## Details",
        _details_markdown(rows, titles),
        *(_machine_markdown(machine) for machine in machines(rows)),
        "## What the columns mean",
        "\n".join(f"- **{column.header}**: {column.meaning}" for column in COLUMNS),
    ]
    if pictures:
        parts += ["## Pictures", "\n\n".join(f"![{_cell(p.title)}]({PICTURES}/{quote(p.name)}.jpg)" for p in pictures)]
    return "\n\n".join(parts) + "\n"


def _tables_markdown(rows: Sequence[Row]) -> str:
    """A table for each machine: figures of different ones are not compared. Its rows have the numbers of all rows."""
    groups, number = by_machine(rows), {id(row): n for n, row in enumerate(rows, 1)}
    tables = [
        (f"### {place}\n\n" if len(groups) > 1 else "") + markdown_table(part, [number[id(row)] for row in part])
        for place, part in groups.items()
    ]
    return "\n\n".join(tables)


def _spans_markdown(rows: Sequence[Row], titles: Sequence[str]) -> list[str]:
    spans = span_names(rows)
    body = [[title, *(_show_span(row, span) for span in spans)] for title, row in zip(titles, rows, strict=True)]
    return ["## Where the time goes (p50, ms)", markdown_grid(["", *spans], body)] if spans else []


def _layers_markdown(rows: Sequence[Row], titles: Sequence[str]) -> list[str]:
    """The layers where most time is lost, for every row that has them."""
    parts = []
    for title, row in zip(titles, rows, strict=True):
        if row.layers:
            headers = ["layer", "kind", "module", "ms", "share", "bound ms", "bound by", "lost ms", "GOPS"]
            body = [_layer_cells(layer) for layer in worst_layers(row)]
            parts += [f"### {title}", markdown_grid(headers, body, frozenset(headers[3:6] + headers[7:]))]
    return ["## Why it is slow: the layers where most time is lost", *parts] if parts else []


def _layer_cells(layer: LayerTime) -> list[str]:
    numbers = [(layer.bound_ms, "{:.3f}"), (layer.lost_ms, "{:.3f}"), (layer.gops, "{:.1f}")]
    bound, lost, gops = ("-" if value is None else style.format(value) for value, style in numbers)
    modules = ", ".join(layer.modules) or "-"
    return [
        layer.name,
        layer.kind,
        modules,
        f"{layer.ms:.3f}",
        f"{layer.share:.1%}",
        bound,
        layer.bound or "-",
        lost,
        gops,
    ]


def _history_markdown(rows: Sequence[Row], history: Sequence[Step]) -> list[str]:
    """A line of bars per row and metric, with the last value and its change; and which steps are in none."""
    headers, body = history_cells(with_past(tracks(history, rows)) if earlier(history, rows) else [])
    left_out = newer_text(history, rows)
    return ["## History", markdown_grid(headers, body), *[f"{left_out}."] * bool(left_out)] if body else []


def _details_markdown(rows: Sequence[Row], titles: Sequence[str]) -> str:
    names = [name for name, _ in facts(rows[0])]
    every = [dict(facts(row)) for row in rows]
    return markdown_grid(["", *titles], [[name, *(known[name] for known in every)] for name in names])


def _show_span(row: Row, span: str) -> str:
    return f"{row.spans[span]:.3f}" if span in row.spans else NOT_MEASURED


def markdown_table(rows: Sequence[Row], numbers: Sequence[int] = ()) -> str:
    """The competition table alone. numbers: by which sentences beside it name its rows; without them, no such column"""
    headers, body = [column.header for column in COLUMNS], table_cells(rows)
    if numbers:
        headers, body = ["#", *headers], [[str(n), *cells] for n, cells in zip(numbers, body, strict=True)]
    return markdown_grid(headers, body, numeric=NUMERIC | {"#"})


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
