"""The zoo on one core: every recipe at its input, FP32 and INT8, in every runtime; the best one is named.

    python benchmarks/zoo_latency.py                        all recipes; hours, unattended
    python benchmarks/zoo_latency.py refinedetlite pelee    some of them
    python benchmarks/zoo_latency.py --list                 what is measured, and what is still to do

Results go to benchmarks/results/zoo.json after every recipe. A recipe that stands there for the same network and the
same options is skipped, so an interrupted run is simply started again; --again measures anew, --retry what failed.

Weights are the shipped ones, else random: they do not change the time of the network. No score reaches the threshold
of 1, so that post-processing, whose time depends on what is found, has nothing to do; everything else is the bench of
``edgekit bench``: a process of its own, pinned to one core, raw pixels in. Every recipe is prepared in a process of its
own too, and what dies there is written down as that recipe's result. Run it on a quiet machine: the verdict of each
measurement stands beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from arguments import shipped  # noqa: E402

from edgekit.data.coco import CocoSet  # noqa: E402
from edgekit.measure.listing import figures_key, read_figures  # noqa: E402
from edgekit.measure.matching import DISTURBED  # noqa: E402
from edgekit.recipe import load_recipe, recipe_names  # noqa: E402
from edgekit.runtime import machine  # noqa: E402
from edgekit.runtime.artifact import Artifact, new_file, value_sha256  # noqa: E402
from edgekit.runtime.errors import EdgeKitError  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "zoo.json"
BOARD = "x86-1t"
IMAGES = "dhaka-eval"
CALIBRATION = "dhaka-calib"
CALIBRATION_IMAGES = 8  # ranges of random weights need no more
GOLDEN_IMAGES = 2
TIMED_IMAGES = 8


# -- one recipe, in a process of its own ------------------------------------------------------------------------------
def checkpoint(name: str, folder: Path) -> Artifact:
    import torch

    from edgekit.models.checkpoint import checkpoint_manifest, shipped_checkpoint, write_checkpoint
    from edgekit.models.zoo import build

    recipe = load_recipe(name)
    if recipe.weights:
        return shipped_checkpoint(recipe, folder / "checkpoint")
    torch.manual_seed(0)
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size)
    return write_checkpoint(folder / "checkpoint", model, checkpoint_manifest(recipe))


def lowered(name: str, folder: Path) -> tuple[Artifact, Artifact | str]:
    """The FP32 file, and the INT8 file or why there is none."""
    from edgekit.conversion.export import ExportOptions, onnx_artifact
    from edgekit.conversion.quantize import QuantizeOptions, quantize
    from edgekit.data.calibration import load_set
    from edgekit.models.checkpoint import model_of

    source = checkpoint(name, folder)
    section = source.manifest["recipe"]["export"]
    options = ExportOptions(top_k=section["top_k"], opset=section["opset"])
    images = load_set(CALIBRATION).images[:CALIBRATION_IMAGES]
    # without images to compare boxes on, a file is not simplified, and is not what a board gets
    onnx, _ = onnx_artifact(model_of(source), source.manifest, {}, folder / "onnx", images[:GOLDEN_IMAGES], options)
    try:
        return onnx, quantize(onnx, images, {}, folder / "onnx-int8", QuantizeOptions(flavour="x86"))
    except EdgeKitError as error:
        return onnx, str(error)


def timed_set() -> CocoSet:
    """The images that are timed, and no more: the bench also looks for boxes on all that it is given."""
    from edgekit.data.calibration import load_set

    coco = load_set(IMAGES).coco()
    return replace(coco, samples=coco.samples[:TIMED_IMAGES])


def timed(artifact: Artifact, seconds: float, count: int) -> dict[str, Any]:
    """The best runtime of one file: its name, milliseconds and verdict; the others' milliseconds beside it."""
    from edgekit.board import load_board
    from edgekit.measure.bench import BenchOptions, Target, measure_target

    board, coco = load_board(BOARD), timed_set()
    options = BenchOptions(warmup=3, min_seconds=seconds, min_count=count, score_threshold=1.0)
    found, failed = {}, {}
    for runtime in (r for r in board.runtimes if r != "pytorch"):
        try:
            found[runtime] = measure_target(Target(artifact, runtime), board, coco, options).row
        except EdgeKitError as error:
            failed[runtime] = str(error)
    if not found:
        return {"error": "; ".join(failed.values()), "failed": failed}
    latencies = {name: row.latency for name, row in found.items() if row.latency is not None}
    best = min(latencies, key=lambda name: latencies[name].p50)
    row, latency = found[best], latencies[best]
    return {
        "runtime": best,
        "runtime_version": row.runtime_version,
        "p50_ms": latency.p50,
        "p90_ms": latency.p90,
        "inference_ms": row.spans["inference"],
        "frames": latency.count,
        "gops": row.complexity.gops if row.complexity else None,
        "file_mb": row.model_file.bytes / 1e6,
        "peak_rss_mb": row.process.peak_rss_mb,
        "verdict": row.verdict.status,
        "reasons": list(row.verdict.reasons),
        "reference_ms": row.machine_reference.ms if row.machine_reference else None,
        "all_p50_ms": {name: other.p50 for name, other in latencies.items()},
        "failed": failed,
    }


def one(name: str, seconds: float, count: int) -> dict[str, Any]:
    recipe = load_recipe(name)
    with tempfile.TemporaryDirectory() as folder:
        fp32, int8 = lowered(name, Path(folder))
        precisions = {"fp32": timed(fp32, seconds, count)}
        precisions["int8"] = {"error": int8} if isinstance(int8, str) else timed(int8, seconds, count)
    gops = precisions["fp32"].get("gops")
    for record in precisions.values():
        if record.get("p50_ms") and gops is not None:
            record["gops"] = gops  # of the FP32 graph: INT8 does the same work
            record["gops_per_second"] = 1000 * gops / record["p50_ms"]
    return {
        "input": "{}x{}".format(*recipe.preprocess.size),
        "weights": "shipped" if recipe.weights else "random",
        "gops": gops,
        "precisions": precisions,
    }


# -- the whole zoo ----------------------------------------------------------------------------------------------------
def in_child(name: str, seconds: float, count: int) -> dict[str, Any]:
    """``one`` in a process of its own; its death becomes the recipe's error."""
    with tempfile.TemporaryDirectory() as folder:
        answer = Path(folder) / "answer.json"
        options = [f"--seconds={seconds}", f"--count={count}", f"--answer={answer}"]
        done = subprocess.run([sys.executable, __file__, name, *options], capture_output=True, text=True, check=False)
        if answer.is_file():
            return json.loads(answer.read_text(encoding="utf-8"))
        how = f"died by signal {-done.returncode}" if done.returncode < 0 else f"ended with code {done.returncode}"
        last = (done.stderr.strip().splitlines() or ["without a word"])[-1]
        return {"precisions": {p: {"error": f"the preparation {how}: {last}"} for p in ("fp32", "int8")}}


def key_of(name: str, seconds: float, count: int) -> str:
    return value_sha256({"network": figures_key(load_recipe(name)), "seconds": seconds, "count": count})[:16]


def read_results() -> dict[str, Any]:
    if not RESULTS.is_file():
        return {}
    return json.loads(RESULTS.read_text(encoding="utf-8"))["recipes"]


def write_results(recipes: dict[str, Any]) -> None:
    with new_file(RESULTS) as handle:
        handle.write(json.dumps({"board": BOARD, "recipes": dict(sorted(recipes.items()))}, indent=1) + "\n")


def failed(entry: dict[str, Any]) -> bool:
    return any("error" in record for record in entry["precisions"].values())


def disturbed(record: dict[str, Any]) -> bool:
    return "p50_ms" in record and record["verdict"] in DISTURBED


def calmer(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """Of two measurements of one file that which was less disturbed: a valid one, else that of the faster machine."""
    if "p50_ms" not in old or "p50_ms" not in new or not disturbed(new):
        return new
    if not disturbed(old):
        return old
    return min(new, old, key=lambda record: record.get("reference_ms") or float("inf"))


def to_do(names: list[str], results: dict[str, Any], asked: argparse.Namespace) -> list[str]:
    """Small networks first, so that an interrupted run has most of the table."""
    figures = read_figures()

    def is_left(name: str) -> bool:
        entry = results.get(name)
        if entry is None or asked.again or entry["key"] != key_of(name, asked.seconds, asked.count):
            return True
        return (asked.retry and failed(entry)) or (asked.noisy and any(map(disturbed, entry["precisions"].values())))

    return sorted(filter(is_left, names), key=lambda name: figures.get(name, {}).get("macs", 0))


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", type=shipped, metavar="RECIPE", help="default: all")
    parser.add_argument("--seconds", type=float, default=10.0, help="least time of each measurement")
    parser.add_argument("--count", type=int, default=20, help="least frames of each measurement")
    parser.add_argument("--again", action="store_true", help="measure what stands there too")
    parser.add_argument("--retry", action="store_true", help="measure again what failed")
    parser.add_argument(
        "--noisy", action="store_true", help="measure again what was disturbed; the calmer figure stays"
    )
    parser.add_argument("--list", action="store_true", help="say what is done and what is not")
    parser.add_argument("--answer", type=Path, help=argparse.SUPPRESS)
    asked = parser.parse_args(arguments)
    if asked.answer:
        asked.answer.write_text(json.dumps(one(asked.names[0], asked.seconds, asked.count)), encoding="utf-8")
        return
    results = read_results()
    left = to_do(asked.names or recipe_names(), results, asked)
    if asked.list:
        print(f"{len(results)} measured; {len(left)} to do: {', '.join(left)}")
        return
    for done, name in enumerate(left, 1):
        entry = in_child(name, asked.seconds, asked.count)
        entry["key"] = key_of(name, asked.seconds, asked.count)
        entry["machine"] = machine.facts()["cpu"]
        entry["when"] = datetime.now(timezone.utc).isoformat(timespec="seconds")
        if asked.noisy and results.get(name, {}).get("key") == entry["key"]:
            before = results[name]["precisions"]
            entry["precisions"] = {kind: calmer(before[kind], new) for kind, new in entry["precisions"].items()}
        results[name] = entry
        write_results(results)
        print(f"{done}/{len(left)} {name}: {summary(entry)}", flush=True)


def summary(entry: dict[str, Any]) -> str:
    return "; ".join(
        f"{precision} {record['p50_ms']:.1f} ms ({record['runtime']})"
        if "p50_ms" in record
        else f"{precision}: {record['error']}"
        for precision, record in entry["precisions"].items()
    )


if __name__ == "__main__":
    main()
