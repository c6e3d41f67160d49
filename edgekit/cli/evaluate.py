"""``edgekit evaluate``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import plain, print_json, show_values
from .progress import work

EXAMPLE = """
edgekit evaluate runs/demo/onnx-int8 --data instances_val.json --runtime onnxruntime
"""


def evaluate(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="An artifact's folder.")],
    data: Annotated[
        str | None, typer.Option(help="A named set, or a COCO JSON file; else the recipe's own set.")
    ] = None,
    runtime: options.Runtime = None,
    metric: Annotated[
        str, typer.Option(help="coco; or Pascal VOC's mAP at IoU 0.5: voc2007 (11 points), voc-area.")
    ] = "coco",
    json: options.Json = False,
) -> None:
    """Measure mAP of an artifact on annotated images."""
    from edgekit import pipeline

    with work(interrupted="nothing was written") as progress:
        metrics = pipeline.evaluate(source, data=data, runtime=runtime, metric=metric, progress=progress)
    if json:
        print_json(metrics)
    else:
        show_values(plain(metrics))
