"""What a recipe's network is made of: parameters, multiply-accumulates, boxes. Counted without computing anything."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from ..recipe import Recipe
from .zoo import build

EVERY_BOX = 10**9


def count_figures(recipe: Recipe) -> dict[str, Any]:
    """``parameters`` and ``macs`` of one image, and ``boxes``: what the decode chooses from, before any cut.

    Boxes are anchors, cells of a heat map, or ThunderNet's regions. The network lives on the meta device: a second or
    two for the largest. Raises BadConfig for options that the network does not take.
    """
    width, height = recipe.preprocess.size
    with torch.device("meta"):
        detector = build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size).eval()
        if hasattr(detector, "candidates"):
            detector.candidates = None  # type: ignore[assignment]
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            boxes, _ = detector.detect(torch.empty(1, 3, height, width), EVERY_BOX)
    return {
        "parameters": sum(p.numel() for p in detector.parameters()),
        "macs": counter.get_total_flops() // 2,
        "boxes": int(boxes.shape[1]),
        "boxes_are": {"center": "cells", "proposals": "regions"}.get(detector.task, "anchors"),
    }


class Part(NamedTuple):
    """One part of a detector: its name there, its class, the first line of the class's docstring, its parameters."""

    name: str
    kind: str
    says: str
    parameters: int


def parts(recipe: Recipe) -> list[Part]:
    """The detector's parts; containers of the library are opened, so that every one has something to say."""
    with torch.device("meta"):
        detector = build(recipe.model.name, len(recipe.classes), recipe.model.options, recipe.preprocess.size)
    return list(_parts(detector, ""))


def _parts(module: nn.Module, prefix: str) -> Iterator[Part]:
    for name, child in module.named_children():
        path = f"{prefix}{name}"
        if type(child).__module__.startswith("torch."):
            if any(not type(inner).__module__.startswith("torch.") for inner in child.modules()):
                yield from _parts(child, f"{path}.")
                continue
            says = "layers of the library"
        else:
            says = (inspect.getdoc(type(child)) or "").split("\n")[0]
        yield Part(path, type(child).__name__, says, sum(p.numel() for p in child.parameters()))
