"""Pseudo-labels: a trained detector labels images that nobody has, so that another can learn from them.

Lee, "Pseudo-Label" (2013), for boxes: sure detections become labels, and doubtful ones are ignored, for they may be
objects as well as background.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from ..progress import Progress, tell
from ..runtime.artifact import Artifact, check_place, new_file
from ..runtime.detections import Detections
from ..runtime.errors import BadConfig, BadInput
from ..runtime.images import read_image
from ..runtime.runner import open_runner
from .imagefile import SUFFIXES, check_images, left_out

_DESCRIPTION = "pseudo-labels by"


def pseudo_label(
    artifact: Artifact,
    images: Path,
    out: Path,
    runtime: str,
    score: float = 0.5,
    doubt: float = 0.2,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Write a COCO file of what the detector sees in a folder of images and its sub-folders; returns a summary.

    The summary counts what was left out, if anything was: boxes without area, and files that are no images. A note in
    it tells of photos with an EXIF rotation.

    score: detections from it on (0..1) become labels, and keep their ``score``
    doubt: those between it and ``score`` are marked ``ignore``, and ``iscrowd``, the one key that other tools go by:
        neither targets nor negatives
    """
    if not 0 <= doubt <= score <= 1:
        raise BadConfig(f"score {score} and doubt {doubt}: expected 0 <= doubt <= score <= 1")
    check_place(out, "file")
    _check_own(Path(out))
    paths = sorted(p for p in images.rglob("*") if p.suffix.lower() in SUFFIXES and p.is_file())
    if not paths:
        found = "no image in this folder or below it" if images.is_dir() else "no such folder of images"
        raise BadInput(f"{images}: {found} (looked for {', '.join(sorted(SUFFIXES))})")
    check_images(paths, progress)
    records, annotations, unsized = [], [], 0
    with open_runner(artifact.path, runtime, score_threshold=doubt) as runner:
        for number, path in enumerate(paths, 1):
            image = read_image(path)
            height, width = image.shape[:2]
            name = path.relative_to(images).as_posix()
            records.append({"id": number, "file_name": name, "width": width, "height": height})
            found = runner(image)[0]
            annotations += _labels(found[found.sized], number, artifact, score)
            unsized += int((~found.sized).sum())
            tell(progress, "label", number, len(paths))
    categories = zip(artifact.category_ids, artifact.classes, strict=True)
    content = {
        "info": {"description": f"{_DESCRIPTION} {artifact.digest}, score from {score:g} on, doubt from {doubt:g} on"},
        "images": records,
        "annotations": [{"id": i, **a} for i, a in enumerate(annotations, 1)],
        "categories": [{"id": i, "name": n} for i, n in categories],
    }
    with new_file(out) as handle:
        json.dump(content, handle)
    sure = sum("ignore" not in a for a in annotations)
    counts = {"images": len(paths), "labels": sure, "ignored": len(annotations) - sure}
    return {**counts, **left_out([images], paths, unsized), "annotations": str(out)}


def _check_own(out: Path) -> None:
    """Raise BadConfig for a file that is there and is no pseudo-labels: somebody may have drawn those boxes."""
    if not out.exists():
        return
    try:
        told = json.loads(out.read_text(encoding="utf-8"))["info"]["description"]
    except (OSError, ValueError, KeyError, TypeError):
        told = None
    if not str(told).startswith(_DESCRIPTION):
        raise BadConfig(
            f"{out}: is there, and edgekit label did not write it; it will not be replaced. Choose another --out."
        )


def _labels(found: Detections, image_id: int, artifact: Artifact, score: float) -> list[dict[str, Any]]:
    return [
        {
            **record,
            "area": round(record["bbox"][2] * record["bbox"][3], 3),
            "iscrowd": int(record["score"] < score),
            **({"ignore": 1} if record["score"] < score else {}),
        }
        for record in found.to_coco(image_id, artifact.category_ids)
    ]
