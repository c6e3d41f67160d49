"""The Lightning module: one training code path for plain and distilled detectors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import lightning.pytorch as lightning
import numpy as np
import torch
from torch import Tensor

from ..data.augment import Augment
from ..data.coco import CocoSet
from ..data.dataset import DetectionDataset, EpochSampler, Item, stack_canvases
from ..evaluation.coco import evaluate_detections
from ..models.backbones.hrnet import HRNet
from ..models.detector import Detector
from ..recipe import Recipe, ScheduleSection
from ..runtime.detections import Detections
from ..runtime.postprocess import Postprocess
from .distillation import DistillationLoss
from .ema import WeightAverage
from .losses import CenterBatch, DetectionLoss, class_weights
from .targets import CenterTargets, center_targets


class DetectorModule(lightning.LightningModule):
    """Trains ``model`` by a recipe. With a ``teacher`` the distillation terms are added; nothing else differs.

    train_counts: boxes per class in the training set, for the class weights of eq. 4
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        recipe: Recipe,
        model: Detector,
        train_counts: Sequence[int],
        val: CocoSet | None,
        teacher: Detector | None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.model = model
        self.average = WeightAverage(model, recipe.train.ema)
        weights = class_weights(train_counts, recipe.loss.gamma, recipe.loss.max_weight)
        loss = recipe.loss
        self.loss = DetectionLoss(
            weights if loss.balanced else torch.ones_like(weights),
            loss.alpha,
            loss.beta,
            loss.size,
            loss.offset,
            loss.l1_mean,
        )
        self.distillation = DistillationLoss(**recipe.distillation.model_dump()) if recipe.distillation else None
        # kept out of the module tree: the teacher is neither trained nor saved
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher is not None else []
        self._val = val
        self._seen: dict[int, Detections] = {}
        self.register_buffer("_mean", torch.tensor(recipe.preprocess.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(recipe.preprocess.std).view(1, 3, 1, 1), persistent=False)

    # -- optimisation ------------------------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        train = self.recipe.train
        optimizer = torch.optim.Adam(self.model.parameters(), lr=train.lr, weight_decay=train.weight_decay)
        steps = max(1, int(self.trainer.estimated_stepping_batches) // train.epochs)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(train.schedule, step, steps, train.epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def on_fit_start(self) -> None:
        for teacher in self._teacher:
            teacher.to(self.device)
            if self.recipe.train.channels_last:
                teacher.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        if self.recipe.train.channels_last:
            self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def training_step(self, batch: tuple[Tensor, CenterBatch], index: int) -> Tensor:
        image, targets = batch
        image = self._normalise(image)
        maps = self.model(image)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.loss(maps, targets, self._objects(len(targets.centres)))
            loss = terms["loss"]
        if self.distillation is not None:
            with torch.no_grad():
                teacher = self._teacher[0](image)
            with torch.autocast(self.device.type, enabled=False):
                extra = self.distillation(maps, teacher)
            loss = loss + extra.pop("loss")
            terms |= extra
        terms["loss"] = loss
        self.log_dict(
            {f"train/{k}": v.detach() for k, v in terms.items()}, on_epoch=True, on_step=False, batch_size=len(image)
        )
        self.log("loss", loss.detach(), prog_bar=True, logger=False, batch_size=len(image))
        return loss

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update(self.model)

    def _normalise(self, image: Tensor) -> Tensor:
        """uint8 canvas -> network input: the same arithmetic as ``Preprocess.normalise``, on the device."""
        x = (image.float() - self._mean) / self._std
        return x.contiguous(
            memory_format=torch.channels_last if self.recipe.train.channels_last else torch.contiguous_format
        )

    def _objects(self, here: int) -> Tensor:
        """N of eq. 3, 5, 6 over all processes, per process: so averaged gradients are those of one big batch."""
        count = torch.tensor(float(here), device=self.device)
        if self.trainer.world_size > 1:
            torch.distributed.all_reduce(count)
        return count.clamp(min=1) / self.trainer.world_size

    # -- validation --------------------------------------------------------------------------------------------------
    def on_validation_epoch_start(self) -> None:
        self._seen = {}

    def validation_step(self, items: list[Item], index: int) -> None:
        postprocess = Postprocess(nms=self.model.nms, score_threshold=0.01, top_k=self.recipe.export.top_k)
        image = self._normalise(stack_canvases(items).to(self.device))
        network = self.average.model
        assert isinstance(network, Detector)
        with torch.autocast(self.device.type, enabled=False):
            boxes, scores = network.detect(image, self.recipe.export.top_k)
        for item, b, s in zip(items, boxes.float().cpu().numpy(), scores.float().cpu().numpy(), strict=True):
            self._seen[item.image_id] = postprocess(b, s, item.placement)

    def on_validation_epoch_end(self) -> None:
        if self._val is None or self.trainer.sanity_checking:
            return
        seen = self._gather()
        metrics = evaluate_detections(self._val, seen)
        self.log("val/map50", metrics.map50, prog_bar=True, rank_zero_only=True)
        self.log("val/map", metrics.map, rank_zero_only=True)
        for name, values in metrics.per_class.items():
            self.log(f"val/ap50/{name}", values["ap50"], rank_zero_only=True)

    def _gather(self) -> dict[int, Detections]:
        if self.trainer.world_size == 1:
            return self._seen
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, self._seen)
        return {image_id: found for part in parts for image_id, found in part.items()}


def lr_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Share of the base learning rate at an optimiser step: linear warm-up, then step or cosine decay."""
    warmup = min(1.0, (step + 1) / (schedule.warmup_steps + 1))
    epoch = step / steps_per_epoch
    if schedule.kind == "step":
        return warmup * 0.1 ** sum(epoch >= drop for drop in schedule.drops)
    progress = min(1.0, epoch / epochs)
    return warmup * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)


class DetectionData(lightning.LightningDataModule):
    """Loaders of a recipe's training and validation sets."""

    def __init__(self, recipe: Recipe, train: CocoSet, val: CocoSet | None) -> None:
        super().__init__()
        self.recipe, self.train, self.val = recipe, train, val
        self.preprocess = recipe.preprocess.value()
        full = recipe.preprocess.size
        crop = recipe.augment.crop or full
        self.train_preprocess = recipe.preprocess.model_copy(update={"size": crop}).value()
        self.augment = Augment(
            **recipe.augment.model_dump(exclude={"crop"}), view=(crop[0] / full[0], crop[1] / full[1])
        )

    def train_dataloader(self) -> torch.utils.data.DataLoader[Item]:
        section = self.recipe.train
        dataset = DetectionDataset(self.train, self.train_preprocess, self.augment, section.seed)
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        sampler = EpochSampler(len(dataset), True, section.seed, rank, world, section.batch_size)
        width, height = self.train_preprocess.size
        return torch.utils.data.DataLoader(
            dataset,
            batch_size=section.batch_size,
            sampler=sampler,
            num_workers=section.workers,
            persistent_workers=section.workers > 0,
            prefetch_factor=4 if section.workers else None,
            collate_fn=CenterCollate(len(self.recipe.classes), (width, height), HRNet.stride),
            pin_memory=torch.cuda.is_available(),
            drop_last=True,
        )

    def val_dataloader(self) -> Any:
        if self.val is None:
            return []
        dataset = DetectionDataset(self.val, self.preprocess)
        trainer = self.trainer
        rank, world = (trainer.global_rank, trainer.world_size) if trainer is not None else (0, 1)
        sampler = EpochSampler(len(dataset), False, 0, rank, world)
        return torch.utils.data.DataLoader(dataset, batch_size=8, sampler=sampler, num_workers=0, collate_fn=list)


class CenterCollate:
    """Items -> (images uint8 [N, 3, H, W], CenterBatch); runs in the loader's workers."""

    def __init__(self, classes: int, size: tuple[int, int], stride: int) -> None:
        self.classes, self.size, self.stride = classes, size, stride

    def __call__(self, items: Sequence[Item]) -> tuple[Tensor, CenterBatch]:
        targets = [
            center_targets(i.boxes.xyxy, i.boxes.labels, i.boxes.ignore, self.classes, self.size, self.stride)
            for i in items
        ]
        return stack_canvases(items), batch_targets(targets)


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
