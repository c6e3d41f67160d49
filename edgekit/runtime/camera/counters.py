"""Counting tracked objects at lines and in zones: what a traffic demo is for.

Places are given in pixels of the frame, or as fractions 0..1 of its width and height when no number is above 1. What is
looked at is the middle of a box.
"""

import json

import numpy as np

from ..errors import BadConfig, BadInput

_MARGIN = 0.01  # of the frame's diagonal: so far a track must be off the line before it counts, against jitter
_FORGET = 300  # results after which a track that was not seen is forgotten


class Line(object):
    """A count line from a to b: "in" is a crossing from the left of the direction a -> b to its right."""

    def __init__(self, points, name):
        self.name = name
        self.points = [(float(x), float(y)) for x, y in points]
        if self.points[0] == self.points[1]:
            raise BadConfig("count line {}: both ends are the same point".format(name))
        self.totals = {}  # class -> {"in": n, "out": n}
        # track -> (side on which it was last off the line, 0 before that; where it was seen last; whether its path from
        # there led to the other side between a and b; number of the result)
        self._tracks = {}

    def update(self, tracks, width, height, number):
        a, b = (np.array(p) for p in scaled(self.points, width, height))
        along = (b - a) / np.linalg.norm(b - a)
        margin = _MARGIN * float(np.hypot(width, height))
        for track in tracks:
            point = np.array(track.trail[-1])
            # of image coordinates, y down: positive is to the right of a -> b
            distance = float(along[0] * (point[1] - a[1]) - along[1] * (point[0] - a[0]))
            before, was, crossed, _ = self._tracks.get(track.number, (0, point, False, 0))
            crossed ^= cross(was, point, a, b)
            if abs(distance) < margin:  # it is still seen, however long it stands there
                self._tracks[track.number] = (before, point, crossed, number)
                continue
            side = np.sign(distance)
            if before and side != before and crossed:
                totals = self.totals.setdefault(track.class_id, {"in": 0, "out": 0})
                totals["in" if side > 0 else "out"] += 1
            self._tracks[track.number] = (side, point, False, number)
        self._tracks = {n: t for n, t in self._tracks.items() if number - t[-1] < _FORGET}

    def to_dict(self, classes):
        return {
            "name": self.name,
            "kind": "line",
            "points": self.points,
            "totals": {classes[c]: dict(t) for c, t in sorted(self.totals.items())},
        }


class Zone(object):
    """A polygon: how many objects of each class are in it now, and how many have been."""

    def __init__(self, points, name):
        self.name = name
        self.points = [(float(x), float(y)) for x, y in points]
        self.totals, self.inside = {}, {}
        self._known = {}  # track -> number of the result in which it was last inside

    def update(self, tracks, width, height, number):
        polygon = np.array(scaled(self.points, width, height))
        self.inside = {}
        for track in tracks:
            if not inside(track.trail[-1], polygon):
                continue
            self.inside[track.class_id] = self.inside.get(track.class_id, 0) + 1
            if track.number not in self._known:
                self.totals[track.class_id] = self.totals.get(track.class_id, 0) + 1
            self._known[track.number] = number
        self._known = {n: last for n, last in self._known.items() if number - last < _FORGET}

    def to_dict(self, classes):
        return {
            "name": self.name,
            "kind": "zone",
            "points": self.points,
            "totals": {
                classes[c]: {"inside": self.inside.get(c, 0), "total": n} for c, n in sorted(self.totals.items())
            },
        }


def scaled(points, width, height):
    """Points in pixels; those of fractions are scaled to the frame."""
    if max(max(p) for p in points) > 1:
        return points
    return [(x * width, y * height) for x, y in points]


def cross(p, q, a, b):
    """Whether p-q leads from one side of a-b to the other, between a and b. A point on the line is to its left."""

    def turn(u, v, w):
        return (v[0] - u[0]) * (w[1] - u[1]) - (v[1] - u[1]) * (w[0] - u[0])

    return bool((turn(a, b, p) > 0) != (turn(a, b, q) > 0) and turn(p, q, a) * turn(p, q, b) <= 0)


def inside(point, polygon):
    """Whether a point lies in a polygon [n, 2] (even-odd rule)."""
    x, y = point
    start, end = polygon, np.roll(polygon, -1, axis=0)
    spans = (start[:, 1] > y) != (end[:, 1] > y)
    start, end = start[spans], end[spans]
    at = start[:, 0] + (y - start[:, 1]) / (end[:, 1] - start[:, 1]) * (end[:, 0] - start[:, 0])
    return bool(np.count_nonzero(at > x) % 2)


def mixes(points):
    """Whether some numbers are fractions and others pixels: no frame has both."""
    values = np.ravel(points)
    return bool(values.max() > 1 and ((values > 0) & (values < 1)).any())


def parse_line(text, name):
    """``x1,y1,x2,y2`` as a Line; BadConfig otherwise."""
    try:
        values = [float(v) for v in text.split(",")]
    except ValueError:
        values = []
    if len(values) != 4 or min(values) < 0 or not np.isfinite(values).all():
        raise BadConfig(
            "--count-line {}: expected x1,y1,x2,y2, in pixels or as fractions 0..1 of width and height; "
            "for example 0,0.6,1,0.6".format(text)
        )
    if mixes(values) or values[:2] == values[2:]:
        wrong = "mixes pixels and fractions of width and height" if mixes(values) else "both ends are the same point"
        raise BadConfig("--count-line {}: {}".format(text, wrong))
    return Line([values[:2], values[2:]], name)


def read_zones(path):
    """Zones of a JSON file: {"zones": [{"name": text, "polygon": [[x, y], ...]}]}. BadInput names what is wrong."""
    try:
        with open(str(path), encoding="utf-8") as handle:
            values = json.load(handle)
    except (OSError, ValueError) as error:
        raise BadInput("{}: cannot be read as JSON ({}).".format(path, error)) from error
    zones = values.get("zones") if isinstance(values, dict) else None
    if not isinstance(zones, list) or not zones:
        raise BadInput(_wanted(path, "no list of zones"))
    found = [_zone(path, i, zone) for i, zone in enumerate(zones, 1)]
    names = [z.name for z in found]
    twice = sorted({n for n in names if names.count(n) > 1})
    if twice:
        raise BadInput("{}: two zones have the name {}; their totals could not be told apart".format(path, twice[0]))
    return found


def _zone(path, number, zone):
    odd = sorted(set(zone) - {"name", "polygon"}) if isinstance(zone, dict) else ()
    if odd:
        raise BadInput(_wanted(path, "zone {} has the unknown key {!r}".format(number, odd[0])))
    try:
        points = [(float(x), float(y)) for x, y in zone["polygon"]]
    except (KeyError, TypeError, ValueError) as error:
        raise BadInput(_wanted(path, "zone {} has no polygon of [x, y] pairs".format(number))) from error
    if len(points) < 3 or not np.isfinite(points).all() or np.min(points) < 0:
        raise BadInput(_wanted(path, "zone {}: a polygon needs three points or more, none negative".format(number)))
    if mixes(points) or area(points) < 1e-9:
        wrong = "mixes pixels and fractions" if mixes(points) else "its points lie on one line, so nothing can be in it"
        raise BadInput("{}: zone {}: {}".format(path, number, wrong))
    return Zone(points, str(zone.get("name") or "zone {}".format(number)))


def area(points):
    """Of a polygon, by the shoelace formula; 0 when its points lie on one line."""
    x, y = np.array(points, np.float64).T
    return abs(float(np.dot(x, np.roll(y, -1)) - np.dot(y, np.roll(x, -1)))) / 2


def _wanted(path, found):
    return (
        '{}: {}; expected {{"zones": [{{"name": "stop", "polygon": [[0.1, 0.5], [0.9, 0.5], [0.9, 1], [0.1, 1]]}}]}}'
        ", in pixels or as fractions 0..1".format(path, found)
    )
