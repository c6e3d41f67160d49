"""Where training rounds, and by which ranges, against the quantizer's own file, for a network of every family.

CI compares the cheapest ones; ``EDGEKIT_NIGHTLY=1`` all of them.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from onnx import NodeProto
from torch import Tensor, nn

from edgekit.conversion.calibrate import _extremes
from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.conversion.graph import (
    constants,
    layer_name,
    load_model,
    name_nodes,
    own_biases,
    producers,
    weighted_layers,
)
from edgekit.conversion.qdq import FLAVOURS, _in_float, _insert
from edgekit.conversion.simplify import simplify_file
from edgekit.models.detector import Detector
from edgekit.models.modules import matches
from edgekit.models.zoo import build
from edgekit.recipe import load_recipe
from edgekit.runtime.preprocess import Preprocess
from edgekit.training.qat import WITH_PARAMETERS, Call, Recorder, Rounding, scale_of

NIGHTLY = bool(os.environ.get("EDGEKIT_NIGHTLY"))
# recipe -> side of the input
CI = {"edgekit-road": 64, "thundernet-snet49": 128}  # ThunderNet's product of two activations stays float
REST = {
    "yolov3-tiny-prn": 64,
    "centernet-resnet18": 64,
    "centernet-dla34": 64,  # deformable convolutions: matrix products with weights
    "csppeleenet-prn-swish": 64,
    "refinedetlite-quarter": 128,
    "refinedet-mobilenet-v2": 128,
    "refinedetpp-mobilenet-v2-dhaka": 128,  # AlignConv
    "ssdlite-mobilenet-v3-large": 128,  # Hardswish
    "tiny-dsod": 128,  # a factor per channel that is learnt
    "pelee": 304,
    "lightweight-ssd": 128,
}
KINDS = {
    "Conv": "conv",
    "ConvTranspose": "deconv",
    "MatMul": "matmul",
    "Gemm": "matmul",
    "Relu": "clip",
    "Clip": "clip",
    "LeakyRelu": "activation",
    "Sigmoid": "activation",
    "HardSigmoid": "activation",
    "Add": "add",
    "Mul": "mul",
    "Concat": "cat",
    "GlobalAveragePool": "pool",
    "AveragePool": "keep",
    "MaxPool": "keep",
    "Resize": "keep",
    "Split": "keep",
}


class Place(NamedTuple):
    """A rounded tensor. maker: the kind of operator that makes it, "" for one that INT8 does not know"""

    maker: str
    scale: float
    zero: int


def network(recipe: str, side: int) -> Detector:
    """With random weights, and statistics of batch norms that are those of its maps."""
    found = load_recipe(recipe)
    torch.manual_seed(0)
    net = build(found.model.name, len(found.classes), found.model.options, (side, side)).train()
    norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    with torch.no_grad():
        net(torch.randn(2, 3, side, side))
    return net.eval()


def of_the_quantizer(net: Detector, image: Tensor, flavours: list[str], folder: Path) -> Iterator[list[Place]]:
    """Every activation behind which the quantizer puts QuantizeLinear, in the file that users get."""
    plain = export_onnx(
        net, Preprocess(tuple(image.shape[:1:-1])), ExportOptions("nchw_float", 10), folder / "plain.onnx"
    )
    simplify_file(str(plain), str(folder / "model.onnx"))
    ranges = _extremes(str(folder / "model.onnx"), [image.numpy()])
    for flavour in flavours:
        model = load_model(folder / "model.onnx")
        name_nodes(model)
        own_biases(model)
        makers = producers(model)
        floats = [n.name for n in weighted_layers(model) if matches(layer_name(n), net.float_modules)]
        left = _in_float(model, floats, net.float_modules)
        values = constants(made := _insert(model, ranges, FLAVOURS[flavour], left, False))
        rounded = [n for n in made.graph.node if n.op_type == "QuantizeLinear" and n.input[0] not in values]
        yield [
            Place(kind_of_maker(makers.get(n.input[0])), float(values[n.input[1]]), int(values[n.input[2]]))
            for n in rounded
            if n.input[0] != "image" or flavour == "trt"  # on x86 it is replaced by the pixels themselves
        ]


def kind_of_maker(node: NodeProto | None) -> str:
    return KINDS.get(node.op_type, "") if node is not None else ""


def of_training(net: Detector, image: Tensor, flavour: str) -> list[Place]:
    """Every activation that training rounds."""
    rounding, recorder = Rounding(flavour), Remembering(image, net)
    rounding.watch(net, [image])
    with torch.no_grad(), recorder.following(net):
        net(image)
    known = [call for call in recorder.calls if call.kind]
    slots: dict[int, int] = {}
    for step, call in zip(rounding.plan.steps, known, strict=True):
        slots.update((call.inputs[place], slot) for place, slot in step.before.items())
        if step.after is not None:
            slots[call.outputs[0]] = step.after
    made = {number: call for call in recorder.calls for number in call.outputs}
    low, high = rounding.low.tolist(), rounding.high.tolist()
    found: dict[object, Place] = {}
    for number, slot in slots.items():
        call, place = made.get(number), Place(maker(made, number), *scale_of(low[slot], high[slot], flavour == "trt"))
        if call is None or call.kind in WITH_PARAMETERS:
            found[number] = place
        else:  # what a network computes twice from the same tensors, the file has once
            found[call.kind, call.inputs, call.outputs.index(number), recorder.value(number)] = place
    return list(found.values())


class Remembering(Recorder):
    """Knows the tensors' values too."""

    def value(self, number: int) -> bytes:
        return self._kept[number].numpy().tobytes()


def maker(made: dict[int, Call], number: int) -> str:
    """The kind of the call that makes a tensor; what is folded into a layer is that layer."""
    if number not in made:
        return ""
    call = made[number]
    source = made.get(max(call.inputs))
    if call.kind in ("norm", "add") and source is not None and source.is_layer and min(call.inputs) == max(call.inputs):
        return source.kind
    return call.kind


@pytest.mark.parametrize(
    ("recipe", "side"),
    [
        *CI.items(),
        *(
            pytest.param(
                *each, marks=pytest.mark.skipif(not NIGHTLY, reason="the whole list runs with EDGEKIT_NIGHTLY=1")
            )
            for each in REST.items()
        ),
    ],
)
def test_training_rounds_at_the_quantizers_places(recipe: str, side: int, tmp_path: Path) -> None:
    net = network(recipe, side)
    image = torch.randn(1, 3, side, side)
    flavours = ["x86", "trt"]
    for flavour, real in zip(flavours, of_the_quantizer(net, image, flavours, tmp_path), strict=True):
        simulated = of_training(net, image, flavour)
        expected, found = (Counter(place.maker for place in places) for places in (real, simulated))
        assert found == expected, (flavour, found - expected, expected - found)
        for one, two in zip(sorted(simulated), sorted(real), strict=True):
            assert one.scale == pytest.approx(two.scale, rel=2e-3)
            assert abs(one.zero - two.zero) <= 1
