"""The page in a real Chromium: what a person sees and clicks."""

import threading

import pytest

from edgekit.runtime.camera.counters import Line
from edgekit.runtime.camera.hub import Hub
from edgekit.runtime.camera.overlay import Painter
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.camera.web import Server

from .browser import Browser, find_browser
from .conftest import ABOUT, CLASSES, result, scene

BOXES = [[10, 20, 60, 70], [80, 20, 120, 60], [130, 40, 180, 100]]
DRAWN = "Number(document.getElementById('picture').dataset.boxes)"


@pytest.fixture(scope="module")
def browser():
    program = find_browser()
    if program is None:
        pytest.skip("Chromium is not installed: apt-get install chromium")
    found = Browser(program)
    yield found
    found.close()


class Show:
    """A page with three boxes (car 0.9, car 0.5, bus 0.35) that is fed as often as the test says, or by a thread."""

    def __init__(self, host="127.0.0.1"):
        self.stats, self.number = Stats(), 0
        self.line = Line([(0, 0.5), (1, 0.5)], "gate")
        self.line.totals = {0: {"in": 4, "out": 1}}
        self.hub = Hub(ABOUT, CLASSES, 0.3, 0.1, Painter(CLASSES, 0.3), self.stats)
        self.server = Server(self.hub, host, 0)
        self.server.start()
        self._stop = threading.Event()

    def feed(self, **more):
        self.number += 1
        made = result(self.number, scene(self.number % 40), BOXES, [0.9, 0.5, 0.35], [0, 0, 1], [1, 0, 2])
        made.trails, made.counts = {1: [(20, 40), (30, 45), (35, 45)]}, [self.line.to_dict(CLASSES)]
        self.stats.capture(made.frame.captured)
        self.stats.result(made)
        made.number = self.number
        self.hub.write(made)
        self.tell(**more)

    def tell(self, state="live", trouble=None, sensors=(("soc", "C", 47.5), ("cpu clock", "MHz", 2035.0))):
        readings = [{"name": n, "unit": u, "value": v} for n, u, v in sensors]
        status = {"live": self.stats.live(), "sensors": readings, "state": state, "trouble": trouble}
        self.hub.sample(dict(status, events=list(self.stats.events), sinks=[]))

    def start(self):
        threading.Thread(target=self._run, daemon=True).start()

    def _run(self):
        while not self._stop.wait(0.05):
            self.feed()

    def close(self):
        self._stop.set()
        self.hub.close()
        self.server.stop()


@pytest.fixture
def show(browser):
    """Opens a show in the browser, and its page with one picture on it."""
    shows = []

    def start(**options):
        shows.append(Show(**options))
        shows[-1].feed()
        browser.errors.clear()
        browser.resize(1280, 900)
        browser.goto(shows[-1].server.address)
        browser.wait("document.readyState === 'complete' && !!document.getElementById('picture').dataset.boxes")
        return shows[-1]

    yield start
    for one in shows:
        one.close()


def text(browser, selector):
    return browser.js(f"document.querySelector({selector!r}).textContent.trim()")


def test_a_picture_with_its_boxes_and_numbers(browser, show):
    show()
    assert browser.js(DRAWN) == 3
    assert browser.js("document.getElementById('picture').getAttribute('aria-label')") == "Live picture: 2 car, 1 bus"
    assert text(browser, "#about") == "bright · fp32 · test 0 · a board"
    assert text(browser, "#now-latency") == "12"
    browser.wait("document.getElementById('state').textContent === 'live'")
    assert browser.js("document.querySelectorAll('.tile').length") == 6
    tiles = browser.js("[...document.querySelectorAll('.tile')].map(t => t.querySelector('.values').textContent)")
    assert tiles[4:] == ["48 °C", "2035 MHz"]
    assert text(browser, "#counts") == "gate: car415"
    assert browser.errors == []


def pixels(browser):
    """The canvas as one number that changes when a box does."""
    return browser.js("document.getElementById('picture').toDataURL().length")


def test_class_filters_act_at_once_without_a_new_frame(browser, show):
    show()
    before = pixels(browser)
    browser.click("[data-class=car]")
    assert browser.js(DRAWN) == 1
    assert browser.js("document.querySelector('[data-class=car]').getAttribute('aria-pressed')") == "false"
    assert pixels(browser) != before
    browser.click("[data-class=bus]")
    assert browser.js(DRAWN) == 0
    browser.click("[data-class=car]")
    browser.click("[data-class=bus]")
    assert browser.js(DRAWN) == 3
    assert pixels(browser) == before


@pytest.mark.parametrize(("part", "boxes"), [(0.02, 3), (0.33, 2), (0.7, 1), (0.97, 0)])
def test_the_score_slider_acts_at_once_without_a_new_frame(browser, show, part, boxes):
    show()
    browser.click("#score", part)
    assert browser.js(DRAWN) == boxes
    assert float(text(browser, "#score-value")) == pytest.approx(0.1 + 0.9 * part, abs=0.03)


def test_the_slider_moves_with_the_keyboard(browser, show):
    show()
    browser.js("document.getElementById('score').focus()")
    for kind in ("keyDown", "keyUp"):
        browser.send("Input.dispatchKeyEvent", type=kind, key="End", code="End", windowsVirtualKeyCode=35)
    assert (browser.js(DRAWN), text(browser, "#score-value")) == (0, "1.00")


@pytest.mark.parametrize("button", ["labels", "trails"])
def test_labels_and_trails_can_be_hidden(browser, show, button):
    show()
    before = pixels(browser)
    browser.click(f"#{button}")
    assert pixels(browser) != before
    browser.click(f"#{button}")
    assert pixels(browser) == before


def test_filters_hold_while_pictures_run_and_freeze_stops_them(browser, show):
    running = show()
    running.start()
    browser.click("[data-class=bus]")
    browser.wait("view.packet.number > 20")
    assert browser.js(DRAWN) == 2
    browser.wait("Number(document.getElementById('now-fps').textContent) > 1")
    browser.click("#freeze")
    number = browser.js("view.packet.number")
    assert browser.js("new Promise(done => setTimeout(() => done(view.packet.number), 500))") == number
    assert text(browser, "#state") == "frozen"
    browser.click("#freeze")
    browser.wait(f"view.packet.number > {number} + 5")


def test_charts_fill_and_what_is_not_measured_says_so(browser, show):
    running = show()
    for count in range(2, 7):
        running.feed(sensors=())
        browser.wait(f"view.samples.length >= {count}")
    texts = browser.js("[...document.querySelectorAll('.tile canvas')].map(c => c.getAttribute('aria-label'))")
    assert "p50 12" in texts[0]
    assert browser.js("view.samples[view.samples.length - 1].sensors.length") == 0
    fresh = Show()
    fresh.tell(sensors=())
    browser.goto(fresh.server.address)
    browser.wait("document.querySelectorAll('.tile.off').length >= 5")
    assert "not measured" in text(browser, ".tiles .tile:last-child")
    fresh.close()


def test_trouble_is_written_over_the_picture_and_in_the_events(browser, show):
    running = show()
    running.stats.event("the source broke off; trying to open it again")
    running.tell(state="lost")
    browser.wait("!document.getElementById('banner').hidden")
    assert "opened again" in text(browser, "#banner")
    assert (text(browser, "#state"), "broke off" in text(browser, "#events")) == ("lost", True)
    running.tell(trouble="every pixel has the colour BGR 0,154,0: <b>x</b>")
    browser.wait("document.getElementById('banner').textContent.includes('0,154,0: <b>x</b>')")
    running.tell()
    browser.wait("document.getElementById('banner').hidden")


def test_a_run_that_ends_is_seen_and_the_next_one_on_the_port_is_found(browser, show):
    running = show()
    port = running.server.server_address[1]
    running.close()
    browser.wait("document.getElementById('state').textContent === 'disconnected'")
    following = Show()
    following.server.stop()
    following.server = Server(following.hub, "127.0.0.1", port)
    following.server.start()
    following.feed()
    browser.wait("document.getElementById('state').textContent === 'live'")
    following.close()


def test_with_a_token_the_address_opens_the_page_and_the_token_leaves_it(browser, show):
    running = show(host="0.0.0.0")
    assert running.server.token not in browser.js("location.href")
    assert browser.js(DRAWN) == 3


@pytest.mark.parametrize(("width", "height", "phone"), [(1280, 900, False), (390, 844, True), (320, 600, True)])
@pytest.mark.parametrize("dark", [False, True])
def test_nothing_sticks_out_at_any_width(browser, show, width, height, phone, dark, tmp_path):
    running = show()
    running.stats.event("an event with a very long word: " + "x" * 90)
    running.feed()
    browser.resize(width, height, phone, dark)
    browser.wait("!!document.querySelector('#events .warning')")
    assert browser.js("document.documentElement.scrollWidth") <= width
    order = browser.js(
        "['.stage', '.controls', '.tiles'].map(s => document.querySelector(s).getBoundingClientRect().top)"
    )
    assert order[0] <= order[1]
    assert order[0] < order[2]
    sizes = browser.js("[...document.querySelectorAll('button')].map(b => b.getBoundingClientRect().height)")
    assert min(sizes) >= 32  # a finger's worth
    browser.screenshot(tmp_path / "page.png")
    assert (tmp_path / "page.png").stat().st_size > 10_000
