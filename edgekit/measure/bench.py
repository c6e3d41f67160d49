"""Bench: run one artifact on one board in a process of its own, and turn what that process says into a ``Row``.

MLPerf Inference's SingleStream: real images, one after the other, the next one starts when the last one is finished; a
warm-up that is kept apart; no frame is left out. The same run gives the detections that mAP is computed from.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from safetensors import SafetensorError, safe_open

from ..board import Board
from ..paths import WEIGHTS
from ..progress import Progress
from ..runtime.artifact import Artifact
from ..runtime.detections import Detections
from ..runtime.errors import ArtifactError, BadInput, ChildDied, EdgeKitError
from ..runtime.telemetry import CPU_CLOCK
from .drift import follows_the_machine
from .process import WORKER, run_worker
from .row import (
    TWIN,
    Accuracy,
    Complexity,
    Drop,
    Energy,
    InputShape,
    Latency,
    MachineReference,
    ModelFile,
    Process,
    Row,
    Sustained,
    Throughput,
    Track,
    Verdict,
)
from .verdict import judge, simulators

if TYPE_CHECKING:
    from ..data.coco import CocoSet

# The payload that a runtime loads, by artifact kind
MODEL_FILES = {
    "checkpoint": WEIGHTS,
    "onnx": "model.onnx",
    "onnx-int8": "model.onnx",
    "engine": "model.plan",
}
_STATISTICS = (".running_mean", ".running_var", ".num_batches_tracked")
FULL_SECONDS, FULL_COUNT = 600.0, 662  # MLPerf's SingleStream lasts ten minutes; p99 needs 662 frames


@dataclass(frozen=True)
class BenchOptions:
    """How long and on what. None takes the board's value, or the worker's for timed_images.

    warmup: frames before the timed ones; the timed part ends when both min_seconds and min_count are reached
    timed_images: how many of the images, from the first, the timed loop goes round
    score_threshold: replaces the artifact's, 0..1
    set_name: how the report calls the evaluation set
    offline: measure throughput too, with every core
    layers: time every layer too, in a process of its own
    """

    warmup: int | None = None
    min_seconds: float | None = None
    min_count: int | None = None
    timed_images: int | None = None
    score_threshold: float | None = None
    set_name: str | None = None
    offline: bool = False
    layers: bool = False

    @classmethod
    def full(cls, **changes: Any) -> BenchOptions:
        """As long as MLPerf asks for, and with frames enough for p99."""
        return cls(**{"min_seconds": FULL_SECONDS, "min_count": FULL_COUNT, **changes})


@dataclass(frozen=True)
class Target:
    """One row to be: an artifact in a runtime.

    graph: the ONNX artifact whose GOPS and parameters hold for this one too; a checkpoint has no graph to count on
    """

    artifact: Artifact
    runtime: str
    graph: Artifact | None = None


class Measurement(NamedTuple):
    """A row, and the detections that its accuracy was computed from, by image id; for drawing. Empty when it failed."""

    row: Row
    detections: dict[int, Detections]


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
    rows = with_drops([m.row for m in measured], targets)
    if any(row.layers for row in rows):
        from .layers import with_common_peaks

        rows = with_common_peaks(rows)
    return [m._replace(row=row) for m, row in zip(measured, rows, strict=True)]


def measure_target(
    target: Target,
    board: Board,
    eval_set: CocoSet,
    options: BenchOptions | None = None,
    progress: Progress | None = None,
    worker: Sequence[str] = WORKER,
) -> Measurement:
    """Measure one artifact on this machine as ``board``. worker: the command that runs the worker.

    Raises BoardLacks before any work, the worker's own EdgeKitError, or ChildDied when the worker crashed.
    """
    options = options or BenchOptions()
    job = worker_job(target, board, eval_set, options)
    if (count := target.artifact.batch) > 1:
        return Measurement(_batch_row(target, board, job, options, count, worker, progress), {})
    started = datetime.now(timezone.utc).isoformat(timespec="seconds")
    result, other_load = run_worker(job, worker, progress)
    measurement = measured(target, board, eval_set, options, job, result, other_load, started)
    return measurement._replace(row=_with_extras(measurement.row, target, board, job, options, worker, progress))


def _batch_row(
    target: Target,
    board: Board,
    job: Mapping[str, Any],
    options: BenchOptions,
    count: int,
    worker: Sequence[str],
    progress: Progress | None,
) -> Row:
    """The row of a file that was exported with a batch: throughput alone, as latency is that of one image."""
    reason = f"latency and accuracy are of one image at a time, and this file takes {count} a call"
    if not options.offline:
        raise BadInput(f"{target.artifact.path}: {reason}. Measure its throughput: edgekit bench --offline")
    row = unmeasured_row(target, board, reason, options)
    return row.model_copy(update={"throughput": (measure_offline(job, board, worker, progress),)})


def measured(
    target: Target,
    board: Board,
    eval_set: CocoSet,
    options: BenchOptions,
    job: Mapping[str, Any],
    result: Mapping[str, Any],
    other_load: float | None,
    started: str,
) -> Measurement:
    """What a worker's result says. ``job`` is what it was asked; it may have run here or on a board."""
    detections = _detections(result, eval_set)
    why = _perf_only(target, eval_set)
    accuracy = None if why else _accuracy(eval_set, detections, options)
    return Measurement(_row(target, board, job, result, other_load, accuracy or why, started), detections)


def _with_extras(
    row: Row,
    target: Target,
    board: Board,
    job: Mapping[str, Any],
    options: BenchOptions,
    worker: Sequence[str],
    progress: Progress | None,
) -> Row:
    """The row with what takes processes of its own. One that fails is told in the verdict; the latency stands."""
    changes: dict[str, Any] = {}
    lost: list[str] = []
    if options.offline:
        try:
            changes["throughput"] = (measure_offline(job, board, worker, progress),)
        except EdgeKitError as error:
            lost.append(f"throughput was not measured: {error}")
    if options.layers:
        from .layers import measure_layers

        try:
            changes.update(measure_layers(row, target, board, job, progress))
        except EdgeKitError as error:
            lost.append(f"layers were not measured: {error}")
    verdict = row.verdict.model_copy(update={"reasons": (*row.verdict.reasons, *lost)})
    return row.model_copy(update={**changes, "verdict": verdict})


def measure_offline(
    job: Mapping[str, Any], board: Board, worker: Sequence[str] = WORKER, progress: Progress | None = None
) -> Throughput:
    """Images per second with all cores that this process may use: one session of one thread for each of them.

    On an accelerator one session has the device for itself.
    """
    streams = 1 if board.kind in ("jetson", "gpu") else len(os.sched_getaffinity(0))
    asked = {**job, "core": None, "threads": 1, "mode": "offline", "streams": streams}
    result, _ = run_worker(asked, worker, progress)
    done = result["offline"]
    note = f"{streams} sessions side by side, one thread each" if streams > 1 else "one session"
    note += (
        f"; {done['batch']} images a call"
        if done["batch"] > 1
        else "; one image a call, as the file was exported with a static batch of one"
    )
    cores = result["cores"] if isinstance(result["cores"], list) else ()
    fields = {"fps": done["fps"], "batch": done["batch"], "streams": streams, "threads": 1, "cores": tuple(cores)}
    return Throughput(
        **fields, count=done["count"], seconds=done["wall_seconds"], cpu_over_wall=done["cpu_over_wall"], note=note
    )


def with_drops(rows: Sequence[Row], targets: Sequence[Target]) -> list[Row]:
    """The rows, each with what it lost against the FP32 file of its network that was measured in the same call.

    The reference is the FP32 ONNX file in the same runtime, else in another, else the checkpoint in PyTorch, on the
    same evaluation set. Of several networks of one recipe it is that which the row's artifact was made from. A
    reference has no drop, nor has a row whose own FP32 file was not measured.
    """
    artifacts = [target.artifact for target in targets]
    lines = {artifact.digest: _line(artifact, artifacts) for artifact in artifacts}
    kinds = {artifact.digest: artifact.kind for artifact in artifacts}
    return [row.model_copy(update={"drop": _drop(row, _reference(row, rows, kinds, lines))}) for row in rows]


def _line(artifact: Artifact, known: Sequence[Artifact]) -> set[str]:
    """Digests of an artifact and of those it was made from, back to the checkpoint as far as the known ones tell."""
    manifests = {other.digest: other.manifest for other in known}
    line, open_ends = set(), [artifact.digest]
    while open_ends:
        digest = open_ends.pop()
        line.add(digest)
        parents = manifests.get(digest, {}).get("parents", {})
        open_ends += [parents[role] for role in ("onnx", "checkpoint") if role in parents]
    return line


def _reference(row: Row, rows: Sequence[Row], kinds: Mapping[str, str], lines: Mapping[str, set[str]]) -> Row | None:
    """kinds, lines: of the artifacts by their digests"""
    if row.accuracy is None or (row.precision == "fp32" and kinds[row.artifact] == "onnx"):
        return None  # not known, or a reference itself
    digest = row.accuracy.set_digest
    found = [
        r
        for r in rows
        if r.artifact != row.artifact and r.recipe == row.recipe
        if r.precision == "fp32" and kinds[r.artifact] in ("onnx", "checkpoint")
        if r.accuracy is not None and r.accuracy.set_digest == digest
    ]
    own = lines[row.artifact]
    return min(
        _of_one_network(row, found, kinds, lines),
        key=lambda r: (r.artifact not in own, kinds[r.artifact] != "onnx", r.runtime != row.runtime),
        default=None,
    )


def _of_one_network(
    row: Row, found: Sequence[Row], kinds: Mapping[str, str], lines: Mapping[str, set[str]]
) -> Sequence[Row]:
    """Those that a row's artifact was made from, or that were made from the same; where nothing tells, all if they are
    one network: two trainings of a recipe are two.
    """
    own = lines[row.artifact]
    kin = [r for r in found if lines[r.artifact] & own]
    if kin or kinds[row.artifact] == "checkpoint":
        return kin
    if kinds[row.artifact] == "onnx-int8" and len(own) > 1:  # it names its FP32 file, which is none of these
        found = [r for r in found if kinds[r.artifact] != "onnx"]
    return found if found and set.intersection(*(lines[r.artifact] for r in found)) else []


def _drop(row: Row, reference: Row | None) -> Drop | None:
    if reference is None or reference.accuracy is None or row.accuracy is None:
        return None
    return Drop(
        map=reference.accuracy.map - row.accuracy.map,
        map50=reference.accuracy.map50 - row.accuracy.map50,
        reference=reference.artifact,
        runtime=reference.runtime,
    )


def worker_job(target: Target, board: Board, eval_set: CocoSet, options: BenchOptions) -> dict[str, Any]:
    """What the worker is asked. Raises BoardLacks before any work, and BadInput for a set without images."""
    manifest = target.artifact.manifest
    board.require(target.runtime, _declared(target), manifest.get("input", {}).get("layout"))
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


# -- from result to row -----------------------------------------------------------------------------------------------
def _detections(result: Mapping[str, Any], eval_set: CocoSet) -> dict[int, Detections]:
    records = result["detections"]
    if [r["image"] for r in records] != [str(s.path.resolve()) for s in eval_set.samples]:
        raise ChildDied("bench: the worker answered for other images than it was asked for; this is a fault of EdgeKit")
    return {
        sample.image_id: Detections(record["boxes"], record["scores"], record["class_ids"])
        for sample, record in zip(eval_set.samples, records, strict=True)
    }


def _accuracy(eval_set: CocoSet, detections: dict[int, Detections], options: BenchOptions) -> Accuracy:
    from ..evaluation.coco import evaluate_detections

    metrics = evaluate_detections(eval_set, detections)
    name = options.set_name or eval_set.annotations.stem
    if Path(name).is_absolute():  # another machine has it elsewhere
        name = str(Path(*Path(name).parts[-2:]))
    return Accuracy.model_validate({**metrics.to_dict(), "set": name, "set_digest": eval_set.digest()})


def _row(
    target: Target,
    board: Board,
    job: Mapping[str, Any],
    result: Mapping[str, Any],
    other_load: float | None,
    accuracy: Accuracy | str,
    started: str,
) -> Row:
    """accuracy: or why it is not known"""
    width, height = result["preprocess"]["size"]
    samples = tuple(result["latency_ms"]["total"])
    process, sustained, reference = _process(job, result, other_load), _sustained(result), _machine_reference(result)
    telemetry = result.get("telemetry", {})
    tracks = tuple(Track.model_validate(track) for track in telemetry.get("tracks", ()))
    on_cpu = follows_the_machine(target.runtime)
    known, why = (accuracy, "") if isinstance(accuracy, Accuracy) else (None, accuracy)
    simulated = simulators(result)
    judged = tuple(track for track in tracks if on_cpu or track.name != CPU_CLOCK)
    beside = reference if on_cpu else None
    verdict = judge(samples, process, board.noisy_ratio, known is not None, sustained, judged, simulated, why, beside)
    return Row(
        **_identity(target, board.model_copy(update={"name": TWIN}) if simulated else board),
        runtime_version=result["session"].get("version"),
        precision=result["session"].get("precision", _declared(target)),
        input=InputShape(width=width, height=height, layout=result["layout"]),
        accuracy=known,
        latency=Latency.from_samples(samples),
        spans={name: float(np.median(ms)) for name, ms in result["latency_ms"].items() if name != "total"},
        samples=samples,
        sustained=sustained,
        machine_reference=reference,
        energy=_energy(telemetry, len(samples), process.seconds) if job.get("mode", "latency") == "latency" else None,
        tracks=tracks,
        process=process,
        machine={"before": result["machine_before"], "after": result["machine_after"]},
        session=result["session"],
        started=started,
        verdict=verdict.model_copy(update={"reasons": verdict.reasons + _surprises(target, result)}),
    )


def _perf_only(target: Target, eval_set: CocoSet) -> str:
    """Why the boxes of this file have no accuracy on these images; "" where they have one."""
    manifest = target.artifact.manifest
    if reason := (manifest.get("engine") or {}).get("perf_only"):
        return str(reason)  # an engine that was built in INT8 without calibration
    classes = tuple(manifest.get("classes", ()))
    if classes != tuple(eval_set.classes):
        return f"the network's classes are {', '.join(classes)}, those of the images {', '.join(eval_set.classes)}"
    return "" if eval_set.class_counts().any() else "the images have no labels"


def _declared(target: Target) -> str:
    return str(target.artifact.manifest.get("precision", "fp32"))


def _surprises(target: Target, result: Mapping[str, Any]) -> tuple[str, ...]:
    """Where the runtime does something else than the file says; it does not make the run less valid."""
    real = result["session"].get("precision", _declared(target))
    return () if real == _declared(target) else (f"the file is {_declared(target)}, the runtime computes in {real}",)


def _identity(target: Target, board: Board) -> dict[str, Any]:
    """What is known of a row before anything runs."""
    manifest = target.artifact.manifest
    complexity = _complexity(target.artifact) or (_complexity(target.graph) if target.graph else None)
    return {
        "model": _network(manifest),
        "recipe": manifest.get("recipe", {}).get("name", "unknown"),
        "board": board.name,
        "runtime": target.runtime,
        "artifact": target.artifact.digest,
        "model_file": _model_file(target.artifact),
        "complexity": complexity,
        "learnable": None if complexity else _learnable(target.artifact),
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
    if counted is None or counted["macs"] is None:  # an operator that nobody counts: no figure is better than a part
        return None
    learnable = artifact.manifest.get("learnable_parameters")
    return Complexity(**{k: counted[k] for k in ("macs", "gops", "parameters")}, learnable=learnable)


def _learnable(artifact: Artifact) -> int | None:
    """Parameters of a checkpoint: all that its file holds but what batch normalisation counts. Torch is not needed."""
    if artifact.kind != "checkpoint":
        return None
    try:
        with safe_open(Path(artifact.path) / WEIGHTS, framework="np") as file:
            names = file.keys()
            return sum(prod(file.get_slice(name).get_shape()) for name in names if not name.endswith(_STATISTICS))
    except (OSError, SafetensorError):
        return None


def _process(job: Mapping[str, Any], result: Mapping[str, Any], other_load: float | None) -> Process:
    timed, peak = result["timed"], result["peak_rss_bytes"]["end"]
    return Process(
        threads=job["threads"],
        core=job["core"],
        warmup=len(result["warmup_ms"]),
        load_seconds=result["load_seconds"],
        cold_ms=result["first_ms"]["total"],
        cold_spans={name: ms for name, ms in result["first_ms"].items() if name != "total"},
        decode_ms=float(np.median(result["decode_ms"])),
        seconds=timed["wall_seconds"],
        images=timed["images"],
        peak_rss_mb=None if isinstance(peak, str) else peak / 1e6,
        device_memory_mb=_megabytes(result["session"].get("device_memory_bytes")),
        cpu_over_wall=timed["cpu_over_wall"],
        involuntary_switches=timed["involuntary_switches"],
        voluntary_switches=timed.get("voluntary_switches"),
        other_load=other_load,
    )


def _megabytes(count: Any) -> float | None:
    return count / 1e6 if isinstance(count, int | float) else None


def _sustained(result: Mapping[str, Any]) -> Sustained | None:
    thirds = result["timed"].get("sustained") or {}
    first, last = thirds.get("first_ms"), thirds.get("last_ms")
    return Sustained(first_ms=first, last_ms=last, ratio=last / first) if first and last else None


def _machine_reference(result: Mapping[str, Any]) -> MachineReference | None:
    told = result.get("reference")
    return MachineReference.from_slices(told["kind"], told["slices_ms"]) if told else None


def _energy(telemetry: Mapping[str, Any], frames: int, timed: float | None) -> Energy | None:
    """The mean power while frames ran, over the timed seconds; None where no counter may be read."""
    counters, seconds = telemetry.get("energy") or (), telemetry.get("seconds")
    if not counters or not seconds or timed is None:
        return None
    watts = sum(counter["joules"] for counter in counters) / seconds
    source = " + ".join(counter["source"] for counter in counters)
    return Energy(source=source, joules=watts * timed, joules_per_frame=watts * timed / frames, watts=watts)


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
