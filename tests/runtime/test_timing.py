import numpy as np
import pytest

from edgekit.runtime import timing
from edgekit.runtime.timing import Timing, summary


def test_laps_leave_no_gap(monkeypatch):
    clock = iter([1_000, 4_000, 4_500, 10_000])
    monkeypatch.setattr(timing, "_now", lambda: next(clock))
    t = Timing()
    for name in ("preprocess", "inference", "postprocess"):
        t.lap(name)
    assert list(t.spans) == ["preprocess", "inference", "postprocess"]
    assert t.spans == pytest.approx({"preprocess": 3e-6, "inference": 0.5e-6, "postprocess": 5.5e-6})
    assert t.total == pytest.approx(9e-6)


def test_a_name_that_comes_again_adds_up(monkeypatch):
    clock = iter([0, 10, 30, 60])
    monkeypatch.setattr(timing, "_now", lambda: next(clock))
    t = Timing()
    for name in ("a", "b", "a"):
        t.lap(name)
    assert t.spans == pytest.approx({"a": 40e-9, "b": 20e-9})


def test_the_clock_is_real():
    t = Timing()
    sum(range(1000))
    t.lap("work")
    assert 0 < t.total < 1


@pytest.mark.parametrize(
    ("count", "p90", "p99"),
    [(1, False, False), (63, False, False), (64, True, False), (661, True, False), (662, True, True)],
)
def test_percentiles_only_where_the_count_supports_them(count, p90, p99):
    s = summary(range(count))
    assert s["count"] == count
    assert s["p50"] == pytest.approx((count - 1) / 2)
    assert (s["p90"] is not None, s["p99"] is not None) == (p90, p99)


def test_summary_against_values_worked_out_by_hand():
    s = summary([4.0, 1.0, 2.0, 5.0])
    assert (s["mean"], s["min"], s["max"], s["p50"]) == (3.0, 1.0, 5.0, 3.0)
    assert s["std"] == pytest.approx(np.sqrt(10 / 3))  # of the sample: divided by n - 1
    hundred = summary(np.arange(1, 102))
    assert hundred["p90"] == pytest.approx(91.0)


def test_summary_of_one_and_of_none():
    assert summary([2.5])["std"] == 0.0
    none = summary([])
    assert none.pop("count") == 0
    assert set(none) == {"mean", "min", "max", "std", "p50", "p90", "p99"}
    assert set(none.values()) == {None}
