"""The process that is measured, seen from outside: started, listened to, killed whole, and its death explained."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import IO, Any

from ..progress import Progress
from ..runtime import errors
from ..runtime.errors import ChildDied, EdgeKitError
from ..runtime.processes import environment, kill_group, last_words
from ..runtime.reference import REFERENCE, TIMED

WORKER = (sys.executable, "-m", "edgekit.runtime.worker")
_STAT = Path("/proc/stat")


def run_worker(
    job: Mapping[str, Any], command: Sequence[str] = WORKER, progress: Progress | None = None
) -> tuple[dict[str, Any], float | None]:
    """Run ``command JOB RESULT`` and return (result, cores that others kept busy meanwhile).

    The phases of its progress are load, warm-up, timed, offline, layers, accuracy and, of a worker that takes turns,
    ready.
    Raises the EdgeKitError that the worker reported, or ChildDied naming the artifact, the runtime and the signal.
    An exception here (Ctrl-C included) kills the worker and everything it started.
    """
    load = OtherLoad()
    with Worker(job, command, progress) as worker:
        result = worker.finish()
    return result, load.cores()


class Worker:
    """A worker's process; a context manager that leaves none behind, however it is left. It starts when first used.

    talks: the worker reads what ``send`` writes (mode "turns"); else its stdin is empty
    """

    def __init__(
        self,
        job: Mapping[str, Any],
        command: Sequence[str] = WORKER,
        progress: Progress | None = None,
        talks: bool = False,
    ) -> None:
        self.job = job
        self._command = command
        self._progress = progress
        self._talks = talks
        self._stack = ExitStack()
        self._started = False

    def __enter__(self) -> Worker:
        return self

    def start(self) -> None:
        """Start the process, if it was not."""
        if self._started:
            return
        self._started = True
        with ExitStack() as stack:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgekit-bench-")))
            self._errors = stack.enter_context(tempfile.TemporaryFile())
            job_file, self._result = folder / "job.json", folder / "result.json"
            job_file.write_text(json.dumps(self.job), encoding="utf-8")
            self._process = _start([*self._command, str(job_file), str(self._result)], self._errors, self._talks)
            stack.callback(_end, self._process)
            self._stack = stack.pop_all()

    def __exit__(self, *exc_info: object) -> None:
        self._stack.close()

    def send(self, message: Mapping[str, Any]) -> None:
        """One line to the worker's stdin. When it is dead, ``wait_for`` says so."""
        self.start()
        if self._process.stdin is not None:
            with suppress(BrokenPipeError):
                self._process.stdin.write(json.dumps(message) + "\n")
                self._process.stdin.flush()

    def wait_for(self, phase: str) -> dict[str, Any]:
        """The worker's next message of this phase; others go to ``progress``. Raises when it ended before."""
        self.start()
        for message in self._messages():
            if message.get("phase") == phase:
                return message
        self._process.wait()
        self._read_result()
        raise ChildDied(f"bench of {self.job['artifact']} in {self.job['runtime']} ended before it was told to")

    def finish(self) -> dict[str, Any]:
        """Let it end, and return its result."""
        self.start()
        if self._process.stdin is not None:
            self._process.stdin.close()
        for _ in self._messages():
            pass
        self._process.wait()
        return self._read_result()

    def _messages(self) -> Iterator[dict[str, Any]]:
        """Read until the worker closes its output. A library may print there too; such lines are no messages."""
        for line in self._process.stdout or ():
            message = _parse(line)
            if not isinstance(message, dict):
                continue
            if self._progress is not None and message.keys() >= {"phase", "done", "total"}:
                phase = str(message["phase"])
                # for people a slice of the machine's reference is no phase of its own; a board's sensors mind it
                phase = TIMED if phase == REFERENCE else phase
                self._progress(phase, int(message["done"]), int(message["total"]))
            yield message

    def _read_result(self) -> dict[str, Any]:
        result = _parse(self._result.read_text(encoding="utf-8")) if self._result.is_file() else None
        code = self._process.returncode
        if not isinstance(result, dict) or (code != 0 and "error" not in result):
            raise ChildDied(_obituary(self.job, code, last_words(self._errors)))
        if "error" in result:
            raise _same_error(result)
        return result


def _start(command: Sequence[str], errors_file: IO[bytes], talks: bool) -> subprocess.Popen[str]:
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE if talks else subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=errors_file,
        text=True,
        encoding="utf-8",
        errors="replace",
        start_new_session=True,  # a group of its own: it can be killed whole, and Ctrl-C reaches only the parent
        env=environment(),
    )


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return None


def _end(process: subprocess.Popen[str]) -> None:
    kill_group(process)
    for stream in (process.stdout, process.stdin):
        if stream is not None:
            with suppress(BrokenPipeError):  # a message that the dead process will not read
                stream.close()


def _same_error(result: Mapping[str, Any]) -> EdgeKitError:
    kind = getattr(errors, str(result.get("type")), EdgeKitError)
    return kind(result["error"]) if issubclass(kind, EdgeKitError) else EdgeKitError(result["error"])


def _obituary(job: Mapping[str, Any], code: int, words: str) -> str:
    if code < 0:
        cause = f"was killed by {signal.Signals(-code).name}"
        cause += " (often the machine ran out of memory)" if code == -signal.SIGKILL else ""
    else:
        cause = f"ended with exit code {code} and left no result"
    return f"bench of {job['artifact']} in {job['runtime']} {cause}" + (f"; its last words: {words}" if words else "")


class OtherLoad:
    """CPU time that other processes took of the cores that this one may use, while a child ran."""

    def __init__(self) -> None:
        self._busy, self._ours, self._wall = self._read()

    def cores(self) -> float | None:
        """Mean number of cores kept busy by others since the start; the child must have been waited for."""
        busy, ours, wall = self._read()
        if wall <= self._wall:
            return None
        return round(max(0.0, (busy - self._busy) - (ours - self._ours)) / (wall - self._wall), 3)

    @staticmethod
    def _read() -> tuple[float, float, float]:
        allowed = os.sched_getaffinity(0)
        busy = sum(seconds for core, seconds in _busy(_STAT.read_text()).items() if core in allowed)
        own = os.times()
        return busy, own.user + own.system + own.children_user + own.children_system, own.elapsed


def _busy(stat: str) -> dict[int, float]:
    """Seconds of work of each core by its number, which is not its place: a core that is offline is not listed."""
    found = {}
    for core, times in re.findall(r"^cpu(\d+) (.*)", stat, re.MULTILINE):
        # guest time is in user time already
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, times.split()[:8])
        found[int(core)] = (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
    return found
