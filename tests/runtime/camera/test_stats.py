"""The numbers on screen and in the log."""

import numpy as np
import pytest

from edgekit.runtime.camera import stats as module
from edgekit.runtime.camera.stats import Histogram, Stats, Window

from .conftest import result


@pytest.fixture
def now(monkeypatch):
    """A clock that stands where it is put."""
    moment = [100.0]
    monkeypatch.setattr(module, "clock", lambda: moment[0])
    return moment


@pytest.mark.parametrize("spread", [0.001, 0.03, 2.0])
def test_percentiles_of_a_histogram_are_right_to_one_percent(spread):
    values = np.random.default_rng(1).gamma(3.0, spread, 5000)
    histogram = Histogram()
    for value in values:
        histogram.add(value)
    for percent in (50, 90, 99):
        assert histogram.percentile(percent) == pytest.approx(np.percentile(values, percent), rel=0.015)


@pytest.mark.parametrize(("count", "known"), [(1, (True, False, False)), (64, (True, True, False)), (662, (True,) * 3)])
def test_a_percentile_needs_enough_values(count, known):
    histogram = Histogram()
    for _ in range(count):
        histogram.add(0.01)
    assert tuple(histogram.percentile(p) is not None for p in (50, 90, 99)) == known


@pytest.mark.parametrize("value", [0.0, 1e-9, 1e6])
def test_a_histogram_takes_every_time(value):
    histogram = Histogram()
    histogram.add(value)
    assert histogram.percentile(50) > 0


def test_a_rate_falls_when_nothing_comes_any_more():
    window = Window(10.0)
    for i in range(21):
        window.add(i * 0.1, 1)
    assert window.rate(2.0) == pytest.approx(10.0)
    assert window.rate(2.05) == pytest.approx(10.0)  # the next one is not late yet
    assert window.rate(4.0) == pytest.approx(20 / 3.9)
    assert window.rate(30.0) == 0.0


def test_live_numbers(now):
    stats = Stats()
    for i in range(100):
        now[0] = 100 + i * 0.04
        stats.capture(now[0])
        if i % 2:
            stats.result(result(captured=now[0] - 0.02))
        else:
            stats.drop()
    live = stats.live()
    assert live["captured_fps"] == pytest.approx(25.0)
    assert live["displayed_fps"] == pytest.approx(12.5, rel=0.05)
    assert live["latency_ms"] == {"p50": pytest.approx(12.0), "p90": None, "p99": None}
    assert live["age_ms"] == pytest.approx(1.0)
    assert (live["captured"], live["results"], live["dropped"], live["stale"]) == (100, 50, 50, 0)


def test_a_stale_result_is_older_than_two_periods_when_its_inference_begins(now):
    stats = Stats()
    for i in range(10):
        now[0] = 100 + i * 0.04
        stats.capture(now[0])
    for age, count in ((0.079, 0), (0.081, 1), (0.5, 2)):
        late = result(captured=now[0])
        late.started, late.finished = now[0] + age, now[0] + age + 0.01
        stats.result(late)
        assert stats.stale == count


def test_a_summary_counts_everything_and_names_the_cpu_of_each_stage(now):
    stats = Stats()
    stats.capture(now[0])
    stats.result(result(captured=now[0]))
    stats.corrupted()
    stats.cpu("inference")
    stats.event("something")
    now[0] += 2.0
    summary = stats.summary()
    assert (summary["seconds"], summary["results_fps"], summary["corrupt"]) == (2.0, 0.5, 1)
    assert summary["spans_ms"]["inference"]["p50"] == pytest.approx(10, rel=0.01)
    assert set(summary["cpu_seconds"]) == {"inference", "process"}
    assert summary["events"][0]["text"] == "something"


def test_a_thread_that_takes_over_a_stage_adds_to_its_seconds(monkeypatch):
    used = iter([2.0, 3.0, 0.5])
    monkeypatch.setattr(module, "thread_cpu", lambda: next(used))
    stats = Stats()
    stats.cpu("capture")
    stats.cpu("capture", last=True)
    assert stats.summary()["cpu_seconds"]["capture"] == 3.0
    stats.cpu("capture", last=True)
    assert stats.summary()["cpu_seconds"]["capture"] == 3.5


def test_every_event_is_told_once_as_far_as_it_is_kept():
    stats, told, texts = Stats(), 0, []
    for i in range(3 * module.EVENTS_KEPT):
        stats.event(str(i))
        if i % 7 == 0:
            events, told = stats.events_since(told)
            texts += [e["text"] for e in events]
    assert texts == [str(i) for i in range(len(texts))]
    assert stats.events_since(stats.event_count) == ([], stats.event_count)
    assert len(stats.events_since(0)[0]) == module.EVENTS_KEPT


def test_events_do_not_pile_up():
    stats = Stats()
    for i in range(1000):
        stats.event(str(i))
    assert len(stats.events) == module.EVENTS_KEPT
    assert stats.event_count == 1000
