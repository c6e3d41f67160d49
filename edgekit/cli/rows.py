"""The table of measured rows on the terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from .output import show_table

if TYPE_CHECKING:
    from ..measure.row import Row


def show_rows(rows: Sequence[Row]) -> None:
    """The competition table, and the reasons of every row that is not valid."""
    from ..measure.row import COLUMNS, table_cells

    headers = [column.header for column in COLUMNS]
    show_table([dict(zip(headers, cells, strict=True)) for cells in table_cells(rows)], {h: h for h in headers})
    for row in rows:
        if row.verdict.status != "valid":
            print(f"{row.label}: {row.verdict.status}" + "".join(f"; {reason}" for reason in row.verdict.reasons))
