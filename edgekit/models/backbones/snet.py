"""SNet, the backbone of ThunderNet (Qin et al. 2019, section 3.1): ShuffleNetV2 with 5x5 depthwise convolutions."""

from __future__ import annotations

from collections.abc import Sequence

from .shufflenet import REPEATS, ShuffleNetV2

# Table 1: only SNet49 keeps the last 1x1, and half of it; the others are wider early instead.
WIDTHS: dict[int, tuple[int, ...]] = {
    49: (24, 60, 120, 240, 512),
    146: (24, 132, 264, 528),
    535: (48, 248, 496, 992),
}


def snet(version: int = 49, levels: Sequence[int] = (8, 16, 32), repeats: Sequence[int] | None = None) -> ShuffleNetV2:
    """version: 49, 146 or 535, about the millions of MACs at 224x224.  levels: strides out of 8, 16, 32 (C4: 16).

    repeats: units of the three stages; None: 4, 8, 4 as in ShuffleNetV2
    """
    if version not in WIDTHS:
        raise ValueError(f"snet_version: expected one of {', '.join(map(str, WIDTHS))}, got {version!r}")
    return ShuffleNetV2(WIDTHS[version], 5, levels, repeats or REPEATS)
