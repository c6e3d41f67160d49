"""Eight real pictures learnt by heart: targets, losses, decoding and the measurement of mAP fit together."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.recipe import load_recipe
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
    "train.validate_every=60",
    "train.workers=0",
]


@pytest.mark.slow
def test_eight_pictures_are_learnt_by_heart(tmp_path: Path) -> None:
    recipe = load_recipe(jobs.write_tiny(tmp_path / "data", PICTURES), SETTINGS)
    metrics = fit(recipe, tmp_path / "run", progress=lambda *_: None).manifest["metrics"]
    assert metrics["map50"] >= 0.95, metrics
