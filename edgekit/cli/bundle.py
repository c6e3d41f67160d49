"""``edgekit bundle``"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Annotated, Any

import typer

from . import options
from .output import print_json, show_values
from .progress import work

EXAMPLE = """
edgekit bundle runs/tx2/onnx --board jetson-tx2 --out blocks.tar.gz
edgekit bundle runs/tx2/onnx --board jetson-tx2 --sign edgekit-key
edgekit bundle blocks.tar.gz --trust edgekit-key.pub
"""


def bundle(
    source: Annotated[
        Path,
        typer.Argument(metavar="SOURCE", help="An onnx or onnx-int8 artifact's folder; or a bundle, to check it."),
    ],
    board: Annotated[
        str | None, typer.Option("--board", "-b", help="The board that it is for; list them with: edgekit boards")
    ] = None,
    out: options.Out = None,
    sign: Annotated[
        Path | None, typer.Option(help="An Ed25519 private key (ssh-keygen -t ed25519 -N '') to sign it with.")
    ] = None,
    trust: Annotated[
        list[Path] | None,
        typer.Option(metavar="KEY.pub", help="Checking a bundle: it must be signed by this key.", show_default=False),
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="fp32, fp16 or int8; without it, FP16 where the board has it.")
    ] = None,
    release: Annotated[
        str | None, typer.Option(help="JetPack or L4T release of the board's software; without it, its last.")
    ] = None,
    data: Annotated[
        str | None, typer.Option(help="The set that mAP is measured on there: a name, a COCO file, or none.")
    ] = None,
    golden: Annotated[
        str | None,
        typer.Option(help="Images that prove the boxes: a folder or a set; else the first of --data."),
    ] = None,
    calibration: Annotated[
        str | None, typer.Option(help="Images for INT8, where the board has it; without it, the recipe's.")
    ] = None,
    nms: Annotated[str, typer.Option(help=options.NMS_HELP)] = "host",
    workspace: Annotated[
        int | None, typer.Option(min=1, help="The builder's workspace in MiB; without it, the board's.")
    ] = None,
    json: options.Json = False,
) -> None:
    """Write one file with everything that a board needs for a model; or check such a file.

    Model, expected boxes on golden images, evaluation images and the program for the board's own Python 3.6. What the
    board cannot do is refused before any work. The same inputs give the same bytes. Without --out: SOURCE-BOARD.tar.gz.

    The artifact is one for the board: edgekit export RECIPE --board jetson-tx2 --out runs/tx2/onnx
    """
    import edgekit
    from edgekit.deploy.bundling import BundleOptions

    contents = BundleOptions(precision, release, data, golden, calibration, nms, workspace)
    with work(out) as progress:
        made = edgekit.bundle(
            source, board=board, out=out, sign=sign, trust=trust or (), options=contents, progress=progress
        )
    print_json(made) if json else _show(made)


def _show(made: dict[str, Any]) -> None:
    size = f"{made['bytes']} ({made['bytes'] / 1e6:.1f} MB)"
    show_values({**made, "bytes": size, "signed_by": made.get("signed_by") or "nobody"})
    print(f"Next: edgekit flash {shlex.quote(made['path'])} --host user@board")
    name = shlex.quote(Path(made["path"]).name)
    print(f"Or carry it: tar xzf {name} edgekit_board.pyz; python3 edgekit_board.pyz install {name}")
