import json
import os
import subprocess
import sys

import pytest

from edgekit.runtime import machine
from edgekit.runtime.errors import BadConfig

CPUINFO = """processor\t: 0
model name\t: Imaginary CPU 9000
cpu MHz\t\t: 2100.500
flags\t\t: fpu avx avx2 avx512_vnni hypervisor

processor\t: 1
model name\t: Imaginary CPU 9000
cpu MHz\t\t: 2200.250
flags\t\t: fpu avx avx2 avx512_vnni hypervisor
"""
SYSTEM = {
    "/proc/cpuinfo": CPUINFO,
    "/proc/meminfo": "MemTotal:       8000000 kB\nMemFree: 1 kB\n",
    "/etc/os-release": 'NAME="X"\nPRETTY_NAME="Debian GNU/Linux 12 (bookworm)"\n',
    "/sys/devices/system/cpu/cpu1/cpufreq/scaling_governor": "performance\n",
    "/sys/devices/system/cpu/cpu1/cpufreq/scaling_cur_freq": "3400000\n",
    "/sys/devices/system/cpu/intel_pstate/no_turbo": "1\n",
    "/sys/devices/system/cpu/cpu1/topology/thread_siblings_list": "1,3\n",
    "/proc/device-tree/model": "Tiny Board\0",
}


@pytest.fixture
def system(monkeypatch):
    """Replaces the machine's files, and the cores that the process may use."""

    def replace(files, cores=(1,)):
        monkeypatch.setattr(machine, "_text", lambda path: files.get(path, ""))
        monkeypatch.setattr(machine, "affinity", lambda: list(cores) if cores is not None else machine.UNKNOWN)
        monkeypatch.setattr(machine, "_physical_cores", lambda: machine.UNKNOWN)

    return replace


def test_facts_of_a_machine_that_tells_all(system):
    system(SYSTEM)
    facts = machine.facts()
    expected = {
        "cpu": "Imaginary CPU 9000",
        "extensions": ["avx", "avx2", "avx512_vnni"],
        "affinity": [1],
        "smt_siblings": {"1": [1, 3]},
        "governor": "performance",
        "turbo": "off",
        "frequency_mhz": 3400.0,
        "memory_mb": 7812,
        "board": "Tiny Board",
        "virtual": True,
        "system": "Debian GNU/Linux 12 (bookworm)",
    }
    assert {k: facts[k] for k in expected} == expected


def test_facts_of_a_machine_that_tells_nothing(system, monkeypatch):
    def no_load():
        raise OSError

    system({}, cores=None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    monkeypatch.setattr(os, "getloadavg", no_load)
    facts = machine.facts()
    told = {"architecture", "system", "kernel", "python"}  # these the interpreter knows
    assert {k: v for k, v in facts.items() if k not in told} == {k: "unknown" for k in facts if k not in told}


def test_facts_of_this_machine_are_json_and_complete():
    facts = machine.facts()
    assert json.loads(json.dumps(facts)) == facts
    assert facts["affinity"] == sorted(os.sched_getaffinity(0))
    assert facts["python"].startswith("CPython 3.")
    assert len(facts["load_average"]) == 3


def test_arm_flags_and_the_frequency_without_cpufreq(system):
    arm = "processor\t: 0\nFeatures\t: fp asimd asimddp\n\nHardware\t: Quill\n"
    system({"/proc/cpuinfo": arm}, cores=(0,))
    facts = machine.facts()
    assert (facts["cpu"], facts["extensions"], facts["frequency_mhz"], facts["virtual"]) == (
        "Quill",
        ["asimddp"],
        "unknown",
        "unknown",
    )
    system({"/proc/cpuinfo": CPUINFO})
    assert machine.facts()["frequency_mhz"] == 2200.25


def arm_core(number, implementer, part):
    lines = [f"processor\t: {number}", "BogoMIPS\t: 108.00", "Features\t: fp asimd cpuid asimddp"]
    lines += [f"CPU implementer\t: {implementer}", "CPU architecture: 8", "CPU variant\t: 0x4", f"CPU part\t: {part}"]
    return "\n".join([*lines, "CPU revision\t: 1"]) + "\n\n"


RASPBERRY = "Revision\t: d04170\nSerial\t\t: 0\nModel\t\t: Raspberry Pi 5 Model B Rev 1.0\n"
ARM7 = "Processor\t: ARMv7 Processor rev 4 (v7l)\nprocessor\t: 0\n"


@pytest.mark.parametrize(
    ("cpuinfo", "cpu"),
    [
        (arm_core(0, "0x41", "0xd0b") + arm_core(1, "0x41", "0xd0b") + RASPBERRY, "Cortex-A76"),
        (arm_core(0, "0x41", "0xd08") + RASPBERRY, "Cortex-A72"),
        (arm_core(0, "0x41", "0xd05") + arm_core(1, "0x41", "0xd0b"), "Cortex-A55 + Cortex-A76"),
        (arm_core(0, "0x48", "0xd01"), "ARM core 0x48/0xd01"),
        (ARM7 + arm_core(1, "0x41", "0xd03"), "ARMv7 Processor rev 4 (v7l)"),
        ("processor\t: 0\nBogoMIPS\t: 108.00\n", "unknown"),
    ],
)
def test_an_arm_cpu_is_called_by_its_cores_and_never_by_a_number(cpuinfo, cpu, system):
    system({"/proc/cpuinfo": cpuinfo})
    assert machine.facts()["cpu"] == cpu


def test_only_x86_tells_that_it_is_virtual(system):
    for cpuinfo, virtual in ((CPUINFO, True), (CPUINFO.replace(" hypervisor", ""), False), (RASPBERRY, "unknown")):
        system({"/proc/cpuinfo": cpuinfo})
        assert machine.facts()["virtual"] == virtual


@pytest.mark.parametrize(
    ("files", "turbo"),
    [
        ({"intel_pstate/no_turbo": "0"}, "on"),
        ({"intel_pstate/no_turbo": "1"}, "off"),
        ({"cpufreq/boost": "1"}, "on"),
        ({"cpufreq/boost": "0"}, "off"),
        ({"cpufreq/boost": "?"}, "unknown"),
        ({}, "unknown"),
    ],
)
def test_turbo(files, turbo, system):
    system({f"/sys/devices/system/cpu/{k}": v for k, v in files.items()})
    assert machine.facts()["turbo"] == turbo


@pytest.mark.parametrize(
    ("text", "cores"),
    [("0", [0]), ("0-2,5", [0, 1, 2, 5]), ("3,7", [3, 7]), ("unknown", "unknown"), ("", "unknown"), ("1-", "unknown")],
)
def test_core_lists(text, cores):
    assert machine.parse_cores(text) == cores


def stat(*busy):
    return "cpu  1 1 1 1\n" + "".join(f"cpu{i} {b} 0 0 500 9 0 0 0 0 0\n" for i, b in enumerate(busy))


@pytest.mark.parametrize(
    ("cores", "busy", "pairs", "best"),
    [
        ((0, 1, 2, 3), (0, 50, 10, 30), {}, 2),  # core 0 is the idlest, and not taken
        ((0, 1, 2, 3), (0, 0, 40, 1), {1: "0-1", 2: "2-3", 3: "2-3"}, 1),
        ((0, 1, 2, 3), (60, 0, 20, 1), {1: "0-1", 2: "2-3", 3: "2-3"}, 2),  # the sibling of 1 is busy
        ((0, 1), (0, 90), {}, 1),  # only one is left
        ((0,), (90,), {}, 0),
        (None, (), {}, None),
    ],
)
def test_pick_core(cores, busy, pairs, best, system, monkeypatch):
    files = {f"/sys/devices/system/cpu/cpu{c}/topology/thread_siblings_list": p for c, p in pairs.items()}
    system(files, cores)
    readings = iter([stat(*[0] * len(busy)), stat(*busy)])
    real = machine._text
    monkeypatch.setattr(machine, "_text", lambda path: next(readings) if path == "/proc/stat" else real(path))
    assert machine.pick_core(seconds=0) == best


def test_pick_core_here():
    assert machine.pick_core(seconds=0.01) in os.sched_getaffinity(0)


@pytest.mark.parametrize(
    ("core", "threads", "shared", "expected"),
    [
        (2, 1, "2-3", {2}),
        (2, 2, "2", {2, 3}),
        (2, 2, "2-3", {2, 0}),
        (3, 2, "0,3", {3, 1}),
        (0, 4, "0-1", {0, 1, 2, 3}),
    ],
)
def test_pin_takes_other_physical_cores_first(core, threads, shared, expected, system, monkeypatch):
    system({f"/sys/devices/system/cpu/cpu{core}/topology/thread_siblings_list": shared}, range(4))
    bound = []
    monkeypatch.setattr(os, "sched_setaffinity", lambda pid, cores: bound.append(cores))
    assert machine.pin(core, threads) == sorted(expected)
    assert bound == [expected]


@pytest.mark.parametrize(
    ("core", "threads", "message"),
    [(9, 1, "core: 9 is not usable here; this process may use 1, 2"), (1, 3, "threads: 3 need as many cores")],
)
def test_pin_refuses_what_is_not_there(core, threads, message, system):
    system({}, (1, 2))
    with pytest.raises(BadConfig, match=message):
        machine.pin(core, threads)


def test_pin_is_told_when_refused(system, monkeypatch):
    def refuse(pid, cores):
        raise PermissionError(1, "Operation not permitted")

    system({}, (1, 2))
    monkeypatch.setattr(os, "sched_setaffinity", refuse)
    with pytest.raises(BadConfig, match="pinning to 1 was refused"):
        machine.pin(1)


def test_pin_for_real():
    core = max(os.sched_getaffinity(0))
    code = f"import os; from edgekit.runtime import machine; machine.pin({core}); print(os.sched_getaffinity(0))"
    assert subprocess.check_output([sys.executable, "-c", code], text=True).strip() == f"{{{core}}}"


def test_peak_memory_grows():
    code = """if True:
        from edgekit.runtime.machine import peak_rss_bytes
        before = peak_rss_bytes()
        block = b"x" * (64 << 20)
        del block
        print(peak_rss_bytes() - before)
    """
    assert 60 << 20 < int(subprocess.check_output([sys.executable, "-c", code])) < 80 << 20
