import errno
import json
import os
import shutil
import signal
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from edgekit.runtime import artifact as module
from edgekit.runtime.artifact import (
    check_place,
    export_again,
    file_sha256,
    new_artifact,
    new_file,
    read_artifact,
    value_sha256,
)
from edgekit.runtime.errors import ArtifactError, BadConfig

MANIFEST = {"classes": ["car"], "category_ids": [1], "preprocess": {"size": [96, 64]}}


def make(path, content=b"weights", **manifest):
    with new_artifact(path, "checkpoint", dict(MANIFEST, **manifest)) as folder:
        Path(folder, "weights.bin").write_bytes(content)
    return path


def content_of(path):
    return (path / "weights.bin").read_bytes()


def leftovers(folder):
    return sorted(p.name for p in folder.iterdir() if p.name.startswith("."))


def test_write_and_read(tmp_path):
    found = read_artifact(make(tmp_path / "a", note="x"))
    assert (found.kind, found.classes, found.manifest["note"]) == ("checkpoint", ["car"], "x")
    assert found.preprocess.size == (96, 64)
    assert found.file("weights.bin") == str(tmp_path / "a" / "weights.bin")
    record = found.manifest["payload"]["weights.bin"]
    assert record == {"sha256": file_sha256(found.file("weights.bin")), "bytes": 7}
    assert leftovers(tmp_path) == []


def test_the_digest_is_of_content_and_meaning(tmp_path):
    first, same = read_artifact(make(tmp_path / "a")), read_artifact(make(tmp_path / "b"))
    assert first.digest == same.digest
    assert first.digest != read_artifact(make(tmp_path / "c", b"other")).digest
    assert first.digest != read_artifact(make(tmp_path / "d", note="x")).digest
    assert value_sha256({"a": 1, "b": 2}) == value_sha256({"b": 2, "a": 1})


def test_replaces_whole(tmp_path):
    make(tmp_path / "a")
    make(tmp_path / "a", b"newer")
    assert content_of(tmp_path / "a") == b"newer"
    assert leftovers(tmp_path) == []


def test_replaces_where_the_system_cannot_exchange(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_exchange", lambda a, b: False)
    make(tmp_path / "a")
    make(tmp_path / "a", b"newer")
    assert content_of(tmp_path / "a") == b"newer"
    assert leftovers(tmp_path) == []


def test_the_old_one_comes_back_when_the_second_rename_fails(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "_exchange", lambda a, b: False)
    make(tmp_path / "a")
    rename = os.rename

    def failing(source, target):
        if target == str(tmp_path / "a") and not source.endswith("/old"):
            raise OSError(28, "No space left on device")
        rename(source, target)

    monkeypatch.setattr(os, "rename", failing)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path / "a", b"newer")
    assert content_of(tmp_path / "a") == b"weights"
    assert leftovers(tmp_path) == []


def fail_after(step, error):
    step()
    raise error


@pytest.mark.parametrize("error", [KeyboardInterrupt, OSError, ValueError])
def test_a_failure_leaves_the_old_one(error, tmp_path):
    make(tmp_path / "a")
    with pytest.raises(error), new_artifact(tmp_path / "a", "checkpoint", MANIFEST) as folder:
        fail_after(lambda: Path(folder, "weights.bin").write_bytes(b"half"), error)
    assert content_of(tmp_path / "a") == b"weights"
    assert leftovers(tmp_path) == []


def test_a_full_disk_leaves_the_old_ones(tmp_path, monkeypatch):
    def full(fd):
        raise OSError(errno.ENOSPC, "No space left on device")

    make(tmp_path / "a")
    (tmp_path / "report.json").write_text("old")
    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        make(tmp_path / "a", b"newer")
    with pytest.raises(OSError, match="No space"), new_file(tmp_path / "report.json") as handle:
        handle.write("new")
    assert content_of(tmp_path / "a") == b"weights"
    assert (tmp_path / "report.json").read_text() == "old"
    assert leftovers(tmp_path) == []


def test_a_killed_process_leaves_the_old_one(tmp_path):
    make(tmp_path / "a")
    code = f"""
        import os, signal
        from edgekit.runtime.artifact import new_artifact
        with new_artifact({str(tmp_path / "a")!r}, "checkpoint", {MANIFEST!r}) as folder:
            open(folder + "/weights.bin", "w").write("half")
            os.kill(os.getpid(), signal.SIGKILL)
    """
    assert subprocess.run([sys.executable, "-c", textwrap.dedent(code)]).returncode == -signal.SIGKILL
    assert content_of(tmp_path / "a") == b"weights"
    read_artifact(tmp_path / "a")


def test_will_not_replace_what_is_no_artifact(tmp_path):
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "thesis.tex").write_text("years of work")
    with pytest.raises(ArtifactError, match="not an artifact; it will not be replaced"):
        make(tmp_path / "home")
    assert (tmp_path / "home" / "thesis.tex").read_text() == "years of work"
    assert leftovers(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("manifest.json", '{"name": "my app", "start_url": "/"}', "exists and is not an artifact"),
        ("manifest.json", "[]", "exists and is not an artifact"),
        ("manifest.json", '{"kind": "truck", "payload": 3}', "exists and is not an artifact"),
        ("notes.txt", "years of work", r"holds notes\.txt, which is not the artifact's"),
        ("onnx/model.onnx", "another", "holds onnx, which is not the artifact's"),
    ],
)
def test_a_folder_that_holds_more_than_an_artifact_is_not_replaced(name, content, said, tmp_path):
    """A web application has a manifest.json too, and people put their notes beside the weights."""
    make(tmp_path / "a")
    (tmp_path / "a" / name).parent.mkdir(exist_ok=True)
    (tmp_path / "a" / name).write_text(content)
    for step in (lambda: check_place(tmp_path / "a", "checkpoint"), lambda: make(tmp_path / "a", b"newer")):
        with pytest.raises(ArtifactError, match=rf"{said}; it will not be replaced"):
            step()
    assert (tmp_path / "a" / name).read_text() == content
    assert leftovers(tmp_path) == []


def test_an_artifact_of_another_kind_is_not_replaced(tmp_path):
    make(tmp_path / "a")
    said = r"another kind \(checkpoint, and onnx is to be written\); it will not be replaced"
    with pytest.raises(ArtifactError, match=said):
        check_place(tmp_path / "a", "onnx")
    with pytest.raises(ArtifactError, match=said), new_artifact(tmp_path / "a", "onnx", {}):
        pass
    assert content_of(tmp_path / "a") == b"weights"


def test_a_damaged_artifact_is_replaced(tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "manifest.json").write_text("{")
    (tmp_path / "a" / "model.onnx").write_bytes(b"cut")
    make(tmp_path / "a", b"newer")
    assert content_of(tmp_path / "a") == b"newer"


@pytest.fixture
def places(tmp_path):
    """An artifact, an empty folder, a folder with somebody's file in it, that file, and links to two of them."""
    make(tmp_path / "artifact")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "thesis.tex").write_text("years of work")
    (tmp_path / "to-artifact").symlink_to(tmp_path / "artifact")
    (tmp_path / "to-full").symlink_to(tmp_path / "full")
    (tmp_path / "to-null").symlink_to("/dev/null")
    os.mkfifo(tmp_path / "pipe")
    return tmp_path


@pytest.mark.parametrize(
    ("kind", "place"),
    [
        *(("checkpoint", place) for place in ("new", "new/below/it", "artifact", "empty", "to-artifact")),
        *(("folder", place) for place in ("new", "new/below/it", "artifact", "empty", "full", "to-full")),
        *(("file", place) for place in ("new.json", "new/below/it.json", "full/thesis.tex", "full/other")),
    ],
)
def test_a_place_that_can_be_written(kind, place, places):
    before = sorted(places.rglob("*"))
    assert check_place(places / place, kind) == places / place
    assert sorted(places.rglob("*")) == before


@pytest.mark.parametrize(
    ("kind", "place", "said"),
    [
        ("checkpoint", "full", "not an artifact; it will not be replaced"),
        ("checkpoint", "to-full", "not an artifact; it will not be replaced"),
        ("checkpoint", "full/thesis.tex", "not an artifact; it will not be replaced"),
        ("checkpoint", "full/thesis.tex/a", "thesis.tex is a file, not a folder"),
        ("file", "full", "is a folder, and a file"),
        ("file", "to-artifact", "is a folder, and a file"),
        ("file", "full/thesis.tex/a/b.json", "thesis.tex is a file, not a folder"),
        ("file", "/proc/nope/it.json", r"nothing can be written in /proc \("),  # where root has every right
        ("checkpoint", "/proc/nope", r"nothing can be written in /proc \("),
        ("file", "pipe", "is a device or a pipe"),
        ("file", "to-null", "is a device or a pipe"),
        ("folder", "full/thesis.tex", "thesis.tex is a file, not a folder"),
        ("folder", "full/thesis.tex/a", "thesis.tex is a file, not a folder"),
    ],
)
def test_a_place_that_cannot_be_written_is_told_before_the_work(kind, place, said, places):
    with pytest.raises((ArtifactError, BadConfig), match=said):
        check_place(places / place, kind)


@pytest.mark.parametrize("kind", ["checkpoint", "file", "folder"])
def test_a_place_without_the_right_to_write_is_told_before_the_work(kind, tmp_path, monkeypatch):
    monkeypatch.setattr(os, "access", lambda path, mode: str(path) != str(tmp_path))  # root may write everywhere
    with pytest.raises(BadConfig, match=f"nothing can be written in {tmp_path}"):
        check_place(tmp_path / "below" / "it", kind)


def test_a_pipe_is_not_replaced_by_a_file(places):
    with pytest.raises(BadConfig, match="is a device or a pipe"), new_file(places / "pipe"):
        pytest.fail("opened")
    assert (places / "pipe").is_fifo()


def test_writes_through_a_link(tmp_path):
    make(tmp_path / "real")
    (tmp_path / "link").symlink_to(tmp_path / "real")
    make(tmp_path / "link", b"newer")
    assert (tmp_path / "link").is_symlink()
    assert content_of(tmp_path / "real") == b"newer"
    assert leftovers(tmp_path) == []


def test_an_empty_folder_is_taken(tmp_path):
    (tmp_path / "a").mkdir()
    make(tmp_path / "a")
    assert read_artifact(tmp_path / "a").kind == "checkpoint"


def test_payload_must_be_plain_files(tmp_path):
    with pytest.raises(ValueError, match="plain files"), new_artifact(tmp_path / "a", "onnx", MANIFEST) as folder:
        os.mkdir(f"{folder}/sub")
    assert not (tmp_path / "a").exists()


def edit(path, change):
    manifest = json.loads((path / "manifest.json").read_text())
    change(manifest)
    (path / "manifest.json").write_text(json.dumps(manifest))


DAMAGE = {
    "no folder": (lambda a: a.rename(a.parent / "elsewhere"), "no such folder.*edgekit export"),
    "no manifest": (lambda a: (a / "manifest.json").unlink(), "no manifest.json in it"),
    "changed payload": (lambda a: (a / "weights.bin").write_bytes(b"Weights"), "weights.bin: SHA-256 is"),
    "payload gone": (lambda a: (a / "weights.bin").unlink(), "weights.bin: listed in the manifest but missing"),
    "manifest cut short": (lambda a: (a / "manifest.json").write_text('{"kind": "on'), "not a valid manifest"),
    "manifest is binary": (lambda a: (a / "manifest.json").write_bytes(b"\xff\xfe\x00"), "not a valid manifest"),
    "manifest is a list": (lambda a: (a / "manifest.json").write_text("[]"), "not a valid manifest"),
    "payload is a list": (lambda a: edit(a, lambda m: m.update(payload=["x"])), "not a valid manifest"),
    "no hash": (lambda a: edit(a, lambda m: m["payload"]["weights.bin"].pop("sha256")), "not a valid manifest"),
    "hash is a number": (lambda a: edit(a, lambda m: m["payload"]["weights.bin"].update(sha256=1)), "not a valid"),
    "kind is a number": (lambda a: edit(a, lambda m: m.update(kind=3)), "not a valid manifest"),
    "no classes": (lambda a: edit(a, lambda m: m.pop("classes")), "not a valid manifest"),
    "a class without a name": (
        lambda a: edit(a, lambda m: m.update(classes=[""])),
        "classes: expected a list of names",
    ),
    "a class is a number": (lambda a: edit(a, lambda m: m.update(classes=[3])), "classes: expected a list of names"),
    "a class twice": (lambda a: edit(a, lambda m: m.update(classes=["a", "a"])), "classes: expected different names"),
    "too many ids": (lambda a: edit(a, lambda m: m.update(category_ids=[1, 2])), "category_ids: expected 1 different"),
    "one id twice": (
        lambda a: edit(a, lambda m: m.update(classes=["a", "b"], category_ids=[1, 1])),
        "category_ids: expected 2 different whole numbers",
    ),
    "an id is a text": (lambda a: edit(a, lambda m: m.update(category_ids=["1"])), "category_ids: expected 1"),
    "ids are a number": (lambda a: edit(a, lambda m: m.update(category_ids=1)), "category_ids: expected 1"),
    "input is a list": (lambda a: edit(a, lambda m: m.update(input=[])), "input: expected a mapping"),
    "recipe is a text": (lambda a: edit(a, lambda m: m.update(recipe="x")), "recipe: expected a mapping"),
    "no mapping": (lambda a: edit(a, lambda m: m.update(postprocess=3)), "postprocess: expected a mapping"),
    "layout": (lambda a: edit(a, lambda m: m.update(input={"layout": ["x"]})), "input.layout: expected one of"),
    "shape": (lambda a: edit(a, lambda m: m.update(input={"shape": 3})), "input.shape: expected a list of whole"),
    "path out of it": (lambda a: edit(a, lambda m: m["payload"].update({"../x": {"sha256": ""}})), "leaves the folder"),
}


@pytest.mark.parametrize("case", DAMAGE)
def test_reading_tells_what_is_wrong_and_where(case, tmp_path):
    damage, message = DAMAGE[case]
    damage(make(tmp_path / "a"))
    with pytest.raises(ArtifactError, match=message) as caught:
        read_artifact(tmp_path / "a")
    assert str(tmp_path / "a") in str(caught.value)


def test_another_kind_and_another_payload(tmp_path):
    with pytest.raises(ArtifactError, match=r"'checkpoint', needed 'onnx' or 'onnx-int8'\. .*: edgekit export"):
        read_artifact(make(tmp_path / "a"), kinds=("onnx", "onnx-int8"))
    with pytest.raises(ArtifactError, match=r"no payload 'model.onnx' \(it has: weights.bin\)"):
        read_artifact(tmp_path / "a").file("model.onnx")


INFINITE = {"size": [96, 64], "std": [1, 1, float("inf")]}


@pytest.mark.parametrize(
    "preprocess",
    [
        *({"size": [96, 64], "mode": "crop"}, {"size": 3}, {}, {"siz": [1, 1]}, None, INFINITE),
        *({"size": [float("inf"), 64]}, {"size": [96, 64], "mean": [float("nan"), 0, 0]}),
    ],
)
def test_a_wrong_preprocess_is_told(preprocess, tmp_path):
    found = read_artifact(make(tmp_path / "a", preprocess=preprocess))
    with pytest.raises(ArtifactError, match="the manifest's preprocess is wrong"):
        _ = found.preprocess


def test_ids_are_counted_where_the_manifest_has_none(tmp_path):
    assert read_artifact(make(tmp_path / "a", classes=["a", "b"], category_ids=[7, 3])).category_ids == [7, 3]
    assert read_artifact(make(tmp_path / "a", classes=["a", "b"], category_ids=None)).category_ids == [1, 2]


# -- single files -----------------------------------------------------------------------------------------------------
def test_new_file_writes_whole_or_not_at_all(tmp_path):
    path = tmp_path / "sub" / "report.json"
    with new_file(path) as handle:
        handle.write("é")
    assert path.read_text(encoding="utf-8") == "é"
    with pytest.raises(OSError), new_file(path) as handle:
        fail_after(lambda: handle.write("half"), OSError)
    assert path.read_text(encoding="utf-8") == "é"
    assert leftovers(path.parent) == []
    assert path.stat().st_mode & 0o777 == 0o644


def test_new_file_keeps_the_suffix_and_takes_bytes(tmp_path):
    with new_file(tmp_path / "a.png", "wb") as handle:
        beside = [p for p in tmp_path.iterdir() if p.name.startswith(".a.")]
        assert [p.suffix for p in beside] == [".png"]
        handle.write(b"\x89PNG")
    assert (tmp_path / "a.png").read_bytes() == b"\x89PNG"


def test_what_exports_a_network_again_leads_over_every_step_to_its_checkpoint(tmp_path):
    def made(name, kind, **parents):
        with new_artifact(tmp_path / name, kind, {"classes": ["car"], "parents": parents}):
            pass
        return read_artifact(tmp_path / name)

    checkpoint = made("my run", "checkpoint")
    onnx = made("onnx", "onnx", checkpoint=checkpoint.digest)
    int8 = made("onnx-int8", "onnx-int8", onnx=onnx.digest)
    for artifact in (onnx, int8):
        assert export_again(artifact, "jetson-tx2") == f"edgekit export '{tmp_path / 'my run'}' --board jetson-tx2"
    shutil.rmtree(tmp_path / "my run")
    assert export_again(int8) == "edgekit export CHECKPOINT --board BOARD"
    assert export_again(made("foreign", "onnx")) == "edgekit export RECIPE --board BOARD"
