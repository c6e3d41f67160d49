"""The normalisation that VGG-16 and D-FPN share: lengths by hand, where squares overflow or vanish, and as a graph."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from edgekit.conversion.graph import load_model
from edgekit.models.backbones.vgg import ReducedVGG16
from edgekit.models.blocks import L2Norm
from edgekit.models.necks.dfpn import DFPN


def pixels(*values: tuple[float, ...]) -> Tensor:
    """Pixels of one row, each given by its channels -> [1, C, 1, W]."""
    return torch.tensor(values).T.reshape(1, len(values[0]), 1, len(values))


def test_l2_norm_by_hand():
    """(3, 4) has the length 5; the factors are 10 and 20."""
    norm = L2Norm(2, 10.0)
    with torch.no_grad():
        norm.weight[0, 1] = 20
    found = norm(pixels((3.0, 4.0), (-30.0, 0.0)))
    torch.testing.assert_close(found, pixels((6.0, 16.0), (-10.0, 0.0)))


def test_a_pixel_of_zeros_has_gradients():
    """Behind a ReLU a whole pixel may be 0; the root of 0 has no gradient, and one NaN is all weights' NaN."""
    norm = L2Norm(2)
    x = pixels((0.0, 0.0), (3.0, 4.0)).requires_grad_()
    found = norm(x)
    assert found[..., 0].abs().sum() == 0
    found.sum().backward()
    assert x.grad.isfinite().all()
    assert norm.weight.grad.isfinite().all()
    expected = 20 * (1 / 5 - torch.tensor([3.0, 4.0]) * (3 + 4) / 5**3)  # of the sum of x / |x|
    torch.testing.assert_close(x.grad[0, :, 0, 1], expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("size", [3e-3, 1.0, 500.0])
def test_half_precision_measures_lengths_in_float32(dtype, size):
    """float16 has no square of 500, and of the squares of 0.003 one digit; 512 channels add up in float32 alone."""
    torch.manual_seed(0)
    x = (torch.rand(1, 512, 2, 2) * size).to(dtype)
    norm = L2Norm(512, 10.0)
    found = norm(x)
    assert found.dtype == dtype
    torch.testing.assert_close(found, norm(x.float()).to(dtype), rtol=0, atol=0)
    with torch.autocast("cpu", dtype):
        torch.testing.assert_close(norm(x), found, rtol=0, atol=0)


def test_names_of_weights_are_those_of_published_files():
    with torch.device("meta"):
        vgg, dfpn = ReducedVGG16().state_dict(), DFPN((64, 128), (8, 16)).state_dict()
    assert [n for n in vgg if "normalise" in n] == ["normalise.0.weight", "normalise.1.weight"]
    assert [n for n in dfpn if n.startswith("norm.")] == [f"norm.{i}.weight" for i in range(6)]
    assert dfpn["norm.0.weight"].shape == (1, 128, 1, 1)


@pytest.mark.filterwarnings("ignore:You are using the legacy")
def test_the_graph_has_nothing_that_tensorrt_8_2_lacks(tmp_path):
    file = tmp_path / "norm.onnx"
    torch.onnx.export(L2Norm(4), (torch.rand(1, 4, 2, 2),), str(file), dynamo=False, opset_version=13)
    nodes = [node.op_type for node in load_model(file).graph.node if node.op_type not in ("Constant", "Identity")]
    assert nodes == ["Pow", "ReduceMean", "Add", "Sqrt", "Div", "Mul"]
