"""``edgekit build``: what is refused before any work, and what is asked for. TensorRT is the twin's simulator."""

import sys
from pathlib import Path

import pytest

from edgekit.board import load_board
from edgekit.conversion import engine
from edgekit.conversion.engine import EngineOptions, build
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.errors import BadConfig, BoardLacks, MissingDependency

SIMULATOR = Path(__file__).parents[1] / "twin" / "simulator"


@pytest.fixture
def without_tensorrt(monkeypatch):
    """Refusals come before TensorRT is looked for, and this machine has none."""
    monkeypatch.delenv("PYTHONPATH", raising=False)


REFUSED = [
    ("jetson-tx2", {"precision": "int8"}, r"INT8 on jetson-tx2: its GPU is sm_62.*--precision fp16"),
    ("jetson-nano", {"precision": "int8"}, r"sm_53"),
    ("jetson-tx2", {}, r"is not jetson-tx2 .*edgekit flash .* --board jetson-tx2 .*edgekit bundle"),
    ("jetson-agx-orin", {"precision": "fp16"}, r"is not jetson-agx-orin"),
    ("x86-1t", {}, r"has no TensorRT; it runs ONNX files as they are, in onnxruntime.*edgekit bench"),
    ("desktop-gpu", {"precision": "bf16"}, r"has no precision 'bf16'"),
]


@pytest.mark.parametrize(("board", "options", "words"), REFUSED, ids=[f"{r[0]}-{r[1]}" for r in REFUSED])
def test_what_the_board_cannot_do_is_refused_before_any_work(board, options, words, floats, tmp_path, without_tensorrt):
    with pytest.raises(BoardLacks, match=words):
        build(floats.path, board=board, out=tmp_path / "engine", options=EngineOptions(**options))
    assert not (tmp_path / "engine").exists()


def test_int8_without_ranges_and_pins_without_fp16(floats, tmp_path, without_tensorrt):
    with pytest.raises(BadConfig, match="INT8 needs ranges of real images"):
        build(floats.path, board="desktop-gpu", options=EngineOptions(precision="int8"))
    with pytest.raises(BadConfig, match=r"this one is fp32\. Leave --pin out"):
        build(floats.path, board="desktop-gpu", options=EngineOptions(precision="fp32", pin=("head",)))


def test_raw_pixels_are_refused(pixels, without_tensorrt):
    with pytest.raises(BoardLacks, match=r"its input is nhwc_uint8; .*edgekit export CHECKPOINT --board jetson-tx2"):
        build(pixels.path, board="jetson-tx2")
    with pytest.raises(BoardLacks, match=r"takes nchw_float.*edgekit export CHECKPOINT --board desktop-gpu"):
        build(pixels.path, board="desktop-gpu")


def test_a_machine_without_tensorrt_is_told_what_to_install(floats, without_tensorrt):
    with pytest.raises(MissingDependency, match="pip install tensorrt"):
        build(floats.path, board="desktop-gpu")


@pytest.mark.parametrize(("kind", "board", "wanted"), [("onnx-int8", "desktop-gpu", "int8"), ("onnx", "x86", "fp32")])
def test_the_precision_that_nobody_named(kind, board, wanted, floats, tmp_path):
    values = {k: v for k, v in floats.manifest.items() if k not in ("kind", "payload")}
    with new_artifact(tmp_path / "a", kind, values):
        pass
    assert engine.default_precision(read_artifact(tmp_path / "a"), load_board(board)) == wanted


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (EngineOptions(), ""),
        (
            EngineOptions(nms="graph", pin=("head.size", "a"), workspace_mb=64),
            " --nms graph --workspace 64 --pin head.size --pin a",
        ),
        (EngineOptions(calibration="my set", device=1), " --calibration 'my set' --device 1"),
        (EngineOptions(perf_only=True, scan=False), " --perf-only --no-scan"),
    ],
)
def test_the_command_that_builds_it_again_keeps_what_was_asked_for(options, words):
    found = engine.rebuild_command("runs/onnx", "desktop-gpu", "fp16", Path("runs/engine"), options)
    assert found == f"edgekit build runs/onnx --board desktop-gpu --precision fp16{words} --out runs/engine"


@pytest.fixture
def simulated(monkeypatch):
    """A TensorRT 8.2 that is simulated, here and in children; a desktop board takes any."""
    monkeypatch.setenv("PYTHONPATH", str(SIMULATOR))
    yield
    for name in [n for n in sys.modules if n.split(".")[0] in ("tensorrt", "pycuda")]:
        del sys.modules[name]


def test_an_engine_with_pinned_layers(floats, simulated, tmp_path):
    """The recipe of the test names no images, so nothing is scanned and only the named layers are pinned."""
    seen = []
    options = EngineOptions(pin=("head.size",), workspace_mb=64)
    made = build(
        floats.path,
        board="desktop-gpu",
        out=tmp_path / "engine",
        options=options,
        progress=lambda *step: seen.append(step),
    )
    about = made.manifest["engine"]
    assert made.kind == "engine"
    assert about["pins"]
    assert all("/size/" in name for name in about["pins"])
    assert (about["workspace_mb"], about["board"], made.manifest["precision"]) == (64, "desktop-gpu", "fp16")
    assert about["rebuild"].startswith(f"edgekit build {floats.path} --board desktop-gpu --precision fp16 --workspace ")
    assert ("build engine", 2, 3) in seen


def test_an_engine_of_another_gpu_is_none_of_this_file(floats, simulated, tmp_path, monkeypatch):
    made = build(floats.path, board="desktop-gpu", out=tmp_path / "engine", options=EngineOptions(workspace_mb=64))
    found = engine.engine_of(floats, made.path)
    assert found is not None
    assert found.digest == made.digest
    facts = {key: made.manifest["engine"][key] for key in ("tensorrt", "cuda", "sm", "device", "l4t")}
    monkeypatch.setattr(engine, "run_in_child", lambda *_: {**facts, "sm": facts["sm"] + 1})
    assert engine.engine_of(floats, made.path) is None
