"""Readers of other layouts: real photographs under annotations written by hand, in each layout's own shape."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest

from edgekit.data.classmap import ClassMap, class_map_names, load_class_map
from edgekit.data.formats import FORMATS, read_set, yolo
from edgekit.paths import share
from edgekit.runtime.errors import BadConfig, BadInput

from .test_coco import with_exif

PHOTOS = sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))


def photo(folder: Path, name: str, which: int = 0) -> Path:
    place = folder / name
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_bytes(PHOTOS[which].read_bytes())
    return place


def size(path: Path) -> tuple[int, int]:
    from edgekit.data.imagefile import read_header

    header = read_header(path)
    return header.width, header.height


OBJECT = """<object><name>{name}</name><difficult>{difficult}</difficult><bndbox><xmin>{0}</xmin><ymin>{1}</ymin>
<xmax>{2}</xmax><ymax>{3}</ymax></bndbox></object>"""


def xml(folder: Path, name: str, objects, filename: str = "wrong_name.jpg", dimensions: str = "") -> None:
    place = folder / f"{name}.xml"
    place.parent.mkdir(parents=True, exist_ok=True)
    parts = "".join(OBJECT.format(*box, name=n, difficult=d) for n, d, box in objects)
    place.write_text(f"<annotation><filename>{filename}</filename>{dimensions}{parts}</annotation>")


@pytest.fixture
def voc(tmp_path):
    root = tmp_path / "VOC2007"
    for i, name in enumerate(("000005", "000007")):
        photo(root / "JPEGImages", f"{name}.jpg", i)
    xml(root / "Annotations", "000005", [("car", 0, (1, 1, 50, 40)), ("person", 1, (10, 20, 30, 60))])
    xml(root / "Annotations", "000007", [("person", 0, (5, 6, 7, 8))])
    lists = root / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("000005\n")
    (lists / "car_trainval.txt").write_text("000005  1\n000007 -1\n")
    return root


def test_voc_counts_pixels_from_one_and_marks_difficult(voc):
    found = read_set(voc, voc / "JPEGImages", layout="voc")
    assert found.classes == ("car", "person")
    first, second = found.samples
    assert first.boxes.tolist() == [[0, 0, 50, 40], [9, 19, 30, 60]]
    assert first.ignore.tolist() == [False, True]
    assert second.boxes.tolist() == [[4, 5, 7, 8]]
    assert (first.width, first.height) == size(first.path)
    assert found.class_counts().tolist() == [1, 1]


@pytest.mark.parametrize(("listing", "names"), [("train.txt", ["000005.jpg"]), ("car_trainval.txt", ["000005.jpg"])])
def test_voc_lists_choose_the_images(voc, listing, names):
    found = read_set(voc / "ImageSets" / "Main" / listing, voc / "nowhere", layout="voc")
    assert [s.path.name for s in found.samples] == names


def test_voc_takes_the_size_from_the_file_when_the_annotation_has_none_and_checks_it_when_it_has(voc):
    xml(voc / "Annotations", "000007", [], dimensions="<size><width>12</width><height>9</height></size>")
    with pytest.raises(BadInput, match="the record says 12 x 9"):
        read_set(voc, voc / "JPEGImages", layout="voc")


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation><object><name>car</name></object></annotation>", "no bndbox"),
        ("<annotation>", "truncated or not XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><annotation/>', "document type"),
        (
            "<annotation><object><name>car</name><bndbox><xmin>a</xmin></bndbox></object></annotation>",
            "object 0: xmin is 'a', not a number",
        ),
    ],
)
def test_voc_names_the_broken_file(voc, text, said):
    (voc / "Annotations" / "000007.xml").write_text(text)
    with pytest.raises(BadInput, match=said) as error:
        read_set(voc, voc / "JPEGImages", layout="voc")
    assert "000007.xml" in str(error.value)


def test_voc_takes_no_document_type_in_any_encoding(voc):
    declared = '<?xml version="1.0" encoding="UTF-16"?><!DOCTYPE a [<!ENTITY b "c">]><annotation/>'
    (voc / "Annotations" / "000007.xml").write_bytes(declared.encode("utf-16"))
    with pytest.raises(BadInput, match="document type"):
        read_set(voc, voc / "JPEGImages", layout="voc")


SIZE = "<size><width>64</width><height>48</height></size>"
NAMELESS = "<object><name>car</name></object>"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("<annotation>", "truncated or not XML"),
        (f"<annotation>{NAMELESS}</annotation>", "no bndbox"),
        (f"<annotation>{SIZE}{NAMELESS}</annotation>", "no bndbox"),
        (None, "no such annotation file"),
    ],
)
def test_voc_tells_of_a_broken_annotation_and_of_its_missing_image_at_once(voc, text, said):
    (voc / "JPEGImages" / "000005.jpg").unlink()
    file = voc / "Annotations" / "000005.xml"
    file.unlink() if text is None else file.write_text(text)
    with pytest.raises(BadInput, match="2 problems") as error:
        read_set(voc / "ImageSets" / "Main" / "train.txt", voc / "JPEGImages", layout="voc")
    assert said in str(error.value)
    assert "000005.jpg: no such" in str(error.value)


def test_voc_says_that_images_were_not_looked_at_while_annotations_are_broken(voc):
    """The image of an annotation with a size is looked at when all of them can be read: then it is told too."""
    dimensions = "<size><width>{}</width><height>{}</height></size>".format(*size(voc / "JPEGImages" / "000005.jpg"))
    xml(voc / "Annotations", "000005", [("car", 0, (1, 1, 50, 40))], dimensions=dimensions)
    (voc / "JPEGImages" / "000005.jpg").unlink()
    (voc / "Annotations" / "000007.xml").write_text("<annot")
    with pytest.raises(BadInput, match=r"truncated or not XML[^\n]*\n.*were not looked at yet"):
        read_set(voc, voc / "JPEGImages", layout="voc")
    xml(voc / "Annotations", "000007", [("person", 0, (5, 6, 7, 8))])
    with pytest.raises(BadInput, match=r"000005\.jpg: no such image file") as error:
        read_set(voc, voc / "JPEGImages", layout="voc")
    assert "not looked at" not in str(error.value)


def test_voc_names_may_have_spaces(voc):
    for old, new in (("000005", "wide street"), ("000007", "street 1")):
        (voc / "Annotations" / f"{old}.xml").rename(voc / "Annotations" / f"{new}.xml")
        (voc / "JPEGImages" / f"{old}.jpg").rename(voc / "JPEGImages" / f"{new}.jpg")
    lines = {"train": "wide street\nstreet 1\n", "car_val": "wide street  1\nstreet 1 -1\n", "layout": "street 1 3\n"}
    chosen = {"train": ["wide street", "street 1"], "car_val": ["wide street"], "layout": ["street 1"]}
    for name, text in lines.items():
        listing = voc / "ImageSets" / "Main" / f"{name}.txt"
        listing.write_text(text)
        found = read_set(listing, voc / "JPEGImages", layout="voc")
        assert [sample.path.stem for sample in found.samples] == chosen[name]


def test_ivslab_has_a_folder_for_each_clip_and_a_stride_takes_one_frame_of_so_many(tmp_path):
    root = tmp_path / "ivslab_train"
    for clip in ("1_40_00.mp4", "3_40_00.mp4"):
        for frame in range(7):
            name = f"All/{clip}/{clip}_{frame:05d}"
            photo(root / "JPEGImages", f"{name}.jpg")
            xml(root / "Annotations", name, [("vehicle", 0, (0, 0, 20, 10)), ("scooter", 0, (3, 3, 9, 9))])
    every = read_set(root, root / "JPEGImages", layout="ivslab")
    assert len(every) == 14
    assert every.samples[0].boxes.tolist() == [[0, 0, 20, 10], [3, 3, 9, 9]]  # pixels from 0
    some = read_set(root, root / "JPEGImages", layout="ivslab", frame_stride=3)
    assert [s.path.name[-9:-4] for s in some.samples] == ["00000", "00003", "00006"] * 2
    assert some.digest() != every.digest()


LABELS = [
    {"category": "car", "box2d": {"x1": 1.5, "y1": 2, "x2": 11, "y2": 22}},
    {"category": "motor", "box2d": {"x1": 5, "y1": 5, "x2": 9, "y2": 9}, "attributes": {"crowd": True}},
    {"category": "rider", "box2d": {"x1": 5, "y1": 5, "x2": 9, "y2": 9}},
    {"category": "lane/road curb", "poly2d": [[1, 2], [3, 4]]},
]
BDD = {
    "2018": [{"name": "a.jpg", "labels": LABELS}, {"name": "b.jpg", "labels": None}],
    "2020": {"frames": [{"name": "a.jpg", "labels": LABELS}, {"name": "b.jpg"}], "config": {}},
    "one file per image": {"name": "a", "frames": [{"timestamp": 1, "objects": LABELS}]},
}


@pytest.mark.parametrize("shape", BDD)
def test_bdd100k_in_its_three_shapes(tmp_path, shape):
    photo(tmp_path, "images/a.jpg")
    photo(tmp_path, "images/b.jpg", 1)
    place = tmp_path / "labels"
    place.mkdir()
    (place / "a.json").write_text(json.dumps(BDD[shape]))
    source = place if shape == "one file per image" else place / "a.json"
    found = read_set(source, tmp_path / "images", layout="bdd100k")
    assert found.samples[0].boxes.tolist() == [[1.5, 2, 11, 22], [5, 5, 9, 9], [5, 5, 9, 9]]
    assert found.samples[0].ignore.tolist() == [False, True, False]
    assert found.classes == ("car", "motor", "rider")


@pytest.mark.parametrize(("number", "wanted"), [("0", [1.5, 2, 12, 23]), (0, [1.5, 2, 11, 22])])
def test_the_last_corner_of_scalabel_lies_inside_the_box(tmp_path, number, wanted):
    """box2d_to_bbox of the official evaluation: a width of x2 - x1 + 1. Labels of 2018 have numbers for ids."""
    photo(tmp_path, "a.jpg")
    (tmp_path / "labels.json").write_text(json.dumps([{"name": "a.jpg", "labels": [{"id": number, **LABELS[0]}]}]))
    found = read_set(tmp_path / "labels.json", tmp_path, layout="bdd100k")
    assert found.samples[0].boxes.tolist() == [wanted]


def test_a_scalabel_file_may_begin_with_a_frame_without_labels(tmp_path):
    photo(tmp_path, "a.jpg")
    photo(tmp_path, "b.jpg", 1)
    frames = [{"name": "b.jpg"}, {"name": "a.jpg", "labels": LABELS}]
    (tmp_path / "labels.json").write_text(json.dumps({"frames": frames, "config": {}}))
    found = read_set(tmp_path / "labels.json", tmp_path, layout="bdd100k")
    assert [(s.path.name, len(s.boxes)) for s in found.samples] == [("b.jpg", 0), ("a.jpg", 3)]


def test_bdd100k_merges_into_four_classes_as_mobile_centernet_describes(tmp_path):
    names = ["bus", "car", "truck", "person", "pedestrian", "motor", "motorcycle", "bike", "bicycle", "rider", "train"]
    labels = [{"category": n, "box2d": {"x1": i, "y1": 0, "x2": i + 5, "y2": 9}} for i, n in enumerate(names)]
    photo(tmp_path, "a.jpg")
    (tmp_path / "labels.json").write_text(json.dumps([{"name": "a.jpg", "labels": labels}]))
    found = read_set(tmp_path / "labels.json", tmp_path, layout="bdd100k", class_map=load_class_map("bdd100k-traffic4"))
    assert found.classes == ("vehicle", "pedestrian", "scooter", "bicycle")
    assert found.samples[0].labels.tolist() == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert found.samples[0].boxes[:, 0].tolist() == list(range(9))


def test_voc_names_an_annotation_that_a_list_names_and_nobody_wrote(voc):
    (voc / "ImageSets" / "Main" / "lost.txt").write_text("000999\n")
    with pytest.raises(BadInput, match=r"000999\.xml: no such annotation file"):
        read_set(voc / "ImageSets" / "Main" / "lost.txt", voc / "JPEGImages", layout="voc")


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("[]", "no frame"),
        ('{"frames": []}', "no frame"),
        ('{"a": 1}', "list of frames"),
        ('[{"labels": []}]', "with a name"),
        ("[", "truncated JSON"),
    ],
)
def test_bdd100k_says_what_is_wrong(tmp_path, content, said):
    (tmp_path / "labels.json").write_text(content)
    with pytest.raises(BadInput, match=said):
        read_set(tmp_path / "labels.json", tmp_path, layout="bdd100k")


@pytest.fixture
def yolo_set(tmp_path):
    for split, name, which in (("train", "a", 0), ("train", "b", 1), ("val", "c", 2)):
        photo(tmp_path, f"images/{split}/{name}.jpg", which)
    labels = tmp_path / "labels" / "train"
    labels.mkdir(parents=True)
    (labels / "a.txt").write_text("1 0.5 0.5 0.2 0.4\n0 0.1 0.1 0.3 0.1 0.3 0.2\n")
    (tmp_path / "data.yaml").write_text(
        "path: /of/another/machine\ntrain: images/train\nval: images/val\nnames: [car, bus]\n"
    )
    return tmp_path / "data.yaml"


def test_yolo_boxes_polygons_and_images_without_labels(yolo_set):
    found = read_set(yolo_set, Path("unused"), layout="yolo")
    first, second = found.samples
    w, h = first.width, first.height
    wanted = [[0.4 * w, 0.3 * h, 0.6 * w, 0.7 * h], [0.1 * w, 0.1 * h, 0.3 * w, 0.2 * h]]
    np.testing.assert_allclose(first.boxes, wanted, atol=1e-3)
    assert first.labels.tolist() == [1, 0]
    assert found.classes == ("car", "bus")
    assert len(second.boxes) == 0
    assert [s.path.name for s in read_set(Path(f"{yolo_set}#val"), Path(), layout="yolo").samples] == ["c.jpg"]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("2 0.5 0.5 0.1 0.1", "class 2, but data.yaml names 2"),
        ("0 120 60 30 30", "shares of the image"),
        ("0 0.5 0.5", "found 3 numbers"),
        ("car 0.5 0.5 0.1 0.1", "class 'car': expected its index, 0 to 1"),
        ("0 nan 0.5 0.1 0.1", "not finite"),
        ("0 0.5 0.5 -0.1 0.1", "width -0.1 and height 0.1: neither can be negative"),
    ],
)
def test_yolo_names_file_and_line(yolo_set, line, said):
    (yolo_set.parent / "labels/train/b.txt").write_text(f"0 0.5 0.5 0.1 0.1\n{line}\n")
    with pytest.raises(BadInput, match=said) as error:
        read_set(yolo_set, Path(), layout="yolo")
    assert "b.txt, line 2" in str(error.value)


@pytest.mark.parametrize(("shape", "points"), [("[2, 2]", "0.05 0.2 0.5 0.95"), ("[1, 3]", "0.05 0.95 2")])
def test_yolo_pose_lines_have_a_box_before_their_points(yolo_set, shape, points):
    """By the numbers alone a box with two points looks like a polygon of four corners."""
    yolo_set.write_text(f"{yolo_set.read_text()}kpt_shape: {shape}\n")
    (yolo_set.parent / "labels/train/a.txt").write_text(f"0 0.5 0.5 0.2 0.2 {points}\n1 0.5 0.5 0.2 0.2\n")
    first = read_set(yolo_set, Path(), layout="yolo").samples[0]
    w, h = first.width, first.height
    np.testing.assert_allclose(first.boxes, [[0.4 * w, 0.4 * h, 0.6 * w, 0.6 * h]] * 2, atol=1e-3)


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ("[3, 2]", r"a.txt, line 1.*x y width height and 6 numbers of points \(kpt_shape\), found 9"),
        ("17", "kpt_shape: expected"),
        ("[2, true]", "kpt_shape: expected"),
        ("[0, 2]", "kpt_shape: expected"),
    ],
)
def test_yolo_says_what_is_wrong_with_points(yolo_set, shape, said):
    yolo_set.write_text(f"{yolo_set.read_text()}kpt_shape: {shape}\n")
    (yolo_set.parent / "labels/train/a.txt").write_text("0 0.5 0.5 0.2 0.2 0.1 0.1 0.2 0.2\n")
    with pytest.raises(BadInput, match=said):
        read_set(yolo_set, Path(), layout="yolo")


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ("train: images/train\nnames: {1: car}\n", "names: expected"),
        ("train: images/none\nnames: [car]\n", "does not exist"),
        ("val: images/val\nnames: [car]\n", "no split 'train'; it has: val"),
        ("train: ../\nnames: [car]\n", "outside"),
    ],
)
def test_yolo_says_what_is_wrong_with_data_yaml(yolo_set, config, said):
    photo(yolo_set.parent.parent, "outside.jpg")
    yolo_set.write_text(config)
    with pytest.raises(BadInput, match=said):
        read_set(yolo_set, Path(), layout="yolo")


def test_yolo_writes_what_it_reads(tmp_path):
    folder = share("calibration") / "dhaka-eval"
    original = read_set(folder / "annotations.json", folder / "images")
    file = yolo.write(original, tmp_path, "val")
    again = read_set(Path(f"{file}#val"), Path(), layout="yolo")
    assert again.classes == original.classes
    by_name = {s.path.name: s for s in again.samples}
    for sample in original.samples:
        other = by_name[sample.path.name]
        np.testing.assert_allclose(other.boxes, sample.boxes[~sample.ignore], atol=2e-3)
        assert other.labels.tolist() == sample.labels[~sample.ignore].tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
def test_yolo_shares_are_of_the_picture_as_shown(tmp_path, orientation):
    """A dark box in a bright photograph is labelled where cv2, which turns it by its tag, shows it; and written so."""
    stored = np.full((200, 400, 3), 255, np.uint8)
    stored[50:90, 40:120] = 0
    file = tmp_path / "images" / "train" / "a.jpg"
    file.parent.mkdir(parents=True)
    file.write_bytes(with_exif(cv2.imencode(".jpg", stored)[1].tobytes(), orientation))
    shown = cv2.imread(str(file), cv2.IMREAD_GRAYSCALE)
    height, width = shown.shape
    ys, xs = np.nonzero(shown < 128)
    left, right, top, bottom = xs.min() / width, (xs.max() + 1) / width, ys.min() / height, (ys.max() + 1) / height
    (tmp_path / "labels" / "train").mkdir(parents=True)
    box = f"0 {(left + right) / 2} {(top + bottom) / 2} {right - left} {bottom - top}\n"
    polygon = f"0 {left} {top} {right} {top} {right} {bottom}\n"
    (tmp_path / "labels" / "train" / "a.txt").write_text(box + polygon)
    (tmp_path / "data.yaml").write_text("train: images/train\nnames: [car]\n")
    found = read_set(tmp_path / "data.yaml", Path(), layout="yolo")
    np.testing.assert_allclose(found.samples[0].boxes, [[40, 50, 120, 90]] * 2, atol=1.01)
    (again,) = yolo.write(found, tmp_path / "again").parent.rglob("a.txt")
    lines = [[float(number) for number in line.split()] for line in again.read_text().splitlines()]
    assert lines == [pytest.approx([float(number) for number in box.split()], abs=1e-5)] * 2
    told = [note for note in found.notes if "with an EXIF rotation" in note]
    assert len(told) == (orientation != 1)


def files_of(folder):
    return sorted(str(p.relative_to(folder)) for p in folder.rglob("*") if not p.is_dir())


def coco_of(folder, names, classes=("car", "bus"), **flags):
    """A COCO set of pictures, with one box of the second class in the first of them."""
    (width, height), *_ = (size(photo(folder / "pictures", name)) for name in names)
    content = {
        "images": [{"id": i, "file_name": n, "width": width, "height": height} for i, n in enumerate(names)],
        "annotations": [{"id": 1, "image_id": 0, "category_id": 2, "bbox": [0, 0, 8, 8], **flags}],
        "categories": [{"id": i, "name": name} for i, name in enumerate(classes, 1)],
    }
    (folder / "set.json").write_text(json.dumps(content))
    return read_set(folder / "set.json", folder / "pictures")


def test_yolo_leaves_no_folder_of_a_set_that_it_cannot_write(tmp_path):
    coco = coco_of(tmp_path, ["a.jpg", "a.jpeg"])
    with pytest.raises(BadInput, match=r"both would need a\.txt\. Rename one"):
        yolo.write(coco, tmp_path / "y")
    assert not (tmp_path / "y").exists()
    yolo.write(coco_of(tmp_path, ["b.jpg"]), tmp_path / "y", "val")
    before = files_of(tmp_path / "y")
    with pytest.raises(BadInput, match="both would need"):
        yolo.write(coco, tmp_path / "y")
    assert files_of(tmp_path / "y") == before


def test_yolo_splits_stand_side_by_side(tmp_path):
    yolo.write(coco_of(tmp_path, ["a.jpg"]), tmp_path / "y")
    yolo.write(coco_of(tmp_path, ["b.jpg"], ignore=1), tmp_path / "y", "val")
    images, labels = ("images/train/a.jpg", "images/val/b.jpg"), ("labels/train/a.txt", "labels/val/b.txt")
    assert files_of(tmp_path / "y") == ["data.yaml", *images, *labels]
    for split, boxes in (("train", 1), ("val", 0)):
        again = read_set(Path(f"{tmp_path / 'y'}#{split}"), Path(), layout="yolo")
        assert [len(s.boxes) for s in again.samples] == [boxes]


@pytest.mark.parametrize(
    ("classes", "split", "said"),
    [
        (("car", "bus"), "train", r"images/train: is there already.*Free in this folder: --split val, --split test"),
        # the same indices would mean other classes
        (("bus", "car"), "val", r"names car, bus, and what is to be written bus, car.*--classes car,bus"),
    ],
)
def test_yolo_does_not_mix_sets(tmp_path, classes, split, said):
    yolo.write(coco_of(tmp_path, ["a.jpg"]), tmp_path / "y")
    before = files_of(tmp_path / "y")
    with pytest.raises(BadConfig, match=said):
        yolo.write(coco_of(tmp_path, ["b.jpg"], classes), tmp_path / "y", split)
    assert files_of(tmp_path / "y") == before


def test_yolo_of_a_coco_file_says_so(tmp_path):
    (tmp_path / "train.json").write_text("{}")
    with pytest.raises(BadInput, match=r"found a \.json.* needs its data\.yaml.*data\.layout=coco"):
        yolo.read(tmp_path / "train.json", tmp_path)


def test_yolo_offers_no_split_that_is_taken(tmp_path):
    for count, free in ((1, "--split val, --split test"), (2, "--split test"), (3, None)):
        yolo.write(coco_of(tmp_path, ["a.jpg"]), tmp_path / "y", yolo.SPLITS[count - 1])
        with pytest.raises(BadConfig) as error:
            yolo.check_split(tmp_path / "y", "train")
        offered = f"Free in this folder: {free}. Or name" if free else "again. Name"
        assert f"{offered} another folder, or remove it." in str(error.value)


def test_yolo_is_written_whole_or_not_at_all(tmp_path):
    """Two pictures that would share a text file are found out when the first one has been written."""
    twins = coco_of(tmp_path, ["a.jpg", "a.png"])
    with pytest.raises(BadInput, match=r"a\.png: another image differs only.*a\.txt"):
        yolo.write(twins, tmp_path / "y")
    assert files_of(tmp_path / "y") == []


def test_an_unknown_layout_offers_the_nearest():
    with pytest.raises(BadConfig, match="Did you mean yolo"):
        read_set(Path("a"), Path("b"), layout="yolov5")
    assert set(FORMATS) == {"coco", "voc", "ivslab", "bdd100k", "yolo"}


# -- class maps -------------------------------------------------------------------------------------------------------
def content(*names):
    return {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 9, "height": 9}],
        "annotations": [
            {"id": i, "image_id": 1, "category_id": i, "bbox": [0, 0, 5, 5]} for i in range(1, len(names) + 1)
        ],
        "categories": [{"id": i, "name": n} for i, n in enumerate(names, 1)],
    }


def test_a_class_that_the_map_forgot_is_an_error():
    class_map = ClassMap(classes={"vehicle": ("car",)}, drop=("rider",))
    with pytest.raises(BadInput, match="says nothing about train"):
        class_map.apply(content("car", "rider", "train"), Path("x.json"))


def test_an_ignored_class_spares_every_class():
    class_map = ClassMap(classes={"vehicle": ("car",), "person": ("man",)}, ignore=("blur",))
    found = class_map.apply(content("car", "blur"), Path("x.json"))["annotations"]
    assert [(a["category_id"], a.get("ignore", 0)) for a in found] == [(1, 0), (1, 1), (2, 1)]
    assert [a["id"] for a in found] == [1, 2, 3]


def test_a_class_named_twice_is_an_error(tmp_path):
    (tmp_path / "m.yaml").write_text("classes: {a: [x], b: [x]}\n")
    with pytest.raises(BadConfig, match="named more than once: x"):
        load_class_map(tmp_path / "m.yaml")
    (tmp_path / "m.yaml").write_text("classes: {a: [x]}\ndrops: [b]\n")
    with pytest.raises(BadConfig, match="did you mean drop"):
        load_class_map(tmp_path / "m.yaml")


@pytest.mark.parametrize("name", class_map_names())
def test_shipped_maps_load(name):
    assert load_class_map(name).classes


def test_an_unknown_map_offers_the_shipped_ones():
    with pytest.raises(BadConfig, match="bdd100k-traffic4"):
        load_class_map("bdd100k")


@pytest.mark.parametrize(("said", "marked"), [("True", True), ("false", False), ("", False), (" 1 ", True)])
def test_voc_knows_both_ways_to_say_difficult(voc, said, marked):
    xml(voc / "Annotations", "000007", [("person", said, (5, 6, 7, 8))])
    assert read_set(voc, voc / "JPEGImages", layout="voc").samples[1].ignore.tolist() == [marked]


@pytest.mark.parametrize(
    ("difficult", "dimensions", "said"),
    [
        ("maybe", "", "object 0: difficult is 'maybe', expected 0 or 1"),
        ("2", "", "difficult is '2'"),
        ("0", "<size><width>inf</width><height>9</height></size>", "size: expected pixels, found width 'inf'"),
        ("0", "<size><width>9</width><height>1e400</height></size>", "height '1e400'"),
        ("0", "<size><width>nan</width><height>9</height></size>", "width 'nan'"),
    ],
)
def test_voc_names_a_flag_and_a_size_that_are_none(voc, difficult, dimensions, said):
    xml(voc / "Annotations", "000007", [("person", difficult, (5, 6, 7, 8))], dimensions=dimensions)
    with pytest.raises(BadInput, match=said):
        read_set(voc, voc / "JPEGImages", layout="voc")


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        ({"labels": "x"}, "labels: expected a list, found 'x'"),
        ({"labels": 7}, "labels: expected a list"),
        ({"labels": {"0": LABELS[0]}}, "labels: expected a list"),
        ({"labels": False}, "labels: expected a list"),
        ({"labels": [LABELS[0], 3]}, "label 1: expected an object, found 3"),
        ({"labels": [{**LABELS[0], "category": None}]}, "label 0: category: expected a name, found None"),
        ({"labels": [{**LABELS[0], "category": 3}]}, "category: expected a name"),
        ({"labels": [{**LABELS[0], "box2d": [1, 2, 3, 4]}]}, "box2d: expected the numbers x1, y1, x2, y2"),
        ({"labels": [{**LABELS[0], "box2d": {"x1": 1, "y1": 2, "x2": 3}}]}, "box2d: expected the numbers"),
        ({"labels": [{**LABELS[0], "attributes": {"crowd": "false"}}]}, "crowd: expected 0 or 1, found 'false'"),
        ({"frames": [None]}, "frames: expected a list of objects"),
        ({"frames": "x"}, "frames: expected a list of objects"),
        ({"frames": [{"objects": "x"}]}, "labels: expected a list"),
    ],
)
def test_bdd100k_makes_no_negative_and_no_class_of_nonsense(tmp_path, frame, said):
    photo(tmp_path, "a.jpg")
    (tmp_path / "labels.json").write_text(json.dumps([{"name": "a.jpg", **frame}]))
    with pytest.raises(BadInput, match=said):
        read_set(tmp_path / "labels.json", tmp_path, layout="bdd100k")


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("1.9 0.5 0.5 0.2 0.4", r"line 1: class 1\.9: expected a whole number"),
        ("-0.9 0.5 0.5 0.2 0.4", "expected a whole number"),
        ("inf 0.5 0.5 0.2 0.4", "expected a whole number"),
        ("nan 0.5 0.5 0.2 0.4", "expected a whole number"),
        ("2 0.5 0.5 0.2 0.4", "class 2, but data.yaml names 2 classes"),
        ("car 0.5 0.5 0.2 0.4", "class 'car': expected its index, 0 to 1"),
    ],
)
def test_yolo_refuses_a_class_that_is_no_index(yolo_set, line, said):
    (yolo_set.parent / "labels" / "train" / "a.txt").write_text(line)
    with pytest.raises(BadInput, match=said):
        read_set(yolo_set, Path("unused"), layout="yolo")


def test_yolo_takes_an_index_written_as_a_float(yolo_set):
    (yolo_set.parent / "labels" / "train" / "a.txt").write_text("1.0 0.5 0.5 0.2 0.4")
    assert read_set(yolo_set, Path("unused"), layout="yolo").samples[0].labels.tolist() == [1]


def test_yolo_refuses_two_classes_of_one_name(yolo_set):
    yolo_set.write_text("train: images/train\nnames: [car, bus, car]\n")
    with pytest.raises(BadInput, match="names: car: more than once"):
        read_set(yolo_set, Path("unused"), layout="yolo")


def test_yolo_refuses_a_list_of_images_that_is_no_text(yolo_set):
    (yolo_set.parent / "list.txt").write_bytes("images/train/\u00e9.jpg\n".encode("latin-1"))
    yolo_set.write_text("train: list.txt\nnames: [car, bus]\n")
    with pytest.raises(BadInput, match=r"list\.txt: expected a list of images, one path a line, in UTF-8"):
        read_set(yolo_set, Path("unused"), layout="yolo")
