"""Starting from a trained backbone, and how VGG-16 starts without one."""

from __future__ import annotations

import functools
import logging
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from edgekit.models import zoo
from edgekit.models.backbones.hrnet import HRNet
from edgekit.models.backbones.registry import BACKBONES, build_backbone
from edgekit.models.checkpoint import save_weights
from edgekit.models.classifier import classifier
from edgekit.models.detector import Detector
from edgekit.recipe import load_recipe
from edgekit.runtime.artifact import file_sha256
from edgekit.runtime.errors import BadConfig, BadInput
from edgekit.training.backbone import backbone_of, start_backbone
from edgekit.training.fit import fit

SMALL: dict[str, Any] = {"backbone": "mobilenet-v1"}


def network(name: str, options: dict[str, Any], seed: int = 0) -> Detector:
    torch.manual_seed(seed)
    return zoo.build(name, 3, options, (128, 128) if zoo.bound_to_size(name) else None)


@functools.cache
def kinds() -> set[type]:
    with torch.device("meta"):
        return {type(build_backbone(name)) for name in BACKBONES}


# -- which part it is -------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("name", "options", "place"),
    [
        *((name, {}, "") for name in zoo.DETECTORS),
        ("refinedet", {"backbone": "vgg-16"}, "sources"),
        ("refinedet", {"backbone": "resnet-18"}, "sources.0"),
        ("refinedet", {"backbone": "vgg-16", "tcb": False}, "features"),
        ("ssd", {"backbone": "peleenet", "neck": "pelee"}, "features.0.backbone"),
        ("centernet", {"backbone": "dla-34"}, "backbone.0"),
    ],
    ids=str,
)
def test_the_backbone_of_every_detector_is_known(name: str, options: dict[str, Any], place: str) -> None:
    """One of the registry, or HRNet: no neck is part of it, and it is not a part of the backbone alone."""
    with torch.device("meta"):
        found, module = backbone_of(zoo.build(name, 3, options))
    assert place in ("", found)
    assert type(module) in {*kinds(), HRNet}


# -- loading it -------------------------------------------------------------------------------------------------------
@pytest.mark.parametrize(
    ("source", "prefix"),
    [
        (lambda: network("mobilenet-ssd", SMALL), "features.0."),
        (lambda: network("ssd", SMALL), "features.0.backbone."),
        (lambda: classifier(10, "mobilenet-v1"), "backbone."),
        (lambda: build_backbone("mobilenet-v1"), ""),
    ],
    ids=["detector", "wrapped", "classifier", "alone"],
)
def test_a_backbone_of_another_network(source: Any, prefix: str, tmp_path: Path) -> None:
    """It becomes the file's, the rest stays as it was, and both are said."""
    file = tmp_path / "w.safetensors"
    save_weights(source(), file, ["other", "classes"])
    theirs, model = load_file(file), network("refinedet", SMALL, 1)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    note = start_backbone(model, file)
    taken = {name: value for name, value in theirs.items() if name.startswith(prefix)}
    for name, value in model.state_dict().items():
        own = name.startswith("sources.0.")
        expected = taken[prefix + name.removeprefix("sources.0.")] if own else before[name]
        assert torch.equal(value, expected), name
    assert f"the backbone's {len(taken)} tensors loaded; {len(before) - len(taken)} of the network begin anew" in note
    assert (f"{len(theirs) - len(taken)} not used" in note) == bool(prefix)


def vgg() -> dict[str, Tensor]:
    """What a converted classifier has: small, as nobody looks at its values."""
    return {name: value for name, value in build_backbone("vgg-16").state_dict().items() if "extras" not in name}


def test_new_layers_of_vgg_need_not_be_in_the_file(tmp_path: Path) -> None:
    """Section IV-G: the classifier's layers are loaded, conv6_1, conv6_2 and the two normalisations begin anew."""
    model = network("refinedet", {})
    state = {name: torch.full_like(value, 0.5) for name, value in vgg().items() if "normalise" not in name}
    save_file(state, tmp_path / "w.safetensors")
    note = start_backbone(model, tmp_path / "w.safetensors")
    assert (model.state_dict()["sources.fc.0.weight"] == 0.5).all()
    assert (model.state_dict()["sources.normalise.0.weight"] == 10).all()
    assert "anew in the backbone: extras.0.0.bias" in note
    del state["fc.0.weight"]
    save_file(state, tmp_path / "w.safetensors")
    with pytest.raises(BadInput, match=r"backbone \(1 tensors\): fc\.0\.weight: missing"):
        start_backbone(model, tmp_path / "w.safetensors")


def test_misfits_are_named_and_nothing_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "w.safetensors"
    model = network("refinedet", SMALL)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    state = build_backbone("mobilenet-v1").state_dict()
    first = next(iter(state))
    for wrong, words in (
        ({**state, first: torch.zeros(7, 3, 3, 3)}, rf"w\.safetensors: .*{first}: shape \[7, 3, 3, 3\], needed \[32"),
        ({**state, "more.weight": torch.zeros(1)}, r"more\.weight: not in the network"),
        ({"some": torch.zeros(1)}, rf"none of its tensors is called {first}.*it has some"),
    ):
        save_file({name: value.contiguous() for name, value in wrong.items()}, file)
        with pytest.raises(BadInput, match=words):
            start_backbone(model, file)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


# -- a recipe ---------------------------------------------------------------------------------------------------------
def test_a_training_from_a_backbone(
    tiny: Path, trained: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """At a rate of nothing the published backbone is the file's and the head is not; the manifest names the file."""
    still = ["train.epochs=1", "train.workers=0", "data.val=null", "train.lr=1e-12", "train.freeze_norm=true"]
    with caplog.at_level(logging.WARNING):
        made = fit(load_recipe(tiny, [*still, f"train.init_backbone={trained}"]), tmp_path / "run")
    assert made.manifest["parents"]["backbone"] == file_sha256(trained)
    assert any("the backbone's" in record.getMessage() for record in caplog.records)
    ours, theirs = load_file(Path(made.file("weights.safetensors"))), load_file(trained)
    for name, value in ours.items():
        if value.is_floating_point():
            same = torch.allclose(value, theirs[name], atol=1e-6)
            assert same or not name.startswith("backbone."), name
    assert not torch.allclose(ours["head.heatmap.0.weight"], theirs["head.heatmap.0.weight"], atol=1e-3)


def test_one_start_alone() -> None:
    with pytest.raises(BadConfig, match=r"train\.init has a backbone already"):
        load_recipe("mobile-centernet-w16", ["train.init=x", "train.init_backbone=y"])


# -- VGG-16 without one -----------------------------------------------------------------------------------------------
def test_vgg_hands_its_input_on() -> None:
    """Of a photograph's 136, PyTorch's first weights left at most 0.02 at conv5_3; He's keep the size of maps."""
    model = network("refinedet", {})
    body = model.get_submodule("sources")
    image = 58 * torch.randn(1, 3, 96, 96)
    sizes = []
    hooks = [
        layer.register_forward_hook(lambda _, __, out: sizes.append(float(out.square().mean().sqrt())))
        for layer in body.modules()
        if isinstance(layer, nn.Conv2d)
    ]
    with torch.no_grad():
        body(image)
    for hook in hooks:
        hook.remove()
    assert len(sizes) == 13 + 2 + 2
    assert min(sizes) > 0.3
    assert max(sizes) < 5
    for part in ("arm", "transfer", "odm"):  # "xavier", section IV-G: of 3x3s from 512 to 256, sqrt(6 / 9 / 768)
        assert all(not m.bias.any() for m in model.get_submodule(part).modules() if isinstance(m, nn.Conv2d))
    widest = model.get_submodule("transfer.lateral.0.0").weight.abs().max().item()
    assert widest == pytest.approx((6 / 9 / 768) ** 0.5, rel=1e-3)
