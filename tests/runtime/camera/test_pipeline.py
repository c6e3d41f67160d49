"""The pipeline: newest frame, overlapped stages, nothing lost offline, errors that come out."""

import threading
import time

import numpy as np
import pytest

from edgekit.runtime.camera.capture import Capture
from edgekit.runtime.camera.counters import Line
from edgekit.runtime.camera.pipeline import Pipeline
from edgekit.runtime.camera.sinks import Sink, SinkThread
from edgekit.runtime.camera.sources import Options, open_source
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.camera.tracking import Tracker
from edgekit.runtime.errors import BadInput

from .conftest import scene
from .test_capture import Plan


class Keep(Sink):
    """Keeps every result; notes its threads, and may be slow or break."""

    name = "keep"

    def __init__(self, seconds=0.0, error=None, live=False):
        self.results, self.threads, self.closed = [], set(), 0
        self.seconds, self.error, self.live = seconds, error, live

    def write(self, result):
        self.threads.add(threading.current_thread().name)
        if self.seconds:
            time.sleep(self.seconds)
        if self.error is not None and len(self.results) == 2:
            raise self.error
        self.results.append(result)

    def close(self):
        self.closed += 1


def run(runner, source, sinks, lossless=False, overlap=True, seconds=None, **more):
    stats, stop = Stats(), threading.Event()
    capture = Capture(source, stats, stop, timeout=5, real_time=not lossless)
    threads = [SinkThread(s, stats, lossless) for s in sinks]
    pipeline = Pipeline(runner, capture, threads, stats, stop, lossless=lossless, overlap=overlap, **more)
    end = None if seconds is None else time.monotonic() + seconds
    pipeline.run(lambda: end is None or time.monotonic() < end)
    return stats, threads


@pytest.mark.parametrize("overlap", [True, False])
def test_offline_every_frame_arrives_once_and_in_order(clip, runner, overlap):
    sink = Keep(seconds=0.002)
    stats, _ = run(runner(), lambda: open_source(clip), [sink], lossless=True, overlap=overlap)
    assert [r.frame.index for r in sink.results] == list(range(40))
    assert [r.number for r in sink.results] == list(range(1, 41))
    assert (stats.captured, stats.results, stats.dropped) == (40, 40, 0)
    assert sink.closed == 1


@pytest.mark.parametrize("overlap", [True, False])
def test_a_slow_network_sees_the_newest_frame_and_the_others_drop(clip, runner, overlap):
    sink = Keep()
    stats, _ = run(runner(seconds=0.2), lambda: open_source(clip), [sink], overlap=overlap)
    assert stats.captured == 40
    assert stats.results + stats.dropped == 40
    assert 5 <= stats.results <= 14
    ages = [r.age for r in sink.results]
    # each begins with a frame that is at most about a period (50 ms) old; a queue of frames would make it seconds
    assert sorted(ages)[len(ages) // 2] < 0.2
    assert max(r.latency for r in sink.results) < 1.5


def test_boxes_are_in_pixels_of_the_frame(clip, runner):
    sink = Keep()
    run(runner(), lambda: open_source(clip), [sink], lossless=True)
    for result in sink.results[5:35]:
        (box,) = result.detections.boxes
        x = int((192 - 30) * result.frame.index / 39)
        assert box == pytest.approx([x, 52, x + 29, 77], abs=6)


def test_boxes_that_are_not_finite_are_left_out_and_told_once(clip, runner):
    broken, sink = runner(), Keep()
    infer = broken.session.infer

    def with_nan(inputs):
        """A box of NaN, with the best score, before the true one."""
        outputs = infer(inputs)
        boxes, scores = (np.concatenate([outputs[name][:, :1]] * 2, axis=1) for name in ("boxes", "scores"))
        boxes[:, 0] = np.nan
        return {"boxes": boxes, "scores": scores}

    broken.session.infer = with_nan
    stats, _ = run(broken, lambda: open_source(clip), [sink], lossless=True)
    assert [len(r.detections) for r in sink.results] == [1] * 40
    assert all(np.isfinite(r.detections.boxes).all() for r in sink.results)
    (event,) = stats.events
    assert "NaN or infinite boxes or scores, first in frame 0" in event["text"]


def test_tracks_and_counters(clip, runner):
    sink, line = Keep(), Line([(0.5, 0), (0.5, 1)], "middle")
    run(runner(), lambda: open_source(clip), [sink], lossless=True, tracker=Tracker(), counters=[line])
    assert {int(i) for r in sink.results for i in r.ids} == {1}
    assert sink.results[-1].counts[0]["totals"] == {"car": {"in": 0, "out": 1}}
    assert len(sink.results[-1].trails[1]) == 40


def test_a_stream_whose_size_changes_goes_on_with_new_tracks(runner):
    frames = [scene(0)] * 5 + [scene(0, 320, 240)] * 5
    source, sink = Plan([frames]), Keep()
    source.live = False
    run(runner(), lambda: source, [sink], lossless=True, tracker=Tracker())
    assert [int(r.ids[0]) for r in sink.results] == [1] * 5 + [2] * 5


def test_nothing_but_inference_runs_on_its_thread(clip, runner):
    running, sinks = runner(), [Keep(), Keep(live=True)]
    stats, _ = run(running, lambda: open_source(clip), sinks, lossless=True)
    assert running.session.threads == {"inference"}
    assert {"inference"} & {t for s in sinks for t in s.threads} == set()
    assert {"capture", "preprocess", "inference", "results", "keep"} <= set(stats.summary()["cpu_seconds"])


def test_a_slow_sink_does_not_slow_the_others(clip, runner):
    slow, fast = Keep(seconds=0.5), Keep()
    stats, threads = run(runner(), lambda: open_source(clip, Options(fps=40)), [slow, fast])
    assert len(fast.results) == stats.results >= 30
    assert threads[0].lost > 0
    assert threads[0].written + threads[0].lost == stats.results
    assert "results lost" not in str(stats.events)


@pytest.mark.parametrize("lossless", [True, False])
def test_a_sink_that_breaks_is_told_and_the_rest_goes_on(clip, runner, lossless):
    broken, whole = Keep(error=OSError(28, "No space left on device")), Keep()
    stats, threads = run(runner(), lambda: open_source(clip), [broken, whole], lossless=lossless)
    assert (threads[0].state, threads[1].state) == ("lost", "closed")
    assert "disk is full" in threads[0].reason
    assert "disk is full" in stats.events[0]["text"]
    assert len(whole.results) == stats.results
    assert broken.closed == 1


def test_a_sink_that_cannot_be_opened_ends_the_run(clip, runner):
    sink = Keep()
    sink.open = lambda: (_ for _ in ()).throw(BadInput("no place"))
    with pytest.raises(BadInput, match="no place"):
        run(runner(), lambda: open_source(clip), [sink])


@pytest.mark.parametrize("step", ["infer", "prepare"])
def test_a_mistake_in_a_stage_comes_out(clip, runner, step):
    running, sink = runner(), Keep()

    def fail(*args):
        raise RuntimeError("the library says no")

    setattr(running.session, step, fail)
    with pytest.raises(RuntimeError, match="the library says no"):
        run(running, lambda: open_source(clip), [sink])
    assert sink.closed == 1


def test_a_source_that_fails_comes_out(runner):
    with pytest.raises(BadInput, match="not there"):
        run(runner(), lambda: Plan([BadInput("not there")]), [])


def test_a_camera_goes_away_and_comes_back(runner, monkeypatch):
    monkeypatch.setattr("edgekit.runtime.camera.capture.RETRY_FIRST", 0.02)
    steps = [scene(i) for i in range(4)]
    sink = Keep()
    source = Plan([[s for step in steps for s in (step, lambda: time.sleep(0.02))] for _ in range(3)])
    stats, _ = run(runner(), lambda: source, [sink], seconds=1.5)
    assert stats.reconnects >= 2
    assert stats.results >= 9


def test_a_session_that_prepares_on_its_own_device_is_not_overlapped(clip, runner):
    running = runner()

    class Device(type(running.session)):
        def prepare(self, image, preprocess):
            self.threads.add(threading.current_thread().name)
            return preprocess(image, self.layout)

    running.session = Device()
    run(running, lambda: open_source(clip), [Keep()], lossless=True)
    assert running.session.threads == {"inference"}
