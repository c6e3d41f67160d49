"""What must hold for every network of the zoo, on its way to a board.

It exports at opset 13 to the common contract and sees PyTorch's boxes; it is quantized in both flavours, and what runs
the file computes; the offline lint of the oldest board, a Jetson TX2 with TensorRT 8.2, passes it.

CI looks at QUICK, ``EDGEKIT_NIGHTLY=1`` at every network that a recipe builds. Random weights at a small input: this is
about operators, not accuracy. Each runtime works in a child process, because some die on some graphs: that must end as
ChildDied with step, file and signal, never as the end of the tests.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
import torch

from edgekit.conversion.child import run_in_child
from edgekit.conversion.compare import Comparison
from edgekit.conversion.export import ExportOptions, export_onnx, onnx_artifact
from edgekit.conversion.graph import load_model, module_of, opset
from edgekit.conversion.lint import lint
from edgekit.conversion.quantize import QuantizeOptions, quantize
from edgekit.conversion.simplify import simplify_file
from edgekit.models.zoo import build
from edgekit.paths import share
from edgekit.recipe import load_recipe, recipe_names
from edgekit.runtime.artifact import Artifact, read_artifact, value_sha256
from edgekit.runtime.errors import ChildDied
from edgekit.runtime.images import read_image
from edgekit.runtime.preprocess import Preprocess
from edgekit.runtime.sessions import open_session
from edgekit.sizes import divisor

from .conformance import enliven

PHOTOS = sorted(share("calibration").glob("dhaka-calib/**/*.jpg"))[:6]
IMAGES, OTHERS = PHOTOS[:2], PHOTOS[2:]
LAYOUTS = {"x86": "nhwc_uint8", "trt": "nchw_float"}
RUNTIMES = {"x86": ("onnxruntime", "openvino"), "trt": ("onnxruntime",)}
QUICK = ("refinedetpp-mobilenet-v2-dhaka", "refinedetlite-quarter", "thundernet-snet49")
# Width and height of the input in pixels; Pelee's unpadded convolutions need 264
SMALL, SIZES = 64, {"pelee": 272, "tiny-dsod": 96, "thundernet": 96}
# Of hundreds of proposals by random weights many are as good as each other; rounding decides which of them survive.
FEWER = {"thundernet": {"proposals": 20, "candidates": 100}}
# (recipe, flavour) -> runtimes that are known to die on it; the test says so when one no longer does.
DEADLY: dict[tuple[str, str], tuple[str, ...]] = {}


def every_network() -> dict[str, str]:
    """Model section of a recipe -> the first recipe that has it: the same network at another input is left out."""
    return {value_sha256(load_recipe(name).model.model_dump(mode="json")): name for name in reversed(recipe_names())}


def chosen() -> list[str]:
    return sorted(every_network().values()) if "EDGEKIT_NIGHTLY" in os.environ else list(QUICK)


class Made(NamedTuple):
    """A network's files in one flavour: as exported, and in INT8."""

    recipe: str
    flavour: str
    plain: Artifact
    int8: Artifact


@pytest.fixture(scope="module", params=[(name, flavour) for name in chosen() for flavour in LAYOUTS], ids="-".join)
def made(request, tmp_path_factory) -> Iterator[Made]:
    """Simplified on real images, as `edgekit export` does it: what is not may have open shapes."""
    name, flavour = request.param
    model = load_recipe(name).model
    side = max(SIZES.get(model.name, SMALL), divisor(model.name, model.options))
    size = (side, side)
    preprocess = Preprocess(size=size)
    torch.manual_seed(0)
    detector = build(model.name, 3, {**model.options, **FEWER.get(model.name, {})}, size)
    photos = [torch.from_numpy(preprocess(read_image(path), "nchw_float")[0]) for path in OTHERS]
    enliven(detector, size, images=torch.cat(photos))
    source = {
        "classes": ["a", "b", "c"],
        "category_ids": [1, 2, 3],
        "preprocess": preprocess.to_dict(),
        "recipe": {"name": name, "model": model.model_dump(mode="json")},
    }
    folder = tmp_path_factory.mktemp("network")
    plain, _ = onnx_artifact(detector, source, {}, folder / "onnx", IMAGES, ExportOptions(layout=LAYOUTS[flavour]))
    yield Made(name, flavour, plain, quantize(plain, IMAGES, {}, folder / "int8", QuantizeOptions(flavour=flavour)))
    shutil.rmtree(folder)


def infer(path, runtime):
    """Runs in the child: shapes of what one real image gives, and whether all of it is finite."""
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
def test_it_exports_and_sees_pytorchs_boxes(made):
    graph = load_model(made.plain.file("model.onnx"))
    assert opset(graph) == 13
    assert [value.name for value in graph.graph.input] == ["image"]
    assert [value.name for value in graph.graph.output] == ["boxes", "scores"]
    parity = Comparison(**made.plain.manifest["parity"])
    assert parity.same, str(parity)
    assert parity.boxes > 0


@pytest.mark.slow
def test_int8_is_made_and_runs(made):
    assert b"QuantizeLinear" in Path(made.int8.file("model.onnx")).read_bytes()
    for runtime in RUNTIMES[made.flavour]:
        arguments = {"path": made.int8.path, "runtime": runtime}
        step = f"{runtime} on {made.recipe}"
        if runtime in DEADLY.get((made.recipe, made.flavour), ()):
            with pytest.raises(ChildDied, match=step):
                run_in_child("tests.models.test_every_network:infer", arguments, step, made.int8.path)
            continue
        found = run_in_child("tests.models.test_every_network:infer", arguments, step, made.int8.path)
        assert found["boxes"][::2] == [1, 4]
        assert found["scores"] == [*found["boxes"][:2], 3]
        assert found["finite"]


@pytest.mark.slow
def test_a_tx2_takes_it(made):
    if made.flavour != "trt":
        pytest.skip("a TX2 has no uint8 input")
    report = lint(made.plain.file("model.onnx"), board="jetson-tx2")
    assert not report.errors, [finding for finding in report.findings if finding.severity == "error"]


@pytest.mark.slow
def test_the_coordinates_of_thundernets_regions_stay_in_float(made):
    """Nothing between the proposals and what they read of the map is rounded to 256 steps; the layers around it are."""
    if not made.recipe.startswith("thundernet"):
        pytest.skip("of ThunderNet")
    model = load_model(made.int8.file("model.onnx"))
    inside = [node for node in model.graph.node if module_of(node.name) == "head.regions"]
    operators = [node.op_type for node in inside]
    assert (operators.count("TopK"), operators.count("MatMul")) == (2, 1)
    own = {name for node in inside for name in node.output}
    rounded = [node.name for node in model.graph.node if node.op_type == "QuantizeLinear" and node.input[0] in own]
    assert rounded == []


@pytest.mark.slow
def test_a_lowering_that_a_tx2_cannot_read_is_named(tmp_path):
    detector = build("refinedet", 3, {"backbone": "mobilenet-v2", "align": 3, "lowering": "grid-sample"}, (64, 64))
    options = ExportOptions(layout="nchw_float", opset=16)
    plain = export_onnx(detector, Preprocess(size=(64, 64)), options, tmp_path / "plain.onnx")
    simplify_file(str(plain), str(tmp_path / "model.onnx"))
    report = lint(tmp_path / "model.onnx", board="jetson-tx2")
    assert any("GridSample" in str(finding) for finding in report.findings if finding.severity == "error")
