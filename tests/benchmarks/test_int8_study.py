"""benchmarks/int8_study.py: which cells there are, what is kept of an interrupted study, the tables and the picture."""

from __future__ import annotations

import argparse
import csv
import io
import json
from dataclasses import asdict
from pathlib import Path
from types import SimpleNamespace
from xml.etree import ElementTree

import int8_study
import numpy as np
import pytest
from int8_study import Cell, State, Study, cells_of, kept_state, picture, rows_of, table_csv

from edgekit.data.coco import CocoSet
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig, BadInput


def study(sizes=(16, 64), images=100):
    samples = tuple(SimpleNamespace(image_id=k) for k in range(5))
    val = SimpleNamespace(samples=samples, digest=lambda: "val")
    paths = tuple(Path(f"{k}.jpg") for k in range(images))
    return Study(SimpleNamespace(digest="artifact"), paths, val, sizes, Path("work"))


def state(lost):
    """A state in which INT8 has ``lost[cell name]`` points of mAP@0.5 of FP32's 50."""
    cells = [cell for cell in cells_of(study()) if cell.runtime == "onnxruntime"]
    table = {c.name: {**asdict(c), "map50": 0.5 - lost.get(c.name, 0) / 100, "map": 0.2} for c in cells}
    return State("key", cells=table, layers=[("head", 0.5), ("stem", 0.25)])


def test_every_combination_once():
    cells = cells_of(study())
    names = [cell.name for cell in cells]
    assert len(set(names)) == len(names)
    own = [cell for cell in cells if cell.runtime == "onnxruntime" and cell.flavour]
    assert len([c for c in own if c.draw == 0]) == 2 * 3 * 2  # flavours, methods, sizes
    assert {(c.flavour, c.size, c.draw) for c in own if c.draw} == {("x86", 16, 1), ("x86", 16, 2)}
    assert cells[0].name == "fp32-onnxruntime"


def test_few_images_leave_no_other_draws():
    assert not any(cell.draw for cell in cells_of(study(images=30, sizes=(16,))))


def test_ranges_of_every_size_in_one_pass(monkeypatch):
    """Four images with values 1 .. 4, sizes 1 and 4: draws 1 and 2 have seen one image each."""
    values = iter([1.0, 2.0, 3.0, 4.0])
    monkeypatch.setattr(int8_study, "activations", lambda model: lambda image: {"x": np.array([0.0, next(values)])})
    monkeypatch.setattr(int8_study, "network_input", lambda path, value, layout: np.zeros((1, 3, 2, 2)))
    dim = SimpleNamespace(dim_value=1)
    shape = SimpleNamespace(dim=[dim])
    kind = SimpleNamespace(tensor_type=SimpleNamespace(shape=shape))
    graph = SimpleNamespace(graph=SimpleNamespace(input=[SimpleNamespace(type=kind)]))
    monkeypatch.setattr(int8_study, "load_model", lambda model: graph)
    steps = []
    preprocess = {"size": [2, 2], "mode": "stretch"}
    found = int8_study.collect_ranges("m", list("abcd"), preprocess, "l", [1, 4], lambda *step: steps.append(step))
    highest = {name: pair["x"][1] for name, pair in found.items() if name.startswith("minmax")}
    assert highest == {"minmax-1-0": 1, "minmax-1-1": 2, "minmax-1-2": 3, "minmax-4-0": 4}
    assert steps == [(k, 4) for k in range(1, 5)]


def test_points_lost_are_against_fp32_of_the_same_runtime():
    found = state({"x86-minmax-64-0-onnxruntime": 1.5, "trt-entropy-16-0-onnxruntime": -0.5})
    lost = {(r["flavour"], r["method"], r["size"], r["draw"]): r["lost_map50"] for r in rows_of(found)}
    assert lost["x86", "minmax", 64, 0] == 1.5
    assert lost["trt", "entropy", 16, 0] == -0.5
    assert lost["", "", 0, 0] == 0
    assert len(list(csv.DictReader(io.StringIO(table_csv(found))))) == len(found.cells)


def test_the_picture_is_well_formed_and_has_every_cell():
    found = state({"x86-minmax-64-0-onnxruntime": 1.5})
    root = ElementTree.fromstring(picture(found))
    assert len(root.findall("{*}circle")) == len(found.cells) - 1  # all but FP32
    assert len(root.findall("{*}polyline")) == 6


def test_a_study_goes_on_where_it_was_and_only_there(tmp_path):
    file = tmp_path / "state.json"
    fresh = kept_state(study(), file)
    fresh.cells["fp32-onnxruntime"] = {"map50": 0.5}
    file.write_text(json.dumps(asdict(fresh)))
    assert kept_state(study(sizes=(16, 64, 100)), file).cells == fresh.cells  # a size more is the same study
    with pytest.raises(BadConfig, match="another artifact or other images"):
        kept_state(study(images=99), file)
    file.write_text("{")
    with pytest.raises(BadInput, match="remove it"):
        kept_state(study(), file)


def test_what_is_there_is_not_measured_again(tmp_path, monkeypatch):
    every = cells_of(study())
    done = {cell.name: {} for cell in every[:-1]}
    ranges = {cell.ranges: {} for cell in every}
    fresh = kept_state(study(), tmp_path / "none")
    (tmp_path / "state.json").write_text(
        json.dumps({**asdict(fresh), "cells": done, "ranges": ranges, "layers": [["a", 1]]})
    )
    measured = []
    monkeypatch.setattr(int8_study, "measure", lambda study, cell, *more: measured.append(cell) or {})
    last = list(int8_study.run(study(), tmp_path / "state.json"))[-1]
    assert measured == [every[-1]]
    assert set(last.cells) == {cell.name for cell in every}


def test_too_few_images_for_any_size(monkeypatch, tmp_path):
    monkeypatch.setattr(int8_study, "read_artifact", lambda *_: None)
    monkeypatch.setattr(int8_study, "shared_sets", lambda artifact: ([SimpleNamespace(path=Path("a"))], None))
    wish = argparse.Namespace(artifact=tmp_path, data=None, sizes=[16], images=None, out=tmp_path / "o", work=None)
    with pytest.raises(BadInput, match="fewer than the smallest"):
        int8_study.study_of(wish)


def test_names_of_cells():
    assert Cell("trt", "entropy", 64, 1, "openvino").name == "trt-entropy-64-1-openvino"
    assert Cell("", "", 0, 0, "openvino").name == "fp32-openvino"


# -- the command ------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(("name", "value"), [("--sizes", "0"), ("--sizes", "-3"), ("--images", "0")])
def test_numbers_that_make_no_sense_are_refused_at_the_start(name, value, capsys):
    with pytest.raises(SystemExit) as end:
        int8_study.main(["onnx", "--out", "o", name, value])
    assert end.value.code == 2
    assert f"{name}: expected 1 or more, found {value}" in capsys.readouterr().err


@pytest.mark.parametrize("made", [0, 2])
def test_a_study_that_fails_leaves_no_table_that_looks_finished(made, tmp_path, monkeypatch):
    """None with FP32 alone; one with INT8 says how much of it is missing."""
    val = CocoSet(Path("val.json"), Path("images"), (), ("a",), (1,), ())
    artifact = SimpleNamespace(digest="a", path=Path("onnx"), manifest={"recipe": {"name": "tiny"}})
    found = Study(artifact, study().calibration, val, (16, 64), tmp_path)
    every = cells_of(found)
    int8 = [cell for cell in every if cell.flavour]

    def measure(study, cell, *_):
        if cell in int8[made:]:
            raise BadInput("no INT8 today")
        return {**asdict(cell), "map50": 0.5, "map": 0.2}

    monkeypatch.setattr(int8_study, "study_of", lambda options: found)
    monkeypatch.setattr(int8_study, "ranges_of", lambda *_: {cell.ranges: {} for cell in every})
    monkeypatch.setattr(int8_study, "measure", measure)
    assert int8_study.main(["onnx", "--out", str(tmp_path / "table")]) == 2
    pages = [page.read_text() for page in tmp_path.glob("table.md")]
    assert [f"Unfinished: {len(int8) - made} measurements are still to come." in page for page in pages] == [True] * (
        made > 0
    )


def test_data_that_is_not_there_is_said_in_the_words_of_the_command(tmp_path):
    recipe = load_recipe("edgekit-road").model_dump(mode="json")
    artifact = SimpleNamespace(path="onnx", manifest={"recipe": recipe})
    with pytest.raises(BadInput, match=r"nowhere: no such folder. --data names the one"):
        int8_study.training_sets(artifact, tmp_path / "nowhere")
