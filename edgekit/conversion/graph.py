"""Small, exact edits and questions about ONNX graphs, shared by export, simplification and quantization."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper, shape_inference
from onnx.checker import ValidationError

from ..measure.graph import consumers as consumers  # questions that measuring asks too
from ..measure.graph import module_of as module_of
from ..measure.graph import producers as producers
from ..runtime.errors import BadInput
from .foreign import bodies

# Element-wise integer operators. TensorRT 8.2 computes int64 as int32 and refuses several of these on integers.
ARITHMETIC = frozenset(
    {
        *(
            "Abs",
            "Add",
            "And",
            "BitShift",
            "CumSum",
            "Div",
            "Equal",
            "Greater",
            "GreaterOrEqual",
            "Less",
            "LessOrEqual",
        ),
        *("Max", "Min", "Mod", "Mul", "Neg", "Not", "Or", "Pow", "Range", "Sign", "Sub", "Sum", "Where", "Xor"),
        *("ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceSum"),
    }
)

# Attributes in which a Constant of opset 12 and later holds numbers without a tensor, and their element type
PLAIN_CONSTANTS: Mapping[str, type[Any]] = MappingProxyType(
    {"value_float": np.float32, "value_floats": np.float32, "value_int": np.int64, "value_ints": np.int64}
)


def load_model(path: str | Path) -> ModelProto:
    """Read and check an ONNX file. Raises BadInput naming a file that is missing, truncated or not ONNX."""
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        onnx.checker.check_model(model)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file. Make it with: edgekit export RECIPE") from error
    except (DecodeError, ValidationError, ValueError) as error:
        first = next(iter(str(error).strip().splitlines()), type(error).__name__)
        raise BadInput(f"{path}: not a readable ONNX file ({first}). Export it again: edgekit export RECIPE") from error
    return model


def opset(model: ModelProto) -> int:
    """Version of the default operator set."""
    return next(int(entry.version) for entry in model.opset_import if entry.domain in ("", "ai.onnx"))


def initializers(model: ModelProto) -> dict[str, TensorProto]:
    return {tensor.name: tensor for tensor in model.graph.initializer}


def constants(model: ModelProto) -> dict[str, np.ndarray]:
    """Every constant of the graph by tensor name: initializers and the outputs of Constant nodes."""
    found = {t.name: numpy_helper.to_array(t) for t in model.graph.initializer}
    for node in model.graph.node:
        value = constant_value(node)
        if value is not None:
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def constant_value(node: NodeProto) -> TensorProto | None:
    """What a Constant node holds, in whichever of its attributes; None for text, a sparse one, and other operators."""
    for entry in node.attribute if node.op_type == "Constant" else ():
        if entry.name == "value":
            return entry.t
        if entry.name in PLAIN_CONSTANTS:
            return numpy_helper.from_array(np.asarray(helper.get_attribute_value(entry), PLAIN_CONSTANTS[entry.name]))
    return None


def int64_arithmetic(model: ModelProto) -> list[str]:
    """Names of the nodes that compute on int64 tensors; TensorRT 8.2 dislikes them. Indexing (Gather, TopK) is fine."""
    types = _element_types(shape_inference.infer_shapes(model))
    return [
        node.name or node.output[0]
        for node in model.graph.node
        if node.op_type in ARITHMETIC and any(types.get(t) == TensorProto.INT64 for t in (*node.input, *node.output))
    ]


def _element_types(model: ModelProto) -> dict[str, int]:
    graph = model.graph
    types = {t.name: int(t.data_type) for t in graph.initializer}
    types.update((v.name, int(v.type.tensor_type.elem_type)) for v in (*graph.input, *graph.output, *graph.value_info))
    return types


# -- edits ------------------------------------------------------------------------------------------------------------
def fold_input_scale(model: ModelProto) -> int:
    """Move ``(x - mean) / std`` to ``x - mean`` and convolution weights divided by std. Returns how many were folded.

    The mean stays: zero padding comes after it, so that it cannot move into the bias without changing the border.
    """
    values, uses, tensors = constants(model), consumers(model), initializers(model)
    folded = 0
    for node in [n for n in model.graph.node if n.op_type in ("Div", "Mul") and n.input[1] in values]:
        scale = values[node.input[1]]
        followers = uses.get(node.output[0], [])
        if scale.ndim != 4 or scale.size != scale.shape[1] or len(followers) != 1:
            continue
        conv = followers[0]
        if conv.op_type != "Conv" or conv.input[1] not in tensors or len(uses[conv.input[1]]) != 1 or groups(conv) > 1:
            continue
        weight = numpy_helper.to_array(tensors[conv.input[1]]).astype(np.float64)
        factor = scale.reshape(1, -1, 1, 1).astype(np.float64)
        weight = weight / factor if node.op_type == "Div" else weight * factor
        tensors[conv.input[1]].CopyFrom(numpy_helper.from_array(weight.astype(np.float32), conv.input[1]))
        conv.input[0] = node.input[0]
        model.graph.node.remove(node)
        folded += 1
    return folded


def groups(conv: NodeProto) -> int:
    """Of a convolution: 1 where it says nothing."""
    return next((int(a.i) for a in conv.attribute if a.name == "group"), 1)


def reads(node: NodeProto) -> set[str]:
    """Names of the tensors that a node reads; those that the bodies of an If or a Loop capture are among them."""
    inner = {name for body in bodies(node) for one in body.node for name in reads(one)}
    return {*node.input, *inner}


def rename_inputs(node: NodeProto, names: Mapping[str, str]) -> None:
    """Let a node, and the nodes of its bodies, read other tensors. No body has a tensor of an outer one's name."""
    node.input[:] = [names.get(name, name) for name in node.input]
    for body in bodies(node):
        for one in body.node:
            rename_inputs(one, names)


def drop_identities(model: ModelProto) -> None:
    """Remove Identity nodes; the exporter makes them where two layers share equal constants."""
    graph = model.graph
    kept = {v.name for v in graph.output}
    source = {n.output[0]: n.input[0] for n in graph.node if n.op_type == "Identity" and n.output[0] not in kept}

    def resolve(name: str) -> str:
        while name in source:
            name = source[name]
        return name

    nodes = [n for n in graph.node if n.output[0] not in source]
    for node in nodes:
        rename_inputs(node, {name: resolve(name) for name in reads(node)})
    _set_nodes(model, nodes)


def constants_to_initializers(model: ModelProto) -> None:
    """Constant nodes become initializers; TensorRT asks for them at a Resize's scales and a TopK's K."""
    nodes = []
    for node in model.graph.node:
        value = constant_value(node)
        if value is None:
            nodes.append(node)
            continue
        tensor = model.graph.initializer.add()
        tensor.CopyFrom(value)
        tensor.name = node.output[0]
    _set_nodes(model, nodes)


_BIAS: Mapping[str, int] = MappingProxyType({"Conv": 2, "ConvTranspose": 2, "DeformConv": 3})  # the input that it is


def own_biases(model: ModelProto) -> None:
    """Give every convolution its own bias. The exporter lets layers share equal ones, as all zero biases of a fresh
    network are; then parameters are miscounted, and a quantizer sees one bias with several scales.
    """
    tensors = initializers(model)
    owner: dict[str, str] = {}
    for node in [n for n in model.graph.node if len(n.input) > _BIAS.get(n.op_type, len(n.input))]:
        at = _BIAS[node.op_type]
        weight, bias = node.input[1], node.input[at]
        if bias not in tensors or owner.setdefault(bias, weight) == weight:
            continue
        name = f"{weight}.bias"
        if name not in owner:  # a convolution that is applied twice has one weight and one bias
            tensor = model.graph.initializer.add()
            tensor.CopyFrom(tensors[bias])
            tensor.name = name
            owner[name] = weight
        node.input[at] = name


def share_constants(model: ModelProto) -> None:
    """Keep one copy of equal small constants; the exporter writes a Resize scale or an index many times."""
    learnt = {name for n in model.graph.node if n.op_type in (*_BIAS, "Gemm") for name in n.input[1:]}
    first: dict[tuple[int, tuple[int, ...], bytes], str] = {}
    alias: dict[str, str] = {}
    for tensor in [t for t in model.graph.initializer if t.name not in learnt]:
        array = numpy_helper.to_array(tensor)
        alias[tensor.name] = first.setdefault((tensor.data_type, array.shape, array.tobytes()), tensor.name)
    for node in model.graph.node:
        rename_inputs(node, alias)
    drop_unused(model)


def drop_unused(model: ModelProto) -> None:
    """Remove nodes that lead nowhere, and initializers nobody reads."""
    graph = model.graph
    needed = {v.name for v in graph.output}
    nodes: list[NodeProto] = []
    for node in reversed(graph.node):
        if needed.intersection(node.output):
            nodes.append(node)
            needed.update(reads(node))
    _set_nodes(model, reversed(nodes))
    kept = [t for t in graph.initializer if t.name in needed]
    del graph.initializer[:]
    graph.initializer.extend(kept)


def tidy(model: ModelProto) -> None:
    """Drop what no runtime reads: identities, duplicates, dead nodes, doc strings, intermediate shapes."""
    drop_identities(model)
    constants_to_initializers(model)
    own_biases(model)
    share_constants(model)
    del model.graph.value_info[:]
    for node in model.graph.node:
        node.doc_string = ""


def _set_nodes(model: ModelProto, nodes: Iterable[NodeProto]) -> None:
    kept = list(nodes)
    del model.graph.node[:]
    model.graph.node.extend(kept)


# -- which part of the graph is what ----------------------------------------------------------------------------------
WEIGHTED = ("Conv", "ConvTranspose", "Gemm", "MatMul")


def name_nodes(model: ModelProto) -> None:
    """Give every node a name of its own; some exporters leave them empty, and quantization addresses nodes by name."""
    seen: set[str] = set()
    for index, node in enumerate(model.graph.node):
        if not node.name or node.name in seen:
            node.name = f"{node.name or node.op_type}_{index}"
        seen.add(node.name)


def keep_scopes(model: ModelProto) -> None:
    """Nodes that a simplifier made of others (a Gemm of MatMul and Add) are called after their output, which kept the
    PyTorch module in its name: by it layers are left in float, pinned, and told.
    """
    for node in model.graph.node:
        if "/" not in node.name and "/" in node.output[0]:
            node.name = re.sub(r"_output_\d+$", "", node.output[0])


def layer_name(node: NodeProto) -> str:
    """How users call a layer: its PyTorch module, or the node's own name where it has none."""
    return module_of(node.name) or node.name


def weighted_layers(model: ModelProto) -> list[NodeProto]:
    """Convolutions and matrix products that have weights, in the order of the graph."""
    values = constants(model)
    return [n for n in model.graph.node if n.op_type in WEIGHTED and any(name in values for name in n.input)]


def last_layers(model: ModelProto) -> list[NodeProto]:
    """The weighted layers that no other one follows: the ends of the head. What comes after them is the decode."""
    before = _names_before_layers(model)
    return [node for node in weighted_layers(model) if node.name not in before]


def inner_nodes(model: ModelProto) -> set[str]:
    """Names of the weighted layers and of everything between them: not the input's preparation, not the decode."""
    layers = {node.name for node in weighted_layers(model)}
    return layers | (_names_before_layers(model) & _names_after_layers(model))


def body_of(model: ModelProto) -> ModelProto:
    """A copy that ends at the last weighted layers, without the decode, which may well compute with infinities."""
    body = shape_inference.infer_shapes(model)
    name_nodes(body)
    ends = [node.output[0] for node in last_layers(body)]
    known = {value.name: value for value in (*body.graph.value_info, *body.graph.output)}
    del body.graph.output[:]
    body.graph.output.extend(known[name] for name in ends)
    drop_unused(body)
    return body


def _names_before_layers(model: ModelProto) -> set[str]:
    """Nodes from which a weighted layer can be reached."""
    layers = {node.name for node in weighted_layers(model)}
    wanted: set[str] = set()
    before: set[str] = set()
    for node in reversed(model.graph.node):
        feeds = bool(wanted.intersection(node.output))
        if feeds:
            before.add(node.name)
        if feeds or node.name in layers:
            wanted.update(node.input)
    return before


def _names_after_layers(model: ModelProto) -> set[str]:
    """Nodes that a weighted layer can reach."""
    layers = {node.name for node in weighted_layers(model)}
    reached: set[str] = set()
    after: set[str] = set()
    for node in model.graph.node:
        if reached.intersection(node.input):
            after.add(node.name)
        if node.name in after or node.name in layers:
            reached.update(node.output)
    return after
