"""The shape of most backbones: a stem, and stages of falling resolution."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn


class StagedBackbone(nn.Module):
    """A map is taken after every stage whose stride is wanted; stages beyond the coarsest one are left out.

    stages: one module per entry of ``strides``;  widths, strides: channels and stride behind each of them
    levels: strides of the maps, in the order in which they leave the network
    Raises ValueError for levels that the network does not have.
    """

    def __init__(
        self,
        stem: nn.Module,
        stages: Sequence[nn.Module],
        widths: Sequence[int],
        strides: Sequence[int],
        levels: Sequence[int],
    ) -> None:
        super().__init__()
        if not levels or not set(levels) <= set(strides):
            raise ValueError(f"levels: expected some of {', '.join(map(str, strides))}, got {list(levels)}")
        self.stem = stem
        self.stages = nn.ModuleList(stages[: 1 + max(strides.index(level) for level in levels)])
        self._kept = tuple(strides.index(level) for level in levels)
        self.channels = tuple(widths[i] for i in self._kept)
        self.strides = tuple(levels)

    def forward(self, image: Tensor) -> tuple[Tensor, ...]:
        """image [N, 3, H, W] -> a map [N, channels[i], H / strides[i], W / strides[i]] per level, sizes rounded up."""
        x = self.stem(image)
        maps = []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps[i] for i in self._kept)
