"""``flash``: what is wrong on this side is told before any host is touched. With hosts: tests/twin."""

from pathlib import Path
from types import SimpleNamespace

import pytest

from edgekit.board import load_board
from edgekit.deploy import flashing
from edgekit.deploy.bundling import BundleOptions, bundle
from edgekit.deploy.flashing import FlashOptions, flash
from edgekit.runtime.errors import ArtifactError, BadConfig, BadInput, BoardLacks
from edgekit.runtime.onboard import archive
from tests.twin import network

ALL = flashing._all


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
        ({"board": "jetson-nano"}, BadConfig, "is a bundle for jetson-tx2, board .--board. says jetson-nano"),
        ({"contents": BundleOptions(precision="fp32", nms="graph")}, BadConfig, "cannot follow --precision, --nms"),
        ({"options": FlashOptions(power_mode="TURBO")}, BadConfig, "this board has: 0 MAXN"),
        ({"options": FlashOptions(trust=(Path("nokey"),))}, BadInput, "nokey: cannot be read"),
        ({"hosts": []}, BadConfig, r"hosts: none given.*--host"),
        ({"hosts": ["a", "a"]}, BadConfig, "host given twice: a"),
        ({"out": Path("/dev/null")}, BadConfig, "is a device"),
        ({"rollback": True}, BadConfig, "leave the artifact out"),
        (
            {"options": FlashOptions(measure=False, power_mode="FOO", jetson_clocks=True)},
            BadConfig,
            r"power_mode \(--power-mode\), jetson_clocks .*: of the bench, which measure=False \(--no-bench\)",
        ),
        (
            {"rollback": True, "options": FlashOptions(seconds=3)},
            BadConfig,
            r"of the bench, which rollback \(--rollback",
        ),
    ],
)
def test_mistakes(given, error, says, bundled):
    with pytest.raises(error, match=says):
        flash(bundled["path"], **{"hosts": ["tx2"], **given})


@pytest.mark.parametrize(
    ("source", "given", "says"),
    [
        (None, {}, "nothing to flash"),
        (None, {"rollback": True, "contents": BundleOptions(nms="graph")}, "goes back to what is on the board"),
        ("nowhere", {}, "no such bundle or artifact folder"),
    ],
)
def test_nothing_to_flash(source, given, says):
    with pytest.raises((BadConfig, BadInput), match=says):
        flash(source, hosts=["tx2"], **given)


@pytest.mark.parametrize(
    ("error", "told", "bug"),
    [
        (BoardLacks("b: no room"), "b: no room", False),
        (KeyError("timed"), "b: KeyError: 'timed'", True),
        (TypeError("no list"), "b: TypeError: no list", True),
        (OSError(28, "No space left on device"), "b: OSError: [Errno 28] No space left on device", False),
    ],
)
def test_whatever_is_wrong_with_one_host_the_others_come_home(error, told, bug):
    def work(host, result, show):
        if host.name == "b":
            result.steps["bench"] = "running"
            raise error
        result.row = "a row"

    hosts = [SimpleNamespace(name=name, cut=lambda: pytest.fail("cut")) for name in "abc"]
    first, failed, last = ALL(hosts, work, lambda *told: None)
    assert (first.row, last.row, first.ok, last.ok) == ("a row", "a row", True, True)
    assert (failed.error, failed.error_type, failed.steps) == (told, type(error).__name__, {"bench": "failed"})
    assert failed.bug is (error if bug else None)


# -- the board's software ---------------------------------------------------------------------------------------------
def job_for(board, runtime):
    bundle = SimpleNamespace(index={"build": {"runtime": runtime}})
    return SimpleNamespace(profile=load_board(board), bundle=bundle), SimpleNamespace(name="lab-3")


def test_a_board_with_a_release_that_is_not_listed_is_flashed_with_a_note():
    facts = {"l4t": "35.6.5", "tensorrt": "8.5.2.2"}
    (note,) = flashing._Job._check_stack(*job_for("jetson-xavier-nx", "tensorrt10"), facts)
    assert "taken for JetPack 5.1.3 - 5.1.6" in note
    facts["l4t"] = "35.4.1"
    assert flashing._Job._check_stack(*job_for("jetson-xavier-nx", "tensorrt10"), facts) == []


def test_a_bundle_for_other_software_is_refused_with_the_name_of_the_boards():
    facts = {"l4t": "35.6.5", "tensorrt": "8.5.2.2"}
    told = "lab-3: runs L4T 35.6.5 with TensorRT 8.5.2.*Bundle again with --release 'JetPack 5.1.3 - 5.1.6'"
    with pytest.raises(BoardLacks, match=told):
        flashing._Job._check_stack(*job_for("jetson-xavier-nx", "tensorrt8"), facts)


def test_a_board_with_unknown_software_is_refused():
    with pytest.raises(BoardLacks, match=r"lab-3: runs L4T 40\.1\.0.*has no software stack.*Nothing was copied"):
        flashing._Job._check_stack(*job_for("jetson-tx2", "tensorrt8"), {"l4t": "40.1.0", "tensorrt": "unknown"})


class Board:
    """What a host with that release would say of itself. release: of L4T;  tensorrt: as its Python has it"""

    def __init__(self, release, tensorrt):
        self.facts = {"l4t": release, "tensorrt": tensorrt}
        self.host = SimpleNamespace(name="lab-3", options=SimpleNamespace(python="python3"))

    def check(self, bundle, folder):
        index = archive.unpack(bundle, folder)
        return flashing._Job(Path(bundle), folder, index, load_board("jetson-tx2"), None, FlashOptions())._check_parser(
            self.host, self.facts
        )


def test_an_older_release_is_asked_whether_it_takes_the_model(options, tmp_path):
    """TensorRT 8.0 of JetPack 4.6 has no Round; a bundle is linted for 8.2."""
    made = bundle(
        network.artifact(tmp_path / "round", extra="Round").path,
        board="jetson-tx2",
        options=options,
        out=tmp_path / "b",
    )
    Board("32.7.4", "8.2.1.8").check(made["path"], tmp_path / "new")
    told = r"lab-3: runs JetPack 4\.6, which cannot run.*Round.*Nothing was copied.*--release 'JetPack 4\.6'"
    with pytest.raises(BoardLacks, match=told):
        Board("32.6.1", "8.0.1.6").check(made["path"], tmp_path / "old")


def test_a_python_without_tensorrt_is_noticed_before_anything_is_copied(bundled, tmp_path):
    with pytest.raises(BoardLacks, match=r"its python3 cannot load tensorrt\. Nothing was copied.*--python"):
        Board("32.7.4", "unknown").check(bundled["path"], tmp_path / "b")


# -- which board it is ------------------------------------------------------------------------------------------------
TX2_4GB = {
    "model": "quill",
    "compatible": ["nvidia,p2597-0000+p3489-0888", "nvidia,tegra186"],
    "dts": "tegra186-quill-p3489-0888-a00-00-base",
    "l4t": "32.7.4",
    "architecture": "aarch64",
}


@pytest.mark.parametrize("board", ["jetson-tx2", "x86-1t"])
def test_a_module_without_a_profile_is_named_and_told_how_to_be_added(board):
    told = (
        r"lab-3: is no board that EdgeKit knows: aarch64, calls itself 'quill' "
        rf"\(part numbers: p3489-0888, p2597-0000\), the bundle is for {board}\. "
        r"Nothing was copied\. Describe it in boards/NAME\.yaml \(docs/add-a-board\.md\)"
    )
    with pytest.raises(BoardLacks, match=told):
        flashing._Job._check(*job_for(board, "tensorrt8"), TX2_4GB)
