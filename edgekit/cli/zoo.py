"""``edgekit zoo``"""

from __future__ import annotations

from collections import Counter
from typing import Annotated, Any

import typer

from . import options
from .output import print_json, show_records, show_table

EXAMPLE = """
edgekit zoo
edgekit zoo --papers
edgekit zoo --json
"""
PAPERS = {
    "paper": "paper",
    "system": "system",
    "input": "input",
    "metric": "figure",
    "convention": "counted as",
    "printed": "printed",
    "ours": "ours",
    "unit": "unit",
    "ratio": "ours / printed",
    "mark": "mark",
    "where": "where",
}


def zoo(
    papers: Annotated[bool, typer.Option("--papers", help="Every figure that the papers print, beside ours.")] = False,
    json: options.Json = False,
) -> None:
    """List the recipes: parameters, GOPS, FP32 size, anchors or cells, paper, weights, and what they were measured at.

    One multiply-accumulate is two operations in GOPS. With --papers each printed figure has a mark: exact (ours rounds
    to it), fitted (a reading of what the paper leaves open, within 1 %) or open (not met; why is told below the table,
    and what was tried in docs/readings.md).
    """
    import edgekit

    records = edgekit.zoo(papers=True) if papers else edgekit.zoo()
    if json:
        print_json(records)
    elif papers:
        show_table([_compared(record) for record in records], PAPERS)
        _show_open(records)
    else:
        show_records([_short(record) for record in records])


def _compared(record: dict[str, Any]) -> dict[str, Any]:
    formats = {"ours": "{:.5g}", "ratio": "{:.4f}"}
    return {**record, **{key: text.format(record[key]) for key, text in formats.items() if key in record}}


def _show_open(records: list[dict[str, Any]]) -> None:
    """How many figures have each mark, and why the open ones are not met."""
    counts = Counter(record["mark"] for record in records)
    print(", ".join(f"{counts[mark]} {mark}" for mark in ("exact", "fitted", "open")))
    for record in records:
        if record["mark"] == "open":
            what = f"{record['system']}, {record['metric']} {record['printed']} ({record['paper']})"
            print(f"open: {what}: {record['note']}")


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """The record as a line holds it: figures rounded, and the number of classes where their names would not fit."""
    hidden = ("description", "macs", "boxes_are")
    short = {key: value for key, value in record.items() if key not in hidden}
    classes = record.get("classes", [])
    if len(classes) > 4:
        short["classes"] = f"{len(classes)} classes"
    if "parameters" in record:
        short["parameters"] = f"{record['parameters'] / 1e6:.2f} M"
        short["gops"] = f"{record['gops']:.2f}"
        short["fp32_mb"] = f"{record['fp32_mb']:.1f}"
        short["boxes"] = f"{record['boxes']} {record['boxes_are']}"
    return short
