"""``edgekit bench``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json
from .progress import work
from .rows import show_rows

EXAMPLE = """
edgekit bench runs/demo/onnx runs/demo/onnx-int8 --board x86-1t --out runs/demo/rows.json
"""


def bench(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT", help="Artifact folders; each is measured on every runtime that can load it."
        ),
    ],
    board: options.Board = options.DEFAULT_BOARD,
    runtime: options.Runtime = None,
    data: Annotated[str | None, typer.Option(help="The set on which mAP is measured; else the recipe's own.")] = None,
    seconds: options.Seconds = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Measure accuracy, size, GOPS and latency on a board.

    Every row is measured in a process of its own, bound as the board says (x86-1t: one core, one thread). --out keeps
    the rows as JSON for edgekit report.
    """
    from edgekit import pipeline

    with work(out) as progress:
        rows = pipeline.bench(
            sources, board=board, runtime=runtime, data=data, seconds=seconds, out=out, progress=progress
        )
    if json:
        print_json(rows)
        return
    show_rows(rows)
    if out:
        print(f"Next: edgekit report {out} --out report")
