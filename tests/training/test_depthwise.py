"""Depthwise gradients against PyTorch's own."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn

from edgekit.models.zoo import build
from edgekit.training.depthwise import DepthwiseConv2d, _starts, quicken


@pytest.mark.parametrize(
    ("kernel", "stride", "size"),
    [(3, 2, (9, 12)), (5, 1, (8, 11)), (5, 2, (9, 12)), (5, 2, (8, 10)), (7, 1, (9, 9)), (7, 2, (11, 8))],
)
@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format])
def test_gradients_are_pytorchs(kernel: int, stride: int, size: tuple[int, int], layout: torch.memory_format) -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6, bias=False).to(memory_format=layout)  # type: ignore[call-overload]
    ours = copy.deepcopy(plain)
    assert quicken(ours) == 1
    image = torch.randn(2, 6, *size).to(memory_format=layout)
    found = []
    for conv in (plain, ours):
        x = image.clone().requires_grad_()
        y = conv(x)
        y.square().sum().backward()
        found.append((y, x.grad, conv.weight.grad))
    for theirs, own in zip(*found, strict=True):
        torch.testing.assert_close(own, theirs, rtol=1e-4, atol=1e-4)


def test_in_bf16_as_near_as_bf16_is() -> None:
    torch.manual_seed(0)
    plain = nn.Conv2d(4, 4, 5, 2, 2, groups=4, bias=False)
    ours = copy.deepcopy(plain)
    quicken(ours)
    image = torch.randn(2, 4, 16, 16)
    exact = image.clone().requires_grad_()
    plain(exact).square().sum().backward()
    x = image.clone().requires_grad_()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        y = ours(x)
    assert y.dtype == torch.bfloat16
    y.float().square().sum().backward()
    assert x.grad is not None
    assert ours.weight.grad is not None
    assert ours.weight.grad.dtype == torch.float32
    for own, theirs in ((x.grad, exact.grad), (ours.weight.grad, plain.weight.grad)):
        assert theirs is not None
        assert (own - theirs).norm() < 0.02 * theirs.norm()


def test_other_padding_than_zeros_stays_pytorchs() -> None:
    assert quicken(nn.Conv2d(4, 4, 5, padding=2, groups=4, bias=False, padding_mode="reflect")) == 0


@pytest.mark.parametrize(("side", "starts"), [(4, [0, 1]), (5, [0, 2]), (6, [0, 3]), (7, [0, 3, 4])])
def test_parts_of_a_side(side: int, starts: list[int]) -> None:
    assert _starts(side) == starts


def test_only_what_is_slow_is_changed() -> None:
    """Lightweight SSD has 5x5s, and strided 3x3s, but most of its convolutions are neither."""
    model = build("lightweight-ssd", 3, {}, (96, 96))
    before = list(model.state_dict())
    changed = quicken(model)
    kinds = [m for m in model.modules() if isinstance(m, DepthwiseConv2d)]
    assert 0 < changed == len(kinds) < sum(isinstance(m, nn.Conv2d) for m in model.modules())
    assert all(m.kernel_size == (5, 5) or m.stride == (2, 2) for m in kinds)
    assert list(model.state_dict()) == before
    twin = copy.deepcopy(model)
    assert twin.state_dict().keys() == model.state_dict().keys()
