"""doctor: what it says of things that work, are missing, and crash."""

import re
import sys
from importlib import metadata
from pathlib import Path

import pytest

from edgekit import checkup, spine
from edgekit.board import load_board
from edgekit.recipe import load_recipe
from edgekit.runtime import machine
from edgekit.runtime.errors import BadConfig

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"


def names(requirements):
    return {re.split(r"[<>=!~\[; ]", r, maxsplit=1)[0].lower() for r in requirements}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is in Python 3.11")
def test_packages_are_those_of_pyproject():
    import tomllib

    project = tomllib.loads(PYPROJECT.read_text())["project"]
    parts = {"core": project["dependencies"], **project["optional-dependencies"]}
    for part, packages in checkup.PACKAGES.items():
        assert set(packages) == names(parts[part]), part


def test_a_package_that_is_not_installed_has_the_command_that_installs_it(monkeypatch):
    real = metadata.version

    def version(name):
        if name == "openvino":
            raise metadata.PackageNotFoundError(name)
        return real(name)

    monkeypatch.setattr(checkup.metadata, "version", version)
    checks = {check.name: check for check in checkup._packages()}
    assert checks["openvino"].status == "missing"
    assert checks["openvino"].mend == "pip install '.[openvino]'"
    assert checks["numpy"].status == "ok"
    assert checks["numpy"].found == real("numpy")


def test_onnxruntime_computes():
    check = checkup._runtime("onnxruntime", "pip install it")
    assert (check.status, check.mend) == ("ok", "")
    assert check.found == metadata.version("onnxruntime")


@pytest.mark.parametrize(
    ("source", "status", "said"),
    [
        ("raise ImportError('libtbb.so is gone')", "missing", "libtbb.so is gone"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "failed", "SIGSEGV"),
        ("import os; os._exit(7)", "failed", "exit code 7"),
    ],
)
def test_a_broken_runtime_is_told_and_kills_only_its_child(source, status, said, tmp_path, monkeypatch):
    (tmp_path / "openvino.py").write_text(source + "\n")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    check = checkup._runtime("openvino", "pip install it")
    assert check.status == status
    assert said in check.found
    assert check.mend == "pip install it"


@pytest.mark.parametrize(
    ("works", "machine", "matches", "said"),
    [
        (["onnxruntime"], {"x86"}, True, ""),
        ([], {"x86"}, False, "none of its runtimes works here"),
        (["onnxruntime"], {"arm", "jetson"}, False, "this machine is arm and jetson, the board is x86"),
    ],
)
def test_a_board_suits_this_machine(works, machine, matches, said, monkeypatch):
    monkeypatch.setattr(checkup, "kinds", lambda: machine)
    record = checkup._suits(load_board("x86-1t"), works)
    assert record["matches"] == matches
    assert said in " ".join(record["against"])
    assert record["runtimes"] == works


TX2 = {"model": "quill", "compatible": ["nvidia,p2771-0000", "nvidia,tegra186"], "dts": "", "l4t": "32.7.6"}
CARRIER = {"model": "somebody's carrier", "compatible": ["somebody,carrier"], "dts": "", "l4t": "35.4.1"}
PI = {"model": "Raspberry Pi 4 Model B Rev 1.4", "compatible": [], "dts": "", "l4t": "unknown"}


@pytest.mark.parametrize(("me", "kind"), [(TX2, "jetson"), (CARRIER, "jetson"), (PI, "arm")])
def test_the_kind_of_this_machine_is_what_its_device_tree_is_recognised_as(me, kind, monkeypatch):
    """A TX2's model does not say "jetson"; NVIDIA's own name of the developer kit is "quill"."""
    monkeypatch.setattr(checkup.identity, "identity", lambda: me)
    monkeypatch.setattr(checkup.platform, "machine", lambda: "aarch64")
    assert checkup.kinds() == {"arm", kind}


def test_one_jetson_is_not_another(monkeypatch):
    monkeypatch.setattr(checkup.identity, "identity", lambda: TX2)
    found = {name: checkup._suits(load_board(name), ["onnxruntime"]) for name in ("jetson-tx2", "jetson-nano")}
    assert found["jetson-tx2"]["matches"]
    assert found["jetson-nano"]["against"] == ["this machine calls itself 'quill' (part numbers: p2771-0000)"]


def test_recipes_without_weights_are_one_line():
    untrained = [check for check in checkup._data() if "to be trained" in check.found]
    assert len(untrained) == 1
    assert untrained[0].status == "ok"
    assert "edgekit train" in untrained[0].mend


def test_a_recipe_that_lacks_its_image_set(tmp_path):
    recipe = load_recipe("mobile-centernet-w16-dhaka", ["evaluation=nowhere-eval", "quantize.calibration=here"])
    check = checkup._recipe(recipe, ["here"])
    assert check.status == "missing"
    assert "nowhere-eval" in check.found
    assert "here," not in check.found


def test_little_room_is_told(monkeypatch):
    monkeypatch.setattr(checkup, "FREE_GB", 1e9)
    disk = next(check for check in checkup._system() if check.name == "disk")
    assert disk.status == "failed"
    assert "--out" in disk.mend


def test_an_unknown_board_is_refused_before_anything_is_checked(monkeypatch):
    monkeypatch.setattr(checkup, "_runtimes", lambda progress: pytest.fail("looked at the runtimes"))
    with pytest.raises(BadConfig, match="Did you mean x86"):
        checkup.checkup("x87")


def test_the_whole(monkeypatch):
    monkeypatch.setattr(checkup, "RUNTIMES", {"onnxruntime": "core"})
    seen = []
    facts = checkup.checkup("x86", progress=lambda *args: seen.append(args))
    assert [board["name"] for board in facts["boards"]] == ["x86"]
    assert {check["group"] for check in facts["checks"]} == {"system", "package", "runtime", "data"}
    assert seen[-1] == ("checking the runtimes", 1, 1)
    assert facts["machine"]["architecture"]


@pytest.mark.parametrize(
    ("architecture", "extensions", "lacks"),
    [
        ("x86_64", ["avx", "avx2"], True),
        ("x86_64", ["avx", "avx2", "avx_vnni"], False),
        ("x86_64", ["avx512f", "avx512_vnni"], False),
        ("x86_64", "unknown", False),
        ("aarch64", ["asimddp"], False),
    ],
)
def test_a_cpu_whose_int8_sums_overflow_is_told(monkeypatch, architecture, extensions, lacks):
    facts = {**machine.facts(), "architecture": architecture, "extensions": extensions}
    monkeypatch.setattr(machine, "facts", lambda: facts)
    found = [check for check in checkup._system() if check.name == "int8"]
    assert [check.mend for check in found] == ["edgekit quantize ARTIFACT --reduce-range"] * lacks
    told = [*spine._overflow("x86", False)]
    assert ["--reduce-range" in note for note in told] == [True] * lacks
    assert not [*spine._overflow("x86", True), *spine._overflow("trt", False)]
