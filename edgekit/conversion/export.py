"""PyTorch -> ONNX with the output contract: input ``image``, outputs ``boxes [N, A, 4]`` and ``scores [N, A, C]``.

The legacy exporter is used on purpose: the newer one silently leaves opset 18 where 13 was asked for, and 13 is the
last opset that TensorRT 8.2 (Jetson TX2) reads.
"""

from __future__ import annotations

import copy
import tempfile
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..models.detector import Detector, host_postprocess
from ..runtime.artifact import Artifact, new_artifact, read_artifact, value_sha256
from ..runtime.errors import AccuracyDrop, BadConfig, ChildDied
from ..runtime.preprocess import LAYOUTS, Preprocess
from .compare import Array, Outputs, compare_with_torch
from .graph import load_model, opset
from .simplify import Simplification, simplify

# Highest IR version that ONNX Runtime 1.10 (Python 3.6 boards) reads.
MAX_IR = 8
SCORE_THRESHOLD = 0.01
IOU_THRESHOLD = 0.5


@dataclass(frozen=True)
class ExportOptions:
    """layout: "nhwc_uint8" (the graph normalises raw pixels) or "nchw_float".  top_k: boxes that leave the graph."""

    layout: str = "nhwc_uint8"
    top_k: int = 100
    opset: int = 13
    batch: int = 1

    def __post_init__(self) -> None:
        if self.layout not in LAYOUTS:
            raise BadConfig(f"layout: expected {' or '.join(LAYOUTS)}, got {self.layout!r}")
        if self.batch < 1 or self.top_k < 1:
            raise BadConfig(f"batch and top_k: expected at least 1, got {self.batch} and {self.top_k}")

    def key(self, parents: Mapping[str, str]) -> str:
        """Hash of the inputs and options; an artifact that carries it need not be made again."""
        return value_sha256({"step": "export", "parents": dict(parents), "options": asdict(self)})


class Exported(nn.Module):
    """What the graph computes: the network's own normalisation (for raw pixels), the network, and its decode."""

    mean: Tensor
    std: Tensor

    def __init__(self, detector: Detector, preprocess: Preprocess, layout: str, top_k: int) -> None:
        super().__init__()
        self.detector = detector
        self.layout = layout
        self.top_k = top_k
        self.register_buffer("mean", torch.tensor(preprocess.mean).view(1, 3, 1, 1))
        self.register_buffer("std", torch.tensor(preprocess.std).view(1, 3, 1, 1))

    def forward(self, image: Tensor) -> tuple[Tensor, Tensor]:
        if self.layout == "nhwc_uint8":
            image = (image.permute(0, 3, 1, 2).to(torch.float32) - self.mean) / self.std
        return self.detector.detect(image, self.top_k)


def input_shape(preprocess: Preprocess, options: ExportOptions) -> list[int]:
    width, height = preprocess.size
    if options.layout == "nhwc_uint8":
        return [options.batch, height, width, 3]
    return [options.batch, 3, height, width]


def export_onnx(model: Detector, preprocess: Preprocess, options: ExportOptions, path: str | Path) -> Path:
    """Write the network as ONNX with a static batch and batch normalisation folded. The model itself is not touched.

    Raises BadConfig for an opset that lacks an operator of the network, and ChildDied when the file does not have the
    opset that was asked for (a newer PyTorch could do that silently).
    """
    if options.opset < model.opset:
        raise BadConfig(
            f"export.opset: {options.opset} lacks an operator of this network. Set export.opset={model.opset}, "
            f"or model.options.lowering=gather"
        )
    wrapper = Exported(copy.deepcopy(model).cpu().float(), preprocess, options.layout, options.top_k).eval()
    example = torch.zeros(input_shape(preprocess, options), dtype=_dtype(options.layout))
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # the legacy exporter announces its age, and every Python branch it froze
        torch.onnx.export(
            wrapper,
            (example,),
            str(path),
            dynamo=False,
            opset_version=options.opset,
            input_names=["image"],
            output_names=["boxes", "scores"],
            do_constant_folding=True,
        )
    _check(Path(path), options)
    return Path(path)


def _dtype(layout: str) -> torch.dtype:
    return torch.uint8 if layout == "nhwc_uint8" else torch.float32


def _check(path: Path, options: ExportOptions) -> None:
    graph = load_model(path)
    if opset(graph) != options.opset:
        raise ChildDied(f"{path}: asked PyTorch {torch.__version__} for opset {options.opset}, got {opset(graph)}")
    if graph.ir_version > MAX_IR and options.opset < 19:  # opset 19 came with IR 9; no board of Python 3.6 reads it
        raise ChildDied(f"{path}: IR version {graph.ir_version}; runtimes on Python 3.6 boards read at most {MAX_IR}")
    left = [node.name for node in graph.graph.node if node.op_type == "BatchNormalization"]
    if left:
        raise ChildDied(f"{path}: batch normalisation was not folded: {', '.join(left)}")


def onnx_artifact(
    model: Detector,
    source: Mapping[str, Any],
    parents: Mapping[str, str],
    out: str | Path,
    images: Sequence[str | Path],
    options: ExportOptions | None = None,
) -> tuple[Artifact, Simplification]:
    """Export, simplify and describe a network: an artifact of kind ``onnx``.

    source: classes, category_ids, preprocess and recipe, as in the checkpoint's manifest
    parents: role -> digest of what the weights came from
    images: real images on which the file is compared with PyTorch, and with itself before simplification
    Raises AccuracyDrop when the file sees other boxes than PyTorch.
    """
    options = options or ExportOptions()
    preprocess = Preprocess.from_dict(source["preprocess"])
    manifest = _manifest(model, source, parents, options)
    with new_artifact(out, "onnx", manifest) as folder, tempfile.TemporaryDirectory() as scratch:
        plain = export_onnx(model, preprocess, options, Path(scratch) / "model.onnx")
        target = Path(folder) / "model.onnx"
        outcome = simplify(plain, target, images, preprocess, options.layout)
        manifest["complexity"] = _complexity(target)
        manifest["notes"] = [note.replace(f"{scratch}/", "") for note in outcome.notes]
        manifest["parity"] = _parity(model, target, images, preprocess, options)
    return read_artifact(out), outcome


def _parity(
    model: Detector, path: Path, images: Sequence[str | Path], preprocess: Preprocess, options: ExportOptions
) -> dict[str, Any] | None:
    """How PyTorch and the file agree on the images (fields of ``Comparison``), or None without images.

    Raises AccuracyDrop when more of the boxes have no partner than ``Comparison.alike`` allows.
    """
    if not images:
        return None
    network = copy.deepcopy(model).cpu().float().eval()

    def detect(image: Array) -> Outputs:
        with torch.no_grad():
            boxes, scores = network.detect(torch.from_numpy(image), options.top_k)
        return boxes.numpy(), scores.numpy()

    found = compare_with_torch(detect, path, images, preprocess, options.layout)
    if not found.alike:
        raise AccuracyDrop(f"the exported network sees other boxes than PyTorch on the same images: {found}")
    return asdict(found)


def _manifest(
    model: Detector, source: Mapping[str, Any], parents: Mapping[str, str], options: ExportOptions
) -> dict[str, Any]:
    preprocess = Preprocess.from_dict(source["preprocess"])
    return {
        **{name: source[name] for name in ("classes", "category_ids", "preprocess", "recipe")},
        "parents": dict(parents),
        "key": options.key(parents),
        "input": {"name": "image", "layout": options.layout, "shape": input_shape(preprocess, options)},
        "postprocess": {
            "score_threshold": SCORE_THRESHOLD,
            "iou_threshold": IOU_THRESHOLD,
            **host_postprocess(model, source["recipe"]),
            "top_k": options.top_k,
        },
        "precision": "fp32",
        "float_modules": list(model.float_modules),
        "learnable_parameters": sum(p.numel() for p in model.parameters()),
        "tools": {name: version(name) for name in ("torch", "onnx", "onnxsim")},
    }


def _complexity(path: Path) -> dict[str, Any]:
    from ..measure.complexity import complexity

    return complexity(path).summary()
