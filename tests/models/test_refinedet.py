"""RefineDet, RefineDet++ and RefineDetLite: exact counts, the cascade by hand, and the way to ONNX."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.models import zoo
from edgekit.models.anchors import AnchorMaps, RefineMaps, decode, refine
from edgekit.models.heads.refine import decode_refine_maps, filtered, second_anchors
from edgekit.runtime.errors import BadConfig

from .conformance import exported, macs, parameters

# name, options, classes, size -> parameters, MACs, anchors. Our own integers; the papers' are in benchmarks/papers.
COUNTS = [
    ("refinedet-lite", {}, 80, 320, 24_598_330, 5_856_331_264, 1602),
    ("refinedet-lite", {"res2_mid_ratio": 0.5}, 80, 320, 13_884_586, 3_039_345_664, 1602),
    ("refinedet-lite", {"res2_mid_ratio": 0.25}, 80, 320, 9_564_352, 1_903_790_464, 1602),
    ("refinedet-lite", {"head": "plain"}, 80, 320, 35_841_850, 7_342_147_072, 1602),
    (
        "refinedet-lite",
        {"head": "plain", "block": "res", "res2_mid_ratio": 0.25},
        80,
        320,
        24_149_194,
        4_269_071_872,
        1602,
    ),
    ("refinedet-lite", {"head": "plain", "res2_mid_ratio": 0.25}, 80, 320, 20_807_872, 3_389_606_272, 1602),
    ("refinedet", {}, 20, 320, 34_440_884, 37_772_921_600, 6375),
    ("refinedet", {}, 20, 512, 34_440_884, 96_698_679_296, 16320),
    ("refinedet", {"align": 3}, 20, 320, 34_440_884, 37_772_921_600, 6375),
    ("refinedet", {"align": 3, "lowering": "grid-sample"}, 20, 320, 34_440_884, 37_772_921_600, 6375),
    ("refinedet", {"backbone": "mobilenet-v1"}, 80, 320, 18_192_004, 6_906_361_600, 6375),
    (*("refinedet", {"backbone": "resnext-152", "levels": 5}, 80, 1024), 81_225_877, 321_898_528_768, 65472),
]


@pytest.mark.parametrize(("name", "options", "classes", "side", "weights", "products", "anchors"), COUNTS, ids=str)
def test_counts(name, options, classes, side, weights, products, anchors):
    with torch.device("meta"):
        detector = zoo.build(name, classes, options, (side, side))
    assert parameters(detector) == weights
    assert macs(detector, (side, side)) == products
    assert len(detector.arm.anchors) == anchors


def test_the_anchors_of_a_cell_have_one_scale_and_three_ratios():
    """Four strides at every level (section IV-C); the first cell of the first level."""
    with torch.device("meta"):
        detector = zoo.build("refinedet", 20, {"backbone": "mobilenet-v2"}, (320, 320))
    first = zoo.build("refinedet", 20, {"backbone": "mobilenet-v2"}, (64, 64)).arm.anchors
    assert len(detector.arm.anchors) == 3 * (1600 + 400 + 100 + 25)
    root = 2**0.5
    expected = torch.tensor([[4, 4, 32, 32], [4, 4, 32 * root, 32 / root], [4, 4, 32 / root, 32 * root]])
    torch.testing.assert_close(first[:3], expected)
    assert first[-1, 2:].tolist() == pytest.approx([256 / root, 256 * root])


def maps_of_one_anchor(arm=(0.0, 0.0, 0.0, 0.0), odm=(0.0, 0.0, 0.0, 0.0), background=0.0):
    return RefineMaps(
        torch.tensor([[arm]]),
        torch.tensor([[[background, 0.0]]]),
        torch.tensor([[odm]]),
        torch.tensor([[[0.0, 2.0, 1.0]]]),
        torch.tensor([[50.0, 60.0, 20.0, 40.0]]),
    )


def test_the_second_offsets_start_from_the_refined_anchor():
    """Anchor (50, 60, 20, 40); first step: x + 0.1 * 1 * 20 = 52, width * e^(0.2 * 5 * ln 2) = 40; second: x + 4."""
    wider = 5 * torch.log(torch.tensor(2.0)).item()
    boxes, _ = decode_refine_maps(maps_of_one_anchor((1.0, 0.0, wider, 0.0), (1.0, -1.0, 0.0, 0.0)))
    assert boxes[0, 0].tolist() == pytest.approx([56 - 20, 56 - 20, 56 + 20, 56 + 20])


def test_one_step_starts_from_the_anchor_as_it_stands():
    """Table II, fourth column; the same offsets as above: the first ones move nothing. x: 50 + 0.1 * 20, y: 60 - 4."""
    wider = 5 * torch.log(torch.tensor(2.0)).item()
    maps = maps_of_one_anchor((1.0, 0.0, wider, 0.0), (1.0, -1.0, 0.0, 0.0))
    boxes, _ = decode_refine_maps(maps, steps=1)
    assert boxes[0, 0].tolist() == pytest.approx([52 - 10, 56 - 20, 52 + 10, 56 + 20])


def test_the_cascade_is_two_decodes():
    generator = torch.Generator().manual_seed(0)
    anchors = torch.rand(7, 4, generator=generator) * 50 + 10
    first, second = torch.randn(2, 3, 7, 4, generator=generator)
    maps = RefineMaps(first, torch.zeros(3, 7, 2), second, torch.zeros(3, 7, 4), anchors)
    once = decode(first, anchors)
    centre = torch.cat([(once[..., :2] + once[..., 2:]) / 2, once[..., 2:] - once[..., :2]], dim=-1)
    torch.testing.assert_close(refine(first, anchors), centre, atol=1e-4, rtol=1e-5)
    torch.testing.assert_close(decode_refine_maps(maps)[0], decode(second, centre), atol=1e-3, rtol=1e-4)


@pytest.mark.parametrize(("background", "passes"), [(0.98, True), (0.9899, True), (0.9901, False), (0.9999, False)])
def test_easy_negatives_are_filtered(background, passes):
    """Section III-B: background above 0.99 goes; in a static graph its scores become zero."""
    logit = torch.log(torch.tensor(background / (1 - background))).item()
    maps = maps_of_one_anchor(background=logit)
    assert filtered(maps).item() == float(passes)
    _, scores = decode_refine_maps(maps)
    weights = torch.tensor([0.0, 2.0, 1.0]).softmax(0)[1:]
    assert scores[0, 0].tolist() == pytest.approx((weights * passes).tolist(), abs=1e-6)


def test_a_filtered_anchor_is_not_among_the_best():
    scores = torch.tensor([[[0.0, 9.0], [0.0, 1.0], [0.0, 2.0]]])
    arm = torch.tensor([[[9.0, 0.0], [0.0, 0.0], [0.0, 0.0]]])
    anchors = torch.tensor([[10.0, 10, 4, 4], [20, 20, 4, 4], [30, 30, 4, 4]])
    boxes, found = decode_refine_maps(RefineMaps(torch.zeros(1, 3, 4), arm, torch.zeros(1, 3, 4), scores, anchors), 2)
    assert boxes[0, :, 0].tolist() == pytest.approx([28, 18])
    assert found[0, 0, 0] > found[0, 1, 0]


def test_the_second_step_does_not_train_the_anchors_of_the_first():
    torch.manual_seed(0)
    detector = zoo.build("refinedet", 3, {"backbone": "mobilenet-v2", "align": 3}, (64, 64)).train()
    maps = detector(torch.randn(2, 3, 64, 64))
    (maps.odm_boxes.sum() + maps.odm_scores.sum()).backward()
    assert detector.arm.location[0].weight.grad is None
    assert detector.odm.location[0].weight.grad.abs().sum() > 0
    assert maps.arm_boxes.shape == maps.odm_boxes.shape == (2, 255, 4)
    assert maps.arm_scores.shape == (2, 255, 2)
    assert maps.odm_scores.shape == (2, 255, 4)
    assert [tuple(f.shape[1:]) for f in maps.features] == [(256, 8, 8), (256, 4, 4), (256, 2, 2), (256, 1, 1)]


@pytest.mark.parametrize(
    ("options", "names", "cost"),
    [
        ({"align": 3}, ("arm", "transfer", "odm"), 37_772_921_600),
        ({}, ("arm", "transfer", "odm"), 37_772_921_600),
        ({"theta": 1.0}, ("arm", "transfer", "odm"), 37_772_921_600),
        ({"theta": 1.0, "steps": 1}, ("arm", "transfer", "odm"), 37_772_921_600),
        ({"tcb": False}, ("features", "head"), 32_721_036_800),
    ],
    ids=str,
)
def test_the_columns_of_table_2_are_options(options, names, cost):
    """RefineDet320++ on VGG-16; without TCB there is one step, which knows the classes, on the same 6375 anchors.

    Its head costs 9 * 3 * (4 + 21) * (512 * 1600 + 512 * 400 + 1024 * 100 + 512 * 25), 768,960,000 of the products.
    """
    with torch.device("meta"):
        detector = zoo.build("refinedet", 20, options, (320, 320))
    assert set(names) <= {name for name, _ in detector.named_children()}
    assert len((detector.arm if "arm" in names else detector.head).anchors) == 6375
    assert macs(detector, (320, 320)) == cost
    assert detector.task == ("refine" if "arm" in names else "anchors")


@pytest.mark.parametrize("align", [None, 3])
def test_the_second_step_reads_maps_of_the_width_that_is_asked_for(align):
    """The parameters of a level of width w: 9 c w + 2 * 9 w w + 4 w w of its block, 9 w 3 (4 + C + 1) of its head."""
    options = {"backbone": "mobilenet-v2", "align": align, "tcb_width": 64}
    with torch.device("meta"):
        wide, narrow = (zoo.build("refinedet", 3, o, (64, 64)) for o in ({**options, "tcb_width": 256}, options))
    assert narrow.transfer.channels == (64,) * 4

    def weights(detector):
        return sum(p.numel() for p in (*detector.transfer.parameters(), *detector.odm.parameters()) if p.ndim == 4)

    channels = 32 + 96 + 1280 + 512  # of strides 8 to 64
    for detector, w in ((wide, 256), (narrow, 64)):
        assert weights(detector) == 9 * channels * w + 4 * 18 * w * w + 3 * 4 * w * w + 4 * 9 * w * 3 * 8


@pytest.mark.parametrize(
    ("backbone", "inside"), [("mobilenet-v2", 64), ("cspdensenetb-reference", 64), ("resnet-18", 32)]
)
def test_maps_beyond_the_backbones_have_the_width_that_is_asked_for(backbone, inside):
    with torch.device("meta"):
        detector = zoo.build("refinedet", 3, {"backbone": backbone, "levels": 5, "extra_width": 128}, (128, 128))
    extras = detector.sources[1]
    assert extras.channels[3:] == (128, 128)
    convolutions = [m for m in extras.extras[1].modules() if isinstance(m, nn.Conv2d)]
    assert (convolutions[0].in_channels, convolutions[0].out_channels) == (128, inside)
    assert detector.arm.location[4].in_channels == detector.transfer.lateral[4][0].in_channels == 128


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"backbone": "vgg-16", "extra_width": 128}, "extra_width: vgg-16 makes all of its maps itself; leave it out"),
        ({"backbone": "resnet-18", "extra_width": 30}, "extra_width: expected a multiple of 4, got 30"),
        ({"backbone": "resnet-18", "extra_width": 0}, "extra_width: expected a multiple of 4, got 0"),
    ],
)
def test_a_width_that_no_map_can_have_is_refused(options, words):
    with pytest.raises(BadConfig, match=words):
        zoo.build("refinedet", 3, options, (64, 64))


def test_blocks_that_are_left_out_have_no_width():
    with pytest.raises(BadConfig, match=r"tcb_width: .*leave one out"):
        zoo.build("refinedet", 3, {"backbone": "mobilenet-v2", "tcb": False, "tcb_width": 64}, (64, 64))


@pytest.mark.parametrize("options", [{"steps": 1}, {"tcb": False}], ids=str)
def test_alignment_needs_the_step_that_moves_the_anchors(options):
    with pytest.raises(BadConfig, match=r"align: .*leave one out"):
        zoo.build("refinedet", 3, {"backbone": "mobilenet-v2", "align": 3, **options}, (64, 64))


def test_half_precision_offsets_move_anchors_in_float32():
    """AlignConv looks where the second step's offsets start: both refine the same anchors, to the bit."""
    torch.manual_seed(0)
    odm = zoo.build("refinedet", 3, {"backbone": "mobilenet-v2", "align": 3}, (64, 64)).odm
    seen = []
    odm.aligned = lambda maps, refined: seen.append(refined)
    first = AnchorMaps(torch.randn(1, 255, 4).bfloat16(), torch.zeros(1, 255, 2), odm.anchors, ())
    odm(None, first)
    maps = RefineMaps(first.location, first.confidence, torch.zeros(0), torch.zeros(0), odm.anchors)
    torch.testing.assert_close(seen[0], second_anchors(maps), rtol=0, atol=0)


EXPORTS = [
    ("refinedet-lite", {"width": 8, "res2_mid_ratio": 0.5}, (96, 64)),
    ("refinedet-lite", {"width": 8, "block": "res", "head": "plain", "candidates": 20}, (96, 96)),
    ("refinedet", {"backbone": "mobilenet-v2", "align": 3, "candidates": 120}, (128, 64)),
    ("refinedet", {"backbone": "shufflenet-v2"}, (64, 128)),
    ("refinedet", {"backbone": "mobilenet-v2", "steps": 1, "candidates": 120}, (64, 64)),
    ("refinedet", {"backbone": "resnet-18", "align": 5, "levels": 5}, (128, 128)),
    ("refinedet", {"backbone": "cspdensenetb-reference", "candidates": 120}, (64, 64)),
]


@pytest.mark.parametrize(("name", "options", "size"), EXPORTS, ids=str)
def test_onnx_sees_the_same_boxes(name, options, size, tmp_path):
    torch.manual_seed(0)
    detector = zoo.build(name, 3, options, size)
    comparison, operators = exported(detector, size, tmp_path)
    assert comparison.same, str(comparison)
    kept = max(options["candidates"], 100) if "candidates" in options else len(detector.arm.anchors)
    assert comparison.boxes == kept
    assert operators["TopK"] == ("candidates" in options)
    assert not {"GridSample", "DeformConv", "GatherND"} & set(operators)
    assert (operators["Gather"] > 8) == ("align" in options)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("options", "size"),
    [
        ({}, (64, 64)),
        ({"backbone": "resnext-50", "align": 7}, (64, 64)),
        ({"backbone": "mobilenet-v3-large"}, (64, 64)),
    ],
    ids=str,
)
def test_onnx_of_the_larger_ones(options, size, tmp_path):
    torch.manual_seed(0)
    detector = zoo.build("refinedet", 3, options, size)
    comparison, _ = exported(detector, size, tmp_path)
    assert comparison.same, str(comparison)


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("refinedet", {"backbone": "vgg-19"}, "backbone: expected one of vgg-16, .*resnext-152.*, got 'vgg-19'"),
        ("refinedet", {"align": 4}, "align: expected one of 3, 5, 7, got 4"),
        ("refinedet", {"align": 3, "lowering": "magic"}, "lowering: expected one of gather, grid-sample, deform-conv"),
        ("refinedet", {"levels": 6}, "levels: expected 4 or 5, got 6"),
        ("refinedet", {"theta": 0}, "theta: expected a probability above 0, got 0"),
        ("refinedet-lite", {"head": "heavy"}, "head: expected one of light, plain, got 'heavy'"),
        ("refinedet-lite", {"block": "res3"}, "block: expected one of res2, res, got 'res3'"),
        ("refinedet-lite", {"res2_mid_ratio": 0.01}, "mid_ratio: 0.01 of width 72 gives inner widths"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(BadConfig, match=message), torch.device("meta"):
        zoo.build(name, 20, options)
