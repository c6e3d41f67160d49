"""benchmarks/arguments.py: what every script says alike of a folder of data."""

from __future__ import annotations

from pathlib import Path

import ablations
import arguments
import pytest
import training_speed
import training_table

from edgekit.recipe import load_recipe


@pytest.mark.parametrize(
    ("main", "more"),
    [
        (ablations.main, ["--table", "distillation-road"]),
        (training_speed.main, []),
        (training_table.main, ["--no-speed"]),
    ],
)
def test_data_that_is_not_there_is_said_in_the_words_of_the_command(
    main: object, more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    assert callable(main)
    assert main(["--data", str(tmp_path / "nowhere"), *more]) == 2
    said = capsys.readouterr().err
    assert f"{tmp_path / 'nowhere'}: no such folder. --data names" in said
    assert "edgekit train" not in said


def test_any_folder_may_hold_the_data(tmp_path: Path) -> None:
    """YAML would read a part of these names as something else."""
    for name in ("a: b", "c #d", "[e]"):
        folder = tmp_path / name
        folder.mkdir()
        recipe = load_recipe("edgekit-road", [arguments.data_root(folder)])
        assert recipe.data is not None
        assert recipe.data.root == str(folder)
