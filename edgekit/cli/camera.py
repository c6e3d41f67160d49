"""``edgekit camera``"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated

import typer

from . import options
from .output import print_json
from .progress import work

EXAMPLE = """
edgekit camera --demo
edgekit camera runs/demo/onnx-int8 --source 0 --web
edgekit camera runs/demo/onnx-int8 --source rtsp://192.168.1.9/stream --jsonl seen.jsonl --count-line 0,0.6,1,0.6
edgekit camera runs/demo/onnx-int8 --source street.mp4 --offline --mp4 boxes.mp4 --coco boxes.json
"""
_SOURCE = "0 or /dev/videoN, csi://0, rtsp://, http://, udp://, a video, a folder of images, or a GStreamer string."
_SINKS = "Where it goes; any number at once"


def camera(
    artifact: Annotated[
        str | None,
        typer.Argument(metavar="ARTIFACT", help="An exported network's folder, or a recipe.", show_default=False),
    ] = None,
    source: Annotated[list[str] | None, typer.Option(metavar="SOURCE", help=_SOURCE, show_default=False)] = None,
    demo: Annotated[bool, typer.Option("--demo", help="The shipped clip and weights, on the web page.")] = False,
    board: Annotated[
        str | None, typer.Option("--board", "-b", help="Whose camera strings to use.", show_default=False)
    ] = None,
    runtime: options.Runtime = None,
    threads: Annotated[
        int | None, typer.Option(min=1, help="Compute threads; else all cores but one.", show_default=False)
    ] = None,
    size: Annotated[
        str | None, typer.Option(metavar="WxH", help="Asked of the camera, as 1280x720.", show_default=False)
    ] = None,
    fps: Annotated[
        float | None, typer.Option(help="Asked of the camera; of a file: its pace.", show_default=False)
    ] = None,
    flip: Annotated[int, typer.Option(help="Of csi: nvvidconv's flip-method; 2 turns by 180 degrees.")] = 0,
    timeout: Annotated[float, typer.Option(help="A source silent for so many seconds is opened anew.")] = 10.0,
    offline: Annotated[
        bool, typer.Option("--offline", help="A file as fast as possible, every frame; else in real time.")
    ] = False,
    loop: Annotated[bool, typer.Option("--loop", help="A file again and again.")] = False,
    score: Annotated[float, typer.Option(min=0, max=1, help="Boxes below it are neither drawn nor recorded.")] = 0.3,
    track: Annotated[bool, typer.Option("--track/--no-track", help="Number the objects.")] = True,
    count_line: Annotated[
        list[str] | None,
        typer.Option(metavar="X1,Y1,X2,Y2", help="Count what crosses: pixels or fractions.", show_default=False),
    ] = None,
    zone: Annotated[
        Path | None, typer.Option(metavar="FILE", help="JSON file of polygons to count in.", show_default=False)
    ] = None,
    web: Annotated[
        bool, typer.Option("--web", help="A page on 127.0.0.1.", rich_help_panel=_SINKS, show_default=False)
    ] = False,
    port: Annotated[
        int | None, typer.Option(help="Of the page; else the first free from 8642 on.", rich_help_panel=_SINKS)
    ] = None,
    bind: Annotated[
        str | None,
        typer.Option(
            metavar="ADDRESS",
            help="The page on this address, with a random token; 0.0.0.0: all.",
            rich_help_panel=_SINKS,
            show_default=False,
        ),
    ] = None,
    window: Annotated[bool, typer.Option("--window", help="A window.", rich_help_panel=_SINKS)] = False,
    mp4: Annotated[Path | None, typer.Option(help="Annotated video, as .mp4.", rich_help_panel=_SINKS)] = None,
    jsonl: Annotated[Path | None, typer.Option(help="One JSON object a line.", rich_help_panel=_SINKS)] = None,
    coco: Annotated[Path | None, typer.Option(help="COCO JSON.", rich_help_panel=_SINKS)] = None,
    headless: Annotated[bool, typer.Option("--headless", help="Only numbers.", rich_help_panel=_SINKS)] = False,
    view_fps: Annotated[
        float | None,
        typer.Option(
            help="Most pictures a second for page, window and recording; else all, on one busy core 15.",
            rich_help_panel=_SINKS,
            show_default=False,
        ),
    ] = None,
    seconds: Annotated[float | None, typer.Option(help="End after so long.", show_default=False)] = None,
    frames: Annotated[int | None, typer.Option(help="End after so many results.", show_default=False)] = None,
    json: options.Json = False,
) -> None:
    """Show a detector on a camera: newest frame first, honest latency, tracks and counters.

    Ctrl-C ends it; what is recorded until then is whole. A file plays in real time unless --offline.
    """
    import edgekit

    if source is not None and len(source) > 1:
        raise typer.BadParameter("--source is given twice; one run looks at one source")
    given = {
        "runtime": runtime, "threads": threads, "size": size, "fps": fps, "flip": flip, "timeout": timeout,
        "offline": offline, "score": score, "track": track, "count_lines": count_line or [], "zones": zone,
        "web": web, "port": port, "bind": bind, "window": window, "mp4": mp4, "jsonl": jsonl, "coco": coco,
        "headless": headless, "view_fps": view_fps, "seconds": seconds, "frames": frames,
    }  # fmt: skip
    if loop:
        given["loop"] = True
    with work(interrupted="nothing was recorded") as progress:
        summary = edgekit.camera(
            artifact, source[0] if source else None, demo=demo, board=board, say=_say, progress=progress, **given
        )
    _finish(summary, offline, json)


def _finish(summary: dict, offline: bool, json: bool) -> None:
    from ..runtime.camera.app import closing_lines, exit_code

    if json:
        print_json(summary)
    else:
        print("\n".join(closing_lines(summary)))
    code = exit_code(summary, offline)
    if code:
        raise typer.Exit(code)


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
