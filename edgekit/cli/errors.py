"""From an exception to one message and an exit code."""

from __future__ import annotations

import errno
import io
from collections.abc import Iterator

from ..runtime.errors import EdgeKitError

BUG, MISTAKE, INTERRUPTED = 70, 2, 130  # 1 is a finding of lint or a failed gate; 70 is EX_SOFTWARE of sysexits.h
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT)
_NO_ANSWER = (errno.EIO, errno.ESTALE, errno.ENODEV, errno.ENXIO)
_NO_ROOM_TEXT = ("No space left on device", "Disk quota exceeded")


class Interrupted(Exception):
    """Ctrl-C in the middle of a verb; the message says what is on the disk now."""


class UnwritableStdout(Exception):
    """The result was made and could not be printed; the message is the system's reason."""


def explain(error: BaseException) -> tuple[int, str]:
    """(exit code, message) of an error that ended a command."""
    if isinstance(error, Interrupted):
        return INTERRUPTED, f"edgekit: {error}"
    if isinstance(error, KeyboardInterrupt):
        return INTERRUPTED, "edgekit: interrupted; nothing was changed"
    if isinstance(error, UnwritableStdout):
        return MISTAKE, f"edgekit: stdout cannot be written ({error}). Send it elsewhere, or free some room."
    if _usage(error):
        return MISTAKE, _usage(error)
    if isinstance(error, EdgeKitError):
        return MISTAKE, f"edgekit: {error}"
    system = _system(error)
    if system:
        return MISTAKE, f"edgekit: {system}"
    what = f"{type(error).__name__}: {error}".strip().splitlines()[0]
    return BUG, (
        f"edgekit: this is a bug in EdgeKit, not a mistake of yours ({what}).\n"
        "Repeat the command with --debug for the traceback, and please report it with that traceback."
    )


def _usage(error: BaseException) -> str:
    """The message of typer's own errors (unknown verb, missing option), or an empty string."""
    from typer import TyperException

    if not isinstance(error, TyperException):
        return ""
    text = io.StringIO()
    getattr(error, "show", print)(file=text)
    return text.getvalue().rstrip().replace(": Value error, ", ": ")  # pydantic's, which typer asks about choices


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def _system(error: BaseException) -> str:
    """One sentence for what the operating system refused, or an empty string when it is something else."""
    for link in _chain(error):
        if _no_room(link):
            where = f" for {link.filename}" if isinstance(link, OSError) and link.filename else ""
            return f"no space left on the disk{where}; what was there before is unchanged. Free some, or change --out."
    if isinstance(error, MemoryError):
        return "not enough memory. Close other programs, or make the input or the batch smaller."
    if isinstance(error, PermissionError) and error.filename:
        return f"{error.filename}: permission denied. Choose a place that you may read and write."
    if isinstance(error, OSError) and error.filename:
        return f"{error.filename}: {(error.strerror or str(error)).lower()}."
    if isinstance(error, OSError) and error.errno in _NO_ANSWER:  # while it reads or writes, Python names no file
        return f"{(error.strerror or str(error)).lower()}: a disk, card or network drive fails. Check it, then repeat."
    return ""


def _no_room(error: BaseException) -> bool:
    """safetensors and torch report a full disk as errors of their own, with the system's words inside."""
    return (isinstance(error, OSError) and error.errno in _NO_ROOM) or any(t in str(error) for t in _NO_ROOM_TEXT)
