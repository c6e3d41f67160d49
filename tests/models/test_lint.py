"""The offline lint for the oldest board, a Jetson TX2 with TensorRT 8.2: every family passes it.

The graph's operators do not depend on its size, so a small input says the same as the recipe's own.
"""

from __future__ import annotations

import os

import pytest
import torch

from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.conversion.lint import lint
from edgekit.conversion.simplify import simplify_file
from edgekit.models.zoo import build
from edgekit.runtime.preprocess import Preprocess

from .test_int8 import FAMILIES

QUICK = ("refinedet-lite", "refinedet", "thundernet")  # all of them with EDGEKIT_NIGHTLY=1
CASES = [f for f in FAMILIES if "EDGEKIT_NIGHTLY" in os.environ or (f[0] in QUICK and "vgg-16" not in f[1].values())]


def file_of(name, options, size, folder, opset=13):
    torch.manual_seed(0)
    wish = ExportOptions(layout="nchw_float", opset=opset)
    plain = export_onnx(build(name, 3, options, size), Preprocess(size=size), wish, folder / "plain.onnx")
    simplify_file(str(plain), str(folder / "model.onnx"))  # as every file that reaches a board
    return folder / "model.onnx"


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "size"), CASES, ids=str)
def test_a_tx2_takes_every_family(name, options, size, tmp_path):
    report = lint(file_of(name, options, size, tmp_path), board="jetson-tx2")
    assert not report.errors, [finding for finding in report.findings if finding.severity == "error"]


@pytest.mark.slow
def test_a_lowering_that_a_tx2_cannot_read_is_named(tmp_path):
    options = {"backbone": "mobilenet-v2", "align": 3, "lowering": "grid-sample"}
    report = lint(file_of("refinedet", options, (64, 64), tmp_path, opset=16), board="jetson-tx2")
    assert any("GridSample" in str(finding) for finding in report.findings if finding.severity == "error")
