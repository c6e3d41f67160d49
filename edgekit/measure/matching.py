"""Which rows of two reports are the same thing, and whether their figures may be compared."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

from ..runtime.errors import BadInput
from ..runtime.onboard.power import CLOCKS_SET
from .row import NOT_MEASURED, Row

DISTURBED = ("noisy", "throttled")
SESSION_PAUSE = timedelta(hours=1)  # between runs; what the host of a virtual machine does changes meanwhile
# Facts that say which machine it is. memory_mb may differ a little: the kernel keeps some for itself.
IDENTITY = (
    "cpu",
    "architecture",
    "extensions",
    "cores",
    "physical_cores",
    "memory_mb",
    "board",
    "virtual",
    "model",
    "device",
)
_NEAR = {"memory_mb": 0.05, "frequency_mhz": 0.05}  # relative difference that means nothing
_SOFTWARE = ("system", "kernel", "python", "L4T", "CUDA")
_NOTED = ("host", "frequency_mhz")  # another one of the same kind; a clock that nobody holds moves by itself
_MOVING = ("load_average", "affinity", "smt_siblings", *_NOTED)
_UNKNOWN = (None, "unknown", "not measured")


class Key(NamedTuple):
    """What a row is of. The fields from ``recipe`` on are empty where no rows differ in them that share the rest.

    input: width x height in pixels; images: name of the evaluation set, with its digest where two sets have one name
    """

    model: str
    board: str
    runtime: str
    precision: str
    recipe: str = ""
    nms: str = ""
    input: str = ""
    images: str = ""

    @property
    def label(self) -> str:
        model = f"{self.model} ({self.recipe})" if self.recipe else self.model
        parts = [model, self.board, f"{self.runtime} {self.precision}", self.nms, self.input, self.images]
        return " · ".join(filter(None, parts))


Runs = dict[Key, list[Row]]
_Keyed = list[tuple[Key, Row]]


def group_rows(*files: Sequence[Row]) -> list[Runs]:
    """The rows of each list by their key. Rows under one key in one list are repeated runs of the same thing."""
    images = image_names([row for rows in files for row in rows])
    telling: Mapping[str, Callable[[Row], str | None]] = {
        "recipe": lambda row: row.recipe,
        "nms": lambda row: row.nms,
        "input": lambda row: f"{row.input.width} x {row.input.height}",
        "images": lambda row: images[row.accuracy.set_digest] if row.accuracy else None,
    }
    keyed = [[(_key(row), row) for row in rows] for rows in files]
    for name, value in telling.items():
        keyed = _told_apart(keyed, name, value)
    grouped: list[Runs] = [{} for _ in keyed]
    for runs, rows in zip(grouped, keyed, strict=True):
        for key, row in rows:
            runs.setdefault(key, []).append(row)
    return grouped


def _told_apart(keyed: Sequence[_Keyed], name: str, value: Callable[[Row], str | None]) -> list[_Keyed]:
    """The keys with the field ``name`` where rows of one list share a key and differ in the field's value.

    A row that does not tell it (None: one that failed has no evaluation set) may be of any of them, and counts to all.
    """
    shared: set[Key] = set()
    known: dict[Key, dict[str, None]] = {}  # in the order of the rows
    for rows in keyed:
        here = {(key, told) for key, row in rows if (told := value(row)) is not None}
        counts = Counter(key for key, _ in here)
        shared.update(key for key, count in counts.items() if count > 1)
        for key, row in rows:
            if (told := value(row)) is not None:
                known.setdefault(key, {})[told] = None

    def keys(key: Key, row: Row) -> list[Key]:
        told = value(row)
        return [key._replace(**{name: one}) for one in (known[key] if told is None else [told])]

    return [[(new, row) for key, row in rows for new in (keys(key, row) if key in shared else [key])] for rows in keyed]


def image_names(rows: Sequence[Row], apart: str = "{} {}") -> dict[str, str]:
    """Digest of an evaluation set -> its name; where another has it too, with the digest, as ``apart`` says."""
    names: dict[str, str] = {}
    for row in rows:
        if row.accuracy is not None:
            names.setdefault(row.accuracy.set_digest, row.accuracy.set)
    often = Counter(names.values())
    return {digest: name if often[name] == 1 else apart.format(name, digest[:12]) for digest, name in names.items()}


def _key(row: Row) -> Key:
    return Key(row.model, row.board, row.runtime, row.precision)


def measurement(row: Row) -> str | None:
    """What only one and the same measurement has, in whatever files it stands; None where nothing was measured."""
    if row.verdict.status == NOT_MEASURED:
        return None
    return json.dumps(
        row.model_dump(mode="json", exclude={"samples", "tracks", "layers"})
    )  # a baseline has none of these


def unrepeated(rows: Sequence[Row]) -> list[Row]:
    """The rows without copies of a measurement that stands among them already."""
    seen: set[str] = set()
    kept = []
    for row in rows:
        same = measurement(row)
        if same is None or same not in seen:
            kept.append(row)
        if same is not None:
            seen.add(same)
    return kept


def require_one_file(runs: Runs, source: str | Path) -> None:
    """Repeated runs must be of one model file. Raises BadInput naming the rows that are not."""
    for key, rows in runs.items():
        files = sorted({row.model_file.sha256[:12] for row in rows})
        if len(files) > 1:
            raise BadInput(
                f"{source}: {key.label} was measured on {len(files)} different model files ({', '.join(files)}), so "
                f"its rows are no repeats of each other. Give the reports of one build at a time."
            )


def sessions(rows: Sequence[Row]) -> list[int]:
    """The number of the session of each row, from 0 in the order of time. A pause of SESSION_PAUSE begins another one.

    Rows that do not tell when they were measured count to the first.
    """
    times = [measured_at(row) for row in rows]
    known = sorted({time for time in times if time is not None})
    numbers = dict.fromkeys(known[:1], 0)
    for last, now in pairwise(known):
        numbers[now] = numbers[last] + (now - last > SESSION_PAUSE)
    return [0 if time is None else numbers[time] for time in times]


def measured_at(row: Row) -> datetime | None:
    """When it began; None where the row does not tell."""
    try:
        found = datetime.fromisoformat(row.started or "")
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=timezone.utc)


def machine_differences(first: Row, second: Row) -> list[str]:
    """In what the machines of two rows differ, as ``cpu: A, now B``; empty when they do not, or nothing is known."""
    return list(_differences(first, second, IDENTITY))


def state_differences(first: Row, second: Row) -> list[str]:
    """In what the states of the boards differ: governor, turbo, power mode, static clocks, threads."""
    before, after = machine_facts(first), machine_facts(second)
    skip = {*IDENTITY, *_SOFTWARE, *_MOVING}
    names = [n for n in before if n not in skip and all(isinstance(f.get(n), str | bool) for f in (before, after))]
    told = list(_differences(first, second, names))
    if first.process.threads != second.process.threads:
        told.append(f"threads: {first.process.threads}, now {second.process.threads}")
    return told


def noted_differences(first: Row, second: Row) -> list[str]:
    """What may explain a change and stops no comparison: software, another board of the same kind, another clock."""
    told = list(_differences(first, second, (*_SOFTWARE, *_NOTED)))
    if first.runtime_version != second.runtime_version:
        versions = [row.runtime_version or "unknown" for row in (first, second)]
        told.insert(0, f"{first.runtime}: {versions[0]}, now {versions[1]}")
    return told


def board_facts(row: Row) -> dict[str, Any]:
    """What is told beside ``machine.facts``: a board's model, L4T, host, power mode, static clocks; the accelerator."""
    board, power = row.machine.get("board", {}), row.machine.get("power", {})
    mode, done = power.get("during"), power.get("done")
    told = {
        "model": board.get("model"),
        "L4T": board.get("l4t"),
        "host": board.get("host"),
        "device": row.session.get("device"),
        "CUDA": row.session.get("cuda"),
        "power mode": mode.get("name") if isinstance(mode, dict) else None,
        "static clocks": isinstance(done, list | tuple) and CLOCKS_SET in done if power else None,
    }
    return {name: value for name, value in told.items() if value not in _UNKNOWN}


def machine_facts(row: Row) -> Mapping[str, Any]:
    """What a row tells of the machine it was measured on, by name, a board's own facts included."""
    return {**row.machine.get("before", {}), **board_facts(row)}


def _differences(first: Row, second: Row, names: Sequence[str]) -> Iterator[str]:
    before, after = machine_facts(first), machine_facts(second)
    for name in names:
        old, new = before.get(name), after.get(name)
        if old not in _UNKNOWN and new not in _UNKNOWN and not _same(name, old, new):
            yield f"{name.replace('_', ' ')}: {_show(old)}, now {_show(new)}"


def _same(name: str, old: Any, new: Any) -> bool:
    if name in _NEAR and isinstance(old, int | float) and isinstance(new, int | float):
        return abs(new - old) <= _NEAR[name] * max(abs(old), abs(new))
    return bool(old == new)


def _show(value: Any) -> str:
    return ", ".join(map(str, value)) if isinstance(value, list) else str(value)
