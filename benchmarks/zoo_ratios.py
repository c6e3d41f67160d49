"""The papers' latency ratios beside what one core measures: two networks in turns, as ``edgekit bench --compare``.

    python benchmarks/zoo_ratios.py                    all pairs, FP32 and INT8, every runtime; about ten minutes
    python benchmarks/zoo_ratios.py --seconds 20       longer, for a busy machine

Results go to benchmarks/results/zoo_ratios.json, and into the table of benchmarks/zoo_table.py. A ratio is the first
network's time over the second's. A machine drifts, so the two take turns on one core: what disturbs both cancels.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from zoo_latency import BOARD, ROOT, lowered, timed_set

from edgekit.board import load_board
from edgekit.measure.bench import BenchOptions, Target
from edgekit.measure.compare import compare
from edgekit.measure.listing import papers_of
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime import machine
from edgekit.runtime.artifact import Artifact, new_file
from edgekit.runtime.errors import EdgeKitError

RESULTS = ROOT / "benchmarks" / "results" / "zoo_ratios.json"
PAIRS = (
    ("refinedetlite", "ssdlite-mobilenet-v2"),
    ("refinedetlite-quarter", "ssdlite-mobilenet-v2"),  # the narrower reading of the paper's blocks
    ("cspdensenetb-ref-prn", "yolov3-tiny"),
    ("lightweight-ssd", "ssd300-mobilenet-v2"),
)
RATE = {"fps": True, "latency_ms": False}  # metric of the papers' rows -> whether more of it is less time


def printed(first: str, second: str) -> list[dict[str, Any]]:
    """What papers print of both networks on one machine, each at its recipe's input: the ratio of their times."""
    ours, theirs = (speeds(load_recipe(name)) for name in (first, second))
    found = []
    for key in ours.keys() & theirs.keys():
        paper, metric, device = key
        a, b = ours[key], theirs[key]
        ratio = b / a if RATE[metric] else a / b
        found.append({"paper": paper, "device": device, "metric": metric, "first": a, "second": b, "ratio": ratio})
    return sorted(found, key=lambda entry: (entry["paper"], entry["device"]))


def speeds(recipe: Recipe) -> dict[tuple[str, str, str], float]:
    """(paper, metric, device) -> the printed number. Of rows that are one network, trained in two ways, that of the
    system that the recipe's description begins with, else the first.
    """
    found: dict[tuple[str, str, str], float] = {}
    for paper, row in sorted(papers_of(recipe), key=lambda entry: not _is_called(recipe, entry[1]["name"])):
        if tuple(row["input"]) == tuple(recipe.preprocess.size):
            for entry in row.get("measured", []):
                if entry["metric"] in RATE:
                    found.setdefault((paper, entry["metric"], entry["tested_on"]), float(entry["printed"]))
    return found


def _is_called(recipe: Recipe, system: str) -> bool:
    return recipe.description.startswith(f"{system} ")


def in_turns(first: Artifact | str, second: Artifact | str, seconds: float) -> dict[str, Any]:
    """Runtime -> the ratio with its interval and both medians, or the error. A str says why there is no artifact."""
    board, coco = load_board(BOARD), timed_set()
    options = BenchOptions(warmup=3, min_seconds=seconds, score_threshold=1.0)
    found: dict[str, Any] = {}
    for runtime in (r for r in board.runtimes if r != "pytorch"):
        if isinstance(first, str) or isinstance(second, str):
            found[runtime] = {"error": first if isinstance(first, str) else second}
            continue
        try:
            result = compare(Target(first, runtime), Target(second, runtime), board, coco, options)
        except EdgeKitError as error:
            found[runtime] = {"error": str(error)}
            continue
        # compare says B over A; the papers' first network over their second is asked for here
        ratio = result.ratio
        found[runtime] = {
            "ratio": 1 / ratio.value,
            "low": 1 / ratio.high,
            "high": 1 / ratio.low,
            "first_ms": result.a.latency.p50 if result.a.latency else None,
            "second_ms": result.b.latency.p50 if result.b.latency else None,
            "pairs": len(result.pairs),
        }
    return found


def measure(first: str, second: str, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        files = zip(*(lowered(name, Path(folder) / name) for name in (first, second)), strict=True)
        precisions = {
            precision: in_turns(a, b, seconds) for precision, (a, b) in zip(("fp32", "int8"), files, strict=True)
        }
    return {
        "first": first,
        "second": second,
        "printed": printed(first, second),
        "measured": precisions,
        "machine": machine.facts()["cpu"],
        "when": datetime.now(timezone.utc).isoformat(timespec="seconds"),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=6.0, help="least time of each network in each comparison")
    asked = parser.parse_args()
    found = []
    for first, second in PAIRS:
        found.append(measure(first, second, asked.seconds))
        with new_file(RESULTS) as handle:
            handle.write(json.dumps({"board": BOARD, "pairs": found}, indent=1) + "\n")
        print(f"{first} : {second}: {json.dumps(found[-1]['measured'])}", flush=True)


if __name__ == "__main__":
    main()
