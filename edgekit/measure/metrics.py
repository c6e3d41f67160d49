"""The figures that a gate or a score can ask for, by name, and the limits that a gate sets on them."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Literal, NamedTuple

from ..paths import unknown_name
from ..runtime.errors import BadConfig
from .row import Row


class Metric(NamedTuple):
    """One figure of a row.

    name: on the command line; title: in tables; style: how a value is printed; value: None when it was not measured
    units: what a limit in this metric may be written in beside %, and how many of the metric's own units that is
    noise: relative deviation from run to run that is assumed where no repeats tell; None for what does not vary
    machine: 1 where a slower machine makes it grow as its reference does, -1 where it falls, 0 where neither is so
    """

    name: str
    title: str
    unit: str
    better: Literal["high", "low"]
    style: str
    value: Callable[[Row], float | None]
    units: Mapping[str, float]
    noise: float | None = None
    machine: int = 0

    @property
    def of_machine(self) -> bool:
        """Whether the same file has another figure on another machine, or in another run."""
        return self.noise is not None

    @property
    def of_images(self) -> bool:
        """Whether the same file has another figure on other evaluation images."""
        return self.name in ("mAP", "mAP50")

    @property
    def timed(self) -> bool:
        """Whether what disturbs a run disturbs the figure."""
        return self.of_machine and self.name != "memory"

    def text(self, value: float) -> str:
        return f"{self.style.format(value)} {self.unit}".strip()


def _of(section: str, field: str, scale: float = 1.0) -> Callable[[Row], float | None]:
    """A field of an optional section of a row, times ``scale``; None where either is missing."""

    def value(row: Row) -> float | None:
        found = getattr(getattr(row, section), field, None)
        return None if found is None else scale * found

    return value


_PT, _MS, _MB = {"pt": 1.0}, {"ms": 1.0, "us": 1e-3}, {"MB": 1.0, "kB": 1e-3}

_ALL = (
    Metric("mAP", "mAP", "%", "high", "{:.2f}", _of("accuracy", "map", 100), _PT),
    Metric("mAP50", "mAP@0.5", "%", "high", "{:.2f}", _of("accuracy", "map50", 100), _PT),
    Metric("size", "model size", "MB", "low", "{:.3f}", lambda row: row.model_size_mb, _MB),
    Metric("gops", "GOPS/frame", "GOPS", "low", "{:.3f}", _of("complexity", "gops"), {"GOPS": 1.0}),
    Metric("params", "params", "", "low", "{:,.0f}", lambda row: row.params, {"k": 1e3, "M": 1e6}),
    Metric("latency", "ms/frame p50", "ms", "low", "{:.2f}", _of("latency", "p50"), _MS, 0.01, 1),
    Metric("mean", "ms/frame mean", "ms", "low", "{:.2f}", _of("latency", "mean"), _MS, 0.02, 1),
    Metric("p90", "ms/frame p90", "ms", "low", "{:.2f}", _of("latency", "p90"), _MS, 0.02, 1),
    Metric("p99", "ms/frame p99", "ms", "low", "{:.2f}", _of("latency", "p99"), _MS, 0.05, 1),
    Metric("fps", "fps", "fps", "high", "{:.1f}", _of("latency", "fps"), {"fps": 1.0}, 0.02, -1),
    Metric("cold", "first frame", "ms", "low", "{:.2f}", _of("process", "cold_ms"), _MS, 0.05),
    Metric("load", "load", "s", "low", "{:.3f}", _of("process", "load_seconds"), {"s": 1.0, "ms": 1e-3}, 0.05),
    Metric("energy", "energy/frame", "mJ", "low", "{:.1f}", _of("energy", "joules_per_frame", 1e3), {"mJ": 1.0}, 0.02),
    Metric("memory", "peak memory", "MB", "low", "{:.1f}", _of("process", "peak_rss_mb"), _MB, 0.01),
)

METRICS: Mapping[str, Metric] = {metric.name: metric for metric in _ALL}
_ALIASES = {"map@0.5": "mAP50", "map@50": "mAP50", "ap50": "mAP50", "ap": "mAP", "p50": "latency", "ms": "latency"}


def find_metric(name: str) -> Metric:
    """A metric by its name in any case. Raises BadConfig with the nearest names."""
    wanted = name.strip().lower()
    by_name = {known.lower(): known for known in METRICS} | _ALIASES
    if wanted not in by_name:
        raise unknown_name("metric", name.strip(), list(METRICS), "Limits look like: --max mAP=-0.5pt,latency=+5%")
    return METRICS[by_name[wanted]]


class Limit(NamedTuple):
    """How much worse a metric may get. amount: signed, relative (0.05 for 5 %) or in the metric's unit."""

    metric: Metric
    amount: float
    relative: bool
    text: str

    def bound(self, base: float) -> float:
        """The worst value that is still allowed, where ``base`` was measured before."""
        return base + (abs(base) * self.amount if self.relative else self.amount)


_LIMIT = re.compile(r"^(?P<name>[^=]+)=(?P<sign>[+-]?)(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>%|[A-Za-z]*)$")


def parse_limits(texts: Sequence[str]) -> list[Limit]:
    """``mAP=-0.5pt,latency=+5%`` as limits, in their order. Raises BadConfig that lists every problem found."""
    parts = [part.strip() for text in texts for part in text.split(",") if part.strip()]
    limits, problems = [], []
    for part in parts:
        try:
            limits.append(_limit(part))
        except BadConfig as error:
            problems.append(str(error))
    names = [limit.metric.name for limit in limits]
    problems += [f"{name} is limited twice" for name in dict.fromkeys(names) if names.count(name) > 1]
    if not parts:
        problems.append("no limit is given; limits look like: mAP=-0.5pt,latency=+5%,size=+1%,gops=+0%")
    if problems:
        raise BadConfig("--max: " + "\n  ".join(problems))
    return limits


def _limit(text: str) -> Limit:
    match = _LIMIT.match(text)
    if match is None:
        raise BadConfig(f"{text!r} is no limit; limits look like: mAP=-0.5pt, latency=+5%, size=+0.1MB")
    metric = find_metric(match["name"])
    number, unit, worse = float(match["number"]), match["unit"], "-" if metric.better == "high" else "+"
    if match["sign"] not in ("", worse) and number:
        raise BadConfig(
            f"{text!r}: {metric.name} gets worse {'down' if worse == '-' else 'up'}wards, so the limit on it starts "
            f"with {worse}, for example {metric.name}={worse}{match['number']}{unit}"
        )
    scale = _scale(metric, unit, text)
    amount = math.copysign(number * scale, -1.0 if worse == "-" else 1.0)
    return Limit(metric, amount, unit == "%", f"{worse}{match['number']}{unit}")


def _scale(metric: Metric, unit: str, text: str) -> float:
    known = {"%": 0.01, **metric.units}
    found = next((scale for name, scale in known.items() if name.lower() == unit.lower()), None)
    if found is None:
        what = f"unknown unit {unit!r}" if unit else "no unit"
        raise BadConfig(f"{text!r}: {what}; {metric.name} takes {', '.join(known)}")
    return found
