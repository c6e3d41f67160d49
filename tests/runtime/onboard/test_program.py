"""The board's program on this machine, carried as a file: install, build, verify, activate, bench, roll back.

The bundle is for x86-1t, whose runtime is ONNX Runtime, so nothing is simulated and no board is needed.
"""

import json
import os
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path

import pytest

from edgekit.board import load_board
from edgekit.deploy.bundling import BundleOptions, bundle
from edgekit.deploy.rows import row_from_board
from edgekit.measure.report import read_report
from edgekit.runtime.errors import ArtifactError, BadInput
from edgekit.runtime.onboard import archive, main
from tests.twin import network


@pytest.fixture(scope="module")
def stick(tmp_path_factory):
    """A USB stick: the bundle, and the program that was taken out of it by tar."""
    folder = tmp_path_factory.mktemp("stick")
    options = BundleOptions(data=str(network.pictures(folder / "pictures", 3)))
    made = network.artifact(folder / "model")
    bundle(made.path, board="x86-1t", options=options, out=folder / "b.tar.gz")
    with tarfile.open(folder / "b.tar.gz") as packed:
        packed.extract("edgekit_board.pyz", folder)
    return folder


@pytest.fixture(scope="module")
def home(tmp_path_factory):
    return tmp_path_factory.mktemp("home") / "edgekit"


@pytest.fixture
def board(stick, home):
    """Runs the program; gives (exit code, its result or its error)."""

    def run(*args, **variables):
        keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "EDGEKIT"))}
        command = [sys.executable, str(stick / "edgekit_board.pyz"), args[0], "--json", *map(str, args[1:])]
        environment = {**keep, "EDGEKIT_HOME": str(home), **variables}
        done = subprocess.run(command, capture_output=True, text=True, env=environment)
        last = json.loads(done.stdout.splitlines()[-1])
        return done.returncode, last.get("result", last.get("error"))

    return run


@pytest.fixture(scope="module")
def version(stick):
    return archive.read_bundle(stick / "b.tar.gz").digest[:16]


def test_installed_once(board, stick, version):
    code, first = board("install", stick / "b.tar.gz")
    assert (code, first["version"], first["skipped"], first["signed_by"]) == (0, version, False, None)
    assert board("install", stick / "b.tar.gz")[1]["skipped"]
    assert board("status")[1]["versions"] == [version]


def test_it_becomes_current_only_when_it_was_verified(board, version):
    code, message = board("activate", version)
    assert code == 2
    assert "were not verified" in message
    code, built = board("build", version)
    assert (code, built["skipped"]) == (0, True)  # ONNX Runtime needs no engine
    code, report = board("verify", version)
    assert code == 0
    assert report["same"]
    assert (report["unpaired"], report["worst_iou"] > 0.999) == (0, True)
    assert report["boxes"] >= 8
    assert board("verify", version)[1]["skipped"]
    assert not board("verify", version, "--force")[1]["skipped"]
    assert board("activate", version)[1]["current"] == version


def test_its_bench_becomes_a_row(board, stick, version, tmp_path):
    words = ("bench", "--seconds", "0.1", "--count", "5", "--warmup", "1")
    code, told = board(*words, "--power-mode", "0")
    assert code == 0
    assert told["board"]["simulated"] == []
    assert told["power"]["before"]["name"] == "not measured"
    assert told["power"]["refused"]
    found = archive.unpack(stick / "b.tar.gz", tmp_path / "b")
    row = row_from_board(told, load_board("x86-1t"), found.index, tmp_path / "b")
    assert (row.board, row.runtime, row.precision, row.accuracy.images) == ("x86-1t", "onnxruntime", "fp32", 3)
    assert row.accuracy.map50 > 0.9
    assert row.accuracy.set_digest == found.index["evaluation"]["digest"]
    assert row.verdict.status != "simulated"
    assert row.latency.count >= 5
    assert row.machine["room"]["disk_free_bytes"] > 0
    (tmp_path / "bench.json").write_text(json.dumps(told))
    with pytest.raises(BadInput, match=r"no report, but what the bench on a board left.*edgekit flash BUNDLE --host"):
        read_report(tmp_path / "bench.json")
    assert not board(*words, "--power-mode", "0")[1]["skipped"]  # it was refused, and may be permitted now
    plain = board(*words)[1]
    again = board(*words)[1]
    assert (plain["skipped"], again["skipped"], again["started"]) == (False, True, plain["started"])
    assert not board("bench", "--seconds", "0.1", "--count", "6", "--warmup", "1")[1]["skipped"]
    code, message = board(*words, "--power-mode", "TURBO")
    assert (code, "power mode 'TURBO'" in message) == (2, True)


def test_a_person_reads_a_summary_of_the_bench(stick, home, version, board):
    board("bench", "--seconds", "0.1", "--count", "5", "--warmup", "1")
    command = [
        sys.executable,
        stick / "edgekit_board.pyz",
        "bench",
        "--seconds",
        "0.1",
        "--count",
        "5",
        "--warmup",
        "1",
    ]
    done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, "EDGEKIT_HOME": str(home)})
    told = json.loads(done.stdout)
    assert len(done.stdout.splitlines()) < 30
    whole = json.loads(Path(told["whole"]).read_text())
    assert told["frames"] == len(whole["latency_ms"]["total"]) >= 5
    assert min(whole["latency_ms"]["total"]) <= told["p50_ms"]["total"] <= told["p99_ms"]
    assert (told["version"], told["skipped"], told["simulated"]) == (version, True, [])


@pytest.mark.parametrize("verb", ["build", "verify", "bench"])
def test_a_python_without_numpy_is_told_where_to_look(stick, home, board, version, tmp_path, verb):
    """As on a fresh JetPack; before, a traceback and exit code 1."""
    (tmp_path / "numpy.py").write_text("raise ModuleNotFoundError(\"No module named 'numpy'\")")
    (tmp_path / "cv2.py").write_text("raise ModuleNotFoundError(\"No module named 'cv2'\")")
    code, message = board(verb, version, "--force", PYTHONPATH=str(tmp_path))
    assert code == 2
    assert "No module named" in message
    assert "edgekit_board.pyz doctor" in message


def test_a_bug_has_the_exit_code_of_one(monkeypatch, capsys):
    monkeypatch.setitem(main.VERBS, "status", lambda *_: {}["lost"])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    assert main.main(["status"]) == main.BUG
    assert "KeyError: 'lost'" in capsys.readouterr().err


@pytest.mark.parametrize("wish", [("--seconds", "-5"), ("--count", "-1"), ("--warmup", "x"), ("--seconds", "inf")])
def test_numbers_of_the_bench_are_checked_by_name(wish, capsys):
    with pytest.raises(SystemExit) as ended:
        main.main(["bench", *wish])
    assert ended.value.code == 2
    assert f"argument {wish[0]}: invalid" in capsys.readouterr().err


def test_a_camera_takes_the_name_of_a_version(home, version, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", str(home))
    folder = str(home / "versions" / version / "artifact")
    assert main._camera_arguments([version, "--source", "0"]) == [folder, "--runtime", "onnxruntime", "--source", "0"]
    assert main._camera_arguments([str(home), "--web"]) == [str(home), "--web"]
    with pytest.raises(ArtifactError, match=rf"nothere: no version or folder of this name; installed: .*{version}"):
        main._camera_arguments(["nothere", "--source", "csi://0"])


def test_without_a_version_before_there_is_no_way_back(board, version):
    code, message = board("rollback")
    assert code == 2
    assert "no previous version" in message
    assert board("status")[1]["current"] == version


def test_other_boxes_than_expected_are_told_and_never_become_current(board, stick, version, tmp_path):
    """The expected boxes are moved, and the bundle packed again as if that were right."""
    archive.unpack(stick / "b.tar.gz", tmp_path / "b")
    golden = json.loads((tmp_path / "b/golden/golden.json").read_text())
    for record in golden["images"]:
        record["boxes"] = [[x1 + 5, y1, x2 + 5, y2] for x1, y1, x2, y2 in record["boxes"]]
    (tmp_path / "b/golden/golden.json").write_text(json.dumps(golden))
    index = json.loads((tmp_path / "b/bundle.json").read_text())
    (tmp_path / "b/bundle.json").unlink()
    index["files"] = archive.describe_folder(tmp_path / "b")
    made = archive.Bundle(json.dumps(index).encode())
    with open(tmp_path / "moved.tar.gz", "wb") as handle:
        archive.write_archive(handle, made, tmp_path / "b")
    moved = board("install", tmp_path / "moved.tar.gz")[1]["version"]
    code, message = board("verify", moved)
    assert code == 2
    assert "golden boxes have no partner within IoU 0.98" in message
    assert board("activate", moved)[0] == 2
    assert board("status")[1]["current"] == version


def test_a_version_whose_files_changed_is_not_used_and_can_be_installed_anew(board, stick, home, version):
    file = home / "versions" / version / "artifact" / "model.onnx"
    file.write_bytes(file.read_bytes() + b"!")
    code, message = board("verify", version)
    assert code == 2
    assert "changed after it was installed" in message
    assert not board("install", stick / "b.tar.gz")[1]["skipped"]
    assert board("verify", version)[0] == 0


def test_only_trusted_signatures_where_the_board_has_a_list(board, stick, home, tmp_path):
    pytest.importorskip("cryptography")
    for name in ("ours", "theirs"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", tmp_path / name], check=True)
    shutil.copy(tmp_path / "ours.pub", home / "trusted_keys")
    code, message = board("install", stick / "b.tar.gz")
    assert code == 2
    assert "is not signed" in message
    options = BundleOptions(data=str(stick / "pictures" / "annotations.json"))
    for name, expected in (("theirs", 2), ("ours", 0)):
        out = tmp_path / f"{name}.tar.gz"
        bundle(stick / "model", board="x86-1t", options=options, out=out, sign=tmp_path / name)
        assert board("install", out)[0] == expected
    code, message = board("install", "--trust", tmp_path / "theirs.pub", tmp_path / "ours.tar.gz")
    assert code == 2  # the list and the option must both be content
    assert "is signed by" in message
    (home / "trusted_keys").unlink()


def test_another_board_is_refused(board, model_for_nano):
    code, message = board("install", model_for_nano)
    assert code == 2
    assert "the bundle is for jetson-nano" in message
    assert "Nothing was changed" in message


@pytest.fixture
def model_for_nano(stick, tmp_path):
    options = BundleOptions(data=str(stick / "pictures" / "annotations.json"))
    return bundle(stick / "model", board="jetson-nano", options=options, out=tmp_path / "nano.tar.gz")["path"]
