"""Every verb with what a stranger gets wrong: exit code 2, one message that says what was found, nothing written."""

from __future__ import annotations

import shlex
from pathlib import Path

import pytest

from edgekit.cli import main
from edgekit.measure.report import report_json
from edgekit.runtime.artifact import new_artifact

CASES = [
    # no recipe, no artifact
    ("run nope", "no recipe named 'nope'"),
    ("run empty", "no recipe.yaml in this folder"),
    ("export .", "no recipe.yaml in this folder, which holds"),
    ("run list.yaml", "expected a mapping of keys, found list"),
    ("run mobile-centernet-w16-dhaka foo", "expected key=value"),
    ("run mobile-centernet-w16-dhaka train.epoch=3", "did you mean epochs"),
    ("run mobile-centernet-w16-dhaka --board text.txt", "no board named 'text.txt'"),
    ("train bad.yaml", "not valid YAML"),
    ("export broken", "not a valid manifest"),
    ("export onnx", "found an artifact of kind 'onnx', needed 'checkpoint'"),
    ("export onnx export.top_k=3", "changes a recipe"),
    ("quantize text.txt", "not an artifact"),
    ("quantize onnx --calibration empty", "no images in this folder"),
    ("quantize onnx --method best", "expected one of minmax, entropy, percentile, got 'best'"),
    ("evaluate onnx --data nope", "dhaka-calib, dhaka-eval"),
    ("evaluate onnx --data bad.json", "not valid JSON"),
    ("evaluate onnx --metric voc", "Did you mean voc2007"),
    ("evaluate onnx --scales a,b", "expected factors such as"),
    ("bench nope", "no artifact or recipe named 'nope'"),
    ("bench onnx --full --seconds 3", "leave one of them out"),
    ("bench --compare onnx", "expected two artifacts, got 1"),
    ("bench onnx@openvino", "chooses the runtime of a side of --compare; here it is: onnx --runtime openvino"),
    ("lint nope", "no ONNX file, artifact folder or recipe named 'nope'"),
    ("build empty", "no manifest.json in it"),
    ("build onnx --precision fp8", "no precision 'fp8'"),
    ("predict onnx nope.jpg --out new", "nope.jpg: no such image or folder"),
    ("predict onnx empty --out new", "no images in this folder"),
    ("label onnx empty --out new", "no image in this folder or below it"),
    ("camera empty --source 0", "no manifest.json in it"),
    ("camera onnx", "source is missing (--source)"),
    ("camera onnx --source empty --port 99999", "the port of the page: expected 0..65535"),
    # files of other kinds
    ("complexity empty.onnx", "no graph in it"),
    ("complexity edgekit-road", "Make one: edgekit export edgekit-road"),
    ("complexity text.txt", "Copy or export it again: edgekit export RECIPE"),
    ("complexity bad.json", "not a readable ONNX file"),  # whatever its name says
    ("run mobile-centernet-w16-dhaka preprocess.size=[100,100]", "recipe: preprocess.size: width and height must be"),
    ("import-onnx nope --layout yolov8", "nope: no such file"),
    ("import-onnx text.txt --layout yolo8", "Did you mean yolov8"),
    ("import-onnx text.txt --layout nope.yaml", "nope.yaml: no such file"),
    ("import-onnx text.txt --layout yolov8 --size 5", "expected WIDTHxHEIGHT"),
    ("report nope", "cannot read the report"),
    ("report obj.json", "not a report of EdgeKit"),
    ("report turns.json", "turns.json: no report, but what bench --compare wrote"),
    ("gate rows.json gated.json", "gated.json: no report, but what gate --json printed"),
    ("report future.json", "a report of version 2, and EdgeKit 0.1.0 reads version 1. Use the EdgeKit that wrote it"),
    ("report rows.json --history nope", "nope: no such folder. A history is"),
    ("report rows.json --title x", "--title is for the page"),
    ("report rows.json --history nope --json", "--history is for the page and the table"),
    ("baseline safe rows.json", "unknown action 'safe'"),
    ("baseline save rows.json", "needs out: where to write (--out BASELINE.json)"),
    ("gate rows.json nope", "cannot read the report"),
    ("gate rows.json rows.json --max foo=1%", "no metric named 'foo'"),
    ("score rows.json --rules nope", "There are: icme2020"),
    ("score rows.json --rules text.txt", "expected a mapping of keys"),
    ("score rows.json --rules my.yaml", "my.yaml: no such file. Shipped rules need no path: icme2020"),
    ("score rows.json --rules my/icme2020", "my/icme2020: no such file"),
    ("data check empty", "Another layout must be named"),
    ("data check list.json", "expected a COCO object"),
    ("data check empty --layout yolo", "described by a data.yaml"),
    ("data check bad.json --map nope", "There are: bdd100k-traffic4"),
    # places that cannot be written
    ("baseline save rows.json --out empty", "is a folder, and a file is to be written"),
    ("gate rows.json rows.json --markdown empty", "is a folder, and a file is to be written"),
    ("gate rows.json rows.json --junit text.txt/junit.xml", "is a file, not a folder"),
    ("score rows.json --rules icme2020 --markdown empty", "is a folder, and a file is to be written"),
    # boards
    ("boards show nope", "no board named 'nope'"),
    ("boards show", "give the name of one board"),
    ("bundle onnx", "a bundle is for one board"),
    ("bundle text.txt", "not a bundle"),
    ("bundle onnx --board x86-1t --nms best", "Did you mean host? There are: graph, host, layer, plugin"),
    ("bundle onnx --board x86-1t --nms graph", "NMS is put into engines of TensorRT"),
    ("flash onnx", "name at least one as ssh takes it (--host user@board)"),
    ("flash onnx --host 'a b'", "give it as user@host"),
    ("flash onnx --host tx2 --board x86-1t --ssh-config nope", "nope: no such file (--ssh-config)"),
    ("flash onnx --host tx2 --board x86-1t --trust nope", "nope: cannot be read"),
    ("schema nope", "There are: board, gate"),
    ("card nope", "no recipe named 'nope'"),
    ("zoo --paper", "--papers"),
]


@pytest.fixture
def place(tmp_path: Path, row, monkeypatch) -> Path:
    """A folder with one of everything that is wrong."""
    (tmp_path / "empty").mkdir()
    (tmp_path / "broken").mkdir()
    for name, text in {
        "broken/manifest.json": "{not json",
        "text.txt": "hello\n",
        "bad.json": "{not json",
        "list.json": "[]",
        "obj.json": "{}",
        "turns.json": '{"format": "edgekit-comparison"}',
        "gated.json": '{"format": "edgekit-gate"}',
        "future.json": '{"format": "edgekit-report", "version": 2}',
        "bad.yaml": "a: [1",
        "list.yaml": "- 1",
        "empty.onnx": "",
        "rows.json": report_json([row]),
    }.items():
        (tmp_path / name).write_text(text)
    manifest = {"classes": ["vehicle", "scooter", "bicycle"], "category_ids": [1, 2, 3], "precision": "fp32"}
    manifest |= {"recipe": {"name": "r", "evaluation": "dhaka-eval", "quantize": {"calibration": "dhaka-calib"}}}
    manifest |= {"input": {"name": "image", "layout": "nchw_float", "shape": [1, 3, 96, 128]}}
    with new_artifact(tmp_path / "onnx", "onnx", manifest) as folder:
        (Path(folder) / "model.onnx").write_bytes(b"no network")
    monkeypatch.chdir(tmp_path)
    return tmp_path


@pytest.mark.parametrize(("line", "said"), CASES, ids=[line for line, _ in CASES])
def test_a_mistake_ends_with_2_and_a_message_and_writes_nothing(line, said, place, capfd):
    before = sorted(place.rglob("*"))
    code = main(shlex.split(line))
    out, err = capfd.readouterr()
    assert code == 2, err
    assert said in " ".join(err.replace("│", " ").split())
    assert "Traceback" not in err
    assert out == ""
    assert sorted(place.rglob("*")) == before
