"""Predict: pictures with boxes, and the boxes as a COCO-format file."""

from __future__ import annotations

import json
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ..data.imagefile import SUFFIXES, check_images, left_out, list_images
from ..progress import Progress, tell
from ..runtime.artifact import Artifact, check_not_read, check_place, new_files
from ..runtime.errors import BadConfig, BadInput
from ..runtime.images import read_image
from ..runtime.runner import open_runner
from .draw import draw_detections, save_image

VIDEOS = frozenset({".mp4", ".m4v", ".avi", ".mov", ".mkv", ".webm", ".mpg", ".mpeg"})


def predict_images(
    artifact: Artifact,
    images: Sequence[str | Path],
    out: Path,
    runtime: str,
    score: float = 0.3,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Run every image; write ``out``/detections.json and ``out``/pictures/NAME.jpg.

    score: boxes below it (0..1) are left out of both. detections.json has COCO's ``images``, ``categories`` and
    ``annotations`` (with ``score``); image ids are 1, 2, ... in the order of the list. Boxes without area are in
    neither, and are counted in the summary if there were any, as is what else the folders hold.
    """
    out = Path(check_place(out, "folder"))
    _check_apart(out, images)
    paths = gather_images(images)
    check_images(paths, progress)
    pictures = [out / "pictures" / name for name in _picture_names(paths)]
    check_not_read([*pictures, out / "detections.json"], paths)
    records: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    unsized = 0
    with (
        new_files(out) as beside,
        open_runner(artifact.path, runtime, score_threshold=min(score, 1.0)) as runner,
    ):
        for image_id, (path, picture) in enumerate(zip(paths, pictures, strict=True), 1):
            image = read_image(path)
            found, _ = runner(image)
            unsized += int((~found.sized).sum())
            found = found[found.sized]
            save_image(beside / picture.relative_to(out), draw_detections(image, found, artifact.classes, score))
            height, width = image.shape[:2]
            records.append({"id": image_id, "file_name": str(path), "width": width, "height": height})
            annotations += found.to_coco(image_id, artifact.category_ids)
            tell(progress, "predict", image_id, len(paths))
        categories = zip(artifact.category_ids, artifact.classes, strict=True)
        result = {
            "images": records,
            "categories": [{"id": i, "name": n} for i, n in categories],
            "annotations": [_annotation(i, a) for i, a in enumerate(annotations, 1)],
        }
        (beside / "detections.json").write_text(json.dumps(result, indent=1), encoding="utf-8")
    folders = [Path(source) for source in images if Path(source).is_dir()]
    return {
        "images": len(paths),
        "boxes": len(annotations),
        **left_out(folders, paths, unsized),
        "detections": str(out / "detections.json"),
        "pictures": [str(picture) for picture in pictures],
    }


def _check_apart(out: Path, sources: Sequence[str | Path]) -> None:
    """Raise BadConfig for results in a folder that is read, or in that of an image that is read: the folder's next
    reader would take the pictures for images.
    """
    for source in map(Path, sources):
        folder, place = (source if source.is_dir() else source.parent).resolve(), out.resolve()
        if place == folder or (source.is_dir() and place.is_relative_to(folder)):
            raise BadConfig(f"{out}: lies in {folder}, which is read by this command. Choose a place outside of it.")


def gather_images(sources: Sequence[str | Path]) -> list[Path]:
    """Files as given, and the images of folders, in name order. BadInput for what does not exist or holds none."""
    paths: list[Path] = []
    for source in map(Path, sources):
        if source.is_dir():
            inside = list_images(source)
            if not inside:
                raise BadInput(f"{source}: no images in this folder (looked for {', '.join(sorted(SUFFIXES))})")
            paths += inside
        elif source.suffix.lower() in VIDEOS and source.is_file():
            raise BadInput(
                f"{source}: is a video, and images are read here. Its boxes: edgekit camera ARTIFACT --source "
                f"{shlex.quote(str(source))} --offline --mp4 boxes.mp4 --coco boxes.json"
            )
        elif source.is_file():
            paths.append(source)
        else:
            raise BadInput(f"{source}: no such image or folder")
    return paths


def _picture_names(paths: Sequence[Path]) -> list[str]:
    """One name per picture; an image whose name is taken, by one of another folder, gets its number in front."""
    names: dict[str, None] = {}  # in their order
    for number, path in enumerate(paths, 1):
        stem = path.stem
        while f"{stem}.jpg" in names:
            stem = f"{number:05d}-{stem}"
        names[f"{stem}.jpg"] = None
    return list(names)


def _annotation(number: int, record: dict[str, Any]) -> dict[str, Any]:
    return {"id": number, **record, "area": round(record["bbox"][2] * record["bbox"][3], 3), "iscrowd": 0}
