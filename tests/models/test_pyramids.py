"""The pyramids' order of work, on constant maps: every convolution is replaced by a factor."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from edgekit.models.necks.cfpn import CFPN, TwicePassed
from edgekit.models.necks.dfpn import DFPN
from edgekit.models.necks.fpn import FPN, FPNLite, separable_output
from edgekit.models.necks.ssd import Extra, SSDExtras

SIZES = (38, 19, 10, 5, 3)
INPUTS = (1.0, 20.0, 300.0, 4000.0, 50000.0)


class Times(nn.Module):
    def __init__(self, factor):
        super().__init__()
        self.factor = factor

    def forward(self, x, bottom_up=None):
        return x * self.factor


def constant_maps():
    return [torch.full((1, 2, size, size), value) for size, value in zip(SIZES, INPUTS, strict=True)]


def value(x):
    """The one value of a constant map."""
    assert x.min() == x.max()
    return x.flatten()[0].item()


def plain(neck):
    neck.lateral = nn.ModuleList(Times(1) for _ in SIZES)
    neck.output = nn.ModuleList(Times(2) for _ in SIZES)
    return neck


def test_fpn_sums_from_coarse_to_fine():
    found = [value(x) for x in plain(FPN((2,) * 5, (8, 16, 32, 64, 128), 2))(constant_maps())]
    assert found == [2 * sum(INPUTS[i:]) for i in range(5)]


def test_cfpn_walks_the_circle_once():
    """Eq. 4 and 5 unrolled, written out: out = 2 x, F = 0.25 x."""
    neck = plain(CFPN((2,) * 5, (8, 16, 32, 64, 128), 2))
    neck.feedback = nn.ModuleList(Times(0.25) for _ in range(4))
    in3, in4, in5, in6, in7 = INPUTS
    mid7 = in7
    mid6 = in6 + mid7 + 0.25 * (2 * mid7)
    mid5 = in5 + mid6 + 0.25 * (2 * mid6)
    mid4 = in4 + mid5 + 0.25 * (2 * mid5)
    mid3 = in3 + mid4 + 0.25 * (2 * mid4)
    out6 = 2 * (mid6 + mid5)
    expected = [2 * mid3, 2 * (mid4 + mid3), 2 * (mid5 + mid4), out6, 2 * (mid7 + out6)]
    assert [value(x) for x in neck(constant_maps())] == pytest.approx(expected)


def test_cfpn_down_path_takes_maxima():
    """One bright cell of P3 is in all four 3x3 windows of P4; an average would give a ninth."""
    neck = CFPN((1, 1), (8, 16), 1)
    neck.lateral = nn.ModuleList(Times(1) for _ in range(2))
    neck.output = nn.ModuleList(Times(2) for _ in range(2))
    neck.feedback = nn.ModuleList([Times(1)])
    fine = torch.zeros(1, 1, 4, 4)
    fine[0, 0, 1, 1] = 7
    out = neck([fine, torch.zeros(1, 1, 2, 2)])
    # P4 is the coarsest level: it takes out_3 = 2 * 7, and doubles it
    assert out[1].flatten().tolist() == [28, 28, 28, 28]


def test_cfpn_normalises_each_pass_on_its_own():
    """Running statistics of one normalisation for both passes fit neither; the convolutions are the same."""
    block = TwicePassed(separable_output(4)).train()
    near, far = torch.randn(64, 4, 3, 3), 50 + 9 * torch.randn(64, 4, 3, 3)
    for _ in range(60):
        block(near, bottom_up=False), block(far, bottom_up=True)
    with torch.no_grad():
        learnt = [block(near, False), block(far, True)]
        block.eval()
        for before, x, bottom_up in zip(learnt, (near, far), (False, True), strict=True):
            torch.testing.assert_close(block(x, bottom_up), before, atol=0.05, rtol=0.05)
        assert (block(far, False) - learnt[1]).abs().max() > 1  # the other pass's statistics would not do
    assert sum(p.numel() for p in block.convolutions.parameters()) == 4 * 9 + 16


def test_subsampled_levels_take_every_second_cell():
    neck = FPN((1,), (16,), 1, subsampled=2)
    neck.lateral = nn.ModuleList([Times(1)])
    x = torch.arange(25.0).view(1, 1, 5, 5)
    inputs = neck.inputs([x])
    assert neck.strides == (16, 32, 64)
    assert inputs[1].flatten().tolist() == [0, 2, 4, 10, 12, 14, 20, 22, 24]
    assert inputs[2].flatten().tolist() == [0, 4, 20, 24]


def test_fpnlite_smooths_the_sums_but_not_the_coarsest_lateral():
    neck = FPNLite((2, 2), (8, 16), 2, coarser=1)
    neck.lateral = nn.ModuleList(Times(1) for _ in range(2))
    neck.smooth = nn.ModuleList([Times(3)])
    neck.down = nn.ModuleList([Times(5)])
    found = neck([torch.full((1, 2, 4, 4), 1.0), torch.full((1, 2, 2, 2), 10.0)])
    assert [value(x) for x in found] == [33.0, 10.0, 50.0]


def test_dfpn_hands_the_coarse_levels_out_unfused():
    torch.manual_seed(0)
    neck = DFPN((4, 4), (8, 16)).eval()
    maps = [torch.randn(1, 4, 16, 16), torch.randn(1, 4, 8, 8)]
    levels = list(maps)
    for layer in neck.down:
        levels.append(layer(levels[-1]))
    normed = []
    hooks = [norm.register_forward_pre_hook(lambda _, args: normed.append(args[0])) for norm in neck.norm]
    found = neck(maps)
    for hook in hooks:
        hook.remove()
    for i in range(6):
        unfused = neck.norm[i](levels[i])
        assert torch.equal(found[i], unfused) == (i >= 3)
        dark = normed[i].norm(dim=1) < 0.1  # what is added beneath the root shows there
        assert (((found[i].norm(dim=1) - 20).abs() < 1e-3) | dark).all()
        assert i > 3 or not dark.all()


def test_extras_halve_or_shrink():
    with torch.device("meta"):
        neck = SSDExtras((8, 16), (16, 32), (Extra(4, 8), Extra(4, 6, valid=True)))
        maps = neck([torch.empty(1, 8, 20, 20), torch.empty(1, 16, 10, 10)])
    assert neck.channels == (8, 16, 8, 6)
    assert neck.strides == (16, 32, 64, 64)
    assert [x.shape[-1] for x in maps] == [20, 10, 5, 3]
    assert [x.shape[1] for x in maps] == [8, 16, 8, 6]
