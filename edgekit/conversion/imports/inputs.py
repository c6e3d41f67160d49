"""The input of a foreign graph, brought to what sessions feed: ``image``, one picture of a fixed size."""

from __future__ import annotations

import ast
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from onnx import GraphProto, ModelProto, TensorProto, ValueInfoProto, helper, numpy_helper

from ...runtime.errors import BadConfig
from ..foreign import shape_text, value_shape
from ..graph import rename_inputs

IMAGE = "image"
RESERVED = (IMAGE, "boxes", "scores")
MOST_CLASSES = 100_000
_FLOATS = (TensorProto.FLOAT, TensorProto.FLOAT16)


@dataclass(frozen=True)
class Input:
    """What sessions feed.

    layout: "nchw_float" or "nhwc_uint8"; size: (width, height); shape: with the batch of 1
    was_open: the file left its size or its batch open, so that the shapes it tells are not those it has now
    moved: outputs that were called ``image``: old name -> new name
    """

    layout: str
    size: tuple[int, int]
    shape: tuple[int, ...]
    was_open: bool
    moved: Mapping[str, str]


def prepare_input(model: ModelProto, size: tuple[int, int] | None, constants: Mapping[str, Any]) -> Input:
    """Fix the input's size and batch, call it ``image`` and make it float32 NCHW, or uint8 NHWC where it is uint8.

    size: (width, height) that the user asks for, or None for the file's own; constants: values of further inputs
    Raises BadConfig when the file has other inputs, no three channels, no fixed size, or another size than asked for.
    """
    _fix_constants(model, constants)
    value = _only_input(model)
    free_names(model)
    moved = free_outputs(model, [IMAGE])
    shape = value_shape(value)
    if shape is None or len(shape) != 4:
        raise BadConfig(f"input {value.name!r} is {shape_text(value)}; needed one image: [N, 3, H, W] or [N, H, W, 3]")
    nchw = shape[1] == 3 or (shape[3] != 3 and shape[1] is None)
    if not nchw and shape[3] != 3:
        raise BadConfig(
            f"input {value.name!r} is {shape_text(value)}; needed three channels: [N, 3, H, W] or [N, H, W, 3]"
        )
    width, height = _size(value, shape[2:4] if nchw else shape[1:3], size)
    kind = value.type.tensor_type.elem_type
    if kind not in (*_FLOATS, TensorProto.UINT8):
        raise BadConfig(f"input {value.name!r} is {TensorProto.DataType.Name(kind)}; needed FLOAT, FLOAT16 or UINT8")
    given = [1, 3, height, width] if nchw else [1, height, width, 3]
    was_open = list(shape) != given
    _static(value, given)
    if kind == TensorProto.UINT8:
        if nchw:
            _turn(model, value, [0, 3, 1, 2], [1, height, width, 3])
        rename(model, value.name, IMAGE)
        return Input("nhwc_uint8", (width, height), (1, height, width, 3), was_open, moved)
    if kind == TensorProto.FLOAT16:
        _cast(model, value)
    if not nchw:
        _turn(model, value, [0, 2, 3, 1], [1, 3, height, width])
    rename(model, value.name, IMAGE)
    return Input("nchw_float", (width, height), (1, 3, height, width), was_open, moved)


def _only_input(model: ModelProto) -> ValueInfoProto:
    constant = {t.name for t in model.graph.initializer}
    found = [value for value in model.graph.input if value.name not in constant]
    for value in [v for v in model.graph.input if v.name in constant]:
        model.graph.input.remove(value)  # before IR 4 every initializer had to be an input too
    if len(found) != 1:
        have = ", ".join(f"{v.name} {shape_text(v)}" for v in found) or "none"
        raise BadConfig(
            f"the file has the inputs: {have}; needed is one image. Give the others a value in the layout's YAML file, "
            f"for example: constants: {{scale_factor: [[1, 1]]}}"
        )
    return found[0]


def _fix_constants(model: ModelProto, constants: Mapping[str, Any]) -> None:
    inputs = {v.name: v for v in model.graph.input}
    for name, value in constants.items():
        if name not in inputs:
            raise BadConfig(f"constants: the file has no input {name!r}; it has: {', '.join(inputs)}")
        kind = helper.tensor_dtype_to_np_dtype(inputs[name].type.tensor_type.elem_type)
        model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, kind), name))
        model.graph.input.remove(inputs[name])


def _size(value: ValueInfoProto, found: Sequence[int | None], wanted: tuple[int, int] | None) -> tuple[int, int]:
    """(width, height): the file's where it is fixed, else the user's. Some exporters write 0 for what is not."""
    height, width = (size or None for size in found)
    if wanted is None:
        if width is None or height is None:
            raise BadConfig(f"input {value.name!r} is {shape_text(value)}: give the size: --size WIDTHxHEIGHT")
        return width, height
    if (width or wanted[0], height or wanted[1]) != wanted:
        fixed = f"{width or 'any'}x{height or 'any'}"
        raise BadConfig(
            f"--size {wanted[0]}x{wanted[1]}: the file is exported for {fixed} "
            f"(input {value.name!r} {shape_text(value)}). Leave --size out, or export it again in that size"
        )
    return wanted


def _static(value: ValueInfoProto, shape: Sequence[int]) -> None:
    del value.type.tensor_type.shape.dim[:]
    for size in shape:
        value.type.tensor_type.shape.dim.add().dim_value = size


def _turn(model: ModelProto, value: ValueInfoProto, perm: Sequence[int], shape: Sequence[int]) -> None:
    """Put a Transpose behind the input; the input has ``shape`` from now on."""
    inner = f"{value.name}_turned"
    _replace_uses(model.graph, value.name, inner)
    node = helper.make_node("Transpose", [value.name], [inner], name=f"/input/{inner}", perm=list(perm))
    model.graph.node.insert(0, node)
    _static(value, shape)


def _cast(model: ModelProto, value: ValueInfoProto) -> None:
    inner = f"{value.name}_half"
    _replace_uses(model.graph, value.name, inner)
    node = helper.make_node("Cast", [value.name], [inner], name=f"/input/{inner}", to=TensorProto.FLOAT16)
    model.graph.node.insert(0, node)
    value.type.tensor_type.elem_type = TensorProto.FLOAT


# -- names ------------------------------------------------------------------------------------------------------------
def free_names(model: ModelProto) -> None:
    """Rename the file's own tensors that are called like EdgeKit's, its inputs and outputs excepted."""
    ends = {v.name for v in (*model.graph.input, *model.graph.output)}
    known = {name for node in model.graph.node for name in (*node.input, *node.output)}
    for name in RESERVED:
        if name in known and name not in ends:
            rename(model, name, f"file_{name}")


def free_outputs(model: ModelProto, reserved: Sequence[str] = RESERVED) -> dict[str, str]:
    """Rename outputs that are called like EdgeKit's. Returns old name -> new name of those."""
    moved = {v.name: f"file_{v.name}" for v in model.graph.output if v.name in reserved}
    for old, new in moved.items():
        rename(model, old, new)
    return moved


def rename(model: ModelProto, old: str, new: str) -> None:
    """Another name for a tensor, wherever it is used."""
    if old == new:
        return
    graph = model.graph
    _replace_uses(graph, old, new)
    for node in graph.node:
        node.output[:] = [new if name == old else name for name in node.output]
    for value in (*graph.input, *graph.output, *graph.value_info, *graph.initializer):
        if value.name == old:
            value.name = new


def _replace_uses(graph: GraphProto, old: str, new: str) -> None:
    for node in graph.node:
        rename_inputs(node, {old: new})


# -- what the file says of itself -------------------------------------------------------------------------------------
def class_names(model: ModelProto) -> list[str] | None:
    """Class names in the metadata: ``names``, a dict or a list as exporters write it; None when there are none."""
    text = next((entry.value for entry in model.metadata_props if entry.key in ("names", "classes", "labels")), None)
    if text is None or len(text) > 2**20:
        return None
    found = None
    for parse in (json.loads, ast.literal_eval):
        try:
            found = parse(text)
            break
        except (ValueError, SyntaxError, MemoryError, RecursionError):
            continue
    if isinstance(found, dict):
        keys = sorted(found, key=lambda k: int(k) if str(k).isdecimal() else MOST_CLASSES)
        found = [found[k] for k in keys]
    if not isinstance(found, list) or not 0 < len(found) <= MOST_CLASSES:
        return None
    names = [str(name) for name in found]
    return names if len(set(names)) == len(names) else None
