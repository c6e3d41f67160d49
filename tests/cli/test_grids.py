"""Tables in narrow terminals."""

import pytest
from rich.console import Console

from edgekit.cli import grids

HEADERS = ("name", "size", "GOPS/\nframe", "note", "origin")
BODY = [
    ["a rather long name of a network", "1.784", "8.963", "some words", "published"],
    ["b", "10.5", "-", "", "here"],
]


@pytest.fixture
def show(monkeypatch, capsys):
    def show(width):
        monkeypatch.setattr(grids, "stdout_console", lambda: Console(width=width))
        grids.show_grid(HEADERS, BODY, folding=("name",), least=("note", "origin"))
        return capsys.readouterr().out

    return show


@pytest.mark.parametrize(
    ("width", "gone"), [(120, []), (55, ["note"]), (45, ["note", "origin"]), (30, ["note", "origin"])]
)
def test_the_least_columns_go_first_and_are_named(width, gone, show):
    out = show(width)
    assert ("not shown" in out) == bool(gone)
    assert all(name in out for name in gone)
    assert max(map(len, out.splitlines())) <= width
    for figure in ("1.784", "8.963", "10.5"):  # no number is ever cut or folded
        assert figure in out
    assert ("some words" in out) == (not gone)
    assert ("published" in out) == ("origin" not in gone)


def test_brackets_are_text(monkeypatch, capsys):
    monkeypatch.setattr(grids, "stdout_console", lambda: Console(width=80))
    grids.show_grid(["name"], [["[bold]x[/bold]"]])
    assert "[bold]x[/bold]" in capsys.readouterr().out
