"""RefineDetLite's Light-head and its light feature fusion (Chen et al. 2019, section 3.3, fig. 3)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from torch import Tensor, nn
from torch.nn import functional as F

from ..backbones.res2netlite import GROUPS, downsample
from ..blocks import conv_bn


class LightHead(nn.Module):
    """Two ways, summed: a 1x1, and a bottleneck of 1x1, 3x3 and 1x1 (fig. 3a).

    The paper prints no widths; 128 inside and the 3x3 in two groups are a reading.
    """

    INNER = 128

    def __init__(self, cin: int, cout: int) -> None:
        super().__init__()
        self.direct = conv_bn(cin, cout, 1, relu=False)
        self.bottleneck = nn.Sequential(
            conv_bn(cin, self.INNER, 1),
            conv_bn(self.INNER, self.INNER, 3, groups=GROUPS),
            conv_bn(self.INNER, cout, 1, relu=False),
        )
        self.relu = nn.ReLU(inplace=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.relu(self.direct(x) + self.bottleneck(x))


def plain_head(cin: int, cout: int) -> nn.Module:
    """The 3x3 of table 3, rows (a) and (b), in place of a Light-head."""
    return conv_bn(cin, cout, 3)


HEADS: Mapping[str, Callable[[int, int], nn.Module]] = {"light": LightHead, "plain": plain_head}


class PerLevel(nn.Module):
    """A head of its own for every map."""

    def __init__(self, channels: Sequence[int], strides: Sequence[int], head: str = "light", width: int = 256) -> None:
        super().__init__()
        self.heads = nn.ModuleList(HEADS[head](cin, width) for cin in channels)
        self.channels = (width,) * len(channels)
        self.strides = tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        return tuple(head(x) for head, x in zip(self.heads, maps, strict=True))


class LightFusion(nn.Module):
    """Fig. 3b: Light-head, the sum with the coarser level's result through a 1x1, Light-head; from coarse to fine.

    The coarser map is enlarged bilinearly to the exact size: 3 -> 5 -> 10 -> 20.
    """

    def __init__(self, channels: Sequence[int], strides: Sequence[int], head: str = "light", width: int = 256) -> None:
        super().__init__()
        self.lateral = nn.ModuleList(HEADS[head](cin, width) for cin in channels)
        self.coarser = nn.ModuleList(conv_bn(width, width, 1, relu=False) for _ in channels[1:])
        self.output = nn.ModuleList(HEADS[head](width, width) for _ in channels)
        self.channels = (width,) * len(channels)
        self.strides = tuple(strides)

    def forward(self, maps: Sequence[Tensor]) -> tuple[Tensor, ...]:
        found: list[Tensor] = []
        for i in reversed(range(len(maps))):
            x = self.lateral[i](maps[i])
            if found:
                size = (int(x.shape[-2]), int(x.shape[-1]))
                x = x + F.interpolate(self.coarser[i](found[-1]), size=size, mode="bilinear", align_corners=False)
            found.append(self.output[i](x))
        return tuple(reversed(found))


def bottleneck_extra(cin: int, width: int) -> nn.Module:
    """One of the two extra bottlenecks to 512 channels (section 3.2); a quarter of that inside is a reading."""
    return downsample(cin, width // 4, width)
