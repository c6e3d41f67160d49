"""VGG-16 (Simonyan and Zisserman 2015), reduced for detection as in SSD and RefineDet."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..blocks import L2Norm, xavier

# Configuration D: width and number of 3x3 convolutions of conv1 to conv5.
GROUPS = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))
PIXELS = 58.0  # deviation of ImageNet's pixels, 0..255: of this size is an image of which only the mean was taken away


def conv_relu(cin: int, cout: int, kernel: int, stride: int = 1, dilation: int = 1) -> list[nn.Module]:
    """A convolution with bias, and ReLU."""
    padding = dilation * (kernel // 2)
    return [nn.Conv2d(cin, cout, kernel, stride, padding, dilation), nn.ReLU(inplace=True)]


class ReducedVGG16(nn.Module):
    """Image -> conv4_3, conv5_3, conv_fc7 and conv6_2 at strides 8, 16, 32 and 64 (RefineDet++, section IV-B).

    fc6 and fc7 are a dilated 3x3 and a 1x1 (DeepLab-LargeFOV); conv4_3 and conv5_3 are normalised to 10 and 8. Pool 5
    halves the map, unlike SSD's. levels: 4, or 5 with one more pair of 1x1 and strided 3x3.
    Without normalisation a network lives by its first weights: here maps of the size 1 for images of Caffe's scale, the
    mean taken away and nothing else (He et al. 2015, eq. 10), and "xavier" for the new layers (section IV-G).
    """

    added = ("normalise.", "extras.")  # layers that no classifier has

    def __init__(self, levels: int = 4) -> None:
        super().__init__()
        groups = []
        cin = 3
        for width, count in GROUPS:
            layers: list[nn.Module] = []
            for _ in range(count):
                layers += conv_relu(cin, width, 3)
                cin = width
            groups.append(nn.Sequential(*layers))
        self.groups = nn.ModuleList(groups)
        self.pool = nn.MaxPool2d(2, 2, ceil_mode=True)
        self.normalise = nn.ModuleList([L2Norm(512, 10.0), L2Norm(512, 8.0)])
        self.fc = nn.Sequential(*conv_relu(512, 1024, 3, dilation=3), *conv_relu(1024, 1024, 1))
        self.extras = nn.ModuleList(
            nn.Sequential(*conv_relu(1024 if i == 0 else 512, 256, 1), *conv_relu(256, 512, 3, 2))
            for i in range(levels - 3)
        )
        self._begin()
        self.channels = (512, 512, 1024) + (512,) * (levels - 3)
        self.strides = tuple(8 * 2**i for i in range(levels))

    def _begin(self) -> None:
        for part in (*self.groups, self.fc):
            for layer in part.modules():
                if isinstance(layer, nn.Conv2d):
                    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
                    nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
        with torch.no_grad():
            self.groups[0][0].weight /= PIXELS  # type: ignore[index]
        xavier(self.extras)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        x, found = image, []
        for i, group in enumerate(self.groups):
            x = group(x if i == 0 else self.pool(x))
            if i >= 3:
                found.append(self.normalise[i - 3](x))
        found.append(self.fc(self.pool(x)))
        for extra in self.extras:
            found.append(extra(found[-1]))
        return tuple(found)
