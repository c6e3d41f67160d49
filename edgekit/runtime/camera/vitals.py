"""Temperature and clocks of this machine, where it has them."""

import glob

from .. import telemetry
from ..machine import UNKNOWN

# Jetson's graphics clock; the folder carries the chip's name (gp10b: TX2, gv11b: Xavier, ga10b: Orin, gm20b: Nano)
_GPU_CLOCKS = "/sys/class/devfreq/*g[mpva][0-9]*b/cur_freq"


class Vitals(object):
    """``read()`` -> [{"name", "unit", "value"}]; a value that cannot be read this time is None. Empty: not measured."""

    def __init__(self, sources=None):
        self._sources = telemetry.machine_sources() + gpu_clocks() if sources is None else sources

    def read(self):
        return [{"name": s.name, "unit": s.unit, "value": _number(s.read())} for s in self._sources]


def gpu_clocks(pattern=_GPU_CLOCKS):
    """The graphics clock in MHz, where the board shows one."""
    return [
        telemetry.Source("gpu clock", "MHz", path, lambda path=path: _megahertz(path))
        for path in sorted(glob.glob(pattern))
    ]


def words(readings):
    """Readings as "cpu temperature 45 C, cpu clock 2035 MHz"; "not measured" without any."""
    known = [r for r in readings if r["value"] is not None]
    return ", ".join("{name} {value:.0f} {unit}".format(**r) for r in known) or "temperature and clock not measured"


def _number(value):
    return None if value == UNKNOWN else round(float(value), 1)


def _megahertz(path):
    try:
        with open(path) as handle:
            return int(handle.read()) / 1e6
    except (OSError, ValueError):
        return UNKNOWN
