"""Counts in words, as notes and summaries tell them."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """``1 box``, ``2 boxes``; of the noun the last word changes."""
    return f"{count} {plural(noun, count)}"


def plural(noun: str, count: float) -> str:
    """The noun as it stands behind a count: ``annotation`` or ``annotations``."""
    if count == 1:
        return noun
    return f"{noun}es" if noun.endswith(("s", "x", "ch", "sh")) else f"{noun}s"
