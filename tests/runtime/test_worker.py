import json
import os
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from edgekit.runtime import worker
from edgekit.runtime.errors import BadConfig
from edgekit.runtime.runner import open_runner

COMMAND = [sys.executable, "-m", "edgekit.runtime.worker"]


def run(job, result, **more):
    return subprocess.run([*COMMAND, str(job), str(result)], capture_output=True, text=True, **more)


@pytest.fixture(scope="module")
def measured(tmp_path_factory, onnx, image_paths):
    """One real measurement: (result, progress lines)."""
    folder = tmp_path_factory.mktemp("worker")
    core = max(os.sched_getaffinity(0))
    job = {"artifact": onnx.path, "images": image_paths, "core": core, "warmup": 3, "min_seconds": 0.2, "min_count": 7}
    (folder / "job.json").write_text(json.dumps(dict(job, timed_images=4)))
    done = run(folder / "job.json", folder / "result.json")
    assert (done.returncode, done.stderr) == (0, "")
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    return json.loads((folder / "result.json").read_text()), lines


def test_the_result_says_what_was_measured(measured, onnx):
    result, _ = measured
    assert result["artifact"] == {"path": onnx.path, "kind": "onnx", "digest": onnx.digest}
    assert result["layout"] == "nhwc_uint8"
    assert result["session"]["library"] == "onnxruntime"
    assert result["preprocess"] == onnx.preprocess.to_dict()
    assert result["cores"] == [max(os.sched_getaffinity(0))] == result["machine_before"]["affinity"]
    assert result["machine_after"]["cpu"] == result["machine_before"]["cpu"]


def test_latencies_add_up(measured):
    result, _ = measured
    latency, timed = result["latency_ms"], result["timed"]
    assert {name: len(values) for name, values in latency.items()} == dict.fromkeys(
        ("preprocess", "inference", "postprocess", "total"), timed["count"]
    )
    spans = np.array([latency[n] for n in ("preprocess", "inference", "postprocess")])
    np.testing.assert_allclose(spans.sum(0), latency["total"], rtol=1e-9)
    assert spans.min() > 0
    # nothing but the runs fills the loop
    assert 0.5 * timed["wall_seconds"] < sum(latency["total"]) / 1e3 <= timed["wall_seconds"]


def test_the_minima_are_kept_and_the_warm_up_apart(measured):
    result, _ = measured
    assert result["timed"]["count"] >= 7
    assert result["timed"]["wall_seconds"] >= 0.2
    assert result["timed"]["images"] == len(result["decode_ms"]) == 4
    assert len(result["warmup_ms"]) == 3
    assert result["first_ms"]["total"] > 0
    assert result["load_seconds"] > 0


def test_process_facts(measured):
    result, _ = measured
    assert 0 < result["timed"]["cpu_over_wall"] < 1.1  # one pinned thread
    assert result["timed"]["involuntary_switches"] >= 0
    memory = result["peak_rss_bytes"]
    assert 20e6 < memory["loaded"] <= memory["timed"] <= memory["end"] < 350e6


def test_the_machines_reference_is_timed_beside_the_frames(measured):
    result, _ = measured
    reference = result["reference"]
    assert reference["kind"].startswith("matrix product")
    assert 7 + 1 <= len(reference["slices_ms"]) <= 10 + 1  # a part has a frame at least, and there are seven at least
    assert min(reference["slices_ms"]) > 0


def test_detections_of_every_image_are_the_runners(measured, onnx, images, image_paths):
    result, _ = measured
    assert [d["image"] for d in result["detections"]] == image_paths
    with open_runner(onnx.path) as runner:
        for image, record in zip(images, result["detections"], strict=True):
            assert (record["height"], record["width"]) == image.shape[:2]
            expected, _ = runner(image)
            np.testing.assert_array_equal(record["scores"], expected.scores)
            np.testing.assert_array_equal(record["boxes"], expected.boxes)
            np.testing.assert_array_equal(record["class_ids"], expected.class_ids)


def test_progress_lines(measured):
    _, lines = measured
    assert all(set(line) == {"phase", "done", "total"} for line in lines)
    phases = list(dict.fromkeys(line["phase"] for line in lines))
    assert phases == ["load", "warm-up", "timed, reference", "timed", "accuracy"]
    for phase in phases:
        last = [line for line in lines if line["phase"] == phase][-1]
        assert last["done"] == last["total"]
    assert len(lines) < 30 + 2 * (10 + 1)  # at most two a second, however fast the runs, and the machine's reference


@pytest.mark.parametrize("runtime", ["openvino", "pytorch"])
def test_the_other_runtimes(runtime, write_job, checkpoint, onnx):
    if runtime == "openvino":
        pytest.importorskip("openvino")
    job, result = write_job(runtime=runtime, artifact=checkpoint.path if runtime == "pytorch" else onnx.path)
    done = run(job, result)
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert found["session"]["library"] == runtime
    assert found["session"]["precision"] == "fp32"
    assert found["timed"]["cpu_over_wall"] < 1.1
    assert len(found["detections"]) == 6
    assert found["cores"] == sorted(os.sched_getaffinity(0))  # core null: not pinned


def test_the_score_threshold_of_the_job(write_job):
    job, result = write_job(score_threshold=0.5)
    assert run(job, result).returncode == 0
    found = json.loads(result.read_text())
    assert found["postprocess"]["score_threshold"] == 0.5
    scores = np.concatenate([d["scores"] for d in found["detections"]])
    assert len(scores) > 0
    assert scores.min() >= 0.5


def test_memory_does_not_grow_with_the_images(write_job, image_paths):
    """Sixty images, of which one stays decoded."""
    peaks = []
    for count in (1, 10):
        job, result = write_job(images=image_paths * count, timed_images=1)
        assert run(job, result).returncode == 0
        peaks.append(json.loads(result.read_text())["peak_rss_bytes"]["end"])
    assert peaks[1] - peaks[0] < 4e6  # ten times six detections, but not the 24 MB of pictures


def test_thread_counts_are_set_before_numpy_loads():
    code = """if True:
        import os, sys
        from edgekit.runtime import worker
        assert not {"numpy", "cv2", "onnxruntime"} & set(sys.modules), sys.modules
        worker.prepare({"threads": 1, "core": None})
        assert not {"numpy", "cv2", "onnxruntime"} & set(sys.modules), sys.modules
        print([os.environ[name] for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")])
    """
    environment = {**os.environ, "OMP_NUM_THREADS": "8"}
    assert subprocess.check_output([sys.executable, "-c", code], text=True, env=environment) == "['1', '1', '1']\n"


# -- mistakes of the user ---------------------------------------------------------------------------------------------
MISTAKES = {
    "no artifact": ({"artifact": "/nowhere/at-all"}, "ArtifactError", "/nowhere/at-all: not an artifact"),
    "no image": ({"images": ["/nowhere/a.jpg"]}, "BadInput", "/nowhere/a.jpg"),
    "runtime": ({"runtime": "onnxrt"}, "BadConfig", "did you mean onnxruntime"),
    "core": ({"core": 4096}, "BadConfig", "core: 4096 is not usable here"),
    "wrong kind": ({"runtime": "pytorch"}, "ArtifactError", "runtime pytorch loads checkpoint"),
    "threshold": ({"score_threshold": 7}, "ArtifactError", "score_threshold: expected 0..1, got 7"),
    "keys": ({"artefact": "x", "warmup": -1}, "BadConfig", "unknown key 'artefact'; warmup: expected"),
}


@pytest.mark.parametrize("case", MISTAKES)
def test_mistakes_go_into_the_result(case, write_job):
    change, kind, message = MISTAKES[case]
    job, result = write_job(**change)
    done = run(job, result)
    assert (done.returncode, done.stderr) == (2, "")
    found = json.loads(result.read_text())
    assert sorted(found) == ["error", "type"]
    assert found["type"] == kind
    assert message in found["error"]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot read the job: No such file"),
        ('{"artifact": ', "not valid JSON"),
        ("[]", "must be an object, found list"),
        ("{}", "artifact is missing; images is missing"),
        ('{"artifact": "a", "images": []}', "images: expected a list of at least one path"),
        ('{"artifact": "a", "images": "b.jpg"}', "images: expected a list"),
        ('{"artifact": "a", "images": ["b"], "threads": 0}', "threads: expected a number from 1, got 0"),
        ('{"artifact": "a", "images": ["b"], "min_count": 1.5}', "min_count: expected"),
        ('{"artifact": "a", "images": ["b"], "min_seconds": "3"}', "min_seconds: expected"),
        ('{"artifact": "a", "images": ["b"], "core": true}', "core: expected a whole number from 0 or null"),
        ('{"artifact": "a", "images": ["b"], "timed_images": 0}', "timed_images: expected a whole number from 1"),
    ],
)
def test_read_job_tells_what_is_wrong(text, message, tmp_path):
    path = tmp_path / "job.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(BadConfig, match=message):
        worker.read_job(str(path))


def test_read_job_fills_in_the_defaults(tmp_path):
    (tmp_path / "job.json").write_text('{"artifact": "a", "images": ["b"]}')
    assert worker.read_job(str(tmp_path / "job.json")) == dict(worker.JOB, artifact="a", images=["b"])


def test_usage():
    done = subprocess.run(COMMAND, stderr=subprocess.PIPE, text=True)
    assert done.returncode == 2
    assert "usage:" in done.stderr


def test_ctrl_c_leaves_no_result_and_no_traceback(write_job):
    job, result = write_job(min_seconds=60)
    process = subprocess.Popen(
        [*COMMAND, str(job), str(result)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for line in process.stdout:
        if '"timed"' in line:  # the frames run
            break
    time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (130, "")
    assert [p.name for p in result.parent.iterdir()] == ["job.json"]


# -- the other modes --------------------------------------------------------------------------------------------------
def test_offline_runs_several_sessions_at_once(write_job):
    job, result = write_job(mode="offline", streams=2)
    done = run(job, result)
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())
    assert (found["offline"]["streams"], found["offline"]["batch"]) == (2, 1)
    assert found["offline"]["count"] >= 5
    assert found["offline"]["fps"] == pytest.approx(found["offline"]["count"] / found["offline"]["wall_seconds"])
    assert found["session"]["library"] == "onnxruntime"
    assert "detections" not in found


def test_turns_are_run_when_stdin_says(write_job):
    job, result = write_job(mode="turns", min_seconds=0.0)  # the share that is done is counted in frames alone
    done = run(job, result, input='{"frames": 2}\n{"frames": 3}\n')
    assert done.returncode == 0, done.stderr
    said = [json.loads(line) for line in done.stdout.splitlines()]
    assert [len(message["ms"]) for message in said if message["phase"] == "turn"] == [2, 3]
    phases = list(dict.fromkeys(message["phase"] for message in said))
    assert phases == ["load", "warm-up", "ready", "turn", "accuracy"]
    found = json.loads(result.read_text())
    assert found["timed"]["count"] == len(found["latency_ms"]["total"]) == 5
    assert len(found["detections"]) == 6
    assert len(found["reference"]["slices_ms"]) == 3  # of two turns and the end


def test_layers_add_up_to_the_network(write_job, tmp_path):
    folder = tmp_path / "profiler"
    folder.mkdir()
    job, result = write_job(mode="layers", folder=str(folder))
    done = run(job, result)
    assert done.returncode == 0, done.stderr
    found = json.loads(result.read_text())["layers"]
    assert (found["runs"], found["profiler"].split()[0]) == (5, "onnxruntime")
    assert len(found["steps"]) > 50
    assert sum(step["ms"] for step in found["steps"]) > 0
    assert "optimised.onnx" in {p.name for p in folder.iterdir()}


def test_a_file_with_a_batch_has_a_throughput_and_no_latency(write_job, network, tmp_path, image_paths):
    from edgekit.conversion.export import ExportOptions, export_onnx
    from edgekit.runtime.artifact import new_artifact

    from .conftest import POSTPROCESS, PREPROCESS, manifest

    options = ExportOptions(layout="nhwc_uint8", batch=2)
    about = {"input": {"name": "image", "layout": "nhwc_uint8", "shape": [2, 64, 96, 3]}, "precision": "fp32"}
    with new_artifact(tmp_path / "two", "onnx", manifest(postprocess=POSTPROCESS, **about)) as folder:
        export_onnx(network, PREPROCESS, options, f"{folder}/model.onnx")
    job, result = write_job(artifact=str(tmp_path / "two"))
    assert run(job, result).returncode == 2
    assert "takes 2 images a call, and latency is that of one" in json.loads(result.read_text())["error"]
    job, result = write_job(artifact=str(tmp_path / "two"), mode="offline")
    assert run(job, result).returncode == 0
    found = json.loads(result.read_text())["offline"]
    assert found["batch"] == 2
    assert found["count"] % 2 == 0
    with open_runner(str(tmp_path / "two")) as pair:
        from edgekit.runtime.images import read_image

        images = [read_image(path) for path in image_paths[:2]]
        first, second = pair.many(images)
        swapped = pair.many(images[::-1])
    assert len(first.scores) > 0
    np.testing.assert_allclose(first.scores, swapped[1].scores, rtol=1e-5)
    np.testing.assert_allclose(second.boxes, swapped[0].boxes, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"mode": "fast"}, "mode: expected one of latency, turns, offline, layers, got 'fast'"),
        ({"mode": "layers"}, "folder: mode layers needs a folder"),
        ({"mode": "offline", "streams": 0}, "streams: expected a number from 1, got 0"),
    ],
)
def test_wrong_modes_are_told(change, message, tmp_path):
    path = tmp_path / "job.json"
    path.write_text(json.dumps({"artifact": "a", "images": ["b"], **change}))
    with pytest.raises(BadConfig, match=message):
        worker.read_job(str(path))
