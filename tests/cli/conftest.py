"""Verbs that do nothing but remember how they were called."""

from __future__ import annotations

from pathlib import Path

import pytest

import edgekit
from edgekit.conversion.lint import Report
from edgekit.deploy.flashing import Flashed
from edgekit.measure.compare import Comparison
from edgekit.measure.complexity import Complexity, Layer
from edgekit.measure.gate import compare
from edgekit.measure.metrics import parse_limits
from edgekit.measure.row import Latency, Row
from edgekit.measure.scoring import load_references, load_rules, rank
from edgekit.runtime.artifact import new_artifact, read_artifact


class Recorder:
    """Stands in for ``edgekit``'s verbs: each records its arguments and returns ``results[verb]``, or raises it."""

    def __init__(self):
        self.calls = []
        self.results = {}

    def __getattr__(self, verb):
        if verb not in edgekit.VERBS:
            raise AttributeError(verb)

        def call(*args, **kwargs):
            self.calls.append((verb, args, kwargs))
            result = self.results.get(verb)
            if isinstance(result, BaseException):
                raise result
            return result(**kwargs) if callable(result) else result

        return call


@pytest.fixture
def artifact(tmp_path):
    """A small artifact, as train, export and quantize return one."""
    manifest = {"classes": ["car"], "metrics": {"map50": 0.25}}
    with new_artifact(tmp_path / "artifact", "onnx", manifest) as folder:
        (Path(folder) / "model.onnx").write_bytes(b"0" * 1_500_000)
    return read_artifact(tmp_path / "artifact")


@pytest.fixture
def row():
    """One measured row that is not valid."""
    return Row(
        model="the-model",
        recipe="r",
        board="x86-1t",
        runtime="onnxruntime",
        precision="fp32",
        input={"width": 64, "height": 32, "layout": "nhwc_uint8"},
        artifact="0" * 64,
        model_file={"name": "model.onnx", "bytes": 1_500_000, "sha256": "0" * 64},
        latency=Latency.from_samples([12.346] * 100),
        process={"threads": 1, "core": 1, "warmup": 0},
        verdict={"status": "noisy", "reasons": ("another process used the core",)},
    )


FACTS = {"opset": 13, "nodes": 1, "producer": "", "inputs": {"image": "float [1]"}, "outputs": {}}
MEMORY = {"precision": "fp16", "available": 7850.0, "build": {}, "run": {"weights": 2.0}, "run_total": 2.0}

CAMERA = {
    "results": 3,
    "captured": 4,
    "dropped": 1,
    "stale": 0,
    "corrupt": 0,
    "seconds": 1.0,
    "results_fps": 3.0,
    "latency_ms": {"p50": 9.0, "p90": None, "p99": None},
    "sinks": [],
    "counts": [],
    "ended": "source",
    "missing": 0,
    "offline": False,
    "length": None,
}


@pytest.fixture
def pipeline(monkeypatch, artifact, row):
    """The recorder, in the place of every verb of ``edgekit``, with a result of the right shape for each."""
    recorder = Recorder()
    recorder.results = {
        **dict.fromkeys(("train", "export", "quantize", "build"), artifact),
        "evaluate": {"map": 0.125, "map50": 0.25, "per_class": {"car": {"ap": 0.125}}},
        "bench": [row],
        "bench_compare": Comparison(
            a=row, b=row, ratio={"value": 1.5, "low": 1.4, "high": 1.6}, pairs=((2, 3),), frames=4
        ),
        "run": [row],
        "report": artifact.path,
        "predict": {"images": 2, "boxes": 7, "detections": []},
        "label": {"images": 2, "labels": 7, "ignored": 1},
        "data_stats": {
            "images": 1,
            "image_sizes": {"640x480": 1},
            "per_class": {"car": {"boxes": 2}},
            "notes": ["a note"],
        },
        "data_recipe": {
            "recipe": "r",
            "images_per_epoch": 4,
            "sources": [
                {
                    "source": "roads",
                    "split": "train",
                    "labelled": ["car"],
                    "repeat": 2.0,
                    "images": 2,
                    "images_without_boxes": 0,
                    "boxes": 3,
                    "per_class": {"car": {"boxes": 3}, "person": {"boxes": 0}},
                }
            ],
            "notes": ["a note"],
        },
        "zoo": [
            {"name": "one", "params": 1616168, "map50": None, "mark": "exact"},
            {"name": "two", "map50": 0.5, "mark": "exact"},
        ],
        "boards": [{"name": "x86-1t", "runtimes": ["onnxruntime"], "threads": 1}],
        "doctor": {
            "edgekit": "0",
            "machine": {"cpu": "a CPU", "cores": 2, "memory_mb": 1024, "system": "Linux"},
            "checks": [
                {
                    "group": "package",
                    "name": "torch",
                    "status": "missing",
                    "found": "no",
                    "mend": "pip install '.[train]'",
                }
            ],
            "boards": [{"name": "x86", "title": "", "matches": False, "runtimes": [], "against": ["it is an arm"]}],
        },
    }
    recorder.results |= {
        "card": "# one\n",
        "import_onnx": artifact,
        "lint": Report("m.onnx", "jetson-tx2", None, FACTS, (), MEMORY),
        "complexity": Complexity(5, 7, (Layer("l", "Conv", (1, 2), 5, 7),)),
        "gate": compare([row], [row], parse_limits(["size=+1%"])),
        "baseline": [{"row": "the-model", "runs": 3}],
        "score": rank([row], load_rules("icme2020"), load_references("icme2020-table1")),
        "schema": {"type": "object"},
        "camera": CAMERA,
        "bundle": {"path": "b.tar.gz", "bytes": 5, "board": "jetson-tx2"},
        "flash": [Flashed("tx2", "jetson-tx2", {"build": "done"}, "v1", row=row)],
    }
    for verb in edgekit.VERBS:
        monkeypatch.setitem(vars(edgekit), verb, getattr(recorder, verb))
    return recorder
