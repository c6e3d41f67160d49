"""How each family of heads is trained: the targets of a batch, and a loss with named terms.

A detector names its family (``Detector.task``); everything else in the training is the same for all. A new family of
heads is a module here and a line in TASKS.
"""

from __future__ import annotations

from collections.abc import Mapping

from ...models.detector import Detector
from ...runtime.errors import BadConfig
from .anchors import AnchorTask
from .base import Task
from .center import CenterTask
from .proposals import ProposalTask
from .refine import RefineTask
from .yolo import YoloTask

TASKS: Mapping[str, Task] = {
    "center": CenterTask(),
    "anchors": AnchorTask(),
    "refine": RefineTask(),
    "proposals": ProposalTask(),
    "yolo": YoloTask(),
}


def task_of(model: Detector, name: str) -> Task:
    """How ``model``, which a recipe calls ``name``, is trained. Raises BadConfig for one that cannot be."""
    if model.task not in TASKS:
        raise BadConfig(f"model.name: {name} cannot be trained: nothing is known of its targets and losses")
    return TASKS[model.task]
