"""The numbers of a run: what was captured, shown, dropped and stale, and how long it took. Memory does not grow."""

import math
import threading
import time
from collections import deque
from typing import Any

import numpy as np

from ..timing import P90_NEEDS, P99_NEEDS
from .frames import clock

WINDOW = 10.0  # seconds that the live numbers look back
_WINDOW_ITEMS = 2400  # at most, 240 a second
STALE_PERIODS = 2.0  # a frame is stale when its inference begins more than so many frame periods after its capture
EVENTS_KEPT = 50
NOT_MEASURED = "not measured"
READABLE = 0.5  # seconds for which numbers on a picture stay as they are; quicker ones nobody can read
BUSY = 0.05  # of the captured frames; where more are dropped, the network is slower than the source
_CPU_EVERY = 0.2  # seconds between two notes of a thread's CPU time
_CPU_CLOCK = getattr(time, "CLOCK_THREAD_CPUTIME_ID", None)


class Histogram(object):
    """Counts of times in bins of 1 %, from 10 microseconds to 1000 s: percentiles of a long run in fixed memory."""

    _LOW, _STEP = 1e-5, math.log(1.01)

    def __init__(self):
        self._bins = np.zeros(int(math.log(1e8) / self._STEP) + 2, np.int64)
        self.count = 0

    def add(self, seconds):
        place = int(math.log(max(seconds, self._LOW) / self._LOW) / self._STEP)
        self._bins[min(place, len(self._bins) - 1)] += 1
        self.count += 1

    def percentile(self, percent):
        """Seconds, to 1 %; None while there are too few values for an estimate (timing.P90_NEEDS, P99_NEEDS)."""
        needs = {90: P90_NEEDS, 99: P99_NEEDS}.get(percent, 1)
        if self.count < needs:
            return None
        place = int(np.searchsorted(np.cumsum(self._bins), max(1, math.ceil(self.count * percent / 100.0))))
        return self._LOW * math.exp((place + 0.5) * self._STEP)


class Window(object):
    """The values of the last seconds."""

    def __init__(self, seconds=WINDOW):
        self._seconds = seconds
        self._values: Any = deque(maxlen=_WINDOW_ITEMS)  # (moment, value)

    def add(self, moment, value):
        self._values.append((moment, value))

    def values(self, now):
        while self._values and self._values[0][0] < now - self._seconds:
            self._values.popleft()
        return [value for _, value in self._values]

    def rate(self, now):
        """Events a second: intervals between the first and the last one over their time; 0 while there are too few."""
        count = len(self.values(now))
        if count < 2:
            return 0.0
        # silence after the last event counts as soon as it is longer than the usual interval
        first, last = self._values[0][0], self._values[-1][0]
        usual = (last - first) / (count - 1)
        return (count - 1) / max(max(last, now - usual) - first, 1e-9)


class Stats(object):
    """Counters that every thread adds to. ``live()`` is for screens and logs, ``summary()`` for the end.

    real_time: False where frames wait for the network, so that none can be stale
    """

    def __init__(self, real_time=True):
        self._lock = threading.Lock()
        self._real_time = real_time
        self.started = clock()
        self.captured = self.results = self.dropped = self.stale = self.corrupt = self.reconnects = 0
        self.period = None  # seconds between two captured frames, as they come
        self._captures, self._shown, self._drops = Window(), Window(), Window()
        self._latency, self._age = Window(), Window()
        self._all_latency, self._all_age = Histogram(), Histogram()
        self._cpu, self._cpu_ended, self._spans = {}, {}, {}  # seconds of threads that work, and of those that ended
        self._cpu_noted = {}  # type: dict[str, float]
        self._live = None  # (moment, what ``live`` told then)
        self._busy, self._next_busy = False, 0.0
        self._last = None
        self.events: Any = deque(maxlen=EVENTS_KEPT)
        self.event_count = 0

    # -- what the threads report ----------------------------------------------------------------------------------
    def capture(self, moment):
        with self._lock:
            self.captured += 1
            if self._last is not None:
                gap = moment - self._last
                self.period = gap if self.period is None else self.period + 0.1 * (gap - self.period)
            self._last = moment
            self._captures.add(moment, 1)

    def drop(self):
        with self._lock:
            self.dropped += 1
            self._drops.add(clock(), 1)

    def corrupted(self):
        with self._lock:
            self.corrupt += 1

    def result(self, result):
        """Count a result and give it its number."""
        with self._lock:
            self.results += 1
            result.number = self.results
            if self._real_time and self.period is not None and result.age > STALE_PERIODS * self.period:
                self.stale += 1
            self._shown.add(result.finished, 1)
            self._latency.add(result.finished, result.latency)
            self._age.add(result.finished, result.age)
            self._all_latency.add(result.latency)
            self._all_age.add(result.age)
            for name, seconds in result.spans.items():
                self._spans.setdefault(name, Histogram()).add(seconds)

    def cpu(self, stage, last=False):
        """Note the CPU time that the calling thread, which works on ``stage``, has used so far: now and then, and last.

        To be called after every piece of work: asking the system each time would cost more than some of the pieces.
        """
        now = clock()
        if not last and now < self._cpu_noted.get(stage, 0.0):
            return
        self._cpu_noted[stage] = now + _CPU_EVERY
        used = thread_cpu()
        if used is not None:
            with self._lock:
                if last:  # another thread may go on with this stage, and its time begins at 0
                    self._cpu.pop(stage, None)
                    self._cpu_ended[stage] = self._cpu_ended.get(stage, 0.0) + used
                else:
                    self._cpu[stage] = used

    def event(self, text, level="warning"):
        """Something that a person should know; the newest are kept, with the seconds since the start."""
        with self._lock:
            self.event_count += 1
            self.events.append({"seconds": round(clock() - self.started, 1), "level": level, "text": text})

    def events_since(self, told):
        """(the events after the first ``told`` ones, as far as they are kept; how many there have been)."""
        with self._lock:
            fresh = self.event_count - told
            return (list(self.events)[-fresh:] if fresh else []), self.event_count

    # -- what others read -----------------------------------------------------------------------------------------
    def busy(self):
        """Whether in the last ten seconds more than BUSY of the frames came too soon for the network."""
        now = clock()
        if now >= self._next_busy:
            self._next_busy = now + READABLE
            with self._lock:
                self._busy = len(self._drops.values(now)) > BUSY * len(self._captures.values(now))
        return self._busy

    def readable(self):
        """What ``live`` told at most READABLE seconds ago: for numbers on pictures. Nobody may change it."""
        kept = self._live
        if kept is None or clock() - kept[0] >= READABLE:
            kept = self._live = (clock(), self.live())
        return kept[1]

    def live(self):
        """Numbers of the last ten seconds, and the run's counts. Times are milliseconds; None: too few values yet."""
        now = clock()
        with self._lock:
            latency, age = self._latency.values(now), self._age.values(now)
            return {
                "seconds": round(now - self.started, 1),
                "captured_fps": round(self._captures.rate(now), 2),
                "displayed_fps": round(self._shown.rate(now), 2),
                "latency_ms": _percentiles(latency),
                "age_ms": _milli(np.median(age)) if age else None,
                "captured": self.captured,
                "results": self.results,
                "dropped": self.dropped,
                "stale": self.stale,
                "corrupt": self.corrupt,
                "reconnects": self.reconnects,
            }

    def summary(self):
        """The whole run: counts, rates, percentiles to 1 %, spans, CPU seconds of each stage's thread."""
        wall = clock() - self.started
        with self._lock:
            stages = {n: self._cpu.get(n, 0.0) + self._cpu_ended.get(n, 0.0) for n in [*self._cpu, *self._cpu_ended]}
            return {
                "seconds": round(wall, 2),
                "captured": self.captured,
                "results": self.results,
                "dropped": self.dropped,
                "stale": self.stale,
                "corrupt": self.corrupt,
                "reconnects": self.reconnects,
                "results_fps": round(self.results / wall, 2) if wall else 0.0,
                "latency_ms": _histogram(self._all_latency),
                "age_ms": _histogram(self._all_age),
                "spans_ms": {name: _histogram(h) for name, h in sorted(self._spans.items())},
                "cpu_seconds": dict({n: round(s, 3) for n, s in stages.items()}, process=round(_process_cpu(), 3)),
                "events": list(self.events),
            }


def thread_cpu():
    """CPU seconds of the calling thread, or None where the system does not tell."""
    return None if _CPU_CLOCK is None else time.clock_gettime(_CPU_CLOCK)


def _process_cpu():
    return time.process_time()


def _milli(seconds):
    return None if seconds is None else round(float(seconds) * 1e3, 2)


def _percentiles(values):
    """p50, p90 and p99 in milliseconds; None where the values are too few for an estimate."""
    count = len(values)
    wanted = (("p50", 50, 1), ("p90", 90, P90_NEEDS), ("p99", 99, P99_NEEDS))
    return {name: _milli(np.percentile(values, p)) if count >= needs else None for name, p, needs in wanted}


def _histogram(histogram):
    return {"p{}".format(p): _milli(histogram.percentile(p)) for p in (50, 90, 99)}
