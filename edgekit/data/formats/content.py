"""Building and thinning COCO objects."""

from __future__ import annotations

from collections import defaultdict
from pathlib import Path, PurePosixPath
from typing import Any

from ...runtime.errors import BadInput
from ..imagefile import ImageHeader, read_header
from ..problems import Problems


class CocoBuilder:
    """Gathers images and boxes under names; ids are given in the order of arrival.

    headers: of the file of each record; None where the annotation has the size, and the file was not looked at
    """

    def __init__(self, images: Path, problems: Problems, names: list[str] | None = None) -> None:
        self.images, self.problems = images, problems
        self.records: list[dict[str, Any]] = []
        self.headers: list[ImageHeader | None] = []
        self.annotations: list[dict[str, Any]] = []
        self.categories = {name: number for number, name in enumerate(names or [], 1)}

    def image(self, file_name: str, size: tuple[int, int] | None = None) -> dict[str, Any] | None:
        """A new image record; without ``size`` (width, height) the file is looked at. None when it cannot be read."""
        header = None
        if size is None:
            try:
                header = read_header(self.images / file_name)
            except BadInput as error:
                self.problems.add(file_name, str(error))
                return None
            size = header.width, header.height
        record = {"id": len(self.records) + 1, "file_name": file_name, "width": size[0], "height": size[1]}
        self.records.append(record)
        self.headers.append(header)
        return record

    def box(self, image: dict[str, Any], name: str, xyxy: tuple[float, float, float, float], **flags: bool) -> None:
        """A box in pixels: x1, y1, x2, y2. flags: ``difficult``, ``ignore``, ``iscrowd``."""
        x1, y1, x2, y2 = xyxy
        category = self.categories.setdefault(name, len(self.categories) + 1)
        self.annotations.append(
            {
                "id": len(self.annotations) + 1,
                "image_id": image["id"],
                "category_id": category,
                "bbox": [x1, y1, x2 - x1, y2 - y1],
                **{flag: 1 for flag, on in flags.items() if on},
            }
        )

    def content(self) -> dict[str, Any]:
        """The COCO object. Raises BadInput when a problem was met."""
        if None in self.headers:
            self.problems.advice = "Image files of the other annotations come after these: they were not looked at yet."
        self.problems.raise_any()
        categories = [{"id": number, "name": name} for name, number in self.categories.items()]
        return {"images": self.records, "annotations": self.annotations, "categories": categories}


def every_nth(content: dict[str, Any], stride: int) -> dict[str, Any]:
    """One of ``stride`` frames of every clip. A clip is a folder of images; its frames are in the order of names."""
    clips: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for record in content["images"]:
        clips[str(PurePosixPath(record["file_name"]).parent)].append(record)
    kept = {r["id"] for clip in clips.values() for r in sorted(clip, key=lambda r: str(r["file_name"]))[::stride]}
    return {
        **content,
        "images": [r for r in content["images"] if r["id"] in kept],
        "annotations": [a for a in content["annotations"] if a["image_id"] in kept],
    }
