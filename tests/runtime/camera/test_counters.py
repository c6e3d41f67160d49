"""Lines and zones."""

import json

import numpy as np
import pytest

from edgekit.runtime.camera.counters import Line, Zone, cross, inside, parse_line, read_zones
from edgekit.runtime.camera.overlay import Painter
from edgekit.runtime.camera.tracking import Track
from edgekit.runtime.errors import BadConfig, BadInput

from .conftest import result

CLASSES = ["car", "bus"]


def track(number, point, class_id=0):
    made = Track(class_id, None, None, 0.0)
    made.number, made.trail = number, [point]
    return made


def drive(counter, *paths):
    """Each path is (track number, class, [points]); all move at once."""
    for i in range(max(len(p[2]) for p in paths)):
        tracks = [track(n, points[i], c) for n, c, points in paths if i < len(points)]
        counter.update(tracks, 640, 480, i)
    return counter.to_dict(CLASSES)["totals"]


def straight(a, b, steps=20):
    return [(a[0] + (b[0] - a[0]) * i / steps, a[1] + (b[1] - a[1]) * i / steps) for i in range(steps + 1)]


@pytest.mark.parametrize("points", [[(0, 240), (640, 240)], [(0, 0.5), (1, 0.5)]])
def test_crossings_in_both_directions_by_class(points):
    down, up = straight((100, 100), (120, 400)), straight((300, 400), (300, 100))
    totals = drive(Line(points, "line"), (1, 0, down), (2, 0, up), (3, 1, down))
    assert totals == {"car": {"in": 1, "out": 1}, "bus": {"in": 1, "out": 0}}


def test_who_passes_beside_the_line_is_not_counted():
    assert drive(Line([(0, 240), (200, 240)], "l"), (1, 0, straight((400, 100), (400, 400)))) == {}


def test_only_the_line_itself_counts_however_long_one_drives_beside_it():
    """The margin is 8 pixels: what happens within it decides."""
    beside = [(50, 200), (90, 235), (190, 236), (390, 237), (400, 242), (450, 260)]  # and passes beyond its end
    across = [(280, 200), (285, 236), (290, 242), (390, 243), (450, 260)]
    on_the_line = [(350, 200), (350, 240), (350, 240), (400, 240), (350, 280)]  # on its extension, that is
    there_and_back = [(280, 200), (285, 236), (290, 242), (390, 243), (390, 237), (390, 200)]
    paths = (beside, across, on_the_line, there_and_back)
    line = Line([(100, 240), (300, 240)], "l")
    assert drive(line, *((n, n, path) for n, path in enumerate(paths))) == {"bus": {"in": 1, "out": 0}}


def test_a_point_on_the_line_is_crossed_once():
    path = [(200, 100), (200, 240), (200, 240), (200, 400), (200, 240), (200, 100), (200, 240), (200, 100)]
    assert drive(Line([(100, 240), (300, 240)], "l"), (1, 0, path)) == {"car": {"in": 1, "out": 1}}


def test_trembling_on_the_line_counts_once():
    path = (
        straight((100, 100), (100, 238))
        + [(100, 238 + 4 * (i % 2)) for i in range(30)]
        + straight((100, 242), (100, 400))
    )
    assert drive(Line([(0, 240), (640, 240)], "l"), (1, 0, path)) == {"car": {"in": 1, "out": 0}}


def test_who_turns_round_counts_both_ways():
    path = straight((100, 100), (100, 400)) + straight((100, 400), (100, 100))
    assert drive(Line([(0, 240), (640, 240)], "l"), (1, 0, path)) == {"car": {"in": 1, "out": 1}}


def test_a_jump_over_the_line_counts():
    assert drive(Line([(0, 240), (640, 240)], "l"), (1, 0, [(100, 100), (100, 400)])) == {"car": {"in": 1, "out": 0}}


def test_a_zone_knows_who_is_in_it_and_who_was():
    zone = Zone([(100, 100), (300, 100), (300, 300), (100, 300)], "square")
    assert drive(zone, (1, 0, straight((0, 200), (640, 200))), (2, 1, [(200, 200)] * 21)) == {
        "car": {"inside": 0, "total": 1},
        "bus": {"inside": 1, "total": 1},
    }


@pytest.mark.parametrize(("point", "expected"), [((5, 5), True), ((15, 5), False), ((4, 8), False), ((8, 8), True)])
def test_inside_a_polygon_with_a_notch(point, expected):
    assert inside(point, np.array([(0, 0), (10, 0), (10, 10), (5, 6), (0, 10)])) is expected


@pytest.mark.parametrize(
    ("segment", "expected"), [(((0, 0), (10, 10)), True), (((0, 0), (4, 4)), False), (((0, 9), (0, 0)), False)]
)
def test_segments_cross(segment, expected):
    assert cross(*segment, (0, 10), (10, 0)) is expected


@pytest.mark.parametrize(
    "text", ["", "1,2,3", "1,2,3,4,5", "a,b,c,d", "1,1,1,1", "0.1,0.5,300,0.5", "-1,0,5,5", "nan,0,1,1", "0,0,inf,1"]
)
def test_a_wrong_line_is_told(text):
    with pytest.raises(BadConfig, match=r"count.line"):
        parse_line(text, "line 1")


def test_zones_are_read(tmp_path):
    path = tmp_path / "zones.json"
    path.write_text(
        json.dumps(
            {"zones": [{"polygon": [[0, 0], [1, 0], [1, 1]]}, {"name": "b", "polygon": [[5, 5], [9, 5], [9, 9]]}]}
        )
    )
    assert [z.name for z in read_zones(path)] == ["zone 1", "b"]


@pytest.mark.parametrize(
    "text",
    ["", "{", "[]", "{}", '{"zones": []}', '{"zones": [{}]}', '{"zones": [{"polygon": [[0, 0], [1, 1]]}]}',
     '{"zones": [{"polygon": [[0, 0], [1], [2, 2]]}]}', '{"zones": [{"polygon": [[0, -1], [1, 1], [2, 2]]}]}',
     '{"zones": [3]}', '{"zones": [{"polygon": [[0, 0], [0.5, 0.5], [1, 1]]}]}',
     '{"zones": [{"polygon": [[0.1, 0.5], [400, 0.5], [0.4, 1]]}]}',
     '{"zones": [{"name": "a", "polygon": [[0, 0], [1, 0], [1, 1]], "colour": 1}]}',
     '{"zones": [{"name": "a", "polygon": [[0, 0], [1, 0], [1, 1]]}, '
     '{"name": "a", "polygon": [[0, 0], [1, 0], [5, 1]]}]}',
     ],
)  # fmt: skip
def test_a_wrong_zone_file_is_told(tmp_path, text):
    path = tmp_path / "zones.json"
    path.write_text(text)
    with pytest.raises(BadInput, match=r"zones\.json"):
        read_zones(path)


def test_a_missing_zone_file_is_told(tmp_path):
    with pytest.raises(BadInput, match=r"none\.json"):
        read_zones(tmp_path / "none.json")


def test_who_waits_on_the_line_for_long_is_counted_when_it_goes_on():
    """A car at a stop line: its side is kept while it is seen."""
    path = [*straight((100, 100), (100, 238)), *([(100, 240)] * 900), *straight((100, 242), (100, 400))]
    assert drive(Line([(0, 240), (640, 240)], "l"), (1, 0, path)) == {"car": {"in": 1, "out": 0}}


@pytest.mark.parametrize("kind", ["line", "zone"])
def test_a_picture_shows_the_counts_of_its_result(kind):
    """Not the counter, which the results' thread changes while a sink's thread draws."""
    line = Line([(0, 240), (640, 240)], "l")
    place = line if kind == "line" else Zone([(0, 0), (640, 0), (640, 480), (0, 480)], "z")
    image = np.zeros((480, 640, 3), np.uint8)
    made = result(image=image)
    made.counts = [place.to_dict(CLASSES)]
    none = Painter(CLASSES, 0.3)(made)
    drive(place, (1, 0, straight((100, 100), (120, 400))))
    np.testing.assert_array_equal(Painter(CLASSES, 0.3)(made), none)
    made.counts = [place.to_dict(CLASSES)]
    assert not np.array_equal(Painter(CLASSES, 0.3)(made), none)
    assert none.max() == 250  # the place itself
