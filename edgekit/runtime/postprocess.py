"""The one definition of how network outputs become detections: score filter, top-k, and NMS where the head needs it."""

import numpy as np

from .detections import Detections

SUPPRESSIONS = ("none", "classwise", "soft")
DECAYS = ("linear", "gaussian")
NMS_BLOCK, SOFT_BLOCK = 128, 32  # boxes whose overlaps are worked out at once


class Postprocess(object):
    """What happens to ``boxes [A, 4]`` and ``scores [A, C]`` after the graph.

    nms: "none" for peak-based heads, "classwise" greedy NMS, or "soft" NMS (Bodla et al. 2017)
    score_threshold: lowest score kept, 0..1; soft NMS also drops what it decayed below it
    top_k: most detections of one image
    iou_threshold: overlap 0..1 above which a box of the same class is suppressed (classwise), or from which on it is
        decayed (soft, linear)
    candidates: most (box, class) pairs, by score, that enter NMS; it bounds the time of a crowded image
    decay: of soft NMS: "linear", s * (1 - IoU), or "gaussian", s * exp(-IoU^2 / sigma)
    sigma: of the gaussian decay

    Raises ValueError naming every field that is out of range.
    """

    FIELDS = ("nms", "score_threshold", "top_k", "iou_threshold", "candidates", "decay", "sigma")

    def __init__(
        self,
        nms="none",
        score_threshold=0.01,
        top_k=100,
        iou_threshold=0.5,
        candidates=1000,
        decay="gaussian",
        sigma=0.5,
    ):
        self.nms = nms
        self.score_threshold = float(score_threshold)
        self.top_k = int(top_k)
        self.iou_threshold = float(iou_threshold)
        self.candidates = int(candidates)
        self.decay = decay
        self.sigma = float(sigma)
        problems = list(self._problems())
        if problems:
            raise ValueError("; ".join(problems))

    def _problems(self):
        for name, known in (("nms", SUPPRESSIONS), ("decay", DECAYS)):
            if getattr(self, name) not in known:
                yield "{}: expected one of {}, got {!r}".format(name, ", ".join(known), getattr(self, name))
        for name in ("score_threshold", "iou_threshold"):
            if not 0 <= getattr(self, name) <= 1:
                yield "{}: expected 0..1, got {}".format(name, getattr(self, name))
        for name in ("top_k", "candidates"):
            if getattr(self, name) < 1:
                yield "{}: expected at least 1, got {}".format(name, getattr(self, name))
        if not self.sigma > 0:
            yield "sigma: expected a positive number, got {}".format(self.sigma)

    # -- the value ---------------------------------------------------------------------------------------------------
    def to_dict(self):
        return {name: getattr(self, name) for name in self.FIELDS}

    @classmethod
    def from_dict(cls, values):
        """Inverse of to_dict; fields that are absent take their default. ValueError for an unknown field."""
        unknown = sorted(set(values) - set(cls.FIELDS))
        if unknown:
            raise ValueError("unknown postprocess fields: {}".format(", ".join(unknown)))
        return cls(**values)

    def replace(self, **changes):
        """A copy with some fields changed."""
        return Postprocess(**dict(self.to_dict(), **changes))

    def __eq__(self, other):
        return isinstance(other, Postprocess) and self.to_dict() == other.to_dict()

    def __hash__(self):
        return hash(tuple(getattr(self, name) for name in self.FIELDS))

    def __repr__(self):
        return "Postprocess({})".format(", ".join("{}={!r}".format(n, getattr(self, n)) for n in self.FIELDS))

    # -- what it does ------------------------------------------------------------------------------------------------
    def __call__(self, boxes, scores, placement):
        """boxes [A, 4] (xyxy, canvas pixels) and scores [A, C] -> Detections in original pixels, best score first.

        One detection per (box, class) pair whose score reaches the threshold; among equal scores the earlier box and
        the lower class come first. What is NaN or infinite is left out before it can suppress others; who measures
        asks ``all_finite`` too, for a network that gives such values is broken.
        """
        limit = self.top_k if self.nms == "none" else max(self.top_k, self.candidates)
        index, kept = best_pairs(scores, self.score_threshold, limit)
        anchors, classes = np.divmod(index, scores.shape[1])
        chosen = boxes[anchors]
        finite = np.isfinite(chosen).all(axis=1) & np.isfinite(kept)
        if not finite.all():
            chosen, kept, classes = chosen[finite], kept[finite], classes[finite]
        if self.nms == "classwise":
            keep = classwise_nms(chosen, classes, self.iou_threshold, self.top_k)
            chosen, kept, classes = chosen[keep], kept[keep], classes[keep]
        elif self.nms == "soft":
            keep, kept = soft_nms(chosen, kept, classes, self)
            chosen, classes = chosen[keep], classes[keep]
        return Detections(placement.to_original(chosen), kept, classes)


def all_finite(boxes, scores):
    """Whether a network's boxes [..., 4] and scores [..., C] hold neither NaN nor infinity."""
    return bool(np.isfinite(boxes).all() and np.isfinite(scores).all())


def best_pairs(scores, threshold, limit):
    """Flat indices into scores [A, C], and the scores, of the ``limit`` best that reach ``threshold``, best first."""
    flat = scores.ravel()
    index = np.flatnonzero(flat >= threshold)
    values = flat[index]
    if len(values) > 4 * limit:  # a cheap cut before the sort; ties at the cut stay, so the order does not depend on it
        near = values >= np.partition(values, -limit)[-limit]
        index, values = index[near], values[near]
    order = np.argsort(-values, kind="mergesort")[:limit]  # stable, by its only name in JetPack 4's own numpy 1.13
    return index[order], values[order]


def box_iou(a, b):
    """Intersection over union of boxes [..., 4] that broadcast (xyxy, continuous); 0 where both are empty."""
    width = np.minimum(a[..., 2], b[..., 2]) - np.maximum(a[..., 0], b[..., 0])
    height = np.minimum(a[..., 3], b[..., 3]) - np.maximum(a[..., 1], b[..., 1])
    overlap = np.maximum(width, 0) * np.maximum(height, 0)
    return overlap / np.maximum(_area(a) + _area(b) - overlap, np.finfo(np.float32).tiny)


def pairwise_iou(a, b):
    """``box_iou`` [n, m] of every box of a [n, 4] with every box of b [m, 4], in float64."""
    return box_iou(np.asarray(a, np.float64)[:, None], np.asarray(b, np.float64)[None])


def _area(boxes):
    return np.maximum(boxes[..., 2] - boxes[..., 0], 0) * np.maximum(boxes[..., 3] - boxes[..., 1], 0)


def classwise_nms(boxes, classes, iou_threshold, top_k):
    """Greedy NMS within each class. boxes [n, 4] best first -> indices of the kept, best first, at most ``top_k``.

    Overlaps are worked out for NMS_BLOCK boxes at once: one call for each box would cost more than the arithmetic.
    """
    alive = np.ones(len(boxes), bool)
    kept = []  # type: list[int]
    for start in range(0, len(boxes), NMS_BLOCK):
        block = (start + np.flatnonzero(alive[start : start + NMS_BLOCK])).tolist()
        rest = alive[start:]  # a view
        spared = box_iou(boxes[block, None], boxes[None, start:]) <= iou_threshold
        spared |= classes[block, None] != classes[None, start:]
        for i, row in zip(block, spared):  # noqa: B905 - Python 3.6
            if not alive[i]:
                continue
            kept.append(i)
            if len(kept) == top_k:
                return np.array(kept, np.int64)
            rest &= row
    return np.array(kept, np.int64)


def soft_nms(boxes, scores, classes, options):
    """Soft NMS within each class (Bodla et al. 2017, eq. 3 linear, eq. 4 gaussian; options: a Postprocess).

    Takes the best remaining pair and decays the scores of its class by their overlap with it, until ``top_k`` are taken
    or none reaches the threshold. Returns (indices, decayed scores), best first: scores only fall, so the order holds.

    Decays are worked out for the SOFT_BLOCK best at once, and again when another pair has become the best.
    """
    left, scores = np.arange(len(boxes)), scores.copy()
    kept, final = [], []  # type: list[int], list[float]
    least = max(options.score_threshold, 0)
    while len(left) and len(kept) < options.top_k:
        best = int(np.argmax(scores))
        if scores[best] < least:
            break
        block = np.argsort(-scores, kind="mergesort")[:SOFT_BLOCK]
        decay_of = dict(zip(block.tolist(), _decays(boxes[left], classes[left], block, options)))  # noqa: B905
        taken = []  # type: list[int]
        while best in decay_of and scores[best] >= least and len(kept) < options.top_k:
            kept.append(int(left[best]))
            final.append(scores[best])
            scores *= decay_of[best]
            taken.append(best)
            scores[taken] = -1  # all of them: a decay of 0 makes -0 of -1, which is as good as a score of 0
            best = int(np.argmax(scores))
        left, scores = np.delete(left, taken), np.delete(scores, taken)
    return np.array(kept, np.int64), np.array(final, scores.dtype)


def _decays(boxes, classes, rows, options):
    """What taking each box of ``rows`` multiplies the score of every box with, [rows, boxes] in float32."""
    iou = box_iou(boxes[rows, None], boxes[None])
    if options.decay == "linear":
        factor = np.where(iou >= options.iou_threshold, 1 - iou, 1)
    else:
        factor = np.exp(-(iou * iou) / options.sigma)
    return np.where(classes[rows, None] == classes[None], factor, 1).astype(np.float32)
