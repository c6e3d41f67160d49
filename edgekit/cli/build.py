"""``edgekit build``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import show_artifact
from .progress import work

EXAMPLE = """
edgekit build runs/gpu/onnx --board desktop-gpu --precision fp16 --out runs/gpu/engine
edgekit build runs/gpu/onnx --board desktop-gpu --pin head.size --nms graph
"""


def build(
    source: Annotated[Path, typer.Argument(metavar="ARTIFACT", help="An onnx or onnx-int8 artifact's folder.")],
    board: options.Board = "desktop-gpu",
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or int8; without it, the fastest that the board and the file allow.")
    ] = None,
    nms: Annotated[str, typer.Option(help=options.NMS_HELP)] = "host",
    pin: Annotated[
        list[str] | None,
        typer.Option(help="A layer to keep in FP32, as head.size; may be given again.", show_default=False),
    ] = None,
    scan: Annotated[
        bool, typer.Option(help="Look for layers that overflow in FP16 on real images, and pin them.")
    ] = True,
    calibration: Annotated[
        str | None, typer.Option(help="Real images for INT8 of a float file: a named set or a folder.")
    ] = None,
    perf_only: Annotated[
        bool, typer.Option("--perf-only", help="Allow INT8 without calibration: fit for timing, never for accuracy.")
    ] = False,
    workspace: Annotated[
        int | None, typer.Option(min=1, help="Memory in MiB that one layer may use.", show_default=False)
    ] = None,
    timing_cache: Annotated[
        Path | None, typer.Option(help="A timing cache's file instead of this machine's own.", show_default=False)
    ] = None,
    device: Annotated[int, typer.Option(min=0, help="Number of the CUDA device.")] = 0,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Build a TensorRT engine for the GPU of this machine.

    An engine works only with the TensorRT and the kind of GPU that built it. For a board that is another machine, use
    edgekit flash or edgekit bundle: the board builds its own. What the board cannot do is refused before any work.

    Without --out it is written to ARTIFACT-BOARD-PRECISION.

    The artifact is one with float input: edgekit export RECIPE --board desktop-gpu --out runs/gpu/onnx
    """
    import edgekit
    from edgekit.conversion.engine import EngineOptions

    chosen = EngineOptions(
        precision=precision,
        workspace_mb=workspace,
        pin=tuple(pin or ()),
        scan=scan,
        calibration=calibration,
        perf_only=perf_only,
        nms=nms,
        timing_cache=timing_cache,
        device=device,
    )
    with work(out) as progress:
        artifact = edgekit.build(source, board=board, out=out, options=chosen, progress=progress)
    show_artifact(artifact, json, f"edgekit bench {{path}} --board {board}")
