"""What works on this machine's NVIDIA GPU, tried one by one, and an entry for docs/hardware-log.md.

    python benchmarks/gpu_check.py                                  # exports the shipped student, tries everything
    python benchmarks/gpu_check.py --onnx runs/demo-gpu/onnx --seconds 10 --log docs/hardware-log.md

* kernel: the CUDA preprocessing kernel against ``Preprocess``, every interpolation, both modes, FP32, FP16 and raw
* cuda: ONNX Runtime's CUDA provider against its CPU provider, box by box
* engine: TensorRT engines (fp32, fp16), built here, box by box, with the session's spans, with and without CUDA graph
  and kernel
* engine nms: the same network with its NMS on the host and in the engine, in every way that this TensorRT has; with
  --seconds all of them are timed in turns, frame by frame, so that what the machine does meanwhile is in all alike

Each check ends as passed, failed or not run, with what was found. Nothing is written that was not seen in this run;
times are only taken with --seconds, on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import datetime, timezone
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgekit.paths import share  # noqa: E402
from edgekit.runtime import machine  # noqa: E402
from edgekit.runtime.artifact import Artifact, check_place, new_file, read_artifact  # noqa: E402
from edgekit.runtime.cuda import Cuda, load_pycuda  # noqa: E402
from edgekit.runtime.engines.build import choose_builder, load_tensorrt  # noqa: E402
from edgekit.runtime.errors import EdgeKitError, MissingDependency  # noqa: E402
from edgekit.runtime.images import read_image  # noqa: E402
from edgekit.runtime.onboard.golden import choose_threshold, compare  # noqa: E402
from edgekit.runtime.preprocess import Preprocess  # noqa: E402
from edgekit.runtime.runner import open_runner  # noqa: E402
from edgekit.runtime.sessions import preprocess_kernel as kernel  # noqa: E402
from edgekit.runtime.timing import Timing, summary  # noqa: E402

RECIPE = "mobile-centernet-w16-dhaka"
SHIPPED = 60  # images of the set dhaka-eval
PASSED, FAILED, NOT_RUN = "passed", "failed", "not run"
WARMUP = 4  # rounds of all images before the timed ones
HEAD = """# Hardware log

What was run on real hardware, and what was seen. `python benchmarks/gpu_check.py --log docs/hardware-log.md` writes the
entries; nothing is added by hand. An empty log says that nothing was run on hardware yet.
"""


class Check(NamedTuple):
    """One thing that was tried."""

    name: str
    status: str
    found: str


def main() -> int:
    try:
        return run(parse())
    except EdgeKitError as error:  # a mistake in the call; what fails on the GPU is a check's result
        sys.stderr.write(f"{error}\n")
        return 2


def run(options: argparse.Namespace) -> int:
    if options.log:
        check_place(options.log, "file")
    given = read_artifact(options.onnx, kinds=("onnx",)) if options.onnx else None
    images = sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))[: options.images]
    facts = about()
    checks = [attempt("kernel", lambda: check_kernel(images))]
    with tempfile.TemporaryDirectory(prefix="edgekit-gpu-") as folder:
        artifact = given or export(Path(folder))
        checks.append(attempt("cuda", lambda: check_cuda(artifact, images, options.seconds)))
        for precision in ("fp32", "fp16"):
            check = partial(check_engine, artifact, images, Path(folder), precision, options)
            checks.append(attempt(f"engine {precision}", check))
        checks.append(attempt("engine nms", lambda: check_nms(artifact, images, Path(folder), options)))
    entry = render(facts, checks)
    print(entry)
    if options.log:
        keep(options.log, facts, entry)
    return int(any(check.status == FAILED for check in checks))


def parse(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    form = argparse.RawDescriptionHelpFormatter
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=form)
    parser.add_argument(
        "--onnx", type=Path, help="an onnx artifact with input nchw_float; else the student is exported"
    )
    parser.add_argument("--images", type=int, default=8, help=f"how many of the {SHIPPED} shipped images")
    parser.add_argument("--seconds", type=float, default=0.0, help="time each session for so long; 0: take no times")
    parser.add_argument("--log", type=Path, help="the Markdown file that gets an entry")
    options = parser.parse_args(arguments)
    if not 1 <= options.images <= SHIPPED:
        parser.error(f"--images: expected 1 to {SHIPPED}, got {options.images}")
    if options.seconds < 0:
        parser.error(f"--seconds: expected 0 or more, got {options.seconds:g}")
    return options


def attempt(name: str, check: Callable[[], str]) -> Check:
    """A check that cannot start here is told apart from one that went wrong."""
    try:
        return Check(name, PASSED, check())
    except MissingDependency as error:
        return Check(name, NOT_RUN, str(error))
    except (EdgeKitError, AssertionError) as error:
        return Check(name, FAILED, str(error))
    except Exception as error:  # noqa: BLE001 - a driver may raise anything; the log must say so
        last = traceback.extract_tb(error.__traceback__)[-1]
        return Check(name, FAILED, f"{type(error).__name__}: {error} ({Path(last.filename).name}:{last.lineno})")


# -- the checks -------------------------------------------------------------------------------------------------------
def check_kernel(images: list[Path]) -> str:
    """Largest difference to ``Preprocess``, in levels of 255."""
    cuda = Cuda()
    worst, count = 0.0, 0
    with cuda:
        function = kernel.compile_kernel()
        for interpolation in kernel.INTERPOLATIONS:
            for mode in ("stretch", "letterbox"):
                preprocess = Preprocess((320, 192), mode=mode, interpolation=interpolation, colour="rgb")
                for output in kernel.OUTPUTS:
                    for path in images[:2]:
                        worst = max(worst, _kernel_difference(cuda, function, preprocess, read_image(path), output))
                        count += 1
    cuda.close()
    assert worst <= 1.01, f"differs by {worst:.3f} levels of 255"
    return f"{count} runs (4 interpolations, 2 modes, 3 types): at most {worst:.3f} levels of 255 from Preprocess"


def _kernel_difference(cuda: Cuda, function: Any, preprocess: Preprocess, image: Any, output: str) -> float:
    driver = cuda.driver
    raw = output == "uint8"
    expected, _ = preprocess(image, "nhwc_uint8" if raw else "nchw_float")
    found = np.empty(expected.shape, output)
    source, target = driver.mem_alloc(image.nbytes), driver.mem_alloc(found.nbytes)
    driver.memcpy_htod(source, np.ascontiguousarray(image))
    values, _ = kernel.arguments(preprocess, image.shape[1], image.shape[0], output)
    function(source, target, *values, block=kernel.BLOCK, grid=kernel.grid(preprocess))
    driver.memcpy_dtoh(found, target)
    difference = np.abs(found.astype(np.float64) - expected.astype(np.float64))
    if output == "float16":
        difference = np.maximum(0.0, difference - 2.0**-10 * np.abs(expected))
    return float(difference.max() * (1.0 if raw else 255.0))


def check_cuda(artifact: Artifact, images: list[Path], seconds: float) -> str:
    same = same_boxes(artifact, artifact.path, "cuda", images, "fp32")
    return same + times({"": artifact.path}, "cuda", images, seconds)


def check_engine(artifact: Artifact, images: list[Path], folder: Path, precision: str, options: Any) -> str:
    engine = build(artifact, folder / f"engine-{precision}", precision, "host")
    told = engine.manifest["engine"]
    lines = [
        f"{told['builder']} {told['tensorrt']}, flags {' '.join(told['flags']) or 'none'}, pins {len(told['pins'])}"
    ]
    for switches in ({}, {"EDGEKIT_CUDA_GRAPH": "0", "EDGEKIT_CUDA_PREPROCESS": "0"}):
        with environment(switches):
            seen = session_line(artifact, engine, images)
            lines.append(seen + times({"": engine.path}, told["builder"], images, options.seconds))
    return "; ".join(lines)


def check_nms(artifact: Artifact, images: list[Path], folder: Path, options: Any) -> str:
    """NMS on the host and in the engine. In FP32, where the boxes must be the same whoever selects them."""
    if artifact.manifest["postprocess"]["nms"] != "classwise":
        raise MissingDependency("the head of this artifact needs no NMS; give one that does: --onnx ARTIFACT")
    builder = choose_builder(load_tensorrt().__version__)
    engines = {way: build(artifact, folder / f"nms-{way}", "fp32", way) for way in ("host", *builder.suppressions)}
    lines = [f"{way}: {session_line(artifact, engine, images)}" for way, engine in engines.items()]
    paths = {way: engine.path for way, engine in engines.items()}
    return "; ".join(lines) + times(paths, builder.name, images, options.seconds)


def build(artifact: Artifact, place: Path, precision: str, nms: str) -> Artifact:
    import edgekit
    from edgekit.conversion.engine import EngineOptions

    chosen = EngineOptions(precision=precision, nms=nms)
    engine: Artifact = edgekit.build(artifact.path, board="desktop-gpu", out=place, options=chosen)
    return engine


def session_line(artifact: Artifact, engine: Artifact, images: list[Path]) -> str:
    """How the session runs the engine, and whether it sees the boxes that the CPU sees."""
    runtime = engine.manifest["engine"]["builder"]
    with open_runner(engine.path, runtime) as runner:
        runner(read_image(images[0]))
        about = runner.session.describe()
        spans = " ".join(sorted(runner.session.spans))
    how = f"graph {'on' if about['cuda_graph'] else 'off'}, images prepared on the {about['preprocess']}, spans {spans}"
    notes = "".join(f" [{note}]" for note in about["notes"])
    return f"{how}{notes}: {same_boxes(artifact, engine.path, runtime, images, engine.manifest['precision'])}"


# -- how they compare -------------------------------------------------------------------------------------------------
def same_boxes(artifact: Artifact, path: str, runtime: str, images: list[Path], precision: str) -> str:
    """Against ONNX Runtime on the CPU, behind the post-processing, as ``verify`` on a board compares."""
    expected, found = detections(artifact.path, "onnxruntime", images), detections(path, runtime, images)
    lowest = float(artifact.manifest["postprocess"]["score_threshold"])
    told = compare(expected, found, choose_threshold(expected, lowest, precision)[0], precision)
    assert told["same"], f"other boxes than ONNX Runtime on the CPU: {told}"
    return (
        f"{told['boxes']} boxes of {told['images']} images as on the CPU, worst IoU {told['worst_iou']:.4f}, "
        f"worst score {told['worst_score']:.5f}"
    )


def detections(path: str, runtime: str, images: list[Path]) -> list[Any]:
    with open_runner(path, runtime) as runner:
        return [runner(read_image(image))[0] for image in images]


def times(paths: dict[str, str], runtime: str, images: list[Path], seconds: float) -> str:
    """Median and p90 of the whole run and of its parts, over ``seconds`` for each; "" when nobody asked.

    paths: name -> artifact. Several take turns, frame by frame; behind the first, each tells its share of the first's
    """
    if not seconds:
        return ""
    timings = in_turns(paths, runtime, [read_image(image) for image in images], seconds)
    medians = {name: float(np.median([run.total for run in runs])) for name, runs in timings.items()}
    first = next(iter(paths))
    told = {name: " ".join([name, _times_of(runs)]).strip() for name, runs in timings.items()}
    shares = {name: "" if name == first else f", {medians[name] / medians[first]:.3f} x {first}" for name in paths}
    return "".join(f"; {told[name]}{shares[name]}" for name in paths)


def in_turns(paths: dict[str, str], runtime: str, images: list[Any], seconds: float) -> dict[str, list[Timing]]:
    """The runs of each artifact, one frame of each at a time, until ``seconds`` for each are over."""
    timings: dict[str, list[Timing]] = {name: [] for name in paths}
    with ExitStack() as stack:
        runners = {name: stack.enter_context(open_runner(path, runtime)) for name, path in paths.items()}
        for image in images * WARMUP:
            for runner in runners.values():
                runner(image)
        end, number = time.monotonic() + seconds * len(paths), 0
        while time.monotonic() < end or not number:
            for name, runner in runners.items():
                timings[name].append(runner(images[number % len(images)])[1])
            number += 1
    return timings


def _times_of(timings: list[Timing]) -> str:
    whole = summary([t.total * 1e3 for t in timings])
    parts = {name: float(np.median([t.spans[name] for t in timings])) * 1e3 for name in timings[0].spans}
    p90 = f"{whole['p90']:.3f}" if whole["p90"] is not None else "too few"
    shares = ", ".join(f"{name} {ms:.3f}" for name, ms in parts.items())
    return f"{whole['count']} runs, ms p50 {whole['p50']:.3f}, p90 {p90} ({shares})"


@contextmanager
def environment(values: dict[str, str]) -> Iterator[None]:
    kept = {name: os.environ.get(name) for name in values}
    os.environ.update(values)
    try:
        yield
    finally:
        for name, value in kept.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def export(folder: Path) -> Artifact:
    import edgekit

    artifact: Artifact = edgekit.export(RECIPE, board="desktop-gpu", out=folder / "onnx")
    return artifact


# -- the entry --------------------------------------------------------------------------------------------------------
def about() -> dict[str, str]:
    """Who ran it; "not found" for what this machine does not have."""
    facts = machine.facts()
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    return {
        "date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": commit.stdout.strip() or "not found",
        "CPU": str(facts["cpu"]),
        "board": str(facts["board"]),
        "GPU": _told(_gpu),
        "TensorRT": _told(lambda: str(load_tensorrt().__version__)),
        "pycuda": _told(lambda: str(load_pycuda("pycuda").VERSION_TEXT)),
        "nvcc": str(kernel.find_nvcc() or "not found"),
        "Python": str(facts["python"]),
    }


def simulated() -> bool:
    """The tests' stand-in for TensorRT says that it is one."""
    try:
        return bool(getattr(load_tensorrt(), "SIMULATOR", ""))
    except MissingDependency:
        return False


def _told(ask: Callable[[], str]) -> str:
    try:
        return ask()
    except EdgeKitError:
        return "not found"


def _gpu() -> str:
    cuda = Cuda()
    facts = cuda.facts()
    cuda.close()
    return f"{facts['device']}, sm_{facts['sm']}, CUDA {facts['cuda']}"


def render(facts: dict[str, str], checks: list[Check]) -> str:
    head = [f"## {facts['date']}: {facts['GPU']}", ""]
    table = ["| what | value |", "|---|---|", *(f"| {name} | {value} |" for name, value in facts.items()), ""]
    rows = [f"| {c.name} | {c.status} | {' '.join(c.found.split()).replace('|', '/')} |" for c in checks]
    return "\n".join([*head, *table, "| check | result | what was seen |", "|---|---|---|", *rows, ""])


def keep(log: Path, facts: dict[str, str], entry: str) -> None:
    """The newest entry stands last. A machine without a GPU, or a simulated one, has no place in the log."""
    if facts["GPU"] == "not found" or simulated():
        sys.stderr.write(f"{log}: not written: {'a simulator' if simulated() else 'no GPU'} is not hardware\n")
        return
    before = log.read_text(encoding="utf-8") if log.exists() else HEAD
    with new_file(log) as handle:
        handle.write(f"{before.rstrip()}\n\n{entry}")


if __name__ == "__main__":
    sys.exit(main())
