"""The verb ``camera`` of the workstation: a detector on a camera, by the board's own code in ``runtime/camera``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from .paths import listed, share
from .progress import Progress
from .runtime.artifact import Artifact, no_artifact, read_artifact
from .runtime.errors import ArtifactError

Say = Callable[[str], None]

DEMO_RECIPE = "mobile-centernet-w16-dhaka"
DEMO_LINE = "0,0.55,1,0.55"
RUNNABLE = ("onnx", "onnx-int8", "engine")


def camera(
    artifact: str | Path | None = None,
    source: str | Path | None = None,
    *,
    demo: bool = False,
    board: str | None = None,
    say: Say | None = None,
    progress: Progress | None = None,
    **options: Any,
) -> dict[str, Any]:
    """Show, record and serve what a detector sees, until the source ends or a signal comes; returns the run's summary.

    artifact: an exported network's folder, or a recipe with shipped weights, which is exported first
    demo: the shipped clip, again and again, with the shipped weights, on the web page
    say: called with each line for people; options: those of ``runtime.camera.options.Options``
    """
    from .runtime.camera.app import checked, run
    from .runtime.camera.options import Options, parse_size

    if isinstance(options.get("size"), str):
        options["size"] = parse_size(options["size"])
    options["count_lines"] = listed(options.get("count_lines") or ())
    profile = _profile(board) if board is not None else None
    if demo:
        files = source is None or Path(source).is_file() or Path(source).is_dir()
        options.setdefault("loop", files and not options.get("offline"))
        artifact, source = artifact or DEMO_RECIPE, source or demo_clip()
        views = ("window", "headless", "mp4", "jsonl", "coco")
        options["web"] = options.get("web") or not any(options.get(view) for view in views)
        options.setdefault("open_page", True)
        options["count_lines"] = options["count_lines"] or [DEMO_LINE]
    asked = Options(artifact=artifact, source=None if source is None else str(source), board=profile, **options)
    asked.artifact = _model(str(artifact), lambda: checked(asked), progress).path
    return dict(run(asked, say or (lambda line: None)))


def demo_clip() -> Path:
    """The clip that ships."""
    return share("calibration") / "clips" / "car-park.mp4"


def _profile(board: str) -> dict[str, Any]:
    """What the camera needs of a board's profile, as in a bundle's board.json."""
    from .board import load_board

    found = load_board(board).model_dump(mode="json", include={"name", "title", "runtimes", "camera"})
    return {key: value for key, value in found.items() if value is not None}


def _model(name: str, check: Callable[[], object], progress: Progress | None) -> Artifact:
    """The artifact folder, or the network exported from a recipe: in INT8 where ``edgekit run`` left that.

    check: called before an export, which takes longer than to see that there is no such video
    """
    if (Path(name) / "manifest.json").is_file():
        found = read_artifact(name)
        if found.kind not in RUNNABLE:
            raise ArtifactError(
                f"{name}: found an artifact of kind {found.kind!r}; the camera runs "
                f"{' or '.join(map(repr, RUNNABLE))}. Make one with: edgekit export {name}"
            )
        return found
    from . import pipeline, spine

    if Path(name).is_dir() and not spine.names_recipe(name):
        raise no_artifact(name)
    check()
    exported = pipeline.export(name, progress=progress)
    return _lowered(exported) or exported


def _lowered(exported: Artifact) -> Artifact | None:
    """The INT8 version that was made of exactly this network, beside it or in the demo's folder."""
    from .spine import RUNS

    for place in (Path(exported.path + "-int8"), RUNS / "demo" / "onnx-int8"):
        try:
            found = read_artifact(place, kinds=("onnx-int8",))
        except ArtifactError:
            continue
        if found.manifest["parents"].get("onnx") == exported.digest:
            return found
    return None
