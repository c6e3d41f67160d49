"""Any opset to opset 13, the last one that TensorRT 8.2 reads.

The converter that comes with ONNX goes upwards well and downwards hardly ever. Downwards, most operators of a detector
mean the same in both: the number is changed where every node is valid in opset 13, with the few rewrites below, and the
caller compares what both files compute.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, checker, defs, helper, numpy_helper, version_converter

from ..findings import attribute, operand
from ..foreign import every_node, infer, value_shape
from ..graph import constants, opset
from ..session import cpu_session

WANTED = 13
IR_VERSION = 7  # what goes with opset 13
OLDEST_THAT_RUNS = 7  # ONNX Runtime has no kernels for much of what is older
LAST_ASYMMETRIC = 10  # opset 11 gave Resize its coordinate_transformation_mode
LATEST_IR = 8  # the latest that ONNX Runtime 1.10 on Python 3.6 reads
_REDUCE = frozenset({"ReduceMax", "ReduceMean", "ReduceMin", "ReduceProd", "ReduceL1", "ReduceL2", "ReduceSumSquare"})
# Attributes that later opsets added, with the value that means "as before"
_NEUTRAL: Mapping[str, Any] = MappingProxyType(
    {
        "allowzero": 0,
        "antialias": 0,
        "keep_aspect_ratio_policy": "stretch",
        "saturate": 1,
        "noop_with_empty_axes": 0,
        "reduction": "none",
        "training_mode": 0,
        "round_mode": "up",
    }
)
_AXES_LAST = -1


class CannotConvert(Exception):
    """Why a file stays in its opset, in words."""


def to_opset_13(model: ModelProto) -> tuple[ModelProto, str]:
    """(the model in opset 13, "" or what was not proved of it) or (the model as it was, why it stays as it is)."""
    version = opset(model)
    if version == WANTED:
        return model, ""
    try:
        made = _raised(model, version) if version < WANTED else _lowered(model)
        checker.check_model(made, full_check=True)
        return made, _compared(model, made, version)
    except (
        CannotConvert,
        RuntimeError,
        ValueError,
        checker.ValidationError,
        onnx.shape_inference.InferenceError,
    ) as error:
        return model, f"the file stays in opset {version}: {_first_line(error)}"


def _first_line(error: Exception) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)


def _compared(model: ModelProto, made: ModelProto, version: int) -> str:
    """A note where nothing can be compared. Raises CannotConvert when ``made`` computes something else."""
    image = _random_image(model)
    try:
        expected = _run(model, image)
    except CannotConvert as error:
        if version >= OLDEST_THAT_RUNS:
            raise
        return f"opset {version} became {WANTED} without a comparison: {error}"
    found = _run(made, image)
    if not all(map(_close, expected, found)):
        raise CannotConvert(f"it computes something else in opset {WANTED}")
    return ""


def _close(a: Any, b: Any) -> bool:
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.allclose(a, b, rtol=1e-3, atol=1e-4, equal_nan=True)


def _random_image(model: ModelProto) -> Any:
    first = model.graph.input[0].type.tensor_type
    shape = [d.dim_value for d in first.shape.dim]
    image = np.random.default_rng(0).uniform(0, 255 if first.elem_type == TensorProto.UINT8 else 1, shape)
    return image.astype(helper.tensor_dtype_to_np_dtype(first.elem_type))


def _run(model: ModelProto, image: Any) -> list[Any]:
    try:
        return list(cpu_session(model).run(None, {model.graph.input[0].name: image}))
    except Exception as error:  # ONNX Runtime's errors have no other class in common
        raise CannotConvert(f"ONNX Runtime does not run it in opset {opset(model)} ({_first_line(error)})") from error


def _raised(model: ModelProto, version: int) -> ModelProto:
    made = version_converter.convert_version(model, WANTED)
    made.ir_version = max(IR_VERSION, model.ir_version)
    for _, node in every_node(made.graph):
        if node.op_type == "Resize" and version <= LAST_ASYMMETRIC:
            _as_before_opset_11(node)
    return made


def _as_before_opset_11(node: NodeProto) -> None:
    """Upsample and Resize had one way to find a pixel; ONNX's converter leaves opset 13's usual one, half a pixel off.

    Nearest pixels that are shrunk are the comparison's to judge: what they were is not written down.
    """
    kept = [a for a in node.attribute if a.name not in ("coordinate_transformation_mode", "nearest_mode")]
    del node.attribute[:]
    node.attribute.extend(kept)
    node.attribute.append(helper.make_attribute("coordinate_transformation_mode", "asymmetric"))
    if attribute(node, "mode", "nearest") == "nearest":
        node.attribute.append(helper.make_attribute("nearest_mode", "floor"))


def _lowered(model: ModelProto) -> ModelProto:
    made = ModelProto()
    made.CopyFrom(model)
    if len(list(every_node(made.graph))) != len(made.graph.node):
        raise CannotConvert("it has If or Loop")
    shapes = {v.name: value_shape(v) for v in (*infer(model).graph.value_info, *model.graph.input)}
    values = constants(made)
    nodes: list[NodeProto] = []
    for node in made.graph.node:
        nodes.extend(_as_in_13(made, node, values, shapes))
    del made.graph.node[:]
    made.graph.node.extend(nodes)
    for entry in made.opset_import:
        if entry.domain in ("", "ai.onnx"):
            entry.version = WANTED
    made.ir_version = IR_VERSION
    return made


def _as_in_13(
    model: ModelProto, node: NodeProto, values: Mapping[str, Any], shapes: Mapping[str, Any]
) -> list[NodeProto]:
    if node.op_type in REWRITES and not defs.has(node.op_type, WANTED):
        return REWRITES[node.op_type](model, node)
    if node.domain not in ("", "ai.onnx"):
        return [node]
    if not _exists(node.op_type):
        raise CannotConvert(f"opset {WANTED} has no {node.op_type} ({node.name})")
    if node.op_type in _REDUCE and operand(node, 1):
        _axes_to_attribute(node, values)
    if node.op_type == "Split" and attribute(node, "num_outputs") is not None:
        _explicit_split(model, node, shapes)
    _drop_neutral(node)
    return [node]


def _exists(operator: str) -> bool:
    try:
        defs.get_schema(operator, WANTED)
    except defs.SchemaError:
        return False
    return True


def _axes_to_attribute(node: NodeProto, values: Mapping[str, Any]) -> None:
    axes = values.get(node.input[1])
    if axes is None:
        raise CannotConvert(f"the axes of {node.op_type} ({node.name}) are computed")
    del node.input[1:]
    node.attribute.append(helper.make_attribute("axes", [int(a) for a in np.ravel(axes)]))


def _explicit_split(model: ModelProto, node: NodeProto, shapes: Mapping[str, Any]) -> None:
    parts, axis = int(attribute(node, "num_outputs")), int(attribute(node, "axis", 0))
    shape = shapes.get(node.input[0])
    if shape is None or shape[axis] is None:
        raise CannotConvert(f"the size of what {node.name} splits is not known")
    each = -(-shape[axis] // parts)
    sizes = [each] * (parts - 1) + [shape[axis] - each * (parts - 1)]
    name = f"{node.output[0]}_split"
    model.graph.initializer.append(numpy_helper.from_array(np.asarray(sizes, np.int64), name))
    node.input.append(name)
    for entry in [a for a in node.attribute if a.name == "num_outputs"]:
        node.attribute.remove(entry)


def _drop_neutral(node: NodeProto) -> None:
    known = defs.get_schema(node.op_type, WANTED)
    for entry in [a for a in node.attribute if a.name not in known.attributes]:
        if entry.name not in _NEUTRAL or attribute(node, entry.name) != _NEUTRAL[entry.name]:
            raise CannotConvert(f"{node.op_type} ({node.name}) has {entry.name} = {attribute(node, entry.name)}")
        node.attribute.remove(entry)
    while node.input and not node.input[-1]:
        del node.input[-1]
    if len(node.input) > known.max_input:
        raise CannotConvert(
            f"{node.op_type} ({node.name}) has {len(node.input)} inputs, {known.max_input} in opset {WANTED}"
        )


# -- operators that opset 13 writes with others -----------------------------------------------------------------------
class _Writer:
    """Nodes in the place of one."""

    def __init__(self, model: ModelProto, node: NodeProto) -> None:
        self.model, self.node, self.made = model, node, []  # type: ignore[var-annotated]

    def constant(self, value: float) -> str:
        name = f"{self.node.output[0]}_constant_{len(self.model.graph.initializer)}"
        self.model.graph.initializer.append(numpy_helper.from_array(np.asarray(value, np.float32), name))
        return name

    def add(self, kind: str, inputs: list[str], last: bool = False, **attributes: Any) -> str:
        name = f"{self.node.name or self.node.output[0]}/{kind}_{len(self.made)}"
        output = self.node.output[0] if last else f"{name}_output"
        self.made.append(helper.make_node(kind, inputs, [output], name=name, **attributes))
        return output


def _hard_swish(model: ModelProto, node: NodeProto) -> list[NodeProto]:
    """Howard et al. 2019: x * max(0, min(1, x / 6 + 1 / 2))."""
    write = _Writer(model, node)
    gate = write.add("HardSigmoid", [node.input[0]], alpha=1 / 6, beta=0.5)
    write.add("Mul", [node.input[0], gate], last=True)
    return write.made


def _mish(model: ModelProto, node: NodeProto) -> list[NodeProto]:
    """Misra 2019: x * tanh(softplus(x))."""
    write = _Writer(model, node)
    write.add("Mul", [node.input[0], write.add("Tanh", [write.add("Softplus", [node.input[0]])])], last=True)
    return write.made


def _gelu(model: ModelProto, node: NodeProto) -> list[NodeProto]:
    """Hendrycks and Gimpel 2016: x / 2 * (1 + erf(x / sqrt 2))."""
    if attribute(node, "approximate", "none") != "none":
        raise CannotConvert(f"Gelu ({node.name}) is the tanh approximation")
    write = _Writer(model, node)
    erf = write.add("Erf", [write.add("Mul", [node.input[0], write.constant(0.5**0.5)])])
    half = write.add("Mul", [node.input[0], write.constant(0.5)])
    write.add("Mul", [half, write.add("Add", [erf, write.constant(1)])], last=True)
    return write.made


def _layer_norm(model: ModelProto, node: NodeProto) -> list[NodeProto]:
    """Ba et al. 2016, eq. 4, over the last axis."""
    if int(attribute(node, "axis", _AXES_LAST)) != _AXES_LAST or len(node.output) > 1:
        raise CannotConvert(f"LayerNormalization ({node.name}) is not over the last axis alone")
    write = _Writer(model, node)
    distance = write.add("Sub", [node.input[0], write.add("ReduceMean", [node.input[0]], axes=[-1], keepdims=1)])
    variance = write.add("ReduceMean", [write.add("Mul", [distance, distance])], axes=[-1], keepdims=1)
    deviation = write.add("Sqrt", [write.add("Add", [variance, write.constant(attribute(node, "epsilon", 1e-5))])])
    normal = write.add("Div", [distance, deviation])
    bias = operand(node, 2)
    scaled = write.add("Mul", [normal, node.input[1]], last=not bias)
    if bias:
        write.add("Add", [scaled, bias], last=True)
    return write.made


REWRITES: Mapping[str, Callable[[ModelProto, NodeProto], list[NodeProto]]] = MappingProxyType(
    {"HardSwish": _hard_swish, "Mish": _mish, "Gelu": _gelu, "LayerNormalization": _layer_norm}
)
