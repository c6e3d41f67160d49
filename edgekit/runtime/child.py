"""Run one function in a child process, so that a crash in native code is an error and not the end of the program.

The request goes in as JSON on the child's standard input; progress and the result come back as JSON lines on a pipe.
Nothing is pickled. The child's own output is kept aside and quoted only when it dies. Standard library only.
"""

import ctypes
import importlib
import json
import os
import signal
import subprocess
import sys
import tempfile

from . import errors
from .errors import ChildDied, EdgeKitError
from .processes import environment, kill_group, last_words

_PR_SET_PDEATHSIG = 1
_OUT_OF_MEMORY = "often the machine ran out of memory"


def run_in_child(function, arguments, step, file, progress=None, killed=_OUT_OF_MEMORY):
    """Call ``module:name`` with JSON keyword arguments in a child process and return its JSON result.

    step, file: named in the error when the child dies.
    progress: called as (done, total); the function then gets a ``progress`` argument too.
    killed: what a death by SIGKILL probably means; part of that error.
    Raises the same EdgeKitError that the function raised, or ChildDied when the child failed in any other way.
    An exception here (Ctrl-C included) kills the child and everything it started; so does the end of this process.
    """
    request = {"function": function, "arguments": dict(arguments), "progress": progress is not None}
    with tempfile.TemporaryFile("w+") as stdin, tempfile.TemporaryFile("w+b") as output:
        json.dump(request, stdin)
        stdin.seek(0)
        receive, send = os.pipe()
        process = _start(stdin, output, send)
        os.close(send)
        try:
            with os.fdopen(receive, encoding="utf-8") as replies:
                answer = _listen(replies, progress)
            process.wait()
        finally:
            kill_group(process)
        if "error" in answer:
            raise _same_error(answer["error"], answer["message"])
        if process.returncode != 0 or "result" not in answer:
            raise ChildDied(_obituary(step, file, process.returncode, last_words(output), killed))
        return answer["result"]


def _start(stdin, output, send):
    return subprocess.Popen(
        [sys.executable, "-m", "edgekit.runtime.child", str(send), str(os.getpid())],
        stdin=stdin,
        stdout=output,
        stderr=output,
        pass_fds=(send,),
        start_new_session=True,  # a group of its own: it can be killed whole, and Ctrl-C reaches only the parent
        env=environment(),
    )


def _listen(replies, progress):
    """The final reply, or {} when the pipe closed without one."""
    answer = {}
    for line in replies:
        if not line.endswith("\n"):
            break  # cut off in the middle: the child died while writing
        message = json.loads(line)
        if "progress" not in message:
            answer = message
        elif progress is not None:
            progress(*message["progress"])
    return answer


def _same_error(name, message):
    kind = getattr(errors, name, ChildDied)
    return kind(message)


def _obituary(step, file, code, words, killed):
    if code < 0:
        cause = "was killed by {}".format(signal.Signals(-code).name)
        if code == -signal.SIGKILL:
            cause += " ({})".format(killed)
    else:
        cause = "failed with exit code {}".format(code)
    return "step {!r} of {} {}".format(step, file, cause) + ("; its last words: {}".format(words) if words else "")


# -- the child's side -------------------------------------------------------------------------------------------------
def main(descriptor, parent):
    """Read the request, call the function, reply, and leave without teardown, where native libraries may crash."""
    _die_with_parent(parent)
    os.set_inheritable(descriptor, False)
    request = json.load(sys.stdin)
    with os.fdopen(descriptor, "w", encoding="utf-8") as replies:
        _reply(replies, **_call(request, replies))
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)


def _call(request, replies):
    module, _, name = request["function"].partition(":")
    arguments = request["arguments"]
    if request["progress"]:
        arguments["progress"] = lambda done, total: _reply(replies, progress=[done, total])
    try:
        return {"result": getattr(importlib.import_module(module), name)(**arguments)}
    except EdgeKitError as error:
        return {"error": type(error).__name__, "message": str(error)}


def _reply(replies, **message):
    replies.write(json.dumps(message) + "\n")
    replies.flush()


def _die_with_parent(parent):
    """Linux: a parent that is killed outright takes this process with it, also one that is gone already."""
    prctl = getattr(ctypes.CDLL(None), "prctl", None)
    if prctl is not None:
        prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
