"""What rows' machine references say of the machine itself: it may have changed between two runs, and not the model."""

from __future__ import annotations

import math
from collections.abc import Sequence
from statistics import fmean

from .row import MachineReference, Row

# The reference is work of one thread on the CPU. What a network takes on an accelerator does not follow it.
_ON_CPU = frozenset({"onnxruntime", "openvino", "pytorch"})
WORTH_TELLING = 0.03  # by which the machine's reference must differ


def follows_the_machine(runtime: str) -> bool:
    """Whether a network's time in this runtime is the CPU's, as the reference's is."""
    return runtime in _ON_CPU


def reference_of(row: Row) -> MachineReference | None:
    """The row's reference, where its latency follows the machine."""
    return row.machine_reference if follows_the_machine(row.runtime) else None


def reference_times(*sides: Sequence[Row]) -> list[list[float]] | None:
    """Milliseconds of the reference of each row of each side; None where a row has none, or the work differs."""
    found = [[reference_of(row) for row in rows] for rows in sides]
    kinds = {reference.kind if reference else None for side in found for reference in side}
    if len(kinds) != 1 or None in kinds:
        return None
    return [[reference.ms for reference in side if reference] for side in found]


def geometric_mean(values: Sequence[float]) -> float:
    """Of at least one positive value."""
    return math.exp(fmean(map(math.log, values)))


def ran(before: float, after: float) -> str:
    """``ran 6.1% faster (its reference took 0.512 ms, then 0.481 ms)``: of two times of the reference in ms."""
    change = after / before - 1
    how = f"{abs(change):.1%} {'faster' if change < 0 else 'slower'}"
    return f"ran {how} (its reference took {before:.3f} ms, then {after:.3f} ms)"


def gap(base: Sequence[Row], new: Sequence[Row]) -> str | None:
    """Why drift cannot be told between runs of which some have a reference; None where it can, or none has one."""
    if not base or not new:
        return None
    sides = {"baseline": base, "report": new}
    lacking = [name for name, rows in sides.items() if not all(map(reference_of, rows))]
    if len(lacking) == 1:
        return f"the {lacking[0]} has no reference of the machine, so its drift cannot be told; measure it again"
    kinds = list(dict.fromkeys(r.kind for rows in (base, new) for row in rows if (r := reference_of(row))))
    if not lacking and len(kinds) > 1:
        return f"the machine's reference is another one ({', now '.join(kinds)}), so its drift cannot be told"
    return None


def rows_apart(rows: Sequence[Row]) -> tuple[int, int] | None:
    """Of rows measured beside each other the numbers, from 0, of those on the fastest and on the slowest machine.

    None where they do not differ by WORTH_TELLING, or it is not known.
    """
    known = [(reference.ms, number) for number, row in enumerate(rows) if (reference := reference_of(row))]
    kinds = {reference.kind for row in rows if (reference := reference_of(row))}
    if len(kinds) != 1 or max(known)[0] <= (1 + WORTH_TELLING) * min(known)[0]:
        return None
    return min(known)[1], max(known)[1]
