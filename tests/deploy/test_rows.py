"""What a board told becomes a row: whose it is, its energy, its clocks. The board's answer is written by hand here."""

import pytest

from edgekit.board import load_board
from edgekit.deploy.rows import row_from_board
from edgekit.measure.row import Row
from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.errors import ArtifactError, BadInput
from edgekit.runtime.onboard import archive
from tests.twin import network

COURSE = {"mean": 5.0, "min": 4.0, "max": 6.0, "first": 4.0, "last": 6.0, "samples": 9}
SENSORS = {
    "energy_j": {"total": 10.0, "VDD_IN": 10.0},
    "seconds": 2.0,
    "total_rails": ["VDD_IN"],
    "clocks": {"gpu_mhz": dict(COURSE, first=1300.5, last=1300.5, min=1300.5, max=1300.5)},
    "temperatures_c": {"GPU-therm": COURSE},
    "power_mw": {"VDD_IN": dict(COURSE, first=5000.0, last=5000.0)},
}


@pytest.fixture(scope="module")
def place(bundled, tmp_path_factory):
    folder = tmp_path_factory.mktemp("place") / "b"
    archive.unpack(bundled["path"], folder)
    return folder


@pytest.fixture
def told(place):
    """The answer of a TX2 that timed 64 frames of 10 ms."""
    shipped = read_artifact(place / "artifact")
    payload = {"model.plan": {"bytes": 5000, "sha256": "1" * 64}}
    engine = {**shipped.manifest, "kind": "engine", "payload": payload, "precision": "fp16", "engine": {}}
    nothing = {"boxes": [], "scores": [], "class_ids": [], "width": 192, "height": 128}
    ms = {name: [value] * 64 for name, value in (("preprocess", 1.0), ("inference", 8.0), ("postprocess", 1.0))}
    return {
        "artifact": {"path": "/home/nvidia/.edgekit/versions/1/engine"},
        "engine": engine,
        "job": {"threads": 6, "core": None},
        "session": {"library": "tensorrt", "version": "8.2.1.8", "precision": "fp16"},
        "layout": "nchw_float",
        "preprocess": network.PREPROCESS.to_dict(),
        "detections": [{**nothing, "image": f"/somewhere/{i:05d}.png"} for i in range(4)],
        "latency_ms": {**ms, "total": [10.0] * 64},
        "timed": {
            "wall_seconds": 1.0,
            "images": 4,
            "cpu_over_wall": 0.5,
            "involuntary_switches": 0,
            "sustained": {"first_ms": 10.0, "last_ms": 10.0},
        },
        "first_ms": {"total": 50.0},
        "warmup_ms": [10.0],
        "decode_ms": [2.0],
        "load_seconds": 1.5,
        "peak_rss_bytes": {"end": 900_000_000},
        "machine_before": {"cpu": "ARMv8"},
        "machine_after": {"cpu": "ARMv8"},
        "telemetry": {"tracks": [], "energy": [], "seconds": 1.0},
        "sensors": SENSORS,
        "board": {"host": "tx2", "model": "quill", "simulated": []},
        "power": {"before": {"name": "MAXN", "id": 0}},
        "resources": {"disk_free_bytes": 9},
        "started": "2026-11-20T12:00:00+00:00",
    }


def row(told, place):
    index = archive.read_folder(place).index
    return row_from_board(told, load_board("jetson-tx2"), index, place)


def test_a_boards_row(told, place):
    found = row(told, place)
    assert (found.board, found.verdict.status, found.precision) == ("jetson-tx2", "valid", "fp16")
    assert (found.latency.p50, found.latency.count, found.model_file.bytes) == (10.0, 64, 5000)
    assert found.complexity.macs == 864  # of the ONNX file that was shipped
    assert (found.accuracy.images, found.accuracy.map50) == (4, 0.0)
    assert found.machine["board"]["model"] == "quill"
    assert found.machine["power"]["before"]["name"] == "MAXN"
    assert found.started == told["started"]


def test_energy_and_tracks_come_from_the_boards_sensors(told, place):
    found = row(told, place)
    assert found.energy.source == "INA3221 VDD_IN"
    assert found.energy.watts == pytest.approx(5.0)  # 10 J in the 2 s that were sampled, for the 1 s that was timed
    assert found.energy.joules_per_frame == pytest.approx(5.0 / 64)
    tracks = {track.name: track for track in found.tracks}
    assert (tracks["gpu clock"].unit, tracks["gpu clock"].max) == ("MHz", 1300.5)
    assert (tracks["GPU-therm temperature"].last, tracks["VDD_IN power"].first) == (6.0, 5.0)


def test_a_boards_row_carries_the_machines_reference(told, place):
    """It is the CPU's; that it moved says nothing of what the GPU did."""
    reference = {"kind": "matrix product", "slices_ms": [4.0] * 5 + [5.0] * 6}
    found = row({**told, "reference": reference}, place)
    assert found.machine_reference.slices_ms == tuple(reference["slices_ms"])
    assert found.verdict.status == "valid"
    assert row(told, place).machine_reference is None  # from a board with an older runtime


def test_without_sensors_nothing_is_measured(told, place):
    found = row({**told, "sensors": "not measured"}, place)
    assert found.energy is None
    assert found.tracks == ()


def test_a_clock_that_fell_is_throttling(told, place):
    fallen = dict(COURSE, first=1300.5, last=854.0, min=854.0, max=1300.5)
    sensors = {**SENSORS, "clocks": {"gpu_mhz": fallen}}
    assert row({**told, "sensors": sensors}, place).verdict.status == "throttled"


@pytest.mark.parametrize(("runtime", "status"), [("tensorrt8", "valid"), ("onnxruntime", "throttled")])
def test_the_clock_of_a_cpu_is_judged_where_it_computes(runtime, status, told, place):
    """Beside a GPU that works a CPU's governor does as it likes."""
    track = {"name": "cpu clock", "unit": "MHz", "source": "cpu0", "first": 2000, "last": 350, "min": 350, "max": 2000}
    told = {**told, "telemetry": {"tracks": [track], "energy": [], "seconds": 1.0}}
    index = archive.read_folder(place).index
    index = {**index, "build": {**index["build"], "runtime": runtime}}
    found = row_from_board(told, load_board("jetson-tx2"), index, place)
    assert found.verdict.status == status
    assert "cpu clock" in {track.name for track in found.tracks}


@pytest.mark.parametrize(
    "sign",
    [
        {"board": {"host": "tx2", "model": "quill", "simulated": ["the device tree says edgekit,twin"]}},
        {"session": {"library": "tensorrt", "version": "8.2.1.8", "precision": "fp16", "simulated": "a simulator"}},
    ],
)
def test_any_sign_of_a_simulator_makes_it_the_twins(sign, told, place):
    found = row({**told, **sign}, place)
    assert (found.board, found.verdict.status) == ("twin", "simulated")
    values = found.to_dict()
    for forged in ({"board": "jetson-tx2"}, {"verdict": {"status": "valid", "reasons": []}}):
        with pytest.raises(BadInput, match="measured on a simulator"):
            Row.from_dict({**values, **forged})


def test_answers_for_other_images_are_refused(told, place):
    with pytest.raises(ArtifactError, match="answered for other images"):
        row({**told, "detections": told["detections"][::-1]}, place)


def test_golden_images_alone_give_no_accuracy(told, place):
    index = {**archive.read_folder(place).index, "evaluation": None}
    records = [{**record, "image": f"/x/{i:03d}.png"} for i, record in enumerate(told["detections"])]
    found = row_from_board({**told, "detections": records}, load_board("jetson-tx2"), index, place)
    assert found.accuracy is None
    assert found.verdict.status == "perf-only"
