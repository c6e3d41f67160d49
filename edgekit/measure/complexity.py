"""MACs, GOPS and parameters of an ONNX file, counted on the file that ships.

One MAC is one multiplication with its addition; GOPS counts both, as the ICME 2020 competition does. Only convolutions
and matrix products count: additions, activations and resizing are under 1 % of a detector.

Parameters are the constants that training learnt: weights and biases of convolutions and matrix products. Normalisation
has been folded into them, so the number is a little lower than the network's own count (``learnable_parameters`` in the
manifest, which the tables print). Grids, masks and quantization scales are not parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path

from onnx import ModelProto, NodeProto

from ..recipe import recipe_names
from ..runtime.errors import BadConfig, BadInput
from .conventions import CONVENTIONS, graph_operations
from .graph import MACS, Shape, batch_of, load_graph, node_macs, node_name, tensor_shapes, uncounted, value_bytes

__all__ = ["MODEL_FILE", "Complexity", "Layer", "complexity", "model_file"]

MODEL_FILE = "model.onnx"  # in an artifact's folder
# Operator -> which of its inputs hold learnt values.
LEARNT: Mapping[str, tuple[int, ...]] = {
    "Conv": (1, 2),
    "ConvTranspose": (1, 2),
    "DeformConv": (1, 3),
    "Gemm": (1, 2),
    "MatMul": (0, 1),
    "QLinearConv": (3, 8),
    "ConvInteger": (1,),
    "QLinearMatMul": (0, 3),
    "MatMulInteger": (0, 1),
    "Einsum": (0, 1),
    "PRelu": (1,),
    "BatchNormalization": (1, 2),
    "InstanceNormalization": (1, 2),
    "LayerNormalization": (1, 2),
}
# A weight may reach its layer through these: quantized files store int8 and dequantize, some exporters transpose.
TRANSPARENT = frozenset({"DequantizeLinear", "QuantizeLinear", "Identity", "Cast", "Transpose", "Reshape"})


@dataclass(frozen=True)
class Layer:
    """One counted operator. macs per run of the graph; output is its shape.

    counted: under the convention that was asked for (see ``conventions``)
    activation_bytes: of what it writes; access_bytes: its memory-access cost: everything it reads and writes, weights
    included (Ma et al., ShuffleNet V2, equation 1, in bytes); cio: values in and out, for operators with weights
    """

    name: str
    kind: str
    output: Shape
    macs: int
    parameters: int
    counted: int = 0
    activation_bytes: int = 0
    access_bytes: int = 0
    cio: int = 0


@dataclass(frozen=True)
class Complexity:
    """macs: multiply-accumulates of one run (all images of the batch); parameters: as the module says.

    convention, counted: the rule that was asked for, and the sum under it
    uncounted: operators whose work nothing here tells; with any of them macs and counted are None, for a part of the
        sum looks like all of it; batch: images of one run
    activation_bytes: of everything the graph's operators write; access_bytes: of everything they read and write
    cio: convolutional input/output in values (CSPNet, section 2, after HarDNet): the sum over the convolutions of
        channels x height x width of what goes in and of what comes out
    """

    macs: int | None
    parameters: int
    layers: tuple[Layer, ...]
    convention: str = "flops"
    counted: int | None = 0
    activation_bytes: int = 0
    access_bytes: int = 0
    cio: int = 0
    uncounted: tuple[str, ...] = ()
    batch: int = 1

    @property
    def gops(self) -> float | None:
        """2 x MACs in units of 10^9."""
        return None if self.macs is None else 2 * self.macs / 1e9

    @property
    def notes(self) -> list[str]:
        """What a reader of the figures must know."""
        return [f"MACs and GOPS are not known: uncounted: {', '.join(self.uncounted)}"] if self.uncounted else []

    def summary(self) -> dict[str, float | None]:
        """What the manifest keeps: per frame, whatever the batch of the file."""
        macs = None if self.macs is None else round(self.macs / self.batch)
        gops = None if macs is None else round(2 * macs / 1e9, 6)
        return {"macs": macs, "gops": gops, "parameters": self.parameters}


def complexity(path: str | Path, convention: str = "flops") -> Complexity:
    """Count an ONNX file, or that of an artifact's folder; an open batch counts as 1.

    convention: how ``counted`` is counted, one of ``conventions.CONVENTIONS``
    Raises BadInput naming a file that is not ONNX or whose shapes are open or cannot be inferred, BadConfig for the
    convention.
    """
    if convention not in CONVENTIONS:
        raise BadConfig(f"convention: no {convention!r}; there are: {', '.join(CONVENTIONS)}")
    path = model_file(path)
    model = load_graph(path)
    shapes, weights = tensor_shapes(model), _learnt(model)
    traffic = _Traffic(model, shapes)
    costs = _costs(path, model, convention)
    counted: set[str] = set()
    layers, written, moved = [], 0, 0
    for node in model.graph.node:
        names = weights.get(node_name(node), {})
        parameters = sum(size for name, size in names.items() if name not in counted)
        counted.update(names)
        activation, access = traffic.of(node)
        written, moved = written + activation, moved + access
        cost = costs.get(node_name(node), 0)
        if node.op_type not in MACS and not parameters and not cost:
            continue
        macs, output = _macs(path, node, shapes)
        cio = traffic.cio(node) if node.op_type in MACS else 0
        layers.append(Layer(node_name(node), node.op_type, output, macs, parameters, cost, activation, access, cio))
    lacking = tuple(uncounted(model))
    return Complexity(
        None if lacking else sum(layer.macs for layer in layers),
        sum(layer.parameters for layer in layers),
        tuple(layers),
        convention,
        None if lacking else sum(layer.counted for layer in layers),
        written,
        moved,
        sum(layer.cio for layer in layers),
        lacking,
        batch_of(model),
    )


def model_file(path: str | Path) -> Path:
    """The ONNX file itself, or the one in an artifact's folder. Raises BadInput when there is none."""
    place = Path(path)
    if place.is_dir():
        place = place / MODEL_FILE
    if place.is_file():
        return place
    if str(path) in recipe_names() or (Path(path) / "recipe.yaml").is_file():
        raise BadInput(
            f"{path}: is a recipe, and an ONNX file is counted. Make one: edgekit export {path}; what is known of the "
            f"network without it: edgekit card {path}"
        )
    raise BadInput(f"{path}: no such ONNX file, and no folder with a {MODEL_FILE}. Make one: edgekit export RECIPE")


def _costs(path: Path, model: ModelProto, convention: str) -> dict[str, int]:
    """Node -> what it counts under a convention."""
    with _shapes_of(path):
        return {operation.name: CONVENTIONS[convention](operation) for operation in graph_operations(model)}


def _macs(path: Path, node: NodeProto, shapes: Mapping[str, Shape]) -> tuple[int, Shape]:
    with _shapes_of(path):
        return node_macs(node, shapes), shapes[node.output[0]]


@contextmanager
def _shapes_of(path: Path) -> Iterator[None]:
    try:
        yield
    except KeyError as error:
        raise BadInput(f"{path}: the shape of {error} cannot be inferred; export it with static shapes") from error


class _Traffic:
    """Bytes and values that an operator reads and writes. Constants and mere views of a tensor move nothing."""

    _VIEWS = frozenset({"Constant", "Reshape", "Flatten", "Squeeze", "Unsqueeze", "Identity"})

    def __init__(self, model: ModelProto, shapes: Mapping[str, Shape]) -> None:
        self._shapes, self._bytes = shapes, value_bytes(model)
        constants = {t.name for t in model.graph.initializer}
        self._constants = constants | {n.output[0] for n in model.graph.node if n.op_type == "Constant"}

    def of(self, node: NodeProto) -> tuple[int, int]:
        """(bytes written, bytes read and written)."""
        if node.op_type in self._VIEWS:
            return 0, 0
        written = sum(self._size(name) for name in node.output)
        return written, written + sum(self._size(name) for name in node.input)

    def cio(self, node: NodeProto) -> int:
        """Values of the activations that go in and come out."""
        flowing = [name for name in (*node.input[:1], *node.output) if name not in self._constants]
        return sum(prod(self._shapes.get(name, ())) if name in self._shapes else 0 for name in flowing)

    def _size(self, name: str) -> int:
        return math.ceil(prod(self._shapes[name]) * self._bytes.get(name, 4)) if name in self._shapes else 0


def _learnt(model: ModelProto) -> dict[str, dict[str, int]]:
    """Node -> {constant: number of values} that the node learnt."""
    sizes = {t.name: prod(t.dims) for t in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            sizes.update((node.output[0], prod(a.t.dims)) for a in node.attribute if a.name == "value")
    makers = {output: node for node in model.graph.node for output in node.output}

    def constant(name: str) -> str | None:
        passed = set[str]()  # a damaged file may make a tensor of itself
        while name not in sizes:
            maker = makers.get(name)
            if maker is None or maker.op_type not in TRANSPARENT or not maker.input or name in passed:
                return None
            passed.add(name)
            name = maker.input[0]
        return name

    table: dict[str, dict[str, int]] = {}
    for node in model.graph.node:
        inputs = [node.input[i] for i in LEARNT.get(node.op_type, ()) if i < len(node.input) and node.input[i]]
        if node.op_type == "Add" and any(_is_product(makers.get(name)) for name in node.input):
            inputs = list(node.input)  # the exporter writes a linear layer's bias as an addition
        found = [name for name in map(constant, inputs) if name is not None]
        table[node_name(node)] = {name: sizes[name] for name in found}
    return table


def _is_product(node: NodeProto | None) -> bool:
    return node is not None and node.op_type == "MatMul"
