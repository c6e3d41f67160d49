"""GStreamer strings of a board's cameras, and what the board file beside a model says.

``board.json`` lies in the artifact's folder, or one above: {"name", "title", "runtimes": [...], "camera": {"csi",
"usb", "rtsp"}}, each key optional, as in ``boards/NAME.yaml``. A string has the places {sensor_id} {flip} {device}
{uri} {width} {height} {size} {rate} {fps}; ``edgekit/hardware.py`` says what they are.
"""

import json
import os
import re
import string
from fractions import Fraction

import cv2

from ..errors import BadConfig, BoardLacks

BOARD_FILE = "board.json"
# name=value of a query, of XiongMai's paths (user=a_password=b_channel=1) and of GStreamer; a value may be in quotes
_SECRET = re.compile(
    r"((?:pass(?:word|wd|phrase)?|pwd?|token|key|secret)\s*=\s*(?:\(\w+\)\s*)?)"
    r"""("(?:\\.|[^"\\])*"|'(?:\\.|[^'\\])*'|(?:\\.|(?!_(?:user|channel|stream)=)[^&\s])+)""",
    re.IGNORECASE,
)


def read_board(artifact_path):
    """The board file beside an artifact, as a dict; empty when there is none. BadConfig when it is no JSON object."""
    folder = os.path.abspath(str(artifact_path))
    for place in (folder, os.path.dirname(folder)):
        path = os.path.join(place, BOARD_FILE)
        if not os.path.isfile(path):
            continue
        try:
            with open(path, encoding="utf-8") as handle:
                board = json.load(handle)
        except (OSError, ValueError) as error:
            raise BadConfig("{}: cannot be read ({}). Make the bundle again.".format(path, error)) from error
        if not isinstance(board, dict) or not isinstance(board.get("camera") or {}, dict):
            raise BadConfig("{}: expected an object with a camera object. Make the bundle again.".format(path))
        return board
    return {}


def fill(board, kind, values):
    """The board's string for ``kind`` (csi, usb, rtsp) with its places filled, or None where the board has none."""
    template = (board.get("camera") or {}).get(kind)
    if not template:
        return None
    try:
        return template.format(**values)
    except (KeyError, IndexError, ValueError) as error:
        raise BadConfig(
            "camera.{}: the string has a place that nothing fills ({}); there are: {}".format(
                kind, error, ", ".join(sorted(values))
            )
        ) from error


def asked_by(board, kind):
    """Which of the user's wishes (size, fps, flip) have a place in the board's string."""
    names = {name for _, name, _, _ in string.Formatter().parse((board.get("camera") or {}).get(kind) or "")}
    places = {"size": {"size", "width", "height"}, "fps": {"fps", "rate"}, "flip": {"flip"}}
    return tuple(wish for wish in ("size", "fps", "flip") if places[wish] & names)


def fraction(fps):
    """Frames a second as GStreamer writes them: 30/1; 29.97, 59.94 and 23.976 are 30000/1001 and so on."""
    whole = round(fps)
    ntsc = Fraction(whole * 1000, 1001)
    exact = ntsc if fps != whole and abs(fps - ntsc) < 2e-4 * fps else Fraction(fps).limit_denominator(1001)
    return "{}/{}".format(exact.numerator, exact.denominator)


def has_gstreamer():
    """Whether this OpenCV was built with GStreamer. A pip wheel never is."""
    return backend_built("GStreamer")


def backend_built(name):
    """Whether ``cv2.getBuildInformation()`` says YES for a video backend."""
    for line in cv2.getBuildInformation().splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip().startswith("YES")
    return False


def require_gstreamer(what):
    """BoardLacks, with what to do, when this OpenCV cannot run GStreamer strings."""
    if has_gstreamer():
        return
    raise BoardLacks(
        "{}: needs GStreamer, and this OpenCV {} ({}) was built without it. On a Jetson use the system's OpenCV, which "
        "has it: remove the pip one (pip uninstall opencv-python opencv-python-headless) and see that "
        "/usr/lib/python3/dist-packages is on the path.".format(what, cv2.__version__, os.path.dirname(cv2.__file__))
    )


def without_password(text):
    """An address or a GStreamer string as it may be shown: rtsp://user:***@camera/stream, user-pw=***.

    It hides too much rather than too little: a password may have any sign in it, an @ and a / too, so up to the last @.
    """
    text = str(text)
    sign = r"\S" if " ! " in text else "."  # in a GStreamer string a blank ends the address
    text = re.sub(r"(://[^/:\s]*):" + sign + r"*@", r"\1:***@", text)
    return _SECRET.sub(r"\1***", text)
