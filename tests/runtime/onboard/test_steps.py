"""What comes with a bundle is not believed: an engine that this board did not build, and paths on this board."""

import os
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit.runtime import engines
from edgekit.runtime.artifact import new_artifact, read_artifact
from edgekit.runtime.errors import ArtifactError
from edgekit.runtime.onboard import main, steps
from edgekit.runtime.onboard.store import Store, write_json
from tests.twin.sysroot import GPU, make_sysroot

DIGEST = "a" * 64
BIN = Path(__file__).parents[2] / "twin" / "bin"


def engine(folder, content):
    with new_artifact(folder, "engine", {"classes": ["car"]}) as place:
        (type(folder)(place) / "model.plan").write_bytes(content)
    return read_artifact(folder)


@pytest.fixture
def version(tmp_path, monkeypatch):
    """A version with an engine from elsewhere; ``build_engine`` writes another one."""
    build = {"runtime": "tensorrt8", "precision": "fp16"}
    index = {"board": {"name": "b"}, "build": build}
    bundle = SimpleNamespace(index=index, digest=DIGEST, files={}, size=0)
    monkeypatch.setattr(engines, "build_engine", lambda source, out, *rest: engine(tmp_path / "v" / "engine", b"own"))
    monkeypatch.setattr(steps, "NEEDS_BYTES", 0)
    made = engine(tmp_path / "v" / "engine", b"foreign")
    store = Store(str(tmp_path / "home"))
    write_json(str(tmp_path / "v" / "verify.json"), {"same": True, "artifact": made.digest, "seal": "0" * 64})
    write_json(str(tmp_path / "v" / "engine.json"), {"artifact": made.digest, "seal": "0" * 64})
    return steps.Version(tmp_path / "v", bundle, store)


def quiet(*told):
    """Nobody watches."""


def test_a_bench_is_of_the_boards_present_power_mode_and_clocks(version, tmp_path, monkeypatch):
    """Asked again after ``sudo nvpmodel -m 3``, the figures of mode 0 would be no answer."""
    root = make_sysroot(tmp_path / "root")
    monkeypatch.setenv("EDGEKIT_SYSROOT", str(root))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setattr(steps, "_run_worker", lambda *_: {})
    version.profile = {"name": "b", "measure": {"warmup": 1, "min_seconds": 1.0, "min_count": 1}}
    steps.build(version, quiet)

    def skipped():
        return steps.bench(version, version.store, quiet)["skipped"]

    assert [skipped(), skipped()] == [False, True]
    (root / "var" / "nvpmodel").write_text("3\n")
    assert [skipped(), skipped()] == [False, True]
    (root / GPU / "min_freq").write_text("1300500000\n")
    assert [skipped(), skipped()] == [False, True]


def test_the_boards_sensors_are_read_while_frames_run_and_not_in_a_slice_of_the_reference(tmp_path, monkeypatch):
    """What the GPU draws meanwhile is not the frames'; nor does anybody watch the slices go by."""
    monkeypatch.setenv("EDGEKIT_SYSROOT", str(tmp_path))
    rail = tmp_path / "sys/bus/i2c/drivers/ina3221x/0-0041/iio:device1"
    rail.mkdir(parents=True)
    (rail / "rail_name_0").write_text("VDD_IN")
    monkeypatch.setattr(steps, "_SENSOR_SECONDS", 0.01)
    said = []
    sensors = steps._TimedSensors(("VDD_IN",), lambda *told: said.append(told))
    idle = ["warm-up", "timed, reference", "timed", "timed, reference", "timed", "timed, reference", "accuracy"]
    for number, phase in enumerate(idle):
        (rail / "in_power0_input").write_text("10000" if phase == "timed" else "3000")
        sensors(phase, number, 9)
        time.sleep(0.05)
    sensors.stop()
    found = sensors.result()
    total = found["power_mw"]["total"]
    assert total["samples"] >= 2
    assert (total["min"], total["max"], total["last"]) == (10000, 10000, 10000)
    assert found["energy_j"]["total"] == pytest.approx(10 * found["seconds"])
    assert 0.1 <= found["seconds"] < 0.25
    assert [phase for phase, _, _ in said] == ["bench: warm-up", "bench: timed", "bench: timed", "bench: accuracy"]


def test_it_is_neither_verified_nor_measured_nor_shown_to_a_camera(version, monkeypatch):
    for step in (lambda: steps.verify(version, quiet), lambda: steps.bench(version, version.store, quiet)):
        with pytest.raises(ArtifactError, match=r"version v: has no engine that was built on this board.*build /\S+/v"):
            step()
    monkeypatch.setenv("EDGEKIT_HOME", version.store.home)
    monkeypatch.setattr(steps, "open_version", lambda *_: version)
    with pytest.raises(ArtifactError, match="built on this board"):
        main._camera_arguments(["current", "--source", "0"])


def test_it_is_replaced_by_one_that_is_built_here_and_that_one_is_kept(version, tmp_path):
    assert not steps.build(version, quiet)["skipped"]
    assert (tmp_path / "v" / "engine" / "model.plan").read_bytes() == b"own"
    assert steps.build(version, quiet)["skipped"]
    assert steps.runnable(version).digest == read_artifact(tmp_path / "v" / "engine").digest
    other = steps.Version(version.folder, version.bundle, Store(str(tmp_path / "other")))
    assert not steps.build(other, quiet)["skipped"]  # the folder was carried to another board


@pytest.mark.parametrize("option", ["timing_cache", "calibration_cache", "calibration_images", "perf_only"])
def test_a_bundle_names_no_files_of_the_board(option, version):
    """The caches are written: a bundle that names them could replace any file of the user."""
    version.options[option] = "/home/nvidia/.bashrc"
    with pytest.raises(ArtifactError, match=option + "; a bundle may say precision, nms, workspace_mb, pins"):
        steps.build(version, quiet)


def test_what_bundle_writes_on_the_build_is_followed(version):
    said = {"precision": "fp16", "nms": "host", "workspace_mb": 9, "pins": ["a"]}
    version.options = {"runtime": "tensorrt8", **said}
    assert said.items() <= steps.build_options(version).items()
