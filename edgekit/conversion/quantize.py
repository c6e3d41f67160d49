"""Static INT8 with a gate on accuracy: an ``onnx`` artifact and real images in, an ``onnx-int8`` artifact out.

The decode always stays float, and so do the layers that the detector names. When the accuracy drops too far, the layers
that lose most go back to float, in growing groups, before the step gives up.
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any, TypeAlias

from ..models.modules import matches
from ..progress import Progress, counting, quiet
from ..runtime.artifact import Artifact, export_again, inherited, new_artifact, read_artifact, value_sha256
from ..runtime.errors import AccuracyDrop, BadConfig
from ..words import counted, plural
from .calibrate import FORMATS, METHODS, Calibration, calibrate
from .child import run_in_child
from .graph import layer_name, load_model, name_nodes, opset, weighted_layers
from .qdq import FLAVOURS, without_bias_scale
from .sensitivity import rank_layers

# Accuracy of an artifact: at least "map50", mAP at IoU 0.5 in 0..1.
Measure: TypeAlias = Callable[[Artifact], Mapping[str, Any]]
LOWEST_OPSET = 13  # of QuantizeLinear with an axis
GROUPED = "ONNX Runtime's quantizer has no scales for the bias of a transposed convolution in groups"
FALLBACK_SIZES = (2, 4, 8, 16)  # how many layers go back to float in the tries of the fallback


@dataclass(frozen=True)
class QuantizeOptions:
    """flavour: "x86" or "trt".  method: how ranges are found.  max_drop: points of mAP@0.5 that may be lost.

    float_modules: layers to leave in float, by module prefix; None takes what the detector names
    reduce_range: 7-bit weights, for CPUs without VNNI
    """

    flavour: str = "x86"
    method: str = "minmax"
    max_drop: float = 1.0
    float_modules: tuple[str, ...] | None = None
    reduce_range: bool = False

    def __post_init__(self) -> None:
        for name, known in (("flavour", tuple(FLAVOURS)), ("method", METHODS)):
            if getattr(self, name) not in known:
                raise BadConfig(f"{name}: expected one of {', '.join(known)}, got {getattr(self, name)!r}")
        if self.reduce_range and self.flavour != "x86":
            raise BadConfig(f"reduce_range is for x86 CPUs, and flavour {self.flavour!r} is not: leave one of them out")
        if not self.max_drop >= 0:
            raise BadConfig(f"max_drop: expected points of mAP@0.5, 0 or more, got {self.max_drop}")

    def key(self, parents: Mapping[str, str]) -> str:
        """Hash of the inputs and options; an artifact that carries it need not be made again."""
        how = {"options": asdict(self), "flavour": asdict(FLAVOURS[self.flavour]), "ranges": FORMATS[self.method]}
        return value_sha256({"step": "quantize", **how, "parents": dict(parents)})


@dataclass(frozen=True)
class Try:
    """One way of quantizing: the nodes left in float, the file, and its accuracy (None when nobody measured)."""

    float_nodes: tuple[str, ...]
    file: str
    metrics: dict[str, Any] | None


@dataclass
class _Work:
    """What the steps of one quantization share."""

    source: Artifact
    model: str
    options: QuantizeOptions
    calibration: Calibration
    images: Sequence[str | Path]
    manifest: dict[str, Any]
    layers: dict[str, str]  # node name -> layer name
    tell: Progress
    evaluation: str | None  # how the user calls the images that were measured on
    tries: list[Try] = field(default_factory=list)


def quantize(
    source: Artifact,
    images: Sequence[str | Path],
    parents: Mapping[str, str],
    out: str | Path,
    options: QuantizeOptions | None = None,
    measure: Measure | None = None,
    progress: Progress | None = None,
    notes: Sequence[str] = (),
    sets: Mapping[str, str] = MappingProxyType({}),
) -> Artifact:
    """Quantize an ``onnx`` artifact and write an ``onnx-int8`` artifact.

    images: the calibration images; they go through the artifact's own ``Preprocess``
    parents: role -> digest of what the result depends on: "onnx" and "calibration"
    measure: accuracy of an artifact; without it there is no gate
    progress: (phase, done, total)
    notes: what the user should know of the images
    sets: how the user calls the images: "calibration", and "evaluation" for those that ``measure`` looks at
    Raises BadInput for an empty or unreadable calibration set, BadConfig for a file that is not FP32 or
    a flavour that cannot take its input, and AccuracyDrop when no try keeps the loss within ``max_drop``.
    """
    options = options or QuantizeOptions()
    tell = progress or quiet
    model = source.file("model.onnx")
    _check_input(source, options)
    layers = _layers(model)
    chosen = _left_in_float(source, layers, options)
    unfit = [name for name in without_bias_scale(load_model(model), options.flavour) if name not in chosen]
    chosen += unfit
    layout = source.manifest["input"]["layout"]
    found = calibrate(model, images, source.preprocess, layout, options.method, counting(tell, "calibrate"))
    manifest = _manifest(source, parents, options, found, sets.get("calibration"))
    manifest["notes"] += [*notes, *(f"{layers[name]} stays in float: {GROUPED}" for name in unfit)]
    before = dict(measure(source)) if measure is not None else None
    manifest["notes"] += _idle_gate(before, options.max_drop)
    work = _Work(source, model, options, found, images, manifest, layers, tell, sets.get("evaluation"))
    with tempfile.TemporaryDirectory() as scratch:
        _search(work, chosen, Path(scratch), before, measure)
        _finish(work, before, out)
    return read_artifact(out)


def _check_input(source: Artifact, options: QuantizeOptions) -> None:
    precision = source.manifest.get("precision", "fp32")
    if precision != "fp32":
        raise BadConfig(
            f"{source.path}: found a file in {precision.upper()}, needed one in FP32: INT8 is made of float weights. "
            "Export or import the network as it was before it was lowered"
        )
    layout = source.manifest["input"]["layout"]
    if options.flavour == "trt" and layout != "nchw_float":
        raise BadConfig(
            f"flavour 'trt' needs an artifact with input layout nchw_float, found {layout} in {source.path}: "
            f"TensorRT 8.2 has no uint8 input. Export one for a board that takes it: {export_again(source)}"
        )
    found = opset(load_model(source.file("model.onnx")))
    if found < LOWEST_OPSET:
        recipe = source.manifest["recipe"]
        again = f"Export it again: edgekit export {recipe.get('name', 'RECIPE')} export.opset={LOWEST_OPSET}"
        if "imported" in recipe:
            again = f"Export it anew from its framework with opset {LOWEST_OPSET}, then: edgekit import-onnx FILE"
        raise BadConfig(f"{source.path}: found opset {found}, needed {LOWEST_OPSET} for one scale per channel. {again}")


def _layers(path: str) -> dict[str, str]:
    model = load_model(path)
    name_nodes(model)
    return {node.name: layer_name(node) for node in weighted_layers(model)}


def _left_in_float(source: Artifact, layers: Mapping[str, str], options: QuantizeOptions) -> list[str]:
    """Nodes that the options, or else the detector, want in float. Raises BadConfig for a layer that does not exist."""
    wished = options.float_modules
    unknown = [name for name in wished or () if not any(matches(layer, [name]) for layer in layers.values())]
    if unknown:
        known = ", ".join(layers.values())
        raise BadConfig(f"float_modules: no layer is called {', '.join(unknown)}. Layers: {known}")
    prefixes = source.manifest.get("float_modules", ()) if wished is None else wished
    return [node for node, layer in layers.items() if matches(layer, prefixes)]


# -- the tries --------------------------------------------------------------------------------------------------------
def _search(
    work: _Work, chosen: Sequence[str], scratch: Path, before: Mapping[str, Any] | None, measure: Measure | None
) -> None:
    """Quantize, measure, and put layers back to float until the loss is allowed; the last try is the good one."""
    if _good_enough(work, scratch, chosen, before, measure):
        return
    ranked = _rank(work, chosen)
    for size in FALLBACK_SIZES:
        work.tell("float fallback", len(work.tries), 1 + len(FALLBACK_SIZES))
        if _good_enough(work, scratch, [*chosen, *ranked[:size]], before, measure):
            return
        if size >= len(ranked):
            break
    raise AccuracyDrop(_complaint(work, before))


def _good_enough(
    work: _Work, scratch: Path, float_nodes: Sequence[str], before: Mapping[str, Any] | None, measure: Measure | None
) -> bool:
    """Make one candidate and measure it."""
    work.tell("quantize", 0, 1)
    path = scratch / f"try-{len(work.tries)}"
    with new_artifact(path, "onnx-int8", work.manifest) as folder:
        _write_model(work, float_nodes, Path(folder) / "model.onnx")
    candidate = read_artifact(path)
    work.tell("quantize", 1, 1)
    metrics = dict(measure(candidate)) if measure is not None else None
    work.tries.append(Try(tuple(float_nodes), candidate.file("model.onnx"), metrics))
    return before is None or metrics is None or _drop(before, metrics) <= work.options.max_drop


def _write_model(work: _Work, float_nodes: Sequence[str], target: Path) -> None:
    request = {
        "source": work.model,
        "target": str(target),
        "ranges": work.calibration.ranges,
        "flavour": work.options.flavour,
        "float_nodes": list(float_nodes),
        "float_modules": list(work.source.manifest.get("float_modules", ())),
        "reduce_range": work.options.reduce_range,
    }
    run_in_child("edgekit.conversion.qdq:quantize_file", request, "quantize", work.model)


def _drop(before: Mapping[str, Any], after: Mapping[str, Any]) -> float:
    """Points of mAP@0.5 lost; negative when INT8 is better. In decimals: 31.7 - 30.7 is 1, and no more."""
    return round(100 * (float(before["map50"]) - float(after["map50"])), 6)


def _idle_gate(before: Mapping[str, Any] | None, max_drop: float) -> list[str]:
    """A note where FP32 has no more points to lose than may be lost, so that any INT8 would pass."""
    if before is None or 100 * before["map50"] > max_drop:
        return []
    return [
        f"FP32 has mAP@0.5 {before['map50']:.3g} on the set of the gate, so --max-drop {max_drop:g} cannot fail there. "
        "Measure the loss on a set in which it finds something: --evaluation SET"
    ]


def _rank(work: _Work, chosen: Sequence[str]) -> list[str]:
    """Layers that are in INT8 now, the one that loses most first."""
    ranked = rank_layers(
        work.model,
        work.images,
        work.source.preprocess,
        work.source.manifest["input"]["layout"],
        work.calibration.ranges,
        chosen,
        counting(work.tell, "rank layers"),
    )
    return [name for name, _ in ranked]


def _complaint(work: _Work, before: Mapping[str, Any] | None) -> str:
    """Every try with its numbers, for AccuracyDrop."""
    most = work.options.max_drop
    lines = [f"INT8 loses more than {most:g} {plural('point', most)} of mAP@0.5:"]
    for found in work.tries:
        if before is not None and found.metrics is not None:
            lines.append(
                f"  {counted(len(found.float_nodes), 'layer')} in float: {100 * before['map50']:.2f} -> "
                f"{100 * found.metrics['map50']:.2f}, a drop of {_drop(before, found.metrics):.2f}"
            )
    other = ", ".join(method for method in METHODS if method != work.options.method)
    lines.append(f"Try another --method ({other}), other calibration images, or allow it with --max-drop.")
    return "\n".join(lines)


# -- the result -------------------------------------------------------------------------------------------------------
def _manifest(
    source: Artifact,
    parents: Mapping[str, str],
    options: QuantizeOptions,
    calibration: Calibration,
    calibration_set: str | None,
) -> dict[str, Any]:
    return {
        **inherited(source.manifest),
        "parents": dict(parents),
        "key": options.key(parents),
        "precision": "int8",
        "flavour": options.flavour,
        "calibration": {
            "set": calibration_set,
            "method": options.method,
            "digest": calibration.digest,
            "images": list(calibration.images),
        },
        "notes": list(source.manifest.get("notes", ())) + list(calibration.notes),
        "tools": {name: version(name) for name in ("onnx", "onnxruntime")},
    }


def _finish(work: _Work, before: Mapping[str, Any] | None, out: str | Path) -> None:
    """Put the last try in its place: the very file that was measured, and the numbers."""
    best = work.tries[-1]
    manifest = dict(work.manifest, float_layers=[work.layers[node] for node in best.float_nodes])
    if before is not None and best.metrics is not None:
        manifest["metrics"] = best.metrics
        manifest["quantization"] = {
            "set": work.evaluation,
            "images": best.metrics.get("images"),
            "map50_before": before["map50"],
            "map50_after": best.metrics["map50"],
            "drop": round(_drop(before, best.metrics), 4),
            "max_drop": work.options.max_drop,
            "tries": len(work.tries),
        }
    with new_artifact(out, "onnx-int8", manifest) as folder:
        shutil.copyfile(best.file, Path(folder) / "model.onnx")
