"""Lint's rules for TensorRT's parser, one function for each thing that can be wrong with an operator.

The facts are those of onnx-tensorrt's importers per release. A rule is a generator of findings; ``OPERATOR_RULES`` says
which rules look at which operator, ``GRAPH_RULES`` which look at the file as a whole.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType

import numpy as np
from onnx import NodeProto, TensorProto, defs

from .findings import EXPORT, Finding, Graph, Severity, attribute, operand
from .graph import PLAIN_CONSTANTS
from .rules_quantization import quantizer

NodeRule = Callable[[Graph, NodeProto], Iterator[Finding]]

TOPK_MOST = 3840  # NvInfer.h of every release from 8.2.1 to 11.1
RESIZE_MODES = ("nearest", "linear")
RESIZE_COORDINATES = ("half_pixel", "pytorch_half_pixel", "tf_half_pixel_for_nn", "asymmetric", "align_corners")
ALL_RELEASES = (99,)  # later than every release: what holds before it holds always
PLAIN_CONSTANTS_FROM = (8, 5)  # the oldest release whose importer is known to read them; 7.2 reads ``value`` alone
NMS_SLOW_SCORE = 0.007  # below it EfficientNMS_TRT leaves its fast path
REMOVED_IN_11 = frozenset({"BatchedNMS_TRT", "BatchedNMSDynamic_TRT", "NMS_TRT"})

FOLD = "Export with static shapes and simplify, so that it becomes a constant."
# What to write instead of an operator that is not there.
INSTEAD: Mapping[str, str] = MappingProxyType(
    {
        "HardSwish": "Export with opset 13, which writes it as HardSigmoid and Mul.",
        "Mish": "Write it as x * tanh(softplus(x)).",
        "Gelu": "Write it with Erf, as opset 13 does.",
        "Mod": "Write a % b as a - floor(a / b) * b.",
        "OneHot": "Gather the rows of a constant identity matrix.",
        "NonZero": "Take the best K with TopK and filter on the host: the output's size must not depend on the image.",
        "GridSample": "Resize, or sample with Gather; a plugin would have to be built for the board.",
        "DeformConv": "Use a plain convolution; 8.6 and later have the plugin ModulatedDeformConv2d.",
        "RoiAlign": "Use a one-stage head, or crop and Resize with constant boxes.",
        "LayerNormalization": "Export with opset 13, which writes it as ReduceMean, Sub, Pow, Sqrt and Div.",
        "GroupNormalization": "Export with opset 13, which writes it as InstanceNormalization.",
        "MeanVarianceNormalization": "Write it as ReduceMean, Sub, Pow, Sqrt and Div.",
        "Xor": "Write it with And, Or and Not.",
        "Trilu": "Multiply with a constant mask.",
        "IsInf": "Compare with a large constant.",
        "Hardmax": "Use ArgMax.",
        "BitShift": "Multiply or divide by a power of two.",
        "Shrink": "Write it with Where.",
        "Unique": "Do it on the host.",
        "QLinearConv": "Quantize with Q/DQ nodes: edgekit quantize --flavour trt",
        "QLinearMatMul": "Quantize with Q/DQ nodes: edgekit quantize --flavour trt",
        "ConvInteger": "Quantize with Q/DQ nodes: edgekit quantize --flavour trt",
        "MatMulInteger": "Quantize with Q/DQ nodes: edgekit quantize --flavour trt",
        "DynamicQuantizeLinear": "Quantize statically: edgekit quantize --flavour trt",
    }
)


# -- which operators and types there are ------------------------------------------------------------------------------
def unsupported_operator(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    table = graph.table
    assert table is not None
    if node.op_type in table.operators and node.domain in ("", "ai.onnx"):
        yield from _unsupported_type(graph, node)
    elif node.op_type in table.plugins:
        yield from _plugin(graph, node)
    else:
        where = f" (domain {node.domain!r})" if node.domain not in ("", "ai.onnx") else ""
        advice = INSTEAD.get(node.op_type, "Replace it in the network, or keep this part out of the exported graph.")
        yield graph.finding("error", "operator", node, f"{table.title} has no {node.op_type}{where}", advice)


def _unsupported_type(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    assert graph.table is not None
    allowed = graph.table.operators[node.op_type]
    for name in _data_inputs(node):
        kind = graph.kind(name)
        if kind is None or kind in allowed or (kind == "DOUBLE" and "FP32" in allowed):
            continue
        if kind == "UINT8" and graph.version < (8, 5) and _is_pixels(graph):
            continue  # said once, of the input
        severity: Severity = "error" if name in graph.live else "warning"
        yield graph.finding(
            severity,
            "type",
            node,
            f"{node.op_type} of {kind} ({name}); {graph.table.title} documents it for {', '.join(allowed)}",
            _advice_to_cast(kind, allowed[0], graph) if name in graph.live else FOLD,
        )
        return


def _advice_to_cast(kind: str, wanted: str, graph: Graph) -> str:
    if kind == "UINT8" and _is_pixels(graph):
        return f"Export it for this board ({EXPORT}), or cast the pixels to {wanted}."
    return f"Cast to {wanted} before it."


def _is_pixels(graph: Graph) -> bool:
    return any(v.type.tensor_type.elem_type == TensorProto.UINT8 for v in graph.model.graph.input)


def _data_inputs(node: NodeProto) -> list[str]:
    """Inputs that carry the operator's data: those of the same type as the first, for Where as the second."""
    if node.op_type in (
        "Cast",
        "Shape",
        "Size",
        "Constant",
        "ConstantOfShape",
        "Range",
        "If",
        "Loop",
        "Scan",
        "Identity",
    ):
        return []
    first = 1 if node.op_type == "Where" else 0
    if not defs.has(node.op_type) or len(node.input) <= first:
        return list(node.input[:1])
    formals = defs.get_schema(node.op_type).inputs
    wanted = formals[min(first, len(formals) - 1)].type_str
    return [n for i, n in enumerate(node.input) if n and formals[min(i, len(formals) - 1)].type_str == wanted]


def _plugin(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    table = graph.table
    assert table is not None
    if graph.version >= (11,) and node.op_type in REMOVED_IN_11:
        yield graph.finding(
            "error",
            "plugin",
            node,
            f"{node.op_type} was removed in TensorRT 11",
            "Use EfficientNMS_TRT, or NMS on the host.",
        )
    if node.domain not in ("", "ai.onnx"):
        found = f"plugin in the domain {node.domain!r}; from 10.10 on that is read as the plugin's namespace"
        yield graph.finding("warning", "plugin", node, found, "Leave the node's domain empty.")
    known = table.plugins[node.op_type]
    for entry in node.attribute:
        if known is not None and entry.name not in (*known, "plugin_namespace"):
            yield _unread_attribute(graph, node, entry.name)


def _unread_attribute(graph: Graph, node: NodeProto, name: str) -> Finding:
    assert graph.table is not None
    agnostic = name == "class_agnostic"
    wanted = agnostic and bool(attribute(node, name, 0))
    found = f"{node.op_type} has no attribute {name!r} in {graph.table.title}; it is not read, and nothing is said"
    if not agnostic:
        return graph.finding("warning", "plugin-attribute", node, found, "Remove it.")
    if not wanted:
        return graph.finding("note", "plugin-attribute", node, f"{found} (it is 0, as there)", "Remove it.")
    advice = "Take the maximum over the classes before it, or run NMS on the host; class_agnostic exists from 8.6 on."
    return graph.finding("error", "plugin-attribute", node, f"{found}: NMS would be per class", advice)


# -- one operator each ------------------------------------------------------------------------------------------------
def _topk(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    k = graph.value(operand(node, 1)) if len(node.input) > 1 else np.asarray(attribute(node, "k", 1))
    if k is None:
        if graph.version < (8, 6):
            yield graph.finding("error", "topk", node, "K is computed; before 8.6 it must be a constant", FOLD)
        else:
            yield graph.finding("warning", "topk", node, f"K is computed; it may not exceed {TOPK_MOST}", FOLD)
    elif int(k.ravel()[0]) > TOPK_MOST:
        found = f"TopK with K = {int(k.ravel()[0])}; TensorRT's limit is {TOPK_MOST} in every release"
        yield graph.finding(
            "error", "topk", node, found, f"Keep at most {TOPK_MOST}; 100 to 300 are enough for a detector."
        )
    if graph.version >= (9,) and attribute(node, "sorted", 1) != 1:
        yield graph.finding(
            "error", "topk", node, "TopK with sorted = 0; only sorted results exist", "Set sorted to 1."
        )


def _resize(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    mode = attribute(node, "mode", "nearest")
    if mode not in RESIZE_MODES and graph.version < (9,):
        found = f"Resize in mode {mode!r}; there are {' and '.join(RESIZE_MODES)}"
        yield graph.finding("error", "resize", node, found, "Use nearest or bilinear interpolation.")
    coordinates = attribute(node, "coordinate_transformation_mode", "half_pixel")
    if node.op_type == "Resize" and coordinates not in RESIZE_COORDINATES:
        found = f"Resize with coordinates {coordinates!r}; there are {', '.join(RESIZE_COORDINATES)}"
        yield graph.finding("error", "resize", node, found, "Export with align_corners=False, which gives half_pixel.")
    nearest = attribute(node, "nearest_mode", "round_prefer_floor")
    if coordinates == "tf_half_pixel_for_nn" and nearest != "round_prefer_floor":
        found = (
            f"Resize with coordinates {coordinates!r} and nearest_mode {nearest!r}; with them it rounds one way only"
        )
        yield graph.finding(
            "error", "resize", node, found, "Use nearest_mode round_prefer_floor, or asymmetric and floor."
        )
    for name, neutral in (("antialias", 0), ("keep_aspect_ratio_policy", "stretch"), ("exclude_outside", 0)):
        value = attribute(node, name, neutral)
        if value != neutral:
            yield graph.finding("error", "resize", node, f"Resize with {name} = {value}", "Resize without it.")
    yield from _resized_axes(graph, node)
    scales = operand(node, 2) if node.op_type == "Resize" and graph.opset >= 11 else operand(node, 1)
    if scales and graph.value(scales) is None and not operand(node, 3):
        yield graph.finding("error", "resize", node, "the scales of Resize must be constants", FOLD)
    yield from _resized_dimensions(graph, node, mode)


def _resized_axes(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """``axes`` came with opset 18: releases before 10 do not read it, later ones take all axes in their order."""
    shape = graph.shapes.get(node.input[0])
    axes = list(attribute(node, "axes", []))
    rank = len(axes) if shape is None else len(shape)
    if axes and [axis % rank for axis in axes] != list(range(rank)):
        found = f"Resize with axes = {axes}; there are scales or sizes of all axes only"
        yield graph.finding("error", "resize", node, found, "Give a scale or size for every axis, and no axes.")


def _resized_dimensions(graph: Graph, node: NodeProto, mode: str) -> Iterator[Finding]:
    """Linear interpolation works in the last three dimensions."""
    before, after = graph.shapes.get(node.input[0]), graph.shapes.get(node.output[0])
    if mode == "nearest" or before is None or after is None or len(before) != len(after):
        return
    if any(a != b for a, b in zip(before[:-3], after[:-3], strict=True)):
        found = f"{mode} Resize from {list(before)} to {list(after)}: only the last three dimensions can be resized"
        yield graph.finding("error", "resize", node, found, "Resize height and width only.")


def _nms(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    advice = "Export without NMS and let the host do it (EdgeKit does), or use EfficientNMS_TRT."
    assert graph.table is not None
    if node.op_type not in graph.table.experimental:
        found = "NonMaxSuppression: the number of boxes depends on the image, so the output needs an allocator"
        yield graph.finding("warning", "nms", node, found, advice)
        return
    found = "NonMaxSuppression is experimental: its output always has max_output_boxes_per_class rows, padded"
    yield graph.finding("warning", "nms", node, found, advice)
    for index, name in ((2, "max_output_boxes_per_class"), (3, "iou_threshold"), (4, "score_threshold")):
        if operand(node, index) and graph.value(operand(node, index)) is None:
            yield graph.finding("error", "nms", node, f"{name} of NonMaxSuppression must be a constant", FOLD)


def _efficient_nms(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    score = float(attribute(node, "score_threshold", 0.25))
    if score < NMS_SLOW_SCORE:
        found = f"score_threshold {score:g}: below {NMS_SLOW_SCORE} the plugin takes a slow path"
        yield graph.finding("warning", "nms", node, found, "Use 0.01 or more.")
    if graph.version >= (10, 12):
        yield graph.finding("note", "nms", node, "deprecated since 10.12 in favour of INMSLayer", "It still works.")


def _pool(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    if len(node.output) > 1 and node.output[1]:
        used = node.output[1] in graph.users or node.output[1] in graph.outputs
        severity: Severity = "error" if used else "warning"
        yield graph.finding(
            severity, "pool", node, "MaxPool's second output (indices) does not exist", "Do without it."
        )
    dilations = attribute(node, "dilations", [])
    if any(d != 1 for d in dilations):
        found = f"pooling with dilations {list(dilations)}; only 1 is possible"
        yield graph.finding("error", "pool", node, found, "Use a larger kernel, or several pools.")
    shape = graph.shapes.get(node.input[0])
    if shape is not None and len(shape) not in (4, 5) and graph.version < (9,):
        yield graph.finding(
            "error", "pool", node, f"pooling of {list(shape)}: 2-D and 3-D only", "Add a dimension of 1."
        )


def _convolution(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    bias = operand(node, 2)
    if bias and not _is_constant(graph, bias):
        yield graph.finding(
            "error", "convolution", node, "the bias must be a constant", "Add it after the convolution."
        )
    if not _is_constant(graph, operand(node, 1)):
        found = "the weights are computed; the documents ask for constants"
        yield graph.finding("warning", "convolution", node, found, FOLD)
    pads = list(attribute(node, "pads", []))
    if node.op_type == "ConvTranspose" and any(p < 0 for p in pads):
        yield graph.finding("error", "convolution", node, f"ConvTranspose with negative pads {pads}", "Slice after it.")


def _is_constant(graph: Graph, name: str) -> bool:
    """A constant, or one that is stored in INT8 and dequantized."""
    maker = graph.makers.get(name)
    while maker is not None and maker.op_type in ("DequantizeLinear", "QuantizeLinear", "Transpose"):
        name = maker.input[0]
        maker = graph.makers.get(name)
    return graph.value(name) is not None


def _pad(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    mode = attribute(node, "mode", "constant")
    if mode == "wrap" and graph.version < (10,):
        yield graph.finding(
            "error", "pad", node, "Pad in mode 'wrap' exists from 10.0 on", "Use constant, edge or reflect."
        )
    elif mode in ("edge", "reflect") and graph.version < (8, 2):
        yield graph.finding("error", "pad", node, f"Pad in mode {mode!r} exists from 8.2 on", "Pad with a constant.")


def _constant_operand(index: int, what: str, until: tuple[int, ...]) -> NodeRule:
    """A rule: this input must be a constant in releases before ``until``."""

    def rule(graph: Graph, node: NodeProto) -> Iterator[Finding]:
        name = operand(node, index)
        if name and graph.version < until and graph.value(name) is None:
            yield graph.finding("error", "constant", node, f"{what} of {node.op_type} must be constant", FOLD)

    return rule


def _parameters(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    """Normalisation layers take their parameters as constants."""
    for name in node.input[1:]:
        if name and graph.value(name) is None:
            yield graph.finding("error", "constant", node, f"{node.op_type}: {name} must be a constant", FOLD)
    shape = graph.shapes.get(node.input[0])
    if node.op_type == "InstanceNormalization" and shape is not None and not 3 <= len(shape) <= 5:
        yield graph.finding(
            "error", "constant", node, f"InstanceNormalization of rank {len(shape)}; 3 to 5", "Reshape it."
        )


def _range(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    constant = all(graph.value(name) is not None for name in node.input)
    kinds = {graph.kind(name) for name in node.input}
    if graph.version < (8, 4) and not constant and kinds & {"FP32", "FP16", "DOUBLE"}:
        found = "Range of computed floating-point limits; before 8.4 they must be constants"
        yield graph.finding("error", "range", node, found, f"Build the grid with constants. {FOLD}")
    elif not constant and graph.opset > (graph.stack.opset_max if graph.stack else graph.opset):
        found = "Range of computed limits from a newer opset is where 8.2's parser was seen to fail"
        yield graph.finding("warning", "range", node, found, FOLD)


def _einsum(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    equation = attribute(node, "equation", "").replace(" ", "")
    inputs = equation.split("->")[0].split(",")
    problems = []
    if "..." in equation:
        problems.append("an ellipsis")
    if any(len(set(term)) < len(term) for term in inputs):
        problems.append("a diagonal")
    if any(c.isupper() for c in equation):
        problems.append("upper-case letters")
    if problems and graph.version < (10, 12):
        found = f"Einsum {equation!r} with {' and '.join(problems)}"
        yield graph.finding("error", "einsum", node, found, "Write it as MatMul, Transpose and ReduceSum.")


def _cast(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    code = int(attribute(node, "to", 0))
    source = graph.kind(node.input[0])
    name = TensorProto.DataType.Name(code) if code in TensorProto.DataType.values() else str(code)
    if name == "DOUBLE":
        found, advice = "Cast to DOUBLE becomes FP32, with values clamped", "Compute in FP32, so that nothing changes."
        yield graph.finding("warning", "cast", node, found, advice)
    elif name == "UINT8" or source == "UINT8":
        if graph.version < (8, 5) and _is_pixels(graph):
            return  # said once, of the input
        if graph.version < (8, 5):
            found = "UINT8 does not exist before TensorRT 8.5"
            yield graph.finding("error", "cast", node, found, "Export with a float input (layout nchw_float).")
        elif not {name, source} & {"FLOAT", "FLOAT16", "FP32", "FP16"}:
            found = f"Cast from {source} to {name}: UINT8 is cast from and to floating point only"
            yield graph.finding("error", "cast", node, found, "Go through FP32.")
    elif name in ("STRING", "UINT16", "UINT32", "UINT64", "INT16", "COMPLEX64", "COMPLEX128"):
        yield graph.finding("error", "cast", node, f"Cast to {name}", "Use INT32 or FP32.")


def _scatter(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    reduction = attribute(node, "reduction", "none")
    possible = node.op_type == "ScatterElements" and graph.version >= (10,)
    if reduction != "none" and not possible:
        yield graph.finding(
            "error", "scatter", node, f"{node.op_type} with reduction {reduction!r}", "Scatter without it."
        )


def _constant(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    plain = [entry.name for entry in node.attribute if entry.name in PLAIN_CONSTANTS]
    if plain and graph.version < PLAIN_CONSTANTS_FROM:
        found = f"Constant with {plain[0]}; TensorRT is known to read it from 8.5 on, and before that a tensor (value)"
        advice = "Simplify the file (onnxsim), or: edgekit import-onnx FILE; both store it as a tensor."
        yield graph.finding("warning", "constant", node, found, advice)


def _control_flow(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    found = f"{node.op_type}: control flow is restricted (shapes of the branches, types of what is carried) and slow"
    yield graph.finding("warning", "control-flow", node, found, f"Take it out of the network's forward(). {FOLD}")


def _grid_sample(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    shape = graph.shapes.get(node.input[0])
    if shape is not None and len(shape) != 4:
        yield graph.finding(
            "error", "grid-sample", node, f"GridSample of rank {len(shape)}; 4-D only", "Reshape it to 4-D."
        )


def _data_dependent(graph: Graph, node: NodeProto) -> Iterator[Finding]:
    found = f"{node.op_type}: the size of its output depends on the image"
    yield graph.finding("warning", "data-dependent", node, found, INSTEAD["NonZero"])


OPERATOR_RULES: Mapping[str, tuple[NodeRule, ...]] = MappingProxyType(
    {
        "TopK": (_topk,),
        "Resize": (_resize,),
        "Upsample": (_resize,),
        "NonMaxSuppression": (_nms,),
        "EfficientNMS_TRT": (_efficient_nms,),
        "MaxPool": (_pool,),
        "AveragePool": (_pool,),
        "Conv": (_convolution,),
        "ConvTranspose": (_convolution,),
        "Pad": (_pad,),
        "Slice": (_constant_operand(3, "the axes", (10, 3)),),
        "Squeeze": (_constant_operand(1, "the axes", (10, 7)),),
        "Unsqueeze": (_constant_operand(1, "the axes", ALL_RELEASES),),
        "ReduceSum": (_constant_operand(1, "the axes", ALL_RELEASES),),
        "Clip": (_constant_operand(1, "min", (8, 5)), _constant_operand(2, "max", (8, 5))),
        "CumSum": (_constant_operand(1, "the axis", ALL_RELEASES),),
        "BatchNormalization": (_parameters,),
        "InstanceNormalization": (_parameters,),
        "Constant": (_constant,),
        "Range": (_range,),
        "Einsum": (_einsum,),
        "Cast": (_cast,),
        "ScatterND": (_scatter,),
        "ScatterElements": (_scatter,),
        "If": (_control_flow,),
        "Loop": (_control_flow,),
        "Scan": (_control_flow,),
        "GridSample": (_grid_sample,),
        "NonZero": (_data_dependent,),
        "QuantizeLinear": (quantizer,),
        "DequantizeLinear": (quantizer,),
    }
)
