"""What ``edgekit flash`` prints: a line for each host, what failed on stderr, and that a simulator is one."""

import json
import sys

import pytest

from edgekit.cli import main
from edgekit.cli.flash import _bar
from edgekit.deploy.flashing import Flashed


@pytest.fixture
def two(pipeline, row):
    """One host that went well and one that did not."""
    good = Flashed("tx2-a", "jetson-tx2", {"build": "skipped", "verify": "done"}, "a" * 16, "b" * 16, row=row)
    bad = Flashed("tx2-b", "jetson-tx2", {"build": "failed"}, error="tx2-b: no memory", error_type="ChildDied")
    pipeline.results["flash"] = [good, bad]
    return pipeline


ARGS = ["flash", "b.tar.gz", "--host", "tx2-a", "--host", "tx2-b"]


def test_a_host_that_failed_is_told_and_the_command_fails(two, capsys):
    assert main([*ARGS, "--out", "rows.json"]) == 2
    out, err = capsys.readouterr()
    for word in ("tx2-a", "build skipped, verify", "a" * 16, "failed", "the-model", "edgekit report rows.json"):
        assert word in out
    assert "edgekit: tx2-b: no memory" in err


def test_a_bug_with_one_host_is_told_as_a_bug_after_the_rows_of_the_others(two, row, capsys):
    good, _ = two.results["flash"]
    bug = KeyError("timed")
    bad = Flashed("tx2-c", "jetson-tx2", error="tx2-c: KeyError: 'timed'", error_type="KeyError", bug=bug)
    two.results["flash"] = [bad, good]
    assert main(ARGS) == 70
    out, err = capsys.readouterr()
    assert "the-model" in out
    assert "edgekit: tx2-c: KeyError: 'timed'" in err
    assert "this is a bug in EdgeKit" in err
    assert main([*ARGS, "--json", "--debug"]) == 70
    out, err = capsys.readouterr()
    assert [one["error_type"] for one in json.loads(out)] == ["KeyError", None]
    assert "Traceback" in err


def test_json_of_both(two, capsys):
    assert main([*ARGS, "--json"]) == 2
    first, second = json.loads(capsys.readouterr().out)
    assert (first["error"], first["row"]["model"], second["error_type"]) == (None, "the-model", "ChildDied")


def test_what_the_board_did_not_permit_is_told(pipeline, row, capsys):
    power = {"refused": ["power mode 0: a password is required"]}
    told = row.model_copy(update={"machine": {"power": power}})
    pipeline.results["flash"] = [Flashed("tx2-a", "jetson-tx2", row=told)]
    assert main(ARGS) == 0
    said = "edgekit: tx2-a: not set for the bench: power mode 0: a password is required"
    assert said in capsys.readouterr().err


def test_options_reach_the_function(pipeline):
    assert main(["flash", "b.tar.gz", "-H", "x", "--no-bench"]) == 0
    assert pipeline.calls.pop()[2]["options"].measure is False
    assert (
        main(["flash", "b.tar.gz", "-H", "x", "--seconds", "3", "--force", "--power-mode", "MAXN", "--python", "p"])
        == 0
    )
    ((_, (source,), given),) = pipeline.calls
    options = given["options"]
    assert (str(source), given["hosts"], options.ssh.python) == ("b.tar.gz", ["x"], "p")
    assert (options.measure, options.force, options.power_mode, options.jetson_clocks) == (True, True, "MAXN", False)


def test_a_simulator_is_called_one(pipeline, capsys):
    pipeline.results["flash"] = [Flashed("twin", "jetson-tx2", {}, "a" * 16, simulated=["its device tree says so"])]
    assert main(["flash", "b", "--host", "twin"]) == 0
    out = capsys.readouterr().out
    assert "A SIMULATOR, not a board: its device tree says so" in out
    assert "simulated" in out


def test_on_a_terminal_there_is_a_table_of_hosts(pipeline, monkeypatch, capsys):
    def work(*args, progress, **rest):
        progress("", "golden boxes", 1, 2)
        progress("tx2-a", "copy", 1, 4)
        progress("tx2-b", "done", 1, 1)
        return []

    pipeline.results["flash"] = lambda **given: work(**given)
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    assert main(ARGS) == 0
    err = capsys.readouterr().err
    for word in ("tx2-a", "copy", "25 %", "tx2-b", "done", "100 %"):
        assert word in err


@pytest.mark.parametrize(
    ("done", "total", "text"), [(0, 0, ""), (1, 2, "━" * 10 + "╌" * 10 + " 50 %"), (9, 2, "━" * 20 + " 100 %")]
)
def test_bar(done, total, text):
    assert _bar(done, total) == text
