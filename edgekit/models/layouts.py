"""Anchor layouts as data: how many boxes stand at a cell of each level, and how large they are."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from math import sqrt
from typing import NamedTuple, TypeAlias

import torch
from torch import Tensor, nn
from torch.func import functional_call

from .anchors import grid_anchors

Size: TypeAlias = tuple[int, int]  # width and height in pixels
Box: TypeAlias = tuple[float, float]


class AnchorLevel(NamedTuple):
    """sizes: width and height in pixels of the boxes at one cell;  step: pixels between cells, None: input by map."""

    sizes: tuple[Box, ...]
    step: float | None = None


Layout: TypeAlias = tuple[AnchorLevel, ...]


def anchors_on(layout: Sequence[AnchorLevel], shapes: Sequence[tuple[int, int]], size: Size) -> Tensor:
    """Anchors [A, 4] (cx, cy, w, h in pixels) of maps with the ``shapes`` (height, width), level by level."""
    width, height = size
    levels = []
    for level, (rows, columns) in zip(layout, shapes, strict=True):
        step = (level.step, level.step) if level.step else (height / rows, width / columns)
        levels.append(grid_anchors((rows, columns), step, level.sizes))
    return torch.cat(levels)


def ratio_box(scale: float, ratio: float) -> Box:
    """Width and height of a box of area ``scale``^2; ratio is width to height."""
    return scale * sqrt(ratio), scale / sqrt(ratio)


def tensorflow_ssd(
    size: Size, levels: int = 6, smallest: float = 0.2, largest: float = 0.95, reduce_lowest: bool = True
) -> Layout:
    """The SSD generator of TensorFlow's object detection API: 3, 6, 6, 6, 6, 6 boxes a cell (1917 at 300x300).

    Scales are spread evenly from ``smallest`` to ``largest``, in parts of the input's shorter side. Each level has the
    ratios 1, 2, 1/2, 3, 1/3 and a square between its scale and the next.
    reduce_lowest: the finest level gets three boxes instead: a square of a tenth, and ratios 2 and 1/2
    """
    side = min(size)
    scales = [smallest + (largest - smallest) * i / (levels - 1) for i in range(levels)] + [1.0]
    layout = []
    for i, (scale, following) in enumerate(pairwise(scales)):
        boxes = [(scale, 1.0), (scale, 2.0), (scale, 0.5), (scale, 3.0), (scale, 1 / 3), (sqrt(scale * following), 1.0)]
        if i == 0 and reduce_lowest:
            boxes = [(0.1, 1.0), (scale, 2.0), (scale, 0.5)]
        layout.append(AnchorLevel(tuple(ratio_box(side * s, ratio) for s, ratio in boxes)))
    return tuple(layout)


def ssd_paper(
    side: int,
    scales: Sequence[float],
    ratios: Sequence[Sequence[float]],
    steps: Sequence[float | None],
) -> Layout:
    """The boxes of the SSD paper (Liu et al. 2016, section 2.2) and of the networks that follow its Caffe code.

    side: of the input that ``scales`` are parts of;  scales: one more than levels, because each level has a second
        square between its scale and the next;  ratios: beside 1, each also as its inverse;  steps: see AnchorLevel
    """
    layout = []
    for i, (wide, step) in enumerate(zip(ratios, steps, strict=True)):
        scale, following = side * scales[i], side * scales[i + 1]
        boxes = [(scale, scale), (sqrt(scale * following),) * 2]
        boxes += [ratio_box(scale, r) for ratio in wide for r in (ratio, 1 / ratio)]
        layout.append(AnchorLevel(tuple(boxes), step))
    return tuple(layout)


# SSD300: conv4_3 has a tenth of the input, the other scales go from 0.2 to 0.9; 8732 boxes.
SSD300_RATIOS = ((2,), (2, 3), (2, 3), (2, 3), (2,), (2,))
SSD300_SCALES = (0.1, 0.2, 0.37, 0.54, 0.71, 0.88, 1.05)


def octaves(
    strides: Sequence[int], base: float = 4.0, per_octave: int = 2, ratios: Sequence[float] = (1, 2, 0.5)
) -> Layout:
    """RetinaNet's boxes (Lin et al. 2017, section 4): sides of ``base`` strides, times 2^(k / per_octave)."""
    layout = []
    for stride in strides:
        sides = [base * stride * 2 ** (k / per_octave) for k in range(per_octave)]
        layout.append(AnchorLevel(tuple(ratio_box(side, ratio) for side in sides for ratio in ratios)))
    return tuple(layout)


def map_shapes(network: nn.Module, size: Size) -> list[tuple[int, int]]:
    """Height and width of every map that ``network`` makes of an image of ``size``; nothing is computed.

    Raises ValueError for a size that is too small for the network.
    """
    training = network.training
    weights = {name: value.to("meta") for name, value in [*network.named_parameters(), *network.named_buffers()]}
    network.eval()  # batch statistics of a 1x1 map do not exist
    try:
        maps = functional_call(network, weights, (torch.empty(1, 3, size[1], size[0], device="meta"),))
    except RuntimeError as error:
        reason = str(error).splitlines()[0]
        raise ValueError(f"size: the network cannot work on {size[0]}x{size[1]} pixels ({reason})") from error
    finally:
        network.train(training)
    return [(int(one.shape[-2]), int(one.shape[-1])) for one in maps]
