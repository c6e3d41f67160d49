"""ThunderNet (Qin et al. 2019): a two-stage detector for mobile devices."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from .anchors import AnchorMaps
from .backbones.snet import snet
from .blocks import conv_bn
from .detector import Detector
from .heads.anchor import decode_anchor_maps
from .heads.proposals import position_sensitive_align, propose
from .heads.ssd import cells
from .layouts import AnchorLevel, Layout, Size, anchors_on, ratio_box
from .necks.fpn import resize_to

STRIDE = 16  # of the map that proposals and regions are read from
BINS = 7
DEPTH = 5
WIDTH = DEPTH * BINS * BINS  # 245: "thin" position-sensitive maps, section 3.2
SCALES = (32, 64, 128, 256, 512)
RATIOS = (1 / 2, 3 / 4, 1.0, 4 / 3, 2.0)


class ThunderMaps(NamedTuple):
    """What both stages predict, before decoding; R proposals, C foreground classes.

    rpn: the region proposal network's maps, one foreground class
    proposals: [N, R, 4] xyxy in input pixels, detached
    location, confidence: of the proposals, [N, R, 4] and [N, R, C + 1] with the background first
    features: the map that the regions are pooled from
    """

    rpn: AnchorMaps
    proposals: Tensor
    location: Tensor
    confidence: Tensor
    features: tuple[Tensor, ...]


class ContextEnhancement(nn.Module):
    """CEM (section 3.2, fig. 4): C4, C5 resized to it, and C5's global mean, each through a 1x1 to 245, summed."""

    def __init__(self, c4: int, c5: int) -> None:
        super().__init__()
        self.local = nn.Conv2d(c4, WIDTH, 1)
        self.context = nn.Conv2d(c5, WIDTH, 1)
        self.whole = nn.Conv2d(c5, WIDTH, 1)
        self.pool = nn.AdaptiveAvgPool2d(1)

    def forward(self, c4: Tensor, c5: Tensor) -> Tensor:
        return self.local(c4) + resize_to(self.context(c5), c4) + self.whole(self.pool(c5))


class SpatialAttention(nn.Module):
    """SAM (section 3.2, fig. 5, eq. 1): the RPN's features say where the region features are worth looking at."""

    def __init__(self, cin: int) -> None:
        super().__init__()
        self.gate = conv_bn(cin, WIDTH, 1, relu=False)

    def forward(self, context: Tensor, rpn: Tensor) -> Tensor:
        return context * self.gate(rpn).sigmoid()


class RPN(nn.Module):
    """Depthwise 5x5 and 1x1 to 256, then 25 anchors a cell (section 3.2)."""

    anchors: Tensor

    def __init__(self, anchors: Tensor, boxes: int) -> None:
        super().__init__()
        self.body = nn.Sequential(conv_bn(WIDTH, WIDTH, 5, groups=WIDTH), conv_bn(WIDTH, 256, 1))
        self.location = nn.Conv2d(256, boxes * 4, 1)
        self.confidence = nn.Conv2d(256, boxes * 2, 1)
        self.register_buffer("anchors", anchors, persistent=False)

    def forward(self, context: Tensor) -> AnchorMaps:
        x = self.body(context)
        return AnchorMaps(cells([self.location(x)], 4), cells([self.confidence(x)], 2), self.anchors, (x,))


class Regions(nn.Module):
    """Which regions the second stage looks at, and what it reads there: position-sensitive RoI align to 7x7x5.

    A module without weights, so that quantization can leave it in float by its name: its values are pixels, ranks and
    shares of cells, which 256 steps are too coarse for.
    size: width and height of the input;  candidates, proposals, rounds: see ThunderNet
    """

    def __init__(self, size: Size, candidates: int, proposals: int, rounds: int) -> None:
        super().__init__()
        self.size = size
        self.candidates, self.proposals, self.rounds = candidates, proposals, rounds

    def forward(self, features: Tensor, source: AnchorMaps | Tensor) -> tuple[Tensor, Tensor]:
        """Map [N, 245, H, W] and what the RPN found, or boxes [N, R, 4] -> boxes [N, R, 4], values [N, R, 5, 7, 7]."""
        if isinstance(source, AnchorMaps):
            with torch.no_grad():
                source = propose(source, self.size, self.candidates, self.proposals, rounds=self.rounds)
        return source, position_sensitive_align(features, source, STRIDE, BINS)


class RegionHead(nn.Module):
    """The regions, one layer of 1024, classes and one box for all classes (section 3.2).

    The fully connected layers are 1x1 convolutions over a column of regions: the same numbers, and quantization and the
    runtimes treat them like every other layer.
    """

    def __init__(self, classes: int, regions: Regions) -> None:
        super().__init__()
        self.regions = regions
        self.hidden = nn.Sequential(nn.Conv2d(WIDTH, 1024, 1), nn.ReLU(inplace=True))
        self.location = nn.Conv2d(1024, 4, 1)
        self.confidence = nn.Conv2d(1024, classes + 1, 1)

    def forward(self, features: Tensor, source: AnchorMaps | Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """As Regions -> location [N, R, 4], confidence [N, R, C + 1], and the boxes [N, R, 4] that they belong to."""
        boxes, regions = self.regions(features, source)
        hidden = self.hidden(regions.flatten(2).transpose(1, 2).unsqueeze(-1))  # [N, 1024, R, 1]
        return (
            self.location(hidden).squeeze(-1).transpose(1, 2),
            self.confidence(hidden).squeeze(-1).transpose(1, 2),
            boxes,
        )


def rpn_layout() -> Layout:
    """Five scales, five ratios (section 3.2)."""
    return (AnchorLevel(tuple(ratio_box(scale, ratio) for scale in SCALES for ratio in RATIOS), STRIDE),)


def centre_form(boxes: Tensor) -> Tensor:
    """Boxes [..., 4], xyxy -> cx, cy, w, h."""
    return torch.cat([(boxes[..., :2] + boxes[..., 2:]) / 2, boxes[..., 2:] - boxes[..., :2]], dim=-1)


class ThunderNet(Detector):
    """ThunderNet (fig. 2): SNet, CEM, a light RPN, SAM, and a region head.

    snet_version: 49, 146 or 535;  repeats: see ``snet``
    proposals: regions that the second stage looks at (200 in the paper)
    candidates: anchors that enter the first stage's NMS, whose cost grows with their square (the authors' code: 2000)
    rounds: of that NMS, see ``suppress``
    """

    task = "proposals"
    nms = "classwise"
    float_modules = ("head.location", "head.confidence", "head.regions", "rpn.location", "rpn.confidence")

    def __init__(
        self,
        classes: int,
        snet_version: int = 49,
        repeats: tuple[int, ...] | None = None,
        size: Size = (320, 320),
        proposals: int = 200,
        candidates: int = 512,
        rounds: int = 4,
    ) -> None:
        super().__init__()
        self.backbone = snet(snet_version, (16, 32), repeats)
        self.context = ContextEnhancement(*self.backbone.channels)
        layout = rpn_layout()
        shape = (-(-size[1] // STRIDE), -(-size[0] // STRIDE))
        anchors = anchors_on(layout, [shape], size)
        self.rpn = RPN(anchors, len(layout[0].sizes))
        self.attention = SpatialAttention(256)
        candidates = min(candidates, len(anchors))
        self.head = RegionHead(classes, Regions(size, candidates, min(proposals, candidates), rounds))

    def forward(self, image: Tensor) -> ThunderMaps:
        context = self.context(*self.backbone(image))
        rpn = self.rpn(context)
        features = self.attention(context, rpn.features[0])
        location, confidence, proposals = self.head(features, rpn)
        return ThunderMaps(rpn, proposals, location, confidence, (features,))

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all proposals; ``top_k`` is not used, there are only a few hundred."""
        maps = self(image)
        anchors = centre_form(maps.proposals)
        return decode_anchor_maps(AnchorMaps(maps.location, maps.confidence, anchors, maps.features))
