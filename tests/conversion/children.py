"""Functions that tests run in a child process."""

import os
import signal
import subprocess
import sys
import time


def die(name):
    os.kill(os.getpid(), getattr(signal, name))


def chatter(text):
    """Noise on both streams, from Python and from below it."""
    print(text)
    sys.stderr.write(text)
    os.write(1, text.encode())
    return len(text)


def fail(text):
    raise RuntimeError(text)


def count(total, progress):
    for done in range(total):
        progress(done + 1, total)
    return total


def family(file, progress):
    """Start a grandchild, tell who we are, and wait for ever."""
    grandchild = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    with open(file, "w") as handle:
        handle.write(f"{os.getpid()} {grandchild.pid}")
    progress(0, 1)
    time.sleep(600)


def write(path):
    with open(path, "w", encoding="utf-8") as handle:
        handle.write("done")
