"""Gates on a machine that drifts, with its reference and without: scripted runs, and answers worked out by hand."""

import math
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.measure.baseline import baseline
from edgekit.measure.compare import Comparison
from edgekit.measure.drift import gap, ran, reference_times, rows_apart
from edgekit.measure.gate import GateResult, compare, gate, noise_band
from edgekit.measure.gate_report import gate_cells, render_gate, told
from edgekit.measure.metrics import METRICS, parse_limits
from edgekit.measure.report import render_markdown, report_json, report_schema
from edgekit.measure.row import Latency, MachineReference

from .test_gate import row

LIMITS = parse_limits(["latency=+5%"])


def run(ms, reference=0.5, kind="a product", **changes):
    """A run of frames that all took ``ms``, on a machine whose reference takes ``reference``; None: not measured."""
    known = reference and MachineReference.from_slices(kind, [reference] * 11)
    return row(ms, machine_reference=known, **changes)


def check(base, new, limits=LIMITS):
    (found,) = compare(base, new, limits).checks
    return found


# -- the second opinion -----------------------------------------------------------------------------------------------
# With five equal runs a side the band is 1.45 % (test_gate.py), so that a failure begins at 10.65 ms
@pytest.mark.parametrize(
    ("ms", "reference", "outcome", "second"),
    [
        (10.0, 0.5, "pass", "pass"),
        (11.0, 0.5, "fail", "fail"),
        (10.55, 0.5, "within noise", "within noise"),
        (9.0, 0.45, "pass", "pass"),  # the machine became faster, the model is the same
        (9.9, 0.45, "not comparable", "fail"),  # 10 % slower, hidden by a machine that became 10 % faster
        (11.0, 0.55, "not comparable", "pass"),  # the machine became slower, not the model
        (12.1, 0.55, "not comparable", "fail"),  # 21 %, of a machine that may have become up to 30 % slower
        (14.5, 0.55, "fail", "fail"),  # more than three times what the reference changed by
        (11.2, 0.515, "not comparable", "fail"),  # the reference moved by 3 %, and may see a third of it
        (11.2, 0.504, "fail", "fail"),  # less than 1 % is no witness
        (10.55, 0.45, "fail", "fail"),  # over the limit on a faster machine: no noise excuses it
        (10.55, 0.55, "within noise", "pass"),
        (10.4, 0.49, "pass", "within noise"),  # 10.61 on the baseline's machine
        (10.7, 0.504, "fail", "within noise"),  # 10.62 on the baseline's machine, over the limit both ways
    ],
)
def test_two_judges_by_hand(ms, reference, outcome, second):
    found = check([run(10.0)] * 5, [run(ms, reference)] * 5)
    assert (found.outcome, found.against_reference.outcome) == (outcome, second)
    assert found.new == pytest.approx(ms)  # the columns are what was measured
    assert found.change == pytest.approx(ms / 10 - 1)
    assert found.against_reference.new == pytest.approx(ms * 0.5 / reference)


def test_what_is_withheld_says_why_and_what_to_do():
    result = compare([run(10.0)] * 5, [run(9.9, 0.45)] * 5, LIMITS)
    assert not result.passed
    text = told(result.checks[0])
    assert "the machine itself ran 10.0% faster (its reference took 0.500 ms, then 0.450 ms)" in text
    assert "Measured: 9.90 ms (-1.0%); as the machine was then: 11.00 ms (+10.0%)" in text
    assert "only one of the two is within the limit of 10.50 ms" in text
    assert "edgekit bench --compare" in text
    assert text in render_gate(result)
    assert GateResult.model_validate_json(result.model_dump_json()) == result


def test_drift_is_told_where_it_changes_nothing():
    (note,) = compare([run(10.0)] * 5, [run(9.1, 0.45)] * 5, LIMITS).notes
    assert "since the baseline the machine itself ran 10.0% faster" in note
    assert "latency changed by -9.0% as measured, by +1.1% against the machine" in note
    assert compare([run(10.0)] * 5, [run(9.9, 0.495)] * 5, LIMITS).notes == ()  # 1 % is not worth a word


def test_a_failure_that_a_slower_machine_may_explain_is_withheld_and_says_so():
    result = compare([run(10.0)] * 5, [run(11.2, 0.52)] * 5, LIMITS)
    assert not result.passed
    text = told(result.checks[0])
    assert "(+12.0%): 11.20 ms is above the limit of 10.50 ms, but the machine itself ran 4.0% slower" in text
    assert "up to 3 times as much as its reference does" in text
    assert "edgekit bench --compare" in text


@pytest.mark.parametrize("limit", ["mean=+5%", "p90=+5%", "fps=-5%", "latency=+0.5ms"])
def test_every_time_and_its_inverse_follow_the_machine(limit):
    limits = parse_limits([limit])
    assert check([run(10.0)] * 5, [run(11.0, 0.55)] * 5, limits).outcome == "not comparable"
    assert check([run(10.0)] * 5, [run(9.9, 0.45)] * 5, limits).outcome == "not comparable"
    assert check([run(10.0)] * 5, [run(12.5)] * 5, limits).outcome == "fail"
    same = check([run(10.0)] * 5, [run(9.0, 0.45)] * 5, limits)
    assert same.outcome == "pass"
    assert same.against_reference.change == pytest.approx(0, abs=1e-9)


def test_what_is_no_time_has_one_judge():
    (found,) = compare([run(10.0)] * 5, [run(10.0, 0.4)] * 5, parse_limits(["size=+1%"])).checks
    assert (found.outcome, found.against_reference) == ("pass", None)


@pytest.mark.parametrize(
    ("base", "new", "note"),
    [
        (run(10.0, None), run(11.0, None), None),
        (run(10.0, None), run(11.0), "the baseline has no reference of the machine"),
        (run(10.0), run(11.0, None), "the report has no reference of the machine"),
        (run(10.0), run(11.0, 0.55, "another"), "the machine's reference is another one (a product, now another)"),
        (
            run(10.0, runtime="tensorrt8"),
            run(11.0, 0.55, runtime="tensorrt8"),
            None,
        ),  # an accelerator is another machine
    ],
)
def test_without_a_common_reference_what_was_measured_stands(base, new, note):
    result = compare([base] * 5, [new] * 5, LIMITS)
    assert (result.checks[0].outcome, result.checks[0].against_reference) == ("fail", None)
    assert [note in told for told in result.notes] == ([] if note is None else [True])


def test_one_run_without_a_reference_is_enough_to_have_none():
    assert check([run(10.0)] * 5, [run(9.9, 0.45)] * 4 + [run(9.9, None)]).outcome == "pass"


def test_a_disturbed_run_says_nothing_of_the_machine():
    noisy = run(30.0, None, verdict={"status": "noisy", "reasons": ["the machine itself changed"]})
    result = compare([run(10.0)] * 5, [*[run(9.9, 0.45)] * 4, noisy], LIMITS)
    assert result.checks[0].outcome == "not comparable"
    assert not any("no reference" in note for note in result.notes)


def test_noise_that_the_reference_explains_makes_the_gate_sharper():
    """Runs that vary because the machine does: alone they hide a slowdown of 10 %, with the reference they do not."""
    weather = [1.0, 1.05, 0.95, 1.02, 0.98]
    base = [run(10 * w, 0.5 * w) for w in weather]
    slow = [run(11 * w, 0.5 * w) for w in weather]
    alone = check([run(10 * w, None) for w in weather], [run(11 * w, None) for w in weather])
    assert alone.outcome == "within noise"
    found = check(base, slow)
    assert found.outcome == "fail"
    assert "the machine's reference explains how the runs vary: against it 10.99 ms (+10.0%)" in found.reason
    calm = noise_band([10.0] * 5, [10.0] * 5, 0.01)  # against the reference every run is the same
    assert found.sure_from == pytest.approx(1.05 * math.exp(calm.band + 2.326 * calm.error) - 1)
    assert found.sure_from < 0.1 < alone.sure_from
    assert check(base, base).outcome == "pass"


times = st.lists(st.tuples(st.floats(1, 100), st.floats(0.1, 10)), min_size=1, max_size=6)


@given(base=times, new=times, percent=st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_the_reference_alone_never_fails_and_never_passes(base, new, percent):
    limits = parse_limits([f"latency=+{percent}%"])
    alone = check([run(ms, None) for ms, _ in base], [run(ms, None) for ms, _ in new], limits)
    found = check([run(*pair) for pair in base], [run(*pair) for pair in new], limits)
    assert (alone.base, alone.new, alone.bound, alone.noise) == (found.base, found.new, found.bound, found.noise)
    allowed = {"pass": {"pass", "not comparable"}, "within noise": {"within noise", "fail"}}
    assert found.outcome in allowed.get(alone.outcome, {"fail", "not comparable"})
    if found.outcome == "fail":
        assert found.new > found.bound * (1 - 1e-9)  # beyond the limit as it was measured, not only by the reference


# -- a hundred gates --------------------------------------------------------------------------------------------------
class DriftingMachine:
    """Every run is off by the machine's own factor, which the reference sees, and by a little that it does not.

    weather: deviation of the machine from run to run; blind: of what only the network meets, and of what only the
    reference does; the machine is ``pace`` times as slow as it was once
    """

    def __init__(self, seed, weather=0.036, blind=0.007):
        self._random = random.Random(seed)
        self._weather, self._blind = weather, blind

    def runs(self, ms, count=5, pace=1.0):
        return [self._run(ms, pace) for _ in range(count)]

    def _run(self, ms, pace):
        machine = pace * self._random.lognormvariate(0, self._weather)
        ours, its = (self._random.lognormvariate(0, self._blind) for _ in range(2))
        frames = [ms * machine * ours * self._random.lognormvariate(0, 0.03) for _ in range(100)]
        return row(
            latency=Latency.from_samples(frames).model_dump(),
            machine_reference=MachineReference.from_slices("a product", [0.5 * machine * its] * 11),
        )


def without(rows):
    return [r.model_copy(update={"machine_reference": None}) for r in rows]


def test_a_hundred_gates_where_the_machine_varies_from_run_to_run():
    """3.6 % is what runs of two seconds were measured to deviate by on a virtual machine."""
    machine, caught, alone = DriftingMachine(seed=1), 0, 0
    for _ in range(100):
        base, same, slow = machine.runs(20.0), machine.runs(20.0), machine.runs(22.0)
        assert compare(base, same, LIMITS).passed
        assert not compare(base, slow, LIMITS).passed
        caught += check(base, slow).outcome == "fail"
        alone += check(without(base), without(slow)).outcome == "fail"
    assert caught >= 90
    assert alone <= 50


@pytest.mark.parametrize("pace", [0.9, 0.95, 1.05, 1.1, 1.2])
def test_a_hundred_gates_where_the_machine_drifted_since_the_baseline(pace):
    """An unchanged build never fails and a slower one never passes; without the reference one of the two does."""
    machine, wrong = DriftingMachine(seed=2, weather=0.01), 0
    for _ in range(100):
        base, same, slow = machine.runs(20.0), machine.runs(20.0, pace=pace), machine.runs(22.0, pace=pace)
        assert check(base, same).outcome != "fail"
        assert not compare(base, slow, LIMITS).passed
        if pace < 1:
            assert compare(base, same, LIMITS).passed
        wrong += compare(without(base), without(slow), LIMITS).passed
        wrong += not compare(without(base), without(same), LIMITS).passed
    assert wrong >= 90 or pace in (0.95, 1.05)


class HalfBlindMachine(DriftingMachine):
    """Its reference sees a third of the drift, as it was measured of HRNet-W16 in FP32."""

    def _run(self, ms, pace):
        found = super()._run(ms, pace)
        seen = [slice_ * pace ** (-2 / 3) for slice_ in found.machine_reference.slices_ms]
        return found.model_copy(update={"machine_reference": MachineReference.from_slices("a product", seen)})


@pytest.mark.parametrize("pace", [1.03, 1.08, 1.1, 1.124, 1.15, 1.2, 1.3])
def test_a_hundred_gates_with_a_reference_that_sees_a_third_of_the_drift(pace):
    """No unchanged build is accused, and no slower one passes; what cannot be told is called so."""
    machine = HalfBlindMachine(seed=4, weather=0.005, blind=0.003)
    outcomes = []
    for _ in range(100):
        base = machine.runs(20.0)
        outcomes.append(check(base, machine.runs(20.0, pace=pace)).outcome)
        assert not compare(base, machine.runs(22.0, pace=pace), LIMITS).passed
    assert outcomes.count("fail") == 0
    if pace >= 1.15:
        assert outcomes.count("not comparable") == 100


class BlindMachine(DriftingMachine):
    """Its reference is nothing but noise: it follows nothing that the network meets."""

    def _run(self, ms, pace):
        found = super()._run(ms, pace)
        reference = MachineReference.from_slices("a product", [0.5 * self._random.lognormvariate(0, 0.05)] * 11)
        return found.model_copy(update={"machine_reference": reference})


def test_a_hundred_gates_with_a_reference_that_knows_nothing():
    """It withholds no verdict on a quiet machine: its own noise makes its band too wide for another opinion."""
    machine = BlindMachine(seed=3, weather=0.005)
    outcomes = {"same": [], "slow": []}
    for _ in range(100):
        base = machine.runs(20.0)
        outcomes["same"].append(check(base, machine.runs(20.0)).outcome)
        outcomes["slow"].append(check(base, machine.runs(22.0)).outcome)
    assert set(outcomes["same"]) <= {"pass", "within noise"}
    assert not set(outcomes["slow"]) & {"pass", "within noise"}
    assert outcomes["slow"].count("fail") >= 60


# -- words, files and renderings --------------------------------------------------------------------------------------
def test_words():
    assert ran(0.5, 0.47) == "ran 6.0% faster (its reference took 0.500 ms, then 0.470 ms)"
    assert ran(0.47, 0.5) == "ran 6.4% slower (its reference took 0.470 ms, then 0.500 ms)"
    assert gap([run(1.0)], [run(1.0)]) is None
    assert reference_times([run(1.0), run(1.0, 0.6)], [run(1.0, 0.7)]) == [[0.5, 0.6], [0.7]]
    assert reference_times([run(1.0)], [run(1.0, 0.7, "another")]) is None
    assert reference_times([run(1.0, 0.5, runtime="cuda")]) is None


def test_a_report_says_when_its_rows_are_of_two_machines():
    rows = [run(10.0, 0.5), run(9.0, 0.45, runtime="openvino"), run(9.5, 0.49, runtime="pytorch")]
    assert rows_apart(rows) == (1, 0)
    text = render_markdown(rows)
    assert (
        "The machine itself ran 10.0% faster (its reference took 0.500 ms, then 0.450 ms) for row 2 than for row 1"
        in text
    )
    assert "0.450 · 0.450 · 0.450 ms by thirds" in text
    assert rows_apart([run(10.0, 0.5), run(9.0, 0.49)]) is None
    assert rows_apart([run(10.0, None), run(9.0, None)]) is None
    assert "The machine itself" not in render_markdown([run(10.0, None), run(9.0, 0.4)])


def test_a_baseline_tells_what_the_machine_did(tmp_path):
    rows = [run(10.0 * w, 0.5 * w) for w in (1.0, 1.1, 1.05)]
    (tmp_path / "runs.json").write_text(report_json(rows))
    (record,) = baseline("save", [tmp_path / "runs.json"], out=tmp_path / "base.json")
    assert record["machine_spread_percent"] == pytest.approx(10.0)
    assert record["against_machine_percent"] == pytest.approx(0.0, abs=1e-6)
    assert record["deviation_percent"] > 4
    (tmp_path / "new.json").write_text(report_json([run(9.9 + i / 1000, 0.45) for i in range(5)]))
    assert gate(tmp_path / "base.json", [tmp_path / "new.json"], limits=["latency=+5%"]).checks[0].against_reference
    (tmp_path / "old.json").write_text(report_json([run(10.0, None)]))
    (record,) = baseline("show", [tmp_path / "old.json"])
    assert "machine_spread_percent" not in record


def test_a_comparison_tells_what_the_machine_did():
    moved = MachineReference.from_slices("a product", [0.5] * 5 + [0.54] * 5)
    found = Comparison.model_construct(a=run(10.0), b=row(11.0, machine_reference=moved))
    assert found.machine.startswith("The machine's own speed moved by 8.0% meanwhile")
    assert Comparison.model_construct(a=run(10.0, None), b=run(11.0, None)).machine is None


def test_the_schema_has_the_reference():
    defined = report_schema()["$defs"]["MachineReference"]
    assert set(defined["properties"]) == {"kind", "ms", "thirds_ms", "slices_ms"}


@pytest.mark.parametrize("reference", [1e12, 1e-9])
def test_a_reference_that_is_no_witness_leaves_what_was_measured(reference):
    """Times over it are next to nothing, or next to endless."""
    assert check([run(10.0)] * 2, [run(10.0, reference)] * 2).outcome in ("pass", "not comparable")
    assert check([run(10.0, reference)] * 2, [run(20.0)] * 2).outcome in ("fail", "not comparable")
    with pytest.raises(ValueError, match="less than or equal to"):
        run(10.0, 1e300)


def test_every_time_with_a_second_opinion_can_be_shown():
    for name in (name for name, metric in METRICS.items() if metric.machine):
        limit = f"{name}={'-' if METRICS[name].better == 'high' else '+'}5%"
        base, new = (Latency.from_samples([ms] * 700).model_dump() for ms in (10.0, 9.9))  # p99 needs that many
        found = check([run(10.0, latency=base)] * 5, [run(9.9, 0.45, latency=new)] * 5, parse_limits([limit]))
        assert found.new is not None
        assert len(gate_cells(found)) == 10
        assert found.against_reference is not None
