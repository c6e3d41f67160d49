"""On a busy core people get fewer pictures, records everything, and what nobody takes is not made."""

import threading

import numpy as np
import pytest

from edgekit.runtime.camera import hub as hub_module
from edgekit.runtime.camera import stats as stats_module
from edgekit.runtime.camera.hub import Hub
from edgekit.runtime.camera.options import Options
from edgekit.runtime.camera.overlay import Painter, status_lines
from edgekit.runtime.camera.pipeline import Pipeline
from edgekit.runtime.camera.sinks import BUSY_VIEW_FPS, SinkThread, ViewPace, view_pace
from edgekit.runtime.camera.sources import open_source
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.errors import BadConfig

from .conftest import ABOUT, CLASSES, result, scene
from .test_pipeline import Capture, Keep


@pytest.mark.parametrize(("given", "bound", "expected"), [(60, 15, 15), (40, 25, 25), (20, 25, 20), (30, 30, 30)])
def test_at_most_so_many_a_second_and_not_fewer_than_there_are(given, bound, expected):
    pace = ViewPace(bound)
    taken = [i for i in range(given * 10) if pace(100 + i / given)]
    assert len(taken) == pytest.approx(10 * expected, rel=0.02)
    assert max(np.diff(taken)) <= given // bound + 1


def test_after_a_pause_nothing_is_made_up_for():
    pace = ViewPace(10)
    assert sum(pace(5 + i / 1000) for i in range(1000)) in (10, 11)


def test_an_unsteady_camera_at_the_bounds_own_rate_loses_little():
    pace, rng = ViewPace(30), np.random.default_rng(0)
    assert sum(pace(i / 30 + rng.uniform(-0.004, 0.004)) for i in range(300)) > 280


@pytest.mark.parametrize(("cores", "fps", "kind"), [(1, None, "busy"), (2, None, "none"), (4, 12.0, "always")])
def test_who_is_bounded(cores, fps, kind):
    stats = Stats()
    pace = view_pace(stats, cores, fps)
    assert (pace is None) == (kind == "none")
    if pace is not None:
        assert [pace(i / 1000) for i in range(50)].count(True) == (50 if kind == "busy" else 1)


@pytest.mark.parametrize(("dropped", "busy"), [(0, False), (3, False), (30, True)])
def test_busy_is_a_network_slower_than_its_source(monkeypatch, dropped, busy):
    moment = [100.0]
    monkeypatch.setattr(stats_module, "clock", lambda: moment[0])
    stats = Stats()
    for i in range(100):
        moment[0] = 100 + i / 30
        stats.capture(moment[0])
        if i < dropped:
            stats.drop()
    moment[0] += 1.0
    assert stats.busy() is busy
    moment[0] += 20.0  # nothing was dropped for a while
    assert not stats.busy()


def test_on_a_busy_core_the_records_are_whole_and_the_pictures_fewer(clip, runner):
    class View(Keep):
        name, view = "view", True

    stats, stop = Stats(), threading.Event()
    busy = ViewPace(BUSY_VIEW_FPS, lambda: True)
    view, record = View(), Keep()
    threads = [SinkThread(s, stats, pace=busy) for s in (view, record)]
    capture = Capture(lambda: open_source(clip), stats, stop, timeout=5)
    Pipeline(runner(), capture, threads, stats, stop, overlap=False).run()
    assert len(record.results) == stats.results
    assert 20 <= len(view.results) < 36  # two seconds of a clip with 20 a second
    about = threads[0].to_dict()
    assert about["skipped"] + len(view.results) == stats.results
    assert about["lost"] == 0
    assert "skipped" not in threads[1].to_dict()


def test_offline_everything_is_recorded():
    with pytest.raises(BadConfig, match="--offline and --view-fps"):
        Options(artifact="a", source="b", offline=True, view_fps=5)
    with pytest.raises(BadConfig, match="--view-fps: expected a number above 0"):
        Options(artifact="a", source="b", view_fps=0)


def test_a_picture_is_encoded_once_for_all_viewers_and_only_when_one_takes_it(monkeypatch):
    made = []
    pack = hub_module.pack
    monkeypatch.setattr(hub_module, "pack", lambda one: made.append(one.number) or pack(one))
    hub = Hub(ABOUT, CLASSES, 0.3, 0.1, Painter(CLASSES, 0.3), Stats())
    hub.enter()
    for number in (1, 2, 3):
        hub.write(result(number))
    packets = [hub.wait(0, 0, 1.0)[0] for _ in range(4)]
    assert made == []
    assert len({p.data for p in packets}) == 1
    assert made == [3]


def test_numbers_on_pictures_stay_readable_and_come_again_when_they_change(monkeypatch):
    moment = [100.0]
    monkeypatch.setattr(stats_module, "clock", lambda: moment[0])
    stats, painter = Stats(), Painter(CLASSES, 0.3)
    stats.capture(100.0)
    first, one = stats.readable(), result(image=scene(0, 640, 480))
    before = painter(one, first)
    stats.drop()
    assert stats.readable() is first
    moment[0] += 1.0
    second = stats.readable()
    assert status_lines(second) != status_lines(first)
    after = painter(one, second)
    assert not np.array_equal(before, after)
    np.testing.assert_array_equal(after, Painter(CLASSES, 0.3)(one, second))
    np.testing.assert_array_equal(after[200:], one.frame.image[200:])
    assert after[:40, :100].max() == 255  # the letters


def test_a_small_picture_has_as_much_of_the_numbers_as_fits():
    small = result(image=scene(0, 48, 32))
    assert Painter(CLASSES, 0.3)(small, Stats().live()).shape == (32, 48, 3)
