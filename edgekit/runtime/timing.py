"""Named spans of one run, and what a list of them says."""

import math
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
CONFIDENCE = 0.99
# The parts of a run in their order. The copies to and from an accelerator are there when its session tells them.
SPANS = ("preprocess", "host_to_device", "inference", "device_to_host", "postprocess")


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

    def split(self, name, parts):
        """Give parts of the span ``name`` spans of their own; what is left keeps the name, and the sum stays the same.

        parts: name -> seconds, as a session's library reported them. Only the names of SPANS count, in their order.
        """
        whole = self.spans.pop(name)
        known = [(part, parts[part]) for part in SPANS if part in parts and part != name]
        rest = max(0.0, whole - sum(seconds for _, seconds in known))
        scale = (whole - rest) / (sum(seconds for _, seconds in known) or 1.0)
        for part in SPANS:
            if part == name:
                self.spans[name] = rest
            elif part in parts:
                self.spans[part] = self.spans.get(part, 0.0) + parts[part] * scale

    @property
    def total(self):
        """Seconds from the start to the last lap."""
        return sum(self.spans.values())

    def __repr__(self):
        return "Timing({})".format(", ".join("{}={:.6f}".format(n, s) for n, s in self.spans.items()))


def summary(values):
    """Statistics of a list of times, in the unit of the values.

    Returns count, mean, min, max, std (of the sample, 0 for one value), p50, p90 and p99 (linear interpolation). p90 is
    None under 64 values and p99 None under 662: fewer cannot tell. p90_estimate and p99_estimate are
    ``early_stopping``'s. All but count are None for an empty list.
    """
    x = np.asarray(values, np.float64).ravel()
    names = ("mean", "min", "max", "std", "p50", "p90", "p99", "p90_estimate", "p99_estimate")
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
        "p90_estimate": early_stopping(x, 0.90),
        "p99_estimate": early_stopping(x, 0.99),
    }


def early_stopping(values, percentile, confidence=CONFIDENCE):
    """MLPerf Inference's early-stopping estimate of a percentile (0..1), or None when there are too few values.

    Of n values the t - 1 highest are set aside and the highest of the rest is the estimate, where t is
    ``overlatencies(n)``. With the given confidence the true percentile is not above it.
    """
    ordered = sorted(float(v) for v in values)
    allowed = overlatencies(len(ordered), percentile, confidence)
    return ordered[len(ordered) - allowed] if allowed else None


def overlatencies(count, percentile, confidence=CONFIDENCE):
    """How many of ``count`` queries may be over a latency that is still claimed as the percentile; 0: too few queries.

    The largest t for which at most t of count queries are over it with a chance of no more than 1 - confidence, if
    1 - percentile of all queries were over it: the sum of binomial(count, k) q^k p^(count - k) for k = 0..t.
    """
    over = math.log1p(-percentile), math.log(percentile)
    total, t = 0.0, -1
    while t < count:
        k = t + 1
        ways = math.lgamma(count + 1) - math.lgamma(k + 1) - math.lgamma(count - k + 1)
        total += math.exp(ways + k * over[0] + (count - k) * over[1])
        if total > 1 - confidence:
            break
        t = k
    return max(0, t)


def thirds(values, durations=None):
    """Medians of the first and the last third of ``values``, by time: (first, last).

    durations: how long each value took, as weights for where the thirds end; None: the values themselves.
    (None, None) for fewer than three values.
    """
    x = np.asarray(values, np.float64).ravel()
    if x.size < 3:
        return None, None
    ends = np.cumsum(x if durations is None else np.asarray(durations, np.float64))
    first = max(1, int(np.searchsorted(ends, ends[-1] / 3.0, side="right")))
    last = min(x.size - 1, int(np.searchsorted(ends, ends[-1] * 2.0 / 3.0, side="right")))
    return float(np.median(x[:first])), float(np.median(x[last:]))
