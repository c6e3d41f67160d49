"""Trainings in processes of their own, which die when they are told to.

The processes are forked from a server that has torch and Lightning imported: a second each instead of five.
"""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

REPO = Path(__file__).resolve().parents[2]
CALIBRATION = REPO / "calibration" / "dhaka-calib"
CLASSES = ("vehicle", "scooter", "bicycle")

RECIPE = """
name: tiny
classes: [vehicle, scooter, bicycle]
model: {name: mobile-centernet}
preprocess: {size: [96, 64]}
data: {root: ., images: IMAGES, train: train.json, val: val.json}
train:
  epochs: 4
  batch_size: 4
  lr: 1.0e-3
  schedule: {warmup_steps: 3, drops: [3]}
  ema: 0.9
  precision: fp32
  validate_every: 2
"""


def write_tiny(folder: Path, names: Sequence[str] | None = None) -> Path:
    """A recipe of eight real street scenes, which are also its validation set; returns its file."""
    content = json.loads((CALIBRATION / "annotations.json").read_text(encoding="utf-8"))
    chosen = [i for i in content["images"] if i["file_name"] in names] if names else content["images"][:8]
    ids = {image["id"] for image in chosen}
    content["images"] = chosen
    content["annotations"] = [a for a in content["annotations"] if a["image_id"] in ids]
    folder.mkdir(parents=True, exist_ok=True)
    for name in ("train.json", "val.json"):
        (folder / name).write_text(json.dumps(content), encoding="utf-8")
    file = folder / "recipe.yaml"
    file.write_text(RECIPE.replace("IMAGES", str(CALIBRATION / "images")), encoding="utf-8")
    return file


@dataclass(frozen=True)
class Death:
    """SIGKILL at a moment: place is "step", "in save", "after save" or "in publish"; count: the how-manieth."""

    place: str
    count: int

    def __str__(self) -> str:
        return f"{self.place} {self.count}"


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def train(file: Path, out: Path, overrides: Sequence[str], resume: bool, death: Death | None) -> None:
    """What a training process does."""
    import torch

    from edgekit.recipe import load_recipe
    from edgekit.training.fit import fit

    torch.set_num_threads(1)
    # as in a process that a user starts: workers see their parent die, which those of a fork server do not
    multiprocessing.set_start_method("fork", force=True)

    def progress(_: str, done: int, __: int) -> None:
        if death is not None and death.place == "step" and done == death.count:
            die()

    if death is not None:
        install(death)
    fit(load_recipe(file, list(overrides)), out, resume, progress)


def install(death: Death) -> None:
    from edgekit.models import checkpoint
    from edgekit.training import resume

    if death.place == "in save":
        resume.new_file = counted(death.count, resume.new_file, half_written)
    elif death.place == "after save":
        save = resume.WholeFiles.save_checkpoint

        def save_and_die(*args: Any, **options: Any) -> None:
            save(*args, **options)
            die()

        resume.WholeFiles.save_checkpoint = counted(death.count, save, save_and_die)  # type: ignore[method-assign]
    elif death.place == "in publish":
        checkpoint.save_weights = counted(death.count, checkpoint.save_weights, lambda *_: die())


def counted(count: int, usual: Callable[..., Any], last: Callable[..., Any]) -> Callable[..., Any]:
    """``usual`` for the calls before the ``count``-th, which is ``last``."""
    calls = iter(range(1, count + 1))
    return lambda *args, **kwargs: (last if next(calls) == count else usual)(*args, **kwargs)


@contextlib.contextmanager
def half_written(path: Path, mode: str = "w") -> Iterator[Any]:
    """In place of ``new_file``: the process dies with half of the file on the disk."""
    from edgekit.runtime.artifact import new_file

    class Half:
        def __init__(self, handle: Any) -> None:
            self.handle = handle

        def write(self, data: memoryview) -> None:
            self.handle.write(data[: len(data) // 2])
            self.handle.flush()
            die()

    with new_file(path, mode) as handle:
        yield Half(handle)


def start(job: Callable[..., None], *args: Any) -> Any:
    """Start a job in a process of its own."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["edgekit.training.fit", "torch.utils.tensorboard"])
    process = context.Process(target=job, args=args)
    process.start()
    return process


def run(job: Callable[..., None], *args: Any, timeout: float = 300) -> int:
    """Run a job to its end; its exit code, negative for a signal."""
    process = start(job, *args)
    process.join(timeout)
    if process.exitcode is None:
        process.kill()
        raise TimeoutError(f"{job.__name__} took more than {timeout} s")
    code: int = process.exitcode
    return code
