"""A place where a verb cannot write is told before its work: no network is loaded, no image read, nothing trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit import spine
from edgekit.runtime.artifact import Artifact, new_artifact
from edgekit.runtime.errors import ArtifactError, BadConfig

RECIPE = "mobile-centernet-w16-dhaka"
TAKEN = "not an artifact; it will not be replaced"
A_FOLDER = "is a folder, and a file is to be written"
A_FILE = "is a file, not a folder"

# verb, what its --out is, its call with the folder of a network that no runtime could load
VERBS: list[tuple[str, str, Callable[[Path, Path], Any]]] = [
    ("train", TAKEN, lambda _, out: edgekit.train(RECIPE, out=out)),
    ("export", TAKEN, lambda _, out: edgekit.export(RECIPE, out=out)),
    ("quantize", TAKEN, lambda model, out: edgekit.quantize(model, calibration="dhaka-calib", out=out)),
    ("import-onnx", TAKEN, lambda model, out: edgekit.import_onnx(model / "model.onnx", layout="yolov8", out=out)),
    ("build", TAKEN, lambda model, out: edgekit.build(model, board="desktop-gpu", out=out)),
    ("bench", A_FOLDER, lambda model, out: edgekit.bench([model], out=out)),
    ("bench --compare", A_FOLDER, lambda model, out: edgekit.bench_compare(model, model, out=out)),
    ("label", A_FOLDER, lambda model, out: edgekit.label(model, model, out=out)),
    ("bundle", A_FOLDER, lambda model, out: edgekit.bundle(model, board="jetson-tx2", out=out)),
    ("flash", A_FOLDER, lambda model, out: edgekit.flash(model, hosts=["tx2"], board="jetson-tx2", out=out)),
    ("run", A_FILE, lambda _, out: edgekit.run(RECIPE, out=out / "thesis.tex")),
    ("report", A_FILE, lambda _, out: edgekit.report([out / "none.json"], out=out / "thesis.tex")),
    ("predict", A_FILE, lambda model, out: edgekit.predict(model, [model], out=out / "thesis.tex")),
]


@pytest.fixture
def model(tmp_path: Path) -> Path:
    manifest = {"classes": ["car"], "category_ids": [1], "precision": "fp32", "recipe": {"evaluation": "dhaka-eval"}}
    manifest |= {"input": {"name": "image", "layout": "nchw_float", "shape": [1, 3, 96, 128]}, "flavour": None}
    with new_artifact(tmp_path / "model", "onnx", manifest) as folder:
        (Path(folder) / "model.onnx").write_bytes(b"no network")
    return tmp_path / "model"


@pytest.fixture
def taken(tmp_path: Path) -> Path:
    """Somebody's folder."""
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    return tmp_path / "home"


@pytest.mark.parametrize(("said", "call"), [case[1:] for case in VERBS], ids=[case[0] for case in VERBS])
def test_every_verb_looks_at_out_first(said, call, model, taken, monkeypatch) -> None:
    def work(*_: Any, **__: Any) -> None:
        pytest.fail("the work began")

    monkeypatch.setattr(spine, "checkpoint", work)
    monkeypatch.setattr(spine, "need", work)
    monkeypatch.setattr("edgekit.conversion.engine.run_in_child", work)
    monkeypatch.setattr("edgekit.conversion.engine.check_machine", lambda *_: None)  # whatever machine this is
    monkeypatch.setattr("edgekit.conversion.imports.verb.run_in_child", work)
    monkeypatch.setattr("edgekit.conversion.lint.lint", work)
    with pytest.raises((ArtifactError, BadConfig), match=said):
        call(model, taken)
    assert [p.name for p in taken.iterdir()] == ["thesis.tex"]


def test_run_looks_at_every_artifact_that_it_will_write(tmp_path: Path, monkeypatch) -> None:
    """The INT8 network comes last: minutes after the start, or hours where the recipe is trained first."""
    monkeypatch.setattr(spine, "checkpoint", lambda *_: pytest.fail("the work began"))
    (tmp_path / "onnx-int8").mkdir()
    (tmp_path / "onnx-int8" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match=f"onnx-int8: .*{TAKEN}"):
        edgekit.run(RECIPE, out=tmp_path)


@pytest.mark.parametrize("call", [case[2] for case in VERBS[2:5]], ids=[case[0] for case in VERBS[2:5]])
def test_no_verb_replaces_what_it_reads(call, model: Path) -> None:
    before = (model / "model.onnx").read_bytes(), (model / "manifest.json").read_bytes()
    with pytest.raises((ArtifactError, BadConfig), match=r"will not be replaced|would be overwritten"):
        call(model, model)
    assert before == ((model / "model.onnx").read_bytes(), (model / "manifest.json").read_bytes())


@pytest.mark.parametrize(
    ("checkpoint", "layout", "batch", "onnx"),
    [
        ("runs/x/checkpoint", "nhwc_uint8", 1, "runs/x/onnx"),
        ("runs/mine", "nhwc_uint8", 1, "runs/mine-onnx"),
        ("runs/x/checkpoint", "nchw_float", 1, "runs/x/onnx-nchw"),
        ("runs/mine", "nchw_float", 8, "runs/mine-onnx-nchw-batch8"),
        ("runs/x/checkpoint", "nhwc_uint8", 8, "runs/x/onnx-batch8"),
    ],
)
def test_onnx_files_beside_each_other_do_not_replace_one_another(
    checkpoint: str, layout: str, batch: int, onnx: str
) -> None:
    """``edgekit export runs/mine``, as a training's end says, then ``runs/other``, then ``--board jetson-tx2``."""
    assert spine.beside(Artifact(checkpoint, {}), layout, batch) == Path(onnx)
