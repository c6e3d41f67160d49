"""The verdict on a run: whether its numbers can be trusted, and every reason why not."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from .row import MachineReference, Process, Status, Sustained, Track, Verdict

ACCURACY_UNKNOWN = "accuracy unknown"  # how the reason of perf-only begins
LEAST_CPU_SHARE = 0.97  # of wall time, for one pinned thread; less means that somebody else had the core
MOST_OTHER_LOAD = 0.25  # cores kept busy by others
MOST_CLOCK_MOVE = 0.05  # of the clock, between the first and the last third of the run
MOST_CLOCK_SPREAD = 0.10  # of the clock, anywhere in the run
MOST_WARMING = 10.0  # degrees between the first and the last third, when the run became slower meanwhile
MOST_SLOWING = 1.03  # last third / first third, together with warming
MOST_DRIFT = 1.05  # last third / first third or the reverse, whatever the cause
MOST_MACHINE_MOVE = 0.05  # of the machine's reference, between any two thirds of the run


def judge(
    samples: Sequence[float],
    process: Process,
    noisy_ratio: float,
    accuracy_known: bool,
    sustained: Sustained | None = None,
    tracks: Sequence[Track] = (),
    simulated: Sequence[str] = (),
    perf_only: str = "the images have no labels",
    reference: MachineReference | None = None,
) -> Verdict:
    """The verdict on a run, with every reason in words.

    simulated before throttled before noisy before perf-only: the worst that holds is the status.
    samples: end-to-end ms, at least one; noisy_ratio: the board's limit of p90/p50. The 90th percentile is used here
    however few the samples are: it warns, while the printed p90 claims.
    simulated: what showed that this was no real board; perf_only: why the accuracy is unknown, when it is
    reference: the machine's own speed meanwhile, where the network's depends on it
    """
    moved = list(_throttled(sustained, tracks))
    noise = list(_noisy(samples, process, noisy_ratio, sustained, bool(moved)))
    noise += _machine_changed(reference)
    status: Status = "throttled" if moved else "noisy" if noise else "valid" if accuracy_known else "perf-only"
    reasons = moved + noise
    if not accuracy_known:
        reasons.append(f"{ACCURACY_UNKNOWN}: {perf_only}")
    if simulated:
        status = "simulated"
        reasons.insert(0, f"no board but a simulator, so its times mean nothing: {'; '.join(simulated)}")
    return Verdict(status=status, reasons=tuple(reasons))


def _throttled(sustained: Sustained | None, tracks: Sequence[Track]) -> Iterator[str]:
    for track in tracks:
        if track.unit == "MHz":
            yield from _clock_moved(track)
        slower = sustained is not None and sustained.ratio > MOST_SLOWING
        if track.unit == "C" and slower and sustained is not None and track.last - track.first > MOST_WARMING:
            yield (
                f"{track.name} rose from {track.first:.0f} to {track.last:.0f} °C "
                f"while the run became {sustained.ratio - 1:.0%} slower"
            )


def _clock_moved(track: Track) -> Iterator[str]:
    if abs(track.last - track.first) > MOST_CLOCK_MOVE * max(track.first, track.last):
        yield f"{track.name} moved from {track.first:.0f} MHz in the first third to {track.last:.0f} MHz in the last"
    elif track.max - track.min > MOST_CLOCK_SPREAD * track.max:
        yield f"{track.name} moved between {track.min:.0f} and {track.max:.0f} MHz"


def _noisy(
    samples: Sequence[float], process: Process, noisy_ratio: float, sustained: Sustained | None, explained: bool
) -> Iterator[str]:
    p50, p90 = np.percentile(samples, (50, 90))
    if p90 > noisy_ratio * p50:
        yield f"p90 is {p90 / p50:.2f} x p50; the board allows {noisy_ratio:g} x"
    share = process.cpu_over_wall
    if process.core is not None and process.threads == 1 and share is not None and share < LEAST_CPU_SHARE:
        yield (
            f"the process had its core for only {share:.0%} of the time "
            f"({process.involuntary_switches} involuntary context switches)"
        )
    if process.other_load is not None and process.other_load > MOST_OTHER_LOAD:
        yield f"other processes kept {process.other_load:.1f} cores busy meanwhile"
    if sustained is not None and not explained and not 1 / MOST_DRIFT <= sustained.ratio <= MOST_DRIFT:
        yield (
            f"the last third took {sustained.last_ms:.2f} ms a frame and the first {sustained.first_ms:.2f} ms, "
            "and no clock that this machine shows explains it"
        )


def _machine_changed(reference: MachineReference | None) -> Iterator[str]:
    if reference is not None and reference.moved > MOST_MACHINE_MOVE:
        first, middle, last = (f"{ms:.3f}" for ms in reference.thirds_ms)
        yield (
            f"the machine itself changed, not the model: its reference took {first} ms in the first third, {middle} ms "
            f"in the middle and {last} ms in the last"
        )


def simulators(result: Mapping[str, Any]) -> tuple[str, ...]:
    """What a worker's result says of being no real board or library; empty on a real one."""
    told = (result.get("board") or {}).get("simulated") or ()
    own = result["session"].get("simulated")
    return (*map(str, told), *([own if isinstance(own, str) else "its session says so"] if own else []))
