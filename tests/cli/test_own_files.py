"""What a verb reads, and what somebody else made, is not written over; a result is there whole or not at all."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from onnx import TensorProto, helper, save

from edgekit.cli import main
from edgekit.conversion.graph import load_model
from edgekit.paths import share
from edgekit.runtime.artifact import new_artifact, read_artifact

RECIPE = "mobile-centernet-w16-bccd"
PHOTOS = sorted((share("calibration") / "bccd-eval" / "images").iterdir())[:2]


@pytest.fixture(scope="module")
def onnx(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("network") / "onnx"
    assert main(["export", RECIPE, "--board", "x86-1t", "--out", str(place)]) == 0
    return place


@pytest.fixture
def album(tmp_path: Path) -> Path:
    folder = tmp_path / "album" / "pictures"
    folder.mkdir(parents=True)
    for photo in PHOTOS:
        shutil.copyfile(photo, folder / photo.name)
    return folder


@pytest.fixture
def labelled(tmp_path: Path) -> Path:
    """A set whose boxes somebody drew."""
    folder = tmp_path / "set"
    shutil.copytree(share("calibration") / "bccd-eval", folder)
    return folder


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


def refused(folder: Path, command: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = content(folder)
    assert main(command) == 2
    assert words in capsys.readouterr().err
    assert content(folder) == before


def test_predict_leaves_the_pictures_that_it_reads(onnx: Path, album: Path, capsys: pytest.CaptureFixture[str]) -> None:
    command = ["predict", str(onnx), str(album), "--out", str(album.parent)]
    refused(album.parent, command, "is read by this command", capsys)


@pytest.mark.parametrize("place", ["", "boxes", "deep/er"])
def test_predict_leaves_no_pictures_where_the_next_reader_finds_them(
    place: str, onnx: Path, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(onnx), str(album), "--out", str(album / place)]
    refused(album, command, "which is read by this command", capsys)


def flat(tmp_path: Path, onnx: Path) -> Path:
    """The network with every box's width and height negative: x1, y1 and x2, y2 exchanged."""
    model = load_model(str(onnx / "model.onnx"))
    for node in model.graph.node:
        node.output[:] = ["before" if name == "boxes" else name for name in node.output]
    order = helper.make_tensor("order", TensorProto.INT64, [4], [2, 3, 0, 1])
    model.graph.initializer.append(order)
    model.graph.node.append(helper.make_node("Gather", ["before", "order"], ["boxes"], axis=2))
    with new_artifact(tmp_path / "flat", "onnx", read_artifact(onnx).manifest) as folder:
        save(model, f"{folder}/model.onnx")
    return tmp_path / "flat"


def test_boxes_without_area_are_counted_and_in_no_file(
    onnx: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network, summaries = str(flat(tmp_path, onnx)), []
    for command in (["predict", network, str(album), "--score", "0.2"], ["label", network, str(album)]):
        out = tmp_path / f"{command[0]}.json"
        assert main([*command, "--json", "--out", str(out)]) == 0
        summaries.append(json.loads(capsys.readouterr().out))
        file = out / "detections.json" if out.is_dir() else out
        assert json.loads(file.read_text())["annotations"] == []
    predicted, labelled = (summary["boxes_without_area"] for summary in summaries)
    assert predicted == labelled > 0


def test_predict_leaves_no_pictures_beside_an_image_that_it_is_given(
    onnx: Path, album: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["predict", str(onnx), str(album / PHOTOS[0].name), "--out", str(album)]
    refused(album, command, "which is read by this command", capsys)


def test_predict_knows_a_video_and_what_reads_it(
    onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clip = share("calibration") / "clips" / "car-park.mp4"
    assert main(["predict", str(onnx), str(clip), "--out", str(tmp_path / "out")]) == 2
    assert f"is a video, and images are read here. Its boxes: edgekit camera ARTIFACT --source {clip}" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("verb", ["predict", "label"])
def test_a_photo_with_a_rotation_is_told(
    verb: str, onnx: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photo = album / PHOTOS[0].name
    turned = b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0\0\0\x01\0\x06\0\0\0\0\0\0"
    segment = b"\xff\xe1" + (len(turned) + 2).to_bytes(2, "big") + turned
    photo.write_bytes(photo.read_bytes()[:2] + segment + photo.read_bytes()[2:])
    assert main([verb, str(onnx), str(album), "--out", str(tmp_path / "out.json")]) == 0
    assert "note: 1 image with an EXIF rotation, which turns nothing" in capsys.readouterr().out


def test_predict_counts_what_it_passes_over(
    onnx: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (album / "a.gif").touch()
    (album / "older").mkdir()
    shutil.copy(album / PHOTOS[0].name, album / "older" / "b.jpg")
    assert main(["predict", str(onnx), str(album), "--out", str(tmp_path / "out")]) == 0
    told = capsys.readouterr().out
    assert "images: 2\n" in told
    assert "other files: .gif 1, .jpg 1\n" in told


def test_label_counts_what_is_no_image(
    onnx: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("a.GIF", "b.gif", "notes"):
        (album / name).touch()
    (album / "elsewhere").symlink_to(tmp_path)
    assert main(["label", str(onnx), str(album), "--out", str(tmp_path / "l.json")]) == 0
    assert "other files: .gif 2, links to folders 1, no suffix 1\n" in capsys.readouterr().out


def test_predict_names_every_bad_image_and_leaves_nothing(
    onnx: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("b.jpg", "c.png"):
        (album / name).write_text("no picture")
    assert main(["predict", str(onnx), str(album), "--out", str(tmp_path / "out")]) == 2
    told = capsys.readouterr().err
    assert "b.jpg: not a readable image" in told
    assert "c.png: not a readable image" in told
    assert not (tmp_path / "out").exists()


def test_an_interrupted_predict_leaves_nothing(onnx: Path, tmp_path: Path) -> None:
    source = share("calibration") / "dhaka-eval" / "images"
    command = [sys.executable, "-m", "edgekit", "predict", str(onnx), str(source), "--out", str(tmp_path / "out")]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, cwd=share("recipes").parent)
    assert process.stderr is not None
    for line in process.stderr:
        if "predict" in line:
            process.send_signal(signal.SIGINT)
            break
    told = process.communicate()[1]
    assert process.returncode == 130, told
    assert os.listdir(tmp_path) == []


def test_what_predict_wrote_before_it_writes_anew(onnx: Path, album: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    for _ in range(2):
        assert main(["predict", str(onnx), str(album), "--out", str(out)]) == 0
    assert sorted(content(out)) == ["detections.json", *(f"pictures/{photo.stem}.jpg" for photo in PHOTOS)]
    assert len(json.loads((out / "detections.json").read_text())["images"]) == 2


def test_label_leaves_boxes_that_somebody_drew(
    onnx: Path, labelled: Path, album: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["label", str(onnx), str(labelled / "images"), "--out", str(labelled / "annotations.json")]
    refused(labelled, command, "edgekit label did not write it", capsys)
    for _ in range(2):  # its own it writes anew
        assert main(["label", str(onnx), str(album), "--out", str(tmp_path / "pseudo.json")]) == 0


IMAGE = f"images/{PHOTOS[0].name}"


@pytest.mark.parametrize(
    ("verb", "target"),
    [("data stats", IMAGE), ("data convert", "annotations.json"), ("bench", "annotations.json"), ("bench", IMAGE)],
)
def test_a_set_is_not_written_over(
    verb: str, target: str, onnx: Path, labelled: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    annotations, out = str(labelled / "annotations.json"), str(labelled / target)
    command = [*verb.split(), annotations, "--out", out]
    if verb == "bench":
        command = ["bench", str(onnx), "--data", annotations, "--seconds", "0.1", "--out", out]
    said = "is there and is no report; it will not be replaced" if verb == "bench" else "is read by this command"
    refused(labelled, command, said, capsys)


@pytest.mark.parametrize("command", ["bench onnx --seconds 0.1", "baseline save rows.json"])
def test_a_report_replaces_reports_only(
    command: str, onnx: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(onnx.parent)
    (onnx.parent / "thesis.txt").write_text("years of work")
    assert main([*command.split(), "--out", "thesis.txt"]) == 2
    assert "is there and is no report; it will not be replaced" in capsys.readouterr().err
    assert (onnx.parent / "thesis.txt").read_text() == "years of work"


def test_a_bundle_replaces_bundles_only(onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    command = ["bundle", str(onnx), "--board", "x86-1t", "--out", str(tmp_path / "README.md")]
    assert main(command) == 2
    assert (tmp_path / "README.md").read_text() == "mine"


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="needs /dev/full")
@pytest.mark.parametrize("more", [[], ["--json"]])
def test_a_full_stdout_is_named(more: list[str]) -> None:
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "edgekit", "boards", *more]
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert done.returncode == 2
    assert done.stderr == (
        "edgekit: stdout cannot be written (no space left on device). Send it elsewhere, or free some room.\n"
    )


@pytest.mark.parametrize("words", ["boards", "--help", "export --help"])
def test_a_closed_pipe_is_no_finding(words: str) -> None:
    command = f"{sys.executable} -m edgekit {words} | true; echo ${{PIPESTATUS[0]}}"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=share("recipes").parent)
    assert told.stdout.strip() in ("141", "0"), told  # 0 where all was written before the reader went
