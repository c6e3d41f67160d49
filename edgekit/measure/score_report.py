"""A ranking for people: a table with the raw figures beside every score. Pure functions."""

from __future__ import annotations

from .metrics import METRICS
from .report import markdown_grid
from .row import NOT_MEASURED
from .scoring import Placed, Ranking

RAW = ("mAP50", "size", "gops", "latency")  # the competition's four columns, in its order


def score_headers(ranking: Ranking) -> list[str]:
    return ["place", "name", "board", *(_header(name) for name in _raw(ranking)), "score", "mAP measured on", "origin"]


_HEADERS = {"size": "size (MB)", "mAP50": "mAP@0.5 (%)", "mAP": "mAP (%)", "latency": "ms/frame"}


def _header(name: str) -> str:
    return _HEADERS.get(name, METRICS[name].title)


def _raw(ranking: Ranking) -> list[str]:
    return list(dict.fromkeys([*RAW, *ranking.weights]))


def score_cells(ranking: Ranking) -> list[list[str]]:
    """One line per entry, in the order of the headers."""
    return [_cells(line, _raw(ranking)) for line in ranking.entries]


def _cells(line: Placed, raw: list[str]) -> list[str]:
    return [
        _place(line),
        line.name,
        line.board,
        *(_figure(name, line.values.get(name)) for name in raw),
        line.reason if line.score is None else f"{line.score:.3f}",
        line.evaluated_on,
        line.verdict if line.published else f"this report, {line.verdict}",
    ]


def _place(line: Placed) -> str:
    """With a star on what another board made; ``method`` says so in words."""
    if line.place is None:
        return "-"
    return f"{line.place}*" if line.note and not line.published else str(line.place)


def _figure(name: str, value: float | None) -> str:
    return NOT_MEASURED if value is None else METRICS[name].style.format(value)


def method(ranking: Ranking) -> list[str]:
    """How the score is made, in sentences."""
    weights = ", ".join(f"{METRICS[name].title} {weight:.3g}" for name, weight in ranking.weights.items())
    ranges = ", ".join(
        f"{METRICS[name].title} {METRICS[name].text(worst)} to {METRICS[name].text(best)}"
        for name, (worst, best) in ranking.ranges.items()
    )
    return [
        f"Rules {ranking.rules}: {ranking.title}. Weights: {weights}.",
        f"Each column is 0 at the worst and 1 at the best of the set {ranking.reference}: {ranges}.",
        f"The set: {ranking.source}.",
        *([f"Note: {' '.join(ranking.note.split())}"] if ranking.note else []),
        *(f"{line.name}: {line.note}." for line in ranking.entries if line.note and line.published),
        *(f"* {note}." for note in _stars(ranking)),
    ]


def _stars(ranking: Ranking) -> list[str]:
    """Each of the notes on rows once."""
    return list(dict.fromkeys(line.note for line in ranking.entries if line.note and not line.published and line.place))


def render_score(ranking: Ranking) -> str:
    """Markdown."""
    numeric = frozenset({"place", "score", *(_header(name) for name in _raw(ranking))})
    table = markdown_grid(score_headers(ranking), score_cells(ranking), numeric)
    return "\n\n".join([f"## {ranking.title}", table, "\n".join(f"- {text}" for text in method(ranking))]) + "\n"
