"""Start from weights that were trained for other classes: their rows by name, everything else as it is.

So a network is pre-trained on one set and fine-tuned on another (Mobile CenterNet, section 4: BDD100K, then ivslab).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Size, Tensor

from ..models.checkpoint import misfits, read_weights
from ..models.detector import Detector
from ..models.zoo import build
from ..recipe import Recipe, load_recipe, shipped_weights
from ..runtime.artifact import read_artifact
from ..runtime.errors import BadConfig, BadInput
from .backbone import backbone_fits

PIXELS = ("colour", "mean", "std")  # of preprocess: what makes the network's numbers of an image's


class Rows(NamedTuple):
    """Where the classes are in a tensor of ``groups`` x (``fixed`` + classes) rows: fixed ones are the background, or
    YOLO's box and objectness; a group is one of the anchors of a cell.
    """

    groups: int
    fixed: int


def start_from(model: Detector, recipe: Recipe, file: Path) -> list[str]:
    """Load ``file`` into ``model``, a new network of ``recipe``; returns what was not simply loaded, in words.

    Weights of the recipe's own classes are loaded as they are. Of others, each class takes the rows of its namesake, or
    of the one that ``train.init_classes`` names; a class without one keeps the rows that it has. All else must fit.
    Raises BadInput or BadConfig when it does not, or when no class is found.
    """
    state, stored = read_weights(file)
    chosen, classes = recipe.train.init_classes, recipe.classes
    if chosen and not stored:
        raise BadConfig(f"train.init_classes: {file} does not say which classes it was trained for")
    own = model.state_dict()
    if not stored or (stored == list(classes) and not chosen):
        _must_fit(state, {name: value.shape for name, value in own.items()}, model, file)
        model.load_state_dict(state)
        return []
    origin = _origins(file, stored, classes, chosen)
    _must_fit(state, _shapes(recipe, len(stored)), model, file)
    for name, rows in class_rows(recipe).items():
        state[name] = _moved(state[name], own[name], rows, [origin.get(c) for c in classes])
    model.load_state_dict(state)
    return [_told(file, stored, classes, origin)]


def _must_fit(state: Mapping[str, Tensor], shapes: Mapping[str, Size], model: Detector, file: Path) -> None:
    """Raises BadInput where tensors do not have ``shapes``, and says so where those of the backbone do."""
    wrong = misfits(state, shapes)
    if not wrong:
        return
    said = f"{file}: does not fit the network ({len(wrong)} tensors): {'; '.join(wrong[:3])}"
    if backbone_fits(model, state):
        said += ". Its backbone does: set train.init_backbone in the place of train.init"
    raise BadInput(said)


def _origins(
    file: Path, stored: Sequence[str], classes: Sequence[str], chosen: Mapping[str, str] | None
) -> dict[str, int]:
    """Class -> the number of the class among ``stored`` that it starts from."""
    names = {name: (chosen or {}).get(name, name) for name in classes}
    if lost := [f"{name}: {old}" for name, old in (chosen or {}).items() if old not in stored]:
        raise BadConfig(f"train.init_classes: {', '.join(lost)}: {file} was trained for {', '.join(stored)}")
    origin = {name: stored.index(old) for name, old in names.items() if old in stored}
    if not origin and chosen is None:
        raise BadInput(
            f"{file}: trained for the classes {', '.join(stored)}; the recipe has {', '.join(classes)}, none of them. "
            f"Say which becomes which: train.init_classes={{{classes[0]}: {stored[0]}}}; or that all start anew: "
            f"train.init_classes={{}}"
        )
    return origin


def class_rows(recipe: Recipe) -> dict[str, Rows]:
    """The tensors of a recipe's network that have rows for each class: those that grow with one class more."""
    count = len(recipe.classes)
    shapes, larger = _shapes(recipe, count), _shapes(recipe, count + 1)
    found = {}
    for name, shape in shapes.items():
        if shape != larger[name]:
            groups = larger[name][0] - shape[0]
            found[name] = Rows(groups, shape[0] // groups - count)
    return found


def _shapes(recipe: Recipe, classes: int) -> dict[str, Size]:
    with torch.device("meta"):
        model = build(recipe.model.name, classes, recipe.model.options, recipe.preprocess.size)
    return {name: value.shape for name, value in model.state_dict().items()}


def _moved(old: Tensor, new: Tensor, rows: Rows, origin: Sequence[int | None]) -> Tensor:
    """``new`` with the fixed rows of ``old``, and those of each class that has an ``origin`` in it."""
    source = old.reshape(rows.groups, -1, *old.shape[1:])
    target = new.detach().clone().reshape(rows.groups, -1, *new.shape[1:])
    target[:, : rows.fixed] = source[:, : rows.fixed]
    for place, begun in enumerate(origin):
        if begun is not None:
            target[:, rows.fixed + place] = source[:, rows.fixed + begun]
    return target.reshape(new.shape)


def _told(file: Path, stored: Sequence[str], classes: Sequence[str], origin: Mapping[str, int]) -> str:
    taken = [name if stored[i] == name else f"{name} from {stored[i]}" for name, i in origin.items()]
    anew = [name for name in classes if name not in origin]
    unused = [name for i, name in enumerate(stored) if i not in origin.values()]
    parts = [f"{file}: all loaded but rows of classes", f"loaded {', '.join(taken) or 'none'}"]
    parts += [f"anew {', '.join(anew)}"] if anew else []
    parts += [f"not used {', '.join(unused)}"] if unused else []
    return "; ".join(parts)


# -- what the weights were trained to see -----------------------------------------------------------------------------
def other_pixels(recipe: Recipe, name: str) -> list[str]:
    """What to say where the weights ``name`` learned from other pixel values than ``recipe`` will show them.

    Nothing of a bare .safetensors file, which does not tell what it was trained on.
    """
    if name in shipped_weights():
        theirs = load_recipe(name).preprocess.value()
    elif (path := recipe.resolve(name)).is_dir():
        theirs = read_artifact(path).preprocess
    else:
        return []
    ours = recipe.preprocess.value()
    changed = {key: _typed(getattr(theirs, key)) for key in PIXELS if getattr(theirs, key) != getattr(ours, key)}
    if not changed:
        return []
    here = ", ".join(f"{key} {_typed(getattr(ours, key))}" for key in changed)
    wanted = " ".join(f"'preprocess.{key}={value}'" for key, value in changed.items())
    return [f"{name} learned from other pixel values than it sees here ({here}). To show it what it knows: {wanted}"]


def _typed(value: str | Sequence[float]) -> str:
    """As one would type it after ``preprocess.colour=``."""
    return value if isinstance(value, str) else f"[{', '.join(f'{number:.10g}' for number in value)}]"
