"""``edgekit label``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json, show_values
from .progress import work

EXAMPLE = """
edgekit label runs/demo/onnx frames/ --score 0.5 --out pseudo.json
"""


def label(
    source: Annotated[
        str, typer.Argument(metavar="SOURCE", help="The teacher: an artifact's folder, or a recipe with weights.")
    ],
    images: Annotated[Path, typer.Argument(metavar="IMAGES", help="A folder of images that nobody labelled.")],
    out: Annotated[Path, typer.Option("--out", "-o", help="The COCO file to write.")],
    runtime: options.Runtime = None,
    score: Annotated[float, typer.Option(min=0, max=1, help="Detections from this score on become labels.")] = 0.5,
    doubt: Annotated[
        float, typer.Option(min=0, max=1, help="Those from here to --score are ignored: neither object nor background.")
    ] = 0.2,
    json: options.Json = False,
) -> None:
    """Label images with a trained detector: pseudo-labels for another one's training.

    Any artifact that runs can be the teacher, an imported ONNX file too.
    """
    import edgekit

    with work(out) as progress:
        summary = edgekit.label(source, images, out=out, runtime=runtime, score=score, doubt=doubt, progress=progress)
    if json:
        print_json(summary)
    else:
        show_values(summary)
