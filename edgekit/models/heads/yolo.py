"""The YOLOv3 head (Redmon and Farhadi 2018, section 2.1): anchors at every cell, one 1x1 predictor per scale."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from .anchor import pick, strongest


@dataclass(frozen=True)
class AnchorSet:
    """boxes: (width, height) in pixels of the network input, for whatever input size
    masks: for each scale, high resolution first, which of the boxes its cells predict
    """

    boxes: tuple[tuple[float, float], ...]
    masks: tuple[tuple[int, ...], ...]

    def __post_init__(self) -> None:
        wrong = [i for mask in self.masks for i in mask if not 0 <= i < len(self.boxes)]
        if wrong or not self.masks or len({len(mask) for mask in self.masks}) != 1:
            raise ValueError(
                f"anchors: masks must be equally long and name boxes 0..{len(self.boxes) - 1}: {self.masks}"
            )

    def level(self, index: int) -> tuple[tuple[float, float], ...]:
        return tuple(self.boxes[i] for i in self.masks[index])


YOLOV3_BOXES = ((10, 13), (16, 30), (33, 23), (30, 61), (62, 45), (59, 119), (116, 90), (156, 198), (373, 326))
TINY_BOXES = ((10, 14), (23, 27), (37, 58), (81, 82), (135, 169), (344, 319))
# k-means on COCO, from the published cfgs. The tiny networks leave box 0 out and give box 3 to both scales.
ANCHORS: Mapping[str, AnchorSet] = {
    "yolov3": AnchorSet(YOLOV3_BOXES, ((0, 1, 2), (3, 4, 5), (6, 7, 8))),
    "yolov3-tiny": AnchorSet(TINY_BOXES, ((1, 2, 3), (3, 4, 5))),
}


def anchor_set(value: str | Mapping[str, Any]) -> AnchorSet:
    """A named set, or ``{boxes: [[w, h], ...], masks: [[...], ...]}`` of a recipe. Raises ValueError."""
    if isinstance(value, str):
        if value not in ANCHORS:
            raise ValueError(f"anchors: expected one of {', '.join(ANCHORS)} or boxes and masks, got {value!r}")
        return ANCHORS[value]
    if set(value) != {"boxes", "masks"}:
        raise ValueError(f"anchors: expected boxes and masks, got {', '.join(value) or 'nothing'}")
    boxes = tuple((float(width), float(height)) for width, height in value["boxes"])
    return AnchorSet(boxes, tuple(tuple(int(i) for i in mask) for mask in value["masks"]))


class YOLOMaps(NamedTuple):
    """What the head predicts, before decoding; high resolution first.

    predictions: per scale [N, a * (5 + C), H, W]; of each of the cell's a anchors: x, y, log width, log height,
        objectness, and the C classes; all but width and height are logits
    features: the maps that the head reads; distillation compares them
    """

    predictions: tuple[Tensor, ...]
    features: tuple[Tensor, ...]


class YOLOHead(nn.Module):
    """Maps -> YOLOMaps.

    channels, strides: of the neck's maps;  anchors: one mask per map
    scale_x_y: per map, how far the centre may leave its cell: sigmoid * scale - (scale - 1) / 2 cells (Bochkovskiy's
        darknet); 1 keeps it inside
    """

    def __init__(
        self,
        channels: Sequence[int],
        strides: Sequence[int],
        classes: int,
        anchors: AnchorSet,
        scale_x_y: Sequence[float],
    ) -> None:
        super().__init__()
        if not len(channels) == len(anchors.masks) == len(scale_x_y):
            raise ValueError(
                f"anchors and scale_x_y: the neck gives {len(channels)} maps, there are "
                f"{len(anchors.masks)} masks and {len(scale_x_y)} scales"
            )
        self.classes = classes
        self.strides = tuple(strides)
        self.anchors = anchors
        self.scale_x_y = tuple(scale_x_y)
        outputs = len(anchors.masks[0]) * (5 + classes)
        self.predictors = nn.ModuleList(nn.Conv2d(width, outputs, 1) for width in channels)

    def forward(self, maps: tuple[Tensor, ...]) -> YOLOMaps:
        return YOLOMaps(tuple(predict(x) for predict, x in zip(self.predictors, maps, strict=True)), maps)

    def rows(self, maps: YOLOMaps) -> Tensor:
        """All predictions as [N, A, 5 + C]: scale by scale, cell by cell (row first), the cell's anchors together."""
        return torch.cat([self._rows(x) for x in maps.predictions], dim=1)

    def _rows(self, x: Tensor) -> Tensor:
        n, _, height, width = (int(v) for v in x.shape)
        boxes = len(self.anchors.masks[0])
        cells = x.reshape(n, boxes, 5 + self.classes, height * width).permute(0, 3, 1, 2)
        return cells.reshape(n, height * width * boxes, 5 + self.classes)

    def priors(self, maps: YOLOMaps) -> Tensor:
        """What the decode needs to know of each row of ``rows``, in pixels, [A, 5]: offset x, y and gain of the centre,
        width and height of the anchor. Made of plain numbers, so that it is one constant of an exported graph.
        """
        shapes = [(int(x.shape[2]), int(x.shape[3])) for x in maps.predictions]
        levels = [self._level_priors(level, *shape) for level, shape in enumerate(shapes)]
        return torch.from_numpy(np.concatenate(levels)).to(maps.predictions[0].device)

    def _level_priors(self, level: int, height: int, width: int) -> NDArray[np.float32]:
        stride, scale = self.strides[level], self.scale_x_y[level]
        anchors = np.array(self.anchors.level(level))
        priors = np.empty((height, width, len(anchors), 5), np.float32)
        priors[..., 0] = (np.arange(width)[None, :, None] - (scale - 1) / 2) * stride
        priors[..., 1] = (np.arange(height)[:, None, None] - (scale - 1) / 2) * stride
        priors[..., 2] = scale * stride
        priors[..., 3:] = anchors
        return priors.reshape(-1, 5)

    def decode(self, maps: YOLOMaps, top_k: int | None = None) -> tuple[Tensor, Tensor]:
        """Maps -> (boxes [N, K, 4] xyxy in input pixels, scores [N, K, C] = objectness x class probability).

        top_k: as in ``decode_anchor_maps``
        """
        rows, priors = self.rows(maps), self.priors(maps).unsqueeze(0)
        scores = rows[..., 4:5].sigmoid() * rows[..., 5:].sigmoid()
        index = strongest(scores, top_k)
        if index is None:
            return yolo_boxes(rows, priors), scores
        return yolo_boxes(pick(rows, index), pick(priors.expand(len(rows), -1, -1), index)), pick(scores, index)


def yolo_boxes(rows: Tensor, priors: Tensor) -> Tensor:
    """Rows [..., 5 + C] and their priors [..., 5] -> boxes [..., 4], xyxy in input pixels (YOLOv3, section 2.1)."""
    centre = rows[..., :2].sigmoid() * priors[..., 2:3] + priors[..., :2]
    half = rows[..., 2:4].exp() * (priors[..., 3:] / 2)
    return torch.cat([centre - half, centre + half], dim=-1)
