"""Rules of counting, against sums worked out by hand, on modules and on the ONNX file made of them."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.measure import conventions
from edgekit.runtime.errors import BadInput

# layer, input -> macs, darknet, elementwise; one image
LAYERS = [
    (nn.Conv2d(3, 8, 3, padding=1, bias=False), (3, 4, 6), 5184, 10368, 5184),  # 27 x 8 x 24
    (nn.Conv2d(3, 8, 1), (3, 4, 6), 576, 1152, 768),  # 3 x 8 x 24, and a bias on 192
    (nn.Conv2d(8, 8, 3, stride=2, groups=4, bias=False), (8, 5, 5), 576, 1152, 576),  # 2 x 9 x 8 x 4
    (nn.ConvTranspose2d(4, 2, 2, stride=2, bias=False), (4, 3, 3), 288, 576, 1152),  # 9 x 4 x 8, at 36 positions
    (nn.ConvTranspose2d(4, 2, 2, stride=2), (4, 3, 3), 288, 576, 1224),  # and a bias on 72
    (nn.Linear(5, 7), (5,), 35, 70, 42),
    (nn.MaxPool2d(2), (3, 4, 6), 0, 72, 0),  # 4 x 3 x 6
    (nn.MaxPool2d((3, 1), 1), (1, 4, 4), 0, 24, 0),  # 3 x 8
    (nn.AvgPool2d(2), (3, 4, 6), 0, 72, 72),
    (nn.AdaptiveAvgPool2d(1), (3, 4, 6), 0, 0, 0),  # global pooling is free
    (nn.BatchNorm2d(3), (3, 4, 6), 0, 0, 144),
    (nn.LeakyReLU(0.1), (3, 4, 6), 0, 0, 72),
    (nn.Upsample(scale_factor=2), (3, 4, 6), 0, 0, 288),
]


@pytest.mark.parametrize(("layer", "shape", "macs", "darknet", "elementwise"), LAYERS, ids=str)
def test_one_layer(layer, shape, macs, darknet, elementwise):
    operations = conventions.module_operations(layer.eval(), torch.zeros(1, *shape))
    totals = {name: conventions.total(operations, name) for name in conventions.CONVENTIONS}
    assert totals == {
        "macs": macs,
        "flops": 2 * macs,
        "macs-dense": macs,
        "darknet": darknet,
        "elementwise": elementwise,
        "elementwise-flops": 2 * elementwise,
    }


def test_a_batch_costs_its_images():
    layer = nn.Conv2d(3, 8, 1)
    one, four = (conventions.module_operations(layer, torch.zeros(n, 3, 4, 6)) for n in (1, 4))
    assert conventions.total(four, "macs") == 4 * conventions.total(one, "macs")


def test_a_layer_that_is_used_twice_counts_twice():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.layer = nn.Conv2d(3, 3, 1, bias=False)

        def forward(self, x):
            return self.layer(self.layer(x))

    network = Twice()
    operations = conventions.module_operations(network, torch.zeros(1, 3, 2, 2))
    assert [(o.name, o.macs) for o in operations] == [("layer", 36), ("layer", 36)]
    assert conventions.weights(network) == 9


def test_hooks_are_gone_after_a_failure():
    layer = nn.Conv2d(3, 8, 1)
    with pytest.raises(RuntimeError):
        conventions.module_operations(layer, torch.zeros(1, 4, 2, 2))
    assert not layer._forward_hooks


def small() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(8),
        nn.LeakyReLU(0.1),
        nn.MaxPool2d(2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2),
        nn.ReLU(),
        nn.AvgPool2d(2),
        nn.ConvTranspose2d(8, 4, 2, stride=2),
        nn.Upsample(scale_factor=2),
        nn.Flatten(),
        nn.Linear(4 * 8 * 8, 5),
    ).eval()


def test_parameters():
    network = small()
    weights = 216 + 288 + 128 + 1280
    assert conventions.weights(network) == weights
    assert conventions.learnable(network) == weights + 16 + 8 + 4 + 5
    assert conventions.stored(network) == conventions.learnable(network) + 16
    assert {name: count(network) for name, count in conventions.PARAMETERS.items()}["stored"] == 1961


def test_depthwise_convolutions_are_left_out_of_the_dense_ones(tmp_path):
    """3x3 of 8 channels each by itself, of 4 groups of two, and a 1x1 to 4, on 4 x 6 pixels."""
    network = nn.Sequential(
        nn.Conv2d(8, 8, 3, padding=1, groups=8), nn.Conv2d(8, 8, 3, padding=1, groups=4), nn.Conv2d(8, 4, 1)
    ).eval()
    image = torch.zeros(1, 8, 4, 6)
    torch.onnx.export(network, (image,), str(tmp_path / "d.onnx"), dynamo=False, opset_version=13)
    for found in (conventions.module_operations(network, image), conventions.onnx_operations(tmp_path / "d.onnx")):
        assert conventions.total(found, "macs") == 24 * (72 + 144 + 32)
        assert conventions.total(found, "macs-dense") == 24 * (144 + 32)


@pytest.mark.parametrize(
    ("unused", "layer"),
    [
        (
            conventions.Unused("p", 64, 128, True, 15),
            nn.Sequential(nn.Conv2d(64, 128, 1, bias=False), nn.BatchNorm2d(128)),
        ),
        (conventions.Unused("c", 512, 10, False, 15), nn.Conv2d(512, 10, 1)),
    ],
)
def test_an_unused_layer_counts_as_if_it_were_built(unused, layer):
    assert unused.parameters == conventions.learnable(layer)
    image = torch.zeros(1, unused.cin, 3, 5)
    for convention in conventions.CONVENTIONS:
        built = conventions.total(conventions.module_operations(layer.eval(), image), convention)
        assert conventions.total(unused.operations(), convention) == built


def test_an_unused_layer_that_is_never_computed_only_lies_in_the_file():
    layer = conventions.Unused("ImageNet's classifier", 512, 1000, normalised=False)
    assert layer.parameters == 513_000
    assert {conventions.total(layer.operations(), name) for name in conventions.CONVENTIONS} == {0}


def test_the_onnx_file_counts_like_the_modules(tmp_path):
    network, image = small(), torch.zeros(1, 3, 16, 16)
    torch.onnx.export(network, (image,), str(tmp_path / "small.onnx"), dynamo=False, opset_version=13)
    found = conventions.onnx_operations(tmp_path / "small.onnx")
    expected = conventions.module_operations(network, image)
    for convention in ("macs", "flops", "darknet"):
        assert conventions.total(found, convention) == conventions.total(expected, convention)
    folded = next(o for o in expected if o.kind == "normalisation")  # into the first convolution, which gets a bias
    difference = conventions.total(expected, "elementwise") - conventions.total(found, "elementwise")
    assert difference == 2 * folded.outputs - folded.outputs


def test_a_file_that_is_not_onnx_is_named(tmp_path):
    path = tmp_path / "x.onnx"
    path.write_bytes(b"no onnx")
    with pytest.raises(BadInput, match=r"x\.onnx"):
        conventions.onnx_operations(path)
