"""A backbone with ImageNet's tail, for the counts of the papers' classification tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from .backbones.registry import build_backbone


class Classifier(nn.Module):
    """Image [N, 3, H, W] -> logits [N, classes]: the backbone's last map, its global mean, one linear layer."""

    def __init__(self, backbone: nn.Module, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(tuple(backbone.channels)[-1], classes)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.pool(self.backbone(image)[-1]).flatten(1))


def classifier(classes: int, backbone: str, backbone_options: Mapping[str, Any] | None = None) -> Classifier:
    """A classifier on a backbone of the registry. Raises ValueError or TypeError for a wrong name or option."""
    return Classifier(build_backbone(backbone, backbone_options), classes)
