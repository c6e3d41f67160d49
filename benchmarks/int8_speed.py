"""What makes INT8 fast on one x86 thread: FP32 and three ways of quantizing, on two runtimes, in one run.

    python benchmarks/int8_speed.py                      # the student at 576x320 with random weights
    python benchmarks/int8_speed.py --onnx runs/demo/onnx --rounds 100 --out int8_speed.json

The files are made here, from one calibration on eight shipped images:

* fp32: the exported graph
* int8 plain: as the quantizer leaves it; the image is normalised in float and then quantized
* int8 pixels: the first convolution reads the uint8 pixels (``qdq.input_as_pixels``)
* int8: as ``edgekit quantize`` writes it, the pixels in 2 x 2 blocks as well (``qdq.pixels_in_blocks``)

All sessions stay open and are called in turn (A B C D A B C D ...), pinned to one core with one thread each. A ratio is
FP32's median over the other's, its interval a bootstrap over rounds (2.5 % to 97.5 %). CPU time stands beside wall
time: on a machine that others use too, it is the one to read.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any
from unittest.mock import patch

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from edgekit.runtime import machine  # noqa: E402 - numpy must not load before the thread counts are set
from edgekit.runtime.worker import prepare  # noqa: E402

if TYPE_CHECKING:
    from edgekit.runtime.artifact import Artifact

GOALS = {"onnxruntime": 2.5, "openvino": 3.0}
# Each way of quantizing: the steps of conversion.qdq that are left out.
WAYS: Mapping[str, tuple[str, ...]] = {
    "int8 plain": ("input_as_pixels", "pixels_in_blocks"),
    "int8 pixels": ("pixels_in_blocks",),
    "int8": (),
}
RESAMPLES = 2000
WARMUP = 3


def random_student(folder: Path, images: list[Path]) -> Artifact:
    """An onnx artifact of the student with random weights, ten classes, 576x320."""
    import torch

    from edgekit.conversion.export import onnx_artifact
    from edgekit.models.zoo import build
    from edgekit.runtime.preprocess import Preprocess

    torch.manual_seed(0)
    preprocess = Preprocess((576, 320), mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))
    facts = {"classes": [str(k) for k in range(10)], "category_ids": list(range(10)), "recipe": {}}
    source = {**facts, "preprocess": preprocess.to_dict()}
    return onnx_artifact(build("mobile-centernet", 10), source, {}, folder / "onnx", images[:1])[0]


def quantized(source: Artifact, images: list[Path], folder: Path) -> dict[str, str]:
    """way -> onnx-int8 model file. In this process, so that steps can be left out."""
    from edgekit.conversion import qdq
    from edgekit.conversion.calibrate import calibrate
    from edgekit.conversion.graph import last_layers, load_model

    model = source.file("model.onnx")
    ranges = calibrate(model, images, source.preprocess, source.manifest["input"]["layout"]).ranges
    in_float = [node.name for node in last_layers(load_model(model))]
    files = {"fp32": model}
    for way, without in WAYS.items():
        files[way] = str(folder / f"{way.replace(' ', '-')}.onnx")
        with ExitStack() as stack:
            for step in without:
                stack.enter_context(patch.object(qdq, step, return_value=False))
            qdq.quantize_file(model, files[way], ranges, "x86", in_float, False)
    return files


def on_onnxruntime(path: str, image: Any) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])
    return lambda: session.run(None, {"image": image})


def on_openvino(path: str, image: Any) -> Callable[[], object]:
    import openvino

    hints = {"INFERENCE_NUM_THREADS": 1, "NUM_STREAMS": 1, "INFERENCE_PRECISION_HINT": "f32"}
    request = openvino.Core().compile_model(path, "CPU", hints).create_infer_request()
    return lambda: request.infer({0: image})


RUNTIMES: Mapping[str, Callable[[str, Any], Callable[[], object]]] = {
    "onnxruntime": on_onnxruntime,
    "openvino": on_openvino,
}


def measure(calls: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, list[tuple[float, float]]]:
    """name -> (wall, CPU) seconds of each round."""
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in calls}
    for done in range(rounds + WARMUP):
        for name, call in calls.items():
            cpu, wall = time.process_time_ns(), time.perf_counter_ns()
            call()
            taken = ((time.perf_counter_ns() - wall) * 1e-9, (time.process_time_ns() - cpu) * 1e-9)
            if done >= WARMUP:
                times[name].append(taken)
    return times


def summary(times: Mapping[str, list[tuple[float, float]]]) -> dict[str, dict[str, Any]]:
    """name -> median milliseconds and the ratio to the same runtime's FP32, by wall and by CPU time."""
    import numpy as np

    table = {}
    for name, values in times.items():
        base, own = np.array(times[f"{name.split()[0]} fp32"]), np.array(values)  # [rounds, (wall, cpu)]
        pick = np.random.default_rng(0).integers(0, len(own), (RESAMPLES, len(own)))
        resampled = np.median(base[pick], axis=1) / np.median(own[pick], axis=1)
        low, high = np.percentile(resampled, (2.5, 97.5), axis=0)
        ratio = np.median(base, axis=0) / np.median(own, axis=0)
        table[name] = {
            clock: {"ms": np.median(own[:, k]) * 1e3, "ratio": ratio[k], "low": low[k], "high": high[k]}
            for k, clock in enumerate(("wall", "cpu"))
        }
    return json.loads(json.dumps(table, default=float))


def show(table: Mapping[str, dict[str, Any]]) -> None:
    print(f"{'':26}{'ms':>8}{'FP32 / it':>11}{'95 % interval':>18}{'CPU ms':>9}{'FP32 / it':>11}")
    for name, row in table.items():
        wall, cpu = row["wall"], row["cpu"]
        interval = f"{wall['low']:.2f} .. {wall['high']:.2f}"
        print(f"{name:26}{wall['ms']:8.2f}{wall['ratio']:11.2f}{interval:>18}{cpu['ms']:9.2f}{cpu['ratio']:11.2f}")
    for runtime, goal in GOALS.items():
        if f"{runtime} int8" in table:
            reached = table[f"{runtime} int8"]["wall"]["ratio"] >= goal
            print(f"{runtime}: goal {goal}, {'met' if reached else 'MISSED'}")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--onnx", help="folder of an onnx artifact with uint8 input; default: random weights")
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=list(RUNTIMES))
    parser.add_argument("--rounds", type=int, default=60)
    parser.add_argument("--core", type=int, help="core to run on; default: the least busy")
    parser.add_argument("--out", type=Path, help="write the table and the machine's facts here as JSON")
    return parser.parse_args()


def main() -> int:
    options = arguments()
    core = machine.pick_core() if options.core is None else options.core
    prepare({"core": core, "threads": 1})
    from edgekit.conversion.compare import network_input
    from edgekit.runtime.artifact import read_artifact

    images = sorted((ROOT / "calibration" / "dhaka-calib" / "images").glob("*.jpg"))[:8]
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch)
        source = read_artifact(options.onnx, ("onnx",)) if options.onnx else random_student(folder, images)
        files = quantized(source, images, folder)
        image = network_input(images[0], source.preprocess, source.manifest["input"]["layout"])
        calls = {f"{r} {way}": RUNTIMES[r](path, image) for r in options.runtimes for way, path in files.items()}
        before = machine.facts()
        table = summary(measure(calls, options.rounds))
    show(table)
    if options.out:
        facts = {"before": before, "after": machine.facts()}
        options.out.write_text(json.dumps({"rounds": options.rounds, "core": core, "table": table, **facts}, indent=1))
    return 0


if __name__ == "__main__":
    sys.exit(main())
