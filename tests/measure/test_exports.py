"""CSV and LaTeX."""

import csv
import io
import re

import pytest

from edgekit.measure.exports import latex, render_csv, render_latex

from .test_report import ROWS, timed, unmeasured
from .test_row import HEADERS


def test_csv_reads_back_unrounded_and_unknown_is_empty():
    lines = list(csv.DictReader(io.StringIO(render_csv(ROWS))))
    assert len(lines) == 4
    assert list(lines[0])[:12] == HEADERS
    assert float(lines[0]["mAP"]) == 23.45
    assert lines[0]["frames"] == "100"
    assert lines[0]["cpu"] == "Toy <CPU> | 9000"
    assert (lines[3]["ms/frame p50"], lines[3]["fps"], lines[3]["frames"]) == ("", "", "")
    assert "SIGSEGV" in lines[3]["reasons"]
    assert {len(line) for line in csv.reader(io.StringIO(render_csv(ROWS)))} == {len(lines[0])}


def test_csv_has_no_cell_for_what_the_machine_does_not_tell():
    facts = [{}, {"before": {}}, {"before": {"cpu": "unknown"}}]
    lines = csv.DictReader(io.StringIO(render_csv([timed(1.0, machine=machine) for machine in facts])))
    assert [line["cpu"] for line in lines] == ["", "", ""]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r"])
def test_csv_holds_no_formula(start):
    text = f'{start}HYPERLINK("http://x","y")'
    (line,) = csv.DictReader(io.StringIO(render_csv([timed(1.0, model=text, started=text)]), newline=""))
    assert (line["model"], line["started"]) == (f"'{text}", f"'{text}")
    assert line["ms/frame p50"] == "1.0"


def test_csv_keeps_commas_and_line_ends():
    evil = 'a, "b"\nc'
    (line,) = csv.DictReader(io.StringIO(render_csv([timed(1.0, model=evil)])))
    assert line["model"] == evil


def test_latex_has_a_line_per_row_with_as_many_cells():
    text = render_latex(ROWS)
    body = text.split("\\midrule\n")[1].split("\\bottomrule")[0].splitlines()
    assert len(body) == 4
    assert all(line.endswith(r" \\") and len(re.findall(r"(?<!\\)&", line)) == 10 for line in body)
    assert "{llllrrrrrrr}" in text
    assert text.count("{") == text.count("}")


def test_latex_marks_what_is_not_valid():
    text = render_latex([timed(1.0), unmeasured(runtime="tensorrt")])
    assert text.count(r"$^\ast$") == 2  # in the row, and in the line that explains it
    assert r"tensorrt int8: not measured" in text
    assert r"$^\ast$" not in render_latex([timed(1.0)])


def test_latex_marks_the_evaluation_set_where_there_are_several():
    night = {**timed(1.0).accuracy.model_dump(), "set": "night_2", "set_digest": "e" * 64}
    rows = [timed(1.0), timed(1.0, accuracy=night, verdict={"status": "noisy"}), unmeasured(runtime="tensorrt")]
    body, notes = render_latex(rows).split("\\midrule\n")[1].split("\\bottomrule\n")
    assert [line.split(" & ")[0] for line in body.splitlines()] == [
        "toynet$^{1}$",
        "toynet$^\\ast$$^{2}$",
        "toynet$^\\ast$",
    ]
    assert "$^{1}$ evaluated on val, 7 images (digest cccccccccccc)" in notes
    assert r"$^{2}$ evaluated on night\_2, 7 images (digest eeeeeeeeeeee)" in notes
    assert "evaluated on" not in render_latex(rows[:1])


def test_latex_escapes_its_commands():
    assert latex(r"50%_of #1 & {x} ~ ^ \cmd $") == (
        r"50\%\_of \#1 \& \{x\} \textasciitilde{} \textasciicircum{} \textbackslash{}cmd \$"
    )
