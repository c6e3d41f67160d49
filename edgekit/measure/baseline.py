"""Baselines: the rows that a gate compares with, merged from repeated runs of one build."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from statistics import fmean, stdev
from typing import Any

from ..paths import Files, listed
from ..runtime.artifact import check_not_read, new_file
from ..runtime.errors import BadConfig, BadInput
from .drift import reference_times
from .gate import noise_band
from .matching import DISTURBED, Runs, group_rows, machine_differences, require_one_file, sessions, state_differences
from .metrics import METRICS
from .report import read_runs, report_file, report_json, utf8
from .row import Row

ACTIONS = ("save", "show")


def baseline(action: str, files: Files, *, out: str | Path | None = None) -> list[dict[str, Any]]:
    """``save`` merges reports of repeated runs into the file ``out``; ``show`` tells what a baseline holds.

    Returns a record per row: its name, runs, p50 and its deviation from run to run, and what a gate should know.
    Raises BadInput when the runs are not of one build on one machine, and BadConfig for another action.
    """
    if action not in ACTIONS:
        raise BadConfig(f"baseline: unknown action {action!r}; there are: {', '.join(ACTIONS)}")
    if (action == "save") != (out is not None):
        wrong = "save needs out: where to write" if out is None else "show writes nothing; leave out away"
        raise BadConfig(f"baseline {wrong} (--out BASELINE.json)")
    files = listed(files)
    rows = read_runs(files)
    if out is not None:
        check_not_read([out], [report_file(file) for file in files])
    names = ", ".join(map(str, files))
    if not rows:
        raise BadInput(f"{names}: holds no row. Measure some: edgekit bench")
    (runs,) = group_rows(rows)
    require_one_file(runs, names)
    _require_one_machine(runs, names)
    if out is not None:
        _save(rows, names, out)
    return [_record(key.label, repeats) for key, repeats in runs.items()]


def _save(rows: Sequence[Row], names: str, out: str | Path) -> None:
    unmeasured = [row.label for row in rows if row.verdict.status == "not measured"]
    if unmeasured:
        raise BadInput(f"{names}: {unmeasured[0]} was not measured, so it is no baseline. Measure again: edgekit bench")
    # a gate needs the statistics; the frames behind them would make a file that nobody wants in a repository
    slim = [row.model_copy(update={"samples": (), "tracks": (), "layers": ()}) for row in rows]
    data = utf8(out, report_json(slim))
    with new_file(out, "wb") as handle:
        handle.write(data)


def _require_one_machine(runs: Runs, names: str) -> None:
    for key, (first, *others) in runs.items():
        for row in others:
            told = [*machine_differences(first, row), *state_differences(first, row)]
            if told:
                raise BadInput(
                    f"{names}: {key.label} was measured on different machines or board states ({'; '.join(told)}). "
                    f"A baseline is of one; give the reports of one machine."
                )


def _record(label: str, rows: Sequence[Row]) -> dict[str, Any]:
    """p50 and its deviation from run to run; what a gate would take for noise; and what the machine itself did.

    sessions: how many times it was measured, with a pause of an hour or more between
    noise_percent: for a report of one session with as many runs
    machine_spread_percent: highest over lowest time of the machine's reference; against_machine_percent: the deviation
    of p50 over that reference; lower than that of p50 alone where the reference explains how the runs vary.
    """
    usable = [row for row in rows if row.latency and row.verdict.status not in DISTURBED]
    quiet = [row.latency.p50 for row in usable if row.latency]
    record: dict[str, Any] = {"row": label, "runs": len(rows), "undisturbed": len(quiet)}
    if quiet and min(quiet) > 0:
        days = sessions(usable)
        noise = noise_band(quiet, quiet, METRICS["latency"].noise or 0.0, (days, [0] * len(quiet)))
        record |= {
            "sessions": 1 + max(days),
            "p50_ms": math.exp(fmean(map(math.log, quiet))),
            "deviation_percent": _deviation(quiet),
            "noise_percent": 100 * math.expm1(noise.band),
        }
        if times := reference_times(usable):
            record |= {
                "machine_spread_percent": 100 * (max(times[0]) / min(times[0]) - 1),
                "against_machine_percent": _deviation([ms / own for ms, own in zip(quiet, times[0], strict=True)]),
            }
    return record


def _deviation(values: Sequence[float]) -> float | None:
    """From run to run, in percent; None for one run."""
    return 100 * stdev(map(math.log, values)) if len(values) > 1 else None
