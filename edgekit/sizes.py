"""What input sizes each detector takes. Data only, so that a recipe is checked without PyTorch."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

Rule: TypeAlias = Callable[[Mapping[str, Any]], int]
COARSEST = 32  # stride of the coarsest map of an ordinary backbone


def _refinedet(options: Mapping[str, Any]) -> int:
    """The transposed convolutions of TCB double a map exactly; four levels from stride 8 end at 64, five at 128."""
    return 128 if options.get("levels") == 5 else 64


# Detectors whose maps are added without being resized to each other. The others take any size.
DIVISORS: Mapping[str, int | Rule] = {
    "mobile-centernet": COARSEST,
    "centernet": COARSEST,
    "yolo": COARSEST,
    "refinedet": _refinedet,
}


def divisor(name: str, options: Mapping[str, Any] | None = None) -> int:
    """What width and height of the input must be divisible by for a detector of the zoo; 1: any size."""
    rule = DIVISORS.get(name, 1)
    return rule if isinstance(rule, int) else rule(options or {})
