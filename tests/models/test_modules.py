"""Names of modules."""

import pytest

from edgekit.models.modules import matches


@pytest.mark.parametrize(
    ("layer", "names", "expected"),
    [
        ("head.size.2", ["head.size.2"], True),
        ("head.size.2", ["head"], True),
        ("head.size.20", ["head.size.2"], False),
        ("header.size", ["head"], False),
        ("head", [], False),
    ],
)
def test_matches(layer, names, expected):
    assert matches(layer, names) is expected
