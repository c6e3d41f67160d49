"""``python3 edgekit_board.pyz VERB``: the command on a board. Only the standard library is loaded before a verb runs.

With ``--json`` every line on stdout is one JSON object: {"phase", "done", "total"} any number of times, and at the end
{"result": ...} or {"error": message, "type": class name}. ``edgekit flash`` talks to it in this way.
"""

import argparse
import json
import os
import platform
import select
import signal
import sys
import traceback

from .. import errors
from ..errors import EdgeKitError
from . import archive, identity, trust
from .store import Store, in_use

BUG, MISTAKE, INTERRUPTED = 70, 2, 130  # as the workstation's
HEARTBEAT = 45.0  # seconds without a word from the workstation after which a flash is taken for dead
_PROGRAM = "edgekit_board.pyz"


def identify(arguments, say):
    """Say which board this is."""
    from .steps import tensorrt_here

    found = identity.identity()
    found["tensorrt"], signs = tensorrt_here()
    found["simulated"] += signs
    store = Store()
    return dict(found, store=store.state(), **identity.resources(store.home))


def doctor(arguments, say):
    """Say what works on this board, and how to mend what does not."""
    from .doctor import checkup

    return checkup(Store().home, say.progress)


def status(arguments, say):
    """Say which versions are installed and which one is current."""
    return Store().state()


def partial(arguments, say):
    """Say how much of a file has arrived."""
    return Store().partial(arguments.sha256)


def receive(arguments, say):
    """Append standard input to a file that is being received."""
    os.set_blocking(sys.stdin.fileno(), True)
    return Store().receive(arguments.sha256, arguments.offset, sys.stdin.buffer)


def install(arguments, say):
    """Check a bundle and unpack it as a version; one that is installed and whole already is left alone."""
    store = Store()
    path = store.incoming(arguments.bundle) if arguments.received else arguments.bundle
    with store.working("install", progress=say.progress):
        return _install(store, path, _trusted(store, arguments), say)


def _trusted(store, arguments):
    """Lists of keys, of each of which one must have signed: those of the command, and the board's own."""
    named = [key for path in arguments.trust or [] for key in trust.read_keys(path)]
    named += [bytes.fromhex(text) for text in arguments.trust_key or []]
    return [named or None, trust.board_keys(store.home)]


def _install(store, path, trusted, say):
    found = {}

    def check(bundle):
        for keys in trusted:
            found["signed_by"] = trust.check_signature(bundle, keys, path)
        identity.require_board(bundle.index["board"], identity.identity())

    bundle = archive.read_bundle(path)
    check(bundle)
    folder = store.version_path(bundle.digest)
    answer = {"version": os.path.basename(folder), "digest": bundle.digest, "skipped": _whole(folder)}
    if not answer["skipped"]:
        with store.set_aside(folder):
            archive.unpack(path, folder, lambda done, total: say.progress("unpack", done, total), check)
    if os.path.dirname(path) == os.path.join(store.home, "incoming"):
        os.unlink(path)
    return dict(answer, **found)


def check(arguments, say):
    """Say whether a version is installed, whole, trusted and for this board."""
    store = Store()
    folder = store.resolve(arguments.version)
    bundle = archive.verify_folder(folder)
    for keys in _trusted(store, arguments):
        trust.check_signature(bundle, keys, folder)
    identity.require_board(bundle.index["board"], identity.identity())
    return {"version": os.path.basename(folder), "digest": bundle.digest, "skipped": True}


def _whole(folder):
    if not os.path.isdir(folder):
        return False
    try:
        archive.verify_folder(folder)
    except errors.ArtifactError:
        return False
    return True


def build(arguments, say):
    """Build the engine of a version on this board."""
    from . import steps

    store = Store()
    with store.working("build", progress=say.progress):
        return steps.build(steps.open_version(store, arguments.version), say.progress, arguments.force)


def verify(arguments, say):
    """Compare the boxes of the golden images with those expected."""
    from . import steps

    store = Store()
    with store.working("verify", progress=say.progress):
        return steps.verify(steps.open_version(store, arguments.version), say.progress, arguments.force)


def bench(arguments, say):
    """Measure a version; what was measured is kept in its folder."""
    from . import steps

    store = Store()
    names = ("seconds", "count", "warmup", "power_mode", "jetson_clocks")
    wishes = {name: getattr(arguments, name) for name in names}
    with store.working("bench", progress=say.progress):
        version = steps.open_version(store, arguments.version)
        result = steps.bench(version, store, say.progress, wishes, arguments.force)
    return result if arguments.json else steps.summary(version, result)


def activate(arguments, say):
    """Make a verified version the current one."""
    store = Store()
    with store.working("activate", progress=say.progress):
        store.activate(arguments.version)
        removed = store.prune(arguments.version)
        return dict(store.state(), removed=removed)


def rollback(arguments, say):
    """Go back to the previous version."""
    store = Store()
    with store.working("rollback", progress=say.progress):
        return store.rollback()


def hold(arguments, say):
    """Hold the flash lock until standard input ends, or nothing is heard for a while."""
    with Store().flashing(arguments.who):
        say.result({"held": True})
        while select.select([sys.stdin], [], [], HEARTBEAT)[0]:
            if not os.read(sys.stdin.fileno(), 4096):
                break
    return {"held": False}


def camera(arguments, say):
    """Run a version on a camera: ``camera current --source csi://0``; ``camera --help`` tells its options."""
    try:
        from ..camera.cli import main as camera_main
    except ImportError as error:
        raise errors.MissingDependency(
            "camera: this {} does not carry it ({}). Make the bundle again with a newer EdgeKit.".format(
                _PROGRAM, error
            )
        ) from error
    rest = _camera_arguments(arguments.rest)
    with in_use(rest[0] if rest else ""):
        return camera_main(rest)


def _camera_arguments(rest):
    """An installed version becomes the folder that its runtime loads, and its runtime; any other folder is left."""
    store = Store()
    if not rest or rest[0].startswith("-") or os.path.isdir(rest[0]):
        return rest
    if rest[0] not in ["current", "previous"] + store.versions():
        have = ", ".join(store.versions()) or "none"
        raise errors.ArtifactError("{}: no version or folder of this name; installed: {}".format(rest[0], have))
    from .steps import open_version, runnable

    version = open_version(store, rest[0])
    runnable(version)
    runtime = [] if "--runtime" in rest else ["--runtime", version.runtime]
    return [version.model] + runtime + rest[1:]


VERBS = {
    function.__name__: function
    for function in (identify, doctor, status, install, build, verify, bench, activate, rollback, camera)
}
PLUMBING = {function.__name__: function for function in (partial, receive, hold, check)}


def parser():
    """The command line."""
    top = argparse.ArgumentParser(prog=_PROGRAM, description="EdgeKit on a board.")
    verbs = top.add_subparsers(dest="verb", metavar="VERB")
    for name, function in list(VERBS.items()) + list(PLUMBING.items()):
        settings = {} if name in PLUMBING else {"help": function.__doc__}  # type: dict
        one = verbs.add_parser(name, description=function.__doc__, **settings)
        one.add_argument("--json", action="store_true", help="print JSON lines")
        if name in ("activate", "check"):
            one.add_argument("version", help="first 16 digits of its digest, as status lists them")
        if name in ("build", "verify", "bench"):
            what = "first 16 digits of its digest, or the folder of an unpacked bundle; default: the current one"
            one.add_argument("version", nargs="?", help=what)
        if name in ("build", "verify", "bench"):
            one.add_argument("--force", action="store_true", help="also when it was done already")
        _OPTIONS.get(name, lambda one: None)(one)
    return top


def _install_options(one):
    one.add_argument("bundle", help="a bundle (.tar.gz)")
    one.add_argument("--received", action="store_true", help=argparse.SUPPRESS)
    _trust_options(one)


def _trust_options(one):
    one.add_argument("--trust", action="append", metavar="KEY.pub", help="only bundles signed by this key")
    one.add_argument("--trust-key", action="append", help=argparse.SUPPRESS)


def _bench_options(one):
    one.add_argument("--seconds", type=_from_zero(float), help="how long to measure")
    one.add_argument("--count", type=_from_zero(int), help="how many frames at least")
    one.add_argument("--warmup", type=_from_zero(int), help="frames before the timed ones")
    one.add_argument("--power-mode", help="nvpmodel's mode, by name or number, for the bench; needs root")
    one.add_argument(
        "--jetson-clocks", action="store_true", help="highest clocks for the time of the bench; needs root"
    )


def _from_zero(kind):
    def read(text):
        if not 0 <= kind(text) < float("inf"):
            raise ValueError
        return kind(text)

    read.__name__ = "{} from 0".format(kind.__name__)  # argparse: "invalid int from 0 value: '-5'"
    return read


def _receive_options(one):
    one.add_argument("sha256")
    one.add_argument("--offset", type=int, required=True)


_OPTIONS = {
    "install": _install_options,
    "check": _trust_options,
    "bench": _bench_options,
    "receive": _receive_options,
    "partial": lambda one: one.add_argument("sha256"),
    "hold": lambda one: one.add_argument("--who", default="somebody"),
    "camera": lambda one: one.add_argument("rest", nargs=argparse.REMAINDER),
}


class Talk(object):
    """Progress and answers on stdout. When nobody listens any more, the work goes on: it is not lost by that."""

    def __init__(self, as_json):
        self._json, self._shown, self._deaf = as_json, None, False

    def progress(self, phase, done, total):
        if self._json:
            self._write({"phase": phase, "done": done, "total": total})
        elif phase != self._shown:
            self._shown = phase
            self._line(sys.stderr, phase + " ...")

    def result(self, value):
        if self._json:
            self._write({"result": value})
        else:
            self._line(sys.stdout, json.dumps(value, indent=1, sort_keys=True))

    def error(self, error):
        if self._json:
            self._write({"error": str(error), "type": type(error).__name__})
        else:
            self._line(sys.stderr, "edgekit: {}".format(error))

    def _write(self, value):
        self._line(sys.stdout, json.dumps(value))

    def _line(self, stream, text):
        if self._deaf:
            return
        try:
            stream.write(text + "\n")
            stream.flush()
        except (BrokenPipeError, OSError):
            self._deaf = True


def main(argv):
    """Run one verb. Returns the exit code: 0, 2 a mistake that the user can mend, 70 a bug, 130 interrupted."""
    if sys.version_info < (3, 6):  # pragma: no cover
        sys.stderr.write("edgekit: needs Python 3.6 or later, this is {}\n".format(platform.python_version()))
        return MISTAKE
    if platform.machine() == "aarch64":
        os.environ.setdefault("OPENBLAS_CORETYPE", "ARMV8")  # numpy 1.19.5 guesses wrongly and dies of SIGILL
    if argv[:1] == ["camera"]:
        arguments = argparse.Namespace(verb="camera", json=False, rest=argv[1:])
    else:
        arguments = parser().parse_args(argv)
    if arguments.verb is None:
        parser().print_help()
        return MISTAKE
    return _call(arguments)


def _call(arguments):
    say = Talk(arguments.json)
    signal.signal(signal.SIGTERM, _stop)
    _mind_hangup(arguments.verb)
    try:
        with in_use(sys.argv[0]):
            answer = dict(VERBS, **PLUMBING)[arguments.verb](arguments, say)
    except EdgeKitError as error:
        say.error(error)
        return MISTAKE
    except OSError as error:
        say.error(_system(error))
        return MISTAKE
    except ImportError as error:
        say.error(_missing(error))
        return MISTAKE
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception:  # noqa: BLE001  the last line is what the workstation shows
        traceback.print_exc()
        return BUG
    if arguments.verb == "camera":
        return answer or 0
    if arguments.verb == "doctor" and not arguments.json:
        from .doctor import show

        show(answer, sys.stdout)
        return 0
    say.result(answer)
    return 0


def _mind_hangup(verb):
    """A lost connection does not end a build or leave the clocks up; a camera ends with its terminal, but for nohup."""
    if verb != "camera":
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
    elif signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:
        signal.signal(signal.SIGHUP, _stop)


def _missing(error):
    return errors.MissingDependency(
        "{}: {}. Which Python here has what, and what mends it: python3 {} doctor".format(
            sys.executable, error, _PROGRAM
        )
    )


def _system(error):
    return EdgeKitError(
        "{}: {}. What was there before is unchanged.".format(error.filename or "the system", error.strerror or error)
    )


def _stop(signum, frame):
    raise KeyboardInterrupt


__all__ = ["PLUMBING", "VERBS", "main", "parser"]
