"""The machine's reference: what a slice times, when slices are due, and a child that is not there."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from edgekit.runtime.reference import KIND, LEAST_TIMES, PARTS, Reference, time_slice

# Answers with the milliseconds of its arguments, one after the other, and then dies
SCRIPTED = """
import json, sys
print(json.dumps({"kind": "scripted"}), flush=True)
for ms in map(float, sys.argv[1:]):
    if not sys.stdin.readline():
        break
    print(json.dumps({"ms": ms}), flush=True)
"""


def scripted(*ms):
    return (sys.executable, "-c", SCRIPTED, *map(str, ms))


class Work:
    """Takes the next of ``seconds`` each time, and the last of them from then on."""

    def __init__(self, *seconds):
        self.now, self.seconds, self.times = 50.0, list(seconds), 0

    def __call__(self):
        self.now += self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.times += 1

    def clock(self):
        return self.now


@pytest.mark.parametrize(
    ("seconds", "ms", "times"),
    [
        ((9.0, 0.25), 250.0, 1 + 4),  # the first fills the caches; four quarters are the second
        ((9.0, 0.1, 0.2, 0.3, 0.7), 250.0, 1 + 4),  # between the two in the middle
        ((9.0, 0.5, 0.1, 5.0), 500.0, 1 + LEAST_TIMES),  # one that was disturbed does not move the median
        ((9.0, 4.0), 4000.0, 1 + LEAST_TIMES),  # a slow board still has its least times
    ],
)
def test_a_slice_is_the_median_of_its_times(seconds, ms, times):
    work = Work(*seconds)
    assert time_slice(work, 1.0, work.clock) == pytest.approx(ms)
    assert work.times == times


def test_a_slice_before_each_part_and_one_after():
    taken = []
    with Reference(20.0, 64, scripted(*range(1, 20))) as reference:
        for frame in range(200):  # of 0.1 s
            if reference.due(frame, 0.1 * frame):
                assert reference.slice(frame, 0.1 * frame)
                taken.append(frame)
        assert reference.slice(200, 20.0)
    assert taken == list(range(0, 200, 200 // PARTS))
    assert reference.told() == {"kind": "scripted", "slices_ms": [float(n) for n in range(1, 12)]}


def test_the_minimum_that_is_reached_last_says_how_far_the_run_is():
    with Reference(1.0, 100, scripted(*range(1, 20))) as reference:
        reference.slice(0, 0.0)
        assert not reference.due(9, 50.0)  # the seconds are long over, the count is not
        assert reference.due(10, 50.0)
        reference.slice(35, 50.0)  # four borders at once are one slice
        assert not reference.due(39, 50.0)
        assert reference.due(40, 50.0)


def test_without_a_least_time_the_count_alone_decides():
    with Reference(0.0, 10, scripted(1, 2, 3)) as reference:
        assert [reference.slice(0, 0.0), reference.due(0, 9.0), reference.due(1, 0.0)] == [True, False, True]


@pytest.mark.parametrize(
    "command",
    [
        ("/nowhere/at-all",),
        (sys.executable, "-c", ""),
        (sys.executable, "-c", "print('hello')"),
        (sys.executable, "-c", "print('[1]')"),
        (sys.executable, "-c", "import os; os.kill(os.getpid(), 9)"),
        scripted(),
        scripted(0.5),
    ],
    ids=["not there", "silent", "nonsense", "no object", "killed", "dies at once", "dies later"],
)
def test_a_child_that_fails_is_not_measured_and_stops_nothing(command):
    with Reference(1.0, 4, command) as reference:
        answers = [reference.slice(count, 1.0) for count in (0, 2, 4)]
        assert not any(answers[1:])
        assert not reference.due(4, 1.0)
    assert reference.told() is None


def test_the_real_work_says_what_it_is_and_takes_time():
    import numpy as np

    with Reference(0.0, 1) as reference:
        started = time.perf_counter()
        assert reference.slice(0, 0.0)
        took = time.perf_counter() - started
    told = reference.told()
    assert told["kind"] == f"{KIND}, numpy {np.__version__}"
    assert 0 < told["slices_ms"][0] < 1e3 * took


def test_the_measured_process_loads_nothing_for_it_and_leaves_no_child():
    code = """if True:
        import sys
        from edgekit.runtime.reference import Reference
        with Reference(0.0, 1) as reference:
            reference.slice(0, 0.0)
        assert "numpy" not in sys.modules
        assert reference.told()
        print(reference._process.pid)
    """
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    with pytest.raises(ProcessLookupError):
        os.kill(int(done.stdout), 0)


def test_a_measured_process_that_is_killed_takes_it_along(tmp_path):
    code = """if True:
        import os
        from edgekit.runtime.reference import Reference
        with Reference(0.0, 1) as reference:
            print(reference._process.pid, flush=True)
            os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    status, end = Path("/proc") / done.stdout.strip() / "status", time.monotonic() + 20
    while _runs(status) and time.monotonic() < end:
        time.sleep(0.05)
    assert not _runs(status)


def _runs(status):
    """A zombie has ended; nobody has asked for its code yet."""
    try:
        return "State:\tZ" not in status.read_text()
    except OSError:
        return False
