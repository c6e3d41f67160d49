"""Mobile CenterNet: HRNet and a CenterNet head (Yu et al., ICME 2020)."""

from __future__ import annotations

from torch import Tensor

from .backbones.hrnet import HRNET_W16, HRNET_W32, HRNet, HRNetConfig
from .detector import Detector
from .heads.centernet import CenterMaps, CenterNetHead, decode

BACKBONES: dict[str, HRNetConfig] = {"hrnet-w16": HRNET_W16, "hrnet-w32": HRNET_W32}


class MobileCenterNet(Detector):
    """backbone: "hrnet-w16" (student) or "hrnet-w32" (teacher); head_filters: 32 or 64 in the paper."""

    task = "center"
    nms = "none"
    float_modules = ("head.heatmap.2", "head.size.2", "head.offset.2")

    def __init__(self, classes: int, backbone: str = "hrnet-w16", head_filters: int = 32) -> None:
        super().__init__()
        if backbone not in BACKBONES:
            raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
        self.backbone = HRNet(BACKBONES[backbone])
        self.head = CenterNetHead(self.backbone.out_channels, head_filters, classes)

    def forward(self, image: Tensor) -> CenterMaps:
        return self.head(self.backbone(image))

    def detect(self, image: Tensor, top_k: int = 100) -> tuple[Tensor, Tensor]:
        return decode(self(image), self.backbone.stride, top_k)
