"""Each object is learnt at the pixels that already find it best: TOOD (Feng et al., ICCV 2021), section 3.2.

CenterNet teaches an object's class at one pixel, so a network that starts from nothing finds few of them for a long
time. Here several pixels answer for each object, those whose class score and box agree best with it, and the score that
they learn is the overlap that they reach. The head and its decoding stay CenterNet's; neighbours that find the same
object are NMS's to remove.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ...models.heads.centernet import CenterMaps, pixel_grid
from ...recipe import AlignedSection
from ..boxes import BOX_LOSSES, iou
from ..matching import IGNORED, BoxBatch
from .base import Share


class Aligned(NamedTuple):
    """The pixels that answer for objects. image, pixel: int64 [K];  truth: int64 [K], the batch's row of boxes

    score: [K], the class probability to learn there, the paper's normalised t-hat
    """

    image: Tensor
    pixel: Tensor
    truth: Tensor
    score: Tensor


@torch.no_grad()
def align(scores: Tensor, boxes: Tensor, centres: Tensor, batch: BoxBatch, section: AlignedSection) -> Aligned:
    """For each object the ``top`` pixels inside it with the largest t = s^alpha u^beta (eq. 1).

    s: the pixel's probability of the object's class;  u: overlap of its box with the object
    A pixel that several objects choose is that one's which it overlaps most. An object between pixel centres takes the
    nearest pixel. t-hat is t, scaled so that each object's largest is the largest overlap among its pixels.
    scores: [N, P, C];  boxes: [N, P, 4] xyxy;  centres: [P, 2], x and y of each pixel, all in input pixels
    """
    image, row = batch.objects.nonzero(as_tuple=True)  # [M]
    truth = batch.boxes[image, row]
    inside = _inside(truth, centres)
    owner, pixel = inside.nonzero(as_tuple=True)
    overlap = iou(boxes[image[owner], pixel], truth[owner])
    score = scores[image[owner], pixel, batch.labels[image, row][owner]]
    t = inside.new_zeros(inside.shape, dtype=torch.float32)
    u = torch.zeros_like(t)
    t[owner, pixel] = score**section.alpha * overlap**section.beta + torch.finfo(torch.float32).tiny
    u[owner, pixel] = overlap
    value, pixel = t.topk(min(section.top, t.shape[1]), dim=1)  # [M, K]
    return _one_owner_each(image, row, pixel, value, u.gather(1, pixel), scores.shape[:2])


def _inside(boxes: Tensor, centres: Tensor) -> Tensor:
    """bool [M, P]: the pixels whose centre lies in a box, and of every box the nearest one."""
    left, right = centres[:, 0] > boxes[:, 0:1], centres[:, 0] < boxes[:, 2:3]
    above, below = centres[:, 1] > boxes[:, 1:2], centres[:, 1] < boxes[:, 3:4]
    inside = left & right & above & below
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    nearest = torch.cdist(middle, centres).argmin(1)
    inside[torch.arange(len(boxes), device=boxes.device), nearest] = True
    return inside


def _one_owner_each(image: Tensor, row: Tensor, pixel: Tensor, t: Tensor, u: Tensor, shape: tuple[int, ...]) -> Aligned:
    """Candidates [M, K] of M objects -> those that are left when each pixel has one object. shape: N, P

    Objects that overlap a pixel's box equally, to the bit, all keep it.
    """
    images, pixels = shape
    place = image.unsqueeze(1) * pixels + pixel
    candidate = t > 0
    most = u.new_zeros(images * pixels).scatter_reduce(0, place[candidate], u[candidate], "amax")
    kept = candidate & (u >= most[place])
    t, u = t * kept, u * kept
    score = t / t.amax(1, keepdim=True).clamp(min=torch.finfo(torch.float32).tiny) * u.amax(1, keepdim=True)
    each = image.unsqueeze(1).expand_as(pixel), pixel, row.unsqueeze(1).expand_as(pixel), score
    return Aligned(*(values[kept] for values in each))


class AlignedCriterion(nn.Module):
    """Class scores by cross-entropy towards t-hat, boxes by an overlap loss that t-hat weighs (section 3.2, eq. 3-6).

    Both are sums over the batch, divided by the sum of all t-hat. ``gamma`` is the power of the focal factor
    |t-hat - s|^gamma; 0 leaves it out.
    weights: [C], of each class in the first term
    """

    weights: Tensor

    def __init__(self, section: AlignedSection, weights: Tensor, stride: int) -> None:
        super().__init__()
        self.section, self.stride = section, stride
        self.register_buffer("weights", weights, persistent=False)

    def forward(self, maps: CenterMaps, batch: BoxBatch, share: Share) -> dict[str, Tensor]:
        logits = maps.heatmap.float().flatten(2).transpose(1, 2)
        boxes, pixels = pixel_boxes(maps, self.stride)
        found = align(logits.detach().sigmoid(), boxes.detach(), pixels, batch, self.section)
        truth = batch.boxes[found.image, found.truth]
        box = BOX_LOSSES[self.section.box](boxes[found.image, found.pixel], truth)
        total = share(found.score.sum())
        terms = {
            "class": self._classes(logits, found, batch, pixels).sum() / total,
            "box": (box * found.score).sum() / total,
        }
        terms["loss"] = terms["class"] + self.section.weight * terms["box"]
        return terms

    def _classes(self, logits: Tensor, found: Aligned, batch: BoxBatch, pixels: Tensor) -> Tensor:
        """[N, P, C]; an ignored box is no background, and a class without labels in an image costs nothing there."""
        target = torch.zeros_like(logits)
        target[found.image, found.pixel, batch.labels[found.image, found.truth]] = found.score
        cost = F.binary_cross_entropy_with_logits(logits, target, reduction="none") * self.weights
        if self.section.gamma:
            cost = cost * (target - logits.detach().sigmoid()).abs() ** self.section.gamma
        image, row = (batch.labels == IGNORED).nonzero(as_tuple=True)
        if len(image):
            free = torch.ones_like(logits[..., :1])
            for i, hidden in zip(image, _inside(batch.boxes[image, row], pixels), strict=True):
                free[i, hidden] = 0
            cost = torch.where(target > 0, cost, cost * free)
        return cost if batch.labelled is None else cost * batch.labelled.unsqueeze(1)


def pixel_boxes(maps: CenterMaps, stride: int) -> tuple[Tensor, Tensor]:
    """(boxes [N, P, 4] xyxy of all pixels, centres of the pixels [P, 2]), both in input pixels, row by row."""
    height, width = maps.size.shape[2:]
    like = maps.size.float()
    corner = pixel_grid(height, width, like)[0].flatten(1).T
    centre = corner + maps.offset.float().flatten(2).transpose(1, 2)
    half = like.flatten(2).transpose(1, 2) / 2
    return torch.cat([centre - half, centre + half], -1) * stride, (corner + 0.5) * stride
