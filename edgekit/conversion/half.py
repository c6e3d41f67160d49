"""Typed FP16: an ONNX file whose own types say what runs in half precision.

TensorRT 11 and TensorRT-RTX have no FP16 flag and TensorRT 10 may go without one: they take each tensor's type from the
file. Between the first and the last weighted layer weights and activations become FP16; the input's preparation, the
decode (FP16 cannot tell 600.25 from 600.5 pixels) and the pinned layers stay FP32. The graph's inputs and outputs keep
their types. All runs on the file's bytes, without native code.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, defs, helper, numpy_helper, shape_inference

from ..runtime.errors import BadConfig, BadInput
from .graph import (
    constants,
    constants_to_initializers,
    initializers,
    inner_nodes,
    load_model,
    name_nodes,
    reads,
    rename_inputs,
    weighted_layers,
)

LARGEST = 65504.0  # of FP16
# operator -> inputs that ONNX defines as FP32 whatever the others are
FIXED_INPUTS: Mapping[str, tuple[int, ...]] = {"Resize": (1, 2), "Upsample": (1,)}
BOUNDS = frozenset({"Clip", "Min", "Max"})  # their constants only limit a value: infinity and zero serve as well
UNDEFINED_AT_ZERO = frozenset({"Div", "Log", "Pow", "Reciprocal"})
STILL_ZERO = frozenset({"Expand", "Reshape", "Sqrt", "Squeeze", "Tile", "Transpose", "Unsqueeze"})  # where it was zero
# operators that make or choose types themselves, or have no FP16 at opset 13
NOT_HALF = frozenset({"Cast", "QuantizeLinear", "DequantizeLinear", "If", "Loop", "Scan", "Shape", "Size"})


@dataclass(frozen=True)
class HalfFile:
    """half: names of the nodes that compute in FP16; float_pins: those kept in FP32 between them; casts: how many."""

    half: tuple[str, ...]
    float_pins: tuple[str, ...]
    casts: int


def write_half(source: str | Path, target: str | Path, pins: Iterable[str] = ()) -> HalfFile:
    """Write the typed FP16 version of an FP32 ONNX file.

    pins: names of nodes that stay FP32; a node whose constants FP16 cannot hold (``beyond_half``) stays by itself
    Raises BadConfig for a pin that is no node, BadInput for a file with nothing to convert or with Q/DQ nodes.
    """
    model = load_model(source)
    name_nodes(model)
    constants_to_initializers(model)
    names = {node.name for node in model.graph.node}
    unknown = sorted(set(pins) - names)
    if unknown:
        raise BadConfig(f"pins: {source} has no node called {', '.join(unknown)}")
    if any(node.op_type == "QuantizeLinear" for node in model.graph.node):
        raise BadInput(f"{source}: has INT8 nodes, whose scales are FP32 at opset 13; make FP16 from the float file")
    work = _Conversion(model, frozenset(pins) | beyond_half(model), float_tensors(model, source))
    work.run()
    if not work.half:
        raise BadInput(f"{source}: no layer could become FP16; every one is pinned, or the file has none")
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, str(target))
    pinned = tuple(n.name for n in model.graph.node if n.name in work.pins)
    return HalfFile(tuple(work.half), pinned, work.casts)


def beyond_half(model: ModelProto) -> frozenset[str]:
    """Names of the inner nodes with a constant that FP16 cannot hold, and of those that read what they make.

    Such a constant holds a finite value beyond LARGEST, or nothing but zeros once it is rounded: an epsilon of 1e-9
    guards no division then, nor does the sum that it was added to. A layer's weights may vanish, as they do one by one
    in any large tensor, and are read by nobody else; a bound may be infinite, and vanish if it guards no division.
    """
    layers, inner, held = {n.name for n in weighted_layers(model)}, inner_nodes(model), constants(model)
    most = {k: float(np.abs(v[np.isfinite(v)]).max(initial=0)) for k, v in held.items() if v.dtype == np.float32}
    large = {name for name, value in most.items() if value > LARGEST}
    vanished = {name for name, value in most.items() if value > 0 and np.float16(min(value, 1)) == 0}
    lost = large | vanished
    found = {n.name for n in model.graph.node if n.name in layers and large.intersection(n.input)}
    made: set[str] = set()
    for node in model.graph.node:
        if node.name not in inner - layers or node.op_type in BOUNDS:
            continue
        if lost.intersection(node.input):
            found.add(node.name)
            made.update(node.output)
    readers = {n.name for n in model.graph.node if n.name in inner and made.intersection(n.input)}
    return frozenset(found | readers | _guards(model, vanished) & inner)


def _guards(model: ModelProto, vanished: set[str]) -> set[str]:
    """The nodes from a bound that is one of ``vanished`` to the division that it guards, as of L2 normalisation."""
    ways: dict[str, set[str]] = {}  # tensor -> the nodes between it and its bound
    found: set[str] = set()
    for node in model.graph.node:
        asked = node.input[1:] if node.op_type == "Div" else node.input
        way = set().union(*(ways.get(name, ()) for name in asked))
        if node.op_type in UNDEFINED_AT_ZERO and way:
            found |= way | {node.name}
        elif (node.op_type in BOUNDS and not vanished.isdisjoint(node.input)) or (node.op_type in STILL_ZERO and way):
            ways.update((name, way | {node.name}) for name in node.output)
    return found


@dataclass
class _Conversion:
    """One pass over the nodes in their order; ``is_half`` says in which type each tensor arrives."""

    model: ModelProto
    pins: frozenset[str]
    floats: set[str]
    half: list[str] = field(default_factory=list)
    casts: int = 0
    is_half: set[str] = field(default_factory=set)
    cast_of: dict[tuple[str, int], str] = field(default_factory=dict)
    nodes: list[NodeProto] = field(default_factory=list)

    def run(self) -> None:
        graph = self.model.graph
        self.tensors = initializers(self.model)
        self.outputs = {v.name for v in graph.output}
        inner = inner_nodes(self.model)
        for node in list(graph.node):
            wanted = node.name in inner and node.name not in self.pins and node.op_type not in NOT_HALF
            if wanted and any(name in self.floats for name in node.output):
                self._to_half(node)
            else:
                self._keep(node)
        del graph.node[:]
        graph.node.extend(self.nodes)
        used = {name for node in self.nodes for name in reads(node)}
        kept = [t for t in graph.initializer if t.name in used]
        del graph.initializer[:]
        graph.initializer.extend(kept)
        del graph.value_info[:]  # they tell the old types

    def _to_half(self, node: NodeProto) -> None:
        fixed = FIXED_INPUTS.get(node.op_type, ())
        for i, name in enumerate(node.input):
            if name in self.floats and i not in fixed:
                node.input[i] = self._typed(name, TensorProto.FLOAT16)
            elif name in self.is_half:
                node.input[i] = self._typed(name, TensorProto.FLOAT)
        self.nodes.append(node)
        self.half.append(node.name)
        for i, name in enumerate(node.output):
            if name not in self.floats:
                continue
            if name in self.outputs:  # the graph's own outputs keep their type
                node.output[i] = f"{name}.half"
                self._cast(node.output[i], name, TensorProto.FLOAT)
            else:
                self.is_half.add(name)

    def _keep(self, node: NodeProto) -> None:
        floats = {name: self._typed(name, TensorProto.FLOAT) for name in sorted(reads(node) & self.is_half)}
        rename_inputs(node, floats)
        self.nodes.append(node)

    def _typed(self, name: str, wanted: int) -> str:
        """The tensor in the wanted type: itself, a converted weight, or behind a Cast that is made once."""
        if (name in self.is_half) == (wanted == TensorProto.FLOAT16):
            return name
        known = self.cast_of.get((name, wanted))
        if known is None:
            known = self.cast_of[name, wanted] = f"{name}.{'half' if wanted == TensorProto.FLOAT16 else 'float'}"
            if name in self.tensors:
                with np.errstate(over="ignore"):  # a bound; beyond_half keeps the other large ones
                    array = numpy_helper.to_array(self.tensors[name]).astype(np.float16)
                self.model.graph.initializer.append(numpy_helper.from_array(array, known))
            else:
                self._cast(name, known, wanted)
        return known

    def _cast(self, source: str, target: str, wanted: int) -> None:
        self.nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/Cast", to=wanted))
        self.casts += 1


def float_tensors(model: ModelProto, source: str | Path) -> set[str]:
    """Names of all FP32 tensors: inputs, weights, activations. Raises BadInput where types cannot be inferred."""
    try:
        graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    except shape_inference.InferenceError as error:
        plugins = sorted({n.op_type for n in model.graph.node if n.domain or not defs.has(n.op_type)})
        holds = f", which holds plugins ({', '.join(plugins)})" if plugins else ""
        first = next(iter(str(error).strip().splitlines()), "")
        raise BadInput(
            f"{source}: found a graph whose types ONNX cannot infer{holds}, needed that of every tensor for FP16 "
            f"({first}). Export the network with standard operators, or stay with FP32"
        ) from error
    found = {t.name for t in graph.initializer if t.data_type == TensorProto.FLOAT}
    values = (*graph.input, *graph.value_info, *graph.output)
    return found | {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT}


def rounding_model(half: ModelProto) -> ModelProto:
    """An FP32 graph that rounds every tensor as the typed FP16 graph would store it.

    ONNX Runtime's CPU provider has no FP16 kernels: it computes in FP32 and drops the casts between, so an overflow
    would stay unseen. Here each FP16 tensor passes through two casts that are nodes of the graph itself.
    """
    model = ModelProto()
    model.CopyFrom(half)
    graph = model.graph
    for tensor in graph.initializer:
        if tensor.data_type == TensorProto.FLOAT16:
            tensor.CopyFrom(numpy_helper.from_array(numpy_helper.to_array(tensor).astype(np.float32), tensor.name))
    halves = _half_tensors(half)
    nodes: list[NodeProto] = []
    for node in graph.node:
        nodes.append(node)
        if node.op_type == "Cast" and _cast_type(node) == TensorProto.FLOAT16:
            next(a for a in node.attribute if a.name == "to").i = TensorProto.FLOAT
        for i, name in enumerate(node.output):
            if name in halves:
                node.output[i] = f"{name}.exact"
                for source, target, kind in (
                    (node.output[i], f"{name}.rounded", TensorProto.FLOAT16),
                    (f"{name}.rounded", name, TensorProto.FLOAT),
                ):
                    nodes.append(helper.make_node("Cast", [source], [target], name=f"{target}/Round", to=kind))
    kept = [NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(kept)
    return model


def _cast_type(node: NodeProto) -> int:
    return next(int(a.i) for a in node.attribute if a.name == "to")


def _half_tensors(model: ModelProto) -> set[str]:
    """Activations that a typed FP16 graph holds in FP16."""
    graph = shape_inference.infer_shapes(model, strict_mode=True, data_prop=True).graph
    values = (*graph.value_info, *graph.output)
    return {v.name for v in values if v.type.tensor_type.elem_type == TensorProto.FLOAT16}
