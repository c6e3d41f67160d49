"""``edgekit gate``"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .grids import show_grid
from .output import print_json

EXAMPLE = """
edgekit gate baseline.json run-1.json run-2.json run-3.json --max mAP=-0.5pt,latency=+5%,size=+1%,gops=+0%
"""
GATE_FAILED = 1


def gate(
    baseline: Annotated[
        Path, typer.Argument(metavar="BASELINE", help="What edgekit baseline save wrote, or any report.json.")
    ],
    reports: Annotated[
        list[Path],
        typer.Argument(metavar="REPORT", help="Reports of the build under test; several are repeated runs of it."),
    ],
    limits: Annotated[
        list[str] | None,
        typer.Option(
            "--max",
            metavar="METRIC=CHANGE,...",
            help="How much worse each metric may get. Metrics: mAP, mAP50, size, gops, params, latency (p50), mean, "
            "p90, p99, fps, cold, load, energy, memory. Without it: mAP=-0.5pt, latency=+5%, size=+1%, gops=+0%",
            show_default=False,
        ),
    ] = None,
    skip_incomparable: Annotated[
        bool,
        typer.Option(
            "--skip-incomparable",
            help="Pass, with a warning, where another machine, board state or a disturbed run forbids a comparison.",
        ),
    ] = False,
    markdown: Annotated[Path | None, typer.Option(help="Write a summary in Markdown.", show_default=False)] = None,
    junit: Annotated[Path | None, typer.Option(help="Write JUnit XML.", show_default=False)] = None,
    github: Annotated[
        bool,
        typer.Option("--github", help="Print GitHub Actions' annotations, and add the summary to the job's page."),
    ] = False,
    json: options.Json = False,
) -> None:
    """Fail when a build is worse than a baseline: accuracy, latency, size, GOPS.

    Exit code 0: passed. 1: the gate failed. 2: a mistake in the call or in a file. Rows are matched by model, board,
    runtime and precision; a missing row, another machine or another board state fails by name.
    """
    import edgekit

    from ..measure.report import report_file
    from ..runtime.artifact import check_not_read, check_place
    from ..runtime.errors import BadConfig

    for file in filter(None, (markdown, junit)):
        check_place(file, "file")
        check_not_read([file], map(report_file, (baseline, *reports)))
    if markdown is not None and junit is not None and markdown.resolve() == junit.resolve():
        raise BadConfig(f"{markdown}: --markdown and --junit name the same file. Name two.")
    result = edgekit.gate(
        baseline, reports, **({"limits": limits} if limits else {}), skip_incomparable=skip_incomparable
    )
    _write(result, markdown, junit, github)
    if json:
        print_json(result)
    else:
        _show(result)
    if github:
        from ..measure.gate_report import github_annotations

        typer.echo("\n".join(github_annotations(result)), err=json)
    if not result.passed:
        raise typer.Exit(GATE_FAILED)


def _write(result: Any, markdown: Path | None, junit: Path | None, github: bool) -> None:
    from ..measure.gate_report import junit_xml, render_gate
    from ..runtime.artifact import new_file

    for file, text in ((markdown, render_gate), (junit, junit_xml)):
        if file is not None:
            with new_file(file) as handle:
                handle.write(text(result))
    page = os.environ.get("GITHUB_STEP_SUMMARY")
    if github and page:
        with open(page, "a", encoding="utf-8") as handle:
            handle.write(render_gate(result))


def _show(result: Any) -> None:
    from ..measure.gate_report import HEADERS, gate_cells, headline, told

    for row in dict.fromkeys(check.row for check in result.checks):
        print(row)
        cells = [gate_cells(check)[1:] for check in result.checks if check.row == row]
        show_grid(HEADERS[1:], [[f"  {first}", *rest] for first, *rest in cells], least=("runs", "sure from", "noise"))
    for check in result.failures:
        print(told(check))
    for note in result.notes:
        print(f"note: {note}")
    print(headline(result))
