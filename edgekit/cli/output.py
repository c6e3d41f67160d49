"""What a verb prints on stdout when it is done: JSON for machines, tables for people."""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 200  # columns when stdout is a file or a pipe: a table there must not be folded


def print_json(value: Any) -> None:
    """The value as JSON; artifacts, rows, metrics and paths are understood. NaN becomes null, which is valid JSON."""
    print(json.dumps(plain(value), indent=1, allow_nan=False))


def plain(value: Any) -> Any:
    """The value in JSON's own types."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return value if value == value and abs(value) != float("inf") else None
    if isinstance(value, Mapping):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, Sequence | set | frozenset):
        return [plain(v) for v in value]
    if hasattr(value, "manifest"):
        return artifact_record(value)
    for method in ("to_dict", "model_dump", "tolist"):  # rows and metrics, pydantic models, numpy values
        if hasattr(value, method):
            return plain(getattr(value, method)())
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {f.name: plain(getattr(value, f.name)) for f in dataclasses.fields(value)}
    return str(value)


def artifact_record(artifact: Any) -> dict[str, Any]:
    """What ``--json`` says about an artifact that a verb wrote."""
    return {
        "path": str(artifact.path),
        "kind": artifact.kind,
        "digest": artifact.digest,
        "payload": plain(artifact.manifest["payload"]),
        "metrics": plain(artifact.manifest.get("metrics", {})),
        "notes": list(artifact.manifest.get("notes", ())),
    }


def show_artifact(artifact: Any, as_json: bool, then: str) -> None:
    """Print an artifact; ``then`` is the command that usually comes next, with {path} in it."""
    if as_json:
        print_json(artifact)
        return
    size = sum(record["bytes"] for record in artifact.manifest["payload"].values())
    print(f"{artifact.kind}: {artifact.path} ({size / 1e6:.2f} MB)")
    for name, value in plain(artifact.manifest.get("metrics", {})).items():
        print(f"  {name}: {cell(value)}")
    show_notes([artifact])
    print(f"Next: {then.format(path=artifact.path)}")


def show_notes(artifacts: Iterable[Any]) -> None:
    """What the steps noted for the user, each once: an artifact has its parent's notes too."""
    for note in dict.fromkeys(note for artifact in artifacts for note in artifact.manifest.get("notes", ())):
        print(f"note: {note}")


def cell(value: Any) -> str:
    """One value as a person reads it."""
    if value is None or value in ("", [], (), {}):
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.4g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k} {cell(v)}" for k, v in value.items())
    if isinstance(value, list | tuple):
        return ", ".join(cell(v) for v in value)
    return str(value)


def show_table(records: Iterable[Mapping[str, Any]], columns: Mapping[str, str]) -> None:
    """A table; ``columns`` maps a record's key to its heading. A column that is empty everywhere is left out."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    rows = [{key: cell(record.get(key)) for key in columns} for record in records]
    shown = [key for key in columns if any(row[key] != "-" for row in rows)]
    table = Table(box=SIMPLE_HEAD, pad_edge=False, highlight=False)
    for key in shown:
        table.add_column(columns[key], overflow="fold")
    for row in rows:
        table.add_row(*(escape(row[key]) for key in shown))
    stdout_console().print(table)


def stdout_console() -> Console:
    """Where tables go: as wide as the terminal, or as a table needs in a file or a pipe."""
    from rich.console import Console

    class Stdout(Console):
        def on_broken_pipe(self) -> None:  # rich would exit with 1, which means a finding or a failed gate
            raise BrokenPipeError

    return Stdout(width=None if sys.stdout.isatty() else _WIDE)


def show_records(records: Sequence[Mapping[str, Any]]) -> None:
    """A table with a column for each key of the records, in the order of their first appearance."""
    keys = dict.fromkeys(key for record in records for key in record)
    show_table(records, {key: key.replace("_", " ") for key in keys})


def show_values(values: Mapping[str, Any]) -> None:
    """One ``name: value`` per line."""
    for name, value in values.items():
        print(f"{name.replace('_', ' ')}: {cell(value)}")


def escape(text: str) -> str:
    from rich.markup import escape as rich_escape

    return rich_escape(text)
