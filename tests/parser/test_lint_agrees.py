"""Lint for the newest release against NVIDIA's own parser: what lint refuses is refused, what it passes is built."""

import numpy as np
import onnx
import pytest

from tests.conversion.test_lint import CASES, found, i64, model, quantized, resize, stored, topk, weights

PIXELS = {"x": ("u8", [1, 4, 4, 3])}
REFUSED = {
    "topk": topk(3841),
    **{name: CASES[name][0] for name in ("resize crop", "resize channels", "pool indices", "pool dilation", "scatter")},
    "zero point": quantized(np.int8(3)),
}
BUILT = {
    "topk": topk(3840),
    "nearest resize": resize(),
    "cubic resize": resize(mode="cubic"),
    "hardswish": CASES["hardswish"][0],
    "wrapping pad": CASES["pad wrap"][0],
    "symmetric": quantized(np.int8(0)),
    "weights per channel": weights(0),
    "INT8 weights": stored(),
    "int64": model([("Add", ["x", "c"], ["y"], {})], {"x": ("i64", [4])}, {"c": i64(1)}, outputs={"y": ("i64", [4])}),
    "pixels": model([("Cast", ["x"], ["f"], {"to": 1}), ("Relu", ["f"], ["y"], {})], PIXELS),
}


def errors(made):
    return [f.rule for f in found(made, "desktop-gpu", "TensorRT 11") if f.severity == "error"]


def results(files, build_engines, folder):
    for name, made in files.items():
        onnx.save(made, folder / f"{name}.onnx")
    jobs = [{"path": str(folder / f"{name}.onnx"), "precision": "fp32", "sm": "SM86"} for name in files]
    return dict(zip(files, build_engines(jobs), strict=True))


@pytest.fixture(scope="module")
def refused(build_engines, tmp_path_factory):
    return results(REFUSED, build_engines, tmp_path_factory.mktemp("refused"))


@pytest.fixture(scope="module")
def built(build_engines, tmp_path_factory):
    return results(BUILT, build_engines, tmp_path_factory.mktemp("built"))


@pytest.mark.parametrize("name", REFUSED)
def test_what_lint_refuses_is_refused(refused, name):
    assert errors(REFUSED[name])
    assert "error" in refused[name]
    assert "cudaError" not in refused[name]["error"]  # that would be for want of a GPU


@pytest.mark.parametrize("name", BUILT)
def test_what_lint_passes_is_built(built, name):
    assert errors(BUILT[name]) == []
    assert "error" not in built[name], built[name]
