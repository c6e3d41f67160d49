"""The decode that import-onnx appends, read and built by NVIDIA's own parser and builder."""

import pytest

from edgekit.conversion.imports.convert import convert
from tests.conversion.imports import networks as nets

NAMES = ["car", "bus", "bicycle"]
OPTIONS = {"size": None, "priors": None, "top_k": 20}
LAYOUTS = {
    "yolov5": (nets.YoloV5, ["output0"]),
    "yolov8": (nets.YoloV8, ["output0"]),
    "end2end": (nets.EndToEnd, ["output0"]),
    "selected": (nets.Selected, ["boxes", "scores", "labels"]),
    "ssd": (nets.Ssd, ["loc", "conf", "priors"]),
    "centernet": (nets.CenterNet, ["hm", "wh", "reg"]),
    "detr": (nets.Detr, ["logits", "boxes"]),
}


@pytest.fixture(scope="module")
def built(build_engines, tmp_path_factory):
    """All layouts in one run: layout -> what the builder said."""
    folder = tmp_path_factory.mktemp("imports")
    for layout, (network, outputs) in LAYOUTS.items():
        source = nets.export(network(), folder / f"{layout}-foreign.onnx", outputs)
        convert(str(source), str(folder / f"{layout}.onnx"), layout, NAMES, OPTIONS)
    jobs = [{"path": str(folder / f"{layout}.onnx"), "precision": "fp32", "sm": "SM86"} for layout in LAYOUTS]
    return dict(zip(LAYOUTS, build_engines(jobs), strict=True))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_an_engine_is_built(built, layout):
    assert "error" not in built[layout], built[layout]
    assert built[layout]["bytes"] > 0
