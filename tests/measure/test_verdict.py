"""Verdicts on scripted runs: throttling, drift, simulators, and which status wins."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.measure.row import MachineReference, Process, Sustained, Track
from edgekit.measure.verdict import judge, simulators

QUIET = Process(threads=1, core=1, warmup=2, cpu_over_wall=1.0, involuntary_switches=0, other_load=0.0)
STEADY = [10.0] * 100


def clock(first, last, low=None, high=None, name="cpu clock"):
    ends = (first, last)
    return Track(name=name, unit="MHz", source="s", first=first, last=last, min=low or min(ends), max=high or max(ends))


def heat(first, last):
    return Track(name="cpu temperature", unit="C", source="s", first=first, last=last, min=first, max=last)


def course(ratio):
    return Sustained(first_ms=10.0, last_ms=10.0 * ratio, ratio=ratio)


@pytest.mark.parametrize(
    ("sustained", "tracks", "status", "reason"),
    [
        (None, [clock(3000, 3000)], "valid", None),
        (None, [clock(3000, 2851)], "valid", None),  # 5 % is allowed
        (None, [clock(3000, 2840)], "throttled", "cpu clock moved from 3000 MHz in the first third to 2840 MHz"),
        (None, [clock(1200, 3000)], "throttled", "moved from 1200 MHz"),  # it woke up
        (None, [clock(3000, 3000, low=2600)], "throttled", "moved between 2600 and 3000 MHz"),
        (None, [clock(1300, 800, name="gpu clock")], "throttled", "gpu clock moved"),
        (None, [heat(40, 80)], "valid", None),  # warm alone is no harm
        (course(1.02), [heat(40, 80)], "valid", None),
        (course(1.04), [heat(40, 80)], "throttled", "rose from 40 to 80 °C while the run became 4% slower"),
        (course(1.04), [heat(40, 49)], "valid", None),
        (course(1.05), [], "valid", None),
        (course(1.08), [], "noisy", "the last third took 10.80 ms a frame and the first 10.00 ms"),
        (course(0.9), [], "noisy", "the last third took 9.00 ms"),
        (course(1.08), [clock(3000, 2000)], "throttled", "cpu clock moved"),
    ],
)
def test_clock_temperature_and_drift(sustained, tracks, status, reason):
    verdict = judge(STEADY, QUIET, 1.2, True, sustained, tracks)
    assert verdict.status == status
    assert len(verdict.reasons) == (reason is not None)
    assert reason is None or reason in verdict.reasons[0]


def test_the_worst_status_wins_and_every_reason_is_told():
    noisy = Process(threads=1, core=1, warmup=0, cpu_over_wall=0.5, involuntary_switches=9, other_load=0.9)
    everything = (STEADY, noisy, 1.2, False, course(1.5), [clock(3000, 2000)])
    verdict = judge(*everything)
    assert verdict.status == "throttled"
    assert [r.split()[0] for r in verdict.reasons] == ["cpu", "the", "other", "accuracy"]
    verdict = judge(*everything, simulated=("board-root is a folder",))
    assert verdict.status == "simulated"
    assert verdict.reasons[0].endswith("mean nothing: board-root is a folder")
    assert len(verdict.reasons) == 5


@pytest.mark.parametrize(
    ("slices", "status"),
    [
        ([0.5] * 11, "valid"),
        ([0.5] * 10 + [5.0], "valid"),  # one slice is no drift: the median of a third stands
        ([0.5] * 5 + [0.524] * 6, "valid"),  # up to 5 % is allowed
        ([0.5] * 5 + [0.53] * 6, "noisy"),
        ([0.53] * 5 + [0.5] * 6, "noisy"),  # faster is another machine too
        ([0.5] * 4 + [0.6] * 3 + [0.5] * 4, "noisy"),  # back again at the end
        ([0.5], "valid"),
    ],
)
def test_a_machine_that_changes_while_it_measures(slices, status):
    reference = MachineReference.from_slices("a product", slices)
    verdict = judge(STEADY, QUIET, 1.2, True, reference=reference)
    assert verdict.status == status
    assert len(verdict.reasons) == (status == "noisy")
    assert all("the machine itself changed, not the model" in reason for reason in verdict.reasons)


def test_an_uncalibrated_engine_is_perf_only():
    verdict = judge(STEADY, QUIET, 1.2, False, perf_only="INT8 without calibration")
    assert (verdict.status, verdict.reasons) == ("perf-only", ("accuracy unknown: INT8 without calibration",))


@pytest.mark.parametrize(
    ("result", "told"),
    [
        ({"session": {}}, ()),
        ({"session": {"simulated": False}, "board": {"simulated": []}}, ()),
        ({"session": {"simulated": True}}, ("its session says so",)),
        ({"session": {"simulated": "a twin"}, "board": {"simulated": ["root is /tmp"]}}, ("root is /tmp", "a twin")),
    ],
)
def test_a_simulator_says_so(result, told):
    assert simulators(result) == told


@settings(deadline=None)
@given(
    st.lists(st.floats(0.01, 1e4), min_size=1, max_size=200),
    st.floats(0, 1.0),
    st.one_of(st.none(), st.floats(0, 4)),
    st.booleans(),
)
def test_a_row_is_valid_only_without_a_reason(samples, share, load, known):
    process = QUIET.model_copy(update={"cpu_over_wall": share, "other_load": load})
    verdict = judge(samples, process, 1.2, known)
    assert (verdict.status == "valid") == (verdict.reasons == ())
    assert (verdict.status == "perf-only") == (not known and len(verdict.reasons) == 1)
