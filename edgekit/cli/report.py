"""``edgekit report``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json
from .progress import work

EXAMPLE = """
edgekit report runs/demo/rows.json other/rows.json --out report
"""


def report(
    rows: Annotated[
        list[Path], typer.Argument(metavar="ROWS", help="Files that edgekit bench wrote, or report.json of others.")
    ],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for report.json, report.md and report.html.")],
    json: options.Json = False,
) -> None:
    """Turn measured rows into a table and a page.

    report.html needs no other file: send it by mail.
    """
    from edgekit import pipeline

    with work(out) as progress:
        folder = pipeline.report(rows, out=out, progress=progress)
    files = {suffix: str(Path(folder) / f"report.{suffix}") for suffix in ("json", "md", "html")}
    if json:
        print_json({"path": folder, **files})
    else:
        print("\n".join(files.values()))
