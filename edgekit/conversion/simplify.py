"""Simplify an ONNX file with onnxsim, in a child process, and keep the result only when it sees the same boxes."""

from __future__ import annotations

import os
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnx

from ..runtime.errors import ChildDied
from ..runtime.preprocess import Preprocess
from .child import run_in_child
from .compare import Comparison
from .graph import fold_input_scale, int64_arithmetic, keep_scopes, load_model, opset, tidy


@dataclass(frozen=True)
class Simplification:
    """What happened. notes: everything that a user should know, empty when all went well."""

    simplified: bool
    comparison: Comparison | None
    notes: tuple[str, ...]


def simplify(
    source: str | Path,
    target: str | Path,
    images: Sequence[str | Path],
    preprocess: Preprocess,
    layout: str,
) -> Simplification:
    """Write the simplified ``source`` to ``target``, or ``source`` itself where simplification fails or changes boxes.

    images: real images on which the boxes before and after are compared.
    Never fails because of the simplifier: the reason is in ``notes``.
    """
    beside = f"{target}.simplified"
    notes: list[str] = []
    comparison = None
    try:
        paths = {"source": str(source), "target": beside}
        run_in_child("edgekit.conversion.simplify:simplify_file", paths, "simplify", source)
        comparison = _compare(source, beside, images, preprocess, layout)
        if comparison is None:
            notes.append("not simplified: there is no image to compare the boxes on")
        elif not comparison.alike:
            notes.append(f"not simplified: the boxes would change ({comparison})")
    except ChildDied as error:
        notes.append(f"not simplified: {error}")
    good = not notes
    if good:
        os.replace(beside, target)
    else:
        shutil.copyfile(source, target)
        Path(beside).unlink(missing_ok=True)
    integers = int64_arithmetic(load_model(target))
    if integers:
        notes.append(f"int64 arithmetic is left, which TensorRT 8.2 may refuse: {', '.join(integers)}")
    return Simplification(good, comparison, tuple(notes))


def _compare(
    source: str | Path, other: str, images: Sequence[str | Path], preprocess: Preprocess, layout: str
) -> Comparison | None:
    if not images:
        return None
    arguments = {
        "reference": str(source),
        "other": other,
        "images": [str(path) for path in images],
        "preprocess": preprocess.to_dict(),
        "layout": layout,
    }
    fields = run_in_child("edgekit.conversion.compare:compare_files", arguments, "compare after simplify", source)
    return Comparison(**fields)


def simplify_file(source: str, target: str) -> None:
    """The child's side: constant folding, dead code, and the scale of the input folded into the first convolution."""
    model = load_model(source)
    version = opset(model)
    simplified, valid = _onnxsim().simplify(model)
    if not valid:
        raise ChildDied(f"onnxsim: the simplified {source} computes something else on random input")
    fold_input_scale(simplified)
    keep_scopes(simplified)
    tidy(simplified)
    if opset(simplified) != version:
        raise ChildDied(f"onnxsim changed the opset of {source} from {version} to {opset(simplified)}")
    onnx.checker.check_model(simplified, full_check=True)
    onnx.save(simplified, target)


def _onnxsim() -> Any:
    """onnxsim without PyTorch, which it imports where it is installed, for nothing that we use: 4 seconds, now 1."""
    hidden = "torch" not in sys.modules
    if hidden:
        sys.modules["torch"] = None  # type: ignore[assignment]  # the import system's way to say: not installed
    try:
        import onnxsim
    finally:
        if hidden:
            del sys.modules["torch"]
    return onnxsim
