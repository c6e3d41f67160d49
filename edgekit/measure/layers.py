"""Why is it slow: the runtime's own times per step, mapped back to the file's nodes and their PyTorch modules.

Runtimes fuse: one step often computes several nodes of the file, and some steps (a change of memory layout) compute
none. A step gets all the nodes that it really computes, and what the runtime put in itself stays without a module. The
roofline (Williams et al., 2009) says how fast a step could be: at least its operations over the peak of its precision,
and at least the bytes that it moves over the bandwidth of memory.
"""

from __future__ import annotations

import re
import sys
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import onnx
from onnx import ModelProto, NodeProto

from ..board import Board
from ..progress import Progress
from ..runtime.errors import BadInput
from .complexity import MODEL_FILE
from .graph import MACS, consumers, load_graph, module_of, node_macs, node_name, producers, tensor_shapes
from .process import run_worker
from .row import LayerRun, LayerTime, Peaks, Row

if TYPE_CHECKING:
    from .bench import Target

RUNS = 20
_BEST_OF = "; the best of "
_WIDTH = {"fp32": 4, "fp16": 2, "bf16": 2, "int8": 1}  # bytes of a value
_SUM_INPUT = 3  # of ONNX Runtime's convolution: what is added to its result
PEAK_METER = (sys.executable, "-m", "edgekit.measure.peaks")
# What ONNX Runtime appends to the name of the tensor or the node that a new node stands for
_SUFFIX = re.compile(r"(_nchwc|_token_\d+|_quant|_transform|_fused)+$")
# What OpenVINO appends to a convolution's name when it takes the bias out
_WITHOUT_BIAS = "/WithoutBiases"
# How TensorRT names what it fused, what it copies, and a region that a compiler took as a whole
_SEPARATORS = re.compile(r"[\s,+|()]+")
_FOREIGN = re.compile(r"\{ForeignNode\[(\S+?)\.\.\.(\S+?)\]\}")


def measure_layers(
    row: Row, target: Target, board: Board, job: Mapping[str, Any], progress: Progress | None = None
) -> dict[str, Any]:
    """The row's fields layers, layer_run and peaks, measured in processes of their own on the row's core and threads.

    Raises BadInput for a runtime that has no profiler.
    """
    peaks = measure_peaks(board, job)
    with tempfile.TemporaryDirectory(prefix="edgekit-layers-") as folder:
        asked = {**job, "mode": "layers", "min_count": RUNS, "folder": folder}
        result, _ = run_worker(asked, progress=progress)
        optimised = Path(folder) / "optimised.onnx"
        original = load_graph(_graph_file(target))
        steps = attribute(result["layers"]["steps"], original, _read_optimised(optimised))
    steps, note = with_assumptions(steps, original, row.precision)
    layers = against_roofline(steps, macs_of_nodes(original), peaks)
    run = LayerRun(
        profiler=result["layers"]["profiler"],
        runs=result["layers"]["runs"],
        total_ms=sum(layer.ms for layer in layers),
        inference_ms=row.spans.get("inference"),
        unattributed_macs=sum(macs_of_nodes(original).values()) - sum(layer.macs for layer in layers),
        note=note,
    )
    return {"layers": layers, "layer_run": run, "peaks": peaks}


def measure_peaks(board: Board, job: Mapping[str, Any]) -> Peaks | None:
    """Measured on the cores and threads of the job on x86; elsewhere what the board's profile says, or None."""
    if board.kind == "x86":
        result, _ = run_worker(job, PEAK_METER)
        return Peaks.model_validate(result["peaks"])
    if board.peaks is None:
        return None
    gops = {str(name): value for name, value in board.peaks.gflops.items()}
    return Peaks(gops=gops, bandwidth=board.peaks.bandwidth, source="board profile", how=board.title)


def with_common_peaks(rows: Sequence[Row]) -> list[Row]:
    """The rows of one call, each with the best peaks that were measured for any of them on as many threads.

    A peak is what the machine can do when nothing disturbs it, and while one row was measured something may have.
    """
    groups: dict[int, list[Peaks]] = {}
    for row in rows:
        if row.peaks is not None and row.peaks.source == "measured":
            groups.setdefault(row.process.threads, []).append(row.peaks)
    best = {threads: _best_peaks(peaks) for threads, peaks in groups.items()}
    return [
        row.model_copy(update=_under(row, best[row.process.threads]))
        if row.peaks is not None and row.peaks.source == "measured"
        else row
        for row in rows
    ]


def _best_peaks(peaks: Sequence[Peaks]) -> Peaks:
    names = dict.fromkeys(name for one in peaks for name in one.gops)
    how = peaks[0].how.partition(_BEST_OF)[0]  # they may be the best of some of these already
    how += f"{_BEST_OF}{len(peaks)} measurements" if len(peaks) > 1 else ""
    return peaks[0].model_copy(
        update={
            "gops": {name: max(one.gops[name] for one in peaks if name in one.gops) for name in names},
            "bandwidth": max((one.bandwidth for one in peaks if one.bandwidth), default=None),
            "how": how,
        }
    )


def _under(row: Row, peaks: Peaks) -> dict[str, Any]:
    """The row's fields layers and peaks under other limits than those that they were measured with."""
    layers = []
    for layer in row.layers:
        bound_ms, bound = roofline(layer.macs, layer.bytes, layer.precision, peaks)
        layers.append(layer.model_copy(update=_bounds(layer.ms, bound_ms, bound)))
    return {"layers": _worst_first(layers), "peaks": peaks}


def _graph_file(target: Target) -> str:
    """The ONNX file whose nodes the steps compute: the target's own, or that which an engine was built from."""
    for artifact in (target.artifact, target.graph):
        if artifact is not None and MODEL_FILE in artifact.manifest["payload"]:
            return artifact.file(MODEL_FILE)
    raise BadInput(f"{target.artifact.path}: has no {MODEL_FILE}, and none is known that it was made from")


def _read_optimised(path: Path) -> ModelProto | None:
    return onnx.load(str(path), load_external_data=False) if path.is_file() else None


def macs_of_nodes(model: ModelProto) -> dict[str, int]:
    """Node name -> multiply-accumulates, for the operators that have any and whose shapes are known."""
    shapes, found = tensor_shapes(model), {}
    for node in model.graph.node:
        if node.op_type in MACS:
            try:
                found[node_name(node)] = node_macs(node, shapes)
            except KeyError:
                continue  # a shape that cannot be inferred: its work is unknown
    return found


# -- from steps to nodes ----------------------------------------------------------------------------------------------
def attribute(
    steps: Sequence[Mapping[str, Any]], original: ModelProto, optimised: ModelProto | None = None
) -> list[dict[str, Any]]:
    """The steps with ``nodes``: names of the original nodes that each computes, in the file's order.

    A runtime that tells them is believed. Else, with the graph that ONNX Runtime really ran (``optimised``), a step
    computes everything between the tensors that the steps before it left and its own result. Else the step's name
    tells, as TensorRT's does. A node is given to one step only, the first that claims it.
    """
    order = {node_name(node): i for i, node in enumerate(original.graph.node)}
    regions = _regions(original, optimised) if optimised is not None else {}
    taken: set[str] = set()
    found = []
    for step in steps:
        if step["nodes"] is not None:
            names: Iterable[str] = _known(step["nodes"], original)
        elif optimised is not None:
            names = regions.get(step["name"], ())
        else:
            names = _from_name(step["name"], original)
        mine = sorted({name for name in names if name in order and name not in taken}, key=order.__getitem__)
        taken.update(mine)
        found.append({**step, "nodes": mine})
    return found


def _known(names: Iterable[str], original: ModelProto) -> list[str]:
    """Nodes by their own names or by those of their outputs."""
    table = {output: node_name(node) for node in original.graph.node for output in node.output}
    table.update({node_name(node): node_name(node) for node in original.graph.node})
    plain = (name[: -len(_WITHOUT_BIAS)] if name.endswith(_WITHOUT_BIAS) else name for name in names)
    return [table[name] for name in plain if name in table]


def _regions(original: ModelProto, optimised: ModelProto) -> dict[str, set[str]]:
    """Node of the optimised graph -> the original nodes between what the steps before it left and its result."""
    makers, users = producers(original), consumers(original)
    outputs = {node_name(node): node.output for node in original.graph.node}
    results: dict[str, list[str]] = {}
    for node in optimised.graph.node:
        tensors = [output for output in node.output if output in makers]
        stem = _SUFFIX.sub("", node.name)
        if not tensors and (stem in makers or stem in outputs):
            tensors = [_with_followers(node, stem if stem in makers else outputs[stem][0], makers, users)]
        results[node_name(node)] = tensors
    left = {tensor for tensors in results.values() for tensor in tensors}
    return {name: _behind(tensors, left, makers) for name, tensors in results.items()}


def _with_followers(
    node: NodeProto, tensor: str, makers: Mapping[str, NodeProto], users: Mapping[str, Sequence[NodeProto]]
) -> str:
    """The original tensor that a convolution of ONNX Runtime makes when it has taken in the addition after it.

    Its name is still that of the convolution; the addition is its fourth input, the activation an attribute.
    """
    activation = next((a.s.decode() for a in node.attribute if a.name == "activation"), None)
    wanted = ["Add"] if len(node.input) > _SUM_INPUT and node.input[_SUM_INPUT] else []
    wanted += [activation] if activation and makers[tensor].op_type != activation else []
    for operator in wanted:
        following = users.get(tensor, ())
        if len(following) != 1 or following[0].op_type != operator:
            break
        tensor = following[0].output[0]
    return tensor


def _behind(results: Sequence[str], left: set[str], makers: Mapping[str, NodeProto]) -> set[str]:
    """Walk back from ``results`` to tensors that some step left, graph inputs and constants."""
    found, waiting = set(), list(results)
    while waiting:
        maker = makers.get(waiting.pop())
        if maker is None or node_name(maker) in found:
            continue
        found.add(node_name(maker))
        waiting += [name for name in maker.input if name not in left]
    return found


def _from_name(name: str, original: ModelProto) -> list[str]:
    """TensorRT joins the names of what it fused: "a + b", "PWN(a, b)", "a || b", "{ForeignNode[first...last]}"."""
    if name.startswith("Reformatting ") or name.endswith(" copy"):
        return []
    regions = [node for first, last in _FOREIGN.findall(name) for node in _between(first, last, original)]
    return _known(_SEPARATORS.split(_FOREIGN.sub(" ", name)), original) + regions


def _between(first: str, last: str, original: ModelProto) -> list[str]:
    """Every node on a way from ``first`` to ``last``, both included."""
    makers = producers(original)
    before = _closure(
        last, {node_name(n): [node_name(makers[i]) for i in n.input if i in makers] for n in _nodes(original)}
    )
    after: dict[str, list[str]] = {}
    for node in _nodes(original):
        for name in node.input:
            if name in makers:
                after.setdefault(node_name(makers[name]), []).append(node_name(node))
    return sorted(before & _closure(first, after))


def _nodes(model: ModelProto) -> Sequence[NodeProto]:
    return list(model.graph.node)


def _closure(start: str, edges: Mapping[str, Sequence[str]]) -> set[str]:
    found, waiting = set(), [start]
    while waiting:
        name = waiting.pop()
        if name not in found:
            found.add(name)
            waiting += edges.get(name, ())
    return found


def with_assumptions(
    steps: Sequence[Mapping[str, Any]], original: ModelProto, precision: str
) -> tuple[list[dict[str, Any]], str]:
    """The steps with types and bytes where the profiler tells none at all, and a note that says what was assumed.

    Then a step computes in the precision of the whole file, and moves what its nodes take from others and give to
    others, at that precision. Steps without nodes stay unknown.
    """
    if any(step["precision"] is not None or step["bytes"] is not None for step in steps):
        return [dict(step) for step in steps], ""  # what it tells of none of them, it does not know
    shapes, users = tensor_shapes(original), consumers(original)
    by_name = {node_name(node): node for node in original.graph.node}
    results = {value.name for value in original.graph.output}
    filled = []
    for step in steps:
        changed = dict(step)
        if step["nodes"]:
            tensors = _boundary([by_name[name] for name in step["nodes"]], users, results)
            values = sum(prod(shapes[name]) for name in tensors if name in shapes)
            changed |= {"precision": precision, "bytes": values * _WIDTH.get(precision, _WIDTH["fp32"])}
        filled.append(changed)
    return filled, f"the profiler tells no types or sizes: {precision} is assumed, and the tensors of the file"


def _boundary(nodes: Sequence[NodeProto], users: Mapping[str, Sequence[NodeProto]], results: set[str]) -> set[str]:
    """Tensors that a group of nodes reads from outside (weights included), and those that it leaves to others."""
    inside, made = {node_name(node) for node in nodes}, {name for node in nodes for name in node.output}
    read = {name for node in nodes for name in node.input if name and name not in made}
    left = {n for n in made if n in results or any(node_name(user) not in inside for user in users.get(n, ()))}
    return read | left


# -- the roofline -----------------------------------------------------------------------------------------------------
def against_roofline(
    steps: Sequence[Mapping[str, Any]], macs: Mapping[str, int], peaks: Peaks | None
) -> tuple[LayerTime, ...]:
    """The steps as layers, that which loses the most time against its bound first; without bounds the slowest first."""
    total = sum(step["ms"] for step in steps)
    return _worst_first([_layer(step, macs, peaks, total) for step in steps])


def _worst_first(layers: Sequence[LayerTime]) -> tuple[LayerTime, ...]:
    return tuple(sorted(layers, key=lambda layer: -(layer.ms if layer.lost_ms is None else layer.lost_ms)))


def _bounds(ms: float, bound_ms: float | None, bound: Any) -> dict[str, Any]:
    return {"bound_ms": bound_ms, "bound": bound, "lost_ms": None if bound_ms is None else max(0.0, ms - bound_ms)}


def _layer(step: Mapping[str, Any], macs: Mapping[str, int], peaks: Peaks | None, total: float) -> LayerTime:
    work = sum(macs.get(name, 0) for name in step["nodes"])
    bound_ms, bound = roofline(work, step["bytes"], step["precision"], peaks)
    ms = step["ms"]
    return LayerTime(
        name=step["name"],
        kind=step["kind"],
        modules=tuple(dict.fromkeys(filter(None, map(module_of, step["nodes"])))),
        nodes=tuple(step["nodes"]),
        ms=ms,
        share=ms / total if total else 0.0,
        precision=step["precision"],
        macs=work,
        bytes=step["bytes"],
        gops=2 * work / ms / 1e6 if work and ms else None,
        **_bounds(ms, bound_ms, bound),
    )


def roofline(macs: int, moved: int | None, precision: str | None, peaks: Peaks | None) -> tuple[float | None, Any]:
    """(least milliseconds, "compute" or "memory"); (None, None) where a peak that is needed is not known."""
    if peaks is None:
        return None, None
    compute = 2 * macs / (peaks.gops[precision] * 1e6) if macs and precision in peaks.gops and precision else None
    memory = moved / (peaks.bandwidth * 1e6) if moved is not None and peaks.bandwidth else None
    known = [(ms, kind) for ms, kind in ((compute, "compute"), (memory, "memory")) if ms is not None]
    if not known or (macs and compute is None):
        return None, None
    return max(known)
