"""A small detector with random weights whose heat map has distinct peaks, its ONNX artifacts, and real photographs."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from edgekit.conversion.compare import network_input
from edgekit.conversion.export import ExportOptions, onnx_artifact
from edgekit.models.mobile_centernet import MobileCenterNet
from edgekit.paths import share
from edgekit.runtime.preprocess import Preprocess

CLASSES = 3


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))


@pytest.fixture(scope="session")
def photos() -> list[Path]:
    return sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))[:4]


@pytest.fixture(scope="session")
def preprocess() -> Preprocess:
    return Preprocess((128, 96), mean=(103.53, 116.28, 123.675), std=(57.375, 57.12, 58.395))


@pytest.fixture(scope="session")
def detector(photos, preprocess):
    """The student at 128 x 96, as if trained: normalisation is not the identity, and the heat map has peaks."""
    torch.manual_seed(0)
    model = MobileCenterNet(CLASSES).eval()
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            assert module.running_mean is not None
            assert module.running_var is not None
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.uniform_(module.running_var, 0.5, 1.5)
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.1)
    image = torch.from_numpy(network_input(photos[0], preprocess, "nchw_float"))
    for branch, mean, std in ((model.head.heatmap, -2, 2), (model.head.size, 4, 1), (model.head.offset, 0.5, 0.2)):
        _spread(branch, model.backbone(image).detach(), mean, std)
    return model


def _spread(branch, features, mean, std):
    """Scale and shift the last convolution of a head branch, so that each channel has this mean and deviation."""
    last = branch[-1]
    nn.init.normal_(last.weight)
    with torch.no_grad():
        last.weight *= (std / branch(features).std(dim=(0, 2, 3))).view(-1, 1, 1, 1)
        last.bias += mean - branch(features).mean(dim=(0, 2, 3))


@pytest.fixture(scope="session")
def facts(preprocess):
    """What a checkpoint's manifest says."""
    return {
        "classes": ["car", "bus", "bicycle"],
        "category_ids": [1, 2, 3],
        "preprocess": preprocess.to_dict(),
        "recipe": {"name": "toy"},
    }


def _artifact(layout, detector, facts, photos, folder):
    options = ExportOptions(layout=layout, top_k=20)
    artifact, outcome = onnx_artifact(detector, facts, {"checkpoint": "0" * 64}, folder / layout, photos[:2], options)
    assert outcome.simplified, outcome.notes
    return artifact


@pytest.fixture(scope="session")
def pixels(detector, facts, photos, tmp_path_factory):
    """The artifact that takes raw pixels."""
    return _artifact("nhwc_uint8", detector, facts, photos, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def floats(detector, facts, photos, tmp_path_factory):
    """The artifact that takes normalised floats."""
    return _artifact("nchw_float", detector, facts, photos, tmp_path_factory.mktemp("onnx"))


@pytest.fixture(scope="session")
def detect(detector):
    """The network in PyTorch: float32 [1, 3, H, W] -> (boxes, scores)."""

    def run(image):
        with torch.no_grad():
            boxes, scores = detector.detect(torch.from_numpy(np.ascontiguousarray(image)), 20)
        return boxes.numpy(), scores.numpy()

    return run
