"""The zoo table says what was measured, marks what was disturbed, and sets the papers' ratios beside ours."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import zoo_figures
import zoo_latency
import zoo_ratios
import zoo_table

from edgekit.recipe import load_recipe
from edgekit.runtime.errors import ChildDied


def record(ms: float, runtime: str = "openvino", verdict: str = "valid", **more: Any) -> dict[str, Any]:
    return {"p50_ms": ms, "runtime": runtime, "verdict": verdict, "gops_per_second": 50.4, "file_mb": 9.96, **more}


def entry(fp32: dict[str, Any], int8: dict[str, Any]) -> dict[str, Any]:
    when = "2026-11-29T12:00:00+00:00"
    return {"input": "320x320", "gops": 2.5, "precisions": {"fp32": fp32, "int8": int8}, "machine": "CPU", "when": when}


RESULTS = {
    "refinedetlite": entry(record(26.0), record(13.0, "onnxruntime", "noisy")),
    "ssdlite-mobilenet-v2": entry(record(20.0), record(10.0, failed={"onnxruntime": "killed by signal 11\nmore"})),
    "pelee-coco": entry(record(35.0), {"error": "it has no INT8"}),
}


def test_a_row_names_the_runtime_and_marks_what_was_disturbed() -> None:
    fastest, second, third = zoo_table.zoo_rows(RESULTS)
    assert [row[0] for row in (fastest, second, third)] == ["ssdlite-mobilenet-v2", "refinedetlite", "pelee-coco"]
    assert second[1:] == ["320x320", "24.60", "2.50", "10.0", "10.0", "26.0 ov", "13.0 ort *", "2.00", "50", "50"]
    assert third[7:9] == ["failed", "-"]


@pytest.mark.parametrize(
    ("old", "new", "kept"),
    [
        (record(9.0, verdict="noisy"), record(10.0), "new"),
        (record(9.0), record(8.0, verdict="noisy"), "old"),
        (record(9.0, verdict="noisy", reference_ms=0.7), record(8.0, verdict="noisy", reference_ms=0.9), "old"),
        (record(9.0, verdict="noisy", reference_ms=0.9), record(9.5, verdict="noisy", reference_ms=0.7), "new"),
        ({"error": "died"}, record(9.0, verdict="noisy"), "new"),
    ],
)
def test_of_two_measurements_the_calmer_one_stays(old: dict[str, Any], new: dict[str, Any], kept: str) -> None:
    assert zoo_latency.calmer(old, new) is {"old": old, "new": new}[kept]


def test_what_did_not_run_is_said() -> None:
    assert zoo_table.failures(RESULTS) == [
        "- ssdlite-mobilenet-v2, int8, onnxruntime: killed by signal 11",
        "- pelee-coco, int8, both: it has no INT8",
    ]


def test_ratios_in_print_and_here() -> None:
    """RefineDetLite's table 2: 130 and 120 ms on one thread of an i7-6700; Pelee 140."""
    text = zoo_table.page(RESULTS, [])
    assert "## RefineDetLite, one thread of an i7-6700" in text
    assert "| ssdlite-mobilenet-v2 | 120 ms | 1.00 | 1.00 | 1.00 |" in text
    assert "| refinedetlite | 130 ms | 1.08 | 1.30 | 1.30 |" in text
    assert "| pelee-coco | 140 ms | 1.17 | 1.75 | - |" in text
    assert "1 of 5" in text  # disturbed
    assert "without NMS" in text  # no score passes the threshold of zoo_latency.py
    assert "\nNot measured yet: centernet-dla34, " in text


def test_rates_are_turned_into_times() -> None:
    (found,) = [p for p in zoo_ratios.printed("cspdensenetb-ref-prn", "yolov3-tiny") if "i9" in p["device"]]
    assert (found["first"], found["second"]) == (102, 54)
    assert found["ratio"] == pytest.approx(54 / 102)


@pytest.mark.parametrize(
    ("recipe", "changes", "ms"),
    [
        ("refinedetlite", [], 130),
        ("refinedetlite-plus", [], 131),
        ("refinedetlite-plus", ["description=Another"], 130),
    ],
)
def test_one_network_in_two_rows_counts_as_its_own_or_the_first(recipe: str, changes: list[str], ms: int) -> None:
    """RefineDetLite++ is RefineDetLite with another training."""
    found = zoo_ratios.speeds(load_recipe(recipe, changes))
    assert found["RefineDetLite", "latency_ms", "one thread of an i7-6700"] == ms


def test_a_pair_is_the_first_over_the_second(monkeypatch: pytest.MonkeyPatch) -> None:
    """``compare`` says B over A, and one runtime may fail alone."""

    def compare(a: Any, *_: Any) -> Any:
        if a.runtime == "openvino":
            raise ChildDied("killed by signal 11")
        row = SimpleNamespace(latency=SimpleNamespace(p50=8.0))
        return SimpleNamespace(ratio=SimpleNamespace(value=0.5, low=0.4, high=0.8), a=row, b=row, pairs=[(8.0, 4.0)])

    monkeypatch.setattr(zoo_ratios, "compare", compare)
    artifact: Any = SimpleNamespace()
    found = zoo_ratios.in_turns(artifact, artifact, 1.0)
    assert found["openvino"] == {"error": "killed by signal 11"}
    assert (found["onnxruntime"]["ratio"], found["onnxruntime"]["low"]) == (2.0, 1.25)
    assert found["onnxruntime"]["high"] == pytest.approx(2.5)
    assert "it has no INT8" in zoo_ratios.in_turns(artifact, "it has no INT8", 1.0)["onnxruntime"]["error"]


# -- the commands -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("script", [zoo_figures, zoo_latency, zoo_table])
def test_help_does_nothing_else(script: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture) -> None:
    def touched(*_: object, **__: object) -> None:
        raise AssertionError("something was read or written")

    for module, name in (
        (zoo_figures, "new_file"),
        (zoo_latency, "write_results"),
        (zoo_table.trainings, "write_text"),
    ):
        monkeypatch.setattr(module, name, touched)
    with pytest.raises(SystemExit) as end:
        script.main(["--help"])
    assert end.value.code == 0
    assert "usage:" in capsys.readouterr().out


@pytest.mark.parametrize("script", [zoo_figures, zoo_latency])
def test_a_mistyped_recipe_is_said_with_the_nearest(script: Any, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        script.main(["refinedetlit"])
    assert end.value.code == 2
    assert "no shipped recipe named 'refinedetlit'. Did you mean refinedetlite" in capsys.readouterr().err


def test_figures_of_all_recipes_or_of_some(capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as end:
        zoo_figures.main(["--all", "refinedetlite"])
    assert end.value.code == 2
    assert "leave the names out" in capsys.readouterr().err
