"""Make the shipped dhaka sets: ``python calibration/make_dhaka_sample.py DHAKA_ROADS``.

dhaka-calib and dhaka-eval have three classes; dhaka-eval-road8 has the images of dhaka-eval, with eight.

The choice is deterministic: within each stratum the images come in the order of the SHA-256 of their file names, a draw
that anybody can repeat. Images are copied byte for byte; boxes and ids stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
from samples import Origin, draw, splits, write

from edgekit.data.coco import CocoSet, Sample, read_coco, read_image

CLASSES = ("vehicle", "scooter", "bicycle")
ROAD8 = ("car", "three_wheeler", "rickshaw", "bus", "truck", "motorbike", "van", "bicycle")
LICENCE_URL = "https://opendatacommons.org/licenses/dbcl/1-0/"
ATTRIBUTION = (
    "Road Vehicle Images Dataset, published on Kaggle by ashfakyeafi; photographs by several contributors in Bangladesh"
)
SOURCE = (
    "https://www.kaggle.com/datasets/ashfakyeafi/road-vehicle-images-dataset, as committed in "
    "babaranjitsing/Real-time-Object-Detection-for-Smart-Traffic-Management @ 276f8ddc8d3561997485743366869b9ac1ad0fa0"
)
BINS = 4  # quartiles of brightness x quartiles of object size
PER_CELL = 4  # 4 x 4 cells x 4 images = 64
# Bicycles are rare (20 of 198 val images): most of theirs are taken, so that their AP is more than a coin toss.
EVALUATION = {"bicycle": 15, "scooter": 23, "vehicle": 22}
README = """# {name}
{description}

- **Images**: {images} photographs of roads in Bangladesh, {megabytes:.1f} MB, longest side at most 512 pixels.
- **Labels**: {boxes} boxes: {counts}. COCO format, `annotations.json`; its file names are relative to `images/`.
  {meaning}
- **Not labelled: pedestrians.** They are visible in most images. Never train or measure a pedestrian class here.
  Some vehicles and bicycles that are cut by the border or hidden behind others are not labelled either.
- **Used for**: {purpose}, for example of the recipe `{recipe}`. {note}

## Licence and attribution
Open Data Commons Database Contents License 1.0 (DbCL-1.0): https://opendatacommons.org/licenses/dbcl/1-0/
It covers the images and the labels in this folder; the rest of EdgeKit has its own licence.

{attribution}.

## Provenance
"Road Vehicle Images Dataset" (https://www.kaggle.com/datasets/ashfakyeafi/road-vehicle-images-dataset), as committed in
the repository `babaranjitsing/Real-time-Object-Detection-for-Smart-Traffic-Management` at
`276f8ddc8d3561997485743366869b9ac1ad0fa0` (YOLO labels, 21 classes). The licence is the one that
`dataset-ninja/road-vehicle` states for the data set. Changes before they came here: near-copies removed, images scaled
to at most 512 pixels and encoded as JPEG of quality 86, boxes scaled and clipped, boxes under 2 pixels and identical
boxes dropped, the 21 classes merged into {merged}, images split into train and val so that similar frames stay
together.
{holds} {images} images of the **{split}** split, byte for byte, with their boxes unchanged.
`set.yaml` has the SHA-256 of every file; `../make_dhaka_sample.py` made the folder.
"""
NOTE = "No shipped weights were trained on them; bicycles are more frequent here than in the whole split."
THREE = {
    "merged": 3,
    "holds": "This folder holds",
    "meaning": "`vehicle` is everything motorised with more than two wheels, and rickshaws; `scooter` is motorbikes\n"
    "  and scooters, the rider included; `bicycle` is bicycles.",
}
EIGHT = {
    "merged": 8,
    "holds": "These are the labels of `../dhaka-eval/images`,",
    "meaning": "`car` is SUVs, taxis and police cars too, `bus` minibuses, `truck` pickups, `van` minivans\n"
    "  and ambulances, `motorbike` scooters; `three_wheeler` is motorised (CNG, auto-rickshaw), `rickshaw` is\n"
    "  pedalled, or a cart.",
}
ORIGIN = Origin(
    classes=CLASSES,
    licence=f"DbCL-1.0 (Open Data Commons Database Contents License 1.0, {LICENCE_URL})",
    licence_id="DbCL-1.0",
    licence_url=LICENCE_URL,
    attribution=ATTRIBUTION,
    source=SOURCE,
    recipe="mobile-centernet-w16-dhaka",
    readme=README,
)


def choose_calibration(coco: CocoSet) -> list[Sample]:
    """Night to noon and far to near: equally many from each cell of brightness by median box size."""
    brightness = _quartile(coco.samples, lambda s: float(read_image(s.path).mean()))
    size = _quartile(coco.samples, _median_box)
    cells: dict[tuple[int, int], list[Sample]] = {}
    for sample, row, column in zip(coco.samples, brightness, size, strict=True):
        cells.setdefault((row, column), []).append(sample)
    return [sample for cell in sorted(cells) for sample in draw(cells[cell], PER_CELL)]


def _median_box(sample: Sample) -> float:
    """Median over boxes of the square root of the share of the image that a box covers."""
    width, height = (sample.boxes[:, 2:] - sample.boxes[:, :2]).T
    return float(np.median(np.sqrt(width * height / (sample.width * sample.height))))


def _quartile(samples: tuple[Sample, ...], value: Callable[[Sample], float]) -> list[int]:
    values = np.array([value(sample) for sample in samples])
    edges = np.quantile(values, np.arange(1, BINS) / BINS)
    return [int(i) for i in np.searchsorted(edges, values, side="right")]


def choose_evaluation(coco: CocoSet) -> list[Sample]:
    """So many images of each rarest class that they hold."""
    rarest: dict[str, list[Sample]] = {name: [] for name in CLASSES}
    for sample in coco.samples:
        rarest[CLASSES[int(sample.labels.max())]].append(sample)  # the classes go from common to rare
    return [sample for name, count in EVALUATION.items() for sample in draw(rarest[name], count)]


def main() -> None:
    out, train, val = splits(
        ORIGIN, "Make the shipped dhaka sets from dhaka_roads.", "annotations/vehicles3_{split}.json"
    )
    write(
        out / "dhaka-calib",
        ORIGIN,
        train,
        choose_calibration(train),
        split="train",
        purpose="calibration",
        description="Street scenes for INT8 calibration: equally many from each cell of brightness by object size.",
        note="The shipped weights were trained on these images: do not measure accuracy on them.",
        **THREE,
    )
    chosen = choose_evaluation(val)
    write(
        out / "dhaka-eval",
        ORIGIN,
        val,
        chosen,
        split="val",
        purpose="evaluation",
        description="Street scenes for measuring mAP, drawn by rarest class: bicycles and scooters are there to count.",
        note=NOTE,
        **THREE,
    )
    eight = read_coco(val.annotations.with_name("road8_val.json"), chosen[0].path.parent, ROAD8)
    names = {sample.path.name for sample in chosen}
    write(
        out / "dhaka-eval-road8",
        replace(ORIGIN, classes=ROAD8, recipe="edgekit-road8"),
        eight,
        [sample for sample in eight.samples if sample.path.name in names],
        images_root="../dhaka-eval/images",
        split="val",
        purpose="evaluation",
        description="The street scenes of dhaka-eval with eight kinds of road users, for measuring mAP.",
        note=NOTE,
        **EIGHT,
    )


if __name__ == "__main__":
    main()
