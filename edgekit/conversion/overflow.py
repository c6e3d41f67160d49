"""Will FP16 overflow? Every activation's largest value over real images, and the layers that must stay in FP32.

FP16 ends at 65504. A network that is fine in FP32 then yields infinity, and NaN one layer later, on some images only
(NVIDIA/TensorRT issues 1787, 3101). So real images are run in FP32, and a layer whose inputs or outputs come near the
end is pinned, and one whose constants FP16 cannot hold.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from onnx import ModelProto

from ..progress import Count, quiet
from ..runtime.errors import BadInput
from ..runtime.preprocess import Preprocess
from .child import run_in_child
from .compare import fill_batch, network_input
from .extremes import extremes
from .graph import consumers, inner_nodes, layer_name, load_model, name_nodes, producers
from .half import LARGEST, beyond_half, float_tensors

LIMIT = LARGEST / 2  # sums on the way to a result may be larger than the result


@dataclass(frozen=True)
class Peak:
    """The largest absolute value of one tensor over all images, NaN if it had a NaN or an infinity in FP32 already.

    node: the name of the ONNX node that makes it; layer: its PyTorch module, or the node's name
    """

    tensor: str
    node: str
    layer: str
    largest: float


@dataclass(frozen=True)
class Scan:
    """peaks: the largest first; pins: nodes that must stay in FP32, in the graph's order; layers: their modules."""

    peaks: tuple[Peak, ...]
    pins: tuple[str, ...]
    layers: tuple[str, ...]
    images: int
    limit: float = LIMIT

    def to_dict(self, most: int = 5) -> dict[str, Any]:
        """JSON value with the ``most`` largest peaks."""
        peaks = [asdict(peak) for peak in self.peaks[:most]]
        return {"images": self.images, "limit": self.limit, "pins": list(self.pins), "peaks": peaks}


def scan_overflow(
    model: str | Path,
    images: Sequence[str | Path],
    preprocess: Preprocess,
    layout: str,
    limit: float = LIMIT,
    progress: Count | None = None,
) -> Scan:
    """Run real images through the FP32 network and look at every activation that FP16 would hold.

    progress: (images done, all images)
    Raises BadInput without images, and for a network that yields NaN or infinity in FP32 already, naming the layer.
    """
    if not images:
        raise BadInput("the scan for FP16 overflow needs real images; give a calibration set")
    request = {
        "model": str(model),
        "images": [str(path) for path in images],
        "preprocess": preprocess.to_dict(),
        "layout": layout,
    }
    child = "edgekit.conversion.overflow:tensor_peaks"
    found = run_in_child(child, request, "scan for overflow", model, progress or quiet)
    all_peaks = [Peak(**one) for one in found]
    broken = next((p for p in all_peaks if not math.isfinite(p.largest)), None)  # the first in the graph's order
    if broken is not None:
        raise BadInput(f"{model}: layer {broken.layer} yields NaN or infinity in FP32 already; check its weights")
    peaks = tuple(sorted(all_peaks, key=lambda p: -p.largest))
    graph = load_model(model)
    name_nodes(graph)
    chosen = beyond_half(graph).union(nodes_to_pin(graph, {p.tensor for p in peaks if p.largest > limit}))
    pins = tuple(node.name for node in graph.graph.node if node.name in chosen)
    layers = {node.name: layer_name(node) for node in graph.graph.node}
    return Scan(peaks, pins, tuple(dict.fromkeys(layers[name] for name in pins)), len(images), limit)


def nodes_to_pin(model: ModelProto, tensors: set[str]) -> tuple[str, ...]:
    """The nodes that make or read one of the tensors, in the graph's order: both hold it in their own type."""
    made, read = producers(model), consumers(model)
    inner = inner_nodes(model)
    chosen = {made[name].name for name in tensors if name in made}
    chosen |= {node.name for name in tensors for node in read.get(name, [])}
    return tuple(node.name for node in model.graph.node if node.name in chosen & inner)


# -- the child's side -------------------------------------------------------------------------------------------------
def tensor_peaks(
    model: str, images: Sequence[str], preprocess: Mapping[str, Any], layout: str, progress: Count
) -> list[dict[str, Any]]:
    """The child's side of ``scan_overflow``: the fields of each Peak."""
    graph = load_model(model)
    name_nodes(graph)
    inner, floats, every = inner_nodes(graph), float_tensors(graph, model), producers(graph)
    makers = {t: n for n in graph.graph.node if n.name in inner for t in n.output if t in floats}
    reads = [t for n in graph.graph.node if n.name in inner for t in n.input if t in floats and t in every]
    names = list(dict.fromkeys([*makers, *reads]))
    value = Preprocess.from_dict(preprocess)
    batch = graph.graph.input[0].type.tensor_type.shape.dim[0].dim_value
    look, largest = extremes(graph, names), np.zeros(len(names), np.float32)
    for done, path in enumerate(images):
        progress(done, len(images))
        low, high = look(fill_batch(network_input(path, value, layout), batch))
        largest = np.maximum(largest, np.maximum(-low, high))
    progress(len(images), len(images))
    return [
        asdict(Peak(name, every[name].name, layer_name(every[name]), float(most)))
        for name, most in zip(names, largest, strict=True)
    ]
