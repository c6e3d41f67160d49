"""The verbs, each a function of the same name: artifact in, artifact out. ``run`` walks the whole spine.

Heavy libraries are imported inside the verb that needs them. ``progress`` is called with (phase, done, total).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .board import Board, board_names, load_board
from .paths import share, unknown_name
from .recipe import Recipe, load_recipe, recipe_names
from .runtime.artifact import Artifact, check_place, new_file, read_artifact
from .runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks, MissingDependency

if TYPE_CHECKING:
    from .data.coco import CocoSet
    from .evaluation.coco import Metrics
    from .evaluation.voc import VocMetrics
    from .measure.bench import Measurement, Target
    from .measure.compare import Comparison
    from .measure.report import Picture
    from .measure.row import Row
    from .runtime.detections import Detections

Progress = Callable[[str, int, int], None]

RUNS = Path("runs")
GOLDEN_IMAGES = 8  # real images on which lowering steps are compared box by box
PICTURES, PICTURE_SCORE = 6, 0.3  # in a report
METRICS = ("coco", "voc2007", "voc-area")
MODEL_KINDS = ("checkpoint", "onnx", "onnx-int8")


def train(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Train a recipe into a checkpoint artifact, by default ``runs/<recipe>/checkpoint``."""
    found = load_recipe(recipe, list(overrides))
    return _train(found, Path(out or RUNS / found.name / "checkpoint"), resume, progress)


def export(
    source: str | Path,
    *,
    out: Path | None = None,
    board: str = "x86-1t",
    overrides: Sequence[str] = (),
    progress: Progress | None = None,
) -> Artifact:
    """Lower a checkpoint, or a recipe's trained or shipped weights, to an ``onnx`` artifact for ``board``.

    The input is what the board takes best (raw uint8 pixels where it can); boxes are compared with PyTorch's.
    """
    profile = load_board(board)
    if out is not None:
        check_place(out)  # before shipped weights are copied
    return _export(_checkpoint(source, None, overrides, progress), profile, out, False, progress)


def quantize(
    source: str | Path,
    *,
    calibration: str | None = None,
    flavour: str | None = None,
    method: str | None = None,
    max_drop: float | None = None,
    evaluation: str | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Lower an ``onnx`` artifact to INT8 and gate the loss of mAP@0.5; what is None comes from the recipe."""
    artifact = read_artifact(source, kinds=("onnx",))
    wishes = {"calibration": calibration, "flavour": flavour, "method": method, "max_drop": max_drop}
    return _quantize(artifact, wishes, evaluation, out, False, progress)


def evaluate(
    source: str | Path,
    *,
    data: str | None = None,
    runtime: str | None = None,
    metric: str = "coco",
    tta: Mapping[str, Any] | None = None,
    progress: Progress | None = None,
) -> Metrics | VocMetrics:
    """mAP of an artifact on annotated images, by its own preprocessing and post-processing, on all cores.

    data: a source of the artifact's recipe, a named set, or a COCO JSON file whose images lie beside it, in ``images``
        beside it or in ``../images``
    metric: "coco", or Pascal VOC's at IoU 0.5: "voc2007" (11 points) or "voc-area" (2010 and later)
    tta: multi-scale testing with flips; the fields of ``evaluation.tta.TestTime``
    """
    if metric not in METRICS:
        raise unknown_name("metric", metric, list(METRICS), "")
    artifact = _model(source)
    coco = evaluation_set(artifact, data)
    found = _detect_all(artifact, coco, runtime or _first_runtime(artifact), progress, tta)
    if metric == "coco":
        from .evaluation.coco import evaluate_detections

        return evaluate_detections(coco, found)
    from .evaluation.voc import evaluate_voc

    return evaluate_voc(coco, found, "voc2007" if metric == "voc2007" else "area")


def bench(
    sources: Sequence[str | Path],
    *,
    board: str = "x86-1t",
    runtime: str | None = None,
    data: str | None = None,
    seconds: float | None = None,
    full: bool = False,
    offline: bool = False,
    layers: bool = False,
    out: Path | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure artifacts on a board, each on every runtime that can load it; ``out`` keeps the rows as JSON.

    full: as long as MLPerf asks for; offline: throughput with every core too; layers: the time of every layer too
    """
    if full and seconds is not None:
        raise BadConfig("--full measures each row for ten minutes, --seconds for another time: leave one of them out")
    if out is not None:
        check_place(out, "file")
    profile = _board_here(board)
    artifacts = [_model(source) for source in sources]
    targets = _targets(artifacts, profile, runtime)
    measured = _bench(
        targets,
        profile,
        evaluation_set(artifacts[0], data),
        data,
        seconds,
        progress,
        full,
        offline=offline,
        layers=layers,
    )
    rows = [m.row for m in measured]
    if out is not None:
        from .measure.report import report_json

        with new_file(out) as handle:
            handle.write(report_json(rows))
    return rows


def bench_compare(
    a: str | Path,
    b: str | Path,
    *,
    board: str = "x86-1t",
    runtime: str | None = None,
    data: str | None = None,
    seconds: float | None = None,
    out: Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two artifacts, or recipes, in turns. ``ARTIFACT@RUNTIME`` chooses a runtime for one of them.

    seconds: how long the turns of each are measured, together twice that; None: the board's
    """
    from .measure.bench import BenchOptions
    from .measure.compare import compare

    if out is not None:
        check_place(out, "file")
    profile = _board_here(board)
    first, second = (_compared(str(source), profile, runtime) for source in (a, b))
    own_set = first.artifact.manifest.get("recipe", {}).get("evaluation")
    options = BenchOptions(min_seconds=seconds, set_name=data or own_set)
    found = compare(first, second, profile, evaluation_set(first.artifact, data), options, progress)
    if out is not None:
        with new_file(out) as handle:
            handle.write(found.model_dump_json(indent=1) + "\n")
    return found


def report(
    rows: Sequence[str | Path | Row],
    *,
    out: Path,
    history: Path | None = None,
    title: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write report.json, .md, .html, .csv and .tex of measured rows, or of files of them, into the folder ``out``.

    Pictures beside those files come along. history: a folder of earlier reports of the same rows, one for each commit
    """
    from .measure.history import read_history
    from .measure.report import read_pictures, read_report, write_report

    check_place(out, "folder")
    files = [part for part in rows if isinstance(part, str | Path)]
    every = [row for part in rows for row in (read_report(part) if isinstance(part, str | Path) else [part])]
    pictures = [picture for file in files for picture in read_pictures(file)]
    steps = read_history(history) if history is not None else []
    write_report(every, out, pictures, title or "EdgeKit report", steps)
    return Path(out)


def predict(
    source: str | Path,
    images: Sequence[Path],
    *,
    out: Path,
    runtime: str | None = None,
    score: float = 0.3,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw boxes on images (files or folders of them) and write detections.json in COCO's result format.

    Image ids are 1, 2, ... in the order of ``images`` in detections.json, whose ``images`` names the files.
    """
    from .measure.predict import predict_images

    artifact = _model(source)
    return predict_images(artifact, images, out, runtime or _first_runtime(artifact), score, progress)


def label(
    source: str | Path,
    images: Path,
    *,
    out: Path,
    runtime: str | None = None,
    score: float = 0.5,
    doubt: float = 0.2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label a folder of images with a trained detector; writes a COCO file. See ``data.pseudo``."""
    from .data.pseudo import pseudo_label

    artifact = _model(source)
    return pseudo_label(artifact, images, out, runtime or _first_runtime(artifact), score, doubt, progress)


def data_check(
    annotations: Path,
    *,
    images: Path | None = None,
    layout: str = "coco",
    classes: Sequence[str] | None = None,
    class_map: str | None = None,
    frame_stride: int = 1,
    progress: Progress | None = None,
) -> CocoSet:
    """Read annotated images in any known layout and look at every file; what is wrong raises BadInput, all at once.

    images: None looks in the usual places beside the annotations; class_map: a shipped map's name or a YAML file
    """
    from .data.classmap import load_class_map
    from .data.formats import read_set

    if layout == "coco" and Path(annotations).suffix.lower() != ".json":
        raise BadInput(
            f"{annotations}: neither a COCO file (.json) nor a recipe. Another layout must be named: --layout voc, yolo"
        )

    def looked_at(done: int, total: int) -> None:
        _tell(progress, "images", done, total)

    return read_set(
        annotations,
        images or (_images_of(annotations) if layout == "coco" else annotations.parent / "images"),
        classes or None,
        layout,
        load_class_map(class_map) if class_map else None,
        frame_stride,
        progress=looked_at,
    )


def data_stats(coco: CocoSet, *, sheet: Path | None = None, count: int = 24) -> dict[str, Any]:
    """Counts, sizes and class weights of a set; ``sheet`` is a picture of ``count`` of its images with their boxes."""
    from .data.stats import set_stats

    if sheet is not None:
        from .measure.draw import labelled_sheet, save_image

        save_image(sheet, labelled_sheet(coco, count))
    return set_stats(coco)


def data_recipe(
    recipe: str | Path, *, overrides: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Read every training and validation set that a recipe names and look at every file, as a training does.

    sources: for each set its source, split, labelled classes, how often an epoch sees it, and ``data_stats``
    """
    from .data.sources import Mixture, recipe_sources, source_notes
    from .data.stats import set_stats

    found = load_recipe(recipe, list(overrides))
    sources = recipe_sources(found, progress)
    trained = tuple(source for source in sources if source.train is not None)
    sets = [(source, split, getattr(source, split)) for source in sources for split in ("train", "val")]
    return {
        "recipe": found.name,
        "images_per_epoch": len(Mixture(trained, found.classes)) if trained else 0,
        "sources": [
            {"source": s.name, "split": split, "labelled": list(s.labelled), "repeat": s.repeat, **set_stats(coco)}
            for s, split, coco in sets
            if coco is not None
        ],
        "notes": source_notes(sources, found.classes),
    }


def data_convert(coco: CocoSet, *, out: Path, layout: str = "coco", split: str = "train") -> Path:
    """Write a set as a COCO file, or as a ``split`` of a folder in the YOLO text layout; returns what describes it."""
    from .data.coco import write_coco
    from .data.formats import yolo

    if layout == "yolo":
        return yolo.write(coco, out, split)
    if layout != "coco":
        raise unknown_name("layout to write", layout, ["coco", "yolo"], "")
    return write_coco(coco, out)


def run(
    recipe: str | Path,
    *,
    board: str = "x86-1t",
    overrides: Sequence[str] = (),
    out: Path | None = None,
    seconds: float | None = None,
    force: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """The whole spine: checkpoint, onnx, onnx-int8 and the report in the folder ``out`` (``runs/<recipe>``).

    A recipe that ships weights starts from them, one that does not is trained. Where the board has TensorRT and it is
    installed here, an engine is built of each ONNX file (``engine-fp16``, ``engine-int8``). A step is skipped when its
    output is whole and its inputs and options did not change; ``force`` repeats every step but the training.
    """
    from .measure.report import write_report

    found, profile = load_recipe(recipe, list(overrides)), _board_here(board)
    out = check_place(Path(out or RUNS / found.name), "folder")
    for name in (*MODEL_KINDS, *(engine_name(precision) for precision in profile.precisions)):
        check_place(out / name)
    checkpoint = _checkpoint(found, out / "checkpoint", (), progress)
    onnx = _export(checkpoint, profile, out / "onnx", force, progress)
    artifacts = [checkpoint, onnx]
    if found.quantize is not None and profile.int8_flavour is not None:
        artifacts.append(_quantize(onnx, {"flavour": profile.int8_flavour}, None, out / "onnx-int8", force, progress))
    artifacts += _engines(artifacts[1:], profile, out, force, progress)
    coco, targets = evaluation_set(checkpoint, None), _targets(artifacts, profile, None)
    kept = None if force or seconds else _kept_rows(out / "report.json", targets, profile, coco)
    if kept is not None:
        return kept
    measured = _bench(targets, profile, coco, None, seconds, progress)
    rows = [m.row for m in measured]
    write_report(rows, out, _pictures(measured, coco), title=f"{found.name} on {profile.title}")
    return rows


def boards(name: str | None = None) -> list[dict[str, Any]]:
    """The boards in short, or one of them with everything that is known of it."""
    if name is not None:
        return [load_board(name).model_dump(mode="json")]
    return [
        {"name": b.name, "title": b.title, "runtimes": list(b.runtimes), "precisions": list(b.precisions)}
        for b in map(load_board, board_names())
    ]


def doctor(board: str | None = None) -> dict[str, Any]:
    """What works on this machine, and the command that mends what does not."""
    from .checkup import checkup

    return checkup(board)


# -- steps: each returns what is there when it is up to date ----------------------------------------------------------
def _checkpoint(
    source: str | Path | Recipe, place: Path | None, overrides: Sequence[str], progress: Progress | None
) -> Artifact:
    """The checkpoint to start from: an artifact folder, a recipe's training in runs/, or its shipped weights.

    place: where a recipe's checkpoint is, if it is not in runs/; a recipe without weights is trained into it
    """
    if not isinstance(source, Recipe) and (Path(source) / "manifest.json").is_file():
        if overrides:
            raise BadConfig(f"{overrides[0]}: changes a recipe, and {source} keeps the one that it was trained by")
        return read_artifact(source, kinds=("checkpoint",))
    recipe = source if isinstance(source, Recipe) else load_recipe(source, list(overrides))
    home = place or RUNS / recipe.name / "checkpoint"
    found = _fitting_checkpoint(recipe, home)
    if found is not None:
        return found
    if recipe.weights is None and place is None:
        raise BadConfig(
            f"recipe {recipe.name} has no trained weights: none ship, and none are in {home}. "
            f"Train it: edgekit train {recipe.name}"
        )
    if recipe.weights is None:
        return _train(recipe, home, False, progress)
    _need("train", "torch")
    from .models.checkpoint import shipped_checkpoint

    return shipped_checkpoint(recipe, home)


def _train(recipe: Recipe, out: Path, resume: bool, progress: Progress | None) -> Artifact:
    check_place(out)
    fit = _need("train", "edgekit.training.fit").fit
    artifact: Artifact = fit(recipe, out, resume, progress)
    return artifact


def _fitting_checkpoint(recipe: Recipe, place: Path) -> Artifact | None:
    """The checkpoint at ``place`` if it is this recipe's network; shipped weights win over an older copy of them."""
    if not (place / "manifest.json").is_file():
        return None
    found = read_artifact(place, kinds=("checkpoint",))
    from .models.checkpoint import checkpoint_manifest, follow_recipe, shipped_parents

    wanted = checkpoint_manifest(recipe)
    same = all(found.manifest[k] == wanted[k] for k in ("classes", "preprocess")) and (
        found.manifest["recipe"]["model"] == wanted["recipe"]["model"]
    )
    shipped = "weights" in found.manifest["parents"]
    # a copy of shipped weights costs nothing, so it must be of this very recipe, overrides included
    current = found.manifest["parents"] == shipped_parents(recipe) and found.manifest["recipe"] == wanted["recipe"]
    if same and (not shipped or current):
        return found if shipped else follow_recipe(found, recipe)
    if shipped:
        return None
    raise ArtifactError(
        f"{place}: holds a training of another network, class list or preprocessing than recipe {recipe.name}. "
        f"Choose another --out, or remove the folder to train again."
    )


def _export(checkpoint: Artifact, board: Board, out: Path | None, force: bool, progress: Progress | None) -> Artifact:
    _need("train", "torch")
    from .conversion.export import ExportOptions, onnx_artifact
    from .models.checkpoint import model_of

    section = checkpoint.manifest["recipe"]["export"]
    options = ExportOptions(layout=board.input_layouts[0], top_k=section["top_k"], opset=section["opset"])
    parents = {"checkpoint": checkpoint.digest}
    out = check_place(Path(out or Path(checkpoint.path).parent / "onnx"))
    kept = None if force else _up_to_date(out, options.key(parents))
    if kept is not None:
        return kept
    _tell(progress, "export", 0, 1)
    artifact, _ = onnx_artifact(
        model_of(checkpoint), checkpoint.manifest, parents, out, _golden_images(checkpoint), options
    )
    _tell(progress, "export", 1, 1)
    return artifact


def _quantize(
    onnx: Artifact,
    wishes: Mapping[str, Any],
    evaluation: str | None,
    out: Path | None,
    force: bool,
    progress: Progress | None,
) -> Artifact:
    """``wishes``: calibration, flavour, method, max_drop; what is missing or None comes from the recipe."""
    from .conversion.quantize import QuantizeOptions
    from .conversion.quantize import quantize as lower
    from .data.calibration import load_set

    recipe = onnx.manifest["recipe"]
    given = {**(recipe.get("quantize") or {}), **{k: v for k, v in wishes.items() if v is not None}}
    name = given.pop("calibration", None)
    if name is None:
        raise BadConfig(f"{onnx.path}: its recipe names no calibration set. Give one: --calibration SET or FOLDER")
    out = check_place(Path(out or f"{onnx.path.rstrip('/')}-int8"))
    images, options = load_set(name), QuantizeOptions(**given)
    coco = evaluation_set(onnx, evaluation)
    parents = {"onnx": onnx.digest, "calibration": images.digest, "evaluation": coco.digest()}
    kept = None if force else _up_to_date(out, options.key(parents))
    if kept is not None:
        return kept

    def measure(artifact: Artifact) -> dict[str, Any]:
        return _measure_accuracy(artifact, coco, "onnxruntime", progress).to_dict()

    return lower(onnx, images.images, parents, out, options, measure, progress)


def engine_name(precision: str) -> str:
    """The folder of an engine that ``run`` builds."""
    return f"engine-{precision}"


def _engines(
    files: Sequence[Artifact], board: Board, out: Path, force: bool, progress: Progress | None
) -> list[Artifact]:
    """A TensorRT engine of each ONNX file, in the fastest precision that it and the board allow; none without TensorRT.

    An engine that is there is kept if this TensorRT made it of this file.
    """
    from importlib.util import find_spec

    from .conversion.engine import build, default_precision, engine_of

    if find_spec("tensorrt") is None or not any(name.startswith("tensorrt") for name in board.runtimes):
        return []
    made = []
    for file in files:
        place = out / engine_name(default_precision(file, board))
        kept = None if force else engine_of(file, place)
        made.append(kept or build(file.path, board=board.name, out=place, progress=progress))
    return made


def _up_to_date(out: Path, key: str) -> Artifact | None:
    """The artifact at ``out`` if it is whole and was made from the same inputs with the same options."""
    try:
        found = read_artifact(out)
    except ArtifactError:
        return None
    return found if found.manifest.get("key") == key else None


def _golden_images(artifact: Artifact) -> list[Path]:
    """Real images for comparing boxes."""
    from .data.calibration import recipe_images

    return recipe_images(artifact.manifest["recipe"], GOLDEN_IMAGES)


def _measure_accuracy(artifact: Artifact, coco: CocoSet, runtime: str, progress: Progress | None) -> Metrics:
    from .evaluation.coco import evaluate_detections

    return evaluate_detections(coco, _detect_all(artifact, coco, runtime, progress))


def _detect_all(
    artifact: Artifact, coco: CocoSet, runtime: str, progress: Progress | None, tta: Mapping[str, Any] | None = None
) -> dict[int, Detections]:
    from .evaluation.tta import TestTime, open_detector
    from .runtime.images import read_image

    threads, found = len(os.sched_getaffinity(0)), {}
    passes = TestTime(**tta) if tta else None
    with open_detector(artifact, runtime, passes, threads) as detect:
        for done, sample in enumerate(coco.samples, 1):
            found[sample.image_id] = detect(read_image(sample.path))
            _tell(progress, f"mAP of {Path(artifact.path).name}", done, len(coco.samples))
    return found


def _targets(artifacts: Sequence[Artifact], board: Board, runtime: str | None) -> list[Target]:
    """Every artifact on every runtime of the board that loads it; GOPS are those of the FP32 graph that ships."""
    from .measure.bench import Target

    shipped = next((a for a in artifacts if a.kind == "onnx"), None)
    return [Target(a, name, shipped) for a in artifacts for name in _runtimes(a, board, runtime)]


def _compared(source: str, board: Board, runtime: str | None) -> Target:
    """ "FOLDER@RUNTIME" or "FOLDER" with the runtime that was asked for, else the board's first that loads the file."""
    from .measure.bench import Target

    place, _, named = source.rpartition("@") if "@" in source and not Path(source).exists() else (source, "", "")
    artifact = _model(place)
    able = _runtimes(artifact, board, named or runtime)
    if not able:
        raise BadConfig(
            f"{place}: no runtime of board {board.name!r} that is installed loads a {artifact.kind}; "
            f"it has {', '.join(board.runtimes)}. Files that can be compared: {', '.join(MODEL_KINDS)}"
        )
    manifest = artifact.manifest
    board.require(able[0], manifest.get("precision", "fp32"), manifest.get("input", {}).get("layout"))
    return Target(artifact, able[0])


def _bench(
    targets: Sequence[Target],
    board: Board,
    coco: CocoSet,
    data: str | None,
    seconds: float | None,
    progress: Progress | None,
    full: bool = False,
    **more: bool,
) -> list[Measurement]:
    from .measure.bench import BenchOptions, bench_targets

    if not targets:
        raise BoardLacks(
            f"no runtime of board {board.name!r} ({', '.join(board.runtimes)}) that is installed runs these files. "
            f"TensorRT runs engines: edgekit build ARTIFACT --board {board.name}. What is installed: edgekit doctor"
        )
    name = data or targets[0].artifact.manifest["recipe"].get("evaluation")
    wishes: dict[str, Any] = {"set_name": name, **more, **({} if seconds is None else {"min_seconds": seconds})}
    options = BenchOptions.full(**wishes) if full else BenchOptions(**wishes)
    plan = _plan(len(targets), options.min_seconds or board.measure.min_seconds, options.offline)
    started = iter(range(len(targets)))

    def watch(target: Target) -> Progress | None:
        if progress is None:
            return None
        progress(plan, next(started), len(targets))
        return lambda phase, done, total: progress(f"{_label(target)}: {phase}", done, total)

    measured = bench_targets(targets, board, coco, options, watch)
    _tell(progress, plan, len(targets), len(targets))
    return measured


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
    from importlib.util import find_spec

    if artifact.kind == "engine":
        return [str(artifact.manifest["engine"]["builder"])]
    able = [r for r in board.runtimes if (r == "pytorch") == (artifact.kind == "checkpoint")]
    modules = {"pytorch": "torch", "cuda": "onnxruntime"}
    return [r for r in able if not r.startswith("tensorrt") and find_spec(modules.get(r, r)) is not None]


def _kept_rows(file: Path, targets: Sequence[Target], board: Board, coco: CocoSet) -> list[Row] | None:
    """The rows of a report of the same artifacts in the same runtimes, on the same board and evaluation images."""
    from .measure.report import read_report

    try:
        rows = list(read_report(file))
    except BadInput:
        return None
    wanted = [(t.artifact.digest, t.runtime, board.name, coco.digest()) for t in targets]
    found = [(r.artifact, r.runtime, r.board, r.accuracy.set_digest if r.accuracy else None) for r in rows]
    return rows if found == wanted else None


def _pictures(measured: Sequence[Measurement], coco: CocoSet) -> list[Picture]:
    """The images with the most boxes, as the last measured row sees them."""
    from .measure.draw import draw_detections
    from .measure.report import Picture
    from .runtime.images import read_image

    seen = next((m for m in reversed(measured) if m.detections), None)
    if seen is None:
        return []
    samples = sorted(coco.samples, key=lambda s: -len(s.boxes))[:PICTURES]
    return [
        Picture(
            sample.path.stem,
            f"{sample.path.name}, {seen.row.runtime} {seen.row.precision}, boxes from score {PICTURE_SCORE:g} on",
            draw_detections(read_image(sample.path), seen.detections[sample.image_id], coco.classes, PICTURE_SCORE),
        )
        for sample in samples
    ]


# -- looking things up ------------------------------------------------------------------------------------------------
def _model(source: str | Path) -> Artifact:
    """An artifact folder that can be run; or a recipe's newest artifact in runs/, or its shipped weights."""
    if (Path(source) / "manifest.json").is_file() or Path(source).is_dir():
        return read_artifact(source, kinds=(*MODEL_KINDS, "engine"))
    if str(source) not in recipe_names():
        name, _, runtime = str(source).rpartition("@")
        more = "Make one with: edgekit run RECIPE"
        if Path(name).is_dir() or name in recipe_names():  # ... that bench --compare alone understands
            more = f"@{runtime} chooses the runtime of a side of --compare; here it is: {name} --runtime {runtime}"
        raise unknown_name("artifact or recipe", str(source), recipe_names(), more)
    for kind in reversed(MODEL_KINDS):
        place = RUNS / str(source) / kind
        if (place / "manifest.json").is_file():
            return read_artifact(place)
    return _checkpoint(source, None, (), None)


def _board_here(name: str) -> Board:
    """The board, to measure on. Raises BoardLacks where this machine is another: a row says where it was measured."""
    from .checkup import another_machine

    board = load_board(name)
    if reason := another_machine(board):
        raise BoardLacks(
            f"cannot measure {board.name!r} here: {reason}. What this machine is: edgekit doctor. To measure "
            f"on the board itself: edgekit flash ARTIFACT --board {board.name} --host USER@BOARD"
        )
    return board


def _first_runtime(artifact: Artifact) -> str:
    if artifact.kind == "engine":
        return str(artifact.manifest["engine"]["builder"])
    return "pytorch" if artifact.kind == "checkpoint" else "onnxruntime"


def evaluation_set(artifact: Artifact, data: str | None) -> CocoSet:
    """The annotated set to measure an artifact on: ``data`` (a source of its recipe, a named set or a COCO file), else
    its recipe's own. Classes that are not labelled in it are in no mean.
    """
    from .data.calibration import load_set, set_names
    from .data.coco import read_coco
    from .data.sources import evaluated_classes, validation_set, widened

    recipe = artifact.manifest["recipe"]
    sources = [k for k, v in ((recipe.get("data") or {}).get("sources") or {}).items() if v.get("val")]
    name = data or recipe.get("evaluation")
    if name is None:
        raise BadConfig(
            f"{artifact.path}: its recipe names no evaluation set. Give one: --data SET or --data annotations.json"
            f"{'; or one of its sources: ' if sources else ''}{', '.join(sources)}"
        )
    if name in sources:
        folder = share("recipes") / recipe["name"]
        folder = folder if folder.is_dir() else Path()  # of one's own recipe: the paths that it names, from here
        return validation_set(Recipe.model_validate({**recipe, "folder": folder}), name)
    if not str(name).endswith(".json"):
        if name not in set_names() and not Path(name).expanduser().exists():
            own = f"Sources of its recipe: {', '.join(sources)}. " if sources else ""
            raise unknown_name("set", name, [*sources, *set_names()], f"{own}A COCO file works too: annotations.json")
        found = load_set(name)
        wanted = evaluated_classes(found.annotations, artifact.classes)
        coco = found.coco(wanted)
    else:
        file = Path(name).expanduser()
        wanted = evaluated_classes(file, artifact.classes)
        coco = read_coco(file, _images_of(file), wanted)
    return coco if wanted == list(artifact.classes) else widened(coco, artifact.classes)


def _images_of(annotations: Path) -> Path:
    """Where the images of a COCO file lie: the first of three usual folders that has the first image."""
    folders = [annotations.parent, annotations.parent / "images", annotations.parent.parent / "images"]
    try:
        first = json.loads(annotations.read_text(encoding="utf-8"))["images"][0]["file_name"]
    except (OSError, ValueError, KeyError, IndexError, TypeError):
        return folders[0]  # the reader says what is wrong with the file
    for folder in folders:
        if (folder / first).is_file():
            return folder
    raise BadInput(
        f"{annotations}: its first image {first!r} is in none of {', '.join(map(str, folders))}. "
        f"Put the images into one of them."
    )


def _need(extra: str, module: str) -> Any:
    """Import a module that an extra brings; MissingDependency names the pip command."""
    from importlib import import_module

    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        if error.name is not None and error.name.startswith("edgekit"):
            raise
        raise MissingDependency(
            f"{error.name} is not installed; this verb needs it. Install it: pip install 'edgekit[{extra}]'"
        ) from error


def _tell(progress: Progress | None, phase: str, done: int, total: int) -> None:
    if progress is not None:
        progress(phase, done, total)
