"""Which layers lose most by INT8? Each is quantized alone, and the error is read at the ends of the head."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, helper, numpy_helper

from ..progress import Count, quiet
from ..runtime.preprocess import Preprocess
from .child import run_in_child
from .compare import Array, fill_batch, network_inputs
from .findings import attribute
from .graph import constants, initializers, last_layers, load_model, name_nodes, own_biases, weighted_layers
from .session import cpu_session

IMAGES = 4  # enough to rank layers by; the errors of single images differ little
_LEVELS = 255


def rank_layers(
    model: str | Path,
    images: Sequence[str | Path],
    preprocess: Preprocess,
    layout: str,
    ranges: Mapping[str, Sequence[float]],
    skip: Sequence[str] = (),
    progress: Count | None = None,
) -> list[tuple[str, float]]:
    """(node name, error) of every weighted layer but ``skip``, the most sensitive first.

    error: squared difference at the ends of the head, relative to their variance, with this layer alone in INT8
    progress: (layers done, all layers)
    """
    request = {
        "model": str(model),
        "images": [str(path) for path in images[:IMAGES]],
        "preprocess": preprocess.to_dict(),
        "layout": layout,
        "ranges": dict(ranges),
        "skip": list(skip),
    }
    child = "edgekit.conversion.sensitivity:layer_errors"
    errors = run_in_child(child, request, "rank layers", model, progress or quiet)
    return sorted(errors.items(), key=lambda item: -item[1])


def layer_errors(
    model: str,
    images: Sequence[str],
    preprocess: Mapping[str, Any],
    layout: str,
    ranges: Mapping[str, Sequence[float]],
    skip: Sequence[str],
    progress: Count,
) -> dict[str, float]:
    """The child's side of ``rank_layers``."""
    graph = load_model(model)
    name_nodes(graph)
    own_biases(graph)
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    inputs = [fill_batch(x, batch) for x in network_inputs(images, Preprocess.from_dict(preprocess), layout)]
    ends = [node.output[0] for node in last_layers(graph)]
    reference = _run(graph, ends, inputs)
    layers = [n.name for n in weighted_layers(graph) if n.name not in skip and n.input[0] in ranges]
    errors = {}
    for done, name in enumerate(layers):
        progress(done, len(layers))
        errors[name] = _error(reference, _run(_with_one_quantized(graph, name, ranges), ends, inputs))
    progress(len(layers), len(layers))
    return errors


def _run(model: ModelProto, ends: Sequence[str], inputs: Sequence[Array]) -> list[list[Array]]:
    graph = ModelProto()
    graph.CopyFrom(model)
    del graph.graph.output[:]
    graph.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in ends)
    session = cpu_session(graph)
    return [session.run(list(ends), {"image": image}) for image in inputs]


def _error(reference: Sequence[Sequence[Array]], found: Sequence[Sequence[Array]]) -> float:
    """Mean over images of the sum over the head's ends of MSE / variance."""
    parts = [
        [float(np.mean((b - a) ** 2) / max(float(np.var(a)), 1e-12)) for a, b in zip(one, other, strict=True)]
        for one, other in zip(reference, found, strict=True)
    ]
    return float(np.mean([sum(image) for image in parts]))


def _with_one_quantized(model: ModelProto, name: str, ranges: Mapping[str, Sequence[float]]) -> ModelProto:
    """A copy in which one layer's weights are rounded to INT8 and its input passes through Q and DQ."""
    copy = ModelProto()
    copy.CopyFrom(model)
    node = next(n for n in copy.graph.node if n.name == name)
    _round_weights(copy, node)
    low, high = (min(0.0, ranges[node.input[0]][0]), max(0.0, ranges[node.input[0]][1]))
    scale = max((high - low) / _LEVELS, 1e-12)
    zero = np.clip(np.rint(-low / scale), 0, _LEVELS)
    parameters: dict[str, Array] = {"one_scale": np.array(scale, np.float32), "one_zero": np.array(zero, np.uint8)}
    copy.graph.initializer.extend(numpy_helper.from_array(value, name) for name, value in parameters.items())
    pair = [
        helper.make_node("QuantizeLinear", [node.input[0], "one_scale", "one_zero"], ["one_quantized"]),
        helper.make_node("DequantizeLinear", ["one_quantized", "one_scale", "one_zero"], ["one_restored"]),
    ]
    at = list(copy.graph.node).index(node)
    node.input[0] = "one_restored"
    for place, extra in enumerate(pair):
        copy.graph.node.insert(at + place, extra)
    return copy


def _round_weights(model: ModelProto, node: NodeProto) -> None:
    """Weights to the nearest of 255 steps per output channel, as the quantizer does; other layers keep theirs."""
    known = constants(model)
    at, name = next((at, name) for at, name in enumerate(node.input) if name in known)
    if name not in initializers(model):
        return
    weight: NDArray[np.float32] = numpy_helper.to_array(initializers(model)[name])
    gemm = 0 if attribute(node, "transB", 0) else 1
    axis = {"ConvTranspose": 1, "MatMul": weight.ndim - 1, "Gemm": gemm}.get(node.op_type, 0)
    others = tuple(i for i in range(weight.ndim) if i != axis)
    scale = np.maximum(np.abs(weight).max(axis=others, keepdims=True) / (_LEVELS // 2), 1e-12)
    rounded = (np.rint(weight / scale) * scale).astype(np.float32)
    node.input[at] = f"{name}.rounded"
    model.graph.initializer.append(numpy_helper.from_array(rounded, node.input[at]))
