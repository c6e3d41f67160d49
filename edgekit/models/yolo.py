"""One-stage detectors of the YOLO family: a backbone, a neck and the YOLOv3 head, each one a free choice.

YOLOv3 and YOLOv3-tiny (Redmon and Farhadi 2018), YOLOv3-tiny-PRN (Wang et al. 2019) and the detectors of CSPNet
(Wang et al. 2020, tables 2 and 4) are combinations; the recipes name them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from .backbones.registry import build_backbone
from .detector import Detector
from .heads.yolo import YOLOHead, YOLOMaps, anchor_set
from .necks.efm import CEM, EFM, GFM
from .necks.panet import PANet
from .necks.prn import PRN
from .necks.yolo import YOLOv3Neck, YOLOv3TinyNeck
from .options import keywords

STRIDES = (8, 16, 32)
NECKS: Mapping[str, Callable[..., nn.Module]] = {
    "yolov3": YOLOv3Neck,
    "yolov3-tiny": YOLOv3TinyNeck,
    "prn": PRN,
    "efm": EFM,
    "gfm": GFM,
    "cem": CEM,
    "panet": PANet,
}


class YOLO(Detector):
    """Any backbone of the registry with maps at strides 8, 16 and 32, any neck of NECKS, and a YOLOv3 head.

    backbone_options, neck_options: keyword arguments of the two, such as ``{gamma: 0.25}`` or ``{sam: true}``
    anchors: a name in heads/yolo.py or ``{boxes, masks}``; None: YOLOv3's for three scales, YOLOv3-tiny's for two
    scale_x_y: one number or one per scale, high resolution first, see YOLOHead
    candidates: how many anchors, best first, leave the graph for NMS on the host; None: all of them
    Width and height of the input must be divisible by 32; anchors are in its pixels.
    """

    task = "yolo"
    nms = "classwise"
    float_modules = ("head.predictors",)

    def __init__(
        self,
        classes: int,
        backbone: str = "darknet-53",
        neck: str = "yolov3",
        backbone_options: Mapping[str, Any] | None = None,
        neck_options: Mapping[str, Any] | None = None,
        anchors: str | Mapping[str, Any] | None = None,
        scale_x_y: float | Sequence[float] = 1.0,
        candidates: int | None = None,
    ) -> None:
        super().__init__()
        if neck not in NECKS:
            raise ValueError(f"neck: expected one of {', '.join(NECKS)}, got {neck!r}")
        body = build_backbone(backbone, backbone_options)
        if tuple(body.strides) != STRIDES:  # type: ignore[arg-type]
            raise ValueError(f"backbone: needs maps at strides 8, 16 and 32, {backbone} gives {body.strides}")
        self.backbone = body
        self.neck = NECKS[neck](body.channels, **keywords(neck, NECKS[neck], neck_options, ["channels"]))
        widths: tuple[int, ...] = self.neck.channels  # type: ignore[assignment]
        strides: tuple[int, ...] = self.neck.strides  # type: ignore[assignment]
        chosen = anchor_set(anchors or ("yolov3" if len(widths) == 3 else "yolov3-tiny"))
        scales = [float(scale_x_y)] * len(widths) if isinstance(scale_x_y, (int, float)) else list(scale_x_y)
        self.head = YOLOHead(widths, strides, classes, chosen, scales)
        self.candidates = candidates

    def forward(self, image: Tensor) -> YOLOMaps:
        return self.head(self.neck(self.backbone(image)))

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        """Boxes and scores of all anchors; of the best max(candidates, top_k) ones where ``candidates`` is set."""
        kept = None if self.candidates is None else max(self.candidates, top_k)
        return self.head.decode(self(image), kept)
