"""Which checkpoint a verb starts from: only ``run`` trains, by the recipe as it was changed on the command line."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

import edgekit
from edgekit import spine
from edgekit.recipe import Recipe, load_recipe
from edgekit.runtime.artifact import new_artifact
from edgekit.runtime.errors import BadConfig, BadInput

UNTRAINED = "refinedetlite"


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[Recipe, Path]]:
    """Recipe and place of every training; none of them begins."""
    asked: list[tuple[Recipe, Path]] = []

    def fit(recipe: Recipe, out: Path, *_: Any) -> None:
        asked.append((recipe, out))
        raise BadConfig("the training began")

    monkeypatch.setattr(spine, "need", lambda *_: type("fit", (), {"fit": staticmethod(fit)}))
    return asked


@pytest.mark.parametrize(
    "call",
    [
        lambda out: edgekit.export(UNTRAINED, out=out),
        lambda out: edgekit.predict(UNTRAINED, [out], out=out),
        lambda out: edgekit.evaluate(UNTRAINED),
        lambda out: edgekit.bench([UNTRAINED]),
        lambda out: edgekit.label(UNTRAINED, out, out=out / "l.json"),
    ],
    ids=["export", "predict", "evaluate", "bench", "label"],
)
def test_a_recipe_without_weights_is_not_trained_unasked(call, trained, tmp_path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(BadConfig, match=r"no trained weights.*edgekit train refinedetlite"):
        call(tmp_path)
    assert trained == []
    assert list(tmp_path.iterdir()) == []


def test_run_trains_the_recipe_as_it_was_changed(trained, tmp_path: Path) -> None:
    """A recipe may be any file, too: not the recipe.yaml of its folder is trained, but the one that was named."""
    file = tmp_path / "mine.yaml"
    file.write_text(
        "name: mine\nclasses: [car]\nmodel: {name: mobile-centernet}\n"
        "preprocess: {size: [96, 64]}\ntrain: {epochs: 9}\n"
    )
    changes = ["train.epochs=3", "data={root: ., train: t.json}", "evaluation=dhaka-eval"]
    with pytest.raises(BadConfig, match="the training began"):
        edgekit.run(file, overrides=changes, out=tmp_path / "out")
    ((recipe, out),) = trained
    assert out == tmp_path / "out" / "checkpoint"
    assert recipe == load_recipe(file, changes)
    assert recipe.train.epochs == 3


@pytest.mark.parametrize(
    ("epochs", "resumable", "resumed"),
    [(None, False, [False]), (None, True, [True]), (2, True, [True]), (2, False, []), (5, True, [])],
    ids=["never begun", "before the first validation", "stopped", "nothing to go on from", "finished"],
)
def test_run_goes_on_with_a_training_that_was_stopped(
    epochs: int | None, resumable: bool, resumed: list[bool], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from edgekit.models.checkpoint import checkpoint_manifest
    from edgekit.training.resume import RESUME

    recipe = load_recipe(UNTRAINED, ["train.epochs=5"])
    place, asked = tmp_path / "checkpoint", []
    if epochs is not None:
        with new_artifact(
            place, "checkpoint", {**checkpoint_manifest(recipe), "metrics": {"epochs": epochs}}
        ) as folder:
            (Path(folder) / "weights.safetensors").write_bytes(b"of some epochs")
    if resumable:
        place.with_name("checkpoint-training").mkdir()
        (place.with_name("checkpoint-training") / RESUME).write_bytes(b"a state")
    monkeypatch.setattr(spine, "train", lambda recipe, out, resume, progress: asked.append(resume))
    spine.checkpoint(recipe, place, (), None)
    assert asked == resumed


def test_a_folder_of_data_that_is_not_there_is_told_before_anything_is_loaded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spine, "need", lambda *_: pytest.fail("PyTorch was loaded"))
    with pytest.raises(BadInput, match=r"nowhere: no such folder.*data\.root=FOLDER"):
        edgekit.train("edgekit-road", overrides="data.root=/nowhere", out=tmp_path / "out")


def test_a_file_that_is_no_recipe_is_told_so(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("")
    with pytest.raises(BadConfig, match="is a file, and no recipe"):
        load_recipe(tmp_path / "README.md")


def test_what_would_not_change_anything_is_refused(tmp_path: Path) -> None:
    with new_artifact(tmp_path / "c", "checkpoint", {"classes": ["car"]}) as folder:
        (Path(folder) / "weights.safetensors").write_bytes(b"")
    with pytest.raises(BadConfig, match=r"export.top_k=3: changes a recipe"):
        edgekit.export(tmp_path / "c", overrides=["export.top_k=3"], out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_recipe_says_so(tmp_path: Path) -> None:
    with pytest.raises(BadConfig, match=r"no recipe\.yaml in this folder"):
        edgekit.run(tmp_path, out=tmp_path / "out")
