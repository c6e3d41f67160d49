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
UNKNOWN = {"layout": "unknown"}
TAGS = {205: "8.2", 213: "8.4", 232: "8.5"}


def read_plan_header(path, built_here=False):
    """{"layout": "ftrt", "version": "10.3.0.26"}, {"layout": "tagged", "tag": 205, "version": "8.2" or None}, or
    {"layout": "unknown"}.

    built_here: TensorRT wrote the file on this machine, so it is a plan whatever it begins with; a beginning that is
    not known yet is an unknown layout. Else BadInput is raised for what is something else for sure, or of a layout
    after ``ftrt``'s first. Raises BadInput for a file that is too short to be a plan.
    """
    try:
        with open(str(path), "rb") as handle:
            head = handle.read(_LEAST)
    except OSError as error:
        raise BadInput("{}: cannot read the engine: {}".format(path, error.strerror)) from error
    if len(head) < _LEAST:
        raise BadInput("{}: not a TensorRT plan: it has only {} bytes".format(path, len(head)))
    foreign = _foreign(head)
    if foreign and built_here:
        return dict(UNKNOWN)
    if foreign:
        raise BadInput("{}: {}".format(path, foreign))
    if head[:4] == _MAGIC:
        return {"layout": "ftrt", "version": ".".join(str(part) for part in head[24:28])}
    tag = struct.unpack("<I", head[8:12])[0]
    if head[:4] == _OLD_MAGIC or tag in TAGS:
        return {"layout": "tagged", "tag": tag, "version": TAGS.get(tag)}
    return dict(UNKNOWN)


def _foreign(head):
    """What speaks against a plan of a known layout, or None."""
    serialization = struct.unpack("<I", head[4:8])[0]
    if head[:4] == _MAGIC and serialization != 0:
        return (
            "a TensorRT plan of serialization version {}; EdgeKit knows version 0. "
            "Build the engine again on this machine.".format(serialization)
        )
    what = None
    if head[:4] == b"vtrt":
        what = "it is an engine of TensorRT-RTX, another product than TensorRT"
    elif head[4:5] == b"{" and 0 < struct.unpack("<I", head[:4])[0] < 1 << 20:
        what = "an Ultralytics .engine file, which has a private header before the plan"
    elif head[:1] == b"\x08" and b"ftrt" not in head:
        what = "it looks like an ONNX file; build an engine from it"
    elif head[:2] in (b"PK", b"\x1f\x8b"):
        what = "it is a compressed archive"
    return what and "not a TensorRT plan: " + what
