"""How a verb tells how far it is: ``progress(phase, done, total)``."""

from __future__ import annotations

from collections.abc import Callable

Progress = Callable[[str, int, int], None]


def tell(progress: Progress | None, phase: str, done: int, total: int) -> None:
    """Tell it to the one who asked, if anybody did."""
    if progress is not None:
        progress(phase, done, total)
