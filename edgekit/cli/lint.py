"""``edgekit lint``"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from ..words import counted
from . import options
from .output import print_json, show_table
from .progress import work

EXAMPLE = """
edgekit lint runs/demo/onnx --board jetson-tx2
edgekit lint yolov8n.onnx --board jetson-orin-nano --release 5.1.2
edgekit lint mobile-centernet-w16 --board jetson-tx2 --json
"""
LINT_FAILED = 1
COLUMNS = {"severity": "", "where": "where", "found": "found", "advice": "what to do"}


def lint(
    model: Annotated[
        str, typer.Argument(metavar="MODEL", help="Any .onnx file, an artifact's folder, or a recipe's name.")
    ],
    board: options.Board = "jetson-tx2",
    release: Annotated[
        str | None,
        typer.Option(help="L4T or JetPack release on the board, when it is not the usual one.", show_default=False),
    ] = None,
    json: options.Json = False,
) -> None:
    """Say what a board would refuse, change or be slow at, without the board.

    Each finding names the node, the PyTorch module it came from, and what to do. A memory forecast says whether the
    engine can be built and run there. A recipe is exported as the board would get it.

    Exit code 0: no errors found (there may be warnings). 1: errors found. 2: a mistake in the call or in the file.
    """
    import edgekit

    with work() as progress:
        report = edgekit.lint(model, board=board, release=release, progress=progress)
    if json:
        print_json(report)
    else:
        _show(report)
    if report.errors:
        raise typer.Exit(LINT_FAILED)


def _show(report: Any) -> None:
    facts = report.facts
    print(f"{report.model} for {report.board}" + (f", {report.stack}" if report.stack else ""))
    nodes = counted(facts["nodes"], "node")
    print(f"  opset {facts['opset']}, {nodes}, from {facts['producer'] or 'an unknown exporter'}")
    for word in ("inputs", "outputs"):
        print(f"  {word}: " + ", ".join(f"{name} {text}" for name, text in facts[word].items()))
    if report.findings:
        rows = [{**_where(f), "severity": f.severity, "found": f.found, "advice": f.advice} for f in report.findings]
        show_table(rows, COLUMNS)
    _show_memory(report.forecast)
    counts = ", ".join(counted(report.count(kind), kind) for kind in _KINDS)
    print(f"{'Cannot be used there as it is' if report.errors else 'Fits'}: {counts}")


_KINDS = ("error", "warning", "note")


def _where(finding: Any) -> dict[str, str]:
    """The module, which the user wrote, before the node, which the exporter named."""
    if not finding.node:
        return {"where": "the file"}
    module = f"{finding.module}: " if finding.module else ""
    return {"where": f"{module}{finding.op} {finding.node}"}


def _show_memory(memory: Mapping[str, Any]) -> None:
    for what in ("build", "run"):
        parts = memory[what]
        if not parts:
            continue
        room = f" of {memory['available']:.0f}" if memory["available"] else ""
        print(f"memory to {what} ({memory['precision']}): about {memory[f'{what}_total']:.0f}{room} MiB")
        print(
            "  " + ", ".join(f"{name} {mib:.0f}" if mib >= 10 else f"{name} {mib:.1f}" for name, mib in parts.items())
        )
