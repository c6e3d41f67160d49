"""Tables in narrow terminals."""

import json

import pytest
from rich.console import Console

from edgekit.cli import grids, main
from edgekit.measure.report import report_json

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


def test_where_nothing_fits_each_record_is_told_line_by_line(show):
    assert show(20).splitlines() == [
        *("name: a rather long name of a network", "size: 1.784", "GOPS/frame: 8.963", "note: some words"),
        *("origin: published", "", "name: b", "size: 10.5", "origin: here", ""),
    ]


def test_brackets_are_text(monkeypatch, capsys):
    monkeypatch.setattr(grids, "stdout_console", lambda: Console(width=80))
    grids.show_grid(["name"], [["[bold]x[/bold]"]])
    assert "[bold]x[/bold]" in capsys.readouterr().out


def test_report_without_out_prints_the_table_and_the_history(tmp_path, row, capsys):
    (tmp_path / "history").mkdir()
    old = row.model_copy(update={"started": "2026-01-01T00:00:00+00:00"})
    (tmp_path / "history" / "abc.json").write_text(report_json([old]))
    (tmp_path / "now.json").write_text(report_json([row]))
    assert main(["report", str(tmp_path / "now.json"), "--history", str(tmp_path / "history")]) == 0
    out = capsys.readouterr().out
    assert "GOPS/frame" in out
    assert "the-model · x86-1t · onnxruntime fp32" in out
    assert "▄▄" in out
    assert "no change" in out
    assert sorted(p.name for p in tmp_path.iterdir()) == ["history", "now.json"]


def test_a_measurement_that_is_given_twice_is_one_row_on_the_terminal_too(tmp_path, row, capsys):
    then = row.model_copy(update={"started": "2026-01-01T00:00:00+00:00"})
    (tmp_path / "now.json").write_text(report_json([then]))
    assert main(["report", *[str(tmp_path / "now.json")] * 2, "--json"]) == 0
    assert len(json.loads(capsys.readouterr().out)) == 1


def test_steps_that_are_newer_than_the_table_are_told(tmp_path, row, capsys):
    for name, day in (("old", 1), ("new", 3), ("now", 2)):
        folder = tmp_path / ("history" if name != "now" else "")
        folder.mkdir(exist_ok=True)
        then = row.model_copy(update={"started": f"2026-01-0{day}T00:00:00+00:00"})
        (folder / f"{name}.json").write_text(report_json([then]))
    assert main(["report", str(tmp_path / "now.json"), "--history", str(tmp_path / "history")]) == 0
    assert "note: 1 step of the history newer than this report, so left out: new" in capsys.readouterr().err


@pytest.mark.parametrize(("args", "said"), [(["--title", "t"], "--out"), (["--history", "none"], "no such folder")])
def test_report_says_what_is_wrong(args, said, tmp_path, row, capsys):
    (tmp_path / "now.json").write_text(report_json([row]))
    assert main(["report", str(tmp_path / "now.json"), *args]) == 2
    assert said in capsys.readouterr().err
