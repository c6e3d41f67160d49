"""A host over SSH: the system's own ``ssh`` in a child process, so that the user's configuration and keys count.

Host keys are checked strictly and nothing is ever asked: what would need an answer is an error that names the command
to give it with.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shlex
import signal
import subprocess
import tempfile
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from ..progress import Progress
from ..runtime import errors
from ..runtime.errors import BadConfig, EdgeKitError, MissingDependency

_HOST = re.compile(r"(?!-)(ssh://)?([A-Za-z0-9._-]+@)?(?!-)[A-Za-z0-9.:_%\[\]-]+/?")
_SETTINGS = (
    "BatchMode=yes",
    "StrictHostKeyChecking=yes",
    "ServerAliveInterval=10",
    "ServerAliveCountMax=3",
    "ForwardAgent=no",
    "ForwardX11=no",
    "ClearAllForwardings=yes",
    "RequestTTY=no",
)
SSH_FAILED = 255
HEARTBEAT = 10.0  # seconds
CONNECT_SECONDS = 15


class HostError(EdgeKitError):
    """A host cannot be reached, or does not let us in."""


class ConnectionLost(HostError):
    """The connection broke; what was done on the board so far stays."""


class BoardBug(EdgeKitError):
    """The program on the board ended in a way that it never should."""


@dataclass(frozen=True)
class SshOptions:
    """config: a file instead of the user's ``~/.ssh/config``; python: the interpreter on the board."""

    config: str | Path | None = None
    python: str = "python3"
    connect_seconds: int = CONNECT_SECONDS


class Host:
    """One board, ``name`` as ssh takes it: an alias, host, user@host or ssh://user@host:port."""

    def __init__(self, name: str, options: SshOptions | None = None) -> None:
        if not _HOST.fullmatch(name):
            raise BadConfig(f"host: {name!r} is none; give it as user@host, or as ssh://user@host:port")
        self.name = name
        self.options = options or SshOptions()
        self._running: set[subprocess.Popen[bytes]] = set()
        self._cut = False

    def cut(self) -> None:
        """End every connection to this host, from another thread, and begin no new one."""
        self._cut = True
        for process in list(self._running):
            process.terminate()

    def command(self, script: str) -> list[str]:
        """The child process's arguments; ``script`` is for sh, whatever the user's shell on the board is."""
        config = ["-F", str(self.options.config)] if self.options.config else []
        settings = [*_SETTINGS, f"ConnectTimeout={self.options.connect_seconds}"]
        flags = [part for setting in settings for part in ("-o", setting)]
        return ["ssh", *config, *flags, "--", self.name, "sh -c " + shlex.quote(script)]

    def run(self, script: str, stdin: bytes = b"", on_line: Callable[[str], None] | None = None) -> str:
        """Run a script of sh on the board; returns its output. Raises HostError, or BoardBug when the script fails."""
        done = self.talk(script, [stdin], on_line)
        if done.code != 0:
            raise BoardBug(f"{self.name}: {script!r} ended with exit code {done.code}: {done.words or 'no word'}")
        return done.output

    def talk(
        self, script: str, stdin: Iterable[bytes] = (), on_line: Callable[[str], None] | None = None
    ) -> Conversation:
        """Like ``run``, but the script may fail: its exit code and last words are in the answer. Raises HostError.

        stdin: pieces of what the script reads; when it stops reading, the rest is left
        """
        with self.started(script) as (process, words):
            assert process.stdin is not None
            with contextlib.suppress(BrokenPipeError):
                for piece in stdin:
                    process.stdin.write(piece)
                process.stdin.close()
            lines = []
            for line in process.stdout or ():
                text = line.decode("utf-8", "replace")
                lines.append(text)
                if on_line is not None:
                    on_line(text)
            code = process.wait()
            if code == SSH_FAILED:
                raise self.failure(words)
            return Conversation(code, "".join(lines), _last_words(words))

    @contextlib.contextmanager
    def started(self, script: str) -> Iterator[tuple[subprocess.Popen[bytes], IO[bytes]]]:
        """A running ssh and the file that takes its complaints; whatever happens, it does not outlive the block."""
        with tempfile.TemporaryFile() as words:
            if self._cut:
                raise ConnectionLost(f"{self.name}: interrupted")
            process = _start(self.command(script), words)
            self._running.add(process)
            try:
                yield process, words
            finally:
                self._running.discard(process)
                for stream in (process.stdin, process.stdout):
                    with contextlib.suppress(BrokenPipeError):
                        if stream is not None:
                            stream.close()
                _end(process)

    def failure(self, words: IO[bytes]) -> HostError:
        """The error for ssh's own exit code, from what it complained about."""
        text = _all_words(words)
        for pattern, explain in _COMPLAINTS:
            if re.search(pattern, text):
                said = {"host": self.name, "bare": _split(self.name)[0], "words": _last_line(text)}
                return HostError(explain.format(**said, **self._places(text)))
        return ConnectionLost(
            f"{self.name}: the connection was lost ({_last_line(text) or 'ssh gives no reason'}). What runs on the "
            "board now goes on running. Repeat the same command: it goes on where it stopped"
        )

    def _places(self, complaint: str) -> dict[str, str]:
        """For the commands that mend: the user's configuration as an option, its name, and the known key's place."""
        file = self.options.config
        known = shlex.quote(_known_as(self.name, complaint))
        keys = re.search(r"^Offending .*key in (.+):\d+", complaint, re.MULTILINE)
        return {
            "option": f"-F {shlex.quote(str(file))} " if file else "",
            "config": str(file or "~/.ssh/config"),
            "known": f"{known} -f {shlex.quote(keys.group(1))}" if keys else known,
        }


_COMPLAINTS = (
    (
        r"REMOTE HOST IDENTIFICATION HAS CHANGED",
        "{host}: its host key is not the one that is known. Either it was installed anew, or somebody answers in its "
        "place; nothing was sent. If it was installed anew: ssh-keygen -R {known}, then ssh {option}{host}, and "
        "compare the fingerprint",
    ),
    (
        r"Host key verification failed|No .* host key is known",
        "{host}: its host key is not known yet, and unknown hosts are not trusted. Log in once with "
        "ssh {option}{host}, and compare the fingerprint with the board's: "
        "ssh-keygen -lf /etc/ssh/ssh_host_ed25519_key.pub",
    ),
    (
        r"Permission denied|Too many authentication failures",
        "{host}: does not let us in ({words}). Passwords are not asked for; bring your key there: "
        "ssh-copy-id {option}{host}",
    ),
    (
        r"Could not resolve hostname \S+:\d+:",
        "{host}: ssh takes a port in another form: ssh://{host}, or Port in {config}",
    ),
    (
        r"Could not resolve hostname",
        "{host}: there is no host of this name ({words}). Try its address, or write it into {config}",
    ),
    (
        r"Connection refused",
        "{host}: refuses connections ({words}). On the board: sudo systemctl enable --now ssh",
    ),
    (
        r"Connection timed out|No route to host|Network is unreachable|Operation timed out",
        "{host}: cannot be reached ({words}). Is it on, and in this network? ping {bare}",
    ),
    (r"Can't open user config file|Bad configuration option|no argument after keyword", "{host}: {words}"),
)


@dataclass(frozen=True)
class Conversation:
    """How a script on a board ended: exit code, output, and the last line of its complaints."""

    code: int
    output: str
    words: str


class Agent:
    """``edgekit_board.pyz`` on a host: each call runs one verb of it and returns its result."""

    def __init__(self, host: Host, pyz: bytes, sha256: str) -> None:
        self.host = host
        self._pyz, self._sha256 = pyz, sha256

    @property
    def _place(self) -> str:
        return f'"${{EDGEKIT_HOME:-$HOME/.edgekit}}"/tools/{self._sha256[:16]}.pyz'

    def bring(self) -> None:
        """Send the program unless these very bytes are there. Renamed into place, so it is never half there."""
        place = self._place
        script = (
            f'set -e; f={place}; d=${{f%/*}}; umask 077; mkdir -p "$d"; '
            f'if echo "{self._sha256}  $f" | sha256sum -c - >/dev/null 2>&1; then cat >/dev/null; exit 0; fi; '
            'cat > "$f.$$"; '
            f'if echo "{self._sha256}  $f.$$" | sha256sum -c - >/dev/null 2>&1; then mv "$f.$$" "$f"; '
            'else rm -f "$f.$$"; echo "the program did not arrive whole" >&2; exit 9; fi'
        )
        self.host.run(script, self._pyz)

    def script(self, verb: str, *arguments: str) -> str:
        """The command for the board's sh. Not exec'ed: sh tells which signal ended it."""
        words = " ".join(shlex.quote(word) for word in (verb, "--json", *arguments))
        return f"{shlex.quote(self.host.options.python)} {self._place} {words}; exit $?"

    def call(
        self, verb: str, *arguments: str, stdin: Iterable[bytes] = (), progress: Progress | None = None
    ) -> dict[str, Any]:
        """The verb's result. Raises the EdgeKitError that it ended with, HostError, or BoardBug."""
        answer: dict[str, Any] = {}

        def listen(line: str) -> None:
            message = _parse(line)
            if "phase" in message and progress is not None:
                progress(str(message["phase"]), int(message["done"]), int(message["total"]))
            elif "result" in message or "error" in message:
                answer.update(message)

        done = self.host.talk(self.script(verb, *arguments), stdin, listen)
        if "error" in answer:
            raise _same_error(self.host.name, answer)
        if done.code != 0 or not isinstance(answer.get("result"), dict):
            raise BoardBug(self._obituary(verb, done))
        result: dict[str, Any] = answer["result"]
        return result

    def _obituary(self, verb: str, done: Conversation) -> str:
        if done.code == 127:
            return (
                f"{self.host.name}: has no {self.host.options.python} ({done.words}). "
                "Name the one that has tensorrt: --python /usr/bin/python3"
            )
        name = _signal(done.code)
        if name is not None:
            why = " (often the board ran out of memory: add swap, close other programs)" if name == "SIGKILL" else ""
            return f"{self.host.name}: {verb} was killed by {name}{why}; its last words: {done.words or 'none'}"
        return f"{self.host.name}: {verb} ended with exit code {done.code} and no answer: {done.words or 'no word'}"

    @contextlib.contextmanager
    def holding(self, who: str) -> Iterator[None]:
        """Hold the board's flash lock. Raises the board's error at once when somebody else holds it."""
        with self.host.started(self.script("hold", "--who", who)) as (process, words):
            first = _first_answer(process.stdout or ())
            if "error" in first:
                raise _same_error(self.host.name, first)
            if "result" not in first:
                code = process.wait()
                lost = code == SSH_FAILED
                raise self.host.failure(words) if lost else BoardBug(self._obituary("hold", _ended(code, words)))
            stop = threading.Event()
            beat = threading.Thread(target=_beat, args=(process, stop), daemon=True)
            beat.start()
            try:
                yield
            finally:
                stop.set()
                beat.join()


def _first_answer(lines: Iterable[bytes]) -> dict[str, Any]:
    """The first result or error; {} when there is none. A login script on the board may have had a word before it."""
    messages = (_parse(line.decode("utf-8", "replace")) for line in lines)
    return next((message for message in messages if message.keys() & {"result", "error"}), {})


def _signal(code: int) -> str | None:
    """The signal with which sh explains an exit code; None where a program chose the code itself."""
    try:
        return signal.Signals(code - 128).name
    except ValueError:
        return None


def _ended(code: int, words: IO[bytes]) -> Conversation:
    return Conversation(code, "", _last_words(words))


def _beat(process: subprocess.Popen[bytes], stop: threading.Event) -> None:
    """Tell the board every few seconds that this flash is alive."""
    while not stop.wait(HEARTBEAT):
        try:
            if process.stdin is not None:
                process.stdin.write(b"\n")
                process.stdin.flush()
        except (BrokenPipeError, ValueError):
            return


def _start(command: Sequence[str], words: IO[bytes]) -> subprocess.Popen[bytes]:
    try:
        return subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=words,
            start_new_session=True,  # Ctrl-C reaches only the parent, which ends this one itself
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError as error:
        raise MissingDependency(
            "ssh is not installed here. On Debian or Ubuntu: apt-get install openssh-client"
        ) from error


def _end(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(timeout=2)
    except subprocess.TimeoutExpired:
        process.terminate()
        try:
            process.wait(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _same_error(host: str, message: dict[str, Any]) -> EdgeKitError:
    kind = getattr(errors, str(message.get("type")), EdgeKitError)
    kind = kind if isinstance(kind, type) and issubclass(kind, EdgeKitError) else EdgeKitError
    error: EdgeKitError = kind(f"{host}: {message['error']}")
    return error


def _parse(line: str) -> dict[str, Any]:
    try:
        value = json.loads(line)
    except ValueError:
        return {}
    return value if isinstance(value, dict) else {}


def _split(name: str) -> tuple[str, str]:
    """(host, port) of a name as ssh takes it; without brackets and user, the port empty where none is named."""
    place = name.removeprefix("ssh://").rpartition("@")[2].rstrip("/")
    if place.startswith("["):
        host, _, rest = place[1:].partition("]")
        return host, rest.removeprefix(":")
    if place.count(":") == 1:
        host, _, port = place.partition(":")
        return host, port
    return place, ""  # more colons are an IPv6 address


def _known_as(name: str, text: str) -> str:
    """What ``known_hosts`` calls a host: as ssh itself tells it, which knows the configuration's aliases and ports."""
    told = re.search(r"Host key for (\S+) has changed", text)
    host, port = _split(name)
    return told.group(1) if told else f"[{host}]:{port}" if port not in ("", "22") else host


def _all_words(words: IO[bytes]) -> str:
    words.seek(0)
    return words.read(1 << 20).decode("utf-8", "replace")


def _last_words(words: IO[bytes]) -> str:
    return _last_line(_all_words(words))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].rstrip(".") if lines else ""
