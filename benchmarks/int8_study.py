"""What INT8 costs in accuracy: FP32 against every way of quantizing, how many images it takes, which layers lose most.

    python benchmarks/int8_study.py runs/demo/onnx --data FOLDER --out OUT    FOLDER: the recipe's data.root
    python benchmarks/int8_study.py runs/demo/onnx --out OUT                  the recipe's shipped sets, which are small
    python benchmarks/int8_study.py runs/demo/onnx --sizes 4 8 --images 10 --out try    a try

Both flavours, the methods minmax, entropy and percentile, and calibration sets of 16, 64 and 256 images, each contained
in the next; of the smallest size three sets, to see what the choice of images is worth. OpenVINO runs FP32 and the x86
files too, where it is installed. Only what the detector names stays in float, and there is no gate.

Accuracy does not depend on what else the machine does. The study runs unattended and may be stopped at any moment: the
same command goes on. It leaves OUT.json, .csv, .md and .svg, and its work in runs/int8_study/NAME (--work).
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import random
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgekit.cli.progress import lines
from edgekit.conversion.calibrate import activations
from edgekit.conversion.child import run_in_child
from edgekit.conversion.compare import fill_batch, network_input
from edgekit.conversion.graph import layer_name, load_model, name_nodes, weighted_layers
from edgekit.conversion.histogram import METHODS, Observer
from edgekit.conversion.qdq import FLAVOURS
from edgekit.conversion.sensitivity import rank_layers
from edgekit.data.coco import CocoSet
from edgekit.evaluation.detect import measure_accuracy
from edgekit.models.modules import matches
from edgekit.progress import counting, named
from edgekit.recipe import Recipe
from edgekit.runtime.artifact import Artifact, new_artifact, new_file, read_artifact, value_sha256
from edgekit.runtime.errors import BadConfig, BadInput, EdgeKitError

DRAWS = 3  # sets of the smallest size
RANKED_SIZE = 64  # images whose ranges the layers are ranked by, or the next smaller size
Ranges = dict[str, Sequence[float]]


@dataclass(frozen=True)
class Cell:
    """One way of quantizing, in one runtime. flavour "": FP32; draw: which set of ``size`` images."""

    flavour: str
    method: str
    size: int
    draw: int
    runtime: str

    @property
    def name(self) -> str:
        way = f"{self.flavour}-{self.method}-{self.size}-{self.draw}" if self.flavour else "fp32"
        return f"{way}-{self.runtime}"

    @property
    def ranges(self) -> str:
        return f"{self.method}-{self.size}-{self.draw}"


@dataclass
class State:
    """What is known so far; written after each step. key: hash of everything it depends on.

    ranges: "method-size-draw" -> ranges; layers: the most sensitive first; cells: name -> metrics
    """

    key: str
    ranges: dict[str, Ranges] = field(default_factory=dict)
    layers: list[tuple[str, float]] = field(default_factory=list)
    cells: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """What is studied, and with which images."""

    artifact: Artifact
    calibration: tuple[Path, ...]
    val: CocoSet
    sizes: tuple[int, ...]
    work: Path


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


# -- what to study ----------------------------------------------------------------------------------------------------
def study_of(options: argparse.Namespace) -> Study:
    """Read the artifact and the sets. Raises EdgeKitError for what a user can mend."""
    artifact = read_artifact(options.artifact, ("onnx",))
    calibration, val = shared_sets(artifact) if options.data is None else training_sets(artifact, options.data)
    paths = sorted(sample.path for sample in calibration)
    random.Random(0).shuffle(paths)
    sizes = tuple(sorted({size for size in options.sizes if size <= len(paths)}))
    if not sizes:
        raise BadInput(f"{len(paths)} calibration images are fewer than the smallest of --sizes {options.sizes}")
    for size in sorted(set(options.sizes) - set(sizes)):
        say(f"left out: {size} calibration images, of which there are {len(paths)}")
    if options.images:
        val = replace(val, samples=val.samples[:: max(1, len(val) // options.images)][: options.images])
    work = options.work or Path("runs/int8_study") / options.out.name.removeprefix("int8_study-")
    return Study(artifact, tuple(paths), val, sizes, work)


def shared_sets(artifact: Artifact) -> tuple[Sequence[Any], CocoSet]:
    """The shipped sets that the recipe names."""
    from edgekit.data.calibration import load_set
    from edgekit.data.evaluation import evaluation_set

    name = (artifact.manifest["recipe"].get("quantize") or {}).get("calibration")
    if name is None:
        raise BadConfig(f"{artifact.path}: its recipe names no calibration set; give the training data: --data FOLDER")
    return load_set(name).coco(artifact.classes).samples, evaluation_set(artifact, None)


def training_sets(artifact: Artifact, root: Path) -> tuple[Sequence[Any], CocoSet]:
    """The training set to calibrate from, and the validation set."""
    from arguments import data_folder

    from edgekit.training.fit import training_sets as read

    recipe = Recipe.model_validate(artifact.manifest["recipe"])
    if recipe.data is None:
        raise BadConfig(f"{artifact.path}: its recipe names no training data; leave --data out for its shipped sets")
    train, val = read(recipe.model_copy(update={"data": recipe.data.model_copy(update={"root": data_folder(root)})}))
    if not isinstance(train, CocoSet):
        raise BadConfig(f"{artifact.path}: its recipe has several sources; the study takes a recipe of one set")
    if not isinstance(val, CocoSet):
        raise BadConfig(f"{artifact.path}: its recipe has no data.val to measure on")
    return train.samples, val


def cells_of(study: Study) -> list[Cell]:
    """Every combination, the telling ones first."""
    smallest, largest = study.sizes[0], study.sizes[-1]
    cells = [Cell("", "", 0, 0, "onnxruntime")]
    if find_spec("openvino"):
        cells.append(Cell("", "", 0, 0, "openvino"))
    for flavour in FLAVOURS:
        cells += [Cell(flavour, m, size, 0, "onnxruntime") for size in reversed(study.sizes) for m in METHODS]
    if find_spec("openvino"):
        cells += [Cell("x86", method, largest, 0, "openvino") for method in METHODS]
    draws = range(1, min(DRAWS, len(study.calibration) // smallest))
    return cells + [Cell("x86", method, smallest, draw, "onnxruntime") for draw in draws for method in METHODS]


# -- ranges -----------------------------------------------------------------------------------------------------------
def collect_ranges(
    model: str,
    images: Sequence[str],
    preprocess: Any,
    layout: str,
    sizes: Sequence[int],
    progress: Callable[[int, int], None],
) -> dict[str, dict[str, list[float]]]:
    """Ranges by all methods, of the first ``size`` images for each size, and of the next sets of the smallest size.

    One pass over the images serves them all. Made for ``run_in_child``: native code may crash.
    """
    from edgekit.runtime.preprocess import Preprocess

    look, value = activations(model), Preprocess.from_dict(preprocess)
    batch = load_model(model).graph.input[0].type.tensor_type.shape.dim[0].dim_value
    growing, draw, found = Observer(), Observer(), {}

    def keep(observer: Observer, size: int, number: int) -> None:
        for method in METHODS:
            found[f"{method}-{size}-{number}"] = {k: list(pair) for k, pair in observer.ranges(method).items()}

    for done, path in enumerate(images, 1):
        seen = look(fill_batch(network_input(path, value, layout), batch))
        growing.see(seen)
        number = (done - 1) // sizes[0]
        if 0 < number < DRAWS:
            draw.see(seen)
            if done % sizes[0] == 0:
                keep(draw, sizes[0], number)
                draw = Observer()
        if done in sizes:
            keep(growing, done, 0)
        progress(done, len(images))
    return found


def ranges_of(study: Study, state: State) -> dict[str, Ranges]:
    """The ranges that ``state`` lacks; sizes may be added to a study later."""
    wanted = {cell.ranges: max(cell.size, cell.size * (cell.draw + 1)) for cell in cells_of(study) if cell.flavour}
    count = max((images for name, images in wanted.items() if name not in state.ranges), default=0)
    if not count:
        return {}
    model = study.artifact.file("model.onnx")
    request = {
        "model": model,
        "images": [str(path) for path in study.calibration[:count]],
        "preprocess": study.artifact.preprocess.to_dict(),
        "layout": study.artifact.manifest["input"]["layout"],
        "sizes": list(study.sizes),
    }
    child = "benchmarks.int8_study:collect_ranges"
    return dict(run_in_child(child, request, "calibrate", model, counting(lines(), "calibrate")))


# -- measuring --------------------------------------------------------------------------------------------------------
def float_nodes(artifact: Artifact) -> list[str]:
    """What the detector wants in float."""
    model = load_model(artifact.file("model.onnx"))
    name_nodes(model)
    prefixes = artifact.manifest.get("float_modules", ())
    return [node.name for node in weighted_layers(model) if matches(layer_name(node), prefixes)]


def layers_of(study: Study, state: State) -> list[tuple[str, float]]:
    size = max((size for size in study.sizes if size <= RANKED_SIZE), default=study.sizes[0])
    model, layout = study.artifact.file("model.onnx"), study.artifact.manifest["input"]["layout"]
    ranges = state.ranges[f"minmax-{size}-0"]
    skip = float_nodes(study.artifact)
    args = (model, study.calibration, study.artifact.preprocess, layout, ranges, skip, counting(lines(), "rank layers"))
    graph = load_model(model)
    name_nodes(graph)
    names = {node.name: layer_name(node) for node in weighted_layers(graph)}
    return [(names[node], error) for node, error in rank_layers(*args)]


def quantized(study: Study, ranges: Ranges, flavour: str, out: Path) -> Artifact:
    """The INT8 artifact by ``ranges``. Both flavours from one graph: a uint8 input makes no difference to its sums."""
    source = study.artifact
    kept = ("classes", "category_ids", "preprocess", "recipe", "input", "postprocess")
    manifest = {name: source.manifest[name] for name in kept} | {"precision": "int8", "flavour": flavour}
    with new_artifact(out, "onnx-int8", {**manifest, "parents": {"onnx": source.digest}, "tools": {}}) as folder:
        request = {
            "source": source.file("model.onnx"),
            "target": str(Path(folder) / "model.onnx"),
            "ranges": ranges,
            "flavour": flavour,
            "float_nodes": float_nodes(source),
            "float_modules": list(source.manifest.get("float_modules", ())),
            "reduce_range": False,
        }
        run_in_child("edgekit.conversion.qdq:quantize_file", request, "quantize", source.path)
    return read_artifact(out)


def measure(study: Study, cell: Cell, ranges: Ranges | None, scratch: Path) -> dict[str, Any]:
    """mAP of one cell."""
    artifact = study.artifact if ranges is None else quantized(study, ranges, cell.flavour, scratch / cell.name)
    metrics = measure_accuracy(artifact, study.val, cell.runtime, named(lines(), cell.name))
    return {**asdict(cell), **metrics.to_dict()}


def run(study: Study, file: Path) -> Iterator[State]:
    """Do what is missing, step by step; the state after each."""
    state = kept_state(study, file)
    state.ranges |= ranges_of(study, state)
    yield state
    missing = [cell for cell in cells_of(study) if cell.name not in state.cells]
    for done, cell in enumerate(missing):
        say(f"{cell.name} ({done} of {len(missing)})")
        with tempfile.TemporaryDirectory() as scratch:
            ranges = state.ranges[cell.ranges] if cell.flavour else None
            state.cells[cell.name] = measure(study, cell, ranges, Path(scratch))
        yield state
    if not state.layers:
        state.layers = layers_of(study, state)
    yield state


def kept_state(study: Study, file: Path) -> State:
    """What an interrupted study of the same things left, or an empty state. Raises BadConfig for another study's."""
    images = [path.name for path in study.calibration]
    val = [study.val.digest(), [sample.image_id for sample in study.val.samples]]
    key = value_sha256({"artifact": study.artifact.digest, "images": images, "val": val})
    if not file.is_file():
        return State(key)
    try:
        state = State(**json.loads(file.read_text(encoding="utf-8")))
    except (ValueError, TypeError) as error:
        raise BadInput(f"{file}: cannot be read as a study's state ({error}); remove it to begin anew") from error
    if state.key != key:
        raise BadConfig(f"{file}: of another artifact or other images. Choose another --work, or remove it.")
    return state


# -- the result -------------------------------------------------------------------------------------------------------
def rows_of(state: State) -> list[dict[str, Any]]:
    """One per cell: mAP in points, and what it loses against FP32 in the same runtime."""
    table = []
    for cell in state.cells.values():
        base = state.cells[f"fp32-{cell['runtime']}"]
        table.append(
            {
                **{name: cell[name] for name in ("runtime", "flavour", "method", "size", "draw")},
                "map50": round(100 * cell["map50"], 2),
                "map": round(100 * cell["map"], 2),
                "lost_map50": round(100 * (base["map50"] - cell["map50"]), 2),
                "lost_map": round(100 * (base["map"] - cell["map"]), 2),
            }
        )
    return table


HEADS = ("runtime", "flavour", "method", "images", "set", "mAP@0.5", "mAP", "points of mAP@0.5 lost", "of mAP")


def markdown(study: Study, state: State) -> str:
    """Both tables as a page."""
    rows = [
        [str(v) for v in {**row, "flavour": row["flavour"] or "FP32"}.values()]
        for row in sorted(rows_of(state), key=lambda r: (r["runtime"], r["flavour"], -r["size"], r["draw"]))
    ]
    text = f"# INT8 of {study.artifact.manifest['recipe'].get('name', study.artifact.path)}\n\n"
    text += (
        f"mAP in points on {len(study.val)} images of {study.val.annotations.name}. Each calibration set is contained"
    )
    text += " in the next larger one; sets 1 and 2 are others of the smallest size. Below zero INT8 is better.\n\n"
    text += grid(HEADS, rows)
    if left := [cell.name for cell in cells_of(study) if cell.name not in state.cells]:
        text += f"\nUnfinished: {len(left)} measurements are still to come.\n"
    if not state.layers:
        return text
    top = state.layers[:12]
    text += (
        "\n## The most sensitive layers\nSquared error at the ends of the head, relative to their variance, with one"
    )
    total = sum(error for _, error in state.layers)
    text += f" layer in INT8 (minmax); the {len(state.layers)} layers have {total:.4f} together.\n\n"
    return text + grid(("layer", "error"), [[name, f"{error:.6f}"] for name, error in top])


def grid(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [" | ".join(cells) for cells in (heads, ["---"] * len(heads), *rows)]
    return "".join(f"| {line} |\n" for line in lines)


def table_csv(state: State) -> str:
    rows = rows_of(state)
    text = io.StringIO()
    table = csv.DictWriter(text, list(rows[0]), lineterminator="\n")
    table.writeheader()
    table.writerows(rows)
    return text.getvalue()


WIDTH, HEIGHT, LEFT, BOTTOM = 640, 340, 56, 44  # of the picture, and of its margins, in pixels
COLOURS = {"minmax": "#1b6ca8", "entropy": "#c2571a", "percentile": "#3a8a3a"}
DASHES = {"x86": "", "trt": "6 4"}


def picture(state: State) -> str:
    """An SVG of the points of mAP@0.5 lost over the number of calibration images; dots alone are other sets."""
    rows = [row for row in rows_of(state) if row["runtime"] == "onnxruntime" and row["flavour"]]
    sizes = sorted({row["size"] for row in rows}) or [0]
    values = [row["lost_map50"] for row in rows] + [0.0]
    low, high = min(values) - 0.1, max(values) + 0.1
    step = (WIDTH - LEFT - 156) / max(1, len(sizes) - 1)

    def place(row: Mapping[str, Any]) -> tuple[float, float]:
        return LEFT + 20 + step * sizes.index(row["size"]), y_of(row["lost_map50"])

    def y_of(value: float) -> float:
        return 24 + (HEIGHT - BOTTOM - 24) * (high - value) / (high - low)

    parts = axes([(LEFT + 20 + step * k, str(size)) for k, size in enumerate(sizes)], low, high, y_of)
    for k, (flavour, method) in enumerate((f, m) for f in DASHES for m in COLOURS):
        mine = [row for row in rows if (row["flavour"], row["method"]) == (flavour, method)]
        line = sorted(place(row) for row in mine if row["draw"] == 0)
        style = f'stroke="{COLOURS[method]}" stroke-dasharray="{DASHES[flavour]}"'
        parts.append(f'<polyline fill="none" {style} points="{" ".join(f"{x:.1f},{y:.1f}" for x, y in line)}"/>')
        parts += [f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{COLOURS[method]}"/>' for x, y in map(place, mine)]
        parts.append(f'<line x1="{WIDTH - 108}" x2="{WIDTH - 84}" y1="{36 + 18 * k}" y2="{36 + 18 * k}" {style}/>')
        parts.append(f'<text x="{WIDTH - 78}" y="{40 + 18 * k}">{flavour} {method}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="11" stroke-width="1.5">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def axes(ticks: Sequence[tuple[float, str]], low: float, high: float, y_of: Callable[[float], float]) -> list[str]:
    from edgekit.measure.charts import nice_axis

    parts = ['<text x="4" y="12">points of mAP@0.5 lost</text>']
    parts += [f'<text x="{x:.0f}" y="{HEIGHT - BOTTOM + 18}" text-anchor="middle">{text}</text>' for x, text in ticks]
    parts.append(
        f'<text x="{ticks[len(ticks) // 2][0]:.0f}" y="{HEIGHT - 8}" text-anchor="middle">calibration images</text>'
    )
    for value in nice_axis(low, high).ticks:
        if low <= value <= high:
            y, stroke = y_of(value), "#888" if value == 0 else "#ddd"
            parts.append(f'<line x1="{LEFT}" x2="{WIDTH - 116}" y1="{y:.1f}" y2="{y:.1f}" stroke="{stroke}"/>')
            parts.append(f'<text x="{LEFT - 6}" y="{y + 4:.1f}" text-anchor="end">{value:g}</text>')
    return parts


def write(study: Study, state: State, out: Path) -> None:
    facts = {
        "artifact": study.artifact.digest,
        "recipe": study.artifact.manifest["recipe"].get("name"),
        "val": {"file": study.val.annotations.name, "images": len(study.val), "digest": study.val.digest()},
        "cells": list(state.cells.values()),
        "layers": state.layers,
    }
    texts = {
        "json": json.dumps(facts, indent=1) + "\n",
        "csv": table_csv(state),
        "md": markdown(study, state),
        "svg": picture(state),
    }
    for ending, text in texts.items():
        with new_file(out.with_name(f"{out.name}.{ending}")) as handle:
            handle.write(text)


# -- the command ------------------------------------------------------------------------------------------------------
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    from arguments import count  # not above: the children, which import this file too, are not run from this folder

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="folder of an onnx artifact in FP32")
    parser.add_argument("--data", type=Path, help="the recipe's data.root; default: its shipped sets")
    parser.add_argument("--sizes", type=count, nargs="+", default=[16, 64, 256], help="calibration images")
    parser.add_argument("--images", type=count, help="measure on so many validation images only")
    parser.add_argument("--out", type=Path, required=True, help="the results' path without ending")
    parser.add_argument("--work", type=Path, help="where an interrupted study goes on from")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    try:
        study = study_of(options)
        file = study.work / "state.json"
        for folder in (file.parent, options.out.parent):
            folder.mkdir(parents=True, exist_ok=True)
        for state in run(study, file):
            with new_file(file) as handle:
                json.dump(asdict(state), handle)
            if any(cell["flavour"] for cell in state.cells.values()):  # an unfinished table is worth reading
                write(study, state, options.out)
    except EdgeKitError as error:
        print(f"int8_study: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("int8_study: interrupted; the same command goes on from here", file=sys.stderr)
        return 130
    print(markdown(study, state))
    return 0


if __name__ == "__main__":
    sys.exit(main())
