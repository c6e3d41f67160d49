"""Histograms of activations, and the ranges that percentile and entropy take from them.

A bin is a power of two wide, and when values outgrow the histogram, pairs of bins are joined. So the counts are exact
and do not depend on the order of the images.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

Counts: TypeAlias = NDArray[np.int64]
HALF = 2048  # bins on each side of zero
LEVELS = 128  # of INT8 on one side of zero, as in Migacz 2017
PERCENTILE = 99.999  # percent of the values that stay inside the range
_STEPS = 240  # thresholds that entropy tries, at most
_KEPT = 0.95  # share of the values that entropy never clips


class Histogram:
    """Counts of the values seen, with zero in the middle: bin k holds ``[(k - HALF) * width, (k + 1 - HALF) * width)``.

    low, high: the extremes; NaN or infinite if the values were
    """

    def __init__(self) -> None:
        self.low, self.high = math.inf, -math.inf
        self.width = 0.0
        self.counts: Counts = np.zeros(2 * HALF, np.int64)

    def add(self, values: NDArray[np.float32]) -> None:
        """Count ``values`` of any shape."""
        if not values.size:
            return
        low, high = float(values.min()), float(values.max())
        self.low, self.high = min(self.low, low), max(self.high, high)
        largest = max(-low, high)
        if not math.isfinite(low) or not math.isfinite(high):
            self.low = self.high = math.nan  # the caller says which tensor of which file it is
            return
        self._widen(largest)
        if self.width:
            places = np.floor(values.reshape(-1) * np.float32(1 / self.width)).astype(np.int32) + HALF
            self.counts += np.bincount(places, minlength=2 * HALF)
        else:
            self.counts[HALF] += values.size  # nothing but zeros so far

    def _widen(self, largest: float) -> None:
        """Make the bins wide enough for ``largest``, the smallest power of two that is."""
        if largest < HALF * self.width or largest == 0:
            return
        wanted = 2.0 ** max(-100, math.floor(math.log2(largest / HALF)) + 1)
        while self.width and self.width < wanted:
            joined = self.counts.reshape(-1, 2).sum(1)
            self.counts = np.pad(joined, HALF // 2)
            self.width *= 2
        self.width = wanted


def minmax(seen: Histogram) -> tuple[float, float]:
    """The extremes."""
    return seen.low, seen.high


def percentile(seen: Histogram) -> tuple[float, float]:
    """The range without the outermost values, (100 - PERCENTILE) / 2 percent on each side, to the next bin's edge."""
    cut = (100 - PERCENTILE) / 200 * int(seen.counts.sum())
    below = np.cumsum(seen.counts)
    first = int(np.searchsorted(below, cut, side="right"))
    last = 2 * HALF - 1 - int(np.searchsorted(np.cumsum(seen.counts[::-1]), cut, side="right"))
    return max(seen.low, (first - HALF) * seen.width), min(seen.high, (last + 1 - HALF) * seen.width)


def entropy(seen: Histogram) -> tuple[float, float]:
    """The extremes clipped at the threshold T that loses least information (Migacz, "8-bit Inference with TensorRT").

    Of the histogram P of absolute values up to T, with what lies beyond in its last bin, and Q, which is P without that
    rounded to LEVELS levels, the Kullback-Leibler divergence is least.

    Ours is that only thresholds are tried that keep _KEPT of the values. Of values that stay away from zero, such as a
    gate's between 3 and 5, a T just above the least leaves one bin in P and in Q: divergence 0, and a frozen gate.
    """
    sizes = seen.counts[HALF:] + seen.counts[:HALF][::-1]
    sizes[0] = sizes[1]  # the zeros of a ReLU, which any scale holds exactly, would drown all other values
    used = int(np.flatnonzero(sizes)[-1]) + 1 if sizes.any() else 0
    if used <= LEVELS:
        return seen.low, seen.high
    tried = np.unique(np.linspace(LEVELS, used, min(_STEPS, used - LEVELS + 1)).astype(int))
    below = np.cumsum(sizes[:used])
    tried = tried[below[tried - 1] >= _KEPT * below[-1]]
    best = min(tried.tolist(), key=lambda count: _divergence(sizes[:used], count))
    limit = best * seen.width
    return max(seen.low, -limit), min(seen.high, limit)


def _divergence(sizes: Counts, count: int) -> float:
    """KL(P || Q) in nats when values from bin ``count`` on are clipped."""
    inside = sizes[:count].astype(np.float64)
    reference = inside.copy()
    reference[-1] += sizes[count:].sum()
    level = np.arange(count) * LEVELS // count
    filled = inside > 0
    sums = np.bincount(level, inside, LEVELS)
    bins = np.maximum(np.bincount(level, filled, LEVELS), 1)
    rounded = np.where(filled, (sums / bins)[level], 0.0)
    p, q = reference / reference.sum(), rounded / max(rounded.sum(), 1e-300)
    held = p > 0
    return float(np.sum(p[held] * np.log(p[held] / np.maximum(q[held], 1e-12))))


METHODS: Mapping[str, Callable[[Histogram], tuple[float, float]]] = {
    "minmax": minmax,
    "entropy": entropy,
    "percentile": percentile,
}


class Observer:
    """A histogram of every activation that it is shown."""

    def __init__(self) -> None:
        self.seen: dict[str, Histogram] = {}

    def see(self, activations: Mapping[str, NDArray[Any]]) -> None:
        for name, values in activations.items():
            self.seen.setdefault(name, Histogram()).add(values)

    def ranges(self, method: str) -> dict[str, tuple[float, float]]:
        """tensor -> (lowest, highest) by a name in METHODS; NaN where the network yielded NaN or infinity."""
        rule = METHODS[method]
        return {
            name: rule(seen) if math.isfinite(seen.low) else (seen.low, seen.high) for name, seen in self.seen.items()
        }
