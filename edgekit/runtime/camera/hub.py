"""What viewers of the web page see: the newest packet and the newest status, made once for all of them."""

import json
import struct
import threading
from collections import deque
from typing import Any

import cv2
import numpy as np

from .frames import clock
from .overlay import css_colour, shown
from .sinks import Sink
from .video import encode_jpeg

WIDEST = 1280  # pixels; larger pictures are sent smaller
QUALITY = 80
HISTORY = 180  # samples of the charts, one a second
_TRAIL_SENT = 24


class Packet(object):
    """One result as it goes over the wire: number, captured (``clock()``), data (see ``pack``), result.

    The data are made by the first viewer who takes them, once for all: what every viewer is too slow for costs nothing.
    """

    __slots__ = ("_data", "_lock", "captured", "number", "result")

    def __init__(self, result):
        self.number = result.number
        self.captured = result.frame.captured
        self.result = result
        self._lock = threading.Lock()
        self._data = None

    @property
    def data(self):
        with self._lock:
            if self._data is None:
                self._data = pack(self.result)
            return self._data


class Hub(Sink):
    """The web page's sink. Nothing is encoded while nobody looks.

    about: what the page tells of the run; painter: for viewers that cannot draw boxes themselves
    """

    name, live, view = "web", True, True

    def __init__(self, about, classes, score, floor, painter, stats):
        self._about = dict(
            about,
            type="hello",
            score=score,
            floor=floor,
            classes=[{"name": n, "colour": css_colour(i)} for i, n in enumerate(classes)],
        )
        self._painter = painter
        self._stats = stats
        self._changed = threading.Condition()
        self._packet: Any = None
        self._status: Any = None
        self._status_number = 0
        self._viewers = 0
        self._history: Any = deque(maxlen=HISTORY)
        self.serving = True

    # -- the sink's side ------------------------------------------------------------------------------------------
    def write(self, result):
        """Wake the viewers."""
        with self._changed:
            self._packet = Packet(result)
            self._changed.notify_all()

    def sample(self, status):
        """Once a second: what goes beside the pictures (live numbers, sensors, state, events, sinks)."""
        with self._changed:
            self._history.append({k: status[k] for k in ("live", "sensors")})
            self._status, self._status_number = dict(status, type="status"), self._status_number + 1
            self._changed.notify_all()

    def close(self):
        with self._changed:
            self.serving = False
            self._changed.notify_all()

    # -- the viewers' side ----------------------------------------------------------------------------------------
    @property
    def viewers(self):
        return self._viewers

    def enter(self):
        """A viewer came. Returns the first message."""
        with self._changed:
            self._viewers += 1
            return json.dumps(dict(self._about, history=list(self._history))).encode()

    def leave(self):
        with self._changed:
            self._viewers -= 1

    def wait(self, packet_number, status_number, timeout):
        """(packet, status, its number): those newer than the numbers, else None. Waits up to ``timeout`` seconds."""

        def news():
            fresh = self._packet is not None and self._packet.number > packet_number
            return fresh or self._status_number > status_number or not self.serving

        with self._changed:
            self._changed.wait_for(news, timeout)
            packet, status = self._packet, self._status
            number = self._status_number
        fresh = packet is not None and packet.number > packet_number
        return (packet if fresh else None), (status if number > status_number else None), number

    def painted(self, packet):
        """The packet's picture with its boxes drawn, as JPEG; for plain Motion JPEG viewers, in their own thread."""
        return encode_jpeg(shrunk(self._painter(packet.result, self._stats.readable())), QUALITY)

    def newest(self):
        with self._changed:
            return self._packet

    def status(self):
        with self._changed:
            return dict(self._status or {"type": "status"}, viewers=self._viewers)


def pack(result):
    """A result as bytes: length of the JSON (4 bytes, big-endian), JSON, JPEG of the picture without boxes.

    JSON: number, width, height, boxes [[x1, y1, x2, y2, score, class, track]] in pixels of the frame, trails {track:
    [[x, y]]}, counts, latency and age in ms.
    """
    height, width = result.frame.image.shape[:2]
    found, chosen = result.detections, shown(result, 0.0)
    about = {
        "number": result.number,
        "width": width,
        "height": height,
        "boxes": [
            box + [score, class_id, track]
            for box, score, class_id, track in zip(  # noqa: B905 - Python 3.6
                np.round(found.boxes[chosen].astype(np.float64), 1).tolist(),
                np.round(found.scores[chosen].astype(np.float64), 3).tolist(),
                found.class_ids[chosen].tolist(),
                result.ids[chosen].tolist(),
            )
        ],
        "trails": {n: [[int(x), int(y)] for x, y in t[-_TRAIL_SENT:]] for n, t in result.trails.items()},
        "counts": result.counts,
        "latency": round(result.latency * 1e3, 1),
        "age": round(result.age * 1e3, 1),
    }
    text = json.dumps(about, separators=(",", ":")).encode()
    return struct.pack(">I", len(text)) + text + encode_jpeg(shrunk(result.frame.image), QUALITY)


def shrunk(image):
    """The image, at most WIDEST pixels wide."""
    height, width = image.shape[:2]
    if width <= WIDEST:
        return image
    return cv2.resize(image, (WIDEST, round(height * WIDEST / float(width))), interpolation=cv2.INTER_AREA)


def since(captured):
    """Milliseconds since a moment."""
    return (clock() - captured) * 1e3
