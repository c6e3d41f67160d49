"""``flash`` against a simulated TX2 behind a real sshd: the whole way, then its faults one by one.

The tests of this file share one twin and run in their order.
"""

from __future__ import annotations

import json
import threading
import time

import pytest

from edgekit.deploy.flashing import FlashOptions, flash
from edgekit.deploy.ssh import SshOptions
from edgekit.measure.report import read_report, report_json
from edgekit.measure.row import Row
from edgekit.runtime.errors import BadConfig, BadInput

pytestmark = [pytest.mark.real36, pytest.mark.slow]

STEPS = ["connect", "copy", "install", "build", "verify", "activate", "bench"]


def current(twin):
    link = twin.edgekit / "current"
    return link.resolve().name if link.is_symlink() else None


def test_the_whole_way(twin, bundles, flash_onto, tmp_path):
    file, version = bundles["first"]
    result = flash_onto(twin, file, board="jetson-tx2")
    assert result.error is None
    assert result.steps == dict.fromkeys(STEPS, "done")
    assert (result.version, current(twin), result.previous) == (version, version, None)
    assert any("edgekit,twin" in sign for sign in result.simulated)
    assert (result.row.runtime, result.row.runtime_version, result.row.precision) == ("tensorrt8", "8.2.1.8", "fp16")
    assert result.row.accuracy.map50 > 0.9
    assert result.row.accuracy.images == 4
    assert result.row.energy.source == "INA3221 VDD_IN"
    assert result.row.energy.watts == pytest.approx(4.312)
    assert result.row.machine["power"]["before"] == {"name": "MAXN", "id": 0}
    assert (twin.edgekit / "versions" / version / "engine" / "model.plan").read_bytes()[:4] == b"ptrt"
    assert not list((twin.edgekit / "incoming").iterdir())
    assert (twin.edgekit.stat().st_mode & 0o777) == 0o700


def test_again_there_is_nothing_to_do_and_the_row_is_never_a_boards(twin, bundles, flash_onto, tmp_path):
    """The row comes home once more; it is read back, and refused when its name or its verdict is changed."""
    told = []
    result = flash_onto(twin, bundles["first"][0], keep=told)
    assert result.error is None
    assert {name for name, state in result.steps.items() if state == "done"} == {"connect", "activate"}
    assert ("twin", "done", 1, 1) in told
    row = result.row
    assert (row.board, row.verdict.status) == ("twin", "simulated")
    (tmp_path / "rows.json").write_text(report_json([row]))
    assert read_report(tmp_path / "rows.json")[0].board == "twin"
    forged = (tmp_path / "rows.json").read_text().replace('"board": "twin"', '"board": "jetson-tx2"')
    (tmp_path / "forged.json").write_text(forged)
    with pytest.raises(BadInput, match="measured on a simulator, but called board 'jetson-tx2'"):
        read_report(tmp_path / "forged.json")
    with pytest.raises(BadInput, match="simulator"):
        Row.from_dict({**row.to_dict(), "verdict": {"status": "valid", "reasons": []}})


def test_the_camera_runs_what_was_flashed_and_its_numbers_are_a_simulators(twin, bundles):
    """Under the board's own Python, on the engine that was built there, as a user types it on the board."""
    pictures = twin.upload(bundles["first"][0].parent / "pictures", "street")
    board = f"python3 .edgekit/versions/{bundles['first'][1]}/edgekit_board.pyz"
    told = twin.run(f"{board} camera current --source {pictures} --offline --jsonl seen.jsonl --json")
    assert told.returncode == 0, told.stderr
    summary = json.loads(told.stdout)
    lines = [json.loads(line) for line in (twin.home / "seen.jsonl").read_text().splitlines()]
    frames = [line for line in lines if line.get("type") == "frame"]
    assert summary["results"] == len(frames) == 4
    assert all(frame["boxes"] for frame in frames), frames
    assert lines[0]["runtime"] == "tensorrt 8.2.1.8"
    assert summary["board"] == lines[0]["board"] == "twin (a simulator, no board)"
    missing = twin.run(f"{board} camera current --source nowhere.mp4 --headless")
    assert missing.returncode == 2
    assert "nowhere.mp4" in missing.stderr
    assert "Traceback" not in missing.stderr


def test_a_connection_lost_in_the_middle_of_the_copy_goes_on_there(twin, bundles, flash_onto):
    file = bundles["second"][0]
    old = current(twin)
    twin.lay("receive", 'head -c 300000 > part\nsh -c "$SSH_ORIGINAL_COMMAND" < part\n$CUT\nexit\n')
    result = flash_onto(twin, file)
    assert result.error_type == "ConnectionLost"
    assert "Repeat the same command" in result.error
    assert (result.steps["copy"], current(twin)) == ("failed", old)
    part = next((twin.edgekit / "incoming").iterdir())
    assert part.stat().st_size == 300000
    twin.mend()
    twin.lose_connection_at("install")
    told = []
    result = flash_onto(twin, file, keep=told)
    assert result.error_type == "ConnectionLost"
    assert min(done for _, phase, done, _ in told if phase == "copy" and done) > 300000
    assert current(twin) == old


@pytest.mark.parametrize("verb", ["identify", "build", "verify", "activate"])
def test_a_connection_lost_at_any_step_leaves_the_old_version(verb, twin, bundles, flash_onto):
    old = current(twin)
    assert old != bundles["second"][1]
    twin.mend()
    twin.lose_connection_at(verb)
    result = flash_onto(twin, bundles["second"][0])
    assert result.error_type == "ConnectionLost"
    assert result.steps["connect" if verb == "identify" else verb] == "failed"
    assert current(twin) == old


def test_the_same_command_then_finishes(twin, bundles, flash_onto):
    first, second = bundles["first"][1], bundles["second"][1]
    twin.mend()
    twin.lose_connection_at("bench")
    result = flash_onto(twin, bundles["second"][0])
    assert (result.error_type, result.steps["bench"]) == ("ConnectionLost", "failed")
    assert current(twin) == second  # verified already
    twin.mend()
    result = flash_onto(twin, bundles["second"][0])
    assert result.error is None
    assert (result.version, result.previous) == (second, first)
    assert result.row.verdict.status == "simulated"


def test_rollback_goes_to_the_version_before_and_back(twin, bundles, flash_onto):
    for wanted in (bundles["first"][1], bundles["second"][1]):
        result = flash_onto(twin, None, rollback=True)
        assert result.error is None
        assert (result.version, current(twin)) == (wanted, wanted)


def test_a_rollback_of_a_simulator_says_so(twin, flash_onto):
    result = flash_onto(twin, None, rollback=True)
    assert result.board == "jetson-tx2"
    assert any("edgekit,twin" in sign for sign in result.simulated)
    assert flash_onto(twin, None, rollback=True).error is None


def test_a_power_mode_that_the_board_has_not_is_refused_before_any_host_is_touched(twin, bundles, flash_onto):
    told = []
    with pytest.raises(BadConfig, match="power mode 'TURBO': this board has: 0 MAXN"):
        flash_onto(twin, bundles["second"][0], keep=told, power_mode="TURBO")
    assert not [host for host, *_ in told if host]


def test_a_second_flash_at_the_same_time_is_told_of_the_first(twin, bundles, flash_onto):
    twin.lay("activate", "touch began; while [ ! -e go ]; do sleep 0.1; done\n")
    results = []
    first = threading.Thread(target=lambda: results.append(flash_onto(twin, bundles["second"][0], measure=False)))
    first.start()
    deadline = time.monotonic() + 240
    while not (twin.home / "began").exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    second = flash_onto(twin, bundles["first"][0])
    (twin.home / "go").touch()
    first.join()
    twin.mend()
    assert second.error_type == "BoardBusy"
    assert "another flash of this board is going on" in second.error
    assert results[0].error is None


def test_a_changed_host_key_is_refused_and_nothing_is_sent(new_twin, bundles, flash_onto):
    other = new_twin("other")
    other.change_host_key()
    result = flash_onto(other, bundles["first"][0])
    assert result.error_type == "HostError"
    assert "its host key is not the one that is known" in result.error
    assert "ssh-keygen -R" in result.error
    assert not other.edgekit.exists()
    other.forget_host_key()
    result = flash_onto(other, bundles["first"][0])
    assert "its host key is not known yet" in result.error
    assert not other.edgekit.exists()


def test_a_board_of_another_kind_is_refused_before_anything_is_copied(new_twin, bundles, flash_onto):
    nano = new_twin("nano", kind="nano")
    result = flash_onto(nano, bundles["first"][0])
    assert result.error_type == "BoardLacks"
    assert "is jetson-nano, the bundle is for jetson-tx2. Nothing was copied" in result.error
    assert not list((nano.edgekit / "versions").iterdir())


def test_a_full_disk_is_told_before_and_during_the_copy(new_twin, bundles, flash_onto, small_disk):
    full = new_twin("full")
    small_disk(full.edgekit, 100, full.world.user)
    result = flash_onto(full, bundles["first"][0])
    assert result.error_type == "BoardLacks"
    assert "MB free" in result.error
    assert "Nothing was copied" in result.error
    small_disk(full.edgekit, 520, full.world.user)
    full.lay("receive", 'head -c 600M /dev/zero > "$HOME/.edgekit/fill" 2>/dev/null\n')
    result = flash_onto(full, bundles["first"][0])
    assert "No space left on device" in result.error
    assert current(full) is None
    full.mend()
    (full.edgekit / "fill").unlink()
    assert flash_onto(full, bundles["first"][0], measure=False).error is None


def test_one_of_many_fails_and_the_others_go_on(new_twin, twin, bundles, tmp_path):
    """Two hosts under one ssh configuration; the second is not there."""
    config = tmp_path / "ssh_config"
    nobody = "\nHost nobody\n  HostName 127.0.0.1\n  Port 1\n"
    config.write_text(twin.config.read_text() + nobody)
    told = []
    results = flash(
        bundles["second"][0],
        hosts=[twin.name, "nobody"],
        out=tmp_path / "rows.json",
        options=FlashOptions(SshOptions(config), seconds=0.1),
        progress=lambda *what: told.append(what),
    )
    assert [result.ok for result in results] == [True, False]
    assert "refuses connections" in results[1].error
    rows = json.loads((tmp_path / "rows.json").read_text())["rows"]
    assert [row["board"] for row in rows] == ["twin"]
    assert {what[0] for what in told} == {"", "twin", "nobody"}  # "": the bundle is checked for all of them
