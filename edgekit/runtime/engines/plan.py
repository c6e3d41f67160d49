"""The first bytes of a serialized engine, read without TensorRT: is it a plan at all, and which version wrote it?

From TensorRT 8.6 on a plan begins with ``ftrt`` and carries its version in bytes 24 to 27, as NVIDIA's own trtexec
(9.1 to 11.1, printPlanVersion) reads it. Before, an archive carries one number; TensorRT's own error message quotes it
("Current Version: 213, Serialized Engine Version: 205", NVIDIA/TensorRT#3073).
"""

import struct

from ..errors import BadInput

_MAGIC = b"ftrt"
_OLD_MAGIC = b"ptrt"  # believed, not confirmed: so other beginnings are not refused for it
_LEAST = 28
TAGS = {205: "8.2", 213: "8.4", 232: "8.5"}


def read_plan_header(path):
    """{"layout": "ftrt", "version": "10.3.0.26"}, {"layout": "tagged", "tag": 205, "version": "8.2" or None}, or
    {"layout": "unknown"}.

    Raises BadInput for a file that is too short to be a plan, or that is something else for sure.
    """
    try:
        with open(str(path), "rb") as handle:
            head = handle.read(_LEAST)
    except OSError as error:
        raise BadInput("{}: cannot read the engine: {}".format(path, error.strerror)) from error
    foreign = _foreign(head)
    if foreign:
        raise BadInput("{}: not a TensorRT plan: {}".format(path, foreign))
    if head[:4] == _MAGIC:
        return _new_layout(path, head)
    tag = struct.unpack("<I", head[8:12])[0]
    if head[:4] == _OLD_MAGIC or tag in TAGS:
        return {"layout": "tagged", "tag": tag, "version": TAGS.get(tag)}
    return {"layout": "unknown"}


def _new_layout(path, head):
    serialization = struct.unpack("<I", head[4:8])[0]
    if serialization != 0:
        raise BadInput(
            "{}: a TensorRT plan of serialization version {}; EdgeKit knows version 0. "
            "Build the engine again on this machine.".format(path, serialization)
        )
    return {"layout": "ftrt", "version": ".".join(str(part) for part in head[24:28])}


def _foreign(head):
    """What the file is instead, or None."""
    if len(head) < _LEAST:
        return "it has only {} bytes".format(len(head))
    if head[:4] == b"vtrt":
        return "it is an engine of TensorRT-RTX, another product than TensorRT"
    if head[4:5] == b"{" and 0 < struct.unpack("<I", head[:4])[0] < 1 << 20:
        return "an Ultralytics .engine file, which has a private header before the plan"
    if head[:1] == b"\x08" and b"ftrt" not in head:
        return "it looks like an ONNX file; build an engine from it"
    if head[:2] in (b"PK", b"\x1f\x8b"):
        return "it is a compressed archive"
    return None
