"""The runtime runs on a board: with nothing but numpy and cv2, and under Python 3.6."""

import json
import os
import pkgutil
import subprocess
import sys
from pathlib import Path

import cv2
import numpy as np
import pytest

import edgekit
import edgekit.runtime

ROOT = Path(edgekit.__file__).resolve().parents[1]
MODULES = sorted(m.name for m in pkgutil.walk_packages(edgekit.runtime.__path__, "edgekit.runtime."))
PREPARE = "tests/runtime/make_python36_env.sh .venv-python36; export EDGEKIT_PYTHON36=.venv-python36/bin/python"

BARE = """
import importlib, sys

class OnlyNumpyAndCv2(object):
    # whatever lies in the environment's packages is not there, but for these two and what they bring
    allowed = ("numpy", "cv2", "edgekit")

    def find_spec(self, name, path=None, target=None):
        top = name.split(".")[0]
        if top in self.allowed or top in sys.builtin_module_names:
            return None
        for finder in sys.meta_path[1:]:
            spec = finder.find_spec(name, path, target)
            if spec is not None:
                if "site-packages" in str(spec.origin or list(spec.submodule_search_locations or [])):
                    raise ImportError("blocked: " + name)
                return spec
        return None

sys.meta_path.insert(0, OnlyNumpyAndCv2())
try:
    import onnxruntime
except ImportError:
    pass
else:
    sys.exit("the block does not block")
for name in sys.argv[1:]:
    importlib.import_module(name)
rooms = {n.split(".")[1] for n in sys.modules if n.startswith("edgekit.")}
print(sorted(rooms), len(sys.argv) - 1)
"""


def test_the_list_of_modules_is_not_empty():
    assert {f"edgekit.runtime.{n}" for n in ("worker", "runner", "sessions.ort", "sessions.ov")} <= set(MODULES)


def test_every_module_imports_with_numpy_and_cv2_only():
    done = subprocess.run([sys.executable, "-c", BARE, *MODULES], cwd=ROOT, capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.strip() == f"['runtime'] {len(MODULES)}"  # and no other room of the project


# -- the real one -----------------------------------------------------------------------------------------------------
@pytest.fixture(scope="module")
def python36():
    """The interpreter that EDGEKIT_PYTHON36 names."""
    python = os.environ.get("EDGEKIT_PYTHON36")
    if not python:
        pytest.skip(f"EDGEKIT_PYTHON36 does not name a Python 3.6; prepare one: {PREPARE}")
    version = subprocess.check_output([python, "-c", "import sys; print(sys.version_info[:2])"], text=True)
    assert version.strip() == "(3, 6)", f"EDGEKIT_PYTHON36={python} is Python {version}"
    return python


@pytest.fixture
def job(tmp_path, onnx, images):
    """Lossless pictures: the two OpenCVs need not decode a JPEG to the same bit."""
    paths = [str(tmp_path / f"{i}.png") for i in range(len(images))]
    for path, image in zip(paths, images, strict=True):
        cv2.imwrite(path, image)
    job = {"artifact": onnx.path, "images": paths, "core": max(os.sched_getaffinity(0)), "warmup": 1, "min_seconds": 0}
    (tmp_path / "job.json").write_text(json.dumps(dict(job, min_count=6)))
    return tmp_path / "job.json"


def measure(python, job, name):
    result = job.parent / name
    command = [python, "-m", "edgekit.runtime.worker", str(job), str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean_environment())
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return json.loads(result.read_text())


def clean_environment():
    return {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}


@pytest.mark.real36
def test_every_module_imports_under_python36(python36):
    code = "import importlib, sys; [importlib.import_module(n) for n in sys.argv[1:]]; print(len(sys.argv) - 1)"
    command = [python36, "-W", "error::SyntaxWarning", "-c", code, *MODULES]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean_environment())
    assert (done.returncode, done.stderr, done.stdout.strip()) == (0, "", str(len(MODULES)))


@pytest.mark.real36
def test_the_worker_under_python36_sees_what_this_python_sees(python36, job):
    old, new = measure(python36, job, "old.json"), measure(sys.executable, job, "new.json")
    assert old["machine_before"]["python"].startswith("CPython 3.6")
    assert old["session"]["version"].startswith("1.10.")
    assert old["timed"]["count"] == 6
    for a, b in zip(old["detections"], new["detections"], strict=True):
        assert len(a["scores"]) == len(b["scores"]) > 10
        assert a["class_ids"] == b["class_ids"]
        np.testing.assert_allclose(a["scores"], b["scores"], atol=2e-3)
        np.testing.assert_allclose(a["boxes"], b["boxes"], atol=1.0)


@pytest.fixture(scope="module")
def jetpack4(python36):
    """The folder with the numpy that a fresh JetPack 4 has, beside that Python's own."""
    folder = Path(os.path.abspath(python36)).parents[1] / "jetpack4"
    if not folder.exists():
        pytest.skip(f"{folder}: no numpy 1.13.3 there; make the environment anew: {PREPARE}")
    return folder


@pytest.mark.real36
def test_the_numpy_of_a_fresh_jetpack_4_computes_the_same(python36, jetpack4):
    """Everything between the image and the boxes but the network: onnxruntime 1.10 does not load with numpy 1.13."""
    script = [str(Path(__file__).with_name("without_session.py")), *MODULES]
    found = []
    for python, packages in (
        (python36, {"PYTHONPATH": f"{jetpack4}:{ROOT}"}),
        (sys.executable, {"PYTHONPATH": str(ROOT)}),
    ):
        environment = {**clean_environment(), **packages}
        done = subprocess.run([python, *script], cwd=ROOT, capture_output=True, text=True, env=environment)
        assert (done.returncode, done.stderr) == (0, "")
        found.append(json.loads(done.stdout))
    old, new = found
    assert (old.pop("numpy"), new.pop("numpy") != "1.13.3") == ("1.13.3", True)
    assert old.keys() == new.keys()
    for name in old:
        np.testing.assert_allclose(old[name], new[name], atol=1e-3, err_msg=name)


@pytest.mark.real36
def test_a_mistake_under_python36_is_told(python36, job):
    values = dict(json.loads(job.read_text()), runtime="openvino")
    job.write_text(json.dumps(values))
    result = job.parent / "result.json"
    command = [python36, "-m", "edgekit.runtime.worker", str(job), str(result)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, env=clean_environment())
    assert (done.returncode, done.stderr) == (2, "")
    found = json.loads(result.read_text())
    assert found["type"] == "MissingDependency"
    assert "pip install 'edgekit[openvino]'" in found["error"]
