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

from edgekit.cli import main
from edgekit.paths import share

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
    refused(labelled, command, "is read by this command", capsys)


def test_a_bundle_replaces_bundles_only(onnx: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "README.md").write_text("mine")
    command = ["bundle", str(onnx), "--board", "x86-1t", "--out", str(tmp_path / "README.md")]
    assert main(command) == 2
    assert (tmp_path / "README.md").read_text() == "mine"


def test_a_closed_pipe_is_no_finding() -> None:
    command = f"{sys.executable} -m edgekit boards | true; echo ${{PIPESTATUS[0]}}"
    told = subprocess.run(["bash", "-c", command], capture_output=True, text=True, cwd=share("recipes").parent)
    assert told.stdout.strip() in ("141", "0"), told  # 0 where all was written before the reader went
