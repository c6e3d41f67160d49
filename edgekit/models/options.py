"""Options of a recipe on their way to what they are for: a builder's keyword arguments."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any


def keywords(
    name: str, builder: Callable[..., Any], options: Mapping[str, Any] | None, filled: Sequence[str] = ()
) -> dict[str, Any]:
    """``options`` as keyword arguments of ``builder``, a copy.

    name: the builder's, for the message;  filled: parameters that the caller gives
    Raises ValueError for options that the builder does not have, and says which it has.
    """
    known = [p for p in inspect.signature(builder).parameters if p not in filled]
    if unknown := sorted(str(key) for key in (options or {}).keys() - set(known)):
        raise ValueError(f"unknown {', '.join(unknown)}; {name} takes: {', '.join(known) or 'none'}")
    return dict(options or {})
