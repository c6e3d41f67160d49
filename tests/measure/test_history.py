"""History across commits: a folder of reports, in the order in which they were measured."""

import pytest

import edgekit
from edgekit.measure.charts import sparkline
from edgekit.measure.history import (
    THIS_REPORT,
    Step,
    change_text,
    earlier,
    history_lines,
    newer_text,
    read_history,
    spark_text,
    tracks,
    with_past,
)
from edgekit.measure.report import render_html, render_markdown, report_json, write_report
from edgekit.runtime.errors import BadInput

from .test_report import Page, timed
from .test_row import make_row


def at(day, ms, **changes):
    return timed(ms, started=f"2026-11-{day:02d}T10:00:00+00:00", **changes)


@pytest.fixture
def folder(tmp_path):
    place = tmp_path / "history"
    place.mkdir()
    # names in another order than the days
    for name, rows in {"ccc": [at(1, 20.0)], "aaa": [at(2, 30.0), at(2, 10.0)], "bbb": [at(3, 15.0)]}.items():
        (place / f"{name}.json").write_text(report_json(rows))
    (place / "notes.txt").write_text("no report")
    return place


def test_steps_are_ordered_by_the_time_of_measurement(folder):
    assert [step.name for step in read_history(folder)] == ["ccc", "aaa", "bbb"]


def test_a_row_is_followed_over_the_steps_and_repeats_give_their_median(folder):
    (track,) = tracks(read_history(folder))
    assert track.label == "toynet · x86-1t · onnxruntime int8"
    latency = next(s for s in track.series if s.metric.name == "latency")
    assert [(d.step, d.value, d.disturbed) for d in latency.dots] == [
        ("ccc", 20.0, False),
        ("aaa", 20.0, False),
        ("bbb", 15.0, False),
    ]
    assert latency.change == pytest.approx(-0.25)
    assert change_text(latency) == "-25.0%"
    size = next(s for s in track.series if s.metric.name == "size")
    assert change_text(size) == "no change"


def latency_of(found):
    (track,) = found
    return next(s for s in track.series if s.metric.name == "latency")


def steps_of(found):
    return [dot.step for dot in latency_of(found).dots]


def test_the_reports_rows_are_the_last_step(folder):
    assert steps_of(tracks(read_history(folder), [at(4, 12.0)])) == ["ccc", "aaa", "bbb", THIS_REPORT]


def test_a_report_that_is_in_the_folder_is_no_earlier_one(folder):
    steps = read_history(folder)
    assert steps_of(tracks(steps, [at(3, 15.0)])) == ["ccc", "aaa", THIS_REPORT]
    assert [step.name for step in earlier(steps, [at(3, 15.0)])] == ["ccc", "aaa"]
    # a report of several files that are each in the folder
    assert [step.name for step in earlier(steps, [at(3, 15.0), at(1, 20.0)])] == ["aaa"]


def test_what_is_newer_than_the_report_is_no_past_of_it(folder):
    steps = read_history(folder)
    assert steps_of(tracks(steps, [at(1, 20.0)])) == [THIS_REPORT]
    assert steps_of(tracks(steps, [timed(50.0, started="2026-11-02T10:30:00+01:00")])) == ["ccc", THIS_REPORT]
    assert steps_of(tracks(steps, [timed(50.0, started="2025-01-01T00:00:00+00:00")])) == [THIS_REPORT]
    assert steps_of(tracks(steps, [timed(50.0)])) == ["ccc", "aaa", "bbb", THIS_REPORT]  # it tells no time


def test_the_page_counts_the_other_reports(folder, tmp_path):
    def page(rows):
        return write_report(rows, tmp_path / "out", history=read_history(folder)).html.read_text()

    assert "2 earlier reports: ccc to aaa." in page([at(3, 15.0)])
    assert "1 earlier report: ccc." in page([timed(9.0, started="2026-11-01T20:00:00+00:00")])
    assert 'id="history"' not in page([at(1, 20.0)])


def test_steps_that_are_newer_than_the_report_are_named(folder, tmp_path, caplog):
    now = [timed(9.0, started="2026-11-01T20:00:00+00:00")]
    told = "1 step of the history newer than this report, so left out: bbb"
    assert newer_text(read_history(folder), [at(2, 9.0)]) == told
    assert newer_text(read_history(folder), [at(4, 9.0)]) == newer_text([], [at(4, 9.0)]) == ""
    many = [Step(name, (at(9, 1.0),)) for name in "abcdefg"]
    assert newer_text(many, now).endswith(": a, b, c, d, e and 2 more")
    (tmp_path / "now.json").write_text(report_json(now))
    edgekit.report(tmp_path / "now.json", out=tmp_path / "out", history=folder)
    assert "newer than this report, so left out: aaa, bbb" in caplog.text
    for name in ("report.html", "report.md"):
        assert "2 steps of the history newer than this report, so left out: aaa, bbb." in (
            tmp_path / "out" / name
        ).read_text(encoding="utf-8")


def test_map_is_followed_over_the_same_images_only():
    other = {**make_row().accuracy.model_dump(), "set_digest": "f" * 64, "map50": 0.31}
    steps = [Step("a", (at(1, 10.0),)), Step("b", (at(2, 10.0, accuracy=other),)), Step("c", (at(3, 12.0),))]
    (track,) = tracks(steps)
    series = {s.metric.name: s for s in track.series}
    assert [d.step for d in series["mAP50"].dots] == ["a", "c"]
    assert change_text(series["mAP50"]) == "no change, 1 step on other images left out"
    assert [d.step for d in series["latency"].dots] == ["a", "b", "c"]
    (track,) = tracks(steps[:2])
    assert {s.metric.name: change_text(s) for s in track.series}["mAP50"] == "1 step on other images left out"


def test_times_are_followed_on_the_same_machine_only():
    def on(cpu, day, ms):
        return at(day, ms, machine={"before": {"cpu": cpu, "cores": 2}})

    steps = [Step("a", (on("EPYC", 1, 10.0),)), Step("b", (on("Atom", 2, 900.0),)), Step("c", (on("Atom", 3, 901.0),))]
    found = tracks(steps, [on("EPYC", 4, 11.0)])
    assert steps_of(found) == ["a", THIS_REPORT]
    assert change_text(latency_of(found)) == "+10.0%, 2 steps on another machine left out"
    assert {s.metric.name: len(s.dots) for s in found[0].series}["size"] == 4  # the same on any machine


def test_one_network_at_two_input_sizes_has_two_histories():
    def sized(width, ms):
        return timed(ms, input={"width": width, "height": 320, "layout": "nhwc_uint8"})

    found = tracks([Step("a", (sized(320, 100.0), sized(640, 300.0)))])
    assert [(track.label.rpartition(" · ")[2], latency_of([track]).dots[0].value) for track in found] == [
        ("320 x 320", 100.0),
        ("640 x 320", 300.0),
    ]


def test_what_was_not_measured_leaves_a_gap():
    steps = [Step("a", (timed(1.0),)), Step("b", (make_row(accuracy=None, latency=None),)), Step("c", (timed(2.0),))]
    (track,) = tracks(steps)
    names = {s.metric.name: [d.step for d in s.dots] for s in track.series}
    assert names == {"mAP50": ["a", "c"], "size": ["a", "b", "c"], "gops": ["a", "b", "c"], "latency": ["a", "c"]}


def test_disturbed_steps_are_marked_and_disturbed_repeats_left_out():
    noisy = timed(50.0, verdict={"status": "noisy"})
    (track,) = tracks([Step("a", (noisy,)), Step("b", (noisy, timed(10.0)))])
    dots = {s.metric.name: s.dots for s in track.series}
    assert [(d.value, d.disturbed) for d in dots["latency"]] == [(50.0, True), (10.0, False)]
    assert not any(d.disturbed for d in dots["size"])


def test_text_has_no_hollow_dot_so_it_says_that_the_last_value_was_disturbed():
    quiet, noisy = timed(10.0), timed(15.0, verdict={"status": "noisy"})
    (track,) = tracks([Step("a", (quiet,)), Step("b", (noisy,))])
    told = {title: change for title, _, _, change in history_lines(track)}
    assert told["ms/frame p50"] == "+50.0%, disturbed"
    assert told["model size"] == "no change"
    assert "15.00 ms +50.0%, disturbed" in render_markdown([noisy], history=[Step("a", (quiet,))])
    (track,) = tracks([Step("b", (noisy,))])
    assert change_text(track.series[-1]) == "disturbed"


@pytest.mark.parametrize(
    ("values", "text"),
    [([1.0], "▄"), ([2.0, 2.0, 2.0], "▄▄▄"), ([10.0, 17.0], "▁█"), ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█")],
)
def test_a_line_of_bars(values, text):
    assert spark_text(values) == text


def test_a_figure_in_percent_changes_by_points():
    usual = make_row().accuracy
    steps = [
        Step(n, (make_row(accuracy=usual.model_copy(update={"map50": v})),)) for n, v in (("a", 0.8), ("b", 0.775))
    ]
    (track,) = tracks(steps)
    (line,) = [line for line in history_lines(track) if line[0] == "mAP@0.5"]
    assert line[1:] == ["█▁", "77.50 %", "-2.50 pt"]


@pytest.mark.parametrize("count", [1, 2, 3, 40])
def test_a_sparkline_has_a_dot_for_every_step(count):
    values = [float(v % 7) for v in range(count)]
    svg = sparkline(values, [f"step {n}" for n in range(count)], [False] * count)
    assert svg.count("<circle") == count
    assert svg.count("<line") == count - 1
    assert Page(svg).faults == []


def test_page_and_markdown_show_it(folder):
    rows, steps = [at(4, 12.0)], read_history(folder)
    html, text = render_html(rows, history=steps), render_markdown(rows, history=steps)
    assert Page(html).faults == []
    assert 'id="history"' in html
    assert "aaa: 20.00 ms" in html
    assert "## History" in text
    assert "12.00 ms -20.0%" in text
    assert "History" not in render_html(rows)
    assert "## History" not in render_markdown(rows)


def test_rows_without_a_past_do_not_fill_the_history(folder):
    rows, steps = [at(4, 12.0), at(4, 3.0, board="jetson-tx2"), at(4, 5.0, runtime="openvino")], read_history(folder)
    assert [track.label for track in with_past(tracks(steps, rows))] == ["toynet · x86-1t · onnxruntime int8"]
    html, text = render_html(rows, history=steps), render_markdown(rows, history=steps)
    assert html.split('id="history"')[1].split("</section>")[0].count('class="history"') == 1
    assert "jetson-tx2" not in text.split("## History")[1].split("## ")[0]
    assert len(with_past(tracks(steps, rows[1:]))) == 2  # where none has a past, all are shown


def test_folders_that_hold_none_are_told(tmp_path):
    with pytest.raises(BadInput, match="no such folder"):
        read_history(tmp_path / "none")
    (tmp_path / "report").write_text("{}")
    with pytest.raises(BadInput, match="report: is no folder"):
        read_history(tmp_path / "report")
    with pytest.raises(BadInput, match=r"holds no report.*cp "):
        read_history(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadInput, match=r"broken\.json"):
        read_history(tmp_path)
