"""A backbone with ImageNet's tail, for the counts of the papers' classification tables."""

from __future__ import annotations

from torch import Tensor, nn


class Classifier(nn.Module):
    """Image [N, 3, H, W] -> logits [N, classes]: the backbone's last map, its global mean, one linear layer."""

    def __init__(self, backbone: nn.Module, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(tuple(backbone.channels)[-1], classes)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.pool(self.backbone(image)[-1]).flatten(1))
