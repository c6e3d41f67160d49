"""EdgeKit's folder on a board: the versions, which one is current, what is half received, and who works on it.

~/.edgekit/                EDGEKIT_HOME names another place
  tools/SHA.pyz            the runtime, sent once per content
  incoming/SHA.part        a bundle that is being received
  versions/DIGEST/         an unpacked bundle; beside its files engine/, engine.json, verify.json, bench.json
  seal.key                 what makes the seals of engine.json and verify.json, see Store.seal
  current, previous        links into versions/; replaced by a rename, so there is always one
  flash.lock, work.lock    who flashes, who works
"""

import contextlib
import fcntl
import hashlib
import hmac
import json
import os
import shutil
import time

from ..errors import ArtifactError, BadConfig, BoardBusy
from . import archive

HOME = "EDGEKIT_HOME"
SHORT = 16  # hex digits of a digest that name a version's folder
VERIFY = "verify.json"
_FOLDERS = ("tools", "incoming", "versions")
_WAIT_STEP = 0.5


def home_folder():
    """Where this user's store is, or would be."""
    return os.path.realpath(os.environ.get(HOME) or os.path.expanduser("~/.edgekit"))


class Store(object):
    """The folder of this user on this board; made on first use, readable and writable by this user only."""

    def __init__(self, home=None):
        self.home = os.path.realpath(home) if home else home_folder()
        for name in _FOLDERS:
            os.makedirs(os.path.join(self.home, name), mode=0o700, exist_ok=True)
        os.chmod(self.home, 0o700)  # an engine is native code: nobody else may put one here

    # -- versions ---------------------------------------------------------------------------------------------------
    def version_path(self, digest):
        """Folder of a version; ``digest`` may be the whole one or its first 16 digits."""
        name = str(digest)[:SHORT]
        if len(name) != SHORT or any(c not in "0123456789abcdef" for c in name):
            raise BadConfig("version: expected the first {} hex digits of a digest, got {!r}".format(SHORT, digest))
        return os.path.join(self.home, "versions", name)

    def resolve(self, wish=None):
        """The folder of a version: a digest, "current" (also None), "previous", or the path of an unpacked bundle."""
        if wish in (None, "current", "previous"):
            found = self._linked(wish or "current")
            if found is None:
                have = ", ".join(self.versions()) or "none"
                raise ArtifactError(
                    "{}: there is no {} version on this board; installed: {}. "
                    "Install one: edgekit_board.pyz install BUNDLE".format(self.home, wish or "current", have)
                )
            return found
        if os.path.isfile(os.path.join(str(wish), archive.INDEX)):
            return os.path.abspath(str(wish))
        return self._installed(wish)

    def _installed(self, digest):
        path = self.version_path(digest)
        if not os.path.isdir(path):
            have = ", ".join(self.versions()) or "none"
            raise ArtifactError("version {}: not installed here; installed: {}".format(digest, have))
        return path

    def versions(self):
        """Names of the installed versions, the newest first."""
        folder = os.path.join(self.home, "versions")
        names = [n for n in os.listdir(folder) if not n.startswith(".")]
        return sorted(names, key=lambda n: -os.stat(os.path.join(folder, n)).st_mtime)

    def _linked(self, link):
        path = os.path.join(self.home, link)
        target = os.path.realpath(path)
        inside = os.path.dirname(target) == os.path.realpath(os.path.join(self.home, "versions"))
        return target if os.path.islink(path) and inside and os.path.isdir(target) else None

    def _link(self, link, target):
        """Point a link to a version by one rename: a reader finds the old one or the new one."""
        beside = os.path.join(self.home, ".{}.{}".format(link, os.getpid()))
        if os.path.lexists(beside):
            os.unlink(beside)
        os.symlink(os.path.join("versions", os.path.basename(target)), beside)
        os.rename(beside, os.path.join(self.home, link))

    def activate(self, digest):
        """Make a verified version the current one; the one before becomes ``previous``. Returns both names."""
        target, before = self._installed(digest), self._linked("current")
        if not self._verified(target):
            raise ArtifactError(
                "version {}: its boxes were not verified on this board; the current one stays. "
                "Verify it: edgekit_board.pyz verify {}".format(os.path.basename(target), os.path.basename(target))
            )
        if before is not None and before != target:
            self._link("previous", before)
        if before != target:
            self._link("current", target)
        return self.state()

    def rollback(self):
        """Exchange current and previous; the previous one's files are verified first."""
        current, previous = self._linked("current"), self._linked("previous")
        if previous is None:
            raise ArtifactError("{}: there is no previous version to go back to; nothing was changed".format(self.home))
        archive.verify_folder(previous)
        if not self._verified(previous):
            raise ArtifactError(
                "{}: the previous version was not verified on this board; nothing was changed. Build and verify it: "
                "edgekit_board.pyz build previous; edgekit_board.pyz verify previous".format(previous)
            )
        self._link("current", previous)
        if current is not None:
            self._link("previous", current)
        return self.state()

    def _verified(self, folder):
        report = read_json(os.path.join(folder, VERIFY)) or {}
        seal = self.seal(VERIFY, os.path.basename(folder), report.get("artifact"))
        return bool(report.get("same")) and report.get("seal") == seal

    def seal(self, *words):
        """What only this store can write beside ``words``: files of a version that came from elsewhere lack it."""
        return hmac.new(self._key(), json.dumps(words).encode(), "sha256").hexdigest()

    def _key(self):
        path = os.path.join(self.home, "seal.key")
        kept = read_json(path)
        if not kept:
            kept = {"key": os.urandom(32).hex()}
            write_json(path, kept)
        return kept["key"].encode()

    @contextlib.contextmanager
    def set_aside(self, folder):
        """Move a damaged version away while a whole one takes its place; when that fails it comes back."""
        if not os.path.isdir(folder):
            yield
            return
        aside = os.path.join(os.path.dirname(folder), ".damaged-" + os.path.basename(folder))
        shutil.rmtree(aside, ignore_errors=True)
        os.rename(folder, aside)
        try:
            yield
        finally:
            if os.path.isdir(folder):
                shutil.rmtree(aside, ignore_errors=True)
            else:
                os.rename(aside, folder)

    def prune(self, keep):
        """Remove versions that are neither current, previous nor ``keep``; half received files; other programs.

        What is ``in_use`` stays. Returns the names of the versions. The work lock must be held.
        """
        linked = [self._linked("current"), self._linked("previous"), self.version_path(keep)]
        needed = {os.path.basename(path) for path in linked if path}
        versions, tools = os.path.join(self.home, "versions"), os.path.join(self.home, "tools")
        removed = [name for name in self.versions() if name not in needed and _unused(os.path.join(versions, name))]
        for name in removed:
            shutil.rmtree(os.path.join(versions, name), ignore_errors=True)
        for name in os.listdir(os.path.join(self.home, "incoming")):
            os.unlink(os.path.join(self.home, "incoming", name))
        for path in [os.path.join(tools, name) for name in os.listdir(tools)]:
            if _unused(path):
                os.unlink(path)
        return removed

    def state(self):
        """{"home", "current", "previous", "versions"}; names of versions, None where there is none."""
        links = {name: self._linked(name) for name in ("current", "previous")}
        named = {name: os.path.basename(path) if path else None for name, path in links.items()}
        return dict(named, home=self.home, versions=self.versions())

    # -- receiving --------------------------------------------------------------------------------------------------
    def partial(self, sha256):
        """How much of a file has arrived: {"bytes", "sha256" of those bytes, "complete"}."""
        path = self.incoming(sha256)
        if not os.path.exists(path):
            return {"bytes": 0, "sha256": hashlib.sha256().hexdigest(), "complete": False}
        digest = _sha256(path)
        return {"bytes": os.path.getsize(path), "sha256": digest, "complete": digest == sha256}

    def incoming(self, sha256):
        """Where a file with this hash is received."""
        if len(str(sha256)) != 64 or any(c not in "0123456789abcdef" for c in sha256):
            raise BadConfig("sha256: expected 64 hex digits, got {!r}".format(sha256))
        return os.path.join(self.home, "incoming", sha256 + ".part")

    def receive(self, sha256, offset, stream, progress=None):
        """Append a stream to what has arrived, from ``offset`` on, until it ends. Returns what ``partial`` does."""
        path = self.incoming(sha256)
        with open(path, "r+b" if os.path.exists(path) else "w+b") as handle:
            handle.seek(0, os.SEEK_END)
            if handle.tell() < offset:
                raise ArtifactError("{}: has {} bytes, asked to go on at {}".format(path, handle.tell(), offset))
            handle.truncate(offset)
            handle.seek(offset)
            shutil.copyfileobj(stream, handle, 1 << 18)
            handle.flush()
            os.fsync(handle.fileno())
        return self.partial(sha256)

    # -- one at a time ----------------------------------------------------------------------------------------------
    @contextlib.contextmanager
    def working(self, what, wait=600.0, progress=None):
        """Hold the work lock. An interrupted flash may have left a build that goes on: it is waited for."""
        with open(os.path.join(self.home, "work.lock"), "a+") as handle:
            self._take(handle, wait, progress)
            handle.truncate(0)
            handle.write("{} (process {})".format(what, os.getpid()))
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)

    def _take(self, handle, wait, progress):
        deadline = time.monotonic() + wait  # a board without a clock of its own sets it when the network is there
        while not _try_lock(handle):
            if time.monotonic() >= deadline:
                raise BoardBusy("this board is at work: {}. Wait for its end, and repeat.".format(_holder(handle)))
            if progress is not None:
                progress("waiting for work begun earlier: " + _holder(handle), 0, 0)
            time.sleep(_WAIT_STEP)

    @contextlib.contextmanager
    def flashing(self, who):
        """Hold the flash lock, or raise BoardBusy naming its holder at once."""
        with open(os.path.join(self.home, "flash.lock"), "a+") as handle:
            if not _try_lock(handle):
                raise BoardBusy(
                    "another flash of this board is going on ({}). Wait for its end; after a lost connection "
                    "the board is free again within a minute.".format(_holder(handle))
                )
            handle.truncate(0)
            handle.write(who)
            handle.flush()
            try:
                yield
            finally:
                handle.truncate(0)


# -- what runs --------------------------------------------------------------------------------------------------------
@contextlib.contextmanager
def in_use(path):
    """While the block runs, ``prune`` leaves alone the version or the program of the store that ``path`` lies in.

    A program reads its modules when they are needed, and a camera runs for days. Anywhere else nothing is done.
    """
    entry = _entry(path)
    if entry is None:
        yield
        return
    handle = os.open(entry, os.O_RDONLY)
    try:
        fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def _entry(path):
    """The folder of the version, or the file of the program, that a path of the store lies in; None for another."""
    inside = os.path.relpath(os.path.realpath(path), home_folder()).split(os.sep)
    entry = os.path.join(home_folder(), *inside[:2])
    return entry if inside[0] in ("versions", "tools") and len(inside) > 1 and os.path.exists(entry) else None


def _unused(path):
    handle = os.open(path, os.O_RDONLY)
    try:
        return _try_lock(handle)
    finally:
        os.close(handle)


def _try_lock(handle):
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _holder(handle):
    handle.seek(0)
    return handle.read(200) or "unknown"


def _sha256(path):
    digest = hashlib.sha256()
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def read_json(path):
    """The object in a small JSON file of ours, or None when it is missing or was cut short."""
    try:
        with open(path, encoding="utf-8") as handle:
            value = json.load(handle)
    except (OSError, ValueError):
        return None
    return value if isinstance(value, dict) else None


def write_json(path, value):
    """Whole or not at all. Without ``runtime.artifact``, which brings numpy: this must work where numpy is broken."""
    beside = "{}.{}".format(path, os.getpid())
    try:
        with open(beside, "w", encoding="utf-8") as handle:
            json.dump(value, handle, indent=1, sort_keys=True)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.rename(beside, path)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)
