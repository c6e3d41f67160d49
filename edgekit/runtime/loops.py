"""How the measured process goes round its images: one at a time, in turns with another process, or all at once."""

import json
import resource
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .reference import REFERENCE, TIMED
from .timing import SPANS, thirds


class Account(object):
    """What the process was charged with while it was running: wall and CPU time, and context switches.

    ``with account:`` may be entered again and again, for a process that takes turns; the parts add up.
    """

    def __init__(self):
        self.wall = self.cpu = 0.0
        self.involuntary = self.voluntary = 0

    def __enter__(self):
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self._before = usage.ru_nivcsw, usage.ru_nvcsw, time.process_time(), time.perf_counter()
        return self

    def elapsed(self):
        """Wall seconds so far, those of the part that is open included."""
        return self.wall + time.perf_counter() - self._before[3]

    def __exit__(self, *exc_info):
        involuntary, voluntary, cpu, wall = self._before
        self.wall += time.perf_counter() - wall
        self.cpu += time.process_time() - cpu
        usage = resource.getrusage(resource.RUSAGE_SELF)
        self.involuntary += usage.ru_nivcsw - involuntary
        self.voluntary += usage.ru_nvcsw - voluntary

    def to_dict(self, count, images):
        return {
            "count": count,
            "images": images,
            "wall_seconds": self.wall,
            "cpu_seconds": self.cpu,
            "cpu_over_wall": self.cpu / self.wall if self.wall else None,
            "involuntary_switches": self.involuntary,
            "voluntary_switches": self.voluntary,
        }


class Latencies(object):
    """Milliseconds of every run by span, in order; a span that the session does not tell has no list."""

    def __init__(self):
        self.ms = {}  # type: dict[str, list[float]]

    def add(self, timing):
        for name, seconds in timing.spans.items():
            self.ms.setdefault(name, []).append(seconds * 1e3)
        self.ms.setdefault("total", []).append(timing.total * 1e3)

    def to_dict(self):
        return {name: self.ms[name] for name in SPANS + ("total",) if name in self.ms}


class NoReference(object):
    """Stands in for a ``reference.Reference`` where the machine's own speed is not asked for."""

    def due(self, count, seconds):
        return False

    def slice(self, count, seconds):
        return False


NO_REFERENCE = NoReference()


def single_stream(runner, images, job, progress, telemetry, reference=NO_REFERENCE):
    """MLPerf's SingleStream: the next image is sent when the last one's detections are there.

    reference: takes its slices before, between and after the frames. After each, one frame is not counted: it brings
    the network back into the caches. Account and telemetry hold neither, and ``progress`` tells where they lie: the
    phase is REFERENCE from before a slice until the frames run, and from the last frame on.
    Returns (latency_ms, account, detections of each timed image, telemetry). account: see ``Account.to_dict``, and
    sustained {first_ms, last_ms}: medians of the first and the last third.
    """
    latency, account, seen, count = Latencies(), Account(), [None] * len(images), 0

    def tell(phase, elapsed):
        progress(phase, count, max(count, _expected(job, count, elapsed)))

    while _goes_on(count, account.wall, job):
        tell(REFERENCE, account.wall)
        if reference.slice(count, account.wall):
            runner(images[count % len(images)])
        tell(TIMED, account.wall)
        with telemetry, account:
            elapsed = account.wall
            while _goes_on(count, elapsed, job) and not reference.due(count, elapsed):
                seen[count % len(images)], timing = runner(images[count % len(images)])
                latency.add(timing)
                count += 1
                telemetry.poll()
                elapsed = account.elapsed()
                tell(TIMED, elapsed)
    tell(REFERENCE, account.wall)
    reference.slice(count, account.wall)
    return latency.to_dict(), _told(account, latency, count, images), seen, telemetry.told()


def _goes_on(count, elapsed, job):
    return count < job["min_count"] or elapsed < job["min_seconds"]


def _expected(job, count, elapsed):
    """How many runs the loop will have made when both minima are reached, at the present pace."""
    return max(job["min_count"], int(count * job["min_seconds"] / max(elapsed, 1e-9)))


def _told(account, latency, count, images):
    first, last = thirds(latency.ms.get("total", ()))
    return dict(account.to_dict(count, len(images)), sustained={"first_ms": first, "last_ms": last})


def take_turns(runner, images, commands, answer, telemetry, reference=NO_REFERENCE):
    """For every line {"frames": n} of ``commands`` run one frame that is not counted and n that are, and answer.

    The frame that is not counted brings the network's weights back into the caches from which the other process drove
    them. ``answer(milliseconds)`` is called after every turn. reference: takes its slices at the start of turns, when
    the other process waits, and after the last. Returns what ``single_stream`` returns; the account is of the turns
    alone.
    """
    latency, account, seen, count = Latencies(), Account(), [None] * len(images), 0
    for line in iter(commands.readline, ""):
        frames = json.loads(line)["frames"]
        if reference.due(count, account.wall):
            reference.slice(count, account.wall)
        runner(images[count % len(images)])
        with telemetry, account:
            for _ in range(frames):
                seen[count % len(images)], timing = runner(images[count % len(images)])
                latency.add(timing)
                count += 1
        answer(latency.ms["total"][-frames:])
    reference.slice(count, account.wall)
    return latency.to_dict(), _told(account, latency, count, images), seen, telemetry.told()


def offline(runners, images, job, progress):
    """MLPerf's Offline: every image is at hand, and all ``runners`` work at the same time, each in a thread of its own.

    A runner whose file has a batch takes as many images in one call. Returns an account (see ``Account.to_dict``) with
    streams, batch and fps; a run that began before the time was up is finished and counts.
    """
    account, counts, stop = Account(), [0] * len(runners), threading.Event()

    def work(number, started):
        runner, at = runners[number], number
        try:
            while not stop.is_set() and _goes_on(sum(counts), time.perf_counter() - started, job):
                runner.many([images[(at + i) % len(images)] for i in range(runner.batch)])
                at += runner.batch
                counts[number] += runner.batch
                if number == 0:
                    done = sum(counts)
                    progress("offline", done, max(done, _expected(job, done, time.perf_counter() - started)))
        finally:
            stop.set()  # the time is up for all, or one has failed and the others need not go on

    with account, ThreadPoolExecutor(len(runners)) as pool:
        futures = [pool.submit(work, number, time.perf_counter()) for number in range(len(runners))]
    for future in futures:
        future.result()
    done = dict(account.to_dict(sum(counts), len(images)), streams=len(runners), batch=runners[0].batch)
    return dict(done, fps=sum(counts) / account.wall)
