"""``edgekit doctor``"""

from __future__ import annotations

from typing import Annotated, Any

import typer

from . import options
from .output import print_json, show_table
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
    import edgekit

    with work(interrupted="nothing was written") as progress:
        facts = edgekit.doctor(board, progress=progress)
    print_json(facts) if json else _show(facts)


def _show(facts: dict[str, Any]) -> None:
    here = facts["machine"]
    print(
        f"EdgeKit {facts['edgekit']} on {here['cpu']}, {here['cores']} cores, {here['memory_mb']} MB, {here['system']}"
    )
    show_table(facts["checks"], {"group": "", "name": "what", "status": "", "found": "found", "mend": "mend it with"})
    boards = [{**one, "matches": "ok" if one["matches"] else "no"} for one in facts["boards"]]
    show_table(
        boards, {"name": "board", "matches": "this machine", "runtimes": "runtimes that work", "against": "against it"}
    )
