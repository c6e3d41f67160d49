"""Which board this is, from its own files; and which it is not."""

import pytest

from edgekit.board import load_board
from edgekit.runtime.errors import BoardLacks
from edgekit.runtime.onboard import identity
from edgekit.runtime.sensors import SYSROOT
from tests.twin.sysroot import make_sysroot

TX2 = {
    "model": "quill",
    "compatible": ["nvidia,p2597-0000+p3310-1000", "nvidia,tegra186"],
    "dts": "tegra186-quill-p3310-1000-c03-00-base",
    "l4t": "32.7.4",
}
NANO = {
    "model": "NVIDIA Jetson Nano Developer Kit",
    "compatible": ["nvidia,p3449-0000-b00+p3448-0000-b00", "nvidia,tegra210"],
    "dts": "tegra210-p3448-0000-p3449-0000-b00",
    "l4t": "32.7.4",
}
TX2_4GB = {
    "model": "quill",
    "compatible": ["nvidia,p2597-0000+p3489-0888", "nvidia,tegra186"],
    "dts": "tegra186-quill-p3489-0888-a00-00-base",
    "l4t": "32.7.4",
}
QUILL = {"model": "quill", "compatible": ["nvidia,tegra186"], "dts": "unknown", "l4t": "32.7.4"}
PC = {"model": "unknown", "compatible": [], "dts": "unknown", "l4t": "unknown"}
MAINLINE = {"model": "NVIDIA Jetson TX2 Developer Kit", "compatible": ["nvidia,p2771-0000", "nvidia,tegra186"]}


@pytest.mark.parametrize(
    ("board", "machine", "fits"),
    [
        ("jetson-tx2", TX2, True),
        ("jetson-tx2", NANO, False),
        ("jetson-tx2", PC, False),
        ("jetson-tx2", {**PC, **MAINLINE}, True),
        ("jetson-tx2", TX2_4GB, False),
        ("jetson-tx2", QUILL, True),
        ("jetson-nano", NANO, True),
        ("jetson-nano", TX2, False),
        ("x86-1t", PC, True),
        ("x86-1t", TX2, False),
    ],
)
def test_profiles_and_machines(board, machine, fits):
    wanted = load_board(board).model_dump(mode="json")["identity"]
    assert identity.fits(wanted, machine) is fits


def test_a_board_of_another_kind_is_named():
    profile = load_board("jetson-tx2").model_dump(mode="json")
    identity.require_board(profile, TX2)
    with pytest.raises(BoardLacks, match=r"'NVIDIA Jetson Nano Developer Kit' .* the bundle is for jetson-tx2"):
        identity.require_board(profile, NANO)
    with pytest.raises(BoardLacks, match=r"'quill' \(part numbers: p3489-0888, p2597-0000\).*docs/add-a-board\.md"):
        identity.require_board(profile, TX2_4GB)


@pytest.mark.parametrize(
    ("text", "release"),
    [
        ("# R32 (release), REVISION: 5.1, GCID: 26202423, BOARD: t186ref, EABI: aarch64", "32.5.1"),
        ("# R35 (release), REVISION: 4.1, GCID: 33958178, BOARD: t186ref", "35.4.1"),
        ("# R36 (release), REVISION: 4.3, GCID: 38968081, BOARD: generic", "36.4.3"),
        ("# R32 (release), REVISION: 7.6", "32.7.6"),
        ("unknown", "unknown"),
        ("R32", "unknown"),
    ],
)
def test_l4t(text, release):
    assert identity.l4t_release(text) == release


def test_the_twin_says_that_it_is_one(tmp_path, monkeypatch):
    monkeypatch.setenv(SYSROOT, str(make_sysroot(tmp_path)))
    found = identity.identity()
    assert found["model"].startswith("quill")
    assert (found["l4t"], identity.cuda_version()) == ("32.7.4", "10.2.300")
    assert [sign.split(" ")[0] for sign in found["simulated"]] == ["the", "facts"]
    assert identity.fits(load_board("jetson-tx2").model_dump(mode="json")["identity"], found)
    room = identity.resources(str(tmp_path))
    assert room["memory_available_bytes"] == 6500000 * 1024


def test_here_nothing_is_simulated(monkeypatch):
    monkeypatch.delenv(SYSROOT, raising=False)
    assert identity.identity()["simulated"] == []


def test_files_that_cannot_be_read_are_unknown(tmp_path, monkeypatch):
    monkeypatch.setenv(SYSROOT, str(tmp_path))
    (tmp_path / "proc" / "device-tree" / "model").mkdir(parents=True)  # reading it fails
    (tmp_path / "etc").mkdir()
    (tmp_path / "etc" / "nv_tegra_release").write_bytes(b"\xff\xfe\x00")
    found = identity.identity()
    assert (found["model"], found["compatible"], found["l4t"]) == ("unknown", [], "unknown")
    assert identity.cuda_version() == "unknown"
    assert identity.resources(str(tmp_path))["swap_total_bytes"] is None
