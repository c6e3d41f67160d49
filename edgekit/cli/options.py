"""Arguments and options that several verbs share, each defined once."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Recipe = Annotated[
    str,
    typer.Argument(
        metavar="RECIPE", help="A recipe's name, its folder, or a path to a recipe.yaml; names: edgekit zoo"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="Print the result as JSON on stdout; progress stays on stderr.")]
NMS_HELP = "host; or graph: inside the engine (plugin: EfficientNMS_TRT, layer: INMSLayer)."
Out = Annotated[
    Path | None,
    typer.Option("--out", "-o", help="Where to write. What stands there is replaced only when the new one is whole."),
]
Board = Annotated[str, typer.Option("--board", "-b", help="A board's name; list them with: edgekit boards")]
Runtime = Annotated[
    str | None,
    typer.Option(
        "--runtime",
        help="onnxruntime, openvino, pytorch, cuda, or the TensorRT that built an engine; without it, what the "
        "artifact and the board prefer.",
    ),
]
Overrides = Annotated[
    list[str] | None,
    typer.Argument(
        metavar="KEY=VALUE",
        help="Change the recipe for this call, for example train.epochs=10",
        show_default=False,
    ),
]
Seconds = Annotated[
    float | None,
    typer.Option("--seconds", min=0.1, help="How long to measure each row, in seconds.", show_default=False),
]
DEFAULT_BOARD = "x86-1t"
