"""From COCO sets to the batches of a training: loaders, and the targets of a batch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from ..data.augment import Augment
from ..data.coco import CocoSet
from ..data.dataset import DetectionDataset, EpochSampler, Item, WatchedLoader, stack_canvases
from ..models.backbones.hrnet import HRNet
from ..recipe import Recipe
from ..runtime.errors import BadConfig
from .losses import CenterBatch
from .targets import CenterTargets, Radius, center_targets

VALIDATION_BATCH = 8


class DetectionData(lightning.LightningDataModule):
    """Loaders of a recipe's training and validation sets, each process of a distributed training with its share.

    world: how many processes train together. Raises BadConfig when the training set does not fill one batch of each.
    """

    def __init__(self, recipe: Recipe, train: CocoSet, val: CocoSet | None, world: int = 1) -> None:
        super().__init__()
        self.recipe, self.train, self.val, self.world = recipe, train, val, world
        self.preprocess = recipe.preprocess.value()
        full = recipe.preprocess.size
        crop = recipe.augment.crop or full
        self.train_preprocess = recipe.preprocess.model_copy(update={"size": crop}).value()
        self.augment = Augment(
            **recipe.augment.model_dump(exclude={"crop"}), view=(crop[0] / full[0], crop[1] / full[1])
        )
        needed = recipe.train.batch_size * world
        self.steps_per_epoch = len(train) // needed
        if not self.steps_per_epoch:
            raise BadConfig(
                f"{train.annotations}: {len(train)} images do not fill a batch of {needed}; "
                f"lower train.batch_size ({recipe.train.batch_size}) or train on more images"
            )

    def train_dataloader(self) -> WatchedLoader:
        section = self.recipe.train
        dataset = DetectionDataset(self.train, self.train_preprocess, self.augment, section.seed)
        width, height = self.train_preprocess.size
        return WatchedLoader(
            dataset,
            batch_size=section.batch_size,
            sampler=EpochSampler(len(dataset), True, section.seed, self._rank(), self.world, section.batch_size),
            num_workers=section.workers,
            persistent_workers=section.workers > 0,
            prefetch_factor=4 if section.workers else None,
            collate_fn=CenterCollate(len(self.recipe.classes), (width, height), HRNet.stride, self.recipe.loss.radius),
            pin_memory=torch.cuda.is_available(),
            drop_last=True,
        )

    def val_dataloader(self) -> DataLoader[Item] | list[DataLoader[Item]]:
        if self.val is None:
            return []
        dataset = DetectionDataset(self.val, self.preprocess)
        sampler = EpochSampler(len(dataset), False, 0, self._rank(), self.world)
        return DataLoader(dataset, batch_size=VALIDATION_BATCH, sampler=sampler, num_workers=0, collate_fn=list)

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0


class CenterCollate:
    """Items -> (images uint8 [N, 3, H, W], CenterBatch); runs in the loader's workers. ``size`` is width, height."""

    def __init__(self, classes: int, size: tuple[int, int], stride: int, radius: Radius) -> None:
        self.classes, self.size, self.stride, self.radius = classes, size, stride, radius

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, CenterBatch]:
        return stack_canvases(items), batch_targets([self._targets(item) for item in items])

    def _targets(self, item: Item) -> CenterTargets:
        boxes = item.boxes
        return center_targets(boxes.xyxy, boxes.labels, boxes.ignore, self.classes, self.size, self.stride, self.radius)


def batch_targets(targets: Sequence[CenterTargets]) -> CenterBatch:
    """Stack the targets of several images; objects carry the index of their image."""
    centres = [np.insert(t.centres, 0, i, axis=1) for i, t in enumerate(targets)]
    joined = {name: np.concatenate([asdict(t)[name] for t in targets]) for name in ("size", "offset")}
    return CenterBatch(
        heatmap=torch.from_numpy(np.stack([t.heatmap for t in targets])),
        weight=torch.from_numpy(np.stack([t.weight for t in targets]))[:, None],
        centres=torch.from_numpy(np.concatenate(centres)),
        size=torch.from_numpy(joined["size"]),
        offset=torch.from_numpy(joined["offset"]),
    )
