"""Which board this is: device tree, L4T release, architecture. Standard library only.

EDGEKIT_SYSROOT names a folder that stands for ``/`` where facts are read from. It exists for the TX2 twin of the tests
(a simulator); whatever is found below it makes every answer a simulated one.
"""

import os
import platform
import re
import shutil
import subprocess
import sys

from .. import machine
from ..errors import BoardLacks
from ..sensors import SYSROOT, system_root

UNKNOWN = machine.UNKNOWN
TWIN = "edgekit,twin"  # in the device tree of the TX2 twin
_CUDA = ("usr/local/cuda/version.json", "usr/local/cuda/version.txt")
_PART_NUMBER = re.compile(r"p\d{4}-\d{4}")
_SHORT = 30  # seconds for a child that only looks something up


def read_text(path):
    """A small file below the system root, without NULs and outer blanks; "unknown" when it cannot be read or is empty.

    Some files of sysfs exist and refuse to be read (EAGAIN, EINVAL): that is unknown too.
    """
    try:
        with open(os.path.join(system_root(), path.lstrip("/")), encoding="utf-8", errors="replace") as handle:
            return handle.read().replace("\0", " ").strip() or UNKNOWN
    except OSError:
        return UNKNOWN


def identity():
    """What this machine says it is. JSON values; "unknown" where it does not say.

    model, compatible (list), dts: from the device tree; l4t: "32.7.6"; architecture; python, executable; user, host;
    simulated: reasons why nothing measured here is a board's, empty on hardware.
    """
    compatible = read_text("proc/device-tree/compatible")
    return {
        "model": read_text("proc/device-tree/model"),
        "compatible": [] if compatible == UNKNOWN else compatible.split(),
        "dts": read_text("proc/device-tree/nvidia,dtsfilename"),
        "l4t": l4t_release(read_text("etc/nv_tegra_release")),
        "architecture": platform.machine() or UNKNOWN,
        "system": machine.facts()["system"],
        "python": platform.python_version(),
        "executable": sys.executable,
        "host": platform.node() or UNKNOWN,
        "simulated": simulated(compatible),
    }


def simulated(compatible):
    """Every sign that this is a simulator, in words."""
    signs = []
    if TWIN in compatible.split():
        signs.append("the device tree says " + TWIN)
    if os.environ.get(SYSROOT):
        signs.append("facts are read below {}={}".format(SYSROOT, os.environ[SYSROOT]))
    return signs


def l4t_release(text):
    """The release in the first line of ``/etc/nv_tegra_release``: "R32 (release), REVISION: 7.6" is "32.7.6"."""
    match = re.search(r"R(\d+)\b.*?REVISION:\s*([0-9.]+)", text)
    return "{}.{}".format(match.group(1), match.group(2).rstrip(".")) if match else UNKNOWN


def part_numbers(found):
    """Part numbers of modules and carriers that a device tree names (["p3489-0888"]), each once, in its order."""
    numbers = _PART_NUMBER.findall(" ".join([found["dts"]] + list(found["compatible"])).lower())
    return sorted(set(numbers), key=numbers.index)


def evidence(wanted, found):
    """How surely ``found`` is the board of a profile's ``identity`` section, as a number; 0 is not at all.

    3: the device tree names one of its modules; 2: one of its whole entries of ``compatible``; 1: no part number, but
    the model's words fit. For modules share a model's words: the Nano with 2 GB is a "Jetson Nano" too.
    """
    text = " ".join([found["dts"]] + list(found["compatible"])).lower()
    modules, compatible, models = (wanted.get(key) or () for key in ("modules", "compatible", "models"))
    if any(module.lower() in text for module in modules):
        return 3
    if any(entry in found["compatible"] for entry in compatible):
        return 2
    words = any(part.lower() in found["model"].lower() for part in models)
    return 1 if words and not part_numbers(found) else 0


def fits(wanted, found):
    """Whether ``identity()``'s answer is the board of a profile's ``identity`` section.

    A profile without any of modules, compatible and models (a desktop) fits every machine that is no Jetson.
    """
    if not any(wanted.get(key) for key in ("modules", "compatible", "models")):
        return found["l4t"] == UNKNOWN
    return evidence(wanted, found) > 0


def called(found):
    """What a machine calls itself, for a sentence: its model, and the part numbers by which it is recognised."""
    numbers = part_numbers(found)
    return repr(found["model"]) + (" (part numbers: {})".format(", ".join(numbers)) if numbers else "")


def require_board(profile, found):
    """Raise BoardLacks when this machine is not the board that a bundle was made for."""
    if not fits(profile.get("identity") or {}, found):
        raise BoardLacks(
            "this board calls itself {}, L4T {}; the bundle is for {} ({}). Nothing was changed. Make a bundle for "
            "this board: edgekit bundle ARTIFACT --board NAME. Where edgekit boards lists none for it, add one: "
            "docs/add-a-board.md".format(called(found), found["l4t"], profile["name"], profile["title"])
        )


def resources(home):
    """Room for a build: {"disk_free_bytes", "memory_available_bytes", "swap_total_bytes"}; None is unknown."""
    memory, swap = read_text("proc/meminfo"), disk_swap()
    return {
        "disk_free_bytes": shutil.disk_usage(home).free,
        "memory_available_bytes": _kilobytes(memory, "MemAvailable"),
        "swap_total_bytes": None if swap is None else swap["total"],
    }


def disk_swap():
    """Swap that makes room, {"total", "free"} in bytes; None where the kernel does not tell.

    zram, which JetPack sets up, does not: it is memory, compressed, and fills what it frees.
    """
    lines = read_text("proc/swaps").splitlines()
    if not lines[0].startswith("Filename"):
        return None
    rows = [line.split() for line in lines[1:] if not line.startswith("/dev/zram")]
    total, used = (sum(int(row[column]) for row in rows) * 1024 for column in (2, 3))
    return {"total": total, "free": total - used}


def _kilobytes(meminfo, name):
    match = re.search(r"^{}:\s+(\d+) kB".format(name), meminfo, re.MULTILINE)
    return int(match.group(1)) * 1024 if match else None


def cuda_version():
    """CUDA's version from its own files, or "unknown"."""
    for path in _CUDA:
        match = re.search(r"(\d+\.\d+(?:\.\d+)*)", read_text(path))
        if match:
            return match.group(1)
    return UNKNOWN


def ask_python(executable, code):
    """Run ``code`` in another interpreter. Returns (exit code, its output's last line); a death by signal is negative.

    OPENBLAS_CORETYPE, which EdgeKit sets for itself, is not handed on: the answer is for the user's own programs.
    """
    environment = {k: v for k, v in os.environ.items() if k != "OPENBLAS_CORETYPE"}
    try:
        done = subprocess.run(
            [executable, "-c", code],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            timeout=_SHORT,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return 1, type(error).__name__
    lines = done.stdout.decode("utf-8", "replace").strip().splitlines()
    return done.returncode, lines[-1].strip() if lines else ""
