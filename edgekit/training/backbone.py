"""Start from a trained backbone, as RefineDet++ does from ILSVRC's classifiers (section IV-G); all else begins anew."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from pathlib import Path

from torch import Tensor, nn

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
    found = _backbone_in(state, backbone)
    if found is None:
        raise BadInput(
            f"{file}: has no backbone like {name} of the network: none of its tensors is called "
            f"{next(iter(backbone.state_dict()))}, ..., with or without something before it; it has "
            f"{', '.join([*state][:3])}, ..."
        )
    added = _anew(backbone, found)
    if wrong := _misfits(backbone, found):
        raise BadInput(f"{file}: does not fit the network's backbone ({len(wrong)} tensors): {'; '.join(wrong[:3])}")
    backbone.load_state_dict(backbone.state_dict() | found)
    rest = len(model.state_dict()) - len(found)
    parts = [f"{file}: the backbone's {len(found)} tensors loaded", f"{rest} of the network begin anew"]
    parts += [f"{len(state) - len(found)} not used"] if len(state) > len(found) else []
    return "; ".join([*parts, *([f"anew in the backbone: {', '.join(sorted(added))}"] if added else [])])


def backbone_fits(model: Detector, state: Mapping[str, Tensor]) -> bool:
    """Whether ``start_backbone`` would take these tensors."""
    _, backbone = backbone_of(model)
    found = _backbone_in(state, backbone)
    return found is not None and not _misfits(backbone, found)


def _backbone_in(state: Mapping[str, Tensor], backbone: nn.Module) -> dict[str, Tensor] | None:
    """The tensors of ``state`` under the names that they have in ``backbone``; None where there is none of them."""
    prefix = _prefix(state, backbone.state_dict())
    if prefix is None:
        return None
    return {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}


def _anew(backbone: nn.Module, found: Mapping[str, Tensor]) -> set[str]:
    """The tensors of layers beyond a classifier, which ``found`` need not have."""
    added = tuple(getattr(backbone, "added", ()))
    return {key for key in backbone.state_dict() if key.startswith(added)} - found.keys()


def _misfits(backbone: nn.Module, found: Mapping[str, Tensor]) -> list[str]:
    added = _anew(backbone, found)
    return misfits(found, {key: value.shape for key, value in backbone.state_dict().items() if key not in added})


def _prefix(names: Collection[str], own: Iterable[str]) -> str | None:
    """What stands before the most of a backbone's ``own`` names among ``names``; None where none of them is found."""
    wanted = list(own)
    found = {name[: -len(key)] for name in names for key in wanted if name == key or name.endswith(f".{key}")}
    return max(sorted(found), key=lambda prefix: sum(prefix + key in names for key in wanted), default=None)
