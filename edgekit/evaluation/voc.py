"""Pascal VOC's mAP at IoU 0.5: the 11-point average of VOC 2007, and the area under the curve of VOC 2010 and later.

Everingham et al., "The Pascal Visual Object Classes (VOC) Challenge", IJCV 2010, section 4.2; the devkit of 2010 for
the area. It differs from COCO's AP50 in three things: no limit of detections per image, the average over recall, and
what an ignored (``difficult``) object takes: any detection whose best overlap it is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Literal

import numpy as np

from ..data.coco import CocoSet, Sample
from ..runtime.detections import Detections
from ..runtime.errors import BadInput
from ..runtime.postprocess import box_iou

Average = Literal["voc2007", "area"]


@dataclass(frozen=True)
class VocMetrics:
    """map: mean of ``per_class``, AP 0..1 of each class that has objects to find."""

    map: float
    per_class: dict[str, float]
    average: Average

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_voc(
    coco_set: CocoSet, detections: Mapping[int, Detections], average: Average = "voc2007", min_iou: float = 0.5
) -> VocMetrics:
    """VOC's mAP of one ``Detections`` per image of the set, keyed by image id.

    Raises BadInput when the set has no object to find, and KeyError for an image without an entry.
    """
    counts = coco_set.class_counts()
    if not counts.any():
        raise BadInput(
            f"{coco_set.annotations}: no box to find in this set, so mAP has no meaning; give a labelled set"
        )
    per_class = {}
    for label, name in enumerate(coco_set.classes):
        if counts[label]:
            hits = _ranked_hits(coco_set.samples, detections, label, min_iou)
            per_class[name] = average_precision(hits, int(counts[label]), average)
    return VocMetrics(float(np.mean(list(per_class.values()))), per_class, average)


def average_precision(hits: np.ndarray, objects: int, average: Average) -> float:
    """AP of detections in the order of falling score. hits: bool [n], true where an object was found."""
    found = np.cumsum(hits)
    recall = found / objects
    precision = found / np.arange(1, len(hits) + 1)
    if average == "voc2007":
        levels = [precision[recall >= level - 1e-12] for level in np.arange(11) / 10]
        return float(np.mean([values.max(initial=0.0) for values in levels]))
    envelope = np.maximum.accumulate(precision[::-1])[::-1]  # the highest precision at this recall or a higher one
    return float(np.sum(np.diff(recall, prepend=0.0) * envelope))


def _ranked_hits(
    samples: tuple[Sample, ...], detections: Mapping[int, Detections], label: int, min_iou: float
) -> np.ndarray:
    """bool [n] of all detections of a class that count, best first; equal scores in the order of the images."""
    scores: list[float] = []
    hits: list[bool] = []
    for sample in samples:
        found = detections[sample.image_id]
        mine = found.class_ids == label
        order = np.argsort(-found.scores[mine], kind="stable")
        matches = _match(sample, label, found.boxes[mine][order], min_iou)
        for score, hit in zip(found.scores[mine][order], matches, strict=True):
            if hit is not None:
                scores.append(float(score))
                hits.append(hit)
    return np.array(hits, bool)[np.argsort(-np.array(scores), kind="stable")]


def _match(sample: Sample, label: int, boxes: np.ndarray, min_iou: float) -> list[bool | None]:
    """For each box, best first: an object found (True), a false alarm or a second find (False), not counted (None)."""
    mine = sample.labels == label
    objects, ignored = sample.boxes[mine], sample.ignore[mine]
    taken = np.zeros(len(objects), bool)
    results: list[bool | None] = []
    for box in boxes:
        overlaps = box_iou(box, objects)
        best = int(overlaps.argmax()) if len(overlaps) else -1
        if best < 0 or overlaps[best] < min_iou:
            results.append(False)
        elif ignored[best]:
            results.append(None)
        else:
            results.append(not taken[best])
            taken[best] = True
    return results
