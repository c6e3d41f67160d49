"""stdout: JSON that a machine can read and nothing else, or tables for people."""

import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from pydantic import BaseModel
from rich.console import Console

import edgekit
from edgekit.cli import main, output
from edgekit.cli.app import VERBS
from edgekit.cli.output import cell, plain
from edgekit.measure.complexity import Complexity
from edgekit.runtime.artifact import new_artifact

LINES = {
    "train": "r",
    "evaluate": "a",
    "export": "r",
    "quantize": "a",
    "build": "a",
    "bench": "a",
    "report": "rows.json --out o",
    "predict": "a i --out o",
    "camera": "a --source 0",
    "label": "a frames --out l.json",
    "data": "check a.json",
    "run": "r",
    "zoo": "",
    "card": "r",
    "boards": "",
    "doctor": "",
    "lint": "m.onnx",
    "import-onnx": "m.onnx --layout yolov8",
    "complexity": "m.onnx",
    "gate": "b.json r.json",
    "baseline": "show b.json",
    "score": "r.json --rules icme2020",
    "schema": "report",
    "bundle": "a --board jetson-tx2",
    "flash": "a --board jetson-tx2 --host tx2",
}


@pytest.mark.parametrize("verb", VERBS)
def test_json_of_every_verb(verb, pipeline, capsys):
    assert main([verb, *LINES[verb].split(), "--json"]) == 0
    value = json.loads(capsys.readouterr().out)
    kinds = {"zoo": list, "boards": list, "bench": list, "run": list, "baseline": list, "flash": list}
    assert type(value) is kinds.get(verb, dict)


def test_json_of_an_artifact(pipeline, artifact, capsys):
    main(["export", "r", "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value["path"] == artifact.path
    assert value["kind"] == "onnx"
    assert value["digest"] == artifact.digest
    assert value["payload"]["model.onnx"]["bytes"] == 1_500_000
    assert value["metrics"] == {"map50": 0.25}


def test_an_artifact_for_people_says_where_how_big_and_what_next(pipeline, artifact, capsys):
    main(["export", "r"])
    out = capsys.readouterr().out
    assert f"onnx: {artifact.path} (1.50 MB)" in out
    assert "map50: 0.25" in out
    assert f"edgekit quantize {artifact.path}" in out


def test_metrics_are_told_alike_by_every_verb(pipeline, artifact, capsys):
    """A table of classes, and what each recall is of."""
    metrics = {
        "map50": 0.25,
        "per_class": {"red cell": {"ap": 0.125, "ap50": 0.25, "boxes": 41}},
        "recall": {"1": 0.1, "10": 0.2},
    }
    artifact.manifest["metrics"] = pipeline.results["evaluate"] = metrics
    for verb in ("quantize", "evaluate"):
        main([verb, "a"])
        out = capsys.readouterr().out
        assert "map50: 0.25\n" in out
        assert "recall: 0.1 (1 box an image), 0.2 (10 boxes an image)\n" in out
        assert ["red", "cell", "41", "0.25", "0.125"] in [line.split() for line in out.splitlines()]
        assert "per_class" not in out
    main(["quantize", "a", "--json"])
    assert json.loads(capsys.readouterr().out)["metrics"] == metrics


def test_int8_tells_its_sets_and_what_it_lost(pipeline, artifact, capsys):
    lost = {"set": "roads", "images": 60, "map50_before": 0.3592, "map50_after": 0.3563, "drop": 0.29, "max_drop": 0.3}
    lowered = {"calibration": {"set": "mine", "images": ["a", "b"], "method": "entropy"}, "quantization": lost}
    artifact.manifest.update(lowered, kind="onnx-int8", float_layers=["head.size.2", "stem"])
    main(["quantize", "a"])
    lines = capsys.readouterr().out.splitlines()
    assert "  calibrated: mine (2 images, entropy)" in lines
    assert "  mAP@0.5 in percent: 35.92 -> 35.63 on roads (60 images), a drop of 0.29; allowed: 0.3" in lines
    assert "  in float: head.size.2, stem" in lines
    main(["quantize", "a", "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (told["quantization"], told["float_layers"]) == (lost, ["head.size.2", "stem"])
    for old in (lowered["calibration"], lost):
        del old["set"]
    del lost["images"]
    main(["quantize", "a"])
    assert "35.63 on a set that is not named, a drop of 0.29" in capsys.readouterr().out


def test_notes_of_a_step_are_told(pipeline, artifact, capsys):
    artifact.manifest["notes"] = ["int64 arithmetic is left"]
    main(["export", "r"])
    assert "note: int64 arithmetic is left" in capsys.readouterr().out.splitlines()
    main(["export", "r", "--json"])
    assert json.loads(capsys.readouterr().out)["notes"] == ["int64 arithmetic is left"]


def test_report_names_its_files(pipeline, artifact, capsys):
    main(["report", "rows.json", "--out", "o", "--json"])
    value = json.loads(capsys.readouterr().out)
    assert value["html"] == str(Path(artifact.path) / "report.html")


def test_one_board_is_shown_key_by_key(pipeline, capsys):
    main(["boards", "x86-1t"])
    assert capsys.readouterr().out.splitlines() == ["name: x86-1t", "runtimes: onnxruntime", "threads: 1"]


def test_run_prints_the_table_and_the_files_to_open(pipeline, tmp_path, row, capsys):
    (tmp_path / "pictures").mkdir()
    for name in ("report.html", "report.md", "rows.json", "pictures/street.jpg"):
        (tmp_path / name).touch()
    pipeline.results["run"] = [row]
    main(["run", "r", "--out", str(tmp_path)])
    out = capsys.readouterr().out
    for word in ("GOPS/frame", "ms/frame p50", "the-model", "12.35", "noisy", "another process used the core"):
        assert word in out
    assert out.splitlines()[-3:] == [str(tmp_path / n) for n in ("report.html", "report.md", "pictures/street.jpg")]


def test_run_tells_what_its_steps_noted_once(pipeline, artifact, tmp_path, capsys):
    for name, notes in (("onnx", ["odd"]), ("onnx-int8", ["odd", "calibrated on 16 images"])):
        with new_artifact(tmp_path / name, name, {**artifact.manifest, "notes": notes}) as folder:
            (Path(folder) / "model.onnx").touch()
    assert main(["run", "r", "--out", str(tmp_path)]) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("note: ")]
    assert told[:-1] == ["note: odd", "note: calibrated on 16 images"]
    assert "1 row was measured on a disturbed machine" in told[-1]  # and how it is mended
    assert "--remeasure" in told[-1]


def test_tables_hold_every_value_and_drop_empty_columns(pipeline, capsys):
    pipeline.results["zoo"] = [{"name": "one" * 20, "title": "[x]", "empty": None}, {"name": "two", "map50": 0.5}]
    main(["zoo"])
    out = capsys.readouterr().out
    for word in ("one" * 20, "two", "[x]", "map50", "0.5"):
        assert word in out
    assert "empty" not in out


@pytest.mark.parametrize("columns", [30, 40, 60, 100])
def test_a_narrow_terminal_breaks_no_word_and_no_number(columns, pipeline, monkeypatch, capsys):
    classes = {
        "Thrombocytes": {"boxes": 12345, "small": 1234, "medium": 0, "median_size": [38.25, 41.5], "class_weight": 1.5},
        "red blood cell": {"boxes": 7, "small": 0, "medium": 7, "median_size": [100.0, 90.0], "class_weight": 10.0},
    }
    pipeline.results["data_stats"] = {"images": 1, "image_sizes": {}, "per_class": classes, "notes": []}
    monkeypatch.setattr(output, "stdout_console", lambda: Console(width=columns))
    assert main(["data", "stats", "a.json"]) == 0
    out = capsys.readouterr().out
    words = set(out.replace(":", " ").split())
    assert {"Thrombocytes", "12345", "1234", "38.25,", "41.5", "red", "blood", "cell", "weight", "median"} <= words
    assert max(map(len, out.splitlines())) <= columns
    assert ("class: Thrombocytes\nboxes: 12345\n" in out) == (columns < 60)


def test_a_word_longer_than_any_terminal_is_not_broken(capsys):
    output.show_table([{"file": "x" * 300, "n": 1}], {"file": "file", "n": "n"})
    assert capsys.readouterr().out == f"file: {'x' * 300}\nn: 1\n\n"


def test_doctor_shows_what_mends(pipeline, capsys):
    main(["doctor"])
    out = capsys.readouterr().out
    assert "pip install '.[train]'" in out
    assert "it is an arm" in out


def test_what_the_work_prints_goes_to_stderr(pipeline, artifact, capfd):
    def noisy(**kwargs):
        print("from Python")
        subprocess.run([sys.executable, "-c", "print('from a child')"], check=True)
        kwargs["progress"]("a phase", 1, 1)
        return artifact

    pipeline.results["export"] = noisy
    assert main(["export", "r", "--json"]) == 0
    out, err = capfd.readouterr()
    assert json.loads(out)["kind"] == "onnx"
    for line in ("from Python", "from a child", "a phase"):
        assert line in err


class Model(BaseModel):
    size: tuple[int, int]


@dataclass
class Record:
    path: Path
    score: float


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (None, None),
        (True, True),
        (3, 3),
        (0.5, 0.5),
        (float("nan"), None),
        (float("-inf"), None),
        (np.float32(0.5), 0.5),
        (np.float32("nan"), None),
        (np.array([[1, 2]]), [[1, 2]]),
        ((1, "a"), [1, "a"]),
        ({1: Path("a")}, {"1": "a"}),
        (Model(size=(1, 2)), {"size": [1, 2]}),
        (Record(Path("p"), float("inf")), {"path": "p", "score": None}),
    ],
)
def test_plain(value, expected):
    assert plain(value) == expected
    json.dumps(plain(value), allow_nan=False)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "-"),
        ("", "-"),
        ([], "-"),
        ({}, "-"),
        (True, "yes"),
        (False, "no"),
        (0, "0"),
        (1616168, "1616168"),
        (0.123456, "0.1235"),
        (["a", 1], "a, 1"),
        ({"a": 1}, "a 1"),
    ],
)
def test_cell(value, text):
    assert cell(value) == text


def test_a_long_convention_does_not_touch_its_number(monkeypatch, capsys):
    found = Complexity(5, 7, (), convention="elementwise-flops", counted=9)
    monkeypatch.setattr(edgekit, "complexity", lambda *_, **__: found, raising=False)
    assert main(["complexity", "m.onnx"]) == 0
    assert "counted as elementwise-flops  9 = " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("board", "then"),
    [
        ("jetson-tx2", "edgekit lint {} --board jetson-tx2"),
        ("x86-1t", "edgekit quantize {}\n"),
        ("desktop-gpu", "edgekit quantize {} --flavour trt\n"),
    ],
)
def test_what_comes_after_an_export_depends_on_the_board(board, then, pipeline, artifact, capsys):
    assert main(["export", "r", "--board", board]) == 0
    assert f"Next: {then.format(artifact.path)}" in capsys.readouterr().out


def test_figures_that_are_not_met_say_why(pipeline, capsys):
    row = {
        "paper": "P",
        "system": "S",
        "input": "8x8",
        "metric": "parameters",
        "convention": "learnable",
        "unit": "1e6",
    }
    row |= {
        "printed": "2.0",
        "ours": 1.5,
        "ratio": 0.75,
        "where": "table 1",
        "mark": "open",
        "note": "half is left out",
    }
    pipeline.results["zoo"] = [row, {**row, "mark": "exact", "note": "not shown"}]
    assert main(["zoo", "--papers"]) == 0
    *_, counts, why = capsys.readouterr().out.splitlines()
    assert counts == "1 exact, 0 fitted, 1 open"
    assert why == "open: S, parameters 2.0 (P): half is left out"
