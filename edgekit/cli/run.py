"""``edgekit run``"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from ..words import counted
from . import options
from .output import print_json, show_notes
from .progress import work
from .rows import show_rows

if TYPE_CHECKING:
    from ..measure.row import Row

EXAMPLE = """
edgekit run mobile-centernet-w16-dhaka --board x86-1t --out runs/demo
"""


def run(
    recipe: options.Recipe,
    overrides: options.Overrides = None,
    board: options.Board = options.DEFAULT_BOARD,
    out: options.Out = None,
    seconds: options.Seconds = None,
    force: Annotated[bool, typer.Option("--force", help="Repeat every step, finished or not.")] = False,
    remeasure: Annotated[
        bool, typer.Option("--remeasure", help="Measure every row again; steps that are finished are kept.")
    ] = False,
    json: options.Json = False,
) -> None:
    """The whole spine: export, quantize, bench and report a recipe.

    Where the board has TensorRT and it is installed, engines are built and measured too: FP16, and INT8 of the
    quantized file. A step is skipped when its output is there, is whole, and was made from the same inputs with the
    same options. Without --out everything is in runs/RECIPE.
    """
    import edgekit

    from .. import spine

    with work(out, "finished steps are kept; the same command goes on from there") as progress:
        rows = edgekit.run(
            recipe,
            board=board,
            overrides=overrides or [],
            out=out,
            seconds=seconds,
            force=force,
            remeasure=remeasure,
            progress=progress,
        )
    if json:
        print_json(rows)
        return
    show_rows(rows)
    out = out or Path(spine.RUNS, rows[0].recipe)
    show_notes(spine.artifacts_in(out))
    _show_disturbed(rows)
    print("\n".join(str(file) for file in _results(out)))


def _show_disturbed(rows: Sequence[Row]) -> None:
    """Rows are kept as they are, so a person must be told how to mend them."""
    from ..measure.matching import DISTURBED

    count = sum(row.verdict.status in DISTURBED for row in rows)
    if count:
        print(
            f"note: {counted(count, 'row')} {'was' if count == 1 else 'were'} measured on a disturbed machine and will "
            "be kept so. When it is quiet, the same command with --remeasure measures again and keeps what was exported"
        )


def _results(out: Path) -> list[Path]:
    """The files a person wants to open."""
    return [*sorted(out.glob("report.*")), *sorted((out / "pictures").glob("*"))]
