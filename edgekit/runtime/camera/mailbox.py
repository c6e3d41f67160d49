"""Hand-over between two threads: one slot or a bounded line, so that nothing can pile up."""

import threading
from collections import deque
from typing import Any

from .frames import clock


class Queue(object):
    """A bounded line for sinks that record: ``put`` refuses when it is full (or waits, ``lossless``)."""

    _newest_wins = False

    def __init__(self, length, lossless=False):
        self._length = length
        self._lossless = lossless
        self._changed = threading.Condition()
        self._items: Any = deque()
        self._closed = False

    def put(self, item):
        """Leave an item. Returns what is lost: ``item`` where there is no place or all is closed; else None."""
        with self._changed:
            while self._lossless and self._full() and not self._closed:
                self._changed.wait()
            if self._closed or (self._full() and not self._newest_wins):
                return item
            lost = self._items.popleft() if self._full() else None
            self._items.append(item)
            self._changed.notify_all()
            return lost

    def _full(self):
        return len(self._items) >= self._length

    def take(self, timeout=None):
        """Wait for an item and take it. None after ``timeout`` seconds, or when it is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self):
        """No more items. What is in it can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self):
        """Take items until it is closed and empty."""
        return iter(self.take, None)


class Mailbox(Queue):
    """One slot. The newest item wins: ``put`` overwrites what nobody has taken yet, and returns that.

    lossless: ``put`` waits until the slot is free instead; for files that are worked through without loss
    """

    _newest_wins = True

    def __init__(self, lossless=False):
        super().__init__(1, lossless)


class Pace(object):
    """Waits for the moments of a real-time clock: ``until(seconds)`` after the first call's moment."""

    def __init__(self, stop):
        self._stop = stop  # threading.Event that ends a wait
        self._zero = None

    def until(self, seconds):
        """Wait until ``seconds`` of the source's own time have passed since its start; False when stopped."""
        if self._zero is None:
            self._zero = clock() - seconds
        return not self._stop.wait(max(0.0, self._zero + seconds - clock()))
