"""The mobile backbones: their counts, the maps they hand out, and their own blocks against plain formulas."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from edgekit.models.backbones.mblitenet import MixedDepthwise, SpatialAttention, mblitenet
from edgekit.models.backbones.mobilenet import mobilenet_v2, round_to_eight
from edgekit.models.backbones.registry import build_backbone
from edgekit.models.backbones.shufflenet import shuffle

from .conformance import macs, parameters

# backbone, options -> parameters, MACs at 224x224. With a classifier of 1000 they are the ones in the literature:
# V1 4.23 M and 569 M, V2 3.50 M and 301 M, ShuffleNetV2 2.28 M and 146 M; SNet is named after its millions of MACs.
COUNTS = [
    ("mobilenet-v1", {}, 3_206_976, 567_716_352),
    ("mobilenet-v2", {}, 2_223_872, 299_494_272),
    ("mobilenet-v3-large", {}, 2_971_952, 214_080_960),
    ("shufflenet-v2", {"width": 0.5}, 341_792, 39_452_448),
    ("shufflenet-v2", {}, 1_253_604, 143_883_992),
    ("shufflenet-v2", {"width": "2.0"}, 5_344_996, 581_205_464),
    ("snet", {"version": 49}, 362_548, 50_693_832),
    ("snet", {"version": 146}, 1_043_748, 160_609_848),
    ("snet", {"version": 146, "repeats": (4, 8, 2)}, 748_596, 146_302_632),
    ("snet", {"version": 535}, 3_542_144, 534_362_640),
    ("mblitenet", {}, 1_886_741, 595_976_122),
    ("ddb-net", {}, 729_984, 576_917_376),
]


@pytest.mark.parametrize(("name", "options", "weights", "products"), COUNTS)
def test_counts(name, options, weights, products):
    with torch.device("meta"):
        backbone = build_backbone(name, options)
    assert (parameters(backbone), macs(backbone, (224, 224))) == (weights, products)


@pytest.mark.parametrize(
    ("name", "options", "channels", "strides"),
    [
        ("mobilenet-v1", {}, (256, 512, 1024), (8, 16, 32)),
        ("mobilenet-v1", {"levels": (4, 16)}, (128, 512), (4, 16)),
        ("mobilenet-v2", {}, (32, 96, 1280), (8, 16, 32)),
        ("mobilenet-v2", {"last": None}, (32, 96, 320), (8, 16, 32)),
        ("mobilenet-v2", {"levels": (2, 16), "expansion": True}, (96, 96), (2, 16)),
        ("mobilenet-v2", {"levels": (16, 32), "expansion": True}, (576, 1280), (16, 32)),
        ("mobilenet-v3-large", {}, (40, 112, 960), (8, 16, 32)),
        ("mobilenet-v3-large", {"levels": (16, 32), "expansion": True}, (672, 960), (16, 32)),
        ("shufflenet-v2", {}, (116, 232, 1024), (8, 16, 32)),
        ("shufflenet-v2", {"levels": (8, 16)}, (116, 232), (8, 16)),
        ("snet", {"version": 146}, (132, 264, 528), (8, 16, 32)),
        ("mblitenet", {}, (32, 96, 320), (8, 16, 32)),
        ("mblitenet", {"s96": 2}, (32, 96, 320), (8, 32, 64)),
        ("ddb-net", {}, (128, 128), (8, 16)),
    ],
)
def test_maps_have_the_promised_channels_and_sizes(name, options, channels, strides):
    with torch.device("meta"):
        backbone = build_backbone(name, options).eval()
    assert (tuple(backbone.channels), tuple(backbone.strides)) == (channels, strides)
    maps = backbone(torch.empty(2, 3, 300, 200, device="meta"))
    expected = [(2, c, -(-300 // s), -(-200 // s)) for c, s in zip(channels, strides, strict=True)]
    assert [tuple(x.shape) for x in maps] == expected


def test_blocks_beyond_the_last_level_are_not_built():
    with torch.device("meta"):
        assert parameters(mobilenet_v2((8, 16))) == 542_528


@pytest.mark.parametrize("levels", [(), (7,), (16, 8), (8, 8)])
def test_wrong_levels_are_named(levels):
    with pytest.raises(ValueError, match="levels"):
        mobilenet_v2(levels)


@pytest.mark.parametrize(("exact", "rounded"), [(16, 16), (18, 24), (30, 32), (3, 8), (60.5, 64), (168, 168)])
def test_round_to_eight(exact, rounded):
    assert round_to_eight(exact) == rounded


def test_shuffle_interleaves_the_halves():
    x = torch.arange(6.0).view(1, 6, 1, 1)
    assert shuffle(x).flatten().tolist() == [0, 3, 1, 4, 2, 5]


def test_mixed_depthwise_is_a_5x5_with_a_rim_of_zeros_in_half_of_its_kernels():
    torch.manual_seed(0)
    mixed = MixedDepthwise(8, stride=2).eval()
    x = torch.randn(1, 8, 9, 7)
    kernels = torch.cat([F.pad(mixed.small[0].weight, (1, 1, 1, 1)), mixed.large[0].weight])
    expected = F.conv2d(x, kernels, stride=2, padding=2, groups=8).relu() / (1 + 1e-5) ** 0.5
    torch.testing.assert_close(mixed(x), expected)


def test_spatial_attention_by_hand():
    attention = SpatialAttention()
    with torch.no_grad():
        attention.conv.weight.zero_()
        attention.conv.weight[0, 0, 3, 3] = 2.0  # of the mean
        attention.conv.weight[0, 1, 3, 3] = -1.0  # of the maximum
        attention.conv.bias.fill_(0.5)
    x = torch.tensor([1.0, 5.0]).view(1, 2, 1, 1)
    gate = 1 / (1 + torch.tensor(-(2 * 3.0 - 5.0 + 0.5)).exp())
    torch.testing.assert_close(attention(x), x * gate)


def test_mblitenet_kinds_of_bottlenecks():
    """Table 2: three plain, then attentive 3, mix 4, attentive 3, mix 3, attentive 1."""
    with torch.device("meta"):
        blocks = mblitenet().blocks
    kinds = [
        "plain"
        if not isinstance(block.depthwise, MixedDepthwise)
        else ("attentive" if isinstance(block.attention, SpatialAttention) else "mix")
        for block in blocks
    ]
    attentive = ["attentive"]
    assert kinds == ["plain"] * 3 + attentive * 3 + ["mix"] * 4 + attentive * 3 + ["mix"] * 3 + attentive
