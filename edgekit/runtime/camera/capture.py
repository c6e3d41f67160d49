"""The capture thread: opens the source, gives every picture its moment, opens it again when it broke off.

A driver that hangs cannot be interrupted from Python. So a thread that has been silent too long is given up (it may
hang for ever, nobody listens to it) and a new one opens the source again.
"""

import threading
from typing import Any

import cv2
import numpy as np

from ..errors import BadInput, EdgeKitError
from .frames import Frame, clock
from .health import PictureCheck
from .mailbox import Pace

RETRY_FIRST, RETRY_MOST = 0.5, 5.0  # seconds between two attempts to open a source that was lost
MOST_CORRUPT = 300  # pictures in a row that cannot be used, before the source is opened again


class Capture(object):
    """``start(deliver)`` calls ``deliver(Frame)`` from a thread of its own until the source ends or ``stop`` is set.

    make_source: gives a new Source; real_time: whether a file keeps its own pace; loop: whether it starts anew
    timeout: seconds without a picture after which a source counts as silent
    ``watch()`` must be called now and then; it raises BadInput when the source never gave a picture that can be shown.
    """

    def __init__(self, make_source, stats, stop, timeout=10.0, real_time=True, loop=False):
        self._make_source = make_source
        self._stats = stats
        self._stop = stop
        self._timeout = timeout
        self._real_time = real_time
        self._loop = loop
        self._thread: Any = None
        self._deliver: Any = None
        self._error: Any = None
        self._heard, self._delivering = clock(), False
        self._index = 0
        self._live = True  # of the source that was opened last, which alone knows what an address turned out to be
        self.rate: Any = None  # frames a second of a file, by its own word
        self.length: Any = None  # pictures of a file or folder, by its own word
        self.missing = 0  # pictures of a file that was cut off
        self._noted: Any = set()
        self.state = "opening"  # opening, live, lost, ended
        self.check = PictureCheck(stats)

    def start(self, deliver):
        self._deliver = deliver
        self._begin()

    @property
    def ended(self):
        return self.state == "ended"

    @property
    def connected(self):
        return self._index > 0

    def watch(self):
        """Raise what went wrong at the first opening; give up a thread that hangs and begin a new one."""
        if self._error is not None:
            raise self._error
        quiet = 0.0 if self._delivering else clock() - self._heard
        if self.ended or self._stop.is_set() or quiet < self._timeout:
            return
        source = self._make_source()
        if not self.connected:
            raise BadInput(
                "{}: no picture within {:g} s that can be shown. Is the address right, and does the camera run? "
                "A slow source gets more time with --timeout SECONDS.".format(source.shown, self._timeout)
            )
        if not self._comes_again():
            raise BadInput(
                "{}: no picture for {:g} s after {} of them. Can the disk be read? A slow one gets more time with "
                "--timeout SECONDS.".format(source.shown, self._timeout, self._index)
            )
        self._lost("silent for {:g} s".format(self._timeout))
        self._begin()

    def join(self, timeout):
        """Wait for the thread; one that hangs in a driver is left behind."""
        if self._thread is not None:
            self._thread.join(timeout)

    # -- the thread -----------------------------------------------------------------------------------------------
    def _begin(self):
        self._heard = clock()
        self._thread = threading.Thread(target=self._run, name="capture", daemon=True)
        self._thread.start()

    def _mine(self):
        """Whether the calling thread is the one that is listened to."""
        return threading.current_thread() is self._thread and not self._stop.is_set()

    def _run(self):
        try:
            self._open_and_read()
        finally:
            if self._mine() or self._stop.is_set():
                self._stats.cpu("capture", last=True)

    def _comes_again(self):
        """Whether opening the source again goes on; a file would begin anew, and its pictures would count twice."""
        return self._live or self._loop

    def _open_and_read(self):
        wait = RETRY_FIRST
        source: Any = None
        while self._mine():
            try:
                source = self._make_source()
                with source:
                    taken = self._read(source)
                if not self._mine():
                    return
                self._tell_missing(source)
                if not source.live and not (self._loop and taken):
                    self._end(source)
                    return
                wait = RETRY_FIRST if taken else wait
                if source.live:
                    self._lost("broke off")
            except (EdgeKitError, OSError, cv2.error) as error:
                if not self._mine():
                    return
                reason = " ".join(str(error).split()).rstrip(".")
                if not self.connected or not self._comes_again():
                    told = source is None or isinstance(error, EdgeKitError)
                    self._error = error if told else BadInput("{}: cannot be read ({})".format(source.shown, reason))
                    return
                self._lost("cannot be opened again ({})".format(reason))
                wait = min(2 * wait, RETRY_MOST)
            if self.connected:
                self._heard = clock()
            if self.state == "lost" and self._stop.wait(wait):
                return

    def _tell_notes(self, source):
        """Once, however often it is opened again."""
        for note in source.notes:
            if note not in self._noted:
                self._noted.add(note)
                self._stats.event(note)

    def _tell_missing(self, source):
        if source.missing and not self.missing:
            self.missing = source.missing
            self._stats.event("the file is cut off: about {} of its pictures are missing".format(source.missing))

    def _end(self, source):
        if not self.connected:
            self._error = BadInput("{}: not one picture in it can be read.".format(source.shown))
            return
        self.state = "ended"

    def _read(self, source):
        """Deliver the pictures of one opening. Returns how many there were."""
        pace, taken, bad = Pace(self._stop), 0, 0
        paced = self._real_time and not source.live
        self.rate, self.length, self._live = source.rate, source.length, source.live
        self._tell_notes(source)
        for picture in source:
            if not self._mine():
                break
            if self.connected or not source.live:
                self._heard = clock()
            image = usable(picture.image)
            if image is None:
                self._stats.corrupted()
                bad += 1
                if source.live and bad >= MOST_CORRUPT:
                    break
                continue
            if paced and not self._in_time(pace, picture.seconds):
                break
            bad, taken = 0, taken + 1
            self._take(image, picture)
        return taken

    def _in_time(self, pace, seconds):
        """Wait for a picture's moment, in which nobody expects another one. False: stopped meanwhile."""
        self._delivering = True
        going_on = pace.until(seconds)
        self._heard, self._delivering = clock(), False
        return going_on

    def _take(self, image, picture):
        moment = clock()
        if self.state == "lost":
            self._stats.event("the source is back", "info")
        self.state, self._heard = "live", moment
        self.check(image, moment)
        self._stats.capture(moment)
        seconds = None if self._real_time else picture.seconds
        frame = Frame(image, self._index, moment, seconds, picture.name)
        self._index += 1
        self._delivering = True  # a lossless pipeline may keep us waiting
        self._deliver(frame)
        self._heard, self._delivering = clock(), False
        self._stats.cpu("capture")

    def _lost(self, why):
        if self.state != "lost":
            self.state = "lost"
            self._stats.reconnects += 1
            self._stats.event("the source {}; trying to open it again".format(why))


def usable(image):
    """The picture as uint8 BGR [h, w, 3]; None when it is none: nothing, no pixels, or of an odd type."""
    if not isinstance(image, np.ndarray) or image.dtype != np.uint8 or image.size == 0:
        return None
    if image.ndim == 2 or (image.ndim == 3 and image.shape[2] == 1):
        return cv2.cvtColor(image, cv2.COLOR_GRAY2BGR)
    if image.ndim == 3 and image.shape[2] == 4:
        return cv2.cvtColor(image, cv2.COLOR_BGRA2BGR)
    return image if image.ndim == 3 and image.shape[2] == 3 else None
