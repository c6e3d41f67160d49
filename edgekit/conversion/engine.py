"""``build``: a TensorRT engine for the GPU of this very machine, from an ONNX artifact; refusals before any work."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..board import Board, load_board
from ..paths import listed
from ..progress import Progress, quiet
from ..runtime.artifact import Artifact, check_place, export_again, read_artifact
from ..runtime.engines.build import KINDS, build_engine, builder_for, check_nms, check_request
from ..runtime.engines.options import BuildOptions
from ..runtime.engines.verdict import check_engine
from ..runtime.errors import ArtifactError, BadConfig, BoardLacks
from ..runtime.onboard import identity
from .child import run_in_child

VERSION = "edgekit.conversion.engine:tensorrt_version"  # a child's work
FACTS = "edgekit.conversion.engine:machine_facts"  # and another's
SCAN_IMAGES = 8  # real images on which FP16 is looked at for overflow


@dataclass(frozen=True)
class EngineOptions:
    """What ``build`` takes beside the board; None: as the board and the artifact say.

    pin: a layer to keep in FP32, or several, by module prefix or node name, beside those that overflow
    scan: look for those
    calibration: a named set or a folder, for INT8 of a float file up to TensorRT 10; perf_only: INT8 without one
    nms: "host", "graph", "plugin" or "layer"; timing_cache: a file instead of the machine's own
    """

    precision: str | None = None
    workspace_mb: int | None = None
    pin: Sequence[str] = ()
    scan: bool = True
    calibration: str | Path | None = None
    perf_only: bool = False
    nms: str = "host"
    timing_cache: str | Path | None = None
    device: int = 0

    def __post_init__(self) -> None:
        object.__setattr__(self, "pin", tuple(listed(self.pin)))


def build(
    source: str | Path,
    *,
    board: str,
    out: str | Path | None = None,
    options: EngineOptions | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Build a TensorRT engine of an ``onnx`` or ``onnx-int8`` artifact, for the GPU that is here.

    What the board cannot do, or what is another machine, is refused before any work. FP16: layers that overflow on real
    images stay in FP32; for TensorRT 11 a typed FP16 artifact is written first, beside the source.
    Returns the artifact of kind ``engine``, by default at SOURCE-BOARD-PRECISION.
    """
    options, tell = options or EngineOptions(), progress or quiet
    artifact, profile = read_artifact(source, kinds=KINDS), load_board(board)
    precision = options.precision or default_precision(artifact, profile)
    check_board(artifact, profile, precision)
    request = _request(profile, precision, options)
    check_request(artifact, BuildOptions(**request))
    check_machine(artifact, profile)
    place = check_place(out or Path(f"{artifact.path.rstrip('/')}-{profile.name}-{precision}"), "engine")
    runtime = builder_for(run_in_child(VERSION, {}, "find TensorRT", board))
    check_nms(options.nms, runtime, artifact.manifest.get("postprocess") or {})
    chosen = artifact
    if precision == "fp16" and artifact.manifest.get("precision") == "fp32":
        chosen, request["pins"] = _half(artifact, runtime, options, tell)
    request["rebuild"] = rebuild_command(artifact.path, board, precision, place, options)
    return build_engine(chosen, place, BuildOptions(**request), lambda done, total: tell("build engine", done, total))


def tensorrt_version() -> str:
    """In a child: a TensorRT without its driver may crash when it is loaded."""
    from ..runtime.engines.build import load_tensorrt

    return str(load_tensorrt().__version__)


def machine_facts(device: int) -> dict[str, Any]:
    """In a child: what an engine of this machine is bound to."""
    from ..runtime.cuda import Cuda
    from ..runtime.engines.build import facts_of, load_tensorrt

    cuda = Cuda(device)
    try:
        return dict(facts_of(cuda, load_tensorrt()))
    finally:
        cuda.close()


# -- refusals ---------------------------------------------------------------------------------------------------------
def default_precision(artifact: Artifact, profile: Board) -> str:
    """INT8 for an INT8 file, else FP16 where the board has it."""
    if artifact.kind == "onnx-int8":
        return "int8"
    return "fp16" if "fp16" in profile.precisions else "fp32"


def check_board(artifact: Artifact, profile: Board, precision: str) -> None:
    """Raise BoardLacks for what the board cannot do, whatever machine this is."""
    engines = [runtime for runtime in profile.runtimes if runtime.startswith("tensorrt")]
    if not engines:
        raise BoardLacks(
            f"board {profile.name!r} has no TensorRT; it runs ONNX files as they are, in {profile.runtimes[0]}. "
            f"Measure it: edgekit bench {artifact.path} --board {profile.name}"
        )
    if precision == "int8" and (why := profile.why_no_int8()):
        raise BoardLacks(
            f"INT8 on {profile.name}: {why}; such an engine would be slower than FP16. "
            f"Build the float artifact with --precision fp16"
        )
    profile.require(engines[0], precision)
    layout = artifact.manifest.get("input", {}).get("layout")
    if layout is not None and layout != "nchw_float":  # whatever the board's other runtimes take
        raise BoardLacks(
            f"{artifact.path}: its input is {layout}; TensorRT on board {profile.name!r} takes nchw_float. "
            f"Export it for that board: {export_again(artifact, profile.name)}"
        )


def check_machine(artifact: Artifact, profile: Board) -> None:
    """Raise BoardLacks unless this machine is the board: engines cannot be built for another one."""
    found = identity.identity()
    if identity.fits(profile.identity.model_dump(), found):
        return
    here = identity.called(found) if found["model"] != identity.UNKNOWN else f"{found['architecture']}, no Jetson"
    raise BoardLacks(
        f"this machine ({here}) is not {profile.name} ({profile.title}), and an engine works only where it was built. "
        f"Let the board build it: edgekit flash {artifact.path} --board {profile.name} --host USER@BOARD, "
        f"or carry a bundle: edgekit bundle {artifact.path} --board {profile.name}"
    )


# -- what is built ----------------------------------------------------------------------------------------------------
def _request(profile: Board, precision: str, options: EngineOptions) -> dict[str, Any]:
    """The fields of ``BuildOptions``."""
    if options.pin and precision != "fp16":
        raise BadConfig(f"pins keep layers in FP32 in an FP16 engine; this one is {precision}. Leave --pin out")
    return {
        "precision": precision,
        "workspace_mb": options.workspace_mb or profile.workspace_mb(),
        "nms": options.nms,
        "perf_only": options.perf_only,
        "calibration_images": [str(path) for path in _calibration_images(options)],
        "timing_cache": str(options.timing_cache) if options.timing_cache else None,
        "device": options.device,
        "board": profile.name,
    }


def rebuild_command(source: str, board: str, precision: str, place: Path, options: EngineOptions) -> str:
    """The command that builds the same engine again: an engine's refusal proposes it. What is default is left out."""
    words = ["edgekit", "build", source, "--board", board, "--precision", precision]
    for name, value in (
        ("--nms", None if options.nms == "host" else options.nms),
        ("--calibration", options.calibration),
        ("--workspace", options.workspace_mb),
        ("--device", options.device or None),
        *(("--pin", layer) for layer in options.pin),
    ):
        words += [] if value is None else [name, str(value)]
    words += ["--perf-only"] * options.perf_only + ["--no-scan"] * (not options.scan)
    return shlex.join([*words, "--out", str(place)])


def _calibration_images(options: EngineOptions) -> Sequence[Path]:
    if options.calibration is None:
        return ()
    from ..data.calibration import load_set

    return load_set(options.calibration).images


def _half(artifact: Artifact, runtime: str, options: EngineOptions, tell: Progress) -> tuple[Artifact, tuple[str, ...]]:
    """(the artifact to build from, the nodes to pin): TensorRT 11 takes both from a typed FP16 file."""
    from .precision import half_artifact, pins_for_fp16

    images = _scan_images(artifact) if options.scan else []
    if runtime == "tensorrt11":
        made = half_artifact(artifact, _half_place(artifact), images, options.pin, tell)
        return made, ()
    pins, _ = pins_for_fp16(artifact, images, options.pin, tell)
    return artifact, pins


def _half_place(artifact: Artifact) -> str:
    return f"{artifact.path.rstrip('/')}-fp16"


def engine_of(artifact: Artifact, place: str | Path) -> Artifact | None:
    """The engine at ``place`` if it was built of this ONNX artifact, for this very machine."""
    try:
        found = read_artifact(place, kinds=("engine",))
    except ArtifactError:
        return None
    sources = {artifact.digest} | _digests_made_of(artifact, _half_place(artifact))
    if found.manifest["parents"]["onnx"] not in sources:
        return None
    device = int(found.manifest["engine"].get("device_number", 0))
    facts = run_in_child(FACTS, {"device": device}, "look at the GPU", place)
    try:
        check_engine(found, facts)
    except (ArtifactError, BoardLacks):
        return None
    return found


def _digests_made_of(artifact: Artifact, place: str) -> set[str]:
    """The digest of the artifact at ``place`` if it was made of the other one."""
    try:
        found = read_artifact(place, kinds=KINDS)
    except ArtifactError:
        return set()
    return {found.digest} if found.manifest.get("parents", {}).get("onnx") == artifact.digest else set()


def _scan_images(artifact: Artifact) -> list[Path]:
    """Real images of the recipe; none where it names none."""
    from ..data.evaluation import recipe_images

    return recipe_images(artifact, SCAN_IMAGES)
