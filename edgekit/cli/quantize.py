"""``edgekit quantize``"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import show_artifact
from .progress import work

EXAMPLE = """
edgekit quantize runs/demo/onnx --flavour x86 --max-drop 1.0 --out runs/demo/onnx-int8
"""


def quantize(
    source: Annotated[Path, typer.Argument(metavar="SOURCE", help="An onnx artifact's folder.")],
    calibration: Annotated[str | None, typer.Option(help="A named calibration set, or a folder of images.")] = None,
    flavour: Annotated[
        str | None, typer.Option(help="x86 (uint8 activations) or trt (symmetric int8, for TensorRT).")
    ] = None,
    method: Annotated[str | None, typer.Option(help="minmax, entropy or percentile.")] = None,
    max_drop: Annotated[
        float | None, typer.Option(min=0, help="Points of mAP@0.5 that may be lost.", show_default=False)
    ] = None,
    reduce_range: Annotated[
        bool, typer.Option("--reduce-range", help="Weights of 7 bits, for x86 CPUs without VNNI (edgekit doctor).")
    ] = False,
    evaluation: Annotated[
        str | None, typer.Option(help="The set on which the loss is measured: a named one, or a COCO file.")
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Lower an ONNX artifact to INT8 and gate the loss of accuracy.

    mAP is measured before and after. When more than --max-drop is lost, layers go back to float until it holds; when
    that does not help, nothing is written and the exit code is 2. What is not given comes from the recipe.
    Without --out it is written to SOURCE-int8.
    """
    import edgekit

    with work(out) as progress:
        artifact = edgekit.quantize(
            source,
            calibration=calibration,
            flavour=flavour,
            method=method,
            max_drop=max_drop,
            reduce_range=reduce_range,
            evaluation=evaluation,
            out=out,
            progress=progress,
        )
    show_artifact(artifact, json, "edgekit bench {path}")
