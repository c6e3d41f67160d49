"""``edgekit zoo``"""

from __future__ import annotations

from typing import Any

from . import options
from .output import print_json, show_records

EXAMPLE = """
edgekit zoo
edgekit zoo --json
"""


def zoo(json: options.Json = False) -> None:
    """List the recipes and their measured results."""
    from edgekit import pipeline

    records = pipeline.zoo()
    print_json(records) if json else show_records([_short(record) for record in records])


def _short(record: dict[str, Any]) -> dict[str, Any]:
    """The record with the number of classes where a line would not hold their names."""
    classes = record.get("classes", [])
    return {**record, "classes": f"{len(classes)} classes"} if len(classes) > 4 else record
