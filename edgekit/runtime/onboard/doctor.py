"""What works on this board, and the command that mends what does not. Standard library only: numpy may be broken here.

Everything that could crash (numpy, cv2, tensorrt) is imported in a child process.
"""

import os
import re
import shutil
import signal
import sys

from ..errors import BoardBusy
from ..sensors import Sampler, gpu_folder, read_integer, system_root
from . import identity, power
from .store import Store

OK, WARNING, FAILED, NOT_MEASURED = "ok", "warning", "failed", power.NOT_MEASURED
LEAST_DISK = 1 << 30
LEAST_MEMORY = 2 << 30  # free memory and swap together, for a build
_USR = ("/usr/bin/python3", "/usr/bin/python3.6", "/usr/bin/python3.8", "/usr/bin/python3.10", "/usr/bin/python3.12")
_TRTEXEC = "usr/src/tensorrt/bin/trtexec"
LEAST_NUMPY = (1, 13)  # of python3-numpy on JetPack 4; tests/runtime/test_python36.py runs on it
_NUMPY_CURES = "{}, or: export OPENBLAS_CORETYPE=ARMV8 (edgekit_board.pyz sets it for itself)"
# L4T's major -> what builds with its CUDA: 10.2 (README of TensorRT 8.2), 11.4 (Python 3.8), 12 (inducer/pycuda#415)
_PYCUDAS = {32: "pycuda<2021.1", 35: "pycuda<2023", 36: "pycuda>=2024.1"}
_NEWEST_PYCUDA = "pycuda>=2025.1.2"  # CUDA 13 (inducer/pycuda#487), and 12
_CV2 = (
    "import cv2; i = cv2.getBuildInformation(); "
    "g = [l.split(':')[1].strip() for l in i.splitlines() if l.strip().startswith('GStreamer')]; "
    "print(cv2.__version__, (g or ['NO'])[0].split()[0], cv2.__file__)"
)
_PYCUDA = "import pycuda, pycuda.driver as d; d.init(); print(pycuda.VERSION_TEXT, d.Device(0).name())"


def checkup(home, progress=None):
    """{"board": identity, "checks": [{"name", "status", "found", "mend"}]}; status is one of the four words above."""
    facts = identity.identity()
    steps = (
        _board,
        _interpreter,
        _tensorrt,
        _numpy,
        _opencv,
        _pycuda,
        _cuda,
        _power,
        _clocks,
        _memory,
        _disk,
        _sensors,
    )
    checks = []
    for done, step in enumerate(steps):
        if progress is not None:
            progress("checking", done, len(steps))
        checks += step(facts, home)
    return {"board": facts, "checks": checks}


def _check(name, status, found, mend=""):
    return {"name": name, "status": status, "found": found, "mend": mend}


def _board(facts, home):
    found = "{}; L4T {}; {}".format(facts["model"], facts["l4t"], facts["architecture"])
    known = facts["l4t"] != identity.UNKNOWN
    yield _check("board", OK if known else WARNING, found, "" if known else "this is no Jetson with L4T")
    if facts["simulated"]:
        yield _check("simulator", WARNING, "; ".join(facts["simulated"]), "nothing measured here is a board's")


def _interpreter(facts, home):
    """Which Python has tensorrt: JetPack binds it to the system's own."""
    with_it, without = [], []  # type: list, list
    for python in interpreters():
        code, text = identity.ask_python(python, "import sys, tensorrt; print(tensorrt.__version__)")
        (with_it if code == 0 else without).append("{} ({})".format(python, text if code == 0 else "no tensorrt"))
    here = any(entry.startswith(sys.executable + " ") for entry in with_it)
    if here:
        yield _check("interpreter", OK, "; ".join(with_it))
    elif with_it:
        other = with_it[0].split(" ")[0]
        mend = "{} edgekit_board.pyz ...; from the workstation: edgekit flash ... --python {}".format(other, other)
        yield _check("interpreter", FAILED, "{} has no tensorrt; {} has".format(sys.executable, with_it[0]), mend)
    else:
        yield _check(
            "interpreter",
            FAILED,
            "none has tensorrt: " + ", ".join(entry.split(" ")[0] for entry in without),
            "sudo apt-get install python3-libnvinfer (it comes with JetPack; pip cannot install it on a Jetson)",
        )


def interpreters():
    """This one first, then those of the system."""
    found = [sys.executable]
    for path in _USR + tuple(p for p in [shutil.which("python3")] if p):
        if os.path.exists(path) and os.path.realpath(path) not in [os.path.realpath(p) for p in found]:
            found.append(path)
    return found


def _tensorrt(facts, home):
    trtexec = os.path.join(system_root(), _TRTEXEC)
    if os.path.exists(trtexec):
        yield _check("trtexec", OK, "/" + _TRTEXEC + " (it is not on the PATH)")
    else:
        yield _check("trtexec", WARNING, "not at /" + _TRTEXEC, "not needed by EdgeKit; sudo apt-get install tensorrt")


def _numpy(facts, home):
    code, text = identity.ask_python(sys.executable, "import numpy; print(numpy.__version__)")
    if code == -signal.SIGILL or "Illegal instruction" in text:
        found = "import numpy dies of an illegal instruction (numpy 1.19.5 on this processor)"
        yield _check("numpy", FAILED, found, _NUMPY_CURES.format(_pip(facts["l4t"], "numpy==1.19.4")))
    elif code != 0:
        yield _check("numpy", FAILED, "cannot be imported: " + text, "sudo apt-get install python3-numpy")
    elif tuple(int(part) for part in re.findall(r"\d+", text)[:2]) < LEAST_NUMPY:
        found = "{}; needed is {}.{} or later".format(text, *LEAST_NUMPY)
        yield _check("numpy", FAILED, found, "sudo apt-get install python3-numpy")
    else:
        yield _check("numpy", OK, text)


def _opencv(facts, home):
    code, text = identity.ask_python(sys.executable, _CV2)
    if code != 0:
        yield _check("opencv", FAILED, "cannot be imported: " + text, "sudo apt-get install python3-opencv")
        return
    version, gstreamer, path = text.split(" ", 2)
    if gstreamer.upper() == "YES":
        yield _check("opencv", OK, "{} with GStreamer, {}".format(version, path))
        return
    mend = "for CSI cameras and RTSP: "
    if "site-packages" in path or "/local/" in path:
        mend += "a pip package hides the system's OpenCV: pip3 uninstall opencv-python opencv-python-headless"
    else:
        mend += "install JetPack's own OpenCV: sudo apt-get install --reinstall libopencv-python"
    yield _check("opencv", WARNING, "{} without GStreamer, {}".format(version, path), mend)


def _pycuda(facts, home):
    code, text = identity.ask_python(sys.executable, _PYCUDA)
    mend = _pip(facts["l4t"], _PYCUDAS.get(_major(facts["l4t"]), _NEWEST_PYCUDA), "PATH=/usr/local/cuda/bin:$PATH ")
    yield _check("pycuda", OK, text) if code == 0 else _check("pycuda", FAILED, text or "not installed", mend)


def _pip(l4t, package, environment=""):
    """The commands that install a package for this user on a board as it was flashed: without pip and headers."""
    commands, flags = ["sudo apt-get install python3-pip python3-dev"], "--user"
    if _major(l4t) == 32:
        commands.append("python3 -m pip install --user -U 'pip<22'")  # apt's pip 9 takes no wheels of manylinux2014
    if _major(l4t) >= 38:
        flags += " --break-system-packages"  # Ubuntu 24.04 refuses --user without it
    commands.append("{}python3 -m pip install {} '{}'".format(environment, flags, package))
    return " && ".join(commands)


def _major(l4t):
    """32 of "32.7.6"; 0 where it is unknown."""
    first = l4t.split(".")[0]
    return int(first) if first.isdigit() else 0


def _cuda(facts, home):
    version = identity.cuda_version()
    known = version != identity.UNKNOWN
    yield _check("cuda", OK if known else NOT_MEASURED, version if known else "no version file in /usr/local/cuda")


def _power(facts, home):
    try:
        with Store(home).working("doctor", wait=0.0):  # the journal of a bench that runs is not one that was left
            left = power.restore_left_over(home)
    except BoardBusy as busy:
        yield _check("at work", WARNING, "power mode and clocks may be what a bench has set: {}".format(busy))
    else:
        if left:
            yield _check("power left over", WARNING, "restored after a bench that was killed: " + ", ".join(left))
    mode = power.read_mode()
    if mode["name"] == NOT_MEASURED:
        yield _check("power mode", NOT_MEASURED, "nvpmodel does not tell it", "sudo nvpmodel -q")
    else:
        yield _check("power mode", OK, "{} ({})".format(mode["name"], mode["id"]))


def _clocks(facts, home):
    folder = gpu_folder()
    if folder is None:
        yield _check("gpu clock", NOT_MEASURED, "no devfreq entry of a GPU")
        return
    values = [read_integer(os.path.join(folder, name)) for name in ("cur_freq", "min_freq", "max_freq")]
    if None in values:
        yield _check("gpu clock", NOT_MEASURED, "{} cannot be read".format(folder))
        return
    found = "{:.0f} MHz now, from {:.0f} to {:.0f}".format(*(value / 1e6 for value in values))
    fixed = values[1] == values[2]
    yield _check("gpu clock", OK, found + (", fixed" if fixed else ", free to change: --jetson-clocks fixes it"))


def _memory(facts, home):
    found = identity.resources(home)
    free, swap = found["memory_available_bytes"], found["swap_total_bytes"]
    if free is None or swap is None:
        yield _check("memory", NOT_MEASURED, "/proc/meminfo or /proc/swaps does not tell it")
        return
    enough = free + swap >= LEAST_MEMORY
    mend = "" if enough else "add swap: sudo fallocate -l 4G /swap && sudo mkswap /swap && sudo swapon /swap"
    text = "{:.0f} MB free, {:.0f} MB swap on disk".format(free / 1e6, swap / 1e6)
    yield _check("memory", OK if enough else WARNING, text, mend)


def _disk(facts, home):
    free = identity.resources(home)["disk_free_bytes"]
    enough = free >= LEAST_DISK
    text = "{:.1f} GB free at {}".format(free / 1e9, home)
    yield _check(
        "disk", OK if enough else WARNING, text, "" if enough else "free some space; flash removes old versions"
    )


def _sensors(facts, home):
    with Sampler() as sampler:
        sampler.sample()
    seen = sampler.result()
    rails, zones = sorted(set(seen["power_mw"]) - {"total"}), sorted(seen["temperatures_c"])
    if rails:
        total = seen["power_mw"].get("total")
        text = "{:.1f} W now".format(total["last"] / 1e3) if total else "no total"
        yield _check("power rails", OK, "{} ({})".format(text, ", ".join(rails)))
    else:
        yield _check("power rails", NOT_MEASURED, "no INA3221 that this user may read")
    yield _check("temperatures", OK if zones else NOT_MEASURED, ", ".join(zones) or "no thermal zone")


def show(answer, stream):
    """The checks for people, one per line."""
    for check in answer["checks"]:
        line = "{:<14} {:<16} {}".format(check["status"], check["name"], check["found"])
        stream.write(line.rstrip() + "\n")
        if check["mend"]:
            stream.write("{:<31} mend: {}\n".format("", check["mend"]))
