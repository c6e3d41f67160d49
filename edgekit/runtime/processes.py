"""What every child process of this package has in common. Standard library only."""

import os
import signal

# of the libraries that compute; numpy reads them when it is loaded
THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
# the folder, or the zip archive, that holds the package
_PACKAGE_ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))


def environment(**more):
    """This process's variables, with which a child finds the modules of this package; and ``more``."""
    path = os.pathsep.join(filter(None, [_PACKAGE_ROOT, os.environ.get("PYTHONPATH")]))
    return dict(os.environ, PYTHONPATH=path, **more)


def last_words(output):
    """The last line with a word on it of a file, opened in bytes, that took a child's output."""
    size = output.seek(0, os.SEEK_END)
    output.seek(max(0, size - 4096))
    lines = [line.strip() for line in output.read().decode("utf-8", "replace").splitlines() if line.strip()]
    return lines[-1] if lines else ""


def kill_group(process):
    """End a child that leads a group of its own, with everything it started, if it has not ended by itself."""
    if process.poll() is None:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
