"""``edgekit doctor``"""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .output import print_json
from .progress import work

EXAMPLE = """
edgekit doctor
edgekit doctor --board x86-1t --json
"""


def doctor(
    board: Annotated[
        str | None, typer.Option("--board", "-b", help="Also say whether this machine is that board.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Say what works on this machine, and how to mend what does not."""
    from edgekit import pipeline

    with work(interrupted="nothing was written"):
        facts = pipeline.doctor(board)
    if json:
        print_json(facts)
    else:
        print(facts)
