"""What a set holds: counts, sizes and class weights, before anybody trains on it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .coco import CocoSet, Sample

SMALL, LARGE = 32**2, 96**2  # COCO's limits of small, medium and large boxes, in square pixels


def class_weights(counts: Sequence[int] | np.ndarray, gamma: float = 0.75, max_weight: float = 10.0) -> np.ndarray:
    """Weight of each class by its number of boxes M_c: 1 for the most frequent, W for the rarest; float64 [classes].

    Mobile CenterNet eq. 4, RefineDetLite eq. 5: r_c = M_max / M_c,
    w_c = (W - 1) / (r_max^gamma - 1) * (r_c^gamma - 1) + 1.
    A class without a box has no r_c. It weighs 1 and stays out of M_min, where it would press the weights of classes
    that are merely rare down to 1. All weights are 1 when the classes are equally frequent.
    """
    boxes = np.asarray(counts, np.float64)
    ratio = np.where(boxes > 0, (boxes.max() / np.maximum(boxes, 1)) ** gamma, 1.0)
    if ratio.max() == 1:
        return np.ones(len(boxes))
    weights: np.ndarray = (max_weight - 1) / (ratio.max() - 1) * (ratio - 1) + 1
    return weights


def set_stats(coco: CocoSet) -> dict[str, Any]:
    """Counts and sizes of a checked set, as JSON values.

    per_class: boxes and ignored ones, images that have some, boxes small (under 32 x 32 pixels), medium and large (from
    96 x 96), median width and height in pixels, and the class weight with the default gamma and maximum
    """
    weights = class_weights(coco.class_counts())
    boxes = [int((~s.ignore).sum()) for s in coco.samples]
    return {
        "images": len(coco),
        "images_without_boxes": sum(not n for n in boxes),
        "boxes": sum(boxes),
        "boxes_per_image": {"min": min(boxes), "median": float(np.median(boxes)), "max": max(boxes)},
        "image_sizes": _image_sizes(coco.samples),
        "per_class": {
            name: {**_class_stats(coco.samples, label), "class_weight": round(float(weights[label]), 3)}
            for label, name in enumerate(coco.classes)
        },
        "notes": list(coco.notes),
    }


def _image_sizes(samples: Sequence[Sample]) -> dict[str, int]:
    """Images of each size, the most frequent first."""
    sizes, counts = np.unique([f"{s.width}x{s.height}" for s in samples], return_counts=True)
    return {str(sizes[i]): int(counts[i]) for i in np.argsort(-counts, kind="stable")}


def _class_stats(samples: Sequence[Sample], label: int) -> dict[str, Any]:
    kept = [s.boxes[(s.labels == label) & ~s.ignore] for s in samples]
    ignored = sum(int(((s.labels == label) & s.ignore).sum()) for s in samples)
    boxes = np.concatenate(kept) if kept else np.zeros((0, 4), np.float32)
    sides = boxes[:, 2:] - boxes[:, :2]
    area = sides.prod(1)
    return {
        "boxes": len(boxes),
        "ignored": ignored,
        "images": sum(len(b) > 0 for b in kept),
        "small": int((area < SMALL).sum()),
        "medium": int(((area >= SMALL) & (area < LARGE)).sum()),
        "large": int((area >= LARGE).sum()),
        "median_size": [round(float(v), 1) for v in np.median(sides, axis=0)] if len(boxes) else None,
    }


def typical_samples(coco: CocoSet, count: int) -> list[Sample]:
    """Up to ``count`` images that show every class: spread over the set, but the rarest classes' images first."""
    rarest = np.argsort(coco.class_counts(), kind="stable")
    chosen: dict[int, Sample] = {}
    share = max(1, count // (2 * len(coco.classes)))
    for label in rarest:
        having = [s for s in coco.samples if ((s.labels == label) & ~s.ignore).any()]
        for sample in _spread(having, share):
            chosen.setdefault(sample.image_id, sample)
    others = [sample for sample in coco.samples if sample.image_id not in chosen]
    return [*chosen.values(), *_spread(others, max(0, count - len(chosen)))][:count]


def _spread(samples: Sequence[Sample], count: int) -> list[Sample]:
    """``count`` of them, or all, as far from each other as they can be."""
    places = np.linspace(0, len(samples) - 1, min(count, len(samples))).astype(int)
    return [samples[place] for place in places]
