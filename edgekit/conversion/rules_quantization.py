"""Lint's rules for QuantizeLinear and DequantizeLinear: symmetric INT8, one scale per activation, float biases."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from onnx import NodeProto, TensorProto

from .findings import Finding, Graph, Severity, attribute, operand

ADVICE = "Quantize with: edgekit quantize --flavour trt"
# Before it TensorRT is taken to want FP32 weights: 8.2 refuses others (microsoft/onnxruntime#11535), 10 documents them.
INT8_WEIGHTS = (8, 6)


def quantizer(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """Both operators: zero point, element type, scale and axis."""
    zero = operand(node, 2)
    if not zero and graph.version < (8, 5):
        yield graph.finding(
            "error", "qdq", node, f"{node.op_type} without a zero point; 8.2 needs all three inputs", ADVICE
        )
    kind = graph.kind(zero) if zero else None
    if kind == "UINT8":
        yield graph.finding("error", "qdq", node, "the zero point is UINT8; TensorRT takes symmetric INT8 only", ADVICE)
    value = graph.value(zero) if zero else None
    if zero and value is None:
        yield graph.finding("error", "qdq", node, "the zero point is computed; it must be a constant 0", ADVICE)
    elif value is not None and kind != "UINT8" and np.any(value):
        found = f"zero point {int(value.ravel()[np.argmax(value.ravel() != 0)])}; TensorRT takes 0 only (symmetric)"
        yield graph.finding("error", "qdq", node, found, ADVICE)
    if node.op_type == "DequantizeLinear" and graph.types.get(node.input[0]) == TensorProto.INT32:
        found = "a bias stored as INT32 and dequantized; the parser refuses INT32 here"
        yield graph.finding("error", "qdq", node, found, f"Keep biases in float. {ADVICE}")
    if graph.version < INT8_WEIGHTS and _stored_in_int8(graph, node):
        found = "weights stored in INT8; TensorRT before 8.6 takes them in FP32 behind Quantize- and DequantizeLinear"
        advice = f"ONNX Runtime's quantizer writes that with AddQDQPairToWeight=True. {ADVICE}"
        yield graph.finding("error", "qdq", node, found, advice)
    yield from _quantized_axis(graph, node)


def _stored_in_int8(graph: Graph, node: NodeProto) -> bool:
    stored = graph.types.get(node.input[0]) == TensorProto.INT8 and graph.value(node.input[0]) is not None
    return node.op_type == "DequantizeLinear" and stored


def _quantized_axis(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    scale = graph.value(operand(node, 1))
    if scale is None:
        yield graph.finding("error", "qdq", node, "the scale is computed; it must be a constant", ADVICE)
        return
    if np.any(scale <= 0):
        yield graph.finding("error", "qdq", node, "a scale is not positive", "Calibrate again.")
    if scale.size <= 1:
        return
    if node.input[0] in graph.live:
        found = f"{scale.size} scales for an activation: layers are not fused with them, which is slow"
        yield graph.finding("warning", "qdq", node, found, ADVICE)
        return
    for user in _weighted_users(graph, node):
        wanted = 1 if user.op_type == "ConvTranspose" else 0
        axis = int(attribute(node, "axis", 1))
        if user.op_type in ("Conv", "ConvTranspose") and axis != wanted:
            found = f"weights of a {user.op_type} quantized along axis {axis}; the output channels are axis {wanted}"
            # later releases take it, without fusing it
            severity: Severity = "error" if graph.version < (10,) else "warning"
            yield graph.finding(severity, "qdq", node, found, ADVICE)


def _weighted_users(graph: Graph, node: NodeProto) -> list[NodeProto]:
    users = [u for output in node.output for u in graph.users.get(output, [])]
    return [v for u in users for v in (_weighted_users(graph, u) if u.op_type == "DequantizeLinear" else [u])]
