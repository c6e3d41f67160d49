"""Activation ranges for INT8: real images through the float network, kept in a cache that is keyed by content.

The ranges belong to the float graph, so one calibration serves every flavour and every choice of float layers.
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import onnx
from onnx import helper, shape_inference

from ..progress import Count, quiet
from ..runtime.artifact import file_sha256, new_file, value_sha256
from ..runtime.engines.caches import cache_folder
from ..runtime.errors import BadConfig, BadInput
from ..runtime.preprocess import Preprocess
from .child import run_in_child
from .compare import Array, fill_batch, network_input
from .extremes import extremes
from .graph import body_of, load_model
from .histogram import Observer
from .session import cpu_session

METHODS = ("minmax", "entropy", "percentile")
# Operators whose inputs and outputs may be quantized, by any flavour.
CALIBRATED = (
    *("Conv", "ConvTranspose", "Gemm", "MatMul", "Add", "Mul", "Concat", "Split", "Resize", "Transpose", "Reshape"),
    *("Relu", "Clip", "LeakyRelu", "Sigmoid", "HardSigmoid", "MaxPool", "AveragePool", "GlobalAveragePool"),
)
BYTES_AT_ONCE = 1 << 30  # of activations that histograms are made of in one run
Ranges: TypeAlias = dict[str, tuple[float, float]]
FORMATS = {"minmax": 1, "entropy": 3, "percentile": 2}  # of what the cache holds; a new one makes old ranges void


@dataclass(frozen=True)
class Calibration:
    """ranges: tensor of the float graph -> (lowest, highest); digest: of everything they depend on.

    images: SHA-256 of each image; cached: whether they came from the cache; notes: what a user should know about that.
    """

    ranges: Ranges
    digest: str
    images: tuple[str, ...]
    cached: bool
    notes: tuple[str, ...] = ()


def calibrate(
    model: str | Path,
    images: Sequence[str | Path],
    preprocess: Preprocess,
    layout: str,
    method: str = "minmax",
    progress: Count | None = None,
) -> Calibration:
    """Ranges of the activations of an ONNX file over real images.

    method: "minmax" (extremes), "percentile" (99.999 % of the values) or "entropy" (least information lost, KL, and
        at most 5 % of the values clipped)
    progress: (images done, all images)
    Raises BadInput for an empty set, an image that cannot be read or a network that yields NaN; BadConfig for a method.
    """
    if method not in METHODS:
        raise BadConfig(f"method: expected one of {', '.join(METHODS)}, got {method!r}")
    if not images:
        raise BadInput(
            "the calibration set is empty: INT8 needs real images to find its ranges. "
            "Name a set (edgekit quantize --calibration dhaka-eval) or a folder of images."
        )
    facts = _facts(model, images, preprocess, layout, method)
    digest = value_sha256(facts)
    file = Path(cache_folder(), "calibration", f"{digest}.json")
    ranges, notes = _recall(file, facts)
    if ranges is not None:
        return Calibration(ranges, digest, tuple(facts["images"]), cached=True, notes=notes)
    request = {
        "model": str(model),
        "images": [str(path) for path in images],
        "preprocess": preprocess.to_dict(),
        "layout": layout,
        "method": method,
    }
    child = "edgekit.conversion.calibrate:collect_ranges"
    found = run_in_child(child, request, "calibrate", model, progress or quiet)
    ranges = {name: (low, high) for name, (low, high) in sorted(found.items())}
    _check(ranges, model)
    notes += _remember(file, facts, ranges)
    return Calibration(ranges, digest, tuple(facts["images"]), cached=False, notes=notes)


def _facts(
    model: str | Path, images: Sequence[str | Path], preprocess: Preprocess, layout: str, method: str
) -> dict[str, Any]:
    """Everything that the ranges depend on; file names are not among it."""
    missing = [str(path) for path in images if not Path(path).is_file()]
    if missing:
        raise BadInput(f"calibration images are missing: {', '.join(missing[:5])}{' ...' if missing[5:] else ''}")
    return {
        "format": FORMATS[method],
        "model": file_sha256(model),
        "images": [file_sha256(path) for path in images],
        "preprocess": preprocess.digest(),
        "layout": layout,
        "method": method,
    }


# -- the cache --------------------------------------------------------------------------------------------------------
def _recall(file: Path, facts: Mapping[str, Any]) -> tuple[Ranges | None, tuple[str, ...]]:
    """The ranges kept in ``file``. One that is damaged or belongs to something else is named and made again."""
    try:
        kept = json.loads(file.read_text(encoding="utf-8"))
        ranges = {name: (float(low), float(high)) for name, (low, high) in kept["ranges"].items()}
        good = kept["facts"] == dict(facts) and bool(ranges) and all(map(_finite, ranges.values()))
    except FileNotFoundError:
        return None, ()
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        good = False
    if not good:
        return None, (f"calibration cache {file} was damaged; calibrated again",)
    return ranges, ()


def _remember(file: Path, facts: Mapping[str, Any], ranges: Ranges) -> tuple[str, ...]:
    try:
        with new_file(file) as handle:
            json.dump({"facts": dict(facts), "ranges": ranges}, handle, indent=1)
    except OSError as error:  # a read-only home is no reason to fail
        return (f"calibration cache {file} could not be written ({error.strerror}); the next run calibrates again",)
    return ()


def _finite(pair: tuple[float, float]) -> bool:
    return all(map(math.isfinite, pair)) and pair[0] <= pair[1]


def _check(ranges: Ranges, model: str | Path) -> None:
    wrong = [name for name, pair in ranges.items() if not _finite(pair)]
    if wrong:
        raise BadInput(f"{model}: the network yields NaN or infinity at {wrong[0]}; check its weights")


# -- the child's side -------------------------------------------------------------------------------------------------
def collect_ranges(
    model: str,
    images: Sequence[str],
    preprocess: Mapping[str, Any],
    layout: str,
    method: str,
    progress: Count,
) -> dict[str, list[float]]:
    """The child's side of ``calibrate``: tensor -> [lowest, highest]."""
    value = Preprocess.from_dict(preprocess)
    batch = load_model(model).graph.input[0].type.tensor_type.shape.dim[0].dim_value

    def arrays() -> Iterator[Array]:
        return (fill_batch(network_input(path, value, layout), batch) for path in images)

    if method == "minmax":
        return _extremes(model, _counted(arrays(), len(images), progress))
    return _observed(model, arrays, len(images), method, progress)


def _counted(arrays: Iterator[Array], total: int, progress: Count, before: int = 0) -> Iterator[Array]:
    """The arrays, of which ``before`` others of ``total`` are done."""
    done = before
    for done, array in enumerate(arrays, before):
        progress(done, total)
        yield array
    progress(done + 1, total)


def _extremes(model: str, inputs: Iterable[Array]) -> dict[str, list[float]]:
    body, sizes = calibrated(model)
    look = extremes(body, list(sizes))
    low, high = (np.full(len(sizes), bound, np.float32) for bound in (np.inf, -np.inf))
    for image in inputs:
        lowest, highest = look(image)
        low, high = np.minimum(low, lowest), np.maximum(high, highest)
    return {name: [float(low[i]), float(high[i])] for i, name in enumerate(sizes)}


def _observed(
    model: str, inputs: Callable[[], Iterator[Array]], count: int, method: str, progress: Count
) -> dict[str, list[float]]:
    """Ranges by our histograms: ONNX Runtime's depend on the order of the images, and its entropy tries few ranges.

    Several passes over the images where the activations of one image are too many for memory.
    """
    observer = Observer()
    groups = _groups(calibrated(model)[1])
    for done, group in enumerate(groups):
        look = activations(model, group)
        for image in _counted(inputs(), count * len(groups), progress, count * done):
            observer.see(look(image))
    return {name: list(pair) for name, pair in observer.ranges(method).items()}


def _groups(sizes: Mapping[str, int]) -> list[list[str]]:
    """The tensors in lots of about BYTES_AT_ONCE."""
    groups: list[list[str]] = []
    room = 0
    for name, size in sizes.items():
        if not groups or size > room:
            groups.append([])
            room = BYTES_AT_ONCE
        groups[-1].append(name)
        room -= size
    return groups


def calibrated(model: str | Path) -> tuple[onnx.ModelProto, dict[str, int]]:
    """The network without its decode, and the bytes of every activation that may be quantized."""
    body = shape_inference.infer_shapes(body_of(load_model(model)))  # again: what was an output had no shape inside
    types = {v.name: v.type.tensor_type for v in (*body.graph.value_info, *body.graph.output, *body.graph.input)}
    readers = [node for node in body.graph.node if node.op_type in CALIBRATED]
    names = sorted({name for node in readers for name in (*node.input, *node.output)} & types.keys())
    floats = [name for name in names if types[name].elem_type == onnx.TensorProto.FLOAT]
    return body, {name: 4 * math.prod(d.dim_value or 1 for d in types[name].shape.dim) for name in floats}


def activations(model: str | Path, names: Sequence[str] | None = None) -> Callable[[Array], dict[str, Array]]:
    """A function from the network's input to activations, by default every one that may be quantized.

    Native code: it may crash.
    """
    body, sizes = calibrated(model)
    wanted = list(sizes) if names is None else list(names)
    del body.graph.output[:]
    body.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in wanted)
    session = cpu_session(body, optimise=False)
    return lambda image: dict(zip(wanted, session.run(wanted, {"image": image}), strict=True))
