"""Golden images: does this runtime see the boxes that ONNX Runtime saw on the workstation?

Compared are detections behind the post-processing, which is what a user gets: each expected box needs a partner of its
class, near enough in place and score, and no box may be there that was not expected.
"""

import numpy as np

from ..postprocess import pairwise_iou

# precision -> (least IoU of partners, largest difference of their scores, share of boxes that may lack a partner).
# FP16 has 11 bits: a box of 500 pixels may move by a quarter of one, and close scores may change their order, so that
# NMS keeps the neighbour. INT8 engines are judged by mAP; here only the coarse shape is held.
TOLERANCE = {"fp32": (0.98, 0.01, 0.0), "fp16": (0.90, 0.05, 0.02), "int8": (0.60, 0.25, 0.25)}


def compare(expected, found, threshold, precision):
    """Compare lists of Detections, image by image. Judged are boxes with a score of ``threshold`` + the allowed
    difference of scores, or more: the partner of a lower one may lie below the threshold, and is not there to be found.
    Boxes without an area are left out on both sides: they overlap nothing, not even themselves.

    Returns a JSON object: same, precision, threshold, images, boxes (expected, of those that are judged), paired of
    them, unpaired, worst_iou, worst_score, allowed {iou, score, share}, faults (a sentence for each image with unpaired
    boxes, at most ten).
    """
    least, gap, share = TOLERANCE[precision]
    total = {"boxes": 0, "paired": 0, "unpaired": 0, "worst_iou": 1.0, "worst_score": 0.0}
    faults = []
    if len(expected) != len(found):
        raise ValueError("expected {} images, got {}".format(len(expected), len(found)))
    for index, a in enumerate(expected):
        one = _compare_image(_comparable(a), _comparable(found[index]), judged_from(threshold, precision), least, gap)
        total["boxes"] += one["boxes"]
        total["paired"] += one["boxes"] - one["missing"]
        total["unpaired"] += one["missing"] + one["extra"]
        total["worst_iou"] = min(total["worst_iou"], one["iou"])
        total["worst_score"] = max(total["worst_score"], one["score"])
        if one["missing"] or one["extra"]:
            faults.append("image {}: {} missing, {} not expected".format(index, one["missing"], one["extra"]))
    same = total["paired"] > 0 and total["unpaired"] <= share * total["boxes"]
    allowed = {"iou": least, "score": gap, "share": share}
    return dict(
        total,
        same=bool(same),
        precision=precision,
        threshold=threshold,
        images=len(expected),
        allowed=allowed,
        faults=faults[:10],
    )


def judged_from(threshold, precision):
    """The score from which on a box is judged in this precision."""
    return threshold + TOLERANCE[precision][1]


def _comparable(detections):
    """The boxes with an area; one that is NaN stays, as nothing pairs with it."""
    return detections[detections.sized | np.isnan(detections.boxes).any(axis=1)]


def _compare_image(a, b, judged, least, gap):
    partner, iou, score = _pair(a, b, least, gap)
    missing = int(np.sum((partner < 0) & (a.scores >= judged)))
    free = np.setdiff1d(np.arange(len(b.scores)), partner[partner >= 0])
    extra = int(np.sum(b.scores[free] >= judged))
    counted = int(np.sum(a.scores >= judged))
    return {"boxes": counted, "missing": missing, "extra": extra, "iou": iou, "score": score}


def _pair(a, b, least, gap):
    """Partner in b of each box of a, or -1, taken greedily from the best score on; and the worst of the pairs."""
    partner = np.full(len(a.scores), -1)
    worst_iou, worst_score = 1.0, 0.0
    if not len(a.scores) or not len(b.scores):
        return partner, worst_iou, worst_score
    overlap = pairwise_iou(a.boxes, b.boxes)
    near = np.abs(a.scores[:, None] - b.scores[None, :])
    fits = (overlap >= least) & (near <= gap) & (a.class_ids[:, None] == b.class_ids[None, :])
    for row in np.argsort(-a.scores, kind="mergesort"):
        columns = np.flatnonzero(fits[row])
        if len(columns):
            best = columns[np.argmax(overlap[row, columns])]
            partner[row] = best
            fits[:, best] = False
            worst_iou = min(worst_iou, float(overlap[row, best]))
            worst_score = max(worst_score, float(near[row, best]))
    return partner, worst_iou, worst_score


def choose_threshold(detections, lowest, precision, wanted=8):
    """The threshold for ``compare``: 0.3, or less where a network is so unsure that few of its boxes would be judged.

    Returns (threshold, how many boxes are judged with it in this precision). lowest: no box has a lower score.
    """
    scores = np.concatenate([_comparable(d).scores for d in detections]) if detections else np.zeros(0)
    for threshold in (0.3, 0.2, 0.1, 0.05, lowest):
        judged = int(np.sum(scores >= judged_from(threshold, precision)))
        if judged >= wanted:
            break
    return float(threshold), judged
