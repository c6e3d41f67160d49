"""Named spans of one run, and what a list of them says."""

import time

import numpy as np

if hasattr(time, "perf_counter_ns"):
    _now = time.perf_counter_ns
else:  # Python 3.6

    def _now():
        return int(time.perf_counter() * 1e9)


# Fewest values that make a percentile an estimate with 99 % confidence (MLPerf's early-stopping rule, one value above)
P90_NEEDS = 64
P99_NEEDS = 662


class Timing(object):
    """The spans of one run, one after the other without gaps, so that their sum is the time of the whole run.

    ``Timing()`` starts the clock; ``lap(name)`` ends a span and starts the next.
    spans: name -> seconds, in the order of the laps
    """

    __slots__ = ("_last", "spans")

    def __init__(self):
        self.spans = {}
        self._last = _now()

    def lap(self, name):
        """End the running span under ``name``; a name that comes again adds up."""
        now = _now()
        self.spans[name] = self.spans.get(name, 0.0) + (now - self._last) * 1e-9
        self._last = now

    @property
    def total(self):
        """Seconds from the start to the last lap."""
        return sum(self.spans.values())

    def __repr__(self):
        return "Timing({})".format(", ".join("{}={:.6f}".format(n, s) for n, s in self.spans.items()))


def summary(values):
    """Statistics of a list of times, in the unit of the values.

    Returns count, mean, min, max, std (of the sample, 0 for one value), p50, p90 and p99 (linear interpolation). p90 is
    None under 64 values and p99 None under 662: fewer cannot tell. All but count are None for an empty list.
    """
    x = np.asarray(values, np.float64).ravel()
    names = ("mean", "min", "max", "std", "p50", "p90", "p99")
    if x.size == 0:
        return dict({"count": 0}, **dict.fromkeys(names))
    return {
        "count": int(x.size),
        "mean": float(x.mean()),
        "min": float(x.min()),
        "max": float(x.max()),
        "std": float(x.std(ddof=1)) if x.size > 1 else 0.0,
        "p50": float(np.percentile(x, 50)),
        "p90": float(np.percentile(x, 90)) if x.size >= P90_NEEDS else None,
        "p99": float(np.percentile(x, 99)) if x.size >= P99_NEEDS else None,
    }
