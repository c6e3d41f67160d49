"""NVIDIA's real Python bindings of TensorRT 10.16 and 11.4, over stub libraries, against what our builders touch."""

import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.runtime import trt_api

pytestmark = pytest.mark.parser

PAIRS = {
    "10.16.1.11": ("tensorrt10:Tensorrt10", "trt10:Tensorrt10Session"),
    "11.4.0.106": ("tensorrt11:Tensorrt11", "trt10:Tensorrt11Session"),
}
# all that the bindings import from TensorRT's libraries
STUB = """
#define F(name) void* name(void) { return 0; }
F(createInferBuilder_INTERNAL) F(createInferRefitter_INTERNAL) F(createInferRuntime_INTERNAL)
F(createNvOnnxParserRefitter_INTERNAL) F(createNvOnnxParser_INTERNAL) F(getBuilderPluginRegistry)
F(getNvOnnxParserVersion) F(getPluginRegistry) F(initLibNvInferPlugins)
"""
ASK = """
import json, sys
import tensorrt_bindings as trt
def members(thing):
    return {n: members(getattr(thing, n)) if isinstance(getattr(thing, n, None), type) and n != "__class__" else None
            for n in dir(thing) if n == "__init__" or not n.startswith("_")}
found = {n: sorted(members(getattr(trt, n))) if isinstance(getattr(trt, n), type) else [] for n in dir(trt)}
json.dump({"version": trt.__version__, "names": found}, sys.stdout)
"""


@pytest.fixture(scope="module", params=sorted(PAIRS))
def bindings(request, parser_python, tmp_path_factory):
    """(names touched by our builder and session, {class: its members} of the real bindings)."""
    folder = Path(parser_python).parents[1] / "bindings" / request.param
    if not folder.is_dir():
        pytest.skip(f"{folder} is not there; make it again: tests/parser/make_parser_env.sh")
    if shutil.which("gcc") is None:
        pytest.skip("no gcc to make stub libraries with")
    stubs, major = tmp_path_factory.mktemp("stubs"), request.param.split(".")[0]
    (stubs / "stub.c").write_text(STUB)
    for name in ("nvinfer", "nvinfer_plugin", "nvonnxparser"):
        file = f"lib{name}.so.{major}"
        command = ["gcc", "-shared", "-fPIC", "-w", "-o", stubs / file, f"-Wl,-soname,{file}", stubs / "stub.c"]
        subprocess.run(command, check=True)
    environment = dict(os.environ, LD_LIBRARY_PATH=str(stubs), PYTHONPATH=str(folder))
    done = subprocess.run([parser_python, "-c", ASK], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["version"] == request.param
    return trt_api.engine_names(*PAIRS[request.param]), found["names"]


def has(names, dotted):
    owner, _, name = dotted.removeprefix("trt.").rpartition(".")
    if dotted.startswith("trt.__version__"):
        return True
    return name in names if not owner else name in names.get(owner, [])


def test_every_name_that_we_touch_is_in_exactly_this_version(bindings):
    used, names = bindings
    ours = [name for name in used if not name.startswith("driver.")]
    assert len(ours) > 40
    assert not [name for name in ours if not has(names, name)]


OLD = (
    *("IBuilderConfig.max_workspace_size", "IExecutionContext.execute_async_v2", "ICudaEngine.num_bindings"),
    *("ICudaEngine.get_binding_name", "ICudaEngine.get_binding_shape", "ICudaEngine.binding_is_input"),
)


def test_what_only_8_2_has_is_not_there_and_not_touched(bindings):
    used, names = bindings
    board = trt_api.engine_names("tensorrt8:Tensorrt8", "trt8:Tensorrt8Session")
    for name in OLD:
        assert name in board
        assert not has(names, name)
        assert name not in used


def test_what_11_removed_is_not_touched_there(bindings):
    used, names = bindings
    gone = ("ITensor.set_dynamic_range", "ILayer.precision", "IBuilderConfig.int8_calibrator", "trt.BuilderFlag.FP16")
    for name in gone:
        assert has(names, name) == (name in used)
