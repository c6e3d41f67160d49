"""Exported files of real networks, and NVIDIA's parser and builder in an environment of their own."""

import json
import os
import subprocess
from pathlib import Path

import pytest
import torch

import edgekit
from edgekit.conversion.calibrate import calibrate
from edgekit.conversion.export import ExportOptions, export_onnx
from edgekit.conversion.graph import load_model
from edgekit.conversion.half import write_half
from edgekit.conversion.qdq import quantize_file
from edgekit.conversion.simplify import simplify_file
from edgekit.models.zoo import build
from edgekit.paths import share
from edgekit.recipe import load_recipe
from edgekit.runtime.preprocess import Preprocess

ROOT = Path(edgekit.__file__).resolve().parents[1]
PREPARE = "tests/parser/make_parser_env.sh .venv-parser; export EDGEKIT_PARSER_PYTHON=.venv-parser/bin/python"


@pytest.fixture(scope="session")
def parser_python():
    """The interpreter that EDGEKIT_PARSER_PYTHON names."""
    python = os.environ.get("EDGEKIT_PARSER_PYTHON")
    if not python:
        pytest.skip(f"EDGEKIT_PARSER_PYTHON names no environment with NVIDIA's parser; make one: {PREPARE}")
    return python


@pytest.fixture(scope="session")
def build_engines(parser_python, tmp_path_factory):
    """build_engines(jobs) -> results; a crash of the native library is an error that names the file."""
    code = "import sysconfig; print(sysconfig.get_paths()['purelib'])"
    packages = subprocess.check_output([parser_python, "-c", code], text=True).strip()
    environment = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV"))}
    environment["LD_LIBRARY_PATH"] = f"{packages}/onnxruntime_ep_nv_tensorrt_rtx"
    environment["PYTHONPATH"] = str(ROOT)

    def run(jobs):
        folder = tmp_path_factory.mktemp("jobs")
        (folder / "jobs.json").write_text(json.dumps(jobs))
        script = Path(__file__).with_name("build_engines.py")
        command = [parser_python, str(script), str(folder / "jobs.json"), str(folder / "results.json")]
        done = subprocess.run(command, env=environment, capture_output=True, text=True, cwd=folder)
        assert done.returncode == 0, f"{jobs[0]['path']}: exit {done.returncode}: {done.stderr[-2000:]}"
        return json.loads((folder / "results.json").read_text())

    return run


class Files:
    """The ONNX files of one recipe's network with random weights, each made when it is asked for."""

    def __init__(self, recipe, folder, size):
        self.folder = folder
        found = load_recipe(recipe)
        torch.manual_seed(0)
        values = found.preprocess.model_dump()
        self.preprocess = Preprocess(**{**values, "size": size or values["size"]})
        section = found.model
        self.model = build(section.name, len(found.classes), section.options, self.preprocess.size).eval()
        self.nms = self.model.nms

    def _made(self, name, make):
        path = self.folder / f"{name}.onnx"
        if not path.exists():
            make(path)
        return path

    def export(self, layout="nchw_float"):
        def make(path):
            plain = path.with_suffix(".plain")
            export_onnx(self.model, self.preprocess, ExportOptions(layout=layout), plain)
            simplify_file(str(plain), str(path))

        return self._made(layout, make)

    def half(self):
        return self._made("half", lambda path: write_half(self.export(), path))

    def quantized(self):
        def make(path):
            photos = sorted((share("calibration") / "dhaka-eval" / "images").glob("*.jpg"))[:2]
            ranges = calibrate(self.export(), photos, self.preprocess, "nchw_float").ranges
            quantize_file(str(self.export()), str(path), ranges, "trt", [], False)

        return self._made("int8", make)

    def nodes(self, path):
        return load_model(path).graph.node


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """files(recipe, size) -> its Files."""
    known = {}

    def of(recipe, size=None):
        if recipe not in known:
            known[recipe] = Files(recipe, tmp_path_factory.mktemp("files"), size)
        return known[recipe]

    return of


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("EDGEKIT_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
