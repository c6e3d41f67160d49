"""The PyTorch reference: the trained weights, run by the code that trained them."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from ..runtime.artifact import Artifact
from ..runtime.preprocess import Preprocess
from ..runtime.sessions import INPUT, Session
from .checkpoint import model_of
from .detector import host_postprocess


class TorchSession(Session):
    """Eager PyTorch, FP32, evaluation mode; raw pixels in, normalised by ``Preprocess``'s formula.

    Batch normalisation is folded and the memory format is channels-last, as a careful user of eager PyTorch would have
    it: the exported graphs are folded too, so a ratio of latencies compares the runtimes and not the folding (together
    they make HRNet-W16 about a quarter faster than the plain modules). Nothing is compiled.
    threads: given to torch.set_num_threads, which counts for the whole process.
    """

    kinds = ("checkpoint",)

    def __init__(self, artifact: Artifact, threads: int = 1) -> None:
        super().__init__(artifact, threads)
        torch.set_num_threads(threads)
        recipe = artifact.manifest["recipe"]
        self.layout = "nhwc_uint8"
        self._top_k = int(recipe.get("export", {}).get("top_k", 100))
        self._model = model_of(artifact)
        fold_batch_norm(self._model)
        self._model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.postprocess = host_postprocess(self._model, recipe)
        self._mean, self._std = _statistics(artifact.preprocess)

    @torch.inference_mode()
    def infer(self, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """uint8 [N, H, W, 3] -> boxes [N, A, 4] in input pixels and scores [N, A, C]."""
        pixels = torch.from_numpy(inputs[INPUT]).permute(0, 3, 1, 2)  # a view: the memory stays channels-last
        boxes, scores = self._model.detect((pixels.float() - self._mean) / self._std, self._top_k)
        return {"boxes": boxes.numpy(), "scores": scores.numpy()}

    def describe(self) -> dict[str, Any]:
        return {
            "library": "pytorch",
            "version": torch.__version__,
            "precision": "fp32",
            "memory_format": "channels_last",
            "batch_norm": "folded",
            "threads": torch.get_num_threads(),
        }

    def close(self) -> None:
        del self._model


def fold_batch_norm(module: nn.Module) -> None:
    """Fold, in place, every batch normalisation that follows a convolution in an ``nn.Sequential``; evaluation mode."""
    for child in module.children():
        fold_batch_norm(child)
    if not isinstance(module, nn.Sequential):
        return
    for i in range(len(module) - 1):
        conv, norm = module[i], module[i + 1]
        if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
            module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()


def _statistics(preprocess: Preprocess) -> tuple[torch.Tensor, torch.Tensor]:
    """Mean and std of ``Preprocess`` as [1, 3, 1, 1]."""
    mean, std = (torch.tensor(v, dtype=torch.float32).view(1, 3, 1, 1) for v in (preprocess.mean, preprocess.std))
    return mean, std
