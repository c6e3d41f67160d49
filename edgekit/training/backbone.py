"""Start from a trained backbone, as RefineDet++ does from ILSVRC's classifiers (section IV-G); all else begins anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path

from torch import nn

from ..models.checkpoint import misfits, read_weights
from ..models.detector import Detector
from ..models.ssd import Coarsest
from ..runtime.errors import BadInput


def backbone_of(model: Detector) -> tuple[str, nn.Module]:
    """Name and module of what a detector reads the image with: its first part, without the layers that follow in it."""
    name, module = next(iter(model.named_children()))
    while isinstance(module, nn.Sequential | Coarsest):
        inner, module = next(iter(module.named_children()))
        name = f"{name}.{inner}"
    return name, module


def start_backbone(model: Detector, file: Path) -> str:
    """Load the backbone's tensors of ``file`` into ``model``, and say what was taken.

    file: safetensors of a detector or classifier with this backbone, whatever their names begin with, or of it alone.
        Layers that a backbone has beyond its classifier (``added``: VGG-16's) begin anew where they are not in it
    Raises BadInput, naming the tensors, when the rest does not fit.
    """
    state, _ = read_weights(file)
    name, backbone = backbone_of(model)
    own = backbone.state_dict()
    prefix = _prefix(state, own)
    if prefix is None:
        raise BadInput(
            f"{file}: has no backbone like {name} of the network: none of its tensors is called "
            f"{next(iter(own))}, ..., with or without something before it; it has {', '.join([*state][:3])}, ..."
        )
    found = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
    added = {key for key in own if key.startswith(tuple(getattr(backbone, "added", ())))} - found.keys()
    wrong = misfits(found, {key: value.shape for key, value in own.items() if key not in added})
    if wrong:
        raise BadInput(f"{file}: does not fit the network's backbone ({len(wrong)} tensors): {'; '.join(wrong[:3])}")
    backbone.load_state_dict(own | found)
    rest = len(model.state_dict()) - len(found)
    parts = [f"{file}: the backbone's {len(found)} tensors loaded", f"{rest} of the network begin anew"]
    parts += [f"{len(state) - len(found)} not used"] if len(state) > len(found) else []
    return "; ".join([*parts, *([f"anew in the backbone: {', '.join(sorted(added))}"] if added else [])])


def _prefix(names: Collection[str], own: Iterable[str]) -> str | None:
    """What stands before the most of a backbone's ``own`` names among ``names``; None where none of them is found."""
    wanted = list(own)
    found = {name[: -len(key)] for name in names for key in wanted if name == key or name.endswith(f".{key}")}
    return max(sorted(found), key=lambda prefix: sum(prefix + key in names for key in wanted), default=None)
