"""ONNX Runtime on the CPU, as conversion runs files with it: to compare, to calibrate, to rank. Nothing is timed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import ModelProto


def cpu_session(model: ModelProto | str | Path, threads: int | None = None, optimise: bool = True) -> Any:
    """An ``onnxruntime.InferenceSession`` of a file or a graph. Native code: it may crash.

    threads: 1 where the numbers themselves are kept (a manifest's ``parity``), or compared with another runtime's: then
        they do not depend on how many cores this machine has. None takes those that ONNX Runtime takes: extremes, ranks
        and "the same or not" over many images are waited for, and no last bit of them matters
    optimise: False computes every node as it stands there, in the order of the nodes: an activation that was fused away
        could not be watched, and the two casts of a rounding would be taken for nothing. A tensor can go when it has
        been read; in another order what reads it may come last
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3  # errors only: foreign files are full of what it warns of
    if threads is not None:
        options.intra_op_num_threads = options.inter_op_num_threads = threads
    if not optimise:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
        options.execution_order = onnxruntime.ExecutionOrder.PRIORITY_BASED
    source = model.SerializeToString() if isinstance(model, ModelProto) else str(model)
    return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
