"""How work tells how far it is: ``progress(phase, done, total)``; ``count(done, total)`` where it has one phase."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

Progress = Callable[[str, int, int], None]
Count = Callable[[int, int], None]


def tell(progress: Progress | None, phase: str, done: int, total: int) -> None:
    """Tell it to the one who asked, if anybody did."""
    if progress is not None:
        progress(phase, done, total)


def counting(progress: Progress | None, phase: str) -> Count:
    """What work of one phase tells, for the one who asked."""
    return partial(tell, progress, phase)


def named(progress: Progress, name: str) -> Progress:
    """The progress of one piece of work among several."""
    return lambda phase, done, total: progress(f"{name}: {phase}", done, total)


def quiet(*_: object) -> None:
    """The progress that nobody asked for."""
