"""The command line: one small file per verb, which parses, calls ``edgekit``'s function of that name and prints."""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

__all__ = ["command", "main"]

_TERMINATED = 128 + signal.SIGTERM


def command() -> None:
    """The ``edgekit`` program: ``main`` on the process's arguments, and the end of the process."""
    from ..runtime.camera.signals import leave

    leave(main())


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    0 done; 1 a finding of lint or a failed gate; 2 a mistake that the user can mend; 70 a bug; 130 interrupted.

    This is the only place where an error becomes a message and an exit code.
    """
    args, debug = _take_debug(list(sys.argv[1:] if argv is None else argv))
    signal.signal(signal.SIGTERM, _terminate)  # so that clean-up runs and no temporary folder stays behind
    try:
        from .app import invoke
        from .output import telling_stdout

        with telling_stdout():
            code = invoke(args)
            sys.stdout.flush()  # what cannot be written must show here, where it is handled
        return code
    except BrokenPipeError:  # the reader (``| head``) went away, which is no mistake
        _drop_stdout()
        return 128 + signal.SIGPIPE
    except SystemExit as end:
        if end.code != 1:
            raise
        _drop_stdout()  # Rich's way to say the same, of --help
        return 128 + signal.SIGPIPE
    except (Exception, KeyboardInterrupt) as error:  # noqa: BLE001  the last stop: it says what happened
        return _fail(error, debug)


def _fail(error: BaseException, debug: bool) -> int:
    from .errors import explain

    if debug:
        traceback.print_exception(error)
    code, message = explain(error)
    print(message, file=sys.stderr)
    try:
        sys.stdout.flush()
    except OSError:
        _drop_stdout()
    return code


def _take_debug(args: list[str]) -> tuple[list[str], bool]:
    """``--debug`` may stand before or after the verb; EDGEKIT_DEBUG=1 does the same."""
    end = args.index("--") if "--" in args else len(args)
    rest = [a for a in args[:end] if a != "--debug"] + args[end:]
    return rest, len(rest) < len(args) or os.environ.get("EDGEKIT_DEBUG", "0") not in ("", "0")


def _terminate(signum: int, frame: object) -> NoReturn:
    sys.exit(_TERMINATED)


def _drop_stdout() -> None:
    """Nothing more can be written there; Python's own flush at the end must not fail once more."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
