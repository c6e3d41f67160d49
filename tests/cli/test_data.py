"""``edgekit data`` on annotations: what cannot be written is told before an image is read."""

from __future__ import annotations

import pytest

from edgekit.cli import main


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("convert a.json --to voc --out new", "'voc' is not one of 'coco', 'yolo'"),
        ("convert a.json", "convert needs --out"),
        ("convert a.json --out {folder}", "is a folder, and a file is to be written"),
        ("convert a.json --to yolo --out {file}", "is a file, not a folder"),
        ("convert a.json --out {file}/b.json", "is a file, not a folder"),
        ("convert a.json --to yolo --out {taken}", "is there already, and two sets in one split"),
        ("convert a.json --to yolo --split val --out {taken}/none/file", "is a file, not a folder"),
        ("convert a.json --split val --out new.json", "only convert --to yolo takes it"),
        ("stats a.json --split val", "only convert --to yolo takes it"),
        ("stats a.json --out {folder}", "not a picture format"),
        ("stats a.json --out {folder}/sheet.txt", "not a picture format"),
        ("stats a.json --out {file}/sheet.png", "is a file, not a folder"),
        ("check a.json --out new.json", "check writes nothing"),
    ],
)
def test_what_cannot_be_written_is_told_before_an_image_is_read(line, said, pipeline, tmp_path, capsys):
    (tmp_path / "file").write_text("mine")
    taken = tmp_path / "artifact" / "yolo"
    (taken / "images" / "train").mkdir(parents=True)
    (taken / "none").mkdir()
    (taken / "none" / "file").touch()
    assert main(["data", *line.format(folder=tmp_path, file=tmp_path / "file", taken=taken).split()]) == 2
    assert said in " ".join(capsys.readouterr().err.replace("│", " ").split())
    assert pipeline.calls == []
    assert [p.name for p in tmp_path.iterdir() if p.name != "artifact"] == ["file"]


@pytest.mark.parametrize(("to", "out"), [("coco", "b.json"), ("yolo", "folder"), ("yolo", "folder/below")])
def test_what_can_be_written_is(to, out, pipeline, tmp_path, capsys):
    pipeline.results["data_convert"] = tmp_path / out
    assert main(["data", "convert", "a.json", "--to", to, "--out", str(tmp_path / out)]) == 0
    assert pipeline.calls[1][::2] == ("data_convert", {"out": tmp_path / out, "layout": to, "split": "train"})
    assert capsys.readouterr().out.strip() == str(tmp_path / out)


def test_a_split_of_a_yolo_folder(pipeline, tmp_path, capsys):
    pipeline.results["data_convert"] = tmp_path / "y"
    assert main(["data", "convert", "a.json", "--to", "yolo", "--split", "val", "--out", str(tmp_path / "y")]) == 0
    assert pipeline.calls[1][::2] == ("data_convert", {"out": tmp_path / "y", "layout": "yolo", "split": "val"})
    assert "note: a note" in capsys.readouterr().err
