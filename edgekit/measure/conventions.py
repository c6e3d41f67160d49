"""What papers call FLOPs and parameters: the same network under other people's rules of counting.

EdgeKit's own figures are in ``complexity.py``. Here are the rules that make a published table come out to its last
digit, so that a ratio between a paper's figure and ours compares networks and not rules:

macs         multiply-accumulates of convolutions and matrix products
flops        2 x macs
macs-dense   macs of all but depthwise convolutions, a layer of their own in the authors' Caffe (Tiny-DSOD)
darknet      what darknet prints as BFLOPs (CSPNet, PRN, YOLOv3): 2 x macs, and the window of every local pooling
elementwise  what a counter of PyTorch modules adds up (the style of thop): macs, biases, 2 per normalised value, 1 per
             activated or resized one, the window of local average pooling, and transposed convolutions at their
             output positions (Mobile CenterNet, table 2)
elementwise-flops  twice that (DenseNet-201-Elastic's 8.77 G in CSPNet, table 3)

A network is first turned into operations, from its modules (``module_operations``) or from its ONNX file
(``onnx_operations``); a convention is a function of one operation. Global pooling, concatenation, addition and
multiplication are free in all of them.

Published files also hold layers that no output depends on. They are no part of our networks, and are added to a count
by name where a paper counted them (``Unused``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from .graph import Shape, load_graph, node_macs, node_name, tensor_shapes

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto
    from torch import Tensor, nn


@dataclass(frozen=True)
class Operation:
    """One layer that some convention counts.

    kind: one of KINDS;  macs: multiply-accumulates, 0 where there are none
    outputs: how many values it writes;  bias: does it add one value to each of them
    window: kernel height x width of a pooling;  spread: output positions per input position of a transposed convolution
    depthwise: is it a convolution of every channel by itself
    """

    name: str
    kind: str
    outputs: int
    macs: int = 0
    bias: bool = False
    window: int = 0
    spread: float = 1
    depthwise: bool = False


WEIGHTED = ("convolution", "transposed", "product")
KINDS = (*WEIGHTED, "max_pool", "average_pool", "normalisation", "activation", "resize")
Convention: TypeAlias = Callable[[Operation], int]


def macs(operation: Operation) -> int:
    return operation.macs


def flops(operation: Operation) -> int:
    return 2 * operation.macs


def macs_dense(operation: Operation) -> int:
    return 0 if operation.depthwise else operation.macs


def darknet(operation: Operation) -> int:
    """Darknet's BFLOPs: a pooling costs its window per output, without the factor of two."""
    pooled = operation.window * operation.outputs if operation.kind in ("max_pool", "average_pool") else 0
    return 2 * operation.macs + pooled


def elementwise(operation: Operation) -> int:
    """A module counter's MACs; a normalised value costs 2, an activated, resized or biased one 1."""
    per_output = {"normalisation": 2, "activation": 1, "resize": 1, "average_pool": operation.window}
    each = per_output.get(operation.kind, 0) + operation.bias
    return round(operation.macs * operation.spread) + each * operation.outputs


def elementwise_flops(operation: Operation) -> int:
    return 2 * elementwise(operation)


CONVENTIONS: Mapping[str, Convention] = {
    "macs": macs,
    "flops": flops,
    "macs-dense": macs_dense,
    "darknet": darknet,
    "elementwise": elementwise,
    "elementwise-flops": elementwise_flops,
}


def total(operations: Iterable[Operation], convention: str) -> int:
    """Sum of ``operations`` under a named convention. Raises KeyError for a name that CONVENTIONS does not have."""
    count = CONVENTIONS[convention]
    return sum(count(operation) for operation in operations)


# -- PyTorch modules --------------------------------------------------------------------------------------------------
ACTIVATIONS = ("ReLU", "ReLU6", "LeakyReLU", "PReLU", "SiLU", "Hardswish", "Hardsigmoid", "Sigmoid", "ELU")
MODULES: Mapping[str, str] = {
    "Conv2d": "convolution",
    "ConvTranspose2d": "transposed",
    "Linear": "product",
    "MaxPool2d": "max_pool",
    "AvgPool2d": "average_pool",
    "BatchNorm2d": "normalisation",
    "Upsample": "resize",
    **dict.fromkeys(ACTIVATIONS, "activation"),
}


def module_operations(network: nn.Module, *inputs: Tensor) -> list[Operation]:
    """The operations of one forward pass; batch and size are those of ``inputs``, which may be on the meta device.

    Modules are watched by hooks, subclasses like their bases; what a ``forward`` computes with functions is not seen.
    """
    import torch

    found: list[Operation] = []
    hooks = []
    for name, module in network.named_modules():
        kind = _kind(module)
        if kind:
            hooks.append(module.register_forward_hook(_recorder(found, name, kind)))
    try:
        with torch.no_grad():
            network(*inputs)
    finally:
        for hook in hooks:
            hook.remove()
    return found


def _kind(module: nn.Module) -> str | None:
    return next((MODULES[base.__name__] for base in type(module).__mro__ if base.__name__ in MODULES), None)


def _recorder(found: list[Operation], name: str, kind: str) -> Callable[[Any, Any, Any], None]:
    def record(module: Any, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        weight = module.weight if kind in WEIGHTED else None
        found.append(
            Operation(
                name,
                kind,
                output.numel(),
                # a transposed convolution [in, out / groups, h, w] multiplies every input, the others make every output
                0 if weight is None else (x if kind == "transposed" else output).numel() * prod(weight.shape[1:]),
                weight is not None and module.bias is not None,
                _window(module.kernel_size) if kind.endswith("pool") else 0,
                prod(output.shape[2:]) / prod(x.shape[2:]) if kind == "transposed" else 1,
                kind == "convolution" and module.groups == x.shape[1] > 1,
            )
        )

    return record


def _window(kernel: int | tuple[int, ...]) -> int:
    return prod(kernel) if isinstance(kernel, tuple) else kernel**2


def weights(network: nn.Module) -> int:
    """Weights of convolutions and linear layers only: CSPNet's "#Parameter" in table 3."""
    found: list[Any] = [module for module in network.modules() if _kind(module) in WEIGHTED]
    return sum(module.weight.numel() for module in found)


def learnable(network: nn.Module) -> int:
    """Everything that training changes, biases and normalisation included."""
    return sum(parameter.numel() for parameter in network.parameters())


def stored(network: nn.Module) -> int:
    """Every float of a darknet weights file: the learnable ones, and mean and variance of the normalisation."""
    found: list[Any] = [module for module in network.modules() if _kind(module) == "normalisation"]
    return learnable(network) + 2 * sum(module.running_mean.numel() for module in found)


PARAMETERS: Mapping[str, Callable[[nn.Module], int]] = {"weights": weights, "learnable": learnable, "stored": stored}


@dataclass(frozen=True)
class Unused:
    """A 1x1 convolution of the authors' network that no output depends on, and that a counter of modules sees.

    cin, cout: its channels;  normalised: by a layer behind it; else it has a bias
    positions: pixels at which it is computed; 0 where it only lies in the file
    """

    name: str
    cin: int
    cout: int
    normalised: bool
    positions: int = 0

    @property
    def parameters(self) -> int:
        return self.cin * self.cout + (2 if self.normalised else 1) * self.cout

    def operations(self) -> list[Operation]:
        outputs = self.cout * self.positions
        found = [Operation(self.name, "convolution", outputs, self.cin * outputs, bias=not self.normalised)]
        return found + [Operation(self.name, "normalisation", outputs)] * self.normalised


# -- ONNX files -------------------------------------------------------------------------------------------------------
NODES: Mapping[str, str] = {
    "Conv": "convolution",
    "DeformConv": "convolution",
    "ConvTranspose": "transposed",
    "Gemm": "product",
    "MatMul": "product",
    "QLinearConv": "convolution",
    "ConvInteger": "convolution",
    "QLinearMatMul": "product",
    "MatMulInteger": "product",
    "Einsum": "product",
    "MaxPool": "max_pool",
    "AveragePool": "average_pool",
    "BatchNormalization": "normalisation",
    "Resize": "resize",
    **dict.fromkeys(("Relu", "LeakyRelu", "PRelu", "Clip", "HardSwish", "HardSigmoid", "Sigmoid", "Elu"), "activation"),
}


# which input is the bias
_BIAS: Mapping[str, int] = {"Conv": 2, "ConvTranspose": 2, "Gemm": 2, "DeformConv": 3, "QLinearConv": 8}


def onnx_operations(path: str | Path) -> list[Operation]:
    """The operations of one run of an ONNX file; an open batch counts as 1.

    Normalisation that was folded into a convolution at export is no longer there to be counted, and the decode's
    sigmoids are: ``elementwise`` of a file differs from that of the modules it came from. Raises BadInput naming a
    file that is not ONNX.
    """
    return graph_operations(load_graph(path))


def graph_operations(model: ModelProto) -> list[Operation]:
    """The same of a file that ``graph.load_graph`` has read."""
    shapes = tensor_shapes(model)
    nodes = [node for node in model.graph.node if node.op_type in NODES and node.input and node.output]
    return [_node_operation(n, shapes) for n in nodes if n.input[0] in shapes and n.output[0] in shapes]


def _node_operation(node: NodeProto, shapes: Mapping[str, Shape]) -> Operation:
    kind, before, after = NODES[node.op_type], shapes[node.input[0]], shapes[node.output[0]]
    return Operation(
        node_name(node),
        kind,
        prod(after),
        node_macs(node, shapes),
        node.op_type in _BIAS and len(node.input) > _BIAS[node.op_type],
        prod(next((a.ints for a in node.attribute if a.name == "kernel_shape"), ())) if kind.endswith("pool") else 0,
        prod(after[2:]) / prod(before[2:]) if kind == "transposed" else 1,
        kind == "convolution" and next((a.i for a in node.attribute if a.name == "group"), 1) == before[1] > 1,
    )
