"""Measured rows on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .output import stdout_console

if TYPE_CHECKING:
    from ..measure.row import Row


def show_rows(rows: Sequence[Row]) -> None:
    """The competition table, and whether each row can be trusted."""
    from ..measure.report import TerminalTable, terminal_verdicts

    console = stdout_console()
    console.print(TerminalTable(rows))
    console.print(terminal_verdicts(rows))
