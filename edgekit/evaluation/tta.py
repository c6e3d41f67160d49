"""Multi-scale testing (RefineDet++, section V-D): several sizes, each also mirrored, and their boxes merged.

An exported file has one size, so it can be asked for the mirrored image only; a checkpoint is rebuilt at every size.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from math import floor

import numpy as np

from ..runtime.artifact import Artifact
from ..runtime.detections import Detections
from ..runtime.errors import BadConfig
from ..runtime.postprocess import Postprocess, box_iou, classwise_nms, soft_nms
from ..runtime.runner import Runner, open_runner
from ..runtime.sessions import open_session
from ..sizes import divisor

Detector = Callable[[np.ndarray], Detections]
Size = tuple[int, int]


@dataclass(frozen=True)
class TestTime:
    """scales: factors of the input's width and height;  flip: look at the mirrored image too
    merge: how the boxes of all passes become one list, a name in MERGES;  iou: from which on boxes belong together
    top_k: most detections of one image
    """

    scales: tuple[float, ...] = (1.0,)
    flip: bool = True
    merge: str = "nms"
    iou: float = 0.5
    top_k: int = 100

    def __post_init__(self) -> None:
        if self.merge not in MERGES:
            raise BadConfig(f"merge: expected one of {', '.join(MERGES)}, got {self.merge!r}")
        if not self.scales or not all(0.1 <= scale <= 10 for scale in self.scales):
            raise BadConfig(f"scales: expected factors of the input size, 0.1 to 10, got {list(self.scales)}")
        if not 0 < self.iou <= 1:
            raise BadConfig(f"iou: expected an overlap above 0, at most 1, got {self.iou}")
        if self.top_k < 1:
            raise BadConfig(f"top_k: expected at least 1, got {self.top_k}")


# -- merging ----------------------------------------------------------------------------------------------------------
def joined(parts: Sequence[Detections]) -> Detections:
    """All detections of one image, best score first; among equals the earlier part's."""
    boxes = np.concatenate([part.boxes for part in parts])
    scores = np.concatenate([part.scores for part in parts])
    classes = np.concatenate([part.class_ids for part in parts])
    return Detections(boxes, scores, classes)[np.argsort(-scores, kind="stable")]


def by_nms(found: Detections, options: TestTime) -> Detections:
    """Greedy NMS within each class."""
    return found[classwise_nms(found.boxes, found.class_ids, options.iou, options.top_k)]


def by_soft_nms(found: Detections, options: TestTime) -> Detections:
    """Soft NMS within each class (Bodla et al. 2017), with Gaussian decay."""
    rule = Postprocess(nms="soft", top_k=options.top_k, iou_threshold=options.iou, score_threshold=0.001)
    keep, scores = soft_nms(found.boxes, found.scores, found.class_ids, rule)
    return Detections(found.boxes[keep], scores, found.class_ids[keep])


def by_vote(found: Detections, options: TestTime) -> Detections:
    """NMS, and each kept box becomes the mean of its class's boxes that overlap it, weighted by score.

    Box voting (Gidaris and Komodakis 2015, section 4.2, eq. 3).
    """
    keep = classwise_nms(found.boxes, found.class_ids, options.iou, options.top_k)
    boxes = np.empty((len(keep), 4), np.float32)
    for i, k in enumerate(keep):
        near = (found.class_ids == found.class_ids[k]) & (box_iou(found.boxes[k], found.boxes) >= options.iou)
        near[k] = True  # a box without area overlaps nothing, not even itself
        boxes[i] = np.average(found.boxes[near], axis=0, weights=np.maximum(found.scores[near], 1e-12))
    return Detections(boxes, found.scores[keep], found.class_ids[keep])


MERGES: Mapping[str, Callable[[Detections, TestTime], Detections]] = {
    "nms": by_nms,
    "soft": by_soft_nms,
    "vote": by_vote,
}


# -- passes -----------------------------------------------------------------------------------------------------------
def mirrored(detect: Detector, image: np.ndarray) -> Detections:
    """What ``detect`` sees in the mirrored image, in the pixels of the image itself."""
    found = detect(np.ascontiguousarray(image[:, ::-1]))
    boxes = found.boxes.copy()
    boxes[:, [0, 2]] = image.shape[1] - found.boxes[:, [2, 0]]
    return Detections(boxes, found.scores, found.class_ids)


def augmented(detectors: Sequence[Detector], options: TestTime) -> Detector:
    """One detector out of several, one per scale: every pass of ``options``, merged."""

    def detect(image: np.ndarray) -> Detections:
        parts = [one(image) for one in detectors]
        if options.flip:
            parts += [mirrored(one, image) for one in detectors]
        return MERGES[options.merge](joined(parts), options)

    return detect


def sizes(artifact: Artifact, scales: Sequence[float]) -> list[Size]:
    """The artifact's input size times each scale, rounded to what its network takes. Raises BadConfig for a file."""
    width, height = artifact.preprocess.size
    if artifact.kind != "checkpoint" and any(scale != 1 for scale in scales):
        raise BadConfig(
            f"{artifact.path}: an exported file has one input size, {width}x{height}; give the checkpoint for other "
            f"scales than 1"
        )
    if artifact.kind != "checkpoint":
        return [(width, height)] * len(scales)
    section = artifact.manifest["recipe"]["model"]
    step = divisor(section["name"], section.get("options"))
    return [_rounded(width * scale, height * scale, step) for scale in scales]


def _rounded(width: float, height: float, step: int) -> Size:
    return max(step, floor(width / step + 0.5) * step), max(step, floor(height / step + 0.5) * step)


@contextmanager
def open_augmented(artifact: Artifact, runtime: str, options: TestTime, threads: int = 1) -> Iterator[Detector]:
    """The artifact's detector with the passes of ``options``; a network for each size is held until the end.

    Raises BadConfig for a scale that the artifact cannot have, and what ``open_session`` raises.
    """
    with ExitStack() as stack:
        runners = []
        for size in sizes(artifact, options.scales):
            resized = Artifact(artifact.path, copy.deepcopy(artifact.manifest))
            resized.manifest["preprocess"]["size"] = list(size)
            runners.append(stack.enter_context(Runner(resized, open_session(runtime, resized, threads))))
        yield augmented([_detector(runner) for runner in runners], options)


@contextmanager
def open_detector(artifact: Artifact, runtime: str, passes: TestTime | None, threads: int = 1) -> Iterator[Detector]:
    """The artifact as it runs on a board where ``passes`` is None, else ``open_augmented``."""
    if passes is not None:
        with open_augmented(artifact, runtime, passes, threads) as detect:
            yield detect
        return
    with open_runner(artifact.path, runtime, threads) as runner:
        yield _detector(runner)


def _detector(runner: Runner) -> Detector:
    def detect(image: np.ndarray) -> Detections:
        found: Detections = runner(image)[0]
        return found

    return detect
