"""JSON lines and COCO JSON."""

import json
import os
import re
from pathlib import Path

import pytest

from edgekit.runtime.camera.counters import Line
from edgekit.runtime.camera.records import CocoJson, JsonLines
from edgekit.runtime.camera.sinks import SinkThread
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.errors import BadInput

from .conftest import ABOUT, CLASSES, result


def results(count=5):
    for number in range(1, count + 1):
        yield result(number, boxes=[[1, 2, 11, 22], [3, 3, 9, 9], [0, 0, 5, 5]], scores=[0.9, 0.5, 0.2], ids=[4, 0, -1])


def lines(path):
    text = path.read_text()
    assert text.endswith("\n")
    return [json.loads(line) for line in text.splitlines()]


def test_json_lines(tmp_path):
    stats = Stats()
    sink = JsonLines(tmp_path / "new" / "seen.jsonl", ABOUT, 0.3, CLASSES, stats)
    sink.open()
    for made in results():
        sink.write(made)
        if made.number == 2:
            stats.event("the source broke off")
    sink.close()
    found = lines(sink.path)
    assert [r["type"] for r in found] == ["start", "frame", "frame", "event", "frame", "frame", "frame", "end"]
    assert found[0]["model"] == "bright"
    assert found[1]["boxes"] == [
        {"box": [1.0, 2.0, 11.0, 22.0], "score": 0.9, "class": "car", "track": 4},
        {"box": [3.0, 3.0, 9.0, 9.0], "score": 0.5, "class": "car", "track": None},
    ]
    assert (found[1]["frame"], found[1]["size"], found[1]["latency_ms"]) == (0, [192, 128], pytest.approx(12, abs=0.1))
    assert found[-1]["results"] == 0


def test_the_end_has_the_counts_of_the_run(tmp_path):
    """Also of results that never came to the sink: the record of a night is its last line."""
    line = Line([(0, 50), (100, 50)], "gate")
    line.totals = {0: {"in": 3, "out": 1}}
    sink = JsonLines(tmp_path / "seen.jsonl", ABOUT, 0.3, CLASSES, Stats(), [line])
    sink.open()
    sink.write(next(results()))
    sink.close()
    end = lines(sink.path)[-1]
    assert end["type"] == "end"
    assert [(c["name"], c["totals"]) for c in end["counts"]] == [("gate", {"car": {"in": 3, "out": 1}})]


def test_the_fields_of_the_documentation_are_the_records(tmp_path):
    sink = JsonLines(tmp_path / "seen.jsonl", ABOUT, 0.3, CLASSES, stats := Stats(), [Line([(0, 5), (9, 5)], "gate")])
    sink.open()
    made = next(results())
    made.counts = [{"name": "gate"}]
    sink.write(made)
    stats.event("the source broke off")
    sink.close()
    page = Path(__file__).parents[3] / "docs" / "camera.md"
    table = dict(re.findall(r"^\| `(start|frame|event|end)` \| (.*) \|$", page.read_text(), re.MULTILINE))
    for record in lines(sink.path):
        told = set(re.findall(r"`(\w+)`", table[record["type"]]))
        own = record.keys() - {"type", "time"} | {name for box in record.get("boxes", ()) for name in box}
        assert own <= told
        assert ("time" in record) == (record["type"] != "event")


def test_after_every_line_the_file_is_whole(tmp_path):
    sink = JsonLines(tmp_path / "seen.jsonl", ABOUT, 0.3, CLASSES, Stats())
    sink.open()
    for number, made in enumerate(results(), 2):
        sink.write(made)
        assert len(lines(sink.path)) == number
    sink.close()


def test_a_full_disk_leaves_whole_lines(tmp_path):
    """The device takes the first bytes of a line and then no more."""
    sink = JsonLines(tmp_path / "seen.jsonl", ABOUT, 0.3, CLASSES, Stats())
    sink.open()
    file = sink._file

    class Full:
        left = 10_000

        def write(self, data):
            if self.left <= 0:
                raise OSError(28, "No space left on device")
            taken = file.write(data[: self.left])
            self.left -= taken
            return taken

        def __getattr__(self, name):
            return getattr(file, name)

    sink._file = Full()
    for made in list(results(2)):
        sink.write(made)
    sink._file.left = 50
    with pytest.raises(OSError, match="No space left"):
        sink.write(next(results()))
    file.close()
    assert [r["type"] for r in lines(sink.path)] == ["start", "frame", "frame"]


def test_an_older_record_stays_until_there_is_a_result(tmp_path):
    path = tmp_path / "seen.jsonl"
    path.write_text("yesterday's, and longer than what comes\n" * 200)
    for written in (0, 2):
        before = path.read_text()
        sink = JsonLines(path, ABOUT, 0.3, CLASSES, Stats())
        sink.open()
        for made in results(written):
            sink.write(made)
        sink.close()
        assert (path.read_text() == before) == (written == 0)
    assert [r["type"] for r in lines(path)] == ["start", "frame", "frame", "end"]


def coco(path):
    return CocoJson(path, "clip.mp4", 0.3, CLASSES, [7, 9])


def test_coco_json_can_be_loaded_by_cocos_own_tools(tmp_path):
    from pycocotools.coco import COCO

    sink = coco(tmp_path / "boxes.json")
    sink.open()
    for made in results():
        sink.write(made)
    assert not sink.path.exists()  # whole or not there
    sink.close()
    loaded = COCO(str(sink.path))
    assert (len(loaded.imgs), len(loaded.anns)) == (5, 10)
    assert loaded.imgs[2]["file_name"] == "clip.mp4#1"
    assert loaded.anns[1] == {
        "id": 1, "image_id": 1, "category_id": 7, "bbox": [1.0, 2.0, 10.0, 20.0], "score": 0.9, "area": 200.0,
        "iscrowd": 0, "track_id": 4,
    }  # fmt: skip
    assert "track_id" not in loaded.anns[2]


def test_coco_json_has_no_boxes_without_area(tmp_path):
    sink = coco(tmp_path / "boxes.json")
    sink.open()
    sink.write(result(1, boxes=[[11, 2, 1, 22], [3, 3, 9, 9]], scores=[0.9, 0.5], ids=[4, 5]))
    sink.close()
    (only,) = json.loads(sink.path.read_text())["annotations"]
    assert (only["id"], only["bbox"], only["track_id"]) == (1, [3.0, 3.0, 6.0, 6.0], 5)


def test_coco_json_without_a_result_is_valid(tmp_path):
    sink = coco(tmp_path / "boxes.json")
    sink.open()
    sink.close()
    assert json.loads(sink.path.read_text())["images"] == []


def test_a_coco_file_that_cannot_be_finished_leaves_what_was_there(tmp_path):
    path = tmp_path / "boxes.json"
    path.write_text("older")
    stats = Stats()
    sink = coco(path)
    thread = SinkThread(sink, stats, True)
    thread.start()

    def full(data):
        raise OSError(28, "No space left on device")

    sink._file = type("Full", (), {"write": staticmethod(full), "flush": staticmethod(lambda: None)})()
    for made in results():
        thread.offer(made)
    assert thread.finish(10)
    assert (thread.state, "disk is full" in thread.reason) == ("lost", True)
    assert path.read_text() == "older"
    assert os.listdir(tmp_path) == ["boxes.json"]


@pytest.mark.parametrize("make", [lambda p: JsonLines(p, ABOUT, 0.3, CLASSES, Stats()), coco])
def test_a_place_that_cannot_be_written_is_told(tmp_path, make):
    (tmp_path / "file").write_text("")
    with pytest.raises(BadInput, match="cannot be written"):
        make(tmp_path / "file" / "x.json").open()
