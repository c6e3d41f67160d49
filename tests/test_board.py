import os
from pathlib import Path

import pytest
import yaml

from edgekit.board import Board, board_names, load_board
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig, BoardLacks

GOOD = {
    "name": "toy",
    "title": "a toy",
    "kind": "arm",
    "runtimes": ["onnxruntime"],
    "precisions": ["fp32"],
    "input_layouts": ["nchw_float"],
}


def written(folder: Path, **changes) -> Path:
    values = {k: v for k, v in {**GOOD, **changes}.items() if v is not Ellipsis}
    file = folder / "toy.yaml"
    file.write_text(yaml.safe_dump(values))
    return file


def test_the_shipped_boards_load_and_are_named_after_their_files():
    assert {"x86", "x86-1t"} <= set(board_names())
    assert [load_board(name).name for name in board_names()] == board_names()


def test_x86_1t_is_one_pinned_core_and_one_thread():
    board = load_board("x86-1t")
    allowed = os.sched_getaffinity(0)
    assert board.thread_count() == 1
    assert board.pinned_core() in (allowed - {0} or allowed)


def test_x86_uses_every_core_and_pins_nothing():
    board = load_board("x86")
    assert (board.thread_count(), board.pinned_core()) == (len(os.sched_getaffinity(0)), None)


def test_an_unknown_board_offers_the_nearest_ones():
    with pytest.raises(BadConfig, match=r"no board named 'x86-2t'\. Did you mean x86-1t"):
        load_board("x86-2t")


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"runtime": ["a"]}, ["runtime: unknown key; did you mean runtimes"]),
        ({"measure": {"warm_up": 3}}, ["measure.warm_up: unknown key; did you mean warmup"]),
        ({"title": ...}, ["title: is missing"]),
        ({"kind": "toaster"}, ["kind: should be"]),
        ({"noisy_ratio": 1.0}, ["noisy_ratio: should be greater than 1"]),
        ({"precisions": ["int8"]}, ["int8 needs a flavour"]),
        ({"core": 1, "threads": 4}, ["pinned to one core runs one thread"]),
        ({"runtimes": []}, ["runtimes: should have at least 1 of them"]),
        ({"kind": "toaster", "opset_max": 2, "typo": 1}, ["3 problems", "kind", "opset_max", "typo"]),
    ],
)
def test_every_problem_of_a_board_file_is_told(tmp_path, changes, told):
    with pytest.raises(BadConfig) as caught:
        load_board(written(tmp_path, **changes))
    for part in [str(tmp_path / "toy.yaml"), *told]:
        assert part in str(caught.value)


@pytest.mark.parametrize("text", ["- a list", "", "{unclosed", "\x00"])
def test_a_file_that_is_no_mapping_is_refused_by_name(tmp_path, text):
    file = tmp_path / "toy.yaml"
    file.write_text(text)
    with pytest.raises(BadConfig, match=r"toy\.yaml"):
        load_board(file)


def test_the_name_must_be_the_files(tmp_path):
    with pytest.raises(BadConfig, match="calls itself 'tx2'"):
        load_board(written(tmp_path, name="tx2"))


@pytest.mark.parametrize(
    ("runtime", "precision", "layout", "told"),
    [
        ("tensorrt", "fp32", None, "no runtime 'tensorrt'; it has: onnxruntime"),
        ("onnxruntime", "int8", None, "no precision 'int8'; it has: fp32"),
        ("onnxruntime", "fp32", "nhwc_uint8", "no input layout 'nhwc_uint8'; it has: nchw_float"),
    ],
)
def test_what_a_board_lacks_is_refused_before_any_work(runtime, precision, layout, told):
    with pytest.raises(BoardLacks, match=told):
        Board(**GOOD).require(runtime, precision, layout)


def test_what_a_board_has_is_accepted():
    Board(**GOOD).require("onnxruntime", "fp32", "nchw_float")


def test_a_core_that_the_process_may_not_use_is_refused():
    with pytest.raises(BoardLacks, match="pins to core 4096"):
        Board(**GOOD, core=4096).pinned_core()


RECIPE = {"name": "r", "classes": ["a"], "model": {"nam": "m"}, "preprocess": {"size": [64, 64]}, 7: 8}


@pytest.mark.parametrize(
    ("more", "told"),
    [
        ({}, ["3 problems", "model.nam: unknown key; did you mean name?", "model.name: is missing", "7"]),
        ({"folder": "x"}, ["folder: unknown key"]),
    ],
)
def test_a_recipe_tells_all_its_problems_in_the_same_way(tmp_path, more, told):
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump({**RECIPE, **more}))
    with pytest.raises(BadConfig) as caught:
        load_recipe(tmp_path)
    for part in told:
        assert part in str(caught.value)
