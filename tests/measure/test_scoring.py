"""Scores by hand, and the reference set as the paper prints it."""

import json
import re

import jsonschema
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.measure.report import report_json
from edgekit.measure.row import Latency
from edgekit.measure.schemas import SCHEMAS, schema
from edgekit.measure.score_report import render_score, score_cells, score_headers
from edgekit.measure.scoring import ReferenceSet, Rules, load_references, load_rules, rank, score
from edgekit.runtime.errors import BadConfig, BadInput

from .test_row import make_row

TABLE_1 = [
    ("USTC-NELSLIP", 44.60, 6.04, 11.16, 141.8),
    ("BUPT_MCPRL", 49.20, 7.35, 12.89, 401.21),
    ("DD_VISION", 25.60, 0.86, 0.52, 56.18),
    ("Deep Learner", 49.00, 45.20, 56.64, 1560.43),
    ("IBDO-AIOT", 38.70, 187.27, 285.7, 287.11),
    ("ACVLab", 41.10, 87.46, 31.82, 696.72),
]
TWO = ReferenceSet.model_validate(
    {
        "name": "two",
        "title": "two",
        "source": "nowhere",
        "board": "toy board",
        "evaluated_on": "nothing",
        "entries": [
            {"name": "accurate", "values": {"mAP50": 60, "latency": 200}},
            {"name": "fast", "values": {"mAP50": 20, "latency": 100}},
        ],
    }
)


def rules(**changes):
    values = {
        "name": "toy",
        "title": "toy",
        "reference": "two",
        "criteria": [
            {"metric": "mAP50", "weight": 3, "better": "high"},
            {"metric": "latency", "weight": 1, "better": "low"},
        ],
    }
    return Rules.model_validate({**values, **changes})


def row(map50, ms, **changes):
    accuracy = {**make_row().accuracy.model_dump(), "map": map50 / 2, "map50": map50, "map75": 0.0}
    return make_row(accuracy=accuracy, latency=Latency.from_samples([ms] * 100).model_dump(), **changes)


def scores(ranking):
    return {line.name: line.score for line in ranking.entries}


def test_the_reference_set_is_the_papers_table():
    found = load_references("icme2020-table1")
    assert [(e.name, *(e.values[m] for m in ("mAP50", "size", "gops", "latency"))) for e in found.entries] == TABLE_1
    assert "TX2" in found.board


def test_a_score_by_hand():
    # mAP 50: (50 - 20) / 40 = 0.75; 125 ms: (200 - 125) / 100 = 0.75. Weights 3/4 and 1/4
    ranking = rank([row(0.50, 125.0)], rules(), TWO)
    assert scores(ranking) == {
        "accurate": pytest.approx(0.75),
        "toynet · onnxruntime int8": pytest.approx(0.75),
        "fast": pytest.approx(0.25),
    }
    assert ranking.weights == {"mAP50": 0.75, "latency": 0.25}
    assert ranking.ranges == {"mAP50": (20, 60), "latency": (200, 100)}


def test_the_shipped_rules_by_hand():
    ranking = rank([], load_rules("icme2020"), load_references("icme2020-table1"))
    parts = next(line for line in ranking.entries if line.name == "USTC-NELSLIP").parts
    assert parts["mAP50"] == pytest.approx((44.6 - 25.6) / (49.2 - 25.6))
    assert parts["size"] == pytest.approx((187.27 - 6.04) / (187.27 - 0.86))
    assert [(line.place, line.name) for line in ranking.entries][:3] == [
        (1, "BUPT_MCPRL"),
        (2, "USTC-NELSLIP"),
        (3, "DD_VISION"),
    ]
    assert "not published" in ranking.note


@pytest.mark.parametrize(("outside", "expected"), [("clamp", 1.0), ("extend", 0.75 * 1.5 + 0.25 * 1.5)])
def test_better_than_the_best(outside, expected):
    found = scores(rank([row(0.80, 50.0)], rules(outside=outside), TWO))
    assert found["toynet · onnxruntime int8"] == pytest.approx(expected)


def test_equal_scores_share_a_place():
    ranking = rank([row(0.60, 100.0, runtime=name) for name in ("a", "b")], rules(), TWO)
    assert [line.place for line in ranking.entries] == [1, 1, 3, 4]


def test_below_the_floor_is_not_qualified():
    floor = {"metric": "mAP50", "least": 30}
    ranking = rank([row(0.2999, 1.0), row(0.30, 150.0, runtime="b")], rules(floor=floor), TWO)
    last = ranking.entries[-1]
    assert [line.name for line in ranking.entries if line.place] == ["accurate", "toynet · b int8"]
    assert (last.place, last.score) == (None, None)
    assert "not qualified: mAP@0.5 29.99 % is below 30.00 %" in last.reason


def test_what_was_not_measured_has_no_score():
    ranking = rank([make_row(accuracy=None, latency=None)], rules(), TWO)
    assert ranking.entries[-1].reason == "not measured: mAP@0.5, ms/frame p50"
    assert ranking.entries[-1].place is None


def test_a_simulator_and_a_disturbed_run_take_no_place():
    rows = [
        row(0.60, 0.01, board="twin", verdict={"status": "simulated"}),
        row(0.60, 0.01, runtime="b", verdict={"status": "noisy"}),
        row(0.60, 0.01, runtime="c", verdict={"status": "throttled"}),
    ]
    ranking = rank(rows, rules(), TWO)
    assert [line.name for line in ranking.entries if line.place] == ["accurate", "fast"]
    reasons = [line.reason for line in ranking.entries[2:]]
    assert ["simulated" in reasons[0], "noisy, so ms/frame p50" in reasons[1], "throttled" in reasons[2]] == [True] * 3
    untimed = rules(criteria=[{"metric": "mAP50", "weight": 1, "better": "high"}])
    assert [line.place for line in rank(rows, untimed, TWO).entries] == [1, 1, 1, 4, None]


def test_a_place_by_the_times_of_another_board_has_a_star():
    tx2 = TWO.model_copy(update={"profile": "jetson-tx2"})
    rows = [row(0.50, 125.0), row(0.50, 130.0, board="jetson-tx2"), row(0.50, 130.0, board="toy board")]
    ranking = rank(rows, rules(), tx2)
    places = {line[2]: line[0] for line in score_cells(ranking) if "this report" in line[-1]}
    assert [board for board, place in places.items() if place.endswith("*")] == ["x86-1t"]
    assert "* ms/frame p50 measured on x86-1t, and of the set on toy board: the place is" in render_score(ranking)
    untimed = rules(criteria=[{"metric": "mAP50", "weight": 1, "better": "high"}])
    assert "*" not in render_score(rank(rows, untimed, tx2))
    assert load_references("icme2020-table1").profile == "jetson-tx2"


@settings(deadline=None)
@given(st.lists(st.tuples(st.just(0.0) | st.floats(1e-6, 1), st.floats(0.1, 5000)), min_size=1, max_size=5))
def test_properties_of_a_ranking(pairs):
    rows = [row(map50, ms, runtime=str(n)) for n, (map50, ms) in enumerate(pairs)]
    ranking = rank(rows, rules(), TWO)
    values = [line.score for line in ranking.entries]
    assert values == sorted(values, reverse=True)
    assert all(0 <= value <= 1 + 1e-9 for value in values)
    assert sorted(line.place for line in ranking.entries)[0] == 1
    # a row that is at least as good in both columns never stands behind
    by_name = {line.name: line.score for line in ranking.entries}
    for a, first in enumerate(pairs):
        for b, second in enumerate(pairs):
            if first[0] >= second[0] and first[1] <= second[1]:
                assert by_name[rows[a].label] >= by_name[rows[b].label] - 1e-9


def test_the_table_has_the_raw_columns_and_the_board_of_every_line():
    ranking = rank([row(0.5, 125.0)], rules(), TWO)
    headers, cells = score_headers(ranking), score_cells(ranking)
    for name in ("mAP@0.5 (%)", "size (MB)", "GOPS/frame", "ms/frame", "board", "score"):
        assert name in headers
    boards = {line[1]: line[2] for line in cells}
    assert boards == {"accurate": "toy board", "fast": "toy board", "toynet · onnxruntime int8": "x86-1t"}
    text = render_score(ranking)
    assert "this report, valid" in text
    assert "not measured" in text  # the two published entries have no size


# -- files ------------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", ["icme2020", "icme2020.yaml"])
def test_rules_by_name_and_report_by_file(name, tmp_path):
    file = tmp_path / "report.json"
    file.write_text(report_json([row(0.3, 20.0)]))
    assert len(score([file], rules=name).entries) == 7


def test_rules_and_their_set_by_path(tmp_path):
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(rules(reference="set.yaml").model_dump(mode="json")))
    (tmp_path / "set.yaml").write_text(yaml.safe_dump(TWO.model_dump(mode="json")))
    (tmp_path / "report.json").write_text(report_json([row(0.3, 20.0)]))
    assert score([tmp_path / "report.json"], rules=tmp_path / "mine.yaml").reference == "two"


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"criteria": []}, "should have at least 1 of them"),
        ({"criteria": [{"metric": "mAP51", "weight": 1, "better": "high"}]}, "Did you mean mAP50"),
        ({"criteria": [{"metric": "mAP", "weight": 0, "better": "high"}]}, "greater than 0"),
        ({"criteria": [{"metric": "mAP", "weight": 1, "better": "up"}]}, "criteria.0.better"),
        ({"criteria": [{"metric": "mAP50", "weight": 1, "better": "high"}] * 2}, "is there twice"),
        ({"weights": {}}, "unknown key"),
        ({"floor": {"metric": "speed", "least": 1}}, "speed"),
        ({"reference": "icme2021"}, "no reference set named 'icme2021'. Did you mean icme2020-table1?"),
        ({"criteria": [{"metric": "params", "weight": 1, "better": "low"}]}, "0 different values of params"),
    ],
)
def test_wrong_rules_are_told(changes, told, tmp_path):
    values = {**rules(reference="icme2020-table1").model_dump(mode="json"), **changes}
    (tmp_path / "mine.yaml").write_text(yaml.safe_dump(values))
    (tmp_path / "report.json").write_text(report_json([row(0.3, 20.0)]))
    with pytest.raises(BadConfig, match=re.escape(told)):
        score([tmp_path / "report.json"], rules=tmp_path / "mine.yaml")


@pytest.mark.parametrize("name", ["icme", "no/such/file.yaml", "elsewhere/icme2020.yaml"])
def test_unknown_rules_are_told_with_those_that_there_are(name, tmp_path):
    (tmp_path / "report.json").write_text(report_json([row(0.3, 20.0)]))
    with pytest.raises(BadConfig, match="icme2020"):
        score([tmp_path / "report.json"], rules=name)


def test_nothing_to_score(tmp_path):
    (tmp_path / "report.json").write_text(report_json([]))
    with pytest.raises(BadInput, match="no row to score"):
        score([tmp_path / "report.json"], rules="icme2020")


# -- schemas ----------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("name", SCHEMAS)
def test_every_schema_is_one(name):
    jsonschema.Draft202012Validator.check_schema(schema(name))


def test_shipped_files_fit_their_schemas():
    from edgekit.paths import share

    for folder, name in (("", "rules"), ("references", "references")):
        files = list((share("scoring") / folder).glob("*.yaml"))
        assert files
        for file in files:
            jsonschema.validate(yaml.safe_load(file.read_text()), schema(name))


def test_an_unknown_schema_is_told():
    with pytest.raises(BadConfig, match="Did you mean report"):
        schema("reprot")


def test_repeated_runs_have_names_of_their_own():
    ranking = rank([row(0.3, 20.0), row(0.3, 21.0), row(0.3, 22.0, board="jetson-tx2")], rules(), TWO)
    names = {(line.name, line.board) for line in ranking.entries if not line.published}
    assert names == {
        ("toynet · onnxruntime int8 (run 1)", "x86-1t"),
        ("toynet · onnxruntime int8 (run 2)", "x86-1t"),
        ("toynet · onnxruntime int8", "jetson-tx2"),
    }


def test_what_is_written_fits_the_schemas():
    from .test_charts_layers import row as layered
    from .test_gate import FAILED

    jsonschema.validate(json.loads(FAILED.model_dump_json()), schema("gate"))
    jsonschema.validate(json.loads(report_json([layered()])), schema("report"))
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(FAILED.model_dump_json()), "more": 1}, schema("gate"))
