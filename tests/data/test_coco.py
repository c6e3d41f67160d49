"""The COCO reader and the image files: what is accepted, what is mended, and what is refused by name."""

import copy
import json
import os
import re
import struct
import subprocess
import sys

import cv2
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgekit.data.coco import read_coco, read_image, write_coco
from edgekit.data.imagefile import read_header
from edgekit.data.problems import MAX_PROBLEMS
from edgekit.runtime.errors import BadInput

WIDTH, HEIGHT = 64, 48
CONTENT = {
    "images": [
        {"id": 7, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT},
        {"id": 3, "file_name": "sub/b.png", "width": 40, "height": 30},
    ],
    "annotations": [
        {"id": 1, "image_id": 7, "category_id": 9, "bbox": [1.5, 2, 10, 20.25], "iscrowd": 0},
        {"id": 2, "image_id": 7, "category_id": 4, "bbox": [0, 0, 64, 48]},
    ],
    "categories": [{"id": 9, "name": "bicycle"}, {"id": 4, "name": "car"}],
}


def picture(width, height, seed=0):
    """A scene with edges and texture, so that its JPEG has a scan worth damaging."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 4 + 1, width // 4 + 1, 3), np.uint8)
    return cv2.resize(noise, (width, height), interpolation=cv2.INTER_CUBIC)


def encoded(suffix, image, *flags):
    return cv2.imencode(suffix, image, list(flags))[1].tobytes()


@pytest.fixture
def folder(tmp_path):
    images = tmp_path / "images"
    (images / "sub").mkdir(parents=True)
    (images / "a.jpg").write_bytes(encoded(".jpg", picture(WIDTH, HEIGHT)))
    (images / "sub" / "b.png").write_bytes(encoded(".png", picture(40, 30)))
    return tmp_path


def write(folder, content):
    path = folder / "set.json"
    path.write_text(json.dumps(content) if not isinstance(content, str) else content, encoding="utf-8")
    return path


def edited(edit):
    content = copy.deepcopy(CONTENT)
    edit(content)
    return content


def annotation(**values):
    return {"id": 5, "image_id": 7, "category_id": 9, "bbox": [1, 1, 5, 5], **values}


def with_box(*bbox, **values):
    return edited(lambda c: c["annotations"].append(annotation(bbox=list(bbox), **values)))


def with_annotation(**values):
    return edited(lambda c: c["annotations"].append(annotation(**values)))


def read(folder, content, **options):
    return read_coco(write(folder, content), folder / "images", **options)


# -- what is right ----------------------------------------------------------------------------------------------------
def test_a_set_by_category_id(folder):
    coco = read(folder, CONTENT)
    assert coco.classes == ("car", "bicycle")
    assert coco.category_ids == (4, 9)
    assert [s.image_id for s in coco.samples] == [7, 3]  # the file's order
    sample = coco.samples[0]
    assert sample.path == folder / "images" / "a.jpg"
    assert (sample.width, sample.height) == (WIDTH, HEIGHT)
    np.testing.assert_array_equal(sample.boxes, np.array([[1.5, 2, 11.5, 22.25], [0, 0, 64, 48]], np.float32))
    assert sample.boxes.dtype == np.float32
    assert sample.labels.dtype == np.int64
    assert sample.ignore.dtype == np.bool_
    assert sample.labels.tolist() == [1, 0]
    assert coco.class_counts().tolist() == [1, 1]
    empty = coco.samples[1]
    assert empty.boxes.shape == (0, 4)
    assert empty.labels.dtype == np.int64
    assert coco.notes == ("1 image without boxes kept as negative",)
    with pytest.raises(ValueError, match="read-only"):
        sample.boxes[0] = 0


def test_classes_are_labels_in_the_order_asked_for(folder):
    coco = read(folder, CONTENT, classes=("bicycle", "car"))
    assert coco.category_ids == (9, 4)
    assert coco.samples[0].labels.tolist() == [0, 1]


def test_classes_not_asked_for_are_left_out_with_a_note(folder):
    coco = read(folder, CONTENT, classes=["bicycle"])
    assert len(coco) == 2
    assert coco.class_counts().tolist() == [1]
    assert "1 box of class 'car' left out: not asked for" in coco.notes


@pytest.mark.parametrize(
    ("area", "kept"), [(123.5, 123.5), (0, 202.5), (None, 202.5), (-3, 202.5), (float("nan"), 202.5), ("7", 202.5)]
)
def test_an_object_has_its_own_area_where_the_file_knows_it(area, kept, folder):
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["area"] = area
    coco = read_coco(write(folder, content), folder / "images")
    assert coco.samples[0].object_areas == [kept, 64 * 48]
    again = read_coco(write_coco(coco, folder / "again.json"), folder / "images")
    assert again.samples[0].object_areas == [kept, 64 * 48]


@pytest.mark.parametrize("key", ["iscrowd", "difficult", "ignore"])
def test_crowd_difficult_and_ignore_are_marked(folder, key):
    coco = read(folder, with_annotation(**{key: 1}))
    assert coco.samples[0].ignore.tolist() == [False, False, True]
    assert coco.class_counts().tolist() == [1, 1]
    assert any("1 crowd, difficult or ignore" in note for note in coco.notes)


@pytest.mark.parametrize("key", ["iscrowd", "difficult", "ignore"])
def test_ignored_boxes_are_written_so_that_cocoeval_ignores_them(key, folder):
    """pycocotools replaces ``ignore`` by ``iscrowd``; a box with iscrowd 0 is an ordinary target there."""
    coco = read(folder, with_annotation(**{key: 1}))
    file = write_coco(coco, folder / "again.json")
    written = [(a["iscrowd"], a.get("ignore"), a.get("difficult")) for a in json.loads(file.read_text())["annotations"]]
    assert sorted(written, key=str) == [(0, None, None), (0, None, None), (1, 1, 1)]
    again = read_coco(file, folder / "images")
    assert [s.ignore.tolist() for s in again.samples] == [s.ignore.tolist() for s in coco.samples]


def test_numbers_written_as_floats_are_taken(folder):
    coco = read(folder, edited(lambda c: c["images"][0].update(id=7.0, width=64.0)))
    assert type(coco.samples[0].image_id) is int
    assert coco.samples[0].width == 64


@pytest.mark.parametrize(
    ("bbox", "expected"),
    [
        ([-1.5, -2, 10, 10], [0, 0, 8.5, 8]),
        ([60, 40, 5.5, 10], [60, 40, 64, 48]),
        ([-2, -2, 68, 52], [0, 0, 64, 48]),
    ],
)
def test_a_box_a_little_over_the_border_is_clipped_and_counted(folder, bbox, expected):
    coco = read(folder, with_box(*bbox))
    assert coco.samples[0].boxes[-1].tolist() == expected
    assert "1 box clipped: over the border by a little" in coco.notes


def test_a_clip_that_nobody_could_see_is_not_counted(folder):
    coco = read(folder, with_box(-0.0003, 4, 10.0003, 44.0004))
    assert coco.samples[0].boxes[-1].tolist() == [0, 4, 10, 48]
    assert not any("clipped" in note for note in coco.notes)


@pytest.mark.parametrize("bbox", [[5, 5, 0, 3], [5, 5, 3, 0], [30, 5, 1e-9, 3]])
def test_a_box_without_area_is_left_out_by_name(folder, bbox):
    coco = read(folder, with_box(*bbox, id=77))
    assert len(coco.samples[0].boxes) == 2
    assert "1 box without area left out (annotation 77)" in coco.notes


def test_two_records_of_one_file_are_noted(folder):
    twin = {"id": 8, "file_name": "a.jpg", "width": WIDTH, "height": HEIGHT}
    notes = read(folder, edited(lambda c: c["images"].append(twin))).notes
    assert "1 image record with the same file as another record" in notes


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    boxes=st.lists(
        st.tuples(st.floats(-2, 63), st.floats(-2, 47), st.floats(0.01, 80), st.floats(0.01, 60)),
        min_size=1,
        max_size=5,
    )
)
def test_every_box_that_is_let_in_is_inside_and_goes_back(folder, boxes):
    kept = [b for b in boxes if b[0] + b[2] <= 66 and b[1] + b[3] <= 50 and b[0] + b[2] > 0.01 and b[1] + b[3] > 0.01]
    records = [annotation(id=i, bbox=list(b)) for i, b in enumerate(kept)]
    records.append(annotation(id=99, image_id=3, bbox=[0, 0, 40, 30]))  # no doubt that these are pixels
    coco = read(folder, edited(lambda c: c.update(annotations=records)), check_images=False)
    found = coco.samples[0].boxes
    assert len(found) == len(kept)
    assert (found[:, :2] >= 0).all()
    assert (found[:, 2:] <= (WIDTH, HEIGHT)).all()
    assert (found[:, 2:] > found[:, :2]).all()
    for (x, y, w, h), (x1, y1, x2, y2) in zip(kept, found.tolist(), strict=True):
        np.testing.assert_allclose((x1, y1), (max(x, 0), max(y, 0)), atol=1e-5)
        np.testing.assert_allclose((x2, y2), (min(x + w, WIDTH), min(y + h, HEIGHT)), atol=1e-5)


def test_digest_is_of_content_not_of_place(folder, tmp_path_factory):
    first = read(folder, CONTENT)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    os.rename(folder / "images", elsewhere / "images")
    assert read(elsewhere, CONTENT).digest() == first.digest()
    other = edited(lambda c: c["annotations"][0].update(bbox=[1, 2, 10, 20]))
    assert read(elsewhere, other).digest() != first.digest()
    assert read(elsewhere, CONTENT, classes=["car"]).digest() != first.digest()


def test_progress_reaches_the_end(folder):
    steps = []
    read(folder, CONTENT, progress=lambda done, total: steps.append((done, total)))
    assert steps == [(1, 2), (2, 2)]


# -- what is refused --------------------------------------------------------------------------------------------------
def _drop(table, index, key):
    return edited(lambda c: c[table][index].pop(key))


BAD_CONTENT = {
    "not an object": ("[1, 2]", "found a list"),
    "empty file": ("", "truncated JSON"),
    "cut": (json.dumps(CONTENT)[:-40], "truncated JSON"),
    "cut inside a name": (json.dumps(CONTENT)[:30], "truncated JSON"),
    "not JSON": ("{'images': 3}", "not valid JSON"),
    "too deep": ("[" * 200000, "not valid JSON"),
    "no categories": (
        edited(lambda c: c.pop("categories")),
        "categories: missing; the file has the keys annotations, images",
    ),
    "images no list": (edited(lambda c: c.update(images={})), "images: expected a list, found a object"),
    "no images": (edited(lambda c: c.update(images=[])), "images: the list is empty"),
    "image no object": (edited(lambda c: c["images"].append(3)), r"images\[2\]: expected an object"),
    "no width": (_drop("images", 1, "width"), r"images\[1\]: missing width"),
    "no file name": (_drop("images", 0, "file_name"), r"images\[0\]: missing file_name"),
    "no bbox": (_drop("annotations", 1, "bbox"), r"annotations\[1\]: missing bbox"),
    "no annotation id": (_drop("annotations", 1, "id"), r"annotations\[1\]: missing id"),
    "no category name": (_drop("categories", 0, "name"), r"categories\[0\]: missing name"),
    "image id text": (edited(lambda c: c["images"][0].update(id="7")), r"images\[0\]: id: expected a whole number"),
    "name outside": (
        edited(lambda c: c["images"][0].update(file_name="../a.jpg")),
        "image 7: file_name: expected a path inside",
    ),
    "name absolute": (
        edited(lambda c: c["images"][0].update(file_name="/a.jpg")),
        "image 7: file_name: expected a path inside",
    ),
    "name with NUL": (
        edited(lambda c: c["images"][0].update(file_name="a\0.jpg")),
        "image 7: file_name: expected text without control characters",
    ),
    "name lone surrogate": (
        edited(lambda c: c["images"][0].update(file_name="\ud800")),
        "image 7: file_name: expected",
    ),
    "name no text": (edited(lambda c: c["images"][0].update(file_name=5)), "image 7: file_name: expected"),
    "width zero": (edited(lambda c: c["images"][0].update(width=0)), r"image 7 \(a.jpg\): bad size 0 x 48"),
    "width infinite": (edited(lambda c: c["images"][0].update(width=float("inf"))), "bad size inf x 48"),
    "image twice": (edited(lambda c: c["images"][1].update(id=7)), r"image id 7 appears twice \(a.jpg and sub/b.png\)"),
    "category twice": (edited(lambda c: c["categories"][1].update(id=9)), "category id 9 appears twice"),
    "category name twice": (edited(lambda c: c["categories"][1].update(name="bicycle")), "'bicycle' appears twice"),
    "annotation twice": (with_annotation(id=2), r"annotation 2 \(image 7, a.jpg\): the annotation id appears twice"),
    "unknown category": (
        with_annotation(category_id=5),
        r"annotation 5 .*category_id 5 is not among.*4 car, 9 bicycle",
    ),
    "unknown image": (with_annotation(image_id=99), "annotation 5: image_id 99 is not among the images"),
    "image id list": (with_annotation(image_id=[7]), r"annotation 5: image_id \[7\] is not among the images"),
    "box of three": (with_box(1, 2, 3), r"annotation 5 \(image 7, a.jpg\): bbox: expected four numbers"),
    "box of text": (with_box("1", 2, 3, 4), "expected four numbers"),
    "box of booleans": (with_box(True, 2, 3, 4), "expected four numbers"),
    "box null": (with_annotation(bbox=None), "expected four numbers"),
    "box NaN": (with_box(1, 2, float("nan"), 4), "annotation 5 .*is not finite"),
    "box infinite": (with_box(1, 2, float("inf"), 4), "annotation 5 .*is not finite"),
    "box of a huge integer": (with_box(1, 2, 10**400, 4), "annotation 5 .*is not finite, or beyond any image"),
    "negative width": (with_box(10, 10, -5, 5), "annotation 5 .*negative size"),
    "negative height": (with_box(10, 10, 5, -0.5), "annotation 5 .*negative size"),
    "outside right": (with_box(64, 10, 5, 5), "annotation 5 .*lies outside the 64 x 48 image"),
    "outside above": (with_box(10, -5, 5, 5), "annotation 5 .*lies outside"),
    "far over the border": (with_box(30, 10, 40, 5), "annotation 5 .*reaches 6.0 pixels out of the 64 x 48 image"),
}


@pytest.mark.parametrize("name", BAD_CONTENT)
def test_bad_content_is_refused_by_name(folder, name):
    content, message = BAD_CONTENT[name]
    with pytest.raises(BadInput, match=message) as caught:
        read(folder, content)
    assert str(folder / "set.json") in str(caught.value)


def test_invalid_utf8_and_missing_file(folder):
    (folder / "latin.json").write_bytes(b'{"images": "\xe9"}')
    with pytest.raises(BadInput, match=r"latin\.json: not valid JSON"):
        read_coco(folder / "latin.json", folder / "images")
    with pytest.raises(BadInput, match=r"none\.json: no such annotation file"):
        read_coco(folder / "none.json", folder / "images")
    with pytest.raises(BadInput, match="cannot be read"):
        read_coco(folder, folder / "images")


@pytest.mark.parametrize(
    ("classes", "message"),
    [
        (["bycicle"], "class 'bycicle': the file has no such category; did you mean bicycle?"),
        (["zebra"], "class 'zebra': the file has no such category; it has: car, bicycle"),
        (["car", "car"], "class 'car': asked for twice"),
        ([], "none asked for; the file has: car, bicycle"),
    ],
)
def test_classes_that_the_file_does_not_have(folder, classes, message):
    with pytest.raises(BadInput, match=re.escape(message)):
        read(folder, CONTENT, classes=classes)


def test_all_problems_at_once_up_to_ten(folder):
    bad = [annotation(id=100 + i, bbox=[0, 0, -1, 1]) for i in range(13)]
    with pytest.raises(BadInput) as caught:
        read(folder, edited(lambda c: c["annotations"].extend(bad)))
    lines = str(caught.value).splitlines()
    assert lines[0].endswith("set.json: 13 problems")
    assert len(lines) == MAX_PROBLEMS + 2
    assert lines[-1].strip() == "and 3 more"
    assert "annotation 109" in lines[-2]


# -- image files ------------------------------------------------------------------------------------------------------
def _jpeg(width=WIDTH, height=HEIGHT, *flags):
    return encoded(".jpg", picture(width, height), *flags)


def _damaged_scan(data):
    middle = len(data) // 2
    return data[:middle] + data[middle + len(data) // 10 :]


def test_image_files_are_looked_at(folder):
    (folder / "images" / "a.jpg").unlink()
    (folder / "images" / "sub" / "b.png").write_bytes(encoded(".png", picture(30, 40)))
    with pytest.raises(BadInput) as caught:
        read(folder, CONTENT)
    assert re.search(r"image 7: .*a\.jpg: no such image file", str(caught.value))
    assert re.search(r"image 3: .*b\.png is 30 x 40, the record says 40 x 30", str(caught.value))
    assert len(read(folder, CONTENT, check_images=False)) == 2


def test_the_wrong_images_folder_is_guessed(folder):
    with pytest.raises(BadInput, match="is that the right folder"):
        read_coco(write(folder, CONTENT), folder)
    with pytest.raises(BadInput, match="nowhere: no such folder of images"):
        read_coco(write(folder, CONTENT), folder / "nowhere")


def with_exif(data, orientation, order="<"):
    tag = struct.pack(order + "HHIHH", 0x0112, 3, 1, orientation, 0)
    tiff = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IH", 8, 1) + tag + bytes(4)
    return data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:]


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_rotation_is_ignored_and_noted(folder, order):
    data = _jpeg()
    plain = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR)
    path = folder / "images" / "a.jpg"
    path.write_bytes(with_exif(data, 6, order))
    assert cv2.imread(str(path)).shape == (WIDTH, HEIGHT, 3)  # cv2 alone turns it away from its boxes
    np.testing.assert_array_equal(read_image(path), plain)
    assert any("1 image with an EXIF rotation" in note for note in read(folder, CONTENT).notes)
    rotated = edited(lambda c: c["images"][0].update(width=HEIGHT, height=WIDTH))
    rotated["annotations"].pop()
    with pytest.raises(BadInput, match=r"counts in the EXIF rotation.*save the image upright"):
        read(folder, rotated)


@pytest.mark.parametrize(
    "tiff", [b"", b"II*\0", b"II*\0\xff\xff\xff\xff", b"MM\0*\0\0\0\x08\xff\xff\x01\x12", b"garbage...."]
)
def test_a_damaged_exif_block_is_no_rotation(tmp_path, tiff):
    data = _jpeg()
    path = tmp_path / "a.jpg"
    path.write_bytes(data[:2] + b"\xff\xe1" + struct.pack(">H", len(tiff) + 8) + b"Exif\0\0" + tiff + data[2:])
    assert read_header(path).orientation == 1


COLOUR = picture(WIDTH, HEIGHT)
GREY = cv2.cvtColor(COLOUR, cv2.COLOR_BGR2GRAY)
ACCEPTED = {
    "png": (encoded(".png", COLOUR), COLOUR),
    "16-bit colour": (encoded(".png", COLOUR.astype(np.uint16) * 257), COLOUR),
    "16-bit grey": (encoded(".png", GREY.astype(np.uint16) * 257), cv2.merge([GREY] * 3)),
    "grey": (encoded(".png", GREY), cv2.merge([GREY] * 3)),
    "alpha": (encoded(".png", np.dstack([COLOUR, GREY])), COLOUR),
    "bmp": (encoded(".bmp", COLOUR), COLOUR),
    "tiff": (encoded(".tiff", COLOUR), COLOUR),
}


@pytest.mark.parametrize("name", ACCEPTED)
def test_images_come_as_uint8_bgr(tmp_path, name):
    data, expected = ACCEPTED[name]
    path = tmp_path / "image"
    path.write_bytes(data)
    image = read_image(path)
    assert image.dtype == np.uint8
    np.testing.assert_array_equal(image, expected)
    header = read_header(path)
    assert (header.width, header.height) == (WIDTH, HEIGHT)


def _padded_restarts_with_a_hole() -> bytes:
    """Two stray bytes before the first restart marker: the decoder's one complaint is of these, not of the hole."""
    data = bytearray(_jpeg(400, 300, cv2.IMWRITE_JPEG_RST_INTERVAL, 10))
    data[len(data) // 2 : len(data) // 2 + 400] = bytes(400)
    first = data.index(b"\xff\xd0")
    return bytes(data[:first] + b"\0\0" + data[first:])


WHOLE = {
    "plain": _jpeg(),
    "grey": encoded(".jpg", GREY),
    "progressive": _jpeg(WIDTH, HEIGHT, cv2.IMWRITE_JPEG_PROGRESSIVE, 1),
    "restarts": _jpeg(WIDTH, HEIGHT, cv2.IMWRITE_JPEG_RST_INTERVAL, 2),
    "data behind the end": _jpeg() + b"appended by a camera",
    "a thumbnail inside": with_exif(_jpeg(), 1)[:2]
    + b"\xff\xe2"
    + struct.pack(">H", 802)
    + _jpeg()[:800].ljust(800)
    + _jpeg()[2:],
    "padded": _jpeg()[:-2] + b"\x55" * 8 + b"\xff\xd9",  # libjpeg has read 5 of them ahead and complains of 3
    "large header": _jpeg()[:2] + (b"\xff\xe2\xff\xff" + bytes(65533)) * 2 + _jpeg()[2:],
}


@pytest.mark.parametrize("name", WHOLE)
def test_whole_jpegs_of_all_kinds(tmp_path, name):
    path = tmp_path / "a.jpg"
    path.write_bytes(WHOLE[name])
    assert read_image(path).shape == (HEIGHT, WIDTH, 3)
    header = read_header(path)
    assert (header.width, header.height) == (WIDTH, HEIGHT)


_PNG = encoded(".png", COLOUR)
BAD_IMAGES = {
    "empty": (b"", "the image file is empty"),
    "text": (b"<html>404</html>", "not a readable image"),
    "jpeg head": (_jpeg()[:100], "truncated"),
    "jpeg half": (_jpeg()[: len(_jpeg()) // 2], "truncated"),
    "jpeg without its last bytes": (_jpeg()[:-2], "truncated"),
    "jpeg half, then zeros": (_jpeg()[:900].ljust(len(_jpeg()), b"\0"), "truncated"),
    "jpeg half, with an end": (_jpeg()[: len(_jpeg()) // 2] + b"\xff\xd9", "corrupt"),
    "jpeg with padding that hides a hole": (_padded_restarts_with_a_hole(), "corrupt"),
    "jpeg with a hole": (_damaged_scan(_jpeg(400, 300)), "corrupt"),
    "jpeg with forty stray bytes": (_jpeg()[:-2] + b"\x55" * 40 + b"\xff\xd9", "corrupt"),
    "progressive half": (WHOLE["progressive"][: len(WHOLE["progressive"]) // 2], "truncated"),
    "png half": (_PNG[: len(_PNG) // 2], "truncated PNG"),
    "png flipped": (_PNG[:500] + bytes([_PNG[500] ^ 255]) + _PNG[501:], "corrupt|not a readable image"),
    "bmp half": (encoded(".bmp", COLOUR)[:2000], "truncated BMP"),
}


@pytest.mark.parametrize("name", BAD_IMAGES)
def test_bad_images_are_refused_by_name(tmp_path, name):
    data, message = BAD_IMAGES[name]
    path = tmp_path / "street.jpg"
    path.write_bytes(data)
    with pytest.raises(BadInput, match=message) as caught:
        read_image(path)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("name", [n for n, (_, m) in BAD_IMAGES.items() if m.startswith(("trunc", "the image", "not"))])
def test_a_header_of_a_truncated_file_is_refused(tmp_path, name):
    path = tmp_path / "street.jpg"
    path.write_bytes(BAD_IMAGES[name][0])
    with pytest.raises(BadInput, match=r"street\.jpg"):
        read_header(path)


def test_missing_image_and_folder(tmp_path):
    with pytest.raises(BadInput, match=r"none\.jpg: no such image file"):
        read_image(tmp_path / "none.jpg")
    with pytest.raises(BadInput, match="cannot be read"):
        read_image(tmp_path)


def test_stderr_of_others_passes_and_its_absence_is_no_trouble(tmp_path):
    """libjpeg's complaints are read from file descriptor 2: what else goes there stays there, and it may be closed."""
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg())
    code = (
        "import os, sys, threading, pathlib\n"
        "from edgekit.runtime.images import _decoder_complaints, read_image\n"
        "with _decoder_complaints() as found:\n"
        "    os.write(2, b'a word of another thread\\nCorrupt JPEG data: bad Huffman code\\n')\n"
        "assert found == ['Corrupt JPEG data: bad Huffman code'], found\n"
        "os.write(2, b'after\\n')\n"
        "os.close(2)\n"
        "assert read_image(pathlib.Path(sys.argv[1])).shape == (48, 64, 3)\n"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stderr == "a word of another thread\nafter\n"


def test_decoding_leaves_no_open_files(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(_jpeg())
    read_image(path)
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        read_image(path)
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("key", ["iscrowd", "difficult", "ignore"])
@pytest.mark.parametrize(("value", "marked"), [(0, False), (1.0, True), (False, False), (True, True), (None, False)])
def test_flags_of_every_json_writer_are_taken(folder, key, value, marked):
    assert read(folder, with_annotation(**{key: value})).samples[0].ignore.tolist() == [False, False, marked]


@pytest.mark.parametrize("key", ["iscrowd", "difficult", "ignore"])
@pytest.mark.parametrize("value", ["0", "false", "", float("nan"), 0.5, -1, 2, [], [0], {}])
def test_a_flag_that_is_none_makes_no_box_ignored(folder, key, value):
    with pytest.raises(BadInput, match=rf"annotation 5 .*: {key}: expected 0 or 1, found"):
        read(folder, with_annotation(**{key: value}))


@pytest.mark.parametrize("name", ["\u3000\u5199\u771f.jpg", "a\u00a0b.jpg", "e\u0301 \u200f.jpg"])
def test_spaces_of_every_script_may_be_in_a_name(folder, name):
    content = copy.deepcopy(CONTENT)
    content["images"][0]["file_name"] = name
    (folder / "images" / "a.jpg").rename(folder / "images" / name)
    assert read_coco(write(folder, content), folder / "images").samples[0].path.name == name


@pytest.mark.parametrize("name", ["a\0b.jpg", "a\nb.jpg", "\ud800.jpg", "a\x9b.jpg"])
def test_control_characters_in_a_name_are_refused_as_such(folder, name):
    content = copy.deepcopy(CONTENT)
    content["images"][0]["file_name"] = name
    with pytest.raises(BadInput, match="image 7: file_name: expected text without control characters"):
        read_coco(write(folder, content), folder / "images")


def test_boxes_in_shares_of_the_image_are_refused(folder):
    content = copy.deepcopy(CONTENT)
    content["annotations"][0]["bbox"], content["annotations"][1]["bbox"] = [0.1, 0.2, 0.3, 0.3], [0, 0, 1, 1]
    with pytest.raises(BadInput, match=r"bbox: every box lies within 0\.\.1\.5; .* COCO boxes are pixels"):
        read_coco(write(folder, content), folder / "images")
    content["annotations"][1]["bbox"] = [0, 0, 2, 1]
    assert len(read_coco(write(folder, content), folder / "images").samples[0].boxes) == 2


@pytest.mark.parametrize("table", ["images", "annotations", "categories"])
def test_a_table_that_is_there_twice_is_refused(folder, table):
    text = json.dumps(CONTENT)[:-1] + f', "{table}": []}}'
    with pytest.raises(BadInput, match=f"the key '{table}' is there twice"):
        read_coco(write(folder, text), folder / "images")


def test_the_name_of_a_table_may_be_a_value(folder):
    content = {**CONTENT, "info": {"description": "images", "images": 2}}
    assert len(read_coco(write(folder, content), folder / "images")) == 2
