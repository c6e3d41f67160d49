"""Convolutions that read a map where they are told to: AlignConv's operator, and deformable convolution (v2).

Three forms of one operator, which agree to rounding; a board's parser decides which one it reads:

gather       opset 13, every board. One row of a channels-last table per neighbour of a sample, and a matrix product
grid-sample  opset 16 (TensorRT 8.5 and later): GridSample, and a convolution over the samples
deform-conv  opset 19 (TensorRT 10.1 and later, ONNX Runtime): DeformConv itself
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .blocks import relu_inplace

# Lowering -> the first opset that has it.
LOWERINGS: Mapping[str, int] = {"gather": 13, "grid-sample": 16, "deform-conv": 19}


def lowering_named(name: str) -> str:
    """Raises ValueError for a name that LOWERINGS does not have."""
    if name not in LOWERINGS:
        raise ValueError(f"lowering: expected one of {', '.join(LOWERINGS)}, got {name!r}")
    return name


def sampled_conv(
    x: Tensor,
    positions: tuple[Tensor, Tensor],
    weight: Tensor,
    bias: Tensor | None = None,
    mask: Tensor | None = None,
    lowering: str = "gather",
) -> Tensor:
    """A K x K convolution whose taps read ``x`` at given places: [N, C, H, W] -> [N, O, H, W].

    positions: column and row of every tap, each [N, K * K, H, W], in cells of ``x``; 0 is the centre of the first
        cell, fractions are interpolated, and what lies outside reads zero
    weight: [O, C, K, K];  bias: [O];  mask: [N, K * K, H, W], factors of the taps
    """
    if lowering == "deform-conv" and torch.onnx.is_in_onnx_export():
        return _deform_conv(x, positions, weight, bias, mask)
    form = _by_grid_sample if lowering == "grid-sample" else _by_gather
    columns, rows = (each.float() for each in positions)  # mixed precision would round places to whole cells
    return form(x, (columns, rows), weight, bias, mask)


def _by_gather(
    x: Tensor, positions: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    n, channels, height, width = x.shape
    out, kernel = weight.shape[0], weight.shape[-1]
    columns, rows = (p.permute(0, 2, 3, 1) for p in positions)  # [N, H, W, taps]
    taps = bilinear(x, columns, rows)
    if mask is not None:
        taps = taps * mask.permute(0, 2, 3, 1).reshape(-1, 1)
    matrix = weight.permute(2, 3, 1, 0).reshape(kernel * kernel * channels, out)
    found = taps.reshape(-1, kernel * kernel * channels) @ matrix
    if bias is not None:
        found = found + bias
    return found.reshape(n, height, width, out).permute(0, 3, 1, 2)


def bilinear(x: Tensor, columns: Tensor, rows: Tensor) -> Tensor:
    """Samples [P, C] of ``x`` [N, C, H, W] at ``columns`` and ``rows`` (both [N, ...], P values in all).

    A border of zeros stands for everything outside. Indices are computed as floats and cast once: there is no int64
    arithmetic in the exported graph, and float32 holds them exactly up to 2^24 cells.
    """
    n, channels, height, width = x.shape
    tall, wide = height + 2, width + 2
    table = F.pad(x, (1, 1, 1, 1)).permute(0, 2, 3, 1).reshape(n * tall * wide, channels)
    column, right = _cell(columns, width)
    row, lower = _cell(rows, height)
    first = row * wide + column
    if n > 1:
        image = torch.arange(n, dtype=first.dtype, device=x.device).view(-1, *[1] * (first.dim() - 1))
        first = first + image * (tall * wide)
    corners = ((0, 0), (0, 1), (1, 0), (1, 1))
    indices = [(first + (down * wide + across)).reshape(-1).to(torch.int64) for down, across in corners]
    shares = [
        ((lower if down else 1 - lower) * (right if across else 1 - right)).reshape(-1) for down, across in corners
    ]
    return (_sum_by_gather if torch.onnx.is_in_onnx_export() else _sum_by_bag)(table, indices, shares)


def _sum_by_gather(table: Tensor, indices: Sequence[Tensor], shares: Sequence[Tensor]) -> Tensor:
    """Rows of a table [R, C] at ``indices``, weighed by ``shares`` (both [P] each), summed: [P, C]; for any board."""
    parts = [table.index_select(0, index) * share.unsqueeze(1) for index, share in zip(indices, shares, strict=True)]
    return functools.reduce(torch.add, parts)


def _sum_by_bag(table: Tensor, indices: Sequence[Tensor], shares: Sequence[Tensor]) -> Tensor:
    """The same in one pass, forward and backward, without the parts in memory: what training does all day."""
    kind = torch.promote_types(table.dtype, shares[0].dtype)
    weights = torch.stack(list(shares), 1).to(kind)
    return F.embedding_bag(torch.stack(list(indices), 1), table.to(kind), mode="sum", per_sample_weights=weights)


def _cell(position: Tensor, count: int) -> tuple[Tensor, Tensor]:
    """Cell of the padded map before a position, as a float, and the share of the cell after it."""
    place = position.clamp(-1, count) + 1
    cell = place.detach().floor().clamp(max=count)
    return cell, place - cell


def _by_grid_sample(
    x: Tensor, positions: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    """The samples of one output lie side by side as a K x K patch, which a convolution with stride K reads."""
    height, width = x.shape[-2:]
    kernel = weight.shape[-1]

    def spread(taps: Tensor) -> Tensor:
        n, _, rows, columns = taps.shape
        patches = taps.reshape(n, kernel, kernel, rows, columns).permute(0, 3, 1, 4, 2)
        return patches.reshape(n, rows * kernel, columns * kernel)

    columns, rows = (spread(p) for p in positions)
    grid = torch.stack([(columns * 2 + 1) / width - 1, (rows * 2 + 1) / height - 1], dim=-1)
    samples = F.grid_sample(x.float(), grid, mode="bilinear", padding_mode="zeros", align_corners=False)
    if mask is not None:
        samples = samples * spread(mask).unsqueeze(1)
    return F.conv2d(samples, weight, bias, stride=kernel)


class _DeformConv(torch.autograd.Function):
    """ONNX's DeformConv at export; it is not used to compute anything."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, offset: Tensor, bias: Tensor, mask: Tensor) -> Tensor:
        return x.new_zeros(x.shape[0], weight.shape[0], *x.shape[2:])

    @staticmethod
    def symbolic(g: Any, x: Any, weight: Any, offset: Any, bias: Any, mask: Any) -> Any:
        kernel = weight.type().sizes()[-1]
        pad = kernel // 2
        found = g.op(
            "DeformConv", x, weight, offset, bias, mask, kernel_shape_i=[kernel, kernel], pads_i=[pad, pad, pad, pad]
        )
        sizes = x.type().sizes()
        if sizes is not None:
            found.setType(x.type().with_sizes([sizes[0], weight.type().sizes()[0], *sizes[2:]]))
        return found


def _deform_conv(
    x: Tensor, positions: tuple[Tensor, Tensor], weight: Tensor, bias: Tensor | None, mask: Tensor | None
) -> Tensor:
    n, _, height, width = x.shape
    kernel = weight.shape[-1]
    columns, rows = regular_taps(height, width, kernel, x)
    offset = torch.stack([positions[1] - rows, positions[0] - columns], dim=2)  # row first
    return _DeformConv.apply(
        x,
        weight,
        offset.reshape(n, 2 * kernel * kernel, height, width),
        x.new_zeros(weight.shape[0]) if bias is None else bias,
        torch.ones_like(positions[0]) if mask is None else mask,
    )


def regular_taps(height: int, width: int, kernel: int, like: Tensor) -> tuple[Tensor, Tensor]:
    """Columns and rows [1, K * K, H, W] that an ordinary convolution with "same" padding reads."""
    reach = torch.arange(kernel, dtype=like.dtype, device=like.device) - kernel // 2
    own_columns = torch.arange(width, dtype=like.dtype, device=like.device).view(1, 1, 1, width)
    own_rows = torch.arange(height, dtype=like.dtype, device=like.device).view(1, 1, height, 1)
    columns = reach.repeat(kernel).view(1, -1, 1, 1) + own_columns
    rows = reach.repeat_interleave(kernel).view(1, -1, 1, 1) + own_rows
    shape = (1, kernel * kernel, height, width)
    return columns.expand(shape), rows.expand(shape)


def fold_norm(weight: Tensor, bias: Tensor | None, norm: nn.BatchNorm2d, outputs: int = 0) -> tuple[Tensor, Tensor]:
    """Weight and bias of a convolution together with the normalisation behind it, at inference.

    outputs: dimension of ``weight`` that counts the output channels; 1 for a transposed convolution
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shape = [1] * weight.dim()
    shape[outputs] = -1
    own = -norm.running_mean if bias is None else bias - norm.running_mean
    return weight * scale.view(shape), norm.bias + own * scale


class DeformableConv(nn.Module):
    """Modulated deformable 3x3 (DCNv2, Zhu et al. 2019, eq. 1), batch normalisation and ReLU.

    An ordinary convolution, zero at first, moves every tap and weighs it: 27 channels for nine taps.
    lowering: see the module
    """

    KERNEL = 3

    def __init__(self, cin: int, cout: int, lowering: str = "gather") -> None:
        super().__init__()
        plain = nn.Conv2d(cin, cout, self.KERNEL)
        self.weight, self.bias = plain.weight, plain.bias
        self.offset = nn.Conv2d(cin, 3 * self.KERNEL**2, self.KERNEL, padding=self.KERNEL // 2)
        self.norm = nn.BatchNorm2d(cout, momentum=0.1)
        self.relu = relu_inplace()
        self.lowering = lowering_named(lowering)
        nn.init.zeros_(self.offset.weight)
        nn.init.zeros_(self.offset.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        moves, mask = self.offset(x).split([2 * self.KERNEL**2, self.KERNEL**2], dim=1)
        moves = moves.float()  # bf16 knows no fraction of a place beyond 128
        down, across = moves[:, 0::2], moves[:, 1::2]
        columns, rows = regular_taps(x.shape[-2], x.shape[-1], self.KERNEL, moves)
        positions = (columns + across, rows + down)
        if torch.onnx.is_in_onnx_export():  # the exporter folds into ordinary convolutions only
            weight, bias = fold_norm(self.weight, self.bias, self.norm)
            return self.relu(sampled_conv(x, positions, weight, bias, mask.sigmoid(), self.lowering))
        return self.relu(self.norm(sampled_conv(x, positions, self.weight, self.bias, mask.sigmoid(), self.lowering)))


def offset_parameters(network: nn.Module) -> list[nn.Parameter]:
    """What moves and weighs the taps of a network's deformable convolutions; the optimiser is gentle with it."""
    return [p for m in network.modules() if isinstance(m, DeformableConv) for p in m.offset.parameters()]


class TransposedConv(nn.Module):
    """Bias-free transposed convolution that multiplies the size by ``stride``, batch normalisation and ReLU."""

    def __init__(self, cin: int, cout: int, kernel: int = 4, stride: int = 2) -> None:
        super().__init__()
        self.conv = nn.ConvTranspose2d(cin, cout, kernel, stride, padding=(kernel - stride) // 2, bias=False)
        self.norm = nn.BatchNorm2d(cout, momentum=0.1)
        self.relu = relu_inplace()

    def forward(self, x: Tensor) -> Tensor:
        if torch.onnx.is_in_onnx_export():  # the exporter folds into ordinary convolutions only
            weight, bias = fold_norm(self.conv.weight, None, self.norm, outputs=1)
            return self.relu(F.conv_transpose2d(x, weight, bias, self.conv.stride, self.conv.padding))  # type: ignore[arg-type]
        return self.relu(self.norm(self.conv(x)))
