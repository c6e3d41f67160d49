"""Eight real pictures learnt by heart: targets, losses, decoding, NMS and the measurement of mAP fit together.

CI learns with the cheapest network of some families; ``EDGEKIT_NIGHTLY=1`` with one of every kind of head and loss.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import NamedTuple

import pytest

from edgekit.recipe import Recipe, load_recipe, recipe_names
from edgekit.training.fit import fit

from . import jobs

# 24 boxes, each at least 8 pixels wide and high at 192x128, none of a class beside another
PICTURES = [
    "dhaka_Dipto_-72.jpg",
    "dhaka_Dipto_558.jpg",
    "dhaka_Dipto_592.jpg",
    "dhaka_Dipto_717.jpg",
    "dhaka_Navid_143.jpg",
    "dhaka_Numan_-278-.jpg",
    "dhaka_Pias--354-.jpg",
    "dhaka_Pias--492-.jpg",
]
SETTINGS = [
    "classes=[vehicle, scooter]",
    "preprocess.size=[192, 128]",
    "augment={flip: 0, scale: [1, 1], shift: 0, colour: 0}",
    "train.epochs=60",
    "train.lr=2e-3",
    "train.schedule={kind: cosine, warmup_steps: 10}",
    "train.ema=0.9",
    "train.workers=0",
]
# All pictures in every batch: then the statistics of batch normalisation are the same in training and evaluation. With
# four of eight, a picture unlike the others is learnt by the statistics of its batch, and not found without them.
WHOLE = "train.batch_size=8"
WIDER = "preprocess.size=[224, 128]"


class Family(NamedTuple):
    """model: of the recipe;  epochs: of training;  settings: what else differs;  nightly: too long for CI

    seconds: of one core, as it was measured; None where nobody has
    """

    model: str
    epochs: int
    settings: tuple[str, ...] = ()
    nightly: bool = True
    seconds: int | None = None


FOCAL = "anchor_loss={classification: focal}"
ADVANCED = "anchor_loss={box: giou, iou_guided: {}, class_weights: {}, balanced: true}"
EFM = "{name: yolo, options: {backbone: cspdensenet-reference, neck: efm, neck_options: {sam: true}}}"
NECK = "{{name: yolo, options: {{backbone: cspdensenet-reference, neck: {}}}}}"
PRN = "{{name: yolo, options: {{backbone: cspdensenet-reference, backbone_options: {{b: true}}, neck: prn{}}}}}"
CFPN = "{name: ssd, options: {backbone: cspdensenet-reference, backbone_options: {b: true}, neck: cfpn}}"
BLL = "anchor_loss={classification: focal, box: bll}"
FAMILIES = {
    # CI
    "mobile-centernet": Family("{name: mobile-centernet, options: {backbone: hrnet-w16-slim}}", 60, nightly=False),
    "ssdlite": Family("{name: mobilenet-ssd, options: {lite: true}}", 48, nightly=False),
    "yolo-prn-3l": Family(PRN.format(", neck_options: {levels: 3}"), 48, nightly=False),
    # nightly
    # at 192x128 two objects have the same prior at the same cell of stride 16: one can be found, and 0.945 is the most
    "yolo-prn": Family(PRN.format(""), 60, (WIDER,), seconds=18),
    "yolo-efm": Family(EFM, 100, (WHOLE, "yolo_loss={box: ciou, box_weight: 2}"), seconds=38),
    "yolo-gfm": Family(NECK.format("gfm"), 100, (WHOLE,)),
    "yolo-cem": Family(NECK.format("cem"), 100, (WHOLE,)),
    "yolo-panet": Family(NECK.format("panet"), 100, (WHOLE,)),
    "yolov3": Family(NECK.format("yolov3"), 100, (WHOLE,)),
    "yolov3-tiny": Family("{name: yolo, options: {backbone: darknet-tiny, neck: yolov3-tiny}}", 100, (WHOLE, WIDER)),
    "thundernet": Family("{name: thundernet}", 80),
    "refinedet-lite": Family("{name: refinedet-lite, options: {res2_mid_ratio: 0.25}}", 80, (WHOLE,)),
    "refinedet-lite-advanced": Family(
        "{name: refinedet-lite, options: {res2_mid_ratio: 0.25}}",
        100,
        (WHOLE, ADVANCED, "postprocess={nms: soft}"),
        seconds=83,
    ),
    "refinedet-align": Family("{name: refinedet, options: {backbone: mobilenet-v1, align: 3}}", 90),
    "fpnlite": Family("{name: fpnlite, options: {width: 64}}", 80, (WHOLE, FOCAL)),
    "ssd": Family("{name: mobilenet-ssd, options: {backbone: mobilenet-v1}}", 80, (WHOLE,)),
    "mobilenet-fpn": Family("{name: mobilenet-fpn}", 80, (WHOLE,)),
    "lightweight-ssd-base": Family("{name: lightweight-ssd, options: {neck: ssd}}", 100, (WHOLE,)),
    "lightweight-ssd-fpn": Family("{name: lightweight-ssd, options: {neck: fpn}}", 100, (WHOLE,)),
    "lightweight-ssd": Family("{name: lightweight-ssd}", 120, (WHOLE, BLL)),
    "any-ssd-cfpn": Family(CFPN, 120, (WHOLE, BLL)),
    # its coarsest maps need 264 pixels
    "pelee": Family("{name: pelee}", 80, (WHOLE, "preprocess.size=[304, 304]"), seconds=101),
    "tiny-dsod": Family("{name: tiny-dsod}", 80, (WHOLE,), seconds=35),
    "centernet-resnet": Family("{name: centernet, options: {backbone: resnet-18, deformable: false}}", 80, (WHOLE,)),
    "centernet-deformable": Family("{name: centernet, options: {backbone: resnet-18}}", 80, (WHOLE,), seconds=84),
    "centernet-dla": Family("{name: centernet, options: {backbone: dla-34}}", 60, (WHOLE,)),
}


def kind(recipe: Recipe) -> tuple[str, str, bool]:
    """What its targets, losses and decode depend on: the builder, the neck, and whether predictors are separable."""
    options = recipe.model.options
    neck = options.get("neck", "cfpn" if recipe.model.name == "lightweight-ssd" else "")
    return recipe.model.name, neck, options.get("lite", False)


def test_every_kind_of_detector_in_the_zoo_learns_by_heart() -> None:
    base = recipe_names()[0]
    learnt = {kind(load_recipe(base, [f"model={family.model}"])) for family in FAMILIES.values()}
    assert {kind(load_recipe(name)) for name in recipe_names()} - learnt == set()


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
def test_eight_pictures_are_learnt_by_heart(name: str, tmp_path: Path) -> None:
    family = FAMILIES[name]
    if family.nightly and not os.environ.get("EDGEKIT_NIGHTLY"):
        pytest.skip("minutes long; set EDGEKIT_NIGHTLY=1")
    settings = [
        *SETTINGS,
        f"model={family.model}",
        f"train.epochs={family.epochs}",
        f"train.validate_every={family.epochs}",
        *family.settings,
    ]
    recipe = load_recipe(jobs.write_tiny(tmp_path / "data", PICTURES), settings)
    metrics = fit(recipe, tmp_path / "run", progress=lambda *_: None).manifest["metrics"]
    assert metrics["map50"] >= 0.95, metrics
