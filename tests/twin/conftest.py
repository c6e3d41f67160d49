"""Twins, and bundles for them. Without an sshd or a Python 3.6 these tests are skipped with the reason."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from edgekit.deploy.bundling import BundleOptions, bundle
from edgekit.deploy.flashing import FlashOptions, flash
from edgekit.deploy.ssh import SshOptions

from . import network
from .twin import Twin, World, why_not


@pytest.fixture(scope="session")
def world():
    reason = why_not()
    if reason:
        pytest.skip(reason)
    made = World.make()
    yield made
    made.remove()


@pytest.fixture(scope="session")
def new_twin(world):
    """Makes running twins; all are stopped in the end."""
    twins = []

    def make(name="twin", kind="tx2"):
        twins.append(Twin(world, name, kind).start())
        return twins[-1]

    yield make
    for twin in twins:
        twin.stop()


@pytest.fixture(scope="module")
def twin(new_twin):
    """One twin for all tests of a file, which tell one story."""
    return new_twin()


@pytest.fixture(scope="session")
def bundles(tmp_path_factory):
    """Two bundles for the TX2 of different models; "first" and "second"."""
    folder = tmp_path_factory.mktemp("bundles")
    options = BundleOptions(data=str(network.pictures(folder / "pictures", 4)))
    files = {}
    for name, strength in (("first", 6.0), ("second", 7.0)):
        made = network.artifact(folder / name, strength=strength)
        found = bundle(made.path, board="jetson-tx2", options=options, out=folder / f"{name}.tar.gz")
        files[name] = Path(found["path"]), found["version"]
    return files


@pytest.fixture
def flash_onto():
    """Flashes a bundle onto one twin; with ``keep`` also gives what progress told."""

    def run(twin, source, keep=None, **options):
        rest = {name: options.pop(name) for name in ("rollback", "board") if name in options}
        measured = options.get("measure", True) and not rest.get("rollback")
        seconds = 0.5 if measured else None  # some periods of the sensors
        wishes = FlashOptions(SshOptions(twin.config), seconds=seconds, **options)
        told = [] if keep is None else keep
        results = flash(source, hosts=[twin.name], options=wishes, progress=lambda *a: told.append(a), **rest)
        return results[0]

    return run


@pytest.fixture
def small_disk():
    """Mounts a small file system at a folder; skipped where that is not permitted."""
    mounted = []

    def mount(folder, megabytes, user):
        folder.mkdir(parents=True, exist_ok=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={megabytes}m,mode=0700", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode != 0:
            pytest.skip(f"cannot mount a small file system here: {done.stderr.strip()}")
        mounted.append(folder)
        shutil.chown(folder, user)

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "-l", str(folder)], check=True)
