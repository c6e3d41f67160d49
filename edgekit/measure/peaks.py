"""What a machine can reach: ``python -m edgekit.measure.peaks JOB.json RESULT.json``, on the job's cores and threads.

The roofline's two limits, measured and not computed from a data sheet: operations per second of a large matrix product,
in FP32 and in INT8, and bytes per second of a copy that no cache holds. Of several tries the best counts: a peak is
what the machine can do when nothing disturbs it.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from ..runtime import worker
from ..runtime.errors import EdgeKitError

SIZE = 384  # of the square matrices: 0.1 G operations, about a millisecond, which the scheduler often leaves whole
COPIED = 64 << 20  # bytes: more than the caches of one core
SECONDS = 0.5  # for each of the limits
LEAST_TRIES = 5


def measure_peaks(threads: int) -> dict[str, Any]:
    """``Peaks`` as JSON. The process must be pinned, and the thread variables set, before this is called."""
    gops = {"fp32": max(_numpy_gemm(), _ort_gemm(threads, "fp32")), "int8": _ort_gemm(threads, "int8")}
    how = (
        f"best of {SECONDS:g} s each on {threads} thread{'s' if threads > 1 else ''}: {SIZE} x {SIZE} matrix products "
        f"(fp32: numpy or ONNX Runtime, the faster; int8: ONNX Runtime, u8 x s8), and a copy of {COPIED >> 20} MiB"
    )
    return {"gops": gops, "bandwidth": _copy(threads), "source": "measured", "how": how}


def _best(call: Callable[[], object]) -> float:
    """Seconds of the fastest call."""
    call()
    best, tries, end = float("inf"), 0, time.perf_counter() + SECONDS
    while tries < LEAST_TRIES or time.perf_counter() < end:
        started = time.perf_counter()
        call()
        best, tries = min(best, time.perf_counter() - started), tries + 1
    return best


def _giga(seconds: float) -> float:
    return 2 * SIZE**3 / seconds / 1e9


def _numpy_gemm() -> float:
    import numpy as np

    rng = np.random.default_rng(0)
    a, b = (rng.random((SIZE, SIZE), np.float32) for _ in range(2))
    out = np.empty_like(a)
    return _giga(_best(lambda: np.matmul(a, b, out=out)))


def _ort_gemm(threads: int, precision: str) -> float:
    """The second matrix is a constant, so that it is packed once, as weights are."""
    import numpy as np
    import onnxruntime as ort
    from onnx import TensorProto, helper, numpy_helper

    kinds: dict[str, tuple[Any, ...]] = {
        "fp32": (np.float32, TensorProto.FLOAT, np.float32, TensorProto.FLOAT, "MatMul"),
        "int8": (np.uint8, TensorProto.UINT8, np.int8, TensorProto.INT32, "MatMulInteger"),
    }
    left, left_type, right, out_type, operator = kinds[precision]
    rng, shape = np.random.default_rng(0), [SIZE, SIZE]
    a, b = rng.integers(0, 100, shape).astype(left), rng.integers(-50, 50, shape).astype(right)
    graph = helper.make_graph(
        [helper.make_node(operator, ["a", "b"], ["y"])],
        "gemm",
        [helper.make_tensor_value_info("a", left_type, shape)],
        [helper.make_tensor_value_info("y", out_type, shape)],
        [numpy_helper.from_array(b, "b")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)], ir_version=8)
    options = ort.SessionOptions()
    options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
    session = ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return _giga(_best(lambda: session.run(None, {"a": a})))


def _copy(threads: int) -> float:
    """GB/s, bytes read and bytes written."""
    import numpy as np

    source = [np.ones(COPIED // threads, np.uint8) for _ in range(threads)]
    target = [np.zeros_like(part) for part in source]
    with ThreadPoolExecutor(threads) as pool:
        seconds = _best(lambda: list(pool.map(np.copyto, target, source)))
    return 2 * (COPIED // threads) * threads / seconds / 1e9


def main(argv: list[str]) -> int:
    """The same contract as the worker's: RESULT holds {"peaks"} or {"error", "type"}."""
    code = 0
    try:
        job = worker.read_job(argv[0])
        worker.prepare(job)
        result: dict[str, Any] = {"peaks": measure_peaks(job["threads"])}
    except EdgeKitError as error:
        result, code = {"error": str(error), "type": type(error).__name__}, 2
    with open(argv[1], "w", encoding="utf-8") as handle:
        json.dump(result, handle)
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
