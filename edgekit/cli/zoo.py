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
    print_json(records) if json else show_records(records)
