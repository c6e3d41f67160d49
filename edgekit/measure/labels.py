"""How rows are called, so that each is told from the others, and which of them are of one machine. Pure functions."""

from __future__ import annotations

from collections.abc import Sequence

from .matching import IDENTITY, image_names, machine_differences, machine_facts
from .row import COLUMNS, Accuracy, Row

NMS_ON_HOST = "NMS on the host"  # or none, where the head needs none
_NAMING = {"cpu": "{}", "device": "{}", "cores": "{} cores"}  # facts that tell the machines of one board apart


def labels(rows: Sequence[Row]) -> list[str]:
    """A short name for each row, with only those of model, machine, runtime and precision in which the rows differ.

    What the four do not tell apart is told as ``told_apart`` does.
    """
    columns = [[row.model for row in rows], places(rows)]
    shown = [column for column in columns if len(set(column)) > 1]
    return told_apart([" · ".join(name) for name in zip(*shown, map(way_text, rows), strict=True)], rows)


def told_apart(names: Sequence[str], rows: Sequence[Row]) -> list[str]:
    """Names of rows, made different by recipe, input size, place of NMS and evaluation set, then by the artifact where
    the model files differ, and at last by a number for each run of one file.
    """
    names = _told_apart(names, [row.recipe for row in rows])
    names = _told_apart(names, [size_text(row) for row in rows])
    names = _told_apart(names, [row.nms or NMS_ON_HOST for row in rows])
    names = _told_apart(names, [text and f"on {text}" for text in set_names(rows)])
    names = _told_apart(names, [artifact_text(row) for row in rows], [row.model_file.sha256 for row in rows])
    return _numbered(names, "run")


def table_cells(rows: Sequence[Row]) -> list[list[str]]:
    """The competition table as text, one list per row, in the order of ``COLUMNS``.

    Networks of one name are told apart by their recipe and, if it has their names too, by the size of their input.
    """
    names = _told_apart([row.model for row in rows], [row.recipe for row in rows])
    names = _told_apart(names, [size_text(row) for row in rows])
    return [[name, *(column.text(row) for column in COLUMNS[1:])] for name, row in zip(names, rows, strict=True)]


def _told_apart(names: Sequence[str], texts: Sequence[str], kinds: Sequence[str] | None = None) -> list[str]:
    """Names that rows of different ``kinds`` share get the texts added. "" is not known; kinds: the texts where None"""
    found: dict[str, set[str]] = {}
    for name, kind in zip(names, texts if kinds is None else kinds, strict=True):
        found.setdefault(name, set()).update({kind} - {""})
    pairs = zip(names, texts, strict=True)
    return [f"{name} · {text}" if text and len(found[name]) > 1 else name for name, text in pairs]


def _numbered(names: Sequence[str], what: str) -> list[str]:
    seen: dict[str, int] = {}
    numbers = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        numbers.append(seen[name])
    return [f"{name} ({what} {n})" if seen[name] > 1 else name for name, n in zip(names, numbers, strict=True)]


def way_text(row: Row) -> str:
    return f"{row.runtime} {row.precision}"


def artifact_text(row: Row) -> str:
    return f"artifact {row.artifact[:8]}"


def set_names(rows: Sequence[Row]) -> list[str]:
    """The set that each row was evaluated on, with its digest where another of these sets has its name; "" without."""
    names = image_names(rows, "{} ({})")
    return [names[row.accuracy.set_digest] if row.accuracy else "" for row in rows]


def evaluated_on(row: Row) -> str | None:
    """Digest of the images and classes of a row's mAP, which says nothing beside one from others."""
    return row.accuracy.set_digest if row.accuracy else None


def evaluation_text(accuracy: Accuracy) -> str:
    """The evaluation set, how many of its images were run, and what tells it from another of its name."""
    return f"{accuracy.set}, {accuracy.images} images (digest {accuracy.set_digest[:12]})"


def size_text(row: Row) -> str:
    return f"{row.input.width}x{row.input.height}"


# -- machines ---------------------------------------------------------------------------------------------------------
def places(rows: Sequence[Row]) -> list[str]:
    """The machine that each row ran on: its board, with the processor where rows of that board are of several machines.

    What the gate refuses to compare are several machines: a board such as ``x86-1t`` is any x86.
    """
    identities = [repr([row.board, *map(machine_facts(row).get, IDENTITY)]) for row in rows]
    groups: list[list[Row]] = []  # of each machine a row for each way in which its facts are told
    numbers: dict[str, int] = {}
    for identity, row in zip(identities, rows, strict=True):
        if identity not in numbers:
            number = next((n for n, group in enumerate(groups) if _of_one_machine(row, group)), len(groups))
            groups += [[]] if number == len(groups) else []
            groups[number].append(row)
            numbers[identity] = number
    names = [group[0].board for group in groups]
    for fact, style in _NAMING.items():
        names = _told_apart(names, [_machine_fact(group, fact, style) for group in groups])
    names = _numbered(names, "machine")
    return [names[numbers[identity]] for identity in identities]


def _of_one_machine(row: Row, group: Sequence[Row]) -> bool:
    return row.board == group[0].board and not any(machine_differences(other, row) for other in group)


def _machine_fact(rows: Sequence[Row], name: str, style: str) -> str:
    """A fact of the rows' machine, from the first that tells it; else ""."""
    told = [machine_facts(row).get(name, "unknown") for row in rows]
    return next((style.format(value) for value in told if value != "unknown"), "")


def by_machine(rows: Sequence[Row]) -> dict[str, list[Row]]:
    """The rows of each of ``places``, in the order in which these come. Only they are compared with each other."""
    grouped: dict[str, list[Row]] = {}
    for place, row in zip(places(rows), rows, strict=True):
        grouped.setdefault(place, []).append(row)
    return grouped
