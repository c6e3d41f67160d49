"""What doctor says of broken boards, each laid by hand."""

import os
import sys

import pytest

from edgekit.runtime.onboard import doctor, identity
from edgekit.runtime.sensors import SYSROOT
from tests.twin.sysroot import make_sysroot


def checks(home):
    return {check["name"]: check for check in doctor.checkup(str(home))["checks"]}


def test_numpy_that_dies_of_an_illegal_instruction_has_two_cures(tmp_path, monkeypatch):
    """numpy 1.19.5 on a Jetson: the import itself ends the process."""
    (tmp_path / "lib" / "numpy").mkdir(parents=True)
    (tmp_path / "lib" / "numpy" / "__init__.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGILL)\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "lib"))
    found = checks(tmp_path)["numpy"]
    assert found["status"] == "failed"
    assert "illegal instruction" in found["found"]
    assert "numpy==1.19.4" in found["mend"]
    assert "OPENBLAS_CORETYPE=ARMV8" in found["mend"]


def test_the_answer_on_numpy_is_for_the_users_own_programs(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENBLAS_CORETYPE", "ARMV8")
    assert identity.ask_python(sys.executable, "import os; print(os.environ.get('OPENBLAS_CORETYPE'))") == (0, "None")


@pytest.mark.parametrize(
    ("l4t", "told"),
    [
        (
            "32.7.6",
            "sudo apt-get install python3-pip python3-dev && python3 -m pip install --user -U 'pip<22' && "
            "PATH=/usr/local/cuda/bin:$PATH python3 -m pip install --user 'pycuda<2021.1'",
        ),
        (
            "35.6.5",
            "sudo apt-get install python3-pip python3-dev && "
            "PATH=/usr/local/cuda/bin:$PATH python3 -m pip install --user 'pycuda<2023'",
        ),
        (
            "36.4.7",
            "sudo apt-get install python3-pip python3-dev && "
            "PATH=/usr/local/cuda/bin:$PATH python3 -m pip install --user 'pycuda>=2024.1'",
        ),
        (
            "38.4.0",
            "sudo apt-get install python3-pip python3-dev && "
            "PATH=/usr/local/cuda/bin:$PATH python3 -m pip install --user --break-system-packages 'pycuda>=2025.1.2'",
        ),
    ],
)
def test_pycuda_is_that_for_the_boards_cuda(l4t, told, monkeypatch):
    monkeypatch.setattr(doctor.identity, "ask_python", lambda *a: (1, "ModuleNotFoundError: No module named 'pycuda'"))
    (found,) = doctor._pycuda({"l4t": l4t}, "")
    assert (found["status"], found["mend"]) == ("failed", told)


@pytest.mark.parametrize(
    ("version", "status"), [("1.13.3", "ok"), ("1.9.0", "failed"), ("1.12.1", "failed"), ("2.4.6", "ok")]
)
def test_a_numpy_that_is_too_old(version, status, monkeypatch):
    monkeypatch.setattr(doctor.identity, "ask_python", lambda *a: (0, version))
    (found,) = doctor._numpy({"l4t": "32.7.6"}, "")
    assert found["status"] == status
    if status == "failed":
        assert (found["found"], found["mend"]) == (
            f"{version}; needed is 1.13 or later",
            "sudo apt-get install python3-numpy",
        )


@pytest.fixture
def pythons(monkeypatch):
    """Interpreters of a made-up board: path -> the version of tensorrt, or None."""

    def lay(**have):
        table = {path.replace("_", "/"): version for path, version in have.items()}

        def ask(python, code):
            if "tensorrt" in code:
                version = table.get(python)
                return (0, version) if version else (1, "ModuleNotFoundError: No module named 'tensorrt'")
            return 0, "1.0 YES /usr/lib/python3/dist-packages/cv2.so"

        monkeypatch.setattr(doctor.identity, "ask_python", ask)
        monkeypatch.setattr(doctor, "interpreters", lambda: list(table))
        monkeypatch.setattr(sys, "executable", next(iter(table)))

    return lay


def test_the_interpreter_that_has_tensorrt_is_named(pythons, tmp_path):
    pythons(_opt_python3=None, _usr_bin_python3="8.2.1.8")
    found = checks(tmp_path)["interpreter"]
    assert found["status"] == "failed"
    assert "/opt/python3 has no tensorrt; /usr/bin/python3 (8.2.1.8) has" in found["found"]
    assert "edgekit flash ... --python /usr/bin/python3" in found["mend"]


def test_the_right_interpreter_and_none(pythons, tmp_path):
    pythons(_usr_bin_python3="8.2.1.8")
    assert checks(tmp_path)["interpreter"]["status"] == "ok"
    pythons(_usr_bin_python3=None)
    assert "python3-libnvinfer" in checks(tmp_path)["interpreter"]["mend"]


@pytest.mark.parametrize(
    ("answer", "status", "mend"),
    [
        ((0, "4.1.1 YES /usr/lib/python3.6/dist-packages/cv2.so"), "ok", ""),
        ((0, "4.5.5 NO /home/a/.local/lib/python3.6/site-packages/cv2/__init__.py"), "warning", "pip3 uninstall"),
        ((0, "4.5.5 NO /usr/local/lib/python3.6/dist-packages/cv2/__init__.py"), "warning", "pip3 uninstall"),
        ((0, "4.1.1 NO /usr/lib/python3.6/dist-packages/cv2.so"), "warning", "libopencv-python"),
        ((1, "ImportError: libGL.so.1"), "failed", "python3-opencv"),
    ],
)
def test_opencv_and_gstreamer(answer, status, mend, monkeypatch):
    monkeypatch.setattr(doctor.identity, "ask_python", lambda *a: answer)
    (found,) = doctor._opencv({}, "")
    assert found["status"] == status
    assert mend in found["mend"]


def test_a_tx2_as_its_files_show_it(tmp_path, monkeypatch, pythons):
    pythons(_usr_bin_python3="8.2.1.8")
    monkeypatch.setenv(SYSROOT, str(make_sysroot(tmp_path / "root")))
    found = checks(tmp_path)
    assert "L4T 32.7.4" in found["board"]["found"]
    assert found["simulator"]["status"] == "warning"
    assert found["cuda"]["found"] == "10.2.300"
    assert found["gpu clock"]["found"] == "115 MHz now, from 115 to 1300, free to change: --jetson-clocks fixes it"
    assert "VDD_IN" in found["power rails"]["found"]
    assert "4.3 W now" in found["power rails"]["found"]
    assert "GPU-therm" in found["temperatures"]["found"]
    assert "PMIC" not in found["temperatures"]["found"]
    assert found["memory"]["status"] == "ok"


def test_what_is_not_there_is_not_measured(tmp_path, monkeypatch, pythons):
    pythons(_usr_bin_python3="8.2.1.8")
    monkeypatch.setenv(SYSROOT, str(tmp_path / "empty"))
    monkeypatch.setenv("PATH", str(tmp_path))
    found = checks(tmp_path)
    for name in ("cuda", "power mode", "gpu clock", "memory", "power rails", "temperatures"):
        assert found[name]["status"] == "not measured", name


def test_little_memory_asks_for_swap(tmp_path, monkeypatch, pythons):
    pythons(_usr_bin_python3="8.2.1.8")
    root = make_sysroot(tmp_path / "root")
    (root / "proc/meminfo").write_text("MemAvailable: 900000 kB\nSwapTotal: 4019568 kB\n")  # the swap is zram
    monkeypatch.setenv(SYSROOT, str(root))
    found = checks(tmp_path)["memory"]
    assert (found["status"], found["found"]) == ("warning", "922 MB free, 0 MB swap on disk")
    assert "swapon" in found["mend"]


def test_interpreters_are_listed_once():
    found = doctor.interpreters()
    assert found[0] == sys.executable
    real = [os.path.realpath(path) for path in found]
    assert len(real) == len(set(real))
