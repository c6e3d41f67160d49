"""``edgekit data check|stats RECIPE``: every set that a recipe names."""

from __future__ import annotations

import pytest

from edgekit.cli import main

NAME = "edgekit-road-traffic4"


def test_a_recipes_sets_and_what_is_not_labelled_in_them(pipeline, capsys):
    assert main(["data", "check", NAME, "data.root=x"]) == 0
    assert pipeline.calls[-1][0] == "data_recipe"
    assert pipeline.calls[-1][1] == (NAME,)
    assert pipeline.calls[-1][2]["overrides"] == ["data.root=x"]
    out = capsys.readouterr().out
    for word in ("roads", "train", "not labelled", "images per epoch: 4", "note: a note"):
        assert word in out


def test_stats_are_of_labelled_classes(pipeline, capsys):
    assert main(["data", "stats", NAME]) == 0
    out = capsys.readouterr().out
    assert "car" in out
    assert "person" not in out


@pytest.mark.parametrize(
    ("line", "word"),
    [
        (f"stats {NAME} --out x.jpg", "--out"),
        (f"convert {NAME} --out x", "convert, --out"),
        (f"check {NAME} --images x --stride 2", "--images, --stride"),
        ("check a.json train.epochs=1", "train.epochs=1"),
    ],
)
def test_what_a_recipe_says_itself(pipeline, capsys, line, word):
    assert main(["data", *line.split()]) == 2
    assert word in capsys.readouterr().err
    assert not pipeline.calls
