"""``edgekit zoo``"""

from __future__ import annotations

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
    print_json(records) if json else show_records([{**r, "classes": _few(r["classes"])} for r in records])


def _few(classes: list[str]) -> str:
    """The classes by name, or how many there are when a line would not hold them."""
    return ", ".join(classes) if len(classes) <= 4 else f"{len(classes)} classes"
