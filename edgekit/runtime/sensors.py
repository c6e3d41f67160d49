"""Power, temperatures and clocks of a board from its own files, sampled while something runs. Standard library only.

A file that is missing, unreadable, empty or garbage gives None, which is "not measured"; never 0. Files are found by
the names that drivers give their sensors, because numbers in the paths are not stable. ``root`` stands for "/": a copy
of a board's files, or a fake one, can be read in the same way.

INA3221 power monitors come in two layouts:
- ina3221x (JetPack 4, IIO):  rail_name_N, in_powerN_input in mW, in_voltageN_input in mV, in_currentN_input in mA
- ina3221  (JetPack 5 on, hwmon):  inN_label, inN_input in mV, currN_input in mA; power is their product
"""

import glob
import os
import re
import threading
import time

from .tegra import DUMMY_SENSORS, SENSOR_OFF

SYSROOT = "EDGEKIT_SYSROOT"  # a folder that stands for "/", for simulators
TOTAL_RAILS = ("VDD_IN", "POM_5V_IN")  # the whole module; where there is neither, rails are added up
_NO_RAILS = ("NC", "sum of shunt voltages", "")
_IIO = ("sys/bus/i2c/drivers/ina3221x/*/iio:device*", "sys/bus/i2c/devices/*/iio:device*")
_HWMON = ("sys/bus/i2c/drivers/ina3221/*/hwmon/hwmon*", "sys/bus/i2c/devices/*/hwmon/hwmon*", "sys/class/hwmon/hwmon*")
_ZONES = ("sys/class/thermal/thermal_zone*", "sys/devices/virtual/thermal/thermal_zone*")
_GPU_NAMES = re.compile(r"gp10b|gv11b|ga10b|gb10b|gm20b|57000000\.gpu|17000000\.gpu|(^|/)gpu(\.0)?$")
_GPU_LOADS = ("sys/devices/gpu.0/load", "sys/devices/platform/gpu.0/load", "sys/devices/*.g*/load")
_EMC = ("sys/kernel/debug/bpmp/debug/clk/emc/rate", "sys/kernel/debug/clk/emc/clk_rate")
_CPUS = "sys/devices/system/cpu/cpu[0-9]*"
_LOAD_SCALE = 0.1  # the GPU's load is told per mille


def system_root():
    """The folder that stands for "/": EDGEKIT_SYSROOT, or "/" itself."""
    return os.environ.get(SYSROOT) or "/"


def read_line(path):
    """The text of a small file, or None. Some files of sysfs exist and cannot be read at the moment (EAGAIN)."""
    try:
        with open(path, "rb") as handle:
            text = handle.read(4096)
    except OSError:
        return None
    return text.decode("utf-8", "replace").replace("\0", "").strip() or None


def read_integer(path):
    """The integer in a file, or None."""
    text = read_line(path)
    return int(text) if text is not None and re.match(r"^[+-]?\d+$", text) else None


# -- power ------------------------------------------------------------------------------------------------------------
class Rail(object):
    """One power rail. ``milliwatts()`` reads it once; None when it cannot be read."""

    def __init__(self, name, folder, number, layout):
        self.name = name
        self.folder = folder
        self._power = os.path.join(folder, "in_power{}_input".format(number)) if layout == "iio" else None
        voltage, current = (
            ("in_voltage{}_input", "in_current{}_input") if layout == "iio" else ("in{}_input", "curr{}_input")
        )
        self._voltage = os.path.join(folder, voltage.format(number))
        self._current = os.path.join(folder, current.format(number))

    def milliwatts(self):
        power = read_integer(self._power) if self._power else None
        if power is not None:
            return float(power) if power >= 0 else None
        voltage, current = read_integer(self._voltage), read_integer(self._current)
        if voltage is None or current is None or voltage < 0 or current < 0:
            return None
        return voltage * current / 1000.0

    def __repr__(self):
        return "Rail({!r}, {!r})".format(self.name, self.folder)


def find_rails(root=None):
    """Every named rail of every INA3221 below ``root``, in the order of the files; one of a name."""
    root = root or system_root()
    found = {}  # type: dict[str, Rail]
    for pattern in _IIO:
        for folder in _folders(root, pattern):
            for path in sorted(glob.glob(os.path.join(folder, "rail_name_*"))):
                _add_rail(found, read_line(path), folder, path.rsplit("_", 1)[1], "iio")
    for pattern in _HWMON:
        for folder in _folders(root, pattern):
            if "ina3221" not in (read_line(os.path.join(folder, "name")) or ""):
                continue
            for path in sorted(glob.glob(os.path.join(folder, "in*_label"))):
                number = os.path.basename(path)[len("in") : -len("_label")]
                if os.path.exists(
                    os.path.join(folder, "curr{}_input".format(number))
                ):  # in7 is a sum of shunt voltages
                    _add_rail(found, read_line(path), folder, number, "hwmon")
    return list(found.values())


def _folders(root, pattern):
    return sorted(glob.glob(os.path.join(root, pattern)))


def _add_rail(found, name, folder, number, layout):
    if name is not None and name not in _NO_RAILS and name not in found:
        found[name] = Rail(name, folder, number, layout)


def total_rails(names, wanted=()):
    """Which rails make the whole module: those of the board's profile, or the module's input, or all of them."""
    if wanted and all(name in names for name in wanted):
        return list(wanted)
    for name in TOTAL_RAILS:
        if name in names:
            return [name]
    return list(names)


# -- temperatures and clocks ------------------------------------------------------------------------------------------
def temperatures(root=None):
    """{zone: degrees Celsius or None}. Zones that show a constant (PMIC) are left out; a sensor that is off is None."""
    root = root or system_root()
    found = {}
    for pattern in _ZONES:
        for folder in _folders(root, pattern):
            name = zone_name(folder)
            if name is not None and name not in found:
                found[name] = zone_celsius(folder)
    return found


def zone_name(folder):
    """What a thermal zone's folder calls itself; None for one that shows a constant, or says nothing."""
    name = read_line(os.path.join(folder, "type"))
    return None if name is None or name.startswith(DUMMY_SENSORS) else name


def zone_celsius(folder):
    """Degrees Celsius of a thermal zone's folder; None when it cannot be read or its sensor is off."""
    value = read_integer(os.path.join(folder, "temp"))
    return None if value is None or value / 1000.0 <= SENSOR_OFF else value / 1000.0


def gpu_folder(root=None):
    """The GPU's devfreq folder, or None."""
    root = root or system_root()
    for folder in _folders(root, "sys/class/devfreq/*") + _folders(root, "sys/devices/*/devfreq/*"):
        name = read_line(os.path.join(folder, "device", "of_node", "name")) or os.path.basename(folder)
        if _GPU_NAMES.search(name) or _GPU_NAMES.search(os.path.basename(folder)):
            return folder
    return None


def clocks(root=None):
    """Frequencies now, None for each that is not to be had.

    {"cpu_mhz": {core: MHz, or None when it is off}, "gpu_mhz", "gpu_max_mhz", "gpu_load" in per cent, "emc_mhz"}
    """
    root = root or system_root()
    gpu = gpu_folder(root)
    return {
        "cpu_mhz": {number: _core_mhz(folder) for number, folder in sorted(_cores(root))},
        "gpu_mhz": _scaled(gpu and os.path.join(gpu, "cur_freq"), 1e-6),
        "gpu_max_mhz": _scaled(gpu and os.path.join(gpu, "max_freq"), 1e-6),
        "gpu_load": _first([p for pattern in _GPU_LOADS for p in _folders(root, pattern)], _LOAD_SCALE),
        "emc_mhz": _first([os.path.join(root, path) for path in _EMC], 1e-6),
    }


def _cores(root):
    for folder in _folders(root, _CPUS):
        number = os.path.basename(folder)[len("cpu") :]
        if number.isdigit():
            yield int(number), folder


def _core_mhz(folder):
    if read_line(os.path.join(folder, "online")) == "0":
        return None
    return _scaled(os.path.join(folder, "cpufreq", "scaling_cur_freq"), 1e-3)


def _scaled(path, factor):
    value = read_integer(path) if path else None
    return None if value is None or value < 0 else value * factor


def _first(paths, factor):
    for path in paths:
        value = _scaled(path, factor)
        if value is not None:
            return value
    return None


# -- sampling ---------------------------------------------------------------------------------------------------------
class Course(object):
    """Values of one sensor over time. Times are seconds from the beginning."""

    def __init__(self):
        self.times = []  # type: list[float]
        self.values = []  # type: list[float]

    def add(self, moment, value):
        self.times.append(moment)
        self.values.append(value)

    def summary(self):
        """{"mean", "min", "max", "first", "last", "samples"}; the mean is weighted by time where there are two.

        first, last: see ``outer_thirds``
        """
        count = len(self.values)
        span = self.times[-1] - self.times[0]
        mean = self.integral() / span if span > 0 else sum(self.values) / count
        first, last = outer_thirds(self.values)
        return {
            "mean": mean,
            "min": min(self.values),
            "max": max(self.values),
            "first": first,
            "last": last,
            "samples": count,
        }

    def integral(self):
        """Trapezoids between the first and the last sample; power in mW gives mJ."""
        t, v = self.times, self.values
        return sum((t[i] - t[i - 1]) * (v[i] + v[i - 1]) / 2.0 for i in range(1, len(t)))


def outer_thirds(values):
    """(mean of the first third, mean of the last) of at least one sample; one of two samples, and the one there is."""
    third = max(1, len(values) // 3)
    return sum(values[:third]) / third, sum(values[-third:]) / third


class Sampler(object):
    """Read a board's sensors in a thread while a block runs: ``with Sampler(0.1) as sampler: ...; sampler.result()``.

    ``pause`` and ``resume`` leave parts of the block out: its time stands still meanwhile, and nothing is read. There
    is a sample after every ``period`` of that time and none at its ends, where a board is on its way from idle to busy.
    period: seconds between two samples; total: rails that make the whole module, as the board's profile names them
    A sensor that fails once is left out of that sample; what could never be read is not in the result.
    """

    def __init__(self, period=0.1, root=None, total=(), clock=time.monotonic):
        if not period > 0:
            raise ValueError("period: expected seconds above 0, got {}".format(period))
        self.period = float(period)
        self._root = root or system_root()
        self._total = tuple(total)
        self._clock = clock
        self._rails = find_rails(self._root)
        self._courses = {}  # type: dict[tuple[str, str], Course]
        self._watched, self._resumed = 0.0, None  # seconds up to the last pause; the clock's time of the last resume
        self._due = self.period  # of the time that is watched, for the next sample
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = None  # type: threading.Thread | None

    def __enter__(self):
        self.resume()
        return self

    def __exit__(self, *exc_info):
        self.pause()

    def resume(self):
        """Begin to sample, or go on after ``pause``."""
        if self._thread is None:
            self._stop.clear()
            self._resumed = self._clock()
            self._thread = threading.Thread(target=self._run, name="edgekit-sensors", daemon=True)
            self._thread.start()

    def pause(self):
        """Sample no more. What is being read at this moment does not count."""
        if self._thread is not None:
            with self._lock:
                self._stop.set()
            now = self._now()
            self._thread.join()
            self._thread, self._watched, self._resumed = None, now, None

    def _run(self):
        while not self._stop.wait(max(0.0, self._due - self._now())):
            self.sample()
            self._due = self._now() + self.period

    def sample(self):
        """Read everything once, now."""
        powers = {rail.name: (self._now(), rail.milliwatts()) for rail in self._rails}
        self._keep("power_mw", powers)
        known = [powers[name] for name in total_rails(list(powers), self._total)] if powers else []
        if known and all(value is not None for _, value in known):
            moment = sum(moment for moment, _ in known) / len(known)
            self._keep("power_mw", {"total": (moment, sum(value for _, value in known))})
        now = self._now()
        self._keep("temperatures_c", {name: (now, value) for name, value in temperatures(self._root).items()})
        told = clocks(self._root)
        cores = told.pop("cpu_mhz")
        self._keep("cpu_mhz", {str(core): (now, value) for core, value in cores.items()})
        self._keep("clocks", {name: (now, value) for name, value in told.items()})

    def _now(self):
        """Seconds that were watched so far."""
        return self._watched if self._resumed is None else self._watched + self._clock() - self._resumed

    def _keep(self, group, readings):
        with self._lock:
            if self._stop.is_set():
                return
            for name, (moment, value) in readings.items():
                if value is not None:
                    self._courses.setdefault((group, name), Course()).add(moment, value)

    def result(self):
        """What was seen, as JSON values; it may be asked for while sampling goes on.

        {"period_s", "seconds", "total_rails", "power_mw", "temperatures_c", "cpu_mhz", "clocks": {name: {"mean", "min",
        "max", "first", "last", "samples"}}, "energy_j": {rail or "total": joules}, "not_measured": [what has no value]}
        seconds: without the pauses; energy_j: mean power over them, where there are two samples; first, last: see
        ``outer_thirds``
        """
        with self._lock:
            courses, seconds = dict(self._courses), self._now()
            names = [rail.name for rail in self._rails]
            groups = ("power_mw", "temperatures_c", "cpu_mhz", "clocks", "energy_j")
            answer = {group: {} for group in groups}  # type: dict
            for (group, name), course in courses.items():
                told = answer[group][name] = course.summary()
                if group == "power_mw" and told["samples"] > 1:
                    answer["energy_j"][name] = told["mean"] / 1000.0 * seconds
        answer["period_s"] = self.period
        answer["seconds"] = seconds
        answer["total_rails"] = total_rails(names, self._total)
        answer["not_measured"] = _missing(answer)
        return answer


def _missing(answer):
    lacks = [group for group in ("power_mw", "temperatures_c", "cpu_mhz") if not answer[group]]
    return lacks + [n for n in ("gpu_mhz", "gpu_load", "emc_mhz") if n not in answer["clocks"]]
