"""Convolutions that read where they are told to: against ordinary ones, against a loop, and form against form."""

from __future__ import annotations

import math

import onnx
import pytest
import torch
from torch.nn import functional as F

from edgekit.models import deformable
from edgekit.models.deformable import DeformableConv, TransposedConv, bilinear, regular_taps, sampled_conv
from edgekit.models.heads.refine import AlignODM, part_centres


def read_one(x, image, column, row):
    """Bilinear interpolation with zeros outside, one sample at a time."""
    height, width = x.shape[-2:]
    total = torch.zeros(x.shape[1])
    for i in (math.floor(row), math.floor(row) + 1):
        for j in (math.floor(column), math.floor(column) + 1):
            if 0 <= i < height and 0 <= j < width:
                total += (1 - abs(row - i)) * (1 - abs(column - j)) * x[image, :, i, j]
    return total


def test_bilinear_against_a_loop():
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(2, 3, 4, 6, generator=generator)
    columns = torch.rand(2, 30, generator=generator) * 10 - 2  # some lie far outside
    rows = torch.rand(2, 30, generator=generator) * 8 - 2
    columns[0, :4], rows[0, :4] = torch.tensor([-1.0, 6.0, 0.0, 5.0]), torch.tensor([0.0, 3.0, -1.0, 3.0])  # on borders
    found = bilinear(x, columns, rows).reshape(2, 30, 3)
    for image in range(2):
        for i in range(30):
            expected = read_one(x, image, columns[image, i].item(), rows[image, i].item())
            torch.testing.assert_close(found[image, i], expected, atol=1e-5, rtol=1e-5)


def test_what_is_trained_is_what_is_exported():
    """The sum in one pass against the exported gathers: values, and the gradients of the map and of the places."""
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(2, 3, 4, 6, generator=generator)
    columns, rows = torch.rand(2, 30, generator=generator) * 10 - 2, torch.rand(2, 30, generator=generator) * 8 - 2
    toward = torch.randn(60, 3, generator=generator)

    def both(form):
        inputs = [t.clone().requires_grad_() for t in (x, columns, rows)]
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(deformable, "_sum_by_bag", form)
            found = bilinear(*inputs)
        return found, *torch.autograd.grad((found * toward).sum(), inputs)

    for bag, gather in zip(both(deformable._sum_by_bag), both(deformable._sum_by_gather), strict=True):
        torch.testing.assert_close(bag, gather)


@pytest.mark.parametrize("kernel", [3, 5])
@pytest.mark.parametrize("lowering", ["gather", "grid-sample"])
def test_regular_taps_give_an_ordinary_convolution(kernel, lowering):
    generator = torch.Generator().manual_seed(1)
    x = torch.randn(2, 3, 5, 7, generator=generator)
    weight, bias = torch.randn(4, 3, kernel, kernel, generator=generator), torch.randn(4, generator=generator)
    taps = tuple(t.expand(2, -1, -1, -1) for t in regular_taps(5, 7, kernel, x))
    found = sampled_conv(x, taps, weight, bias, lowering=lowering)
    torch.testing.assert_close(found, F.conv2d(x, weight, bias, padding=kernel // 2), atol=1e-4, rtol=1e-4)


def random_case(kernel=3):
    generator = torch.Generator().manual_seed(2)
    x = torch.randn(1, 3, 5, 6, generator=generator)
    columns, rows = regular_taps(5, 6, kernel, x)
    shift = 2 * torch.randn(2, 1, kernel * kernel, 5, 6, generator=generator)
    mask = torch.rand(1, kernel * kernel, 5, 6, generator=generator)
    weight, bias = torch.randn(4, 3, kernel, kernel, generator=generator), torch.randn(4, generator=generator)
    return x, (columns + shift[0], rows + shift[1]), weight, bias, mask


@pytest.mark.parametrize("masked", [False, True])
def test_the_forms_agree(masked):
    x, positions, weight, bias, mask = random_case()
    mask = mask if masked else None
    first = sampled_conv(x, positions, weight, bias, mask)
    second = sampled_conv(x, positions, weight, bias, mask, "grid-sample")
    torch.testing.assert_close(first, second, atol=1e-5, rtol=1e-5)


class Sampled(torch.nn.Module):
    """sampled_conv as a network of its map and its positions."""

    def __init__(self, lowering, weight, bias, mask):
        super().__init__()
        self.lowering = lowering
        self.weight, self.bias, self.mask = (torch.nn.Parameter(t, requires_grad=False) for t in (weight, bias, mask))

    def forward(self, x, columns, rows):
        return sampled_conv(x, (columns, rows), self.weight, self.bias, self.mask, self.lowering)


@pytest.mark.parametrize("lowering", list(deformable.LOWERINGS))
def test_every_form_is_exported_and_computes_the_same(lowering, tmp_path):
    import warnings

    import onnxruntime

    x, positions, weight, bias, mask = random_case()
    network, file = Sampled(lowering, weight, bias, mask), tmp_path / "model.onnx"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.onnx.export(
            network,
            (x, *positions),
            str(file),
            dynamo=False,
            opset_version=deformable.LOWERINGS[lowering],
            input_names=["x", "columns", "rows"],
        )
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    feed = {"x": x.numpy(), "columns": positions[0].numpy(), "rows": positions[1].numpy()}
    expected = sampled_conv(x, positions, weight, bias, mask)
    torch.testing.assert_close(torch.from_numpy(session.run(None, feed)[0]), expected, atol=1e-4, rtol=1e-4)
    operators = {node.op_type for node in onnx.load(file).graph.node}
    wanted = {"gather": "Gather", "grid-sample": "GridSample", "deform-conv": "DeformConv"}[lowering]
    assert wanted in operators


def test_a_new_deformable_convolution_is_half_an_ordinary_one():
    """Its offsets start at zero and its masks at sigmoid(0)."""
    torch.manual_seed(0)
    layer = DeformableConv(3, 5).eval()
    x = torch.randn(2, 3, 6, 6)
    with torch.inference_mode():
        plain = F.conv2d(x, layer.weight, padding=1) / 2 + layer.bias.view(1, -1, 1, 1)
        torch.testing.assert_close(layer(x), layer.relu(layer.norm(plain)), atol=1e-5, rtol=1e-5)


def test_gradients_reach_weights_and_offsets():
    torch.manual_seed(0)
    layer = DeformableConv(2, 3).train()
    torch.nn.init.normal_(layer.offset.weight, std=0.1)
    layer(torch.randn(2, 2, 5, 5)).square().sum().backward()
    for parameter in (layer.weight, layer.offset.weight):
        assert parameter.grad is not None
        assert parameter.grad.abs().sum() > 0


def test_a_transposed_convolution_doubles_the_size():
    torch.manual_seed(0)
    assert TransposedConv(3, 5).eval()(torch.zeros(1, 3, 4, 6)).shape == (1, 5, 8, 12)


# -- AlignConv --------------------------------------------------------------------------------------------------------
def align(kernel=3, boxes=2, classes=3, stride=8, lowering="gather"):
    torch.manual_seed(3)
    return AlignODM((4,), (boxes,), classes, (stride,), torch.zeros(1, 4), kernel, lowering)


@pytest.mark.parametrize("kernel", [3, 5, 7])
def test_regular_boxes_make_an_ordinary_convolution_of_align_conv(kernel):
    """A box of K strides around its own cell is read where an ordinary K x K convolution reads (section III-D)."""
    head, stride = align(kernel), 8
    x = torch.randn(1, 4, 5, 6)
    rows, columns = torch.meshgrid(torch.arange(5.0), torch.arange(6.0), indexing="ij")
    centre = torch.stack([(columns + 0.5) * stride, (rows + 0.5) * stride], dim=-1)
    boxes = torch.cat([centre, torch.full_like(centre, kernel * stride)], dim=-1)
    refined = boxes.reshape(1, 30, 1, 4).expand(1, 30, 2, 4).reshape(1, 60, 4)
    with torch.inference_mode():
        found = head.aligned([x], refined)
        for maps, layer, values in ((found.location, head.location[0], 4), (found.confidence, head.confidence[0], 4)):
            plain = F.conv2d(x, layer.weight, layer.bias, padding=kernel // 2)
            expected = plain.permute(0, 2, 3, 1).reshape(1, 60, values)
            torch.testing.assert_close(maps, expected, atol=1e-5, rtol=1e-5)


def test_align_conv_against_a_loop_over_parts():
    """K x K part centres by hand, with anchors that have moved, some of them outside the map."""
    head, stride, kernel = align(), 8, 3
    generator = torch.Generator().manual_seed(4)
    x = torch.randn(2, 4, 3, 3, generator=generator)
    refined = torch.rand(2, 18, 4, generator=generator) * 40 - 4
    refined[..., 2:] = refined[..., 2:].abs() + 1
    with torch.inference_mode():
        found = head.aligned([x], refined).location
        weight = head.location[0].weight.reshape(2, 4, 4, kernel, kernel)
        for image, anchor in ((0, 0), (0, 7), (1, 17), (1, 4)):
            cx, cy, width, height = refined[image, anchor].tolist()
            total = head.location[0].bias.reshape(2, 4)[anchor % 2].clone()
            for i in range(kernel):
                for j in range(kernel):
                    column = (cx - width / 2 + (2 * j + 1) * width / (2 * kernel)) / stride - 0.5
                    row = (cy - height / 2 + (2 * i + 1) * height / (2 * kernel)) / stride - 0.5
                    total += weight[anchor % 2, :, :, i, j] @ read_one(x, image, column, row)
            torch.testing.assert_close(found[image, anchor], total, atol=1e-4, rtol=1e-4)


def test_part_centres_of_one_box():
    columns, rows = part_centres(torch.tensor([16.0, 8.0, 24.0, 12.0]).view(1, 1, 1, 4), 3, 4.0)
    assert columns.flatten().tolist() == pytest.approx([1.5, 3.5, 5.5] * 3)
    assert rows.flatten().tolist() == pytest.approx([0.5] * 3 + [1.5] * 3 + [2.5] * 3)


@pytest.mark.parametrize("lowering", ["gather", "grid-sample"])
def test_mixed_precision_reads_the_right_places(lowering):
    """bf16 counts exactly up to 256 only; the eighth image's cells have numbers beyond 9,000."""
    torch.manual_seed(0)
    x = torch.arange(8.0).view(8, 1, 1, 1).expand(8, 1, 32, 40).contiguous()
    weight = torch.ones(1, 1, 3, 3) / 9
    columns, rows = (p.expand(8, -1, -1, -1) for p in regular_taps(32, 40, 3, x))
    positions = (columns + 0.25, rows + 0.25)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = sampled_conv(x.bfloat16(), positions, weight, None, lowering=lowering)
    inner = found[:, 0, 2:-2, 2:-2].float()
    assert torch.allclose(inner, x[:, 0, 2:-2, 2:-2], rtol=0.01)
