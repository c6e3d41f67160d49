"""``edgekit bench``"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .output import print_json, stdout_console
from .progress import work
from .rows import show_rows

if TYPE_CHECKING:
    from ..measure.row import Row

EXAMPLE = """
edgekit bench runs/demo/onnx runs/demo/onnx-int8 --board x86-1t --out runs/demo/rows.json
edgekit bench runs/demo/onnx-int8 --layers --offline
edgekit bench --compare runs/demo/onnx@onnxruntime runs/demo/onnx@openvino
"""
MOST_LAYERS = 10


def bench(
    sources: Annotated[
        list[Path],
        typer.Argument(
            metavar="ARTIFACT",
            help="Artifact folders, or recipes with trained weights; each on every runtime that can load it. "
            "With --compare two, where ARTIFACT@RUNTIME chooses a runtime.",
        ),
    ],
    board: options.Board = options.DEFAULT_BOARD,
    runtime: options.Runtime = None,
    data: Annotated[
        str | None,
        typer.Option(
            help="A named set, a source of the recipe or a COCO file, to measure mAP on; else the recipe's own. "
            "A folder of images: the time alone."
        ),
    ] = None,
    seconds: options.Seconds = None,
    full: Annotated[
        bool,
        typer.Option("--full", help="600 seconds and 662 frames of each row at least, as MLPerf's SingleStream asks."),
    ] = False,
    offline: Annotated[
        bool, typer.Option("--offline", help="Throughput too: every core works on images that are all at hand.")
    ] = False,
    layers: Annotated[
        bool, typer.Option("--layers", help="Time every layer too, against the roofline of this machine.")
    ] = False,
    compare: Annotated[
        bool, typer.Option("--compare", help="Measure two in turns, and give the ratio with its interval.")
    ] = False,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Measure accuracy, size, GOPS and latency on a board.

    Every row is measured in a process of its own, bound as the board says (x86-1t: one core, one thread): warm-up, then
    one image after the other, end to end. --out keeps the rows as JSON for edgekit report.

    --compare A B measures two in turns (A B, B A, ...), because machines drift, and says which is faster.
    """
    if compare:
        _compare(
            sources,
            {"--full": full, "--offline": offline, "--layers": layers},
            json,
            {"board": board, "runtime": runtime, "data": data, "seconds": seconds, "out": out},
        )
        return
    import edgekit

    wishes: dict[str, Any] = {"full": full, "offline": offline, "layers": layers}
    with work(out) as progress:
        rows = edgekit.bench(
            sources, board=board, runtime=runtime, data=data, seconds=seconds, **wishes, out=out, progress=progress
        )
    if json:
        print_json(rows)
        return
    show_rows(rows)
    for row in rows:
        _show_more(row)
    if out:
        print(f"Next: edgekit report {shlex.quote(str(out))} --out report")


def _compare(sources: list[Path], other: dict[str, bool], json: bool, wishes: dict[str, Any]) -> None:
    import edgekit

    from ..runtime.errors import BadConfig

    if len(sources) != 2:
        raise BadConfig(f"--compare: expected two artifacts, got {len(sources)}: edgekit bench --compare A B")
    given = [name for name, wish in other.items() if wish]
    if given:
        raise BadConfig(f"--compare: {', '.join(given)} cannot be had in turns; bench each side alone for that")
    with work(wishes["out"]) as progress:
        found = edgekit.bench_compare(str(sources[0]), str(sources[1]), **wishes, progress=progress)
    if json:
        print_json(found)
        return
    show_rows([found.a, found.b])
    print(f"A: {sources[0]}\nB: {sources[1]}\n{found.finding}")
    print(f"{len(found.pairs)} pairs of turns, {found.frames} frames in each")
    if found.machine:
        print(found.machine)


def _show_more(row: Row) -> None:
    """What stands in no column of the table: throughput, energy and the layers."""
    name = f"{row.runtime} {row.precision}"
    for found in row.throughput:
        print(f"{name}: offline {found.fps:.1f} images/s, {found.note}")
    if row.energy is not None:
        print(f"{name}: {row.energy.joules_per_frame:.3g} J per frame, {row.energy.watts:.3g} W ({row.energy.source})")
    if row.layers:
        _show_layers(name, row)


def _show_layers(name: str, row: Row) -> None:
    from ..measure.layer_words import layer_table, layer_words

    console = stdout_console()
    console.print(f"{name}: {layer_words(row)}", highlight=False)
    console.print(layer_table(row.layers[:MOST_LAYERS]))
