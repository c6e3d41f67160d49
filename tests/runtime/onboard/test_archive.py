"""A bundle from anybody's USB stick: whatever is not exactly what its index lists is refused, and nothing is left."""

import gzip
import hashlib
import json
import os
import tarfile

import pytest

from edgekit.runtime.errors import ArtifactError
from edgekit.runtime.onboard import archive

FILES = {"artifact/model.onnx": b"network" * 99, "golden/images/000.png": b"picture", "edgekit_board.pyz": b"program"}


def index_of(files, **changes):
    listed = {n: {"bytes": len(d), "sha256": hashlib.sha256(d).hexdigest()} for n, d in files.items()}
    return json.dumps({"format": 1, "board": {"name": "b"}, "files": listed, **changes}).encode()


def member(name, data=b"", kind=tarfile.REGTYPE, link=""):
    info = tarfile.TarInfo(name)
    info.type, info.size, info.linkname = kind, len(data), link
    return info.tobuf(tarfile.USTAR_FORMAT) + data + bytes(-len(data) % 512)


def packed(*members, end=bytes(1024)):
    return gzip.compress(b"".join(members) + end)


@pytest.fixture
def place(tmp_path):
    """Writes bytes as a bundle; gives its path and a folder that does not exist."""

    def write(data):
        (tmp_path / "b.tar.gz").write_bytes(data)
        return str(tmp_path / "b.tar.gz"), str(tmp_path / "out")

    return write


def whole(files=None, index=None, signature=None):
    files = FILES if files is None else files
    head = [member("bundle.json", index or index_of(files))]
    head += [member("bundle.sig", signature)] if signature else []
    return packed(*head, *(member(name, data) for name, data in sorted(files.items())))


@pytest.fixture
def folder(tmp_path):
    for name, data in FILES.items():
        file = tmp_path / "in" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(data)
    return tmp_path / "in"


def test_what_was_packed_comes_out_and_twice_the_same_bytes(folder, tmp_path):
    listed = archive.describe_folder(folder)
    raw = json.dumps({"format": 1, "board": {"name": "b"}, "files": listed}).encode()
    made = []
    for name in ("a", "b"):
        os.utime(folder / "edgekit_board.pyz", (1, 5 + len(made)))
        with open(tmp_path / name, "wb") as handle:
            archive.write_archive(handle, archive.Bundle(raw, b"signature"), folder)
        made.append((tmp_path / name).read_bytes())
    assert made[0] == made[1]
    seen = []
    found = archive.unpack(tmp_path / "a", tmp_path / "out", lambda done, total: seen.append((done, total)))
    assert found.digest == hashlib.sha256(raw).hexdigest()
    assert seen[-1] == (found.size, found.size)
    assert {n: (tmp_path / "out" / n).read_bytes() for n in FILES} == FILES
    assert (tmp_path / "out" / "bundle.sig").read_bytes() == b"signature"
    assert archive.verify_folder(tmp_path / "out").files == listed
    with tarfile.open(tmp_path / "a") as other:  # any tar reads it
        assert other.getnames()[:2] == ["bundle.json", "bundle.sig"]


def hostile():
    good, evil = index_of(FILES), {"artifact/../../evil": b"x"}
    listed = [member(n, d) for n, d in sorted(FILES.items())]
    zeros = {"artifact/zeros": bytes(1000)}
    huge = {"artifact/a": {"bytes": 1 << 40, "sha256": "0" * 64}}
    return {
        "parent folder": (whole(evil), "name|wrong"),
        "parent folder, not listed": (packed(member("bundle.json", good), member("../evil", b"x")), "not one that"),
        "absolute": (packed(member("bundle.json", good), member("/etc/evil", b"x")), "not one that a bundle may hold"),
        "hidden": (packed(member("bundle.json", good), member(".ssh/authorized_keys", b"x")), "not one that"),
        "symbolic link": (
            packed(member("bundle.json", good), member("a", b"", tarfile.SYMTYPE, "/etc")),
            "no plain file",
        ),
        "hard link": (packed(member("bundle.json", good), member("a", b"", tarfile.LNKTYPE, "/etc")), "no plain file"),
        "device": (packed(member("bundle.json", good), member("a", b"", tarfile.CHRTYPE)), "no plain file"),
        "pipe": (packed(member("bundle.json", good), member("a", b"", tarfile.FIFOTYPE)), "no plain file"),
        "folder": (packed(member("bundle.json", good), member("a", b"", tarfile.DIRTYPE)), "no plain file"),
        "pax header": (packed(member("x", b"12 path=evil", b"x"), member("bundle.json", good)), "no plain file"),
        "long name": (packed(member("x", b"y" * 300, b"L"), member("bundle.json", good)), "no plain file"),
        "not listed": (packed(member("bundle.json", good), member("more", b"x"), *listed), "is not listed so"),
        "twice": (packed(member("bundle.json", good), *listed, listed[0]), "is not listed so"),
        "two in one": (gzip.compress(2 * gzip.decompress(whole())), "goes on behind its end"),
        "two behind each other": (2 * whole(), "goes on behind its end"),
        "words behind it": (packed(member("bundle.json", good), *listed, end=bytes(1024) + b"x"), "behind its end"),
        "much of nothing behind it": (packed(member("bundle.json", good), *listed, end=bytes(1 << 20)), "behind its"),
        "a file behind the stream": (whole() + b"PK more", "Not a gzipped file"),
        "a newline in a name": (packed(member("bundle.json", good), member("artifact/a\n", b"x")), "not one that a"),
        "missing": (packed(member("bundle.json", good), *listed[1:]), "lacks 'artifact/model.onnx'"),
        "longer than listed": (
            packed(member("bundle.json", index_of(zeros)), member("artifact/zeros", bytes(2000))),
            "not listed",
        ),
        "changed": (whole({**FILES, "edgekit_board.pyz": b"PROGRAM"}, index=good), "was changed or damaged"),
        "bomb in the index": (packed(member("bundle.json", bytes(archive.INDEX_LIMIT + 1))), "not a bundle of EdgeKit"),
        "bomb in the signature": (
            packed(member("bundle.json", good), member("bundle.sig", bytes((8 << 20) + 1))),
            "sig",
        ),
        "more than the limit": (
            whole(index=json.dumps({"format": 1, "files": huge}).encode()),
            "more than 8 GB",
        ),
        "negative size": (
            whole(index=json.dumps({"format": 1, "files": {"artifact/a": {"bytes": -1, "sha256": "0" * 64}}}).encode()),
            "wrong",
        ),
        "no index": (packed(*listed), "needed bundle.json"),
        "index is a list": (whole(index=b"[]"), "wrong"),
        "index is no JSON": (whole(index=b"{"), "wrong"),
        "deep index": (whole(index=b"[" * 100000), "wrong"),
        "no board": (whole(index=json.dumps({"format": 1, "files": {}}).encode()), "wrong"),
        "board is a text": (whole(index=json.dumps({"format": 1, "files": {}, "board": "b"}).encode()), "wrong"),
        "another format": (whole(index=b'{"format": 2, "files": {}}'), "bundle format 2"),
        "nothing": (gzip.compress(b""), "cut short"),
        "no gzip": (b"PK\x03\x04 something else", "not a bundle: Not a gzipped file"),
        "checksum of the header": (gzip.compress(bytes(100) + b"x" * 412), "damaged archive"),
    }


@pytest.mark.parametrize("case", hostile())
def test_what_is_not_a_whole_bundle_is_refused_and_leaves_nothing(case, place, tmp_path):
    data, says = hostile()[case]
    path, out = place(data)
    with pytest.raises(ArtifactError, match=says):
        archive.unpack(path, out)
    assert sorted(os.listdir(tmp_path)) == ["b.tar.gz"]


@pytest.mark.parametrize("share", [0.0, 0.01, 0.3, 0.6, 0.9, 0.99])
def test_a_bundle_cut_short_anywhere_is_refused(share, place, tmp_path):
    data = whole({**FILES, "artifact/big": os.urandom(5000)})
    path, out = place(data[: int(len(data) * share)])
    with pytest.raises(ArtifactError, match=r"cut short|damaged|not a bundle"):
        archive.unpack(path, out)
    assert sorted(os.listdir(tmp_path)) == ["b.tar.gz"]


@pytest.mark.parametrize("at", range(20, 400, 40))
def test_one_wrong_byte_is_noticed(at, place):
    data = bytearray(whole())
    data[at] ^= 0x55
    path, out = place(bytes(data))
    with pytest.raises(ArtifactError):
        archive.unpack(path, out)


@pytest.mark.parametrize(
    "name",
    [
        "engine/manifest.json",
        "engine/model.plan",
        "verify.json",
        "bench.json",
        "engine.json",
        "bundle.json",
        "bundle.sig",
        "artifact",
        "artifacts/model.onnx",
        "board.json/x",
        "other.pyz",
    ],
)
def test_only_what_a_bundle_is_filled_with_is_taken(name, place, tmp_path):
    """An engine and the word that it was verified are the board's own: native code from a stick would be run."""
    path, out = place(whole({**FILES, name: b"{}"}))
    with pytest.raises(ArtifactError, match=rf"lists {name!r}; a bundle holds board.json"):
        archive.unpack(path, out)
    assert sorted(os.listdir(tmp_path)) == ["b.tar.gz"]


def test_missing_and_folder(tmp_path):
    with pytest.raises(ArtifactError, match="no such bundle"):
        archive.read_bundle(tmp_path / "none")
    with pytest.raises(ArtifactError, match="is a folder"):
        archive.read_bundle(tmp_path)


def test_check_may_refuse_before_anything_is_written(place, tmp_path):
    path, out = place(whole())

    def refuse(bundle):
        assert sorted(bundle.files) == sorted(FILES)
        raise ArtifactError("not here")

    with pytest.raises(ArtifactError, match="not here"):
        archive.unpack(path, out, check=refuse)
    assert sorted(os.listdir(tmp_path)) == ["b.tar.gz"]


def test_no_room_is_told_before(place, monkeypatch):
    path, out = place(whole())
    usage = type("usage", (), {"free": 1000})
    monkeypatch.setattr(archive.shutil, "disk_usage", lambda folder: usage)
    with pytest.raises(ArtifactError, match=r"0 MB free, the bundle needs 67 MB"):
        archive.unpack(path, out)


def test_a_changed_file_is_found_later(place):
    path, out = place(whole())
    archive.unpack(path, out)
    with open(os.path.join(out, "edgekit_board.pyz"), "ab") as handle:
        handle.write(b"more")
    with pytest.raises(ArtifactError, match=r"edgekit_board.pyz: changed after it was installed"):
        archive.verify_folder(out)
    os.unlink(os.path.join(out, "edgekit_board.pyz"))
    os.symlink("/etc/hostname", os.path.join(out, "edgekit_board.pyz"))
    with pytest.raises(ArtifactError, match="no plain file"):
        archive.verify_folder(out)


def test_names_that_cannot_be_packed(tmp_path):
    (tmp_path / "a name").write_bytes(b"")
    with pytest.raises(ArtifactError, match="'a name'"):
        archive.describe_folder(tmp_path)


def test_the_reader_takes_no_more_memory_than_a_piece(place):
    """A file of zeros packs a thousand times smaller; it is written piece by piece."""
    import tracemalloc

    zeros = {"artifact/zeros": bytes(24 << 20)}
    path, out = place(whole(zeros))
    tracemalloc.start()
    archive.unpack(path, out)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8 << 20
    assert os.path.getsize(os.path.join(out, "artifact", "zeros")) == 24 << 20
