"""A detector that finds bright rectangles, in an artifact that needs no network; and real streams to show it."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from collections import OrderedDict
from types import SimpleNamespace

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera.frames import Frame, Result, clock
from edgekit.runtime.detections import Detections
from edgekit.runtime.postprocess import Postprocess
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.sessions import Session

CLASSES = ["car", "bus"]


class BrightSession(Session):
    """Stands in for a network: one box around the bright pixels of the canvas, score 0.9, class by its colour."""

    def __init__(self, seconds=0.0):
        self.layout, self.postprocess, self.spans = "nhwc_uint8", {}, {}
        self.seconds = seconds
        self.threads = set()

    def infer(self, inputs):
        self.threads.add(threading.current_thread().name)
        if self.seconds:
            time.sleep(self.seconds)
        canvas = inputs["image"][0]
        boxes, scores = np.zeros((1, 1, 4), np.float32), np.zeros((1, 1, 2), np.float32)
        rows, columns = np.nonzero(canvas.max(axis=2) > 128)
        if len(rows):
            boxes[0, 0] = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
            red = canvas[rows, columns].mean(axis=0).argmax() == 2
            scores[0, 0, int(red)] = 0.9
        return {"boxes": boxes, "scores": scores}

    def describe(self):
        return {"library": "test", "version": "0", "precision": "fp32"}

    def close(self):
        return None


class BrightRunner:
    """What ``open_runner`` gives, around a BrightSession."""

    def __init__(self, seconds=0.0):
        self.session = BrightSession(seconds)
        self.preprocess = Preprocess((96, 64))
        self.postprocess = Postprocess(score_threshold=0.1)
        manifest = {"recipe": {"name": "bright"}, "category_ids": [1, 2]}
        self.artifact = SimpleNamespace(classes=CLASSES, manifest=manifest, path="bright", digest="0" * 64)

    def __enter__(self):
        return self

    def __exit__(self, *exc_info):
        return None


@pytest.fixture
def runner():
    return BrightRunner


def scene(number, width=192, height=128, count=40, colour=(255, 255, 255)):
    """Frame ``number`` of a clip: a noisy road on which a bright square moves from left to right."""
    rng = np.random.default_rng(number)
    image = rng.integers(20, 60, (height, width, 3), dtype=np.uint8)
    x = int((width - 30) * number / max(1, count - 1))
    cv2.rectangle(image, (x, height // 2 - 12), (x + 28, height // 2 + 12), colour, cv2.FILLED)
    return image


@pytest.fixture(scope="session")
def clip(tmp_path_factory):
    """A video file of 40 scenes, 20 a second."""
    path = tmp_path_factory.mktemp("clips") / "clip.avi"
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter_fourcc(*"MJPG"), 20.0, (192, 128))
    for number in range(40):
        writer.write(scene(number))
    writer.release()
    return path


@pytest.fixture
def folder(tmp_path):
    """Six images, the third of them damaged."""
    path = tmp_path / "images"
    path.mkdir()
    for number in range(6):
        cv2.imwrite(str(path / f"{number}.jpg"), scene(number, count=6))
    whole = (path / "2.jpg").read_bytes()
    (path / "2.jpg").write_bytes(whole[: len(whole) // 2])
    return path


def result(number=1, image=None, boxes=(), scores=None, classes=None, ids=None, captured=None):
    """A Result with the given boxes."""
    image = scene(0) if image is None else image
    count = len(boxes)
    found = Detections(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.full(count, 0.9) if scores is None else scores,
        np.zeros(count, np.int64) if classes is None else classes,
    )
    moment = clock() if captured is None else captured
    ids = np.zeros(count, np.int64) if ids is None else np.array(ids)
    made = Result(Frame(image, number - 1, moment), found, ids, {"inference": 0.01}, moment + 0.001, moment + 0.012)
    made.number = number
    return made


@pytest.fixture
def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture
def ffmpeg():
    """Starts ffmpeg with arguments; every one is ended with the test."""
    program = shutil.which("ffmpeg")
    if program is None:
        pytest.skip("ffmpeg is not installed: apt-get install ffmpeg")
    children = []

    def start(*arguments):
        command = [program, "-hide_banner", "-loglevel", "error", "-nostdin", *map(str, arguments)]
        children.append(subprocess.Popen(command, stdin=subprocess.DEVNULL))
        return children[-1]

    yield start
    for child in children:
        child.kill()
        child.wait()


def wait_for(condition, seconds=20.0, what="it"):
    """Wait until ``condition()`` is true."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, f"{what} did not happen within {seconds:g} s"
        time.sleep(0.02)


ABOUT = OrderedDict(source="clip", model="bright", precision="fp32", runtime="test 0", board="a board", input="96x64")
PYTHON = sys.executable


@pytest.fixture(scope="session")
def artifact(tmp_path_factory):
    """A real exported file for the real runtime: it gives two boxes whatever it sees."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    from edgekit.runtime.artifact import new_artifact

    boxes = np.array([[[10, 10, 40, 50], [50, 20, 90, 60]]], np.float32)
    scores = np.array([[[0.8, 0.0], [0.0, 0.6]]], np.float32)
    nodes = [
        helper.make_node("Cast", ["image"], ["float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMax", ["float"], ["most"], axes=[1, 2, 3], keepdims=1),
        helper.make_node("Mul", ["most", "zero"], ["nothing4"]),
        helper.make_node("Reshape", ["nothing4", "shape"], ["nothing"]),
        helper.make_node("Add", ["fixed_boxes", "nothing"], ["boxes"]),
        helper.make_node("Add", ["fixed_scores", "nothing"], ["scores"]),
    ]
    values = {"zero": np.zeros(1, np.float32), "shape": np.array([1, 1, 1], np.int64), "fixed_boxes": boxes}
    graph = helper.make_graph(
        nodes,
        "fixed",
        [helper.make_tensor_value_info("image", TensorProto.UINT8, [1, 64, 96, 3])],
        [
            helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 2, 4 if n == "boxes" else 2])
            for n in ("boxes", "scores")
        ],
        [numpy_helper.from_array(v, n) for n, v in {**values, "fixed_scores": scores}.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=7)
    onnx.checker.check_model(model)
    manifest = {
        "classes": CLASSES,
        "category_ids": [1, 2],
        "preprocess": Preprocess((96, 64)).to_dict(),
        "postprocess": Postprocess(score_threshold=0.1).to_dict(),
        "input": {"name": "image", "layout": "nhwc_uint8", "shape": [1, 64, 96, 3]},
        "precision": "fp32",
        "recipe": {"name": "fixed"},
        "parents": {},
    }
    path = tmp_path_factory.mktemp("artifacts") / "onnx"
    with new_artifact(path, "onnx", manifest) as place:
        onnx.save(model, f"{place}/model.onnx")
    return path
