"""Side by side with what users would use instead, on the same file and core, in one run.

    python benchmarks/peers.py --fp32 runs/demo/onnx --int8 runs/demo/onnx-int8 --out benchmarks/results/peers.json

Peers of the network alone, batch 1, one thread, one stream, on the pinned core:

* edgekit: the inference span of ``edgekit bench``, in ONNX Runtime and in OpenVINO; its end to end beside it
* onnxruntime loop: a plain Python loop around ``InferenceSession.run``, as ONNX Runtime's documentation shows it
* onnxruntime_perf_test: ONNX Runtime's own program, when it is on the PATH or given with --perf-test
* benchmark_app: OpenVINO's own program (it comes with the openvino package), synchronous, FP32 kept FP32

Peers of "image in, boxes out" are detector toolkits. Theirs are other networks, so milliseconds say nothing: what is
compared is predict / network, each in its own terms. A toolkit runs in an environment of its own and is never a
dependency of EdgeKit:

* --install transformers makes one in --envs and installs Hugging Face's Transformers there (Apache-2.0; its YOLOS
  detector with random weights); later runs find it
* --toolkit NAME=PYTHON:SCRIPT is any other that you have: SCRIPT IMAGE SECONDS prints {"predict_ms": [...],
  "network_ms": [...]} as its last line (see peers_transformers.py). Mind its licence; EdgeKit ships none of these

Every peer runs once in each round, in a process of its own, in an order that turns: A B C, B C A, ... A figure is the
median over the rounds of each round's median. Where a peer is faster than EdgeKit, the report says so.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import venv
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgekit.board import Board, load_board  # noqa: E402
from edgekit.data.evaluation import evaluation_set  # noqa: E402
from edgekit.measure.bench import BenchOptions, Target, measure_target  # noqa: E402
from edgekit.runtime import machine  # noqa: E402
from edgekit.runtime.artifact import Artifact, new_file, read_artifact  # noqa: E402
from edgekit.runtime.errors import BadConfig, ChildDied, EdgeKitError, MissingDependency  # noqa: E402
from edgekit.runtime.worker import THREAD_VARIABLES  # noqa: E402

IMAGES = 4  # of the evaluation set; the question here is time
WARM_UP = 5
BUSY = 0.5  # load average over the last minute
# What --install puts into an environment of its own; all of permissive licences
TOOLKITS = {
    "transformers": (
        ["torch", "torchvision", "transformers", "pillow"],
        Path(__file__).with_name("peers_transformers.py"),
    )
}
LOOP = """
import json, sys, time
import numpy as np
import onnxruntime as ort
path, seconds, warm_up = sys.argv[1], float(sys.argv[2]), int(sys.argv[3])
options = ort.SessionOptions()
options.intra_op_num_threads = options.inter_op_num_threads = 1
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
port = session.get_inputs()[0]
kind = {"tensor(uint8)": np.uint8}.get(port.type, np.float32)
feed = {port.name: (np.random.default_rng(0).random(port.shape) * 255).astype(kind)}
for _ in range(warm_up):
    session.run(None, feed)
times, end = [], time.perf_counter() + seconds
while time.perf_counter() < end or len(times) < 3:
    started = time.perf_counter()
    session.run(None, feed)
    times.append((time.perf_counter() - started) * 1e3)
print(json.dumps(times))
"""


class Peer(NamedTuple):
    """``measure(seconds)`` gives {"network": ms} and, where it takes images, {"predict": ms}; group: what it can be
    held against ("fp32", "int8": the same file; a toolkit's name: only its own ratio)."""

    name: str
    group: str
    measure: Callable[[float], dict[str, float]]


# -- the peers --------------------------------------------------------------------------------------------------------
def edgekit(artifact: Artifact, runtime: str, board: Board, data: str | None) -> Callable[[float], dict[str, float]]:
    images = evaluation_set(artifact, data)
    few = replace(images, samples=images.samples[:IMAGES])

    def measure(seconds: float) -> dict[str, float]:
        row = measure_target(Target(artifact, runtime), board, few, BenchOptions(WARM_UP, seconds, min_count=3)).row
        if row.latency is None:
            raise ChildDied(f"edgekit {runtime}: {'; '.join(row.verdict.reasons)}")
        return {"network": row.spans["inference"], "predict": row.latency.p50}

    return measure


def plain_loop(file: str, core: int | None) -> Callable[[float], dict[str, float]]:
    def measure(seconds: float) -> dict[str, float]:
        out = run([sys.executable, "-c", LOOP, file, str(seconds), str(WARM_UP)], core)
        return {"network": statistics.median(json.loads(out.splitlines()[-1]))}

    return measure


def perf_test(program: str, file: str, core: int | None) -> Callable[[float], dict[str, float]]:
    def measure(seconds: float) -> dict[str, float]:
        out = run([program, "-e", "cpu", "-I", "-x", "1", "-y", "1", "-t", str(max(1, round(seconds))), file], core)
        return {"network": 1e3 * number(r"P50 Latency:\s*([\d.eE+-]+)\s*s", out, program)}

    return measure


def benchmark_app(program: str, file: str, core: int | None) -> Callable[[float], dict[str, float]]:
    flags = "-d CPU -api sync -hint none -nstreams 1 -nthreads 1 -nireq 1 -infer_precision f32 -inference_only True"

    def measure(seconds: float) -> dict[str, float]:
        out = run([program, "-m", file, "-t", str(max(1, round(seconds))), *flags.split()], core)
        return {"network": number(r"Median:\s*([\d.]+)\s*ms", out, program)}

    return measure


def toolkit(python: str, script: str, image: Path, core: int | None) -> Callable[[float], dict[str, float]]:
    def measure(seconds: float) -> dict[str, float]:
        out = run([python, script, str(image), str(seconds)], core)
        try:
            told = json.loads(out.splitlines()[-1])
            return {name: statistics.median(told[f"{name}_ms"]) for name in ("network", "predict")}
        except (ValueError, KeyError, IndexError, TypeError) as error:
            raise ChildDied(f"{script}: its last line is not the JSON that is asked for: {out[-200:]!r}") from error

    return measure


def run(command: Sequence[str], core: int | None) -> str:
    """Standard output of a program bound to the core, with every thread count at one."""
    environment = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, "1")}

    def bind() -> None:
        if core is not None:
            os.sched_setaffinity(0, {core})

    done = subprocess.run(
        command, env=environment, capture_output=True, text=True, check=False, preexec_fn=bind, stdin=subprocess.DEVNULL
    )
    if done.returncode:
        words = (done.stderr or done.stdout).strip().splitlines()[-1:] or ["it said nothing"]
        raise ChildDied(f"{Path(command[0]).name} ended with {done.returncode}: {words[0]}")
    return done.stdout


def number(pattern: str, text: str, program: str) -> float:
    found = re.search(pattern, text)
    if found is None:
        raise ChildDied(f"{program}: no {pattern!r} in what it printed; another version?")
    return float(found.group(1))


# -- which of them are there ------------------------------------------------------------------------------------------
def peers(options: argparse.Namespace, board: Board, picture: Path) -> tuple[list[Peer], list[str]]:
    """(those that can run, why the others are left out)."""
    found: list[Peer] = []
    missing: list[str] = []
    core = board.core if isinstance(board.core, int) else None
    perf, app = options.perf_test or shutil.which("onnxruntime_perf_test"), find_app()
    for group in ("fp32", "int8"):
        if getattr(options, group) is None:
            continue
        artifact = read_artifact(getattr(options, group), kinds=("onnx", "onnx-int8"))
        file = artifact.file("model.onnx")
        found.append(Peer("edgekit onnxruntime", group, edgekit(artifact, "onnxruntime", board, options.data)))
        found.append(Peer("onnxruntime loop", group, plain_loop(file, core)))
        if perf:
            found.append(Peer("onnxruntime_perf_test", group, perf_test(perf, file, core)))
        if app:
            found.append(Peer("edgekit openvino", group, edgekit(artifact, "openvino", board, options.data)))
            found.append(Peer("benchmark_app", group, benchmark_app(app, file, core)))
    missing += [] if perf else ["onnxruntime_perf_test: not on the PATH; build ONNX Runtime, or give --perf-test"]
    missing += [] if app else ["benchmark_app: pip install 'edgekit[openvino]'"]
    for name, (python, script) in toolkits(options).items():
        found.append(Peer(name, name, toolkit(python, script, picture, core)))
    missing += [f"{name}: --install {name}" for name in TOOLKITS if name not in {peer.name for peer in found}]
    return found, missing


def find_app() -> str | None:
    beside = Path(sys.executable).with_name("benchmark_app")
    return str(beside) if beside.is_file() else shutil.which("benchmark_app")


def toolkits(options: argparse.Namespace) -> dict[str, tuple[str, str]]:
    """Name -> (interpreter, script): those in --envs, and those that were given."""
    found = {}
    for name, (packages, script) in TOOLKITS.items():
        python = options.envs / name / "bin" / "python"
        if name in options.install and not python.is_file():
            install(options.envs / name, packages)
        if python.is_file():
            found[name] = (str(python), str(script))
    for text in options.toolkit:
        name, _, rest = text.partition("=")
        python_text, _, script_text = rest.partition(":")
        if not (name and Path(python_text).is_file() and Path(script_text).is_file()):
            raise BadConfig(f"--toolkit {text!r}: expected NAME=PYTHON:SCRIPT with two files that are there")
        found[name] = (python_text, script_text)
    return found


def install(place: Path, packages: Sequence[str]) -> None:
    """A new environment with these packages; one that failed half-way is taken away again."""
    show(f"installing {', '.join(packages)} into {place}")
    try:
        venv.create(place, with_pip=True)
        run([str(place / "bin" / "python"), "-m", "pip", "install", "--quiet", *packages], None)
    except (OSError, EdgeKitError, KeyboardInterrupt):
        shutil.rmtree(place, ignore_errors=True)
        raise


# -- measuring and telling --------------------------------------------------------------------------------------------
def measure(found: list[Peer], rounds: int, seconds: float) -> tuple[dict[Peer, list[dict[str, float]]], list[str]]:
    """Every peer once a round; one that fails is left out from then on, with its reason."""
    times: dict[Peer, list[dict[str, float]]] = {peer: [] for peer in found}
    failed: list[str] = []
    for number_ in range(rounds):
        turn = number_ % len(found) if found else 0
        for peer in [*found[turn:], *found[:turn]]:
            if peer not in times:
                continue
            show(f"round {number_ + 1} of {rounds}: {peer.group} {peer.name}")
            try:
                times[peer].append(peer.measure(seconds))
            except EdgeKitError as error:
                del times[peer]
                failed.append(f"{peer.group} {peer.name}: {error}")
    return times, failed


def summarise(times: dict[Peer, list[dict[str, float]]]) -> list[dict[str, Any]]:
    """One record per peer: medians over the rounds and their range."""
    records = []
    for peer, rounds in times.items():
        record: dict[str, Any] = {"group": peer.group, "peer": peer.name}
        for name in ("network", "predict"):
            values = [told[name] for told in rounds if name in told]
            if values:
                record[f"{name}_ms"] = statistics.median(values)
                record[f"{name}_range_ms"] = [min(values), max(values)]
        if "predict_ms" in record:
            record["predict_over_network"] = statistics.median(r["predict"] / r["network"] for r in rounds)
        records.append(record)
    return records


def behind(records: list[dict[str, Any]]) -> list[str]:
    """Where EdgeKit is not ahead, in words: a peer whose slowest round beats EdgeKit's best of the same library."""
    said = []
    for peer in records:
        library = "openvino" if peer["peer"] == "benchmark_app" else "onnxruntime"
        ours = next((r for r in records if r["peer"] == f"edgekit {library}" and r["group"] == peer["group"]), None)
        if ours is None or ours is peer or peer["peer"].startswith("edgekit"):
            continue
        if peer["network_range_ms"][1] < ours["network_range_ms"][0]:
            said.append(
                f"{peer['group']}: {peer['peer']} takes {peer['network_ms']:.2f} ms, EdgeKit's inference span "
                f"{ours['network_ms']:.2f} ms"
            )
    own = [r["predict_over_network"] for r in records if r["peer"].startswith("edgekit")]
    for record in records:
        if own and record["peer"] == record["group"] and record["predict_over_network"] < max(own):
            ratio = record["predict_over_network"]
            said.append(f"{record['peer']}: predict / network is {ratio:.3f}, EdgeKit's {max(own):.3f} at worst")
    return said


def table(report: dict[str, Any]) -> str:
    lines = [f"{'':8}{'':26}{'network ms':>12}{'range':>20}{'predict ms':>12}{'predict / network':>20}"]
    for r in report["peers"]:
        low, high = r["network_range_ms"]
        predict = f"{r['predict_ms']:.2f}" if "predict_ms" in r else "-"
        share = f"{r['predict_over_network']:.3f}" if "predict_ms" in r else "-"
        span = f"{low:.2f} .. {high:.2f}"
        lines.append(f"{r['group']:8.7}{r['peer']:26}{r['network_ms']:12.2f}{span:>20}{predict:>12}{share:>20}")
    lines += [f"left out: {text}" for text in report["left_out"]]
    load = report["before"]["load_average"]
    if isinstance(load, list) and load[0] > BUSY:
        lines.append(f"The machine was busy when this began (load average {load[0]}): do not rely on these figures.")
    lines += [f"EdgeKit is behind: {text}" for text in report["behind"]] or ["EdgeKit is behind nowhere in this run."]
    return "\n".join(lines)


def show(line: str) -> None:
    sys.stderr.write(line + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--fp32", help="folder of an onnx artifact")
    parser.add_argument("--int8", help="folder of an onnx-int8 artifact")
    parser.add_argument("--board", default="x86-1t")
    parser.add_argument("--data", help="annotated images; default: those of the artifact's recipe")
    parser.add_argument("--image", type=Path, help="for the toolkits; default: the first of calibration/dhaka-eval")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5.0, help="of each peer in each round")
    parser.add_argument("--perf-test", help="onnxruntime_perf_test, when it is not on the PATH")
    parser.add_argument("--install", action="append", default=[], choices=sorted(TOOLKITS))
    parser.add_argument("--toolkit", action="append", default=[], metavar="NAME=PYTHON:SCRIPT")
    parser.add_argument("--envs", type=Path, default=Path.home() / ".cache" / "edgekit" / "peers")
    parser.add_argument("--out", type=Path, help="write the report here as JSON")
    return parser.parse_args()


def compare(options: argparse.Namespace) -> dict[str, Any]:
    if options.fp32 is None and options.int8 is None:
        raise BadConfig("give --fp32 FOLDER, --int8 FOLDER or both. Make them with: edgekit run RECIPE")
    profile = load_board(options.board)
    board = profile.model_copy(update={"core": profile.pinned_core()})  # the same core for all, all the time
    picture = options.image or sorted((ROOT / "calibration" / "dhaka-eval" / "images").glob("*.jpg"))[0]
    report: dict[str, Any] = {"rounds": options.rounds, "seconds": options.seconds, "before": machine.facts()}
    found, missing = peers(options, board, picture)
    times, failed = measure(found, options.rounds, options.seconds)
    if not times:
        raise MissingDependency(f"no peer could be measured: {'; '.join(failed)}")
    report["peers"] = summarise(times)
    report |= {"left_out": missing + failed, "behind": behind(report["peers"]), "after": machine.facts()}
    return report


def main() -> int:
    options = arguments()
    try:
        report = compare(options)
    except EdgeKitError as error:
        show(str(error))
        return 2
    print(table(report))
    if options.out:
        with new_file(options.out) as handle:
            json.dump(report, handle, indent=1)
    return 0


if __name__ == "__main__":
    sys.exit(main())
