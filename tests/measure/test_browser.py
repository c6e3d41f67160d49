"""The page in a real browser, where one is installed (Debian: apt-get install chromium): it fits every width."""

import html
import json
import re
import shutil
import subprocess

import pytest

from edgekit.measure.history import Step
from edgekit.measure.report import render_html

from .test_charts_layers import LAYERS, PEAKS, RUN
from .test_report import PICTURE, ROWS, timed

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
LONG = "a-network-with-a-name-that-somebody-thought-about-for-a-long-time_v2.1"
# Each frame is as wide as a device; the script opens what is folded and writes down how wide the content is.
WRAPPER = """<!doctype html><meta charset="utf-8"><body>{frames}<pre id="out"></pre><script>
onload = () => {{
  document.getElementById("out").textContent = JSON.stringify([...document.querySelectorAll("iframe")].map(f => {{
    const d = f.contentDocument; d.querySelectorAll("details").forEach(e => e.open = true);
    const w = d.documentElement.clientWidth;
    return {{width: w, content: d.documentElement.scrollWidth, height: d.documentElement.scrollHeight,
             broken: [...d.images].filter(i => !i.naturalWidth).length,
             out: [...d.querySelectorAll("body *")].filter(e => !e.closest("svg, thead")
               && e.getBoundingClientRect().right > w + 1).map(e => e.tagName + "." + e.className)}}
  }}));
}};
</script></body>"""


@pytest.fixture(scope="module")
def page():
    rows = [
        *ROWS,
        timed(7.0, model=LONG, board="a-board-of-another-kind", runtime="tensorrt8", verdict={"status": "throttled"}),
        timed(5.0, layers=[one.model_dump() for one in LAYERS], peaks=PEAKS, layer_run=RUN),
    ]
    steps = [Step(f"commit {n}", (timed(100.0 + n, precision="fp32"),)) for n in range(30)]
    return render_html(rows, [PICTURE], f"A report of {LONG}", steps)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
@pytest.mark.parametrize("scheme", [0, 1], ids=["dark", "light"])
def test_nothing_sticks_out_from_phone_to_desktop(page, scheme, tmp_path):
    widths = (320, 390, 820, 1280)
    frames = "".join(f'<iframe width="{w}" height="900" srcdoc="{html.escape(page)}"></iframe>' for w in widths)
    (tmp_path / "wrapper.html").write_text(WRAPPER.format(frames=frames))
    command = [
        *(CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--window-size=1400,1000", "--timeout=20000"),
        *(f"--blink-settings=preferredColorScheme={scheme}", f"--user-data-dir={tmp_path / 'profile'}", "--dump-dom"),
    ]
    done = subprocess.run(
        [*command, (tmp_path / "wrapper.html").as_uri()], capture_output=True, text=True, check=True, timeout=120
    )
    found = json.loads(html.unescape(re.search(r'<pre id="out">(.*?)</pre>', done.stdout, re.DOTALL)[1]))
    assert len(found) == len(widths)
    for frame in found:
        assert frame["out"] == []
        assert frame["content"] <= frame["width"]
        assert frame["broken"] == 0
        assert frame["height"] > 3000  # it was laid out at all
