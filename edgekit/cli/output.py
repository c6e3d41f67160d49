"""What a verb prints on stdout when it is done: JSON for machines, tables for people."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import shlex
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TextIO, cast

from ..words import counted
from .errors import UnwritableStdout

if TYPE_CHECKING:
    from rich.console import Console

_WIDE = 200  # columns when stdout is a file or a pipe: a table there must not be folded


class _TellingStdout:
    """A text stream whose errors say that they are its own, which those of the system do not."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with self._told():
            return self._stream.write(text)

    def flush(self) -> None:
        with self._told():
            self._stream.flush()

    @contextlib.contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except BrokenPipeError:
            raise
        except OSError as error:
            raise UnwritableStdout((error.strerror or str(error)).lower()) from error

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


@contextlib.contextmanager
def telling_stdout() -> Iterator[None]:
    """Raise UnwritableStdout for what cannot be printed: no space there is not the same as no space at --out."""
    with contextlib.redirect_stdout(cast(TextIO, _TellingStdout(sys.stdout))):
        yield


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
        **{key: plain(artifact.manifest[key]) for key in ("quantization", "float_layers") if key in artifact.manifest},
        "notes": list(artifact.manifest.get("notes", ())),
    }


def show_artifact(artifact: Any, as_json: bool, then: str) -> None:
    """Print an artifact; ``then`` is the command that usually comes next, with {path} in it."""
    if as_json:
        print_json(artifact)
        return
    size = sum(record["bytes"] for record in artifact.manifest["payload"].values())
    print(f"{artifact.kind}: {artifact.path} ({size / 1e6:.2f} MB)")
    show_metrics(artifact.manifest.get("metrics", {}), indent="  ")
    for line in _quantized(artifact.manifest):
        print(f"  {line}")
    show_notes([artifact])
    print(f"Next: {then.format(path=shlex.quote(artifact.path))}")


def _quantized(manifest: Mapping[str, Any]) -> Iterator[str]:
    """By which images a network was lowered to INT8, what that lost, and what was left in float."""
    if manifest["kind"] != "onnx-int8":
        return
    calibration, measured = manifest["calibration"], manifest.get("quantization")
    unnamed = "a set that is not named"  # by files from before sets were
    images = counted(len(calibration["images"]), "image")
    yield f"calibrated: {calibration.get('set') or unnamed} ({images}, {calibration['method']})"
    if measured:
        before, after = (100 * measured[key] for key in ("map50_before", "map50_after"))
        images = f" ({counted(measured['images'], 'image')})" if measured.get("images") else ""
        yield (
            f"mAP@0.5 in percent: {before:.2f} -> {after:.2f} on {measured.get('set') or unnamed}{images}, a drop of "
            f"{measured['drop']:.2f}; allowed: {measured['max_drop']:g}"
        )
    if manifest.get("float_layers"):
        yield f"in float: {', '.join(manifest['float_layers'])}"


def show_metrics(metrics: Any, indent: str = "") -> None:
    """Accuracy, as ``plain`` takes it: values, then a table by class; every share as it is in the JSON, 0..1."""
    values = dict(plain(metrics))
    classes = values.pop("per_class", {})
    if isinstance(values.get("recall"), Mapping):  # by the most boxes of a class in an image
        values["recall"] = [f"{cell(v)} ({counted(int(n), 'box')} an image)" for n, v in values["recall"].items()]
    for name, value in values.items():
        print(f"{indent}{name}: {cell(value)}")
    rows = [{"class": name, **(v if isinstance(v, dict) else {"ap50": v})} for name, v in classes.items()]
    if rows:
        show_table(rows, {"class": "class", "boxes": "boxes", "ap50": "AP@0.5", "ap": "AP"})


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
    """A table; ``columns`` maps a record's key to its heading. A column that is empty everywhere is left out.

    Cells are folded between words only. Where the terminal is too narrow for that, each record is told line by line.
    """
    rows = [{key: cell(record.get(key)) for key in columns} for record in records]
    shown = [key for key in columns if any(row[key] != "-" for row in rows)]
    body, headers = [[row[key] for key in shown] for row in rows], [columns[key] for key in shown]
    console = stdout_console()
    widths = _widths(headers, body, console.width - (3 * len(shown) - 1))  # what SIMPLE_HEAD puts around the columns
    if widths is None:
        show_blocks(headers, body)
    else:
        _print_table(console, headers, body, widths)


def _widths(headers: Sequence[str], body: Sequence[Sequence[str]], room: int) -> list[int] | None:
    """Widths of columns that fit into ``room`` together and break no word; None where there are none."""
    columns = [[header, *(line[i] for line in body)] for i, header in enumerate(headers)]
    least = [max((len(word) for text in column for word in text.split()), default=0) for column in columns]
    most = [max(map(len, column)) for column in columns]
    for level in range(max(most, default=0), -1, -1):  # the widest columns are folded first
        widths = [max(low, min(high, level)) for low, high in zip(least, most, strict=True)]
        if sum(widths) <= room:
            return widths
    return None


def _print_table(
    console: Console, headers: Sequence[str], body: Sequence[Sequence[str]], widths: Sequence[int]
) -> None:
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    table = Table(box=SIMPLE_HEAD, pad_edge=False, highlight=False)
    for header, width in zip(headers, widths, strict=True):
        table.add_column(header, overflow="fold", width=width)
    for line in body:
        table.add_row(*map(escape, line))
    console.print(table)


def show_blocks(headers: Sequence[str], body: Sequence[Sequence[str]]) -> None:
    """A table for narrow terminals: ``heading: value`` line by line, an empty line behind each record."""
    for line in body:
        for header, text in zip(headers, line, strict=True):
            if text not in ("", "-"):
                print(f"{header}: {text}" if header else text)
        print()


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
