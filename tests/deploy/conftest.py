"""A small model and labelled pictures, and bundles of them."""

from __future__ import annotations

import pytest

from edgekit.deploy.bundling import BundleOptions, bundle
from tests.twin import network


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    return network.pictures(tmp_path_factory.mktemp("pictures"), 4)


@pytest.fixture(scope="session")
def model(tmp_path_factory):
    return network.artifact(tmp_path_factory.mktemp("models") / "blocks")


@pytest.fixture(scope="session")
def options(pictures):
    return BundleOptions(data=str(pictures))


@pytest.fixture(scope="session")
def bundled(model, options, tmp_path_factory):
    """A bundle for the TX2: what ``bundle`` returned."""
    return bundle(model.path, board="jetson-tx2", options=options, out=tmp_path_factory.mktemp("b") / "b.tar.gz")
