"""Starting a twin: a user of its own, a Python 3.6 with the simulators, and an sshd on loopback with its own keys."""

from __future__ import annotations

import ctypes
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from .sysroot import make_sysroot

HERE = Path(__file__).resolve().parent
USER = "edgekit-twin"
SSHD = "/usr/sbin/sshd"

_SESSION = """\
#!/bin/sh
# What the twin's sshd runs in place of the command: the twin's world, a fault if one is laid, then the command.
export HOME={home} PATH={bin}:/usr/bin:/bin EDGEKIT_SYSROOT={sysroot} LD_LIBRARY_PATH={python}/lib
export EDGEKIT_CACHE={home}/.cache/edgekit EDGEKIT_CUDA_GRAPH=0 EDGEKIT_CUDA_PREPROCESS=0
unset EDGEKIT_HOME
cd "$HOME"
CUT="kill -9 $(ps -o ppid= -p $PPID)"
for hook in {hooks}/*; do
  [ -e "$hook" ] || continue
  case "$SSH_ORIGINAL_COMMAND" in *".pyz $(basename "$hook") --json"*) . "$hook" ;; esac
done
exec sh -c "$SSH_ORIGINAL_COMMAND"
"""
_SSHD_CONFIG = """\
Port {port}
ListenAddress 127.0.0.1
HostKey {folder}/host_key
PidFile {folder}/sshd.pid
AuthorizedKeysFile {folder}/authorized_keys
AllowUsers {user}
PasswordAuthentication no
KbdInteractiveAuthentication no
UsePAM no
StrictModes no
PermitRootLogin prohibit-password
ForceCommand {folder}/session.sh
MaxStartups 100
LogLevel ERROR
"""
_CLIENT_CONFIG = """\
Host {name}
  HostName 127.0.0.1
  Port {port}
  User {user}
  IdentityFile {folder}/client_key
  IdentitiesOnly yes
  UserKnownHostsFile {folder}/known_hosts
  GlobalKnownHostsFile /dev/null
  HostKeyAlgorithms ssh-ed25519
"""


def why_not() -> str | None:
    """Why there can be no twin here, or None."""
    programs = ("ssh", "ssh-keygen", "ps", *(("useradd", "usermod") if os.geteuid() == 0 else ()))
    missing = [name for name in programs if shutil.which(name) is None]
    missing += [] if Path(SSHD).exists() else ["sshd"]
    if missing:
        return f"the TX2 twin needs {', '.join(missing)}: apt-get install openssh-server openssh-client procps passwd"
    if not os.environ.get("EDGEKIT_PYTHON36"):
        return "the TX2 twin needs EDGEKIT_PYTHON36=DIR/bin/python; make it: tests/runtime/make_python36_env.sh DIR"
    return None


@dataclass(frozen=True)
class World:
    """What all twins of a test run share: a folder that another user can read, the Python of the board, a user."""

    folder: Path
    python: Path
    user: str
    made_user: bool = False

    @classmethod
    def make(cls) -> World:
        folder = Path(tempfile.mkdtemp(prefix="edgekit-twin-"))
        folder.chmod(0o755)
        _copy_python(Path(os.environ["EDGEKIT_PYTHON36"]), folder / "python")
        user = USER if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name
        made = user == USER and _make_user(folder)
        return cls(folder, folder / "python", user, made)

    def remove(self) -> None:
        if self.made_user:
            subprocess.run(["userdel", USER], check=False, capture_output=True)
        shutil.rmtree(self.folder, ignore_errors=True)


def _make_user(folder: Path) -> bool:
    """Whether the user was made now; another test run may have done it."""
    Path("/run/sshd").mkdir(exist_ok=True)  # sshd's own, for privilege separation
    try:
        pwd.getpwnam(USER)
    except KeyError:
        pass
    else:
        return False
    command = ["useradd", "--no-create-home", "--home-dir", folder, "--shell", "/bin/sh", USER]
    subprocess.run(command, check=True, capture_output=True)
    # no password can match, and the account is not locked: sshd lets only an unlocked one in by key
    subprocess.run(["usermod", "--password", "*", USER], check=True, capture_output=True)
    return True


def _copy_python(executable: Path, target: Path) -> None:
    """The interpreter, its library and its packages in one folder, as links where possible, and the simulators."""
    ask = "import sys, sysconfig; print(sys.base_prefix); print(sysconfig.get_path('purelib'))"
    said = subprocess.run([executable, "-c", ask], check=True, capture_output=True, text=True, env=clean_environment())
    base, packages = map(Path, said.stdout.split())
    library = target / "lib" / "python3.6"
    # compiled files stay valid, for a link keeps the source's time; without them each start would compile anew
    ignore = shutil.ignore_patterns("test", "tests", "site-packages", "idlelib", "tkinter", "*.a")
    shutil.copytree(base / "lib" / "python3.6", library, copy_function=_link, ignore=ignore)
    (target / "bin").mkdir()
    _link(str((base / "bin" / "python3.6").resolve()), str(target / "bin" / "python3"))
    for shared in (base / "lib").glob("libpython3.6*.so*"):
        _link(str(shared.resolve()), str(target / "lib" / shared.name))
    skip = shutil.ignore_patterns("pip*", "setuptools*", "wheel*")
    shutil.copytree(packages, library / "site-packages", copy_function=_link, ignore=skip, symlinks=True)
    for package in ("tensorrt", "pycuda"):
        shutil.copytree(HERE / "simulator" / package, library / "site-packages" / package)


def _link(source: str, target: str) -> None:
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def clean_environment() -> dict[str, str]:
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "EDGEKIT_"))}


class Twin:
    """One simulated board. ``config`` is the ssh_config under which ``name`` reaches it."""

    def __init__(self, world: World, name: str, kind: str = "tx2") -> None:
        self.world, self.name = world, name
        self.folder = Path(tempfile.mkdtemp(prefix=f"{name}-", dir=world.folder))
        self.folder.chmod(0o755)
        self.home, self.sysroot, self.hooks = (self.folder / part for part in ("home", "sysroot", "hooks"))
        self.port = _free_port()
        self._sshd: subprocess.Popen[bytes] | None = None
        make_sysroot(self.sysroot, kind)
        for place in (self.home, self.hooks):
            place.mkdir()
        self._write()
        self._give_to_user(self.home, self.sysroot)

    @property
    def config(self) -> Path:
        return self.folder / "ssh_config"

    @property
    def edgekit(self) -> Path:
        """EdgeKit's folder on the board."""
        return self.home / ".edgekit"

    def _write(self) -> None:
        values = {"folder": self.folder, "port": self.port, "user": self.world.user, "name": self.name}
        for key in ("host_key", "client_key"):
            _keygen(self.folder / key)
        shutil.copy(self.folder / "client_key.pub", self.folder / "authorized_keys")
        public = (self.folder / "host_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")
        (self.folder / "sshd_config").write_text(_SSHD_CONFIG.format(**values))
        self.config.write_text(_CLIENT_CONFIG.format(**values))
        tools = f"{self.world.python}/bin:{HERE / 'bin'}" if _readable(HERE) else self._own_tools()
        session = self.folder / "session.sh"
        places = {"home": self.home, "sysroot": self.sysroot, "hooks": self.hooks, "python": self.world.python}
        session.write_text(_SESSION.format(bin=tools, **places))
        session.chmod(0o755)

    def _own_tools(self) -> str:
        """A copy of the simulated commands, where the twin's user can read it."""
        shutil.copytree(HERE / "bin", self.folder / "bin")
        return f"{self.world.python}/bin:{self.folder / 'bin'}"

    def _give_to_user(self, *places: Path) -> None:
        if os.geteuid() == 0:
            subprocess.run(["chown", "-R", self.world.user, *places], check=True)

    def start(self) -> Twin:
        command = [SSHD, "-D", "-f", self.folder / "sshd_config", "-E", self.folder / "sshd.log"]
        self._sshd = subprocess.Popen(
            command, start_new_session=True, env=clean_environment(), preexec_fn=_die_with_parent
        )
        deadline = time.monotonic() + 20
        while not _listens(self.port):
            if self._sshd.poll() is not None or time.monotonic() > deadline:
                raise RuntimeError(f"sshd does not start: {(self.folder / 'sshd.log').read_text()}")
            time.sleep(0.05)
        return self

    def stop(self) -> None:
        if self._sshd is not None:
            self._sshd.terminate()
            self._sshd.wait()
            self._sshd = None

    # -- a user at the board's own prompt -----------------------------------------------------------------------------
    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        ssh = ["ssh", "-F", self.config, "-o", "BatchMode=yes", self.name, command]
        return subprocess.run(ssh, capture_output=True, text=True, env=clean_environment(), timeout=120, check=False)

    def upload(self, folder: Path, name: str) -> str:
        """The folder's copy in the board's home, by its name."""
        shutil.copytree(folder, self.home / name)
        self._give_to_user(self.home / name)
        return name

    # -- faults -------------------------------------------------------------------------------------------------------
    def lay(self, verb: str, script: str) -> None:
        """Run ``script`` when the board is asked for ``verb``, before it; ``$CUT`` ends the connection."""
        (self.hooks / verb).write_text(script)

    def mend(self) -> None:
        for hook in self.hooks.iterdir():
            hook.unlink()

    def lose_connection_at(self, verb: str) -> None:
        self.lay(verb, "$CUT\nexit\n")

    def allow_sudo(self) -> None:
        (self.sysroot / "var/sudo").touch()

    def change_host_key(self) -> None:
        """What is known is another key than the one that answers."""
        _keygen(self.folder / "another_key")
        public = (self.folder / "another_key.pub").read_text()
        (self.folder / "known_hosts").write_text(f"[127.0.0.1]:{self.port} {public}")

    def forget_host_key(self) -> None:
        (self.folder / "known_hosts").write_text("")


def _keygen(file: Path) -> None:
    file.unlink(missing_ok=True)
    command = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", "edgekit-twin", "-f", str(file)]
    subprocess.run(command, check=True)


def _die_with_parent() -> None:
    """No sshd may stay behind when the tests are killed (prctl PR_SET_PDEATHSIG)."""
    ctypes.CDLL(None).prctl(1, signal.SIGTERM)


def _readable(path: Path) -> bool:
    """Whether every user can get there."""
    return all(parent.stat().st_mode & 0o005 == 0o005 for parent in (path, *path.parents))


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def _listens(port: int) -> bool:
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def main() -> None:
    """``python -m tests.twin.twin``: start a twin by hand and say how to reach it; Ctrl-C ends it."""
    reason = why_not()
    if reason:
        sys.exit(reason)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))  # so that the sshd is stopped
    world = World.make()
    twin = Twin(world, "twin")
    try:
        twin.start()
        print(
            f"a SIMULATED TX2 answers: edgekit flash ARTIFACT --board jetson-tx2 --host twin --ssh-config {twin.config}"
        )
        while True:
            time.sleep(3600)
    except KeyboardInterrupt:
        pass
    finally:
        twin.stop()
        world.remove()


if __name__ == "__main__":
    main()
