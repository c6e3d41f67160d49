"""MACs, GOPS and parameters of an ONNX file, counted on the file that ships.

One MAC is one multiplication with its addition; GOPS counts both, as the ICME 2020 competition does. Only convolutions
and matrix products count: additions, activations and resizing are under 1 % of a detector.

Parameters are the constants that training learnt: weights and biases of convolutions and matrix products. Normalisation
has been folded into them, so the number is a little lower than the network's own count (``learnable_parameters`` in the
manifest, which the tables print). Grids, masks and quantization scales are not parameters.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TypeAlias

import onnx
from google.protobuf.message import DecodeError
from onnx import ModelProto, NodeProto, shape_inference

from ..runtime.errors import BadInput

Shape: TypeAlias = tuple[int, ...]
# Operator -> which of its inputs hold learnt values.
LEARNT: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}
# A weight may reach its layer through these: quantized files store int8 and dequantize, some exporters transpose.
TRANSPARENT = frozenset({"DequantizeLinear", "QuantizeLinear", "Identity", "Cast", "Transpose", "Reshape"})


@dataclass(frozen=True)
class Layer:
    """One counted operator. macs per run of the graph; output is its shape."""

    name: str
    kind: str
    output: Shape
    macs: int
    parameters: int


@dataclass(frozen=True)
class Complexity:
    """macs: multiply-accumulates of one run (all images of the batch); parameters: as the module says."""

    macs: int
    parameters: int
    layers: tuple[Layer, ...]

    @property
    def gops(self) -> float:
        """2 x MACs in units of 10^9."""
        return 2 * self.macs / 1e9

    def summary(self) -> dict[str, float]:
        """What the manifest keeps."""
        return {"macs": self.macs, "gops": round(self.gops, 6), "parameters": self.parameters}


def complexity(path: str | Path) -> Complexity:
    """Count an ONNX file; symbolic input dimensions count as 1.

    Raises BadInput naming a file that is not ONNX or whose shapes cannot be inferred.
    """
    model = _load(path)
    shapes = _shapes(model)
    weights = _learnt(model)
    counted: set[str] = set()
    layers = []
    for node in model.graph.node:
        names = weights.get(node.name or node.output[0], {})
        parameters = sum(size for name, size in names.items() if name not in counted)
        counted.update(names)
        if node.op_type not in MACS and not parameters:
            continue
        try:
            macs = MACS[node.op_type](node, shapes) if node.op_type in MACS else 0
            output = shapes[node.output[0]]
        except KeyError as error:
            raise BadInput(f"{path}: the shape of {error} cannot be inferred; export it with static shapes") from error
        layers.append(Layer(node.name or node.output[0], node.op_type, output, macs, parameters))
    return Complexity(sum(layer.macs for layer in layers), sum(layer.parameters for layer in layers), tuple(layers))


def _load(path: str | Path) -> ModelProto:
    try:
        model = onnx.load(str(path), load_external_data=False)
        for value in model.graph.input:
            for dim in value.type.tensor_type.shape.dim:
                if not dim.HasField("dim_value"):
                    dim.dim_value = 1
        return shape_inference.infer_shapes(model, data_prop=True)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such file") from error
    except (DecodeError, ValueError, shape_inference.InferenceError) as error:
        raise BadInput(f"{path}: not a readable ONNX file ({type(error).__name__}: {error})") from error


def _shapes(model: ModelProto) -> dict[str, Shape]:
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


def _learnt(model: ModelProto) -> dict[str, dict[str, int]]:
    """Node -> {constant: number of values} that the node learnt."""
    sizes = {t.name: prod(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            sizes.update((node.output[0], prod(a.t.dims)) for a in node.attribute if a.name == "value")
    makers = {output: node for node in model.graph.node for output in node.output}

    def constant(name: str) -> str | None:
        while name not in sizes:
            maker = makers.get(name)
            if maker is None or maker.op_type not in TRANSPARENT:
                return None
            name = maker.input[0]
        return name

    table: dict[str, dict[str, int]] = {}
    for node in model.graph.node:
        inputs = [node.input[i] for i in LEARNT.get(node.op_type, ()) if i < len(node.input) and node.input[i]]
        if node.op_type == "Add" and any(_is_product(makers.get(name)) for name in node.input):
            inputs = list(node.input)  # the exporter writes a linear layer's bias as an addition
        found = [name for name in map(constant, inputs) if name is not None]
        table[node.name or node.output[0]] = {name: sizes[name] for name in found}
    return table


def _is_product(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "MatMul"


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


MACS: Mapping[str, Callable[[NodeProto, Mapping[str, Shape]], int]] = {
    "Conv": _conv,
    "ConvTranspose": _conv_transpose,
    "Gemm": _gemm,
    "MatMul": _matmul,
}
