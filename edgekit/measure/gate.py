"""The gate: may this build replace the one that the baseline was measured on?

Counted figures (mAP, size, GOPS, parameters) are compared as they are. Figures of time, memory and energy vary from run
to run; they fail only where the change is beyond the limit by more than the runs' own noise explains. Where the rows
have the machine's reference, times are judged a second time over it (``_second_opinion``).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean, median
from typing import Any, Literal, NamedTuple

from ..paths import Files, listed
from ..runtime.errors import BadInput
from .drift import WORTH_TELLING, gap, geometric_mean, ran, reference_times
from .matching import (
    DISTURBED,
    Key,
    Runs,
    group_rows,
    machine_differences,
    measurement,
    noted_differences,
    require_one_file,
    sessions,
    state_differences,
)
from .metrics import METRICS, Limit, Metric, parse_limits
from .row import LEAST, NOT_MEASURED, Record, Row
from .verdict import ACCURACY_UNKNOWN

DEFAULT_LIMITS = "mAP=-0.5pt,latency=+5%,size=+1%,gops=+0%"
ASSUMED_RUNS = 4  # the assumed noise of a metric weighs as much as this many runs beyond the first
MACHINE_SLOWED = 0.01  # by which the reference must have become slower to withhold a failure
# How much more than its reference a network was seen to change with the machine (HRNet-W16 in FP32: its p50 went up by
# 12 % while the reference went up by 4 %; benchmarks/results/reproducibility-fp32.json)
MOST_FOLLOWED = 3
MUST_CATCH = 0.10  # a gate that could overlook such a slowdown says so
# Student's t, one-sided 99.9 %: of a thousand unchanged builds one goes beyond its noise. (degrees of freedom, t)
_T999 = (
    *((4, 7.173), (5, 5.893), (6, 5.208), (7, 4.785), (8, 4.501), (9, 4.297), (10, 4.144), (12, 3.930)),
    *((15, 3.733), (20, 3.552), (30, 3.385), (60, 3.232), (120, 3.160)),
)
_SURE = 2.326  # normal deviate, one-sided 99 %: the deviation is taken as known, which of a few runs it is not

Outcome = Literal["pass", "within noise", "fail", "missing", "not comparable", "skipped"]
FAILING: tuple[Outcome, ...] = ("fail", "missing", "not comparable")
# (as measured, against the machine's reference) -> what holds; else it is what was measured. So the reference alone
# never fails a build and never passes one: it may only withhold a verdict, or the excuse of noise that it explains.
_TOGETHER: Mapping[tuple[Outcome, Outcome], Outcome] = {
    ("pass", "fail"): "not comparable",
    ("fail", "pass"): "not comparable",
    ("within noise", "fail"): "fail",
}


class AgainstReference(Record):
    """A time judged as the baseline's machine would have taken it: each run's, over its reference of the machine.

    before_ms, after_ms: the machine's reference, geometric means over the runs of the baseline and of the report
    outcome, new, change, noise: as in ``Check``
    """

    before_ms: float
    after_ms: float
    outcome: Outcome
    new: float
    change: float
    noise: float

    @property
    def machine(self) -> str | None:
        """What the machine did, in words; None where that is not worth telling."""
        moved = abs(self.after_ms / self.before_ms - 1) > WORTH_TELLING
        return ran(self.before_ms, self.after_ms) if moved else None


class Check(Record):
    """One metric of one row. base, new: mean over the undisturbed runs of a varying figure, else median and worst.

    bound: the worst value allowed; change: relative, None where base is 0; runs: (baseline, report)
    noise: how far ``new`` may be beyond ``bound`` by chance, relative, None for a counted figure
    sure_from: the relative worsening from which on this gate fails 99 times in 100, if later runs vary as much as these
        were seen to; None for a counted figure
    against_reference: the second opinion on a time, where every run has the machine's reference
    """

    row: str
    metric: str
    outcome: Outcome
    reason: str = ""
    limit: str
    unit: str = ""
    base: float | None = None
    new: float | None = None
    bound: float | None = None
    change: float | None = None
    noise: float | None = None
    sure_from: float | None = None
    runs: tuple[int, int] = (0, 0)
    against_reference: AgainstReference | None = None


class GateResult(Record):
    """What a gate found. notes: what a reader should know and what fails nothing, each told once."""

    format: Literal["edgekit-gate"] = "edgekit-gate"
    version: Literal[1] = 1
    passed: bool
    baseline: str
    reports: tuple[str, ...]
    checks: tuple[Check, ...]
    notes: tuple[str, ...] = ()

    @property
    def failures(self) -> list[Check]:
        return [check for check in self.checks if check.outcome in FAILING]


def gate(
    baseline: str | Path,
    reports: Files,
    *,
    limits: Sequence[str] = (DEFAULT_LIMITS,),
    skip_incomparable: bool = False,
) -> GateResult:
    """Compare reports of one build with a stored baseline, row by row and metric by metric.

    limits: ``mAP=-0.5pt,latency=+5%``; several reports are repeated runs of the same build
    skip_incomparable: what cannot be compared (another machine or board state, a disturbed run) is named and passes
    Raises BadConfig for a limit that cannot be read, BadInput for a file that is no report and for a measurement that
    is on both sides.
    """
    from .report import read_report, read_runs

    wanted, reports = parse_limits(listed(limits)), listed(reports)
    if not Path(baseline).exists():
        raise BadInput(f"{baseline}: no such baseline. Save one: edgekit baseline save RUN.json ... --out {baseline}")
    old, new = read_report(baseline), read_runs(reports)
    if not old or not new:
        empty = baseline if not old else reports[0] if reports else "the report"
        raise BadInput(f"{empty}: holds no row to compare. Measure some: edgekit bench")
    _require_another_measurement(old, new, baseline)
    result = compare(old, new, wanted, (str(baseline), *map(str, reports)))
    return _skip(result) if skip_incomparable else result


def _require_another_measurement(old: Sequence[Row], new: Sequence[Row], baseline: str | Path) -> None:
    """A gate of a measurement against itself passes whatever the build does: somewhere a path is wrong."""
    own = {measurement(row) for row in old} - {None}
    for row in new:
        if measurement(row) in own:
            raise BadInput(
                f"{baseline}: holds the very measurement of {row.label} that is to be compared with it, and what is "
                "compared with itself always passes. Measure the build under test: edgekit bench ... --out RUN.json"
            )


def compare(
    base: Sequence[Row], new: Sequence[Row], limits: Sequence[Limit], sources: Sequence[str] = ("baseline", "report")
) -> GateResult:
    """``gate`` on rows. Raises BadInput when one side holds different model files under one name."""
    before, after = group_rows(base, new)
    require_one_file(before, sources[0])
    require_one_file(after, ", ".join(sources[1:]))
    checks = [check for key in before for check in _row_checks(key, before[key], after.get(key), limits)]
    return GateResult(
        passed=not any(check.outcome in FAILING for check in checks),
        baseline=sources[0],
        reports=tuple(sources[1:]),
        checks=tuple(checks),
        notes=tuple(dict.fromkeys(_notes(before, after, checks))),
    )


def _skip(result: GateResult) -> GateResult:
    checks = tuple(
        c.model_copy(update={"outcome": "skipped"}) if c.outcome == "not comparable" else c for c in result.checks
    )
    return result.model_copy(update={"checks": checks, "passed": not any(c.outcome in FAILING for c in checks)})


# -- one row ----------------------------------------------------------------------------------------------------------
def _row_checks(key: Key, base: Sequence[Row], new: Sequence[Row] | None, limits: Sequence[Limit]) -> list[Check]:
    if not new:
        return [_missing_row(key, "the baseline has this row, the report has not")]
    died = [row for row in new if row.verdict.status == NOT_MEASURED]
    lived = [row for row in new if row.verdict.status != NOT_MEASURED]
    checks = [_check(key.label, limit, base, lived) for limit in limits] if lived else []
    if died:  # a build that dies once in three runs must not pass on the two others
        checks.append(_missing_row(key, f"{len(died)} of {len(new)} runs gave no result: {_why(died[0])}"))
    return checks


def _missing_row(key: Key, reason: str) -> Check:
    return Check(row=key.label, metric="row", outcome="missing", reason=reason, limit="measured")


def _check(label: str, limit: Limit, base: Sequence[Row], new: Sequence[Row]) -> Check:
    metric = limit.metric
    base_runs, new_runs = _usable(metric, base), _usable(metric, new)
    old, now = _values(metric, base_runs), _values(metric, new_runs)
    why = next(_incomparable(metric, base, new), "")
    if why:
        found: dict[str, Any] = {"outcome": "not comparable", "reason": why}
    elif not old or not now:
        found = _absent(metric, base, new, bool(old))
    else:
        if metric.noise is None:
            found = _judge_exact(limit, old, now)
        else:
            found = _judge_noisy(limit, old, now, (sessions(base_runs), sessions(new_runs)))
        found |= {"runs": (len(old), len(now))}
        if metric.machine:
            found = _second_opinion(limit, base_runs, new_runs, found)
    named = {"row": label, "metric": metric.name, "limit": limit.text, "unit": metric.unit}
    return Check.model_validate({**named, **found})


def _usable(metric: Metric, rows: Sequence[Row]) -> list[Row]:
    """The runs that have the metric; of a figure that varies, only those that nothing disturbed."""
    quiet = [row for row in rows if metric.noise is None or row.verdict.status not in DISTURBED]
    return [row for row in quiet if metric.value(row) is not None]


def _values(metric: Metric, rows: Sequence[Row]) -> list[float]:
    return [float(value) for row in rows if (value := metric.value(row)) is not None]


def _absent(metric: Metric, base: Sequence[Row], new: Sequence[Row], known: bool) -> dict[str, Any]:
    """The baseline has a value that the report lacks: missing. Without a baseline there is nothing to compare with."""
    side, rows = ("report", new) if known else ("baseline", base)
    reasons = dict.fromkeys(reason for row in rows for reason in row.verdict.reasons if _explains(row, reason, metric))
    told = f": {'; '.join(reasons)}" if reasons else ""
    return {
        "outcome": "missing" if known else "not comparable",
        "reason": f"{metric.name} was not measured in the {side}{told}",
    }


def _explains(row: Row, reason: str, metric: Metric) -> bool:
    """Whether a reason of the verdict is why a figure is missing; that a run was disturbed is not."""
    return row.latency is None or (metric.of_images and reason.startswith(ACCURACY_UNKNOWN))


def _incomparable(metric: Metric, base: Sequence[Row], new: Sequence[Row]) -> Iterator[str]:
    """Reasons why the figures of the two sides must not be compared."""
    if metric.of_images:
        yield from _other_images([*base, *new])
    if metric.noise is None:
        return
    first, *others = [*base, *new]
    for row in others:
        for what, differences in (("machine", machine_differences), ("board state", state_differences)):
            told = differences(first, row)
            if told:
                yield f"another {what} ({'; '.join(told)})"
        if (first.verdict.status == "simulated") != (row.verdict.status == "simulated"):
            yield "one side was measured, the other one simulated"
    for side, rows in (("baseline", base), ("report", new)):
        timed = [row for row in rows if row.latency is not None]
        if timed and all(row.verdict.status in DISTURBED for row in timed):
            yield f"every run of the {side} was disturbed ({timed[0].verdict.status}: {_why(timed[0])})"


def _why(row: Row) -> str:
    return "; ".join(row.verdict.reasons) or "no reason is given"


def _other_images(rows: Sequence[Row]) -> Iterator[str]:
    sets = {  # by content: one set may have another name, or lie elsewhere
        (a.set_digest, a.images): f"{a.set}, {a.images} images, digest {a.set_digest[:12]}"
        for a in (row.accuracy for row in rows)
        if a is not None
    }
    if len(sets) > 1:
        yield f"measured on different evaluation images ({'; '.join(sets.values())})"


# -- one metric -------------------------------------------------------------------------------------------------------
def _judge_exact(limit: Limit, base: Sequence[float], new: Sequence[float]) -> dict[str, Any]:
    """Counted figures: the worst of the report against the median of the baseline. On the limit is within it."""
    high = limit.metric.better == "high"
    old, now = median(base), min(new) if high else max(new)
    bound = limit.bound(old)
    worse_by = (bound - now) if high else (now - bound)
    ok = worse_by <= 1e-9 * max(1.0, abs(old))
    return {
        "base": old,
        "new": now,
        "bound": bound,
        "change": (now - old) / abs(old) if old else None,
        "outcome": "pass" if ok else "fail",
        "reason": "" if ok else f"{_beyond(limit, now, bound)}",
    }


class Noise(NamedTuple):
    """Of the logarithm of a ratio of two means: its standard error, and how far chance alone rarely takes it."""

    error: float
    band: float


Days = tuple[Sequence[int], Sequence[int]]
"""The number of the session of each run, of the baseline and of the report."""


def noise_band(base: Sequence[float], new: Sequence[float], assumed: float, days: Days | None = None) -> Noise:
    """How far the ratio of the two sides' geometric means may be off.

    base, new: one positive value a run. The deviation from run to run is pooled over both sides, within each session;
    the ``assumed`` one counts as ``ASSUMED_RUNS`` more degrees of freedom, so a few runs that agree by luck do not make
    the band vanish, and one run a side still has one.
    days: the session of each run; None: one session a side. Runs of one session share the state of the machine, so
    more of them do not average it out. Where a side has several sessions, what they differ by is noise as well, and
    the band is the wider one of the two.
    """
    sides = list(zip((base, new), days or ([0] * len(base), [0] * len(new)), strict=True))
    groups = [_by_session(values, numbers) for values, numbers in sides]
    runs = [logs for side in groups for logs in side]
    within = _pooled(runs, assumed)
    alone = within.band(math.sqrt(1 / len(base) + 1 / len(new)))
    means = [[fmean(logs) for logs in side] for side in groups]
    if all(len(side) == 1 for side in means):
        return alone
    # without any drift the means of sessions would differ by this much
    expected = within.deviation * math.sqrt(fmean(1 / len(logs) for logs in runs))
    drifting = _pooled(means, expected).band(math.sqrt(sum(1 / len(side) for side in means)))
    return max(alone, drifting, key=lambda noise: noise.band)


def _by_session(values: Sequence[float], numbers: Sequence[int]) -> list[list[float]]:
    """The logarithms of the values, those of each session together."""
    found: dict[int, list[float]] = {}
    for value, number in zip(values, numbers, strict=True):
        found.setdefault(number, []).append(math.log(value))
    return list(found.values())


class _Deviation(NamedTuple):
    """A deviation that was estimated with so many degrees of freedom."""

    deviation: float
    freedom: int

    def band(self, share: float) -> Noise:
        """Of a value whose standard error is ``share`` times the deviation."""
        t = next(t for limit, t in reversed(_T999) if limit <= self.freedom)
        return Noise(self.deviation * share, t * self.deviation * share)


def _pooled(groups: Sequence[Sequence[float]], assumed: float) -> _Deviation:
    """The deviation within the groups, into which an ``assumed`` one weighs as ``ASSUMED_RUNS`` degrees of freedom."""
    squares = sum((x - fmean(group)) ** 2 for group in groups for x in group)
    freedom = sum(len(group) - 1 for group in groups) + ASSUMED_RUNS
    return _Deviation(math.sqrt((squares + ASSUMED_RUNS * assumed**2) / freedom), freedom)


def _judge_noisy(limit: Limit, base: Sequence[float], new: Sequence[float], days: Days) -> dict[str, Any]:
    """Varying figures: geometric means, and a failure only beyond limit and noise together."""
    metric = limit.metric
    if min(*base, *new) < LEAST:
        return {"outcome": "not comparable", "reason": f"a run has {metric.text(min(*base, *new))}"}
    old, now = geometric_mean(base), geometric_mean(new)
    noise = noise_band(base, new, metric.noise or 0.0, days)
    bound = limit.bound(old)
    found: dict[str, Any] = {"base": old, "new": now, "bound": bound, "change": now / old - 1}
    sign = -1.0 if metric.better == "high" else 1.0

    def worse_by(logarithm: float) -> float:
        """As a share of what was: 0.1 for 10 % more of what should be low, or 10 % less of what should be high."""
        return sign * math.expm1(sign * logarithm)

    found |= {"noise": worse_by(noise.band), "reason": ""}
    if bound <= 0:
        return {**found, "outcome": "pass", "reason": "the limit allows everything"}
    beyond = sign * math.log(now / bound)  # how much worse than the limit, as a logarithm
    allowed = sign * math.log(bound / old)
    found["sure_from"] = worse_by(allowed + noise.band + _SURE * noise.error)
    if beyond <= 1e-12:
        return {**found, "outcome": "pass"}
    told = _beyond(limit, now, bound)
    if beyond <= noise.band:
        return {**found, "outcome": "within noise", "reason": f"{told}, by no more than the runs vary"}
    return {**found, "outcome": "fail", "reason": f"{told}, by more than the runs vary"}


def _second_opinion(limit: Limit, base: Sequence[Row], new: Sequence[Row], found: dict[str, Any]) -> dict[str, Any]:
    """``found`` together with what the same judge says of the times that the baseline's machine would have taken.

    The host of a virtual machine makes every time longer or shorter, of the network and of the reference alike. A run's
    time over its own reference has neither: not the drift between the two sides, and not that from run to run.
    """
    metric, times = limit.metric, reference_times(base, new)
    if times is None or "change" not in found:
        return found
    before, after = map(geometric_mean, times)
    days = sessions(base), sessions(new)
    sides = [
        [value * (before / ms) ** metric.machine for value, ms in zip(_values(metric, rows), side, strict=True)]
        for rows, side in zip((base, new), times, strict=True)
    ]
    second = _judge_noisy(limit, sides[0], sides[1], days)
    if "change" not in second:
        return found  # of a reference that is no witness: it makes a time of nothing
    told = {name: second[name] for name in ("outcome", "new", "change", "noise")}
    against = AgainstReference.model_validate({"before_ms": before, "after_ms": after, **told})
    outcome = _TOGETHER.get((found["outcome"], against.outcome), found["outcome"])
    if "sure_from" in found and "sure_from" in second:
        found = {**found, "sure_from": min(found["sure_from"], second["sure_from"])}
    reason = found["reason"] if outcome == found["outcome"] else _both_told(limit, outcome, found, against)
    if outcome == "fail" and _machine_slowed(times, days):
        most = (before / after) ** (MOST_FOLLOWED * metric.machine)
        at_most = _judge_noisy(limit, _values(metric, base), [most * value for value in _values(metric, new)], days)
        if at_most["outcome"] != "fail":
            outcome, reason = "not comparable", _may_be_the_machine(limit, found, against)
    return {**found, "outcome": outcome, "reason": reason, "against_reference": against}


def _machine_slowed(times: Sequence[Sequence[float]], days: Days) -> bool:
    """Whether the reference became slower, by more than it differs from run to run.

    What it differs by from run to run is in the noise of what was measured already.
    """
    before, after = map(geometric_mean, times)
    return math.log(after / before) > max(MACHINE_SLOWED, _SURE * noise_band(times[0], times[1], 0.0, days).error)


def _may_be_the_machine(limit: Limit, found: Mapping[str, Any], against: AgainstReference) -> str:
    return (
        f"{_beyond(limit, found['new'], found['bound'])}, but the machine itself "
        f"{ran(against.before_ms, against.after_ms)}, and a network may change up to {MOST_FOLLOWED} times as much as "
        "its reference does, which would explain it. Run again, or measure both in turns: edgekit bench --compare"
    )


def _both_told(limit: Limit, outcome: Outcome, found: Mapping[str, Any], against: AgainstReference) -> str:
    text, bound = limit.metric.text, limit.metric.text(found["bound"])
    judged = f"{text(against.new)} ({against.change:+.1%})"
    if outcome == "fail":
        return (
            f"{_beyond(limit, found['new'], found['bound'])}, and the machine's reference explains how the runs vary: "
            f"against it {judged}, by more than they do"
        )
    return (
        f"the machine itself {ran(against.before_ms, against.after_ms)}. Measured: {text(found['new'])} "
        f"({found['change']:+.1%}); as the machine was then: {judged}; only one of the two is within the limit of "
        f"{bound}. Run again, or measure both in turns: edgekit bench --compare"
    )


def _beyond(limit: Limit, now: float, bound: float) -> str:
    worse = "below" if limit.metric.better == "high" else "above"
    here, there = limit.metric.text(now), limit.metric.text(bound)
    if here == there:  # one operation of a billion too many; a sentence must show what it says
        here, there = (f"{value:.12g} {limit.metric.unit}".strip() for value in (now, bound))
    return f"{here} is {worse} the limit of {there}"


# -- what else a reader should know -----------------------------------------------------------------------------------
def _notes(before: Runs, after: Runs, checks: Sequence[Check]) -> Iterator[str]:
    for key in after:
        if key not in before:
            yield f"{key.label}: new, not in the baseline; nothing was checked"
    for key, base in before.items():
        for row in after.get(key, ()):
            yield from (f"{key.board} changed: {text}" for text in noted_differences(base[0], row))
            yield from _other_kernels(key, base[0], row, checks)
            if row.input != base[0].input:
                yield f"{key.label}: the input changed from {_input(base[0])} to {_input(row)}"
        for side, rows in (("baseline", base), ("report", after.get(key, ()))):
            disturbed = [row for row in rows if row.verdict.status in DISTURBED]
            if disturbed and len(disturbed) < len(rows):
                yield (
                    f"{key.label}: {len(disturbed)} of {len(rows)} runs of the {side} were disturbed and are left "
                    f"out of what varies ({_why(disturbed[0])})"
                )
        if why := gap(*(_usable(METRICS["latency"], rows) for rows in (base, after.get(key, ())))):
            yield f"{key.label}: {why}"
        if any(check.row == key.label and check.outcome == "fail" and _timed(check) for check in checks):
            yield from _one_session(key, base)
    for check in checks:
        if check.against_reference is not None and (moved := check.against_reference.machine):
            yield (
                f"{check.row}: since the baseline the machine itself {moved}; {check.metric} changed by "
                f"{check.change:+.1%} as measured, by {check.against_reference.change:+.1%} against the machine"
            )
        allowed = abs(check.bound / check.base - 1) if check.bound and check.base else 0.0
        if check.sure_from is not None and check.sure_from > MUST_CATCH > allowed:
            yield (
                f"{check.row}: {check.metric} must get {check.sure_from:.1%} worse before this gate is sure to fail "
                f"(runs: {check.runs[0]} in the baseline, {check.runs[1]} in the report); more runs make it sharper"
            )


def _other_kernels(key: Key, base: Row, row: Row, checks: Sequence[Check]) -> Iterator[str]:
    """mAP is compared across machines; of an INT8 file it depends on how the kernels of each one round."""
    compared = any(c.row == key.label and c.metric in METRICS and METRICS[c.metric].of_images for c in checks)
    told = machine_differences(base, row) if compared and key.precision == "int8" else []
    if told:
        yield (
            f"{key.label}: mAP was measured on another machine ({'; '.join(told)}), whose INT8 kernels may round "
            "differently; by a point and more was seen. Save the baseline on this machine, or gate the FP32 file"
        )


def _timed(check: Check) -> bool:
    return check.metric in METRICS and METRICS[check.metric].machine != 0


def _one_session(key: Key, base: Sequence[Row]) -> Iterator[str]:
    """What one who reads of a failure should know of a baseline that was measured in one go on a shared host."""
    if max(sessions(base)) == 0 and any(row.machine.get("before", {}).get("virtual") is True for row in base):
        yield (
            f"{key.label}: the baseline is of one session on a virtual machine, whose host may differ from day to day "
            "by more than these runs do. Save it from runs of several days, or measure both builds in turns: "
            "edgekit bench --compare"
        )


def _input(row: Row) -> str:
    return f"{row.input.width} x {row.input.height} {row.input.layout}"
