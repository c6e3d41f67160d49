"""Does the gate pass an unchanged build, and catch a slower one, on this machine? With real runs.

    python benchmarks/gate_noise.py runs/demo/onnx-int8 --gates 100 --slow-gates 100 --out gate_noise.json

One baseline is measured first (``--baseline-runs`` processes). Then come gates as CI would run them: for each one
``--repeats`` fresh processes of the very same file are measured and compared with that baseline under ``--max``. In
between, as many gates as ``--slow-gates`` asks for are made with a worker that burns ``--slow`` times the time of every
frame (0.10: it is 10 % slower), so drift of the machine meets both kinds alike.

``--pool N`` is the short way: N runs of each kind are measured in turns, and the gates are drawn from them at random (a
baseline and a report that share no run). The runs are as real, but the gates are not independent of each other.

Every gate is judged twice, on the same runs: as ``edgekit gate`` does, with the machine's reference (docs/ci.md), and
without it. How far the reference tracks the network stands beside: the correlation of their logarithms over all
unchanged runs, and the slope (1: the network becomes longer by the same share).

Goals: every unchanged gate passes and every slow one fails. A gate whose runs were all disturbed, or of which only one
of the two judges passes, is neither; it is counted as ``not comparable``, and stops the build. Duration: (baseline runs
+ repeats x gates) x (seconds + about 3 s for each process), or 2 x pool x (seconds + 3 s).
Run it while nothing else does. The exit code is 1 when a goal is missed.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import math
import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from statistics import correlation, fmean, linear_regression, stdev
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SLOW_WORKER = "--as-slow-worker"
PASSING = ("pass", "within noise")
Gate = tuple[bool, Sequence[Any], Sequence[Any]]
"""(slow, rows of the baseline, rows of the report)"""


def main(argv: Sequence[str] | None = None) -> int:
    args = arguments().parse_args(argv)
    from edgekit.measure.gate import compare
    from edgekit.measure.metrics import parse_limits

    measure, limits = bench(args), parse_limits([args.limits])
    started = time.time()
    base, gates = [], []
    for number, (slow, before, runs) in enumerate(pooled(args, measure) if args.pool else fresh(args, measure), 1):
        (check,), (alone,) = (
            compare(base_rows, new_rows, limits).checks
            for base_rows, new_rows in ((before, runs), (bare(before), bare(runs)))
        )
        gates.append({"slow": slow, **check.model_dump(mode="json"), "without_reference": alone.outcome, **facts(runs)})
        base = list(before)
        print(
            f"{number}/{args.gates + args.slow_gates} {'slow' if slow else 'same'}: {check.outcome}; "
            f"without the reference: {alone.outcome}",
            flush=True,
        )
    result = summary(args, base, gates, time.time() - started)
    args.out.write_text(json.dumps(result, indent=1) + "\n", encoding="utf-8")
    print(told(result))
    return 0 if result["unchanged"]["goal"] and result["slow"]["goal"] else 1


def arguments() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", type=Path, help="an onnx or onnx-int8 artifact, for example runs/demo/onnx-int8")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument("--board", default="x86-1t")
    parser.add_argument("--data", default=None, help="evaluation set; else the recipe's own")
    parser.add_argument("--images", type=int, default=16, help="how many of its images each run looks at")
    parser.add_argument("--seconds", type=float, default=5.0, help="timed part of each run")
    parser.add_argument("--baseline-runs", type=int, default=5)
    parser.add_argument("--repeats", type=int, default=5, help="runs of each gate")
    parser.add_argument("--gates", type=int, default=100, help="gates of the unchanged build")
    parser.add_argument("--slow-gates", type=int, default=100, help="gates of a slower one")
    parser.add_argument("--pool", type=int, default=0, help="draw the gates from this many runs of each kind")
    parser.add_argument("--slow", type=float, default=0.10, help="how much slower, 0.10 for 10 %%")
    parser.add_argument("--max", dest="limits", default="latency=+5%", help="one limit, as edgekit gate takes it")
    parser.add_argument("--out", type=Path, default=Path("gate_noise.json"))
    return parser


def bench(args: argparse.Namespace) -> Callable[[float], Any]:
    """A function that measures one run, slower by a share, and gives its row."""
    from edgekit.board import load_board
    from edgekit.data.evaluation import evaluation_set
    from edgekit.measure.bench import WORKER, BenchOptions, Target, measure_target
    from edgekit.runtime.artifact import read_artifact

    artifact, board = read_artifact(args.artifact, kinds=("onnx", "onnx-int8")), load_board(args.board)
    whole = evaluation_set(artifact, args.data)
    images = dataclasses.replace(whole, samples=whole.samples[: args.images])
    target, options = Target(artifact, args.runtime), BenchOptions(min_seconds=args.seconds)

    def measure(slower: float) -> Any:
        slow = (sys.executable, str(Path(__file__).resolve()), SLOW_WORKER, str(slower))
        return measure_target(target, board, images, options, worker=slow if slower else WORKER).row

    return measure


def order(same: int, slow: int) -> Iterator[bool]:
    """True for a slow gate; the two kinds are spread evenly over the run."""
    total = same + slow
    for i in range(total):
        yield (i + 1) * slow // total > i * slow // total


def fresh(args: argparse.Namespace, measure: Callable[[float], Any]) -> Iterator[Gate]:
    """One baseline, and new runs for every gate."""
    base = [measure(0.0) for _ in range(args.baseline_runs)]
    for slow in order(args.gates, args.slow_gates):
        yield slow, base, [measure(args.slow if slow else 0.0) for _ in range(args.repeats)]


def pooled(args: argparse.Namespace, measure: Callable[[float], Any]) -> Iterator[Gate]:
    """Gates drawn from as many runs of each kind as ``--pool`` says; a baseline shares no run with its report."""
    need = args.baseline_runs + args.repeats
    if args.pool < need:
        sys.exit(f"--pool {args.pool}: a gate takes {need} different runs, so the pool must hold at least as many")
    same, slow_ones = [], []
    for number in range(1, args.pool + 1):
        same.append(measure(0.0))
        slow_ones.append(measure(args.slow))
        print(
            f"run {number}/{args.pool}: {same[-1].latency.p50:.2f} ms, {slow_ones[-1].latency.p50:.2f} ms", flush=True
        )
    draw = random.Random(0)
    for slow in order(args.gates, args.slow_gates):
        drawn = draw.sample(same, need)
        runs = draw.sample(slow_ones, args.repeats) if slow else drawn[args.baseline_runs :]
        yield slow, drawn[: args.baseline_runs], runs


def p50s(rows: Sequence[Any]) -> list[float]:
    return [row.latency.p50 for row in rows]


def verdicts(rows: Sequence[Any]) -> dict[str, int]:
    return dict(Counter(row.verdict.status for row in rows))


def references(rows: Sequence[Any]) -> list[float] | None:
    """Milliseconds of the machine's reference, one a run; None where a run has none."""
    from edgekit.measure.drift import reference_times

    times = reference_times(rows)
    return times[0] if times else None


def bare(rows: Sequence[Any]) -> list[Any]:
    """The same rows, with no reference of the machine."""
    return [row.model_copy(update={"machine_reference": None}) for row in rows]


def facts(rows: Sequence[Any]) -> dict[str, Any]:
    return {"p50_ms": p50s(rows), "reference_ms": references(rows), "verdicts": verdicts(rows)}


def deviation(values: Sequence[float]) -> float | None:
    """Of the logarithms, in percent; None for fewer than two."""
    return 100 * stdev(map(math.log, values)) if len(values) > 1 else None


def drift(before: Sequence[float], after: Sequence[float]) -> float | None:
    """Of the geometric means, in percent."""
    return 100 * math.expm1(fmean(map(math.log, after)) - fmean(map(math.log, before))) if before and after else None


def summary(
    args: argparse.Namespace, base: Sequence[Any], gates: Sequence[dict[str, Any]], took: float
) -> dict[str, Any]:
    same = [gate for gate in gates if not gate["slow"]]
    slow = [gate for gate in gates if gate["slow"]]
    every = [ms for gate in same for ms in gate["p50_ms"]]
    return {
        "asked": {name: str(value) for name, value in vars(args).items() if name != "out"},
        "machine": base[0].machine.get("before", {}),
        "took_seconds": took,
        "baseline": {**facts(base), "deviation_percent": deviation(p50s(base))},
        "run_to_run_deviation_percent": deviation(every),
        "drift_percent": drift(p50s(base), every),
        "reference": tracking(base, same),
        "unchanged": {**outcomes(same), "goal": all(g["outcome"] in PASSING for g in same)},
        "slow": {**outcomes(slow), "goal": all(g["outcome"] == "fail" for g in slow)},
        "gates": list(gates),
    }


def tracking(base: Sequence[Any], same: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """How the machine's reference went along with p50 over the unchanged runs; None where a run has none."""
    its_base = references(base)
    if its_base is None or not same or any(gate["reference_ms"] is None for gate in same):
        return None
    pairs = [pair for gate in same for pair in zip(gate["p50_ms"], gate["reference_ms"], strict=True)]
    ours, its = ([math.log(pair[side]) for pair in pairs] for side in (0, 1))
    found = {
        "run_to_run_deviation_percent": deviation([pair[1] for pair in pairs]),
        "drift_percent": drift(its_base, [pair[1] for pair in pairs]),
        "p50_over_reference_deviation_percent": deviation([ms / own for ms, own in pairs]),
    }
    if len(pairs) > 2 and min(ours) < max(ours) and min(its) < max(its):
        found |= {"correlation": correlation(its, ours), "slope": linear_regression(its, ours).slope}
    return found


def outcomes(gates: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """stopped: gates that a build does not get through, whatever the reason."""
    judges = {"": "outcome", "_without_reference": "without_reference"}
    found: dict[str, Any] = {"gates": len(gates)}
    for name, key in judges.items():
        found["outcomes" + name] = dict(Counter(gate[key] for gate in gates))
        found["stopped" + name] = sum(gate[key] not in PASSING for gate in gates)
    return found


def told(result: dict[str, Any]) -> str:
    lines = [f"run to run deviation of p50: {percent(result['run_to_run_deviation_percent'])}"]
    if own := result["reference"]:
        lines.append(
            f"of the machine's reference: {percent(own['run_to_run_deviation_percent'])}; "
            f"of p50 over it: {percent(own['p50_over_reference_deviation_percent'])}"
        )
        if "slope" in own:
            lines.append(
                f"p50 follows the reference with slope {own['slope']:.2f}, correlation {own['correlation']:.2f}"
            )
        drifts = f"{percent(result['drift_percent'])}, the reference by {percent(own['drift_percent'])}"
        lines.append(f"since the baseline p50 moved by {drifts}")
    for name in ("unchanged", "slow"):
        part = result[name]
        lines.append(
            f"{name}: {part['gates']} gates, {part['outcomes']}, goal {'met' if part['goal'] else 'MISSED'}; "
            f"stopped {part['stopped']}; without the reference {part['outcomes_without_reference']}, "
            f"stopped {part['stopped_without_reference']}"
        )
    return "\n".join(lines)


def percent(value: float | None) -> str:
    return "not known" if value is None else f"{value:.2f} %"


# -- the slow worker --------------------------------------------------------------------------------------------------
def slow_worker(slower: float, argv: Sequence[str]) -> int:
    """The bench's worker with a runner that burns ``slower`` times the time of each frame. Thread counts come first."""
    from edgekit.runtime import worker

    prepare = worker.prepare

    def prepare_and_slow_down(job: dict[str, Any]) -> Any:
        cores = prepare(job)
        slow_down(slower)
        return cores

    worker.prepare = prepare_and_slow_down
    return int(worker.main(list(argv)))


def slow_down(slower: float) -> None:
    from edgekit.runtime.runner import Runner

    fast = Runner.__call__

    def call(self: Any, image: Any) -> Any:
        detections, timing = fast(self, image)
        end = time.perf_counter() + slower * timing.total
        while time.perf_counter() < end:
            pass
        timing.lap("postprocess")
        return detections, timing

    Runner.__call__ = call  # type: ignore[method-assign]


if __name__ == "__main__":
    if sys.argv[1:2] == [SLOW_WORKER]:
        sys.exit(slow_worker(float(sys.argv[2]), sys.argv[3:]))
    sys.exit(main())
