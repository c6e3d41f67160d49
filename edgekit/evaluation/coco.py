"""COCO mAP over ``Detections``, by pycocotools, without a file in between."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..runtime.detections import Detections
from ..runtime.errors import BadInput
from ..runtime.postprocess import all_finite

if TYPE_CHECKING:
    from pycocotools.coco import COCO

    from ..data.coco import CocoSet, Sample

_IOU_50, _IOU_75 = 0, 5  # places of 0.50 and 0.75 in COCOeval's thresholds 0.50, 0.55, ... 0.95
_ALL_AREAS, _MAX_100 = 0, 2  # COCOeval's first area range, and its third limit of detections per image
SIZES, LIMITS = ("small", "medium", "large"), (1, 10, 100)  # its other area ranges, and its limits


class ClassMetrics(TypedDict):
    """ap: over IoU 0.50:0.95; ap50: at IoU 0.5; both 0..1. boxes: how many were to be found."""

    ap: float
    ap50: float
    boxes: int


@dataclass(frozen=True)
class Metrics:
    """COCO mAP, 0..1. map: over IoU 0.50:0.95; map50, map75: at one IoU. Classes without boxes are not in the means.

    sizes: map of small (under 32 x 32 pixels), medium and large (from 96 x 96) objects; None where there are none. An
        object's area is the annotation's, which COCO takes of its outline, else its box's; a false alarm's is its box's
    recall: AR, the mean recall over IoU 0.50:0.95, with at most 1, 10 and 100 detections of a class in an image
    """

    map: float
    map50: float
    map75: float
    per_class: dict[str, ClassMetrics]
    images: int
    sizes: dict[str, float | None]
    recall: dict[str, float]

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


def evaluate_detections(coco_set: CocoSet, detections: Mapping[int, Detections]) -> Metrics:
    """Evaluate one ``Detections`` per image of the set, by image id; the best 100 of each class in an image count.

    Ignored and crowd boxes are neither misses nor false alarms: a detection that lies in one is left out.
    Raises ValueError when the image ids are not exactly the set's, and BadInput when the set has no box to find or a
    box or score is not finite.
    """
    _check(coco_set, detections)
    # [IoU 10, recall 101, classes, sizes 4, limits 3] and [IoU 10, classes, sizes 4, limits 3]; -1: nothing to find
    every_precision, every_recall = _precision_and_recall(coco_set, detections)
    precision = every_precision[:, :, :, _ALL_AREAS, _MAX_100]
    per_class = {
        name: ClassMetrics(
            ap=float(precision[:, :, k].mean()), ap50=float(precision[_IOU_50, :, k].mean()), boxes=int(boxes)
        )
        for k, (name, boxes) in enumerate(zip(coco_set.classes, coco_set.class_counts(), strict=True))
        if boxes
    }
    present_classes = coco_set.class_counts() > 0
    present = precision[:, :, present_classes]
    return Metrics(
        map=float(present.mean()),
        map50=float(present[_IOU_50].mean()),
        map75=float(present[_IOU_75].mean()),
        per_class=per_class,
        images=len(coco_set.samples),
        sizes={name: _mean(every_precision[..., area, _MAX_100]) for area, name in enumerate(SIZES, 1)},
        recall={
            str(limit): float(every_recall[:, present_classes, _ALL_AREAS, m].mean()) for m, limit in enumerate(LIMITS)
        },
    )


def _mean(values: np.ndarray) -> float | None:
    """The mean of what is known, None when nothing is."""
    known = values[values > -1]
    return float(known.mean()) if known.size else None


def _check(coco_set: CocoSet, detections: Mapping[int, Detections]) -> None:
    wanted = {sample.image_id for sample in coco_set.samples}
    lost, strange = sorted(wanted - detections.keys()), sorted(detections.keys() - wanted)
    if lost or strange:
        raise ValueError(
            f"detections must cover the set: image ids without any {lost[:5]}, not in the set {strange[:5]}"
        )
    for sample in coco_set.samples:  # COCOeval would count a NaN box as a hit of any object: no IoU of it is too low
        if not all_finite(detections[sample.image_id].boxes, detections[sample.image_id].scores):
            raise BadInput(
                f"{sample.path}: NaN or infinity among the boxes or scores found in it: no mAP can be of them"
            )
    coco_set.require_boxes()


def _precision_and_recall(coco_set: CocoSet, detections: Mapping[int, Detections]) -> tuple[np.ndarray, np.ndarray]:
    from pycocotools.cocoeval import COCOeval

    with contextlib.redirect_stdout(io.StringIO()):  # pycocotools reports by print
        evaluation = COCOeval(_truth(coco_set), _found(coco_set, detections), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
    return evaluation.eval["precision"], evaluation.eval["recall"]


def _truth(coco_set: CocoSet) -> COCO:
    return _coco(coco_set, [a for sample in coco_set.samples for a in _boxes(sample)])


def _boxes(sample: Sample) -> list[dict[str, Any]]:
    # COCOeval takes "ignore" from iscrowd alone, so every ignored box is given to it as a crowd region
    return [
        {
            "image_id": sample.image_id,
            "category_id": int(label),
            "bbox": [x1, y1, x2 - x1, y2 - y1],
            "iscrowd": int(ignore),
            "area": area,
        }
        for (x1, y1, x2, y2), label, ignore, area in zip(
            sample.boxes.astype(float).tolist(), sample.labels, sample.ignore, sample.object_areas, strict=True
        )
    ]


def _found(coco_set: CocoSet, detections: Mapping[int, Detections]) -> COCO:
    labels = range(len(coco_set.classes))
    records = [record for image in sorted(detections) for record in detections[image].to_coco(image, labels)]
    return _coco(coco_set, [{**record, "iscrowd": 0} for record in records])


def _coco(coco_set: CocoSet, annotations: list[dict[str, Any]]) -> COCO:
    """What COCOeval reads. Its categories are the labels: it sorts its classes by id, and the set's ids need not rise
    with its labels.
    """
    from pycocotools.coco import COCO

    coco = COCO()
    coco.dataset = {
        "images": [{"id": s.image_id, "width": s.width, "height": s.height} for s in coco_set.samples],
        "categories": [{"id": label, "name": name} for label, name in enumerate(coco_set.classes)],
        "annotations": [
            {"area": a["bbox"][2] * a["bbox"][3], **a, "id": n}
            for n, a in enumerate(annotations, 1)  # id 0 means "unmatched" in COCOeval
        ],
    }
    coco.createIndex()
    return coco
