"""Run a training: read the data, build the networks, hand them to Lightning, publish the averaged weights."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..data.coco import CocoSet, read_coco
from ..models.checkpoint import checkpoint_manifest, load_weights, weights_file, write_checkpoint
from ..models.detector import Detector
from ..models.zoo import build
from ..recipe import Recipe, TeacherSection, load_recipe
from ..runtime.artifact import Artifact, read_artifact
from ..runtime.errors import ArtifactError, BadConfig, BadInput
from .module import DetectionData, DetectorModule

Progress = Callable[[str, int, int], None]
RESUME = "resume.ckpt"


def fit(recipe: Recipe, out: Path, resume: bool = False, progress: Progress | None = None) -> Artifact:
    """Train ``recipe`` and publish a ``checkpoint`` artifact at ``out``; logs and resume file are in ``out``-training.

    The artifact is renewed at every validation, so an interrupted training leaves the newest validated weights.
    resume: go on from the last finished epoch; the weights are then those of a training that was never interrupted.
    """
    work = out.with_name(out.name + "-training")
    train, val = training_sets(recipe)
    lightning.seed_everything(recipe.train.seed, verbose=False)
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options)
    if recipe.train.init:
        load_weights(model, weights_file(recipe.resolve(recipe.train.init)), recipe.classes)
    teacher = _teacher(recipe.teacher, recipe) if recipe.teacher else None
    module = DetectorModule(recipe, model, train.class_counts().tolist(), val, teacher)
    publish = Publish(recipe, train, out)
    trainer = _trainer(recipe, work, [publish, DataWait(), *([Report(progress)] if progress else [])])
    trainer.fit(
        module, datamodule=DetectionData(recipe, train, val), ckpt_path=_resume_file(work, resume), weights_only=True
    )
    if trainer.interrupted:
        raise KeyboardInterrupt
    publish.write(trainer, module)
    return read_artifact(out, kinds=("checkpoint",))


def training_sets(recipe: Recipe) -> tuple[CocoSet, CocoSet | None]:
    """The recipe's training set and, if it names one, its validation set."""
    if recipe.data is None or recipe.data.train is None:
        raise BadConfig(f"recipe {recipe.name}: data.train is not set; it names the COCO file to train on")
    root = recipe.resolve(recipe.data.root)
    if not root.is_dir():
        raise BadInput(
            f"{root}: no such folder. Recipe {recipe.name} looks for its data there; say where yours is: "
            f"edgekit train {recipe.name} data.root=FOLDER"
        )
    images = root / recipe.data.images
    train = read_coco(root / recipe.data.train, images, recipe.classes)
    val = read_coco(root / recipe.data.val, images, recipe.classes) if recipe.data.val else None
    return train, val


def _trainer(recipe: Recipe, work: Path, callbacks: list[Callback]) -> lightning.Trainer:
    train = recipe.train
    gpu = torch.cuda.is_available()
    precision = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed", "auto": "16-mixed" if gpu else "32-true"}
    keep = ModelCheckpoint(
        dirpath=work, filename=Path(RESUME).stem, save_on_train_epoch_end=True, enable_version_counter=False
    )
    warnings.filterwarnings("ignore", message=".*does not have many workers.*")
    warnings.filterwarnings("ignore", message=".*in eval mode at the start of training.*")  # the average is
    warnings.filterwarnings("ignore", message=".*isn't.*necessary.*|.*Checkpoint directory.*exists")
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices="auto" if gpu else 1,
        precision=precision[train.precision],  # type: ignore[arg-type]
        max_epochs=train.epochs,
        gradient_clip_val=train.clip_norm or None,
        check_val_every_n_epoch=train.validate_every,
        num_sanity_val_steps=0,
        sync_batchnorm=gpu,
        use_distributed_sampler=False,  # EpochSampler splits the epoch itself
        enable_progress_bar=not any(isinstance(c, Report) for c in callbacks),
        logger=[CSVLogger(work, name="", version=""), TensorBoardLogger(work, name="", version="")],
        callbacks=[*callbacks, keep],
        enable_model_summary=False,
        log_every_n_steps=20,
    )


def _resume_file(work: Path, resume: bool) -> Path | None:
    file = work / RESUME
    if not resume:
        return None
    if not file.is_file():
        raise ArtifactError(f"{file}: nothing to resume from. Start the training without --resume.")
    return file


def _teacher(section: TeacherSection, student: Recipe) -> Detector:
    recipe = load_recipe(section.recipe)
    if recipe.classes != student.classes:
        raise BadConfig(
            f"teacher {recipe.name} knows the classes {', '.join(recipe.classes)}; "
            f"its student {student.name} needs {', '.join(student.classes)}"
        )
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options)
    load_weights(model, weights_file(student.resolve(section.weights)), student.classes)
    return model


class Publish(Callback):
    """Writes the averaged weights as a checkpoint artifact at every validation."""

    def __init__(self, recipe: Recipe, train: CocoSet, out: Path) -> None:
        self.recipe, self.train_set, self.out = recipe, train, out

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, DetectorModule)
        if not trainer.sanity_checking:
            self.write(trainer, module)

    def write(self, trainer: lightning.Trainer, module: DetectorModule) -> None:
        if not trainer.is_global_zero:
            return
        metrics = {
            k.removeprefix("val/"): round(float(v), 6) for k, v in trainer.callback_metrics.items() if "val/" in k
        }
        manifest = checkpoint_manifest(self.recipe, self.train_set.category_ids)
        manifest["metrics"] = {
            **metrics,
            "epochs": int(module.average.steps) // max(1, int(trainer.num_training_batches)),
            "steps": trainer.global_step,
        }
        manifest["parents"] = {"train": self.train_set.digest()}
        write_checkpoint(self.out, module.average.model, manifest)


# -- watching --------------------------------------------------------------------------------------------------------
class DataWait(Callback):
    """Logs which share of an epoch the step waited for the loader; under 5 % is the goal."""

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._start = self._last = time.perf_counter()
        self._waited = 0.0

    def on_train_batch_start(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._waited += time.perf_counter() - self._last

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._last = time.perf_counter()

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        seconds = time.perf_counter() - self._start
        module.log("train/data_wait", self._waited / seconds, rank_zero_only=True)
        module.log("train/seconds", seconds, rank_zero_only=True)


class Report(Callback):
    """Forwards steps to a progress callback."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        total = int(trainer.estimated_stepping_batches)
        self._progress(f"train, epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", trainer.global_step, total)
