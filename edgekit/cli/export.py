"""``edgekit export``"""

from __future__ import annotations

from typing import Annotated

import typer

from . import options
from .output import show_artifact
from .progress import work

EXAMPLE = """
edgekit export mobile-centernet-w16-dhaka --board x86-1t --out runs/demo/onnx
"""


def export(
    source: Annotated[
        str,
        typer.Argument(metavar="SOURCE", help="A recipe with trained weights (edgekit zoo), or a checkpoint's folder."),
    ],
    overrides: options.Overrides = None,
    board: options.Board = options.DEFAULT_BOARD,
    batch: Annotated[
        int, typer.Option(min=1, help="Images of a call, fixed in the file: for bench --offline alone.")
    ] = 1,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Lower a checkpoint or a recipe's shipped weights to ONNX.

    The graph is checked for the board, simplified in a child process, and compared with PyTorch box by box. Without
    --out it is written beside the checkpoint: as onnx for a CPU, as onnx-nchw for boards with TensorRT, which takes
    floats; -batch and the number follow for several images a call.
    """
    import edgekit

    with work(out) as progress:
        artifact = edgekit.export(
            source, out=out, board=board, overrides=overrides or [], batch=batch, progress=progress
        )
    show_artifact(artifact, json, _next(board) if batch == 1 else "edgekit bench {path} --offline")


def _next(board: str) -> str:
    """A Jetson is given the file as it is, and checked for it first; others want INT8 as their runtime takes it."""
    from edgekit.board import load_board

    profile = load_board(board)
    if profile.kind == "jetson":
        return f"edgekit lint {{path}} --board {board}"
    return "edgekit quantize {path}" + (" --flavour trt" if profile.int8_flavour == "trt" else "")
