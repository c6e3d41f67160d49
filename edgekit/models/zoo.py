"""The zoo: a plain list of names. Adding a detector is one line here."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from ..runtime.errors import BadConfig
from .centernet import centernet
from .detector import Detector
from .mobile_centernet import MobileCenterNet
from .options import keywords
from .refinedet import refinedet, refinedet_lite
from .ssd import any_ssd, fpnlite, lightweight_ssd, mobilenet_fpn, mobilenet_ssd, pelee, tiny_dsod
from .thundernet import ThunderNet
from .yolo import YOLO

DETECTORS: dict[str, Callable[..., Detector]] = {
    "mobile-centernet": MobileCenterNet,
    "centernet": centernet,
    "refinedet": refinedet,
    "refinedet-lite": refinedet_lite,
    "ssd": any_ssd,
    "lightweight-ssd": lightweight_ssd,
    "mobilenet-ssd": mobilenet_ssd,
    "mobilenet-fpn": mobilenet_fpn,
    "fpnlite": fpnlite,
    "pelee": pelee,
    "tiny-dsod": tiny_dsod,
    "thundernet": ThunderNet,
    "yolo": YOLO,
}


def build(
    name: str, classes: int, options: Mapping[str, Any] | None = None, size: tuple[int, int] | None = None
) -> Detector:
    """Make a detector for ``classes`` foreground classes. Raises BadConfig for a wrong name or option.

    size: width and height of the input, as in a recipe's preprocess; builders whose anchors depend on it take it from
        here, and an option ``size`` that says otherwise is an error
    """
    if name not in DETECTORS:
        raise BadConfig(f"model.name: no detector {name!r}; there are: {', '.join(DETECTORS)}")
    builder = DETECTORS[name]
    try:
        given = keywords(name, builder, options, ["classes"])
        if size is not None and bound_to_size(name):
            if given.get("size", size) not in (size, list(size)):
                raise ValueError(f"size {given['size']} is not preprocess.size {list(size)}; leave it out")
            given["size"] = size
        return builder(classes, **given)
    except (TypeError, ValueError) as error:
        raise BadConfig(f"model.options: {error}") from error


def bound_to_size(name: str) -> bool:
    """Whether a detector's anchors are made for one input size; the others take any."""
    return "size" in inspect.signature(DETECTORS[name]).parameters
