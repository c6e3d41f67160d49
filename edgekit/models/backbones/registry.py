"""Backbones that a recipe may name: a plain list, one line each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from torch import nn

from ..options import keywords
from . import (
    cspnet,
    cspresnet,
    darknet,
    densenet,
    dla,
    mblitenet,
    mobilenet,
    peleenet,
    res2netlite,
    resnet,
    shufflenet,
    snet,
    tinydsod,
    vgg,
)

BACKBONES: Mapping[str, Callable[..., nn.Module]] = {
    "peleenet": peleenet.PeleeNet,
    "csppeleenet": cspnet.csp_peleenet,
    "csppeleenet-reference": cspnet.csp_peleenet_reference,
    "cspdensenet-reference": cspnet.csp_densenet_reference,
    "resnet": resnet.resnet,
    "resnext": resnet.resnext,
    "res2netlite": res2netlite.res2netlite,
    "vgg-16": vgg.ReducedVGG16,
    "dla-34": dla.dla34,
    "resnet-10": cspresnet.ResNet10,
    "cspresnet-10": cspresnet.CSPResNet10,
    "cspresnext-50": cspresnet.CSPResNeXt50,
    "darknet-53": darknet.Darknet53,
    "darknet-tiny": darknet.DarknetTiny,
    "mblitenet": mblitenet.mblitenet,
    "mobilenet-v1": mobilenet.MobileNetV1,
    "mobilenet-v2": mobilenet.mobilenet_v2,
    "mobilenet-v3-large": mobilenet.mobilenet_v3_large,
    "shufflenet-v2": shufflenet.shufflenet_v2,
    "snet": snet.snet,
    "ddb-net": tinydsod.DDBNet,
    # normalisation before convolution: classifiers, not for export
    "densenet-201-elastic": densenet.densenet_201_elastic,
    "cspdensenet-201-elastic": densenet.csp_densenet_201_elastic,
}


def build_backbone(name: str, options: Mapping[str, Any] | None = None) -> nn.Module:
    """Raises ValueError for a wrong name, and for an option that the backbone does not have."""
    if name not in BACKBONES:
        raise ValueError(f"backbone: expected one of {', '.join(BACKBONES)}, got {name!r}")
    return BACKBONES[name](**keywords(name, BACKBONES[name], options))
