"""Names that do not exist, in messages that stay short."""

from pathlib import Path

import pytest

from edgekit.deploy.flashing import flash
from edgekit.paths import MOST_NAMES, expanded, unknown_name
from edgekit.runtime.errors import BadConfig, BadInput


@pytest.mark.parametrize(
    ("name", "known", "more", "text"),
    [
        ("voc", ["coco", "yolo"], "", "no thing named 'voc'. Did you mean coco? There are: coco, yolo."),
        ("/x", ["a", "b"], "List them: l", "no thing named '/x'. There are: a, b. List them: l"),
        ("/x", [f"n{i}" for i in range(MOST_NAMES + 1)], "List them: l", "no thing named '/x'. List them: l"),
    ],
)
def test_few_names_are_listed_and_many_are_not(name, known, more, text):
    assert str(unknown_name("thing", name, known, more)) == text


def test_flash_names_a_bundle_that_is_not_there(tmp_path):
    with pytest.raises(BadInput, match="no such bundle or artifact folder"):
        flash(tmp_path / "nothing.tar.gz", hosts=["user@board"])


def test_home_folders(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    assert expanded("~/a") == Path("/home/me/a")
    assert expanded("a/~") == Path("a/~")
    with pytest.raises(BadConfig, match="~no-such-user is no home folder"):
        expanded("~no-such-user/recipe")
