"""``edgekit schema``"""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .output import print_json

EXAMPLE = """
edgekit schema report
"""


def schema(
    name: Annotated[
        str, typer.Argument(metavar="NAME", help="report, gate (its --json), recipe, board, rules or references.")
    ],
    json: options.Json = False,
) -> None:
    """Print the JSON Schema of a file that EdgeKit reads or writes.

    Draft 2020-12. With or without --json the output is the same JSON.
    """
    import edgekit

    print_json(edgekit.schema(name))
