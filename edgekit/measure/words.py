"""What a report says in words and facts, the same in every rendering. Pure functions of rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

from ..runtime.timing import P99_NEEDS, SPANS
from .drift import ran, rows_apart
from .labels import (
    NMS_ON_HOST,
    artifact_text,
    by_machine,
    evaluated_on,
    evaluation_text,
    labels,
    set_names,
    size_text,
    way_text,
)
from .matching import DISTURBED, board_facts
from .row import NOT_MEASURED, Row

_PER_ROW = ("affinity", "smt_siblings")  # facts of the core that a row was pinned to, not of the machine
MOST_COMPARED = 6  # sentences about lower precisions; more rows are told together, by machine and runtime
_MOVING = {"load_average": "load average (1 min)", "frequency_mhz": "frequency (MHz)"}  # facts that change meanwhile


# -- findings ---------------------------------------------------------------------------------------------------------
def findings(rows: Sequence[Row]) -> list[str]:
    """The report in a few sentences: the fastest row, what INT8 and NMS in the engine brought, which rows to trust."""
    groups = by_machine(rows)
    timed = {place: found for place, group in groups.items() if (found := [row for row in group if row.latency])}
    said = _fastest(timed)
    pairs = [(place, *pair) for place, group in timed.items() for pair in _fp32_pairs(group)]
    if len(pairs) <= MOST_COMPARED:
        said += [_against_fp32(row, base, _told(row, place, timed)) for place, row, base in pairs]
    else:
        said += _against_fp32_together(pairs)
    said += _against_host(timed)
    return [*said, *_machine_apart(rows, groups), _how_many_valid(rows)]


def _how_many_valid(rows: Sequence[Row]) -> str:
    doubtful: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 1):
        if row.verdict.status != "valid":
            doubtful.setdefault(row.verdict.status, []).append(number)
    if not doubtful:
        return "Every row is valid: nothing disturbed the runs, and each has its accuracy."
    told = [
        f"row {numbers[0]} is {status}" if len(numbers) == 1 else f"rows {_number_list(numbers)} are {status}"
        for status, numbers in doubtful.items()
    ]
    valid = len(rows) - sum(map(len, doubtful.values()))
    return f"{valid} of {len(rows)} rows are valid; {', '.join(told)}."


def _number_list(numbers: Sequence[int]) -> str:
    """``1, 2, 5 to 9`` of ascending numbers."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][-1] + 1:
            runs[-1].append(number)
        else:
            runs.append([number])
    return ", ".join(f"{run[0]} to {run[-1]}" if len(run) > 2 else ", ".join(map(str, run)) for run in runs)


def _fastest(timed: Mapping[str, Sequence[Row]]) -> list[str]:
    """A sentence per machine: figures of different ones are not compared. A disturbed run only where no other is."""
    said = []
    for place, group in timed.items():
        name, best = min(zip(labels(group), group, strict=True), key=lambda item: (_doubted(item[1]), _p50(item[1])))
        among = " of the undisturbed" if 0 < sum(map(_doubted, group)) < len(group) else ""
        where = f"Fastest{among} on {place}" if len(timed) > 1 else f"Fastest{among}"
        said.append(f"{where}: {name}, {speed(best)}{map_text(best)}{_caution(best)}.")
    return said


def _machine_apart(rows: Sequence[Row], groups: Mapping[str, Sequence[Row]]) -> list[str]:
    """A sentence per machine that was not the same itself for all its rows: they differ by that much too."""
    said = []
    for group in groups.values():
        if (ends := rows_apart(group)) is None:
            continue
        fast, slow = (group[end] for end in ends)
        numbers = [next(n for n, row in enumerate(rows, 1) if row is end) for end in (slow, fast)]
        if fast.machine_reference and slow.machine_reference:
            moved = ran(slow.machine_reference.ms, fast.machine_reference.ms)
            said.append(
                f"The machine itself {moved} for row {numbers[1]} than for row {numbers[0]}; to compare the two, "
                "measure them in turns: edgekit bench --compare."
            )
    return said


def _caution(*rows: Row) -> str:
    """What a sentence about rows that cannot be trusted must say."""
    found = {row.verdict.status for row in rows}
    if "simulated" in found:
        return "; simulated, not measured on a board"
    disturbed = any(map(_doubted, rows))
    return "; measured on a disturbed machine, so do not rely on it" if disturbed else ""


def _doubted(row: Row) -> bool:
    return row.verdict.status in DISTURBED


def _p50(row: Row) -> float:
    return row.latency.p50 if row.latency else float("inf")


def speed(row: Row) -> str:
    """Milliseconds per frame at p50, and frames per second."""
    return f"{row.latency.p50:.2f} ms per frame ({row.latency.fps:.1f} fps)" if row.latency else NOT_MEASURED


def map_text(row: Row) -> str:
    """The rest of a sentence; empty when the accuracy is not known."""
    return f", mAP@0.5 {100 * row.accuracy.map50:.1f} %" if row.accuracy else ""


def _but_precision(row: Row) -> tuple[str, ...]:
    return row.model, row.recipe, row.runtime, row.nms, size_text(row)


def _fp32_pairs(timed: Sequence[Row]) -> Iterator[tuple[Row, Row]]:
    """The first run of each file of a lower precision, with FP32 of the same network in the same runtime.

    timed: of one machine. Of several runs of FP32 the one with its mAP from the same images: the lost points are told
    only between these.
    """
    seen: set[tuple[str | None, ...]] = set()
    fp32 = [row for row in timed if row.precision == "fp32"]
    for row in timed:
        kind = (*_but_precision(row), row.precision, evaluated_on(row), row.model_file.sha256)
        same = _of_one_file(row, [r for r in fp32 if _but_precision(r) == _but_precision(row)])
        if row.precision != "fp32" and same and kind not in seen:
            seen.add(kind)
            yield row, next((r for r in same if evaluated_on(r) == evaluated_on(row)), same[0])


def _of_one_file(row: Row, fp32: Sequence[Row]) -> Sequence[Row]:
    """Of rows in FP32 those of the file that the row's drop is against, or that lost theirs against it too.

    Without a drop all, if they are of one file: two files are two trainings, and nothing tells which is the row's.
    """
    if (reference := _reference_file(row)) is not None:
        return [r for r in fp32 if reference in (r.artifact, _reference_file(r))]
    return fp32 if len({r.model_file.sha256 for r in fp32}) == 1 else []


def _reference_file(row: Row) -> str | None:
    """Digest of the artifact that the row's drop is against."""
    return row.drop.reference if row.drop else None


def _gain(row: Row, base: Row) -> float | None:
    """How much more mAP@0.5 a row has than another; None where that is not known, or from other images or classes."""
    if row.accuracy and base.accuracy and evaluated_on(row) == evaluated_on(base):
        return row.accuracy.map50 - base.accuracy.map50
    return None


def _compared(row: Row, base: Row) -> list[str]:
    gain = _gain(row, base)
    accuracy = [] if gain is None else [f"mAP@0.5 {points(gain, '+')} points"]
    return [f"{_p50(base) / _p50(row):.2f} x as fast", *accuracy]


def _told(row: Row, place: str, timed: Mapping[str, Sequence[Row]]) -> str:
    """In brackets what a sentence about a row needs beside its runtime, where ``timed`` holds others like it."""
    parts = []
    every = [r for group in timed.values() for r in group]
    if len(timed) > 1 or len({(r.model, r.recipe) for r in every}) > 1:
        parts.append(f"{row.recipe} on {place}")
    if len({size_text(r) for r in every}) > 1:
        parts.append(size_text(row))
    if row.accuracy and len({evaluated_on(r) for r in every if r.accuracy}) > 1:
        parts.append(f"evaluated on {next(name for r, name in zip(every, set_names(every), strict=True) if r is row)}")
    like = [r for r in timed[place] if _but_precision(r) == _but_precision(row) and r.precision == row.precision]
    if len({r.model_file.sha256 for r in like}) > 1:
        parts.append(artifact_text(row))
    return f" ({', '.join(parts)})" if parts else ""


def _against_fp32(row: Row, base: Row, told: str) -> str:
    """What a lower precision brought. told: as ``_told`` does"""
    parts = [*_compared(row, base), f"file {row.model_file.bytes / base.model_file.bytes:.2f} x the size"]
    return f"{row.precision.upper()} against FP32 in {row.runtime}{told}: {', '.join(parts)}{_caution(row, base)}."


def _against_fp32_together(pairs: Sequence[tuple[str, Row, Row]]) -> list[str]:
    """A sentence for each precision, runtime and machine, with the range over its rows. pairs: (machine, row, FP32)"""
    groups: dict[tuple[str, str, str], list[tuple[Row, Row]]] = {}
    for place, row, base in pairs:
        groups.setdefault((row.precision, row.runtime, place), []).append((row, base))
    said = []
    for (precision, runtime, place), members in groups.items():
        parts = [_range([f"{_p50(base) / _p50(row):.2f}" for row, base in members]) + " x as fast"]
        gains = [gain for pair in members if (gain := _gain(*pair)) is not None]
        if gains:
            parts.append(f"mAP@0.5 {_range([points(gain, '+') for gain in sorted(gains)], in_order=True)} points")
        sizes = [f"{row.model_file.bytes / base.model_file.bytes:.2f}" for row, base in members]
        parts.append(f"file {_range(sizes)} x the size")
        disturbed = sum(bool(_caution(*pair)) for pair in members)
        caution = f"; {disturbed} of them measured on a disturbed machine or simulated" if disturbed else ""
        said.append(
            f"{precision.upper()} against FP32 in {runtime} on {place}, {len(members)} rows: "
            f"{', '.join(parts)}{caution}."
        )
    return said


def _against_host(timed: Mapping[str, Sequence[Row]]) -> Iterator[str]:
    """What NMS in the engine brought against the same network with its NMS on the host, where both were timed."""
    for place, group in timed.items():
        seen: dict[tuple[str | None, ...], Row] = {}
        for row in group:
            seen.setdefault((*_but_nms(row), evaluated_on(row), _reference_file(row), row.nms), row)
        for (*same, nms), row in seen.items():
            base = seen.get((*same, ""))
            if nms and base is not None:
                where = f"{way_text(row)}{_told(row, place, timed)}"
                yield f"{nms} against the host in {where}: {', '.join(_compared(row, base))}{_caution(row, base)}."


def _but_nms(row: Row) -> tuple[str, ...]:
    return row.recipe, row.model, row.runtime, row.precision, size_text(row)


def _range(texts: Sequence[str], in_order: bool = False) -> str:
    """``2.48 to 2.98`` of printed numbers, or the one that they all are."""
    ordered = list(texts) if in_order else sorted(texts, key=float)
    return ordered[0] if ordered[0] == ordered[-1] else f"{ordered[0]} to {ordered[-1]}"


def span_names(rows: Sequence[Row]) -> list[str]:
    """The parts of a frame that any of the rows tells, in the order in which they happen."""
    known = dict.fromkeys(name for row in rows for name in row.spans)
    return [*(name for name in SPANS if name in known), *(name for name in known if name not in SPANS)]


def points(share: float, sign: str = "-") -> str:
    """Percentage points of a difference of shares, with one digit; what rounds to nothing has no minus."""
    return f"{round(100 * share, 1) + 0.0:{sign}.1f}".replace("-", "\u2212")


def verdict_text(row: Row) -> str:
    """``valid``, or the status with its reasons."""
    status, reasons = row.verdict.status, row.verdict.reasons
    return f"{status}: {'; '.join(reasons)}" if reasons else status


def subtitle(rows: Sequence[Row]) -> str:
    """Boards, processors and days of the measurement."""
    processors = dict.fromkeys(str(row.machine.get("before", {}).get("cpu", "unknown processor")) for row in rows)
    known = [name for name in processors if name != "unknown processor"] or ["unknown processor"]
    days = sorted({row.started[:10] for row in rows if row.started})
    when = [f"measured {days[0]}" + (f" to {days[-1]}" if len(days) > 1 else "")] if days else []
    return " · ".join([*dict.fromkeys(row.board for row in rows), *known, *when])


def conditions(rows: Sequence[Row]) -> list[str]:
    """What the numbers were measured on: input, evaluation set, frames, warm-up."""
    inputs = dict.fromkeys(f"{r.input.width} x {r.input.height} ({r.input.layout})" for r in rows)
    sets = dict.fromkeys(evaluation_text(r.accuracy) for r in rows if r.accuracy)
    counts = [r.latency.count for r in rows if r.latency]
    frames = [f"{min(counts)}" if min(counts) == max(counts) else f"{min(counts)} to {max(counts)}"] if counts else []
    warmups = sorted({r.process.warmup for r in rows})
    return [
        f"Input: {'; '.join(inputs)} pixels, batch 1.",
        f"Evaluation set: {'; '.join(sets) or NOT_MEASURED}.",
        *(f"Percentiles over {n} frames a row, none left out." for n in frames),
        f"Warm-up: {' or '.join(map(str, warmups))} frames before the timed ones, kept apart.",
    ]


def facts(row: Row) -> list[tuple[str, str]]:
    """Everything of a row that is not in the table, as (name, value with its unit)."""
    return [*run_facts(row), *file_facts(row)]


def run_facts(row: Row) -> list[tuple[str, str]]:
    """How the timed part went."""
    return [*_latency_facts(row), *_process_facts(row)]


_LATENCY_FACTS = ("frames timed", "mean ± std", "min", "p99", "max", "p90, 99 % sure", "p99, 99 % sure")


def _latency_facts(row: Row) -> list[tuple[str, str]]:
    latency = row.latency
    if latency is None:
        return [(name, NOT_MEASURED) for name in _LATENCY_FACTS]
    return [
        ("frames timed", str(latency.count)),
        ("mean ± std", f"{latency.mean:.2f} ± {latency.std:.2f} ms"),
        ("min", f"{latency.min:.2f} ms"),
        ("p99", f"n < {P99_NEEDS}" if latency.p99 is None else f"{latency.p99:.2f} ms"),
        ("max", f"{latency.max:.2f} ms"),
        ("p90, 99 % sure", _show(latency.p90_estimate, "{:.2f} ms")),
        ("p99, 99 % sure", f"n < {P99_NEEDS}" if latency.p99 is None else _show(latency.p99_estimate, "{:.2f} ms")),
    ]


def _process_facts(row: Row) -> list[tuple[str, str]]:
    process = row.process
    return [
        ("first frame (cold)", _show(process.cold_ms, "{:.2f} ms")),
        ("load", _show(process.load_seconds, "{:.2f} s")),
        ("peak memory (RSS)", _show(process.peak_rss_mb, "{:.1f} MB")),
        ("device memory", _show(process.device_memory_mb, "{:.1f} MB")),
        ("CPU time / wall time", _show(process.cpu_over_wall, "{:.3f}")),
        ("last third / first third", _show(row.sustained.ratio if row.sustained else None, "{:.3f} x")),
        ("the machine's reference", _reference(row)),
        ("energy per frame", _energy(row)),
        ("offline throughput", _offline(row)),
        ("mAP@0.5 lost to FP32", _lost(row)),
    ]


def _reference(row: Row) -> str:
    """The course of the machine's own speed over the run."""
    known = row.machine_reference
    return f"{' · '.join(f'{ms:.3f}' for ms in known.thirds_ms)} ms by thirds" if known else NOT_MEASURED


def _lost(row: Row) -> str:
    if row.drop is not None:
        return f"{points(row.drop.map50)} points"
    return "it is FP32" if row.precision == "fp32" and row.accuracy else NOT_MEASURED


def _energy(row: Row) -> str:
    known = row.energy
    return f"{1e3 * known.joules_per_frame:.1f} mJ, {known.watts:.1f} W ({known.source})" if known else NOT_MEASURED


def _offline(row: Row) -> str:
    """The best way of spreading the work."""
    if not row.throughput:
        return NOT_MEASURED
    best = max(row.throughput, key=lambda way: way.fps)
    return f"{best.fps:.1f} fps (batch {best.batch}, {best.streams} x {best.threads} threads)"


def file_facts(row: Row) -> list[tuple[str, str]]:
    """What was run, and the lesser conditions of the run."""
    process, counted = row.process, row.complexity
    return [
        ("evaluated on", evaluation_text(row.accuracy) if row.accuracy else NOT_MEASURED),
        ("timed for", _show(process.seconds, "{:.1f} s")),
        ("images in the loop", _show(process.images, "{}")),
        ("decoding an image file", _show(process.decode_ms, "{:.2f} ms")),
        ("threads", str(process.threads)),
        ("core", "not pinned" if process.core is None else str(process.core)),
        ("its SMT siblings", _siblings(row)),
        ("involuntary switches", _show(process.involuntary_switches, "{}")),
        ("voluntary switches", _show(process.voluntary_switches, "{}")),
        ("cores busy with others", _show(process.other_load, "{:.2f}")),
        ("runtime version", row.runtime_version or "unknown"),
        ("NMS", (row.nms or NMS_ON_HOST).removeprefix("NMS ")),
        ("model file", row.model_file.name),
        ("its size", f"{row.model_size_mb:.2f} MB = {row.model_size_mib:.2f} MiB"),
        ("its SHA-256", row.model_file.sha256[:16]),
        ("artifact", row.artifact[:16]),
        ("MACs", f"{counted.macs:,}" if counted else NOT_MEASURED),
        ("weights in the graph", f"{counted.parameters:,}" if counted else NOT_MEASURED),
        ("measured", (row.started or "unknown").replace("T", " ").replace("+00:00", " UTC")),
    ]


def _siblings(row: Row) -> str:
    known = row.machine.get("before", {}).get("smt_siblings", "unknown")
    cores = known.get(str(row.process.core)) if isinstance(known, dict) else None
    others = [str(core) for core in cores or [] if core != row.process.core] if isinstance(cores, list) else None
    return "unknown" if others is None else ", ".join(others) or "none"


def _show(value: float | None, style: str) -> str:
    return NOT_MEASURED if value is None else style.format(value)


class Machine(NamedTuple):
    """Rows that ran on one machine, and what it is. facts: (name, value)."""

    numbers: tuple[int, ...]
    facts: tuple[tuple[str, str], ...]


def machines(rows: Sequence[Row]) -> list[Machine]:
    """The rows' machines, each once. What moves while it runs (load, frequency) is given as the range over its rows."""
    groups: dict[str, list[int]] = {}
    for number, row in enumerate(rows, 1):
        if "before" in row.machine:
            groups.setdefault(json.dumps(_fixed(row), sort_keys=True), []).append(number)
    return [
        Machine(tuple(numbers), (*_flat(_fixed(rows[numbers[0] - 1])), *_moving([rows[n - 1] for n in numbers])))
        for numbers in groups.values()
    ]


def _fixed(row: Row) -> dict[str, Any]:
    known = {**row.machine["before"], **board_facts(row)}
    return {name: value for name, value in known.items() if name not in (*_MOVING, *_PER_ROW)}


def _flat(values: dict[str, Any]) -> Iterator[tuple[str, str]]:
    for name, value in values.items():
        if isinstance(value, list):
            text = ", ".join(map(str, value))
        elif isinstance(value, dict):
            text = "; ".join(f"{k}: {', '.join(map(str, v)) if isinstance(v, list) else v}" for k, v in value.items())
        else:
            text = str(value) if not isinstance(value, bool) else "yes" if value else "no"
        yield name.replace("_mb", " (MB)").replace("_", " "), text or "none"


def _moving(rows: Sequence[Row]) -> Iterator[tuple[str, str]]:
    for name, label in _MOVING.items():
        seen = [m[name] for row in rows for m in row.machine.values() if name in m]
        numbers = [v[0] if isinstance(v, list) else v for v in seen]
        known = [float(v) for v in numbers if isinstance(v, int | float)]
        ends = dict.fromkeys(f"{v:g}" for v in (min(known), max(known))) if known else ["unknown"]
        yield label, " to ".join(ends)
