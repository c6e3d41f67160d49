"""How the pictures that ``predict`` draws are called."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgekit.measure.predict import _picture_names


@pytest.mark.parametrize(
    ("images", "names"),
    [
        (["a/x.jpg", "a/y.png"], ["x.jpg", "y.jpg"]),
        (["a/x.jpg", "b/x.jpg", "c/00001-x.jpg"], ["x.jpg", "00002-x.jpg", "00001-x.jpg"]),
        (["a/x.jpg", "b/x.jpg", "c/00002-x.jpg"], ["x.jpg", "00002-x.jpg", "00003-00002-x.jpg"]),
        (["c/00002-x.jpg", "b/x.jpg", "a/x.jpg"], ["00002-x.jpg", "x.jpg", "00003-x.jpg"]),
        (["a/x.jpg", "a/x.jpg"], ["x.jpg", "00002-x.jpg"]),
    ],
)
def test_no_picture_replaces_another(images: list[str], names: list[str]) -> None:
    found = _picture_names([Path(image) for image in images])
    assert found == names
    assert len(set(found)) == len(images)
