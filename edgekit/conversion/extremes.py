"""The lowest and highest value of every activation of a network, found inside its graph.

A tensor that is taken out of ONNX Runtime stays in memory until the run ends; all those of a large network at 1024
pixels are more than most machines have. So three reductions stand right behind each tensor, and only their scalars
come out.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray
from onnx import ModelProto, TensorProto, helper

from .compare import Array
from .session import cpu_session

Values = NDArray[np.float32]
# ReduceSum, for ReduceMin and ReduceMax pass over a NaN among other values
_REDUCTIONS = ("ReduceMin", "ReduceMax", "ReduceSum")


def extremes(model: ModelProto, names: Sequence[str]) -> Callable[[Array], tuple[Values, Values]]:
    """A function from the network's input to (lowest, highest) of the tensors, each [len(names)]; native code.

    Both are NaN where the tensor has a NaN or an infinity.
    """
    session = cpu_session(_reduced(model, set(names)), optimise=False)
    outputs = [_named(name, kind) for kind in _REDUCTIONS for name in names]

    def look(image: Array) -> tuple[Values, Values]:
        low, high, total = np.reshape(session.run(outputs, {"image": image}), (len(_REDUCTIONS), -1))
        # the sum of finite values may be infinite: an attention mask holds the lowest of all floats
        broken = np.isnan(total) | ~np.isfinite(low) | ~np.isfinite(high)
        return np.where(broken, np.float32(np.nan), low), np.where(broken, np.float32(np.nan), high)

    return look


def _reduced(model: ModelProto, names: set[str]) -> ModelProto:
    """A copy of the graph whose outputs are the reductions of the tensors."""
    copy = ModelProto()
    copy.CopyFrom(model)
    nodes = list(copy.graph.node)
    del copy.graph.node[:], copy.graph.output[:]

    def reduce(tensors: Sequence[str]) -> None:
        for name in tensors:
            if name in names:
                made = {_named(name, kind): kind for kind in _REDUCTIONS}
                copy.graph.node.extend(helper.make_node(kind, [name], [out], keepdims=0) for out, kind in made.items())
                copy.graph.output.extend(helper.make_tensor_value_info(out, TensorProto.FLOAT, []) for out in made)

    reduce([value.name for value in copy.graph.input])
    for node in nodes:
        copy.graph.node.append(node)
        reduce(node.output)
    return copy


def _named(name: str, kind: str) -> str:
    return f"{name}//{kind}"
