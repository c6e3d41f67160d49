"""``flash``: what is wrong on this side is told before any host is touched. With hosts: tests/twin."""

from pathlib import Path

import pytest

from edgekit.deploy import flashing
from edgekit.deploy.bundling import BundleOptions
from edgekit.deploy.flashing import FlashOptions, flash
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput


@pytest.fixture(autouse=True)
def _no_host(monkeypatch):
    monkeypatch.setattr(flashing, "_all", lambda *_: pytest.fail("a host was touched"))


@pytest.fixture
def damaged(bundled, tmp_path):
    """One byte in the last tenth is another one; the beginning, which is read first, is whole."""
    content = bytearray(Path(bundled["path"]).read_bytes())
    content[-len(content) // 10] ^= 0xFF
    (tmp_path / "damaged.tar.gz").write_bytes(content)
    return tmp_path / "damaged.tar.gz"


def test_a_damaged_bundle(damaged):
    with pytest.raises(ArtifactError, match="damaged"):
        flash(damaged, hosts=["tx2"])


@pytest.mark.parametrize(
    ("given", "error", "says"),
    [
        ({"board": "jetson-nano"}, BadConfig, "is a bundle for jetson-tx2, --board says jetson-nano"),
        ({"contents": BundleOptions(precision="fp32", nms="graph")}, BadConfig, "cannot follow --precision, --nms"),
        ({"options": FlashOptions(power_mode="TURBO")}, BadConfig, "this board has: 0 MAXN"),
        ({"options": FlashOptions(trust=(Path("nokey"),))}, BadInput, "nokey: cannot be read"),
        ({"hosts": []}, BadConfig, "give at least one --host"),
        ({"hosts": ["a", "a"]}, BadConfig, "host given twice: a"),
        ({"out": Path("/dev/null")}, BadConfig, "is a device"),
        ({"rollback": True}, BadConfig, "leave the artifact out"),
    ],
)
def test_mistakes(given, error, says, bundled):
    with pytest.raises(error, match=says):
        flash(bundled["path"], **{"hosts": ["tx2"], **given})


@pytest.mark.parametrize(
    ("source", "given", "says"),
    [
        (None, {}, "nothing to flash"),
        (None, {"rollback": True, "contents": BundleOptions(nms="graph")}, "--rollback goes back"),
        ("nowhere", {}, "no such bundle or artifact folder"),
    ],
)
def test_nothing_to_flash(source, given, says):
    with pytest.raises((BadConfig, BadInput), match=says):
        flash(source, hosts=["tx2"], **given)
