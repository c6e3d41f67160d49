"""What the runner costs around the network, and what INT8 gains: ratios, measured in one process and one run.

    python benchmarks/end_to_end.py --fp32 runs/demo/onnx --int8 runs/demo/onnx-int8-x86 --out end_to_end.json

Two questions, for each runtime:

* end to end / bare: a uint8 640x480 image in and Detections out, over one bare call of the same session with the tensor
  already made. Goals: at most 1.05 for FP32 and 1.08 for INT8, on ONNX Runtime.
* FP32 / INT8: the bare calls of the two files. Goals: at least 2.5 on ONNX Runtime and 3.0 on OpenVINO.

All are called in turn, round after round; within a round each network runs once unmeasured, to have its weights in the
caches as in steady use, and then bare and end to end, in an order that alternates. A ratio is that of the medians; its
interval is a bootstrap over rounds (2.5 % to 97.5 %), so what disturbs a whole round disturbs both sides. Wall time is
the result; the ratio of CPU times stands beside it, for a machine that others use too. Peak memory is that of a worker
process of its own for each file and runtime, as the bench starts it.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgekit.runtime import machine  # noqa: E402 - numpy must not load before the thread counts are set
from edgekit.runtime.errors import ChildDied, EdgeKitError, MissingDependency  # noqa: E402
from edgekit.runtime.worker import prepare  # noqa: E402

MOST_AROUND = {"fp32": 1.05, "int8": 1.08}
LEAST_GAIN = {"onnxruntime": 2.5, "openvino": 3.0}
MOST_MEMORY_MB = 350
FRAME = (640, 480)
RESAMPLES = 2000


class Times(NamedTuple):
    """Seconds of one call."""

    wall: float
    cpu: float


class Subject(NamedTuple):
    """One file in one runtime, called in two ways."""

    runtime: str
    precision: str
    artifact: str
    bare: Callable[[], object]
    end_to_end: Callable[[], object]

    @property
    def name(self) -> str:
        return f"{self.runtime} {self.precision}"


def timed(call: Callable[[], object]) -> Times:
    cpu, wall = time.process_time_ns(), time.perf_counter_ns()
    call()
    return Times((time.perf_counter_ns() - wall) * 1e-9, (time.process_time_ns() - cpu) * 1e-9)


def subjects(artifacts: dict[str, str], runtimes: list[str], image: Any, stack: ExitStack) -> list[Subject]:
    """Every file in every runtime, open until the stack closes. A runtime that is not installed is left out."""
    from edgekit.runtime.runner import open_runner

    found = []
    for runtime in runtimes:
        for precision, path in artifacts.items():
            try:
                runner = stack.enter_context(open_runner(path, runtime, 1))
            except MissingDependency as error:
                sys.stderr.write(f"left out: {error}\n")
                continue
            inputs = {"image": runner.preprocess(image, runner.session.layout)[0]}
            found.append(
                Subject(
                    runtime,
                    precision,
                    path,
                    partial(runner.session.infer, inputs),
                    partial(runner, image),
                )
            )
    return found


def measure(found: list[Subject], rounds: int) -> dict[str, dict[str, list[Times]]]:
    """name -> {"bare", "end_to_end"} -> one Times for each round."""
    times: dict[str, dict[str, list[Times]]] = {s.name: {"bare": [], "end_to_end": []} for s in found}
    for i in range(rounds + 2):
        for subject in found:
            subject.bare()
            for way in ("bare", "end_to_end") if i % 2 else ("end_to_end", "bare"):
                taken = timed(getattr(subject, way))
                if i >= 2:  # the first two rounds are warm-up
                    times[subject.name][way].append(taken)
        show(f"round {max(0, i - 1)} of {rounds}")
    return times


def ratio(above: list[Times], below: list[Times], goal: float | None, at_most: bool) -> dict[str, Any]:
    """Ratio of medians with its bootstrap interval over rounds, for wall and CPU time; ``met`` judges wall time."""
    import numpy as np

    a, b = np.array(above), np.array(below)  # [rounds, (wall, cpu)]
    pick = np.random.default_rng(0).integers(0, len(a), (RESAMPLES, len(a)))
    resampled = np.median(a[pick], axis=1) / np.median(b[pick], axis=1)
    value = np.median(a, axis=0) / np.median(b, axis=0)
    low, high = np.percentile(resampled, (2.5, 97.5), axis=0)
    result: dict[str, Any] = {"ratio": value[0], "low": low[0], "high": high[0]}
    result["cpu"] = {"ratio": value[1], "low": low[1], "high": high[1]}
    if goal is not None:
        result["goal"] = f"{'<=' if at_most else '>='} {goal}"
        result["met"] = bool(value[0] <= goal if at_most else value[0] >= goal)
    return json.loads(json.dumps(result, default=float))


def ratios(found: list[Subject], times: dict[str, dict[str, list[Times]]]) -> dict[str, dict[str, Any]]:
    results = {}
    for s in found:
        goal = MOST_AROUND[s.precision] if s.runtime == "onnxruntime" else None
        ways = times[s.name]
        results[f"end to end / bare, {s.name}"] = ratio(ways["end_to_end"], ways["bare"], goal, at_most=True)
    for runtime in dict.fromkeys(s.runtime for s in found):
        names = [f"{runtime} {precision}" for precision in ("fp32", "int8")]
        if all(name in times for name in names):
            fp32, int8 = (times[name]["bare"] for name in names)
            results[f"FP32 / INT8, {runtime}"] = ratio(fp32, int8, LEAST_GAIN.get(runtime), at_most=False)
    return results


def milliseconds(times: dict[str, dict[str, list[Times]]]) -> dict[str, dict[str, Any]]:
    from edgekit.runtime.timing import summary

    return {
        name: {way: summary([t.wall * 1e3 for t in values]) for way, values in ways.items()}
        for name, ways in times.items()
    }


def peak_memory_mb(subject: Subject, image: Path, core: int | None) -> float:
    """Peak resident memory, in 10^6 bytes, of a worker that does nothing but run this file."""
    with tempfile.TemporaryDirectory() as folder:
        job, result = Path(folder, "job.json"), Path(folder, "result.json")
        values = {"artifact": os.path.abspath(subject.artifact), "runtime": subject.runtime, "core": core}
        job.write_text(json.dumps(dict(values, images=[str(image)] * 60, min_count=20, min_seconds=0, warmup=2)))
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        command = [sys.executable, "-m", "edgekit.runtime.worker", str(job), str(result)]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
        if done.returncode:
            raise ChildDied(f"peak memory of {subject.name}: the worker failed: {done.stderr or result.read_text()}")
        return json.loads(result.read_text())["peak_rss_bytes"]["end"] / 1e6


def frame(path: Path) -> Any:
    """The picture at 640x480, as a camera would give it."""
    import cv2

    from edgekit.runtime.images import read_image

    return cv2.resize(read_image(path), FRAME, interpolation=cv2.INTER_AREA)


def show(line: str) -> None:
    if sys.stderr.isatty():
        sys.stderr.write(f"\r\x1b[K{line}")
        sys.stderr.flush()


def table(report: dict[str, Any]) -> str:
    lines = [f"{'ms, median of ' + str(report['rounds']):28}{'bare':>10}{'end to end':>12}{'peak MB':>10}"]
    for name, ways in report["milliseconds"].items():
        memory = report["peak_rss_mb"][name]
        lines.append(f"{name:28}{ways['bare']['p50']:10.2f}{ways['end_to_end']['p50']:12.2f}{memory:10.0f}")
    lines += ["", f"{'ratio':40}{'wall':>8}{'95 % interval':>18}{'CPU':>8}   goal"]
    for name, r in report["ratios"].items():
        goal = f"{r['goal']} {'met' if r['met'] else 'MISSED'}" if "goal" in r else ""
        interval = f"{r['low']:.3f} .. {r['high']:.3f}"
        lines.append(f"{name:40}{r['ratio']:8.3f}{interval:>18}{r['cpu']['ratio']:8.3f}   {goal}")
    return "\n".join(lines)


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp32", required=True, help="folder of an onnx artifact")
    parser.add_argument("--int8", help="folder of an onnx-int8 artifact (flavour x86) of the same network")
    parser.add_argument("--runtimes", nargs="+", default=["onnxruntime", "openvino"])
    parser.add_argument("--image", type=Path, help="a photograph; default: the first of calibration/dhaka-eval")
    parser.add_argument("--rounds", type=int, default=100)
    parser.add_argument("--core", type=int, help="core to run on; default: the least busy")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    parser.add_argument("--check", action="store_true", help="exit with 1 when a goal is missed")
    return parser.parse_args()


def run(options: argparse.Namespace) -> dict[str, Any]:
    core = machine.pick_core() if options.core is None else options.core
    prepare({"core": core, "threads": 1})
    import cv2

    cv2.setNumThreads(1)
    picture = options.image or sorted((ROOT / "calibration" / "dhaka-eval" / "images").glob("*.jpg"))[0]
    artifacts = {"fp32": options.fp32, **({"int8": options.int8} if options.int8 else {})}
    report: dict[str, Any] = {"rounds": options.rounds, "frame": FRAME, "core": core, "before": machine.facts()}
    with ExitStack() as stack:
        found = subjects(artifacts, options.runtimes, frame(picture), stack)
        times = measure(found, options.rounds)
    report["milliseconds"] = milliseconds(times)
    report["ratios"] = ratios(found, times)
    report["peak_rss_mb"] = {s.name: peak_memory_mb(s, picture, core) for s in found}
    report["after"] = machine.facts()
    return report


def main() -> int:
    options = arguments()
    try:
        report = run(options)
    except EdgeKitError as error:
        sys.stderr.write(f"{error}\n")
        return 2
    show("")
    print(table(report))
    if options.out:
        from edgekit.runtime.artifact import new_file

        with new_file(options.out) as handle:
            json.dump(report, handle, indent=1)
    memory_met = all(mb < MOST_MEMORY_MB for mb in report["peak_rss_mb"].values())
    met = memory_met and all(r.get("met", True) for r in report["ratios"].values())
    return 1 if options.check and not met else 0


if __name__ == "__main__":
    sys.exit(main())
