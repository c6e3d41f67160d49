"""Progress on stderr: bars on a terminal, plain lines elsewhere. stdout carries nothing but the verb's result."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from ..progress import Progress
from .errors import Interrupted

_LINE_EVERY = 10.0  # seconds between two plain lines of one phase, at least
_LINES = 20  # ... and at least the phase's time so far divided by this, so that a training of hours fills no log
_BARS = 8  # bars on the screen at once


@contextlib.contextmanager
def work(out: Path | None = None, interrupted: str | None = None) -> Iterator[Progress]:
    """Run a verb's work: ``with work(out) as progress: ...(progress=progress)``.

    What the work prints goes to stderr. Ctrl-C becomes ``Interrupted`` with ``interrupted``, or the work's own words on
    what it leaves, or a word on ``out``.
    """
    try:
        with _stdout_to_stderr(), _bars() if sys.stderr.isatty() else contextlib.nullcontext(lines()) as progress:
            yield progress
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        # Lightning turns Ctrl-C into sys.exit(1)
        own = str(error) if isinstance(error, KeyboardInterrupt) else ""
        what = f"nothing was changed at {out}" if out else "what was there before is unchanged"
        raise Interrupted(f"interrupted; {interrupted or own or what}") from error


@contextlib.contextmanager
def _stdout_to_stderr() -> Iterator[None]:
    """Also for native libraries and child processes: they write to file descriptor 1, not to sys.stdout."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        os.dup2(kept, 1)
        os.close(kept)


@contextlib.contextmanager
def _bars() -> Iterator[Progress]:
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        MofNCompleteColumn,
        SpinnerColumn,
        TextColumn,
        TimeElapsedColumn,
        TimeRemainingColumn,
    )
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}", markup=False),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}
        told: dict[str, str] = {}

        def show(phase: str, done: int, total: int) -> None:
            name = _name(phase)
            if name not in tasks:
                tasks[name] = bars.add_task(phase)
                for finished in bars.task_ids[:-_BARS]:
                    bars.update(finished, visible=False)
            if told.setdefault(name, phase) != phase:  # such as an epoch's loss: above the bars, and there to stay
                told[name] = phase
                bars.console.print(phase, markup=False, highlight=False)
            bars.update(tasks[name], completed=done, total=total or None)

        yield show


def lines() -> Progress:
    """A line when a phase starts and ends, and some between: every ten seconds at first, ever fewer in a long phase.

    A detail that was not told before, such as an epoch's loss, is a line of its own.
    """
    began: dict[str, tuple[float, int]] = {}  # when, and with how much done: a resumed training begins in its middle
    shown: dict[str, float] = {}
    told: dict[str, str] = {}
    ended: set[str] = set()

    def show(phase: str, done: int, total: int) -> None:
        now, name = time.monotonic(), _name(phase)
        start, done_before = began.setdefault(name, (now, done))
        elapsed = now - start
        last = bool(total) and done >= total
        due = name not in shown or now - shown[name] >= max(_LINE_EVERY, elapsed / _LINES)
        new = told.get(name, phase) != phase
        if not new and (name in ended or not (due or last)):
            return
        shown[name], told[name] = now, phase
        if last:
            ended.add(name)
        count = f" {done}/{total}" if total else f" {done}" if done else ""
        left = ""
        if elapsed and done_before < done < total:
            left = f", about {_time(elapsed / (done - done_before) * (total - done))} left"
        print(f"{phase}{count} ({_time(elapsed)}{left})", file=sys.stderr, flush=True)

    return show


def _time(seconds: float) -> str:
    """``90 s``, ``12 min``, ``3.5 h``: as long as a person waits."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 100 * 60 else f"{seconds / 3600:.1f} h"


def _name(phase: str) -> str:
    """What stands before the first comma names the bar, what follows is detail: ``train, epoch 3/60``."""
    return phase.partition(",")[0]
