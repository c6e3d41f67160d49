"""The sections of a weights' card that tell what was measured, as Markdown."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import card_pictures
import trainings

from edgekit.data.coco import CocoSet
from edgekit.evaluation.coco import Metrics
from edgekit.measure.row import Row
from edgekit.models.checkpoint import WEIGHTS
from edgekit.recipe import Recipe
from edgekit.runtime.detections import Detections

EXAMPLES = "examples.jpg"


@dataclass(frozen=True)
class Measured:
    """Accuracy of one file in one runtime; None where the gate refused the file."""

    precision: str
    runtime: str
    metrics: Metrics | None
    megabytes: float = 0.0
    floats: int = 0


def points(value: float) -> str:
    return f"{100 * value:.1f}"


def head(recipe: Recipe, sha256: str, size: int, half: bool) -> str:
    options = ", ".join(f"{key} {value}" for key, value in recipe.model.options.items())
    rows = [
        ["network", f"{recipe.model.name}{f' ({options})' if options else ''}"],
        ["paper", recipe.paper or "-"],
        ["classes", ", ".join(recipe.classes)],
        ["input", "{}x{} pixels".format(*recipe.preprocess.size)],
        ["weights", f"`{WEIGHTS}`, {size / 1e6:.2f} MB{', rounded to FP16 from what was trained' if half else ''}"],
        ["SHA-256", f"`{sha256}`"],
    ]
    return f"# Weights of {recipe.name}\n\n{recipe.description}.\n\n{trainings.markdown(['', ''], rows)}" + (
        "\nWritten by `benchmarks/weights_card.py`: accuracy and speed were measured by it on these weights, the "
        "facts of the training were read off its files.\n"
    )


def data(data: Path, train: CocoSet, val: CocoSet, licence: Sequence[str]) -> str:
    def counts(coco: CocoSet) -> list[str]:
        return [f"{len(coco):,}", *(f"{n:,}" for n in coco.class_counts())]

    rows = [
        [f"{name}, `{coco.annotations.name}`", *counts(coco)]
        for name, coco in (("training", train), ("validation", val))
    ]
    table = trainings.markdown([data.resolve().name, "images", *(f"boxes: {name}" for name in train.classes)], rows)
    return table + "\n" + "\n".join(f"- {line}" for line in licence) + "\n"


def accuracy(val: CocoSet, metrics: Metrics, seen: Mapping[int, Detections], score: float) -> str:
    found = card_pictures.count_classes(val, seen, score)
    rows = [
        [name, str(m["boxes"]), points(m["ap50"]), points(m["ap"]), *map(str, found[name])]
        for name, m in metrics.per_class.items()
    ]
    rows.append(["**mean**", "", f"**{points(metrics.map50)}**", f"**{points(metrics.map)}**", "", "", ""])
    head = ["class", "boxes", "AP@0.5", "AP", "found", "missed", "false alarms"]
    sizes = ", ".join(f"{name} {points(v)}" for name, v in metrics.sizes.items() if v is not None)
    return (
        f"FP32 in ONNX Runtime {version('onnxruntime')}, on all {metrics.images} validation images; percent, as COCO "
        f"evaluates.\n\n{trainings.markdown(head, rows)}\n"
        f"Found, missed, false alarms: at score {score:g} and IoU 0.5. AP by COCO's sizes: {sizes}.\n"
    )


def int8(recipe: Recipe, images: int, measured: Sequence[Measured]) -> str:
    base = {m.runtime: m.metrics for m in measured if m.precision == "FP32" and m.metrics}
    rows = []
    for m in measured:
        if m.metrics is None:
            rows.append([m.precision, m.runtime, *["-"] * 5, "refused: loses more than the recipe allows"])
            continue
        lost = [base[m.runtime].map50 - m.metrics.map50, base[m.runtime].map - m.metrics.map]
        cells = ["-", "-"] if m.precision == "FP32" else [f"{round(100 * value, 1) + 0:.1f}" for value in lost]
        note = f"{m.floats} layers in float" if m.floats else ""
        rows.append(
            [m.precision, m.runtime, points(m.metrics.map50), points(m.metrics.map), *cells, f"{m.megabytes:.2f}", note]
        )
    head = ["precision", "runtime", "mAP@0.5", "mAP", "points of mAP@0.5 lost", "of mAP", "MB", ""]
    told = recipe.quantize
    way = f"`{told.calibration}`, {told.method}" if told else f"{images} training images, minmax, no gate"
    return (
        f"On the same validation images, against FP32 in the same runtime; below zero INT8 is better. Calibration: "
        f"{way}. x86 is for ONNX Runtime and OpenVINO {version('openvino')}, trt for TensorRT, here measured in ONNX "
        "Runtime; its file keeps FP32 weights, which TensorRT makes INT8 in the engine.\n\n"
        + trainings.markdown(head, rows)
    )


def latency(rows: Sequence[Row]) -> str:
    if not rows:
        return "Not measured yet.\n"
    cells = []
    for row in rows:
        assert row.latency is not None
        p90 = f"{row.latency.p90:.2f}" if row.latency.p90 is not None else "-"
        verdict = row.verdict.status if row.verdict.status == "valid" else f"**{row.verdict.status}**"
        reasons = f": {'; '.join(row.verdict.reasons)}" if row.verdict.reasons else ""
        machine = str(row.machine.get("before", {}).get("cpu", "unknown"))
        cells.append([row.board, row.runtime, row.precision, f"{row.latency.p50:.2f}", p90, str(row.latency.count)])
        cells[-1] += [f"{verdict}{reasons}", machine, (row.started or "-")[:10]]
    head = ["board", "runtime", "precision", "ms p50", "p90", "frames", "verdict", "machine", "date"]
    return "Image to boxes, NMS included, by `edgekit bench`.\n\n" + trainings.markdown(head, cells)


def pictures(pool: str, chosen: card_pictures.Choice, objects: int, score: float) -> str:
    """The rule by which the images were chosen."""
    return (
        f"![Best and worst images]({EXAMPLES})\n\nNot chosen by hand: of {chosen.pool} {pool} with at least {objects} "
        f"labelled objects, the {len(chosen.best)} with the highest F1 (left) and the {len(chosen.worst)} with the "
        f"lowest (right). It counts detections with a score of at least {score:g}; found is a labelled object that one "
        "of its class meets with IoU 0.5. Solid lines: detections, the colour tells the class. Dashed lines: labels.\n"
    )


def use(recipe: Recipe) -> str:
    lines = [f"edgekit predict {recipe.name} PICTURES --out OUT"]
    if recipe.evaluation:
        lines.insert(0, f"edgekit run {recipe.name}")
    return "\n".join(["```", *lines, "```", ""])
