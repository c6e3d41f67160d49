"""From a COCO set to batches. Every random choice depends on (seed, epoch, image) alone.

So an epoch is the same whether the training was interrupted before it or not, and whatever the number of workers.
"""

from __future__ import annotations

import time
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from ..runtime.errors import EdgeKitError
from ..runtime.images import read_image
from ..runtime.preprocess import Placement, Preprocess
from .augment import MIN_VISIBLE, Boxes
from .coco import CocoSet
from .mosaic import mosaic


class Item(NamedTuple):
    """One image as the network sees it.

    canvas: uint8 [H, W, 3] in the network's colour order; boxes are xyxy in canvas pixels
    labelled: bool [C], the detector's classes that somebody labelled in this image; None for all of them
    """

    canvas: np.ndarray
    boxes: Boxes
    image_id: int
    placement: Placement
    labelled: np.ndarray | None = None


Augmentation = Callable[[np.ndarray, Boxes, np.random.Generator], tuple[np.ndarray, Boxes]]


class DetectionDataset(Dataset[Item]):
    """Items of a set, indexed by (epoch, index). ``augment=None`` gives the images as they are.

    mosaic: probability that an item is made of four images of this set, each augmented on its own
    labelled: bool [C], the detector's classes that are labelled in it; None for all
    start: number of its first image among those of all sets that are trained on; indices beyond the last image begin
        again at the first, with other random choices
    min_visible: of a mosaic's cuts, see ``Augment``
    """

    def __init__(
        self,
        coco: CocoSet,
        preprocess: Preprocess,
        augment: Augmentation | None = None,
        seed: int = 0,
        mosaic: float = 0.0,
        labelled: np.ndarray | None = None,
        start: int = 0,
        min_visible: float = MIN_VISIBLE,
    ) -> None:
        self.labelled, self.start, self.min_visible = labelled, start, min_visible
        self.coco, self.preprocess, self.augment, self.seed, self.mosaic = coco, preprocess, augment, seed, mosaic

    def __len__(self) -> int:
        return len(self.coco.samples)

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, number = key
        rng = np.random.default_rng((self.seed, epoch, self.start + number))
        index = number % len(self)
        image, boxes = self._augmented(index, rng)
        if self.mosaic and rng.random() < self.mosaic:
            others = [self._augmented(int(i), rng) for i in rng.integers(0, len(self), 3)]
            image, boxes = mosaic([(image, boxes), *others], self.preprocess, rng, self.min_visible)
        sample = self.coco.samples[index]
        canvas, placement = self.preprocess.canvas(image)
        on_canvas = Boxes(placement.to_canvas(boxes.xyxy), boxes.labels, boxes.ignore)
        return Item(canvas, on_canvas, sample.image_id, placement, self.labelled)

    def _augmented(self, index: int, rng: np.random.Generator) -> tuple[np.ndarray, Boxes]:
        sample = self.coco.samples[index]
        image, boxes = read_image(sample.path), Boxes(sample.boxes, sample.labels, sample.ignore)
        return (image, boxes) if self.augment is None else self.augment(image, boxes, rng)


class MixedDataset(Dataset[Item]):
    """Items of several sets, indexed by (epoch, index) where each set's indices begin at its ``start``."""

    def __init__(self, parts: Sequence[DetectionDataset]) -> None:
        self.parts = parts
        self._starts = [part.start for part in parts]

    def __len__(self) -> int:
        return sum(map(len, self.parts))

    def __getitem__(self, key: tuple[int, int]) -> Item:
        epoch, index = key
        part = self.parts[bisect_right(self._starts, index) - 1]
        return part[epoch, index - part.start]


class EpochSampler(Sampler[tuple[int, int]]):
    """(epoch, index) pairs: shuffled anew each epoch by (seed, epoch), or in order; split over processes.

    Lightning calls ``set_epoch``. The tail that does not fill every process's batch is left out while shuffling.
    draw: epoch -> the ``length`` indices that it sees; without it they are 0, 1, ...
    """

    def __init__(
        self,
        length: int,
        shuffle: bool,
        seed: int = 0,
        rank: int = 0,
        world: int = 1,
        batch: int = 1,
        draw: Callable[[int], np.ndarray] | None = None,
    ) -> None:
        self.draw = draw
        self.length, self.shuffle, self.seed = length, shuffle, seed
        self.rank, self.world, self.batch = rank, world, batch
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        step = self.batch * self.world
        return self.length // step * self.batch if self.shuffle else len(range(self.rank, self.length, self.world))

    def __iter__(self) -> Iterator[tuple[int, int]]:
        epoch = self.epoch
        order = np.arange(self.length) if self.draw is None else self.draw(epoch)
        if self.shuffle:
            np.random.default_rng((self.seed, epoch)).shuffle(order)
            order = order[: self.length // (self.batch * self.world) * self.batch * self.world]
        for index in order[self.rank :: self.world]:
            yield epoch, int(index)


class WatchedLoader(DataLoader[Any]):
    """A DataLoader that counts, in ``waited``, the seconds for which its user waited for a batch.

    It begins an epoch when the first batch is asked for. A DataLoader with workers begins when its iterator is made,
    and Lightning makes that of a resumed training before it tells the sampler which epoch it is.
    """

    waited = 0.0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        began = time.perf_counter()
        try:
            for batch in super().__iter__():
                self.waited += time.perf_counter() - began
                yield batch
                began = time.perf_counter()
        except EdgeKitError as error:
            raise _without_traceback(error) from error


def _without_traceback(error: EdgeKitError) -> EdgeKitError:
    """The error as it was raised: one from a loader's worker arrives with its traceback as text before the message."""
    name = type(error).__name__
    return type(error)(str(error).rpartition(f"{name}: ")[2].strip())


def stack_labelled(items: Sequence[Item]) -> Tensor | None:
    """bool [N, C]; None where every class is labelled in every image."""
    masks = [item.labelled for item in items]
    known = next((mask for mask in masks if mask is not None), None)
    if known is None:
        return None
    return torch.from_numpy(np.stack([np.ones_like(known) if mask is None else mask for mask in masks]))


def stack_canvases(items: Sequence[Item]) -> Tensor:
    """uint8 [N, 3, H, W]; a view of NHWC memory, which is what channels_last wants."""
    return torch.from_numpy(np.stack([item.canvas for item in items])).permute(0, 3, 1, 2)
