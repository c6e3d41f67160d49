"""Versions on a board: links that are never half moved, files that are received in parts, locks."""

import contextlib
import hashlib
import io
import os
import subprocess
import sys

import pytest

from edgekit.runtime.errors import ArtifactError, BadConfig, BoardBusy
from edgekit.runtime.onboard import archive, main
from edgekit.runtime.onboard.store import Store, in_use, read_json, write_json

NAMES = [c * 16 for c in "abcd"]


@pytest.fixture
def store(tmp_path):
    return Store(str(tmp_path / "home"))


@pytest.fixture
def version(store):
    """Installs a version with one file; ``same`` is what its verification said, None for never."""

    def make(name, same=True):
        path = store.version_path(name)
        os.makedirs(os.path.join(path, "artifact"))
        with open(os.path.join(path, "artifact", "file"), "w") as handle:
            handle.write(name)
        index = {"format": 1, "board": {"name": "b"}, "files": archive.describe_folder(path)}
        write_json(os.path.join(path, archive.INDEX), index)
        if same is not None:
            seal = store.seal("verify.json", name, "digest")
            write_json(os.path.join(path, "verify.json"), {"same": same, "artifact": "digest", "seal": seal})
        return path

    return make


def test_the_first_the_second_and_back(store, version):
    first, second = (version(name) for name in NAMES[:2])
    assert store.state()["current"] is None
    assert store.activate(NAMES[0])["current"] == NAMES[0]
    assert store.activate(NAMES[1]) == dict(store.state(), current=NAMES[1], previous=NAMES[0])
    assert store.activate(NAMES[1])["previous"] == NAMES[0]  # once more changes nothing
    assert store.rollback() == dict(store.state(), current=NAMES[0], previous=NAMES[1])
    assert store.rollback()["current"] == NAMES[1]
    assert (store.resolve(), store.resolve("previous"), store.resolve(NAMES[0])) == (second, first, first)


@pytest.mark.parametrize("same", [None, False])
def test_only_a_verified_version_becomes_current(same, store, version):
    version(NAMES[0])
    version(NAMES[1], same)
    store.activate(NAMES[0])
    with pytest.raises(ArtifactError, match="were not verified on this board; the current one stays"):
        store.activate(NAMES[1])
    assert store.state()["current"] == NAMES[0]


def test_a_verification_without_the_stores_own_seal_counts_for_nothing(store, version, tmp_path):
    """It came with the version from somewhere else: another board's, another version's, or anybody's."""
    other = Store(str(tmp_path / "other"))
    first, second = version(NAMES[0]), version(NAMES[1])
    store.activate(NAMES[0])
    store.activate(NAMES[1])
    seals = [other.seal("verify.json", NAMES[0], "digest"), store.seal("verify.json", NAMES[1], "digest"), "", None]
    for seal in seals:
        write_json(os.path.join(first, "verify.json"), {"same": True, "artifact": "digest", "seal": seal})
        with pytest.raises(ArtifactError, match="were not verified on this board"):
            store.activate(NAMES[0])
        with pytest.raises(ArtifactError, match=r"was not verified on this board; nothing was changed\. Build"):
            store.rollback()
    assert store.resolve() == second
    assert Store(store.home).seal("a") == store.seal("a") != other.seal("a")


def test_a_version_that_is_not_there_cannot_become_current(store):
    with pytest.raises(ArtifactError, match=r"version 0123456789abcdef: not installed here; installed: none"):
        store.activate("0123456789abcdef")


def test_rollback_needs_a_whole_version_before(store, version):
    with pytest.raises(ArtifactError, match="no previous version"):
        store.rollback()
    first, _ = version(NAMES[0]), version(NAMES[1])
    store.activate(NAMES[0])
    store.activate(NAMES[1])
    with open(os.path.join(first, "artifact", "file"), "a") as handle:
        handle.write("!")
    with pytest.raises(ArtifactError, match="changed after it was installed"):
        store.rollback()
    assert store.state()["current"] == NAMES[1]


def test_links_out_of_the_folder_are_no_versions(store, tmp_path):
    os.symlink(str(tmp_path), os.path.join(store.home, "current"))
    assert store.state()["current"] is None
    with pytest.raises(ArtifactError, match="there is no current version"):
        store.resolve()


def test_old_versions_and_parts_go(store, version):
    for name in NAMES:
        version(name)
    for name in NAMES[:3]:
        store.activate(name)
    open(store.incoming("0" * 64), "w").close()
    assert sorted(store.prune(NAMES[2])) == [NAMES[0], NAMES[3]]
    assert sorted(store.versions()) == NAMES[1:3]
    assert os.listdir(os.path.join(store.home, "incoming")) == []


def test_what_runs_is_left_by_prune_until_it_ends(store, version, monkeypatch):
    """A camera that was started before two flashes: its version is neither current nor previous any more."""
    monkeypatch.setenv("EDGEKIT_HOME", store.home)
    for name in NAMES:
        version(name)
        store.activate(name)
    tools = [os.path.join(store.home, "tools", name) for name in ("old.pyz", "new.pyz")]
    for path in tools:
        open(path, "w").close()
    with in_use(os.path.join(store.version_path(NAMES[0]), "engine")), in_use(tools[0]), in_use(tools[0]):
        assert store.prune(NAMES[3]) == [NAMES[1]]
        assert os.listdir(os.path.dirname(tools[0])) == ["old.pyz"]
    assert store.prune(NAMES[3]) == [NAMES[0]]
    assert os.listdir(os.path.dirname(tools[0])) == []
    for path in ("", "/", store.home, os.path.join(store.home, "versions"), store.version_path(NAMES[0])):
        with in_use(path):  # nothing that could go
            assert store.prune(NAMES[3]) == []


def test_a_camera_and_the_program_itself_are_in_use(store, version, monkeypatch):
    monkeypatch.setenv("EDGEKIT_HOME", store.home)
    program = os.path.join(store.home, "tools", "a.pyz")
    open(program, "w").close()
    monkeypatch.setattr(main.sys, "argv", [program])
    monkeypatch.setattr(main.signal, "signal", lambda *_: None)
    removed = []

    def camera(arguments):
        removed.extend(store.prune(NAMES[1]))
        return 0

    monkeypatch.setattr("edgekit.runtime.camera.cli.main", camera)
    for name in NAMES[:2]:
        version(name)
    assert main.main(["camera", os.path.join(store.version_path(NAMES[0]), "artifact"), "--source", "0"]) == 0
    assert removed == []
    assert sorted(store.versions()) == NAMES[:2]
    assert os.path.exists(program)


def test_a_damaged_version_comes_back_when_nothing_takes_its_place(store, version):
    path = version(NAMES[0])
    with contextlib.suppress(RuntimeError), store.set_aside(path):
        assert not os.path.exists(path)
        raise RuntimeError
    assert os.path.exists(os.path.join(path, "artifact", "file"))
    with store.set_aside(path):
        os.mkdir(path)
    assert os.listdir(path) == []
    assert store.versions() == [NAMES[0]]


@pytest.mark.parametrize("wrong", ["", "abc", "../../../etc/x", "A" * 16, "g" * 16])
def test_names_that_are_none(wrong, store):
    with pytest.raises(BadConfig, match="expected the first 16 hex digits"):
        store.version_path(wrong)


def test_nobody_else_may_look_in(store):
    assert os.stat(store.home).st_mode & 0o777 == 0o700


# -- receiving --------------------------------------------------------------------------------------------------------
def test_a_file_arrives_in_parts(store):
    data = os.urandom(100_000)
    name = hashlib.sha256(data).hexdigest()
    assert store.partial(name) == {"bytes": 0, "sha256": hashlib.sha256(b"").hexdigest(), "complete": False}
    half = store.receive(name, 0, io.BytesIO(data[:40_000]))
    assert half == {"bytes": 40_000, "sha256": hashlib.sha256(data[:40_000]).hexdigest(), "complete": False}
    assert store.receive(name, 40_000, io.BytesIO(data[40_000:]))["complete"]


def test_what_arrived_wrongly_is_overwritten(store):
    data = os.urandom(1000)
    name = hashlib.sha256(data).hexdigest()
    store.receive(name, 0, io.BytesIO(b"x" * 5000))
    assert store.receive(name, 0, io.BytesIO(data)) == {"bytes": 1000, "sha256": name, "complete": True}
    with pytest.raises(ArtifactError, match="has 1000 bytes, asked to go on at 2000"):
        store.receive(name, 2000, io.BytesIO(b""))
    with pytest.raises(BadConfig, match="64 hex digits"):
        store.receive("../evil", 0, io.BytesIO(b""))


# -- one at a time ----------------------------------------------------------------------------------------------------
HOLD = """
import sys
from edgekit.runtime.onboard.store import Store
with getattr(Store(sys.argv[1]), sys.argv[2])("somebody else"):
    print("held", flush=True)
    sys.stdin.read()
"""


@pytest.fixture
def holder(store):
    """Another process that holds a lock until it is let go."""
    running = []

    def hold(lock):
        process = subprocess.Popen(
            [sys.executable, "-c", HOLD, store.home, lock], stdin=subprocess.PIPE, stdout=subprocess.PIPE
        )
        running.append(process)
        assert process.stdout.readline() == b"held\n"
        return process

    yield hold
    for process in running:
        process.communicate()


def test_a_second_flash_is_refused_at_once_and_a_killed_one_frees_the_board(store, holder):
    first = holder("flashing")
    with (
        pytest.raises(BoardBusy, match=r"another flash of this board is going on \(somebody else\)"),
        store.flashing("me"),
    ):
        pass
    first.kill()
    first.wait()
    with store.flashing("me"):
        pass


def test_work_that_goes_on_is_waited_for(store, holder):
    holder("working")
    seen = []
    wait = store.working("mine", wait=0.6, progress=lambda *told: seen.append(told[0]))
    with pytest.raises(BoardBusy, match="this board is at work: somebody else"), wait:
        pass
    assert seen[0].startswith("waiting for work begun earlier: somebody else")


def test_a_clock_that_is_set_meanwhile_does_not_end_the_waiting(store, holder, monkeypatch):
    """A Jetson without a battery begins in 1970, and jumps when the network tells it the time."""
    holder("working")
    years, seen = iter(range(1000)), []
    monkeypatch.setattr("edgekit.runtime.onboard.store.time.time", lambda: next(years) * 3.15e7)
    wait = store.working("mine", wait=0.6, progress=lambda *told: seen.append(told[0]))
    with pytest.raises(BoardBusy), wait:
        pass
    assert len(seen) >= 1


def test_json_whole_or_not_at_all(tmp_path):
    path = str(tmp_path / "a.json")
    write_json(path, {"a": 1})
    with pytest.raises(TypeError):
        write_json(path, {"a": object()})
    assert read_json(path) == {"a": 1}
    assert os.listdir(str(tmp_path)) == ["a.json"]
    (tmp_path / "b.json").write_text('{"a": ')
    assert read_json(str(tmp_path / "b.json")) is None
    assert read_json(str(tmp_path / "none")) is None
