"""How much memory a network will need on a board, before it is there: while its engine is built, and while it runs.

Each part is counted on the safe side, and each is named, so that a reader can see which one is too large:

- weights: every constant of the file, in the engine's precision while it runs; without TensorRT integers as they are
  stored, and floating point as float32
- activations: the largest sum of tensors that are alive at the same time, by liveness over the graph in its own order.
  Fusion makes it smaller; that is not counted on. Reshape and the like share their input's memory, and what only
  quantizes or dequantizes a weight is that weight
- file: while an engine is built the file is held twice, as bytes and parsed, and the builder keeps float32 weights;
  while it is loaded, the engine's bytes are held beside the weights
- workspace: the board's cap, of which a build may use everything
- libraries: what CUDA and TensorRT take before the first layer; idle: what the system uses without EdgeKit
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import prod

import numpy as np
from onnx import NodeProto, TensorProto, helper

from ..hardware import MemorySection
from .findings import Graph

MIB = 2**20
LEAST_WORKSPACE = 64.0  # MiB: below it convolutions lose their fast algorithms
UNKNOWN_LIBRARIES = 1051  # MiB, where the board does not tell: gh:NVIDIA/TensorRT#2217
VIEWS = frozenset({"Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity", "Dropout"})
BYTES: Mapping[str, float] = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}


@dataclass(frozen=True)
class Peak:
    """The moment with the most live tensors. mib: their sum; node: what is computed then; largest: the biggest ones."""

    mib: float
    node: str
    largest: tuple[tuple[str, float], ...]
    unknown: tuple[str, ...]  # tensors whose shape cannot be known, counted as nothing


@dataclass(frozen=True)
class Forecast:
    """Megabytes (MiB) by part, for building and for running. available: of the whole board, or None where unknown.

    precision: of the engine that is forecast, or of the file where there is none
    workspace: the most that leaves room for everything else, in MiB
    """

    precision: str
    build: Mapping[str, float]
    run: Mapping[str, float]
    available: float | None
    workspace: float | None
    peak: Peak

    @property
    def build_total(self) -> float:
        return sum(self.build.values())

    @property
    def run_total(self) -> float:
        return sum(self.run.values())


def forecast(graph: Graph, precision: str) -> Forecast:
    """The memory that ``graph`` will need on its board, in MiB."""
    memory = graph.board.memory
    compiled = graph.stack is not None
    weights = _weights(graph)
    peak = live_peak(graph, 4)
    ratio = BYTES[precision] / 4 if compiled else 1.0  # a CPU's runtime reads the tensors as the file has them
    engine = weights * ratio if compiled else _stored_weights(graph)
    common = {"idle system": float(memory.idle_mb)} if memory else {}
    if compiled:
        common["CUDA and TensorRT libraries"] = float(memory.overhead_mb if memory else UNKNOWN_LIBRARIES)
    run = {**common, "weights": engine, "activations": peak.mib * ratio, "inputs and outputs": 2 * _ends(graph)}
    build: dict[str, float] = {}
    if compiled:
        # every layer is timed in float32 too, with its own inputs and outputs
        parts = {"the file, as bytes and parsed": 2 * _file(graph), "weights in float32": weights, "engine": engine}
        build = {**common, **parts, "activations": 2 * peak.mib}
        run["the engine's bytes, while loading"] = engine
    total = float(memory.total_mb) if memory else None
    workspace = _workspace(memory, build)
    if build and workspace is not None:
        build["workspace"] = max(LEAST_WORKSPACE, workspace)
    return Forecast(precision, build, run, total, workspace, peak)


def _workspace(memory: MemorySection | None, build: Mapping[str, float]) -> float | None:
    """The board's cap, or what is left of the memory where that is less."""
    if memory is None:
        return None
    return float(min(memory.workspace_mb, max(0.0, memory.total_mb - sum(build.values()))))


def live_peak(graph: Graph, float_bytes: float) -> Peak:
    """The largest sum of activations that are alive at once. float_bytes: size of one floating-point value."""
    nodes = list(graph.model.graph.node)
    root = _roots(graph)
    last: dict[str, int] = {}
    for index, node in enumerate(nodes):
        last.update((root.get(name, name), index) for name in node.input)
    last.update((root.get(v.name, v.name), len(nodes)) for v in graph.model.graph.output)
    alive: dict[str, float] = {}
    unknown: list[str] = []
    for value in graph.model.graph.input:
        _add(graph, value.name, float_bytes, alive, unknown)
    best, moment, held = sum(alive.values()), "", dict(alive)
    for index, node in enumerate(nodes):
        for name in () if _is_weight(graph, node) else node.output:
            if root.get(name, name) == name and name in last and name not in graph.values:
                _add(graph, name, float_bytes, alive, unknown)
        now = sum(alive.values())
        if now > best:
            best, moment, held = now, node.name or node.output[0], dict(alive)
        for name in [n for n in alive if last.get(n, -1) <= index]:
            del alive[name]
    largest = sorted(held.items(), key=lambda item: -item[1])[:3]
    return Peak(best, moment, tuple(largest), tuple(unknown))


def _is_weight(graph: Graph, node: NodeProto) -> bool:
    """Whether it quantizes or dequantizes a constant, which is counted as such."""
    return node.op_type in ("QuantizeLinear", "DequantizeLinear") and node.input[0] not in graph.live


def _roots(graph: Graph) -> dict[str, str]:
    """Tensor -> the tensor whose memory it shares."""
    root: dict[str, str] = {}
    for node in graph.model.graph.node:
        if node.op_type in VIEWS and node.input and node.output:
            root[node.output[0]] = root.get(node.input[0], node.input[0])
    return root


def _add(graph: Graph, name: str, float_bytes: float, alive: dict[str, float], unknown: list[str]) -> None:
    if not name or name in graph.values:
        return
    shape = graph.shapes.get(name)
    if shape is None or None in shape:
        unknown.append(name)
        return
    alive[name] = prod(d for d in shape if d is not None) * _width(graph.types.get(name), float_bytes) / MIB


def _width(code: int | None, float_bytes: float) -> float:
    """Bytes of one value. INT64 counts in full, as shapes are computed on the host in it."""
    if code in (None, TensorProto.FLOAT, TensorProto.FLOAT16, TensorProto.DOUBLE, TensorProto.BFLOAT16):
        return float_bytes
    return float(np.dtype(helper.tensor_dtype_to_np_dtype(int(code or 0))).itemsize)


def _weights(graph: Graph) -> float:
    """Of all constants, as float32 where they are floating point or quantized."""
    return sum(value.size * (8 if value.dtype == np.int64 else 4) for value in graph.values.values()) / MIB


def _stored_weights(graph: Graph) -> float:
    """Of all constants, integers as they are stored and floating point as float32."""
    kinds = (value.size * (value.itemsize if value.dtype.kind in "iub" else 4) for value in graph.values.values())
    return sum(kinds) / MIB


def _file(graph: Graph) -> float:
    return sum(value.nbytes for value in graph.values.values()) / MIB


def _ends(graph: Graph) -> float:
    """Inputs and outputs: each has a pinned buffer on the host and one on the device."""
    sizes: dict[str, float] = {}
    for value in (*graph.model.graph.input, *graph.model.graph.output):
        _add(graph, value.name, 4, sizes, [])
    return sum(sizes.values())
