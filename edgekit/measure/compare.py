"""``edgekit bench --compare A B``: two files, or one in two runtimes, in turns, and the ratio with its interval.

A machine drifts: its clock, its temperature, its neighbours. Two runs one after the other compare two moments as well
as two models. So both processes are started, warmed up and kept, and take turns on the same core: A B, B A, A B, ...
A pair is two turns beside each other; what disturbs both cancels in it, and that A and B swap places cancels a steady
drift.

Why two processes and not one with both sessions: each stays the measured process that ``bench`` starts, with its own
libraries, threads and memory, so that the rows of a comparison are rows like any other, and a crash names its file.
The price is that the other's turn empties the caches; a frame that is not counted opens each turn and fills them again.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from datetime import datetime, timezone
from typing import Annotated, Any, Literal, NamedTuple

import numpy as np
from pydantic import Field

from ..board import Board
from ..data.coco import CocoSet
from ..progress import Progress
from .bench import BenchOptions, Target, measured, worker_job
from .process import WORKER, OtherLoad, Worker
from .row import NonNegative, Record, Row

FRAMES = 4  # in a turn, besides the one that is not counted
LEAST_PAIRS = 30
RESAMPLES = 2000
CONFIDENCE = 0.95
BLOCK = 1_000_000  # pairs that are drawn at a time


class Ratio(Record):
    """B's time over A's: medians of the turns, with the bootstrap interval over pairs (percentile method)."""

    value: NonNegative
    low: NonNegative
    high: NonNegative
    confidence: float = CONFIDENCE


class Comparison(Record):
    """Two rows that were measured in turns. ratio: B's time over A's, end to end

    pairs: the median milliseconds of A's and of B's turn, in the order of measuring; frames: in each turn
    """

    format: Literal["edgekit-comparison"] = "edgekit-comparison"
    version: Literal[1] = 1
    a: Row
    b: Row
    ratio: Ratio
    pairs: Annotated[tuple[tuple[NonNegative, NonNegative], ...], Field(min_length=1)]
    frames: int

    @property
    def finding(self) -> str:
        """The result in a sentence."""
        r = self.ratio
        interval = f"{r.confidence:.0%} interval {r.low:.3f} to {r.high:.3f}"
        if r.low <= 1 <= r.high:
            return f"No difference can be seen: B takes {r.value:.3f} x the time of A ({interval} holds 1)."
        faster, slower, factor = ("B", "A", 1 / r.value) if r.value < 1 else ("A", "B", r.value)
        return f"{faster} is {factor:.3f} x as fast as {slower}: B takes {r.value:.3f} x the time of A ({interval})."

    @property
    def machine(self) -> str | None:
        """What the machine itself did meanwhile, in a sentence; None where that is not known."""
        known = [row.machine_reference for row in (self.a, self.b) if row.machine_reference]
        if not known:
            return None
        moved = max(reference.moved for reference in known)
        return f"The machine's own speed moved by {moved:.1%} meanwhile; what both turns of a pair met cancels."

    def to_dict(self) -> dict[str, Any]:
        return self.model_dump(mode="json")


class Pair(NamedTuple):
    """Median milliseconds of two turns beside each other."""

    a: float
    b: float


def compare(
    a: Target,
    b: Target,
    board: Board,
    eval_set: CocoSet,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
    worker: Sequence[str] = WORKER,
) -> Comparison:
    """Measure both in turns, until each has had ``min_seconds`` and there are LEAST_PAIRS pairs.

    Raises what ``measure_target`` raises; the message names the side that failed.
    """
    options = options or BenchOptions()
    jobs = [{**worker_job(t, board, eval_set, options), "mode": "turns"} for t in (a, b)]
    jobs[1]["core"] = jobs[0]["core"]  # "auto" may choose another one the second time
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    load = OtherLoad()
    with Worker(jobs[0], worker, progress, talks=True) as one, Worker(jobs[1], worker, progress, talks=True) as two:
        one.wait_for("ready")
        two.wait_for("ready")
        pairs = take_pairs(one, two, jobs[0]["min_seconds"], progress)
        results = [one.finish(), two.finish()]
    busy = load.cores()
    rows = [
        measured(target, board, eval_set, options, job, result, busy, started).row
        for target, job, result in zip((a, b), jobs, results, strict=True)
    ]
    return Comparison(a=rows[0], b=rows[1], ratio=ratio(pairs), pairs=tuple(pairs), frames=FRAMES)


def take_pairs(one: Worker, two: Worker, seconds: float, progress: Progress | None = None) -> list[Pair]:
    """Turns until each side has worked for ``seconds``; who is first alternates."""
    pairs: list[Pair] = []
    end = time.perf_counter() + 2 * seconds
    while len(pairs) < LEAST_PAIRS or time.perf_counter() < end:
        if len(pairs) % 2:
            b, a = _turn(two), _turn(one)
        else:
            a, b = _turn(one), _turn(two)
        pairs.append(Pair(a, b))
        if progress is not None:
            left = max(LEAST_PAIRS, _expected(len(pairs), end, 2 * seconds))
            progress("turns", len(pairs), max(left, len(pairs)))
    return pairs


def _expected(done: int, end: float, whole: float) -> int:
    spent = whole - (end - time.perf_counter())
    return int(done * whole / max(spent, 1e-9))


def _turn(worker: Worker) -> float:
    worker.send({"frames": FRAMES})
    return statistics.median(worker.wait_for("turn")["ms"])


def ratio(pairs: Sequence[tuple[float, float]], seed: int = 0) -> Ratio:
    """median(B) / median(A) with its interval: pairs, not single turns, are drawn again with replacement."""
    values = np.asarray(pairs, np.float64)
    rng = np.random.default_rng(seed)
    rows = max(1, BLOCK // len(values))  # block by block: all at once took gigabytes for the pairs of an hour
    counts = [min(rows, RESAMPLES - done) for done in range(0, RESAMPLES, rows)]
    drawn = np.concatenate([_drawn(values, rng.integers(0, len(values), (n, len(values)))) for n in counts])
    low, high = np.percentile(drawn, (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)))
    value = float(np.median(values[:, 1]) / np.median(values[:, 0]))
    return Ratio(value=value, low=min(float(low), value), high=max(float(high), value))


def _drawn(values: np.ndarray, pick: np.ndarray) -> np.ndarray:
    """The ratio of every line of ``pick``, which draws pairs by number."""
    a, b = (np.median(values[:, side][pick], axis=1, overwrite_input=True) for side in (0, 1))
    return np.asarray(b / a)
