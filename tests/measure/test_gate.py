"""The gate with scripted latencies: what it must pass, what it must catch, and what it must refuse to compare."""

import json
import math
import random
import re
from pathlib import Path
from xml.etree import ElementTree

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import edgekit
from edgekit.measure.baseline import baseline
from edgekit.measure.bench import Target, measure_target
from edgekit.measure.gate import DEFAULT_LIMITS, FAILING, compare, gate, noise_band
from edgekit.measure.gate_report import gate_cells, github_annotations, headline, junit_xml, render_gate
from edgekit.measure.matching import board_facts, group_rows, sessions
from edgekit.measure.metrics import METRICS, find_metric, parse_limits
from edgekit.measure.report import read_report, report_json
from edgekit.measure.row import Latency, Verdict
from edgekit.runtime.errors import BadConfig, BadInput

from .conftest import scripted_result
from .test_bench import BOARD
from .test_row import make_row

MACHINE = {"cpu": "Toy 9000", "cores": 2, "memory_mb": 8000, "governor": "performance", "frequency_mhz": 2000.0}
NOISY = {"status": "noisy", "reasons": ["somebody else ran"]}
LABEL = "toynet · x86-1t · onnxruntime int8"


def row(ms=10.0, machine=None, **changes):
    """A row whose frames all took ``ms``, on MACHINE with ``machine``'s changes."""
    facts = {**MACHINE, **(machine or {})}
    latency = Latency.from_samples([ms] * 100).model_dump()
    return make_row(**{"latency": latency, "samples": [], "machine": {"before": facts, "after": facts}, **changes})


def model_file(size, sha="b"):
    return {"name": "model.onnx", "bytes": size, "sha256": sha * 64}


def complexity(macs):
    return {"macs": macs, "gops": 2 * macs / 1e9, "parameters": 1}


def accuracy(map_, **changes):
    usual = row().accuracy.model_dump()
    return {**usual, "map": map_, "map50": max(map_, usual["map50"]), **changes}


def check(base, new, limits):
    (found,) = compare(base, new, parse_limits([limits])).checks
    return found


# -- limits -----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("text", "base", "bound"),
    [
        ("latency=+5%", 20.0, 21.0),
        ("latency=5%", 20.0, 21.0),
        ("LATENCY = +2ms".replace(" = ", "="), 20.0, 22.0),
        ("latency=+500us", 20.0, 20.5),
        ("p50=+0%", 20.0, 20.0),
        ("mAP=-0.5pt", 23.4, 22.9),
        ("mAP@0.5=-10%", 40.0, 36.0),
        ("size=+100kB", 2.0, 2.1),
        ("gops=+.5GOPS", 9.0, 9.5),
        ("params=+1M", 1e6, 2e6),
        ("fps=-5%", 100.0, 95.0),
        ("fps=-0%", 100.0, 100.0),
    ],
)
def test_the_bound_of_a_limit_by_hand(text, base, bound):
    (limit,) = parse_limits([text])
    assert limit.bound(base) == pytest.approx(bound)


def test_the_default_limits_are_the_four_columns():
    assert [limit.metric.name for limit in parse_limits([DEFAULT_LIMITS])] == ["mAP", "latency", "size", "gops"]
    assert parse_limits(["mAP=-1pt", "size=+1%"]) == parse_limits(["mAP=-1pt,size=+1%"])


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("latency", "'latency' is no limit"),
        ("latency=", "is no limit"),
        ("latency=fast", "is no limit"),
        ("latency=+5%%", "is no limit"),
        ("latncy=+5%", "Did you mean latency"),
        ("latency=+5", "no unit; latency takes %, ms, us"),
        ("latency=+5pt", "unknown unit 'pt'"),
        ("mAP=+0.5pt", "gets worse downwards"),
        ("latency=-5%", "gets worse upwards"),
        ("latency=+5%,p50=+3%", "latency is limited twice"),
        ("", "no limit is given"),
        (",", "no limit is given"),
    ],
)
def test_a_limit_that_cannot_be_meant_is_refused(text, told):
    with pytest.raises(BadConfig) as caught:
        parse_limits([text])
    assert told in str(caught.value)


def test_all_problems_of_the_limits_are_told_at_once():
    with pytest.raises(BadConfig) as caught:
        parse_limits(["mAP=+1pt,latncy=+1%,size=+1%"])
    assert "downwards" in str(caught.value)
    assert "latncy" in str(caught.value)
    assert "size=" not in str(caught.value)  # the limit that is right is not among them


# -- counted figures: exact -------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("limit", "base", "new", "outcome"),
    [
        ("mAP=-0.5pt", {"accuracy": accuracy(0.300)}, {"accuracy": accuracy(0.295)}, "pass"),  # on the limit
        ("mAP=-0.5pt", {"accuracy": accuracy(0.300)}, {"accuracy": accuracy(0.2949)}, "fail"),
        ("mAP=-0.5pt", {"accuracy": accuracy(0.300)}, {"accuracy": accuracy(0.900)}, "pass"),
        ("size=+1%", {"model_file": model_file(1_000_000)}, {"model_file": model_file(1_010_000, "d")}, "pass"),
        ("size=+1%", {"model_file": model_file(1_000_000)}, {"model_file": model_file(1_010_001, "d")}, "fail"),
        ("gops=+0%", {"complexity": complexity(10**9)}, {"complexity": complexity(10**9)}, "pass"),
        ("gops=+0%", {"complexity": complexity(10**9)}, {"complexity": complexity(10**9 + 1000)}, "fail"),
        ("params=+0%", {"complexity": complexity(10**9)}, {"complexity": complexity(1)}, "pass"),
        ("mAP=-0.5pt", {}, {"accuracy": None}, "missing"),
        ("mAP=-0.5pt", {"accuracy": None}, {}, "not comparable"),
        ("mAP=-0.5pt", {}, {"accuracy": accuracy(0.9, set_digest="d" * 64)}, "not comparable"),
        ("mAP=-0.5pt", {}, {"accuracy": accuracy(0.9, images=3)}, "not comparable"),
        ("gops=+0%", {}, {"complexity": None}, "missing"),
    ],
)
def test_counted_figures_are_compared_as_they_are(limit, base, new, outcome):
    found = check([row(**base)], [row(**new)], limit)
    assert found.outcome == outcome, found
    assert (found.noise, found.sure_from) == (None, None)


def test_a_missing_accuracy_is_told_by_what_explains_it_and_not_by_noise():
    reasons = ["p90 is 1.4 x p50; the board allows 1.2 x", "accuracy unknown: the images have no labels"]
    found = check([row()], [row(accuracy=None, verdict={"status": "noisy", "reasons": reasons})], "mAP=-1pt")
    assert found.reason == "mAP was not measured in the report: accuracy unknown: the images have no labels"
    found = check([row()], [row(energy=None, verdict={"status": "noisy", "reasons": reasons[:1]})], "mAP50=-1pt")
    assert found.outcome == "pass"


def test_a_difference_that_rounding_hides_is_shown():
    found = check([row(complexity=complexity(10**9))], [row(complexity=complexity(10**9 + 1000))], "gops=+0%")
    assert found.reason == "2.000002 GOPS is above the limit of 2 GOPS"


def test_of_repeats_that_differ_the_worst_counts():
    found = check(
        [row(accuracy=accuracy(m)) for m in (0.30, 0.31, 0.32)],
        [row(accuracy=accuracy(m)) for m in (0.35, 0.28)],
        "mAP=-1pt",
    )
    assert (found.base, found.new, found.bound) == (pytest.approx(31.0), pytest.approx(28.0), pytest.approx(30.0))
    assert found.outcome == "fail"


# -- varying figures: beyond limit and noise --------------------------------------------------------------------------
def test_the_noise_band_by_hand():
    # five runs a side that agree: only the assumed 1 % is left, as 4 of 8 + 4 degrees of freedom
    noise = noise_band([10.0] * 5, [12.0] * 5, 0.01)
    assert noise.error == pytest.approx(math.sqrt(4 * 0.01**2 / 12) * math.sqrt(2 / 5))
    assert noise.band == pytest.approx(3.930 * noise.error)
    # one run a side: the assumed deviation alone, with 4 degrees of freedom
    alone = noise_band([10.0], [10.0], 0.01)
    assert alone.band == pytest.approx(7.173 * 0.01 * math.sqrt(2))
    # two runs that differ by a factor of e^0.02 lie 0.01 from their mean
    two = noise_band([1.0, math.exp(0.02)], [1.0], 0.01)
    assert two.error == pytest.approx(math.sqrt((2 * 0.01**2 + 4 * 0.01**2) / 5) * math.sqrt(1.5))


def test_the_noise_band_of_several_sessions_by_hand():
    # three sessions of two equal runs, log 0, d and 2 d, against one of two: within, only the assumed 1 % is left
    d = 0.03
    base = [math.exp(d * n) for n in (0, 0, 1, 1, 2, 2)]
    noise = noise_band(base, [1.0, 1.0], 0.01, ([0, 0, 1, 1, 2, 2], [0, 0]))
    within = math.sqrt(4 * 0.01**2 / (4 + 4))  # 3 + 1 degrees of freedom, and the assumed four
    expected = within / math.sqrt(2)  # of the mean of a session's two runs
    between = math.sqrt((2 * d**2 + 4 * expected**2) / (2 + 4))
    assert noise.error == pytest.approx(between * math.sqrt(1 / 3 + 1))  # one session in the report: its runs share it
    assert noise.band == pytest.approx(5.208 * noise.error)
    # one session a side is the band of runs alone, and sessions that agree make it no narrower
    alone = noise_band([10.0] * 4, [10.0] * 4, 0.01)
    assert noise_band([10.0] * 4, [10.0] * 4, 0.01, ([0] * 4, [0] * 4)) == alone
    assert noise_band([10.0] * 4, [10.0] * 4, 0.01, ([0, 0, 1, 1], [0] * 4)).band >= alone.band


runs_of_days = st.lists(st.tuples(st.floats(1, 100), st.integers(0, 3)), min_size=1, max_size=8)


@given(base=runs_of_days, new=runs_of_days, scale=st.floats(0.1, 10), seed=st.randoms(use_true_random=False))
@settings(max_examples=100, deadline=None)
def test_properties_of_sessions(base, new, scale, seed):
    def band(base, new, scale=1.0):
        values = [[scale * ms for ms, _ in side] for side in (base, new)]
        return noise_band(*values, 0.01, tuple([day for _, day in side] for side in (base, new))).band

    found = band(base, new)
    assert found > 0
    # neither the unit nor the order nor the names of the sessions matter, nor which side is which
    assert band(base, new, scale) == pytest.approx(found)
    assert band(seed.sample(base, len(base)), new) == pytest.approx(found)
    assert band([(ms, 7 - day) for ms, day in base], new) == pytest.approx(found)
    assert band(new, base) == pytest.approx(found)


@pytest.mark.parametrize(
    ("started", "numbers"),
    [
        (["2026-11-01T10:00:00+00:00", "2026-11-01T10:59:00+00:00", "2026-11-01T11:58:00+00:00"], [0, 0, 0]),
        (["2026-11-02T10:00:00+00:00", "2026-11-01T10:00:00+00:00", "2026-11-02T10:01:00+00:00"], [1, 0, 1]),
        (["2026-11-01T10:00:00+00:00", "2026-11-01T13:00:00+02:00", "2026-11-01T12:30:00"], [0, 0, 1]),
        ([None, "2026-11-01T10:00:00+00:00", "some day", "2026-11-03T10:00:00+00:00"], [0, 0, 0, 1]),
        ([None], [0]),
    ],
)
def test_a_pause_of_an_hour_begins_a_session(started, numbers):
    assert sessions([row(started=text) for text in started]) == numbers


@pytest.mark.parametrize(
    ("ms", "outcome"), [(9.0, "pass"), (10.0, "pass"), (10.5, "pass"), (10.55, "within noise"), (11.0, "fail")]
)
def test_five_equal_runs_a_side(ms, outcome):
    # the band is expm1(3.930 * sqrt(4e-4 / 12 * 0.4)) = 1.44 %, so a failure begins at 10.5 * 1.0144 = 10.65
    found = check([row(10.0)] * 5, [row(ms)] * 5, "latency=+5%")
    assert found.outcome == outcome
    assert found.noise == pytest.approx(0.01445, abs=2e-5)
    assert found.change == pytest.approx(ms / 10 - 1)
    assert found.runs == (5, 5)


@pytest.mark.parametrize(("fps_ms", "outcome"), [(10.0, "pass"), (10.5, "pass"), (12.5, "fail"), (5.0, "pass")])
def test_a_varying_figure_that_should_be_high(fps_ms, outcome):
    assert check([row(10.0)] * 5, [row(fps_ms)] * 5, "fps=-5%").outcome == outcome


def test_what_should_be_high_gets_worse_by_a_share_of_what_it_was():
    """Frames per second that fall by a half are 50 % worse, not the 100 % by which their times grew."""
    found = check([row(10.0)] * 5, [row(10.0)] * 5, "fps=-5%")
    error = 0.02 * math.sqrt(4 / 12 * 0.4)
    assert found.noise == pytest.approx(1 - math.exp(-3.930 * error))
    assert found.sure_from == pytest.approx(1 - 0.95 * math.exp(-(3.930 + 2.326) * error))
    assert found.sure_from == pytest.approx(0.0924, abs=1e-4)
    assert check([row(10.0)], [row(10.0)], "fps=-60%").sure_from < 1


class ScriptedMachine:
    """Gives the latencies of a run of frames: each run is off by a factor, each frame too, and some frames are late."""

    def __init__(self, seed, run_noise=0.01, frame_noise=0.03, spikes=0.01):
        self._random = random.Random(seed)
        self._noise = run_noise, frame_noise, spikes

    def run(self, ms, frames=150):
        of_run, of_frame, spikes = self._noise
        factor = self._random.lognormvariate(0, of_run)
        late = (1.5 if self._random.random() < spikes else 1.0 for _ in range(frames))
        samples = [ms * factor * slow * self._random.lognormvariate(0, of_frame) for slow in late]
        return row(latency=Latency.from_samples(samples).model_dump())

    def runs(self, ms, count):
        return [self.run(ms) for _ in range(count)]


@pytest.mark.parametrize(
    ("repeats", "noise", "slower", "caught"),
    [(5, 0.01, 1.0, 0), (5, 0.01, 1.10, 100), (3, 0.01, 1.0, 0), (3, 0.005, 1.10, 100), (1, 0.01, 1.0, 0)],
)
def test_a_hundred_gates_against_five_runs_of_a_machine_that_varies(repeats, noise, slower, caught):
    machine = ScriptedMachine(seed=repeats, run_noise=noise)
    limits = parse_limits(["latency=+5%"])
    base = machine.runs(20.0, 5)
    failed = [not compare(base, machine.runs(20.0 * slower, repeats), limits).passed for _ in range(100)]
    assert sum(failed) == caught


def test_a_hundred_baselines_too():
    machine, limits = ScriptedMachine(seed=1), parse_limits(["latency=+5%"])
    for _ in range(100):
        base = machine.runs(20.0, 5)
        assert compare(base, machine.runs(20.0, 5), limits).passed
        assert not compare(base, machine.runs(22.0, 5), limits).passed


def day(machine, ms, number, count, drift):
    """Runs of one day, on which the whole machine is slower or faster than on another; no reference sees it."""
    pace = random.Random(1000 * machine + number).lognormvariate(0, drift)
    runs = ScriptedMachine(seed=machine * 100 + number, run_noise=0.005).runs(ms * pace, count)
    return [r.model_copy(update={"started": f"2026-10-{number + 1:02d}T10:00:00+00:00"}) for r in runs]


def test_a_baseline_of_several_days_knows_how_the_machine_differs_from_day_to_day():
    """By 4 %: against five runs of one day some unchanged builds fail, against one run of each of five days none."""
    limits, wrong, one_day = parse_limits(["latency=+5%"]), 0, 0
    for machine in range(100):
        days = [run for number in range(5) for run in day(machine, 20.0, number, 1, 0.04)]
        same = day(machine, 20.0, 9, 5, 0.04)
        wrong += not compare(days, same, limits).passed
        one_day += not compare(day(machine, 20.0, 0, 5, 0.04), same, limits).passed
    assert wrong == 0
    assert one_day >= 5


def test_a_failure_against_one_session_of_a_virtual_machine_says_what_that_cannot_know():
    limits, shared = parse_limits(["latency=+5%,size=+1%"]), {"machine": {"virtual": True}}
    base, slow = [row(10.0, **shared)] * 5, [row(12.0, **shared)] * 5
    (note,) = compare(base, slow, limits).notes
    assert "the baseline is of one session on a virtual machine" in note
    assert compare(base, base, limits).notes == ()
    assert compare([row(10.0)] * 5, [row(12.0)] * 5, limits).notes == ()  # a machine of its own
    days = [row(10.0, started=f"2026-10-0{n}T10:00:00+00:00", **shared) for n in range(1, 6)]
    assert not any("one session" in told for told in compare(days, slow, limits).notes)
    bigger = [row(10.0, model_file=model_file(5_000_000, "d"), **shared)] * 5
    assert compare(base, bigger, limits).notes == ()  # a file does not become larger from day to day


def test_too_few_runs_are_told():
    found = compare([row(10.0)], [row(10.0)], parse_limits(["latency=+5%"]))
    assert found.passed
    (note,) = found.notes
    assert "latency must get 20" in note  # 1.05 * exp((7.173 + 2.326) * 0.01 * sqrt(2)) = 1.201
    assert "more runs make it sharper" in note
    assert compare([row(10.0)] * 5, [row(10.0)] * 5, parse_limits(["latency=+5%"])).notes == ()


@given(
    base=st.lists(st.floats(1, 100), min_size=1, max_size=6),
    new=st.lists(st.floats(1, 100), min_size=1, max_size=6),
    percent=st.integers(0, 50),
)
@settings(max_examples=150, deadline=None)
def test_properties_of_the_latency_gate(base, new, percent):
    limit = f"latency=+{percent}%"
    found = check([row(v) for v in base], [row(v) for v in new], limit)
    # nothing slower than before never fails; a failure is beyond the limit; the band is never empty
    if max(new) <= min(base):
        assert found.outcome == "pass"
    if found.outcome == "fail":
        assert found.new > found.bound * (1 + found.noise) * (1 - 1e-9)
    assert found.noise > 0
    # faster never turns a pass into a failure, and a unit changes nothing
    if found.outcome == "pass":
        assert check([row(v) for v in base], [row(0.5 * v) for v in new], limit).outcome == "pass"
    scaled = check([row(3 * v) for v in base], [row(3 * v) for v in new], limit)
    assert scaled.noise == pytest.approx(found.noise)


@given(before=st.integers(0, 1000), after=st.integers(0, 1000), points=st.integers(0, 100))
@settings(deadline=None)
def test_properties_of_the_map_gate(before, after, points):
    found = check(
        [row(accuracy=accuracy(before / 1000))], [row(accuracy=accuracy(after / 1000))], f"mAP=-{points / 10}pt"
    )
    assert (found.outcome == "fail") == (after < before - points)


# -- what must not be compared ----------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"machine": {"cpu": "Other"}}, "another machine (cpu: Toy 9000, now Other)"),
        ({"machine": {"memory_mb": 4000}}, "another machine (memory mb: 8000, now 4000)"),
        ({"machine": {"governor": "powersave"}}, "another board state (governor: performance, now powersave)"),
        ({"process": {"threads": 2, "core": None, "warmup": 10}}, "another board state (threads: 1, now 2)"),
        ({"verdict": {"status": "simulated"}}, "one side was measured, the other one simulated"),
        ({"verdict": NOISY}, "every run of the report was disturbed (noisy: somebody else ran)"),
        ({"verdict": {"status": "throttled"}}, "every run of the report was disturbed (throttled: no reason is given)"),
    ],
)
def test_what_forbids_a_comparison_of_time_is_named(changes, told):
    result = compare([row()], [row(**changes)], parse_limits(["latency=+5%,size=+1%"]))
    latency, size = result.checks
    assert (latency.outcome, size.outcome) == ("not comparable", "pass")
    assert told in latency.reason
    assert latency.new is None
    assert not result.passed


@pytest.mark.parametrize(
    "facts",
    [
        {"memory_mb": 8100},
        {"frequency_mhz": 2104.0},  # 4.9 % of the larger one
        {"governor": "unknown"},
        {"cpu": "unknown"},
        {"load_average": [5.0, 5.0, 5.0]},
        {"affinity": [0]},
        {"temperature": 71.5},
        {"frequency_mhz": 2050.0},
    ],
)
def test_what_moves_or_is_unknown_forbids_nothing(facts):
    result = compare([row()] * 5, [row(machine=facts)] * 5, parse_limits(["latency=+5%"]))
    assert (result.checks[0].outcome, result.notes) == ("pass", ())


def on_board(mode="MAXN", clocks=True, **board):
    """A row as a board gives it, with what only a board tells."""
    identity = {"model": "NVIDIA Jetson TX2", "l4t": "32.7.6", "host": "tx2-a", **board}
    done = ["clocks at their maximum"] if clocks else []  # asked for in both, permitted in one
    power = {"before": {"name": "MAXQ", "id": 1}, "during": {"name": mode, "id": 0}, "done": done}
    power["asked"] = {"jetson_clocks": True}
    return row().model_copy(update={"machine": {"before": MACHINE, "board": identity, "power": power}})


@pytest.mark.parametrize(
    ("other", "outcome", "told"),
    [
        (on_board("MAXP_CORE_ARM"), "not comparable", "another board state (power mode: MAXN, now MAXP_CORE_ARM)"),
        (on_board(clocks=False), "not comparable", "another board state (static clocks: True, now False)"),
        (on_board(model="NVIDIA Jetson Nano"), "not comparable", "another machine (model: NVIDIA Jetson TX2, now NVI"),
        (on_board("not measured"), "pass", None),
        (on_board(host="tx2-b"), "pass", "x86-1t changed: host: tx2-a, now tx2-b"),
        (on_board(l4t="32.7.1"), "pass", "x86-1t changed: L4T: 32.7.6, now 32.7.1"),
        (row(machine={"frequency_mhz": 900.0}), "pass", "x86-1t changed: frequency mhz: 2000.0, now 900.0"),
    ],
)
def test_the_power_mode_is_the_boards_state_and_its_host_a_note(other, outcome, told):
    result = compare([on_board()] * 5, [other] * 5, parse_limits(["latency=+5%"]))
    assert result.checks[0].outcome == outcome
    assert told is None or told in result.checks[0].reason or any(told in note for note in result.notes)


def test_another_accelerator_is_another_machine():
    first, second = (row(session={"device": name, "cuda": "12.8"}) for name in ("NVIDIA H200", "NVIDIA L4"))
    result = compare([first], [second], parse_limits(["latency=+5%"]))
    assert "another machine (device: NVIDIA H200, now NVIDIA L4)" in result.checks[0].reason


def test_repeats_on_two_machines_are_not_averaged():
    result = compare([row()], [row(10.0), row(10.0, machine={"cpu": "Other"})], parse_limits(["latency=+5%"]))
    assert "another machine" in result.checks[0].reason


def test_changed_software_is_noted_and_compared():
    result = compare([row()] * 5, [row(runtime_version="2.0", machine={"kernel": "6"})] * 5, parse_limits(["size=+1%"]))
    assert result.passed
    assert result.notes == ("x86-1t changed: onnxruntime: 1.2.3, now 2.0",)


@pytest.mark.parametrize(
    ("precision", "limits", "noted"), [("int8", "mAP=-0.5pt", 1), ("int8", "size=+1%", 0), ("fp32", "mAP=-0.5pt", 0)]
)
def test_map_of_int8_across_machines_is_noted(precision, limits, noted):
    """The same file has another mAP on a CPU with other INT8 kernels, which the reader of a failure must know."""
    base, new = row(precision=precision), row(precision=precision, machine={"cpu": "Other"}, accuracy=accuracy(0.2))
    result = compare([base] * 5, [new] * 5, parse_limits([limits]))
    assert [note for note in result.notes if "INT8 kernels" in note] == list(result.notes)
    assert len(result.notes) == noted
    for note in result.notes:
        assert note.startswith(f"{LABEL}: mAP was measured on another machine (cpu: Toy 9000, now Other)")
        assert note in render_gate(result)
        assert any("INT8 kernels" in line for line in github_annotations(result))


def test_a_set_is_the_same_wherever_it_lies():
    moved = row(accuracy={**row().accuracy.model_dump(), "set": "mine/val"})
    assert check([row()], [moved], "mAP=-0.5pt").outcome == "pass"


def test_a_disturbed_repeat_is_left_out_by_name():
    slow = row(30.0, verdict=NOISY)
    result = compare([row()] * 5, [row(10.0), slow, row(10.0)], parse_limits(["latency=+5%"]))
    assert result.passed
    assert result.checks[0].runs == (5, 2)
    assert any(
        "1 of 3 runs of the report were disturbed" in note and "somebody else ran" in note for note in result.notes
    )


def test_a_missing_row_fails_and_a_new_one_is_noted():
    result = compare([row(), row(board="jetson-tx2")], [row(), row(runtime="openvino")], parse_limits(["size=+1%"]))
    assert [c.outcome for c in result.checks] == ["pass", "missing"]
    assert result.checks[1].row == "toynet · jetson-tx2 · onnxruntime int8"
    assert result.notes == ("toynet · x86-1t · openvino int8: new, not in the baseline; nothing was checked",)


def test_a_row_that_died_is_missing_with_its_reason():
    died = make_row(
        latency=None, accuracy=None, verdict={"status": "not measured", "reasons": ["it was killed by SIGSEGV"]}
    )
    result = compare([row()], [died], parse_limits([DEFAULT_LIMITS]))
    assert [(c.metric, c.outcome) for c in result.checks] == [("row", "missing")]
    assert "1 of 1 runs gave no result: it was killed by SIGSEGV" in result.checks[0].reason


def test_a_build_that_dies_in_one_run_of_three_does_not_pass_on_the_others():
    died = make_row(latency=None, verdict={"status": "not measured", "reasons": ["it was killed by SIGSEGV"]})
    result = compare([row()] * 3, [row(), died, row()], parse_limits(["latency=+5%"]))
    assert [(c.metric, c.outcome) for c in result.checks] == [("latency", "pass"), ("row", "missing")]
    assert not result.passed


def test_two_recipes_of_one_network_are_two_rows():
    rows = [row(recipe="a"), row(20.0, recipe="b")]
    result = compare(rows, rows, parse_limits(["size=+1%"]))
    assert [c.row for c in result.checks] == [f"toynet ({r}) · x86-1t · onnxruntime int8" for r in "ab"]
    assert compare([row(recipe="a")], [row(recipe="b")], parse_limits(["size=+1%"])).passed


def test_nms_on_the_host_and_in_the_engine_are_two_rows_where_both_were_measured():
    host, graph = (
        row(session={"nms": "host"}),
        row(9.0, session={"nms": "plugin"}, model_file=model_file(2_500_000, "d")),
    )
    result = compare([host, graph], [graph, host], parse_limits(["latency=+5%"]))
    name = "toynet · x86-1t · onnxruntime int8"
    assert [c.row for c in result.checks] == [name, f"{name} · NMS in the engine (EfficientNMS_TRT)"]
    assert result.passed
    # whoever moves NMS into the engine wants to know what became of the time
    assert [c.row for c in compare([host], [graph], parse_limits(["latency=+5%"])).checks] == [name]


def test_input_sizes_and_images_are_rows_of_their_own_where_one_side_has_several():
    def sized(width, sha, **changes):
        size = {"width": width, "height": 320, "layout": "nhwc_uint8"}
        return row(input=size, model_file=model_file(2_500_000, sha), **changes)

    limits = parse_limits([DEFAULT_LIMITS])
    small, large = sized(320, "d"), sized(640, "e")
    assert {c.row for c in compare([small, large], [large, small], limits).checks} == {
        f"{LABEL} · 320 x 320",
        f"{LABEL} · 640 x 320",
    }
    assert {c.row for c in compare([small], [large], limits).checks} == {LABEL}  # a change of the build, which is noted
    day, night = row(), row(accuracy=accuracy(0.1, set="night", set_digest="f" * 64))
    result = compare([day, night], [night, day], limits)
    assert result.passed
    assert [c.row for c in result.checks[::4]] == [f"{LABEL} · val", f"{LABEL} · night"]
    assert not compare([day], [night], limits).passed
    assert "night: new" in " ".join(compare([day], [day, night], limits).notes)


def test_sets_of_one_name_are_told_by_their_digests():
    (runs,) = group_rows([row(), row(accuracy=accuracy(0.1, set_digest="f" * 64))])
    assert [key.images for key in runs] == [f"val {'c' * 12}", f"val {'f' * 12}"]


def test_a_row_that_died_counts_to_every_set_that_it_may_be_of():
    died = make_row(latency=None, accuracy=None, verdict={"status": "not measured", "reasons": ["SIGSEGV"]})
    both = [row(), row(accuracy=accuracy(0.1, set="night", set_digest="f" * 64))]
    result = compare(both, [*both, died], parse_limits(["size=+1%"]))
    assert [(c.metric, c.outcome) for c in result.checks] == [("size", "pass"), ("row", "missing")] * 2


def test_one_measurement_twice_in_a_report_is_no_second_run(write, tmp_path):
    first, second = row(), row(9.0)
    with pytest.raises(BadInput, match=r"twice\.json: the measurement of .* is there twice"):
        gate(write("base.json", first), [write("twice.json", second, second)])
    with pytest.raises(BadInput, match=r"b\.json: the measurement of .* is there in .*a\.json too"):
        gate(write("base.json", first), [write("a.json", second), write("b.json", second)])
    edgekit.report([write("a.json", first), write("b.json", first, second)], out=tmp_path / "report")
    assert read_report(tmp_path / "report") == (first, second)


def test_rows_that_were_not_measured_are_no_copies_of_each_other(write):
    died = make_row(latency=None, verdict={"status": "not measured", "reasons": ["SIGSEGV"]})
    result = gate(write("base.json", row()), [write(f"{n}.json", died) for n in range(2)])
    assert "2 of 2 runs gave no result" in result.failures[0].reason


def test_two_files_under_one_name_are_no_repeats():
    rows = [row(), row(model_file=model_file(2_500_000, "d"))]
    with pytest.raises(BadInput, match="2 different model files"):
        compare([row()], rows, parse_limits(["size=+1%"]))


def test_from_a_scripted_worker_to_a_verdict(worker, artifact, eval_set, tmp_path):
    """The whole chain: worker, bench, report files, baseline, gate."""

    def run(name, ms):
        worker.play(result=scripted_result([ms] * 100))
        row = measure_target(Target(artifact, "onnxruntime"), BOARD, eval_set, worker=worker.command).row
        quiet = row.model_copy(update={"verdict": Verdict(status="valid")})  # whatever else this machine does now
        (tmp_path / name).write_text(report_json([quiet]))
        return tmp_path / name

    base, same, slow = (
        [run(f"{name}-{n}.json", ms) for n, ms in enumerate(times)]
        for name, times in (("base", (20.0, 20.2, 19.8)), ("same", (20.1, 20.3, 19.9)), ("slow", (22.4, 22.2, 22.5)))
    )
    baseline("save", base, out=tmp_path / "baseline.json")
    assert gate(tmp_path / "baseline.json", same).passed
    result = gate(tmp_path / "baseline.json", slow)
    assert [c.metric for c in result.failures] == ["latency"]
    assert result.failures[0].change == pytest.approx(22.366 / 20.0 - 1, abs=1e-3)


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.fixture
def write(tmp_path):
    def write(name, *rows):
        (tmp_path / name).write_text(report_json(rows))
        return tmp_path / name

    return write


def test_from_repeated_reports_to_a_verdict(write, tmp_path):
    when = [f"2026-11-29T12:00:0{n}+00:00" for n in range(3)]
    runs = [write(f"{n}.json", row(10.0 + n / 100), row(5.0, runtime="openvino", started=when[n])) for n in range(3)]
    out = tmp_path / "baseline.json"
    first, second = baseline("save", runs, out=out)
    assert (first["row"], first["runs"], first["undisturbed"]) == (LABEL, 3, 3)
    assert first["p50_ms"] == pytest.approx(10.01, rel=1e-4)
    assert first["deviation_percent"] == pytest.approx(0.1, rel=1e-2)
    assert second["deviation_percent"] == 0
    assert baseline("show", [out])[0] == first
    assert len(read_report(out)) == 6
    with pytest.raises(BadInput, match="very measurement"):
        gate(out, [runs[0]])
    result = gate(out, [write("new.json", row(10.0, started=when[0]), row(5.0, runtime="openvino"))])
    assert result.passed
    assert len(result.checks) == 8
    assert not gate(out, [write("slow.json", row(15.0), row(5.0, runtime="openvino"))]).passed


@pytest.mark.parametrize("power", [{"during": "MAXN", "done": None}, {"during": [1], "done": 5}])
def test_power_that_is_no_record_is_unknown(power):
    assert "power mode" not in board_facts(row().model_copy(update={"machine": {"power": power}}))


def test_text_that_no_file_can_hold_is_told_of_the_report_that_has_it(tmp_path):
    run = tmp_path / "a.json"
    run.write_text(json.dumps(json.loads(report_json([row(recipe="\ud800")]))))
    with pytest.raises(BadInput, match=r"a\.json: holds text that is no Unicode: '.ud800'"):
        baseline("save", [run], out=tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()
    with pytest.raises(BadInput, match=r"a\.json: holds text that is no Unicode"):
        gate(run, [run])


def test_a_terminal_does_not_obey_the_names_of_a_foreign_report(tmp_path):
    for name, ms in (("a", 10.0), ("b", 20.0)):
        shown = {"status": "valid", "reasons": ["one\nline\x9b2J"]}
        told = report_json([row(ms, model="\x1b[2Jnet\x07", tools={"\x1b]0;x": "1"}, verdict=shown)])
        (tmp_path / f"{name}.json").write_text(told, encoding="utf-8")
    result = gate(tmp_path / "a.json", [tmp_path / "b.json"])
    assert {check.row.split(" · ")[0] for check in result.checks} == {"\ufffd[2Jnet\ufffd"}
    (read,) = read_report(tmp_path / "a.json")
    assert (read.tools, read.verdict.reasons) == ({"\ufffd]0;x": "1"}, ("one\nline\ufffd2J",))


def test_a_baseline_is_small(write, tmp_path):
    frames = [10.0 + n / 1000 for n in range(1000)]
    run = write("a.json", row(samples=frames, latency=Latency.from_samples(frames).model_dump()))
    baseline("save", [run], out=tmp_path / "b.json")
    assert len((tmp_path / "b.json").read_text()) < 8000 < len(run.read_text())


@pytest.mark.parametrize(
    ("rows", "told"),
    [
        ([row(), row(machine={"cpu": "Other"})], "different machines or board states"),
        ([row(), row(model_file=model_file(1, "d"))], "different model files"),
        ([make_row(latency=None, verdict={"status": "not measured"})], "was not measured"),
        ([], "holds no row"),
    ],
)
def test_what_is_no_baseline_is_refused_and_nothing_is_written(rows, told, write, tmp_path):
    with pytest.raises(BadInput, match=told):
        baseline("save", [write("a.json", *rows)], out=tmp_path / "b.json")
    assert not (tmp_path / "b.json").exists()


@pytest.mark.parametrize(
    ("action", "out", "told"),
    [("sve", None, "there are: save, show"), ("save", None, "--out"), ("show", "x", "show writes nothing")],
)
def test_baseline_says_how_it_is_called(action, out, told, write):
    with pytest.raises(BadConfig, match=told):
        baseline(action, [write("a.json", row())], out=out)


def test_incomparable_rows_can_be_skipped(write):
    base, other = write("a.json", row()), write("b.json", row(machine={"cpu": "Other"}))
    assert not gate(base, [other]).passed
    result = gate(base, [other], skip_incomparable=True)
    assert result.passed
    assert [c.outcome for c in result.checks] == ["pass", "skipped", "pass", "pass"]
    assert "1 skipped" in headline(result)


@pytest.mark.parametrize("name", ["there-is-none.json", "damaged.json"])
def test_a_file_that_is_no_report_is_told(name, write, tmp_path):
    (tmp_path / "damaged.json").write_text("{")
    with pytest.raises(BadInput, match=name):
        gate(write("a.json", row()), [tmp_path / name])


# -- renderings -------------------------------------------------------------------------------------------------------
EVIL = 'net <b> "x" & | \x00 %0A ::error::'
FAILED = compare([row(model=EVIL), row(runtime="openvino")], [row(20.0, model=EVIL)], parse_limits([DEFAULT_LIMITS]))


def test_the_markdown_tells_what_failed():
    text = render_gate(FAILED)
    assert text.startswith("## ❌ Gate failed: 2 of 5 checks against baseline.")
    assert "latency fail (+100.0%): 20.00 ms is above the limit of 10.50 ms" in text
    table = [line for line in text.splitlines() if line.startswith("| ")]
    assert len(table) == 2 + 5
    assert len({line.replace("\\|", "").count("|") for line in table}) == 1


def test_junit_is_xml_with_a_case_per_check():
    root = ElementTree.fromstring(junit_xml(FAILED))
    assert root.attrib == {"name": "edgekit gate", "tests": "5", "failures": "2", "errors": "0", "skipped": "0"}
    assert [len(suite) for suite in root] == [4, 1]
    assert [case.attrib["name"] for case in root.iter("testcase")] == ["mAP", "latency", "size", "gops", "row"]
    assert {f.attrib["type"] for f in root.iter("failure")} == {"fail", "missing"}


def test_annotations_are_one_line_each_and_escaped():
    lines = list(github_annotations(FAILED))
    errors = [line for line in lines if line.startswith("::error title=")]
    assert len(errors) == 2
    assert all("\n" not in line and "\r" not in line for line in lines)
    assert "%250A" in errors[0]
    assert "+100.0%25" in errors[0]


def test_every_outcome_can_be_shown():
    for name in METRICS:
        limit = f"{name}={'-' if find_metric(name).better == 'high' else '+'}5%"
        result = compare([row()], [row()], parse_limits([limit]))
        assert len(gate_cells(result.checks[0])) == 10
        assert result.passed == (result.checks[0].outcome not in FAILING)
        assert json.loads(result.model_dump_json())["format"] == "edgekit-gate"


def test_the_table_of_the_documentation_is_the_gates():
    text = (Path(__file__).parents[2] / "docs" / "ci.md").read_text()
    lines = re.findall(r"^\| (\d) / (\d) \| ([\d.]+) % \| ([\d.]+) % \| ([\d.]+) % \|$", text, re.MULTILINE)
    assert len(lines) == 4
    for base, new, *told in lines:
        for deviation, percent in zip((0.005, 0.01, 0.02), told, strict=True):
            # runs whose deviation is exactly this: as many above as below, scaled to n - 1
            sides = [_spread(int(count), deviation) for count in (base, new)]
            found = check([row(v) for v in sides[0]], [row(v) for v in sides[1]], "latency=+5%")
            assert 100 * found.sure_from == pytest.approx(float(percent), abs=0.051)


def _spread(count, deviation):
    """Runs of 10 ms whose logarithms have exactly this deviation; one run has none."""
    steps = [i - (count - 1) / 2 for i in range(count)]
    unit = math.sqrt(sum(s * s for s in steps) / (count - 1)) if count > 1 else 1.0
    return [10.0 * math.exp(deviation * s / unit) for s in steps]
