"""The capture thread: pace, cameras that go and come, hang, or give nonsense."""

import shutil
import threading
import time

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera import capture as module
from edgekit.runtime.camera.capture import Capture, usable
from edgekit.runtime.camera.sources import Options, Picture, Source, open_source
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.errors import BadInput

from .conftest import scene, wait_for


class Plan(Source):
    """A live camera by plan: each opening takes the next entry: a list of pictures and acts, or an error."""

    def __init__(self, openings):
        super().__init__("plan", Options())
        self.openings = openings
        self.closed = 0

    def open(self):
        entry = self.openings.pop(0) if self.openings else BadInput("nothing more")
        if isinstance(entry, Exception):
            raise entry
        self.entry = entry

    def __iter__(self):
        for step in self.entry:
            if callable(step):
                step()
            else:
                yield Picture(step)

    def close(self):
        self.closed += 1


@pytest.fixture
def captured(monkeypatch):
    """Starts a capture; gives (capture, frames, stats, stop)."""
    monkeypatch.setattr(module, "RETRY_FIRST", 0.02)
    monkeypatch.setattr(module, "RETRY_MOST", 0.05)
    stop, captures = threading.Event(), []

    def start(source, deliver=None, **options):
        frames, stats = [], Stats()
        make = source if callable(source) else lambda: source
        capture = Capture(make, stats, stop, **options)
        captures.append(capture)
        capture.start(deliver or frames.append)
        return capture, frames, stats

    yield start
    stop.set()
    for capture in captures:
        capture.join(2)


def events(stats):
    return " | ".join(e["text"] for e in stats.events)


def test_a_file_plays_in_real_time(clip, captured):
    begun = time.monotonic()
    capture, frames, stats = captured(lambda: open_source(clip))
    wait_for(lambda: capture.ended)
    assert 1.9 <= time.monotonic() - begun < 10
    assert len(frames) == stats.captured == 40
    assert [f.index for f in frames] == list(range(40))
    gaps = np.diff([f.captured for f in frames])
    assert np.median(gaps) == pytest.approx(0.05, abs=0.02)


def test_offline_a_file_has_its_own_times(clip, captured):
    capture, frames, _ = captured(lambda: open_source(clip), real_time=False)
    wait_for(lambda: capture.ended)
    assert [round(f.seconds, 3) for f in frames[:3]] == [0.0, 0.05, 0.1]
    assert capture.rate == 20.0


def test_a_loop_begins_anew(clip, captured):
    capture, frames, stats = captured(lambda: open_source(clip, Options(fps=200)), loop=True)
    wait_for(lambda: len(frames) > 100)
    assert not capture.ended
    assert stats.reconnects == 0


def test_a_camera_that_breaks_off_is_opened_again(captured):
    source = Plan([[scene(0)] * 3, BadInput("gone"), BadInput("gone"), [scene(1)] * 2, BadInput("gone")])
    capture, frames, stats = captured(source)
    wait_for(lambda: len(frames) == 5)
    wait_for(lambda: capture.state == "lost")
    assert "broke off" in events(stats)
    assert "is back" in events(stats)
    assert stats.reconnects == 2


def test_a_looping_file_that_is_taken_away_is_told_once_and_waited_for(clip, captured, tmp_path, monkeypatch):
    monkeypatch.setattr(module, "RETRY_FIRST", 0.1)
    monkeypatch.setattr(module, "RETRY_MOST", 0.1)
    place = tmp_path / "clip.avi"
    shutil.copy(clip, place)
    opened = []

    def make():
        opened.append(time.monotonic())
        return open_source(place, Options(fps=200))

    capture, frames, stats = captured(make, loop=True)
    wait_for(lambda: frames)
    place.rename(tmp_path / "away.avi")
    wait_for(lambda: capture.state == "lost")
    before, begun = len(opened), time.monotonic()
    time.sleep(0.5)
    assert len(opened) - before <= (time.monotonic() - begun) / 0.1 + 1  # it waits between two attempts
    assert events(stats).count("cannot be opened again") == 1
    (tmp_path / "away.avi").rename(place)
    wait_for(lambda: capture.state == "live")
    assert "is back" in events(stats)


def test_a_camera_that_hangs_is_given_up_and_opened_again(captured):
    release = threading.Event()
    source = Plan([[scene(0), release.wait, scene(9)], [scene(1)] * 3])
    capture, frames, stats = captured(source, timeout=0.3)
    wait_for(lambda: len(frames) == 1)
    wait_for(lambda: capture.watch() or len(frames) == 4)
    release.set()  # the old thread comes back: nobody listens to it
    time.sleep(0.2)
    assert len(frames) == 4
    assert "silent for 0.3 s" in events(stats)


def test_a_source_that_never_answers_is_told(captured):
    release = threading.Event()
    capture, _, _ = captured(Plan([[release.wait]]), timeout=0.2)
    time.sleep(0.3)
    with pytest.raises(BadInput, match=r"plan: no picture within 0\.2 s.*--timeout"):
        capture.watch()
    release.set()


@pytest.mark.parametrize("opening", [[], [None] * 3], ids=["opens and ends", "nothing but damage"])
def test_a_camera_that_never_gives_a_picture_is_told(opening, captured):
    """It is opened again and again meanwhile."""
    capture, _, stats = captured(Plan([list(opening) for _ in range(1000)]), timeout=0.3)
    with pytest.raises(BadInput, match=r"no picture within 0\.3 s that can be shown"):
        wait_for(lambda: capture.watch())
    assert stats.reconnects == 1


def test_a_folder_with_long_pauses_is_no_silent_source(captured, tmp_path):
    for number in range(3):
        cv2.imwrite(str(tmp_path / f"{number}.png"), scene(number))
    capture, frames, _ = captured(lambda: open_source(str(tmp_path), Options(fps=3.0)), timeout=0.1)
    wait_for(lambda: capture.watch() or capture.ended)
    assert len(frames) == 3


def test_a_source_that_cannot_be_opened_at_first_is_told(captured):
    capture, _, _ = captured(Plan([BadInput("no such camera")]))
    wait_for(lambda: not capture._thread.is_alive())
    with pytest.raises(BadInput, match="no such camera"):
        capture.watch()


def test_a_file_without_one_good_picture_is_told(captured):
    source = Plan([[None, None]])
    source.live = False
    capture, _, stats = captured(source, real_time=False)
    wait_for(lambda: not capture._thread.is_alive())
    with pytest.raises(BadInput, match="not one picture"):
        capture.watch()
    assert stats.corrupt == 2


def fails():
    raise OSError("Input/output error")


def test_a_file_that_fails_half_way_is_told_and_does_not_begin_anew(captured):
    """Its pictures would count twice; a live source is another matter."""
    source = Plan([[scene(0), scene(1), fails, scene(2)], [scene(0)]])
    source.live = False
    capture, frames, stats = captured(source, real_time=False)
    wait_for(lambda: not capture._thread.is_alive())
    with pytest.raises(BadInput, match=r"plan: cannot be read \(Input/output error\)"):
        capture.watch()
    assert (len(frames), stats.reconnects) == (2, 0)


def test_a_file_that_hangs_half_way_is_told_and_does_not_begin_anew(captured):
    release = threading.Event()
    source = Plan([[scene(0), release.wait, scene(1)], [scene(0)]])
    source.live = False
    capture, frames, _ = captured(source, timeout=0.2, real_time=False)
    wait_for(lambda: len(frames) == 1)
    time.sleep(0.3)
    with pytest.raises(BadInput, match=r"plan: no picture for 0\.2 s after 1 of them.*--timeout"):
        capture.watch()
    release.set()


def test_an_address_that_turned_out_to_be_a_file_does_not_begin_anew_when_it_hangs(captured):
    """Http is live until it was opened: a source that is made only to look at it knows nothing."""
    release, opened = threading.Event(), []

    class Address(Plan):
        def open(self):
            super().open()
            self.live = False
            opened.append(self)

    capture, frames, _ = captured(lambda: Address([[scene(0), release.wait]]), timeout=0.2, real_time=False)
    wait_for(lambda: len(frames) == 1)
    time.sleep(0.3)
    with pytest.raises(BadInput, match=r"no picture for 0\.2 s after 1 of them"):
        capture.watch()
    assert len(opened) == 1
    release.set()


def test_a_camera_whose_driver_fails_is_opened_again(captured):
    _, frames, stats = captured(Plan([[scene(0), fails], [scene(1)]]))
    wait_for(lambda: len(frames) == 2)
    assert "Input/output error" in events(stats)


def test_a_folder_with_many_damaged_images_is_read_to_its_end(captured, monkeypatch):
    monkeypatch.setattr(module, "MOST_CORRUPT", 3)
    source = Plan([[scene(0)] + [None] * 5 + [scene(1)]])
    source.live = False
    _, frames, stats = captured(source, real_time=False)
    wait_for(lambda: len(frames) == 2)
    assert stats.corrupt == 5


def test_a_lossless_pipeline_that_takes_its_time_is_no_silent_source(clip, captured):
    gate = threading.Event()
    capture, _, stats = captured(lambda: open_source(clip), deliver=lambda f: gate.wait(), real_time=False, timeout=0.1)
    time.sleep(0.4)
    capture.watch()
    assert stats.event_count == 0
    gate.set()


def test_corrupt_pictures_are_passed_over_and_counted(captured):
    odd = [None, np.zeros((0, 4, 3), np.uint8), np.zeros((4, 4, 3), np.float32), np.zeros((4, 4, 7), np.uint8), "text"]
    _, frames, stats = captured(Plan([[scene(0), *odd, scene(1)]]))
    wait_for(lambda: len(frames) == 2)
    assert stats.corrupt == len(odd)


def test_a_stream_of_nothing_but_damage_is_opened_again(captured, monkeypatch):
    monkeypatch.setattr(module, "MOST_CORRUPT", 3)
    _, frames, _ = captured(Plan([[scene(0)] + [None] * 5, [scene(1)]]))
    wait_for(lambda: len(frames) == 2)


@pytest.mark.parametrize(("shape", "expected"), [((8, 8), (8, 8, 3)), ((8, 8, 1), (8, 8, 3)), ((8, 8, 4), (8, 8, 3))])
def test_grey_and_alpha_become_colour(shape, expected):
    assert usable(np.full(shape, 7, np.uint8)).shape == expected


def test_the_size_may_change(captured):
    _, frames, _ = captured(Plan([[scene(0), scene(0, 320, 240), scene(0)]]))
    wait_for(lambda: len(frames) == 3)
    assert [f.image.shape[:2] for f in frames] == [(128, 192), (240, 320), (128, 192)]


# -- pictures that a camera should not give ---------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("colour", "words"),
    [((0, 154, 0), "csi://0, not /dev/video0"), ((0, 0, 0), "lens covered"), ((90, 90, 200), "another program")],
)
def test_a_plain_picture_is_told_once_and_its_end_too(colour, words):
    stats = Stats()
    check = module.PictureCheck(stats)
    plain = np.full((480, 640, 3), colour, np.uint8)
    for i in range(30):
        check(plain, i / 15)
    assert words in events(stats)
    assert words in check.trouble
    check(scene(0, 640, 480), 3.0)
    assert check.trouble is None
    assert [e["level"] for e in stats.events] == ["warning", "info"]


def test_a_short_flash_and_a_dark_noisy_picture_are_no_trouble():
    stats = Stats()
    check = module.PictureCheck(stats)
    rng = np.random.default_rng(0)
    for i in range(60):
        noisy = rng.integers(0, 9, (480, 640, 3), dtype=np.uint8)
        check(np.full((480, 640, 3), 255, np.uint8) if i % 20 < 5 else noisy, i / 15)
    assert stats.event_count == 0


def test_a_frozen_picture_is_told():
    stats = Stats()
    check = module.PictureCheck(stats)
    for i in range(90):
        check(scene(0, 640, 480), i / 15)
    assert "frozen" in events(stats)
    check(scene(1, 640, 480), 6.1)
    assert check.trouble is None
