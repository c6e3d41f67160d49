"""Run a training: read the data, build the networks, hand them to Lightning, publish the averaged weights."""

from __future__ import annotations

import contextlib
import logging
import os
import signal
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from lightning.pytorch.loggers import TensorBoardLogger
from lightning.pytorch.utilities.exceptions import SIGTERMException

from ..data.coco import CocoSet
from ..data.sources import Mixture, Source, recipe_sources, source_notes, trained_sources
from ..models.checkpoint import checkpoint_manifest, load_weights, write_checkpoint
from ..models.detector import Detector
from ..models.zoo import bound_to_size, build
from ..progress import Progress
from ..recipe import Recipe, TeacherSection, load_recipe, shipped_weights
from ..runtime.artifact import Artifact, file_sha256, read_artifact
from ..runtime.errors import BadConfig, BadInput, ChildDied
from .backbone import start_backbone
from .batches import DetectionData, Validation
from .compiling import compile_network
from .depthwise import quicken
from .module import DetectorModule, keeps_statistics
from .origin import named_weights, other_network, trained_as
from .place import RESUME, only_training, training_folder
from .qat import calibration_images
from .resume import STAMP, Start, WholeFiles, begin, require_training, stamp, what_is_kept
from .tasks import task_of
from .transfer import PIXELS, other_pixels, start_from
from .watch import DataWait, MetricsTable, Report, StaysFinite, without_remarks

log = logging.getLogger(__name__)

TERMINATED = 128 + signal.SIGTERM  # what a shell reports
PRECISIONS = {"fp32": "32-true", "bf16": "bf16-mixed", "fp16": "16-mixed"}  # ours -> Lightning's


def fit(recipe: Recipe, out: Path, resume: bool = False, progress: Progress | None = None) -> Artifact:
    """Train ``recipe`` and publish a ``checkpoint`` artifact at ``out``; logs and resume file are in ``out``-training.

    The artifact is renewed at every validation, so an interrupted training leaves the newest validated weights.
    resume: go on from the last finished epoch; the weights are then those of a training that was never interrupted.
    progress: called with ("train", steps done, steps in all)

    Under torchrun every process calls it; the first one writes. Raises EdgeKitError for what a user can mend, and
    KeyboardInterrupt for Ctrl-C, with words on what there is to go on from.
    """
    work = training_folder(out)
    if resume:
        require_training(work)
    _check_precision(recipe)
    with only_training(work) if _writes() else contextlib.nullcontext():
        _train(recipe, out, work, resume, progress)
    return read_artifact(out, kinds=("checkpoint",))


def _train(recipe: Recipe, out: Path, work: Path, resume: bool, progress: Progress | None) -> None:
    devices, nodes = _processes(os.environ)
    sources = recipe_sources(recipe)
    _warn(source_notes(sources, recipe.classes))
    train, val = _sets(recipe, sources)
    module, data, parents = prepare(recipe, train, val, devices * nodes)
    with without_remarks(), one_cv2_thread():
        parents = {"train": train.digest(), **parents}
        start = begin(work, recipe, devices * nodes, resume, _writes(), parents, out)
        if start.step >= recipe.train.epochs * data.steps_per_epoch and _writes():
            log.warning("this training had reached its end, epoch %d, before; nothing was trained", recipe.train.epochs)
        if start.file is None:
            anew = ["no epoch of this training was finished before; it begins anew"] if resume else []
            _warn([*anew, *_from_nothing(recipe)])
        publish = Publish(recipe, data, start.parents, out)
        callbacks = [StaysFinite(), publish, DataWait(), *([Report(progress)] if progress else [])]
        trainer = _trainer(recipe, work, start, callbacks, devices, nodes)
        with _interruptible(trainer, work / RESUME):
            trainer.fit(module, datamodule=data, ckpt_path=start.file, weights_only=True)
            publish.finish(trainer, module)


def training_sets(recipe: Recipe) -> tuple[CocoSet | Mixture, Validation]:
    """The recipe's training set and, if it names one, its validation set; those of all sources if it has several."""
    return _sets(recipe, recipe_sources(recipe))


def _sets(recipe: Recipe, sources: Sequence[Source]) -> tuple[CocoSet | Mixture, Validation]:
    if recipe.data is not None and not recipe.data.sources:
        (source,) = sources
        assert source.train is not None
        return source.train, source.val
    trained = trained_sources(recipe, sources)
    return Mixture(trained, recipe.classes), {source.name: source.val for source in sources if source.val is not None}


def _writes() -> bool:
    """Whether this process of a distributed training is the one that writes and speaks."""
    return os.environ.get("RANK", "0") == "0"


def _warn(notes: Iterable[str]) -> None:
    """Say what a user should know, once for all processes."""
    for note in notes if _writes() else ():
        log.warning("%s", note)


# -- networks ---------------------------------------------------------------------------------------------------------
class Prepared(NamedTuple):
    """What a training trains. parents: SHA-256 of the weights that were read, by role"""

    module: DetectorModule
    data: DetectionData
    parents: dict[str, str]


def prepare(recipe: Recipe, train: CocoSet | Mixture, val: Validation = None, processes: int = 1) -> Prepared:
    """A recipe's network as ``fit`` trains it, with its losses, its teacher and its batches. Raises EdgeKitError."""
    model, teacher, parents = _networks(recipe)
    collate = task_of(model, recipe.model.name).collate(recipe, model)
    data = DetectionData(recipe, train, val, collate, processes)
    if not (torch.cuda.is_available() or recipe.train.compile or recipe.quantization_aware):
        quicken(model)
    module = DetectorModule(recipe, model, train.class_counts().tolist(), data.steps_per_epoch, val, teacher)
    if recipe.train.compile:
        compile_network(model)
    if module.rounding is not None and recipe.quantization_aware is not None:
        count = recipe.quantization_aware.images
        module.rounding.watch(model, calibration_images(data.train.sets, data.preprocess, count, module._normalise))
    return Prepared(module, data, parents)


def _networks(recipe: Recipe) -> tuple[Detector, Detector | None, dict[str, str]]:
    """The network to train, its teacher if it has one, and ``Prepared.parents``."""
    lightning.seed_everything(recipe.train.seed, verbose=False)
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size)
    task = task_of(model, recipe.model.name)
    task.check(recipe)
    _check_sizes(recipe)
    task.prepare(recipe, model)
    parents, notes = _begin(model, recipe)
    _warn([*notes, *_idle_schedule(recipe)])
    if recipe.teacher is None:
        return model, None, parents
    teacher, parents["teacher"] = _teacher(recipe.teacher, recipe)
    return model, teacher, parents


def _idle_schedule(recipe: Recipe) -> list[str]:
    """What to say of a step schedule whose steps all lie behind the training's end, as the default's in a short one."""
    drops = recipe.train.schedule.drops
    if recipe.train.schedule.kind != "step" or not drops or min(drops) < recipe.train.epochs:
        return []
    return [
        f"train.schedule never lowers the rate: its drops, {', '.join(map(str, drops))}, come after the last epoch, "
        f"{recipe.train.epochs}. For a short training: train.schedule.kind=cosine"
    ]


def _begin(model: Detector, recipe: Recipe) -> tuple[dict[str, str], list[str]]:
    """Load what the recipe starts from into a new network: the hash of its file by role, and what is to be said."""
    name = recipe.train.init or recipe.train.init_backbone
    if name is None:
        return {}, []
    file = named_weights(recipe, name)
    try:
        if recipe.train.init:
            role, notes = "init", start_from(model, recipe, file)
        else:
            role, notes = "backbone", [start_backbone(model, file)]
    except BadInput as error:
        raise BadInput(f"{error}{other_network(recipe, file)}") from error
    return {role: file_sha256(file)}, [*notes, *other_pixels(recipe, name)]


def _from_nothing(recipe: Recipe) -> list[str]:
    """What to say of a training that leaves the shipped weights of its own recipe aside."""
    if recipe.train.init or recipe.train.init_backbone or recipe.name not in shipped_weights():
        return []
    return [f"starts from random weights; to start from those that ship: train.init={recipe.name}"]


def _check_precision(recipe: Recipe) -> None:
    """Raises BadConfig for a precision that this machine cannot train in; Lightning would take another one."""
    if recipe.train.precision == "fp16" and not torch.cuda.is_available():
        raise BadConfig("train.precision=fp16 needs a GPU, and there is none. Here: train.precision=bf16, or fp32")


def _check_sizes(recipe: Recipe) -> None:
    """Raises BadConfig for other input sizes than preprocess.size where the anchors are made for that one."""
    if not bound_to_size(recipe.model.name):
        if recipe.augment.crop and recipe.train.multiscale:
            raise BadConfig("augment.crop and train.multiscale both say how large training images are; choose one")
        return
    for key, wanted in (("augment.crop", recipe.augment.crop), ("train.multiscale", recipe.train.multiscale)):
        if wanted:
            raise BadConfig(
                f"{key}: the anchors of {recipe.model.name} are made for preprocess.size alone; leave it out"
            )


def _teacher(section: TeacherSection, student: Recipe) -> tuple[Detector, str]:
    path = student.trained(section.weights)
    recipe = _taught_by(section, path, student)
    for what, theirs, ours in (
        ("classes", recipe.classes, student.classes),
        *((f"preprocess.{key}", getattr(recipe.preprocess, key), getattr(student.preprocess, key)) for key in PIXELS),
    ):
        if theirs != ours:
            raise BadConfig(
                f"teacher {recipe.name} and student {student.name} see the same input and must agree on {what}: "
                f"{theirs} against {ours}"
            )
    size, seen = recipe.preprocess.size, student.preprocess.size
    if bound_to_size(recipe.model.name) and size != seen:
        raise BadConfig(
            f"teacher {recipe.name}: its anchors are made for inputs of {size[0]}x{size[1]}, and it sees those of its "
            f"student, {seen[0]}x{seen[1]}. Give a teacher that was trained with preprocess.size=[{seen[0]},{seen[1]}]"
        )
    model = build(recipe.model.name, len(recipe.classes), recipe.model.options, size)
    if not path.exists():
        raise BadInput(
            f"{path}: no such weights of the teacher. Train it: edgekit train {section.recipe}; or say where they are: "
            f"edgekit train {student.name} teacher.weights=CHECKPOINT"
        )
    file = named_weights(student, section.weights)
    load_weights(model, file, student.classes)
    return model, file_sha256(file)


def _taught_by(section: TeacherSection, path: Path, student: Recipe) -> Recipe:
    """The teacher's recipe: what its weights say, else what the section names."""
    if found := trained_as(path):
        return found
    if section.recipe is None:
        file = named_weights(student, section.weights)
        raise BadConfig(
            f"teacher.recipe: not set, and {file} does not say which network its weights are of. Name the recipe that "
            f"they were trained with: teacher.recipe=RECIPE"
        )
    beside = student.folder / section.recipe
    return load_recipe(beside if beside.exists() else section.recipe)


# -- Lightning --------------------------------------------------------------------------------------------------------
def _processes(environment: Mapping[str, str]) -> tuple[int, int]:
    """Processes on this machine, and machines, as torchrun says; without it, one process.

    Raises BadConfig for more processes than GPUs, where there are any: each takes one.
    """
    if not torch.distributed.is_torchelastic_launched():
        return 1, 1
    here = int(environment["LOCAL_WORLD_SIZE"])
    if torch.cuda.is_available() and here > (gpus := torch.cuda.device_count()):
        raise BadConfig(
            f"torchrun started {here} processes, each of which needs a GPU, and this machine has {gpus}: "
            f"torchrun --nproc-per-node={gpus}"
        )
    return here, int(environment["WORLD_SIZE"]) // here


def _trainer(
    recipe: Recipe, work: Path, start: Start, callbacks: list[Callback], devices: int, nodes: int
) -> lightning.Trainer:
    train = recipe.train
    gpu = torch.cuda.is_available()
    automatic = "fp16" if gpu and recipe.quantization_aware is None else "fp32"
    precision = automatic if train.precision == "auto" else train.precision
    keep = ModelCheckpoint(work, Path(RESUME).stem, save_on_train_epoch_end=True, enable_version_counter=False)
    return lightning.Trainer(
        accelerator="gpu" if gpu else "cpu",
        devices=devices,
        num_nodes=nodes,
        precision=PRECISIONS[precision],  # type: ignore[arg-type]
        max_epochs=train.epochs,
        gradient_clip_val=train.clip_norm or None,
        check_val_every_n_epoch=train.validate_every,
        num_sanity_val_steps=0,
        # a CPU has none, and norms that keep their statistics have nothing to share
        sync_batchnorm=gpu and not keeps_statistics(recipe),
        use_distributed_sampler=False,  # EpochSampler splits the epoch itself
        enable_progress_bar=not any(isinstance(c, Report) for c in callbacks),
        enable_model_summary=False,
        logger=[
            MetricsTable(work / "metrics.csv", start.step),
            TensorBoardLogger(work, name="", version="", purge_step=start.step or None),
        ],
        log_every_n_steps=1,  # metrics are logged by epoch
        callbacks=[*callbacks, keep],
        plugins=[WholeFiles()],
    )


@contextlib.contextmanager
def one_cv2_thread() -> Iterator[None]:
    """OpenCV computes in the calling thread: the network wants the cores, and the loader's workers are forked.

    A fork does not copy the threads of OpenCV's pool, so a worker that needs the pool, or ends it, waits for ever.
    """
    before = cv2.getNumThreads()
    cv2.setNumThreads(1)
    try:
        yield
    finally:
        cv2.setNumThreads(before)


@contextlib.contextmanager
def _interruptible(trainer: lightning.Trainer, file: Path) -> Iterator[None]:
    """Ctrl-C raises KeyboardInterrupt, SIGTERM ends with its exit code, and a dead loader is told as what it is.

    file: to resume from, if the training got so far, which KeyboardInterrupt tells, and a warning before SIGTERM's end

    Lightning makes SystemExit(1) of the one and leaves further Ctrl-C ignored, and SystemExit(0) of the other. A signal
    to the whole group, as timeouts and schedulers send it, also ends the loader's processes, and PyTorch makes a
    RuntimeError of theirs before Lightning sees ours. Raises ChildDied if one of them dies of something else.
    """
    own = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGINT)
    try:
        yield
    except SIGTERMException as error:
        raise _terminated(file) from error
    except (KeyboardInterrupt, SystemExit) as error:
        if isinstance(error, KeyboardInterrupt) or isinstance(error.__context__, KeyboardInterrupt):
            raise KeyboardInterrupt(what_is_kept(file)) from error
        if error.code == TERMINATED:  # by a handler that was there before, as the command line's is
            raise _terminated(file) from error
        raise
    except (RuntimeError, ConnectionError) as error:
        # ConnectionError: the process died between sending a batch and handing over its memory
        if not (isinstance(error, ConnectionError) or str(error).startswith("DataLoader worker")):
            raise
        if trainer.received_sigterm or "Terminated" in str(error):
            raise _terminated(file) from error
        raise ChildDied(
            f"a process that loads training images died ({error}). Most often memory ran out, or /dev/shm in a "
            "container. Go on with fewer of them: the same command with --resume train.workers=0"
        ) from error
    finally:
        if own:
            signal.signal(signal.SIGINT, handler)


def _terminated(file: Path) -> SystemExit:
    """The end by SIGTERM, after a word on what there is to go on from: SystemExit itself has room for a code alone."""
    _warn([f"terminated; {what_is_kept(file)}"])
    return SystemExit(TERMINATED)


class Publish(Callback):
    """Writes the averaged weights as a checkpoint artifact at every validation, and into a resume file whose it is."""

    def __init__(self, recipe: Recipe, data: DetectionData, parents: Mapping[str, str], out: Path) -> None:
        self.recipe, self.data, self.parents, self.out = recipe, data, dict(parents), out
        self._published = -1  # steps behind the weights that were published last

    def on_validation_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        assert isinstance(module, DetectorModule)
        self._write(trainer, module)

    def on_save_checkpoint(
        self, trainer: lightning.Trainer, module: lightning.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        checkpoint[STAMP] = stamp(self.recipe, trainer.world_size, self.parents)

    def finish(self, trainer: lightning.Trainer, module: DetectorModule) -> None:
        """Publish the last weights, with metrics of their own, unless the last epoch was validated."""
        if self._published != int(module.average.steps):
            if not self.data.val:
                self._write(trainer, module)
            else:
                trainer.validate(module, datamodule=self.data, verbose=False)
        trainer.strategy.barrier("published")  # nobody reads before it is written

    def _write(self, trainer: lightning.Trainer, module: DetectorModule) -> None:
        steps = self._published = int(module.average.steps)
        if not trainer.is_global_zero:
            return
        manifest = checkpoint_manifest(self.recipe, self.data.train.category_ids)
        manifest["metrics"] = {
            **self._metrics(trainer),
            "epochs": steps // self.data.steps_per_epoch,
            "steps": steps,
        }
        manifest["parents"] = self.parents
        write_checkpoint(self.out, module.average.model, manifest)

    def _metrics(self, trainer: lightning.Trainer) -> dict[str, Any]:
        prefix = "val/"
        measured = trainer.callback_metrics.items()
        return {k.removeprefix(prefix): round(float(v), 6) for k, v in measured if k.startswith(prefix)}
