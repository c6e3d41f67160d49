"""``edgekit flash``"""

from __future__ import annotations

import contextlib
import shlex
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from . import options
from .errors import MISTAKE, Interrupted
from .output import print_json, show_table
from .progress import work

if TYPE_CHECKING:
    from ..deploy.flashing import Flashed

EXAMPLE = """
edgekit flash runs/tx2/onnx --board jetson-tx2 --host nvidia@tx2 --out rows.json
edgekit flash blocks.tar.gz --host nvidia@tx2-a --host nvidia@tx2-b --trust edgekit-key.pub
edgekit flash --rollback --host nvidia@tx2
"""
_KEPT = (
    "on a board the old version is current until the new one is verified (edgekit_board.pyz status); "
    "the same command goes on where it stopped"
)


def flash(
    source: Annotated[
        Path | None, typer.Argument(metavar="SOURCE", help="A bundle, or an artifact's folder, which is bundled first.")
    ] = None,
    hosts: Annotated[
        list[str] | None,
        typer.Option("--host", "-H", help="user@board, as ssh takes it; may be given many times.", show_default=False),
    ] = None,
    board: Annotated[
        str | None, typer.Option("--board", "-b", help="The board's name; list them with: edgekit boards")
    ] = None,
    rollback: Annotated[bool, typer.Option("--rollback", help="Go back to the previous version instead.")] = False,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="Keep the measured rows here, as JSON.")] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(metavar="KEY.pub", help="The bundle must be signed by this key.", show_default=False),
    ] = None,
    precision: Annotated[str | None, typer.Option(help="Of an artifact that is bundled first.")] = None,
    data: Annotated[str | None, typer.Option(help="Its evaluation set: a name, a COCO file, or none.")] = None,
    golden: Annotated[
        str | None, typer.Option(help="Its images that prove the boxes: a folder or a set; else the first of its set.")
    ] = None,
    nms: Annotated[str, typer.Option(help=options.NMS_HELP)] = "host",
    release: Annotated[str | None, typer.Option(help="JetPack or L4T release of its boards, if not the last.")] = None,
    measure: Annotated[bool, typer.Option("--bench/--no-bench", help="Measure after verifying.")] = True,
    seconds: options.Seconds = None,
    power_mode: Annotated[
        str | None, typer.Option(help="nvpmodel's mode for the bench, by name or number; restored after it.")
    ] = None,
    jetson_clocks: Annotated[bool, typer.Option("--jetson-clocks", help="Highest clocks for the bench.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Build, verify and measure again what was done.")] = False,
    python: Annotated[str, typer.Option(help="The Python on the board that has tensorrt.")] = "python3",
    ssh_config: Annotated[Path | None, typer.Option(help="Instead of ~/.ssh/config.")] = None,
    json: options.Json = False,
) -> None:
    """Put a model onto boards over SSH: copy, build, verify the boxes, measure, bring the rows home.

    The version before stays current until the new one's boxes are verified. Boards are worked on at the same time; one
    that fails is told and does not stop the others. The same command goes on where an earlier one stopped.

    The artifact is one for the board: edgekit export RECIPE --board jetson-tx2 --out runs/tx2/onnx
    """
    import edgekit
    from edgekit.deploy.bundling import BundleOptions
    from edgekit.deploy.flashing import FlashOptions
    from edgekit.deploy.ssh import SshOptions

    ssh = SshOptions(ssh_config, python)
    wishes = FlashOptions(ssh, tuple(trust or ()), measure, seconds, power_mode, jetson_clocks, force)
    contents = BundleOptions(precision=precision, data=data, golden=golden, nms=nms, release=release)
    with _watching(hosts or []) as progress:
        results = edgekit.flash(
            source,
            hosts=hosts or [],
            board=board,
            rollback=rollback,
            out=out,
            options=wishes,
            contents=contents,
            progress=progress,
        )
    print_json(results) if json else _show(results, out)
    for result in results:
        if result.bug is not None:
            raise result.bug  # told as every bug is, with its traceback if that was asked for
    if not all(result.ok for result in results):
        raise typer.Exit(MISTAKE)


def _show(results: Sequence[Flashed], out: Path | None) -> None:
    from .rows import show_rows

    columns = {"host": "host", "board": "board", "state": "state", "version": "current", "previous": "previous"}
    show_table([_record(result) for result in results], {**columns, "steps": "steps", "seconds": "seconds"})
    for result in results:
        if result.error:
            print(f"edgekit: {result.error}", file=sys.stderr)
        for note in result.notes:
            print(f"edgekit: {result.host}: {note}", file=sys.stderr)
        for refused in _refused(result):
            print(f"edgekit: {result.host}: not set for the bench: {refused}", file=sys.stderr)
    for signs in {"; ".join(result.simulated) for result in results if result.simulated}:
        print(f"A SIMULATOR, not a board: {signs}. Its times mean nothing.")
    rows = [result.row for result in results if result.row is not None]
    if rows:
        show_rows(rows)
    if rows and out:
        print(f"Next: edgekit report {shlex.quote(str(out))} --out report")


def _refused(result: Flashed) -> Sequence[str]:
    """Wishes for power mode and clocks that the board did not permit; the row was measured without them."""
    return result.row.machine.get("power", {}).get("refused", ()) if result.row is not None else ()


def _record(result: Flashed) -> dict[str, object]:
    steps = ", ".join(name if state == "done" else f"{name} {state}" for name, state in result.steps.items())
    state = "failed" if result.error else "simulated" if result.simulated else "ok"
    return {
        "host": result.host,
        "board": result.board,
        "state": state,
        "version": result.version,
        "previous": result.previous,
        "steps": steps,
        "seconds": result.seconds,
    }


Watch = Callable[[str, str, int, int], None]


@contextlib.contextmanager
def _watching(hosts: Sequence[str]) -> Iterator[Watch]:
    """Progress on stderr: a table of the hosts on a terminal, plain lines elsewhere."""
    if sys.stderr.isatty() and hosts:
        with _table(hosts) as show:
            yield show
        return
    with work(interrupted=_KEPT) as progress:
        yield lambda host, phase, done, total: progress(f"{host}: {phase}" if host else phase, done, total)


@contextlib.contextmanager
def _table(hosts: Sequence[str]) -> Iterator[Watch]:
    from rich.console import Console
    from rich.live import Live
    from rich.table import Table

    states: dict[str, tuple[str, int, int]] = dict.fromkeys(hosts, ("waiting", 0, 0))

    def table() -> Table:
        made = Table("host", "step", "progress", box=None, pad_edge=False, highlight=False)
        for host, (phase, done, total) in states.items():
            made.add_row(host, phase, _bar(done, total))
        return made

    def show(host: str, phase: str, done: int, total: int) -> None:
        for name in [host] if host else list(states):
            states[name] = (phase, done, total)

    try:
        with Live(get_renderable=table, console=Console(stderr=True), refresh_per_second=8):
            yield show
    except KeyboardInterrupt as error:
        raise Interrupted(f"interrupted; {_KEPT}") from error


def _bar(done: int, total: int) -> str:
    if not total:
        return ""
    width = 20 * min(done, total) // total
    return f"{'━' * width}{'╌' * (20 - width)} {100 * min(done, total) // total} %"
