"""Results as text: JSON lines, whole after every line, and COCO's format, whole or not there."""

import datetime
import json
import os
import tempfile
from typing import Any

import numpy as np

from ..artifact import new_file
from ..errors import BadInput
from .sinks import Sink
from .tracking import DOUBLE, NONE
from .video import empty, open_kept, write_whole


class JsonLines(Sink):
    """One JSON object a line: a ``start``, then every result as ``frame``, events as they come, and an ``end``.

    A line is written in one piece; what a full disk leaves of one is cut off, so the last line is always whole. An
    older file stays until there is a result to write.

    places: lines and zones, whose counts the ``end`` has even where the last results were lost
    """

    name = "jsonl"

    def __init__(self, path, about, score, classes, stats, places=()):
        self.path = path
        self._about = about
        self._score = score
        self._classes = classes
        self._stats = stats
        self._places = places
        self._file: Any = None
        self._first: Any = None  # the line that is not written yet
        self._told = 0

    def open(self):
        self._file = open_kept(self.path)
        self._first = dict(self._about, type="start", time=now())
        if os.fstat(self._file.fileno()).st_size == 0:
            self._begin()

    def _begin(self):
        """Put the first line into the empty file, once."""
        if self._first is not None:
            first, self._first = self._first, None
            empty(self._file)
            self._line(first)

    def write(self, result):
        self._begin()
        self._events()
        record = {"type": "frame", "time": now(), "frame": result.frame.index}
        if result.frame.name is not None:
            record["file"] = result.frame.name
        record["size"] = [result.frame.image.shape[1], result.frame.image.shape[0]]
        record["latency_ms"] = round(result.latency * 1e3, 2)
        record["age_ms"] = round(result.age * 1e3, 2)
        record["boxes"] = boxes(result, self._score, self._classes)
        if result.counts:
            record["counts"] = result.counts
        self._line(record)

    def _events(self):
        events, self._told = self._stats.events_since(self._told)
        for event in events:
            self._line(dict(event, type="event"))

    def _line(self, record):
        write_whole(self._file, json.dumps(record, separators=(",", ":")).encode() + b"\n")

    def close(self):
        if self._file is None:
            return
        try:
            if self._first is None:
                self._events()
                counts = {"counts": [p.to_dict(self._classes) for p in self._places]} if self._places else {}
                self._line(dict(self._stats.summary(), type="end", time=now(), **counts))
        finally:
            self._file.close()


class CocoJson(Sink):
    """``images``, ``categories`` and ``annotations`` (with ``score`` and ``track_id``) in one file, as of predict.

    Everything goes to the disk as it comes, beside the file's place; the file appears when the run ends. Image ids are
    1, 2, ... in the order of the results; ``file_name`` is the image's, or the source's with #frame.
    """

    name = "coco"

    def __init__(self, path, source, score, classes, category_ids):
        self.path = path
        self._source = source
        self._score = score
        self._classes = classes
        self._category_ids = category_ids
        self._context: Any = None
        self._file: Any = None
        self._images: Any = None
        self._image_count = self._box_count = 0

    def open(self):
        if os.path.exists(str(self.path)) and not os.path.isfile(str(self.path)):  # a device would be replaced
            raise BadInput("{}: is no file, and cannot become one. Choose another place.".format(self.path))
        try:
            self._context = new_file(self.path)
            self._file = self._context.__enter__()
            folder = os.path.dirname(os.path.abspath(str(self.path)))
            self._images = tempfile.TemporaryFile("w+", dir=folder)  # noqa: SIM115 - closed in ``close``
        except OSError as error:
            raise BadInput("{}: cannot be written ({}).".format(self.path, error.strerror)) from error
        categories = [{"id": i, "name": n} for i, n in zip(self._category_ids, self._classes)]  # noqa: B905
        self._file.write('{"categories": ' + json.dumps(categories) + ',\n"annotations": [')

    def write(self, result):
        try:
            self._add_image(result)
            self._add_boxes(result)
        except OSError as error:
            self._discard(error)
            raise

    def _add_image(self, result):
        self._image_count += 1
        height, width = result.frame.image.shape[:2]
        name = result.frame.name or "{}#{}".format(self._source, result.frame.index)
        image = {"id": self._image_count, "file_name": name, "width": width, "height": height}
        self._images.write(",\n" * (self._image_count > 1) + json.dumps(image))

    def _add_boxes(self, result):
        chosen = np.flatnonzero((result.detections.scores >= self._score) & result.detections.sized)
        records = result.detections[chosen].to_coco(self._image_count, self._category_ids)
        for record, track in zip(records, result.ids[chosen]):  # noqa: B905 - Python 3.6
            self._box_count += 1
            more = {"id": self._box_count, "area": round(record["bbox"][2] * record["bbox"][3], 3), "iscrowd": 0}
            if track > NONE:
                more["track_id"] = int(track)
            self._file.write("," * (self._box_count > 1) + "\n" + json.dumps(dict(record, **more)))

    def _discard(self, error):
        """Leave nothing of a file that could not be written whole."""
        context, self._file, self._context = self._context, None, None
        self._images.close()
        try:
            context.__exit__(type(error), error, error.__traceback__)
        except OSError:  # the same error, on its way out
            return

    def close(self):
        if self._file is None:
            return
        if not self._image_count and os.path.exists(str(self.path)):  # nothing is no reason to replace an older file
            self._discard(OSError("no result"))
            return
        try:
            self._file.write('],\n"images": [\n')
            self._images.seek(0)
            for block in iter(lambda: self._images.read(1 << 16), ""):
                self._file.write(block)
            self._file.write("]}\n")
        except OSError as error:
            self._discard(error)
            raise
        self._images.close()
        self._file = None
        self._context.__exit__(None, None, None)


def boxes(result, score, classes):
    """The boxes of at least ``score`` as JSON: xyxy in pixels of the frame, score, class, track (None: no track)."""
    records = []
    for i in np.flatnonzero(result.detections.scores >= score):
        record = {
            "box": [round(float(v), 2) for v in result.detections.boxes[i]],
            "score": round(float(result.detections.scores[i]), 4),
            "class": classes[int(result.detections.class_ids[i])],
            "track": int(result.ids[i]) if result.ids[i] > NONE else None,
        }
        if result.ids[i] == DOUBLE:
            record["double"] = True
        records.append(record)
    return records


def now():
    """This moment in UTC, ISO 8601."""
    moment = datetime.datetime.now(datetime.timezone.utc)
    return moment.replace(tzinfo=None).isoformat(timespec="milliseconds") + "Z"
