"""The report as CSV for spreadsheets and programs, and the competition table in LaTeX for papers. Pure functions."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from .labels import evaluated_on, evaluation_text, labels, table_cells
from .row import COLUMNS, NUMERIC, Row

# What a spreadsheet wants beside the table's columns; None is an empty cell
_MORE: Mapping[str, Callable[[Row], str | float | None]] = {
    "verdict": lambda r: r.verdict.status,
    "reasons": lambda r: "; ".join(r.verdict.reasons),
    "recipe": lambda r: r.recipe,
    "runtime version": lambda r: r.runtime_version,
    "NMS in the engine": lambda r: r.nms or None,
    "input": lambda r: f"{r.input.width}x{r.input.height}",
    "layout": lambda r: r.input.layout,
    "frames": lambda r: r.latency.count if r.latency else None,
    "ms/frame mean": lambda r: r.latency.mean if r.latency else None,
    "ms/frame std": lambda r: r.latency.std if r.latency else None,
    "ms/frame min": lambda r: r.latency.min if r.latency else None,
    "p99": lambda r: r.latency.p99 if r.latency else None,
    "ms/frame max": lambda r: r.latency.max if r.latency else None,
    "first frame (ms)": lambda r: r.process.cold_ms,
    "load (s)": lambda r: r.process.load_seconds,
    "peak memory (MB)": lambda r: r.process.peak_rss_mb,
    "joules/frame": lambda r: r.energy.joules_per_frame if r.energy else None,
    "threads": lambda r: r.process.threads,
    "MACs": lambda r: r.complexity.macs if r.complexity else None,
    "bytes": lambda r: r.model_file.bytes,
    "evaluation set": lambda r: r.accuracy.set if r.accuracy else None,
    "evaluation images": lambda r: r.accuracy.images if r.accuracy else None,
    "cpu": lambda r: _known(r.machine.get("before", {}).get("cpu")),
    "started": lambda r: r.started,
    "model sha256": lambda r: r.model_file.sha256,
}


def render_csv(rows: Sequence[Row]) -> str:
    """One line per row (RFC 4180): the table's columns unrounded, then the conditions. What is unknown is empty.

    A text that a spreadsheet would take for a formula has an apostrophe before it.
    """
    text = io.StringIO()
    writer = csv.writer(text)
    writer.writerow([*(column.header for column in COLUMNS), *_MORE])
    for row in rows:
        values = [*(column.value(row) for column in COLUMNS), *(value(row) for value in _MORE.values())]
        writer.writerow([_no_formula(value) for value in values])
    return text.getvalue()


_FORMULA = ("=", "+", "-", "@", "\t", "\r")  # how one may begin


def _no_formula(value: str | float | None) -> str | float | None:
    return f"'{value}" if isinstance(value, str) and value.startswith(_FORMULA) else value


def _known(fact: Any) -> str | None:
    return None if fact in (None, "unknown") else str(fact)


_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "·": r"\textperiodcentered{}",
    **{char: f"\\{char}" for char in "&%$#_"},
}


def render_latex(rows: Sequence[Row]) -> str:
    """The competition table for a paper. Rows that are not valid carry a mark, and those of several evaluation sets the
    mark of theirs; the last lines explain them.
    """
    columns = [column for column in COLUMNS if column.header != "params"]
    align = "".join("r" if column.header in NUMERIC else "l" for column in columns)
    sets, body = _sets(rows), []
    for row, cells in zip(rows, table_cells(rows), strict=True):
        first, *rest = (latex(text) for text, column in zip(cells, COLUMNS, strict=True) if column in columns)
        body.append(" & ".join([first + _mark(row, sets), *rest]) + r" \\")
    notes = _footnotes(rows, sets)
    footnotes = [f"\\multicolumn{{{len(columns)}}}{{l}}{{\\footnotesize {text}}} \\\\" for text in notes]
    return "\n".join(
        [
            "% needs \\usepackage{booktabs}; mAP in percent, size in MB (1e6 bytes), 1 MAC = 2 operations",
            f"\\begin{{tabular}}{{{align}}}",
            "\\toprule",
            " & ".join(latex(column.header) for column in columns) + r" \\",
            "\\midrule",
            *body,
            "\\bottomrule",
            *footnotes,
            "\\end{tabular}",
            "",
        ]
    )


def latex(text: str) -> str:
    """Text with every character that LaTeX would take for a command replaced."""
    return "".join(_LATEX.get(char, char) for char in text.replace("\n", " "))


def _sets(rows: Sequence[Row]) -> dict[str | None, tuple[int, str]]:
    """Digest -> (mark, text of its footnote) of each evaluation set; empty where all rows are of one."""
    found = {evaluated_on(row): evaluation_text(row.accuracy) for row in rows if row.accuracy}
    return {digest: (n, text) for n, (digest, text) in enumerate(found.items(), 1)} if len(found) > 1 else {}


def _mark(row: Row, sets: Mapping[str | None, tuple[int, str]]) -> str:
    invalid = "" if _valid(row) else "$^\\ast$"
    digest = evaluated_on(row)
    return invalid + (f"$^{{{sets[digest][0]}}}$" if digest in sets else "")


def _valid(row: Row) -> bool:
    return row.verdict.status == "valid"


def _footnotes(rows: Sequence[Row], sets: Mapping[str | None, tuple[int, str]]) -> list[str]:
    named = zip(labels(rows), rows, strict=True)
    doubtful = [f"$^\\ast$ {latex(name)}: {latex(row.verdict.status)}" for name, row in named if not _valid(row)]
    return doubtful + [f"$^{{{mark}}}$ evaluated on {latex(text)}" for mark, text in sets.values()]
