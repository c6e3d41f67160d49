"""DenseNet-201-Elastic (Huang et al. 2017; Wang et al. 2019) and its cross stage partial form (CSPNet, table 3).

Normalisation and activation stand before each convolution, as in DenseNet. They cannot be folded into it, so that these
networks serve as classifiers and not in detectors. DenseNet-201-Elastic follows its authors' published structure; the
CSP form was never published and is a reading that meets its parameters and FLOPs, see docs/readings.md.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional

BLOCKS = (10, 20, 40, 30)  # Elastic's layers per block of "DenseNet-201"
GROWTH = 32
BOTTLENECK = 4 * GROWTH // 2  # each of the two ways has half of DenseNet's 4 k


def _norm_conv(cin: int, cout: int, kernel: int) -> nn.Sequential:
    return nn.Sequential(
        nn.BatchNorm2d(cin),
        nn.ReLU(inplace=False),
        nn.Conv2d(cin, cout, kernel, padding=kernel // 2, bias=False),
    )


class ElasticLayer(nn.Module):
    """A dense layer with two ways, one of them at half the resolution; their sum is concatenated (Elastic, fig. 2).

    scaled: False in the last block, whose map is too small: there both ways keep the resolution
    """

    def __init__(self, cin: int, scaled: bool) -> None:
        super().__init__()
        self.norm = nn.Sequential(nn.BatchNorm2d(cin), nn.ReLU(inplace=False))
        self.pool = nn.AvgPool2d(2) if scaled else nn.Identity()
        self.high = nn.Sequential(nn.Conv2d(cin, BOTTLENECK, 1, bias=False), *_norm_conv(BOTTLENECK, GROWTH, 3))
        self.low = nn.Sequential(nn.Conv2d(cin, BOTTLENECK, 1, bias=False), *_norm_conv(BOTTLENECK, GROWTH, 3))

    def forward(self, x: Tensor) -> Tensor:
        activated = self.norm(x)
        high, low = self.high(activated), self.low(self.pool(activated))
        if low.shape[2:] != high.shape[2:]:
            low = functional.interpolate(low, size=high.shape[2:], mode="bilinear", align_corners=False)
        return torch.cat([x, high + low], dim=1)


def _elastic_block(cin: int, block: int) -> nn.Sequential:
    scaled = block < len(BLOCKS) - 1
    return nn.Sequential(*(ElasticLayer(cin + i * GROWTH, scaled) for i in range(BLOCKS[block])))


class DenseStage(nn.Module):
    """A dense block; a transition to half the width and then the resolution, in all stages but the last."""

    def __init__(self, cin: int, block: int) -> None:
        super().__init__()
        dense = cin + BLOCKS[block] * GROWTH
        last = block == len(BLOCKS) - 1
        self.out = dense if last else dense // 2
        self.dense = _elastic_block(cin, block)
        self.transition = nn.Identity() if last else nn.Sequential(_norm_conv(dense, self.out, 1), nn.AvgPool2d(2))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        dense = self.dense(x)
        return dense, self.transition(dense)


class CSPDenseStage(nn.Module):
    """Half of the channels pass by through a 1x1, the other half through the dense block; concatenation, transition.

    The transition works on the pooled map, to half the width of the plain network; in the last stage it keeps both.
    """

    def __init__(self, cin: int, block: int) -> None:
        super().__init__()
        self.bypass = cin // 2
        dense = cin + BLOCKS[block] * GROWTH
        last = block == len(BLOCKS) - 1
        self.out = dense if last else dense // 2
        self.part1 = _norm_conv(cin, self.bypass, 1)
        self.dense = _elastic_block(cin - self.bypass, block)
        self.transition = nn.Sequential(nn.Identity() if last else nn.AvgPool2d(2), _norm_conv(dense, self.out, 1))

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        fused = torch.cat([self.part1(x), self.dense(x[:, self.bypass :])], dim=1)
        return fused, self.transition(fused)


class DenseNet(nn.Module):
    """Image [N, 3, H, W] -> the dense maps at strides 8 and 16, and the normalised last map at stride 32."""

    strides: tuple[int, ...] = (8, 16, 32)

    def __init__(self, stage: type[DenseStage] | type[CSPDenseStage]) -> None:
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 64, 7, stride=2, padding=3, bias=False),
            nn.BatchNorm2d(64),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, stride=2, padding=1),
        )
        self.stages = nn.ModuleList()
        width, dense = 64, []
        for block, layers in enumerate(BLOCKS):
            dense.append(width + layers * GROWTH)
            self.stages.append(stage(width, block))
            width = dense[-1] if block == len(BLOCKS) - 1 else dense[-1] // 2
        self.norm = nn.Sequential(nn.BatchNorm2d(width), nn.ReLU(inplace=True))
        self.channels = (dense[1], dense[2], width)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, maps = self.stem(image), []
        for stage in self.stages:
            dense, x = stage(x)
            maps.append(dense)
        return maps[1], maps[2], self.norm(x)


def densenet_201_elastic() -> DenseNet:
    """19.48 M parameters, 8.77 G of a module counter's doubled operations (CSPNet, table 3)."""
    return DenseNet(DenseStage)


def csp_densenet_201_elastic() -> DenseNet:
    """A reading of CSPDenseNet-201-Elastic (open): 20.17 M parameters, 7.13 G in the paper."""
    return DenseNet(CSPDenseStage)
