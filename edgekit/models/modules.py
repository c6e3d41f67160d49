"""Which modules of a network a name stands for. Names only, so that files are looked at without PyTorch."""

from __future__ import annotations

from collections.abc import Iterable


def matches(module: str, names: Iterable[str]) -> bool:
    """Is ``module`` one of ``names``, or inside one of them? ``head`` covers ``head.size.2``.

    So ``float_modules`` are read, by the quantizer and by training that rounds alike.
    """
    return any(module == name or module.startswith(f"{name}.") for name in names)
