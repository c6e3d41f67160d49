"""Reading ONNX files that others made: truncated, hostile or merely unusual ones become one clear error.

Nothing outside the file's own folder is read, and nothing is computed before the sizes are known.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from math import prod
from pathlib import Path

import onnx
from google.protobuf.message import DecodeError
from onnx import (
    AttributeProto,
    GraphProto,
    ModelProto,
    NodeProto,
    TensorProto,
    external_data_helper,
    numpy_helper,
    shape_inference,
)
from onnx.checker import ValidationError

from ..runtime.errors import BadInput

MOST_BYTES = 2**31 - 1  # protobuf reads no larger file
MOST_ELEMENTS = 2**31 - 1  # of one tensor: more is no network that a board runs
_UNKNOWN_OPERATOR = "No Op registered"  # the checker's words for what may well be a plugin


def read_foreign(path: str | Path) -> ModelProto:
    """Read, check and load any ONNX file, with the external data that lies in its own folder.

    Raises BadInput naming the file: missing, empty, truncated, too large, no graph, external data elsewhere, a tensor
    of impossible size, or an invalid graph. Operators that nobody knows are no error here; they may be plugins.
    """
    path = Path(path)
    size = _size(path)
    if size > MOST_BYTES:
        raise BadInput(
            f"{path}: has {size / 2**30:.1f} GiB; ONNX files hold at most 2 GiB. Keep the weights beside it."
        )
    try:
        model = onnx.load(str(path), format="protobuf", load_external_data=False)
    except (DecodeError, ValueError) as error:
        raise BadInput(
            f"{path}: not a readable ONNX file, or cut off ({_first_line(error)}). Copy it again."
        ) from error
    if not model.graph.node or not any(entry.domain in ("", "ai.onnx") for entry in model.opset_import):
        raise BadInput(
            f"{path}: holds no ONNX graph. Give the file that was exported with torch.onnx.export or the like."
        )
    _check_text(path, model)
    _check_tensors(path, model)
    _load_external(path, model)
    _check_values(path, model)
    _check_graph(path, model)
    return model


def infer(model: ModelProto) -> ModelProto:
    """A copy with every shape and type that can be known; where inference fails, with those that the file tells."""
    try:
        return shape_inference.infer_shapes(model, data_prop=True)
    except (shape_inference.InferenceError, ValueError, RuntimeError):
        return model


def every_node(graph: GraphProto, inside: str = "") -> Iterator[tuple[str, NodeProto]]:
    """(name of the node that holds it, node) for every node, those of If and Loop bodies included."""
    for node in graph.node:
        yield inside, node
        for body in bodies(node):
            yield from every_node(body, node.name or node.op_type)


def bodies(node: NodeProto) -> list[GraphProto]:
    """The graphs inside a node: the branches of an If, the body of a Loop."""
    single = [a.g for a in node.attribute if a.type == AttributeProto.GRAPH]
    return single + [graph for a in node.attribute if a.type == AttributeProto.GRAPHS for graph in a.graphs]


def every_tensor(model: ModelProto) -> Iterator[TensorProto]:
    """Every constant: initializers and the values of attributes, in bodies too."""
    graphs = [model.graph]
    while graphs:
        graph = graphs.pop()
        yield from graph.initializer
        for node in graph.node:
            yield from (a.t for a in node.attribute if a.type == AttributeProto.TENSOR)
            graphs.extend(bodies(node))


def precision_of(model: ModelProto) -> str:
    """In which numbers a file computes: "int8" where it is quantized, "fp16" where most of its weights are FP16."""
    if any(_quantized(node) for _, node in every_node(model.graph)):
        return "int8"
    held: dict[int, int] = {TensorProto.FLOAT: 0, TensorProto.FLOAT16: 0}
    for tensor in every_tensor(model):
        if tensor.data_type in held:
            held[tensor.data_type] += prod(tensor.dims)
    return "fp16" if held[TensorProto.FLOAT16] > held[TensorProto.FLOAT] else "fp32"


def _quantized(node: NodeProto) -> bool:
    kind = node.op_type
    return kind.startswith("QLinear") or kind.endswith(("QuantizeLinear", "DequantizeLinear", "Integer"))


def _size(path: Path) -> int:
    try:
        if path.is_dir():
            raise BadInput(
                f"{path}: is a folder. Give an .onnx file, or an artifact folder with a manifest.json in it."
            )
        size = path.stat().st_size
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    if size == 0:
        raise BadInput(f"{path}: the file is empty. Copy or export it again.")
    return size


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _check_text(path: Path, model: ModelProto) -> None:
    """Names are decoded when they are read; one that is no text would surface anywhere."""
    try:
        for _, node in every_node(model.graph):
            _ = (node.name, node.op_type, node.domain, list(node.input), list(node.output))
    except UnicodeDecodeError as error:
        raise BadInput(f"{path}: holds names that are no text: the file is damaged. Copy it again.") from error


def _check_values(path: Path, model: ModelProto) -> None:
    """Every constant has as many values as its shape says."""
    for tensor in every_tensor(model):
        try:
            numpy_helper.to_array(tensor)
        except (ValueError, TypeError, KeyError) as error:
            raise BadInput(
                f"{path}: the values of {tensor.name!r} do not fit its shape ({_first_line(error)})"
            ) from error


def _check_tensors(path: Path, model: ModelProto) -> None:
    """Types and sizes, before anything is allocated for them."""
    graph = model.graph
    known = TensorProto.DataType.values()
    kinds = [(t.name, t.data_type) for t in every_tensor(model)]
    kinds += [(v.name, v.type.tensor_type.elem_type) for v in (*graph.input, *graph.output, *graph.value_info)]
    for name, kind in kinds:
        if kind not in known:
            raise BadInput(f"{path}: tensor {name!r} is of type {kind}, which ONNX does not have. Copy the file again.")
    sizes = [(t.name, list(t.dims)) for t in every_tensor(model)]
    for value in (*graph.input, *graph.output, *graph.value_info):
        dims = value.type.tensor_type.shape.dim
        sizes.append((value.name, [d.dim_value for d in dims if d.HasField("dim_value")]))
    for name, dims in sizes:
        if any(d < 0 for d in dims) or prod(dims) > MOST_ELEMENTS:
            raise BadInput(f"{path}: tensor {name!r} says that its shape is {dims}; no such tensor can be computed")


def _load_external(path: Path, model: ModelProto) -> None:
    """Read external weights that lie in the file's folder; everything else is refused."""
    folder = path.parent.resolve()
    tensors = [t for t in every_tensor(model) if external_data_helper.uses_external_data(t)]
    for tensor in tensors:
        location = next((e.value for e in tensor.external_data if e.key == "location"), "")
        where = Path(os.path.realpath(folder / location))
        if not location or Path(location).is_absolute() or folder not in where.parents:
            raise BadInput(
                f"{path}: the weights of {tensor.name!r} are said to be in {location!r}, outside the model's folder. "
                f"This is refused; put the file beside the model, or save the model in one file."
            )
        if not where.is_file():
            raise BadInput(f"{path}: the weights of {tensor.name!r} are in {location!r}, which is not beside the model")
    try:
        for tensor in tensors:
            external_data_helper.load_external_data_for_tensor(tensor, str(folder))
            tensor.data_location = TensorProto.DEFAULT
            del tensor.external_data[:]
    except (OSError, ValueError, ValidationError) as error:
        raise BadInput(f"{path}: its external weights cannot be read ({_first_line(error)})") from error


def _check_graph(path: Path, model: ModelProto) -> None:
    try:
        onnx.checker.check_model(model)
    except ValidationError as error:
        if _UNKNOWN_OPERATOR not in str(error):
            raise BadInput(f"{path}: not a valid ONNX graph ({_first_line(error)}). Export it again.") from error
    except ValueError as error:  # more than 2 GiB with its weights
        raise BadInput(f"{path}: too large to be checked ({_first_line(error)})") from error


def value_shape(value: onnx.ValueInfoProto) -> tuple[int | None, ...] | None:
    """Shape with None for what is not fixed, or None when nothing is known."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return None
    return tuple(int(d.dim_value) if d.HasField("dim_value") else None for d in tensor.shape.dim)


def shape_text(value: onnx.ValueInfoProto) -> str:
    """``[1, 3, h, 640]`` as a person reads it."""
    tensor = value.type.tensor_type
    if not tensor.HasField("shape"):
        return "[?]"
    dims: Iterable[str] = (
        str(d.dim_value) if d.HasField("dim_value") else d.dim_param or "?" for d in tensor.shape.dim
    )
    return f"[{', '.join(dims)}]"
