"""Temperatures and clocks of this machine, where it has them."""

from .. import sensors, telemetry
from ..machine import UNKNOWN


class Vitals(object):
    """``read()`` -> [{"name", "unit", "value"}]; a value that cannot be read this time is None. Empty: not measured.

    A board's thermal zones and clocks; where there are none of them, what a PC's processor tells.
    """

    def __init__(self, root=None):
        self._root = root
        self._sources = telemetry.machine_sources() if root is None and not board_readings() else []

    def read(self):
        own = [_reading(s.name, s.unit, s.read()) for s in self._sources]
        return own or board_readings(self._root)


def board_readings(root=None):
    """Every thermal zone, the fastest core's clock, and the GPU's; without those that the board does not have."""
    zones = sensors.temperatures(root)
    found = [_reading("{} temperature".format(name), "C", value) for name, value in sorted(zones.items())]
    clocks = sensors.clocks(root)
    cores = [mhz for mhz in clocks["cpu_mhz"].values() if mhz is not None]
    if cores:
        found.append(_reading("cpu clock", "MHz", max(cores)))
    if clocks["gpu_mhz"] is not None:
        found.append(_reading("gpu clock", "MHz", clocks["gpu_mhz"]))
    return found


def words(readings):
    """Readings as "cpu temperature 45 C, cpu clock 2035 MHz"; what nobody can read is said to be not measured."""
    known = [r for r in readings if r["value"] is not None]
    return ", ".join("{name} {value:.0f} {unit}".format(**r) for r in known) or "temperature and clock not measured"


def _reading(name, unit, value):
    known = value is not None and value != UNKNOWN
    return {"name": name, "unit": unit, "value": round(float(value), 1) if known else None}
