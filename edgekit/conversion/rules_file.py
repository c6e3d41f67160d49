"""Lint's rules for the file as a whole: opset, inputs and outputs, INT8 hardware, the ranges of FP16 and INT32."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from onnx import NodeProto, TensorProto, helper

from .findings import EXPORT, Finding, Graph, attribute
from .rules import OPERATOR_RULES, unsupported_operator

FP16_MOST = 65504.0
INT32 = np.iinfo(np.int32)
INTEGER_ARITHMETIC = frozenset({"Add", "Sub", "Mul", "Div", "Mod", "Pow", "Neg", "Abs", "Min", "Max", "Sum", "Equal"})

CARRYING = frozenset({"Identity", "Reshape", "Squeeze", "Unsqueeze"})  # their first input


def _opset(graph: Graph) -> Iterator[Finding]:
    stack, table = graph.stack, graph.table
    assert stack is not None
    assert table is not None
    if graph.opset > stack.opset_max:
        found = (
            f"opset {graph.opset}; {table.title} documents {table.opset_min} to {stack.opset_max}, "
            f"does not refuse more, and reads it with the older meaning"
        )
        advice = (
            f"Export with opset_version={min(13, stack.opset_max)}, "
            f"or: edgekit import-onnx FILE, which converts it where it can."
        )
        yield Finding("error", "opset", found, advice)
    elif graph.opset < table.opset_min:
        found = f"opset {graph.opset} is older than {table.opset_min}, the oldest that is documented"
        yield Finding("warning", "opset", found, "Export with opset_version=13.")


def _inputs(graph: Graph) -> Iterator[Finding]:
    stack = graph.stack
    assert stack is not None
    constant = {t.name for t in graph.model.graph.initializer}
    for value in graph.model.graph.input:
        if value.name in constant:
            continue
        if not value.type.tensor_type.elem_type:
            continue
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)).name
        if kind not in stack.io_types and kind not in ("int64", "float64"):
            advice = f"Export with a float input: {EXPORT} takes the layout that the board has."
            found = f"input {value.name!r} is {kind}; {stack.name} has {', '.join(stack.io_types)}"
            if kind == "uint8":
                found += " (UINT8 from TensorRT 8.5 on)"
            yield Finding("error", "input-type", found, advice)
        elif kind in ("int64", "float64") and kind not in stack.io_types:
            becomes = stack.int64_io if kind == "int64" else "float32"
            yield Finding(
                "warning", "input-type", f"input {value.name!r} is {kind} and becomes {becomes}", f"Feed {becomes}."
            )
        yield from _fixed(graph, value.name)


def _fixed(graph: Graph, name: str) -> Iterator[Finding]:
    shape = graph.shapes.get(name)
    if shape is None or None in shape:
        text = "unknown" if shape is None else f"[{', '.join('?' if d is None else str(d) for d in shape)}]"
        advice = "Export with a fixed size and batch 1; edgekit import-onnx FILE --size WIDTHxHEIGHT fixes them."
        yield Finding("error", "dynamic-shape", f"input {name!r} has the shape {text}: it is not fixed", advice)


def _outputs(graph: Graph) -> Iterator[Finding]:
    stack = graph.stack
    assert stack is not None
    for value in graph.model.graph.output:
        if value.type.tensor_type.elem_type == TensorProto.INT64:
            if stack.int64_io == "int32":
                found = f"output {value.name!r} is INT64 in the file and INT32 in the engine"
                yield Finding("note", "output-type", found, "Ask the engine for the type; do not assume it.")
        elif value.type.tensor_type.elem_type == TensorProto.UINT8 and "uint8" not in stack.io_types:
            found = f"output {value.name!r} is UINT8; {stack.name} has {', '.join(stack.io_types)}"
            yield Finding("error", "output-type", found, "Leave the output in float.")


def _int8_hardware(graph: Graph) -> Iterator[Finding]:
    quantized = [n for _, n in graph.nodes if n.op_type in ("QuantizeLinear", "DequantizeLinear")]
    gpu = graph.board.gpu
    if quantized and gpu is not None and not gpu.fast_int8:
        sm = f"sm_{gpu.sm}" if gpu.sm else gpu.name
        found = f"an INT8 file ({len(quantized)} Q/DQ nodes) for {sm}, which has no INT8: the build fails with error 9"
        yield Finding(
            "error", "int8", found, "Use the FP32 file: the engine is built in FP16, which is the fast one there."
        )


def _half_range(graph: Graph) -> Iterator[Finding]:
    """Constants that FP16 cannot hold, where the board would compute in FP16."""
    if "fp16" not in graph.board.precisions:
        return
    for name, value in graph.values.items():
        if value.dtype != np.float32 or value.size == 0:
            continue
        finite = np.abs(value[np.isfinite(value)])
        users = graph.users.get(name, [])
        if finite.size and float(finite.max()) > FP16_MOST and users:
            most = float(finite.max())
            found = f"constant {name!r} reaches {most:.3g}; FP16 ends at {FP16_MOST:g}, so it becomes infinite"
            yield graph.finding(
                "warning", "fp16-range", users[0], found, "Keep this layer in FP32, or scale the constant."
            )


def _wide_integers(graph: Graph) -> Iterator[Finding]:
    """INT64 constants that INT32 cannot hold. The bounds of a Slice are meant to be clamped."""
    if graph.table is None or graph.table.native_int64:
        return
    for name, value in graph.values.items():
        if value.dtype != np.int64 or not value.size or INT32.min <= value.min() <= value.max() <= INT32.max:
            continue
        users = [u for u, tensor in _final_uses(graph, name) if u.op_type != "Slice" or tensor == u.input[0]]
        if users:
            found = f"INT64 constant {name!r} leaves the range of INT32, to which it is clamped"
            yield graph.finding("error", "int64", users[0], found, "Use smaller numbers.")


def _final_uses(graph: Graph, name: str) -> Iterator[tuple[NodeProto, str]]:
    """(node, what it reads) of everything that computes with the numbers of a constant, wherever they are carried."""
    for user in graph.users.get(name, []):
        if not _carries(user, name):
            yield user, name
            continue
        if user.output[0] in graph.outputs:
            yield user, name
        yield from _final_uses(graph, user.output[0])


def _carries(node: NodeProto, name: str) -> bool:
    """Whether the same INT64 numbers come out. Cast to INT32 they are others."""
    if node.op_type == "Cast":
        return bool(attribute(node, "to") == TensorProto.INT64)
    return node.op_type == "Concat" or (node.op_type in CARRYING and name == node.input[0])


def _integer_arithmetic(graph: Graph) -> Iterator[Finding]:
    """INT64 computed from the image: it is INT32 there."""
    if graph.table is None or graph.table.native_int64:
        return
    for _, node in graph.nodes:
        names = [n for n in node.input if n in graph.live and graph.types.get(n) == TensorProto.INT64]
        if names and node.op_type in INTEGER_ARITHMETIC:
            found = f"{node.op_type} of INT64 ({names[0]}) is computed in INT32"
            yield graph.finding("note", "int64", node, found, "Nothing to do below 2**31; better compute in float.")


GRAPH_RULES: tuple[Callable[[Graph], Iterator[Finding]], ...] = (
    _opset,
    _inputs,
    _outputs,
    _int8_hardware,
    _half_range,
    _wide_integers,
    _integer_arithmetic,
)


def tensorrt_findings(graph: Graph) -> Iterator[Finding]:
    """Everything that TensorRT's parser on this board would refuse, change or be slow at."""
    for rule in GRAPH_RULES:
        yield from rule(graph)
    refused = graph.board.gpu is not None and not graph.board.gpu.fast_int8
    for _, node in graph.nodes:
        if refused and node.op_type in ("QuantizeLinear", "DequantizeLinear"):
            continue  # said once, by the rule of the hardware
        yield from unsupported_operator(graph, node)
        for operator_rule in OPERATOR_RULES.get(node.op_type, ()):
            yield from operator_rule(graph, node)
