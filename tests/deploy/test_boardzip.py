"""The one file of the board: complete, the same every time, and alive on Python 3.6."""

import io
import json
import os
import subprocess
import sys
import zipfile

import pytest

from edgekit.deploy.boardzip import board_files, board_zip


@pytest.fixture(scope="module")
def pyz(tmp_path_factory):
    file = tmp_path_factory.mktemp("pyz") / "edgekit_board.pyz"
    file.write_bytes(board_zip())
    return file


def run(python, pyz, *args, **variables):
    keep = {k: v for k, v in os.environ.items() if not k.startswith(("PYTHON", "VIRTUAL_ENV", "EDGEKIT"))}
    done = subprocess.run(
        [python, str(pyz), *args], capture_output=True, text=True, cwd=pyz.parent, env={**keep, **variables}
    )
    return done.returncode, done.stdout, done.stderr


def test_it_holds_the_runtime_and_nothing_else(pyz):
    names = set(zipfile.ZipFile(pyz).namelist())
    assert {
        "__main__.py",
        "edgekit/__init__.py",
        "edgekit/runtime/worker.py",
        "edgekit/runtime/sessions/trt8.py",
    } <= names
    assert {name.split("/")[1] for name in names if "/" in name} == {"__init__.py", "runtime"}
    assert not [name for name in names if "__pycache__" in name or name.endswith(".pyc")]
    assert len(names) == len(board_files()) + 1


def test_the_same_bytes_every_time(pyz):
    assert board_zip() == pyz.read_bytes()
    infos = zipfile.ZipFile(io.BytesIO(board_zip())).infolist()
    assert {info.compress_type for info in infos} == {zipfile.ZIP_STORED}
    assert {info.date_time for info in infos} == {(1980, 1, 1, 0, 0, 0)}


@pytest.fixture(params=["here", pytest.param("board", marks=pytest.mark.real36)])
def python(request):
    if request.param == "here":
        return sys.executable
    if not os.environ.get("EDGEKIT_PYTHON36"):
        pytest.skip("needs EDGEKIT_PYTHON36; make it: tests/runtime/make_python36_env.sh DIR")
    return os.path.abspath(os.environ["EDGEKIT_PYTHON36"])


def test_help_names_the_verbs(python, pyz):
    code, out, _ = run(python, pyz, "--help")
    assert code == 0
    for verb in ("doctor", "install", "build", "verify", "bench", "camera", "rollback"):
        assert f"    {verb} " in out
    assert run(python, pyz)[0] == 2


def test_mistakes_are_told_in_a_line_and_in_json(python, pyz, tmp_path):
    home = {"EDGEKIT_HOME": str(tmp_path / "home")}
    code, out, err = run(python, pyz, "verify", **home)
    assert (code, out) == (2, "")
    assert err.startswith("edgekit: ")
    assert "there is no current version on this board" in err
    code, out, _ = run(python, pyz, "install", "--json", "none.tar.gz", **home)
    assert code == 2
    assert json.loads(out.splitlines()[-1])["type"] == "ArtifactError"
    code, _, err = run(python, pyz, "build", "nonsense", **home)
    assert code == 2
    assert "16 hex digits" in err


def test_doctor_speaks_to_people_and_machines(python, pyz, tmp_path):
    home = {"EDGEKIT_HOME": str(tmp_path / "home")}
    code, out, _ = run(python, pyz, "doctor", **home)
    assert code == 0
    assert "none has tensorrt" in out
    assert "mend:" in out
    code, out, _ = run(python, pyz, "doctor", "--json", **home)
    checks = {check["name"]: check for check in json.loads(out.splitlines()[-1])["result"]["checks"]}
    assert checks["power mode"]["status"] == "not measured"
    assert checks["numpy"]["status"] == "ok"


def test_the_camera_has_its_own_help(python, pyz):
    code, out, err = run(python, pyz, "camera", "--help")
    assert code == 0, err
    assert "camera" in out


def test_the_machines_reference_is_timed_from_the_archive(python, pyz, tmp_path):
    """``bench`` on a board: the child that times it loads from the same single file."""
    code = """if True:
        from edgekit.runtime.reference import Reference
        with Reference(0.0, 1) as reference:
            reference.slice(0, 0.0)
        print(sorted(reference.told()), reference.told()["slices_ms"][0] > 0)
    """
    environment = {**os.environ, "PYTHONPATH": str(pyz)}
    done = subprocess.run([python, "-c", code], capture_output=True, text=True, env=environment, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout == "['kind', 'slices_ms'] True\n"
