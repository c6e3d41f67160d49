"""Every family in INT8, in both flavours: it is quantized, a runtime loads it and computes; what dies is named.

Random weights at a small input: this is about operators, not accuracy. Each runtime works in a child process, because
some die on some graphs: that must end as ChildDied with step, file and signal, never as the end of the tests.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch

from edgekit.conversion.child import run_in_child
from edgekit.conversion.export import ExportOptions, onnx_artifact
from edgekit.conversion.graph import module_of
from edgekit.conversion.quantize import QuantizeOptions, quantize
from edgekit.models.zoo import build
from edgekit.paths import share
from edgekit.runtime.artifact import read_artifact
from edgekit.runtime.errors import ChildDied
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.sessions import open_session

IMAGES = sorted(share("calibration").glob("dhaka-calib/**/*.jpg"))[:2]
LAYOUTS = {"x86": "nhwc_uint8", "trt": "nchw_float"}
FAMILIES = [
    ("mobile-centernet", {}, (64, 64)),
    ("centernet", {"backbone": "resnet-18"}, (64, 64)),
    ("centernet", {"backbone": "dla-34", "deformable": False}, (64, 64)),
    ("refinedet", {"backbone": "mobilenet-v2", "align": 3}, (64, 64)),
    ("refinedet", {"backbone": "vgg-16"}, (64, 64)),
    ("refinedet-lite", {"width": 8}, (64, 64)),
    ("lightweight-ssd", {"neck": "cfpn"}, (64, 64)),
    ("mobilenet-ssd", {"backbone": "mobilenet-v3-large", "lite": True}, (64, 64)),
    ("mobilenet-fpn", {}, (64, 64)),
    ("fpnlite", {"width": 64}, (64, 64)),
    ("pelee", {}, (272, 272)),
    ("tiny-dsod", {}, (96, 96)),
    ("ssd", {"backbone": "shufflenet-v2"}, (64, 64)),
    ("thundernet", {"proposals": 20, "candidates": 100}, (64, 64)),
    ("yolo", {"backbone": "darknet-tiny", "neck": "yolov3-tiny"}, (64, 64)),
    ("yolo", {"backbone": "csppeleenet-reference", "neck": "efm", "neck_options": {"sam": True}}, (64, 64)),
    ("yolo", {"backbone": "cspresnext-50", "neck": "panet"}, (64, 64)),
]
CHOSEN = ("refinedet", "refinedet-lite")  # the others have been seen to work; all of them with EDGEKIT_NIGHTLY=1
NIGHTLY = "EDGEKIT_NIGHTLY" in os.environ
CASES = [
    pytest.param(*family, flavour, id=f"{family[0]} {family[1]} {flavour}")
    for family in FAMILIES
    for flavour in LAYOUTS
    if NIGHTLY or (family[0] in CHOSEN and "vgg-16" not in family[1].values() and flavour == "x86")
]
# Graphs on which a runtime is known to die; the test says so when it no longer does.
DEADLY: dict[tuple[str, str], tuple[str, ...]] = {}


def int8_file(name, options, size, flavour, folder):
    """Simplified on two real images, as `edgekit export` does it: what is not may have open shapes."""
    torch.manual_seed(0)
    model = build(name, 3, options, size).eval()
    source = {
        "classes": ["a", "b", "c"],
        "category_ids": [1, 2, 3],
        "preprocess": Preprocess(size=size).to_dict(),
        "recipe": {"name": name, "model": {"name": name, "options": {}}},
    }
    plain, _ = onnx_artifact(model, source, {}, folder / "onnx", IMAGES, ExportOptions(layout=LAYOUTS[flavour]))
    return quantize(plain, IMAGES, {}, folder / "int8", QuantizeOptions(flavour=flavour))


def infer(path, runtime):
    """Runs in the child: shapes of what one real image gives, and whether all of it is finite."""
    from edgekit.runtime.images import read_image

    artifact = read_artifact(path)
    with open_session(runtime, artifact) as session:
        tensor, _ = artifact.preprocess(read_image(IMAGES[0]), session.layout)
        found = session.infer({"image": tensor})
    return {
        "boxes": list(found["boxes"].shape),
        "scores": list(found["scores"].shape),
        "finite": bool(np.isfinite(found["boxes"]).all() and np.isfinite(found["scores"]).all()),
    }


@pytest.mark.slow
@pytest.mark.parametrize("flavour", LAYOUTS)
def test_the_coordinates_of_thundernets_regions_stay_in_float(flavour, tmp_path):
    """Nothing between the proposals and what they read of the map is rounded to 256 steps; the layers around it are."""
    artifact = int8_file("thundernet", {"proposals": 20, "candidates": 100}, (64, 64), flavour, tmp_path)
    model = onnx.load(artifact.file("model.onnx"))
    inside = [node for node in model.graph.node if module_of(node.name) == "head.regions"]
    operators = [node.op_type for node in inside]
    assert (operators.count("TopK"), operators.count("MatMul")) == (2, 1)
    own = {name for node in inside for name in node.output}
    rounded = [node.name for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in own]
    assert rounded == []


@pytest.mark.slow
@pytest.mark.parametrize(("name", "options", "size", "flavour"), CASES)
def test_int8_is_made_and_runs(name, options, size, flavour, tmp_path):
    artifact = int8_file(name, options, size, flavour, tmp_path)
    operators = Path(artifact.file("model.onnx")).read_bytes()
    assert b"QuantizeLinear" in operators
    for runtime in ("onnxruntime", "openvino") if flavour == "x86" else ("onnxruntime",):
        arguments = {"path": artifact.path, "runtime": runtime}
        if runtime in DEADLY.get((name, flavour), ()):
            with pytest.raises(ChildDied, match=f"{runtime} .*{name}"):
                run_in_child("tests.models.test_int8:infer", arguments, f"{runtime} on {name}", artifact.path)
            continue
        found = run_in_child("tests.models.test_int8:infer", arguments, f"{runtime} on {name}", artifact.path)
        assert found["boxes"][::2] == [1, 4]
        assert found["scores"] == [*found["boxes"][:2], 3]
        assert found["finite"]
