"""A whole training of an anchor detector with everything that is learnt beside the network, interrupted and resumed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from edgekit.models.checkpoint import save_weights
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.errors import BadConfig
from edgekit.training.fit import fit

from . import jobs
from .conftest import result_of

SETTINGS = [
    "model={name: mobilenet-ssd, options: {lite: true}}",
    "anchor_loss={box: giou, balanced: true, class_weights: {}, iou_guided: {}}",
    "distillation={pixel: 1, box: 1, pair: 1, features: [{student: 'features[0]', teacher: 'features[0]', pixel: 1}]}",
    "train.schedule={drops: [9], warmup_steps: 0}",
    "train.optimizer={kind: sgd}",
    "train.workers=0",
    "data.val=null",
]
TERMS = {"box", "class", "pixel", "box_response", "pair", "pixel0", "loss"}


def teacher_on(tiny: Path, folder: Path, model: str) -> str:
    """The override that names a teacher with random weights."""
    text = tiny.read_text(encoding="utf-8").replace("{name: mobile-centernet}", model)
    recipe = folder / "teacher.yaml"
    recipe.write_text(text, encoding="utf-8")
    section = load_recipe(recipe).model
    torch.manual_seed(1)
    network = build(section.name, len(jobs.CLASSES), section.options, (96, 64))
    save_weights(network, folder / "teacher.safetensors", jobs.CLASSES)
    return f"teacher={{recipe: {recipe}, weights: {folder / 'teacher.safetensors'}}}"


def test_what_is_learnt_beside_the_network_is_resumed_too(tiny: Path, tmp_path: Path) -> None:
    """The variances of balanced terms and a distillation's adapter: two epochs at once are one and one, bit for bit."""
    teacher = teacher_on(tiny, tmp_path, "{name: mobilenet-ssd, options: {lite: true, backbone: mobilenet-v1}}")
    common = [*SETTINGS, teacher]
    fit(load_recipe(tiny, [*common, "train.epochs=2"]), tmp_path / "whole")
    fit(load_recipe(tiny, [*common, "train.epochs=1"]), tmp_path / "parts")
    fit(load_recipe(tiny, [*common, "train.epochs=2"]), tmp_path / "parts", resume=True)
    whole, parts = result_of(tmp_path / "whole"), result_of(tmp_path / "parts")
    assert whole.weights == parts.weights
    assert whole.table == parts.table
    assert {name.removeprefix("train/") for name in whole.table[0] if name.startswith("train/")} == TERMS | {"lr"}


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("{name: mobilenet-ssd, options: {lite: true, reduce_lowest: false}}", "same anchors"),
        ("{name: mobile-centernet}", "heads of one kind"),
    ],
)
def test_a_teacher_with_another_head_is_refused(tiny: Path, tmp_path: Path, model: str, words: str) -> None:
    with pytest.raises(BadConfig, match=words):
        fit(load_recipe(tiny, [*SETTINGS, teacher_on(tiny, tmp_path, model)]), tmp_path / "run")
    assert not (tmp_path / "run").exists()
