"""CSPNet's networks: our exact counts, the paper's printed ones, and what the figures say about the structure."""

from __future__ import annotations

import functools
import json
from pathlib import Path

import pytest
import torch
import yaml
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from edgekit.measure import conventions
from edgekit.models.backbones.cspnet import CSPDenseStage, StagePlan, csp_peleenet
from edgekit.models.backbones.cspresnet import PartialBasicBlock, ResXBlock
from edgekit.models.backbones.darknet import SameMaxPool
from edgekit.models.backbones.peleenet import TwoWayDenseLayer
from edgekit.models.backbones.registry import BACKBONES, build_backbone
from edgekit.models.blocks import leaky, partial_add
from edgekit.models.classifier import classifier
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe, recipe_names

PAPER = yaml.safe_load((Path(__file__).parents[2] / "benchmarks/papers/cspnet.yaml").read_text())


@functools.cache
def counted(
    model: str, options: str, classes: int, size: tuple[int, int]
) -> tuple[dict[str, int], dict[str, int], int]:
    """Parameters and operations under every convention, and PyTorch's own FLOPs; nothing is computed."""
    values = json.loads(options)
    with torch.device("meta"):
        network = classifier(classes, **values) if model == "classifier" else build(model, classes, values)
        image = torch.empty(1, 3, size[1], size[0])
    with FlopCounterMode(display=False) as counter:
        operations = conventions.module_operations(network.eval(), image)
    return (
        {name: count(network) for name, count in conventions.PARAMETERS.items()},
        {name: conventions.total(operations, name) for name in conventions.CONVENTIONS},
        counter.get_total_flops(),
    )


# backbone, its options, input -> weights, all learnable parameters, MACs. Beside it what the paper prints, and whether
# our structure is published (exact) or a reading (fit, open); see docs/readings.md.
CLASSIFIERS = [
    ("peleenet", {}, 224, 2_791_520, 2_802_248, 507_757_568),  # 2.79 M, 1.017 BF: exact
    ("csppeleenet", {}, 224, 2_820_192, 2_834_248, 444_134_400),  # 2.83 M, 0.888 BF: fit
    ("csppeleenet", {"gamma": 0.25}, 224, 3_078_752, 3_093_064, 480_662_528),  # 0.986 BF: open, -2.4 %
    ("csppeleenet", {"gamma": 0.75}, 224, 2_594_400, 2_608_200, 409_211_904),  # 0.800 BF: open, +2.4 %
    ("csppeleenet-reference", {}, 224, 4_102_752, 4_112_072, 549_236_736),  # 4.10 M, 1.103 BF: fit
    ("csppeleenet-reference", {"b": True}, 224, 2_005_600, 2_014_920, 446_476_288),  # 2.01 M, 0.897 BF: fit
    ("cspdensenet-reference", {}, 224, 3_479_648, 3_487_048, 417_173_504),  # 3.48 M: fit; 0.886 BF: open, -5.8 %
    ("cspdensenet-reference", {"b": True}, 224, 1_382_496, 1_389_896, 314_413_056),  # 1.38 M, 0.631 BF: fit
    ("cspresnext-50", {}, 256, 20_499_136, 20_557_480, 3_964_616_704),  # 20.50 M, 7.93 BF: exact
    ("resnet-10", {}, 256, 5_240_000, 5_244_968, 1_136_119_808),  # 5.24 M, 2.273 BF: exact
    ("cspresnet-10", {}, 256, 2_733_248, 2_739_752, 947_376_128),  # 2.73 M, 1.905 BF: fit
    ("densenet-201-elastic", {}, 224, 19_260_736, 19_482_824, 4_266_065_536),  # 19.48 M, 8.77 BF: exact
    ("cspdensenet-201-elastic", {}, 224, 20_016_320, 20_198_504, 3_482_410_496),  # 20.17 M, 7.13 BF: fit
    ("darknet-53", {}, 256, 41_573_216, 41_609_928, 9_285_115_904),  # 41.57 M, 18.57 BF: exact
]


@pytest.mark.parametrize(("backbone", "options", "size", "weights", "learnable", "macs"), CLASSIFIERS, ids=str)
def test_counts_of_the_classifiers(backbone, options, size, weights, learnable, macs):
    values = {"backbone": backbone, **({"backbone_options": options} if options else {})}
    parameters, operations, flops = counted("classifier", json.dumps(values), 1000, (size, size))
    assert (parameters["weights"], parameters["learnable"], operations["macs"]) == (weights, learnable, macs)
    assert flops == 2 * macs


# backbone, neck, their options, input -> weights, all learnable parameters, MACs, with 80 classes
DETECTORS = [
    ("csppeleenet-reference", "prn", {}, {}, 320, 4_589_792, 4_600_158, 1_273_779_200),  # 4.59 M, 2.56 BF: fit
    ("csppeleenet-reference", "prn", {}, {"levels": 3}, 320, 4_786_272, 4_797_405, 1_568_486_400),  # 4.79, 3.15: fit
    ("cspdensenet-reference", "prn", {}, {}, 320, 3_966_688, 3_975_134, 1_004_262_400),  # 3.97 M, 2.01 BF: fit
    ("cspdensenet-reference", "prn", {"b": True}, {}, 320, 1_869_536, 1_877_982, 794_547_200),  # 1.87, 1.59: fit
    ("csppeleenet", "prn", {}, {}, 416, 3_164_384, 3_179_486, 1_797_835_520),  # 3.590 BF: fit
    ("csppeleenet", "prn", {}, {"levels": 3}, 416, 3_360_864, 3_376_733, 2_295_890_688),  # 4.586 BF: fit
    ("peleenet", "prn", {}, {}, 416, 3_135_712, 3_147_486, 2_017_270_528),  # 3.16 M, 4.04 BF: exact
    ("csppeleenet-reference", "efm", {}, {"sam": True}, 320, 5_691_360, 5_705_437, 1_704_422_400),  # 5.67, 3.43: fit
    ("cspdensenet-reference", "efm", {}, {"sam": True}, 320, 5_068_256, 5_080_413, 1_434_905_600),  # 5.05, 2.89: fit
    ("csppeleenet", "efm", {}, {"sam": True}, 416, 4_278_240, 4_297_053, 2_554_695_936),  # 4.31 M, 5.068 BF: fit
    ("csppeleenet", "efm", {}, {}, 416, 4_130_784, 4_148_317, 2_455_015_680),  # 4.868 BF: fit
    ("csppeleenet", "efm", {}, {"spp": True}, 416, 4_106_208, 4_123_357, 2_450_862_336),  # 4.863 BF: fit
    ("csppeleenet", "efm", {}, {"sam": True}, 512, 4_278_240, 4_297_053, 3_869_835_264),  # 4.31 M, 7.68 BF: fit
    ("csppeleenet", "gfm", {}, {}, 416, 3_205_088, 3_221_725, 2_290_266_368),  # 4.605 BF: fit
    ("csppeleenet", "cem", {}, {}, 416, 2_689_248, 2_704_861, 2_021_881_728),  # 4.049 BF: fit
    ("csppeleenet", "cem", {}, {"sam": True}, 416, 2_738_400, 2_754_781, 2_080_028_544),  # 4.165 BF: fit
    ("cspresnext-50", "panet", {}, {}, 320, 56_853_440, 56_942_525, 13_924_044_800),  # 56.9 M, 27.9 BF: exact
    ("cspresnext-50", "panet", {}, {}, 416, 56_853_440, 56_942_525, 23_531_635_712),  # 47.1 BF: exact
    ("cspresnext-50", "panet", {}, {}, 512, 56_853_440, 56_942_525, 35_645_554_688),  # 71.3 BF: exact
    ("cspresnext-50", "panet", {}, {}, 608, 56_853_440, 56_942_525, 50_265_801_728),  # 100.6 BF: exact
    ("darknet-tiny", "yolov3-tiny", {}, {}, 416, 8_845_488, 8_852_366, 2_782_480_896),  # 8.86 M, 5.57 BF: exact
    ("darknet-tiny", "prn", {"prn": True}, {}, 416, 4_930_096, 4_935_182, 1_730_430_208),  # 4.96 M, 3.47 BF: exact
    ("darknet-53", "yolov3", {}, {}, 416, 61_895_776, 61_949_149, 32_932_037_632),  # 62.3 M, 65.9 BF: exact
    ("darknet-53", "yolov3", {}, {}, 608, 61_895_776, 61_949_149, 70_345_950_208),  # 140.7 BF: exact
    ("darknet-53", "yolov3", {}, {"spp": True}, 608, 62_944_352, 62_998_749, 70_724_486_144),  # 62.9, 141.5: exact
]


@pytest.mark.parametrize(
    ("backbone", "neck", "backbone_options", "neck_options", "size", "weights", "learnable", "macs"), DETECTORS, ids=str
)
def test_counts_of_the_detectors(backbone, neck, backbone_options, neck_options, size, weights, learnable, macs):
    values = {"backbone": backbone, "neck": neck}
    values.update({"backbone_options": backbone_options} if backbone_options else {})
    values.update({"neck_options": neck_options} if neck_options else {})
    parameters, operations, flops = counted("yolo", json.dumps(values), 80, (size, size))
    assert (parameters["weights"], parameters["learnable"], operations["macs"]) == (weights, learnable, macs)
    assert flops == 2 * macs


@pytest.mark.parametrize("row", PAPER["rows"], ids=lambda row: row["name"])
def test_published_figures(row):
    """Ours is what the table says; exact ones print the same digits, fitted ones are within 1 %."""
    model = row["model"]
    options = json.dumps(model["options"])
    parameters, operations, _ = counted(model["name"], options, row["classes"], tuple(row["input"]))
    for figure in row["figures"]:
        counts = parameters if figure["metric"] == "parameters" else operations
        assert counts[figure["convention"]] == figure["ours"]
        ours, printed = figure["ours"] / figure["unit"], figure["printed"]
        decimals = len(printed.partition(".")[2])
        if figure["status"] == "exact":
            assert f"{ours:.{decimals}f}" == printed
        elif figure["status"] == "fit":
            assert ours == pytest.approx(float(printed), rel=0.01)
        else:
            assert figure["status"] == "open"
            assert figure["note"]
            assert ours != pytest.approx(float(printed), rel=0.01)  # else it would be a fit


YOLOS = [recipe for recipe in map(load_recipe, recipe_names()) if recipe.model.name == "yolo"]
# The paper's own; the same networks on other data sets have their classes and sizes.
RECIPES = [recipe for recipe in YOLOS if "CSPNet" in recipe.paper and len(recipe.classes) == 80]


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: recipe.name)
def test_a_recipe_is_a_row_of_the_papers_tables(recipe):
    rows = [row for row in PAPER["rows"] if row["model"] == {"name": "yolo", "options": recipe.model.options}]
    assert list(recipe.preprocess.size) in [row["input"] for row in rows]
    assert len(recipe.classes) == rows[0]["classes"]


def test_every_detector_of_the_paper_has_a_recipe():
    named = [recipe.model.options for recipe in RECIPES]
    assert not [r["name"] for r in PAPER["rows"] if r["model"]["name"] == "yolo" and r["model"]["options"] not in named]


# -- structure --------------------------------------------------------------------------------------------------------
YOLO_STRIDES = (8, 16, 32)
OURS = [
    *("peleenet", "csppeleenet", "csppeleenet-reference", "cspdensenet-reference"),
    *("resnet-10", "cspresnet-10", "cspresnext-50", "darknet-53", "darknet-tiny"),
    *("densenet-201-elastic", "cspdensenet-201-elastic"),
]


@pytest.mark.parametrize("name", OURS)
def test_maps_are_what_the_backbone_announces(name):
    with torch.device("meta"):
        backbone = BACKBONES[name]()
        maps = backbone(torch.empty(2, 3, 96, 160))
    assert tuple(backbone.strides) == YOLO_STRIDES
    sizes = zip(backbone.channels, backbone.strides, strict=True)
    assert [tuple(x.shape) for x in maps] == [(2, width, 96 // stride, 160 // stride) for width, stride in sizes]


def stage(**plan):
    torch.manual_seed(0)
    values = {"layers": 2, "inter": 4, "growth": 4, "bypass": 6, "part": 6, "transition": 5, "width": 7} | plan
    return CSPDenseStage(12, StagePlan(**values), TwoWayDenseLayer, "convolutions", True, leaky, False).eval()


def test_equation_3():
    """x_T sees only part 2 and its dense layers; x_U sees x_T and part 1."""
    block, x = stage(), torch.randn(1, 12, 8, 8)
    fused, out = block(x)
    assert (fused.shape[1:], out.shape[1:]) == ((11, 8, 8), (7, 4, 4))
    x_t = block.transition(block.dense(block.part2(x)))
    torch.testing.assert_close(fused, torch.cat([block.part1(x), x_t], 1))
    torch.testing.assert_close(out, block.output(nn.functional.avg_pool2d(fused, 2)))


def test_the_gradient_of_part_1_stays_out_of_the_dense_block():
    block, x = stage(), torch.randn(1, 12, 8, 8)
    block(x)[0][:, :6].sum().backward()
    assert block.part1[0].weight.grad.any()
    assert not any(p.grad.any() for p in (*block.part2.parameters(), *block.dense.parameters()))


@pytest.mark.parametrize(
    ("fusion", "first", "second"), [("both", True, True), ("first", False, True), ("last", True, False)]
)
def test_fusions_of_figure_3(fusion, first, second):
    with torch.device("meta"):
        stages = csp_peleenet(fusion=fusion).stages
    assert all(isinstance(s.transition, nn.Sequential) == first for s in stages)
    assert all(isinstance(s.output, nn.Sequential) == second for s in stages)
    assert [s.output[0].out_channels if second else s(torch.empty(1, w, 8, 8, device="meta"))[0].shape[1]
            for s, w in zip(stages, (32, 128, 256, 512), strict=True)] == [128, 256, 512, 704]  # fmt: skip


@pytest.mark.parametrize("gamma", [0.25, 0.5, 0.75])
def test_gamma_is_the_share_that_passes_by(gamma):
    with torch.device("meta"):
        stages = csp_peleenet(gamma=gamma).stages
    for part, cin in zip(stages, (32, 128, 256, 512), strict=True):
        assert part.part1[0].out_channels == gamma * cin
        assert part.part2[0].out_channels == (1 - gamma) * cin


def test_a_bypass_split_slices_the_rest():
    with torch.device("meta"):
        first = csp_peleenet(gamma=0.25, reading="table-1").stages[1]
    assert first.part2 is None
    assert first.skipped == 32
    assert first.dense[0].narrow[0][0].in_channels == 96


@pytest.mark.parametrize(
    ("own", "other", "expected"),
    [((1, 2, 3), (10, 20, 30), (11, 22, 33)), ((1, 2, 3), (10,), (11, 2, 3)), ((1,), (10, 20), (11,))],
)
def test_partial_add(own, other, expected):
    def channels(values):
        return torch.tensor(values, dtype=torch.float32).view(1, -1, 1, 1)

    assert torch.equal(partial_add(channels(own), channels(other)), channels(expected))


def test_resnet_10_shortcuts_sample_every_second_position():
    block = PartialBasicBlock(2, 3, 2).eval()
    for layer in (block.body[0][0], block.body[1][0]):
        nn.init.zeros_(layer.weight)
    x = torch.arange(32, dtype=torch.float32).view(1, 2, 4, 4)
    out = block(x)
    assert torch.equal(out[0, :2], x[0, :, ::2, ::2])
    assert torch.equal(out[0, 2], torch.zeros(2, 2))


def test_first_resx_block_adds_64_of_128_channels():
    block = ResXBlock(64, 128).eval()
    nn.init.zeros_(block.body[2][0].weight)
    x = torch.rand(1, 64, 2, 2)
    assert torch.equal(block(x), torch.cat([x, torch.zeros(1, 64, 2, 2)], 1))


def test_pooling_with_stride_1_reaches_right_and_down():
    x = torch.tensor([[1.0, -5.0], [-7.0, -9.0]]).view(1, 1, 2, 2)
    assert torch.equal(SameMaxPool()(x), torch.tensor([[1.0, -5.0], [-7.0, -9.0]]).view(1, 1, 2, 2))
    assert torch.equal(SameMaxPool()(-x), torch.tensor([[9.0, 9.0], [9.0, 9.0]]).view(1, 1, 2, 2))


@pytest.mark.parametrize(
    ("name", "options", "message"),
    [
        ("csppeleenet", {"gamma": 1.0}, "gamma: expected more than 0 and less than 1, got 1.0"),
        ("csppeleenet", {"fusion": "middle"}, "fusion: expected one of both, first, last, got 'middle'"),
        ("csppeleenet", {"reading": "mine"}, "reading: expected one of table-3, table-1, got 'mine'"),
        ("peleenet", {"activation": "gelu"}, "activation: expected one of relu, leaky, swish, got 'gelu'"),
        ("pelenet", {}, "backbone: expected one of peleenet, .*, got 'pelenet'"),
    ],
)
def test_wrong_options_are_named(name, options, message):
    with pytest.raises(ValueError, match=message):
        build_backbone(name, options)
