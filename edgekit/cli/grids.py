"""Tables that must stay readable in a narrow terminal: they leave out their least columns, and never fold a number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from .output import show_blocks, stdout_console

if TYPE_CHECKING:
    from rich.table import Table

FOLDED, LEAST_FOLDED = 22, 12  # characters of a column that may fold


def show_grid(
    headers: Sequence[str], body: Sequence[Sequence[str]], folding: Sequence[str] = (), least: Sequence[str] = ()
) -> None:
    """Print a table. folding: columns whose text may go over several lines; the others never do.

    least: columns to leave out where the terminal is too narrow, the first one first; what was left out is told.
    A header may have several lines. Where nothing helps, each record is told line by line.
    """
    console = stdout_console()
    cells = {name: [line[i] for line in body] for i, name in enumerate(headers)}
    # first the columns that matter least go, one by one, then the names fold more
    for count, folded in [*((n, FOLDED) for n in range(len(least) + 1)), (len(least), LEAST_FOLDED)]:
        gone = least[:count]
        widths = {n: _width(n, of_column, folded if n in folding else None) for n, of_column in cells.items()}
        if sum(width + 2 for name, width in widths.items() if name not in gone) <= console.width:
            break
    else:
        show_blocks([name.replace("\n", "") for name in headers], body)
        return
    console.print(_table(headers, body, gone, folding, widths))
    if gone:
        console.print(f"not shown in {console.width} columns: {', '.join(gone)}", style="dim", highlight=False)


def _width(name: str, cells: Sequence[str], most: int | None) -> int:
    """Characters that a column needs; ``most`` for one that folds."""
    widest = max(map(len, (*name.split("\n"), *cells)))
    return widest if most is None else min(widest, most)


def _table(
    headers: Sequence[str],
    body: Sequence[Sequence[str]],
    gone: Sequence[str],
    folding: Sequence[str],
    widths: Mapping[str, int],
) -> Table:
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, header_style="bold", pad_edge=False, padding=(0, 1))
    places = [i for i, name in enumerate(headers) if name not in gone]
    for i in places:
        name = headers[i]
        numbers = all(not line[i] or line[i][0] in "+-±0123456789" for line in body)
        table.add_column(
            name,
            no_wrap=name not in folding,
            overflow="fold",
            min_width=widths[name],
            justify="right" if numbers else "left",
        )
    for line in body:
        table.add_row(*(Text(line[i]) for i in places))
    return table
