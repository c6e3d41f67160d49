"""From artifacts to measured rows: the runtimes that run them on a board, the measuring, and which rows still hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import spine
from .board import Board, load_board
from .progress import Progress, tell
from .recipe import Recipe
from .runtime import machine
from .runtime.artifact import Artifact
from .runtime.errors import BadConfig, BadInput, BoardLacks, EdgeKitError

if TYPE_CHECKING:
    from .data.coco import CocoSet, Sample
    from .measure.bench import BenchOptions, Measurement, Target
    from .measure.report import Picture
    from .measure.row import Row

PICTURES, PICTURE_SCORE = 6, 0.3  # in a report


def board_here(name: str) -> Board:
    """The board, to measure on. Raises BoardLacks where this machine is another: a row says where it was measured."""
    from .checkup import another_machine

    board = load_board(name)
    if reason := another_machine(board):
        raise BoardLacks(
            f"cannot measure {board.name!r} here: {reason}. What this machine is: edgekit doctor. To measure "
            f"on the board itself: edgekit flash ARTIFACT --board {board.name} --host USER@BOARD"
        )
    return board


def targets(artifacts: Sequence[Artifact], board: Board, runtime: str | None) -> list[Target]:
    """Every artifact on every runtime of the board that loads it, with the FP32 graph of its network if it is there."""
    from .measure.bench import Target

    graphs = [a for a in artifacts if a.kind == "onnx"]
    return [Target(a, name, _graph_of(a, graphs)) for a in artifacts for name in _runtimes(a, board, runtime)]


def _graph_of(artifact: Artifact, graphs: Sequence[Artifact]) -> Artifact | None:
    network = _network(artifact)
    return next((graph for graph in graphs if _network(graph) == network), None)


def _network(artifact: Artifact) -> tuple[Any, ...]:
    """What artifacts of one network have in common, whatever its weights."""
    manifest = artifact.manifest
    recipe = manifest.get("recipe", {})
    return recipe.get("name"), recipe.get("model"), manifest.get("classes"), manifest.get("preprocess")


def compared(source: str, board: Board, runtime: str | None) -> Target:
    """ "FOLDER@RUNTIME" or "FOLDER" with the runtime that was asked for, else the board's first that loads the file."""
    from .measure.bench import Target

    place, _, named = source.rpartition("@") if "@" in source and not Path(source).exists() else (source, "", "")
    artifact = spine.model(place)
    able = _runtimes(artifact, board, named or runtime)
    if not able:
        raise BadConfig(
            f"{place}: no runtime of board {board.name!r} that is installed loads a {artifact.kind}; "
            f"it has {', '.join(board.runtimes)}. Files that can be compared: {', '.join(spine.MODEL_KINDS)}"
        )
    manifest = artifact.manifest
    board.require(able[0], manifest.get("precision", "fp32"), manifest.get("input", {}).get("layout"))
    return Target(artifact, able[0])


def bench(
    targets: Sequence[Target],
    sets: Mapping[str, CocoSet],
    board: Board,
    data: str | None,
    seconds: float | None,
    progress: Progress | None,
    full: bool = False,
    **more: bool,
) -> list[Measurement]:
    """Measure every target; the results are in the order of the targets.

    sets: the images of every artifact that was given, by its digest. Targets of the same images are measured together
    data: the name of the images in the rows, None: that in the recipe of each; more: ``offline``, ``layers``
    Raises BoardLacks before anything is measured where no file of a set has a target. Where nothing on one set could
    be measured its rows say why, and the others go on; where nothing at all could be, the first error is raised.
    """
    from .measure.bench import BenchOptions, bench_targets

    groups = _by_images(targets, sets, board)
    wishes: dict[str, Any] = {**more, **({} if seconds is None else {"min_seconds": seconds})}
    options = BenchOptions.full(**wishes) if full else BenchOptions(**wishes)
    plan = _plan(len(targets), options.min_seconds or board.measure.min_seconds, options.offline)
    started = iter(range(len(targets)))

    def watch(target: Target) -> Progress | None:
        if progress is None:
            return None
        progress(plan, next(started), len(targets))
        return lambda phase, done, total: progress(f"{_label(target)}: {phase}", done, total)

    measured: dict[int, Measurement] = {}
    failed: list[EdgeKitError] = []
    for coco, numbers in groups:
        those = [targets[number] for number in numbers]
        named = replace(options, set_name=data or those[0].artifact.manifest["recipe"].get("evaluation"))
        try:
            found = bench_targets(those, board, coco, named, watch)
        except EdgeKitError as error:
            failed.append(error)
            found = _unmeasured(those, board, named, error)
        measured.update(zip(numbers, found, strict=True))
    tell(progress, plan, len(targets), len(targets))
    if len(failed) == len(groups):
        raise failed[0]
    return _under_common_peaks([measured[number] for number in range(len(targets))])


def _by_images(targets: Sequence[Target], sets: Mapping[str, CocoSet], board: Board) -> list[tuple[CocoSet, list[int]]]:
    """Each set of images with its classes, and the numbers of the targets that are measured on it."""
    groups = {(coco.digest(), coco.classes): (coco, list[int]()) for coco in sets.values()}
    for number, target in enumerate(targets):
        coco = sets[target.artifact.digest]
        groups[coco.digest(), coco.classes][1].append(number)
    for coco in (coco for coco, numbers in groups.values() if not numbers):
        raise BoardLacks(
            f"no runtime of board {board.name!r} ({', '.join(board.runtimes)}) that is installed runs the files that "
            f"were to be measured on {coco.annotations}. "
            f"TensorRT runs engines: edgekit build ARTIFACT --board {board.name}. What is installed: edgekit doctor"
        )
    return list(groups.values())


def _unmeasured(
    targets: Sequence[Target], board: Board, options: BenchOptions, error: EdgeKitError
) -> list[Measurement]:
    """What stands for a set of images on which nothing could be measured. error: that of the first target"""
    from .measure.bench import Measurement, unmeasured_row

    reason = str(error) if len(targets) == 1 else f"nothing on these images could be measured; the first error: {error}"
    return [Measurement(unmeasured_row(target, board, reason, options), {}) for target in targets]


def _under_common_peaks(measured: Sequence[Measurement]) -> list[Measurement]:
    """All that was measured in one call under the same limits of the machine, whatever images it ran on."""
    if not any(m.row.layers for m in measured):
        return list(measured)
    from .measure.layers import with_common_peaks

    rows = with_common_peaks([m.row for m in measured])
    return [m._replace(row=row) for m, row in zip(measured, rows, strict=True)]


def _plan(rows: int, seconds: float, offline: bool) -> str:
    """How long the measuring will take, for the one who waits; a slow network needs more for its frames."""
    each = seconds * (2 if offline else 1)
    whole = f"{rows * each / 60:.0f} min" if rows * each >= 120 else f"{rows * each:.0f} s"
    return f"rows, each at least {each:g} s, together {whole} or more"


def _label(target: Target) -> str:
    return f"{target.runtime} {target.artifact.manifest.get('precision', 'fp32')}"


def _runtimes(artifact: Artifact, board: Board, runtime: str | None) -> list[str]:
    """The board's runtimes that load this kind of artifact and are installed; or the one that was asked for."""
    if runtime is not None:
        return [runtime]
    if artifact.kind == "engine":
        return [first_runtime(artifact)]
    able = [r for r in board.runtimes if (r == "pytorch") == (artifact.kind == "checkpoint")]
    modules = {"pytorch": "torch", "cuda": "onnxruntime"}
    return [r for r in able if not r.startswith("tensorrt") and find_spec(modules.get(r, r)) is not None]


def first_runtime(artifact: Artifact) -> str:
    """The runtime that looks at images where nobody chose one."""
    if artifact.kind == "engine":
        return str(artifact.manifest["engine"]["builder"])
    return "pytorch" if artifact.kind == "checkpoint" else "onnxruntime"


def require_sets(recipe: Recipe, board: Board) -> None:
    """Raises BadConfig or BadInput where ``run`` would miss images, which it finds out after hours of training."""
    from .data.calibration import load_set
    from .data.evaluation import is_annotations

    if recipe.evaluation is None:
        raise BadConfig(
            f"recipe {recipe.name} names no images to measure mAP on. Name a shipped set, a folder that holds one, "
            f"or a COCO file: edgekit run {recipe.name} evaluation=SET"
        )
    if recipe.quantize is not None and board.int8_flavour is not None:
        load_set(recipe.quantize.calibration)
    sources = recipe.data.sources if recipe.data else {}
    if recipe.evaluation not in sources and not is_annotations(recipe.evaluation):
        load_set(recipe.evaluation)


def kept_rows(
    file: Path, targets: Sequence[Target], board: Board, coco: CocoSet, seconds: float | None
) -> list[Row] | None:
    """The rows of a report of the same artifacts in the same runtimes, on the same board and evaluation images.

    seconds: what each row was measured for at least; None: as long as the board asks
    Rows of another machine, of another state of this one or of another version of a runtime do not hold; those that
    something disturbed do, for on a busy machine every run would measure again, and be disturbed again.
    A row of a simulator is of no board, and holds as long as its artifact does.
    """
    from .measure.report import read_report
    from .measure.row import TWIN

    try:
        rows = list(read_report(file))
    except BadInput:
        return None
    images = coco.digest()
    wanted = [(t.artifact.digest, t.runtime, images) for t in targets]
    found = [(r.artifact, r.runtime, r.accuracy.set_digest if r.accuracy else None) for r in rows]
    here = all(r.board in (board.name, TWIN) for r in rows)
    least = board.measure.min_seconds if seconds is None else seconds
    long_enough = all((r.process.seconds or 0.0) >= least for r in rows)
    whole = here and long_enough and found == wanted
    return rows if whole and _of_this_machine([r for r in rows if r.board != TWIN], board) else None


def _of_this_machine(rows: Sequence[Row], board: Board) -> bool:
    """Whether this machine as it is now, with what is installed, is the one that the rows were measured on."""
    from .measure.matching import machine_differences, state_differences

    facts = {"before": machine.facts()}
    for row in rows:
        process = row.process.model_copy(update={"threads": board.thread_count()})
        now = row.model_copy(update={"machine": facts, "process": process})
        if machine_differences(row, now) or state_differences(row, now) or not _installed(row):
            return False
    return True


_PACKAGES = {"pytorch": ["torch"], "onnxruntime": ["onnxruntime", "onnxruntime-gpu"], "cuda": ["onnxruntime-gpu"]}


def _installed(row: Row) -> bool:
    """Whether the version that a row tells is the installed one; also where either is unknown. Nothing is imported."""
    for package in _PACKAGES.get(row.runtime, [row.runtime.rstrip("0123456789")]):  # tensorrt8, tensorrt10
        try:
            found = version(package)
        except PackageNotFoundError:
            continue
        told = row.runtime_version or found
        return told == found or told.startswith(f"{found}-")  # OpenVINO tells its build after the number
    return True


def pictured(coco: CocoSet) -> list[Sample]:
    """The images that a report shows: those with the most boxes."""
    return sorted(coco.samples, key=lambda s: -len(s.boxes))[:PICTURES]


def pictures(measured: Sequence[Measurement], coco: CocoSet) -> list[Picture]:
    """The pictured images, as the last measured row sees them."""
    from .measure.draw import draw_detections
    from .measure.report import Picture
    from .runtime.images import read_image

    seen = next((m for m in reversed(measured) if m.detections), None)
    if seen is None:
        return []
    return [
        Picture(
            sample.path.stem,
            f"{sample.path.name}, {seen.row.runtime} {seen.row.precision}, boxes from score {PICTURE_SCORE:g} on",
            draw_detections(read_image(sample.path), seen.detections[sample.image_id], coco.classes, PICTURE_SCORE),
        )
        for sample in pictured(coco)
    ]
