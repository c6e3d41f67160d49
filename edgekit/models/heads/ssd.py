"""The SSD head: boxes and classes of every anchor, predicted by one small convolution per level."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TypeAlias

import torch
from torch import Tensor, nn

from ..anchors import AnchorMaps
from ..backbones.mobilenet import relu6
from ..blocks import conv_bn

Predictor: TypeAlias = Callable[[int, int], nn.Module]


def pointwise(cin: int, cout: int) -> nn.Module:
    """1x1 with bias: TensorFlow's SSD."""
    return nn.Conv2d(cin, cout, 1)


def dense(cin: int, cout: int) -> nn.Module:
    """3x3 with bias: SSD (Liu et al. 2016, section 2.1)."""
    return nn.Conv2d(cin, cout, 3, padding=1)


def ssdlite(cin: int, cout: int) -> nn.Module:
    """Depthwise 3x3 and 1x1 with bias: SSDLite (Sandler et al. 2018, section 6.2)."""
    return nn.Sequential(conv_bn(cin, cin, 3, groups=cin, activation=relu6), nn.Conv2d(cin, cout, 1))


def depthwise_last(cin: int, cout: int) -> nn.Module:
    """1x1, then depthwise 3x3 over the outputs, batch normalisation instead of a bias: Tiny-DSOD."""
    return nn.Sequential(nn.Conv2d(cin, cout, 1, bias=False), conv_bn(cout, cout, 3, relu=False, groups=cout))


PREDICTORS: Mapping[str, Predictor] = {
    "1x1": pointwise,
    "3x3": dense,
    "ssdlite": ssdlite,
    "depthwise-last": depthwise_last,
}


def cells(maps: Sequence[Tensor], values: int) -> Tensor:
    """Maps [N, boxes * values, H, W] -> [N, all anchors, values], row by row, anchors of one cell neighbours."""
    return torch.cat([m.permute(0, 2, 3, 1).reshape(m.shape[0], -1, values) for m in maps], dim=1)


class SSDHead(nn.Module):
    """A location and a confidence predictor for every level (SSD, fig. 2); nothing is shared between levels.

    channels, boxes: per level, the width of its map and how many anchors a cell has
    classes: foreground classes; the background is added, and stands first
    anchors: [A, 4], in the order of the maps' cells
    """

    anchors: Tensor

    def __init__(
        self, channels: Sequence[int], boxes: Sequence[int], classes: int, predictor: Predictor, anchors: Tensor
    ) -> None:
        super().__init__()
        self.classes = classes
        levels = list(zip(channels, boxes, strict=True))
        self.location = nn.ModuleList(predictor(width, count * 4) for width, count in levels)
        self.confidence = nn.ModuleList(predictor(width, count * (classes + 1)) for width, count in levels)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> AnchorMaps:
        location = [predict(x) for predict, x in zip(self.location, maps, strict=True)]
        confidence = [predict(x) for predict, x in zip(self.confidence, maps, strict=True)]
        return AnchorMaps(cells(location, 4), cells(confidence, self.classes + 1), self.anchors, tuple(maps))


class SharedTower(nn.Module):
    """Separable convolutions that all levels share, each followed by a batch normalisation of the level's own."""

    def __init__(self, width: int, depth: int, levels: int) -> None:
        super().__init__()
        self.convolutions = nn.ModuleList(
            nn.Sequential(
                nn.Conv2d(width, width, 3, padding=1, groups=width, bias=False), nn.Conv2d(width, width, 1, bias=False)
            )
            for _ in range(depth)
        )
        self.norms = nn.ModuleList(nn.BatchNorm2d(width) for _ in range(levels * depth))  # level by level
        self.activation = relu6()

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        norms = iter(self.norms)
        found = []
        for x in maps:
            for convolution in self.convolutions:
                x = self.activation(next(norms)(convolution(x)))
            found.append(x)
        return found


class SharedSSDHead(nn.Module):
    """TensorFlow's weight-shared predictor with ``use_depthwise`` and one tower for boxes and classes (FPNLite).

    width: channels of every map;  boxes: anchors of a cell, the same on every level;  depth: convolutions in the tower
    classes, anchors: see SSDHead
    """

    anchors: Tensor

    def __init__(self, width: int, levels: int, boxes: int, classes: int, anchors: Tensor, depth: int = 4) -> None:
        super().__init__()
        self.classes = classes
        self.tower = SharedTower(width, depth, levels)
        self.location = nn.ModuleList([_separable_predictor(width, boxes * 4)])
        self.confidence = nn.ModuleList([_separable_predictor(width, boxes * (classes + 1))])
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, maps: Sequence[Tensor]) -> AnchorMaps:
        towers = self.tower(maps)
        location = cells([self.location[0](x) for x in towers], 4)
        confidence = cells([self.confidence[0](x) for x in towers], self.classes + 1)
        return AnchorMaps(location, confidence, self.anchors, tuple(maps))


def _separable_predictor(cin: int, cout: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(cin, cin, 3, padding=1, groups=cin, bias=False), nn.Conv2d(cin, cout, 1))


def last_convolutions(head: nn.Module, name: str = "head") -> tuple[str, ...]:
    """Names of the convolutions that end each predictor of a head; ``Detector.float_modules`` wants them."""
    found = []
    for part in ("location", "confidence"):
        for i, predictor in enumerate(getattr(head, part)):
            inner = [path for path, module in predictor.named_modules() if isinstance(module, nn.Conv2d)]
            found.append(".".join([name, part, str(i), *filter(None, inner[-1:])]))
    return tuple(found)
