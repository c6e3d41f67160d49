"""nvpmodel and jetson_clocks: read always, set and restored when asked and permitted.

Changing them needs root. Without it (or a password-less sudo) nothing is changed and the report says so. What is to be
restored is written down first, so that a bench that was killed is cleaned up by the next command.
"""

import contextlib
import os
import re
import subprocess

from ..errors import BadConfig
from .store import read_json, write_json

NOT_MEASURED = "not measured"
CLOCKS_SET = "clocks at their maximum"  # among what was done
JOURNAL = "power.json"
_SECONDS = 60


def read_mode():
    """{"name", "id"} of nvpmodel's mode; "not measured" for what it does not tell."""
    code, text = _run(["nvpmodel", "-q"])
    if code != 0:
        code, text = _run(["sudo", "-n", "nvpmodel", "-q"])
    return parse_mode(text) if code == 0 else {"name": NOT_MEASURED, "id": NOT_MEASURED}


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

    modes: [{"id", "name"}] of the board's profile; mode: see ``mode_number``, or None; clocks: run jetson_clocks
    Yields the report: before, during, asked {mode, jetson_clocks}, done, refused (sentences), restored; the block's end
    completes it. Asking for nothing only reports. Raises BadConfig for a mode that the board does not have.
    """
    number = None if mode is None else mode_number(modes, mode)
    restore_left_over(home)
    before = read_mode()
    asked = {"mode": mode, "jetson_clocks": clocks}
    report = {"before": before, "during": before, "asked": asked, "done": [], "refused": [], "restored": []}
    journal = {"mode": None, "clocks": None}
    try:
        if number is not None:
            _set_mode(home, number, report, journal)
        if clocks:
            _set_clocks(home, report, journal)
        report["during"] = read_mode()
        yield report
    finally:
        report["restored"] = _restore(home, journal)
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
        if not _try(["nvpmodel", "-m", str(number)], "power mode {}".format(number), report):
            journal["mode"] = None  # nothing was changed, so there is nothing to restore
            os.unlink(os.path.join(home, JOURNAL))


def _set_clocks(home, report, journal):
    stored = os.path.join(home, "clocks.conf")
    if not _try(["jetson_clocks", "--store", stored], "clocks stored", report):
        return
    journal["clocks"] = stored
    write_json(os.path.join(home, JOURNAL), journal)
    _try(["jetson_clocks"], CLOCKS_SET, report)


def mode_number(modes, wish):
    """nvpmodel's number of a mode, by its name or number. A profile that lists no modes leaves a number to nvpmodel.

    Raises BadConfig for a mode that the board does not have.
    """
    for mode in modes:
        if str(wish).upper() in (str(mode["id"]), str(mode["name"]).upper()):
            return mode["id"]
    if not modes and str(wish).isdigit():
        return int(wish)
    known = ", ".join("{} {}".format(m["id"], m["name"]) for m in modes)
    raise BadConfig(
        "power mode {!r}: {}".format(
            wish,
            "this board has: " + known if known else "the board's profile names none; give the number for nvpmodel -m",
        )
    )


def _restore(home, journal):
    done = []
    if journal.get("clocks"):
        code, text = _as_root(["jetson_clocks", "--restore", journal["clocks"]])
        done.append("clocks" if code == 0 else "clocks NOT restored: " + text)
    if journal.get("mode") is not None:
        code, text = _as_root(["nvpmodel", "-m", str(journal["mode"])])
        what = "power mode {}".format(journal["mode"])
        done.append(what if code == 0 else "{} NOT restored: {}".format(what, text))
    path = os.path.join(home, JOURNAL)
    if os.path.exists(path) and not any("NOT restored" in text for text in done):
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
