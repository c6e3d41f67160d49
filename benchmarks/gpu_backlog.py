"""Everything that waits for a large GPU, one stage after the other, within the minutes that there are.

    python benchmarks/gpu_backlog.py --list
    python benchmarks/gpu_backlog.py --data DHAKA --out runs/backlog --minutes 9     as often as needed
    python benchmarks/gpu_backlog.py --data DHAKA --out runs/backlog --try           each stage in miniature

Stages are data, ``gpu_backlog.yaml``. A finished stage is skipped, one that was stopped goes on where it was: when the
minutes are over its processes get SIGTERM, which every training survives. OUT has a log of each stage and, in
``backlog.json``, how each one ended. Copy OUT home, and back before the next call. Those of a trial are in OUT/try.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import trainings
from pydantic import Field, ValidationError

from edgekit.config import Section, explain, read_mapping
from edgekit.runtime.artifact import new_file
from edgekit.runtime.errors import BadConfig, BadInput

HERE = Path(__file__).resolve().parent
PLAN = HERE / "gpu_backlog.yaml"
GRACE = 30  # seconds that a stopped stage has for writing down what it knows


class Stage(Section):
    """command: a script of benchmarks/ with arguments;  full, trial (``try``): the further arguments of either run"""

    name: str = Field(pattern=r"^[a-z0-9-]+$")
    command: str
    full: str = ""
    trial: str | None = Field(default=None, alias="try")

    def arguments(self, trial: bool, **places: Path) -> list[str]:
        more = (self.trial or "") if trial else self.full
        words = f"{self.command} {more}".split()
        return [sys.executable, str(HERE / words[0]), *(word.format(**places) for word in words[1:])]


class Plan(Section):
    stages: tuple[Stage, ...] = Field(min_length=1)


def load_plan(file: Path = PLAN) -> Plan:
    try:
        return Plan.model_validate(read_mapping(file))
    except ValidationError as error:
        raise BadConfig(explain(Plan, file, error)) from error


# -- running ----------------------------------------------------------------------------------------------------------
def run_stage(arguments: list[str], log: Path, seconds: float) -> int | None:
    """The exit code, or None if the time was over first. The stage's output goes to the end of ``log``."""
    with log.open("a", encoding="utf-8") as handle:
        process = subprocess.Popen(arguments, stdout=handle, stderr=subprocess.STDOUT, start_new_session=True)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            return None
        finally:
            _stop(process)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """End a stage and the processes that it started; does nothing to one that is over."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        if process.poll() is not None:
            return
        os.killpg(process.pid, how)
        try:
            process.wait(GRACE)
        except subprocess.TimeoutExpired:
            continue


def run(options: argparse.Namespace) -> int:
    if not options.data or not options.data.is_dir():
        raise BadInput(
            f"--data: {options.data or 'nothing given'}: no such folder; it has dhaka_roads' annotations/ and images/"
        )
    out = options.out / "try" if options.trial else options.out  # a stage takes what it finds there for finished
    out.mkdir(parents=True, exist_ok=True)
    state_file = out / "backlog.json"
    state: dict[str, Any] = json.loads(state_file.read_text(encoding="utf-8")) if state_file.is_file() else {}
    end = time.monotonic() + 60 * options.minutes
    for stage in load_plan().stages:
        left = end - time.monotonic() - GRACE
        if state.get(stage.name, {}).get("ended") == "done" or (options.trial and stage.trial is None) or left <= 0:
            continue
        began = time.monotonic()
        arguments = stage.arguments(options.trial, dhaka=options.data.resolve(), out=out.resolve())
        code = run_stage(arguments, out / f"{stage.name}.log", left)
        ended = "stopped" if code is None else "done" if code == 0 else f"failed with exit code {code}"
        seconds = round(state.get(stage.name, {}).get("seconds", 0) + time.monotonic() - began)
        state[stage.name] = {"ended": ended, "seconds": seconds}
        with new_file(state_file) as handle:
            json.dump(state, handle, indent=1)
        print(f"{stage.name}: {ended} after {seconds} s", flush=True)
    return 1 if any(entry["ended"].startswith("failed") for entry in state.values()) else 0


def main(arguments: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder of dhaka_roads (images, annotations)")
    parser.add_argument("--out", type=Path, default=Path("runs/backlog"))
    parser.add_argument("--minutes", type=float, default=1e6, help="stop in time for this")
    parser.add_argument("--try", dest="trial", action="store_true", help="a trial of each stage that has one")
    parser.add_argument("--list", action="store_true", help="the stages and their commands")
    options = parser.parse_args(arguments)
    if options.list:
        for stage in load_plan().stages:
            print(f"{stage.name}: {stage.command} {stage.full}")
        return 0
    return trainings.unattended("gpu_backlog", lambda: run(options))


if __name__ == "__main__":
    sys.exit(main())
