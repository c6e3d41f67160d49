"""From COCO sets to the batches of a training: loaders, and the targets of a batch."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from functools import partial
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset, Sampler

from ..data.augment import Augment
from ..data.coco import CocoSet
from ..data.dataset import Augmentation, DetectionDataset, EpochSampler, Item, MixedDataset, WatchedLoader
from ..data.sources import Mixture
from ..data.ssd_augment import SsdAugment
from ..recipe import Recipe
from ..runtime.errors import BadConfig
from ..runtime.preprocess import Preprocess
from .tasks.base import Collate

VALIDATION_BATCH = 8
Validation = CocoSet | Mapping[str, CocoSet] | None  # a set, several by name, or none
SIZES = 1 << 20  # keeps the draws of sizes apart from those of images, which are seeded by (seed, epoch, ...)


class DetectionData(lightning.LightningDataModule):
    """Loaders of a recipe's training and validation sets, each process of a distributed training with its share.

    collate: makes a batch of Items;  world: how many processes train together
    Raises BadConfig when the training set does not fill one batch of each, or a validation set has no image for one.
    """

    def __init__(
        self, recipe: Recipe, train: CocoSet | Mixture, val: Validation, collate: Collate, world: int = 1
    ) -> None:
        super().__init__()
        self.recipe, self.collate, self.world = recipe, collate, world
        self.train, self.val = Mixture.of(train), by_name(val)
        self.preprocess = recipe.preprocess.value()
        self.train_preprocess = self._preprocess_at(recipe.augment.crop or recipe.preprocess.size)
        self.augment = augmentation(recipe)
        needed = recipe.train.batch_size * world
        self.steps_per_epoch = len(train) // needed
        if not self.steps_per_epoch:
            raise BadConfig(
                f"{', '.join(str(coco.annotations) for coco in self.train.sets)}: {len(train)} images "
                f"{'' if isinstance(train, CocoSet) else 'an epoch '}do not fill a batch of {needed}; "
                f"lower train.batch_size ({recipe.train.batch_size}) or train on more images"
            )

        for coco in self.val.values():
            if len(coco) < world:  # the process without an image would not join in gathering what the others saw
                raise BadConfig(
                    f"{coco.annotations}: {len(coco)} images to validate on, fewer than the {world} processes; start "
                    f"fewer (torchrun --nproc-per-node), add images or leave it out (data.val=null)"
                )

    def train_dataloader(self) -> WatchedLoader:
        section = self.recipe.train
        dataset, sampler = self._training_items()
        return WatchedLoader(
            dataset,
            batch_size=section.batch_size,
            sampler=sampler,
            num_workers=section.workers,
            persistent_workers=section.workers > 0,
            prefetch_factor=4 if section.workers else None,
            collate_fn=self.collate,
            pin_memory=torch.cuda.is_available(),
            drop_last=True,
        )

    def _training_items(self) -> tuple[Dataset[Item], Sampler[Any]]:
        section = self.recipe.train
        dataset = self._dataset(self.train_preprocess)
        draw = partial(self.train.draw, section.seed)
        pairs = EpochSampler(len(self.train), True, section.seed, self._rank(), self.world, section.batch_size, draw)
        if section.multiscale is None:
            return dataset, pairs
        each = [self._dataset(self._preprocess_at(size)) for size in section.multiscale.sizes]
        return SizedDataset(each), SizeSampler(pairs, len(each), section.multiscale.every)

    def _dataset(self, preprocess: Preprocess) -> MixedDataset:
        section, mixture = self.recipe.augment, self.train
        return MixedDataset(
            [
                DetectionDataset(
                    coco,
                    preprocess,
                    self.augment,
                    self.recipe.train.seed,
                    section.mosaic,
                    mixture.labelled(source),
                    start,
                    section.min_visible,
                )
                for coco, source, start in zip(mixture.sets, mixture.sources, mixture.starts(), strict=True)
            ]
        )

    def _preprocess_at(self, size: tuple[int, int]) -> Preprocess:
        return self.recipe.preprocess.model_copy(update={"size": size}).value()

    def val_dataloader(self) -> list[DataLoader[Item]]:
        return [self._val_loader(coco) for coco in self.val.values()]

    def _val_loader(self, coco: CocoSet) -> DataLoader[Item]:
        dataset = DetectionDataset(coco, self.preprocess)
        sampler = EpochSampler(len(dataset), False, 0, self._rank(), self.world)
        return DataLoader(dataset, batch_size=VALIDATION_BATCH, sampler=sampler, num_workers=0, collate_fn=list)

    def _rank(self) -> int:
        return self.trainer.global_rank if self.trainer is not None else 0


def by_name(val: Validation) -> dict[str, CocoSet]:
    """Validation sets by the names of their sources; that of a recipe without sources has none, ""."""
    if val is None:
        return {}
    return {"": val} if isinstance(val, CocoSet) else dict(val)


def augmentation(recipe: Recipe) -> Augmentation:
    """What the recipe does to a training image."""
    section = recipe.augment
    if section.policy == "ssd":
        mean = recipe.preprocess.mean if recipe.preprocess.colour == "bgr" else recipe.preprocess.mean[::-1]
        return SsdAugment(section.flip, max_expand=section.max_expand, gray_mix=section.gray_mix, fill=mean)
    full = recipe.preprocess.size
    crop = section.crop or full
    view = crop[0] / full[0], crop[1] / full[1]
    return Augment(
        section.flip,
        section.scale,
        section.shift,
        section.colour,
        section.gray_mix,
        view,
        section.flip_vertical,
        section.min_visible,
    )


class SizedDataset(Dataset[Item]):
    """One set at several input sizes, indexed by (epoch, index, which size)."""

    def __init__(self, each: Sequence[DetectionDataset | MixedDataset]) -> None:
        self.each = each

    def __len__(self) -> int:
        return len(self.each[0])

    def __getitem__(self, key: tuple[int, int, int]) -> Item:
        epoch, index, size = key
        return self.each[size][epoch, index]


class SizeSampler(Sampler[tuple[int, int, int]]):
    """The pairs of an EpochSampler, with which of ``count`` sizes: a new one every ``every`` batches (YOLO9000, section
    2). It depends on the seed and the batch's number alone, so all processes draw the same.
    """

    def __init__(self, pairs: EpochSampler, count: int, every: int) -> None:
        self.pairs, self.count, self.every = pairs, count, every

    def set_epoch(self, epoch: int) -> None:
        self.pairs.set_epoch(epoch)

    def __len__(self) -> int:
        return len(self.pairs)

    def __iter__(self) -> Iterator[tuple[int, int, int]]:
        batch = self.pairs.batch
        before = self.pairs.epoch * (len(self.pairs) // batch)
        for place, (epoch, index) in enumerate(self.pairs):
            turn = (before + place // batch) // self.every
            size = np.random.default_rng((self.pairs.seed, SIZES, turn)).integers(self.count)
            yield epoch, index, int(size)
