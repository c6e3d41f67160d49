"""A competition's score: columns brought to 0..1 against a named set of entries, weighted and added.

A score means nothing without the set that it was made against and the raw figures, so both always stand beside it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal, TypeVar

from pydantic import Field, ValidationError, model_validator

from ..config import Section, explain, read_mapping
from ..paths import Files, expanded, listed, share, unknown_name
from ..runtime.errors import BadConfig, BadInput
from .labels import by_machine, told_apart
from .matching import DISTURBED
from .metrics import METRICS, find_metric
from .row import NOT_MEASURED, Record, Row

Positive = Annotated[float, Field(gt=0, allow_inf_nan=False)]
T = TypeVar("T", bound=Section)
Number = Annotated[float, Field(allow_inf_nan=False)]


class Entry(Section):
    """A published result. values: metric -> figure in the metric's own unit (mAP in percent, MB, GOPS, ms)."""

    name: str
    values: dict[str, Number]
    board: str | None = None
    note: str = ""


class ReferenceSet(Section):
    """A named set of results that others are placed among.

    board: where the entries ran, unless one says otherwise; profile: the name of EdgeKit's profile of that board
    """

    name: str
    title: str
    source: str
    board: str
    profile: str | None = None
    evaluated_on: str
    entries: Annotated[tuple[Entry, ...], Field(min_length=2)]

    @model_validator(mode="after")
    def _known_metrics(self) -> ReferenceSet:
        unknown = sorted({name for entry in self.entries for name in entry.values} - set(METRICS))
        if unknown:
            raise ValueError(f"entries: unknown metric {', '.join(unknown)}; there are: {', '.join(METRICS)}")
        return self


class Criterion(Section):
    """One column. weight: any positive number; the weights are divided by their sum."""

    metric: str
    weight: Positive
    better: Literal["high", "low"]


class Floor(Section):
    """The least value with which an entry is scored at all."""

    metric: str
    least: Number


class Rules(Section):
    """How a score is made.

    reference: a shipped set, or a path; normalisation: min-max is 1 for the best entry of the set and 0 for the worst
    outside: what becomes of a row beyond the set's range: ``clamp`` to 0..1, or ``extend`` the line
    """

    name: str
    title: str
    note: str = ""
    reference: str
    normalisation: Literal["min-max"] = "min-max"
    outside: Literal["clamp", "extend"] = "clamp"
    criteria: Annotated[tuple[Criterion, ...], Field(min_length=1)]
    floor: Floor | None = None

    @model_validator(mode="after")
    def _known_metrics(self) -> Rules:
        names = [criterion.metric for criterion in self.criteria]
        try:
            for name in [*names, *([self.floor.metric] if self.floor else [])]:
                find_metric(name)
        except BadConfig as error:
            raise ValueError(str(error)) from error
        twice = [name for name in dict.fromkeys(names) if names.count(name) > 1]
        if twice:
            raise ValueError(f"criteria: {', '.join(twice)} is there twice")
        return self


class Placed(Record):
    """One line of the ranking. place: 1 is the best; None without a score, and then ``reason`` says why.

    values: the raw figures; parts: each criterion's normalised value, before its weight
    published: it comes from the reference set; else it is a row of the report, with its verdict
    note: what to know about the line; of a row that its figures of time are from another board than the set's
    """

    place: int | None
    name: str
    board: str
    published: bool
    verdict: str
    evaluated_on: str
    score: float | None
    values: dict[str, float | None]
    parts: dict[str, float | None]
    reason: str = ""
    note: str = ""


class Ranking(Record):
    """Rows and the reference set's entries, the best first. weights: they add up to 1."""

    rules: str
    title: str
    note: str
    reference: str
    source: str
    weights: dict[str, float]
    ranges: dict[str, tuple[float, float]]
    entries: tuple[Placed, ...]


def score(reports: Files, *, rules: str | Path) -> Ranking:
    """Place the rows of reports among the rules' reference set.

    rules: a shipped name (``icme2020``) or the path of a YAML file. Raises BadConfig that lists what is wrong with it.
    """
    from .report import read_report

    found, reports = load_rules(rules), listed(reports)
    rows = [row for file in reports for row in read_report(file)]
    if not rows:
        raise BadInput(f"{', '.join(map(str, reports))}: holds no row to score. Measure some: edgekit bench")
    return rank(rows, found, load_references(found.reference, Path(rules).parent))


def load_rules(name: str | Path) -> Rules:
    """Read rules by a shipped name or by the path of a YAML file."""
    return _load(Rules, "rules", name, share("scoring"))


def load_references(name: str | Path, beside: Path = Path()) -> ReferenceSet:
    """Read a reference set by a shipped name, or by a path, which may be relative to ``beside``."""
    place = beside / name if not Path(name).is_file() and (beside / name).is_file() else name
    return _load(ReferenceSet, "reference set", place, share("scoring") / "references")


_YAML = (".yaml", ".yml")


def _load(kind: type[T], what: str, name: str | Path, shipped: Path) -> T:
    path, names = expanded(name), sorted(p.stem for p in shipped.glob("*.yaml"))
    stem = path.stem if path.suffix in _YAML else path.name
    if path.is_file():
        file = path
    elif stem in names and path.parent == Path():
        file = shipped / f"{stem}.yaml"
    elif path.suffix in _YAML or path.parent != Path():
        raise BadConfig(f"{name}: no such file. Shipped {what} need no path: {', '.join(names)}")
    else:
        raise unknown_name(what, str(name), names, "The path of a YAML file works too.")
    values = read_mapping(file)
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise BadConfig(explain(kind, file, error)) from error


def rank(rows: Sequence[Row], rules: Rules, references: ReferenceSet) -> Ranking:
    """Score rows and entries by the same rules, and put them in order; those without a score come last."""
    ranges = _ranges(rules, references)
    total = math.fsum(criterion.weight for criterion in rules.criteria)
    weights = {find_metric(c.metric).name: c.weight / total for c in rules.criteria}
    lines = [_published(entry, references) for entry in references.entries]
    for place, group in by_machine(rows).items():
        names = told_apart([row.label + place.removeprefix(row.board) for row in group], group)
        lines += [_measured(name, row, rules, references) for name, row in zip(names, group, strict=True)]
    scored = [_scored(line, rules, weights, ranges) for line in lines]
    better = sorted((line.score for line in scored if line.score is not None), reverse=True)
    places = [None if line.score is None else 1 + better.index(line.score) for line in scored]  # equal ones share it
    placed = [line.model_copy(update={"place": n}) for line, n in zip(scored, places, strict=True)]
    return Ranking(
        rules=rules.name,
        title=rules.title,
        note=rules.note.strip(),
        reference=references.name,
        source=references.source,
        weights=weights,
        ranges=ranges,
        entries=tuple(sorted(placed, key=lambda line: line.place or len(placed) + 1)),
    )


def _ranges(rules: Rules, references: ReferenceSet) -> dict[str, tuple[float, float]]:
    """Metric -> (worst, best) of the set. Raises BadConfig when the set cannot tell them apart."""
    ranges = {}
    for criterion in rules.criteria:
        name = find_metric(criterion.metric).name
        values = [entry.values[name] for entry in references.entries if name in entry.values]
        if len(set(values)) < 2:
            raise BadConfig(
                f"rules {rules.name!r}: the set {references.name!r} has {len(set(values))} different values of {name}; "
                f"min-max needs two. Use another set, or leave the criterion out"
            )
        ends = (min(values), max(values))
        ranges[name] = ends if criterion.better == "high" else ends[::-1]
    return ranges


def _published(entry: Entry, references: ReferenceSet) -> Placed:
    return Placed(
        place=None,
        name=entry.name,
        board=entry.board or references.board,
        published=True,
        verdict="published",
        evaluated_on=references.evaluated_on,
        score=None,
        values=dict(entry.values),
        parts={},
        note=entry.note,
    )


def _measured(name: str, row: Row, rules: Rules, references: ReferenceSet) -> Placed:
    names = dict.fromkeys(find_metric(n).name for n in _metrics(rules))
    accuracy = row.accuracy
    return Placed(
        place=None,
        name=name,
        board=row.board,
        published=False,
        verdict=row.verdict.status,
        evaluated_on=f"{accuracy.set}, {accuracy.images} images" if accuracy else NOT_MEASURED,
        score=None,
        values={name: METRICS[name].value(row) for name in names},
        parts={},
        note=_other_board(row.board, list(names), references),
    )


def _other_board(board: str, names: Sequence[str], references: ReferenceSet) -> str:
    """What is compared across boards, or an empty string."""
    titles = [METRICS[name].title for name in names if METRICS[name].of_machine]
    if not titles or board in (references.board, references.profile):
        return ""
    return (
        f"{', '.join(titles)} measured on {board}, and of the set on {references.board}: "
        "the place is an orientation, not a result"
    )


def _metrics(rules: Rules) -> list[str]:
    return [*(criterion.metric for criterion in rules.criteria), *([rules.floor.metric] if rules.floor else [])]


def _scored(line: Placed, rules: Rules, weights: dict[str, float], ranges: dict[str, tuple[float, float]]) -> Placed:
    parts = {name: _part(line.values.get(name), ranges[name], rules.outside) for name in weights}
    reason = _unscored(line, rules, parts)
    known = {name: part for name, part in parts.items() if part is not None}
    value = None if reason else math.fsum(weights[name] * part for name, part in known.items())
    return line.model_copy(update={"parts": parts, "score": value, "reason": reason})


def _part(value: float | None, ends: tuple[float, float], outside: str) -> float | None:
    """Min-max: 0 at the set's worst, 1 at its best."""
    if value is None:
        return None
    worst, best = ends
    share_ = (value - worst) / (best - worst)
    return min(1.0, max(0.0, share_)) if outside == "clamp" else share_


def _unscored(line: Placed, rules: Rules, parts: dict[str, float | None]) -> str:
    """Why there is no score, or an empty string."""
    if line.verdict == "simulated":
        return "simulated, so its figures are no board's: measure on the board"
    timed = [metric.title for metric in map(find_metric, _metrics(rules)) if metric.timed]
    if timed and line.verdict in DISTURBED:
        return f"{line.verdict}, so {', '.join(timed)} cannot be placed: measure again"
    lacking = [METRICS[name].title for name, part in parts.items() if part is None]
    if lacking:
        return f"{NOT_MEASURED}: {', '.join(lacking)}"
    if rules.floor is None:
        return ""
    metric = find_metric(rules.floor.metric)
    value = line.values.get(metric.name)
    if value is None:
        return f"{NOT_MEASURED}: {metric.title}, which has a floor"
    if value < rules.floor.least:
        return f"not qualified: {metric.title} {metric.text(value)} is below {metric.text(rules.floor.least)}"
    return ""
