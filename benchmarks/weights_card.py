"""Ships trained weights with a card: where they come from, what they can do and what not, all measured here.

    python benchmarks/weights_card.py RECIPE CHECKPOINT --data FOLDER --training FOLDER/checkpoint-training
    python benchmarks/weights_card.py RECIPE CHECKPOINT --data FOLDER --rows rows.json    the card anew, curves kept

RECIPE: a name or a folder; CHECKPOINT: the artifact that was trained; --data: the recipe's data.root. It writes beside
recipe.yaml: ``weights.safetensors``, ``README.md`` (the card), ``curves.svg``, ``examples.jpg``, and ``measured`` in
recipe.yaml. What is measured is what the recipe makes of the weights today, on its whole validation set.

Stages of a training are given in their order; each must start from the weights of the one before. Without --training
the card keeps what it says of the training, and the curves, if it is of the same weights.

Weak spots and licence stay as they are, too, unless they are given again. Of weights whose training left no files --how
alone tells the commands; such a card has no curves, and says so.

Weights of more than 10 MB do not ship; --half stores them rounded to FP16, which every reader takes as it is. All that
the card says is of the rounded ones.

Latency wants a quiet machine. To measure it later: --no-latency now, then ``edgekit bench`` of the artifacts in --work
(onnx, onnx-int8), and this command again with --rows.
"""

from __future__ import annotations

import argparse
import random
import re
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import card_pictures
import card_training
import card_words
import trainings
import yaml
from arguments import data_root
from card_words import Measured, points

from edgekit import pipeline
from edgekit.cli.progress import lines
from edgekit.config import read_mapping
from edgekit.data.calibration import SET_FILE, ImageSet, load_set
from edgekit.data.coco import CocoSet, load_json
from edgekit.evaluation.coco import Metrics, evaluate_detections
from edgekit.evaluation.detect import detect_all
from edgekit.measure.report import read_report
from edgekit.measure.row import Row
from edgekit.models.checkpoint import WEIGHTS, read_weights, save_tensors, shipped_checkpoint
from edgekit.progress import named
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import Artifact, file_sha256, new_file, read_artifact
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import AccuracyDrop, BadConfig, BadInput
from edgekit.training.fit import training_sets

CARD, CURVES, EXAMPLES, RECIPE = "README.md", "curves.svg", card_words.EXAMPLES, "recipe.yaml"
MOST_BYTES = 10_000_000  # of the weights
CALIBRATION_IMAGES = 64  # of the training set, for a recipe that names no calibration set
BOARD, TRT_BOARD = "x86-1t", "jetson-agx-xavier"
# a path of somebody's machine; not a part of an address, of a fraction or of a relative path
MACHINE_PATH = re.compile(r"(?:(?<![\w.:/~-])|\bfile:/*)~?/\w[\w./-]*")


# -- the data ---------------------------------------------------------------------------------------------------------
def licence_lines(options: argparse.Namespace, val: CocoSet, named: ImageSet | None, old: str) -> list[str]:
    """Licence, attribution and source: as the card that is there says, or as the data themselves tell them.

    Raises BadInput where nothing tells them.
    """
    kept = [line[2:] for line in (section(old, "Data") or "").splitlines() if line.startswith("- ")]
    if kept and not options.data_licence and not options.attribution:
        return kept
    if options.data_licence:
        lines = [f"Licence: {options.data_licence}"]
    elif named is not None and (named.folder / SET_FILE).is_file():
        told = read_mapping(named.folder / SET_FILE)
        lines = [f"{key.capitalize()}: {told[key]}" for key in ("licence", "attribution", "source")]
    else:
        lines = coco_licence(val.annotations)
    if not lines:
        raise BadInput(
            f"{val.annotations}: tells no licence (COCO's licenses). Look it up, and say it: --data-licence 'MIT, "
            f"https://...' --attribution '...'. What may not be passed on trains no weights that ship."
        )
    return lines + [f"Attribution: {text}" for text in options.attribution]


def coco_licence(annotations: Path) -> list[str]:
    """What a COCO file says of its images' licences and origins."""
    content = load_json(annotations)[0]
    told = [f"Licence: {', '.join(filter(None, (r.get('name'), r.get('url'))))}" for r in content.get("licenses") or []]
    origins = sorted({str(image["source_repo"]) for image in content["images"] if image.get("source_repo")})
    return told and told + [f"Source: {origin}" for origin in origins]


def showable(val: CocoSet, named: ImageSet) -> set[int]:
    """Ids of the validation images that are, byte for byte, in a named set."""
    allowed = {file_sha256(path) for path in named.images}
    return {sample.image_id for sample in val.samples if file_sha256(sample.path) in allowed}


# -- measuring --------------------------------------------------------------------------------------------------------
@dataclass(frozen=True)
class Files:
    """checkpoint: as `edgekit run` makes it of the shipped weights; onnx, int8: for x86 (None: refused by the gate)."""

    checkpoint: Artifact
    onnx: Artifact
    int8: Artifact | None


def seen_by(runtime: str, artifact: Artifact, coco: CocoSet) -> dict[int, Detections]:
    return detect_all(artifact, coco, runtime, named(lines(), runtime))


def measure_all(
    recipe: Recipe, checkpoint: Artifact, train: CocoSet, val: CocoSet, work: Path
) -> tuple[Files, list[Measured], dict[int, Detections]]:
    """Every precision on the whole validation set, FP32 in ONNX Runtime first, whose detections are the last value."""
    onnx = pipeline.export(checkpoint.path, board=BOARD, out=work / "onnx")
    trt = pipeline.export(checkpoint.path, board=TRT_BOARD, out=work / "onnx-trt")
    seen = seen_by("onnxruntime", onnx, val)
    measured = [accuracy("FP32", onnx, "onnxruntime", evaluate_detections(val, seen))]
    measured.append(accuracy("FP32", onnx, "openvino", evaluate_detections(val, seen_by("openvino", onnx, val))))
    made: dict[str, Artifact | None] = {}
    for flavour, source, runtimes in (("x86", onnx, ("onnxruntime", "openvino")), ("trt", trt, ("onnxruntime",))):
        name, made[flavour] = f"INT8 {flavour}", None
        try:
            made[flavour] = int8 = quantized(recipe, source, train, val, flavour, work)
            measured += [accuracy(name, int8, r, evaluate_detections(val, seen_by(r, int8, val))) for r in runtimes]
        except AccuracyDrop:
            measured.append(Measured(name, runtimes[0], None))
    return Files(checkpoint, onnx, made["x86"]), measured, seen


def accuracy(precision: str, artifact: Artifact, runtime: str, metrics: Metrics) -> Measured:
    size = artifact.manifest["payload"]["model.onnx"]["bytes"] / 1e6
    return Measured(precision, runtime, metrics, size, len(artifact.manifest.get("float_layers") or ()))


def quantized(recipe: Recipe, source: Artifact, train: CocoSet, val: CocoSet, flavour: str, work: Path) -> Artifact:
    """As the recipe says; by training images and without a gate where it says nothing."""
    wishes: dict[str, Any] = {}
    if recipe.quantize is None:
        wishes = {"calibration": str(training_images(train, work / "calibration")), "max_drop": 100.0}
    if recipe.evaluation is None:
        wishes["evaluation"] = str(val.annotations)
    return pipeline.quantize(source.path, flavour=flavour, out=Path(f"{source.path}-int8"), **wishes)


def training_images(train: CocoSet, folder: Path) -> Path:
    """A folder with links to some images of the training set, the same ones every time."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    paths = sorted(sample.path for sample in train.samples)
    for path in random.Random(0).sample(paths, min(CALIBRATION_IMAGES, len(paths))):
        (folder / path.name).symlink_to(path.resolve())
    return folder


def latency_rows(options: argparse.Namespace, recipe: Recipe, files: Files, val: CocoSet) -> list[Row]:
    """Rows of these very files: those of --rows, or measured now. Raises BadInput for rows of other files."""
    artifacts = [artifact for artifact in (files.onnx, files.int8) if artifact is not None]
    if options.rows is None:
        data = None if recipe.evaluation else str(val.annotations)
        paths = [artifact.path for artifact in artifacts]
        return pipeline.bench(paths, board=BOARD, data=data, out=options.work / "rows.json")
    payloads = [a.manifest["payload"].values() for a in (*artifacts, files.checkpoint)]
    hashes = {record["sha256"] for payload in payloads for record in payload}
    rows = [row for row in read_report(options.rows) if row.model_file.sha256 in hashes and row.latency is not None]
    if not rows:
        raise BadInput(
            f"{options.rows}: no timed row of these files. Measure them: edgekit bench "
            f"{' '.join(a.path for a in artifacts)} --board {BOARD} --out rows.json"
        )
    return rows


# -- the card ---------------------------------------------------------------------------------------------------------
def section(card: str, title: str) -> str | None:
    """The text below a heading of a card."""
    found = re.search(rf"^## {re.escape(title)}\n+(.*?)(?=^## |\Z)", card, re.MULTILINE | re.DOTALL)
    return found[1].rstrip() + "\n" if found else None


def refuse_paths(text: str) -> None:
    """Raises BadInput for a path of this machine, such as --how and --note may bring."""
    found = MACHINE_PATH.search(text)
    if found:
        raise BadInput(f"the card would show a path of this machine, {found[0]!r}. Write FOLDER in its place.")


# -- recipe.yaml ------------------------------------------------------------------------------------------------------
def with_measured(text: str, values: Mapping[str, Any]) -> str:
    """recipe.yaml with another ``measured``; nothing else of the text changes but what stood in that section."""
    line = f"measured: {yaml.safe_dump(dict(values), default_flow_style=True, sort_keys=False, width=1000).strip()}"
    block = re.search(r"^measured:[^\n#]*(?P<note>#[^\n]*)?\n?(?P<rest>(?:[ \t]+[^\n]*\n?)*)", text, re.MULTILINE)
    if block is None:
        return f"{text.rstrip()}\n{line}\n"
    comments = [part for part in block["rest"].splitlines() if part.lstrip().startswith("#")]
    lines = [f"{line}{'      ' + block['note'].rstrip() if block['note'] else ''}", *comments, ""]
    return text[: block.start()] + "\n".join(lines) + text[block.end() :]


def measured_edit(recipe: Recipe, values: Mapping[str, Any]) -> str:
    """The new text of recipe.yaml. Raises BadInput when more than ``measured`` would change."""
    file = recipe.folder / RECIPE
    before = file.read_text(encoding="utf-8")
    after = with_measured(before, values)
    if {**yaml.safe_load(before), "measured": dict(values)} != yaml.safe_load(after):
        raise BadInput(f"{file}: its section measured cannot be replaced; write it in one line: measured: {{}}")
    return after


# -- the command ------------------------------------------------------------------------------------------------------
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("recipe", help="the recipe that the weights ship with: a name or a folder")
    parser.add_argument("checkpoint", type=Path, help="the trained artifact")
    parser.add_argument("--data", type=Path, required=True, help="folder of the recipe's data")
    parser.add_argument("--training", type=Path, nargs="+", default=[], help="CHECKPOINT-training of every stage")
    parser.add_argument("--how", nargs="+", default=[], help="commands, where no checkpoint tells them")
    parser.add_argument("--machine", default="", help="what trained, in words")
    parser.add_argument("--data-licence", default="", help="in words, in the place of what the data tell")
    parser.add_argument("--attribution", nargs="+", default=[], help="more that the licence wants to be named")
    parser.add_argument("--note", nargs="+", default=[], help="weak spots, a sentence or two each")
    parser.add_argument("--pictures", help="a named set whose images may be shown, or val; default: the recipe's own")
    parser.add_argument("--score", type=float, default=0.3, help="from which on a detection counts in the pictures")
    parser.add_argument("--objects", type=int, default=4, help="fewest labelled objects of a picture that is shown")
    parser.add_argument("--rows", type=Path, help="latency rows that edgekit bench wrote")
    parser.add_argument("--no-latency", action="store_true")
    parser.add_argument("--half", action="store_true", help="store the weights rounded to FP16")
    parser.add_argument("--work", type=Path, help="where the lowered files stay; default runs/weights_card/RECIPE")
    return parser.parse_args(arguments)


def checked(options: argparse.Namespace) -> tuple[Recipe, Artifact]:
    """Recipe and checkpoint. Raises EdgeKitError where they do not belong together."""
    recipe, checkpoint = load_recipe(options.recipe), read_artifact(options.checkpoint, kinds=("checkpoint",))
    wanted, found = recipe.model.model_dump(mode="json"), checkpoint.manifest["recipe"]["model"]
    if checkpoint.classes != list(recipe.classes) or found != wanted:
        raise BadInput(f"{checkpoint.path}: trained as another network or for other classes than recipe {recipe.name}")
    if recipe.data is None or recipe.data.sources or not recipe.data.val:
        raise BadConfig(f"recipe {recipe.name}: a card takes a recipe of one data set with data.train and data.val")
    if options.rows is not None:
        read_report(options.rows)  # before anything is measured
    if not (recipe.folder / RECIPE).is_file():
        raise BadConfig(f"{options.recipe}: weights ship in a recipe's folder, beside its {RECIPE}")
    return recipe, checkpoint


def to_ship(checkpoint: Artifact, half: bool, work: Path) -> Path:
    """The file of weights that will lie beside the recipe. Raises BadInput where it is too large."""
    work.mkdir(parents=True, exist_ok=True)
    file = work / WEIGHTS
    if half:
        rounded(Path(checkpoint.file(WEIGHTS)), file)
    else:
        shutil.copyfile(checkpoint.file(WEIGHTS), file)
    size = file.stat().st_size
    if size > MOST_BYTES:
        mend = "Make the network narrower" if half else "Store them in FP16: --half"
        raise BadInput(
            f"{checkpoint.file(WEIGHTS)}: {size / 1e6:.1f} MB; weights that ship have at most 10 MB. {mend}."
        )
    return file


def rounded(source: Path, file: Path) -> None:
    """Copy weights with every floating-point number as FP16. Raises BadInput where one is too large for it."""
    state, classes = read_weights(source)
    halves = {name: value.half() if value.is_floating_point() else value for name, value in state.items()}
    lost = [name for name, value in halves.items() if not value.isfinite().all()]
    if lost:
        raise BadInput(f"{source}: {', '.join(lost[:3])}: numbers that FP16 cannot hold. Ship them without --half.")
    save_tensors(halves, file, classes)


def old_card(recipe: Recipe, digest: str) -> str:
    """The card that is there, if it is of the weights of this SHA-256; else nothing."""
    file = recipe.folder / CARD
    card = file.read_text(encoding="utf-8") if file.is_file() else ""
    return card if f"`{digest}`" in card else ""


def told_training(options: argparse.Namespace, recipe: Recipe, checkpoint: Artifact, old: str) -> tuple[str, str]:
    """The training's section and its curves: of --training, of --how without curves, or those that are there."""
    if options.training:
        stages = [card_training.read_stage(folder) for folder in options.training]
        card_training.check_stages(stages, checkpoint, options.how, recipe.weights)
        text = card_training.section(recipe, stages, options.how, options.machine, CURVES)
        return text, card_pictures.curves([stage.rows for stage in stages])
    if options.how:
        return card_training.without_curves(recipe, checkpoint, options.how, options.machine), ""
    kept, file = section(old, "Training"), recipe.folder / CURVES
    if not kept:
        raise BadInput(
            f"{recipe.folder / CARD}: no card of these weights whose training could be kept. "
            "Give the training: --training CHECKPOINT-training; or, where its files are lost, its commands: --how '...'"
        )
    return kept, file.read_text(encoding="utf-8") if CURVES in kept else ""


def pool_of(options: argparse.Namespace, recipe: Recipe, val: CocoSet) -> tuple[ImageSet | None, set[int]]:
    """The named set whose images may be shown, None for all of the validation set; and the ids of those images."""
    name = options.pictures or recipe.evaluation
    if name is None:
        raise BadInput(
            f"recipe {recipe.name} names no set whose images may be shown. Give one, --pictures SET, or where the "
            "licence lets a sample of the validation images be passed on: --pictures val"
        )
    if name == "val":
        return None, {sample.image_id for sample in val.samples}
    named = load_set(name)
    allowed = showable(val, named)
    if not allowed:
        raise BadInput(f"set {named.name}: has none of the images of {val.annotations}, so none may be shown")
    return named, allowed


def ship(options: argparse.Namespace) -> int:
    """Measure everything, then write every file whole, the card last."""
    recipe, checkpoint = checked(options)
    weights = to_ship(checkpoint, options.half, options.work / "beside")
    digest = file_sha256(weights)
    old = old_card(recipe, digest)
    training, curves = told_training(options, recipe, checkpoint, old)
    train, val = training_sets(load_recipe(options.recipe, [data_root(options.data)]))
    assert isinstance(train, CocoSet)
    assert isinstance(val, CocoSet)
    named, allowed = pool_of(options, recipe, val)
    card_pictures.candidates(val, allowed, options.objects)  # said now, and not after measuring
    licence = licence_lines(options, val, named, old)
    weak = "".join(f"- {note}\n" for note in options.note) or section(old, "Weak spots") or ""
    refuse_paths("\n".join([training, weak, *licence]))

    files, measured, seen = measure_all(recipe, shipped(recipe, weights, options.work), train, val, options.work)
    fp32 = measured[0].metrics
    assert fp32 is not None
    rows = [] if options.no_latency else latency_rows(options, recipe, files, val)
    chosen = card_pictures.choose(val, seen, allowed, options.score, options.objects)
    pool = f"validation images of `{named.name}`" if named else "validation images"
    parts = {
        "Data": card_words.data(options.data, train, val, licence),
        "Training": training,
        "Accuracy": card_words.accuracy(val, fp32, seen, options.score),
        "INT8": card_words.int8(recipe, CALIBRATION_IMAGES, measured),
        "Latency": card_words.latency(rows),
        "Successes and failures": card_words.pictures(pool, chosen, options.objects, options.score),
        "Weak spots": weak,
        "Use": card_words.use(recipe),
    }
    card = card_words.head(recipe, digest, weights.stat().st_size, options.half)
    card += "".join(f"\n## {title}\n\n{text}" for title, text in parts.items() if text)
    values = {"set": f"{options.data.resolve().name} {val.annotations.stem}"}
    edited = measured_edit(recipe, {**values, "map50": round(fp32.map50, 4), "map": round(fp32.map, 4)})
    examples = card_pictures.sheet(val, seen, chosen, options.score)
    write(recipe.folder, weights, examples, {CURVES: curves, RECIPE: edited, CARD: card})
    print(f"{recipe.folder / CARD}: mAP@0.5 {points(fp32.map50)}, mAP {points(fp32.map)}")
    return 0


def shipped(recipe: Recipe, weights: Path, work: Path) -> Artifact:
    """The checkpoint that `edgekit run` will make once the weights ship, so that every later file is the same."""
    return shipped_checkpoint(recipe.model_copy(update={"folder": weights.parent}), work / "checkpoint")


def write(folder: Path, weights: Path, examples: bytes, texts: Mapping[str, str]) -> None:
    """Every file whole, in this order; the card names the weights, so that it can be seen to be of others."""
    if not (folder / WEIGHTS).is_file() or file_sha256(folder / WEIGHTS) != file_sha256(weights):
        with new_file(folder / WEIGHTS, "wb") as handle, open(weights, "rb") as source:
            shutil.copyfileobj(source, handle)
    with new_file(folder / EXAMPLES, "wb") as handle:
        handle.write(examples)
    for name, text in texts.items():
        if text:
            trainings.write_text(text, folder / name)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    options.work = options.work or Path("runs/weights_card") / Path(options.recipe).name
    return trainings.unattended("weights_card", lambda: ship(options))


if __name__ == "__main__":
    sys.exit(main())
