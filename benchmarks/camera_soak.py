"""Half an hour of the camera with every sink and viewers that come and go: memory must stay flat, no sink may be lost.

    python benchmarks/camera_soak.py runs/demo/onnx-int8 --out soak

The camera runs as a process of its own on the shipped clip, again and again, into MP4, JSON lines, COCO JSON and the
web page. Its resident memory is read every few seconds. OUT gets soak.json (the course, the camera's own summary, the
verdict) and soak.svg (the graph). Goals: over the last two thirds memory grows by less than 3 % and 8 MB, whichever is
more; every sink is closed, none lost; every record can be read.
"""

from __future__ import annotations

import argparse
import json
import re
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

MOST_GROWTH_PART, MOST_GROWTH_MB = 0.03, 8.0
VIEWERS = 8
VIEWER_SECONDS = 20.0  # each viewer looks for so long, then another one comes; every third one just vanishes
WIDE, HIGH = 900, 300


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", nargs="?", default="runs/demo/onnx-int8")
    parser.add_argument("--source", help="default: the shipped clip, again and again")
    parser.add_argument("--seconds", type=float, default=1800.0)
    parser.add_argument("--every", type=float, default=5.0, help="seconds between two readings of the memory")
    parser.add_argument("--out", type=Path, default=Path("soak"))
    return parser.parse_args()


def main() -> int:
    from edgekit.live import demo_clip

    asked = arguments()
    asked.out.mkdir(parents=True, exist_ok=True)
    source = ["--source", asked.source] if asked.source else ["--source", str(demo_clip()), "--loop"]
    sinks = [
        f"--{kind}={asked.out / name}" for kind, name in (("mp4", "s.mp4"), ("jsonl", "s.jsonl"), ("coco", "s.json"))
    ]
    command = [
        sys.executable,
        "-m",
        "edgekit.runtime.camera.cli",
        asked.artifact,
        *source,
        *sinks,
        "--web",
        "0",
        "--json",
    ]
    child = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    log: list[str] = []
    threading.Thread(target=lambda: log.extend(child.stderr or ()), daemon=True).start()
    stop = threading.Event()
    course = watch(child, asked, log, stop)
    child.send_signal(signal.SIGINT)
    out = child.stdout.read() if child.stdout else ""
    child.wait(120)
    stop.set()
    result = judge(course, json.loads(out), child.returncode, asked.out)
    (asked.out / "soak.json").write_text(json.dumps(result, indent=1) + "\n")
    (asked.out / "soak.svg").write_text(graph(course, result))
    print("\n".join(result["verdict"]))
    return 0 if result["ok"] else 1


def watch(
    child: Any, asked: argparse.Namespace, log: list[str], stop: threading.Event
) -> list[tuple[float, float, int]]:
    """(seconds, resident MB, open files) until the time is up or the camera ends."""
    course, begun, viewers = [], time.monotonic(), False
    while child.poll() is None and time.monotonic() - begun < asked.seconds:
        found = re.search(r"page: http://127\.0\.0\.1:(\d+)/", "".join(log))
        if found and not viewers:
            viewers = True
            for number in range(VIEWERS):
                threading.Thread(target=look, args=(int(found.group(1)), number, stop), daemon=True).start()
        course.append((time.monotonic() - begun, resident_mb(child.pid), open_files(child.pid)))
        stop.wait(asked.every)
    return course


def look(port: int, number: int, stop: threading.Event) -> None:
    """A viewer's place: one after the other looks for a while. Every third place never confirms what it gets."""
    while not stop.is_set():
        try:
            one_viewer(port, number % 3 != 2, stop)
        except OSError:  # put out, or the camera ended
            stop.wait(1.0)


def one_viewer(port: int, confirms: bool, stop: threading.Event) -> None:
    with socket.create_connection(("127.0.0.1", port), 15) as connection, connection.makefile("rb") as file:
        connection.sendall(
            f"GET /ws HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode()
        )
        while file.readline().strip():
            pass
        end = time.monotonic() + VIEWER_SECONDS
        while time.monotonic() < end and not stop.is_set():
            head = file.read(2)
            if len(head) < 2:
                raise OSError("put out")
            size = head[1]
            if size > 125:
                size = int.from_bytes(file.read(2 if size == 126 else 8), "big")
            data = file.read(size)
            if head[0] == 0x82 and confirms:
                text = str(json.loads(data[4 : 4 + int.from_bytes(data[:4], "big")])["number"]).encode()
                connection.sendall(bytes([0x81, 0x80 | len(text), 0, 0, 0, 0]) + text)


def resident_mb(pid: int) -> float:
    found = re.search(r"^VmRSS:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(), re.MULTILINE)
    return int(found.group(1)) / 1024 if found else float("nan")


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def judge(course: list[tuple[float, float, int]], summary: dict[str, Any], code: int, out: Path) -> dict[str, Any]:
    """The verdict, in words and as one bool."""
    late = np.array([(t, mb) for t, mb, _ in course[len(course) // 3 :]])
    slope = float(np.polyfit(late[:, 0], late[:, 1], 1)[0]) if len(late) > 2 else 0.0
    growth, level = slope * float(late[-1, 0] - late[0, 0]), float(np.median(late[:, 1]))
    flat = growth <= max(MOST_GROWTH_PART * level, MOST_GROWTH_MB)
    states = {s["name"]: s["state"] for s in summary["sinks"]}
    records = readable(out)
    verdict = [
        f"memory: {level:.0f} MB, {growth:+.1f} MB over the last {late[-1, 0] - late[0, 0]:.0f} s: "
        f"{'flat' if flat else 'GROWS'}",
        f"open files at the end: {course[-1][2]}, most {max(c[2] for c in course)}",
        "sinks: " + ", ".join(f"{name} {state}" for name, state in states.items()),
        "records: " + ", ".join(f"{name} {count}" for name, count in records.items()),
        f"{summary['results']} results, {summary['results_fps']:.1f} a second; exit code {code}",
    ]
    ok = flat and code == 0 and set(states.values()) == {"closed"} and all(records.values())
    return {"ok": ok, "verdict": verdict, "growth_mb": growth, "level_mb": level, "course": course, "summary": summary}


def readable(out: Path) -> dict[str, int]:
    """How many pictures, lines and images the three records hold; 0 for one that cannot be read."""
    import cv2

    video, frames = cv2.VideoCapture(str(out / "s.mp4")), 0
    while video.grab():
        frames += 1
    lines = [json.loads(line) for line in (out / "s.jsonl").read_text().splitlines()]
    return {"mp4": frames, "jsonl": len(lines), "coco": len(json.loads((out / "s.json").read_text())["images"])}


def graph(course: list[tuple[float, float, int]], result: dict[str, Any]) -> str:
    """Memory over time as SVG."""
    seconds, memory = [c[0] for c in course], [c[1] for c in course]
    top, left, long = max(memory) * 1.15, 60, max(seconds[-1], 1e-9)
    points = " ".join(
        f"{left + t / long * (WIDE - left - 20):.1f},{HIGH - 40 - mb / top * (HIGH - 80):.1f}"
        for t, mb in zip(seconds, memory, strict=True)
    )
    grid = "".join(
        f'<line x1="{left}" x2="{WIDE - 20}" y1="{y}" y2="{y}" stroke="#ccd5dc"/>'
        f'<text x="{left - 8}" y="{y + 4}" text-anchor="end">{top * part:.0f}</text>'
        for part in (0, 0.25, 0.5, 0.75, 1)
        for y in [HIGH - 40 - part * (HIGH - 80)]
    )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDE} {HIGH}" font-family="sans-serif" font-size="12">'
        f'<rect width="{WIDE}" height="{HIGH}" fill="#fff"/>{grid}'
        f'<text x="{left}" y="24" font-size="15">Camera: resident memory in MB over {long / 60:.1f} minutes '
        f"({result['growth_mb']:+.1f} MB over the last two thirds)</text>"
        f'<polyline points="{points}" fill="none" stroke="#0072b2" stroke-width="2"/></svg>\n'
    )


if __name__ == "__main__":
    sys.exit(main())
