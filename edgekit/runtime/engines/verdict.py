"""May this engine be loaded here? Answered from its sidecar manifest before TensorRT sees a byte of it.

To deserialize an engine is to run its author's code: NVIDIA's security page says so. So only a plan that EdgeKit built,
for this very machine, in a folder that nobody else can write to, is handed to TensorRT.
"""

import grp
import os
import pwd
import re
import stat

from ..artifact import file_sha256
from ..errors import ArtifactError, BoardLacks
from .plan import UNKNOWN, read_plan_header

PLAN = "model.plan"
# key of the manifest's ``engine`` -> how a sentence calls it, in the order in which a mismatch is told
BOUND_TO = (
    ("tensorrt", "TensorRT"),
    ("sm", "compute capability"),
    ("device", "GPU"),
    ("cuda", "CUDA"),
    ("l4t", "L4T"),
)


def check_engine(artifact, here, onnx=None):
    """Raise unless the engine artifact was built for ``here`` and nobody else could have changed it.

    artifact: verified by ``read_artifact``, which compared the plan's SHA-256 with the manifest
    here: {"tensorrt", "cuda", "sm", "device", "l4t"} of this process; a fact that is absent is not compared
    onnx: path of the ONNX file that the engine should be of, when the caller has one
    Raises ArtifactError for a plan without or with a foreign sidecar, in an unsafe place, or of another ONNX file;
    BoardLacks for one that was built for something else.
    """
    about = _section(artifact)
    path = artifact.file(PLAN)
    check_place(artifact.path)
    check_place(path)
    _check_header(path, about)
    if onnx is not None:
        _check_source(artifact, about, onnx)
    for key, name in BOUND_TO:
        if key in here and here[key] != about.get(key):
            raise BoardLacks(
                "{}: the engine was built for {} {}, this machine has {}. Engines cannot be carried over; "
                "build it here: {}".format(
                    artifact.path, name, _text(key, about.get(key)), _text(key, here[key]), _cure(about)
                )
            )


def _text(key, value):
    if value is None:
        return "none"
    return "{}.{}".format(*divmod(int(value), 10)) if key == "sm" else str(value)


def _cure(about):
    return about.get("rebuild") or "edgekit build ARTIFACT --board BOARD"


def _section(artifact):
    """The manifest's ``engine``; ArtifactError when the plan has no sidecar of ours, or one of another plan."""
    about = artifact.manifest.get("engine")
    wanted = ("plan_sha256", "onnx_sha256", "builder") + tuple(key for key, _ in BOUND_TO)
    missing = [key for key in wanted if not isinstance(about, dict) or key not in about]
    if missing:
        raise ArtifactError(
            "{}: its manifest does not say what the engine was built for ({} missing), so it is not loaded. "
            "Build it here: edgekit build ARTIFACT --board BOARD".format(artifact.path, ", ".join(missing))
        )
    listed = artifact.manifest["payload"].get(PLAN, {}).get("sha256")
    if listed != about["plan_sha256"]:
        raise ArtifactError(
            "{}: the manifest belongs to another engine (plan {}..., here {}...), so it is not loaded. "
            "Build it here: {}".format(artifact.path, str(about["plan_sha256"])[:12], str(listed)[:12], _cure(about))
        )
    return about


def _check_header(path, about):
    # a layout that the builder's EdgeKit did not know: the plan's SHA-256, compared before, is what counts
    found = read_plan_header(path, built_here=about.get("plan") == UNKNOWN)
    if found != about.get("plan"):
        raise ArtifactError(
            "{}: its first bytes say {}, the manifest says {}, so it is not loaded. Build it here: {}".format(
                path, _header(found), _header(about.get("plan") or {}), _cure(about)
            )
        )
    version = found.get("version")
    if version is not None and not _same_version(version, str(about["tensorrt"])):
        raise ArtifactError(
            "{}: its first bytes say TensorRT {}, the manifest says {}, so it is not loaded. Build it here: {}".format(
                path, version, about["tensorrt"], _cure(about)
            )
        )


def _same_version(header, module):
    """Does a plan's version agree with ``tensorrt.__version__`` in the parts that both have?

    A header has four numbers, or two by its tag; the module has three in 8.6 and 10.0 to 10.7 (10.3.0 for a plan of
    10.3.0.30), else four, and sometimes letters behind them (10.0.0b6).
    """
    numbers = re.split(r"[^\d.]", module)[0].strip(".")
    pairs = list(zip(header.split("."), numbers.split(".")))  # noqa: B905 - Python 3.6
    return len(pairs) >= 2 and all(one == other for one, other in pairs)


def _header(header):
    words = (str(header[key]) for key in ("layout", "tag", "version") if header.get(key) is not None)
    return " ".join(words) or "nothing"


def _check_source(artifact, about, onnx):
    found = file_sha256(onnx)
    if found != about["onnx_sha256"]:
        raise ArtifactError(
            "{}: built from ONNX {}..., {} is {}.... Build it again: {}".format(
                artifact.path, about["onnx_sha256"][:12], onnx, found[:12], _cure(about)
            )
        )


def check_place(path):
    """Raise ArtifactError when others own a file or folder, may write to it, or may exchange it in one of those above.

    Others are all but this process's user and root. A folder above that many may write to is safe when it is sticky, as
    /tmp is: only the owner may rename there.
    """
    path = os.path.realpath(path)
    places = [path]
    while os.path.dirname(places[-1]) != places[-1]:
        places.append(os.path.dirname(places[-1]))
    for place in places:
        found = os.stat(place)
        sticky = place != path and found.st_mode & stat.S_ISVTX
        if found.st_uid not in (os.geteuid(), 0):
            fault = "user {} owns {}".format(_user(found.st_uid), place)
            cure = "Build it in a folder of your own: edgekit build ARTIFACT --board BOARD"
        elif found.st_mode & stat.S_IWOTH and not sticky:
            fault, cure = "everybody may write to {}".format(place), "Close it: chmod o-w {}".format(place)
        elif found.st_mode & stat.S_IWGRP and not sticky and not _private(found.st_gid):
            fault = "group {} may write to {}".format(_group(found.st_gid), place)
            cure = "Close it: chmod g-w {}".format(place)
        else:
            continue
        raise ArtifactError("{}: {}, and an engine is code, so it is not loaded. {}".format(path, fault, cure))


def _private(gid):
    """Is a group this user's alone, or root's? Ubuntu gives every user one, and a umask with which it may write.

    It bears the user's name and has no other member. The name is asked for as a directory service need not list all
    accounts whose primary group it is ("Domain Users").
    """
    try:
        group = grp.getgrgid(gid)
        trusted = {pwd.getpwuid(uid).pw_name for uid in (os.geteuid(), 0)}
    except KeyError:
        return False
    members = set(group.gr_mem) | {account.pw_name for account in pwd.getpwall() if account.pw_gid == gid}
    return group.gr_name in trusted and members <= trusted


def _user(uid):
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid):
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)
