import cv2
import numpy as np
import pytest

from edgekit.measure import draw
from edgekit.measure.draw import contact_sheet, draw_detections, encode_jpeg, save_image
from edgekit.runtime import colours
from edgekit.runtime.colours import class_colour, line_width
from edgekit.runtime.detections import Detections
from edgekit.runtime.errors import BadInput

CLASSES = ("vehicle", "scooter", "bicycle")
GREY = np.full((240, 320, 3), 128, np.uint8)


def changed(before, after):
    """Bounding box (x1, y1, x2, y2), inclusive, of the pixels that differ; None where none does."""
    ys, xs = np.nonzero((before != after).any(axis=2))
    return (xs.min(), ys.min(), xs.max(), ys.max()) if len(xs) else None


def test_the_box_is_where_the_detection_is_in_its_classes_colour():
    detections = Detections([[100, 100, 200, 180]], [0.9], [1])
    picture = draw_detections(GREY, detections, CLASSES)
    x1, y1, x2, y2 = changed(GREY, picture)
    assert (x2, y2) == (pytest.approx(200, abs=3), pytest.approx(180, abs=3))
    assert x1 == pytest.approx(100, abs=3)
    assert y1 < 100  # the label stands above the box
    assert tuple(picture[180, 150]) == class_colour(1)
    assert (picture[140, 150] == 128).all()  # inside, the picture is untouched


def test_the_original_is_not_drawn_on():
    before = GREY.copy()
    draw_detections(GREY, Detections([[10, 10, 50, 50]], [0.9], [0]), CLASSES)
    assert (before == GREY).all()


@pytest.mark.parametrize(("score", "seen"), [(0.29, False), (0.3, True), (0.31, True)])
def test_the_score_threshold_is_inclusive(score, seen):
    detections = Detections([[100, 100, 200, 180]], np.float64([score]), [0])
    picture = draw_detections(GREY, detections, CLASSES, score_threshold=float(np.float32(0.3)))
    assert (changed(GREY, picture) is not None) == seen


def test_nothing_to_draw():
    assert changed(GREY, draw_detections(GREY, Detections.empty(), CLASSES)) is None


@pytest.fixture
def labels(monkeypatch):
    """(text, x1, y1, x2, y2) of every label that is written."""
    written = []
    real = cv2.putText

    def note(image, text, origin, font, scale, colour, stroke, line):
        (width, height), base = cv2.getTextSize(text, font, scale, stroke)
        written.append((text, origin[0], origin[1] - height, origin[0] + width, origin[1] + base))
        return real(image, text, origin, font, scale, colour, stroke, line)

    monkeypatch.setattr(draw.cv2, "putText", note)
    return written


@pytest.mark.parametrize(
    "box",
    [
        [0, 0, 319, 239],
        [0, 0, 12, 12],
        [300, 0, 320, 10],
        [310, 230, 320, 240],
        [0, 230, 10, 240],
        [-50, -50, 400, 400],
        [319, 239, 319, 239],
        [5000, 5000, 6000, 6000],
    ],
)
def test_labels_stay_whole_inside_the_picture(labels, box):
    draw_detections(GREY, Detections([box], [0.99], [0]), CLASSES)
    ((text, x1, y1, x2, y2),) = labels
    assert text == "vehicle 99%"
    assert 0 <= x1 < x2 <= 320
    assert 0 <= y1 < y2 <= 240


def test_no_label_covers_a_surer_one(labels):
    rng = np.random.default_rng(5)
    corners = rng.uniform(0, 200, (60, 2))
    crowd = Detections(np.hstack([corners, corners + 60]), rng.uniform(0.3, 1, 60), rng.integers(0, 3, 60))
    draw_detections(GREY, crowd, CLASSES)
    assert 5 < len(labels) < 60
    scores = [int(text.split()[1].rstrip("%")) for text, *_ in labels]
    assert scores[0] == round(100 * crowd.scores.max())
    for i, (_, *a) in enumerate(labels):
        for _, *b in labels[:i]:
            assert not (a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3])


def test_a_picture_too_small_for_a_label_has_the_box_alone():
    tiny = np.zeros((20, 24, 3), np.uint8)
    picture = draw_detections(tiny, Detections([[4, 4, 18, 15]], [0.9], [0]), CLASSES)
    assert changed(tiny, picture) is not None


@pytest.mark.parametrize(("size", "width"), [((64, 64), 1), ((480, 640), 2), ((1080, 1920), 4)])
def test_lines_grow_with_the_picture(size, width):
    assert line_width((*size, 3)) == width


def simulate(colour, kind):
    """How a dichromat sees a BGR colour (Viénot, Brettel and Mollon 1999), in linear RGB 0..1."""
    red, green, blue = ((v / 255) ** 2.2 for v in reversed(colour))
    mix = {"protan": (0.11238, 0.88762), "deutan": (0.29275, 0.70725)}[kind]
    grey = mix[0] * red + mix[1] * green
    return np.array([grey, grey, blue]) ** (1 / 2.2)


@pytest.mark.parametrize("kind", ["protan", "deutan"])
def test_colours_differ_for_colour_blind_people(kind):
    seen = [simulate(colour, kind) for colour in colours.PALETTE]
    distances = [np.abs(a - b).max() for i, a in enumerate(seen) for b in seen[:i]]
    assert min(distances) > 0.08


def test_classes_beyond_the_palette_have_colours_too():
    colours = [class_colour(i) for i in range(14)]
    assert len(set(colours)) == 14
    assert all(0 <= v <= 255 for i in range(200) for v in class_colour(i))


def test_the_surest_detection_is_on_top():
    boxes = [[100, 100, 200, 180], [100, 100, 200, 180]]
    for scores in ([0.9, 0.5], [0.5, 0.9]):
        picture = draw_detections(GREY, Detections(boxes, scores, [0, 1]), CLASSES)
        assert tuple(picture[180, 150]) == class_colour(int(np.argmax(scores)))


@pytest.mark.parametrize(
    ("count", "columns", "grid"), [(1, None, (1, 1)), (4, None, (2, 2)), (5, None, (3, 2)), (5, 2, (2, 3))]
)
def test_contact_sheet_grid(count, columns, grid):
    sheet = contact_sheet([GREY] * count, columns=columns, tile=(60, 40), gap=4)
    assert sheet.shape == (grid[1] * 44 + 4, grid[0] * 64 + 4, 3)


def test_contact_sheet_keeps_each_image_whole_and_in_the_middle():
    white = np.full((100, 50, 3), 255, np.uint8)
    sheet = contact_sheet([white], tile=(60, 40), gap=4)
    ys, xs = np.nonzero((sheet == 255).all(axis=2))
    assert (ys.min(), ys.max(), xs.min(), xs.max()) == (4, 43, 24, 43)  # 20 x 40 in the middle of 60 x 40


def test_contact_sheet_of_nothing_is_refused():
    with pytest.raises(ValueError, match="at least one image"):
        contact_sheet([])


def test_saving_is_whole(tmp_path):
    noise = np.random.default_rng(0).integers(0, 255, (20, 30, 3), np.uint8)
    save_image(tmp_path / "new" / "a.png", noise)
    assert (cv2.imread(str(tmp_path / "new" / "a.png")) == noise).all()
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["a.png"]


@pytest.mark.parametrize("name", ["a.txt", "a", "a.docx"])
def test_an_unknown_suffix_is_refused_and_writes_nothing(tmp_path, name):
    with pytest.raises(BadInput, match=r"use \.jpg or \.png"):
        save_image(tmp_path / name, GREY)
    assert list(tmp_path.iterdir()) == []


def test_jpeg_bytes_decode():
    assert cv2.imdecode(np.frombuffer(encode_jpeg(GREY), np.uint8), cv2.IMREAD_COLOR).shape == GREY.shape
