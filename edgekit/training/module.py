"""The Lightning module: one training code path for plain and distilled detectors."""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

import lightning.pytorch as lightning
import torch
from torch import Tensor, nn

from ..data.dataset import Item, stack_canvases
from ..evaluation.coco import evaluate_detections
from ..models.deformable import offset_parameters
from ..models.detector import Detector, host_postprocess
from ..recipe import Recipe, ScheduleSection
from ..runtime.detections import Detections
from ..runtime.postprocess import Postprocess, all_finite
from ..words import counted
from .batches import Validation, by_name
from .distillation import Distillation
from .ema import WeightAverage
from .optimizer import optimizer_of
from .qat import Rounding
from .tasks import task_of
from .watch import FirstOdd

log = logging.getLogger(__name__)


class DetectorModule(lightning.LightningModule):
    """Trains ``model`` by a recipe. With a ``teacher`` the distillation terms are added; nothing else differs.

    train_counts: boxes per class in the training set, for class weights
    steps_per_epoch: optimiser steps, for the schedule
    """

    _mean: Tensor
    _std: Tensor

    def __init__(
        self,
        recipe: Recipe,
        model: Detector,
        train_counts: Sequence[int],
        steps_per_epoch: int,
        val: Validation = None,
        teacher: Detector | None = None,
    ) -> None:
        super().__init__()
        self.recipe = recipe
        self.steps_per_epoch = steps_per_epoch
        # before Lightning wraps the module: DistributedDataParallel keeps the layout of its gradients from then on, and
        # writes them, permuted, into weights whose layout was changed later
        layout = torch.channels_last if recipe.train.channels_last else torch.preserve_format
        for network in (model, teacher):
            if network is not None:
                network.to(memory_format=layout)  # type: ignore[call-overload]
        self.model = model
        self.average = WeightAverage(model, recipe.train.ema)
        task = task_of(model, recipe.model.name)
        self.loss = task.criterion(recipe, model, train_counts)
        self.distillation = None
        if recipe.distillation is not None and teacher is not None:
            self.distillation = Distillation(recipe.distillation, task, model, teacher, recipe.preprocess.size)
        self.rounding = None
        if recipe.quantization_aware is not None:
            self.rounding = Rounding(recipe.quantization_aware.flavour, recipe.preprocess.mean, recipe.preprocess.std)
        # kept out of the module tree: the teacher is neither trained nor saved
        self._teacher = [teacher.eval().requires_grad_(False)] if teacher is not None else []
        self._val = by_name(val)
        self._seen: list[dict[int, Detections]] = []
        self._not_finite: set[int] = set()  # validation images for which the network gives such boxes or scores
        self.odd = FirstOdd()
        self.register_buffer("_mean", torch.tensor(recipe.preprocess.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.tensor(recipe.preprocess.std).view(1, 3, 1, 1), persistent=False)
        self.train()

    def train(self, mode: bool = True) -> DetectorModule:
        """Training mode, but for the norms that the recipe freezes."""
        super().train(mode)
        if keeps_statistics(self.recipe):
            for module in self.model.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    module.eval()
        return self

    # -- optimisation ------------------------------------------------------------------------------------------------
    def configure_optimizers(self) -> Any:
        train = self.recipe.train
        moving = offset_parameters(self.model)
        optimizer = optimizer_of(train, self.model.parameters(), self._learnt_beside(), moving)
        schedule = torch.optim.lr_scheduler.LambdaLR(
            optimizer, lambda step: lr_factor(train.schedule, step, self.steps_per_epoch, train.epochs)
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def _learnt_beside(self) -> list[nn.Parameter]:
        """What is learnt but not the network's: the weights of balanced terms, the adapters of distilled maps."""
        return [p for part in (self.loss, self.distillation) if part is not None for p in part.parameters()]

    def on_fit_start(self) -> None:
        for teacher in self._teacher:
            teacher.to(self.device)

    def training_step(self, batch: tuple[Tensor, Any], index: int) -> Tensor:
        image, targets = batch
        terms = self.losses(self._normalise(image), targets)
        self.odd.see(terms, self.trainer.global_step)
        for name, value in terms.items():
            self.log(
                f"train/{name}", value.detach(), on_step=False, on_epoch=True, sync_dist=True, batch_size=len(image)
            )
        self.log("loss", terms["loss"].detach(), prog_bar=True, logger=False, batch_size=len(image))
        return terms["loss"]

    def losses(self, image: Tensor, targets: Any) -> dict[str, Tensor]:
        """The terms of a batch by name, and under ``loss`` what is minimised.

        image: network input [N, 3, H, W];  targets: as the collate of the network's task makes them
        """
        with nullcontext() if self.rounding is None else self.rounding.applied():
            maps = self.model(image)
        with torch.autocast(self.device.type, enabled=False):
            terms = self.loss(maps, targets, self._share)
            loss = terms["loss"]
        if self.distillation is not None:
            with torch.no_grad():
                teacher = self._teacher[0](image)
            with torch.autocast(self.device.type, enabled=False):
                extra = self.distillation(maps, teacher, self._share)
            loss = loss + extra.pop("loss")
            terms |= extra
        return {**terms, "loss": loss}

    def on_train_batch_end(self, *_: Any) -> None:
        self.average.update(self.model)

    def on_train_epoch_end(self) -> None:
        self.log("train/lr", self.trainer.optimizers[0].param_groups[0]["lr"], rank_zero_only=True)

    def _normalise(self, image: Tensor) -> Tensor:
        """uint8 canvas -> network input: the same arithmetic as ``Preprocess.normalise``, on the device."""
        x = (image.float() - self._mean) / self._std
        return x.contiguous(
            memory_format=torch.channels_last if self.recipe.train.channels_last else torch.contiguous_format
        )

    def _share(self, here: Tensor) -> Tensor:
        """A count over all processes, per process, at least one in all.

        It divides sums over a batch, so that averaged gradients are those of one big batch.
        """
        count = here.detach().clone()
        if not torch.distributed.is_initialized():
            return count.clamp(min=1)
        torch.distributed.all_reduce(count)
        return count.clamp(min=1) / torch.distributed.get_world_size()

    # -- validation --------------------------------------------------------------------------------------------------
    def on_validation_epoch_start(self) -> None:
        self._seen = [{} for _ in self._val]
        self._not_finite = set()

    def validation_step(self, items: list[Item], index: int, dataloader_idx: int = 0) -> None:
        postprocess = Postprocess(**host_postprocess(self.model, self.recipe.model_dump(mode="json")))
        image = self._normalise(stack_canvases(items).to(self.device))
        network = self.average.model
        assert isinstance(network, Detector)
        with torch.autocast(self.device.type, enabled=False):
            boxes, scores = network.detect(image, self.recipe.export.top_k)
        for item, b, s in zip(items, boxes.float().cpu().numpy(), scores.float().cpu().numpy(), strict=True):
            self._seen[dataloader_idx][item.image_id] = postprocess(b, s, item.placement)
            if not all_finite(b, s):
                self._not_finite.add(item.image_id)

    def on_validation_epoch_end(self) -> None:
        if self.trainer.sanity_checking:
            return
        if self._not_finite:
            log.warning(
                "for %s of validation, such as id %s, the network gives NaN or infinite boxes or scores, which mAP "
                "leaves out; bench and boards refuse such a network. Lower train.lr, or train.precision=fp32",
                counted(len(self._not_finite), "image"),
                min(self._not_finite),
            )
        for (source, coco), seen in zip(self._val.items(), self._gather(), strict=True):
            metrics = evaluate_detections(coco, seen)
            prefix = f"val/{source}/" if source else "val/"
            self.log(f"{prefix}map50", metrics.map50, prog_bar=True, rank_zero_only=True)
            self.log(f"{prefix}map", metrics.map, rank_zero_only=True)
            for name, values in metrics.per_class.items():
                self.log(f"{prefix}ap50/{name}", values["ap50"], rank_zero_only=True)

    def _gather(self) -> list[dict[int, Detections]]:
        """What all processes saw of each validation set."""
        if self.trainer.world_size == 1:
            return self._seen
        parts: list[Any] = [None] * self.trainer.world_size
        torch.distributed.all_gather_object(parts, self._seen)
        return [
            {image_id: found for part in of_one_set for image_id, found in part.items()}
            for of_one_set in zip(*parts, strict=True)
        ]


def keeps_statistics(recipe: Recipe) -> bool:
    """Whether batch normalisation trains with the statistics that it starts with."""
    return recipe.train.freeze_norm or recipe.quantization_aware is not None


def lr_factor(schedule: ScheduleSection, step: int, steps_per_epoch: int, epochs: int) -> float:
    """Share of the base learning rate at an optimiser step: a rise, then decay by steps, a cosine or a power."""
    start, power = schedule.warmup_from, schedule.warmup_power
    warmup = start + (1 - start) * min(1.0, (step + 1) / (schedule.warmup_steps + 1)) ** power
    epoch = step / steps_per_epoch
    if schedule.kind == "step":
        return warmup * 0.1 ** sum(epoch >= drop for drop in schedule.drops)
    if schedule.kind == "exponential":
        return warmup * schedule.rate ** (epoch // schedule.every)
    progress = min(1.0, epoch / epochs)
    return warmup * (schedule.final + (1 - schedule.final) * (1 + math.cos(math.pi * progress)) / 2)
