"""What an artifact detects in a whole set of images, and its mAP there."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..data.coco import CocoSet
from ..progress import Progress, tell
from ..runtime.artifact import Artifact
from ..runtime.detections import Detections
from ..runtime.errors import naming
from ..runtime.images import read_image
from .coco import Metrics, evaluate_detections
from .tta import TestTime, open_detector


def detect_all(
    artifact: Artifact, coco: CocoSet, runtime: str, progress: Progress | None, tta: Mapping[str, Any] | None = None
) -> dict[int, Detections]:
    """The boxes in every image, by its id, on all cores. tta: the fields of ``tta.TestTime``, None: one pass.

    Raises BadInput that names the image for which the network gives NaN or infinity.
    """
    threads, found = len(os.sched_getaffinity(0)), {}
    passes = TestTime(**tta) if tta else None
    with open_detector(artifact, runtime, passes, threads) as detect:
        for done, sample in enumerate(coco.samples, 1):
            image = read_image(sample.path)
            with naming(sample.path):
                found[sample.image_id] = detect(image)
            tell(progress, f"mAP of {Path(artifact.path).name}", done, len(coco.samples))
    return found


def measure_accuracy(artifact: Artifact, coco: CocoSet, runtime: str, progress: Progress | None) -> Metrics:
    """COCO's metrics of ``detect_all``."""
    return evaluate_detections(coco, detect_all(artifact, coco, runtime, progress))
