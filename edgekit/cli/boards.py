"""``edgekit boards``"""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .output import print_json, show_records, show_values

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
    if json:
        print_json(records)
    elif name is None:
        show_records(records)
    else:
        show_values(records[0])
