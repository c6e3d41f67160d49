"""Bench: run one artifact on one board in a process of its own, and turn what that process says into a ``Row``.

MLPerf Inference's SingleStream: real images, one after the other, the next one starts when the last one is finished; a
warm-up that is kept apart; no frame is left out. The same run gives the detections that mAP is computed from.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, NamedTuple

import numpy as np
import psutil

from ..board import Board
from ..runtime import errors
from ..runtime.artifact import Artifact, read_artifact
from ..runtime.detections import Detections
from ..runtime.errors import ArtifactError, BadInput, ChildDied, EdgeKitError
from .row import Accuracy, Complexity, InputShape, Latency, ModelFile, Process, Row, Status, Verdict

if TYPE_CHECKING:
    from ..data.coco import CocoSet

Progress = Callable[[str, int, int], None]
"""(phase, done, total); phases are load, warm-up, timed and accuracy."""

WORKER = (sys.executable, "-m", "edgekit.runtime.worker")
_PACKAGE_ROOT = Path(__file__).resolve().parents[2]
# The payload that a runtime loads, by artifact kind
MODEL_FILES = {"checkpoint": "weights.safetensors", "onnx": "model.onnx", "onnx-int8": "model.onnx"}

LEAST_CPU_SHARE = 0.97  # of wall time, for one pinned thread; less means that somebody else had the core
MOST_OTHER_LOAD = 0.25  # cores kept busy by others


@dataclass(frozen=True)
class BenchOptions:
    """How long and on what. None takes the board's value, or the worker's for timed_images.

    warmup: frames before the timed ones; the timed part ends when both min_seconds and min_count are reached
    timed_images: how many of the images, from the first, the timed loop goes round
    score_threshold: replaces the artifact's, 0..1
    set_name: how the report calls the evaluation set
    """

    warmup: int | None = None
    min_seconds: float | None = None
    min_count: int | None = None
    timed_images: int | None = None
    score_threshold: float | None = None
    set_name: str | None = None


@dataclass(frozen=True)
class Target:
    """One row to be: an artifact in a runtime.

    shipped: the ONNX artifact whose GOPS and parameters hold for this one too; a checkpoint has no graph to count on
    """

    artifact: Artifact
    runtime: str
    shipped: Artifact | None = None


class Measurement(NamedTuple):
    """A row, and the detections that its accuracy was computed from, by image id; for drawing. Empty when it failed."""

    row: Row
    detections: dict[int, Detections]


def bench_artifact(
    artifact: Artifact | str | Path,
    board: Board,
    runtime: str,
    eval_set: CocoSet,
    options: BenchOptions | None = None,
    shipped: Artifact | None = None,
    progress: Progress | None = None,
) -> Row:
    """Measure one artifact on this machine as ``board``.

    Raises BoardLacks before any work, the worker's own EdgeKitError, or ChildDied when the worker crashed.
    """
    found = artifact if isinstance(artifact, Artifact) else read_artifact(artifact)
    return measure_target(Target(found, runtime, shipped), board, eval_set, options, progress).row


def bench_targets(
    targets: Sequence[Target],
    board: Board,
    eval_set: CocoSet,
    options: BenchOptions | None = None,
    progress: Callable[[Target], Progress | None] | None = None,
    worker: Sequence[str] = WORKER,
) -> list[Measurement]:
    """Measure one after the other. A target that fails becomes a row that says why, and the others go on.

    progress: gives the callback for each target. When not one target could be measured, the first error is raised.
    """
    measured, failed = [], []
    for target in targets:
        try:
            callback = progress(target) if progress else None
            measured.append(measure_target(target, board, eval_set, options, callback, worker))
        except EdgeKitError as error:
            failed.append(error)
            measured.append(Measurement(unmeasured_row(target, board, str(error), options), {}))
    if failed and len(failed) == len(targets):
        raise failed[0]
    return measured


def measure_target(
    target: Target,
    board: Board,
    eval_set: CocoSet,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
    worker: Sequence[str] = WORKER,
) -> Measurement:
    """``bench_artifact`` with the detections kept, and with the command that runs the worker."""
    options = options or BenchOptions()
    manifest = target.artifact.manifest
    board.require(target.runtime, _declared(target), manifest.get("input", {}).get("layout"))
    job = _job(target, board, eval_set, options)
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    result, other_load = run_worker(job, worker, progress)
    detections = _detections(result, eval_set)
    row = _row(target, board, job, result, other_load, _accuracy(eval_set, detections, options), started)
    return Measurement(row, detections)


def _job(target: Target, board: Board, eval_set: CocoSet, options: BenchOptions) -> dict[str, Any]:
    if not eval_set.samples:
        raise BadInput(f"{eval_set.annotations}: no image to measure on; give an evaluation set that has some")
    default = board.measure
    return {
        "artifact": os.path.abspath(target.artifact.path),
        "runtime": target.runtime,
        "core": board.pinned_core(),
        "threads": board.thread_count(),
        "warmup": default.warmup if options.warmup is None else options.warmup,
        "min_seconds": default.min_seconds if options.min_seconds is None else options.min_seconds,
        "min_count": default.min_count if options.min_count is None else options.min_count,
        "images": [str(sample.path.resolve()) for sample in eval_set.samples],
        "timed_images": options.timed_images,
        "score_threshold": options.score_threshold,
    }


# -- the child process ------------------------------------------------------------------------------------------------
def run_worker(
    job: Mapping[str, Any], command: Sequence[str] = WORKER, progress: Progress | None = None
) -> tuple[dict[str, Any], float | None]:
    """Run ``command JOB RESULT`` and return (result, cores that others kept busy meanwhile).

    Raises the EdgeKitError that the worker reported, or ChildDied naming the artifact, the runtime and the signal.
    An exception here (Ctrl-C included) kills the worker and everything it started.
    """
    with tempfile.TemporaryDirectory(prefix="edgekit-bench-") as folder, tempfile.TemporaryFile() as errors_file:
        job_file, result_file = Path(folder) / "job.json", Path(folder) / "result.json"
        job_file.write_text(json.dumps(job), encoding="utf-8")
        load = _OtherLoad()
        process = _start([*command, str(job_file), str(result_file)], errors_file)
        try:
            if process.stdout is not None:
                _listen(process.stdout, progress)
            process.wait()
        finally:
            _kill_group(process)
        result = _read_result(result_file)
        if result is None or (process.returncode != 0 and "error" not in result):
            raise ChildDied(_obituary(job, process.returncode, _last_words(errors_file)))
    if "error" in result:
        raise _same_error(result)
    return result, load.cores()


def _start(command: Sequence[str], errors_file: IO[bytes]) -> subprocess.Popen[str]:
    path = os.pathsep.join(filter(None, [str(_PACKAGE_ROOT), os.environ.get("PYTHONPATH")]))
    return subprocess.Popen(
        command,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors_file,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group of its own: it can be killed whole, and Ctrl-C reaches only the parent
        env={**os.environ, "PYTHONPATH": path},
    )


def _listen(lines: IO[str], progress: Progress | None) -> None:
    """Read until the worker closes its output. A library may print there too; such lines are not progress."""
    for line in lines:
        message = _parse(line)
        if progress is not None and isinstance(message, dict) and message.keys() >= {"phase", "done", "total"}:
            progress(str(message["phase"]), int(message["done"]), int(message["total"]))


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _kill_group(process: subprocess.Popen[str]) -> None:
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    if process.stdout is not None:
        process.stdout.close()


def _read_result(file: Path) -> dict[str, Any] | None:
    result = _parse(file.read_text(encoding="utf-8")) if file.is_file() else None
    return result if isinstance(result, dict) else None


def _same_error(result: Mapping[str, Any]) -> EdgeKitError:
    kind = getattr(errors, str(result.get("type")), EdgeKitError)
    return kind(result["error"]) if issubclass(kind, EdgeKitError) else EdgeKitError(result["error"])


def _obituary(job: Mapping[str, Any], code: int, words: str) -> str:
    if code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
        cause += " (often the machine ran out of memory)" if code == -signal.SIGKILL else ""
    else:
        cause = f"ended with exit code {code} and left no result"
    return f"bench of {job['artifact']} in {job['runtime']} {cause}" + (f"; its last words: {words}" if words else "")


def _last_words(file: IO[bytes]) -> str:
    file.seek(max(0, file.seek(0, os.SEEK_END) - 4096))
    lines = [line.strip() for line in file.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


class _OtherLoad:
    """CPU time that other processes took of the cores that this one may use, while a child ran."""

    def __init__(self) -> None:
        self._busy, self._ours, self._wall = self._read()

    def cores(self) -> float | None:
        """Mean number of cores kept busy by others since the start; the child must have been waited for."""
        busy, ours, wall = self._read()
        if wall <= self._wall:
            return None
        return round(max(0.0, (busy - self._busy) - (ours - self._ours)) / (wall - self._wall), 3)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        allowed = os.sched_getaffinity(0)
        cores = [times for core, times in enumerate(psutil.cpu_times(percpu=True)) if core in allowed]
        # guest time is in user time already
        busy = sum(t.user + t.nice + t.system + t.irq + t.softirq + t.steal for t in cores)
        own = os.times()
        return busy, own.user + own.system + own.children_user + own.children_system, own.elapsed


# -- from result to row -----------------------------------------------------------------------------------------------
def _detections(result: Mapping[str, Any], eval_set: CocoSet) -> dict[int, Detections]:
    records = result["detections"]
    if [r["image"] for r in records] != [str(s.path.resolve()) for s in eval_set.samples]:
        raise ChildDied("bench: the worker answered for other images than it was asked for; this is a fault of EdgeKit")
    return {
        sample.image_id: Detections(record["boxes"], record["scores"], record["class_ids"])
        for sample, record in zip(eval_set.samples, records, strict=True)
    }


def _accuracy(eval_set: CocoSet, detections: dict[int, Detections], options: BenchOptions) -> Accuracy | None:
    """None for a set without labels: then the row is perf-only."""
    from ..evaluation.coco import evaluate_detections

    if not eval_set.class_counts().any():
        return None
    metrics = evaluate_detections(eval_set, detections)
    name = options.set_name or eval_set.annotations.stem
    return Accuracy.model_validate({**metrics.to_dict(), "set": name, "set_digest": eval_set.digest()})


def _row(
    target: Target,
    board: Board,
    job: Mapping[str, Any],
    result: Mapping[str, Any],
    other_load: float | None,
    accuracy: Accuracy | None,
    started: str,
) -> Row:
    width, height = result["preprocess"]["size"]
    samples = tuple(result["latency_ms"]["total"])
    process = _process(job, result, other_load)
    verdict = judge(samples, process, board.noisy_ratio, accuracy is not None)
    return Row(
        **_identity(target, board),
        runtime_version=result["session"].get("version"),
        precision=result["session"].get("precision", _declared(target)),
        input=InputShape(width=width, height=height, layout=result["layout"]),
        accuracy=accuracy,
        latency=Latency.from_samples(samples),
        spans={name: float(np.median(ms)) for name, ms in result["latency_ms"].items() if name != "total"},
        samples=samples,
        process=process,
        machine={"before": result["machine_before"], "after": result["machine_after"]},
        session=result["session"],
        started=started,
        verdict=verdict.model_copy(update={"reasons": verdict.reasons + _surprises(target, result)}),
    )


def _declared(target: Target) -> str:
    return str(target.artifact.manifest.get("precision", "fp32"))


def _surprises(target: Target, result: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the runtime does something else than the file says; it does not make the run less valid."""
    real = result["session"].get("precision", _declared(target))
    return () if real == _declared(target) else (f"the file is {_declared(target)}, the runtime computes in {real}",)


def _identity(target: Target, board: Board) -> dict[str, Any]:
    """What is known of a row before anything runs."""
    manifest = target.artifact.manifest
    return {
        "model": _network(manifest),
        "recipe": manifest.get("recipe", {}).get("name", "unknown"),
        "board": board.name,
        "runtime": target.runtime,
        "artifact": target.artifact.digest,
        "model_file": _model_file(target.artifact),
        "complexity": _complexity(target.shipped or target.artifact),
        "tools": {name: str(value) for name, value in manifest.get("tools", {}).items()},
    }


def _network(manifest: Mapping[str, Any]) -> str:
    """The network's name with the parts that its recipe chose by name: "mobile-centernet hrnet-w16"."""
    recipe = manifest.get("recipe", {})
    section = recipe.get("model", {})
    parts = [v for v in (section.get("options") or {}).values() if isinstance(v, str)]
    return " ".join([section.get("name", recipe.get("name", "unknown")), *parts])


def _model_file(artifact: Artifact) -> ModelFile:
    name = MODEL_FILES.get(artifact.kind)
    if name is None or name not in artifact.manifest["payload"]:
        raise ArtifactError(f"{artifact.path}: kind {artifact.kind!r} has no model file to measure; export it first")
    return ModelFile(name=name, **artifact.manifest["payload"][name])


def _complexity(artifact: Artifact) -> Complexity | None:
    counted = artifact.manifest.get("complexity")
    if counted is None:
        return None
    learnable = artifact.manifest.get("learnable_parameters")
    return Complexity(**{k: counted[k] for k in ("macs", "gops", "parameters")}, learnable=learnable)


def _process(job: Mapping[str, Any], result: Mapping[str, Any], other_load: float | None) -> Process:
    timed, peak = result["timed"], result["peak_rss_bytes"]["end"]
    return Process(
        threads=job["threads"],
        core=job["core"],
        warmup=len(result["warmup_ms"]),
        load_seconds=result["load_seconds"],
        cold_ms=result["first_ms"]["total"],
        decode_ms=float(np.median(result["decode_ms"])),
        seconds=timed["wall_seconds"],
        images=timed["images"],
        peak_rss_mb=None if isinstance(peak, str) else peak / 1e6,
        cpu_over_wall=timed["cpu_over_wall"],
        involuntary_switches=timed["involuntary_switches"],
        other_load=other_load,
    )


def judge(samples: Sequence[float], process: Process, noisy_ratio: float, accuracy_known: bool) -> Verdict:
    """The verdict on a run, with every reason in words.

    samples: end-to-end ms, at least one; noisy_ratio: the board's limit of p90/p50. The 90th percentile is used here
    however few the samples are: it warns, while the printed p90 claims.
    """
    p50, p90 = np.percentile(samples, (50, 90))
    reasons = []
    if p90 > noisy_ratio * p50:
        reasons.append(f"p90 is {p90 / p50:.2f} x p50; the board allows {noisy_ratio:g} x")
    share = process.cpu_over_wall
    if process.core is not None and process.threads == 1 and share is not None and share < LEAST_CPU_SHARE:
        reasons.append(
            f"the process had its core for only {share:.0%} of the time "
            f"({process.involuntary_switches} involuntary context switches)"
        )
    if process.other_load is not None and process.other_load > MOST_OTHER_LOAD:
        reasons.append(f"other processes kept {process.other_load:.1f} cores busy meanwhile")
    status: Status = "noisy" if reasons else "valid" if accuracy_known else "perf-only"
    if not accuracy_known:
        reasons.append("accuracy unknown: the images have no labels")
    return Verdict(status=status, reasons=tuple(reasons))


def unmeasured_row(target: Target, board: Board, reason: str, options: BenchOptions | None = None) -> Row:
    """The row of a target that could not be measured: its identity, and why."""
    options = options or BenchOptions()
    manifest = target.artifact.manifest
    width, height = manifest["preprocess"]["size"]
    return Row(
        **_identity(target, board),
        precision=_declared(target),
        input=InputShape(width=width, height=height, layout=manifest.get("input", {}).get("layout", "unknown")),
        process=Process(
            threads=board.thread_count(),
            core=None,
            warmup=board.measure.warmup if options.warmup is None else options.warmup,
        ),
        verdict=Verdict(status="not measured", reasons=(reason,)),
    )
