"""``edgekit gate`` for CI: exit codes, the files it writes, and what GitHub reads. The gate itself is the real one."""

import json
import os
import subprocess
from pathlib import Path
from xml.etree import ElementTree

import pytest
import yaml

import edgekit
from edgekit.cli import main
from edgekit.measure.report import report_json
from edgekit.measure.row import Latency

EXAMPLES = Path(__file__).resolve().parents[2] / "docs" / "ci"


@pytest.fixture
def reports(tmp_path, row):
    """base.json, same.json and slow.json of one quiet machine."""
    for hour, (name, ms) in enumerate((("base", 10.0), ("same", 10.0), ("slow", 20.0))):
        changes = {"latency": Latency.from_samples([ms] * 100), "started": f"2026-11-29T{hour:02d}:00:00+00:00"}
        quiet = row.model_copy(update={**changes, "verdict": row.verdict.model_copy(update={"status": "valid"})})
        (tmp_path / f"{name}.json").write_text(report_json([quiet]))
    return tmp_path


def call(reports, *args):
    return main(["gate", str(reports / "base.json"), *(str(reports / a) if a.endswith(".json") else a for a in args)])


@pytest.mark.parametrize(
    ("args", "code"),
    [
        (["same.json", "--max", "latency=+5%,size=+1%"], 0),
        (["slow.json", "--max", "latency=+5%,size=+1%"], 1),
        (["slow.json", "--max", "size=+1%"], 0),
        (["slow.json", "--max", "latency=+200%", "--max", "size=+0%"], 0),
        (["same.json", "--max", "mAP=-1pt"], 1),  # it was never measured, so it cannot be gated
        (["same.json", "--max", "mAP=-1pt", "--skip-incomparable"], 0),
        (["same.json", "--max", "latncy=+5%"], 2),
        (["none.json"], 2),
        ([], 2),
    ],
)
def test_exit_codes(args, code, reports, capsys):
    assert call(reports, *args) == code
    assert "Traceback" not in capsys.readouterr().err


def test_json_says_what_the_table_says(reports, capsys):
    assert call(reports, "slow.json", "--max", "latency=+5%", "--json") == 1
    value = json.loads(capsys.readouterr().out)
    assert value["passed"] is False
    assert value["checks"][0]["outcome"] == "fail"
    assert call(reports, "slow.json", "--max", "latency=+5%") == 1
    out = capsys.readouterr().out
    assert "20.00 ms is above the limit of 10.50 ms" in out
    assert out.splitlines()[-1].startswith("Gate failed: 1 of 1 checks")


def test_files_for_ci(reports, monkeypatch, capsys):
    page = reports / "page.md"
    page.write_text("before\n")
    monkeypatch.setenv("GITHUB_STEP_SUMMARY", str(page))
    files = ["--markdown", str(reports / "gate.md"), "--junit", str(reports / "gate.xml")]
    assert call(reports, "slow.json", "--max", "latency=+5%", *files, "--github") == 1
    assert "::error title=EdgeKit gate%3A latency::the-model" in capsys.readouterr().out
    assert (reports / "gate.md").read_text().startswith("## ❌ Gate failed")
    assert page.read_text() == "before\n" + (reports / "gate.md").read_text()
    assert ElementTree.parse(reports / "gate.xml").getroot().attrib["failures"] == "1"


def test_annotations_leave_json_alone(reports, capsys):
    assert call(reports, "slow.json", "--max", "latency=+5%", "--json", "--github") == 1
    out, err = capsys.readouterr()
    assert json.loads(out)["passed"] is False
    assert err.startswith("::error")


def test_the_python_function_is_the_verb(reports):
    result = edgekit.gate(reports / "base.json", [reports / "same.json"], limits=["latency=+5%"])
    assert result.passed


def test_what_a_gate_reads_it_does_not_write_over(reports, capsys):
    for option in ("--junit", "--markdown"):
        for name in ("base.json", "same.json"):
            assert call(reports, "same.json", option, str(reports / name)) == 2
            assert "is read by this command" in capsys.readouterr().err
    assert main(["baseline", "save", str(reports / "same.json"), "--out", str(reports / "same.json")]) == 2


def test_a_report_that_is_read_as_a_folder_is_not_written_over(reports, capsys):
    folder = reports / "run"
    folder.mkdir()
    report = folder / "report.json"
    report.write_text((reports / "same.json").read_text())
    before = report.read_bytes()
    for command in (
        ["gate", str(reports / "base.json"), str(folder), "--max", "size=+1%", "--markdown", str(report)],
        ["gate", str(reports / "base.json"), str(folder), "--max", "size=+1%", "--junit", str(report)],
        ["gate", str(folder), str(reports / "base.json"), "--max", "size=+1%", "--junit", str(report)],
        ["score", str(report), "--rules", "icme2020", "--markdown", str(report)],
        ["score", str(folder), "--rules", "icme2020", "--markdown", str(report)],
        ["baseline", "save", str(folder), "--out", str(report)],
    ):
        assert main(command) == 2
        assert "is read by this command" in capsys.readouterr().err
        assert report.read_bytes() == before


def test_a_score_does_not_write_over_its_rules(reports, capsys):
    rules = reports / "mine.yaml"
    rules.write_text("mine")
    assert main(["score", str(reports / "same.json"), "--rules", str(rules), "--markdown", str(rules)]) == 2
    assert "is read by this command" in capsys.readouterr().err
    assert rules.read_text() == "mine"


def test_two_results_need_two_files(reports, capsys):
    files = ["--markdown", str(reports / "gate.xml"), "--junit", str(reports / "." / "gate.xml")]
    assert call(reports, "same.json", "--max", "size=+1%", *files) == 2
    assert "--markdown and --junit name the same file" in capsys.readouterr().err
    assert not (reports / "gate.xml").exists()


def test_one_run_given_twice_is_no_second_witness(reports, capsys):
    copy = reports / "copy.json"
    copy.write_text((reports / "same.json").read_text())
    for files in (["same.json", "same.json"], ["same.json", "copy.json"]):
        assert call(reports, *files) == 2
        assert "give each file once, and no copies" in capsys.readouterr().err
    assert main(["baseline", "save", str(copy), str(copy), "--out", str(reports / "new.json")]) == 2


def test_a_measurement_is_not_gated_against_itself(reports, capsys):
    """A path that is wrong would let every build pass."""
    assert call(reports, "same.json", "base.json") == 2
    assert "base.json: holds the very measurement of" in capsys.readouterr().err
    assert main(["baseline", "save", str(reports / "same.json"), "--out", str(reports / "saved.json")]) == 0
    assert main(["gate", str(reports / "saved.json"), str(reports / "same.json")]) == 2
    assert main(["gate", str(reports / "saved.json"), str(reports / "base.json"), "--max", "size=+1%"]) == 0


def test_a_baseline_that_is_not_there_yet_is_to_be_saved(reports, capsys):
    assert main(["gate", str(reports / "none.json"), str(reports / "same.json")]) == 2
    assert "edgekit baseline save" in capsys.readouterr().err


def test_one_report_and_one_text_of_limits_are_lists_of_one(reports):
    assert edgekit.gate(str(reports / "base.json"), str(reports / "same.json"), limits="latency=+5%").passed


def test_a_report_leaves_what_it_did_not_write(reports, tmp_path, capsys):
    docs = tmp_path / "docs"
    docs.mkdir()
    (docs / "report.md").write_text("mine")
    assert main(["report", str(reports / "same.json"), "--out", str(docs)]) == 2
    assert "no report of EdgeKit's" in capsys.readouterr().err
    assert (docs / "report.md").read_text() == "mine"
    for _ in range(2):
        assert main(["report", str(reports / "same.json"), "--out", str(tmp_path / "own")]) == 0


def test_baseline_save_and_show(reports, capsys):
    out, runs = str(reports / "new.json"), []
    for number in range(3):
        content = json.loads((reports / "same.json").read_text())
        content["rows"][0]["started"] = f"2026-11-29T12:00:0{number}+00:00"
        runs.append(reports / f"run-{number}.json")
        runs[-1].write_text(json.dumps(content))
    assert main(["baseline", "save", *map(str, runs), "--out", out]) == 0
    assert f"edgekit gate {out}" in capsys.readouterr().out
    assert main(["baseline", "show", out, "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["runs"], record["p50_ms"]) == (3, pytest.approx(10.0))
    assert main(["baseline", "save", out]) == 2


def test_a_baseline_that_cannot_be_gated_on_time_says_so(pipeline, capsys):
    pipeline.results["baseline"] = [{"row": "quiet", "runs": 3, "undisturbed": 2}]
    assert main(["baseline", "show", "b.json"]) == 0
    assert "Warning" not in capsys.readouterr().out
    pipeline.results["baseline"] += [{"row": "disturbed", "runs": 3, "undisturbed": 0}]
    assert main(["baseline", "show", "b.json"]) == 0
    assert "cannot be gated on time" in capsys.readouterr().out


@pytest.fixture
def gate_sh(tmp_path):
    """docs/ci/gate.sh with a stand-in for edgekit: (exit code, stderr, the verbs that it called)."""
    stand_in = tmp_path / "edgekit.sh"
    stand_in.write_text('#!/bin/sh\necho "$1" >> verbs\n')
    stand_in.chmod(0o755)

    def call(*args):
        (tmp_path / "verbs").write_text("")
        given = {**os.environ, "EDGEKIT": str(stand_in), "RUNS": "2"}
        script = ["sh", str(EXAMPLES / "gate.sh"), *args]
        ended = subprocess.run(script, cwd=tmp_path, env=given, capture_output=True, text=True, check=False)
        return ended.returncode, ended.stderr, (tmp_path / "verbs").read_text().split()

    return call


def test_the_example_looks_for_its_baseline_before_it_measures(gate_sh, tmp_path):
    code, told, verbs = gate_sh()
    assert (code, verbs) == (2, [])
    assert "ci/baseline-x86-1t.json: no such baseline to gate with. Save one" in told
    assert "gate.sh --save" in told
    built = ["export", "quantize", "bench", "bench", "report"]
    assert gate_sh("--save") == (0, "", [*built, "baseline"])
    (tmp_path / "ci" / "baseline-x86-1t.json").touch()
    assert gate_sh() == (0, "", [*built, "gate"])


def test_the_example_for_github_can_save_its_first_baseline_on_the_runner():
    text = (EXAMPLES / "github.yml").read_text()
    flow = yaml.load(text, yaml.BaseLoader)  # "on" is a key, and no truth value
    assert set(flow["on"]) == {"pull_request", "workflow_dispatch"}
    steps = flow["jobs"]["gate"]["steps"]
    assert any("gate.sh ${{ github.event_name == 'workflow_dispatch' && '--save'" in s.get("run", "") for s in steps)
    kept = steps[-1]["with"]["path"].split()
    assert {"runs/ci/run-*.json", "ci/baseline-*.json"} <= set(kept)
    assert any("whl/cpu" in s.get("run", "") for s in steps)  # else gigabytes of CUDA
