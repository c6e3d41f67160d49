"""``edgekit report``"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .grids import show_grid
from .output import print_json
from .progress import work
from .rows import show_rows

if TYPE_CHECKING:
    from ..measure.history import Step
    from ..measure.row import Row

EXAMPLE = """
edgekit report runs/demo/rows.json other/rows.json --out report
edgekit report runs/demo/report.json --out report --history history
"""


def report(
    rows: Annotated[
        list[Path], typer.Argument(metavar="ROWS", help="Files that edgekit bench wrote, or report.json of others.")
    ],
    out: Annotated[
        Path | None,
        typer.Option(
            "--out",
            "-o",
            help="The folder for report.json, .md, .html, .csv and .tex. Without it, the table is printed.",
            show_default=False,
        ),
    ] = None,
    history: Annotated[
        Path | None,
        typer.Option(
            help="A folder with a report.json for each commit, named as it is to be called; drawn as sparklines.",
            show_default=False,
        ),
    ] = None,
    title: Annotated[str | None, typer.Option(help="The page's title.", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """Turn measured rows into a table and a page.

    Rows of many boards and runs go into one report. report.html needs no other file: send it by mail.
    """
    if out is None:
        _print_rows(rows, history, title, json)
        return
    import edgekit

    with work(out) as progress:
        folder = edgekit.report(rows, out=out, history=history, title=title, progress=progress)
    files = {suffix: str(Path(folder) / f"report.{suffix}") for suffix in ("json", "md", "html", "csv", "tex")}
    if json:
        print_json({"path": folder, **files})
    else:
        print("\n".join(files.values()))


def _print_rows(files: list[Path], history: Path | None, title: str | None, json: bool) -> None:
    """The table alone, and the history as lines of bars; nothing is written."""
    from ..measure.history import newer_text, read_history
    from ..measure.matching import unrepeated
    from ..measure.report import read_report
    from ..runtime.errors import BadConfig, BadInput

    if json and history is not None:
        raise BadConfig("--history is for the page and the table; --json alone has no place for it: add --out report")
    if title is not None:
        raise BadConfig("--title is for the page; say where it goes: --out report")
    found = unrepeated([row for file in files for row in read_report(file)])
    if not found:
        raise BadInput(f"{', '.join(map(str, files))}: holds no row. Measure some: edgekit bench")
    steps = read_history(history) if history is not None else []
    if json:
        print_json(found)
        return
    show_rows(found)
    if left_out := newer_text(steps, found):
        print(f"note: {left_out}", file=sys.stderr)
    if steps:
        _show_history(found, steps)


def _show_history(rows: Sequence[Row], steps: Sequence[Step]) -> None:
    from ..measure.history import history_lines, tracks, with_past

    for track in with_past(tracks(steps, rows)):
        print(track.label)
        show_grid(("metric", "history", "now", "change"), history_lines(track))
