"""A backbone with ImageNet's tail, for the counts of the papers' classification tables."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from torch import Tensor, nn

from .backbones import cspnet, cspresnet, darknet, densenet, peleenet

# Backbone -> builder; the rows of CSPNet's table 3.
BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    "peleenet": peleenet.PeleeNet,
    "csppeleenet": cspnet.csp_peleenet,
    "csppeleenet-reference": cspnet.csp_peleenet_reference,
    "cspdensenet-reference": cspnet.csp_densenet_reference,
    "resnet-10": cspresnet.ResNet10,
    "cspresnet-10": cspresnet.CSPResNet10,
    "cspresnext-50": cspresnet.CSPResNeXt50,
    "densenet-201-elastic": densenet.densenet_201_elastic,
    "cspdensenet-201-elastic": densenet.csp_densenet_201_elastic,
    "darknet-53": darknet.Darknet53,
}


class Classifier(nn.Module):
    """Image [N, 3, H, W] -> logits [N, classes]: the backbone's last map, its global mean, one linear layer."""

    def __init__(self, backbone: nn.Module, classes: int = 1000) -> None:
        super().__init__()
        self.backbone = backbone
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(tuple(backbone.channels)[-1], classes)  # type: ignore[arg-type]

    def forward(self, image: Tensor) -> Tensor:
        return self.output(self.pool(self.backbone(image)[-1]).flatten(1))
