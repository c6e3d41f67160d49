"""The machine's own speed: one fixed piece of work, timed in short slices before, between and after the frames.

The host of a virtual machine is shared, and what its other guests do shows in no clock, load or CPU time of this one:
only in how long work takes. So a piece of work that never changes is timed beside the network. It is a convolution
layer as a matrix product (3 x 3, from 16 to 64 channels, 64 x 64 pixels, float32): a network's arithmetic, on more data
than a core's own cache holds, so that arithmetic units, caches and memory have about the share in it that they have in
a network.

The work is done by a child process on the same core with one thread, while the measured process waits. So the measured
one's memory, heap and threads are what they are without it: ``python -m edgekit.runtime.reference`` reads seconds, one
slice a line, and answers each in JSON. Nothing but the standard library is loaded here; numpy in the child alone.
"""

import json
import subprocess
import sys
import time
from typing import Any, List  # noqa: F401  for Python 3.6's type comments

from .processes import THREAD_VARIABLES, environment

COMMAND = (sys.executable, "-m", "edgekit.runtime.reference")
PIXELS, DEPTH, CHANNELS = 64 * 64, 3 * 3 * 16, 64
KIND = "matrix product {} x {} x {} float32".format(PIXELS, DEPTH, CHANNELS)
PARTS = 10  # of the timed part; a slice lies before each and one after the last
SHARE = 0.001  # of the timed part, for each slice
SHORTEST, LONGEST = 0.03, 0.3  # seconds of a slice
LEAST_TIMES = 3  # in a slice
# Phases of the worker's progress: frames run; and they do not, for the time of a slice or because it was the last one
TIMED, REFERENCE = "timed", "timed, reference"


class Reference(object):
    """The slices of one run; a context manager, ready when it is entered.

    min_seconds, min_count: of the timed part, as the worker's job has them. A child that cannot start or that dies
    makes the reference *not measured*, and the run goes on.
    """

    def __init__(self, min_seconds, min_count, command=COMMAND):
        self._least = min_seconds, min_count
        self._seconds = max(SHORTEST, min(LONGEST, SHARE * min_seconds))
        self._command = command
        self._process = None  # type: Any
        self._kind, self._slices, self._border = None, [], 0.0

    def __enter__(self):
        try:
            self._process = subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                universal_newlines=True,
                env=environment(**dict.fromkeys(THREAD_VARIABLES, "1")),
            )
        except OSError:
            return self
        self._kind = self._answer("kind")
        return self

    def __exit__(self, *exc_info):
        if self._process is not None:
            for stream in (self._process.stdin, self._process.stdout):
                _close(stream)
            self._process.wait()  # it ends when its input does

    def due(self, count, seconds):
        """Whether the timed part is so far that the next slice is to be taken. count, seconds: of the timed frames."""
        return self._kind is not None and self._done(count, seconds) >= self._border

    def slice(self, count, seconds):
        """Time the work once more. False when that is not possible; the caches then are as they were."""
        if self._kind is None:
            return False
        self._border = (int(self._done(count, seconds) * PARTS) + 1.0) / PARTS
        try:
            self._process.stdin.write("{}\n".format(self._seconds))
            self._process.stdin.flush()
        except OSError:  # it is dead, and its answer is missing below
            pass
        ms = self._answer("ms")
        if ms is None:
            self._kind = None
            return False
        self._slices.append(ms)
        return True

    def told(self):
        """{"kind", "slices_ms": [before the first frame, ..., after the last]}, or None: not measured."""
        return {"kind": self._kind, "slices_ms": self._slices} if self._kind is not None and self._slices else None

    def _done(self, count, seconds):
        """Share of the timed part that lies behind, by the one of the two minima that is reached last; may exceed 1."""
        least_seconds, least_count = self._least
        return min(count / float(least_count), seconds / least_seconds if least_seconds else 1.0)

    def _answer(self, key):
        """None when the child is dead, or says something else."""
        try:
            return json.loads(self._process.stdout.readline())[key]
        except (OSError, ValueError, KeyError, TypeError):
            return None


def _close(stream):
    try:
        stream.close()
    except OSError:  # what was not flushed has no reader any more
        pass


# -- the child's side -------------------------------------------------------------------------------------------------
def serve(commands, answers):
    """Say what the work is; then for every line of ``commands``, a number of seconds, time a slice."""
    import numpy as np

    rng = np.random.RandomState(0)
    layer, weights = (rng.rand(*shape).astype(np.float32) for shape in ((PIXELS, DEPTH), (DEPTH, CHANNELS)))
    out = np.zeros((PIXELS, CHANNELS), np.float32)
    _say(answers, {"kind": "{}, numpy {}".format(KIND, np.__version__)})
    for line in iter(commands.readline, ""):
        _say(answers, {"ms": time_slice(lambda: np.matmul(layer, weights, out=out), float(line))})


def time_slice(work, seconds, clock=time.perf_counter):
    """Milliseconds of ``work``: the median over ``seconds``, and over LEAST_TIMES at least.

    The first time, which brings the data into the caches, does not count.
    """
    work()
    times = []  # type: List[float]
    now = clock()
    end = now + seconds
    while len(times) < LEAST_TIMES or now < end:
        started = clock()
        work()
        now = clock()
        times.append(now - started)
    ordered = sorted(times)
    return 1e3 * (ordered[(len(ordered) - 1) // 2] + ordered[len(ordered) // 2]) / 2


def _say(stream, message):
    stream.write(json.dumps(message) + "\n")
    stream.flush()


if __name__ == "__main__":
    try:
        serve(sys.stdin, sys.stdout)
    except (KeyboardInterrupt, BrokenPipeError):  # the measured process ended, and tells
        sys.exit(1)
