"""Does a repeated run give the same number? Several whole benches of one artifact, and the spread of their p50.

    python benchmarks/reproducibility.py runs/demo/onnx-int8 --out benchmarks/results/reproducibility.json

Every run is what ``edgekit bench`` does: a process of its own, the file loaded anew, warm-up, the timed part. The
spread is (highest - lowest) / median over the runs' p50 of end to end; the goal is 3 % over five runs on a quiet
machine. A run whose verdict is noisy or throttled says that the machine was not quiet: it is kept and named, and the
goal is then not judged. Beside it stands the spread of p50 over the machine's reference of each run, that is what is
left when the machine's own drift is taken out (docs/measuring.md); the goal is judged on p50 itself. mAP is not the
question here, so the accuracy pass is kept to the images of the timed loop. A run takes its seconds and about three.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgekit.board import load_board  # noqa: E402
from edgekit.data.evaluation import evaluation_set  # noqa: E402
from edgekit.measure.bench import BenchOptions, Target, measure_target  # noqa: E402
from edgekit.measure.drift import reference_times  # noqa: E402
from edgekit.measure.row import Row  # noqa: E402
from edgekit.runtime.artifact import new_file, read_artifact  # noqa: E402
from edgekit.runtime.errors import EdgeKitError  # noqa: E402
from edgekit.runtime.worker import DEFAULT_TIMED  # noqa: E402

MOST_SPREAD = 0.03
QUIET = ("valid", "perf-only")


def measure(options: argparse.Namespace) -> list[Row]:
    artifact, board = read_artifact(options.artifact), load_board(options.board)
    images = evaluation_set(artifact, options.data)
    few = replace(images, samples=images.samples[:DEFAULT_TIMED])
    wishes = BenchOptions(min_seconds=options.seconds)
    rows = []
    for number in range(1, options.runs + 1):
        rows.append(measure_target(Target(artifact, options.runtime), board, few, wishes).row)
        show(f"run {number} of {options.runs}: {describe(rows[-1])}")
    return rows


def describe(row: Row) -> str:
    p50 = f"{row.latency.p50:.3f} ms" if row.latency else "no frame"
    known = row.machine_reference
    reference = f", the machine's reference {known.ms:.4f} ms" if known else ", no reference of the machine"
    reasons = f" ({'; '.join(row.verdict.reasons)})" if row.verdict.reasons else ""
    return f"p50 {p50}{reference}, {row.verdict.status}{reasons}"


def spread(values: Sequence[float]) -> float:
    return (max(values) - min(values)) / statistics.median(values)


def summarise(p50: list[float], verdicts: list[str], reference: list[float] | None = None) -> dict[str, Any]:
    """Spread of the medians, and whether the goal is met; None where a run was disturbed and nothing can be said.

    reference: milliseconds of the machine's, one a run, if every run has it
    """
    quiet = all(verdict in QUIET for verdict in verdicts)
    apart = spread(p50)
    found: dict[str, Any] = {"p50_ms": p50, "verdicts": verdicts, "spread": apart, "against_machine": None}
    if reference:
        over = [ms / own for ms, own in zip(p50, reference, strict=True)]
        found["against_machine"] = {
            "reference_ms": reference,
            "reference_spread": spread(reference),
            "spread": spread(over),
        }
    return {**found, "met": apart <= MOST_SPREAD if quiet else None}


def show(line: str) -> None:
    sys.stderr.write(line + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", help="folder of an artifact")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--board", default="x86-1t")
    parser.add_argument("--data", help="annotated images; default: those of the artifact's recipe")
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=float, help="of each run; default: the board's")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 unless the goal is met")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    if options.runs < 2:
        sys.stderr.write(f"--runs: expected at least 2, got {options.runs}\n")
        return 2
    try:
        rows = measure(options)
    except EdgeKitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    timed = [row for row in rows if row.latency]
    times = reference_times(timed)
    p50 = [row.latency.p50 for row in timed if row.latency]
    found = summarise(p50, [row.verdict.status for row in rows], times[0] if times else None)
    first = rows[0]
    about = {"model": first.model, "runtime": first.runtime, "precision": first.precision, "board": first.board}
    report = {**about, "goal": f"<= {MOST_SPREAD:.0%}", **found, "machine": first.machine, "runs": len(rows)}
    report["reasons"] = [list(row.verdict.reasons) for row in rows]
    said = {True: "met", False: "MISSED", None: "not judged: a run was disturbed"}[found["met"]]
    print(f"p50 of {len(rows)} runs spread over {found['spread']:.2%} (goal: {MOST_SPREAD:.0%}; {said})")
    if beside := found["against_machine"]:
        print(
            f"the machine's reference spread over {beside['reference_spread']:.2%}, "
            f"p50 over the reference over {beside['spread']:.2%}"
        )
    if options.out:
        with new_file(options.out) as handle:
            json.dump(report, handle, indent=1)
    return 0 if found["met"] or not options.check else 1


if __name__ == "__main__":
    sys.exit(main())
