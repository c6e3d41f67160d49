"""What every detector of the zoo is to the rest of EdgeKit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn


class Detector(nn.Module):
    """A network with two faces.

    ``forward(image [N, 3, H, W])`` gives the raw maps that the losses need.
    ``detect(image, top_k)`` gives the output contract: boxes [N, A, 4] (xyxy, input pixels) and scores [N, A, C]
    (foreground probabilities), decoded with operators of opset 13 that TensorRT 8.2 accepts.

    task: how it is trained, a name in ``training.tasks.TASKS``; "" where that is not built
    nms: what the host does with the boxes: "none" for peak-based heads, "classwise" for anchor heads
    float_modules: name prefixes of the layers that quantization leaves in float by default
    opset: the lowest that the graph can be written in
    """

    task = ""
    nms = "none"
    float_modules: tuple[str, ...] = ()
    opset = 11

    def detect(self, image: Tensor, top_k: int) -> tuple[Tensor, Tensor]:
        raise TypeError(f"{type(self).__name__} does not define detect()")

    def raw(self, image: Tensor) -> Any:
        return self(image)


def host_postprocess(model: Detector, recipe: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of ``runtime.Postprocess`` for a network of a resolved recipe: its wishes, else ``nms``.

    Where several pixels of an object learn to find it (``loss.aligned``), peaks of a heat map are no longer one each.
    """
    wishes = {key: value for key, value in (recipe.get("postprocess") or {}).items() if value is not None}
    several = model.task == "center" and (recipe.get("loss") or {}).get("aligned") is not None
    return {
        "nms": "classwise" if several else model.nms,
        "top_k": int(recipe.get("export", {}).get("top_k", 100)),
        **wishes,
    }
