"""What the camera pipeline costs around the network: throughput, latency and CPU per stage, beside bare inference.

    python benchmarks/camera.py runs/demo/onnx-int8 --out camera.json

For two cores and for one, in a process bound to them, rounds alternate between

* bare: the session alone, called again and again with a tensor that is already made, on as many threads as the
  pipeline gives it (all cores but one, at least one);
* throughput: a synthetic camera that delivers real pictures faster than the network takes them, through preprocessing,
  inference, post-processing and tracks into JSON lines, an annotated MP4 and the web page with one viewer. The MP4 is
  JPEG, which our own threads encode, so that no other program takes a core away; --sinks chooses others. As in the
  camera itself, MP4 and page get every result on two cores, and on one busy core at most 15 a second (JSON lines get
  all): written_fps tells what each sink got, and --view-fps 1000 gives them all;
* latency: the same with a camera of --fps frames a second.

Goals: throughput at least 95 % of bare (85 % on one core); capture to result (p90) at most one frame period plus one
bare inference. The result is the median over rounds. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

LEAST_THROUGHPUT = {1: 0.85, 2: 0.95}
SINKS = ("jsonl", "mp4", "web")
SIZE = (768, 432)
FASTER = 1.5  # the camera delivers so many times more frames than the network takes
LEAST_FPS = 30.0
WARM_UP = 10


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", nargs="?", default="runs/demo/onnx-int8")
    parser.add_argument("--runtime", default="onnxruntime")
    parser.add_argument(
        "--cores", type=int, action="append", help="1, 2, ...; given several times: each (default 2, 1)"
    )
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0, help="of each part of a round")
    parser.add_argument("--fps", type=float, default=30.0, help="of the camera whose latency is measured")
    parser.add_argument("--sinks", default=",".join(SINKS), help="of jsonl, mp4, web; none: an empty text")
    parser.add_argument("--view-fps", type=float, help="of MP4 and page; default: as the camera's own")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--child", type=int, help=argparse.SUPPRESS)
    return parser.parse_args()


def main() -> int:
    asked = arguments()
    if asked.child is not None:
        print(json.dumps(measure(asked, asked.child)))
        return 0
    allowed = sorted(os.sched_getaffinity(0))
    results = []
    for cores in asked.cores or [2, 1]:
        if cores > len(allowed):
            print(f"{cores} cores: this process may use {len(allowed)}; left out", file=sys.stderr)
            continue
        results.append(in_a_child(cores, allowed[-cores:]))
        show(results[-1])
    record = {"machine": machine(), "artifact": asked.artifact, "sinks": asked.sinks, "runs": results}
    if asked.out:
        asked.out.write_text(json.dumps(record, indent=1) + "\n")
    return 0 if results and all(r["throughput_ok"] and r["latency_ok"] for r in results) else 1


def in_a_child(cores: int, numbers: list[int]) -> dict[str, Any]:
    """This script again, bound to the cores before any library counts them."""
    command = [sys.executable, __file__, *sys.argv[1:], "--child", str(cores)]
    done = subprocess.run(
        command, stdout=subprocess.PIPE, check=True, preexec_fn=lambda: os.sched_setaffinity(0, set(numbers))
    )
    return dict(json.loads(done.stdout.splitlines()[-1]))


def measure(asked: argparse.Namespace, cores: int) -> dict[str, Any]:
    from edgekit.runtime.runner import open_runner

    threads = max(1, cores - 1)
    for name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        os.environ[name] = str(threads)
    import cv2

    cv2.setNumThreads(1)
    pictures = load_pictures()
    with open_runner(asked.artifact, asked.runtime, threads, 0.1) as runner:
        bare(runner, pictures[0], 0.0, WARM_UP)
        rounds = [one_round(runner, pictures, asked, cores, i) for i in range(asked.rounds)]
    return summary(rounds, cores, threads)


def load_pictures() -> list[Any]:
    """Real pictures, decoded: the shipped clip's."""
    from edgekit.live import demo_clip
    from edgekit.runtime.camera.sources import open_source

    with open_source(demo_clip()) as source:
        return [p.image for p, _ in zip(source, range(60), strict=False)]


def one_round(runner: Any, pictures: list[Any], asked: argparse.Namespace, cores: int, number: int) -> dict[str, Any]:
    """Bare, throughput and latency, the order changing from round to round."""
    fast = max(LEAST_FPS, FASTER / bare(runner, pictures[0], 0.5)["median"])
    parts = {
        "bare": lambda: bare(runner, pictures[0], asked.seconds),
        "throughput": lambda: pipeline(runner, pictures, asked, cores, fast),
        "latency": lambda: pipeline(runner, pictures, asked, cores, asked.fps),
    }
    order = list(parts) if number % 2 == 0 else list(parts)[::-1]
    return {name: parts[name]() for name in order}


def bare(runner: Any, picture: Any, seconds: float, least: int = 5) -> dict[str, float]:
    """The session alone: calls a second, and the median call in seconds."""
    tensor, _ = runner.session.prepare(picture, runner.preprocess)
    times: list[float] = []
    begun = time.perf_counter()
    while time.perf_counter() - begun < seconds or len(times) < least:
        start = time.perf_counter()
        runner.session.infer({"image": tensor})
        times.append(time.perf_counter() - start)
    return {"rate": len(times) / (time.perf_counter() - begun), "median": statistics.median(times)}


def pipeline(runner: Any, pictures: list[Any], asked: argparse.Namespace, cores: int, fps: float) -> dict[str, Any]:
    """The same runner behind a synthetic camera of ``fps``, into the sinks, for so many seconds."""
    from edgekit.runtime.camera.capture import Capture
    from edgekit.runtime.camera.pipeline import Pipeline
    from edgekit.runtime.camera.stats import Stats
    from edgekit.runtime.camera.tracking import Tracker

    stats, stop = Stats(), threading.Event()
    capture = Capture(lambda: synthetic_camera(pictures, fps, stop), stats, stop)
    with tempfile.TemporaryDirectory() as folder:
        sinks, server, viewer = make_sinks(asked.sinks, Path(folder), runner, stats, asked.view_fps)
        end = time.perf_counter() + asked.seconds
        run = Pipeline(runner, capture, sinks, stats, stop, Tracker(), overlap=cores > 1)
        run.run(lambda: time.perf_counter() < end)
        if server is not None:
            server.stop()
        if viewer is not None:
            viewer.kill()
            viewer.wait()
    told = stats.summary()
    first = ("results", "dropped", "stale", "latency_ms", "age_ms", "spans_ms", "cpu_seconds", "seconds")
    return {**{k: told[k] for k in first}, "fps": fps, "rate": told["results"] / asked.seconds,
            "lost": {s.sink.name: s.lost for s in sinks},
            "written_fps": {s.sink.name: s.written / asked.seconds for s in sinks}}  # fmt: skip


def synthetic_camera(pictures: list[Any], fps: float, stop: threading.Event) -> Any:
    """A live source that costs nothing: pictures that are there already, at an even pace."""
    from edgekit.runtime.camera.mailbox import Pace
    from edgekit.runtime.camera.sources import Options, Picture, Source

    class Camera(Source):
        def open(self) -> None:
            self.count = 0

        def __iter__(self) -> Iterator[Any]:
            pace = Pace(stop)
            while pace.until(self.count / fps):
                self.count += 1
                yield Picture(pictures[self.count % len(pictures)])

    return Camera("synthetic", Options())


def make_sinks(
    names: str, folder: Path, runner: Any, stats: Any, view_fps: float | None = None
) -> tuple[list[Any], Any, Any]:
    """(sinks, the page's server, the viewer's process); the last two None without the page."""
    from edgekit.runtime.camera.hub import Hub
    from edgekit.runtime.camera.options import core_count
    from edgekit.runtime.camera.overlay import Painter
    from edgekit.runtime.camera.records import JsonLines
    from edgekit.runtime.camera.sinks import Mp4, SinkThread, view_pace
    from edgekit.runtime.camera.web import Server

    classes = runner.artifact.classes
    painter = Painter(classes, 0.3)
    about = dict.fromkeys(("model", "precision", "runtime", "board", "input", "source"), "")
    wanted = [n for n in names.split(",") if n]
    found: list[Any] = []
    server = viewer = None
    if "jsonl" in wanted:
        found.append(JsonLines(folder / "seen.jsonl", about, 0.3, classes, stats))
    if "mp4" in wanted:
        found.append(Mp4(folder / "seen.mp4", painter, stats, None, "mjpeg"))
    if "web" in wanted:
        found.append(Hub(about, classes, 0.3, 0.1, painter, stats))
        server = Server(found[-1], "127.0.0.1", 0)
        server.start()
        viewer = subprocess.Popen([sys.executable, "-c", VIEWER, str(server.server_address[1])])
    return [SinkThread(s, stats, pace=view_pace(stats, core_count(), view_fps)) for s in found], server, viewer


# A page that confirms every picture, without drawing it
VIEWER = """
import socket, struct, sys, json
s = socket.create_connection(("127.0.0.1", int(sys.argv[1])))
s.sendall(b"GET /ws HTTP/1.1\\r\\nHost: 127.0.0.1\\r\\nUpgrade: websocket\\r\\nConnection: Upgrade\\r\\n"
          b"Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\\r\\nSec-WebSocket-Version: 13\\r\\n\\r\\n")
f = s.makefile("rb")
while f.readline().strip():
    pass
while True:
    head = f.read(2)
    if len(head) < 2:
        break
    size = head[1]
    if size > 125:
        size = int.from_bytes(f.read(2 if size == 126 else 8), "big")
    data = f.read(size)
    if head[0] == 0x82:
        text = str(json.loads(data[4 : 4 + struct.unpack(">I", data[:4])[0]])["number"]).encode()
        s.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)
"""


def summary(rounds: list[dict[str, Any]], cores: int, threads: int) -> dict[str, Any]:
    ratios = [r["throughput"]["rate"] / r["bare"]["rate"] for r in rounds]
    bare_ms = statistics.median(r["bare"]["median"] for r in rounds) * 1e3
    period = 1e3 / rounds[0]["latency"]["fps"]
    latency = {p: middle(r["latency"]["latency_ms"][p] for r in rounds) for p in ("p50", "p90", "p99")}
    limit = period + bare_ms
    used: dict[str, list[float]] = {}
    for one in rounds:
        for stage, seconds in one["throughput"]["cpu_seconds"].items():
            used.setdefault(stage, []).append(100 * seconds / one["throughput"]["seconds"])
    used.pop("process", None)  # it counts the bare parts too
    ratio = statistics.median(ratios)
    return {
        "cores": cores,
        "threads": threads,
        "bare_ms": bare_ms,
        "bare_fps": statistics.median(r["bare"]["rate"] for r in rounds),
        "pipeline_fps": statistics.median(r["throughput"]["rate"] for r in rounds),
        "throughput": ratio,
        "throughput_rounds": ratios,
        "written_fps": {
            name: statistics.median(r["throughput"]["written_fps"][name] for r in rounds)
            for name in rounds[0]["throughput"]["written_fps"]
        },
        "throughput_goal": LEAST_THROUGHPUT.get(cores, LEAST_THROUGHPUT[2]),
        "throughput_ok": ratio >= LEAST_THROUGHPUT.get(cores, LEAST_THROUGHPUT[2]),
        "camera_fps": 1e3 / period,
        "latency_ms": latency,
        "latency_limit_ms": limit,
        "latency_ok": latency["p90"] is not None and latency["p90"] <= limit,
        "cpu_percent_of_a_core": {stage: statistics.median(values) for stage, values in sorted(used.items())},
        "rounds": rounds,
    }


def middle(values: Iterator[float | None]) -> float | None:
    known = [v for v in values if v is not None]
    return statistics.median(known) if known else None


def show(result: dict[str, Any]) -> None:
    verdict = {True: "ok", False: "NOT REACHED"}
    latency = ", ".join(f"{k} {v:.1f}" if v is not None else f"{k} -" for k, v in result["latency_ms"].items())
    print(f"{result['cores']} core(s), {result['threads']} compute thread(s): bare {result['bare_fps']:.1f}/s")
    print(
        f"  throughput {result['pipeline_fps']:.1f}/s, {result['throughput']:.1%} of bare "
        f"(goal {result['throughput_goal']:.0%}: {verdict[result['throughput_ok']]})"
    )
    print(
        f"  capture to result {latency} ms; limit on p90: period + bare = {result['latency_limit_ms']:.1f} ms "
        f"({verdict[result['latency_ok']]})"
    )
    written = ", ".join(f"{name} {fps:.1f}" for name, fps in result["written_fps"].items())
    print(f"  results that each sink got a second: {written or 'no sinks'}")
    used = ", ".join(f"{stage} {percent:.1f} %" for stage, percent in result["cpu_percent_of_a_core"].items())
    print(f"  CPU of a core, by stage's thread: {used}")


def machine() -> dict[str, Any]:
    from edgekit.runtime.machine import facts

    return dict(facts())


if __name__ == "__main__":
    sys.exit(main())
