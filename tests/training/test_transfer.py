"""Weights of other classes: what of them is kept, for every kind of head."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from edgekit.models import zoo
from edgekit.models.checkpoint import save_weights, shipped_checkpoint
from edgekit.models.detector import Detector
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import file_sha256
from edgekit.runtime.errors import BadConfig, BadInput
from edgekit.training.fit import _networks
from edgekit.training.transfer import class_rows, other_pixels, start_from

OLD = ("car", "bus", "bike")


def recipe_of(model: dict[str, Any], classes: tuple[str, ...], **train: Any) -> Recipe:
    return Recipe.model_validate(
        {
            "name": "r",
            "classes": classes,
            "model": model,
            "preprocess": {"size": [128, 128]},
            "train": {"init": "x", **train} if train else {},
        }
    )


def network(recipe: Recipe, seed: int) -> Detector:
    torch.manual_seed(seed)
    model = zoo.build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size)
    state = model.state_dict()
    for name in class_rows(recipe):  # no class like another, in the bias either
        state[name].add_(torch.rand_like(state[name]))
    return model.eval()


CENTER: dict[str, Any] = {"name": "mobile-centernet"}
KINDS: dict[str, dict[str, Any]] = {
    "center": CENTER,
    "ssd": {"name": "mobilenet-ssd", "options": {"lite": True}},
    "refine": {"name": "refinedet-lite", "options": {"res2_mid_ratio": 0.25}},
    "proposals": {"name": "thundernet"},
    "yolo": {"name": "yolo", "options": {"backbone": "darknet-tiny", "neck": "yolov3-tiny"}},
    "depthwise last": {"name": "tiny-dsod"},
}


@pytest.mark.parametrize("kind", KINDS)
def test_the_same_classes_in_another_order_see_the_same(kind: str, tmp_path: Path) -> None:
    """Every class finds what it found before, under its new number."""
    old, new = recipe_of(KINDS[kind], OLD), recipe_of(KINDS[kind], ("bike", "car", "bus"), lr=1e-3)
    before, after = network(old, 0), network(new, 1)
    save_weights(before, tmp_path / "w.safetensors", OLD)
    (note,) = start_from(after, new, tmp_path / "w.safetensors")
    assert "loaded bike, car, bus" in note
    assert "anew" not in note
    image = torch.randn(1, 3, 128, 128, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        boxes, scores = before.detect(image, 50)
        boxes_after, scores_after = after.detect(image, 50)
    assert (scores[..., 0] - scores[..., 1]).abs().max() > 1e-3
    torch.testing.assert_close(boxes_after, boxes)
    torch.testing.assert_close(scores_after, scores[..., [2, 0, 1]])


@pytest.mark.parametrize("name", zoo.DETECTORS)
def test_the_rows_of_every_detector_are_known(name: str) -> None:
    """Background or box and objectness first, then the classes; and only the last layers have them."""
    recipe = recipe_of({"name": name}, OLD)
    if name in ("refinedet", "mobilenet-fpn", "lightweight-ssd", "pelee", "fpnlite"):
        recipe = recipe.model_copy(update={"preprocess": recipe.preprocess.model_copy(update={"size": (320, 320)})})
    found = class_rows(recipe)
    fixed = {rows.fixed for rows in found.values()}
    assert len(fixed) == 1
    assert fixed <= {0, 1, 5}
    with torch.device("meta"):
        model = zoo.build(name, 3, {}, recipe.preprocess.size)
    shapes = {key: value.shape for key, value in model.state_dict().items()}
    for key, rows in found.items():
        assert shapes[key][0] == rows.groups * (rows.fixed + 3), key
        assert any(word in key for word in ("confidence", "predict", "heatmap")), key


def test_a_new_class_starts_as_usual_and_others_by_name_or_by_map(tmp_path: Path) -> None:
    save_weights(network(recipe_of(CENTER, OLD), 0), tmp_path / "w.safetensors", OLD)
    classes = ("pedestrian", "vehicle", "van", "bike")
    recipe = recipe_of(CENTER, classes, init_classes={"vehicle": "car", "van": "car"})
    model, fresh = network(recipe, 1), network(recipe, 1)
    (note,) = start_from(model, recipe, tmp_path / "w.safetensors")
    assert "loaded vehicle from car, van from car, bike" in note
    assert "anew pedestrian" in note
    assert "not used bus" in note
    old = network(recipe_of(CENTER, OLD), 0)
    for part in ("weight", "bias"):
        last, was, anew = (m.get_parameter(f"head.heatmap.2.{part}") for m in (model, old, fresh))
        assert torch.equal(last[1], was[0])
        assert torch.equal(last[2], was[0])
        assert torch.equal(last[3], was[2])
        assert torch.equal(last[0], anew[0])
    for name, value in old.state_dict().items():
        if "head.heatmap.2" not in name:
            assert torch.equal(value, model.state_dict()[name])


def test_the_same_classes_are_loaded_without_a_word(tmp_path: Path) -> None:
    recipe = recipe_of(CENTER, OLD)
    before, after = network(recipe, 0), network(recipe, 1)
    save_weights(before, tmp_path / "w.safetensors", OLD)
    assert start_from(after, recipe, tmp_path / "w.safetensors") == []
    for name, value in before.state_dict().items():
        assert torch.equal(value, after.state_dict()[name])


def test_no_class_in_common_is_said_unless_it_is_meant(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(network(recipe_of(CENTER, OLD), 0), file, OLD)
    cells = ("red", "white")
    with pytest.raises(BadInput, match=r"car, bus, bike.*none of them.*init_classes=\{red: car\}.*init_classes=\{\}"):
        start_from(network(recipe_of(CENTER, cells), 1), recipe_of(CENTER, cells), file)
    meant = recipe_of(CENTER, cells, init_classes={})
    (note,) = start_from(network(meant, 1), meant, file)
    assert "loaded none; anew red, white; not used car, bus, bike" in note


def test_what_does_not_fit_is_an_error(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    save_weights(network(recipe_of({**CENTER, "options": {"head_filters": 64}}, OLD), 0), file, OLD)
    recipe = recipe_of(CENTER, ("car", "bike"), lr=1e-3)
    before = network(recipe, 1)
    with pytest.raises(BadInput, match=r"does not fit the network .*head\..*shape"):
        start_from(before, recipe, file)
    same = recipe_of(CENTER, OLD)
    with pytest.raises(BadInput, match=r"Its backbone does: set train.init_backbone"):
        start_from(network(same, 1), same, file)
    slim = recipe_of({**CENTER, "options": {"backbone": "hrnet-w16-slim"}}, OLD)
    with pytest.raises(BadInput) as caught:
        start_from(network(slim, 1), slim, file)
    assert "init_backbone" not in str(caught.value)
    for name, value in network(recipe, 1).state_dict().items():
        assert torch.equal(value, before.state_dict()[name])
    wrong = recipe_of(CENTER, ("car", "bike"), init_classes={"bike": "bicycle"})
    with pytest.raises(BadConfig, match=r"bike: bicycle.*trained for car, bus, bike"):
        start_from(before, wrong, file)
    save_file({"a": torch.zeros(1)}, tmp_path / "nameless.safetensors")
    with pytest.raises(BadConfig, match="does not say which classes"):
        start_from(before, recipe_of(CENTER, OLD, init_classes={"car": "bus"}), tmp_path / "nameless.safetensors")


def test_a_shipped_recipes_name_stands_for_its_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them but the rows of the class that is left out, in an order of one's own; from any folder."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "edgekit-road").mkdir()  # a folder of that name is ./edgekit-road
    recipe = load_recipe("edgekit-road", ["classes=[bicycle, vehicle]", "train.init=edgekit-road"])
    model, _, parents = _networks(recipe)
    assert recipe.weights is not None
    assert parents == {"init": file_sha256(recipe.weights)}
    shipped, found = load_file(recipe.weights), model.state_dict()
    rows = class_rows(recipe)
    assert rows
    for name, tensor in shipped.items():
        wanted = tensor[[2, 0]] if name in rows else tensor  # of vehicle, scooter, bicycle
        assert torch.equal(found[name], wanted), name


def test_a_shipped_recipes_name_stands_for_its_backbone() -> None:
    recipe = load_recipe("edgekit-road", ["classes=[cat]", "train.init_backbone=edgekit-road"])
    assert recipe.weights is not None
    shipped, found = load_file(recipe.weights), _networks(recipe)[0].state_dict()
    of_backbone = [name for name in shipped if name.startswith("backbone.")]
    assert of_backbone
    assert all(torch.equal(found[name], shipped[name]) for name in of_backbone)
    assert not torch.equal(*(state["head.size.0.weight"] for state in (found, shipped)))


# -- what the weights were trained to see -----------------------------------------------------------------------------
def test_weights_that_know_other_pixel_values_are_told(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """By name and by folder alike; what the remark proposes silences it; a bare file does not tell what it knows."""
    shipped = load_recipe("cspdensenetb-ref-prn-dhaka")  # rgb, 0..1
    shipped_checkpoint(shipped, folder := tmp_path / "checkpoint")
    mended = ["preprocess.colour=rgb", "preprocess.mean=[0, 0, 0]", "preprocess.std=[255, 255, 255]"]
    for start in (shipped.name, str(folder)):
        (note,) = other_pixels(load_recipe("edgekit-road"), start)
        assert note.startswith(f"{start} learned from other pixel values")
        assert "(colour bgr, mean [103.53, 116.28, 123.675], std" in note
        assert all(f"'{setting}'" in note for setting in mended)
        assert not other_pixels(load_recipe("edgekit-road", mended), start)
    assert not other_pixels(load_recipe("edgekit-road"), str(folder / "weights.safetensors"))
    ssd = ["model.name=ssd", "model.options={backbone: cspdensenet-reference, backbone_options: {b: true}}"]
    _networks(load_recipe("lightweight-ssd-dhaka", [*ssd, f"train.init_backbone={shipped.name}"]))
    (said,) = (r.getMessage() for r in caplog.records if "other pixel values" in r.getMessage())
    assert "(mean [127.5, 127.5, 127.5], std [127.5, 127.5, 127.5])" in said
