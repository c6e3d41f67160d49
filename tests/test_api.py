"""The verbs as Python functions: their types for checkers, their names for completion, and what they take as a path."""

from __future__ import annotations

import ast
import inspect
import json
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import edgekit
from edgekit.conversion.engine import EngineOptions
from edgekit.deploy.bundling import BundleOptions
from edgekit.deploy.flashing import FlashOptions
from edgekit.deploy.ssh import SshOptions
from edgekit.runtime.errors import BadConfig, BadInput, EdgeKitError
from tests.twin import network

ROOT = Path(edgekit.__file__).parents[1]
STUB = ast.parse(Path(edgekit.__file__).with_suffix(".pyi").read_text())


# -- types and names --------------------------------------------------------------------------------------------------
def test_the_stub_has_every_verb_from_its_module() -> None:
    imports = [node for node in STUB.body if isinstance(node, ast.ImportFrom)]
    assert {alias.name: node.module for node in imports for alias in node.names} == edgekit.VERBS
    (names,) = (ast.literal_eval(n.value) for n in STUB.body if isinstance(n, ast.Assign))
    assert sorted(names) == sorted(edgekit.__all__)


@pytest.mark.slow
def test_a_type_checker_knows_every_verb(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    lines = ["import edgekit", *(f"reveal_type(edgekit.{verb})" for verb in edgekit.VERBS)]
    lines += ['edgekit.predict("model", "street.jpg")', 'edgekit.export("a", owt="b")', "edgekit.exprot()"]
    script.write_text("\n".join(lines))
    mypy = [
        sys.executable,
        "-m",
        "mypy",
        "--no-error-summary",
        str(script),
    ]  # with the project's own settings and cache
    said = subprocess.run(mypy, cwd=ROOT, capture_output=True, text=True, check=False).stdout.splitlines()
    revealed = [line for line in said if "Revealed type" in line]
    assert len(revealed) == len(edgekit.VERBS), said
    assert [line for line in revealed if 'Revealed type is "def (' not in line] == []
    missing, unknown, typing_error = (line for line in said if line not in revealed and ": error: " in line)
    assert 'Missing named argument "out"' in missing
    assert 'Unexpected keyword argument "owt"' in unknown
    assert 'has no attribute "exprot"' in typing_error


def test_completion_offers_every_verb() -> None:
    code = "import json, sys, edgekit; print(json.dumps([dir(edgekit), 'edgekit.pipeline' in sys.modules]))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    names, loaded = json.loads(done.stdout)
    assert set(edgekit.__all__) <= set(names)
    assert not loaded


@pytest.mark.parametrize("verb", [*edgekit.VERBS, "EngineOptions", "BundleOptions", "FlashOptions", "SshOptions"])
def test_where_a_path_fits_a_text_fits_too(verb: str) -> None:
    options = {c.__name__: c for c in (EngineOptions, BundleOptions, FlashOptions, SshOptions)}
    parameters = inspect.signature(options.get(verb) or getattr(edgekit, verb)).parameters.values()
    assert [str(p) for p in parameters if re.search(r"(?<!str \| )\bPath\b", str(p.annotation))] == []


# -- paths as texts ---------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A network that can be run, a picture, its annotations, a report without rows, and somebody's folder."""
    place = tmp_path_factory.mktemp("api")
    network.artifact(place / "model")
    (place / "images").mkdir()
    cv2.imwrite(str(place / "images" / "1.png"), np.full((48, 64, 3), 90, np.uint8))
    coco = {
        "images": [{"id": 1, "file_name": "1.png", "width": 64, "height": 48}],
        "categories": [{"id": 1, "name": "car"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 30, 20], "area": 600, "iscrowd": 0}],
    }
    (place / "set.json").write_text(json.dumps(coco))
    (place / "home").mkdir()
    (place / "home" / "thesis.tex").write_text("years of work")
    (place / "map.yaml").write_text("car: [car]\n")
    return place


At = Callable[[str], Any]  # a name in ``place``, as a text or as a Path
RECIPE = "mobile-centernet-w16-dhaka"
# What is refused is refused as late as it can be without work: every path of the call has been read by then.
CALLS: dict[str, Callable[[At], Any]] = {
    "train": lambda at: edgekit.train(RECIPE, overrides="train.epochs=1", out=at("home")),
    "evaluate": lambda at: edgekit.evaluate(at("model"), data=at("none.json")),
    "export": lambda at: edgekit.export(at("model"), overrides=(), out=at("new")),
    "quantize": lambda at: edgekit.quantize(
        at("model"), calibration=at("images"), evaluation=at("n.json"), out=at("q")
    ),
    "bench": lambda at: edgekit.bench(at("model"), data=at("none.json"), out=at("rows.json")),
    "bench_compare": lambda at: edgekit.bench_compare(at("model"), at("model"), data=at("n.json"), out=at("rows.json")),
    "report": lambda at: edgekit.report(at("rows.json"), out=at("report"), history=at("images")),
    "run": lambda at: edgekit.run(RECIPE, overrides=f"evaluation={at('none')}", out=at("ran")),
    "predict": lambda at: edgekit.predict(at("model"), at("images"), out=at("boxes")),
    "camera": lambda at: edgekit.camera(at("model"), at("none.mp4"), mp4=at("v.mp4"), jsonl=at("l.jsonl")),
    "label": lambda at: edgekit.label(at("model"), at("images"), out=at("pseudo.json")),
    "data_check": lambda at: len(edgekit.data_check(at("set.json"))),
    "data_check voc": lambda at: edgekit.data_check(at("images"), images=at("images"), layout="voc", classes="car"),
    "data_check classes": lambda at: edgekit.data_check(at("set.json"), classes="car", class_map=at("none")).classes,
    "data_stats": lambda at: edgekit.data_stats(edgekit.data_check(at("set.json")), sheet=at("sheet.png")),
    "data_recipe": lambda at: edgekit.data_recipe(at("none.yaml")),
    "data_convert": lambda at: Path(edgekit.data_convert(edgekit.data_check(at("set.json")), out=at("c.json"))),
    "data_convert yolo": lambda at: edgekit.data_convert(
        edgekit.data_check(at("set.json")), out=at("home"), layout="yolo", split="a/b"
    ),
    "zoo": lambda at: len(edgekit.zoo()),
    "card": lambda at: edgekit.card(at("none")),
    "boards": lambda at: edgekit.boards(str(at("none.yaml"))),
    "doctor": lambda at: edgekit.doctor(str(at("none.yaml"))),
    "lint": lambda at: edgekit.lint(at("none.onnx")),
    "build": lambda at: edgekit.build(at("model"), board="desktop-gpu", out=at("e"), options=EngineOptions(pin="x")),
    "import_onnx": lambda at: edgekit.import_onnx(at("none.onnx"), layout="yolov8", images=at("images"), out=at("i")),
    "complexity": lambda at: edgekit.complexity(at("model")).parameters,
    "bundle": lambda at: edgekit.bundle(at("model"), board="jetson-tx2", out=at("b.tar.gz"), sign=at("none")),
    "bundle trust": lambda at: edgekit.bundle(at("set.json"), trust=at("none.pub")),
    "flash": lambda at: edgekit.flash(
        at("set.json"), hosts="tx2", out=at("rows.json"), options=FlashOptions(trust=at("none.pub"))
    ),
    "flash config": lambda at: edgekit.flash(
        at("set.json"), hosts="tx2", options=FlashOptions(SshOptions(config=at("none")))
    ),
    "gate": lambda at: edgekit.gate(at("set.json"), at("set.json")),
    "baseline": lambda at: edgekit.baseline("save", at("none.json"), out=at("baseline.json")),
    "score": lambda at: edgekit.score(at("none.json"), rules="icme2020"),
    "schema": lambda at: list(edgekit.schema("report")),
}


def outcome(call: Callable[[At], Any], at: At) -> Any:
    """What a call gives, or how it is refused."""
    try:
        return call(at)
    except EdgeKitError as error:
        return f"{type(error).__name__}: {error}"


@pytest.mark.parametrize("name", CALLS)
def test_a_text_does_what_a_path_does(name: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(place)
    assert outcome(CALLS[name], str) == outcome(CALLS[name], Path)


def test_every_verb_is_called() -> None:
    assert {name.split()[0] for name in CALLS} == set(edgekit.VERBS)


# -- one, where several may be given ----------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("call", "whole"),
    [
        (lambda: edgekit.flash("b.tar.gz", hosts="-x y"), "host: '-x y' is none"),
        (lambda: edgekit.flash("b.tar.gz", hosts="tx2", options=FlashOptions(trust="key.pub")), "key.pub: cannot be"),
        (lambda: edgekit.score("r1.json", rules="icme2020"), "r1.json: cannot read"),
        (lambda: edgekit.gate("no.json", "r1.json"), "no.json: no such baseline"),
        (lambda: edgekit.baseline("show", "r1.json"), "r1.json: cannot read"),
        (lambda: edgekit.bench("r1"), "'r1'"),
        (lambda: edgekit.report("r1.json", out="o"), "r1.json: cannot read"),
        (lambda: edgekit.export(RECIPE, overrides="train"), "override 'train': expected key=value"),
        (lambda: edgekit.train(RECIPE, overrides="train"), "override 'train': expected key=value"),
    ],
)
def test_one_that_stands_alone_is_a_list_of_it(
    call: Callable[[], Any], whole: str, tmp_path: Path, monkeypatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(EdgeKitError, match=re.escape(whole)):
        call()


def test_one_class_is_a_list_of_it(place: Path) -> None:
    assert edgekit.data_check(place / "set.json", classes="car").classes == ("car",)


def test_one_layer_is_a_list_of_it() -> None:
    assert EngineOptions(pin="head.size").pin == ("head.size",)


# -- what is refused before any work ----------------------------------------------------------------------------------
@pytest.mark.parametrize("empty", [[], ()])
def test_nothing_to_work_on_is_a_mistake(empty: Any, place: Path) -> None:
    for call in (
        lambda: edgekit.bench(empty),
        lambda: edgekit.report(empty, out=place / "report"),
        lambda: edgekit.gate(place / "set.json", empty),
        lambda: edgekit.predict(place / "model", empty, out=place / "boxes"),
        lambda: edgekit.score(empty, rules="icme2020"),
        lambda: edgekit.baseline("show", empty),
        lambda: edgekit.flash("b.tar.gz", hosts=empty),
    ):
        with pytest.raises((BadConfig, BadInput)):
            call()


@pytest.mark.parametrize("seconds", [-1, 0, float("nan"), float("inf")])
def test_seconds_are_above_zero(seconds: float, place: Path) -> None:
    for call in (
        lambda: edgekit.bench(place / "model", seconds=seconds),
        lambda: edgekit.bench_compare(place / "model", place / "model", seconds=seconds),
        lambda: edgekit.run(RECIPE, seconds=seconds),
        lambda: edgekit.flash("b.tar.gz", hosts="tx2", options=FlashOptions(seconds=seconds)),
    ):
        with pytest.raises(BadConfig, match=r"seconds: expected a number above 0, got .* \(--seconds\)"):
            call()


def test_doctor_tells_how_far_it_is() -> None:
    told: list[tuple[str, int, int]] = []
    edgekit.doctor("x86-1t", progress=lambda *step: told.append(step))
    assert ("checking the runtimes", 0, 3) in told
    assert told[-1] == ("checking the runtimes", 3, 3)
