"""``edgekit boards``"""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .output import print_json, show_records

EXAMPLE = """
edgekit boards
edgekit boards x86-1t --json
"""


def boards(
    name: Annotated[str | None, typer.Argument(help="One board, with everything that is known of it.")] = None,
    json: options.Json = False,
) -> None:
    """List the boards and what each can do."""
    from edgekit import pipeline

    records = pipeline.boards(name)
    print_json(records) if json else show_records(records)
