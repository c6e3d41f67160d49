"""``flash``: a bundle onto boards over SSH, built, verified and measured there; the old version stays until then."""

from __future__ import annotations

import getpass
import hashlib
import os
import socket
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..board import Board, load_board, recognise
from ..paths import Files, listed
from ..progress import quiet
from ..runtime.artifact import new_file
from ..runtime.errors import BadConfig, BadInput, BoardLacks, EdgeKitError
from ..runtime.onboard import archive, identity, power, trust
from ..words import counted
from . import rows
from .boardzip import NAME, board_zip
from .bundling import BundleOptions, bundle, is_bundle, worst
from .ssh import Agent, Host, SshOptions

if TYPE_CHECKING:
    from ..conversion.lint import Report
    from ..measure.row import Row

HostProgress = Callable[[str, str, int, int], None]
"""(host, phase, done, total)"""

MOST_AT_ONCE = 16
SPARE = 500 << 20  # bytes for an engine, its timing cache and the results, on top of the bundle packed and unpacked
_PIECE = 1 << 18


@dataclass(frozen=True)
class FlashOptions:
    """How to flash.

    trust: public keys of which one must have signed the bundle; measure: bench after verifying
    seconds, power_mode, jetson_clocks: of the bench; force: build, verify and measure again what was done already
    """

    ssh: SshOptions = field(default_factory=SshOptions)
    trust: Files = ()
    measure: bool = True
    seconds: float | None = None
    power_mode: str | None = None
    jetson_clocks: bool = False
    force: bool = False

    def of_the_bench(self) -> list[str]:
        """The names of what was asked of the bench."""
        asked = {"seconds": self.seconds, "power_mode": self.power_mode, "jetson_clocks": self.jetson_clocks or None}
        return [name for name, value in asked.items() if value is not None]


@dataclass
class Flashed:
    """What became of one host. ``error`` is None when all went well; ``row`` when the bench ran.

    steps: name -> "done", "skipped" or "failed"; version, previous: what is current now and what was before
    simulated: reasons why this is a simulator, empty on hardware
    notes: what the user should know of the board, usually nothing
    bug: what was raised, where ``error`` is a fault in EdgeKit and nothing that a user can mend
    """

    host: str
    board: str
    steps: dict[str, str] = field(default_factory=dict)
    version: str | None = None
    previous: str | None = None
    simulated: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    row: Row | None = None
    error: str | None = None
    error_type: str | None = None
    bug: Exception | None = None
    seconds: float = 0.0

    @property
    def ok(self) -> bool:
        return self.error is None


Work = Callable[[Host, Flashed, HostProgress], None]


def flash(
    source: str | Path | None,
    *,
    hosts: Sequence[str],
    board: str | None = None,
    rollback: bool = False,
    out: str | Path | None = None,
    options: FlashOptions | None = None,
    contents: BundleOptions | None = None,
    progress: HostProgress | None = None,
) -> list[Flashed]:
    """Flash a bundle, or an artifact's bundle for ``board``, onto every host; or take each to its previous version.

    A host that fails raises nothing: look at ``ok`` and ``error`` of each answer, for example
    ``failed = [found for found in edgekit.flash(...) if not found.ok]``. It keeps its old version and does not stop
    the others, which are worked on at the same time. An EdgeKitError is raised for what is wrong before any host is
    touched.

    hosts: one, or several, each as ssh takes it; out: keeps the measured rows as JSON
    The same call goes on where an earlier one stopped.
    """
    from ..measure.report import check_report_file, report_json

    options = options or FlashOptions()
    targets = _hosts(listed(hosts), options.ssh)
    _check_bench(options, rollback, out)
    if out is not None:
        check_report_file(out)
    show = progress or quiet
    if rollback:
        if contents not in (None, BundleOptions()):
            raise BadConfig(
                "rollback (--rollback) goes back to what is on the board; nothing is bundled. Leave its options out"
            )
        results = _all(targets, _rollback_work(source), show)
    else:
        trusted = [key for path in listed(options.trust) for key in trust.read_keys(path)] or None
        file = _bundle_file(source, board, contents, show)
        with tempfile.TemporaryDirectory(prefix="edgekit-flash-") as folder:
            work = _flash_work(file, Path(folder) / "bundle", board, options, trusted, show)
            results = _all(targets, work, show)
    measured = [result.row for result in results if result.row is not None]
    if out is not None and measured:
        with new_file(out) as handle:
            handle.write(report_json(measured))
    return results


def _all(hosts: Sequence[Host], work: Work, show: HostProgress) -> list[Flashed]:
    """Every host in a thread of its own. An interruption cuts the connections, so that no thread is waited for long."""
    with ThreadPoolExecutor(min(MOST_AT_ONCE, len(hosts))) as pool:
        running = [pool.submit(_one, host, work, show) for host in hosts]
        try:
            return [future.result() for future in running]
        except BaseException:
            for host in hosts:
                host.cut()
            raise


def _hosts(names: Sequence[str], options: SshOptions) -> list[Host]:
    if not names:
        raise BadConfig("hosts: none given; name at least one as ssh takes it (--host user@board)")
    twice = sorted({name for name in names if list(names).count(name) > 1})
    if twice:
        raise BadConfig(f"host given twice: {', '.join(twice)}")
    if options.config is not None and not Path(options.config).is_file():
        raise BadInput(f"{options.config}: no such file (--ssh-config)")
    return [Host(name, options) for name in names]


def _check_bench(options: FlashOptions, rollback: bool, out: str | Path | None) -> None:
    """Raises BadConfig for wishes that a bench which does not run would leave out, without a word."""
    names = [*options.of_the_bench(), *(["out"] if out is not None else [])]
    asked = ", ".join(f"{name} (--{name.replace('_', '-')})" for name in names)
    if asked and (rollback or not options.measure):
        without = "rollback (--rollback)" if rollback else "measure=False (--no-bench)"
        raise BadConfig(f"{asked}: of the bench, which {without} leaves out. Leave one of them away")
    if options.seconds is not None and not 0 < options.seconds < float("inf"):
        raise BadConfig(f"seconds: expected a number above 0, got {options.seconds:g} (--seconds)")


def _bundle_file(
    source: str | Path | None, board: str | None, contents: BundleOptions | None, show: HostProgress
) -> Path:
    """The bundle: the file that was given, or the one made of an artifact's folder beside it."""
    if source is None:
        raise BadConfig("source: nothing to flash; give an artifact's folder or a bundle, or rollback (--rollback)")
    path = Path(source)
    if is_bundle(path, contents):
        return path
    if not path.exists():
        raise BadInput(
            f"{path}: no such bundle or artifact folder. Make a bundle: edgekit bundle ARTIFACT --board BOARD"
        )
    if board is None:
        raise BadConfig(f"{path}: an artifact is bundled for a board; name it (--board jetson-tx2)")
    made = bundle(path, board=board, options=contents, progress=lambda phase, done, all_: show("", phase, done, all_))
    return Path(made["path"])


def _one(host: Host, work: Work, show: HostProgress) -> Flashed:
    result, started = Flashed(host.name, ""), time.monotonic()
    try:
        work(host, result, show)
        show(host.name, "done", 1, 1)
    except Exception as error:  # noqa: BLE001  whatever is wrong with one host, the rows of the others come home
        result.error, result.error_type = str(error), type(error).__name__
        if not isinstance(error, EdgeKitError):
            result.error = f"{host.name}: {result.error_type}: {error}"
            result.bug = None if isinstance(error, OSError) else error
        running = [name for name, state in result.steps.items() if state == "running"]
        result.steps.update(dict.fromkeys(running, "failed"))
        show(host.name, "failed", 0, 0)
    result.seconds = round(time.monotonic() - started, 1)
    return result


def _agent(host: Host) -> Agent:
    pyz = board_zip()
    agent = Agent(host, pyz, hashlib.sha256(pyz).hexdigest())
    agent.bring()
    return agent


def _who() -> str:
    return f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}, since {time.strftime('%H:%M:%S')}"


def _rollback_work(source: str | Path | None) -> Work:
    if source is not None:
        raise BadConfig("rollback (--rollback) goes back to the version that is on the board; leave the artifact out")

    def work(host: Host, result: Flashed, show: HostProgress) -> None:
        with _step(result, "connect", host, show):
            agent = _agent(host)
            facts = agent.call("identify")
            result.board, result.simulated = _name(facts), list(facts["simulated"])
        with agent.holding(_who()), _step(result, "rollback", host, show):
            state = agent.call("rollback")
            result.version, result.previous = state["current"], state["previous"]

    return work


def _name(facts: dict[str, Any]) -> str:
    """The profile that fits what a board says of itself; else what it calls itself."""
    found = recognise(facts["model"], facts["compatible"], facts["dts"])
    return found.name if found else str(facts["model"])


def _unlike(facts: dict[str, Any], found: Board | None) -> tuple[str, str]:
    """What a board is that a bundle is not for, and what to do for it."""
    if found is not None:
        return found.name, f"Make one for it: edgekit bundle ARTIFACT --board {found.name}"
    is_a = f"no board that EdgeKit knows: {facts['architecture']}, calls itself {identity.called(facts)}"
    return is_a, "Describe it in boards/NAME.yaml (docs/add-a-board.md), then: edgekit bundle ARTIFACT --board NAME"


def _flash_work(
    file: Path, place: Path, board: str | None, options: FlashOptions, trusted: list[bytes] | None, show: HostProgress
) -> Work:
    """The work on one host. The bundle is unpacked to ``place`` at once: a damaged one is refused before any work."""

    def check(found: archive.Bundle) -> None:
        trust.check_signature(found, trusted, str(file))
        name = found.index["board"]["name"]
        if board is not None and name != board:
            raise BadConfig(
                f"{file}: is a bundle for {name}, board (--board) says {board}. Bundle it again for that board"
            )

    found = archive.unpack(str(file), str(place), lambda done, total: show("", "check", done, total), check)
    profile = load_board(found.index["board"]["name"])
    if options.power_mode is not None:
        power.mode_number([mode.model_dump() for mode in profile.modes], options.power_mode)
    return _Job(file, place, found, profile, trusted, options).run


class _step:
    """Marks a step as running and then done, and tells the table."""

    def __init__(self, result: Flashed, name: str, host: Host, show: HostProgress) -> None:
        self._result, self._name, self._host, self._show = result, name, host, show
        self.outcome = "done"

    def __enter__(self) -> _step:
        self._result.steps[self._name] = "running"
        self._show(self._host.name, self._name, 0, 0)
        return self

    def __exit__(self, kind: type[BaseException] | None, *rest: object) -> None:
        self._result.steps[self._name] = self.outcome if kind is None else "failed"

    def progress(self, phase: str, done: int, total: int) -> None:
        self._show(self._host.name, phase, done, total)

    def skip(self, answer: dict[str, Any]) -> dict[str, Any]:
        """Pass an answer on; remember when the board had nothing to do."""
        if answer.get("skipped"):
            self.outcome = "skipped"
        return answer


class _Job:
    """One bundle onto one host, step by step; every step may be repeated. place: where the bundle is unpacked here."""

    def __init__(
        self,
        file: Path,
        place: Path,
        found: archive.Bundle,
        profile: Board,
        trusted: list[bytes] | None,
        options: FlashOptions,
    ) -> None:
        self.file, self.place, self.bundle, self.profile = file, place, found, profile
        self.trusted, self.options = trusted, options
        self._linted: dict[str | None, Report] = {}  # by the name of the software stack
        self._linting = threading.Lock()
        self.sha256 = _sha256(file)
        self.size = file.stat().st_size

    def run(self, host: Host, result: Flashed, show: HostProgress) -> None:
        with _step(result, "connect", host, show):
            agent = _agent(host)
            facts = agent.call("identify")
            result.board, result.simulated = self._check(host, facts), list(facts["simulated"])
            result.notes += self._check_stack(host, facts)
            self._check_parser(host, facts)
            result.version, result.previous = facts["store"]["current"], facts["store"]["previous"]
        with agent.holding(_who()):
            version = self._bring(agent, host, result, show)
            again = ["--force"] if self.options.force else []
            with _step(result, "build", host, show) as step:
                step.skip(agent.call("build", version, *again, progress=step.progress))
            with _step(result, "verify", host, show) as step:
                step.skip(agent.call("verify", version, *again, progress=step.progress))
            with _step(result, "activate", host, show) as step:
                state = agent.call("activate", version, progress=step.progress)
                result.version, result.previous = state["current"], state["previous"]
            if self.options.measure:
                with _step(result, "bench", host, show) as step:
                    told = step.skip(agent.call("bench", version, *self._wishes(), *again, progress=step.progress))
                    result.row = rows.row_from_board(told, self.profile, self.bundle.index, self.place)

    # -- the steps ----------------------------------------------------------------------------------------------------
    def _check(self, host: Host, facts: dict[str, Any]) -> str:
        """Refuse a board of another kind, with other software, or with too little room, before anything is copied."""
        found = recognise(facts["model"], facts["compatible"], facts["dts"])
        wanted = self.profile
        if not (found.name == wanted.name if found else identity.fits(wanted.identity.model_dump(), facts)):
            is_a, mend = _unlike(facts, found)
            raise BoardLacks(f"{host.name}: is {is_a}, the bundle is for {wanted.name}. Nothing was copied. {mend}")
        needed = self.size + self.bundle.size + SPARE
        if facts["disk_free_bytes"] < needed:
            raise BoardLacks(
                f"{host.name}: {facts['disk_free_bytes'] / 1e6:.0f} MB free at {facts['store']['home']}, needed are "
                f"{needed / 1e6:.0f} MB. Nothing was copied. Free some space, then repeat the same command"
            )
        return self.profile.name

    def _check_stack(self, host: Host, facts: dict[str, Any]) -> list[str]:
        """What to say of the board's software. Raises BoardLacks where the bundle does not fit it."""
        if not self.profile.stacks or not any(stack.l4t for stack in self.profile.stacks):
            return []
        try:
            stack, note = self.profile.stack_for(facts["l4t"], facts["tensorrt"])
        except BoardLacks as error:
            raise BoardLacks(f"{host.name}: runs L4T {facts['l4t']}: {error}. Nothing was copied") from error
        wanted = self.bundle.index["build"]["runtime"]
        if wanted.startswith("tensorrt") and wanted != stack.runtime:
            raise BoardLacks(
                f"{host.name}: runs L4T {facts['l4t']} with TensorRT {stack.tensorrt}, which takes {stack.runtime}; "
                f"the bundle is for {wanted}. Bundle again with --release '{stack.name}'"
            )
        return [note] if note else []

    def _check_parser(self, host: Host, facts: dict[str, Any]) -> None:
        """Refuse a Python without TensorRT, and a release that takes less than the one that was linted for."""
        if not self.bundle.index["build"]["runtime"].startswith("tensorrt"):
            return
        if facts["tensorrt"] == identity.UNKNOWN:
            raise BoardLacks(
                f"{host.name}: its {host.options.python} cannot load tensorrt. Nothing was copied. Name the one that "
                f"can, as JetPack's own: --python /usr/bin/python3; edgekit_board.pyz doctor says what it lacks"
            )
        stack = self.profile.stack_for(facts["l4t"], facts["tensorrt"])[0].name if self.profile.stacks else None
        report = self._lint(stack)
        if report.errors:
            release = f" --release '{stack}'" if stack else ""
            raise BoardLacks(
                f"{host.name}: runs {stack}, which cannot run this model ({counted(report.errors, 'fault')}). "
                f"{worst(report)} Nothing was copied. All of them: "
                f"edgekit lint ARTIFACT --board {self.profile.name}{release}"
            )

    def _lint(self, stack: str | None) -> Report:
        """Once for all hosts that run the same."""
        from ..conversion.lint import lint

        with self._linting:
            if stack not in self._linted:
                self._linted[stack] = lint(self.place / "artifact", board=self.profile.name, release=stack)
        return self._linted[stack]

    def _bring(self, agent: Agent, host: Host, result: Flashed, show: HostProgress) -> str:
        """Copy and install the bundle unless the version is there and whole. Returns the version's name."""
        name = self.bundle.digest[:16]
        with _step(result, "copy", host, show) as step:
            if name in agent.call("status")["versions"]:
                step.outcome = "skipped"
            else:
                self._copy(agent, step)
        with _step(result, "install", host, show) as step:
            keys = [part for key in self.trusted or () for part in ("--trust-key", key.hex())]
            if result.steps["copy"] == "skipped":
                try:
                    step.skip(agent.call("check", name, *keys))
                    return name
                except EdgeKitError:  # damaged there: bring it again
                    self._copy(agent, step)
            answer = agent.call("install", "--received", self.sha256, *keys, progress=step.progress)
            return str(step.skip(answer)["version"])

    def _copy(self, agent: Agent, step: _step) -> None:
        """Send what is missing. What has arrived is kept when it is the beginning of this very file."""
        there = agent.call("partial", self.sha256)
        offset = there["bytes"] if _sha256(self.file, there["bytes"]) == there["sha256"] else 0
        if offset == self.size:
            return
        pieces = self._pieces(offset, step)
        arrived = agent.call("receive", self.sha256, "--offset", str(offset), stdin=pieces)
        if not arrived["complete"]:
            raise BoardLacks(
                f"{agent.host.name}: {arrived['bytes']} of {self.size} bytes arrived whole. Repeat the same command"
            )

    def _pieces(self, offset: int, step: _step) -> Iterator[bytes]:
        with self.file.open("rb") as handle:
            handle.seek(offset)
            for piece in iter(lambda: handle.read(_PIECE), b""):
                yield piece
                step.progress("copy", handle.tell(), self.size)

    def _wishes(self) -> list[str]:
        wishes = []
        if self.options.seconds is not None:
            wishes += ["--seconds", str(self.options.seconds)]
        if self.options.power_mode is not None:
            wishes += ["--power-mode", self.options.power_mode]
        return wishes + (["--jetson-clocks"] if self.options.jetson_clocks else [])


def _sha256(file: Path, size: int | None = None) -> str:
    """Of a file, or of its first ``size`` bytes."""
    digest, left = hashlib.sha256(), file.stat().st_size if size is None else size
    with file.open("rb") as handle:
        while left > 0:
            piece = handle.read(min(left, 1 << 20))
            if not piece:
                break
            digest.update(piece)
            left -= len(piece)
    return digest.hexdigest()


__all__ = ["NAME", "FlashOptions", "Flashed", "flash"]
