"""FP16 for TensorRT: which layers must stay in FP32, and the typed FP16 artifact that TensorRT 11 builds from."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from ..models.modules import matches
from ..progress import Progress, quiet
from ..runtime.artifact import Artifact, inherited, new_artifact, read_artifact, value_sha256
from ..runtime.errors import AccuracyDrop, BadConfig
from ..runtime.preprocess import Preprocess
from .child import run_in_child
from .compare import NOTHING, Array, Comparison, Outputs, compare_outputs, fill_batch, network_inputs, run_onnx
from .graph import layer_name, load_model, name_nodes
from .half import HalfFile, rounding_model, write_half
from .overflow import Scan, scan_overflow
from .session import cpu_session

# 11 bits of FP16: a relative error of 2^-11 in every activation, so that boxes and close scores move a little
BOX_TOLERANCE = 2.0  # pixels of the network input
SCORE_TOLERANCE = 0.02
MOST_UNPAIRED = 0.05
PARITY_IMAGES = 4


def pins_for_fp16(
    source: Artifact, images: Sequence[str | Path], layers: Sequence[str] = (), progress: Progress | None = None
) -> tuple[tuple[str, ...], Scan | None]:
    """The nodes that must stay FP32: those that overflow on real images, and the named ``layers`` (module prefixes).

    The names go into ``BuildOptions.pins`` of TensorRT 8 and 10, or into ``half_artifact``. Without images only the
    named layers are pinned, and the scan is None. Raises BadConfig for a layer that does not exist.
    """
    model = source.file("model.onnx")
    tell = progress or quiet
    named = nodes_of_layers(model, layers)
    if not images:
        return named, None
    scan = scan_overflow(
        model,
        images,
        source.preprocess,
        source.manifest["input"]["layout"],
        progress=lambda done, total: tell("scan for overflow", done, total),
    )
    return tuple(dict.fromkeys([*scan.pins, *named])), scan


def nodes_of_layers(model: str | Path, layers: Sequence[str]) -> tuple[str, ...]:
    """Nodes of the named layers, by module prefix (``head.size``) or node name, in the graph's order."""
    graph = load_model(model)
    name_nodes(graph)
    known = {node.name: layer_name(node) for node in graph.graph.node}
    unknown = [want for want in layers if want not in known and not any(matches(v, [want]) for v in known.values())]
    if unknown:
        have = ", ".join(dict.fromkeys(known.values()))
        raise BadConfig(f"pins: no layer is called {', '.join(unknown)}. Layers: {have}")
    return tuple(name for name, layer in known.items() if name in layers or matches(layer, layers))


def half_artifact(
    source: Artifact,
    out: str | Path,
    images: Sequence[str | Path],
    layers: Sequence[str] = (),
    progress: Progress | None = None,
) -> Artifact:
    """Write the typed FP16 version of an ``onnx`` artifact, with what overflows on ``images`` kept in FP32.

    layers: more layers to keep in FP32, by module prefix or node name
    Raises AccuracyDrop when FP16 sees other boxes than FP32 on the images.
    """
    if source.kind != "onnx" or source.manifest.get("precision") != "fp32":
        found = f"an {source.kind} artifact in {str(source.manifest.get('precision')).upper()}"
        raise BadConfig(
            f"{source.path}: found {found}, needed an onnx artifact in FP32 to make typed FP16 from. "
            f"Export or import the network as it was before it was lowered"
        )
    pins, scan = pins_for_fp16(source, images, layers, progress)
    parents = {"onnx": source.digest}
    manifest = _manifest(source, parents, pins)
    with new_artifact(out, "onnx", manifest) as folder:
        target = Path(folder) / "model.onnx"
        made = write_half(source.file("model.onnx"), target, pins)
        manifest["fp16"] = _about(made, scan)
        manifest["parity"] = parity(source, target, images[:PARITY_IMAGES])
    return read_artifact(out)


def half_key(parents: Mapping[str, str], pins: Sequence[str]) -> str:
    """Hash of the inputs and options; an artifact that carries it need not be made again."""
    return value_sha256({"step": "half", "parents": dict(parents), "pins": list(pins)})


def _manifest(source: Artifact, parents: Mapping[str, str], pins: Sequence[str]) -> dict[str, Any]:
    return {
        **inherited(source.manifest),
        "parents": dict(parents),
        "key": half_key(parents, pins),
        "precision": "fp16",
        "notes": list(source.manifest.get("notes", ())),
        "tools": {"onnx": version("onnx")},
    }


def _about(made: HalfFile, scan: Scan | None) -> dict[str, Any]:
    return {
        "nodes": len(made.half),
        "casts": made.casts,
        "float_pins": list(made.float_pins),
        "scan": scan.to_dict() if scan is not None else None,
    }


def parity(source: Artifact, target: Path, images: Sequence[str | Path]) -> dict[str, Any] | None:
    """How the boxes of an FP16 file and its FP32 source agree (fields of Comparison); None without images.

    Raises AccuracyDrop when more than MOST_UNPAIRED of them, or of the strong ones, have no partner.
    """
    if not images:
        return None
    request = {
        "reference": source.file("model.onnx"),
        "other": str(target),
        "images": [str(path) for path in images],
        "preprocess": source.manifest["preprocess"],
        "layout": source.manifest["input"]["layout"],
    }
    child = "edgekit.conversion.precision:compare_half"
    found = Comparison(**run_in_child(child, request, "compare FP16 with FP32", target))
    if not found.within(MOST_UNPAIRED):
        raise AccuracyDrop(
            f"{source.path}: FP16 sees other boxes than FP32: {found}. Keep more layers in FP32: --pin LAYER"
        )
    return asdict(found)


def compare_half(
    reference: str, other: str, images: Sequence[str], preprocess: Mapping[str, Any], layout: str
) -> dict[str, Any]:
    """The child's side of the comparison: FP16 rounds, so its boxes may lie a little apart."""
    inputs = network_inputs(images, Preprocess.from_dict(dict(preprocess)), layout)
    total = NOTHING
    for a, b in zip(run_onnx(reference, inputs), run_rounded(other, inputs), strict=True):
        total += compare_outputs(a, b, BOX_TOLERANCE, SCORE_TOLERANCE)
    return asdict(total)


def run_rounded(path: str | Path, inputs: Sequence[Array]) -> list[Outputs]:
    """Boxes and scores of a typed FP16 file with every FP16 tensor rounded as it is stored; see ``rounding_model``."""
    session = cpu_session(rounding_model(load_model(path)), threads=1, optimise=False)
    batch = session.get_inputs()[0].shape[0]
    found = [session.run(["boxes", "scores"], {"image": fill_batch(x, batch)}) for x in inputs]
    return [(np.asarray(boxes), np.asarray(scores)) for boxes, scores in found]
