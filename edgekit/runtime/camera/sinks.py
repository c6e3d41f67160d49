"""Where results go. Each sink has a thread of its own, so none can slow the inference; and what one loses is told.

A sink has ``open()``, ``write(result)``, ``close()``, a ``name``, and ``live``: whether only the newest result matters;
``view``: whether it makes pictures for people, who do not need every result.
"""

import errno
import threading
from typing import Any

import cv2

from ..errors import BadInput
from .mailbox import Mailbox, Queue
from .video import best_encoder, check_place, open_video

QUEUE = 8  # results that a recording sink may lag behind
BUSY_VIEW_FPS = 15.0  # pictures a second for people while the only core has more frames than it can take
_DISK_FULL = (errno.ENOSPC, errno.EDQUOT)


class Sink(object):
    name = "sink"
    live = view = False

    def open(self):
        """Take what is needed; EdgeKitError or OSError when it is not to be had."""

    def write(self, result):
        raise NotImplementedError(type(self).__name__ + ".write")

    def close(self):
        """Finish what was written. Called once, whatever happened before."""


class Headless(Sink):
    """Nothing but the numbers in the log."""

    name, live = "headless", True

    def write(self, result):
        """The statistics have it already."""


class Mp4(Sink):
    """The annotated picture. The first result's size is the video's; later ones are fitted into it.

    rate: gives the constant frames a second of a file that is worked through without loss; None for real time
    """

    name, view = "mp4", True

    def __init__(self, path, painter, stats, rate=None, encoder=None):
        self.path = path
        self._painter = painter
        self._stats = stats
        self._rate = rate
        self._encoder = encoder  # None: the best one that is there
        self._video: Any = None
        self._size: Any = None
        self._start = 0.0

    def open(self):
        self._encoder = self._encoder or best_encoder()
        check_place(self.path)  # a wrong one is told before the run begins

    def write(self, result):
        height, width = result.frame.image.shape[:2]
        if self._video is None:
            self._size, self._start = (width, height), result.frame.seconds
            self._video = open_video(self.path, self._size, self._rate and self._rate(), self._encoder)
            self._seen = {self._size}
        if (width, height) not in self._seen:  # each size is told once: a folder's may change with every picture
            self._seen.add((width, height))
            self._stats.event("pictures are {}x{} now; the video stays {}x{}".format(width, height, *self._size))
        live = None if self._rate else self._stats.readable()
        self._video.write(self._painter(result, live), result.frame.seconds - self._start)

    def close(self):
        if self._video is not None:
            video, self._video = self._video, None
            video.close()


class Window(Sink):
    """A window on this machine's screen. cv2 wants its windows served by the main thread: call ``show`` from there."""

    name, live, view = "window", True, True
    TITLE = "EdgeKit camera (q: quit)"

    def __init__(self, painter, stats):
        self._painter = painter
        self._stats = stats
        self._newest = Mailbox()

    def write(self, result):
        self._newest.put(self._painter(result, self._stats.readable()))

    def show(self, seconds):
        """Show the newest picture and serve the window for ``seconds``. False when the user closed it or pressed q."""
        picture = self._newest.take(seconds)
        if picture is not None:
            cv2.imshow(self.TITLE, picture)
        return cv2.waitKey(1) & 0xFF not in (ord("q"), 27)

    def close(self):
        self._newest.close()


class ViewPace(object):
    """``pace(moment)``: whether the result of that moment (seconds) is shown, of at most ``fps`` a second.

    when: the bound holds while ``when()`` is true; None: always
    """

    def __init__(self, fps, when=None):
        self._period = 1.0 / fps
        self._when = when
        self._due = 0.0

    def __call__(self, moment):
        if self._when is not None and not self._when():
            return True
        if moment < self._due - self._period / 4:  # one that is a little early is as good
            return False
        self._due = max(self._due + self._period, moment + self._period / 2)
        return True


def view_pace(stats, cores, fps=None):
    """The pace of a sink for people: ``fps`` where it is given, else BUSY_VIEW_FPS on one core that is busy, else None.

    On one core every picture that is drawn and encoded is taken from the network's time.
    """
    if fps is not None:
        return ViewPace(fps)
    return ViewPace(BUSY_VIEW_FPS, stats.busy) if cores == 1 else None


class SinkThread(object):
    """Runs a sink: ``offer(result)`` never waits, unless ``lossless``. pace: of a sink for people (``ViewPace``)."""

    def __init__(self, sink, stats, lossless=False, pace=None):
        self.sink = sink
        self._pace = pace if sink.view else None
        self._stats = stats
        self.state = "ready"
        self.reason: Any = None
        self.written = self.lost = self.skipped = 0
        self._inbox: Any = Mailbox() if sink.live else Queue(QUEUE, lossless)
        self._thread = threading.Thread(target=self._run, name=sink.name, daemon=True)

    def start(self):
        """Open the sink and begin. BadInput when what it needs is not to be had: a place, room on the disk."""
        try:
            self.sink.open()
        except OSError as error:
            raise BadInput(
                "{}: cannot be written ({}).".format(getattr(self.sink, "path", self.sink.name), _system_words(error))
            ) from error
        self.state = "running"
        self._thread.start()

    def offer(self, result):
        if self._pace is not None and not self._pace(result.finished):
            self.skipped += 1
            return
        lost = self._inbox.put(result)
        if lost is not None and not self.sink.live and self.state == "running":
            self.lost += 1

    def finish(self, timeout):
        """Let the sink write what it has, and close it. False when it needs longer than ``timeout`` seconds."""
        self._inbox.close()
        if self.state == "ready":
            return True
        self._thread.join(timeout)
        if not self._thread.is_alive():
            return True
        self.state = "lost"  # the program ends before it does
        self.reason = self.reason or "it did not finish in time; its end is missing"
        return False

    def to_dict(self):
        """What became of it, for the summary."""
        about = {"name": self.sink.name, "state": self.state, "written": self.written}
        if not self.sink.live:
            about["lost"] = self.lost
        if self._pace is not None:
            about["skipped"] = self.skipped
        if self.reason:
            about["reason"] = self.reason
        if hasattr(self.sink, "path"):
            about["path"] = str(self.sink.path)
        return about

    def _run(self):
        try:
            self._write_all()
        finally:
            self._inbox.close()  # nobody may wait for a dead sink
            self._stats.cpu(self.sink.name, last=True)

    def _write_all(self):
        try:
            for result in self._inbox:
                self.sink.write(result)
                self.written += 1
                self._stats.cpu(self.sink.name)
        except Exception as error:  # noqa: BLE001  whatever it was, the file is closed, and its loss is told
            self._fail(error)
        try:
            self.sink.close()
            self.state = "lost" if self.reason else "closed"
        except Exception as error:  # noqa: BLE001
            self._fail(error)

    def _fail(self, error):
        self.state = "lost"
        if self.reason is None:
            self.reason = explain(error)
            path = getattr(self.sink, "path", None)
            self._stats.event(
                "{}{} stopped: {}".format(self.sink.name, " {}".format(path) if path else "", self.reason), "error"
            )


def explain(error):
    """One sentence for what stopped a sink."""
    if isinstance(error, OSError) and error.errno in _DISK_FULL:
        return "the disk is full; what was written until now can be used"
    return " ".join(str(error).split()) or type(error).__name__


def _system_words(error):
    return (error.strerror or str(error)).lower()
