"""Clock, temperature and energy while a measurement runs, read between two frames so that no span holds the reading.

Standard library only. What a machine does not tell (a virtual machine, a container without /sys) has no track: unknown
is left out, never guessed.
"""

import glob
import os
import time

from . import machine
from .sensors import outer_thirds, zone_celsius, zone_name

PERIOD = 0.5  # seconds between two readings
CPU_CLOCK = "cpu clock"  # name of the track of one core's clock
_POWERCAP = "/sys/class/powercap"
_HWMON = "/sys/class/hwmon"
_ZONES = "/sys/class/thermal"
# Drivers of a processor's own temperature sensor
_CPU_SENSORS = ("coretemp", "k10temp", "zenpower", "cpu_thermal", "x86_pkg_temp", "soc_thermal")


class Source(object):
    """One thing to read. ``read()`` gives a number, or "unknown" when it cannot be read this time."""

    def __init__(self, name, unit, source, read):
        self.name = name
        self.unit = unit
        self.source = source
        self.read = read
        self.samples = []  # type: list[tuple[float, float]]


class Telemetry(object):
    """Reads its sources at most every ``period`` seconds, and counters of energy, while frames run.

    ``with telemetry:`` may be entered again and again, as a ``loops.Account``: the parts add up, and what lies between
    them (a slice of the machine's reference) is in no sample, no joule and no second. It reads as it is entered, when
    that is due; ``poll()`` reads between two frames when it is due; nothing is read after the last frame of a part.
    sources: of tracks; counters: of energy; both default to what this machine has for ``cores``
    """

    def __init__(self, cores=None, sources=None, counters=None, period=PERIOD, clock=time.perf_counter):
        self._sources = machine_sources(cores) if sources is None else sources
        self._counters = rapl_counters() if counters is None else counters
        self._period = period
        self._clock = clock
        self._seconds = self._entered = self._next = 0.0

    def __enter__(self):
        self._entered = self._clock()
        for counter in self._counters:
            counter.start()
        self.poll()
        return self

    def poll(self):
        now = self._seconds + self._clock() - self._entered
        if now >= self._next:
            self._next = now + self._period
            for counter in self._counters:
                counter.poll()
            for source in self._sources:
                value = source.read()
                if value != machine.UNKNOWN:
                    source.samples.append((now, float(value)))

    def __exit__(self, *exc_info):
        for counter in self._counters:
            counter.poll()
        self._seconds += self._clock() - self._entered

    def told(self):
        """{"tracks": [track], "energy": [{"source", "joules"}], "seconds" of all parts}; see ``track``."""
        tracks = [track(source) for source in self._sources if source.samples]
        energy = [{"source": c.source, "joules": c.joules} for c in self._counters]
        if any(c.joules is None for c in self._counters):
            energy = []  # their sum is the machine's energy, and without one of them it is too little
        return {"tracks": tracks, "energy": energy, "seconds": self._seconds}


def track(source):
    """A sensor's course as JSON: name, unit, source, seconds, values, min, max; first, last: see ``outer_thirds``."""
    seconds, values = [s for s, _ in source.samples], [v for _, v in source.samples]
    first, last = outer_thirds(values)
    return {
        "name": source.name,
        "unit": source.unit,
        "source": source.source,
        "first": first,
        "last": last,
        "min": min(values),
        "max": max(values),
        "seconds": [round(s, 3) for s in seconds],
        "values": values,
    }


# -- what this machine has --------------------------------------------------------------------------------------------
def machine_sources(cores=None):
    """Clock of the first of ``cores`` (those that this process may use), and the processor's temperatures."""
    if cores in (None, machine.UNKNOWN):
        cores = machine.affinity()
    sources = []
    path = machine.frequency_file(cores[0] if cores != machine.UNKNOWN else 0)
    if path is not None:
        sources.append(Source(CPU_CLOCK, "MHz", path, lambda: _scaled(path, 1e-3)))
    return sources + temperature_sources()


def temperature_sources(hwmon=_HWMON, zones=_ZONES):
    """The processor's own sensor, or where there is none every thermal zone of the board, in degrees Celsius."""
    found = []
    for folder in sorted(glob.glob(os.path.join(hwmon, "hwmon*"))):
        if machine.read_line(os.path.join(folder, "name")) in _CPU_SENSORS:
            path = os.path.join(folder, "temp1_input")
            found.append(Source("cpu temperature", "C", path, lambda path=path: _scaled(path, 1e-3)))
    if not found:
        for folder in sorted(glob.glob(os.path.join(zones, "thermal_zone*"))):
            name = zone_name(folder)  # None for a constant, such as PMIC's 100 degrees
            if name is not None:
                path = os.path.join(folder, "temp")
                found.append(Source("{} temperature".format(name), "C", path, lambda folder=folder: _zone(folder)))
    return [source for source in found if source.read() != machine.UNKNOWN]


def _zone(folder):
    celsius = zone_celsius(folder)
    return machine.UNKNOWN if celsius is None else celsius


def _scaled(path, factor):
    text = machine.read_line(path)
    return int(text) * factor if text.lstrip("-").isdigit() else machine.UNKNOWN


class RaplCounter(object):
    """An energy counter of Intel's RAPL (AMD's too), which runs over at ``wrap`` microjoules."""

    def __init__(self, folder):
        self.source = "RAPL {}".format(machine.read_line(os.path.join(folder, "name")))
        self._path = os.path.join(folder, "energy_uj")
        wrap = machine.read_line(os.path.join(folder, "max_energy_range_uj"))
        self._wrap = int(wrap) if wrap.isdigit() else None
        self._last = None
        self.joules = 0.0  # type: float | None  # None: cannot be read, which on most machines only root may

    def start(self):
        """Count from now on; what was counted before stays."""
        self._last = self._count()

    def poll(self):
        """Add what was used since the last reading. Must be called more often than the counter runs over."""
        now = self._count()
        if None in (now, self._last, self.joules) or (now < self._last and self._wrap is None):
            self.joules = None
            return
        used = now - self._last + (self._wrap if now < self._last else 0)
        self.joules, self._last = self.joules + used * 1e-6, now

    def _count(self):
        text = machine.read_line(self._path)
        return int(text) if text.isdigit() else None


def rapl_counters(root=_POWERCAP):
    """One counter for each processor package that this process may read.

    Beside the packages lies "psys", the whole platform: it holds the packages once more.
    """
    folders = sorted(glob.glob(os.path.join(root, "intel-rapl:[0-9]*")))
    outer = [f for f in folders if os.path.basename(f).count(":") == 1]
    packages = [f for f in outer if machine.read_line(os.path.join(f, "name")).startswith("package-")]
    return [RaplCounter(f) for f in packages if machine.read_line(os.path.join(f, "energy_uj")).isdigit()]
