"""nvpmodel and jetson_clocks: read always, set and restored when asked and permitted.

Changing them needs root. Without it (or a password-less sudo) nothing is changed and the report says so. What is to be
restored is written down first, so that a bench that was killed is cleaned up by the next command.
"""

import contextlib
import os
import re
import subprocess

from ..errors import BadConfig
from ..sensors import gpu_folder, read_integer, system_root
from ..tegra import parse_nvpmodel_conf
from . import identity
from .store import read_json, write_json

NOT_MEASURED = "not measured"
CLOCKS_SET = "clocks at their maximum"  # among what was done
JOURNAL = "power.json"
_CONF = "/etc/nvpmodel.conf"
_NOT_RESTORED = "NOT restored"
_SECONDS = 60


def read_mode():
    """{"name", "id"} of nvpmodel's mode; "not measured" for what it does not tell."""
    code, text = _run(["nvpmodel", "-q"])
    if code != 0:
        code, text = _run(["sudo", "-n", "nvpmodel", "-q"])
    return parse_mode(text) if code == 0 else {"name": NOT_MEASURED, "id": NOT_MEASURED}


def read_state():
    """What a bench begins with, and its figures depend on: {"mode": see ``read_mode``, "gpu_hz": [least, most]}."""
    folder = gpu_folder(system_root())
    limits = [folder and read_integer(os.path.join(folder, name)) for name in ("min_freq", "max_freq")]
    return {"mode": read_mode(), "gpu_hz": [NOT_MEASURED if value is None else value for value in limits]}


def parse_mode(text):
    """``nvpmodel -q``: "NV Power Mode: MAXN", and the number alone on the next line."""
    name = re.search(r"NV Power Mode\s*:\s*(\S+)", text)
    number = re.search(r"^\s*(\d+)\s*$", text, re.MULTILINE)
    return {
        "name": name.group(1) if name else NOT_MEASURED,
        "id": int(number.group(1)) if number else NOT_MEASURED,
    }


@contextlib.contextmanager
def power_set(home, modes, mode=None, clocks=False):
    """Set a power mode and static clocks while the block runs.

    modes: [{"id", "name"}] of the board's profile, for a board that does not list its own
    mode: see ``mode_number``, or None; clocks: run jetson_clocks
    Yields the report: before, during, asked {mode, jetson_clocks}, done, refused (sentences), restored; the block's end
    completes it. Asking for nothing only reports. Raises BadConfig for a mode that the board does not have.
    """
    number = None if mode is None else _own_number(modes, mode)
    left = [text for text in restore_left_over(home) if _NOT_RESTORED in text]
    before = read_mode()
    asked = {"mode": mode, "jetson_clocks": clocks}
    report = {"before": before, "during": before, "asked": asked, "done": [], "refused": [], "restored": []}
    journal = {"mode": None, "clocks": None}
    if left:  # what it was before is known to the journal alone, which setting anything would write over
        report["refused"] += ["nothing was set: {} of an earlier run".format(text) for text in left]
        number, clocks = None, False
    try:
        if number is not None:
            _set_mode(home, number, report, journal)
        if clocks:
            _set_clocks(home, report, journal)
        report["during"] = read_mode()
        yield report
    finally:
        report["restored"] = left or _restore(home, journal)
        report["after"] = read_mode()


def restore_left_over(home):
    """Restore what a killed run left changed. Returns what was restored, in words."""
    journal = read_json(os.path.join(home, JOURNAL))
    return _restore(home, journal) if journal else []


def _set_mode(home, number, report, journal):
    before = report["before"]["id"]
    if before == number:
        report["done"].append("power mode was {} already".format(number))
    elif before == NOT_MEASURED:
        report["refused"].append("power mode {}: nvpmodel does not tell the present one to return to".format(number))
    else:
        journal["mode"] = before
        write_json(os.path.join(home, JOURNAL), journal)
        what = "power mode {}".format(number)
        done = _try(["nvpmodel", "-m", str(number)], what, report)
        if done and read_mode()["id"] == before:  # it asked whether it may reboot, and took no for an answer
            report["done"].remove(what)
            text = "{}: nvpmodel still tells {}. It needs a reboot: sudo nvpmodel -m {}, then repeat"
            report["refused"].append(text.format(what, before, number))
            done = False
        if not done:
            journal["mode"] = None  # nothing was changed, so there is nothing to restore
            os.unlink(os.path.join(home, JOURNAL))


def _set_clocks(home, report, journal):
    stored = os.path.join(home, "clocks.conf")
    if os.path.exists(stored):  # of an earlier run, and restored; jetson_clocks would ask whether it may replace it
        os.unlink(stored)
    if not _try(["jetson_clocks", "--store", stored], "clocks stored", report):
        return
    journal["clocks"] = stored
    write_json(os.path.join(home, JOURNAL), journal)
    _try(["jetson_clocks"], CLOCKS_SET, report)


def _own_number(modes, wish):
    """``mode_number`` by the board's own list: the numbers of the modes change from one release to the next."""
    own = parse_nvpmodel_conf(identity.read_text(_CONF))["modes"]
    number = mode_number(own or modes, wish)
    if own and number not in [mode["id"] for mode in own]:
        raise _no_mode(own, wish)
    return number


def mode_number(modes, wish):
    """nvpmodel's number of a mode, by its name or number. A number that ``modes`` has not is left to the board.

    Raises BadConfig for a name that is not among them.
    """
    for mode in modes:
        if str(wish).upper() in (str(mode["id"]), str(mode["name"]).upper()):
            return mode["id"]
    if str(wish).isdigit():
        return int(wish)
    raise _no_mode(modes, wish)


def _no_mode(modes, wish):
    known = ", ".join("{} {}".format(m["id"], m["name"]) for m in modes)
    none = "the board's profile names none; give the number for nvpmodel -m"
    return BadConfig("power mode {!r}: {}".format(wish, "this board has: " + known if known else none))


def _restore(home, journal):
    done = []
    if journal.get("clocks"):
        code, text = _as_root(["jetson_clocks", "--restore", journal["clocks"]])
        done.append("clocks" if code == 0 else "clocks {}: {}".format(_NOT_RESTORED, text))
        if code == 0 and os.path.exists(journal["clocks"]):
            os.unlink(journal["clocks"])
    if journal.get("mode") is not None:
        code, text = _as_root(["nvpmodel", "-m", str(journal["mode"])])
        what = "power mode {}".format(journal["mode"])
        back = code == 0 and read_mode()["id"] in (journal["mode"], NOT_MEASURED)
        done.append(what if back else "{} {}: {}".format(what, _NOT_RESTORED, text or "it may need a reboot"))
    path = os.path.join(home, JOURNAL)
    if os.path.exists(path) and not any(_NOT_RESTORED in text for text in done):
        os.unlink(path)
    return done


def _try(command, what, report):
    code, text = _as_root(command)
    if code == 0:
        report["done"].append(what)
    else:
        report["refused"].append("{}: {} (exit code {}): {}".format(what, " ".join(command), code, text))
    return code == 0


def _as_root(command):
    """As it is when this is root, else through a sudo that asks for no password."""
    return _run(command if os.geteuid() == 0 else ["sudo", "-n"] + command)


def _run(command):
    """(exit code, last line of the output). nvpmodel may ask whether it may reboot; it is answered no."""
    try:
        done = subprocess.run(
            command, input=b"NO\n", stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=_SECONDS
        )
    except FileNotFoundError:
        return 127, "{}: not on this machine".format(command[0])
    except (OSError, subprocess.TimeoutExpired) as error:
        return 126, "{}: {}".format(command[0], type(error).__name__)
    text = done.stdout.decode("utf-8", "replace").strip()
    return done.returncode, text
