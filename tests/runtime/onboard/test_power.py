"""nvpmodel and jetson_clocks: set and restored when permitted, else only reported. The commands are simulated."""

import os
import re
from pathlib import Path

import pytest

from edgekit.runtime.errors import BadConfig
from edgekit.runtime.onboard import doctor, power
from edgekit.runtime.onboard.store import Store, write_json
from edgekit.runtime.sensors import SYSROOT
from tests.twin.sysroot import GPU, make_sysroot

BIN = Path(__file__).parents[2] / "twin" / "bin"
MODES = [{"id": 0, "name": "MAXN"}, {"id": 1, "name": "MAXQ"}, {"id": 3, "name": "MAXP_CORE_ARM"}]
MAXN = {"name": "MAXN", "id": 0}


class Board:
    def __init__(self, root):
        self.root, self.home = root, str(root / "home")
        (root / "home").mkdir()

    @property
    def mode(self):
        return (self.root / "var" / "nvpmodel").read_text().strip()

    @property
    def least_clock(self):
        return int((self.root / GPU / "min_freq").read_text())

    def permit(self):
        (self.root / "var" / "sudo").touch()


@pytest.fixture
def board(tmp_path, monkeypatch):
    monkeypatch.setenv(SYSROOT, str(make_sysroot(tmp_path)))
    monkeypatch.setenv("PATH", f"{BIN}:{os.environ['PATH']}")
    monkeypatch.setattr(power.os, "geteuid", lambda: 1000)
    return Board(tmp_path)


@pytest.mark.parametrize(
    ("text", "mode"),
    [
        ("NV Power Mode: MAXP_CORE_ARM\n3\n", {"name": "MAXP_CORE_ARM", "id": 3}),
        ("NV Fan Mode:quiet\nNV Power Mode: MODE_30W\n2\n", {"name": "MODE_30W", "id": 2}),
        ("", {"name": "not measured", "id": "not measured"}),
    ],
)
def test_what_nvpmodel_prints(text, mode):
    assert power.parse_mode(text) == mode


def test_asked_for_nothing_it_only_reports(board):
    board.permit()
    with power.power_set(board.home, MODES) as report:
        assert report["before"] == report["during"] == MAXN
    assert (report["done"], report["refused"], report["restored"], report["after"]) == ([], [], [], MAXN)


@pytest.mark.parametrize("wish", ["MAXP_CORE_ARM", "maxp_core_arm", "3", 3])
def test_set_and_restored(wish, board):
    board.permit()
    with power.power_set(board.home, MODES, wish, clocks=True) as report:
        assert (board.mode, board.least_clock) == ("3", 1300500000)
        assert os.path.exists(os.path.join(board.home, power.JOURNAL))
    assert report["during"] == {"name": "MAXP_CORE_ARM", "id": 3}
    assert report["restored"] == ["clocks", "power mode 0"]
    assert (report["after"], board.mode, board.least_clock) == (MAXN, "0", 114750000)
    assert not os.path.exists(os.path.join(board.home, power.JOURNAL))


def test_restored_after_an_exception(board):
    board.permit()
    with pytest.raises(KeyboardInterrupt), power.power_set(board.home, MODES, "MAXQ", clocks=True):
        raise KeyboardInterrupt
    assert (board.mode, board.least_clock) == ("0", 114750000)


def test_not_permitted_is_reported_and_nothing_changes(board):
    with power.power_set(board.home, MODES, "MAXQ", clocks=True) as report:
        assert (board.mode, board.least_clock) == ("0", 114750000)
    assert report["done"] == []
    assert len(report["refused"]) == 2
    assert all("a password is required" in text for text in report["refused"])
    assert report["restored"] == []
    assert os.listdir(board.home) == []


def test_a_mode_that_the_board_has_not(board):
    board.permit()
    known = "power mode 'TURBO': this board has: 0 MAXN, 1 MAXQ, 3 MAXP_CORE_ARM"
    with pytest.raises(BadConfig, match=known), power.power_set(board.home, MODES, "TURBO", clocks=True):
        pytest.fail("measured in another mode than was asked for")
    assert (board.mode, board.least_clock) == ("0", 114750000)


def test_a_profile_that_lists_no_modes_leaves_the_number_to_nvpmodel(board):
    board.permit()
    with power.power_set(board.home, [], "3"):
        assert board.mode == "3"
    with pytest.raises(BadConfig, match="names none; give the number for nvpmodel -m"):
        power.mode_number([], "MAXN")


def test_the_mode_that_is_set_already(board):
    with power.power_set(board.home, MODES, "MAXN") as report:
        pass
    assert report["done"] == ["power mode was 0 already"]


ORIN = "< POWER_MODEL ID=0 NAME=15W >\n< POWER_MODEL ID=1 NAME=7W >\nGPU MAX_FREQ 408000000\n< PM_CONFIG DEFAULT=0 >\n"


@pytest.mark.parametrize("wish", ["7W", "1", 1])
def test_the_boards_own_list_of_modes_comes_before_the_profiles(wish, board):
    """On an Orin Nano 7W is number 1 before JetPack 6.2 and number 3 after."""
    board.permit()
    (board.root / "etc" / "nvpmodel.conf").write_text(ORIN)
    with power.power_set(board.home, [{"id": 0, "name": "15W"}, {"id": 3, "name": "7W"}], wish):
        assert board.mode == "1"


@pytest.mark.parametrize("wish", ["3", "MAXN"])
def test_a_mode_that_the_boards_own_list_has_not(wish, board):
    board.permit()
    (board.root / "etc" / "nvpmodel.conf").write_text(ORIN)
    with pytest.raises(BadConfig, match="this board has: 0 15W, 1 7W"), power.power_set(board.home, MODES, wish):
        pytest.fail("measured in another mode than was asked for")


def test_a_number_that_the_profile_has_not_is_left_to_the_board():
    assert power.mode_number(MODES, "7") == 7


def test_a_mode_that_needs_a_reboot_is_refused_and_nothing_is_restored(board):
    board.permit()
    (board.root / "var" / "reboot-modes").write_text("3\n")
    with power.power_set(board.home, MODES, "3") as report:
        assert (board.mode, report["during"]) == ("0", MAXN)
        assert os.listdir(board.home) == []
    told = "power mode 3: nvpmodel still tells 0. It needs a reboot: sudo nvpmodel -m 3, then repeat"
    assert (report["done"], report["refused"], report["restored"]) == ([], [told], [])


def test_a_way_back_that_needs_a_reboot_is_not_called_restored(board):
    board.permit()
    (board.root / "var" / "reboot-modes").write_text("0\n")
    with power.power_set(board.home, MODES, "3") as report:
        pass
    assert report["restored"][0].startswith("power mode 0 NOT restored: NVPM WARN: Reboot required")
    assert (board.mode, os.listdir(board.home)) == ("3", [power.JOURNAL])


def test_clocks_are_set_every_time(board):
    """jetson_clocks asks before it replaces the file that it stores in, and is answered no."""
    board.permit()
    for _ in range(2):
        with power.power_set(board.home, MODES, clocks=True) as report:
            assert board.least_clock == 1300500000
        assert (report["refused"], report["restored"]) == ([], ["clocks"])
        assert (board.least_clock, os.listdir(board.home)) == (114750000, [])


def test_a_file_of_clocks_that_an_older_version_left_is_no_hindrance(board):
    board.permit()
    Path(board.home, "clocks.conf").write_text("1\n")
    with power.power_set(board.home, MODES, clocks=True) as report:
        pass
    assert (report["refused"], board.least_clock) == ([], 114750000)


def test_clocks_that_could_not_be_restored_are_not_stored_over(board):
    """The file of the earlier run is the only one that knows them."""
    stored = Path(board.home, "clocks.conf")
    stored.write_text("114750000\n")
    write_json(os.path.join(board.home, power.JOURNAL), {"mode": None, "clocks": str(stored)})
    with power.power_set(board.home, MODES, "MAXQ", clocks=True) as report:
        board.permit()  # too late for this run
    assert "nothing was set: clocks NOT restored" in report["refused"][0]
    assert stored.read_text() == "114750000\n"
    assert power.restore_left_over(board.home) == ["clocks"]
    assert os.listdir(board.home) == []


def test_what_a_killed_run_left_is_restored_by_the_next(board):
    board.permit()
    (board.root / "var" / "nvpmodel").write_text("3\n")
    write_json(os.path.join(board.home, power.JOURNAL), {"mode": 0, "clocks": None})
    assert power.restore_left_over(board.home) == ["power mode 0"]
    assert board.mode == "0"
    assert power.restore_left_over(board.home) == []


def told(board):
    return {check["name"]: check["found"] for check in doctor._power({}, board.home)}


def test_doctor_leaves_a_bench_that_runs_its_clocks(board):
    board.permit()
    with Store(board.home).working("bench"), power.power_set(board.home, MODES, "3", clocks=True) as report:
        found = told(board)
        assert (board.mode, board.least_clock) == ("3", 1300500000)
        assert os.path.exists(os.path.join(board.home, power.JOURNAL))
    assert re.search(r"may be what a bench has set: this board is at work: bench \(process \d+\)", found["at work"])
    assert found["power mode"] == "MAXP_CORE_ARM (3)"
    assert report["restored"] == ["clocks", "power mode 0"]


def test_doctor_restores_what_a_bench_that_was_killed_left(board):
    board.permit()
    (board.root / "var" / "nvpmodel").write_text("3\n")
    write_json(os.path.join(board.home, power.JOURNAL), {"mode": 0, "clocks": None})
    found = told(board)
    assert found["power left over"] == "restored after a bench that was killed: power mode 0"
    assert (found["power mode"], board.mode, "at work" in found) == ("MAXN (0)", "0", False)


def test_a_restore_that_fails_is_not_forgotten(board):
    write_json(os.path.join(board.home, power.JOURNAL), {"mode": 0, "clocks": None})
    assert "NOT restored" in power.restore_left_over(board.home)[0]
    assert os.path.exists(os.path.join(board.home, power.JOURNAL))


def test_without_nvpmodel_nothing_is_measured(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    with power.power_set(str(tmp_path), MODES, "MAXQ") as report:
        pass
    assert report["before"] == {"name": "not measured", "id": "not measured"}
    assert "does not tell the present one" in report["refused"][0]
