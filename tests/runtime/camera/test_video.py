"""Recordings that can be played whatever happens."""

import os
import shutil
import signal
import subprocess
import sys
import threading
import time

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera import video as module
from edgekit.runtime.camera.app import exit_code
from edgekit.runtime.camera.fmp4 import Fragments
from edgekit.runtime.camera.sinks import Mp4, Sink, SinkThread
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.camera.video import best_encoder, fitted, open_video
from edgekit.runtime.errors import BadInput

from .conftest import result, scene, wait_for

ENCODERS = [
    "mjpeg",
    pytest.param("ffmpeg", marks=pytest.mark.skipif(best_encoder() != "ffmpeg", reason="apt-get install ffmpeg")),
]


def frames(path):
    """The pictures that a player would show."""
    capture, found = cv2.VideoCapture(str(path)), []
    while True:
        done, image = capture.read()
        if not done:
            return found
        found.append(image)


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("rate", [None, 20.0])
def test_every_picture_is_in_the_file(tmp_path, encoder, rate):
    path = tmp_path / "new" / "v.mp4"
    video = open_video(path, (192, 128), rate, encoder)
    for i in range(30):
        video.write(scene(i), i / 20)
    video.close()
    found = frames(path)
    assert len(found) == 30
    assert np.abs(found[12].astype(int) - scene(12)).mean() < 16
    if rate:
        assert cv2.VideoCapture(str(path)).get(cv2.CAP_PROP_FPS) == pytest.approx(20, rel=0.05)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_the_file_can_be_played_while_it_is_written(tmp_path, encoder):
    path = tmp_path / "v.mp4"
    video = open_video(path, (192, 128), 20.0, encoder)
    for i in range(70):
        video.write(scene(i), i / 20)
    wait_for(lambda: len(frames(path)) >= 20, what="a fragment on the disk")
    video.close()
    assert len(frames(path)) == 70


@pytest.mark.parametrize("encoder", ENCODERS)
def test_after_a_kill_the_file_can_be_played(tmp_path, encoder):
    """SIGKILL of the whole program in the middle: nobody could close anything."""
    path = tmp_path / "v.mp4"
    code = (
        "import sys, time, numpy as np\nfrom edgekit.runtime.camera.video import open_video\n"
        f"video = open_video({str(path)!r}, (192, 128), 20.0, {encoder!r})\n"
        "rng = np.random.default_rng(0)\n"
        "for i in range(100000):\n"
        "    video.write(rng.integers(0, 255, (128, 192, 3), dtype=np.uint8), i / 20)\n    time.sleep(0.002)\n"
    )
    child = subprocess.Popen([sys.executable, "-c", code])
    wait_for(lambda: path.exists() and path.stat().st_size > 100_000, what="recording")
    child.send_signal(signal.SIGKILL)
    child.wait()
    time.sleep(0.3)
    assert len(frames(path)) >= 5


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("size", [(193, 129), (64, 64), (1, 1)])
def test_odd_and_tiny_sizes(tmp_path, encoder, size):
    if encoder == "ffmpeg" and min(size) < 2:
        pytest.skip("H.264 has no picture of one pixel")
    path = tmp_path / "v.mp4"
    video = open_video(path, size, 20.0, encoder)
    for i in range(3):
        video.write(scene(i, *size) if min(size) > 40 else np.zeros((*size[::-1], 3), np.uint8), i / 20)
    video.close()
    assert len(frames(path)) == 3


@pytest.mark.parametrize(
    ("shape", "filled"), [((128, 192), 1.0), ((256, 384), 1.0), ((128, 128), 2 / 3), ((64, 192), 0.5)]
)
def test_pictures_of_another_size_are_fitted_in(shape, filled):
    picture = fitted(np.full((*shape, 3), 200, np.uint8), (192, 128))
    assert picture.shape == (128, 192, 3)
    assert (picture == 200).all(axis=2).mean() == pytest.approx(filled, abs=0.02)


def played_times(path, encoder, times):
    """Milliseconds at which a player shows pictures that were taken at ``times``, in seconds."""
    video = open_video(path, (192, 128), None, encoder)
    for i, seconds in enumerate(times):
        video.write(scene(i), seconds)
    video.close()
    capture, played = cv2.VideoCapture(str(path)), []
    while capture.read()[0]:
        played.append(round(capture.get(cv2.CAP_PROP_POS_MSEC)))
    return played


@pytest.mark.parametrize("encoder", ENCODERS)
@pytest.mark.parametrize("times", [[0.0, 0.1, 0.5, 2.0, 2.1], [0.0, 0.1, 16.0, 16.1, 40.0]])
def test_real_time_is_kept_when_pictures_come_unevenly(tmp_path, encoder, times):
    """The pictures' own, not that of their writing: here all are written at once. A camera may be silent in between."""
    assert played_times(tmp_path / "v.mp4", encoder, times) == pytest.approx([t * 1000 for t in times], abs=2)


@pytest.mark.parametrize("hours", [7, 14, 100])  # 2^31 ticks are 6.6 hours, 2^32 are 13.3
def test_a_silence_of_hours_is_kept(tmp_path, hours):
    times = [0.0, 0.1, 3600.0 * hours, 3600.0 * hours + 0.1]
    assert played_times(tmp_path / "v.mp4", "mjpeg", times) == pytest.approx([t * 1000 for t in times], abs=2)


@pytest.mark.parametrize(("cores", "preset"), [(1, "ultrafast"), (2, "veryfast")])
def test_one_core_gets_the_cheapest_encoder(monkeypatch, cores, preset):
    monkeypatch.setattr(module, "core_count", lambda: cores)
    command = module._command((64, 48), None)
    assert command[command.index("-preset") + 1] == preset


def test_the_boxes_of_the_file_format():
    """Sizes of the boxes add up, level by level: a player that skips one finds the next."""
    fragments = Fragments(192, 128)
    data = fragments.head() + fragments.fragment([b"jpeg"] * 2, [0.1, 0.2]) + fragments.fragment([b"x"], [0.1])
    names, at = [], 0
    while at < len(data):
        size = int.from_bytes(data[at : at + 4], "big")
        names.append(data[at + 4 : at + 8])
        at += size
    assert at == len(data)
    assert names == [b"ftyp", b"moov", b"moof", b"mdat", b"moof", b"mdat"]


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_place_that_cannot_be_written_is_told(tmp_path, encoder):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        open_video(tmp_path / "file" / "v.mp4", (64, 64), None, encoder)
    with pytest.raises(BadInput, match="cannot be written"):
        open_video(tmp_path, (64, 64), None, encoder)


# -- a full disk ------------------------------------------------------------------------------------------------------
def record(path, encoder, count=400):
    """Record noise, which no encoder makes small, until the sink is lost. Returns (sink thread, stats)."""
    stats = Stats()
    sink = SinkThread(Mp4(path, lambda result, live: result.frame.image, stats, lambda: 30.0, encoder), stats, True)
    sink.start()
    rng = np.random.default_rng(0)
    for i in range(1, count):
        if sink.state == "lost":
            break
        sink.offer(result(i, rng.integers(0, 255, (480, 640, 3), dtype=np.uint8)))
    assert sink.finish(20)
    return sink, stats


@pytest.mark.parametrize("encoder", ENCODERS)
def test_a_full_device_is_told_in_one_event(encoder):
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full here")
    sink, stats = record("/dev/full", encoder, 80)
    assert (sink.state, "the disk is full" in sink.reason) == ("lost", True)
    assert [e["level"] for e in stats.events] == ["error"]


@pytest.fixture
def small_disk(tmp_path):
    """A file system of three megabytes."""
    place = tmp_path / "small"
    place.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=3m", "tmpfs", str(place)]
    if shutil.which("mount") is None or subprocess.run(command, stderr=subprocess.DEVNULL).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield place
    subprocess.run(["umount", str(place)], check=True)


@pytest.mark.parametrize("encoder", ENCODERS)
def test_on_a_full_disk_what_was_recorded_can_be_played(small_disk, encoder):
    path = small_disk / "v.mp4"
    sink, _ = record(path, encoder)
    assert (sink.state, "the disk is full" in sink.reason) == ("lost", True)
    assert path.stat().st_size > 1_000_000
    assert len(frames(path)) >= 5


# -- a recording that is lost is no success ---------------------------------------------------------------------------
class Odd(Sink):
    """Fails in the way it is given, and notes that it was closed."""

    name = "odd"

    def __init__(self, write=None, close=None):
        self.fail_write, self.fail_close, self.closed = write, close, False

    def write(self, result):
        if self.fail_write:
            raise self.fail_write

    def close(self):
        self.closed = True
        if self.fail_close:
            raise self.fail_close


@pytest.mark.parametrize("error", [RuntimeError("changed size"), MemoryError(), KeyError("x"), OSError(5, "I/O error")])
@pytest.mark.parametrize("where", ["write", "close"])
def test_whatever_stops_a_sink_it_is_closed_and_told(error, where):
    stats = Stats()
    sink = SinkThread(Odd(**{where: error}), stats)
    sink.start()
    sink.offer(result(1))
    assert sink.finish(10)
    assert (sink.state, sink.sink.closed) == ("lost", True)
    assert [e["level"] for e in stats.events] == ["error"]
    assert exit_code({"sinks": [sink.to_dict()], "ended": "source"}, False) == 2


def test_a_sink_that_does_not_finish_in_time_is_no_success():
    gate, sink = threading.Event(), Odd()
    sink.write = lambda result: gate.wait()
    thread = SinkThread(sink, Stats())
    thread.start()
    thread.offer(result(1))
    assert not thread.finish(0.1)
    assert exit_code({"sinks": [thread.to_dict()], "ended": "source"}, False) == 2
    assert "did not finish" in thread.to_dict()["reason"]
    gate.set()


def test_a_sink_whose_state_is_still_running_is_no_success():
    summary = {"sinks": [{"state": "running"}], "ended": "user", "missing": 0}
    assert exit_code(summary, False) == 2
    for state in ("closed", "ready"):
        assert exit_code(dict(summary, sinks=[{"state": state}]), False) == 0


@pytest.mark.skipif(best_encoder() != "ffmpeg", reason="apt-get install ffmpeg")
def test_an_encoder_that_is_killed_is_told_at_the_end_at_the_latest(tmp_path):
    video = open_video(tmp_path / "v.mp4", (192, 128), 20.0, "ffmpeg")
    video.write(scene(0), 0.0)
    video._child.kill()
    with pytest.raises(OSError, match="ffmpeg ended with code -9"):
        video.close()
