"""A look at what an imported network says on real images: it tells a wrong layout from a right one."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ...runtime.errors import BadConfig
from ...runtime.preprocess import Preprocess
from ..child import run_in_child
from ..compare import network_inputs, run_onnx

LARGEST_SCORE = 1.001
SMALL = 0.01  # of the input's larger side: boxes below it are in other units
OUTSIDE = 3.0  # boxes further out than this many input sizes are in other units
STRONGEST = 20  # boxes of an image that are looked at


def doubts(target: Path, images: Sequence[Path], preprocess: Preprocess, layout: str, source: Path) -> list[str]:
    """Run it on real images. Raises BadConfig when that cannot be boxes and probabilities; returns doubts in words."""
    request = {
        "path": str(target),
        "images": [str(image) for image in images],
        "preprocess": preprocess.to_dict(),
        "layout": layout,
    }
    seen = run_in_child("edgekit.conversion.imports.look:look", request, "run the imported network", source)
    return list(judge(seen, source))


def look(path: str, images: Sequence[str], preprocess: Mapping[str, Any], layout: str) -> dict[str, Any]:
    """The child's side: extremes of scores and boxes over the images.

    scores: [lowest, highest]; of the strongest boxes, in units of the input's larger side: sides: [median, smallest],
    reach: median distance of a corner from the origin
    """
    value = Preprocess.from_dict(preprocess)
    outputs = run_onnx(path, network_inputs(images, value, layout))
    boxes = np.concatenate([boxes.reshape(-1, 4) for boxes, _ in outputs])
    scores = np.concatenate([scores.ravel() for _, scores in outputs])
    best = np.concatenate([s.reshape(-1, s.shape[-1]).max(1) for _, s in outputs])
    strong = boxes[np.argsort(-best)[: STRONGEST * len(outputs)]] / max(value.size)
    sides = strong[:, 2:] - strong[:, :2]
    return {
        "finite": bool(np.isfinite(boxes).all() and np.isfinite(scores).all()),
        "scores": [float(scores.min()), float(scores.max())],
        "sides": [float(np.median(sides)), float(sides.min())],
        "reach": float(np.median(np.abs(strong))),
    }


def judge(seen: Mapping[str, Any], source: Path) -> Iterator[str]:
    """Doubts about what ``look`` saw; BadConfig where there is no doubt any more."""
    low, high = seen["scores"]
    if not seen["finite"]:
        raise BadConfig(
            f"{source}: boxes or scores are NaN or infinite on real images. Check --mean, --std and --layout"
        )
    if low < 0 or high > LARGEST_SCORE:
        raise BadConfig(
            f"{source}: scores reach from {low:.3g} to {high:.3g} on real images, so they are no probabilities. The "
            f"layout is another one, or its scores need an activation (sigmoid or softmax, in a YAML layout)"
        )
    median, smallest = seen["sides"]
    if abs(median) < SMALL and seen["reach"] < SMALL:
        yield "the best boxes are smaller than 1 % of the image: are they in 0..1 instead of pixels?"
    if seen["reach"] > OUTSIDE:
        yield "the best boxes lie far outside the image: are their units or format others?"
    if smallest < -SMALL:
        yield "some of the best boxes end before they begin: is their format another one?"
