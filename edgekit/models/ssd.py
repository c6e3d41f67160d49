"""Single-shot detectors: a backbone, a neck and an SSD head, each one a free choice."""

from __future__ import annotations

from typing import Protocol

from torch import Tensor, nn

from .anchors import AnchorMaps
from .backbones.mblitenet import mblitenet
from .backbones.mobilenet import MobileNetV1, mobilenet_v2, mobilenet_v3_large, relu6
from .blocks import relu_inplace
from .detector import Detector
from .heads.anchor import Activation, decode_anchor_maps
from .heads.ssd import PREDICTORS, SSDHead, last_convolutions
from .layouts import Layout, Size, anchors_on, map_shapes, tensorflow_ssd
from .necks.cfpn import CFPN
from .necks.fpn import FPN
from .necks.ssd import TENSORFLOW_EXTRAS, Extra, SSDExtras


class Pyramid(Protocol):
    """What a backbone and a neck tell about their maps."""

    channels: tuple[int, ...]
    strides: tuple[int, ...]


class SSD(Detector):
    """SSD (Liu et al. 2016) on the maps that ``features`` makes of the image, high resolution first.

    features: backbone and neck, an ``nn.Sequential``; its last part has ``channels``
    layout: the boxes of a cell, level by level;  size: width and height of the input, in pixels
    predictor: one of PREDICTORS;  activation: of the class scores, see ``decode_anchor_maps``
    candidates: how many anchors, best first, leave the graph for NMS on the host; None: all of them
    """

    nms = "classwise"

    def __init__(
        self,
        classes: int,
        features: nn.Sequential,
        layout: Layout,
        size: Size,
        predictor: str = "1x1",
        activation: Activation = "softmax",
        candidates: int | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        anchors = anchors_on(layout, map_shapes(features, size), size)
        boxes = [len(level.sizes) for level in layout]
        channels = features[-1].channels
        self.head = SSDHead(channels, boxes, classes, PREDICTORS[predictor], anchors)
        self.float_modules = last_convolutions(self.head)
        self.activation: Activation = activation
        self.candidates = candidates

    def forward(self, image: Tensor) -> AnchorMaps:
        return self.head(self.features(image))

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all anchors; of the best max(candidates, top_k) ones where ``candidates`` is set."""
        kept = None if self.candidates is None else max(self.candidates, top_k)
        return decode_anchor_maps(self(image), kept, self.activation)


# -- Lightweight SSD --------------------------------------------------------------------------------------------------
PYRAMIDS = {"fpn": FPN, "cfpn": CFPN}
# Levels 6 and 7 of the pyramids, in SSDLite's form.
PYRAMID_EXTRAS = (Extra(256, 512), Extra(128, 256))


def lightweight_ssd(
    classes: int,
    neck: str = "cfpn",
    s96: int = 1,
    size: Size = (300, 300),
    candidates: int | None = None,
) -> SSD:
    """Lightweight SSD (Guo et al. 2021, fig. 2): MBlitenet with the SSD layers, FPN or CFPN.

    neck: "ssd" (the MBlitenet row of table 3), "fpn" or "cfpn"
    s96: see ``mblitenet``; with 2 the backbone itself has a map at stride 64, and the pyramids need one extra less
    """
    if neck == "ssd":
        backbone = mblitenet(s96=s96)
        features = nn.Sequential(backbone, SSDExtras(backbone.channels, backbone.strides))
        return SSD(classes, features, tensorflow_ssd(size), size, "1x1", candidates=candidates)
    if neck not in PYRAMIDS:
        raise ValueError(f"neck: expected ssd, {' or '.join(PYRAMIDS)}, got {neck!r}")
    backbone = mblitenet((8, 16, 32, 64)[: 2 + s96], s96)
    missing = PYRAMID_EXTRAS[s96 - 1 :]
    extras = SSDExtras(backbone.channels, backbone.strides, missing, depthwise=True)
    features = nn.Sequential(backbone, extras, PYRAMIDS[neck](extras.channels, extras.strides))
    layout = tensorflow_ssd(size, levels=5, smallest=0.1, reduce_lowest=False)
    return SSD(classes, features, layout, size, "3x3", candidates=candidates)


# -- SSD and SSDLite of TensorFlow's object detection API --------------------------------------------------------------
BACKBONES = ("mobilenet-v1", "mobilenet-v2", "mobilenet-v3-large")


def mobilenet_ssd(
    classes: int,
    backbone: str = "mobilenet-v2",
    lite: bool = False,
    predictor: str | None = None,
    size: Size | None = None,
    candidates: int | None = None,
) -> SSD:
    """SSD300 (lite=False) and SSDLite320 on a MobileNet, with 1917 boxes at 300x300.

    SSD300 with 1x1 predictors is the row of Lightweight SSD's table 5, and of MobileNet's table 13. SSDLite
    (Sandler et al. 2018, section 6.2) is RefineDetLite's table 2: extras and predictors are depthwise separable.
    predictor: one of PREDICTORS; None: "1x1" for SSD300, "ssdlite" for SSDLite
    size: None: 300x300, or 320x320 for SSDLite
    """
    size = size or ((320, 320) if lite else (300, 300))
    body: MobileNetV1 | nn.Module
    if backbone == "mobilenet-v1":
        body = MobileNetV1()
    elif backbone == "mobilenet-v2":
        body = mobilenet_v2(expansion=True)
    elif backbone == "mobilenet-v3-large":
        body = mobilenet_v3_large(expansion=True)
    else:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
    extras = SSDExtras(body.channels, body.strides, TENSORFLOW_EXTRAS, lite, relu6 if lite else relu_inplace)
    chosen = predictor or ("ssdlite" if lite else "1x1")
    return SSD(classes, nn.Sequential(body, extras), tensorflow_ssd(size), size, chosen, candidates=candidates)
