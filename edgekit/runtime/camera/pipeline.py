"""The pipeline: newest frame in, results out, a thread for each stage where there are cores for them.

capture -> [slot] -> preprocess -> [slot] -> inference -> [slot] -> post-processing, tracks, counters -> sinks

Every slot holds one item and a newer one replaces it, so nothing queues up and a slow stage makes older frames drop,
not wait. Every captured frame is preprocessed at once, so inference always begins with the newest one. ``lossless``
(a file worked through as fast as possible) makes the slots wait instead. On one core the stages from preprocessing to
the tracks share a thread: nothing can overlap there, and handing over costs time. Sinks keep theirs.
"""

import sys
import threading

import numpy as np

from ..postprocess import all_finite
from ..sessions import INPUT, Session
from .frames import Result, clock
from .mailbox import Mailbox

_SWITCH = 5e-4  # seconds after which a waiting thread gets the interpreter; Python's own 5 ms would show in the latency
_TICK = 0.05  # seconds between two looks at the threads
_CLOSING = 30.0  # seconds that the sinks get to finish


class _Job(object):
    """A frame on its way: what each stage adds."""

    __slots__ = ("frame", "outputs", "placement", "spans", "started", "tensor")

    def __init__(self, frame):
        self.frame = frame
        self.spans = {}
        self.started = None


class Pipeline(object):
    """Runs ``capture`` through ``runner`` into ``sinks`` (SinkThread) until the source ends or ``stop`` is set.

    tracker, counters: None and () for none. on_tick: called some times a second from the thread that runs ``run``;
    False ends the run. most: results, after which there are no more. A mistake in any stage ends the run and is raised
    by ``run``.
    """

    def __init__(
        self, runner, capture, sinks, stats, stop, tracker=None, counters=(), overlap=True, lossless=False, most=None
    ):
        self._runner = runner
        self._capture = capture
        self._sinks = sinks
        self._stats = stats
        self._stop = stop
        self._tracker = tracker
        self._counters = counters
        self._most, self._lossless = most, lossless
        self._errors = []  # type: list[BaseException]
        self._raw, self._ready, self._done = Mailbox(lossless), Mailbox(lossless), Mailbox(True)
        # a session that prepares on its own device has one place for it there, which inference reads
        own_place = type(runner.session).prepare is not Session.prepare
        self._stages = self._alone() if not overlap else self._fused() if own_place else self._overlapped()
        self._shape = None
        self._finite = True  # all outputs so far

    def _overlapped(self):
        return [
            ("preprocess", self._raw, (self._preprocess,), self._ready),
            ("inference", self._ready, (self._infer,), self._done),
            ("results", self._done, (self._finish,), None),
        ]

    def _fused(self):
        return [
            ("inference", self._raw, (self._preprocess, self._infer), self._done),
            ("results", self._done, (self._finish,), None),
        ]

    def _alone(self):
        return [("inference", self._raw, (self._preprocess, self._infer, self._finish), None)]

    def run(self, on_tick=None):
        """Run to the end. Returns when every sink is closed."""
        before = sys.getswitchinterval()
        sys.setswitchinterval(_SWITCH)
        threads = [threading.Thread(target=self._work, args=s, name=s[0], daemon=True) for s in self._stages]
        try:
            for sink in self._sinks:
                sink.start()
            for thread in threads:
                thread.start()
            self._capture.start(self._deliver)
            self._wait(threads, on_tick)
        finally:
            self._stop.set()
            self._close(threads)
            sys.setswitchinterval(before)
        if self._errors:
            raise self._errors[0]

    def _wait(self, threads, on_tick):
        """Until stopped, ended or failed. At a file's end what is on its way still arrives."""
        while not self._stop.wait(_TICK) and not self._errors:
            self._capture.watch()
            if on_tick is not None and on_tick() is False:
                return
            if self._capture.ended:
                self._raw.close()
                if not any(t.is_alive() for t in threads):
                    return

    def _close(self, threads):
        for slot in (self._raw, self._ready, self._done):
            slot.close()
        self._capture.join(1.0)
        for thread in threads:
            if thread.is_alive():
                thread.join(_CLOSING)
        begun = clock()
        for sink in self._sinks:
            if not sink.finish(max(0.1, _CLOSING - (clock() - begun))):
                self._stats.event("{} did not finish in {:g} s".format(sink.sink.name, _CLOSING), "error")

    # -- the threads ----------------------------------------------------------------------------------------------
    def _deliver(self, frame):
        self._hand_over(self._raw, _Job(frame))

    def _hand_over(self, slot, job):
        """A newer frame drops an older one. Without loss only the run's end leaves frames, which nothing replaced."""
        if slot.put(job) is not None and not self._lossless:
            self._stats.drop()

    def _work(self, name, inbox, steps, outbox):
        """A stage's thread. When its inbox ends, the next stage's does."""
        try:
            for job in inbox:
                for step in steps:
                    job = step(job)
                self._stats.cpu(name)
                if outbox is not None:
                    self._hand_over(outbox, job)
        except BaseException as error:  # noqa: BLE001  the thread's last stop: ``run`` raises it
            self._errors.append(error)
        finally:
            self._stats.cpu(name, last=True)
            if outbox is not None:
                outbox.close()

    def _preprocess(self, job):
        begun = clock()
        job.tensor, job.placement = self._runner.session.prepare(job.frame.image, self._runner.preprocess)
        job.spans["preprocess"] = clock() - begun
        return job

    def _infer(self, job):
        job.started = clock()
        outputs = self._runner.session.infer({INPUT: job.tensor})
        # the session's memory holds until its next call, which begins before these are used
        job.outputs = tuple(np.array(outputs[name][0]) for name in ("boxes", "scores"))
        job.tensor = None
        job.spans["inference"] = clock() - job.started
        return job

    def _finish(self, job):
        if self._most is not None and self._stats.results >= self._most:
            return None
        begun = clock()
        self._tell_not_finite(job)
        detections = self._runner.postprocess(job.outputs[0], job.outputs[1], job.placement)
        job.spans["postprocess"] = clock() - begun
        result = Result(job.frame, detections, np.zeros(len(detections), np.int64), job.spans, job.started, clock())
        if self._tracker is not None:
            self._track(result)
        result.finished = clock()
        self._stats.result(result)
        for sink in self._sinks:
            sink.offer(result)
        return result

    def _tell_not_finite(self, job):
        """Once: a broken network may do so in every frame. A camera goes on with what is left."""
        if self._finite and not all_finite(job.outputs[0], job.outputs[1]):
            self._finite = False
            self._stats.event(
                "the network gives NaN or infinite boxes or scores, first in frame {}: such boxes are left out".format(
                    job.frame.index
                ),
                "error",
            )

    def _track(self, result):
        height, width = result.frame.image.shape[:2]
        if self._shape not in (None, (height, width)):
            self._tracker.restart()
        self._shape = (height, width)
        begun = clock()
        result.ids = self._tracker(result.detections, result.frame.seconds)
        result.trails = self._tracker.trails()
        living = self._tracker.living()
        for counter in self._counters:
            counter.update(living, width, height, self._stats.results)
        result.counts = [c.to_dict(self._runner.artifact.classes) for c in self._counters]
        result.spans["track"] = clock() - begun
