"""Trainings side by side: what waits for what, what a dead process leaves, and that none outlives an interruption."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest
import side_by_side
import torch

BENCHMARKS = Path(side_by_side.__file__).parent


def traced(folder: Path, item: str) -> tuple[str, list[str], int]:
    """Leaves a file for its item at the end; says who had left one at its beginning, and how many threads it has."""
    before = sorted(file.name for file in folder.iterdir())
    if item == "dies":
        os._exit(3)
    time.sleep(0.2)
    (folder / item).touch()
    return item, before, torch.get_num_threads()


def lost(item, error):
    return item, str(error)


def needs(item):
    return {"student": ["teacher"], "grandchild": ["student", "absent"]}.get(item, [])


def test_one_at_a_time_needs_no_process():
    seen = list(side_by_side.side_by_side(lambda item: (item, os.getpid()), [1, 2, 3], 1, lost))
    assert seen == [(1, os.getpid()), (2, os.getpid()), (3, os.getpid())]


@pytest.mark.slow
def test_a_student_waits_for_its_teacher_and_one_that_dies_stops_nobody(tmp_path):
    items = ["teacher", "student", "dies", "grandchild", "other"]
    found = {item: rest for item, *rest in side_by_side.side_by_side(partial(traced, tmp_path), items, 2, lost, needs)}
    assert sorted(found) == sorted(items)
    assert found["dies"][0].startswith("the process of a training ended with exit code 3 and no result")
    assert "teacher" in found["student"][0]
    assert "student" in found["grandchild"][0]
    assert {rest[1] for item, rest in found.items() if item != "dies"} == {torch.get_num_threads()}


SLEEPERS = """
import os, sys, time
from contextlib import closing
from pathlib import Path
sys.path.insert(0, {benchmarks!r})
import side_by_side

def sleep(item):
    Path(item + ".new").write_text(str(os.getpid()))
    os.replace(item + ".new", item)
    time.sleep(600)

if __name__ == "__main__":
    try:
        with closing(side_by_side.side_by_side(sleep, {items!r}, 2, None)) as found:
            list(found)
    except KeyboardInterrupt:
        print("interrupted")
"""


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_an_interruption(tmp_path, how):
    script, begun = tmp_path / "sleepers.py", [tmp_path / name for name in ("a", "b")]
    script.write_text(SLEEPERS.format(benchmarks=str(BENCHMARKS), items=list(map(str, begun))))
    process = subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True)
    while not all(file.exists() for file in begun) and process.poll() is None:
        time.sleep(0.1)
    process.send_signal(how)  # to this one alone, as a scheduler may
    assert process.communicate(timeout=120)[0] == "interrupted\n"
    for file in begun:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


@pytest.mark.parametrize("given", [["--jobs", "0"], ["--threads", "-1"]])
def test_numbers_that_make_no_sense_are_refused(given, capsys):
    parser = argparse.ArgumentParser()
    side_by_side.add_arguments(parser)
    with pytest.raises(SystemExit):
        side_by_side.share_cores(parser.parse_args(given))
    assert f"{given[0]}: expected 1 or more, found {given[1]}" in capsys.readouterr().err
