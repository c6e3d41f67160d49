"""RefineDet, RefineDet++ and RefineDetLite: single-shot detectors that look twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

from torch import Tensor, nn

from .anchors import RefineMaps
from .backbones.registry import build_backbone
from .backbones.res2netlite import res2netlite
from .backbones.vgg import ReducedVGG16
from .blocks import xavier
from .deformable import LOWERINGS
from .detector import Detector
from .heads.refine import THETA, AlignODM, PlainODM, decode_refine_maps
from .heads.ssd import SSDHead, dense, pointwise
from .layouts import AnchorLevel, Layout, Size, anchors_on, map_shapes, ratio_box
from .necks.light import HEADS, LightFusion, PerLevel, bottleneck_extra
from .necks.tcb import EXTRA_WIDTH, TCB_WIDTH, Extras, TransferConnection, conv_extra, residual_extra
from .ssd import SSD

RATIOS = (1.0, 2.0, 0.5)


class RefineDet(Detector):
    """Anchor refinement, feature transfer, and detection on the refined anchors (RefineDet++, fig. 1).

    sources: image -> the maps that both steps share;  arm_neck: what the first step's predictors read of them
    arm: the anchor refinement module, a head of one class;  transfer: the maps of the second step
    odm: object or alignment detection module;  theta: background above which an anchor is filtered; 1: none is
    candidates: how many anchors, best first, leave the graph for NMS on the host; None: all of them
    steps: of the regression, 2 or 1, see ``second_anchors``
    """

    task = "refine"
    nms = "classwise"
    float_modules = ("arm", "odm")

    def __init__(
        self,
        sources: nn.Module,
        arm_neck: nn.Module,
        arm: SSDHead,
        transfer: nn.Module,
        odm: PlainODM | AlignODM,
        theta: float = THETA,
        candidates: int | None = None,
        steps: int = 2,
    ) -> None:
        super().__init__()
        if not 0 < theta <= 1:
            raise ValueError(f"theta: expected a probability above 0, got {theta}")
        if steps not in (1, 2):
            raise ValueError(f"steps: expected 1 or 2, got {steps!r}")
        if steps == 1 and isinstance(odm, AlignODM):
            raise ValueError("align: it follows the refined anchors, which steps: 1 does not use; leave one out")
        self.sources = sources
        self.arm_neck = arm_neck
        self.arm = arm
        self.transfer = transfer
        self.odm = odm
        self.theta = theta
        self.candidates = candidates
        self.steps = steps
        if isinstance(odm, AlignODM):
            self.opset = LOWERINGS[odm.lowering]

    def forward(self, image: Tensor) -> RefineMaps:
        sources = self.sources(image)
        first = self.arm(self.arm_neck(sources))
        maps = self.transfer(sources)
        second = self.odm(maps, first)
        return RefineMaps(
            first.location, first.confidence, second.location, second.confidence, first.anchors, tuple(maps)
        )

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all anchors; of the best max(candidates, top_k) ones where ``candidates`` is set."""
        kept = None if self.candidates is None else max(self.candidates, top_k)
        return decode_refine_maps(self(image), kept, self.theta, self.steps)


def refine_layout(strides: Sequence[int], ratios: Sequence[float] = RATIOS) -> Layout:
    """One scale per level, four strides, and three ratios (RefineDet++, section IV-C)."""
    return tuple(AnchorLevel(tuple(ratio_box(4 * s, ratio) for ratio in ratios), s) for s in strides)


# -- RefineDet and RefineDet++ ----------------------------------------------------------------------------------------
class Body(NamedTuple):
    """build: levels -> backbone;  extra: layer of a further map, see ``Extras``; None: the backbone makes it itself"""

    build: Callable[[int], nn.Module]
    extra: Callable[[int, int], nn.Module] | None = None


def _body(name: str, extra: Callable[[int, int], nn.Module], **options: Any) -> Body:
    return Body(lambda levels: build_backbone(name, {"levels": (8, 16, 32), **options}), extra)


BODIES: Mapping[str, Body] = {
    "vgg-16": Body(ReducedVGG16),
    **{f"resnet-{depth}": _body("resnet", residual_extra, depth=depth) for depth in (18, 34, 50, 101, 152)},
    **{f"resnext-{depth}": _body("resnext", residual_extra, depth=depth) for depth in (50, 101, 152)},
    **{
        name: _body(name, conv_extra)
        for name in ("mobilenet-v1", "mobilenet-v2", "mobilenet-v3-large", "shufflenet-v2")
    },
    "cspdensenetb-reference": Body(lambda levels: build_backbone("cspdensenet-reference", {"b": True}), conv_extra),
}


def refinedet(
    classes: int,
    backbone: str = "vgg-16",
    align: int | None = None,
    lowering: str = "gather",
    levels: int = 4,
    theta: float = THETA,
    size: Size = (320, 320),
    candidates: int | None = None,
    steps: int = 2,
    tcb: bool = True,
    tcb_width: int = TCB_WIDTH,
    extra_width: int = EXTRA_WIDTH,
) -> RefineDet | SSD:
    """RefineDet (Zhang et al. 2018), and with ``align`` RefineDet++ (Zhang et al. 2021).

    backbone: one of BODIES;  align: kernel of the AlignConv (3 in the paper; 5 and 7 in table III), None: plain 3x3
    lowering: of the AlignConv, see ``edgekit.models.deformable``;  theta: see RefineDet
    levels: 4, strides 8 to 64, or 5 with stride 128 (1024 pixels, table V)
    Table II, from right to left: ``tcb: false``, ``steps: 1, theta: 1``, ``theta: 1``, the default, ``align: 3``.
    tcb: false: no second step; the first finds the classes itself, an SSD whose maps and anchors are RefineDet's
    tcb_width: channels of the maps that the second step reads; most of a compact network's parameters lie there
    extra_width: channels of every map beyond the backbone's, a multiple of 4; VGG-16's last one is its own
    """
    if backbone not in BODIES:
        raise ValueError(f"backbone: expected one of {', '.join(BODIES)}, got {backbone!r}")
    if levels not in (4, 5):
        raise ValueError(f"levels: expected 4 or 5, got {levels!r}")
    if extra_width < 4 or extra_width % 4:
        raise ValueError(f"extra_width: expected a multiple of 4, got {extra_width}")
    body: Any = BODIES[backbone].build(levels)
    extra = BODIES[backbone].extra
    if extra is None and extra_width != EXTRA_WIDTH:
        raise ValueError(f"extra_width: {backbone} makes all of its maps itself; leave it out")
    last = body if extra is None else Extras(body.channels, body.strides, extra, levels - 3, extra_width)
    sources = body if extra is None else nn.Sequential(body, last)
    layout = refine_layout(last.strides)
    anchors = anchors_on(layout, map_shapes(sources, size), size)
    boxes = [len(level.sizes) for level in layout]
    if not tcb:
        if align is not None:
            raise ValueError("align: it belongs to the second step, which tcb: false leaves out; leave one out")
        if tcb_width != TCB_WIDTH:
            raise ValueError("tcb_width: of the transfer blocks, which tcb: false leaves out; leave one out")
        head = SSDHead(last.channels, boxes, classes, dense, anchors)
        return _begun(SSD(sources, head, candidates=candidates), backbone, "head")
    transfer = TransferConnection(last.channels, last.strides, tcb_width)
    arm = SSDHead(last.channels, boxes, 1, dense, anchors)
    odm: PlainODM | AlignODM = (
        PlainODM(transfer.channels, boxes, classes, dense, anchors)
        if align is None
        else AlignODM(transfer.channels, boxes, classes, transfer.strides, anchors, align, lowering)
    )
    detector = RefineDet(sources, nn.Identity(), arm, transfer, odm, theta, candidates, steps)
    return _begun(detector, backbone, "arm", "transfer", "odm")


Begun = TypeVar("Begun", bound=nn.Module)


def _begun(detector: Begun, backbone: str, *parts: str) -> Begun:
    """What VGG-16, which has no normalisation, is not born with begins by "xavier" (RefineDet++, section IV-G)."""
    for part in parts if backbone == "vgg-16" else ():
        xavier(detector.get_submodule(part))
    return detector


# -- RefineDetLite ----------------------------------------------------------------------------------------------------
LITE_SCALES = (32, 64, 128, 256)


def refinedet_lite(
    classes: int,
    width: int = 72,
    res2_mid_ratio: float = 1.0,
    block: str = "res2",
    head: str = "light",
    ratios: Sequence[float] = RATIOS,
    theta: float = THETA,
    size: Size = (320, 320),
    candidates: int | None = None,
) -> RefineDet:
    """RefineDetLite (Chen et al. 2019, fig. 1); RefineDetLite++ is the same network, trained otherwise.

    width, res2_mid_ratio, block: of the backbone, see ``res2netlite``;  head: "light" or "plain" (3x3)
    Table 3: row (a) is ``block: res, head: plain``, row (b) ``head: plain``, row (c) the default.
    ratios: of the anchors, width to height; the paper does not give them, RefineDet's three are taken
    """
    if head not in HEADS:
        raise ValueError(f"head: expected one of {', '.join(HEADS)}, got {head!r}")
    body = res2netlite(width, res2_mid_ratio, block)
    extras = Extras(body.channels, body.strides, bottleneck_extra, 2)
    sources = nn.Sequential(body, extras)
    layout = tuple(AnchorLevel(tuple(ratio_box(scale, ratio) for ratio in ratios)) for scale in LITE_SCALES)
    anchors = anchors_on(layout, map_shapes(sources, size), size)
    arm_neck = PerLevel(extras.channels, extras.strides, head)
    transfer = LightFusion(extras.channels, extras.strides, head)
    boxes = [len(ratios)] * len(layout)
    arm = SSDHead(arm_neck.channels, boxes, 1, pointwise, anchors)
    odm = PlainODM(transfer.channels, boxes, classes, pointwise, anchors)
    return RefineDet(sources, arm_neck, arm, transfer, odm, theta, candidates)
