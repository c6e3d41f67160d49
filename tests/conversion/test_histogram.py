import numpy as np
import pytest

from edgekit.conversion.histogram import HALF, Histogram, Observer, entropy, minmax, percentile

RNG = np.random.default_rng(0)


def seen(*parts):
    histogram = Histogram()
    for part in parts:
        histogram.add(np.asarray(part, np.float32))
    return histogram


def test_every_value_is_in_the_bin_of_its_edges():
    histogram = seen([0.0, 1.0, 1.9, -1.0, -0.5, 1000.0])
    assert histogram.width == 0.5  # the least power of two of which 2048 hold 1000
    places = {int(k): int(histogram.counts[k]) for k in np.flatnonzero(histogram.counts)}
    assert places == {HALF: 1, HALF + 2: 1, HALF + 3: 1, HALF - 2: 1, HALF - 1: 1, HALF + 2000: 1}


def test_growing_gives_what_all_at_once_gives_in_any_order():
    parts = [RNG.normal(size=1000) * scale for scale in (0.01, 30, 1, 0)]
    whole = seen(np.concatenate(parts))
    for order in (parts, parts[::-1]):
        grown = seen(*order)
        assert grown.width == whole.width
        assert (grown.counts == whole.counts).all()
        assert minmax(grown) == minmax(whole)


@pytest.mark.parametrize("values", [[0.0, 0.0], [5.0], [-3.0, -2.0], []], ids=str)
def test_few_values_keep_their_extremes(values):
    histogram = seen(values)
    for rule in (percentile, entropy):
        assert rule(histogram) == (histogram.low, histogram.high)


def test_percentile_cuts_the_outermost_values_on_both_sides():
    body = np.linspace(-1, 2, 1_000_000)
    low, high = percentile(seen(body, [50.0] * 4, [-80.0] * 4))  # 0.0005 % of a million are 5
    assert low == pytest.approx(-1, abs=0.1)
    assert high == pytest.approx(2, abs=0.1)
    low, high = percentile(seen(body, [50.0] * 6, [-80.0] * 6))  # one more than may be cut
    assert low == pytest.approx(-80, abs=0.1)
    assert high == pytest.approx(50, abs=0.1)


def test_entropy_clips_a_long_thin_tail_and_keeps_an_even_spread():
    body = np.abs(RNG.normal(size=200_000))
    low, high = entropy(seen(body, [40.0]))
    assert low == 0 or low == pytest.approx(body.min())
    assert 2 < high < 10
    assert entropy(seen(np.linspace(0, 1, 100_000)))[1] > 0.95


@pytest.mark.parametrize("sign", [1, -1])
def test_entropy_keeps_the_range_of_values_that_stay_away_from_zero(sign):
    values = sign * np.linspace(3, 5, 100_000)
    low, high = entropy(seen(values))
    assert np.mean((values >= low) & (values <= high)) >= 0.95


def test_zeros_of_a_relu_do_not_move_entropy():
    body = np.abs(RNG.normal(size=50_000)) + 0.01
    assert entropy(seen(body, np.zeros(500_000)))[1] == entropy(seen(body, [0.0]))[1]


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_no_range_where_the_network_yields_nan_or_infinity(value):
    observer = Observer()
    observer.see({"x": np.array([1.0, value], np.float32), "y": np.array([1.0, 2.0], np.float32)})
    observer.see({"x": np.array([1.0], np.float32)})
    found = observer.ranges("percentile")
    assert np.isnan(found["x"]).all()
    assert found["y"] == (1.0, 2.0)
