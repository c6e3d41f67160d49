"""Make the shipped sets bccd-calib and bccd-eval: ``python calibration/make_bccd_sample.py BCCD``."""

from __future__ import annotations

from samples import Origin, draw, splits, write

CALIBRATION_IMAGES = 48
LICENCE_URL = "https://github.com/Shenggan/BCCD_Dataset/blob/master/LICENSE"
README = """# {name}
{description}

- **Images**: {images} pictures of blood under a microscope, {megabytes:.1f} MB, 640x480 pixels.
- **Labels**: {boxes} boxes: {counts}. COCO format, `annotations.json`; its file names are relative to `images/`.
  Some red cells are not labelled, above all those that the border cuts.
- **Used for**: {purpose} of the recipe `{recipe}`. {note} It is no medical device.

## Licence and attribution
{attribution}.
The MIT License covers the images and the labels in this folder:

Permission is hereby granted, free of charge, to any person obtaining a copy of this software and associated
documentation files (the "Software"), to deal in the Software without restriction, including without limitation the
rights to use, copy, modify, merge, publish, distribute, sublicense, and/or sell copies of the Software, and to permit
persons to whom the Software is furnished to do so, subject to the following conditions:

The above copyright notice and this permission notice shall be included in all copies or substantial portions of the
Software.

THE SOFTWARE IS PROVIDED "AS IS", WITHOUT WARRANTY OF ANY KIND, EXPRESS OR IMPLIED, INCLUDING BUT NOT LIMITED TO THE
WARRANTIES OF MERCHANTABILITY, FITNESS FOR A PARTICULAR PURPOSE AND NONINFRINGEMENT. IN NO EVENT SHALL THE AUTHORS OR
COPYRIGHT HOLDERS BE LIABLE FOR ANY CLAIM, DAMAGES OR OTHER LIABILITY, WHETHER IN AN ACTION OF CONTRACT, TORT OR
OTHERWISE, ARISING FROM, OUT OF OR IN CONNECTION WITH THE SOFTWARE OR THE USE OR OTHER DEALINGS IN THE SOFTWARE.

## Provenance
`Shenggan/BCCD_Dataset` at `d272fb14cdff6e473fafeeeba32aba5f560e9e43`. Changes before the pictures came here: encoded
anew as JPEG of quality 88, boxes clipped, boxes under 2 pixels and identical boxes dropped, split anew into train and
val so that near-copies stay together. This folder holds {images} images of the **{split}** split, byte for byte, with
their boxes unchanged.
`set.yaml` has the SHA-256 of every file; `../make_bccd_sample.py` made the folder.
"""
ORIGIN = Origin(
    classes=("RBC", "WBC", "Platelets"),
    licence=f"MIT ({LICENCE_URL})",
    licence_id="MIT",
    licence_url=LICENCE_URL,
    attribution="BCCD dataset, Copyright (c) 2017 shenggan",
    source="https://github.com/Shenggan/BCCD_Dataset @ d272fb14cdff6e473fafeeeba32aba5f560e9e43",
    recipe="mobile-centernet-w16-bccd",
    readme=README,
)


def main() -> None:
    out, train, val = splits(ORIGIN, "Make bccd-calib and bccd-eval from the BCCD set.", "annotations/{split}.json")
    write(
        out / "bccd-calib",
        ORIGIN,
        train,
        draw(train.samples, CALIBRATION_IMAGES),
        split="train",
        purpose="calibration",
        description="Blood cells for INT8 calibration, drawn from the training images.",
        note="The shipped weights were trained on these images: do not measure accuracy on them.",
    )
    write(
        out / "bccd-eval",
        ORIGIN,
        val,
        list(val.samples),
        split="val",
        purpose="evaluation",
        description="Blood cells for measuring mAP: the whole validation split.",
        note="No shipped weights were trained on them.",
    )


if __name__ == "__main__":
    main()
