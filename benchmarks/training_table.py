"""The training table: networks of the five papers on one set of road scenes, the same images seen for all.

    python benchmarks/training_table.py --data FOLDER                    all recipes for dhaka_roads; days on a CPU
    python benchmarks/training_table.py --data FOLDER --seeds 0 1 2      with a spread
    python benchmarks/training_table.py --data FOLDER --recipes refinedetlite-dhaka thundernet-snet49-dhaka
    python benchmarks/training_table.py --data FOLDER --jobs 2 --no-speed     two at once; measure afterwards, without
    python benchmarks/training_table.py --data FOLDER --set train.epochs=2 --out runs/try --no-speed    a try

It runs unattended and may be stopped at any moment: called again with the same settings it skips what is finished and
resumes the training that was stopped. A recipe that fails is written down as failed, and the others go on.

Each training leaves ``result.json`` in its folder; the table is written anew after each. The first seed of a recipe is
also exported, quantized and measured on one core (``--no-speed`` leaves that out), which wants a quiet machine. The
end is ``training.csv`` and ``training.md`` in the folder of --out.
"""

from __future__ import annotations

import argparse
import itertools
import statistics
import sys
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import side_by_side
import trainings
from arguments import data_root
from trainings import spread

from edgekit import pipeline
from edgekit.measure.row import Row
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import Artifact, value_sha256
from edgekit.runtime.errors import EdgeKitError

RECIPES = (
    "mobile-centernet-w16-dhaka-small",
    "refinedetlite-dhaka",
    "refinedetlite-plus-dhaka",
    "refinedet-mobilenet-v2-dhaka",
    "refinedetpp-mobilenet-v2-dhaka",
    "lightweight-ssd-dhaka",
    "ssdlite-mobilenet-v2-dhaka",
    "fpnlite-64-dhaka",
    "cspdensenetb-ref-prn-dhaka",
    "csppeleenet-ref-prn-3l-dhaka",
    "csppeleenet-ref-efm-sam-dhaka",
    "thundernet-snet49-dhaka",
)
BOARD = "x86-1t"
NO_LIMIT = 100.0  # points that INT8 may lose: the table shows them


@dataclass(frozen=True)
class Result:
    """One finished training. map50, map, ap50: on the validation set, 0..1, of the last weights.

    images: seen in training;  seconds: of this machine's time, without what an interruption lost
    key: hash of the settings;  failed: why there is no result, else ""
    speed: of the first seed: by precision milliseconds, runtime, verdict and mAP@0.5; GMACs, parameters; empty if not
        measured
    unmeasured: why not, where it should have been
    """

    recipe: str
    seed: int
    key: str
    map50: float = 0.0
    map: float = 0.0
    ap50: dict[str, float] = field(default_factory=dict)
    images: int = 0
    seconds: float = 0.0
    failed: str = ""
    speed: dict[str, Any] = field(default_factory=dict)
    unmeasured: str = ""


# -- one training -----------------------------------------------------------------------------------------------------
def train(recipe: Recipe, folder: Path, speed: bool, seconds: float | None = None) -> Result:
    """The result in ``folder``; trained now, or resumed, if there is none. Raises EdgeKitError.

    speed, seconds: whether to measure latency, and for how long each row
    """
    key = value_sha256(trainings.settings(recipe))
    found = trainings.read_result(Result, folder, key)
    if found is not None and not found.failed and (found.speed or not speed):
        return found
    artifact = trainings.trained(recipe, folder, key)
    metrics = artifact.manifest["metrics"]
    figures = {**trainings.accuracy(recipe, metrics), **trainings.effort(recipe, metrics, folder)}
    result = Result(recipe.name, recipe.train.seed, key, **figures)
    trainings.write_result(result, folder)  # before the measurement, which can be repeated without the training
    if speed:
        result = replace(result, **measured(artifact, folder, seconds))
        trainings.write_result(result, folder)
    return result


def measured(artifact: Artifact, folder: Path, seconds: float | None) -> dict[str, Any]:
    """``speed`` of a result, or, as ``unmeasured``, why there is none: the training counts all the same."""
    try:
        return {"speed": measure(artifact, folder, seconds)}
    except EdgeKitError as error:
        return {"unmeasured": str(error).splitlines()[0]}


def measure(checkpoint: Artifact, folder: Path, seconds: float | None) -> dict[str, Any]:
    """Export, quantize and time on one core. ms: end to end, p50 of the fastest runtime, which is named."""
    onnx = pipeline.export(checkpoint.path, out=folder / "onnx", board=BOARD)
    int8 = pipeline.quantize(onnx.path, out=folder / "onnx-int8", flavour="x86", max_drop=NO_LIMIT)
    rows = pipeline.bench([onnx.path, int8.path], board=BOARD, seconds=seconds, out=folder / "rows.json")
    found: dict[str, Any] = {}
    for precision in ("fp32", "int8"):
        timed = [row for row in rows if row.precision == precision and row.latency is not None]
        if timed:
            best = min(timed, key=_p50)
            found[f"ms_{precision}"] = _p50(best)
            found[f"runtime_{precision}"] = best.runtime
            found[f"verdict_{precision}"] = best.verdict.status
            if best.accuracy is not None:
                found[f"eval_map50_{precision}"] = best.accuracy.map50
    counted = next((row.complexity for row in rows if row.complexity is not None), None)
    if counted is not None:
        found["gmacs"] = counted.macs / 1e9
        found["parameters"] = float(counted.learnable or counted.parameters)
    return found


def _p50(row: Row) -> float:
    assert row.latency is not None
    return row.latency.p50


LEGEND = """\
Networks of the five papers on road scenes (dhaka_roads, three classes), from nothing, on one input and as many
images. mAP in percent on the validation set, of the averaged weights after the last epoch; with several seeds
mean and sample standard deviation. ms: end to end on one core of this machine, p50, in the runtime that is
named; a verdict other than "valid" stands beside it; "-": not measured there. Hours: of one core, which had other
work beside, so they compare roughly. So short a training says how fast a network learns, not how good it can become.

"""


# -- the table --------------------------------------------------------------------------------------------------------
def table(results: Sequence[Result]) -> str:
    """Markdown, one row per recipe, the best mAP first; failures below."""
    names = list(dict.fromkeys(r.recipe for r in results if not r.failed))
    classes = list(dict.fromkeys(name for r in results for name in r.ap50))
    head = ["recipe", "seeds", "images seen", "mAP@0.5", "mAP", *(f"AP@0.5 {c}" for c in classes)]
    head += ["M params", "GMAC", "ms FP32", "ms INT8", "mAP@0.5 FP32 -> INT8 (calibration/dhaka-eval)", "h per run"]
    rows = [_cells([r for r in results if r.recipe == name and not r.failed], classes) for name in names]
    rows.sort(key=lambda row: -float(row[4].split(" ")[0]))
    text = LEGEND + trainings.markdown(head, rows)
    missing = [f"- {r.recipe}, seed {r.seed}: {r.failed or r.unmeasured}" for r in results if r.failed or r.unmeasured]
    return text + ("\nNot trained or not measured:\n" + "\n".join(missing) + "\n" if missing else "")


def _cells(runs: Sequence[Result], classes: Sequence[str]) -> list[str]:
    speed = next((r.speed for r in runs if r.speed), {})

    def shown(key: str, scale: float = 1.0, digits: int = 2) -> str:
        return f"{speed[key] * scale:.{digits}f}" if key in speed else "-"

    return [
        runs[0].recipe,
        " ".join(str(r.seed) for r in runs),
        f"{statistics.mean(r.images for r in runs):.0f}",
        spread([r.map50 for r in runs]),
        spread([r.map for r in runs]),
        *(spread([r.ap50.get(c, 0.0) for r in runs]) for c in classes),
        shown("parameters", 1e-6),
        shown("gmacs"),
        *(_milliseconds(speed, precision) for precision in ("fp32", "int8")),
        f"{shown('eval_map50_fp32', 100, 1)} -> {shown('eval_map50_int8', 100, 1)}",
        f"{statistics.mean(r.seconds for r in runs) / 3600:.1f}",
    ]


def _milliseconds(speed: Mapping[str, Any], precision: str) -> str:
    """With the runtime, and the bench's verdict if it is not "valid"."""
    if f"ms_{precision}" not in speed:
        return "-"
    words = [speed.get(f"runtime_{precision}"), speed.get(f"verdict_{precision}")]
    return f"{speed[f'ms_{precision}']:.1f} ({', '.join(word for word in words if word and word != 'valid')})"


def write_table(results: Sequence[Result], out: Path) -> None:
    trainings.write_text(table(results), out / "training.md")
    trainings.write_csv(map(asdict, results), out / "training.csv")


# -- the command ------------------------------------------------------------------------------------------------------
def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="folder of dhaka_roads (images, annotations)")
    parser.add_argument("--out", type=Path, default=Path("runs/training-table"))
    parser.add_argument("--recipes", nargs="+", default=list(RECIPES))
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    side_by_side.add_arguments(parser)
    parser.add_argument("--seconds", type=float, help="how long to measure each latency; default: the bench's own")
    parser.add_argument("--no-speed", action="store_true", help="train only: no export, INT8 and latency")
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for every training")
    options = parser.parse_args(arguments)
    if options.jobs > 1 and not options.no_speed:
        parser.error("--jobs: latency is measured on a quiet machine; train side by side with --no-speed, then measure")
    side_by_side.share_cores(options)
    return options


def every(options: argparse.Namespace) -> list[Result]:
    """Seed by seed, so that the whole table can be read off early."""
    pairs = [(name, seed) for seed, name in itertools.product(options.seeds, options.recipes)]
    for pair in pairs:
        recipe_of(options, pair)  # a mistake is said before anything is trained
    results: list[Result] = []
    with closing(side_by_side.side_by_side(partial(attempt, options), pairs, options.jobs, failure)) as found:
        for result in found:
            results.append(result)
            results.sort(key=lambda r: pairs.index((r.recipe, r.seed)))
            write_table(results, options.out)
            said = result.failed or f"mAP@0.5 {result.map50:.3f}"
            print(f"{result.recipe}, seed {result.seed}: {said}", flush=True)
    return results


def recipe_of(options: argparse.Namespace, pair: tuple[str, int]) -> Recipe:
    return load_recipe(pair[0], [data_root(options.data), *options.set, f"train.seed={pair[1]}"])


def attempt(options: argparse.Namespace, pair: tuple[str, int]) -> Result:
    name, seed = pair
    speed = not options.no_speed and seed == options.seeds[0]
    try:
        return train(recipe_of(options, pair), options.out / f"{name}-{seed}", speed, options.seconds)
    except EdgeKitError as error:
        return failure(pair, error)


def failure(pair: tuple[str, int], error: EdgeKitError) -> Result:
    return Result(*pair, key="", failed=str(error).splitlines()[0])


def main(arguments: Sequence[str] | None = None) -> int:
    options = parse(arguments)
    return trainings.unattended("training_table", lambda: report(options))


def report(options: argparse.Namespace) -> int:
    results = every(options)
    print(table(results))
    return 1 if any(r.failed for r in results) else 0


if __name__ == "__main__":
    sys.exit(main())
