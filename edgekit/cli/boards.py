"""``edgekit boards``"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import typer

from . import options
from .output import cell, print_json, show_records, show_table

EXAMPLE = """
edgekit boards
edgekit boards show jetson-tx2
edgekit boards x86-1t --json
"""

SHOW = "show"
WIDEST = 8  # fields of a record that make a readable row
UNITS = {"gflops": " GFLOPS", "bandwidth": " GB/s"}  # of the fields of these names


def boards(
    words: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[show] NAME", help="One board, with everything that is known of it.", show_default=False
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """List the boards and what each can do.

    With a name, everything that is known of one: identity, software releases, memory, rails, clocks, peaks, cameras.
    What is not known is not shown; fields that no source confirms are named as unconfirmed.
    """
    import edgekit

    name = _one_name(words or [])
    records = edgekit.boards(name)
    if json:
        print_json(records)
    elif name is None:
        show_records(records)
    else:
        _show_board(records[0])


def _one_name(words: list[str]) -> str | None:
    names = words[1:] if words[:1] == [SHOW] else words
    if len(names) > 1 or (words and not names):
        raise typer.BadParameter("give the name of one board, for example: edgekit boards show jetson-tx2")
    return names[0] if names else None


def _show_board(record: Mapping[str, Any]) -> None:
    """Plain facts line by line, then one block for each section."""
    sections = {key: value for key, value in record.items() if _is_section(value)}
    for key, value in record.items():
        if key not in sections and cell(value) != "-":
            print(f"{key.replace('_', ' ')}: {_text(value)}")
    for key, value in sections.items():
        if isinstance(value, list):
            print(f"\n{key}")
            _show_list([_mode(one) for one in value] if key == "modes" else value)
        elif any(cell(part) != "-" for part in value.values()):
            print(f"\n{key}")
            _show_section(value)


def _is_section(value: Any) -> bool:
    """A mapping, or a list of mappings."""
    return isinstance(value, Mapping) or (isinstance(value, list) and bool(value) and isinstance(value[0], Mapping))


def _show_section(values: Mapping[str, Any]) -> None:
    for key, value in values.items():
        if isinstance(value, Mapping):
            for name, part in value.items():
                print(f"  {name}{UNITS.get(key, '')}: {_text(part)}")
        elif cell(value) != "-":
            print(f"  {key.replace('_', ' ')}{UNITS.get(key, '')}: {_text(value)}")


def _mode(mode: Mapping[str, Any]) -> dict[str, Any]:
    """A power mode in columns that fit a terminal; its CPU is {kind: (cores, GHz)}."""
    peaks = mode["peaks"] or {"gflops": {}, "bandwidth": None}
    return {
        "id": mode["id"],
        "name": mode["name"],
        "GPU MHz": mode["gpu_mhz"],
        "EMC MHz": mode["emc_mhz"],
        "cores, GHz": "\n".join(f"{count} {kind} {ghz:g}" for kind, (count, ghz) in mode["cpu"].items() if count),
        "GFLOPS": "\n".join(f"{precision} {peak:g}" for precision, peak in peaks["gflops"].items()),
        "GB/s": peaks["bandwidth"],
    }


def _show_list(records: Sequence[Mapping[str, Any]]) -> None:
    """A table with a row for each record; where records have many fields, with a column for each."""
    if len(records[0]) <= WIDEST:
        rows = [{key: _text(value) for key, value in record.items()} for record in records]
        show_table(rows, {key: key.replace("_", " ") for key in rows[0]})
        return
    names = {str(number): str(record["name"]) for number, record in enumerate(records)}
    fields = [key for key in records[0] if key != "name" and any(cell(r[key]) != "-" for r in records)]
    rows = [
        {"field": key.replace("_", " "), **{n: _text(r[key]) for n, r in zip(names, records, strict=True)}}
        for key in fields
    ]
    show_table(rows, {"field": "", **names})


def _text(value: Any) -> str:
    """One value as a person reads it; numbers are not rounded, as they are written in a file by hand."""
    if isinstance(value, float):
        return f"{value:g}"
    if isinstance(value, Mapping):
        # a mapping's own keys say enough: "fp32 665.9, fp16 1331.7 GFLOPS"
        named = ((key, "" if isinstance(part, Mapping) else f"{key} ", _text(part)) for key, part in value.items())
        return ", ".join(f"{name}{text}{UNITS.get(key, '')}" for key, name, text in named)
    if isinstance(value, list) and value:
        return ", ".join(map(_text, value))
    return cell(value)
