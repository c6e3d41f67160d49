"""What every detector of the zoo must do on its way to a board, as one function for the tests of each family."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import torch

from edgekit.conversion.compare import Comparison, compare_with_torch
from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.conversion.graph import int64_arithmetic, load_model
from edgekit.conversion.simplify import simplify_file
from edgekit.models.detector import Detector
from edgekit.paths import share
from edgekit.runtime.preprocess import Preprocess

LAYOUT = "nhwc_uint8"
IMAGE = sorted(share("calibration").glob("dhaka-eval/**/*.jpg"))[0]


def enliven(detector: Detector, size: tuple[int, int], seed: int = 0, images: torch.Tensor | None = None) -> None:
    """Random scales and shifts in every normalisation, and statistics of real activations.

    A freshly made network forgets its input within some twenty layers: with it, two graphs agree whatever they compute.
    images: [N, 3, height, width] that the statistics are of, else noise. Deep networks need photographs: where those of
    the comparison are far from the statistics, rounding grows to tenths of a pixel.
    """
    generator = torch.Generator().manual_seed(seed)
    norms = [module for module in detector.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
        with torch.no_grad():
            norm.weight.copy_(0.5 + torch.rand(norm.num_features, generator=generator))
            norm.bias.copy_(0.2 * torch.randn(norm.num_features, generator=generator))
    if images is None:
        images = torch.randn(4, 3, size[1], size[0], generator=generator)
    with torch.no_grad():
        detector.train()(images)
    for norm in norms:
        norm.running_var.clamp_(min=0.1)  # a dead channel would magnify rounding by 1 / sqrt(eps)
    detector.eval()


def exported(detector: Detector, size: tuple[int, int], folder: Path, top_k: int = 100) -> tuple[Comparison, Counter]:
    """Export, simplify and compare on a real image. Returns the comparison and how often each operator is left."""
    enliven(detector, size)
    preprocess = Preprocess(size=size)
    options = ExportOptions(layout=LAYOUT, top_k=top_k)
    plain = export_onnx(detector, preprocess, options, folder / "plain.onnx")
    target = folder / "model.onnx"
    simplify_file(str(plain), str(target))
    graph = load_model(target)
    assert int64_arithmetic(graph) == []

    def detect(image):
        with torch.inference_mode():
            boxes, scores = detector.detect(torch.from_numpy(image), top_k)
        assert scores.std() > 0.01 * scores.mean(), (
            "the network does not react to its input: a comparison shows nothing"
        )
        return boxes.numpy(), scores.numpy()

    comparison = compare_with_torch(detect, target, [IMAGE], preprocess, LAYOUT)
    return comparison, Counter(node.op_type for node in graph.graph.node)


def parameters(network: torch.nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def macs(network: torch.nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one image of ``size`` (width, height), counted without computing anything."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        network.to("meta").eval()(torch.empty(1, 3, size[1], size[0], device="meta"))
    return counter.get_total_flops() // 2
