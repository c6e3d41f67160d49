"""What a training tells while it runs: the table of metrics, waiting for data, progress, that it diverged."""

from __future__ import annotations

import contextlib
import csv
import logging
import math
import time
import warnings
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import lightning.pytorch as lightning
import torch
from lightning.pytorch.callbacks import Callback
from lightning.pytorch.loggers.logger import Logger
from lightning.pytorch.utilities.rank_zero import rank_zero_only
from torch import Tensor

from ..data.dataset import WatchedLoader
from ..progress import Progress
from ..runtime.artifact import new_file
from ..runtime.errors import BadConfig

MOST_WAITING = 0.05  # share of a step's time above which the loader is too slow

log = logging.getLogger(__name__)

# Lightning's remarks that nobody who runs a recipe can act on
_REMARKS = (
    r".*LeafSpec.*",
    r".*does not have many workers.*",  # DataWait measures what this guesses
    r".*in eval mode at the start of training.*",  # the weight average is
    r".*Checkpoint directory .* exists and is not empty.*",
    r".*smaller than the logging interval.*",
    r".*recommended to use `self\.log\(.*sync_dist=True.*",  # what is not reduced, one process logs
    r"Total length of `list` across ranks is zero.*",  # a recipe without a validation set
)


@contextlib.contextmanager
def without_remarks() -> Iterator[None]:
    """Silence Lightning's advertisements and habitual remarks; its other warnings are shown."""
    loggers = [logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric")]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.WARNING)
    try:
        with warnings.catch_warnings():
            for message in _REMARKS:
                warnings.filterwarnings("ignore", message=message)
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


class MetricsTable(Logger):
    """metrics.csv: one row per optimiser step at which something was logged, by ascending step.

    until: keep an earlier table's rows before this step, so that a resumed training continues its table. The file is
    replaced whole at every row, so that it can be read at any moment.
    """

    def __init__(self, file: Path, until: int = 0) -> None:
        super().__init__()
        self.file = file
        self._rows: dict[int, dict[str, Any]] = {}
        if until and file.is_file():
            with file.open(newline="", encoding="utf-8") as handle:
                rows = {int(row["step"]): row for row in csv.DictReader(handle)}
            self._rows = {step: {k: v for k, v in row.items() if v} for step, row in rows.items() if step < until}

    @property
    def name(self) -> str:
        return ""

    @property
    def version(self) -> str:
        return ""

    def log_hyperparams(self, *_: Any, **__: Any) -> None:
        """The published checkpoint's manifest holds the recipe."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        self._rows.setdefault(step or 0, {"step": step or 0}).update({k: f"{v:.6g}" for k, v in metrics.items()})
        names = sorted({name for row in self._rows.values() for name in row} - {"epoch", "step"})
        with new_file(self.file) as handle:
            table = csv.DictWriter(handle, ["epoch", "step", *names], lineterminator="\n")
            table.writeheader()
            table.writerows(row for _, row in sorted(self._rows.items()))


class DataWait(Callback):
    """Logs the seconds of an epoch's steps and the share of them spent waiting for the loader, and warns above 5 %."""

    def __init__(self) -> None:
        self._began = self._ended = time.perf_counter()
        self._waited = 0.0
        self._warned = False

    def on_train_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._begin(trainer)

    def on_train_epoch_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._begin(trainer)

    def _begin(self, trainer: lightning.Trainer) -> None:
        self._began = self._ended = time.perf_counter()
        self._waited = _loader(trainer).waited

    def on_train_batch_end(self, *_: Any) -> None:
        self._ended = time.perf_counter()  # what comes after the last step, validation, is not the loader's time

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        seconds = self._ended - self._began
        if not seconds:  # a resumed training closes the epoch it was saved in
            return
        share = (_loader(trainer).waited - self._waited) / seconds
        module.log("train/seconds", seconds, rank_zero_only=True)
        module.log("train/data_wait", share, rank_zero_only=True)
        # the first epoch also starts the loader's workers
        if share > MOST_WAITING and trainer.current_epoch and not self._warned and trainer.is_global_zero:
            self._warned = True
            log.warning("training waits %.0f %% of the time for data; more train.workers may help", 100 * share)


def _loader(trainer: lightning.Trainer) -> WatchedLoader:
    loader = trainer.train_dataloader
    assert isinstance(loader, WatchedLoader)
    return loader


class FirstOdd:
    """Remembers, on the device, at which step each term of the loss was first no finite number.

    A step is no sign of harm by itself: fp16 skips those whose gradients overflow.
    """

    def __init__(self) -> None:
        self._names: list[str] = []
        self._steps = torch.zeros(0)

    def see(self, terms: Mapping[str, Tensor], step: int) -> None:
        """Called with every step's terms; asks nothing of the device."""
        values = torch.stack([value.detach().float() for value in terms.values()])
        if [*terms] != self._names:
            self._names, self._steps = [*terms], torch.full_like(values, torch.inf)
        self._steps = torch.where(values.isfinite(), self._steps, self._steps.clamp(max=step))

    def __str__(self) -> str:
        steps = self._steps.tolist()
        first = min(steps, default=math.inf)
        names = [name for name, step in zip(self._names, steps, strict=True) if step == first != math.inf]
        return f"; first not finite: {', '.join(names)}, step {first:.0f}" if names else ""


class StaysFinite(Callback):
    """Raises BadConfig at an epoch's end where weights are no finite numbers: nothing comes of them any more.

    They are those that would be validated and published: before that, and before the epoch is kept for a resume.
    """

    def on_validation_start(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._look(trainer, module)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        self._look(trainer, module)

    def _look(self, trainer: lightning.Trainer, module: Any) -> None:
        weights = [value for value in module.average.model.state_dict().values() if value.is_floating_point()]
        if bool(torch.stack([value.isfinite().all() for value in weights]).all()):
            return
        precision = "" if trainer.precision == "32-true" else ", train.precision=fp32"
        raise BadConfig(
            f"the training diverged: after epoch {trainer.current_epoch + 1}, step {trainer.global_step}, weights are "
            f"no finite numbers{module.odd}. Nothing of this epoch was kept. Start again, without --resume, with a "
            f"lower train.lr (now {module.recipe.train.lr:g}), train.clip_norm=10{precision} or a longer warm-up, "
            "train.schedule.warmup_steps"
        )


class Report(Callback):
    """Forwards steps to a progress callback, with the last epoch's loss, and its mAP@0.5 where it was validated."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress
        self._phase = "train"

    def on_train_batch_end(self, trainer: lightning.Trainer, *_: Any) -> None:
        self._tell(trainer)

    def on_train_epoch_end(self, trainer: lightning.Trainer, module: lightning.LightningModule) -> None:
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        epoch, epochs = trainer.current_epoch + 1, trainer.max_epochs
        words = [f"train, epoch {epoch}/{epochs}", f"loss {metrics['train/loss']:.4g}"]
        if epoch % (trainer.check_val_every_n_epoch or 1) == 0:
            words += [
                f"{' '.join(['val', *name.split('/')[1:-1]])} mAP@0.5 {value:.3f}"
                for name, value in metrics.items()
                if name.startswith("val/") and name.endswith("/map50")
            ]
        self._phase = ", ".join(words)
        self._tell(trainer)

    def _tell(self, trainer: lightning.Trainer) -> None:
        if trainer.is_global_zero:
            self._progress(self._phase, trainer.global_step, int(trainer.estimated_stepping_batches))
