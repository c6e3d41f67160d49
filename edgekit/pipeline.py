"""The verbs, each a function of the same name: artifact in, artifact out. ``run`` walks the whole spine.

Heavy libraries are imported inside the verb that needs them. ``progress`` is called with (phase, done, total).
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import measuring, spine
from .board import board_names, load_board
from .paths import Files, listed, text, unknown_name
from .progress import Progress, tell
from .recipe import load_recipe
from .runtime.artifact import Artifact, check_not_read, check_place, new_file, read_artifact
from .runtime.errors import BadConfig, BadInput

if TYPE_CHECKING:
    from .data.coco import CocoSet
    from .evaluation.coco import Metrics
    from .evaluation.voc import VocMetrics
    from .measure.compare import Comparison
    from .measure.row import Row

log = logging.getLogger(__name__)

METRICS = ("coco", "voc2007", "voc-area")
SPLITS = ("train", "val", "test")  # of a YOLO folder


def train(
    recipe: str | Path,
    *,
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    resume: bool = False,
    progress: Progress | None = None,
) -> Artifact:
    """Train a recipe into a checkpoint artifact, by default ``runs/<recipe>/checkpoint``."""
    found = load_recipe(recipe, listed(overrides))
    return spine.train(found, Path(out or spine.RUNS / found.name / "checkpoint"), resume, progress)


def export(
    source: str | Path,
    *,
    out: str | Path | None = None,
    board: str = "x86-1t",
    overrides: Sequence[str] = (),
    batch: int = 1,
    progress: Progress | None = None,
) -> Artifact:
    """Lower a checkpoint, or a recipe's trained or shipped weights, to an ``onnx`` artifact for ``board``.

    The input is what the board takes best (raw uint8 pixels where it can); boxes are compared with PyTorch's.
    batch: images of a call, fixed in the file; with more than one it has a throughput (``bench``, offline), no latency
    """
    if batch < 1:
        raise BadConfig(f"batch: expected at least 1, got {batch} (--batch)")
    profile = load_board(board)
    if out is not None:
        check_place(out, "onnx")  # before shipped weights are copied
    found = spine.checkpoint(source, None, listed(overrides), progress)
    return spine.export(found, profile, None if out is None else Path(out), False, progress, batch)


def quantize(
    source: str | Path,
    *,
    calibration: str | Path | None = None,
    flavour: str | None = None,
    method: str | None = None,
    max_drop: float | None = None,
    reduce_range: bool = False,
    evaluation: str | Path | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Artifact:
    """Lower an ``onnx`` artifact to INT8 and gate the loss of mAP@0.5; what is None comes from the recipe.

    reduce_range: weights of 7 bits, for x86 CPUs without VNNI, on which sums of 8-bit weights may overflow
    """
    artifact = read_artifact(source, kinds=("onnx",))
    wishes: dict[str, Any] = {"calibration": text(calibration), "flavour": flavour, "method": method}
    wishes |= {"max_drop": max_drop, "reduce_range": reduce_range}
    return spine.quantize(artifact, wishes, text(evaluation), None if out is None else Path(out), False, progress)


def evaluate(
    source: str | Path,
    *,
    data: str | Path | None = None,
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
    from .data.evaluation import evaluation_set, own_set
    from .evaluation.detect import detect_all

    artifact = spine.model(source)
    coco = evaluation_set(artifact, text(data))
    if data is None:
        log.warning("measured on %s, which its recipe names; on yours: --data annotations.json", own_set(artifact))
    for note in coco.notes:
        log.warning("%s: %s", coco.annotations.name, note)
    found = detect_all(artifact, coco, runtime or measuring.first_runtime(artifact), progress, tta)
    if metric == "coco":
        from .evaluation.coco import evaluate_detections

        return evaluate_detections(coco, found)
    from .evaluation.voc import evaluate_voc

    return evaluate_voc(coco, found, "voc2007" if metric == "voc2007" else "area")


def bench(
    sources: Files,
    *,
    board: str = "x86-1t",
    runtime: str | None = None,
    data: str | Path | None = None,
    seconds: float | None = None,
    full: bool = False,
    offline: bool = False,
    layers: bool = False,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> list[Row]:
    """Measure artifacts on a board, each on every runtime that can load it; ``out`` keeps the rows as JSON.

    data: as in ``evaluate``, or a folder of images, for the time alone; None takes the set of each artifact's recipe
    full: as long as MLPerf asks for; offline: throughput with every core too; layers: the time of every layer too
    """
    from .data.evaluation import evaluation_set
    from .measure.report import check_report_file, report_json

    _check_seconds(seconds)
    if full and seconds is not None:
        raise BadConfig(
            "full (--full) measures each row for ten minutes, seconds (--seconds) for another time: "
            "leave one of them out"
        )
    if not listed(sources):
        raise BadConfig("sources: nothing to measure; give artifact folders, or recipes with trained weights")
    data = text(data)
    if out is not None:
        check_report_file(out)
    profile = measuring.board_here(board)
    artifacts = [spine.model(source) for source in listed(sources)]
    sets = {artifact.digest: evaluation_set(artifact, data, unlabelled=True) for artifact in artifacts}
    for coco in sets.values():
        check_not_read([] if out is None else [out], [coco.annotations, *(sample.path for sample in coco.samples)])
    targets = measuring.targets(artifacts, profile, runtime)
    measured = measuring.bench(targets, sets, profile, data, seconds, progress, full, offline=offline, layers=layers)
    rows = [m.row for m in measured]
    if out is not None:
        with new_file(out) as handle:
            handle.write(report_json(rows))
    return rows


def _check_seconds(seconds: float | None) -> None:
    if seconds is not None and not 0 < seconds < float("inf"):
        raise BadConfig(f"seconds: expected a number above 0, got {seconds:g} (--seconds)")


def bench_compare(
    a: str | Path,
    b: str | Path,
    *,
    board: str = "x86-1t",
    runtime: str | None = None,
    data: str | Path | None = None,
    seconds: float | None = None,
    out: str | Path | None = None,
    progress: Progress | None = None,
) -> Comparison:
    """Compare two artifacts, or recipes, in turns. ``ARTIFACT@RUNTIME`` chooses a runtime for one of them.

    seconds: how long the turns of each are measured, together twice that; None: the board's
    """
    from .data.evaluation import evaluation_set
    from .measure.bench import BenchOptions
    from .measure.compare import compare

    _check_seconds(seconds)
    data = text(data)
    if out is not None:
        check_place(out, "file")
    profile = measuring.board_here(board)
    first, second = (measuring.compared(str(source), profile, runtime) for source in (a, b))
    own_set = first.artifact.manifest.get("recipe", {}).get("evaluation")
    options = BenchOptions(min_seconds=seconds, set_name=data or own_set)
    images = evaluation_set(first.artifact, data, unlabelled=True)
    found = compare(first, second, profile, images, options, progress)
    if out is not None:
        with new_file(out) as handle:
            handle.write(found.model_dump_json(indent=1) + "\n")
    return found


def report(
    rows: str | Path | Sequence[str | Path | Row],
    *,
    out: str | Path,
    history: str | Path | None = None,
    title: str | None = None,
    progress: Progress | None = None,
) -> Path:
    """Write report.json, .md, .html, .csv and .tex of measured rows, or of files of them, into the folder ``out``.

    Pictures beside those files come along. history: a folder of earlier reports of the same rows, one for each commit
    """
    from .measure.history import newer_text, read_history
    from .measure.matching import unrepeated
    from .measure.report import check_report_place, read_pictures, read_report, write_report

    check_report_place(out)
    parts = listed(rows)
    files = [part for part in parts if isinstance(part, str | Path)]
    every = [row for part in parts for row in (read_report(part) if isinstance(part, str | Path) else [part])]
    pictures = [picture for file in files for picture in read_pictures(file)]
    steps = read_history(history) if history is not None else []
    kept = unrepeated(every)
    if left_out := newer_text(steps, kept):
        log.warning("%s", left_out)
    write_report(kept, out, pictures, title or "EdgeKit report", steps)
    return Path(out)


def predict(
    source: str | Path,
    images: Files,
    *,
    out: str | Path,
    runtime: str | None = None,
    score: float = 0.3,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Draw boxes on images (files or folders of them) and write detections.json in COCO's result format.

    Image ids are 1, 2, ... in the order of ``images`` in detections.json, whose ``images`` names the files.
    """
    from .measure.predict import predict_images

    if not listed(images):
        raise BadConfig("images: none given; name images, or folders of them")
    artifact = spine.model(source)
    chosen = runtime or measuring.first_runtime(artifact)
    return predict_images(artifact, listed(images), Path(out), chosen, score, progress)


def label(
    source: str | Path,
    images: str | Path,
    *,
    out: str | Path,
    runtime: str | None = None,
    score: float = 0.5,
    doubt: float = 0.2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Label a folder of images with a trained detector; writes a COCO file. See ``data.pseudo``."""
    from .data.pseudo import pseudo_label

    artifact = spine.model(source)
    return pseudo_label(
        artifact, Path(images), Path(out), runtime or measuring.first_runtime(artifact), score, doubt, progress
    )


def data_check(
    annotations: str | Path,
    *,
    images: str | Path | None = None,
    layout: str = "coco",
    classes: Sequence[str] | None = None,
    class_map: str | Path | None = None,
    frame_stride: int = 1,
    progress: Progress | None = None,
) -> CocoSet:
    """Read annotated images in any known layout and look at every file; what is wrong raises BadInput, all at once.

    images: None looks in the usual places beside the annotations; class_map: a shipped map's name or a YAML file
    """
    from .data.classmap import load_class_map
    from .data.evaluation import images_of
    from .data.formats import read_set

    annotations = Path(annotations)
    if layout == "coco" and annotations.suffix.lower() != ".json":
        raise BadInput(
            f"{annotations}: neither a COCO file (.json) nor a recipe. Another layout must be named: "
            'layout="voc", "yolo" (--layout voc, yolo)'
        )

    return read_set(
        annotations,
        Path(images or (images_of(annotations) if layout == "coco" else annotations.parent / "images")),
        listed(classes) if classes else None,
        layout,
        load_class_map(class_map) if class_map else None,
        frame_stride,
        progress=partial(tell, progress, "images"),
    )


def data_stats(coco: CocoSet, *, sheet: str | Path | None = None, count: int = 24) -> dict[str, Any]:
    """Counts, sizes and class weights of a set; ``sheet`` is a picture of ``count`` of its images with their boxes."""
    from .data.stats import set_stats

    if sheet is not None:
        check_not_read([sheet], [coco.annotations, *(sample.path for sample in coco.samples)])
        from .measure.draw import labelled_sheet, save_image

        save_image(sheet, labelled_sheet(coco, count))
    return set_stats(coco)


def data_recipe(
    recipe: str | Path, *, overrides: Sequence[str] = (), progress: Progress | None = None
) -> dict[str, Any]:
    """Read every training and validation set that a recipe names and look at every file, as a training does.

    sources: for each set its source, split, labelled classes, how often an epoch sees it, and ``data_stats``
    """
    from .data.sources import Mixture, recipe_sources, source_notes, trained_sources
    from .data.stats import set_stats

    found = load_recipe(recipe, listed(overrides))
    sources = recipe_sources(found, progress)
    trained = trained_sources(found, sources)
    sets = [(source, split, getattr(source, split)) for source in sources for split in ("train", "val")]
    return {
        "recipe": found.name,
        "images_per_epoch": len(Mixture(trained, found.classes)),
        "sources": [
            {"source": s.name, "split": split, "labelled": list(s.labelled), "repeat": s.repeat, **set_stats(coco)}
            for s, split, coco in sets
            if coco is not None
        ],
        "notes": source_notes(sources, found.classes),
    }


def data_convert(coco: CocoSet, *, out: str | Path, layout: str = "coco", split: str = "train") -> Path:
    """Write a set as a COCO file, or as a ``split`` of a folder in the YOLO text layout; returns what describes it."""
    from .data.coco import write_coco
    from .data.formats import yolo

    out = Path(out)
    if split not in SPLITS:
        raise unknown_name("split", split, list(SPLITS), "")
    if layout == "yolo":
        return yolo.write(coco, out, split)
    if layout != "coco":
        raise unknown_name("layout to write", layout, ["coco", "yolo"], "")
    check_not_read([out], [coco.annotations])
    return write_coco(coco, out)


def run(
    recipe: str | Path,
    *,
    board: str = "x86-1t",
    overrides: Sequence[str] = (),
    out: str | Path | None = None,
    seconds: float | None = None,
    force: bool = False,
    remeasure: bool = False,
    progress: Progress | None = None,
) -> list[Row]:
    """The whole spine: checkpoint, onnx, onnx-int8 and the report in the folder ``out`` (``runs/<recipe>``).

    A recipe that ships weights starts from them, one that does not is trained. Where the board has TensorRT and it is
    installed here, an engine is built of each ONNX file (``engine-fp16``, ``engine-int8``). A step is skipped when its
    output is whole and its inputs and options did not change; ``force`` repeats every step but the training,
    ``remeasure`` the measuring alone. Rows of another machine or another version of a runtime are measured again.
    seconds: of each row at least; None: the board's. Rows that were measured for less are measured again
    """
    from .data.evaluation import evaluation_set
    from .measure.report import check_report_place, picture_file, read_pictures, report_is_whole, write_report

    _check_seconds(seconds)
    found, profile = load_recipe(recipe, listed(overrides)), measuring.board_here(board)
    measuring.require_sets(found, profile)
    out = check_report_place(Path(out or spine.RUNS / found.name))
    for name in (*spine.MODEL_KINDS, *(spine.engine_name(precision) for precision in profile.precisions)):
        check_place(out / name, name if name in spine.MODEL_KINDS else "engine")
    checkpoint = spine.checkpoint(found, out / "checkpoint", (), progress)
    onnx = spine.export(checkpoint, profile, out / "onnx", force, progress)
    artifacts = [checkpoint, onnx]
    if found.quantize is not None and profile.int8_flavour is not None:
        artifacts.append(
            spine.quantize(onnx, {"flavour": profile.int8_flavour}, None, out / "onnx-int8", force, progress)
        )
    artifacts += spine.engines(artifacts[1:], profile, out, force, progress)
    coco, targets = evaluation_set(checkpoint, None), measuring.targets(artifacts, profile, None)
    kept = None if force or remeasure else measuring.kept_rows(out / "report.json", targets, profile, coco, seconds)
    title = f"{found.name} on {profile.title}"
    if kept is not None:
        if not report_is_whole(out):
            write_report(kept, out, read_pictures(out), title)
        return kept
    check_report_place(out, [out / picture_file(sample.path.stem) for sample in measuring.pictured(coco)])
    sets = {artifact.digest: coco for artifact in artifacts}
    measured = measuring.bench(targets, sets, profile, None, seconds, progress)
    rows = [m.row for m in measured]
    write_report(rows, out, measuring.pictures(measured, coco), title)
    return rows


def boards(name: str | None = None) -> list[dict[str, Any]]:
    """The boards in short, or one of them with everything that is known of it."""
    if name is not None:
        return [load_board(name).model_dump(mode="json")]
    return [
        {"name": b.name, "title": b.title, "runtimes": list(b.runtimes), "precisions": list(b.precisions)}
        for b in map(load_board, board_names())
    ]


def doctor(board: str | None = None, *, progress: Progress | None = None) -> dict[str, Any]:
    """What works on this machine, and the command that mends what does not."""
    from .checkup import checkup

    return checkup(board, progress)
