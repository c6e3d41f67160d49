"""CenterNet (Zhou et al. 2019): a heat map of centres on any network that gives one map at stride 4."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial

from torch import Tensor, nn

from .backbones.dla import dla34
from .backbones.resnet import resnet
from .deformable import LOWERINGS, DeformableConv, lowering_named
from .detector import Detector
from .heads.centernet import CenterMaps, CenterNetHead, decode
from .necks.deconv import Conv3x3, DeconvNeck, DLAUp, conv_kind


class CenterNet(Detector):
    """features: image -> one map, with ``out_channels`` and ``stride``;  head_filters: 64 with most backbones."""

    task = "center"
    nms = "none"
    float_modules = ("head.heatmap.2", "head.size.2", "head.offset.2")

    def __init__(self, features: nn.Module, classes: int, head_filters: int = 64) -> None:
        super().__init__()
        self.backbone = features
        self.head = CenterNetHead(features.out_channels, head_filters, classes)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> CenterMaps:
        return self.head(self.backbone(image))

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        return decode(self(image), self.backbone.stride, top_k)  # type: ignore[arg-type]


class Upsampled(nn.Sequential):
    """A backbone, and the neck that brings its maps to stride 4."""

    def __init__(self, backbone: nn.Module, neck: DeconvNeck | DLAUp) -> None:
        super().__init__(backbone, neck)
        self.out_channels, self.stride = neck.out_channels, neck.stride


def _resnet(depth: int, conv: Conv3x3) -> Upsampled:
    body = resnet(depth, levels=(32,))
    return Upsampled(body, DeconvNeck(body.channels[-1], body.strides[-1], conv))


def _dla(conv: Conv3x3) -> Upsampled:
    body = dla34()
    return Upsampled(body, DLAUp(body.channels, body.strides, conv))


BODIES: Mapping[str, Callable[[Conv3x3], Upsampled]] = {
    **{f"resnet-{depth}": partial(_resnet, depth) for depth in (18, 34, 50, 101, 152)},
    "dla-34": _dla,
}


def centernet(
    classes: int,
    backbone: str = "resnet-18",
    deformable: bool = True,
    lowering: str = "gather",
    head_filters: int = 64,
) -> CenterNet:
    """The baselines of Mobile CenterNet's table 2. backbone: one of BODIES.

    deformable: the neck's 3x3s; False makes them ordinary, for boards without an operator for deformable convolution
    lowering: of the deformable ones, see ``edgekit.models.deformable``
    """
    if backbone not in BODIES:
        raise ValueError(f"backbone: expected one of {', '.join(BODIES)}, got {backbone!r}")
    conv = conv_kind(deformable, lowering_named(lowering))
    detector = CenterNet(BODIES[backbone](conv), classes, head_filters)
    if deformable:
        detector.opset = LOWERINGS[lowering]
        moved = [name for name, module in detector.named_modules() if isinstance(module, DeformableConv)]
        detector.float_modules = (*detector.float_modules, *moved)  # positions are no activations
    return detector
