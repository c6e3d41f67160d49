"""``edgekit predict``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json, show_values
from .progress import work

EXAMPLE = """
edgekit predict runs/demo/onnx-int8 street.jpg photos/ --score 0.4 --out boxes
"""


def predict(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="An artifact's folder, or a recipe with trained weights.")
    ],
    images: Annotated[list[Path], typer.Argument(metavar="IMAGE", help="Images, or folders of images.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The folder for the pictures and detections.json.")],
    runtime: options.Runtime = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Boxes below this score are left out.")] = 0.3,
    json: options.Json = False,
) -> None:
    """Draw boxes on images and write them as COCO JSON."""
    import edgekit

    with work(out) as progress:
        summary = edgekit.predict(source, images, out=out, runtime=runtime, score=score, progress=progress)
    if json:
        print_json(summary)
    else:
        show_values({key: value for key, value in summary.items() if not isinstance(value, list)})
        print(out)
