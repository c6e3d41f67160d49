"""Whole runs by the board's command line: sinks together, signals at any moment, streams that die and return."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path

import cv2
import pytest

import edgekit
from edgekit.runtime.camera import app
from edgekit.runtime.camera.cli import main
from edgekit.runtime.camera.options import Options, parse_size
from edgekit.runtime.camera.sources import open_source
from edgekit.runtime.camera.vitals import Vitals, board_readings, words
from edgekit.runtime.errors import BadConfig, BadInput, EdgeKitError, MissingDependency

from .test_video import frames

SYSTEM_PYTHON = "/usr/bin/python3"
RTSP_PACKAGES = "python3-gi gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good"
ROOT = Path(edgekit.__file__).resolve().parents[1]


class Run:
    """The command line as a process of its own."""

    def __init__(self, *arguments, python=sys.executable, env=None, program=None):
        start = ["-m", "edgekit.runtime.camera.cli"] if program is None else ["-c", program]
        command = [python, *start, *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        self.child = subprocess.Popen(command, cwd=ROOT, text=True, env=env, **pipes)
        self.lines = []
        self._reader = threading.Thread(target=lambda: self.lines.extend(self.child.stderr), daemon=True)
        self._reader.start()

    @property
    def said(self):
        return "".join(self.lines)

    def wait_for(self, pattern, seconds=60):
        end = time.monotonic() + seconds
        while not re.search(pattern, self.said, re.MULTILINE):
            assert self.child.poll() is None or re.search(pattern, self.said, re.MULTILINE), self.said
            assert time.monotonic() < end, f"{pattern!r} was not said: {self.said}"
            time.sleep(0.05)

    def end(self, *signals, seconds=60):
        """Send signals, wait, and give (exit code, stdout)."""
        for number in signals:
            self.child.send_signal(number)
            time.sleep(0.05)
        out = self.child.stdout.read()
        code = self.child.wait(seconds)
        self._reader.join(5)
        return code, out


@pytest.fixture
def run():
    started = []

    def start(*arguments, **options):
        started.append(Run(*arguments, **options))
        return started[-1]

    yield start
    for one in started:
        one.child.kill()
        one.child.wait()


def records(path):
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


# -- all sinks at once ------------------------------------------------------------------------------------------------
def test_offline_every_frame_is_in_every_record(artifact, clip, tmp_path, capsys):
    places = [tmp_path / n for n in ("v.mp4", "l.jsonl", "c.json")]
    sinks = ["--mp4", places[0], "--jsonl", places[1], "--coco", places[2], "--headless", "--json"]
    more = ["--count-line", "0.5,0,0.5,1", "--source", clip, "--offline"]
    assert main([str(a) for a in [artifact, *more, *sinks]]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["captured"], summary["results"], summary["dropped"], summary["ended"]) == (40, 40, 0, "source")
    assert {s["name"]: (s["state"], s["written"]) for s in summary["sinks"]} == {
        **dict.fromkeys(("mp4", "jsonl", "coco"), ("closed", 40)),
        "headless": ("closed", summary["sinks"][3]["written"]),
    }
    assert len(frames(places[0])) == 40
    assert [r["frame"] for r in records(places[1]) if r["type"] == "frame"] == list(range(40))
    coco = json.loads(places[2].read_text())
    assert (len(coco["images"]), len(coco["annotations"])) == (40, 80)
    assert coco["annotations"][0]["bbox"] == pytest.approx([20, 20, 60, 80], abs=0.01)  # 96x64 -> 192x128
    assert {a["track_id"] for a in coco["annotations"]} == {1, 2}


def test_a_folder_with_a_damaged_image(artifact, folder, tmp_path, capsys):
    path = tmp_path / "c.json"
    assert main([str(artifact), "--source", str(folder), "--offline", "--coco", str(path), "--json"]) == 0
    assert [i["file_name"] for i in json.loads(path.read_text())["images"]] == [f"{n}.jpg" for n in (0, 1, 3, 4, 5)]
    assert json.loads(capsys.readouterr().out)["corrupt"] == 1


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--source", "nothing.mp4"], "no such video file"),
        (["--source", "csi://0"], "no board was named.*--board jetson-tx2.*a whole GStreamer string"),
        (["--source", "{clip}", "--score", "2"], "--score: expected 0..1"),
        (["--source", "{clip}", "--score", "-1", "--seconds", "0"], "--score.*--seconds"),
        (["--source", "{clip}", "--count-line", "1,2"], "--count-line"),
        (["--source", "{clip}", "--zone", "none.json"], "none.json"),
        (["--source", "{clip}", "--no-track", "--count-line", "0,0,1,1"], "leave --no-track out"),
        (["--source", "{clip}", "--offline", "--loop"], "never end"),
        (["--source", "udp://127.0.0.1:9", "--offline"], "cannot wait"),
        (["--source", "{clip}", "--mp4", "x", "--jsonl", "x"], "the same file"),
        (["--source", "{clip}", "--mp4", "/proc/nothing/x.mp4"], "cannot be written"),
        (["--source", "{clip}", "--jsonl", "/proc/x.jsonl"], "cannot be written"),
        (["--source", "{clip}", "--runtime", "abacus"], "no runtime 'abacus'"),
        (["--source", "{clip}", "--web", "99999"], "0..65535"),
        (["--source", "{clip}", "--bind", "203.0.113.9"], "cannot be used"),
        (["--source", "{clip}", "--threads", "0"], "--threads"),
        (["--source", "{clip}", "--threads", "99999"], "--threads: expected 1..256"),
        (["--source", "{clip}", "--timeout", "inf"], "--timeout: expected a number above 0, got inf"),
        (["--source", "{clip}", "--timeout", "nan"], "--timeout: expected a number above 0, got nan"),
        (["--source", "{clip}", "--timeout", "3e6"], r"--timeout: expected at most 86400 seconds \(a day\)"),
        (["--source", "csi://0", "--fps", "inf"], "--fps: expected a number above 0, got inf"),
        (["--source", "{clip}", "--flip", "2"], "cannot follow --flip; it follows --fps, --loop"),
        (
            ["--source", "rtsp://a:secret@b/s", "--loop"],
            r"^edgekit: rtsp://a:\*\*\*@b/s: this source cannot follow --loop",
        ),
        (["--source", " "], r"source is missing \(--source\)"),
        (["--source", "{clip}", "--mp4", "x.mkv"], r"--mp4 x.mkv: MP4 is written there.* ends in .mp4 or .m4v"),
        (["--source", "{clip}", "--mp4", "x.TXT"], "--mp4 x.TXT: MP4 is written there"),
        (["--source", "{clip}", "--mp4", ""], "--mp4: the name of a file is missing"),
        (["--source", "{clip}", "--mp4", "a/x", "--jsonl", "a/../a/x"], "the same file"),
        (["--source", "{clip}", "--mp4", "{clip}"], "would overwrite the source"),
        (["--source", "file://{clip}", "--jsonl", "{clip}"], "would overwrite the source"),
        (["--source", "{clip}", "--jsonl", "/dev/full"], "no space left"),
        (["--source", "{clip}", "--coco", "/dev/full"], "is no file"),
        (["--source", "{clip}", "--coco", "/"], "is no file"),
    ],
)
def test_mistakes_are_told_in_one_sentence(artifact, clip, capsys, arguments, words):
    code = main([str(artifact), *(a.format(clip=clip) for a in arguments)])
    said = capsys.readouterr().err
    assert code == 2
    assert re.search(words, said), said
    assert "Traceback" not in said


def test_one_run_looks_at_one_source(artifact, clip, capsys):
    with pytest.raises(SystemExit) as ended:
        main([str(artifact), "--source", str(clip), "--source", "0"])
    assert ended.value.code == 2
    assert "--source is given twice" in capsys.readouterr().err


def test_a_board_without_a_csi_camera_is_named():
    with pytest.raises(BadInput, match="board x86 has no string for a CSI camera"):
        open_source("csi://0", board={"name": "x86"})


def test_a_folder_that_is_made_is_told(artifact, clip, tmp_path, capsys):
    place = tmp_path / "new" / "c.json"
    assert main([str(a) for a in [artifact, "--source", clip, "--offline", "--frames", 2, "--coco", place]]) == 0
    assert f"a new folder is made: {place.parent}\n" in capsys.readouterr().err
    assert main([str(a) for a in [artifact, "--source", clip, "--offline", "--frames", 2, "--coco", place]]) == 0
    assert "a new folder" not in capsys.readouterr().err


def test_an_older_record_is_told_before_it_is_replaced(artifact, clip, tmp_path, capsys):
    path, counted = tmp_path / "l.jsonl", ["--count-line", "0,0.5,1,0.5"]
    command = [str(a) for a in [artifact, "--source", clip, "--offline", "--frames", 2, "--jsonl", path, *counted]]
    told = f"{path}: holds an older record, which this run will replace\n"
    for older in (False, True):
        assert main(command) == 0
        assert (told in capsys.readouterr().err) == older
    assert records(path)[-1]["counts"][0]["kind"] == "line"


@pytest.mark.parametrize(("more", "of"), [((), "40"), (("--frames", "20"), "20")])
def test_an_offline_run_that_is_interrupted_says_how_far_it_came(run, artifact, clip, tmp_path, more, of):
    program = """
import sys, time
from edgekit.runtime.camera import app, cli
options = cli.options_of
cli.options_of = lambda values: setattr(made := options(values), "log_every", 0.1) or made
result = app.Stats.result
app.Stats.result = lambda stats, one: time.sleep(0.1) or result(stats, one)
sys.exit(cli.main(sys.argv[1:]))
"""
    path = tmp_path / "c.json"
    running = run(artifact, "--source", clip, "--offline", "--coco", path, "--json", *more, program=program)
    running.wait_for(rf"^[2-9] of {of} frames; \d")
    code, out = running.end(signal.SIGINT)
    summary = json.loads(out)
    assert (code, summary["ended"], summary["dropped"]) == (130, "user", 0)
    assert f"interrupted after {summary['results']} of {of} frames" in running.said
    assert len(json.loads(path.read_text())["images"]) == summary["results"]


def test_a_stream_does_not_tell_its_length():
    assert app.frames_of(3, None) == "3 frames"


def test_no_record_takes_the_place_of_what_is_read(artifact, folder, tmp_path, capsys):
    zones = tmp_path / "zones.json"
    zones.write_text('{"zones": [{"polygon": [[0, 0], [1, 0], [1, 1]]}]}')
    before = {p: p.read_bytes() for p in (zones, folder / "0.jpg")}
    for place in before:
        assert main([str(artifact), "--source", str(folder), "--zone", str(zones), "--coco", str(place)]) == 2
        assert "would overwrite" in capsys.readouterr().err
    assert {p: p.read_bytes() for p in before} == before


def test_a_source_that_does_not_open_costs_no_older_record(artifact, tmp_path, capsys):
    places = {n: tmp_path / n for n in ("v.mp4", "l.jsonl", "c.json")}
    for place in places.values():
        place.write_text("yesterday's")
    sinks = ["--mp4", places["v.mp4"], "--jsonl", places["l.jsonl"], "--coco", places["c.json"]]
    assert main([str(a) for a in [artifact, "--source", "tcp://127.0.0.1:9", "--timeout", "1", *sinks]]) == 2
    assert "no stream there" in capsys.readouterr().err
    assert {p.read_text() for p in places.values()} == {"yesterday's"}
    assert main([str(a) for a in [artifact, "--source", "tcp://127.0.0.1:9", "--mp4", tmp_path / "new.mp4"]]) == 2
    assert not (tmp_path / "new.mp4").exists()


def test_a_file_that_is_cut_off_was_not_worked_through(artifact, clip, tmp_path, capsys):
    path = tmp_path / "cut.avi"
    path.write_bytes(clip.read_bytes()[: clip.stat().st_size // 2])
    assert main([str(artifact), "--source", str(path), "--offline", "--json"]) == 2
    out = capsys.readouterr()
    summary = json.loads(out.out)
    assert summary["results"] + summary["missing"] == 40
    assert out.err.count("warning: the file is cut off") == 1
    assert main([str(artifact), "--source", str(path), "--frames", "3", "--offline"]) == 0


def test_so_many_results_and_no_more(artifact, clip, tmp_path, capsys):
    path = tmp_path / "l.jsonl"
    assert main([str(artifact), "--source", str(clip), "--frames", "3", "--jsonl", str(path), "--json"]) == 0
    summary = json.loads(capsys.readouterr().out)
    assert (summary["results"], summary["ended"]) == (3, "limit")
    assert len([r for r in records(path) if r["type"] == "frame"]) == 3


@pytest.mark.parametrize("place", ["nowhere", "{folder}"])
def test_what_is_no_artifact_is_told(folder, clip, capsys, place):
    assert main([place.format(folder=folder), "--source", str(clip)]) == 2
    assert "not an artifact" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "640", "640x", "0x480", "-1x5", "axb", "640x480x3", "640 x 480"])
def test_a_wrong_size_is_told(text):
    with pytest.raises(BadConfig, match="WIDTHxHEIGHT"):
        parse_size(text)


def test_sizes_and_unknown_options():
    assert parse_size("1280X720") == (1280, 720)
    with pytest.raises(BadConfig, match="colour"):
        Options(artifact="a", source="0", colour="red")


def test_a_window_needs_a_screen(monkeypatch):
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(MissingDependency, match="--web"):
        app.require_window()


def test_the_board_file_beside_the_model_names_the_board(artifact, clip, tmp_path, capsys):
    import shutil

    bundle = tmp_path / "bundle"
    shutil.copytree(artifact, bundle / "model")
    (bundle / "board.json").write_text(json.dumps({"name": "t", "title": "a test board", "runtimes": ["onnxruntime"]}))
    assert main([str(bundle / "model"), "--source", str(clip), "--frames", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["board"] == "a test board"
    (bundle / "board.json").write_text("[")
    assert main([str(bundle / "model"), "--source", str(clip)]) == 2
    assert "board.json" in capsys.readouterr().err


# -- signals ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("signals", [(signal.SIGINT,), (signal.SIGTERM,), (signal.SIGINT, signal.SIGINT)])
def test_a_signal_leaves_every_record_whole(artifact, clip, tmp_path, run, signals):
    places = [tmp_path / n for n in ("v.mp4", "l.jsonl", "c.json")]
    running = run(artifact, "--source", clip, "--loop", "--mp4", places[0], "--jsonl", places[1], "--coco", places[2],
                  "--web", "0", "--json")  # fmt: skip
    running.wait_for("page: ")
    wait = time.monotonic() + 30
    while time.monotonic() < wait and not (places[1].exists() and places[1].read_text().count("\n") > 20):
        time.sleep(0.05)
    code, out = running.end(*signals)
    assert code == 0, running.said
    summary = json.loads(out)
    assert summary["ended"] == "user"
    assert {s["state"] for s in summary["sinks"]} == {"closed"}
    found = records(places[1])
    assert (found[0]["type"], found[-1]["type"]) == ("start", "end")
    written = {s["name"]: s["written"] for s in summary["sinks"]}
    assert len(frames(places[0])) == written["mp4"] > 0
    assert len(json.loads(places[2].read_text())["images"]) == written["coco"]
    assert "Traceback" not in running.said


@pytest.mark.parametrize("library", ["numpy", "cv2", "onnxruntime"])
def test_a_signal_while_libraries_load_is_no_traceback(artifact, clip, tmp_path, run, library):
    path = tmp_path / "l.jsonl"
    running = run(artifact, "--source", clip, "--loop", "--jsonl", path)
    maps = Path(f"/proc/{running.child.pid}/maps")
    end = time.monotonic() + 30
    while f"/{library}/" not in maps.read_text() and time.monotonic() < end:
        time.sleep(0.002)
    code, _ = running.end(signal.SIGINT)
    assert code in (0, 130), running.said
    assert "Traceback" not in running.said
    if path.exists() and path.stat().st_size:
        records(path)


def test_under_nohup_the_terminals_end_is_not_the_runs(artifact, clip, tmp_path):
    path = tmp_path / "l.jsonl"
    command = [sys.executable, "-m", "edgekit.runtime.camera.cli", str(artifact), "--source", str(clip), "--loop"]
    child = subprocess.Popen(["nohup", *command, "--jsonl", str(path)], cwd=ROOT, stderr=subprocess.DEVNULL)
    count_frames(path, 5)
    child.send_signal(signal.SIGHUP)
    count_frames(path, count_frames(path, 0) + 5)
    child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0


BOARD = "import sys; from edgekit.runtime.onboard.main import main; sys.exit(main(sys.argv[1:]))"


@pytest.mark.parametrize("first", [[], ["nohup"]], ids=["terminal", "nohup"])
def test_the_boards_camera_ends_with_its_terminal(artifact, clip, tmp_path, first):
    """``ssh -t board ... camera`` and the connection is lost: nobody reads what it says, and nobody could stop it."""
    path = tmp_path / "l.jsonl"
    command = [*first, sys.executable, "-c", BOARD, "camera", str(artifact), "--source", str(clip), "--loop"]
    child = subprocess.Popen(
        [*command, "--jsonl", str(path)],
        cwd=ROOT,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGHUP, signal.SIG_DFL),  # whatever the tests themselves run under
    )
    count_frames(path, 5)
    child.stderr.close()
    child.send_signal(signal.SIGHUP)
    if first:
        count_frames(path, count_frames(path, 0) + 5)
        child.send_signal(signal.SIGTERM)
    assert child.wait(60) == 0
    found = records(path)
    assert (found[0]["type"], found[-1]["type"]) == ("start", "end")


# -- sources that go away ---------------------------------------------------------------------------------------------
@pytest.fixture
def stream(request, clip, ffmpeg, free_port):
    """(start, address) of a real server of the kind that the parameter names; the servers end with the test."""
    children = []

    def rtsp():
        command = [SYSTEM_PYTHON, str(Path(__file__).with_name("rtsp_server.py")), str(free_port)]
        children.append(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL))
        if children[-1].stdout.readline() != b"ready\n":
            pytest.skip(
                "no RTSP server: apt-get install gir1.2-gst-rtsp-server-1.0 gstreamer1.0-plugins-good python3-gi"
            )
        return children[-1]

    def mpeg_ts():
        encode = ("-stream_loop", "-1", "-re", "-i", clip, "-c:v", "mpeg2video", "-g", "5", "-f", "mpegts")
        return ffmpeg(*encode, f"tcp://127.0.0.1:{free_port}?listen=1")

    addresses = {"rtsp": f"rtsp://127.0.0.1:{free_port}/stream", "mpeg_ts": f"tcp://127.0.0.1:{free_port}"}
    yield {"rtsp": rtsp, "mpeg_ts": mpeg_ts}[request.param], addresses[request.param]
    for child in children:
        child.kill()
        child.wait()
        child.stdout.close()


@pytest.mark.slow
@pytest.mark.parametrize("stream", ["mpeg_ts", "rtsp"], indirect=True)
def test_a_server_dies_and_returns(artifact, stream, tmp_path, run):
    """Killed and started again, twice."""
    start, address = stream
    server = start()
    time.sleep(0.7)
    path = tmp_path / "l.jsonl"
    running = run(artifact, "--source", address, "--timeout", "5", "--jsonl", path, "--json")
    for life in (1, 2):
        count_frames(path, 10)
        server.kill()
        server.wait()
        running.wait_for(f"(?s)(warning: the source (broke off|silent).*){{{life}}}")
        seen = count_frames(path, 0)
        server = start()
        running.wait_for(f"(?s)(info: the source is back.*){{{life}}}")
        count_frames(path, seen + 10)
    code, out = running.end(signal.SIGINT)
    assert code == 0
    assert json.loads(out)["reconnects"] >= 2
    texts = [r["text"] for r in records(path) if r["type"] == "event"]
    assert texts.count("the source is back") >= 2
    assert "Connection refused" not in running.said  # the decoder's own chatter


def count_frames(path, wanted, seconds=60):
    """Wait until the record has so many frames; gives how many."""
    end = time.monotonic() + seconds
    while True:
        count = path.read_text().count('"type":"frame"') if path.exists() else 0
        if count >= wanted:
            return count
        assert time.monotonic() < end, f"{count} frames"
        time.sleep(0.05)


@pytest.mark.parametrize("scheme", ["tcp", "http", "rtsp"])
def test_a_source_that_never_answers_ends_with_a_clear_message(artifact, run, scheme):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        address = f"{scheme}://127.0.0.1:{server.getsockname()[1]}/stream"
        running = run(artifact, "--source", address, "--timeout", "2")
        begun = time.monotonic()
        code, _ = running.end()
        assert code == 2
        assert time.monotonic() - begun < 30
    assert re.search("no picture within|no stream there|no answer in 2 s", running.said), running.said
    assert "Traceback" not in running.said


def test_a_stream_whose_size_changes(artifact, tmp_path, capsys):
    """A folder of images of two sizes plays that stream: the video keeps the first one's size, and an event says so."""
    place = tmp_path / "images"
    place.mkdir()
    from .conftest import scene

    for i in range(6):
        cv2.imwrite(str(place / f"{i}.jpg"), scene(i, *((320, 240) if i in (2, 4, 5) else (192, 128))))
    path = tmp_path / "v.mp4"
    assert main([str(artifact), "--source", str(place), "--offline", "--mp4", str(path)]) == 0
    assert capsys.readouterr().err.count("pictures are 320x240 now; the video stays 192x128") == 1
    assert [f.shape for f in frames(path)] == [(128, 192, 3)] * 6


def test_a_recording_that_meets_a_full_disk_is_told_and_the_rest_goes_on(artifact, clip, tmp_path, capsys):
    path = tmp_path / "l.jsonl"
    arguments = [
        str(artifact),
        "--source",
        str(clip),
        "--offline",
        "--mp4",
        "/dev/full",
        "--jsonl",
        str(path),
        "--json",
    ]
    assert main(arguments) == 2
    out = capsys.readouterr()
    summary = json.loads(out.out)
    assert {s["name"]: s["state"] for s in summary["sinks"]} == {"mp4": "lost", "jsonl": "closed", "headless": "closed"}
    assert out.err.count("the disk is full") == 2  # when it happens, and at the end
    assert sum(r["type"] == "frame" for r in records(path)) == 40


def test_the_page_is_served_while_it_runs(artifact, clip, run):
    running = run(artifact, "--source", clip, "--loop", "--web", "0")
    running.wait_for("page: http")
    address = re.search(r"page: (\S+)", running.said).group(1)
    end = time.monotonic() + 30
    while time.monotonic() < end:
        status = json.load(urllib.request.urlopen(f"{address}status.json", timeout=10))
        if status.get("live", {}).get("results", 0) > 5:
            break
        time.sleep(0.1)
    assert status["state"] == "live"
    assert status["live"]["latency_ms"]["p50"] > 0
    assert running.end(signal.SIGINT)[0] == 0


# -- temperatures and clocks ------------------------------------------------------------------------------------------
def test_a_boards_temperatures_and_clocks(tmp_path):
    def put(path, text):
        (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / path).write_text(text)

    put("sys/class/thermal/thermal_zone0/type", "GPU-therm\n")
    put("sys/class/thermal/thermal_zone0/temp", "41500\n")
    put("sys/devices/system/cpu/cpu0/cpufreq/scaling_cur_freq", "2035200\n")
    readings = board_readings(str(tmp_path))
    assert readings[0] == {"name": "GPU-therm temperature", "unit": "C", "value": 41.5}
    assert readings[1] == {"name": "cpu clock", "unit": "MHz", "value": 2035.2}
    assert Vitals(str(tmp_path)).read() == readings
    assert words(readings) == "GPU-therm temperature 42 C, cpu clock 2035 MHz"
    assert words([]) == "temperature and clock not measured"


# -- Python 3.6 -------------------------------------------------------------------------------------------------------
@pytest.mark.real36
def test_a_run_under_python36_sees_the_same(artifact, clip, tmp_path, run):
    python = os.environ.get("EDGEKIT_PYTHON36")
    if not python:
        pytest.skip("EDGEKIT_PYTHON36 does not name a Python 3.6")
    clean = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    found = []
    for name, program in (("old", python), ("new", sys.executable)):
        places = [tmp_path / f"{name}.{suffix}" for suffix in ("mp4", "jsonl", "json")]
        sinks = ["--mp4", places[0], "--jsonl", places[1], "--coco", places[2], "--web", "0", "--json"]
        more = ["--source", clip, "--offline", "--count-line", "0,0.5,1,0.5"]
        running = run(artifact, *more, *sinks, python=program, env=clean)
        code, out = running.end()
        assert code == 0, running.said
        assert json.loads(out)["results"] == len(frames(places[0])) == 40
        found.append(json.loads(places[2].read_text()))
    assert found[0]["annotations"] == found[1]["annotations"]


def test_the_errors_of_the_room_are_the_projects():
    with pytest.raises(EdgeKitError):
        Options()
