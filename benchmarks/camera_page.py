"""Take the pictures of the page that docs/camera.md shows, in a real Chromium, of a camera that really runs.

    python benchmarks/camera_page.py runs/demo/onnx-int8 --out docs/images

Run it on a machine that does nothing else: the pictures show its figures.
"""

from __future__ import annotations

import argparse
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

SHOTS = {"camera-desktop": (1280, 960, False, False), "camera-phone": (390, 844, True, True)}
WARM_UP = 75.0  # seconds: p90 and p99 need their values


def main() -> int:
    from edgekit.live import demo_clip
    from tests.runtime.camera.browser import Browser, find_browser

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("artifact", nargs="?", default="runs/demo/onnx-int8")
    parser.add_argument("--out", type=Path, default=Path("docs/images"))
    parser.add_argument("--seconds", type=float, default=WARM_UP)
    asked = parser.parse_args()
    program = find_browser()
    if program is None:
        parser.error("Chromium is not installed: apt-get install chromium")
    source = ["--source", str(demo_clip().relative_to(ROOT)), "--loop", "--count-line", "0,0.55,1,0.55"]
    command = [sys.executable, "-m", "edgekit.runtime.camera.cli", asked.artifact, *source, "--web", "0"]
    child = subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True)
    assert child.stderr is not None
    address = next(m.group(1) for line in child.stderr if (m := re.search(r"page: (\S+)", line)))
    asked.out.mkdir(parents=True, exist_ok=True)
    browser = Browser(program)
    browser.goto(address)
    time.sleep(asked.seconds)
    for name, (width, height, phone, dark) in SHOTS.items():
        browser.resize(width, height, phone, dark)
        browser.wait("Number(document.getElementById('picture').dataset.boxes) > 0", 60)
        browser.screenshot(asked.out / f"{name}.png")
        print(asked.out / f"{name}.png")
    browser.close()
    child.send_signal(signal.SIGINT)
    return child.wait(60)


if __name__ == "__main__":
    sys.exit(main())
