"""``edgekit baseline``"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json, show_records

EXAMPLE = """
edgekit baseline save run-1.json run-2.json run-3.json --out baseline.json
edgekit baseline show baseline.json
"""


def baseline(
    action: Annotated[str, typer.Argument(metavar="save|show", help="Merge reports into a baseline, or show one.")],
    files: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT", help="Reports of repeated runs of one build on one machine; or the baseline."),
    ],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="The baseline to write; the gate's first argument.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Save what edgekit gate compares with, or show what it holds.

    A baseline is a report without the single frames. Repeated runs (five are good, three are the least) tell the gate
    how much the machine varies.
    """
    import edgekit

    from ..measure.report import check_report_file

    if out is not None:
        check_report_file(out)
    records = edgekit.baseline(action, files, out=out)
    if json:
        print_json(records)
        return
    show_records(records)
    if any(record.get("undisturbed") == 0 for record in records):
        print(
            "Warning: a row without an undisturbed run cannot be gated on time: latency would be 'not comparable'. "
            "Measure again when nothing else runs here, or gate without it: --max mAP=-0.5pt,size=+1%,gops=+0%"
        )
    if out:
        print(f"Next: edgekit gate {shlex.quote(str(out))} REPORT...")
