"""An ONNX file as measuring sees it: shapes, who makes and reads a tensor, modules, multiply-accumulates."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping
from math import prod
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError, Message
from onnx import ModelProto, NodeProto, TensorProto, TensorShapeProto, checker, defs, shape_inference

from ..runtime.errors import BadInput

Shape: TypeAlias = tuple[int, ...]
# Bytes of one value; what is not here (strings, unknown) counts as a float, the smaller ones by the bits in their name
_BYTES: Mapping[int, int] = {
    TensorProto.BOOL: 1,
    TensorProto.INT8: 1,
    TensorProto.UINT8: 1,
    TensorProto.INT16: 2,
    TensorProto.UINT16: 2,
    TensorProto.FLOAT16: 2,
    TensorProto.BFLOAT16: 2,
    TensorProto.INT64: 8,
    TensorProto.UINT64: 8,
    TensorProto.DOUBLE: 8,
    TensorProto.COMPLEX64: 8,
    TensorProto.COMPLEX128: 16,
}
_BITS = re.compile("(?:U?INT|FLOAT)([2468])(?:E.*)?")  # FLOAT8E4M3FN, UINT4; newer ONNX has more of them
_FLOAT_BYTES = 4


def load_graph(path: str | Path) -> ModelProto:
    """The file with inferred shapes and a name of its own for every node; an open batch, the first dimension of an
    input, becomes 1. A dimension that the file calls 0 or less is open too.

    Raises BadInput naming a file that is missing, not ONNX, without operators, whose shapes contradict each other or
    an operator, or whose inputs have other open dimensions: what an image of one pixel costs is no answer.
    """
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
        if not model.HasField("graph"):
            raise ValueError("no graph in it; the file is empty or cut off")
        if not model.graph.node:
            raise ValueError("its graph has no operator")
        if wrong := [t.name for t in model.graph.initializer if any(size < 0 for size in t.dims)]:
            raise ValueError(f"{wrong[0]} has a size below 0")
        _require_text(model.graph, *model.functions)
        if lost := [node for node in model.graph.node if not node.output]:
            raise ValueError(f"its operator {node_name(lost[0])} has no output")
        _close_batch(path, model)
        _name_nodes(model)
        model = shape_inference.infer_shapes(model, data_prop=True)
        _require_inputs(model)
        return model
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (DecodeError, ValueError, checker.ValidationError, shape_inference.InferenceError) as error:
        raise BadInput(
            f"{path}: not a readable ONNX file ({type(error).__name__}: {error}). "
            "Copy or export it again: edgekit export RECIPE"
        ) from error


def _require_text(*messages: Message) -> None:
    """Raise ValueError for a name that is no UTF-8, which protobuf gives as bytes: the file was damaged."""
    for message in messages:
        for field, value in message.ListFields():
            parts = value if isinstance(value, Iterable) and not isinstance(value, str | bytes) else [value]
            if field.message_type is not None:
                _require_text(*parts)
            elif field.type == field.TYPE_STRING and any(isinstance(part, bytes) for part in parts):
                raise ValueError(f"a {field.name} in it is no text: {parts!r}")


def _require_inputs(model: ModelProto) -> None:
    """Raise ValueError naming an operator whose work its inputs cannot tell, for there are others than it takes."""
    shapes = tensor_shapes(model)
    for node in model.graph.node:
        try:
            node_macs(node, shapes)
        except KeyError:
            continue  # a shape that cannot be inferred; whoever needs it says so
        except (IndexError, ValueError) as error:
            raise ValueError(
                f"operator {node_name(node)} is a {node.op_type} with inputs that do not fit it"
            ) from error


def _close_batch(path: str | Path, model: ModelProto) -> None:
    constants = {t.name for t in model.graph.initializer}
    for value in model.graph.input:
        dims = value.type.tensor_type.shape.dim
        named = [n for n, dim in enumerate(dims) if dim.dim_value <= 0 and value.name not in constants]
        if any(named):
            open_ = ", ".join(_open_name(dims[n], n) for n in named)
            shape = [("SIZE" if n else "1") if n in named else str(dim.dim_value) for n, dim in enumerate(dims)]
            raise BadInput(
                f"{path}: input {value.name!r} leaves its sizes open ({open_}), and the count depends on "
                "them. Write them into the file: python -m "
                f"onnxruntime.tools.make_dynamic_shape_fixed --input_name {value.name} --input_shape {','.join(shape)} "
                f"{path} fixed.onnx"
            )
        if named:
            dims[0].dim_value = 1
    for value in (*model.graph.value_info, *model.graph.output):
        for dim in value.type.tensor_type.shape.dim:
            if dim.HasField("dim_value") and dim.dim_value <= 0:
                dim.Clear()  # what followed from the open size; the inference knows better now


def _open_name(dim: TensorShapeProto.Dimension, axis: int) -> str:
    told = repr(dim.dim_param) if dim.dim_param else dim.dim_value if dim.HasField("dim_value") else None
    return f"axis {axis}" + ("" if told is None else f" is {told}")


def _name_nodes(model: ModelProto) -> None:
    """Names by which figures can be kept: ONNX allows two nodes one name, and none. The later one gets its output's."""
    given, taken = {node_name(node) for node in model.graph.node}, set[str]()
    for node in model.graph.node:
        name = node_name(node)
        if name in taken:
            own, number = next(filter(None, node.output), name), 2
            name = own
            while name in given | taken:
                name, number = f"{own}_{number}", number + 1
        taken.add(name)
        node.name = name


def batch_of(model: ModelProto) -> int:
    """Images in a run: the first dimension of the first input that has the rank of images; 1 without one."""
    constants = {t.name for t in model.graph.initializer}
    shapes = [v.type.tensor_type.shape.dim for v in model.graph.input if v.name not in constants]
    return next((max(1, int(dims[0].dim_value)) for dims in shapes if len(dims) == 4), 1)


def tensor_shapes(model: ModelProto) -> dict[str, Shape]:
    """Tensor name -> shape, for every tensor whose shape is known in full."""
    graph = model.graph
    shapes = {t.name: tuple(t.dims) for t in graph.initializer}
    for value in (*graph.input, *graph.value_info, *graph.output):
        dims = value.type.tensor_type.shape.dim
        if value.type.tensor_type.HasField("shape") and all(d.HasField("dim_value") for d in dims):
            shapes[value.name] = tuple(int(d.dim_value) for d in dims)
    for node in graph.node:
        if node.op_type == "Constant":
            shapes.update((node.output[0], tuple(a.t.dims)) for a in node.attribute if a.name == "value")
    return shapes


def value_bytes(model: ModelProto) -> dict[str, float]:
    """Tensor name -> bytes of one value, for every tensor whose type is known."""
    graph = model.graph
    types = {t.name: t.data_type for t in graph.initializer}
    types.update((v.name, v.type.tensor_type.elem_type) for v in (*graph.input, *graph.value_info, *graph.output))
    for node in graph.node:
        if node.op_type == "Constant":
            types.update((node.output[0], a.t.data_type) for a in node.attribute if a.name == "value")
    return {name: _bytes_of(kind) for name, kind in types.items() if kind}


def _bytes_of(kind: int) -> float:
    known = kind not in _BYTES and kind in TensorProto.DataType.values()
    told = _BITS.fullmatch(TensorProto.DataType.Name(kind)) if known else None
    return int(told[1]) / 8 if told else _BYTES.get(kind, _FLOAT_BYTES)


def node_name(node: NodeProto) -> str:
    """A node's own name, or its first output's where it has none."""
    return node.name or (node.output[0] if node.output else node.op_type)


def producers(model: ModelProto) -> dict[str, NodeProto]:
    """Tensor name -> the node that makes it."""
    return {output: node for node in model.graph.node for output in node.output}


def consumers(model: ModelProto) -> dict[str, list[NodeProto]]:
    """Tensor name -> the nodes that read it."""
    table: dict[str, list[NodeProto]] = {}
    for node in model.graph.node:
        for name in node.input:
            table.setdefault(name, []).append(node)
    return table


def module_of(node_name: str, root: str = "detector") -> str:
    """The PyTorch module a node came from: ``/detector/head/size/size.2/Conv`` -> ``head.size.2``.

    The exporter writes one scope per module and repeats a container's name in its children's.
    """
    scopes = [scope for scope in node_name.split("/")[:-1] if scope]
    path: list[str] = []
    for scope in scopes[1:] if scopes[:1] == [root] else scopes:
        if path and scope.startswith(path[-1] + "."):
            path.pop()
        path.append(scope)
    return ".".join(path)


# -- one function per operator ----------------------------------------------------------------------------------------
def _conv(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    weight = shapes[node.input[1]]  # [out, in / groups, *kernel]
    return prod(shapes[node.output[0]]) * prod(weight[1:])


def _conv_transpose(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    weight = shapes[node.input[1]]  # [in, out / groups, *kernel]: every input position is multiplied with all of it
    return prod(shapes[node.input[0]]) * prod(weight[1:])


def _gemm(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    a = shapes[node.input[0]]
    transposed = any(attribute.name == "transA" and attribute.i for attribute in node.attribute)
    return prod(shapes[node.output[0]]) * (a[0] if transposed else a[1])


def _matmul(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    return prod(shapes[node.output[0]]) * shapes[node.input[0]][-1]


def _qlinear_conv(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    return prod(shapes[node.output[0]]) * prod(shapes[node.input[3]][1:])  # after x, its scale and its zero point


def _einsum(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    if len(node.input) == 1:  # of one it is a transposition or a sum
        return 0
    sizes: dict[str, int] = {}
    for letters, name in zip(_terms(node), node.input, strict=True):
        for letter, size in zip(letters, shapes[name], strict=True):
            sizes[letter] = max(size, sizes.get(letter, 1))  # an axis of 1 is broadcast
    return prod(sizes.values())


def _terms(node: NodeProto) -> list[str]:
    equation = next((a.s.decode(errors="replace") for a in node.attribute if a.name == "equation"), "")
    return equation.replace(" ", "").split("->")[0].split(",")


MACS: Mapping[str, Callable[[NodeProto, Mapping[str, Shape]], int]] = {
    "Conv": _conv,
    "DeformConv": _conv,  # reading between pixels is not counted, as in the papers
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
    "QLinearConv": _qlinear_conv,
    "ConvInteger": _conv,
    "QLinearMatMul": _matmul,
    "MatMulInteger": _matmul,
    "Einsum": _einsum,
}
# ONNX's own that multiply much and have no rule above; a fusion or a plugin that is not ONNX's may as well
_NO_RULE = ("RNN", "LSTM", "GRU", "Attention", "LinearAttention", "FlexAttention", "CausalConvWithState")
# Of ONNX Runtime and of TensorRT's plugins: no convolution and no matrix product in them
_CHEAP = frozenset(
    (
        *("QuantizeLinear", "DequantizeLinear", "QLinearAdd", "QLinearMul", "QLinearConcat", "QLinearSoftmax"),
        *("QLinearSigmoid", "QLinearLeakyRelu", "QLinearAveragePool", "QLinearGlobalAveragePool", "NhwcMaxPool"),
        *("Gelu", "BiasGelu", "FastGelu", "QuickGelu", "SkipLayerNormalization", "GridSample", "CropAndResize"),
        *("EfficientNMS_TRT", "EfficientNMS_ONNX_TRT", "EfficientNMSLandmark_TRT", "BatchedNMS_TRT"),
        *("BatchedNMSDynamic_TRT", "NMS_TRT", "GridAnchor_TRT", "PriorBox_TRT", "Normalize_TRT", "ROIAlign_TRT"),
    )
)


def node_macs(node: NodeProto, shapes: Mapping[str, Shape]) -> int:
    """Multiply-accumulates of a node; 0 without a rule, see ``uncounted``. Raises KeyError naming an unknown shape."""
    return 0 if node.op_type not in MACS or _has_no_rule(node) else MACS[node.op_type](node, shapes)


def uncounted(model: ModelProto) -> list[str]:
    """Operators whose work no rule tells, as ``2 LSTM``: with one of them the sum of the others is no count.

    What neither ONNX nor the list of cheap ones knows is among them. So are products in the bodies of If, Loop, Scan
    and of the file's own functions, which run as the data wants it.
    """
    functions = {(function.domain, function.name): function.node for function in model.functions}
    found: Counter[str] = Counter()
    for node in model.graph.node:
        if _known_as(node) not in functions and _has_no_rule(node):
            found[node.op_type] += 1
        bodies = [n for n in _inside(node, functions) if _known_as(n) not in functions]
        inside = {n.op_type for n in bodies if n.op_type in MACS or _has_no_rule(n)}
        if inside:
            found[f"{node.op_type} with {', '.join(sorted(inside))} in it"] += 1
    return [f"{count} {what}" for what, count in found.items()]


def _has_no_rule(node: NodeProto) -> bool:
    if not defs.has(node.op_type, "" if node.domain == "ai.onnx" else node.domain):
        return node.op_type not in _CHEAP
    einsum = node.op_type == "Einsum" and (len(node.input) > 2 or any("." in term for term in _terms(node)))
    return node.op_type in _NO_RULE or einsum


def _known_as(node: NodeProto) -> tuple[str, str]:
    """By which a file's own function is called; one of its own domain may have the name of an ONNX operator."""
    return node.domain, node.op_type


def _inside(node: NodeProto, functions: Mapping[tuple[str, str], Iterable[NodeProto]]) -> Iterator[NodeProto]:
    bodies = [graph.node for a in node.attribute for graph in ([a.g] if a.HasField("g") else a.graphs)]
    for inner in (n for body in [*bodies, functions.get(_known_as(node), ())] for n in body):
        yield inner
        yield from _inside(inner, functions)
