"""Where the shipped recipes, boards and calibration sets are: in an installed wheel, or beside the package."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from .runtime.errors import BadConfig

MOST_NAMES = 16  # more than so many are no help in a message
Files = str | Path | Sequence[str | Path]  # of an argument that takes several, or one alone: see ``listed``
WEIGHTS = "weights.safetensors"  # in a checkpoint, and in a recipe's folder where they ship
_PACKAGE = Path(__file__).resolve().parent


def share(kind: str) -> Path:
    """Folder of shipped data: ``recipes``, ``boards``, ``calibration``, ``scoring``, ``benchmarks/papers`` ..."""
    installed = _PACKAGE / "_share" / kind
    return installed if installed.is_dir() else _PACKAGE.parent / kind


def expanded(path: str | Path) -> Path:
    """The path with ``~`` and ``~name`` as home folders. Raises BadConfig where there is no such user."""
    try:
        return Path(path).expanduser()
    except RuntimeError as error:
        user = Path(path).parts[0]
        raise BadConfig(f"{path}: {user} is no home folder here. Write the path out in full.") from error


def listed(values: Any) -> list[Any]:
    """A list of paths or texts; one that stands alone, where several may be given, is a list of it."""
    return [values] if isinstance(values, str | Path) else list(values)


def text(value: str | Path | None) -> str | None:
    """A name or a path of a set, as the readers of sets and the rows take it."""
    return None if value is None else str(value)


def is_packed(file: Path) -> bool:
    """Whether a file is gzip's, as bundles are."""
    with file.open("rb") as handle:
        return handle.read(2) == b"\x1f\x8b"


def unknown_name(what: str, name: str, known: list[str], more: str) -> BadConfig:
    """The error for a name that does not exist, with the nearest ones that do."""
    plain = {each.lower(): each for each in known}
    near = [plain[each] for each in get_close_matches(name.lower(), plain, n=3, cutoff=0.4)]
    hints = [f"Did you mean {' or '.join(near)}?"] if near else []
    if len(known) <= MOST_NAMES or not (near or more):
        hints.append(f"There are: {', '.join(sorted(known))}.")
    return BadConfig(" ".join([f"no {what} named {name!r}.", *hints, *filter(None, [more])]))
