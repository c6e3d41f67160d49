"""Mobile CenterNet: HRNet and a CenterNet head (Yu et al., ICME 2020)."""

from __future__ import annotations

from .backbones.hrnet import HRNET_W16, HRNET_W16_SLIM, HRNET_W32, HRNet, HRNetConfig
from .centernet import CenterNet

BACKBONES: dict[str, HRNetConfig] = {
    "hrnet-w16": HRNET_W16,
    "hrnet-w32": HRNET_W32,
    "hrnet-w16-slim": HRNET_W16_SLIM,
}


class MobileCenterNet(CenterNet):
    """backbone: "hrnet-w16" (student), "hrnet-w32" (teacher) or our "hrnet-w16-slim"; head_filters: 32 or 64."""

    def __init__(self, classes: int, backbone: str = "hrnet-w16", head_filters: int = 32) -> None:
        if backbone not in BACKBONES:
            raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {backbone!r}")
        super().__init__(HRNet(BACKBONES[backbone]), classes, head_filters)
