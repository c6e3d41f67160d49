"""Ctrl-C and its like as an event, so that nothing is interrupted in its middle: no library's loading, no record."""

import contextlib
import signal
import sys
import threading

_NAMES = ("SIGINT", "SIGTERM", "SIGHUP")
_PATIENCE = 3  # signals after which closing is given up


class Signals(object):
    """While the block runs, a signal sets ``stop``; the third one raises KeyboardInterrupt.

    count: signals that came. Elsewhere than in the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self, stop):
        self._stop = stop
        self._before = {}
        self.count = 0

    def __enter__(self):
        if threading.current_thread() is threading.main_thread():
            numbers = [getattr(signal, name) for name in _NAMES]
            if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:  # nohup: it is to outlive the terminal
                numbers.remove(signal.SIGHUP)
            self._before = {number: signal.signal(number, self._come) for number in numbers}
        return self

    def __exit__(self, *exc_info):
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _come(self, signum, frame):
        self.count += 1
        self._stop.set()
        if self.count >= _PATIENCE:
            raise KeyboardInterrupt


@contextlib.contextmanager
def held():
    """Hold Ctrl-C back while modules load: in the middle of that numpy turns it into an error of its own."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGINT])
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def leave(code):
    """End the program. What was written stands: one Ctrl-C more, while Python shuts down, makes no failure of it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    sys.exit(code)
