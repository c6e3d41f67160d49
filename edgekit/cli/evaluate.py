"""``edgekit evaluate``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from ..runtime.errors import BadConfig
from . import options
from .output import print_json, show_metrics
from .progress import work

EXAMPLE = """
edgekit evaluate runs/demo/onnx-int8 --data instances_val.json --runtime onnxruntime
edgekit evaluate runs/demo/checkpoint --tta --scales 0.75,1,1.5 --merge vote
"""


def evaluate(
    source: Annotated[
        Path, typer.Argument(metavar="SOURCE", help="An artifact's folder, or a recipe with trained weights.")
    ],
    data: Annotated[
        str | None,
        typer.Option(help="A source of its recipe, a named set, or a COCO JSON file; else the recipe's own set."),
    ] = None,
    runtime: options.Runtime = None,
    metric: Annotated[
        str, typer.Option(help="coco; or Pascal VOC's mAP at IoU 0.5: voc2007 (11 points), voc-area.")
    ] = "coco",
    tta: Annotated[bool, typer.Option("--tta", help="Test the mirrored image too, and merge the boxes.")] = False,
    scales: Annotated[
        str | None, typer.Option(help="With --tta: factors of the input size, such as 0.75,1,1.5; for checkpoints.")
    ] = None,
    merge: Annotated[str | None, typer.Option(help="With --tta: nms, soft (soft NMS) or vote (box voting).")] = None,
    json: options.Json = False,
) -> None:
    """Measure mAP of an artifact on annotated images."""
    import edgekit

    passes = {"tta": _passes(scales, merge)} if tta or scales or merge else {}
    with work(interrupted="nothing was written") as progress:
        metrics = edgekit.evaluate(source, data=data, runtime=runtime, metric=metric, progress=progress, **passes)
    if json:
        print_json(metrics)
    else:
        show_metrics(metrics)


def _passes(scales: str | None, merge: str | None) -> dict[str, Any]:
    """The fields of ``evaluation.tta.TestTime`` that were asked for; mirrored images always."""
    asked: dict[str, Any] = {"flip": True}
    if merge is not None:
        asked["merge"] = merge
    if scales is not None:
        try:
            asked["scales"] = tuple(float(part) for part in scales.split(","))
        except ValueError as error:
            raise BadConfig(f"--scales: expected factors such as 0.75,1,1.5, got {scales!r}") from error
    return asked
