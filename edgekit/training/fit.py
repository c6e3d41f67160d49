"""Run a training: read the data, build the networks, hand them to Lightning, publish the averaged weights."""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import safetensors
import safetensors.torch
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger

from ..data.coco import CocoSet, read_coco
from ..models.detector import Detector
from ..models.zoo import build
from ..recipe import Recipe, TeacherSection, load_recipe
from ..runtime.artifact import Artifact, file_sha256, new_artifact, read_artifact, value_sha256
from ..runtime.errors import ArtifactError, BadConfig, BadInput
from .module import DetectionData, DetectorModule

Progress = Callable[[str, int, int], None]
RESUME = "resume.ckpt"


def fit(recipe: Recipe, out: Path, resume: bool = False, progress: Progress | None = None) -> Artifact:
    """Train ``recipe`` and publish a ``checkpoint`` artifact at ``out``; logs and the resume file lie in ``out``-training.

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


# -- weights ---------------------------------------------------------------------------------------------------------
def weights_file(path: Path) -> Path:
    """The safetensors file of a checkpoint artifact (verified), or the file itself."""
    if path.is_dir():
        return Path(read_artifact(path, kinds=("checkpoint",)).file("weights.safetensors"))
    if not path.is_file():
        raise BadInput(f"{path}: no such weights. Train them, or name a checkpoint folder or a .safetensors file.")
    return path


def load_weights(model: Detector, file: Path, classes: tuple[str, ...] | list[str]) -> None:
    """Load a safetensors file into ``model``; BadInput names the file and the first tensors that do not fit."""
    try:
        state = safetensors.torch.load_file(file)
    except (safetensors.SafetensorError, OSError) as error:
        raise BadInput(f"{file}: cannot be read as safetensors ({error}). Copy or train it again.") from error
    stored = _stored_classes(file)
    if stored and list(stored) != list(classes):
        raise BadInput(
            f"{file}: trained for the classes {', '.join(stored)}; the recipe has {', '.join(classes)}. "
            f"Use weights and recipe that belong together."
        )
    own = model.state_dict()
    wrong = [
        f"{name}: {'missing' if name not in state else 'not in the network' if name not in own else _shapes(state, own, name)}"
        for name in sorted(own.keys() | state.keys())
        if name not in state or name not in own or state[name].shape != own[name].shape
    ]
    if wrong:
        raise BadInput(f"{file}: does not fit the network ({len(wrong)} tensors): " + "; ".join(wrong[:3]))
    model.load_state_dict(state)


def _shapes(state: dict[str, torch.Tensor], own: dict[str, torch.Tensor], name: str) -> str:
    return f"shape {list(state[name].shape)}, needed {list(own[name].shape)}"


def _stored_classes(file: Path) -> list[str]:
    with safetensors.safe_open(file, framework="pt") as handle:  # type: ignore[no-untyped-call]
        text = (handle.metadata() or {}).get("classes", "")
    return text.split("\n") if text else []


def save_weights(model: torch.nn.Module, file: Path, classes: tuple[str, ...]) -> None:
    """All tensors as contiguous float32 (or integer) safetensors, with the class list in the header."""
    state = {k: v.detach().cpu().contiguous() for k, v in model.state_dict().items()}
    safetensors.torch.save_file(state, file, metadata={"classes": "\n".join(classes)})


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
        with new_artifact(self.out, "checkpoint", manifest) as folder:
            save_weights(module.average.model, Path(folder) / "weights.safetensors", self.recipe.classes)


def checkpoint_manifest(recipe: Recipe, category_ids: tuple[int, ...] | None = None) -> dict[str, Any]:
    """The manifest of a checkpoint made by ``recipe``."""
    resolved = recipe.model_dump(mode="json")
    return {
        "key": value_sha256({"recipe": resolved}),
        "parents": {},
        "recipe": resolved,
        "classes": list(recipe.classes),
        "category_ids": list(category_ids or range(1, len(recipe.classes) + 1)),
        "preprocess": recipe.preprocess.value().to_dict(),
        "tools": {"torch": torch.__version__, "lightning": lightning.__version__},
        "metrics": {},
    }


def shipped_checkpoint(recipe: Recipe, out: Path) -> Artifact:
    """Make a checkpoint artifact from the weights that ship beside a recipe."""
    if recipe.weights is None:
        raise BadInput(f"recipe {recipe.name} ships no weights. Train it first: edgekit train {recipe.name}")
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options)
    load_weights(model, recipe.weights, recipe.classes)
    manifest = checkpoint_manifest(recipe)
    manifest["parents"] = {"weights": file_sha256(recipe.weights)}
    with new_artifact(out, "checkpoint", manifest) as folder:
        save_weights(model, Path(folder) / "weights.safetensors", recipe.classes)
    return read_artifact(out, kinds=("checkpoint",))


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
