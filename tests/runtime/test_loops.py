"""The loops of the measured process, with a runner that takes as long as its script says."""

import io
import json

import pytest

from edgekit.runtime import loops
from edgekit.runtime.loops import Account, offline, single_stream, take_turns
from edgekit.runtime.timing import Timing


class Clock:
    """Stands in for the module ``time``."""

    def __init__(self):
        self.now = 100.0

    def perf_counter(self):
        return self.now

    def process_time(self):
        return self.now / 2  # half a core


class ScriptedRunner:
    """Every frame takes the next of ``seconds``, and the last of them from then on."""

    batch = 1

    def __init__(self, clock, seconds):
        self.clock, self.seconds, self.seen = clock, list(seconds), []

    def __call__(self, image):
        took = self.seconds.pop(0) if len(self.seconds) > 1 else self.seconds[0]
        self.clock.now += took
        self.seen.append(image)
        timing = Timing()
        timing.spans = {"preprocess": took / 4, "inference": took / 2, "postprocess": took / 4}
        return f"boxes of {image}", timing

    def many(self, images):
        for image in images:
            self(image)


class Slices:
    """A reference of the machine that takes a second of the clock for each slice, every ``every`` frames."""

    def __init__(self, clock, every):
        self.clock, self.every, self.taken = clock, every, []

    def due(self, count, seconds):
        return count >= len(self.taken) * self.every

    def slice(self, count, seconds):
        self.clock.now += 1.0
        self.taken.append((count, seconds))
        return True


class Silence:
    """A telemetry that counts how often it was asked, and for how long it was open."""

    def __init__(self, clock):
        self.clock, self.polls, self.seconds = clock, 0, 0.0

    def __enter__(self):
        self.seconds -= self.clock.now

    def poll(self):
        self.polls += 1

    def __exit__(self, *exc_info):
        self.seconds += self.clock.now

    def told(self):
        return {"polls": self.polls, "seconds": self.seconds}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    monkeypatch.setattr(loops, "time", clock)
    return clock


def said(*_event):
    pass


@pytest.mark.parametrize(
    ("min_count", "min_seconds", "count"),
    [(5, 0.0, 5), (1, 1.0, 10), (5, 1.0, 10), (20, 1.0, 20)],
    ids=["count", "time", "both, time is later", "both, count is later"],
)
def test_both_minima_are_reached(clock, min_count, min_seconds, count):
    runner = ScriptedRunner(clock, [0.125])  # 8 frames are one second; the ninth begins when it is up
    count = 8 if count == 10 else count
    job = {"min_count": min_count, "min_seconds": min_seconds}
    latency, account, seen, told = single_stream(runner, ["a", "b", "c"], job, said, Silence(clock))
    assert latency["total"] == [125.0] * count
    assert latency["inference"] == [62.5] * count
    assert list(latency) == ["preprocess", "inference", "postprocess", "total"]
    assert account["count"] == count
    assert account["wall_seconds"] == pytest.approx(0.125 * count)
    assert account["cpu_over_wall"] == pytest.approx(0.5)
    assert seen == ["boxes of a", "boxes of b", "boxes of c"]
    assert told == {"polls": count, "seconds": pytest.approx(0.125 * count)}


def test_the_last_third_stands_apart_from_the_first(clock):
    runner = ScriptedRunner(clock, [0.1] * 30 + [0.2] * 15)  # 3 s fast, 3 s slow; thirds of 2 s
    job = {"min_count": 45, "min_seconds": 0}
    _, account, _, _ = single_stream(runner, ["a"], job, said, Silence(clock))
    assert account["sustained"] == pytest.approx({"first_ms": 100.0, "last_ms": 200.0})


def test_one_slow_frame_stays_in(clock):
    job = {"min_count": 3, "min_seconds": 0}
    latency, _, _, _ = single_stream(ScriptedRunner(clock, [0.01, 5.0, 0.01]), ["a"], job, said, Silence(clock))
    assert latency["total"] == pytest.approx([10, 5000, 10])


def test_the_machines_reference_lies_outside_everything_that_is_timed(clock):
    runner = ScriptedRunner(clock, [0.5] + [0.25] * 2 + [0.5] + [0.25] * 2 + [0.5] + [0.25] * 2)
    slices = Slices(clock, every=2)
    phases = []

    def hear(phase, done, total):
        phases.append((phase, clock.now - 100.0))

    latency, account, seen, told = single_stream(
        runner, ["a"], {"min_count": 6, "min_seconds": 0}, hear, Silence(clock), slices
    )
    assert latency["total"] == [250.0] * 6  # the frame after each slice, of 500 ms, is not among them
    assert slices.taken == [(0, 0.0), (2, 0.5), (4, 1.0), (6, 1.5)]  # before, twice between, and after
    assert (account["count"], account["wall_seconds"], told["seconds"]) == (6, 1.5, 1.5)
    heard = [told for before, told in zip([("", 0.0), *phases], phases, strict=False) if told[0] != before[0]]
    assert heard == [
        ("timed, reference", 0.0),  # before a slice of a second and a frame of half a second
        ("timed", 1.5),
        ("timed, reference", 2.0),
        ("timed", 3.5),
        ("timed, reference", 4.0),
        ("timed", 5.5),
        ("timed, reference", 6.0),  # the last frame is over
    ]
    assert len(runner.seen) == 9
    assert seen == ["boxes of a"]


def test_the_seconds_of_a_run_are_those_of_its_frames(clock):
    job = {"min_count": 1, "min_seconds": 1.0}
    _, account, _, _ = single_stream(
        ScriptedRunner(clock, [0.125]), ["a"], job, said, Silence(clock), Slices(clock, every=1)
    )
    assert (account["count"], account["wall_seconds"]) == (8, 1.0)  # not the nine seconds of slices


def test_turns_hold_the_reference_in_their_frame_that_is_not_counted(clock):
    slices, answers = Slices(clock, every=2), []
    commands = io.StringIO('{"frames": 1}\n' * 3)
    runner = ScriptedRunner(clock, [9.0, 0.1, 9.0, 0.2, 9.0, 0.3])
    latency, account, _, told = take_turns(runner, ["a"], commands, answers.append, Silence(clock), slices)
    assert latency["total"] == pytest.approx([100, 200, 300])
    assert [count for count, _ in slices.taken] == [0, 2, 3]
    assert [account["wall_seconds"], told["seconds"]] == pytest.approx([0.6, 0.6])


def test_turns_run_when_told_and_leave_the_first_frame_out(clock):
    runner = ScriptedRunner(clock, [9.0, 0.1, 0.2, 9.0, 0.3])
    commands = io.StringIO('{"frames": 2}\n{"frames": 1}\n')
    answers = []
    latency, account, seen, _ = take_turns(runner, ["a", "b"], commands, answers.append, Silence(clock))
    assert answers == [pytest.approx([100, 200]), pytest.approx([300])]
    assert latency["total"] == pytest.approx([100, 200, 300])
    assert account["wall_seconds"] == pytest.approx(0.6)  # neither the waiting nor the frames that do not count
    assert account["count"] == 3
    assert seen == ["boxes of a", "boxes of b"]


def test_no_turn_at_all(clock):
    latency, account, seen, _ = take_turns(ScriptedRunner(clock, [1.0]), ["a"], io.StringIO(""), said, Silence(clock))
    assert (latency, account["count"], account["cpu_over_wall"], seen) == ({}, 0, None, [None])
    assert account["sustained"] == {"first_ms": None, "last_ms": None}


def test_a_broken_command_is_no_silent_end(clock):
    with pytest.raises(json.JSONDecodeError):
        take_turns(ScriptedRunner(clock, [1.0]), ["a"], io.StringIO("nonsense\n"), said, Silence(clock))


def test_an_account_adds_up_what_it_was_open_for(clock):
    account = Account()
    for seconds in (1.0, 2.0):
        clock.now += 50
        with account:
            clock.now += seconds
    assert account.to_dict(2, 1)["wall_seconds"] == 3.0
    assert account.to_dict(2, 1)["cpu_seconds"] == 1.5


class Quick:
    def __init__(self, batch=1, fails=False):
        self.batch, self.fails, self.calls = batch, fails, []

    def many(self, images):
        if self.fails:
            raise ValueError("nope")
        self.calls.append(list(images))


@pytest.mark.parametrize(("streams", "batch"), [(1, 1), (3, 1), (2, 4)])
def test_offline_counts_images_of_all_streams(streams, batch):
    runners = [Quick(batch) for _ in range(streams)]
    done = offline(runners, ["a", "b", "c"], {"min_count": 50, "min_seconds": 0.05}, said)
    images = [image for runner in runners for call in runner.calls for image in call]
    assert done["count"] == len(images) >= 50
    assert set(images) == {"a", "b", "c"}
    assert all(len(call) == batch for runner in runners for call in runner.calls)
    assert (done["streams"], done["batch"]) == (streams, batch)
    assert done["wall_seconds"] >= 0.05
    assert done["fps"] == pytest.approx(done["count"] / done["wall_seconds"])


def test_one_failing_stream_ends_the_others():
    with pytest.raises(ValueError, match="nope"):
        offline([Quick(), Quick(fails=True)], ["a"], {"min_count": 1, "min_seconds": 60}, said)
