"""Facts about the machine that a measurement ran on, and pinning to a core. Standard library only; Linux.

Every fact that the machine does not tell (a container, a virtual machine, another system) is the string "unknown".
"""

import glob
import os
import platform
import re
import sys
import time

from .errors import BadConfig

UNKNOWN = "unknown"
_CPU = "/sys/devices/system/cpu"
# Instruction sets that decide how fast a network runs
_EXTENSIONS = ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "asimddp")
# Cores by (implementer, part), for kernels of ARM that tell no name: Linux, arch/arm64/include/asm/cputype.h
_ARM_CORES = {
    (0x41, 0xD03): "Cortex-A53",
    (0x41, 0xD04): "Cortex-A35",
    (0x41, 0xD05): "Cortex-A55",
    (0x41, 0xD07): "Cortex-A57",
    (0x41, 0xD08): "Cortex-A72",
    (0x41, 0xD09): "Cortex-A73",
    (0x41, 0xD0A): "Cortex-A75",
    (0x41, 0xD0B): "Cortex-A76",
    (0x41, 0xD0C): "Neoverse-N1",
    (0x41, 0xD40): "Neoverse-V1",
    (0x41, 0xD41): "Cortex-A78",
    (0x41, 0xD42): "Cortex-A78AE",
    (0x41, 0xD49): "Neoverse-N2",
    (0x41, 0xD4F): "Neoverse-V2",
    (0x4E, 0x003): "Denver 2",
    (0x4E, 0x004): "Carmel",
}


def facts():
    """What decides how fast this process can run, right now.

    Returns a dict of JSON values: cpu, architecture, extensions, cores (logical), physical_cores, affinity (cores that
    this process may use), smt_siblings (of each of those), governor, turbo ("on", "off"), frequency_mhz, load_average
    (1, 5, 15 minutes), memory_mb, board, virtual (bool; only x86 tells), system, kernel, python.
    """
    cpuinfo = _text("/proc/cpuinfo")
    cores = affinity()
    return {
        "cpu": _cpu_name(cpuinfo),
        "architecture": platform.machine() or UNKNOWN,
        "extensions": _extensions(cpuinfo),
        "cores": os.cpu_count() or UNKNOWN,
        "physical_cores": _physical_cores(),
        "affinity": cores,
        "smt_siblings": {str(c): siblings(c) for c in cores} if cores != UNKNOWN else UNKNOWN,
        "governor": read_line("{}/cpu{}/cpufreq/scaling_governor".format(_CPU, cores[0] if cores != UNKNOWN else 0)),
        "turbo": _turbo(),
        "frequency_mhz": _frequency(cpuinfo, cores),
        "load_average": _load_average(),
        "memory_mb": _memory_mb(),
        "board": read_line("/proc/device-tree/model"),
        "virtual": _virtual(cpuinfo),
        "system": _system(),
        "kernel": platform.release() or UNKNOWN,
        "python": "{} {}".format(platform.python_implementation(), platform.python_version()),
    }


def affinity():
    """Sorted numbers of the cores that this process may run on, or "unknown"."""
    if not hasattr(os, "sched_getaffinity"):
        return UNKNOWN
    return sorted(os.sched_getaffinity(0))


def siblings(core):
    """Sorted logical cores that share the physical core of ``core``, itself included, or "unknown"."""
    return parse_cores(read_line("{}/cpu{}/topology/thread_siblings_list".format(_CPU, core)))


def parse_cores(text):
    """The kernel's core list ("0-2,5") as sorted numbers; "unknown" when it is none."""
    if not re.match(r"^\d+(-\d+)?(,\d+(-\d+)?)*$", text):
        return UNKNOWN
    cores = set()  # type: set[int]
    for part in text.split(","):
        first, _, last = part.partition("-")
        cores.update(range(int(first), int(last or first) + 1))
    return sorted(cores)


def pick_core(seconds=0.2):
    """The core to measure on: of those this process may use, the one that is least busy together with its SMT siblings.

    Core 0, where most interrupts land, is taken only when it is alone. ``seconds`` is how long the load is watched.
    Returns None where the system does not tell the cores.
    """
    cores = affinity()
    if cores == UNKNOWN:
        return None
    candidates = [c for c in cores if c != 0] or cores
    if len(candidates) == 1:
        return candidates[0]
    before = _busy()
    time.sleep(seconds)
    after = _busy()

    def load(core):
        shared = siblings(core)
        return sum(after.get(c, 0) - before.get(c, 0) for c in (shared if shared != UNKNOWN else [core]))

    return min(candidates, key=lambda core: (load(core), core))


def pin(core, threads=1):
    """Bind this process, and the threads it starts from now on, to ``threads`` cores beginning with ``core``.

    Further cores are taken from other physical cores first. Returns the cores; BadConfig when they are not to be had.
    """
    allowed = affinity()
    if allowed == UNKNOWN:
        raise BadConfig("core: this system cannot pin a process to a core. Leave the core out.")
    if core not in allowed:
        raise BadConfig("core: {} is not usable here; this process may use {}.".format(core, _join(allowed)))
    if not 1 <= threads <= len(allowed):
        raise BadConfig("threads: {} need as many cores; this process may use {}.".format(threads, _join(allowed)))
    shared = siblings(core)
    rest = [c for c in allowed if c != core]
    rest.sort(key=lambda c: (c in shared if shared != UNKNOWN else False, c < core, c))
    chosen = sorted([core] + rest[: threads - 1])
    try:
        os.sched_setaffinity(0, set(chosen))
    except OSError as error:
        raise BadConfig("core: pinning to {} was refused ({}).".format(_join(chosen), error.strerror)) from error
    return chosen


def peak_rss_bytes():
    """Highest resident memory of this process so far (VmHWM), or "unknown"."""
    match = re.search(r"^VmHWM:\s+(\d+) kB", _text("/proc/self/status"), re.MULTILINE)
    return int(match.group(1)) * 1024 if match else UNKNOWN


def frequency_file(core):
    """The kernel's file of a core's present clock in kHz, or None where the machine does not show it."""
    path = "{}/cpu{}/cpufreq/scaling_cur_freq".format(_CPU, core)
    return path if read_line(path).isdigit() else None


def _join(cores):
    return ", ".join(str(c) for c in cores)


def _text(path):
    """A whole small file; "" when it cannot be read, for the kernel offers it or not."""
    try:
        with open(path, encoding="utf-8", errors="replace") as handle:
            return handle.read()
    except OSError:
        return ""


def read_line(path):
    """The content of one of the kernel's small files, or "unknown" when it is not there or not to be read."""
    return _text(path).replace("\0", "").strip() or UNKNOWN


def _field(text, *names):
    """The value of the first of ``names`` in "name : value" lines; "Processor" names a CPU, "processor" is a number."""
    for name in names:
        match = re.search(r"^{}[ \t]*:[ \t]*(.*\S)".format(re.escape(name)), text, re.MULTILINE)
        if match:
            return match.group(1).strip('"')
    return UNKNOWN


def _cpu_name(cpuinfo):
    """The CPU as the kernel names it, else its kinds of ARM cores: by name, or by number where none is known here."""
    name = _field(cpuinfo, "model name", "Hardware", "Processor")
    if name != UNKNOWN:
        return name
    pairs = re.findall(r"^CPU implementer\s*: (0x\w+)$.*?^CPU part\s*: (0x\w+)$", cpuinfo, re.MULTILINE | re.DOTALL)
    kinds = []
    for implementer, part in pairs:
        kind = _ARM_CORES.get((int(implementer, 16), int(part, 16)), "ARM core {}/{}".format(implementer, part))
        if kind not in kinds:
            kinds.append(kind)
    return " + ".join(kinds) or UNKNOWN


def _virtual(cpuinfo):
    """Whether a hypervisor is below; "unknown" off x86, whose CPUs alone have a flag for it."""
    flags = _field(cpuinfo, "flags")
    return "hypervisor" in flags.split() if flags != UNKNOWN else UNKNOWN


def _flags(cpuinfo):
    flags = _field(cpuinfo, "flags", "Features")
    return frozenset(flags.split()) if flags != UNKNOWN else frozenset()


def _extensions(cpuinfo):
    flags = _flags(cpuinfo)
    return [name for name in _EXTENSIONS if name in flags] if flags else UNKNOWN


def lacks_vnni(found):
    """Whether the machine of these ``facts`` is an x86 CPU that tells its extensions and has no VNNI.

    There runtimes add two INT8 products in 16 bits, which weights of 8 bits can overflow.
    """
    told = found["extensions"]
    return found["architecture"] in ("x86_64", "AMD64") and told != UNKNOWN and not any("vnni" in n for n in told)


def _physical_cores():
    groups = set()
    for path in glob.glob("{}/cpu[0-9]*/topology/thread_siblings_list".format(_CPU)):
        groups.add(read_line(path))
    groups.discard(UNKNOWN)
    return len(groups) or UNKNOWN


def _turbo():
    """Intel tells whether turbo is forbidden, others whether boost is allowed."""
    for path, on in (("intel_pstate/no_turbo", "0"), ("cpufreq/boost", "1")):
        value = read_line("{}/{}".format(_CPU, path))
        if value in ("0", "1"):
            return "on" if value == on else "off"
    return UNKNOWN


def _frequency(cpuinfo, cores):
    """Of the first usable core at this moment: cpufreq's word, else /proc/cpuinfo's."""
    core = cores[0] if cores != UNKNOWN else 0
    khz = read_line("{}/cpu{}/cpufreq/scaling_cur_freq".format(_CPU, core))
    if khz.isdigit():
        return int(khz) / 1000.0
    blocks = [b for b in cpuinfo.split("\n\n") if _field(b, "processor") == str(core)]
    mhz = _field(blocks[0], "cpu MHz") if blocks else UNKNOWN
    return float(mhz) if re.match(r"^\d+(\.\d+)?$", mhz) else UNKNOWN


def _load_average():
    try:
        return [round(v, 2) for v in os.getloadavg()]
    except OSError:
        return UNKNOWN


def _memory_mb():
    match = re.search(r"^MemTotal:\s+(\d+) kB", _text("/proc/meminfo"), re.MULTILINE)
    return int(match.group(1)) // 1024 if match else UNKNOWN


def _system():
    match = re.search(r'^PRETTY_NAME="?(.*?)"?$', _text("/etc/os-release"), re.MULTILINE)
    return match.group(1) if match else sys.platform


def _busy():
    """Jiffies that each core has spent on work, from /proc/stat; empty when that cannot be read."""
    busy = {}
    for line in _text("/proc/stat").splitlines():
        match = re.match(r"^cpu(\d+) (.*)", line)
        if match:
            user, nice, system, _idle, _wait, *rest = (int(v) for v in match.group(2).split())
            busy[int(match.group(1))] = user + nice + system + sum(rest[:3])
    return busy
