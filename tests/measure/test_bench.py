"""Bench with a scripted worker: what becomes of its numbers, its errors and its death."""

import json
import os
import time
from collections import namedtuple
from datetime import datetime, timezone
from types import SimpleNamespace

import numpy as np
import pytest
import safetensors.torch
import torch

from edgekit.board import Board
from edgekit.measure.bench import BenchOptions, Target, bench_targets, measure_target, with_drops
from edgekit.measure.row import Process, Row
from edgekit.measure.verdict import judge
from edgekit.runtime.errors import BadInput, BoardLacks, ChildDied, MissingDependency

from .conftest import make_artifact, scripted_result

BOARD = Board(
    name="toy",
    title="toy",
    kind="x86",
    runtimes=("onnxruntime", "openvino", "pytorch"),
    precisions=("fp32", "int8"),
    input_layouts=("nhwc_uint8",),
    int8_flavour="x86",
    opset_max=13,
    measure={"warmup": 2, "min_seconds": 1, "min_count": 64},
)
LATENCIES = [float(v) for v in range(1, 101)]


def bench(worker, artifact, eval_set, runtime="onnxruntime", board=BOARD, **kwargs):
    return measure_target(Target(artifact, runtime), board, eval_set, worker=worker.command, **kwargs)


def test_a_row_holds_what_the_worker_measured(worker, artifact, eval_set):
    worker.play(result=scripted_result(LATENCIES))
    row = bench(worker, artifact, eval_set).row
    assert (row.model, row.recipe, row.board, row.runtime, row.precision) == (
        "toynet hrnet-w16",
        "toy-recipe",
        "toy",
        "onnxruntime",
        "fp32",
    )
    assert row.runtime_version == "1.2.3"
    assert (row.input.width, row.input.height, row.input.layout) == (64, 32, "nhwc_uint8")
    assert (row.latency.p50, row.latency.p90, row.latency.p99) == (50.5, pytest.approx(90.1), None)
    assert row.samples == tuple(LATENCIES)
    assert row.spans == {"preprocess": 0.25, "inference": 50.0, "postprocess": 0.25}
    assert (row.process.load_seconds, row.process.cold_ms, row.process.warmup) == (0.5, 20.0, 2)
    assert (row.process.decode_ms, row.process.peak_rss_mb) == (2.0, 120.0)
    assert row.artifact == artifact.digest
    assert row.model_file.model_dump() == {"name": "model.onnx", **artifact.manifest["payload"]["model.onnx"]}
    assert (row.complexity.gops, row.params) == (3.0, 1000)
    assert row.machine["before"]["cpu"] == "toy"
    assert datetime.fromisoformat(row.started).tzinfo == timezone.utc
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_parameters_of_a_checkpoint_are_counted_in_its_weights(worker, eval_set, tmp_path):
    """No graph was counted, and what batch normalisation measured is not learnt."""
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
    content = safetensors.torch.save(network.state_dict())
    checkpoint = make_artifact(
        tmp_path / "c", "checkpoint", "weights.safetensors", content, complexity=None, learnable_parameters=None
    )
    worker.play(result=scripted_result(LATENCIES))
    row = bench(worker, checkpoint, eval_set, "pytorch").row
    assert (row.complexity, row.params) == (None, 3 * 4 * 9 + 4 + 2 * 4)
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_the_map_is_that_of_the_runs_own_detections(worker, artifact, eval_set):
    # the box is right in one image of two, and a false alarm of the same score in the other
    worker.play(result=scripted_result(LATENCIES))
    measured = bench(worker, artifact, eval_set, options=BenchOptions(set_name="toy val"))
    accuracy = measured.row.accuracy
    assert accuracy.map50 == pytest.approx(51 / 101)
    assert (accuracy.set, accuracy.images, accuracy.set_digest) == ("toy val", 2, eval_set.digest())
    assert sorted(measured.detections) == [1, 2]
    assert measured.detections[1].boxes.tolist() == [[10, 10, 40, 30]]
    nothing = {"boxes": [], "scores": [], "class_ids": []}
    worker.play(result=scripted_result(LATENCIES, detections=[nothing, nothing]))
    assert bench(worker, artifact, eval_set).row.accuracy.map50 == 0


def test_the_job_is_the_boards_or_the_options(worker, artifact, eval_set):
    worker.play(result=scripted_result(LATENCIES))
    bench(worker, artifact, eval_set)
    bench(
        worker,
        artifact,
        eval_set,
        options=BenchOptions(warmup=0, min_seconds=0.1, min_count=7, timed_images=1, score_threshold=0.3),
    )
    first, second = worker.jobs()
    assert first == {
        "artifact": artifact.path,
        "runtime": "onnxruntime",
        "core": None,
        "threads": 1,
        "warmup": 2,
        "min_seconds": 1,
        "min_count": 64,
        "images": [str(s.path) for s in eval_set.samples],
        "timed_images": None,
        "score_threshold": None,
    }
    changed = {k for k in first if first[k] != second[k]}
    assert changed == {"warmup", "min_seconds", "min_count", "timed_images", "score_threshold"}


def test_the_job_is_one_that_the_real_worker_accepts(worker, artifact, eval_set, tmp_path):
    from edgekit.runtime.worker import read_job

    worker.play(result=scripted_result(LATENCIES))
    bench(worker, artifact, eval_set)
    file = tmp_path / "job.json"
    file.write_text(json.dumps(worker.jobs()[0]))
    assert read_job(str(file))["images"] == [str(s.path) for s in eval_set.samples]


def test_progress_is_passed_on_and_other_output_is_not(worker, artifact, eval_set):
    said = []
    lines = [
        '{"phase": "load", "done": 0, "total": 1}',
        "a library says hello",
        "3",
        '{"phase": "timed, reference", "done": 0, "total": 64}',
        '{"phase": "timed", "done": 5, "total": 64}',
    ]
    worker.play(stdout=lines, result=scripted_result(LATENCIES))
    bench(worker, artifact, eval_set, progress=lambda *event: said.append(event))
    assert said == [("load", 0, 1), ("timed", 0, 64), ("timed", 5, 64)]  # a slice of the reference is no phase


def test_an_int8_file_that_runs_in_float_is_told(worker, eval_set, tmp_path):
    quantized = make_artifact(tmp_path / "q", kind="onnx-int8", precision="int8")
    worker.play(result=scripted_result(LATENCIES))
    row = bench(worker, quantized, eval_set).row
    assert row.precision == "fp32"
    assert "the file is int8, the runtime computes in fp32" in row.verdict.reasons


def test_a_checkpoint_takes_its_complexity_from_the_graph_that_ships(worker, artifact, eval_set, tmp_path):
    checkpoint = make_artifact(
        tmp_path / "c", "checkpoint", "weights.safetensors", b"w" * 7, complexity=None, input=None, precision=None
    )
    worker.play(result=scripted_result(LATENCIES))
    target = Target(checkpoint, "pytorch", graph=artifact)
    row = measure_target(target, BOARD, eval_set, worker=worker.command).row
    assert (row.model_file.name, row.model_file.bytes, row.complexity.gops) == ("weights.safetensors", 7, 3.0)
    assert bench(worker, checkpoint, eval_set, "pytorch").row.complexity is None
    other = make_artifact(tmp_path / "o", complexity={"macs": 5, "gops": 1e-8, "parameters": 2})
    row = measure_target(Target(other, "onnxruntime", graph=artifact), BOARD, eval_set, worker=worker.command).row
    assert row.complexity.macs == 5  # its own, whatever lies beside it
    unknown = make_artifact(tmp_path / "u", complexity={"macs": None, "gops": None, "parameters": 2})
    assert bench(worker, unknown, eval_set).row.complexity is None  # an operator that nobody counts


def test_boxes_of_other_classes_have_no_accuracy(worker, eval_set, tmp_path):
    worker.play(result=scripted_result(LATENCIES))
    row = bench(worker, make_artifact(tmp_path / "o", classes=["bus", "car"]), eval_set).row
    assert row.accuracy is None
    told = "accuracy unknown: the network's classes are bus, car, those of the images car, bus"
    assert told in row.verdict.reasons


def test_images_without_labels_give_a_perf_only_row(worker, artifact, eval_set):
    from dataclasses import replace

    bare = [
        replace(s, boxes=np.zeros((0, 4)), labels=np.zeros(0, int), ignore=np.zeros(0, bool)) for s in eval_set.samples
    ]
    worker.play(result=scripted_result([10.0] * 100))
    row = bench(worker, artifact, replace(eval_set, samples=tuple(bare))).row
    assert row.accuracy is None
    assert "accuracy unknown" in " ".join(row.verdict.reasons)
    assert row.verdict.status in ("perf-only", "noisy")  # noisy where this machine is busy


@pytest.mark.parametrize(
    ("name", "told"), [("SIGSEGV", "SIGSEGV"), ("SIGKILL", "SIGKILL (often the machine ran out of memory)")]
)
def test_a_worker_killed_by_a_signal_is_one_clear_error(worker, artifact, eval_set, name, told):
    worker.play(signal=name, stderr="loading\nlast thing said\n")
    with pytest.raises(ChildDied) as caught:
        bench(worker, artifact, eval_set)
    assert f"bench of {artifact.path} in onnxruntime was killed by {told}; its last words: last thing said" == str(
        caught.value
    )


@pytest.mark.parametrize(
    ("script", "told"),
    [
        (
            {"exit": 1, "stderr": "ValueError: nope"},
            "ended with exit code 1 and left no result; its last words: ValueError: nope",
        ),
        ({"exit": 0}, "ended with exit code 0 and left no result"),
        ({"text": '{"half": '}, "left no result"),
        ({"text": "[]"}, "left no result"),
        ({"result": scripted_result(LATENCIES, detections="other")}, "other images"),
    ],
)
def test_a_worker_that_breaks_its_contract_is_one_clear_error(worker, artifact, eval_set, script, told):
    worker.play(**script)
    with pytest.raises(ChildDied, match="bench") as caught:
        bench(worker, artifact, eval_set)
    assert told in str(caught.value)


def test_the_workers_own_error_is_raised_as_itself(worker, artifact, eval_set):
    worker.play(exit=2, result={"error": "1.png: the image is cut short", "type": "BadInput"})
    with pytest.raises(BadInput, match=r"^1\.png: the image is cut short$"):
        bench(worker, artifact, eval_set)


def test_a_failed_row_says_why_and_the_others_go_on(worker, artifact, eval_set):
    worker.play(
        onnxruntime={"signal": "SIGSEGV"},
        openvino={"exit": 2, "result": {"error": "pip install openvino", "type": "MissingDependency"}},
        pytorch={"result": scripted_result(LATENCIES)},
    )
    targets = [Target(artifact, name) for name in ("onnxruntime", "openvino", "pytorch")]
    crashed, missing, measured = bench_targets(targets, BOARD, eval_set, worker=worker.command)
    assert (crashed.row.verdict.status, crashed.row.latency, crashed.row.accuracy) == ("not measured", None, None)
    assert "SIGSEGV" in crashed.row.verdict.reasons[0]
    assert missing.row.verdict.reasons == ("pip install openvino",)
    assert measured.row.latency.count == 100
    assert (crashed.detections, len(measured.detections)) == ({}, 2)
    assert (crashed.row.model_file.bytes, crashed.row.input.width) == (2_500_000, 64)


@pytest.mark.parametrize("count", [1, 2])
def test_when_nothing_could_be_measured_the_error_is_raised(worker, artifact, eval_set, count):
    worker.play(
        onnxruntime={"signal": "SIGABRT"},
        openvino={"exit": 2, "result": {"error": "pip install openvino", "type": "MissingDependency"}},
    )
    with pytest.raises(ChildDied, match="SIGABRT"):
        bench_targets(
            [Target(artifact, n) for n in ("onnxruntime", "openvino")[:count]], BOARD, eval_set, worker=worker.command
        )
    with pytest.raises(MissingDependency):
        bench_targets([Target(artifact, "openvino")], BOARD, eval_set, worker=worker.command)


def test_what_the_board_lacks_is_refused_before_a_worker_starts(worker, artifact, eval_set):
    with pytest.raises(BoardLacks, match="no runtime 'tensorrt'"):
        bench(worker, artifact, eval_set, "tensorrt")
    assert worker.jobs() == []


def test_an_interrupt_kills_the_worker(worker, artifact, eval_set, tmp_path):
    hangs = tmp_path / "worker" / "hangs.py"
    hangs.write_text(
        "import os, time\n"
        f"open({str(tmp_path / 'pid')!r}, 'w').write(str(os.getpid()))\n"
        'print(\'{"phase": "load", "done": 0, "total": 1}\', flush=True)\n'
        "time.sleep(600)\n"
    )

    def interrupt(*_event):
        raise KeyboardInterrupt

    worker.command = (worker.command[0], str(hangs))
    with pytest.raises(KeyboardInterrupt):
        bench(worker, artifact, eval_set, progress=interrupt)
    pid = int((tmp_path / "pid").read_text())
    time.sleep(0.05)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


QUIET = {"threads": 1, "core": 1, "warmup": 2, "cpu_over_wall": 1.0, "involuntary_switches": 0, "other_load": 0.0}


@pytest.mark.parametrize(
    ("samples", "process", "known", "status", "reasons"),
    [
        ([10.0] * 100, {}, True, "valid", []),
        ([10.0] * 100, {}, False, "perf-only", ["accuracy unknown"]),
        ([10.0] * 80 + [12.1] * 20, {}, True, "noisy", ["p90 is 1.21 x p50; the board allows 1.2 x"]),
        ([10.0] * 80 + [12.0] * 20, {}, True, "valid", []),
        ([10.0] * 8 + [20.0] * 2, {}, True, "noisy", ["p90 is 2.00 x p50"]),
        (
            [10.0],
            {"cpu_over_wall": 0.5, "involuntary_switches": 9},
            True,
            "noisy",
            ["only 50% of the time (9 involuntary"],
        ),
        ([10.0], {"cpu_over_wall": 0.97}, True, "valid", []),
        ([10.0], {"cpu_over_wall": None, "other_load": None}, True, "valid", []),
        ([10.0], {"cpu_over_wall": 0.5, "core": None}, True, "valid", []),
        ([10.0], {"cpu_over_wall": 3.1, "core": None, "threads": 4}, True, "valid", []),
        ([10.0], {"other_load": 0.9}, True, "noisy", ["other processes kept 0.9 cores busy"]),
        ([10.0], {"other_load": 0.9}, False, "noisy", ["other processes", "accuracy unknown"]),
        ([10.0, 30.0], {"cpu_over_wall": 0.1, "other_load": 2}, True, "noisy", ["p90 is", "only 10%", "2.0 cores"]),
    ],
)
def test_verdicts(samples, process, known, status, reasons):
    verdict = judge(samples, Process(**{**QUIET, **process}), 1.2, known)
    assert verdict.status == status
    assert len(verdict.reasons) == len(reasons)
    for said, wanted in zip(verdict.reasons, reasons, strict=True):
        assert wanted in said


def test_load_of_others_is_what_this_process_and_its_children_did_not_use(monkeypatch, worker, artifact, eval_set):
    """Cores 0 and 3 are ours to use, 1 and 2 are offline, 4 is not ours. In 4 s ours were busy for 3 + 2 s, of them
    1 + 0.5 + 1.5 by us.
    """
    Own = namedtuple("Own", "user system children_user children_system elapsed")
    idle = "500 0 0 9000 500 0 0 0 0 0"
    before = {0: idle, 3: idle, 4: idle}
    after = {0: "600 100 100 9000 600 0 0 0 0 0", 3: "650 0 0 9000 500 0 0 50 0 0", 4: "900 0 0 9000 500 0 0 0 0 0"}
    texts = ["cpu 1 2 3\n" + "".join(f"cpu{n} {times}\n" for n, times in cores.items()) for cores in (before, after)]
    stat = iter(texts)
    owns = iter([Own(0, 0, 0, 0, 100.0), Own(1, 0, 0.5, 1.5, 104.0)])
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 3})
    monkeypatch.setattr(os, "sysconf", lambda name: 100)
    monkeypatch.setattr("edgekit.measure.process._STAT", SimpleNamespace(read_text=lambda: next(stat)))
    monkeypatch.setattr(os, "times", lambda: next(owns))
    worker.play(result=scripted_result([10.0] * 100))
    row = bench(worker, artifact, eval_set).row
    assert row.process.other_load == pytest.approx((5 - 3) / 4)
    assert row.verdict.reasons == ("other processes kept 0.5 cores busy meanwhile",)


# -- the rest of a row ------------------------------------------------------------------------------------------------
def told(latencies=(10.0,) * 100, **timed):
    """A worker's result with what the newer worker adds."""
    result = scripted_result(list(latencies))
    result["timed"] = {**result["timed"], "voluntary_switches": 7, "sustained": {"first_ms": 10.0, "last_ms": 10.2}}
    result["timed"]["wall_seconds"] = 4.0
    result["telemetry"] = {
        "seconds": 5.0,  # the slices of the machine's reference lie in it, and not in the timed part
        "tracks": [
            {
                "name": "cpu clock",
                "unit": "MHz",
                "source": "/sys",
                "first": 3000.0,
                "last": 3000.0,
                "min": 3000.0,
                "max": 3000.0,
                "seconds": [0.0, 0.5],
                "values": [3000.0, 3000.0],
            }
        ],
        "energy": [{"source": "RAPL package-0", "joules": 35.0}, {"source": "RAPL package-1", "joules": 15.0}],
    }
    result["session"]["device_memory_bytes"] = 55_000_000
    result["reference"] = {"kind": "a product", "slices_ms": [0.5] * 11}
    return result


def test_a_machine_that_changes_makes_the_run_noisy(worker, artifact, eval_set):
    result = {**told(), "reference": {"kind": "a product", "slices_ms": [0.5] * 7 + [0.54] * 4}}
    worker.play(result=result)
    row = bench(worker, artifact, eval_set).row
    assert row.verdict.status == "noisy"
    assert any("the machine itself changed, not the model: its reference took 0.500" in r for r in row.verdict.reasons)
    worker.play(result={**result, "reference": None})  # its child could not start
    row = bench(worker, artifact, eval_set).row
    assert row.machine_reference is None
    assert not any("machine itself" in reason for reason in row.verdict.reasons)


def test_energy_tracks_and_switches(worker, artifact, eval_set):
    worker.play(result=told())
    row = bench(worker, artifact, eval_set).row
    assert (row.energy.source, row.energy.watts) == ("RAPL package-0 + RAPL package-1", 10.0)
    assert (row.energy.joules, row.energy.joules_per_frame) == (40.0, 0.4)
    assert row.sustained.ratio == pytest.approx(1.02)
    assert row.machine_reference.slices_ms == (0.5,) * 11
    assert row.tracks[0].values == (3000.0, 3000.0)
    assert (row.process.voluntary_switches, row.process.device_memory_mb) == (7, 55.0)
    assert row.process.cold_spans == {"preprocess": 1.0, "inference": 18.0, "postprocess": 1.0}
    assert Row.from_dict(json.loads(json.dumps(row.to_dict()))) == row


def test_what_no_sensor_tells_is_none(worker, artifact, eval_set):
    worker.play(result=scripted_result([10.0] * 100))
    row = bench(worker, artifact, eval_set).row
    assert (row.energy, row.tracks, row.sustained, row.throughput, row.drop) == (None, (), None, (), None)
    assert row.process.device_memory_mb is None


def test_full_is_as_long_as_mlperf_asks():
    assert BenchOptions.full() == BenchOptions(min_seconds=600, min_count=662)
    assert BenchOptions.full(min_seconds=5).min_seconds == 5


def test_copies_of_an_accelerator_are_spans(worker, artifact, eval_set):
    result = scripted_result([10.0] * 100)
    result["latency_ms"] = {**result["latency_ms"], "host_to_device": [0.5] * 100, "device_to_host": [0.1] * 100}
    worker.play(result=result)
    spans = bench(worker, artifact, eval_set).row.spans
    assert (spans["host_to_device"], spans["device_to_host"]) == (0.5, 0.1)


def test_the_drop_is_against_the_fp32_file_in_the_same_runtime(worker, artifact, eval_set, tmp_path):
    """FP32 finds one box of two, INT8 in OpenVINO none; the reference is of the same runtime where there is one."""
    nothing = {"boxes": [], "scores": [], "class_ids": []}
    quantized = make_artifact(tmp_path / "q", kind="onnx-int8", precision="int8")
    blind = scripted_result([10.0] * 100, detections=[nothing, nothing])
    blind["session"]["precision"] = "int8"
    good = scripted_result([10.0] * 100)
    targets = [Target(artifact, "onnxruntime"), Target(quantized, "openvino")]
    worker.play(onnxruntime={"result": good}, openvino={"result": blind})
    reference, lost = (m.row for m in bench_targets(targets, BOARD, eval_set, worker=worker.command))
    assert reference.drop is None
    assert lost.drop.map50 == pytest.approx(51 / 101)
    assert (lost.drop.reference, lost.drop.runtime) == (artifact.digest, "onnxruntime")
    targets = [Target(artifact, "openvino"), Target(artifact, "onnxruntime"), Target(quantized, "onnxruntime")]
    worker.play(result=good)
    rows = [m.row for m in bench_targets(targets, BOARD, eval_set, worker=worker.command)]
    assert [r.drop and r.drop.runtime for r in rows] == [None, None, "onnxruntime"]
    assert rows[2].drop.map == 0


def drops(kinds_and_parents, tmp_path, worker, eval_set):
    """[(reference's number, its runtime)] of artifacts that name as parents others of them by their numbers."""
    worker.play(result=scripted_result([10.0] * 100))
    artifacts, targets = [], []
    for number, (kind, runtime, parents) in enumerate(kinds_and_parents):
        named = {role: parent if isinstance(parent, str) else artifacts[parent].digest for role, parent in parents}
        content = {"content": f"{number}".encode(), "parents": named}
        file = {"name": "weights.safetensors"} if kind == "checkpoint" else {}
        precision = "int8" if kind == "onnx-int8" else "fp32"
        artifacts.append(make_artifact(tmp_path / f"{number}", kind=kind, precision=precision, **file, **content))
        targets.append(Target(artifacts[-1], runtime))
    rows = [measure_target(t, BOARD, eval_set, worker=worker.command).row for t in targets]
    told = {"checkpoint": "fp32", "onnx": "fp32", "onnx-int8": "int8"}
    rows = [row.model_copy(update={"precision": told[t.artifact.kind]}) for row, t in zip(rows, targets, strict=True)]
    digests = [artifact.digest for artifact in artifacts]
    return [r.drop and (digests.index(r.drop.reference), r.drop.runtime) for r in with_drops(rows, targets)]


A, B = [("checkpoint", "a" * 64)], [("checkpoint", "b" * 64)]  # two trainings of one recipe
ORT, OV, TORCH = "onnxruntime", "openvino", "pytorch"


@pytest.mark.parametrize(
    ("artifacts", "expected"),
    [
        (  # each against its own, though another stands before it or ran in the same runtime
            [("onnx", ORT, A), ("onnx", OV, B), ("onnx-int8", ORT, [("onnx", 1)]), ("onnx-int8", ORT, [("onnx", 0)])],
            [None, None, (1, OV), (0, ORT)],
        ),
        # its FP32 file was not measured, and that of another training is no reference
        ([("onnx", ORT, A), ("onnx", ORT, B), ("onnx-int8", ORT, [("onnx", "c" * 64)])], [None, None, None]),
        ([("onnx", ORT, A), ("onnx-int8", ORT, [("onnx", "c" * 64)])], [None, None]),
        ([("onnx", ORT, A), ("onnx", ORT, B), ("onnx-int8", ORT, [])], [None, None, None]),
        # of the one network that there is, where nothing tells
        ([("onnx", ORT, A), ("onnx-int8", ORT, [])], [None, (0, ORT)]),
        ([("checkpoint", TORCH, []), ("onnx-int8", ORT, [("onnx", "c" * 64)])], [None, (0, TORCH)]),
        (  # the checkpoints and their files
            [("checkpoint", TORCH, []), ("checkpoint", TORCH, []), ("onnx", ORT, [("checkpoint", 1)])],
            [None, (2, ORT), None],
        ),
        (  # another file of the same checkpoint before one of another training
            [
                ("checkpoint", TORCH, []),
                ("onnx", OV, [("checkpoint", 0)]),
                ("onnx", ORT, B),
                ("onnx", ORT, [("checkpoint", 0)]),
                ("onnx-int8", ORT, [("onnx", 1)]),
            ],
            [(1, OV), None, None, None, (1, OV)],
        ),
    ],
)
def test_the_drop_is_against_the_file_that_a_row_was_made_from(artifacts, expected, tmp_path, worker, eval_set):
    assert drops(artifacts, tmp_path, worker, eval_set) == expected


def test_no_reference_no_drop(worker, eval_set, tmp_path):
    quantized = make_artifact(tmp_path / "q", kind="onnx-int8", precision="int8")
    result = scripted_result([10.0] * 100)
    result["session"]["precision"] = "int8"
    worker.play(result=result)
    (alone,) = bench_targets([Target(quantized, "onnxruntime")], BOARD, eval_set, worker=worker.command)
    assert (alone.row.precision, alone.row.drop) == ("int8", None)


def test_an_engine_without_calibration_has_no_accuracy(worker, eval_set, tmp_path):
    engine = make_artifact(tmp_path / "e", engine={"perf_only": "INT8 without calibration: its boxes mean nothing"})
    worker.play(result=scripted_result([10.0] * 100))
    row = bench(worker, engine, eval_set).row
    assert row.accuracy is None
    assert "INT8 without calibration" in row.verdict.reasons[-1]


def test_a_simulated_board_is_called_one(worker, artifact, eval_set):
    worker.play(result={**scripted_result([10.0] * 100), "board": {"simulated": ["identity below /tmp/root"]}})
    assert bench(worker, artifact, eval_set).row.verdict.status == "simulated"


OFFLINE = {"count": 90, "wall_seconds": 3.0, "cpu_over_wall": 1.9, "fps": 30.0, "streams": 2, "batch": 1}


def test_offline_is_another_process_with_every_core(worker, artifact, eval_set):
    worker.play(result={**scripted_result([10.0] * 100), "offline": OFFLINE})
    row = bench(worker, artifact, eval_set, options=BenchOptions(offline=True)).row
    latency, throughput = worker.jobs()
    cores = len(os.sched_getaffinity(0))
    assert "mode" not in latency
    assert {k: throughput[k] for k in ("mode", "streams", "threads", "core")} == {
        "mode": "offline",
        "streams": cores,
        "threads": 1,
        "core": None,
    }
    (found,) = row.throughput
    assert (found.fps, found.streams, found.batch, found.count) == (30.0, cores, 1, 90)
    assert "static batch of one" in found.note


def test_offline_that_fails_leaves_the_latency(worker, artifact, eval_set):
    worker.play(result=scripted_result([10.0] * 100))
    row = bench(worker, artifact, eval_set).row
    worker.play(result={**scripted_result([10.0] * 100), "offline": OFFLINE}, exit=0)
    from edgekit.measure import bench as module

    def fails(*_arguments):
        raise ChildDied("out of memory")

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "measure_offline", fails)
        row = bench(worker, artifact, eval_set, options=BenchOptions(offline=True)).row
    assert row.latency.count == 100
    assert row.throughput == ()
    assert "throughput was not measured: out of memory" in row.verdict.reasons


def test_a_file_with_a_batch_is_measured_offline_only(worker, eval_set, tmp_path):
    batch = make_artifact(tmp_path / "b", input={"name": "image", "layout": "nhwc_uint8", "shape": [4, 32, 64, 3]})
    worker.play(result={**scripted_result([10.0]), "offline": {**OFFLINE, "batch": 4}})
    with pytest.raises(BadInput, match=r"this file takes 4 a call\. Measure its throughput: edgekit bench --offline"):
        bench(worker, batch, eval_set)
    row = bench(worker, batch, eval_set, options=BenchOptions(offline=True)).row
    assert (row.latency, row.accuracy, row.verdict.status) == (None, None, "not measured")
    assert row.throughput[0].batch == 4
    assert "4 images a call" in row.throughput[0].note
    assert [job["mode"] for job in worker.jobs()] == ["offline"]
