"""What a family of heads brings to a training."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import torch
from torch import Tensor, nn

from ...data.dataset import Item
from ...models.detector import Detector
from ...models.heads.anchor import Activation
from ...recipe import ClassWeightSection, Recipe
from ...runtime.errors import BadConfig
from ..losses import class_weights

# a count of this process's batch -> the number to divide its sums by: of all processes together, per process, not 0
Share: TypeAlias = Callable[[Tensor], Tensor]
Collate: TypeAlias = Callable[[Sequence[Item]], tuple[Tensor, Any]]

SECTIONS = ("loss", "anchor_loss", "yolo_loss")  # of a recipe, each for some families


class Responses(NamedTuple):
    """What a head says of every place, for response distillation; A heat map pixels or anchors.

    logits: [N, A, K];  activation: "softmax" if the K exclude each other, background first, else "sigmoid"
    boxes: [N, A, 4] xyxy, or None where places have none;  foreground: [N, A], how likely an object is there, 0..1
    """

    logits: Tensor
    activation: Activation
    boxes: Tensor
    foreground: Tensor


class Task(ABC):
    """One family of heads. section: the recipe's section of its losses;  unread: fields of ``distillation``"""

    section = "anchor_loss"
    unread: tuple[str, ...] = ("divergence",)

    @abstractmethod
    def collate(self, recipe: Recipe, model: Detector) -> Collate:
        """What makes a batch of Items in the loader's workers: (images uint8 [N, 3, H, W], targets)."""

    @abstractmethod
    def criterion(self, recipe: Recipe, model: Detector, counts: Sequence[int]) -> nn.Module:
        """A module ``(maps, targets, share) -> named terms``, their sum under ``loss``.

        counts: boxes of each class in the training set
        """

    @abstractmethod
    def responses(self, maps: Any, model: Detector) -> Responses | None:
        """The maps' predictions for response distillation; None where the heat maps have a term of their own."""

    def prepare(self, recipe: Recipe, model: Detector) -> None:  # noqa: B027  most have nothing to prepare
        """Called once on a new network, before weights are loaded into it."""

    def check(self, recipe: Recipe) -> None:
        """Raises BadConfig for a section of losses, or a wish for the distillation, that this family does not read."""
        wrong = [name for name in SECTIONS if name != self.section and name in recipe.model_fields_set]
        if wrong:
            raise BadConfig(
                f"recipe {recipe.name}: {wrong[0]} is not read by {recipe.model.name}; its losses are in {self.section}"
            )
        wishes = recipe.distillation.model_dump(exclude_defaults=True) if recipe.distillation else {}
        for name in self.unread:
            if name in wishes:
                raise BadConfig(f"recipe {recipe.name}: distillation.{name} is not read by {recipe.model.name}")


def background_and_classes(section: ClassWeightSection | None, counts: Sequence[int]) -> Tensor:
    """w_i [C + 1] of RefineDetLite's eq. 5: 1 for the background, then the classes; all 1 without a section."""
    if section is None:
        return torch.ones(len(counts) + 1)
    return torch.cat([torch.ones(1), class_weights(counts, section.gamma, section.max_weight)])
