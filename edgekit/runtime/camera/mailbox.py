"""Hand-over between two threads: one slot, so that nothing can pile up."""

import threading
from collections import deque
from typing import Any

from .frames import clock


class Mailbox(object):
    """One slot. The newest item wins: ``put`` overwrites what nobody has taken yet.

    lossless: ``put`` waits until the slot is free instead; for files that are worked through without loss
    """

    def __init__(self, lossless=False):
        self._lossless = lossless
        self._changed = threading.Condition()
        self._item: Any = None
        self._closed = False

    def put(self, item):
        """Leave an item. Returns what is lost: the item it replaced, or after ``close`` itself; else None."""
        with self._changed:
            while self._lossless and self._item is not None and not self._closed:
                self._changed.wait()
            if self._closed:
                return item
            lost, self._item = self._item, item
            self._changed.notify_all()
            return lost

    def take(self, timeout=None):
        """Wait for an item and take it. None after ``timeout`` seconds, or when the box is closed and empty."""
        with self._changed:
            self._changed.wait_for(lambda: self._item is not None or self._closed, timeout)
            item, self._item = self._item, None
            self._changed.notify_all()
            return item

    def close(self):
        """No more items. What lies in the box can still be taken."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self):
        """Take items until the box is closed and empty."""
        return iter(self.take, None)


class Queue(object):
    """A bounded line for sinks that record: ``put`` refuses when it is full (or waits, ``lossless``)."""

    def __init__(self, length, lossless=False):
        self._length = length
        self._lossless = lossless
        self._changed = threading.Condition()
        self._items: Any = deque()
        self._closed = False

    def put(self, item):
        """Add an item. Returns it when there was no place for it, or the queue is closed; else None."""
        with self._changed:
            while self._lossless and len(self._items) >= self._length and not self._closed:
                self._changed.wait()
            if self._closed or len(self._items) >= self._length:
                return item
            self._items.append(item)
            self._changed.notify_all()
            return None

    def take(self, timeout=None):
        """As of Mailbox."""
        with self._changed:
            self._changed.wait_for(lambda: self._items or self._closed, timeout)
            item = self._items.popleft() if self._items else None
            self._changed.notify_all()
            return item

    def close(self):
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def __iter__(self):
        return iter(self.take, None)


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
