"""Single-shot detectors: a backbone, a neck and an anchor head, each one a free choice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, NamedTuple

from torch import Tensor, nn

from .anchors import AnchorMaps
from .backbones.mblitenet import mblitenet
from .backbones.mobilenet import MobileNetV1, mobilenet_v2, mobilenet_v3_large, relu6
from .backbones.peleenet import PeleeNet
from .backbones.registry import build_backbone
from .backbones.tinydsod import DDBNet
from .blocks import relu_inplace
from .detector import Detector
from .heads.anchor import Activation, decode_anchor_maps
from .heads.ssd import PREDICTORS, SharedSSDHead, SSDHead, last_convolutions
from .layouts import (
    SSD300_RATIOS,
    SSD300_SCALES,
    Layout,
    Size,
    anchors_on,
    map_shapes,
    octaves,
    ssd_paper,
    tensorflow_ssd,
)
from .necks.cfpn import CFPN
from .necks.dfpn import DFPN
from .necks.fpn import FPN, FPNLite
from .necks.pelee import PeleeNeck
from .necks.ssd import TENSORFLOW_EXTRAS, Extra, SSDExtras


class SSD(Detector):
    """SSD (Liu et al. 2016): an anchor head on the maps that ``features`` makes of the image, high resolution first.

    activation: of the class scores, see ``decode_anchor_maps``
    candidates: how many anchors, best first, leave the graph for NMS on the host; None: all of them
    """

    task = "anchors"
    nms = "classwise"

    def __init__(
        self,
        features: nn.Module,
        head: SSDHead | SharedSSDHead,
        activation: Activation = "softmax",
        candidates: int | None = None,
    ) -> None:
        super().__init__()
        self.features = features
        self.head = head
        self.float_modules = last_convolutions(head)
        self.activation: Activation = activation
        self.candidates = candidates

    def forward(self, image: Tensor) -> AnchorMaps:
        return self.head(self.features(image))

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all anchors; of the best max(candidates, top_k) ones where ``candidates`` is set."""
        kept = None if self.candidates is None else max(self.candidates, top_k)
        return decode_anchor_maps(self(image), kept, self.activation)


def ssd(
    classes: int,
    features: nn.Sequential,
    layout: Layout,
    size: Size,
    predictor: str = "1x1",
    candidates: int | None = None,
) -> SSD:
    """An SSD of any parts.

    features: backbone and neck; the last part has ``channels``, one for every level of ``layout``
    size: width and height of the input in pixels;  predictor: one of PREDICTORS;  candidates: see SSD
    """
    if predictor not in PREDICTORS:
        raise ValueError(f"predictor: expected one of {', '.join(PREDICTORS)}, got {predictor!r}")
    anchors = anchors_on(layout, map_shapes(features, size), size)
    boxes = [len(level.sizes) for level in layout]
    head = SSDHead(features[-1].channels, boxes, classes, PREDICTORS[predictor], anchors)  # type: ignore[arg-type]
    return SSD(features, head, candidates=candidates)


# -- any parts ---------------------------------------------------------------------------------------------------------
class Coarsest(nn.Module):
    """The last ``count`` maps of a backbone."""

    def __init__(self, backbone: nn.Module, count: int) -> None:
        super().__init__()
        self.backbone = backbone
        self.count = count
        self.channels = tuple(backbone.channels)[-count:]  # type: ignore[arg-type]
        self.strides = tuple(backbone.strides)[-count:]  # type: ignore[arg-type]
        if len(self.channels) < count:
            raise ValueError(f"backbone: this neck reads {count} maps, the backbone makes {len(self.channels)}")

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        return tuple(self.backbone(image)[-self.count :])


class Neck(NamedTuple):
    """maps: how many of the backbone's it reads;  build: (channels, strides) -> neck;  layout: its boxes, by size."""

    maps: int
    build: Callable[..., nn.Module]
    layout: Callable[[Size], Layout]


def pyramid_layout(size: Size) -> Layout:
    """Six boxes a cell on levels 3 to 7; the paper gives none. TensorFlow's generator, from a tenth of the input on."""
    return tensorflow_ssd(size, levels=5, smallest=0.1, reduce_lowest=False)


def pelee_layout(size: Size) -> Layout:
    """SSD300's scales with the ratios 1, 2, 1/2, 3, 1/3 on every level."""
    return ssd_paper(min(size), SSD300_SCALES, ((2, 3),) * 6, (None,) * 6)


NECKS: Mapping[str, Neck] = {
    "ssd": Neck(2, SSDExtras, tensorflow_ssd),
    "ssdlite": Neck(2, partial(SSDExtras, depthwise=True, activation=relu6), tensorflow_ssd),
    "fpn": Neck(3, partial(FPN, subsampled=2), pyramid_layout),
    "cfpn": Neck(3, partial(CFPN, subsampled=2), pyramid_layout),
    "pelee": Neck(2, PeleeNeck, pelee_layout),
}


def any_ssd(
    classes: int,
    backbone: str = "mobilenet-v2",
    neck: str = "ssd",
    predictor: str = "3x3",
    backbone_options: Mapping[str, Any] | None = None,
    size: Size = (320, 320),
    candidates: int | None = None,
) -> SSD:
    """An SSD of a backbone of the registry, a neck of NECKS and a predictor of PREDICTORS, none of a paper's choosing.

    backbone_options: keyword arguments of the backbone, such as ``{width: "1.5"}`` of ShuffleNetV2
    """
    if neck not in NECKS:
        raise ValueError(f"neck: expected one of {', '.join(NECKS)}, got {neck!r}")
    chosen = NECKS[neck]
    body = Coarsest(build_backbone(backbone, backbone_options), chosen.maps)
    features = nn.Sequential(body, chosen.build(body.channels, body.strides))
    return ssd(classes, features, chosen.layout(size), size, predictor, candidates)


# -- Lightweight SSD --------------------------------------------------------------------------------------------------
PYRAMIDS: Mapping[str, Callable[..., nn.Module]] = {"fpn": FPN, "cfpn": CFPN}
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
        backbone = mblitenet((16 * s96, 32 * s96), s96)
        features = nn.Sequential(backbone, SSDExtras(backbone.channels, backbone.strides))
        return ssd(classes, features, tensorflow_ssd(size), size, "1x1", candidates)
    if neck not in PYRAMIDS:
        raise ValueError(f"neck: expected ssd, {' or '.join(PYRAMIDS)}, got {neck!r}")
    backbone = mblitenet((8, 16, 32, 64)[: 2 + s96], s96)
    missing = PYRAMID_EXTRAS[s96 - 1 :]
    extras = SSDExtras(backbone.channels, backbone.strides, missing, depthwise=True)
    features = nn.Sequential(backbone, extras, PYRAMIDS[neck](extras.channels, extras.strides))
    return ssd(classes, features, pyramid_layout(size), size, "3x3", candidates)


# -- SSD and SSDLite of TensorFlow's object detection API --------------------------------------------------------------
BACKBONES: Mapping[str, Callable[[], nn.Module]] = {
    "mobilenet-v1": partial(MobileNetV1, (16, 32)),
    "mobilenet-v2": partial(mobilenet_v2, (16, 32), expansion=True),
    "mobilenet-v3-large": partial(mobilenet_v3_large, (16, 32), expansion=True),
}


def mobilenet_ssd(
    classes: int,
    backbone: str = "mobilenet-v2",
    lite: bool = False,
    predictor: str | None = None,
    reduce_lowest: bool = True,
    size: Size | None = None,
    candidates: int | None = None,
) -> SSD:
    """SSD300 (lite=False) and SSDLite320 on a MobileNet, with 1917 boxes at 300x300.

    SSD300 with 1x1 predictors is the row of Lightweight SSD's table 5, and of MobileNet's table 13. SSDLite
    (Sandler et al. 2018, section 6.2) is RefineDetLite's table 2: extras and predictors are depthwise separable.
    predictor: one of PREDICTORS; None: "1x1" for SSD300, "ssdlite" for SSDLite
    reduce_lowest: three boxes instead of six at a cell of the finest map
    size: None: 300x300, or 320x320 for SSDLite
    """
    size = size or ((320, 320) if lite else (300, 300))
    if backbone not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
    body = BACKBONES[backbone]()
    activation = relu6 if lite else relu_inplace
    extras = SSDExtras(body.channels, body.strides, TENSORFLOW_EXTRAS, lite, activation)  # type: ignore[arg-type]
    layout = tensorflow_ssd(size, reduce_lowest=reduce_lowest)
    chosen = predictor or ("ssdlite" if lite else "1x1")
    return ssd(classes, nn.Sequential(body, extras), layout, size, chosen, candidates)


def mobilenet_fpn(classes: int, size: Size = (300, 300), candidates: int | None = None) -> SSD:
    """MobileNetV2 with a classical FPN: "Mobilenet v2 + FPN" of Lightweight SSD's tables 3, 5 and 6.

    The paper gives no structure. This reading meets its 6.6 M parameters: Lin et al.'s pyramid of 256 channels on the
    block outputs of 32, 96 and 320 channels, levels 6 and 7 subsampled, and the predictors of MBlitenet + FPN.
    """
    backbone = mobilenet_v2(last=None)
    pyramid = FPN(backbone.channels, backbone.strides, dense=True, subsampled=2)
    return ssd(classes, nn.Sequential(backbone, pyramid), pyramid_layout(size), size, "3x3", candidates)


def fpnlite(
    classes: int,
    width: int = 128,
    size: Size = (320, 320),
    candidates: int | None = None,
) -> SSD:
    """FPNLite on MobileNetV2 (RefineDetLite's table 2, from NAS-FPN): a separable RetinaNet with sigmoid scores.

    width: of the pyramid and of the shared predictor, 64 or 128 in the tables
    The structure is TensorFlow's ``ssd_mobilenet_v2_fpnlite`` configuration: levels 3 to 7, six boxes a cell.
    """
    backbone = mobilenet_v2()
    pyramid = FPNLite(backbone.channels, backbone.strides, width)
    features = nn.Sequential(backbone, pyramid)
    layout = octaves(pyramid.strides)
    anchors = anchors_on(layout, map_shapes(features, size), size)
    head = SharedSSDHead(width, len(layout), len(layout[0].sizes), classes, anchors)
    return SSD(features, head, "sigmoid", candidates)


# -- Pelee and Tiny-DSOD ----------------------------------------------------------------------------------------------
def pelee(classes: int, size: Size = (304, 304), candidates: int | None = None) -> SSD:
    """Pelee (Wang, Li and Ling 2018, section 3): PeleeNet, residual prediction blocks, 1x1 predictors, six boxes."""
    backbone = PeleeNet("relu")
    # Caffe rounds the size of a pooled map up: 19 -> 10, as the paper's feature maps have it.
    backbone.pool = nn.AvgPool2d(2, ceil_mode=True, count_include_pad=False)
    features = nn.Sequential(backbone, PeleeNeck(backbone.channels, backbone.strides))
    return ssd(classes, features, pelee_layout(size), size, "1x1", candidates)


def tiny_dsod(classes: int, pointwise: int = 1, size: Size = (300, 300), candidates: int | None = None) -> SSD:
    """Tiny-DSOD (Li et al. 2018): DDB-Net, D-FPN and SSD300's boxes, as the authors' script builds it.

    pointwise: see DFPN; the script has 1, the paper's 0.95 M parameters on VOC come out with 2
    """
    backbone = DDBNet()
    features = nn.Sequential(backbone, DFPN(backbone.channels, backbone.strides, pointwise))
    layout = ssd_paper(min(size), SSD300_SCALES, SSD300_RATIOS, (None,) * 6)
    return ssd(classes, features, layout, size, "depthwise-last", candidates)
