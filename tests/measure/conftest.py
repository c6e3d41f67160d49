"""A small evaluation set, an artifact that no runtime could load, and a worker that reads its lines from a script."""

import json
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.data.coco import CocoSet, Sample
from edgekit.runtime.artifact import new_artifact, read_artifact

BOX = [10.0, 10.0, 40.0, 30.0]

FAKE_WORKER = """
import json, os, signal, sys
job = json.load(open(sys.argv[1]))
script = json.load(open(os.path.join(os.path.dirname(__file__), "script.json")))
with open(os.path.join(os.path.dirname(__file__), "jobs.jsonl"), "a") as log:
    log.write(json.dumps(job) + "\\n")
script = script.get(job["runtime"], script)
for line in script.get("stdout", []):
    print(line, flush=True)
sys.stderr.write(script.get("stderr", ""))
sys.stderr.flush()
if "signal" in script:
    os.kill(os.getpid(), getattr(signal, script["signal"]))
if "text" in script:
    open(sys.argv[2], "w").write(script["text"])
if "result" in script:
    result = script["result"]
    if "detections" in result and result["detections"] != "other":
        result["detections"] = [dict(d, image=p) for d, p in zip(result["detections"], job["images"])]
    elif "detections" in result:
        result["detections"] = [{"image": "strange.jpg", "boxes": [], "scores": [], "class_ids": []}]
    json.dump(result, open(sys.argv[2], "w"))
sys.exit(script.get("exit", 0))
"""


def manifest(**changes):
    values = {
        "classes": ["car", "bus"],
        "category_ids": [3, 7],
        "preprocess": {"size": [64, 32]},
        "recipe": {
            "name": "toy-recipe",
            "model": {"name": "toynet", "options": {"backbone": "hrnet-w16", "filters": 32}},
        },
        "parents": {},
        "tools": {"torch": "2.0"},
        "input": {"name": "image", "layout": "nhwc_uint8", "shape": [1, 32, 64, 3]},
        "precision": "fp32",
        "complexity": {"macs": 1_500_000_000, "gops": 3.0, "parameters": 990},
        "learnable_parameters": 1000,
    }
    return {k: v for k, v in {**values, **changes}.items() if v is not None}


def make_artifact(path, kind="onnx", name="model.onnx", content=b"x" * 2_500_000, **changes):
    with new_artifact(path, kind, manifest(**changes)) as folder:
        (Path(folder) / name).write_bytes(content)
    return read_artifact(path)


def scripted_result(latencies, **changes):
    """What a worker writes for these end-to-end milliseconds; each detects BOX in both images of ``eval_set``."""
    seen = {"boxes": [BOX], "scores": [0.9], "class_ids": [0], "width": 64, "height": 48}
    result = {
        "edgekit": "0.1",
        "cores": [1],
        "session": {"library": "onnxruntime", "version": "1.2.3", "precision": "fp32"},
        "layout": "nhwc_uint8",
        "preprocess": {"size": [64, 32]},
        "machine_before": {"cpu": "toy", "load_average": [0.1, 0.1, 0.1]},
        "machine_after": {"cpu": "toy", "load_average": [0.9, 0.2, 0.1]},
        "load_seconds": 0.5,
        "decode_ms": [1.0, 3.0],
        "first_ms": {"preprocess": 1.0, "inference": 18.0, "postprocess": 1.0, "total": 20.0},
        "warmup_ms": [11.0, 10.0],
        "latency_ms": {
            "preprocess": [0.25] * len(latencies),
            "inference": [ms - 0.5 for ms in latencies],
            "postprocess": [0.25] * len(latencies),
            "total": list(latencies),
        },
        "timed": {
            "count": len(latencies),
            "images": 2,
            "wall_seconds": 1.0,
            "cpu_seconds": 1.0,
            "cpu_over_wall": 1.0,
            "involuntary_switches": 3,
        },
        "detections": [seen, seen],
        "peak_rss_bytes": {"loaded": 90_000_000, "timed": 110_000_000, "end": 120_000_000},
    }
    return {**result, **changes}


@pytest.fixture
def artifact(tmp_path):
    return make_artifact(tmp_path / "toy-onnx")


@pytest.fixture
def eval_set(tmp_path):
    """Two images: a car at BOX in the first, and one in the second that lies elsewhere."""
    folder = tmp_path / "images"
    folder.mkdir()
    samples = []
    for number, box in enumerate((BOX, [44.0, 30.0, 60.0, 46.0]), 1):
        path = folder / f"{number}.png"
        cv2.imwrite(str(path), np.full((48, 64, 3), 40 * number, np.uint8))
        boxes, labels = np.array([box], np.float32), np.array([0], np.int64)
        samples.append(Sample(path, number, 64, 48, boxes, labels, np.zeros(1, bool)))
    return CocoSet(tmp_path / "val.json", folder, tuple(samples), ("car", "bus"), (3, 7), (), "0" * 64)


class FakeWorker:
    """``command`` runs it; ``play`` sets what it does, for every runtime or by the runtime's name."""

    def __init__(self, folder):
        self.folder = folder
        (folder / "worker.py").write_text(FAKE_WORKER)
        self.command = (sys.executable, str(folder / "worker.py"))

    def play(self, **script):
        (self.folder / "script.json").write_text(json.dumps(script))

    def jobs(self):
        file = self.folder / "jobs.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []


@pytest.fixture
def worker(tmp_path):
    folder = tmp_path / "worker"
    folder.mkdir()
    return FakeWorker(folder)
