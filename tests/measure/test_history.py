"""History across commits: a folder of reports, in the order in which they were measured."""

import pytest

from edgekit.measure.charts import sparkline
from edgekit.measure.history import Step, change_text, history_lines, read_history, spark_text, tracks, with_past
from edgekit.measure.report import render_html, render_markdown, report_json
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


def test_the_present_rows_are_the_last_step_unless_they_are_in_the_folder(folder):
    steps = read_history(folder)
    (track,) = tracks(steps, [at(4, 12.0)])
    assert [d.step for d in track.series[-1].dots] == ["ccc", "aaa", "bbb", "now"]
    (track,) = tracks(steps, [at(3, 15.0)])
    assert [d.step for d in track.series[-1].dots] == ["ccc", "aaa", "bbb"]


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
    [([1.0], "▄"), ([2.0, 2.0, 2.0], "▄▄▄"), ([0.0, 7.0], "▁█"), ([0, 1, 2, 3, 4, 5, 6, 7], "▁▂▃▄▅▆▇█")],
)
def test_a_line_of_bars(values, text):
    assert spark_text(values) == text


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
    with pytest.raises(BadInput, match=r"holds no report.*cp "):
        read_history(tmp_path)
    (tmp_path / "broken.json").write_text("{")
    with pytest.raises(BadInput, match=r"broken\.json"):
        read_history(tmp_path)
