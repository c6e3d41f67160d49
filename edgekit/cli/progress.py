"""Progress on stderr: bars on a terminal, plain lines elsewhere. stdout carries nothing but the verb's result."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from .errors import Interrupted

Progress = Callable[[str, int, int], None]
_LINE_EVERY = 10.0  # seconds between two plain lines of one phase


@contextlib.contextmanager
def work(out: Path | None = None, interrupted: str | None = None) -> Iterator[Progress]:
    """Run a verb's work: ``with work(out) as progress: ...(progress=progress)``.

    What the work prints goes to stderr. Ctrl-C becomes ``Interrupted`` with ``interrupted``, or a word on ``out``.
    """
    try:
        with _stdout_to_stderr(), _bars() if sys.stderr.isatty() else _lines() as progress:
            yield progress
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, SystemExit) and not isinstance(error.__context__, KeyboardInterrupt):
            raise
        # Lightning turns Ctrl-C into sys.exit(1)
        what = f"nothing was changed at {out}" if out else "what was there before is unchanged"
        raise Interrupted(f"interrupted; {interrupted or what}") from error


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
    from rich.progress import BarColumn, MofNCompleteColumn, SpinnerColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bars

    columns = (
        SpinnerColumn(),
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Bars(*columns, console=Console(stderr=True)) as bars:
        tasks = {}

        def show(phase: str, done: int, total: int) -> None:
            if phase not in tasks:
                tasks[phase] = bars.add_task(phase)
            bars.update(tasks[phase], completed=done, total=total or None)

        yield show


@contextlib.contextmanager
def _lines() -> Iterator[Progress]:
    """A line when a phase starts and ends, and one every ten seconds between."""
    began: dict[str, float] = {}
    shown: dict[str, float] = {}
    ended: set[str] = set()

    def show(phase: str, done: int, total: int) -> None:
        now = time.monotonic()
        began.setdefault(phase, now)
        last = bool(total) and done >= total
        if phase in ended or (now - shown.get(phase, -_LINE_EVERY) < _LINE_EVERY and not last):
            return
        shown[phase] = now
        if last:
            ended.add(phase)
        count = f" {done}/{total}" if total else f" {done}" if done else ""
        print(f"{phase}{count} ({now - began[phase]:.0f} s)", file=sys.stderr, flush=True)

    yield show
