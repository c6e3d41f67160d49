"""One run of the camera: options in, summary out. The command lines of board and workstation both call ``run``."""

import os
import threading
import webbrowser
from collections import OrderedDict

import cv2
import numpy as np

from ..artifact import read_artifact
from ..errors import BadConfig, MissingDependency
from ..machine import facts
from ..onboard.identity import identity
from ..runner import Runner
from ..sessions import open_session, preferred_runtime
from . import counters, strings, tracking
from .capture import Capture
from .frames import clock
from .hub import Hub
from .options import core_count
from .overlay import Painter, number
from .pipeline import Pipeline
from .records import CocoJson, JsonLines
from .signals import Signals
from .sinks import Headless, Mp4, SinkThread, Window, view_pace
from .sources import Options as SourceOptions
from .sources import open_source
from .stats import Stats
from .vitals import Vitals, words
from .web import Server

FLOOR = 0.1  # lowest score that is looked at: the tracker's weak boxes, and the lower end of the page's slider
_SAMPLE_SECONDS = 1.0
_ERRORS_ONLY, _SILENT_FFMPEG = 2, "-8"  # their own levels


def run(options, say):
    """Show, record and serve what the detector sees until the source ends or a signal comes.

    options: ``options.Options``; say: called with each line for people. Returns the summary: ``Stats.summary`` and
    source, model, precision, runtime, board, sinks, counts, sensors, ``ended`` ("source", "limit", "user"), ``offline``
    and ``length`` (frames that a run of a file has before it; None where that is not known).
    """
    artifact = read_artifact(options.artifact)
    board, make_source, places = checked(options)
    cv2.setNumThreads(1)  # a pool of its own would fight with the inference for the cores
    runtime = options.runtime or preferred_runtime(artifact, board.get("runtimes") or ["onnxruntime"])
    stop = threading.Event()
    with Signals(stop) as signals, _open(artifact, runtime, options) as runner:
        if stop.is_set():
            raise KeyboardInterrupt
        width, height = runner.preprocess.size
        runner.check(np.full((height, width, 3), runner.preprocess.pad_value, np.uint8))  # and warms up
        session = _Session(options, board, runner, make_source, places, stop, say)
        session.run()
        return session.summary("user" if signals.count else None)


def checked(options):
    """(board, what makes the source, lines and zones) of a run: what is wrong with them is told before anything is
    loaded, or exported.
    """
    board = options.board if options.board is not None else strings.read_board(options.artifact)
    make_source = source_maker(options, board)
    quieten()
    source = make_source()
    source.check()
    if options.offline and source.live:
        raise BadConfig("--offline: {} cannot wait for the network; it is for files and folders".format(source.shown))
    places = counters_of(options)
    if options.window:
        require_window()
    return board, make_source, places


def _open(artifact, runtime, options):
    session = open_session(runtime, artifact, options.compute_threads())
    return Runner(artifact, session, min(options.score, FLOOR))


def quieten():
    """OpenCV and FFmpeg be silent: what goes wrong with a source is told in our words."""
    os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", _SILENT_FFMPEG)
    logging = getattr(cv2.utils, "logging", cv2)
    if hasattr(logging, "setLogLevel"):
        logging.setLogLevel(_ERRORS_ONLY)


def source_maker(options, board):
    """Gives a new source each time it is called."""
    asked = SourceOptions(options.size, options.fps, options.timeout, options.flip, options.loop)
    return lambda: open_source(options.source, asked, board)


def counters_of(options):
    lines = [counters.parse_line(text, "line {}".format(i)) for i, text in enumerate(options.count_lines, 1)]
    return lines + (counters.read_zones(options.zones) if options.zones else [])


def require_window():
    """MissingDependency when this OpenCV, or this machine, has no screen to show a window on."""
    gui = [line for line in cv2.getBuildInformation().splitlines() if line.strip().startswith("GUI:")]
    if (gui and "NONE" in gui[0].upper()) or not hasattr(cv2, "imshow"):
        raise MissingDependency(
            "--window: this OpenCV was built without windows. Use the page instead (--web), or replace the package: "
            "pip uninstall opencv-python-headless; pip install opencv-python"
        )
    if not (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
        raise MissingDependency(
            "--window: there is no screen (DISPLAY is not set). Use the page instead: --web, and from another machine "
            "ssh -L 8642:127.0.0.1:8642 BOARD"
        )


class _Session(object):
    """The parts of one run."""

    def __init__(self, options, board, runner, make_source, places, stop, say):
        self._options, self._runner, self._say, self._places = options, runner, say, places
        self._stats, self._stop, self._vitals = Stats(not options.offline), stop, Vitals()
        self.about = describe(options, board, runner)
        self._capture = Capture(
            make_source, self._stats, self._stop, options.timeout, not options.offline, options.loop
        )
        self._painter = Painter(runner.artifact.classes, options.score, self._title())
        self._hub = self._server = self._window = None
        self._sinks = [SinkThread(s, self._stats, options.offline, self._pace()) for s in self._make_sinks()]
        self._ended = "source"
        self._next_sample = self._next_log = 0.0
        self._told, self._readings = 0, []

    def _title(self):
        return "{model}, {precision}, {board}".format(**self.about)

    def _pace(self):
        return None if self._options.offline else view_pace(self._stats, core_count(), self._options.view_fps)

    def _make_sinks(self):
        options, classes = self._options, self._runner.artifact.classes
        if options.mp4:
            rate = (lambda: self._capture.rate) if options.offline else None
            yield Mp4(options.mp4, self._painter, self._stats, rate, options.encoder)
        if options.jsonl:
            yield JsonLines(options.jsonl, self.about, options.score, classes, self._stats, self._places)
        if options.coco:
            ids = self._runner.artifact.category_ids
            yield CocoJson(options.coco, self.about["source"], options.score, classes, ids)
        if options.web:
            floor = min(options.score, FLOOR)
            self._hub = Hub(self.about, classes, options.score, floor, self._painter, self._stats)
            yield self._hub
        if options.window:
            self._window = Window(self._painter, self._stats)
            yield self._window
        if options.headless or not (options.web or options.window):
            yield Headless()

    def run(self):
        options = self._options
        tracker = tracking.Tracker(tracking.Options(high=options.score)) if options.track else None
        pipeline = Pipeline(
            self._runner, self._capture, self._sinks, self._stats, self._stop, tracker, self._places,
            overlap=core_count() > 1, lossless=options.offline, most=options.frames,
        )  # fmt: skip
        for folder in options.new_folders():
            self._say("a new folder is made: {}".format(folder))
        for file in options.older_records():
            self._say("{}: holds an older record, which this run will replace".format(file))
        if self._hub is not None:
            self._serve()
        try:
            pipeline.run(self._tick)
        finally:
            if self._server is not None:
                self._server.stop()
            if self._window is not None:
                cv2.destroyAllWindows()

    def _serve(self):
        self._server = Server(self._hub, self._options.bind or "127.0.0.1", self._options.port)
        self._server.start()
        self._say("page: {}".format(self._server.address))
        if self._options.open_page and (os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")):
            webbrowser.open(self._server.address)

    # -- some times a second, in the main thread ----------------------------------------------------------------------
    def _tick(self):
        now = clock()
        if now >= self._next_sample:
            self._next_sample = now + _SAMPLE_SECONDS
            self._sample()
        if now >= self._next_log:
            if self._next_log:
                self._say(self.log_line())
            self._next_log = now + self._options.log_every
        self._tell_events()
        if self._window is not None and not self._window.show(0.02):
            self._ended = "user"
            return False
        if self._over(now):
            self._ended = "limit"
            return False
        return True

    def _over(self, now):
        options = self._options
        too_long = options.seconds is not None and now - self._stats.started >= options.seconds
        return too_long or (options.frames is not None and self._stats.results >= options.frames)

    def _sample(self):
        self._readings = self._vitals.read()
        if self._hub is not None:
            status = {
                "live": self._stats.live(),
                "sensors": self._readings,
                "state": self._capture.state,
                "trouble": self._capture.check.trouble,
                "events": list(self._stats.events),
                "sinks": [s.to_dict() for s in self._sinks],
            }
            self._hub.sample(status)

    def _tell_events(self):
        events, self._told = self._stats.events_since(self._told)
        for event in events:
            self._say("{}: {}".format(event["level"], event["text"]))

    def log_line(self):
        """The live numbers in one line; of a file that is worked through, how far it is."""
        live = self._stats.live()
        if self._options.offline:
            done = frames_of(live["results"], self._length())
            return "{}; {:.1f} a second; {}".format(done, live["displayed_fps"], words(self._readings))
        latency = ", ".join("{} {}".format(n, number(live["latency_ms"][n], "{:.0f}")) for n in ("p50", "p90", "p99"))
        parts = [
            "{:.1f} fps shown, {:.1f} captured".format(live["displayed_fps"], live["captured_fps"]),
            "capture to result {} ms".format(latency),
            "age {} ms".format(number(live["age_ms"], "{:.0f}")),
            "dropped {}, stale {}".format(live["dropped"], live["stale"]),
            words(self._readings),
        ]
        if self._hub is not None:
            parts.append("{} viewers".format(self._hub.viewers))
        if self._capture.state != "live":
            parts.append("source {}".format(self._capture.state))
        return "; ".join(parts)

    def _length(self):
        known = [count for count in (self._capture.length, self._options.frames) if count is not None]
        return min(known) if known else None

    def summary(self, ended=None):
        """What ``run`` returns; ended: why, when it is not the source or a limit."""
        self._tell_events()
        classes = self._runner.artifact.classes
        return OrderedDict(
            list(self.about.items())
            + [("ended", ended or self._ended), ("missing", self._capture.missing)]
            + [("offline", self._options.offline), ("length", self._length())]
            + list(self._stats.summary().items())
            + [
                ("sensors", self._vitals.read() or "not measured"),
                ("sinks", [s.to_dict() for s in self._sinks]),
                ("counts", [c.to_dict(classes) for c in self._places]),
            ]
        )


def describe(options, board, runner):
    """What is run on what: for the page, the log and the records."""
    session = runner.session.describe()
    manifest = runner.artifact.manifest
    width, height = runner.preprocess.size
    return OrderedDict(
        [
            ("source", strings.without_password(options.source)),
            ("model", (manifest.get("recipe") or {}).get("name") or os.path.basename(runner.artifact.path)),
            ("precision", session["precision"]),
            ("runtime", "{} {}".format(session["library"], session["version"])),
            ("board", _board_name(session, board)),
            ("input", "{}x{}".format(width, height)),
            ("threads", options.compute_threads()),
            ("artifact", runner.artifact.digest),
        ]
    )


def _board_name(session, board):
    """The board's title; a simulator never goes by a board's name."""
    if session.get("simulated") or identity()["simulated"]:
        return "twin (a simulator, no board)"
    here = facts()
    return board.get("title") or (here["board"] if here["board"] != "unknown" else here["cpu"])


def exit_code(summary, offline):
    """0: a live run was ended, or a file is through; 130: a file was not worked through; 2: a sink was not finished,
    or the file is cut off."""
    if any(s["state"] not in ("closed", "ready") for s in summary["sinks"]):  # ready: it never began
        return 2
    if offline and summary["ended"] == "source" and summary["missing"]:
        return 2
    return 130 if summary["ended"] == "user" and offline else 0


def closing_lines(summary):
    """The summary for people."""
    latency = summary["latency_ms"]
    if summary["offline"] and summary["ended"] == "user":
        done = frames_of(summary["results"], summary["length"])
        yield "interrupted after {}; what was recorded of them is whole".format(done)
    yield "{} results of {} captured frames in {:.1f} s ({:.1f} a second); dropped {}, stale {}, damaged {}".format(
        summary["results"], summary["captured"], summary["seconds"], summary["results_fps"],
        summary["dropped"], summary["stale"], summary["corrupt"],
    )  # fmt: skip
    yield "capture to result: " + ", ".join("{} {} ms".format(n, number(latency[n], "{:.1f}")) for n in sorted(latency))
    for sink in summary["sinks"]:
        if "path" in sink:
            less = ", {} passed over (--view-fps)".format(sink["skipped"]) if sink.get("skipped") else ""
            less += ", {} results lost".format(sink["lost"]) if sink.get("lost") else ""
            yield "{}: {} ({} results{}){}".format(
                sink["name"], sink["path"], sink["written"], less, ": " + sink["reason"] if "reason" in sink else ""
            )
    for place in summary["counts"]:
        for name, totals in place["totals"].items():
            yield "{}, {}: {}".format(place["name"], name, told(totals))


def frames_of(done, length):
    """ "120 of 300 frames", or "120 frames" where nobody knows how many there are."""
    return "{} of {} frames".format(done, length) if length is not None else "{} frames".format(done)


def told(totals):
    """Totals as "in 3, out 1"."""
    return ", ".join("{} {}".format(*pair) for pair in sorted(totals.items()))
