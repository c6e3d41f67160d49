"""``edgekit score``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .grids import show_grid
from .output import print_json

EXAMPLE = """
edgekit score runs/demo/report.json --rules icme2020
"""


def score(
    reports: Annotated[list[Path], typer.Argument(metavar="REPORT", help="Files of measured rows.")],
    rules: Annotated[
        str, typer.Option("--rules", help="A shipped rule set (icme2020), or the path of a YAML file of your own.")
    ],
    markdown: Annotated[Path | None, typer.Option(help="Write the ranking in Markdown.", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """Place measured rows among a competition's published results.

    The raw figures stand beside every score, and each line says on which board it ran. Rules are data: weights,
    directions, a named reference set, a floor.
    """
    import edgekit

    from ..measure.report import report_file
    from ..runtime.artifact import check_not_read, check_place, new_file

    if markdown is not None:
        check_place(markdown, "file")
        check_not_read([markdown], [*map(report_file, reports), rules])
    ranking = edgekit.score(reports, rules=rules)
    if markdown is not None:
        from ..measure.score_report import render_score

        with new_file(markdown) as handle:
            handle.write(render_score(ranking))
    if json:
        print_json(ranking)
        return
    from ..measure.score_report import method, score_cells, score_headers

    folding = ("name", "board", "mAP measured on", "score")
    headers = [name.replace(" (", "\n(").replace("/", "/\n") for name in score_headers(ranking)]
    show_grid(headers, score_cells(ranking), folding, least=("mAP measured on", "origin"))
    print("\n".join(method(ranking)))
