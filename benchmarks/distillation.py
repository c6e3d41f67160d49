"""Does distillation help? Trains a student plain and distilled over several seeds, and compares them.

    python benchmarks/distillation.py --data FOLDER
    python benchmarks/distillation.py --data FOLDER --seeds 0 1 2 --epochs 60 --threads 2 --out runs/distillation

The teacher is trained first, unless --teacher names its checkpoint. It runs unattended and may be stopped at any
moment: called again with the same settings it skips the finished trainings and resumes the one that was stopped.

Each training leaves ``result.json`` in its folder. The end is ``results.csv``, ``summary.md`` (mean and spread, and the
differences seed by seed) and ``curves.svg`` (mAP@0.5 on the validation set by epoch) in the folder of --out.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
import trainings
from trainings import spread

from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import Artifact, read_artifact, value_sha256

TEACHER = "mobile-centernet-w32-bccd"
STUDENTS = {"plain": "mobile-centernet-w16-bccd", "distilled": "mobile-centernet-w16-bccd-distilled"}
COLOURS = {"plain": "#4063d8", "distilled": "#cb3c33"}


@dataclass(frozen=True)
class Result:
    """One finished training. map50, map: on the validation set, 0..1, of the last weights."""

    kind: str
    seed: int
    map50: float
    map: float
    epochs: int
    seconds: float  # of this machine's time, without what an interruption lost
    key: str  # hash of the settings


# -- training ---------------------------------------------------------------------------------------------------------
def train(recipe: Recipe, kind: str, folder: Path, taught_by: str = "") -> Result:
    """The result in ``folder``; trained now, or resumed, if there is none. taught_by: digest of the teacher."""
    key = value_sha256([trainings.settings(recipe, "teacher"), taught_by])
    found = trainings.read_result(Result, folder, key)
    if found is not None:
        print(f"{folder.name}: finished before, mAP@0.5 {found.map50:.3f}", flush=True)
        return found
    metrics = trainings.trained(recipe, folder, key).manifest["metrics"]
    seconds = trainings.seconds(folder)
    result = Result(kind, recipe.train.seed, metrics["map50"], metrics["map"], metrics["epochs"], seconds, key)
    trainings.write_result(result, folder)
    print(f"{folder.name}: mAP@0.5 {result.map50:.3f} after {seconds / 60:.0f} min", flush=True)
    return result


def teacher_of(options: argparse.Namespace, common: Sequence[str]) -> Artifact:
    if options.teacher is not None:
        return read_artifact(options.teacher, kinds=("checkpoint",))
    epochs = [f"train.epochs={options.teacher_epochs}"] if options.teacher_epochs else []
    train(load_recipe(TEACHER, [*common, *epochs]), "teacher", options.out / "teacher")
    return read_artifact(options.out / "teacher" / "checkpoint")


def students(options: argparse.Namespace, common: Sequence[str], teacher: Artifact) -> list[Result]:
    """Seed by seed, so that a comparison can be read off early."""
    epochs = [f"train.epochs={options.epochs}"] if options.epochs else []
    results = []
    for seed in options.seeds:
        for kind, name in STUDENTS.items():
            taught = [f"teacher.weights={teacher.path}", *options.distilled] if kind == "distilled" else []
            recipe = load_recipe(name, [*common, *epochs, f"train.seed={seed}", *taught])
            folder = options.out / f"{kind}-{seed}"
            results.append(train(recipe, kind, folder, teacher.digest if taught else ""))
    return results


# -- the comparison ---------------------------------------------------------------------------------------------------
def summary(results: Sequence[Result], teacher: Artifact) -> str:
    """A markdown table, one row per kind, and the difference between them seed by seed."""
    seeds = sorted({r.seed for r in results})
    found = {(r.kind, r.seed): r for r in results}
    lines = [
        f"| student | {' | '.join(f'seed {s}' for s in seeds)} | mAP@0.5, mean ± sd | mAP, mean ± sd | min per run |",
        f"|---|{'---|' * (len(seeds) + 3)}",
    ]
    for kind in STUDENTS:
        runs = [found[kind, seed] for seed in seeds]
        each = " | ".join(f"{100 * r.map50:.1f}" for r in runs)
        minutes = statistics.mean(r.seconds for r in runs) / 60
        lines.append(
            f"| {kind} | {each} | {spread([r.map50 for r in runs])} | {spread([r.map for r in runs])} | {minutes:.0f} |"
        )
    gains = [found["distilled", s].map50 - found["plain", s].map50 for s in seeds]
    wins = sum(gain > 0 for gain in gains)
    taught_by = teacher.manifest["metrics"].get("map50")
    lines += ["", f"Distilled minus plain, mAP@0.5: {spread(gains)} points; better in {wins} of {len(gains)} seeds."]
    lines += [f"Teacher: mAP@0.5 {100 * taught_by:.1f}."] if taught_by is not None else []
    return "\n".join(lines) + "\n"


# -- curves -----------------------------------------------------------------------------------------------------------
WIDTH, HEIGHT = 640, 360  # of the picture, in pixels
LEFT, TOP, BOTTOM = 48, 26, 40  # its margins, for the axes
TICK = 0.1  # of mAP@0.5


def curves(results: Iterable[Result], out: Path) -> str:
    """An SVG of mAP@0.5 by epoch, one line per training."""
    lines = {(r.kind, r.seed): curve(out / f"{r.kind}-{r.seed}") for r in results}
    last = max((x for points in lines.values() for x, _ in points), default=1)
    seen = [y for points in lines.values() for _, y in points] or [1.0]
    ticks = range(math.floor(min(seen) / TICK), math.ceil(max(seen) / TICK) + 1)
    low, high = TICK * ticks[0], TICK * ticks[-1]

    def place(x: float, y: float) -> str:
        down = (high - y) / (high - low) * (HEIGHT - BOTTOM - TOP) + TOP
        return f"{LEFT + x / last * (WIDTH - LEFT - 12):.1f},{down:.1f}"

    parts = [axis_x(place, last, low), *(axis_y(place, TICK * k, last) for k in ticks)]
    for (kind, seed), points in lines.items():
        path, title = " ".join(place(x, y) for x, y in points), f"<title>{kind}, seed {seed}</title>"
        parts.append(f'<polyline points="{path}" fill="none" stroke="{COLOURS[kind]}">{title}</polyline>')
    for k, (kind, colour) in enumerate(COLOURS.items()):
        parts.append(f'<text x="{WIDTH - 90}" y="{HEIGHT - BOTTOM - 28 + 16 * k}" fill="{colour}">{kind}</text>')
    body = "\n".join(parts)
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" '
        f'font-size="12" stroke-width="1.5">\n<rect width="100%" height="100%" fill="white"/>\n{body}\n</svg>\n'
    )


def curve(folder: Path) -> list[tuple[float, float]]:
    """(epochs done, mAP@0.5) at each validation."""
    rows = trainings.curve(folder)
    per_epoch = 1 + int(rows[0]["step"])
    return [((1 + int(r["step"])) / per_epoch, float(r["val/map50"])) for r in rows if r.get("val/map50")]


def axis_x(place: Any, last: float, low: float) -> str:
    y = HEIGHT - BOTTOM + 18
    right = place(last, low).split(",")[0]
    return (
        f'<text x="{LEFT}" y="{y}">0</text><text x="{right}" y="{y}" text-anchor="end">{last:.0f} epochs</text>'
        f'<text x="4" y="14">mAP@0.5 on the validation set, each line a seed</text>'
    )


def axis_y(place: Any, value: float, last: float) -> str:
    left, y = place(0, value).split(",")
    right = place(last, value).split(",")[0]
    return (
        f'<line x1="{left}" x2="{right}" y1="{y}" y2="{y}" stroke="#ddd"/>'
        f'<text x="{LEFT - 6}" y="{float(y) + 4:.1f}" text-anchor="end">{value:.1f}</text>'
    )


# -- the command ------------------------------------------------------------------------------------------------------
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of the blood cell set (images, annotations)")
    parser.add_argument("--out", type=Path, default=Path("runs/distillation"))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, help="of each student; the recipes' own if not given")
    parser.add_argument("--teacher", type=Path, help="a trained checkpoint, instead of training one")
    parser.add_argument("--teacher-epochs", type=int)
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--distilled", nargs="*", default=[], metavar="KEY=VALUE", help="for distilled trainings only")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for every training")
    return parser.parse_args(arguments)


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    torch.set_num_threads(options.threads)
    return trainings.unattended("distillation", lambda: compare(options))


def compare(options: argparse.Namespace) -> int:
    common = [f"data.root={options.data.resolve()}", *options.set]
    teacher = teacher_of(options, common)
    results = students(options, common, teacher)
    trainings.write_csv(map(asdict, results), options.out / "results.csv")
    trainings.write_text(summary(results, teacher), options.out / "summary.md")
    trainings.write_text(curves(results, options.out), options.out / "curves.svg")
    print(summary(results, teacher))
    return 0


if __name__ == "__main__":
    sys.exit(main())
