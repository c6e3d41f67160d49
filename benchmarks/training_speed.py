"""How much of a training is training: images per second of ``fit`` against forward, backward and step alone.

    python benchmarks/training_speed.py --data FOLDER --out OUT.json      FOLDER: the recipe's data.root
    python benchmarks/training_speed.py --data FOLDER --recipe refinedetlite-dhaka --parts loop
    python benchmarks/training_speed.py --data FOLDER --set augment.crop=[96,64] --rounds 2 --steps 3    a try

* loop: ``fit`` as it is (loader, augmentation, weight average, logs, resume file; no validation) is stopped every few
  steps, and the same number of bare steps runs: the same network, loss, clipping, optimiser and precision on one batch
  that lies ready. A block of ``fit`` begins with steps that are not counted, until its loader has no more in hand than
  before.
* options: bare steps in fp32 and bf16, with and without channels_last, and compiled, called in turn (A B C A B C ...).
* processes: ``fit`` in one process and in two (DistributedDataParallel), in turn, each pinned to a core of its own and
  with a GPU of its own if there are any; and two trainings side by side that know nothing of each other: what this
  machine gives to two at best. Left out where it has one core or one GPU.

A ratio's interval is a bootstrap over rounds (2.5 % to 97.5 %). A ratio stands other work on the machine better than
milliseconds do, but what is kept wants a quiet machine all the same.
"""

from __future__ import annotations

import argparse
import csv
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import torch
from arguments import count, data_root

from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime import machine
from edgekit.runtime.artifact import new_file
from edgekit.runtime.errors import EdgeKitError
from edgekit.training.fit import fit, prepare, training_sets

ROOT = Path(__file__).resolve().parents[1]
GOAL = 0.9
RESAMPLES = 2000
TYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
# name -> what the recipe says
OPTIONS: Mapping[str, tuple[str, ...]] = {
    "fp32": ("train.precision=fp32", "train.channels_last=false"),
    "fp32 channels_last": ("train.precision=fp32", "train.channels_last=true"),
    "fp32 channels_last compile": ("train.precision=fp32", "train.channels_last=true", "train.compile=true"),
    "bf16": ("train.precision=bf16", "train.channels_last=false"),
    "bf16 channels_last": ("train.precision=bf16", "train.channels_last=true"),
    "bf16 channels_last compile": ("train.precision=bf16", "train.channels_last=true", "train.compile=true"),
}


def say(text: str) -> None:
    print(f"{time.strftime('%H:%M:%S')} {text}", file=sys.stderr, flush=True)


def now() -> float:
    if torch.cuda.is_available():
        torch.cuda.synchronize()
    return time.perf_counter()


class Bare:
    """Forward, loss, backward, clipping and step of what ``fit`` trains, on one batch that lies ready."""

    def __init__(self, recipe: Recipe) -> None:
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        train, _ = training_sets(recipe)
        alone = recipe.model_copy(update={"train": recipe.train.model_copy(update={"workers": 0})})
        module, data, _ = prepare(alone, train)
        module.to(self.device).on_fit_start()
        image, targets = next(iter(data.train_dataloader()))
        self.image = module._normalise(image.to(self.device))
        self.targets = module.transfer_batch_to_device(targets, torch.device(self.device), 0)
        self.losses, self.clip = module.losses, recipe.train.clip_norm
        self.optimizer = module.configure_optimizers()["optimizer"]
        precision = recipe.train.precision
        self.precision = ("fp16" if self.device == "cuda" else "fp32") if precision == "auto" else precision
        self.scaler = torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    def __call__(self) -> None:
        kind = TYPES.get(self.precision, torch.bfloat16)
        with torch.autocast(self.device, kind, enabled=self.precision in TYPES):
            loss = self.losses(self.image, self.targets)["loss"]
        self.optimizer.zero_grad()
        self.scaler.scale(loss).backward()
        if self.clip:
            self.scaler.unscale_(self.optimizer)
            learnt = [p for group in self.optimizer.param_groups for p in group["params"]]
            torch.nn.utils.clip_grad_norm_(learnt, self.clip)
        self.scaler.step(self.optimizer)
        self.scaler.update()


# -- the loop ---------------------------------------------------------------------------------------------------------
class Turns:
    """The progress callback of ``fit``: times its blocks, and lets as many bare steps run after each.

    settle: steps of a block that are not counted; steps: those that are
    """

    def __init__(self, bare: Bare, rounds: int, steps: int, settle: int) -> None:
        self.bare, self.rounds, self.steps, self.settle = bare, rounds, steps, settle
        self.seconds: list[tuple[float, float]] = []  # of fit's block, of the bare one
        self._step = 0
        self._began = 0.0

    def __call__(self, phase: str, done: int, total: int) -> None:
        self._step += 1
        if self._step == self.settle:
            self._began = now()
        if self._step < self.settle + self.steps:
            return
        middle = now()
        for _ in range(self.steps):
            self.bare()
        self.seconds.append((middle - self._began, now() - middle))
        self._step = 0
        say(f"loop: round {len(self.seconds)} of {self.rounds}, {ratio_of(self.seconds[-1:]):.3f}")
        if len(self.seconds) == self.rounds:
            raise KeyboardInterrupt  # the way to end a training early


def ratio_of(seconds: Sequence[tuple[float, float]]) -> float:
    """Speed of the first over that of the second: the median of the rounds."""
    return statistics.median(b / a for a, b in seconds)


def loop(recipe: Recipe, rounds: int, steps: int, folder: Path) -> dict[str, Any]:
    """Images per second of ``fit`` and of bare steps, and their ratio."""
    bare = Bare(recipe)
    for _ in range(3):
        bare()
    settle = 4 * recipe.train.workers + 2  # what the workers fetched in the meantime, see DetectionData
    turns = Turns(bare, rounds, steps, settle)
    needed = (rounds + 1) * (steps + settle)
    train, _ = training_sets(recipe)
    epochs = math.ceil(needed / max(1, len(train) // recipe.train.batch_size))
    section = recipe.train.model_copy(update={"epochs": epochs, "validate_every": epochs})
    try:
        fit(recipe.model_copy(update={"train": section}), folder / "loop", progress=turns)
    except KeyboardInterrupt:
        if len(turns.seconds) < rounds:
            raise
    images = recipe.train.batch_size * steps
    return {
        **interval(turns.seconds),
        "fit_images_per_second": images / statistics.median(a for a, _ in turns.seconds),
        "bare_images_per_second": images / statistics.median(b for _, b in turns.seconds),
        "goal": GOAL,
        "batch_size": recipe.train.batch_size,
        "workers": recipe.train.workers,
        "seconds": turns.seconds,
    }


def interval(seconds: Sequence[tuple[float, float]]) -> dict[str, float]:
    """The ratio of speeds and its bootstrap interval."""
    ratios = np.array([b / a for a, b in seconds])
    pick = np.random.default_rng(0).integers(0, len(ratios), (RESAMPLES, len(ratios)))
    low, high = np.percentile(np.median(ratios[pick], axis=1), (2.5, 97.5))
    return {"ratio": float(np.median(ratios)), "low": float(low), "high": float(high)}


# -- options ----------------------------------------------------------------------------------------------------------
def options(load: Callable[[Sequence[str]], Recipe], rounds: int, steps: int) -> dict[str, Any]:
    """Images per second of bare steps with each option, and the ratio to the first. Failures are named."""
    bare: dict[str, Bare] = {}
    failed = {}
    for name, wishes in OPTIONS.items():
        try:
            bare[name] = Bare(load(wishes))
            say(f"options: warming up {name}")
            for _ in range(2):
                bare[name]()
        except (EdgeKitError, RuntimeError) as error:
            failed[name] = str(error).splitlines()[0]
            bare.pop(name, None)
    times: dict[str, list[float]] = {name: [] for name in bare}
    for done in range(rounds):
        for name, step in bare.items():
            began = now()
            for _ in range(steps):
                step()
            times[name].append(now() - began)
        say(f"options: round {done + 1} of {rounds}")
    base = next(iter(times.values()))
    images = steps * load(()).train.batch_size
    table = {
        name: {
            "images_per_second": images / statistics.median(own),
            **interval(list(zip(own, base, strict=True))),
        }
        for name, own in times.items()
    }
    return {"table": table, "failed": failed}


# -- processes --------------------------------------------------------------------------------------------------------
def processes(arguments: Sequence[str], rounds: int, folder: Path) -> dict[str, Any]:
    """Images per second of ``fit`` in one process and in two, in turn; the second epoch of each counts.

    apart: two trainings at once, each in one process: they share the machine and nothing else
    """
    if reason := why_not_two():
        return {"left out": reason}
    two: list[tuple[float, float]] = []
    apart: list[tuple[float, float]] = []
    for done in range(rounds):
        one, both = (epoch_seconds(count, arguments, folder / f"{count}-{done}") for count in (1, 2))
        two.append((both, one))
        apart.append((side_by_side(arguments, folder / f"apart-{done}"), one))
        say(f"processes: round {done + 1} of {rounds}: two are {one / both:.2f}, apart {one / apart[-1][0]:.2f} of one")
    return {**interval(two), "seconds": two, "apart": {**interval(apart), "seconds": apart}, "threads each": 1}


def why_not_two() -> str:
    """What this machine lacks for two trainings at once; empty if nothing."""
    if torch.cuda.is_available() and torch.cuda.device_count() < 2:
        return "one GPU only, and each process needs its own"
    return "one core only" if len(os.sched_getaffinity(0)) < 2 else ""


def side_by_side(arguments: Sequence[str], out: Path) -> float:
    """Seconds per batch of two trainings together, each on a core, and a GPU if there are any."""
    with ThreadPoolExecutor(2) as pool:
        sides = pool.map(lambda core: epoch_seconds(1, arguments, out.with_name(f"{out.name}-{core}"), core), (0, 1))
        return 1 / sum(1 / seconds for seconds in sides)


def epoch_seconds(count: int, arguments: Sequence[str], out: Path, core: int = 0) -> float:
    """Seconds per batch of a training in ``count`` processes on this machine, from the ``core``-th core and GPU on."""
    launch = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={count}", __file__]
    own = {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    if torch.cuda.is_available():
        own["CUDA_VISIBLE_DEVICES"] = ",".join(visible_gpus()[core : core + count])
    done = subprocess.run(
        [*launch, "--train", str(out), "--core", str(core), *arguments],
        env={**os.environ, **own},
        capture_output=True,
        text=True,
        check=False,
    )
    table = out.with_name(out.name + "-training") / "metrics.csv"
    if done.returncode or not table.is_file():
        raise EdgeKitError(f"the training in {count} processes failed:\n{done.stderr[-2000:]}")
    with table.open(newline="", encoding="utf-8") as handle:
        rows = [row for row in csv.DictReader(handle) if row.get("train/seconds")]
    steps = int(rows[1]["step"]) - int(rows[0]["step"])
    return float(rows[1]["train/seconds"]) / (steps * count)  # per batch of one process


def visible_gpus() -> list[str]:
    """The names by which CUDA_VISIBLE_DEVICES chooses the GPUs of this process."""
    named = os.environ.get("CUDA_VISIBLE_DEVICES")
    return named.split(",") if named else [str(number) for number in range(torch.cuda.device_count())]


def train_here(recipe: Recipe, out: Path, first: int) -> None:
    """One process of such a training, on a core of its own from the ``first`` on."""
    cores = sorted(os.sched_getaffinity(0))
    os.sched_setaffinity(0, {cores[(first + int(os.environ["LOCAL_RANK"])) % len(cores)]})
    torch.set_num_threads(1)
    fit(recipe, out, progress=lambda phase, done, total: None)


# -- the command ------------------------------------------------------------------------------------------------------
def subset(recipe: Recipe, count: int, folder: Path) -> Path:
    """A COCO file of the first ``count`` training images."""
    assert recipe.data is not None
    assert recipe.data.train is not None
    content = json.loads((recipe.resolve(recipe.data.root) / recipe.data.train).read_text(encoding="utf-8"))
    content["images"] = content["images"][:count]
    kept = {image["id"] for image in content["images"]}
    content["annotations"] = [box for box in content["annotations"] if box["image_id"] in kept]
    file = folder / "subset.json"
    with new_file(file) as handle:
        json.dump(content, handle)
    return file.resolve()


def show(result: Mapping[str, Any]) -> None:
    if "loop" in result:
        part = result["loop"]
        verdict = "met" if part["ratio"] >= GOAL else "MISSED"
        span = f"({part['low']:.3f} .. {part['high']:.3f})"
        print(f"fit is {part['ratio']:.3f} {span} of bare steps; goal {GOAL}: {verdict}")
        print(f"  {part['fit_images_per_second']:.2f} and {part['bare_images_per_second']:.2f} images per second")
    if "options" in result:
        for name, row in result["options"]["table"].items():
            speed = f"{row['images_per_second']:8.2f} images/s"
            print(f"{name:28}{speed}{row['ratio']:8.2f} ({row['low']:.2f} .. {row['high']:.2f})")
        for name, reason in result["options"]["failed"].items():
            print(f"{name:28}{reason}")
    part = result.get("processes", {})
    if "left out" in part:
        print(f"processes: left out: {part['left out']}")
    elif part:
        for what, found in (("two processes", part), ("two trainings apart", part["apart"])):
            print(f"{what}: {found['ratio']:.2f} times one ({found['low']:.2f} .. {found['high']:.2f})")


def parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="the recipe's data.root")
    parser.add_argument("--recipe", default="mobile-centernet-w16-dhaka")
    parser.add_argument("--parts", nargs="+", choices=["loop", "options", "processes"])
    parser.add_argument("--rounds", type=count, default=10)
    parser.add_argument("--steps", type=count, default=12, help="of a block")
    parser.add_argument("--images", type=count, default=160, help="training images of processes, two epochs each")
    parser.add_argument("--threads", type=count, default=torch.get_num_threads())
    parser.add_argument("--set", nargs="*", default=[], metavar="KEY=VALUE", help="for the recipe")
    parser.add_argument("--out", type=Path, help="write all figures and the machine's facts here as JSON")
    parser.add_argument("--train", type=Path, help=argparse.SUPPRESS)  # one process of --parts processes
    parser.add_argument("--core", type=int, default=0, help=argparse.SUPPRESS)
    return parser.parse_args(arguments)


def measure(wish: argparse.Namespace, load: Callable[[Sequence[str]], Recipe]) -> dict[str, Any]:
    """All parts that are wished for. ``--out`` is written after each: what one has measured outlives the next."""
    result: dict[str, Any] = {"recipe": wish.recipe, "set": wish.set, "threads": wish.threads}
    result["before"] = machine.facts()
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        parts: Mapping[str, Callable[[], dict[str, Any]]] = {
            "loop": lambda: loop(load(()), wish.rounds, wish.steps, folder),
            "options": lambda: options(load, wish.rounds, wish.steps),
            "processes": lambda: processes(training_of(wish, load, folder), max(1, wish.rounds // 3), folder),
        }
        for name in wish.parts or parts:
            result[name] = parts[name]()
            result["after"] = machine.facts()
            if wish.out:
                with new_file(wish.out) as handle:
                    json.dump(result, handle, indent=1)
    return result


def training_of(wish: argparse.Namespace, load: Callable[[Sequence[str]], Recipe], folder: Path) -> list[str]:
    """Arguments of one process of the part processes: a short training on a few of the images."""
    file = subset(load(()), wish.images, folder)
    more = [f"data.train={file}", "train.epochs=2", "train.workers=0", *wish.set]
    return ["--data", str(wish.data), "--recipe", wish.recipe, "--set", *more]


def main(arguments: Sequence[str] | None = None) -> int:
    wish = parse(arguments)
    torch.set_num_threads(wish.threads)

    def load(more: Sequence[str]) -> Recipe:
        fixed = [data_root(wish.data), "data.val=null"]
        return load_recipe(wish.recipe, [*fixed, *wish.set, *more])

    try:
        if wish.train is not None:
            train_here(load(()), wish.train, wish.core)
            return 0
        result = measure(wish, load)
    except EdgeKitError as error:
        print(f"training_speed: {error}", file=sys.stderr)
        return 2
    show(result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
