"""``edgekit import-onnx``"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import show_artifact
from .progress import work

EXAMPLE = """
edgekit import-onnx yolov8n.onnx --layout yolov8 --out runs/yolov8n/onnx
edgekit import-onnx ssd.onnx --layout ssd --priors priors.npy --classes voc.txt --mode stretch --colour rgb --mean 127,127,127 --std 128,128,128
edgekit import-onnx other.onnx --layout other.yaml --classes car,bus,truck --size 640x384 --mode letterbox --colour rgb --mean 0,0,0 --std 255,255,255
"""  # noqa: E501  an example is one line

Three = tuple[float, ...]


def import_onnx(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="An ONNX file of a detector.")],
    layout: Annotated[
        str,
        typer.Option(
            "--layout",
            "-l",
            help="What its outputs are: yolov5, yolov8, yolo11, end2end, yolov10, yolo26, selected, ssd, centernet, "
            "detr, rt-detr, edgekit, or a YAML file that says which output is what.",
        ),
    ],
    classes: Annotated[
        str | None,
        typer.Option(help="A file with one class name on each line, or names with commas.", show_default=False),
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Input size, where the file leaves it open.", show_default=False)
    ] = None,
    mode: Annotated[str | None, typer.Option(help="stretch or letterbox.", show_default=False)] = None,
    colour: Annotated[str | None, typer.Option(help="rgb or bgr.", show_default=False)] = None,
    mean: Annotated[
        str | None, typer.Option(help="Per channel, on the scale 0..255: 123.675,116.28,103.53", show_default=False)
    ] = None,
    std: Annotated[str | None, typer.Option(help="Per channel, on the scale 0..255.", show_default=False)] = None,
    pad: Annotated[int | None, typer.Option(help="Grey level of the letterbox's border.", show_default=False)] = None,
    priors: Annotated[Path | None, typer.Option(help="SSD's priors, an .npy file [A, 4].", show_default=False)] = None,
    nms: Annotated[
        str | None, typer.Option(help="classwise, soft or none; else what the layout needs.", show_default=False)
    ] = None,
    iou: Annotated[float, typer.Option(min=0, max=1, help="Overlap above which NMS drops a box.")] = 0.5,
    images: Annotated[
        list[Path] | None,
        typer.Option(help="Real images, or folders, to look at the network with.", show_default=False),
    ] = None,
    out: options.Out = None,
    json: options.Json = False,
) -> None:
    """Bring a detector that was trained elsewhere onto the spine.

    The decode is added to the graph, so that lint, quantize, bench, predict, build and bundle work as for EdgeKit's own
    networks. How images are prepared is the layout's usual way; options change it.
    Without --out it is written to runs/FILE/onnx.
    """
    import edgekit
    from edgekit.conversion.imports.verb import ImportOptions

    asked = ImportOptions(
        size=_size(size),
        mode=mode,
        colour=colour,
        mean=_numbers("--mean", mean),
        std=_numbers("--std", std),
        pad_value=pad,
        priors=None if priors is None else str(priors),
        nms=nms,
        iou_threshold=iou,
    )
    with work(out) as progress:
        artifact = edgekit.import_onnx(
            file, layout=layout, classes=classes, options=asked, images=images or [], out=out, progress=progress
        )
    show_artifact(artifact, json, "edgekit lint {path} --board jetson-tx2; edgekit predict {path} IMAGES --out boxes")


def _size(text: str | None) -> tuple[int, int] | None:
    if text is None:
        return None
    found = re.fullmatch(r"(\d+)[xX](\d+)", text.strip())
    if found is None or "0" in found.groups():
        raise typer.BadParameter(f"--size {text}: expected WIDTHxHEIGHT, for example 640x384")
    return int(found.group(1)), int(found.group(2))


def _numbers(name: str, text: str | None) -> Three | None:
    """One number for all channels, or three."""
    if text is None:
        return None
    try:
        values = tuple(float(part) for part in text.split(","))
    except ValueError as error:
        raise typer.BadParameter(f"{name} {text}: expected numbers, for example 123.675,116.28,103.53") from error
    if len(values) not in (1, 3):
        raise typer.BadParameter(f"{name} {text}: expected one number or three, one for each channel")
    return values * 3 if len(values) == 1 else values
