"""Mobile CenterNet against the counts that identify it: parameters per part, map sizes, complexity."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekit.models.backbones.hrnet import Exchange
from edgekit.models.mobile_centernet import MobileCenterNet
from edgekit.models.zoo import DETECTORS, build
from edgekit.runtime.errors import BadConfig

TEACHER = {"backbone": "hrnet-w32", "head_filters": 64}
SLIM = {"backbone": "hrnet-w16-slim"}


def parameters(*modules: nn.Module) -> int:
    return sum(p.numel() for module in modules for p in module.parameters() if p.requires_grad)


@pytest.mark.parametrize(
    ("classes", "options", "count"),
    [(10, {}, 1_616_366), (4, {}, 1_616_168), (3, {}, 1_616_135), (10, TEACHER, 28_591_950), (3, SLIM, 1_241_639)],
)
def test_parameters(classes: int, options: dict[str, object], count: int) -> None:
    with torch.device("meta"):
        assert parameters(build("mobile-centernet", classes, options)) == count


def test_parameters_of_each_part() -> None:
    with torch.device("meta"):
        model = MobileCenterNet(10)
    net = model.backbone
    parts = {
        "stem": parameters(net.stem),
        "stage 1": parameters(net.stage1),
        "transitions": parameters(net.transition1, net.transition2, net.transition3),
        "stage 2": parameters(net.stage2),
        "stage 3": parameters(net.stage3),
        "stage 4": parameters(net.stage4),
        "heads": parameters(model.head),
    }
    assert parts == {
        "stem": 38_848,
        "stage 1": 286_208,
        "transitions": 203_232,
        "stage 2": 51_680,
        "stage 3": 233_056,
        "stage 4": 788_960,
        "heads": 14_382,
    }
    assert sum(parts.values()) == parameters(model)


@pytest.mark.parametrize(("options", "gigamacs"), [({}, 5.604), (TEACHER, 29.310), (SLIM, 1.858)])
def test_multiply_accumulates_at_576x320(options: dict[str, object], gigamacs: float) -> None:
    with torch.device("meta"):
        model = build("mobile-centernet", 10, options).eval()
        with FlopCounterMode(display=False) as counter:
            model(torch.empty(1, 3, 320, 576))
    assert counter.get_total_flops() / 2e9 == pytest.approx(gigamacs, abs=0.0005)


@pytest.mark.parametrize(("width", "height"), [(32, 32), (96, 64), (64, 160), (576, 320), (512, 288)])
def test_maps_have_stride_4(width: int, height: int) -> None:
    with torch.device("meta"):
        maps = MobileCenterNet(5).eval()(torch.empty(2, 3, height, width))
    assert maps.heatmap.shape == (2, 5, height // 4, width // 4)
    assert maps.size.shape == maps.offset.shape == (2, 2, height // 4, width // 4)
    assert maps.features.shape == (2, 16, height // 4, width // 4)


def test_detect_keeps_the_output_contract() -> None:
    torch.manual_seed(0)
    model = MobileCenterNet(3).eval()
    with torch.inference_mode():
        boxes, scores = model.detect(torch.randn(2, 3, 64, 96), top_k=20)
        everything, _ = model.detect(torch.randn(1, 3, 32, 32), top_k=100)
    assert boxes.shape == (2, 20, 4)
    assert scores.shape == (2, 20, 3)
    assert ((scores >= 0) & (scores <= 1)).all()
    assert everything.shape == (1, 64, 4)  # no more than the map has pixels


def test_the_heat_map_starts_at_a_tenth() -> None:
    """Focal loss wants a rare foreground to begin with (Lin et al. 2017, section 3.3)."""
    torch.manual_seed(0)
    with torch.inference_mode():
        maps = MobileCenterNet(3).eval()(torch.randn(1, 3, 64, 64))
    assert maps.heatmap.sigmoid().mean() == pytest.approx(0.1, abs=0.01)


def test_layers_named_for_float_exist() -> None:
    modules = dict(MobileCenterNet(3).named_modules())
    for name in MobileCenterNet.float_modules:
        assert isinstance(modules[name], nn.Conv2d)


def test_only_the_last_exchange_drops_the_low_resolutions() -> None:
    with torch.device("meta"):
        net = MobileCenterNet(3, "hrnet-w32", 64).backbone
    stages = (net.stage2, net.stage3, net.stage4)
    rows = [[len(list(m.fusion)) for m in stage.children() if isinstance(m, Exchange)] for stage in stages]
    assert rows == [[2], [3, 3, 3, 3], [4, 4, 1]]


@pytest.mark.parametrize(
    ("name", "options", "words"),
    [
        ("mobile-centrenet", {}, ["mobile-centrenet", *DETECTORS]),
        ("mobile-centernet", {"filters": 32}, ["filters", "head_filters", "backbone"]),
        ("mobile-centernet", {"backbone": "hrnet-w18"}, ["hrnet-w18", "hrnet-w16", "hrnet-w32"]),
    ],
)
def test_wrong_names_offer_the_right_ones(name: str, options: dict[str, object], words: list[str]) -> None:
    with pytest.raises(BadConfig) as error:
        build(name, 3, options)
    for word in words:
        assert word in str(error.value)
