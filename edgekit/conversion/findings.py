"""What lint says, and what its rules look at."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from ..board import Board
from ..hardware import StackSection
from .foreign import every_node, value_shape
from .graph import constant_value, constants, module_of, opset
from .operators import KINDS, OperatorTable

Severity = Literal["error", "warning", "note"]
SEVERITIES: tuple[Severity, ...] = ("error", "warning", "note")
EXPORT = "edgekit export RECIPE --board BOARD"  # of an advice; ``lint`` puts in what it knows
Shape = tuple[int | None, ...]


@dataclass(frozen=True)
class Finding:
    """One thing that a board cannot do, or does in another way.

    severity: "error", the file cannot be used there as it is; "warning", it may fail, be slow or give other values;
        "note", worth knowing
    rule: a short name, stable between versions; node, op, module: where, or empty when it concerns the whole file.
        module is the PyTorch module that the node came from
    found: what is there and what is possible; advice: what to do
    """

    severity: Severity
    rule: str
    found: str
    advice: str
    node: str = ""
    op: str = ""
    module: str = ""


@dataclass(frozen=True)
class Graph:
    """A model with everything that rules ask about it. ``stack`` and ``table`` are None for boards without TensorRT."""

    model: ModelProto
    board: Board
    stack: StackSection | None = None
    table: OperatorTable | None = None

    @cached_property
    def nodes(self) -> list[tuple[str, NodeProto]]:
        """(name of the node that holds it, node), bodies of If and Loop included."""
        return list(every_node(self.model.graph))

    @cached_property
    def opset(self) -> int:
        return opset(self.model)

    @property
    def version(self) -> tuple[int, ...]:
        """Of TensorRT; () where there is none."""
        return self.stack.tensorrt_version if self.stack else ()

    @cached_property
    def values(self) -> dict[str, np.ndarray]:
        """Constants of numpy's own types by tensor name."""
        return constants(self.model)

    @cached_property
    def types(self) -> dict[str, int]:
        """Tensor name -> ONNX element type, where it is known."""
        graph = self.model.graph
        known = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.output, *graph.value_info)}
        known.update((t.name, t.data_type) for t in graph.initializer)
        for _, node in self.nodes:
            value = constant_value(node) or attribute(node, "value")  # that of a ConstantOfShape
            if isinstance(value, TensorProto):
                known[node.output[0]] = value.data_type
        return {name: kind for name, kind in known.items() if kind}

    @cached_property
    def shapes(self) -> dict[str, Shape]:
        """Tensor name -> shape, None for a dimension that is not fixed; tensors of unknown rank are left out."""
        graph = self.model.graph
        known = {v.name: value_shape(v) for v in (*graph.input, *graph.output, *graph.value_info)}
        known.update((t.name, tuple(t.dims)) for t in graph.initializer)
        known.update((name, value.shape) for name, value in self.values.items())
        return {name: shape for name, shape in known.items() if shape is not None}

    @cached_property
    def live(self) -> frozenset[str]:
        """Tensors that depend on the values of the network's input, not only on its shape."""
        constant = {t.name for t in self.model.graph.initializer}
        reached = {v.name for v in self.model.graph.input} - constant
        for node in self.model.graph.node:
            if node.op_type not in ("Shape", "Size", "ConstantOfShape") and reached.intersection(node.input):
                reached.update(node.output)
        return frozenset(reached)

    @cached_property
    def users(self) -> dict[str, list[NodeProto]]:
        """Tensor name -> the nodes that read it. What leaves the graph is in ``outputs``."""
        table: dict[str, list[NodeProto]] = {}
        for _, node in self.nodes:
            for name in node.input:
                table.setdefault(name, []).append(node)
        return table

    @cached_property
    def outputs(self) -> frozenset[str]:
        return frozenset(value.name for value in self.model.graph.output)

    @cached_property
    def makers(self) -> dict[str, NodeProto]:
        return {output: node for _, node in self.nodes for output in node.output}

    def kind(self, name: str) -> str | None:
        """Element type in the words of the operator tables; INT64 is INT32 where the runtime has no INT64."""
        code = self.types.get(name)
        if code is None:
            return None
        text = KINDS.get(code, TensorProto.DataType.Name(code))
        return "INT32" if text == "INT64" and self.table is not None and not self.table.native_int64 else text

    def value(self, name: str) -> np.ndarray | None:
        """The constant behind a tensor, through Identity, Cast and Unsqueeze; None when it is computed."""
        while name and name not in self.values:
            maker = self.makers.get(name)
            if maker is None or maker.op_type not in ("Identity", "Cast", "Unsqueeze", "Reshape"):
                return None
            name = maker.input[0]
        return self.values.get(name)

    def finding(self, severity: Severity, rule: str, node: NodeProto, found: str, advice: str) -> Finding:
        """A finding at a node; the bodies of If and Loop have nodes without a path, those say what holds them."""
        name = node.name or (node.output[0] if node.output else node.op_type)
        return Finding(severity, rule, found, advice, name, node.op_type, module_of(node.name))


def attribute(node: NodeProto, name: str, default: Any = None) -> Any:
    """The value of an attribute, text as str; ``default`` when it is not there."""
    for entry in node.attribute:
        if entry.name == name:
            value = helper.get_attribute_value(entry)
            return value.decode("utf-8", "replace") if isinstance(value, bytes) else value
    return default


def operand(node: NodeProto, index: int) -> str:
    """Name of an input, or an empty string when it is left out."""
    return node.input[index] if index < len(node.input) else ""


def to_array(tensor: TensorProto) -> np.ndarray:
    return numpy_helper.to_array(tensor)


def record(finding: Finding) -> dict[str, str]:
    return asdict(finding)
