"""Named image sets: the shipped ones, own ones, and everything that can be wrong with one."""

import errno
import json
import shutil
from pathlib import Path

import cv2
import numpy as np
import pytest
import yaml
from pycocotools.coco import COCO

from edgekit.data import calibration
from edgekit.data.calibration import load_set, set_names, write_set
from edgekit.data.coco import read_image
from edgekit.paths import share
from edgekit.runtime.artifact import file_sha256
from edgekit.runtime.errors import BadConfig, BadInput

CLASSES = ("vehicle", "scooter", "bicycle")
WORDS = {"licence": "CC0-1.0", "attribution": "nobody", "source": "made here"}


def picture(seed):
    return np.random.default_rng(seed).integers(0, 256, (20, 30, 3), np.uint8)


@pytest.fixture
def folder(tmp_path):
    """Three images, and a file that is none."""
    path = tmp_path / "street"
    path.mkdir()
    for seed, name in enumerate(("b.png", "a.jpg", "c.JPG")):
        (path / name).write_bytes(cv2.imencode(Path(name).suffix.lower(), picture(seed))[1].tobytes())
    (path / "notes.txt").write_text("not an image")
    (path / ".hidden.jpg").write_bytes(b"left by a file manager")
    return path


def annotate(folder, names=("a.jpg", "b.png", "c.JPG")):
    content = {
        "images": [{"id": i, "file_name": n, "width": 30, "height": 20} for i, n in enumerate(names, 1)],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 3, 4]}],
        "categories": [{"id": 1, "name": "car"}],
    }
    (folder / "boxes.json").write_text(json.dumps(content))
    return "boxes.json"


def edit(folder, change):
    file = folder / "set.yaml"
    values = yaml.safe_load(file.read_text())
    change(values)
    file.write_text(yaml.safe_dump(values))


# -- the shipped sets -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "purpose", "count"), [("dhaka-calib", "calibration", 64), ("dhaka-eval", "evaluation", 60)]
)
def test_shipped_sets_load_verify_and_decode(name, purpose, count):
    found = load_set(name)
    assert (found.name, found.purpose, len(found)) == (name, purpose, count)
    coco = found.coco(CLASSES)
    assert coco.notes == ()
    assert coco.classes == CLASSES
    assert coco.category_ids == (1, 2, 3)
    assert {s.path for s in coco.samples} == set(found.images)
    for sample in coco.samples:
        assert read_image(sample.path).shape == (sample.height, sample.width, 3)


def test_the_evaluation_set_holds_enough_of_each_class():
    counts = load_set("dhaka-eval").coco(CLASSES).class_counts()
    assert (counts >= 20).all()
    assert counts[2] / counts.sum() < 0.1  # bicycles are rare on these roads, and stay so


def test_calibration_and_evaluation_share_no_image():
    sets = [load_set(name) for name in ("dhaka-calib", "dhaka-eval")]
    for key in (lambda p: p.name, file_sha256):
        first, second = ({key(path) for path in s.images} for s in sets)
        assert not first & second


def test_pycocotools_reads_the_shipped_annotations(capsys):
    for name in set_names():
        found = load_set(name)
        coco = COCO(str(found.annotations))
        assert len(coco.getImgIds()) == len(found)
        for box in coco.loadAnns(coco.getAnnIds()):
            record = coco.imgs[box["image_id"]]
            x, y, w, h = box["bbox"]
            assert min(x, y) >= 0
            assert min(w, h) > 0
            assert x + w <= record["width"] + 1e-3
            assert y + h <= record["height"] + 1e-3


ROADS = ("DbCL-1.0", "ashfakyeafi", "276f8ddc8d3561997485743366869b9ac1ad0fa0", "Not labelled: pedestrians")
CELLS = ("MIT License", "Copyright (c) 2017 shenggan", "d272fb14cdff6e473fafeeeba32aba5f560e9e43", "no medical device")


@pytest.mark.parametrize(
    ("origin", "sets", "most", "words"),
    [("dhaka", ("calib", "eval", "eval-road8"), 5.9e6, ROADS), ("bccd", ("calib", "eval"), 3.5e6, CELLS)],
)
def test_the_shipped_samples_are_small_and_say_where_they_come_from(origin, sets, most, words):
    folders = [folder for folder in share("calibration").iterdir() if folder.name.startswith(f"{origin}-")]
    assert {folder.name for folder in folders} == {f"{origin}-{name}" for name in sets}
    assert sum(p.stat().st_size for folder in folders for p in folder.rglob("*") if p.is_file()) < most
    for folder in folders:
        text = (folder / "README.md").read_text(encoding="utf-8")
        assert [word for word in words if word not in text] == []


def test_a_set_may_label_the_images_of_another_one_anew():
    three, eight = load_set("dhaka-eval"), load_set("dhaka-eval-road8")
    assert three.images == eight.images
    boxes = [[len(sample.boxes) for sample in found.coco().samples] for found in (three, eight)]
    assert boxes[0] == boxes[1]
    assert three.digest != eight.digest


# -- own sets ---------------------------------------------------------------------------------------------------------
def test_a_plain_folder_is_a_set(folder):
    found = load_set(folder)
    assert [p.name for p in found.images] == ["a.jpg", "b.png", "c.JPG"]
    assert (found.name, found.annotations, found.purpose) == ("street", None, "calibration")
    with pytest.raises(BadInput, match="set 'street' has no annotations"):
        found.coco()


def test_a_written_set_is_the_folder_pinned(folder, tmp_path):
    plain = load_set(folder)
    steps = []
    written = write_set(folder, name="my street", progress=lambda *step: steps.append(step), **WORDS)
    assert written == load_set(str(folder))
    assert written.name == "my street"
    assert steps == [(1, 3), (2, 3), (3, 3)]
    assert written.digest == plain.digest  # of content: the same images in the same order
    moved = folder.rename(tmp_path / "moved")
    assert load_set(moved).digest == plain.digest


def test_annotations_and_images_elsewhere(folder, tmp_path):
    home = tmp_path / "set"
    home.mkdir()
    annotate(home)
    found = write_set(
        home, images_root="../street", annotations="boxes.json", purpose="evaluation", recipe="r", **WORDS
    )
    assert found.images_root == folder
    assert found.coco().class_counts().tolist() == [1]
    assert found.digest != load_set(folder).digest
    edit(home, lambda v: v.update(images=v["images"][:2]))
    with pytest.raises(BadInput, match=r"c\.JPG: only in the annotations"):
        load_set(home).coco()
    annotate(home, names=("a.jpg",))
    write_set(home, images_root="../street", annotations="boxes.json", **WORDS)
    entry = {"file": "b.png", "sha256": file_sha256(folder / "b.png")}
    edit(home, lambda v: v["images"].append(entry))
    with pytest.raises(BadInput, match=r"b\.png: only in set\.yaml"):
        load_set(home).coco()


def test_a_shipped_name_goes_before_a_folder_that_is_called_so(folder, monkeypatch, tmp_path):
    monkeypatch.chdir(folder.parent)
    assert load_set("street").folder == folder
    (tmp_path / "dhaka-eval").mkdir()
    assert len(load_set("dhaka-eval")) == 60  # a name is the shipped set wherever one stands
    with pytest.raises(BadInput, match="no images in this folder"):
        load_set("./dhaka-eval")


def test_progress_of_loading(folder):
    for _ in range(2):  # plain, then with set.yaml
        steps = []
        load_set(folder, progress=lambda done, total, steps=steps: steps.append((done, total)))
        assert steps[-1] == (3, 3)
        write_set(folder, **WORDS)


# -- what is refused --------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("dhaka-evl", "no image set named 'dhaka-evl'. Did you mean dhaka-eval"),
        ("", "no image set named ''"),
        ("../calibration/dhaka-calib/none", "no image set named"),
        ("a\0b", "no image set named"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(BadConfig) as caught:
        load_set(name)
    assert message in str(caught.value)


def test_a_file_is_no_set(folder):
    with pytest.raises(BadInput, match=r"a\.jpg: expected a folder"):
        load_set(folder / "a.jpg")


@pytest.mark.parametrize("images", [None, []])
def test_an_empty_set_says_what_to_do(folder, images):
    write_set(folder, **WORDS)
    edit(folder, lambda v: v.update(images=images))
    with pytest.raises(BadInput, match=r"set\.yaml: the set is empty: put images \(.*\.jpg.*\) into"):
        load_set(folder)


def test_an_empty_folder_says_what_to_do(tmp_path):
    for act in (load_set, lambda f: write_set(f, **WORDS)):
        with pytest.raises(BadInput, match="no images in this folder: put images"):
            act(tmp_path)
    assert list(tmp_path.iterdir()) == []


CHANGES = {
    "changed": (lambda f: (f / "a.jpg").write_bytes(b"other"), r"a\.jpg: SHA-256 is [0-9a-f]{12}\.\.\., the set says"),
    "missing": (lambda f: (f / "b.png").unlink(), r"b\.png: listed in the set but missing"),
    "boxes changed": (lambda f: (f / "boxes.json").write_text("{}"), r"boxes\.json: SHA-256 is"),
    "boxes missing": (lambda f: (f / "boxes.json").unlink(), r"boxes\.json: listed in the set but missing"),
}


@pytest.mark.parametrize("name", CHANGES)
def test_files_that_do_not_match_the_set_are_named(folder, name):
    write_set(folder, annotations=annotate(folder), **WORDS)
    change, message = CHANGES[name]
    change(folder)
    with pytest.raises(BadInput, match=message) as caught:
        load_set(folder)
    assert "1 problem\n" in str(caught.value)


BAD_SETS = {
    "unknown key": (lambda v: v.update(licens="x"), "licens: unknown key; did you mean licence"),
    "no licence": (lambda v: v.pop("licence"), "licence: is missing"),
    "empty source": (lambda v: v.update(source=""), "source: "),
    "purpose": (lambda v: v.update(purpose="training"), "purpose: "),
    "short hash": (lambda v: v["images"][0].update(sha256="abc"), "images.0.sha256: "),
    "unknown image key": (lambda v: v["images"][0].update(size=3), "images.0.size: unknown key"),
    "outside": (lambda v: v["images"][0].update(file="../a.jpg"), "expected a path inside the images' folder"),
    "absolute": (lambda v: v["images"][0].update(file="/a.jpg"), "expected a path inside the images' folder"),
    "twice": (lambda v: v["images"].append(v["images"][0]), "listed twice: a.jpg"),
    "boxes without hash": (lambda v: v.update(annotations="boxes.json"), "go together"),
}


@pytest.mark.parametrize("name", BAD_SETS)
def test_a_wrong_set_file_is_told_in_full(folder, name):
    write_set(folder, **WORDS)
    change, message = BAD_SETS[name]
    edit(folder, change)
    with pytest.raises(BadConfig) as caught:
        load_set(folder)
    assert str(caught.value).startswith(f"{folder / 'set.yaml'}: 1 problem")
    assert message in str(caught.value)


@pytest.mark.parametrize("text", ["", "- 1", "a: [", "\x00", "name: x\nimages: 3"])
def test_a_set_file_that_is_no_mapping(folder, text):
    (folder / "set.yaml").write_text(text)
    with pytest.raises(BadConfig, match=r"set\.yaml"):
        load_set(folder)


def test_images_that_cannot_be_decoded_make_no_set(folder):
    for name in ("a.jpg", "b.png"):
        (folder / name).write_bytes((folder / name).read_bytes()[:200])
    with pytest.raises(BadInput) as caught:
        write_set(folder, **WORDS)
    assert "2 problems" in str(caught.value)
    assert "a.jpg: truncated" in str(caught.value)
    assert not (folder / "set.yaml").exists()


@pytest.mark.parametrize("words", [{"licence": ""}, {"purpose": "training"}])
def test_wrong_words_make_no_set(folder, words):
    with pytest.raises(BadConfig):
        write_set(folder, **{**WORDS, **words})
    assert not (folder / "set.yaml").exists()


@pytest.mark.parametrize("failure", [OSError(errno.ENOSPC, "No space left on device"), KeyboardInterrupt()])
def test_a_failed_write_leaves_the_old_set_whole(folder, monkeypatch, failure):
    write_set(folder, name="old", **WORDS)
    before = sorted(folder.iterdir())

    def fail(*_args, **_options):
        raise failure

    monkeypatch.setattr(calibration.yaml, "safe_dump", fail)
    with pytest.raises(type(failure)):
        write_set(folder, name="new", **WORDS)
    assert sorted(folder.iterdir()) == before
    assert load_set(folder).name == "old"


def test_set_names_are_folders_with_a_set_file(monkeypatch, folder, tmp_path):
    assert set(set_names()) >= {"dhaka-calib", "dhaka-eval"}
    monkeypatch.setattr(calibration, "share", lambda kind: tmp_path)
    assert set_names() == []
    write_set(folder, **WORDS)
    assert set_names() == ["street"]
    shutil.copytree(folder, tmp_path / "avenue")
    assert set_names() == ["avenue", "street"]
    assert load_set("street").folder == folder


def test_a_set_whose_paths_no_system_can_have(folder):
    write_set(folder, **WORDS)
    edit(folder, lambda values: values.update(images_root="a\0b"))
    with pytest.raises(BadConfig, match="a path has a NUL character in it"):
        load_set(folder)
