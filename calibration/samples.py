"""What the scripts beside this file share: a deterministic draw, and the folder of a shipped set."""

from __future__ import annotations

import argparse
import hashlib
import json
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgekit.data.calibration import write_set
from edgekit.data.coco import CocoSet, Sample, read_coco
from edgekit.runtime.artifact import new_file


@dataclass(frozen=True)
class Origin:
    """Where images come from. classes: from common to rare;  recipe: what the sets are recommended for

    licence: in words;  licence_id, licence_url: as COCO files have it
    readme: of each folder, with {name}, {images}, {megabytes}, {boxes}, {counts}, {attribution}, {recipe}, {split},
        {description}, {purpose} and {note}
    """

    classes: tuple[str, ...]
    licence: str
    licence_id: str
    licence_url: str
    attribution: str
    source: str
    recipe: str
    readme: str


def splits(origin: Origin, description: str, annotations: str) -> tuple[Path, CocoSet, CocoSet]:
    """Where the sets go, and the train and val of the folder that the command line names.

    annotations: their file, with {split}, in that folder
    """
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("source", type=Path, help=f"folder with images/ and {annotations.format(split='{train,val}')}")
    parser.add_argument("--out", type=Path, default=Path(__file__).resolve().parent, help="where the two folders go")
    asked = parser.parse_args()
    train, val = (
        read_coco(asked.source / annotations.format(split=split), asked.source / "images", origin.classes)
        for split in ("train", "val")
    )
    return asked.out, train, val


def draw(samples: Iterable[Sample], count: int) -> list[Sample]:
    """The first ``count`` samples by the SHA-256 of their file names: a draw that anybody can repeat."""
    return sorted(samples, key=lambda s: hashlib.sha256(s.path.name.encode()).hexdigest())[:count]


def _copy(chosen: Iterable[Sample], folder: Path) -> None:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for sample in chosen:
        shutil.copyfile(sample.path, folder / sample.path.name)


def write(
    folder: Path, origin: Origin, source: CocoSet, chosen: list[Sample], images_root: str = "images", **words: Any
) -> None:
    """One set: images, byte for byte, annotations.json, README.md and set.yaml.

    images_root: relative to ``folder``; where it is in another set's folder, the images lie there already
    """
    ids = {sample.image_id for sample in chosen}
    content = json.loads(source.annotations.read_text(encoding="utf-8"))
    content["images"] = [record for record in content["images"] if record["id"] in ids]
    content["annotations"] = [record for record in content["annotations"] if record["image_id"] in ids]
    content["info"] |= {"licence": origin.licence, "attribution": origin.attribution, "source": origin.source}
    content["licenses"] = [{"id": 1, "name": origin.licence_id, "url": origin.licence_url}]
    folder.mkdir(parents=True, exist_ok=True)
    images = (folder / images_root).resolve()
    if images.parent == folder.resolve():
        _copy(chosen, images)
    with new_file(folder / "annotations.json") as handle:
        json.dump(content, handle, separators=(",", ":"))
        handle.write("\n")
    write_set(
        folder,
        description=words["description"],
        purpose=words["purpose"],
        licence=origin.licence,
        attribution=origin.attribution,
        source=origin.source,
        recipe=origin.recipe,
        images_root=images_root,
        annotations="annotations.json",
    )
    counts = read_coco(folder / "annotations.json", images, origin.classes).class_counts()
    size = sum(p.stat().st_size for p in images.iterdir())
    text = origin.readme.format(
        name=folder.name,
        images=len(chosen),
        megabytes=size / 1e6,
        boxes=counts.sum(),
        counts=", ".join(f"{name} {count}" for name, count in zip(origin.classes, counts, strict=True)),
        attribution=origin.attribution,
        recipe=origin.recipe,
        **words,
    )
    with new_file(folder / "README.md") as handle:
        handle.write(text)
