"""What is installed away from the checkout works: the wheel is built from the sdist, so both are complete."""

import json
import os
import re
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

import edgekit

ROOT = Path(__file__).parents[1]
SHARED = ("recipes", "boards", "calibration", "scoring", "benchmarks/papers", "benchmarks/results")


def run(*command, **options):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True, check=False, **options)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def tracked(*folders):
    """Files of the checkout's folders; what git does not know of (caches) is not meant to be shipped."""
    if not (ROOT / ".git").exists():
        pytest.skip("needs the git checkout")
    return run("git", "ls-files", "--", *folders, cwd=ROOT).split()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Folder with the sdist and the wheel that was built from it."""
    folder = tmp_path_factory.mktemp("dist")
    run(sys.executable, "-m", "build", "--no-isolation", "--outdir", folder, ROOT)
    return folder


@pytest.fixture(scope="module")
def installed(built, tmp_path_factory):
    """An environment with the wheel; its dependencies are borrowed from this one, so that nothing is downloaded."""
    folder = tmp_path_factory.mktemp("empty")
    run(sys.executable, "-m", "venv", "--without-pip", folder)
    python = folder / "bin" / "python"
    wheel = next(built.glob("*.whl"))
    run(sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel)
    site = Path(run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))").strip())
    (site / "borrowed.pth").write_text(sysconfig.get_path("purelib") + "\n")
    return folder


def edgekit_there(installed, *args):
    environment = {"PATH": os.environ["PATH"], "HOME": str(installed)}
    return run(installed / "bin" / "edgekit", *args, cwd=installed, env=environment)


def test_making_a_wheel_leaves_the_environment_alone(tmp_path):
    """Whatever it holds, even another checkout's install, and however old its stamp is."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    plan = run("make", "-n", "wheel", f"VENV={tmp_path}", cwd=ROOT)
    assert f"{tmp_path}/bin/python -m build" in plan
    assert "pip install -" not in plan
    assert "pip install" in run("make", "-n", "wheel", f"VENV={tmp_path}/none", cwd=ROOT)


@pytest.mark.slow
def test_sdist_and_wheel_pass_twine(built):
    assert len(list(built.iterdir())) == 2
    run(sys.executable, "-m", "twine", "check", "--strict", *built.iterdir())


@pytest.mark.slow
def test_the_version_is_the_packages(built):
    names = sorted(p.name for p in built.iterdir())
    assert names == [f"edgekit-{edgekit.__version__}-py3-none-any.whl", f"edgekit-{edgekit.__version__}.tar.gz"]


@pytest.mark.slow
def test_sdist_has_every_tracked_file_that_is_needed(built):
    with tarfile.open(next(built.glob("*.tar.gz"))) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    needed = tracked("edgekit", "docs", "tests", *SHARED)
    needed += [
        "README.md",
        "LICENSE",
        "CHANGELOG.md",
        "CONTRIBUTING.md",
        "Makefile",
        "constraints.txt",
        "pyproject.toml",
    ]
    assert sorted(set(needed) - names) == []


@pytest.mark.slow
def test_wheel_has_the_package_and_what_it_shares(built):
    with zipfile.ZipFile(next(built.glob("*.whl"))) as archive:
        names = set(archive.namelist())
    assert sorted({f"edgekit/_share/{f}" for f in tracked(*SHARED)} - names) == []
    assert sorted(set(tracked("edgekit")) - names) == []
    assert not [name for name in names if name.startswith(("tests/", "recipes/", "benchmarks/"))]


@pytest.mark.slow
def test_the_wheel_finds_its_recipes_and_boards_away_from_the_checkout(installed):
    where = run(installed / "bin" / "python", "-c", "import edgekit; print(edgekit.__file__)", cwd=installed).strip()
    assert where.startswith(str(installed))
    assert edgekit_there(installed, "--version") == f"edgekit {edgekit.__version__}\n"
    recipes = {record["name"] for record in json.loads(edgekit_there(installed, "zoo", "--json"))}
    boards = {record["name"] for record in json.loads(edgekit_there(installed, "boards", "--json"))}
    assert recipes == {p.parent.name for p in ROOT.glob("recipes/*/recipe.yaml")}
    assert boards == {p.stem for p in ROOT.glob("boards/*.yaml")}


@pytest.mark.skipif(sys.version_info < (3, 11), reason="tomllib is in Python 3.11")
def test_every_dependency_is_pinned():
    import tomllib

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *extras["train"], *extras["openvino"], *extras["dev"]]
    names = {re.split(r"[<>=!~\[; ]", r, maxsplit=1)[0].lower() for r in wanted}
    pins = {line.split("==")[0] for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert sorted(names - pins) == []
