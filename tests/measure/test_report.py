import json
import math
import re
from html.parser import HTMLParser

import jsonschema
import numpy as np
import pytest
from rich.console import Console

from edgekit.measure import report
from edgekit.measure.charts import Point, histogram, latency_bar, nice_axis, pareto, scatter, timeline
from edgekit.measure.exports import render_latex
from edgekit.measure.labels import labels, places, table_cells
from edgekit.measure.report import (
    Picture,
    TerminalTable,
    markdown_table,
    read_pictures,
    read_report,
    render_html,
    render_markdown,
    report_is_whole,
    report_json,
    report_schema,
    terminal_verdicts,
    write_report,
)
from edgekit.measure.row import Latency, Verdict
from edgekit.measure.words import file_facts, findings, machines, points, run_facts
from edgekit.runtime.errors import BadConfig, BadInput

from .test_row import HEADERS, make_row

PICTURE = Picture("first", 'a "first" <picture>', np.full((480, 1200, 3), 90, np.uint8))


def timed(ms, count=100, **changes):
    """A row whose frames all took ``ms``."""
    latency = Latency.from_samples([ms] * count)
    return make_row(latency=latency.model_dump(), samples=[ms] * count, **changes)


def unmeasured(**changes):
    reason = "bench of model.onnx was killed by SIGSEGV"
    verdict = {"status": "not measured", "reasons": [reason]}
    return make_row(latency=None, accuracy=None, samples=[], spans={}, verdict=verdict, **changes)


def accuracy(map50):
    return {**make_row().accuracy.model_dump(), "map50": map50}


MACHINE = {
    "cpu": "Toy <CPU> | 9000",
    "cores": 2,
    "virtual": True,
    "governor": "unknown",
    "load_average": [0.5, 0.1, 0.1],
}
ROWS = [
    timed(100.0, precision="fp32", accuracy=accuracy(0.45), machine={"before": MACHINE, "after": MACHINE}),
    timed(40.0, model_file={"name": "model.onnx", "bytes": 1_250_000, "sha256": "b" * 64}),
    timed(20.0, 20, runtime="openvino", accuracy=None, complexity=None, verdict={"status": "perf-only"}),
    unmeasured(runtime="tensorrt"),
]


class Page(HTMLParser):
    """What a page holds: its tags, that they close in order, its text, and its attributes."""

    VOID = frozenset({"meta", "img", "br", "link", "hr", "input"})

    def __init__(self, html):
        super().__init__()
        self.open, self.tags, self.text, self.attributes, self.faults = [], [], [], [], []
        self.feed(html)
        self.close()

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)
        self.attributes += [(tag, name, value or "") for name, value in attrs]

    def handle_endtag(self, tag):
        if not self.open or self.open.pop() != tag:
            self.faults.append(tag)

    def handle_data(self, data):
        if data.strip():
            self.text.append((self.open[-1] if self.open else "", data.strip()))


def page_of(rows, *pictures):
    return Page(render_html(rows, pictures))


@pytest.mark.parametrize(
    "rows", [ROWS, ROWS[:1], ROWS[3:], [timed(5.0, 1)]], ids=["mixed", "one", "unmeasured", "a frame"]
)
def test_the_page_is_well_formed_and_fetches_nothing(rows):
    html = render_html(rows, [PICTURE])
    page = Page(html)
    assert (page.faults, page.open) == ([], [])
    assert "http://" not in html
    assert "https://" not in html
    assert not {"script", "link", "iframe", "object", "base"} & set(page.tags)
    links = [v for _, name, v in page.attributes if name == "href"]
    ids = {v for _, name, v in page.attributes if name == "id"}
    assert {link.lstrip("#") for link in links} <= ids
    assert all(link.startswith("#") for link in links)
    fetched = [v for _, name, v in page.attributes if name in ("src", "srcset", "poster", "action")]
    assert fetched
    assert all(value.startswith("data:image/jpeg;base64,") for value in fetched)
    assert "url(" not in html
    assert "@import" not in html


def test_the_page_has_the_table_with_exactly_the_columns():
    page = page_of(ROWS)
    start = next(i for i, (tag, text) in enumerate(page.text) if (tag, text) == ("th", "model"))
    assert [text for tag, text in page.text[start : start + 12] if tag == "th"] == HEADERS
    labels_of_cells = [v for tag, name, v in page.attributes if (tag, name) == ("td", "data-label")]
    assert labels_of_cells == HEADERS * len(ROWS)


def test_the_page_defines_every_column_and_both_schemes():
    html = render_html(ROWS)
    for header in HEADERS:
        assert f"<dt>{header}</dt>" in html
    assert "prefers-color-scheme: dark" in html
    assert 'name="viewport"' in html


def test_what_comes_from_rows_and_pictures_is_escaped():
    evil = '<script>alert("x")</script>'
    rows = [timed(5.0, model=evil, machine={"before": {"cpu": evil}}, verdict={"status": "noisy", "reasons": [evil]})]
    html = render_html(rows, [Picture("p", evil, PICTURE.image)], title=evil)
    assert "<script" not in html
    assert html.count("&lt;script&gt;") >= 5


def test_pictures_in_the_page_are_small_enough():
    import base64

    import cv2

    page = page_of(ROWS, PICTURE)
    ((_, _, uri),) = [a for a in page.attributes if a[0] == "img" and a[1] == "src"]
    data = np.frombuffer(base64.b64decode(uri.partition(",")[2]), np.uint8)
    assert cv2.imdecode(data, cv2.IMREAD_COLOR).shape == (384, 960, 3)
    assert ("img", "alt", PICTURE.title) in page.attributes


def test_bold_marks_the_best_of_each_column_that_differs():
    page = page_of([timed(10.0, model="a"), timed(20.0, model="b")])
    best = [(tag, value) for tag, name, value in page.attributes if name == "class" and "best" in value.split()]
    assert len(best) == 3  # p50, p90 and fps of the first; the rest is the same in both


def test_report_json_fits_its_schema_and_reads_back(tmp_path):
    files = write_report(ROWS, tmp_path / "new", [PICTURE])
    values = json.loads(files.json.read_text())
    jsonschema.Draft202012Validator.check_schema(report_schema())
    jsonschema.validate(values, report_schema(), cls=jsonschema.Draft202012Validator)
    assert (values["format"], values["version"]) == ("edgekit-report", 1)
    assert [list(line) for line in values["table"]] == [HEADERS] * 4
    assert values["table"][0]["fps"] == pytest.approx(10.0)
    assert values["table"][3]["ms/frame p50"] is None
    assert read_report(files.json) == tuple(ROWS)


def test_the_schema_refuses_what_is_no_report():
    values = json.loads(report_json(ROWS))
    for damage in ({"version": 2}, {"rows": [{}]}, {"more": 1}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({**values, **damage}, report_schema())


def test_every_file_is_written_and_only_those(tmp_path):
    files = write_report(ROWS, tmp_path, [PICTURE])
    written = sorted(str(p.relative_to(tmp_path)) for p in tmp_path.rglob("*") if p.is_file())
    assert written == ["pictures/first.jpg", *(f"report.{s}" for s in ("csv", "html", "json", "md", "tex"))]
    assert files.pictures == (tmp_path / "pictures" / "first.jpg",)


def test_an_interrupted_report_is_seen_to_be_one(tmp_path, monkeypatch):
    write_report(ROWS[:1], tmp_path)
    assert report_is_whole(tmp_path)
    known = report.new_file

    def interrupted(file, mode):
        if file.suffix == ".html":
            raise KeyboardInterrupt
        return known(file, mode)

    monkeypatch.setattr(report, "new_file", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_report(ROWS, tmp_path)
    assert not report_is_whole(tmp_path)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["report.json", "report.md"]  # and no page of the old row
    report.check_report_place(tmp_path)  # it may be written again


def test_a_picture_of_somebody_else_is_not_replaced(tmp_path):
    """One beside no report.json is not of a report."""
    theirs = tmp_path / "pictures" / "first.jpg"
    theirs.parent.mkdir()
    theirs.write_text("holiday")
    with pytest.raises(BadConfig, match=r"first\.jpg: is there without a report\.json"):
        write_report(ROWS, tmp_path, [PICTURE])
    assert [p.name for p in tmp_path.iterdir()] == ["pictures"]
    assert theirs.read_text() == "holiday"
    write_report(ROWS, tmp_path, [PICTURE._replace(name="second")])
    write_report(ROWS, tmp_path, [PICTURE._replace(name="second")])  # its own is


def test_a_report_that_is_stopped_at_its_first_picture_may_be_written_again(tmp_path, monkeypatch):
    def stopped(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(report, "save_image", stopped)
        with pytest.raises(KeyboardInterrupt):
            write_report(ROWS, tmp_path, [PICTURE, PICTURE])
    assert not report_is_whole(tmp_path)
    write_report(ROWS, tmp_path, [PICTURE, PICTURE])


def test_a_title_that_is_no_text_is_not_blamed_on_the_rows(tmp_path):
    with pytest.raises(BadConfig, match=r"title: .*udce9.* no text"):
        write_report(ROWS, tmp_path / "r", title="caf\udce9")
    assert not (tmp_path / "r").exists()


@pytest.mark.parametrize("kind", [[], {}, 3, None])
def test_a_format_that_is_no_text_is_no_report(kind, tmp_path):
    (tmp_path / "r.json").write_text(json.dumps({"format": kind, "version": 1, "rows": []}))
    with pytest.raises(BadInput, match="not a report of EdgeKit"):
        report.load_report(tmp_path / "r.json")


def test_text_that_is_no_unicode_is_told_and_leaves_the_older_report(tmp_path):
    write_report(ROWS[:1], tmp_path)
    before = {p.name: p.read_bytes() for p in tmp_path.iterdir()}
    with pytest.raises(BadInput, match=r"report\.json: was not written.*no Unicode: .*udce9"):
        write_report([timed(1.0, model="net\udce9")], tmp_path)
    assert {p.name: p.read_bytes() for p in tmp_path.iterdir()} == before
    name = b"caf\xe9".decode("utf-8", "surrogateescape")  # of an image from an older file system
    (picture,) = write_report(ROWS, tmp_path, [PICTURE._replace(name=name, title=name)]).pictures
    assert picture.name == "caf?.jpg"
    assert [p.title for p in read_pictures(tmp_path)] == ["caf?"]


def test_the_same_rows_give_the_same_bytes(tmp_path):
    first, second = write_report(ROWS, tmp_path / "a", [PICTURE]), write_report(ROWS, tmp_path / "b", [PICTURE])
    for name in ("json", "markdown", "html"):
        assert getattr(first, name).read_bytes() == getattr(second, name).read_bytes()


def test_no_rows_no_report(tmp_path):
    with pytest.raises(BadInput, match="no measured row"):
        write_report([], tmp_path / "new")
    assert not (tmp_path / "new").exists()


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"format": "edgekit-report", "version": 2}', "\udcff"])
def test_a_damaged_report_is_refused_by_name(tmp_path, text):
    file = tmp_path / "report.json"
    file.write_bytes(text.encode("utf-8", "surrogateescape"))
    with pytest.raises(BadInput, match=r"report\.json"):
        read_report(file)


def test_a_missing_report_is_refused_by_name(tmp_path):
    with pytest.raises(BadInput, match=r"gone\.json: cannot read"):
        read_report(tmp_path / "gone.json")


# -- Markdown and terminal --------------------------------------------------------------------------------------------
def test_markdown_table_exactly():
    assert markdown_table([make_row(), unmeasured(model="a|b")]) == "\n".join(
        [
            "| " + " | ".join(HEADERS) + " |",
            "| --- | --- | --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |",
            "| toynet | x86-1t | onnxruntime | int8 | 44.6 | 23.4 | 2.50 | 12.34 | 50.50 | 90.10 | 19.8 | 1,616,366 |",
            "| a\\|b | x86-1t | onnxruntime | int8 | not measured | not measured | 2.50 | 12.34 | not measured "
            "| not measured | not measured | 1,616,366 |",
        ]
    )


def test_a_row_without_map_is_told_once_beside_the_drawings_of_several_sets():
    usual = make_row().accuracy.model_dump()
    night = timed(6.0, runtime="openvino", accuracy={**usual, "set": "night", "set_digest": "d" * 64})
    html = render_html([timed(5.0), night, timed(25.04, accuracy=None), unmeasured()])
    keys = [part.split("</ul>")[0] for part in html.split('<ul class="key">')[1:]]
    assert [key.count("<li>") for key in keys] == [1, 3]
    assert "no mAP, 25.04 ms" in keys[1]
    assert keys[1].count("not measured") == 1
    assert '<a href="#verdicts">' in html
    assert '<section id="verdicts">' in html


def test_rows_have_the_numbers_by_which_findings_name_them():
    """Those of all rows, also where each machine has a table of its own."""
    rows = [timed(5.0), timed(6.0, board="other"), timed(7.0, runtime="openvino", verdict={"status": "noisy"})]
    text = render_markdown(rows)
    assert "row 3 is noisy" in text
    table = [line for line in text.splitlines() if line.startswith(("| # ", "| 1 ", "| 2 ", "| 3 "))]
    assert [line.split(" | ")[0] + " " + line.split(" | ")[3] for line in table] == [
        *("| # runtime", "| 1 onnxruntime", "| 3 openvino", "| # runtime", "| 2 onnxruntime"),
    ]
    assert "| #" not in markdown_table(rows)  # for a README


def test_markdown_says_everything_that_the_page_says():
    text = render_markdown(ROWS, [PICTURE])
    for part in (
        "SIGSEGV",
        "Toy <CPU> \\| 9000",
        "2 x GMAC",
        "mean ± std",
        "pictures/first.jpg",
        "10 frames before",
        "perf-only",
    ):
        assert part in text
    assert "(pictures/a%20b.jpg)" in render_markdown(ROWS, [PICTURE._replace(name="a b")])
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


@pytest.mark.parametrize("width", [40, 80, 200])
def test_the_terminal_table_shows_every_cell_at_any_width(width):
    console = Console(width=width, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    console.print(TerminalTable(ROWS))
    text = console.export_text()
    console.file.close()
    assert "…" not in text
    assert max(len(line.rstrip()) for line in text.splitlines()) <= width
    for header in HEADERS:
        assert header in text
    for cell in ("onnxruntime", "openvino", "tensorrt", "100.00", "1,616,366"):
        assert cell in text
    first = text.splitlines()[0].split("  ")
    assert (len(text.splitlines()) == 1 + len(ROWS)) == (width == 200), first


def test_terminal_verdicts_name_each_row():
    lines = terminal_verdicts(ROWS).plain.splitlines()
    assert lines[0] == "● onnxruntime fp32: valid"
    assert lines[3] == "✕ tensorrt int8: not measured: bench of model.onnx was killed by SIGSEGV"


# -- words ------------------------------------------------------------------------------------------------------------
def test_findings_compare_int8_with_fp32_of_the_same_runtime():
    assert findings(ROWS) == [
        "Fastest: openvino int8, 20.00 ms per frame (50.0 fps).",
        "INT8 against FP32 in onnxruntime: 2.50 x as fast, mAP@0.5 −0.4 points, file 0.50 x the size.",
        "2 of 4 rows are valid; row 3 is perf-only, row 4 is not measured.",
    ]


def test_the_table_tells_networks_of_one_name_apart():
    """By recipe, and by input where the recipe is one; repeated runs and other runtimes stay as they are."""
    small = {"width": 320, "height": 192, "layout": "nhwc_uint8"}
    rows = [
        make_row(),
        make_row(runtime="openvino"),
        make_row(input=small),
        make_row(recipe="other"),
        make_row(model="x"),
    ]
    name, size = rows[0].model, "{0.width}x{0.height}".format(rows[0].input)
    own = f"{name} · {rows[0].recipe}"
    names = [f"{own} · {size}", f"{own} · {size}", f"{own} · 320x192", f"{name} · other", "x"]
    assert [cells[0] for cells in table_cells(rows)] == names
    assert [cells[0] for cells in table_cells(rows[:2])] == [name, name]
    for text in (markdown_table(rows), render_latex(rows), render_html(rows)):
        assert "320x192" in text


def test_nms_on_the_host_and_in_the_engine_are_told_apart_and_compared():
    engine = {"runtime": "tensorrt8", "precision": "fp16"}
    host, graph = timed(20.0, **engine, session={"nms": "host"}), timed(16.0, **engine, session={"nms": "plugin"})
    way = "NMS in the engine (EfficientNMS_TRT)"
    assert labels([host, graph]) == ["tensorrt8 fp16 · NMS on the host", f"tensorrt8 fp16 · {way}"]
    assert labels([graph, make_row()]) == ["tensorrt8 fp16", "onnxruntime int8"]
    assert f"{way} against the host in tensorrt8 fp16: 1.25 x as fast, mAP@0.5 +0.0 points." in findings([graph, host])
    assert [dict(file_facts(r))["NMS"] for r in (host, graph)] == ["on the host", way.removeprefix("NMS ")]
    assert not any("against the host" in text for text in findings([graph]))


SMALL = {"width": 320, "height": 320, "layout": "nhwc_uint8"}
DHAKA = {"set": "dhaka", "set_digest": "d" * 64}
UNLIKE = [
    timed(80.0, precision="fp32", accuracy=accuracy(0.50)),
    timed(20.0, precision="fp32", input=SMALL, accuracy={**accuracy(0.30), **DHAKA}),
    timed(10.0, input=SMALL, accuracy={**accuracy(0.29), **DHAKA}),
]


def test_int8_is_compared_with_fp32_of_its_own_size_and_images():
    told = "INT8 against FP32 in onnxruntime (320x320, evaluated on dhaka): 2.00 x as fast, mAP@0.5 −1.0 points, "
    assert [text for text in findings(UNLIKE) if "against" in text] == [told + "file 1.00 x the size."]
    other_images = [UNLIKE[1].model_copy(update={"accuracy": UNLIKE[0].accuracy}), UNLIKE[2]]
    (text,) = (text for text in findings(other_images) if "against" in text)
    assert "2.00 x as fast, file 1.00 x" in text  # and no lost points
    assert not any("against" in text for text in findings([timed(80.0, model="b", precision="fp32"), ROWS[1]]))


def test_nms_is_compared_with_the_host_of_its_own_size():
    engine = {"runtime": "tensorrt8", "precision": "fp16"}
    rows = [timed(20.0, **engine, input=SMALL), timed(16.0, **engine, session={"nms": "plugin"})]
    assert not any("against the host" in text for text in findings(rows))


def test_accuracy_on_other_images_is_not_ranked():
    html = render_html(UNLIKE)
    assert Page(html).faults == []
    plots = html.split('class="chart plot"')[1:]
    assert len(plots) == 2
    assert "evaluated on dhaka" in html
    assert [plot.split(">")[0].count(" ms per frame") for plot in plots] == [1, 2]
    assert not re.findall(r'data-label="mAP@0.5" class="number best"', html)
    assert re.findall(r'data-label="mAP@0.5" class="number best"', render_html(UNLIKE[1:]))


def test_findings_about_noisy_rows_warn():
    noisy = timed(40.0, verdict={"status": "noisy", "reasons": ["p90 is 2 x p50"]})
    said = findings([ROWS[0], noisy])
    assert "disturbed machine" not in said[0]  # the fastest of the rows that nothing disturbed
    assert "disturbed machine" in said[1]
    assert said[2] == "1 of 2 rows are valid; row 2 is noisy."


def test_the_fastest_is_a_row_that_nothing_disturbed():
    noisy = timed(10.0, runtime="openvino", verdict={"status": "noisy", "reasons": ["p90 is 2 x p50"]})
    assert findings([noisy, timed(40.0)])[0].startswith("Fastest of the undisturbed: onnxruntime int8, 40.00 ms")
    assert "disturbed machine" in findings([noisy])[0]  # where there is no other


def test_long_lists_of_row_numbers_are_short():
    noisy = [timed(40.0, verdict={"status": "noisy"})] * 5
    assert findings([*noisy, ROWS[1], *noisy[:2]])[-1] == "1 of 8 rows are valid; rows 1 to 5, 7, 8 are noisy."


def test_findings_of_many_rows_are_told_together():
    rows = []
    for number, map50 in enumerate((0.40, 0.41, 0.42, 0.43)):
        for runtime, faster in (("onnxruntime", 2.0 + number / 10), ("openvino", 4.0)):
            same = {"recipe": f"recipe-{number}", "runtime": runtime}
            rows.append(timed(100.0, precision="fp32", accuracy=accuracy(0.42), **same))
            rows.append(timed(100.0 / faster, accuracy=accuracy(map50), **same))
    rows[3] = rows[3].model_copy(update={"verdict": Verdict(status="noisy")})
    rows[5] = rows[5].model_copy(update={"verdict": Verdict(status="throttled")})
    rows[7] = rows[7].model_copy(update={"verdict": Verdict(status="noisy")})
    assert findings(rows)[1:] == [
        "INT8 against FP32 in onnxruntime on x86-1t, 4 rows: 2.00 to 2.30 x as fast, mAP@0.5 −2.0 to +1.0 points, "
        "file 1.00 x the size; 1 of them measured on a disturbed machine or simulated.",
        "INT8 against FP32 in openvino on x86-1t, 4 rows: 4.00 x as fast, mAP@0.5 −2.0 to +1.0 points, "
        "file 1.00 x the size; 2 of them measured on a disturbed machine or simulated.",
        "13 of 16 rows are valid; rows 4, 8 are noisy, row 6 is throttled.",
    ]


def test_findings_about_a_simulator_say_so():
    said = findings([timed(40.0, board="twin", verdict={"status": "simulated"})])
    assert "simulated, not measured on a board" in said[0]


def test_findings_of_nothing_measured():
    assert findings([unmeasured()]) == ["0 of 1 rows are valid; row 1 is not measured."]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([{}, {"runtime": "openvino"}], ["onnxruntime int8", "openvino int8"]),
        ([{}, {"model": "other"}], ["toynet · onnxruntime int8", "other · onnxruntime int8"]),
        ([{}, {"board": "x86"}], ["x86-1t · onnxruntime int8", "x86 · onnxruntime int8"]),
    ],
)
def test_labels_name_what_differs(changes, expected):
    assert labels([make_row(**change) for change in changes]) == expected


def test_machines_are_told_once_with_the_range_of_what_moves():
    busy = {**MACHINE, "load_average": [2.5, 1, 1], "affinity": [1], "smt_siblings": {"1": [0, 1]}}
    rows = [
        timed(1.0, machine={"before": MACHINE, "after": busy}),
        timed(1.0, machine={"before": busy, "after": busy}),
        timed(1.0, machine={"before": {**MACHINE, "cpu": "other"}, "after": MACHINE}),
        timed(1.0),
    ]
    first, second = machines(rows)
    assert (first.numbers, second.numbers) == ((1, 2), (3,))
    facts = dict(first.facts)
    assert facts["cpu"] == "Toy <CPU> | 9000"
    assert (facts["virtual"], facts["governor"], facts["load average (1 min)"]) == ("yes", "unknown", "0.5 to 2.5")
    assert dict(file_facts(rows[0]))["its SMT siblings"] == "unknown"
    assert dict(file_facts(rows[1]))["its SMT siblings"] == "0"


# -- charts -----------------------------------------------------------------------------------------------------------
def point(x, y, number=1):
    return Point(x, y, number, "p-fp32", f"point {number}")


@pytest.mark.parametrize(
    ("points", "front"),
    [
        ([(10, 40), (20, 50), (30, 45)], [1, 2]),
        ([(10, 40), (10, 50)], [2]),
        ([(10, 50), (20, 50)], [1]),
        ([(10, 50), (10, 50), (5, 50), (5, 50)], [3, 4]),  # equal points do not beat each other
        ([(30, 60), (20, 50), (10, 40)], [3, 2, 1]),
        ([(10, 40)], [1]),
    ],
)
def test_pareto_front_by_hand(points, front):
    assert [p.number for p in pareto([point(x, y, n) for n, (x, y) in enumerate(points, 1)])] == front


def test_a_disturbed_point_is_not_on_the_front_and_drives_no_other_from_it():
    points_ = [point(10, 60)._replace(disturbed=True), point(20, 50, 2), point(30, 40, 3)]
    assert [p.number for p in pareto(points_)] == [2]
    svg = scatter(points_)
    assert re.findall(r'<g class="([^"]+)"', svg) == ["point behind disturbed", "point", "point behind"]
    alone = scatter(points_[:1])  # without a front
    assert Page(alone).faults == []
    assert 'class="front"' not in alone


@pytest.mark.parametrize(
    ("low", "high", "ticks"),
    [
        (0, 100, (0, 20, 40, 60, 80, 100)),
        (0, 153.9, (0, 50, 100, 150, 200)),
        (43.8, 44.7, (43.8, 44.0, 44.2, 44.4, 44.6, 44.8)),
        (0, 0.07, (0, 0.02, 0.04, 0.06, 0.08)),
        (5, 5, (5, 5.1, 5.2, 5.3, 5.4, 5.5)),
        (0, 0, (0, 0.02, 0.04, 0.06, 0.08, 0.1)),
    ],
)
def test_axes_are_round_and_hold_their_range(low, high, ticks):
    axis = nice_axis(low, high)
    assert axis.ticks == pytest.approx(ticks)
    assert axis.low <= low
    assert axis.high >= high
    assert (axis.share(axis.low), axis.share(axis.high)) == (0, 100)


def test_the_bar_is_as_long_as_its_latency():
    svg = latency_bar(25.0, 40.0, 100.0, "p-int8")
    assert '<rect class="p-int8" x="0.000%"' in svg
    assert 'width="25.000%"' in svg
    assert 'x2="40.000%"' in svg
    assert "whisker" not in latency_bar(25.0, None, 100.0, "p-int8")


def test_points_that_coincide_have_chips_that_do_not():
    html = scatter([point(50, 44, n) for n in range(1, 7)])
    page = Page(html)
    centres = [(float(dict(a)["cx"]), float(dict(a)["cy"])) for a in _elements(html, "circle") if "cx" in dict(a)]
    assert len(centres) == 6
    assert min(math.dist(a, b) for i, a in enumerate(centres) for b in centres[:i]) >= 20
    assert page.faults == []


def test_chips_cover_no_other_at_any_width():
    # three clusters beside each other: chips that move towards each other are apart on a phone and meet on a desktop
    html = scatter(
        [point(at + n / 3, 20 + n % 3, 10 * at + n) for at in (8, 11, 16) for n in range(7)] + [point(200, 40, 1)]
    )
    places = re.findall(r'<svg x="([\d.]+)%" y="([\d.]+)" overflow="visible"><g.*?cx="([-\d.]+)" cy="([-\d.]+)"', html)
    assert len(places) == 22
    for width in range(300, 1100, 20):
        spots = [(float(x) / 100 * width + float(dx), float(y) + float(dy)) for x, y, dx, dy in places]
        assert min(math.dist(a, b) for i, a in enumerate(spots) for b in spots[:i]) >= 18, width


def test_a_moved_chips_own_place_covers_no_other_chip():
    html = scatter([point(50, 44, n) for n in range(1, 7)])
    assert html.rindex(' anchor"') < html.index('<text class="on"')


def test_the_fp32_file_is_its_own_reference_and_few_frames_tell_no_p99():
    fp32, int8 = (dict(run_facts(timed(5.0, precision=precision, drop=None))) for precision in ("fp32", "int8"))
    assert fp32["mAP@0.5 lost to FP32"] == "it is FP32"
    assert int8["mAP@0.5 lost to FP32"] == "not measured"
    assert fp32["p99, 99 % sure"] == "n < 662"


@pytest.mark.parametrize(
    ("share", "sign", "text"),
    [(-0.0004, "+", "+0.0"), (0.0012, "+", "+0.1"), (-0.0012, "-", "\u22120.1"), (0.0, "-", "0.0")],
)
def test_points_that_round_to_nothing_have_no_minus(share, sign, text):
    assert points(share, sign) == text


def _elements(html, wanted):
    found = []

    class Collect(HTMLParser):
        def handle_startendtag(self, tag, attrs):
            if tag == wanted:
                found.append(attrs)

    Collect().feed(html)
    return found


def test_the_histogram_counts_every_frame():
    samples = [10.0] * 50 + [10.4] * 49 + [90.0]
    drawn = histogram(samples, 10.0, 10.4)
    assert drawn.beyond == 1
    assert drawn.low == 10.0
    assert drawn.high == pytest.approx(11.2)  # p90 + 2 x (p90 - p50)
    assert "100 frames" in drawn.svg
    assert "beyond" in drawn.svg


@pytest.mark.parametrize("count", [1, 2, 600, 601, 5000])
def test_timelines_of_any_length(count):
    samples = [10.0] * count
    samples[count // 2] = 50.0
    svg = timeline(samples, 10.0)
    assert Page(svg).faults == []
    places = svg.split('points="')[1].split('"')[0].split()
    ys = [float(p.split(",")[1]) for p in places]
    assert min(ys) == 0  # the slowest frame touches the top, however many there are
    assert len(places) <= 1200


def test_equal_samples_draw():
    assert "1 frames" in histogram([5.0], 5.0, None).svg
    assert "slowest 5.00 ms" in timeline([5.0], 5.0)


# -- many boards, pictures, sensors -----------------------------------------------------------------------------------
def test_each_board_has_its_own_table_best_cells_and_front():
    rows = [timed(10.0), timed(20.0, precision="fp32"), timed(500.0, board="jetson-tx2")]
    html, text = render_html(rows), render_markdown(rows)
    assert Page(html).faults == []
    assert html.count('<div class="card results">') == 2
    assert html.count('class="chart plot"') == 2
    assert "### jetson-tx2" in text
    said = findings(rows)
    assert said[0].startswith("Fastest on x86-1t: onnxruntime int8, 10.00 ms")
    assert said[1].startswith("Fastest on jetson-tx2: onnxruntime int8, 500.00 ms")


def test_what_was_disturbed_is_marked_and_is_not_the_best():
    rows = [timed(10.0, verdict={"status": "noisy", "reasons": ["x"]}), timed(20.0), timed(30.0)]
    html = render_html(rows)
    (table,) = re.findall(r"<tbody>.*?</tbody>", html.split('id="results"')[1], re.DOTALL)[:1]
    assert table.count("▲ noisy") == 1
    best = re.findall(r'data-label="ms/frame p50" class="number best">([\d.]+)', table)
    assert best == ["20.00"]


def test_a_disturbed_row_beats_none_in_the_drawing_and_is_marked():
    noisy = timed(10.0, verdict={"status": "noisy", "reasons": ["x"]})
    html = render_html([noisy, timed(20.0)])
    plot = html.split('class="chart plot"')[1].split('<ul class="key">')[0]
    assert re.findall(r'<g class="([^"]+)"', plot) == ["point behind disturbed", "point"]
    assert re.findall(r"<title>1 [^<]*, noisy</title>", plot)
    assert '<i class="disturbed"></i>disturbed' in plot
    assert "% at 10.00 ms, noisy" in html
    assert '<i class="disturbed">' not in render_html([timed(20.0)])
    assert "Pareto front</span>" not in render_html([noisy])


def on(cpu, **facts):
    return {"machine": {"before": {**MACHINE, "cpu": cpu, **facts}}}


def test_machines_of_one_board_are_not_compared():
    """``x86-1t`` is any x86 machine."""
    slow, fast = timed(40.0, precision="fp32", **on("Atom")), timed(10.0, **on("Xeon"))
    rows = [slow, fast, timed(30.0, **on("Atom"))]
    assert places(rows) == ["x86-1t · Atom", "x86-1t · Xeon", "x86-1t · Atom"]
    assert labels(rows) == [
        "x86-1t · Atom · onnxruntime fp32",
        "x86-1t · Xeon · onnxruntime int8",
        "x86-1t · Atom · onnxruntime int8",
    ]
    assert findings(rows)[:3] == [
        "Fastest on x86-1t · Atom: onnxruntime int8, 30.00 ms per frame (33.3 fps), mAP@0.5 44.6 %.",
        "Fastest on x86-1t · Xeon: onnxruntime int8, 10.00 ms per frame (100.0 fps), mAP@0.5 44.6 %.",
        "INT8 against FP32 in onnxruntime (toy-recipe on x86-1t · Atom): 1.33 x as fast, mAP@0.5 +0.0 points, "
        "file 1.00 x the size.",
    ]
    assert not any("against" in text for text in findings(rows[:2]))
    html, text = render_html(rows), render_markdown(rows)
    assert html.count('<div class="card results">') == html.count('class="chart plot"') == 2
    assert '<h3 class="board">x86-1t · Xeon</h3>' in html
    assert "### x86-1t · Atom" in text
    best = re.findall(r'data-label="ms/frame p50" class="number best">([\d.]+)', html)
    assert best == ["30.00"]


@pytest.mark.parametrize(
    ("machines_of_rows", "expected"),
    [
        ([on("A"), on("A", load_average=[9, 9, 9], memory_mb="unknown"), {}], ["x86-1t"] * 3),
        ([on("A"), on("A", cores=4)], ["x86-1t · 2 cores", "x86-1t · 4 cores"]),
        ([on("A"), on("B"), on("B", cores=4)], ["x86-1t · A", "x86-1t · B · 2 cores", "x86-1t · B · 4 cores"]),
        ([on("A"), on("A", virtual=False)], ["x86-1t (machine 1)", "x86-1t (machine 2)"]),
        ([on("A"), {**on("B"), "board": "x86"}], ["x86-1t", "x86"]),
    ],
)
def test_machines_are_named_by_what_tells_them_apart(machines_of_rows, expected):
    assert places([timed(5.0, **machine) for machine in machines_of_rows]) == expected


def of_training(letter, ms, reference=None, **changes):
    """A row of a file that this training gave. reference: the letter of the training whose FP32 file its drop names"""
    file = {"name": "model.onnx", "bytes": 1_000_000, "sha256": letter * 64}
    drop = {"map": 0, "map50": 0, "reference": reference * 64, "runtime": "onnxruntime"} if reference else None
    return timed(ms, artifact=letter * 64, model_file=file, drop=drop, **changes)


def test_trainings_of_one_recipe_are_told_apart_and_each_int8_is_compared_with_its_own_fp32():
    rows = [
        of_training("a", 40.0, precision="fp32", accuracy=accuracy(0.30)),
        of_training("b", 50.0, precision="fp32", accuracy=accuracy(0.50)),
        of_training("c", 10.0, "b", accuracy=accuracy(0.49)),
        of_training("d", 20.0, "a", accuracy=accuracy(0.29)),
    ]
    assert labels([*rows, rows[3]]) == [
        "onnxruntime fp32 · artifact aaaaaaaa",
        "onnxruntime fp32 · artifact bbbbbbbb",
        "onnxruntime int8 · artifact cccccccc",
        "onnxruntime int8 · artifact dddddddd (run 1)",
        "onnxruntime int8 · artifact dddddddd (run 2)",
    ]
    assert [text for text in findings(rows) if "against" in text] == [
        "INT8 against FP32 in onnxruntime (artifact cccccccc): 5.00 x as fast, mAP@0.5 −1.0 points, "
        "file 1.00 x the size.",
        "INT8 against FP32 in onnxruntime (artifact dddddddd): 2.00 x as fast, mAP@0.5 −1.0 points, "
        "file 1.00 x the size.",
    ]


def test_nothing_is_compared_with_fp32_of_another_training():
    fp32 = [of_training(letter, 40.0, precision="fp32") for letter in "ab"]
    assert not any("against" in text for text in findings([*fp32, of_training("c", 10.0)]))  # whose is it?
    assert not any("against" in text for text in findings([fp32[0], of_training("c", 10.0, "b")]))
    assert any("against" in text for text in findings([fp32[0], of_training("c", 10.0)]))
    engine = {"runtime": "tensorrt8"}  # an engine in FP32 has its drop against the file too
    rows = [of_training("e", 8.0, "a", precision="fp32", **engine), of_training("f", 4.0, "a", **engine)]
    assert any("INT8 against FP32 in tensorrt8: 2.00 x" in text for text in findings(rows))


def test_the_evaluation_set_is_told_where_rows_are_of_several():
    sets = [{"set": "val"}, {"set": "night", "set_digest": "d" * 64}, {"set": "night", "set_digest": "e" * 64}]
    rows = [timed(5.0, accuracy={**accuracy(0.4), **changes}) for changes in sets]
    assert labels([*rows[:2], rows[1], unmeasured()]) == [
        "onnxruntime int8 · on val",
        "onnxruntime int8 · on night (run 1)",
        "onnxruntime int8 · on night (run 2)",
        "onnxruntime int8",
    ]
    assert labels(rows)[1:] == [
        "onnxruntime int8 · on night (dddddddddddd)",
        "onnxruntime int8 · on night (eeeeeeeeeeee)",
    ]
    assert dict(file_facts(rows[1]))["evaluated on"] == "night, 7 images (digest dddddddddddd)"
    assert dict(file_facts(unmeasured()))["evaluated on"] == "not measured"
    html = render_html(rows)
    assert "<h4>evaluated on night (dddddddddddd)</h4>" in html
    assert "| evaluated on | val, 7 images" in render_markdown(rows)


def test_the_parts_of_a_frame_stand_in_their_order_on_every_board():
    copies = {"preprocess": 1.0, "host_to_device": 2.0, "inference": 3.0, "device_to_host": 4.0, "postprocess": 5.0}
    rows = [timed(10.0), timed(15.0, board="jetson-tx2", runtime="tensorrt8", spans=copies)]
    html, text = render_html(rows), render_markdown(rows)
    assert "1.00 + 48.00 + 1.50 ms" in html  # without a plus for copies that a CPU does not make
    assert "1.00 + 2.00 + 3.00 + 4.00 + 5.00 ms" in html
    assert "|  | preprocess | host_to_device | inference | device_to_host | postprocess |" in text


def test_a_boards_rows_are_not_called_by_the_board_in_its_own_section():
    html = render_html([timed(10.0), timed(500.0, board="jetson-tx2")])
    section = html.split('id="latency"')[1].split('id="spans"')[0]
    assert section.count("onnxruntime int8") >= 2
    assert "jetson-tx2 · onnxruntime" not in section.split('id="accuracy"')[0]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ([{}, {}], ["onnxruntime int8 (run 1)", "onnxruntime int8 (run 2)"]),
        ([{}, {}, {"runtime": "b"}], ["onnxruntime int8 (run 1)", "onnxruntime int8 (run 2)", "b int8"]),
        ([{"recipe": "a"}, {"recipe": "b"}], ["onnxruntime int8 · a", "onnxruntime int8 · b"]),
        (
            [{}, {"input": {"width": 64, "height": 32, "layout": "nhwc_uint8"}}],
            ["onnxruntime int8 · 576x320", "onnxruntime int8 · 64x32"],
        ),
        ([{"recipe": "a"}, {"recipe": "b", "runtime": "b"}], ["onnxruntime int8", "b int8"]),
    ],
)
def test_labels_of_rows_that_are_much_the_same(changes, expected):
    assert labels([make_row(**change) for change in changes]) == expected


def test_pictures_travel_from_report_to_report(tmp_path):
    first = write_report(ROWS, tmp_path / "a", [PICTURE])
    write_report(ROWS, tmp_path / "b", [PICTURE])
    pictures = [p for name in "ab" for p in read_pictures(tmp_path / name / "report.json")]
    assert [p.title for p in pictures] == [PICTURE.title] * 2
    both = write_report(ROWS, tmp_path / "both", pictures)
    assert [p.name for p in both.pictures] == ["first.jpg", "first-2.jpg"]
    assert both.html.read_text().count("<figure>") == 2
    first.pictures[0].unlink()
    assert read_pictures(first.json) == []


@pytest.mark.parametrize("file", ["../secret.jpg", "/etc/secret.jpg"])
def test_a_report_names_no_file_outside_its_folder(file, tmp_path):
    values = json.loads(report_json(ROWS))
    (tmp_path / "report.json").write_text(json.dumps({**values, "pictures": [{"file": file, "title": ""}]}))
    with pytest.raises(BadInput, match="inside the report's folder"):
        read_pictures(tmp_path / "report.json")


def test_reports_from_before_pictures_and_layers_are_read(tmp_path):
    values = json.loads(report_json(ROWS[:1]))
    del values["pictures"]
    for name in ("layers", "peaks", "tracks", "energy"):
        del values["rows"][0][name]
    (tmp_path / "report.json").write_text(json.dumps(values))
    assert read_report(tmp_path / "report.json") == tuple(ROWS[:1])


def test_sensors_are_drawn_over_time():
    track = {"name": "cpu clock", "unit": "MHz", "source": "s", "first": 2000, "last": 1500, "min": 1400, "max": 2000}
    row = timed(5.0, tracks=[{**track, "seconds": [0, 1, 2], "values": [2000, 1400, 1500]}, {**track, "name": "empty"}])
    html = render_html([row])
    assert Page(html).faults == []
    assert "2000 to 1500 MHz, from 1400 to 2000" in html
    assert "<h4>empty</h4>" not in html


def test_what_no_row_has_is_told_once_and_not_in_every_row():
    html = render_html(ROWS)
    assert "Not measured in any row: " in html
    assert "<dt>energy per frame</dt>" not in html
    energy = {"source": "RAPL", "joules": 10, "joules_per_frame": 0.1, "watts": 5}
    assert "100.0 mJ, 5.0 W (RAPL)" in render_html([timed(5.0, energy=energy)])
