"""The bundle's archive: a gzipped ustar file that is read strictly, for it may come from anybody's USB stick.

Its first member is ``bundle.json``, which lists every other file with its size and SHA-256; an optional ``bundle.sig``
follows, then exactly the listed files, in the order of their names. Only plain files are known: links, devices, folders
and tar's extensions are refused, so no header can make the reader follow, overwrite or allocate anything that the list
does not name. Nothing larger than listed is ever written. A list may only name the places that ``edgekit bundle``
fills: what a board makes itself lies beside them, and none of it is taken from a stick.
"""

import contextlib
import gzip
import hashlib
import io
import json
import os
import re
import shutil
import tarfile
import tempfile
import zlib

from ..errors import ArtifactError

INDEX, SIGNATURE = "bundle.json", "bundle.sig"
FOLDERS = ("artifact", "golden", "evaluation", "calibration")  # of a bundle; deploy/bundling.py fills them
FILES = ("board.json", "edgekit_board.pyz")  # beside them
FORMAT = 1
INDEX_LIMIT = 8 << 20  # bytes; an index of ten thousand files is 2 MB
TOTAL_LIMIT = 8 << 30  # bytes of all files together
SPARE = 64 << 20  # bytes that must stay free on the disk
_BLOCK = 512
_CHUNK = 1 << 20
_NAME = re.compile(r"(?!.*(^|/)\.)[A-Za-z0-9_.+=@%,-]+(/[A-Za-z0-9_.+=@%,-]+){0,3}")
_LONGEST_END = 10240  # bytes of zeros; tar fills up its last record
_SHA256 = re.compile(r"[0-9a-f]{64}")


class Bundle(object):
    """A bundle's index: ``index`` is the parsed bundle.json, ``raw`` its bytes, ``signature`` those of bundle.sig."""

    def __init__(self, raw, signature=None, source="bundle"):
        self.raw, self.signature = raw, signature
        self.index = _parse_index(raw, source)

    @property
    def digest(self):
        """Identity of everything in the bundle: SHA-256 of bundle.json, which holds the hash of each file."""
        return hashlib.sha256(self.raw).hexdigest()

    @property
    def files(self):
        return self.index["files"]

    @property
    def size(self):
        """Bytes of the unpacked files."""
        return sum(record["bytes"] for record in self.files.values())


# -- writing ----------------------------------------------------------------------------------------------------------
def describe_folder(folder):
    """{name: {"bytes", "sha256"}} of every file below ``folder``, for ``files`` of the index."""
    found = {}
    for place, folders, names in os.walk(str(folder)):
        folders.sort()
        for name in sorted(names):
            path = os.path.join(place, name)
            found[os.path.relpath(path, str(folder)).replace(os.sep, "/")] = _record(path)
    wrong = sorted(name for name in found if not _good_name(name))
    if wrong:
        raise ArtifactError("bundle: cannot hold a file of the name {!r}".format(wrong[0]))
    return found


def _record(path):
    digest, size = hashlib.sha256(), 0
    with open(path, "rb") as handle:
        for block in iter(lambda: handle.read(_CHUNK), b""):
            digest.update(block)
            size += len(block)
    return {"bytes": size, "sha256": digest.hexdigest()}


def write_archive(handle, bundle, folder, progress=None):
    """Write the bundle of ``folder`` to a binary file. The same files give the same bytes: no times, no owners.

    progress: called as (bytes done, bytes in all)
    """
    done = 0
    with gzip.GzipFile(filename="", mode="wb", fileobj=handle, mtime=0, compresslevel=6) as packed:
        _write_member(packed, INDEX, io.BytesIO(bundle.raw), len(bundle.raw))
        if bundle.signature is not None:
            _write_member(packed, SIGNATURE, io.BytesIO(bundle.signature), len(bundle.signature))
        for name in sorted(bundle.files):
            size = bundle.files[name]["bytes"]
            with open(os.path.join(str(folder), name), "rb") as source:
                _write_member(packed, name, source, size)
            done += size
            if progress is not None:
                progress(done, bundle.size)
        packed.write(bytes(2 * _BLOCK))


def _write_member(packed, name, source, size):
    info = tarfile.TarInfo(name)
    info.size, info.mode, info.mtime = size, 0o644, 0
    packed.write(info.tobuf(tarfile.USTAR_FORMAT))
    left = size
    while left:
        block = source.read(min(left, _CHUNK))
        if not block:
            raise ArtifactError("bundle: {} became shorter while it was packed".format(name))
        packed.write(block)
        left -= len(block)
    packed.write(bytes(-size % _BLOCK))


# -- reading ----------------------------------------------------------------------------------------------------------
def read_bundle(path):
    """The index and signature of an archive, without unpacking it. Raises ArtifactError."""
    with _open(path) as packed:
        return _head(packed, path)[0]


def unpack(path, folder, progress=None, check=None):
    """Unpack an archive into the new folder ``folder``, whole or not at all; every hash is verified.

    check: called with the Bundle before any file is written; raises to refuse it
    progress: called as (bytes done, bytes in all)
    Raises ArtifactError for anything that is not exactly what the index lists.
    """
    folder = os.path.abspath(str(folder))
    parent = os.path.dirname(folder)
    with _open(path) as packed:
        bundle, pending = _head(packed, path)
        if check is not None:
            check(bundle)
        _need_room(parent, bundle.size)
        beside = tempfile.mkdtemp(prefix=".unpack.", dir=parent)
        try:
            _write(os.path.join(beside, INDEX), bundle.raw)
            if bundle.signature is not None:
                _write(os.path.join(beside, SIGNATURE), bundle.signature)
            _unpack_files(packed, pending, bundle, beside, path, progress)
            os.rename(beside, folder)
        finally:
            shutil.rmtree(beside, ignore_errors=True)
    return bundle


@contextlib.contextmanager
def _open(path):
    """The unpacked stream. What gzip and the disk have to say about a damaged file becomes one ArtifactError."""
    if os.path.isdir(str(path)):
        raise ArtifactError("{}: is a folder, needed a bundle (.tar.gz)".format(path))
    if not os.path.exists(str(path)):
        raise ArtifactError("{}: no such bundle. Make one: edgekit bundle ARTIFACT --board BOARD".format(path))
    try:
        with gzip.open(str(path), "rb") as packed:
            yield packed
    except (EOFError, zlib.error) as error:
        raise ArtifactError("{}: cut short or damaged ({}). Copy it again.".format(path, error)) from error
    except OSError as error:
        if error.errno is not None:  # a disk's own word: no space, no permission
            raise
        raise ArtifactError(
            "{}: not a bundle: {}. Needed a .tar.gz file that edgekit bundle wrote".format(path, error)
        ) from error


def _head(packed, path):
    """(bundle, (name, size) of the first member behind index and signature, or None)."""
    name, size = _next_member(packed, path) or ("nothing", 0)
    if name != INDEX or size > INDEX_LIMIT:
        raise ArtifactError(
            "{}: begins with {} of {} bytes, needed {}: not a bundle of EdgeKit".format(path, name, size, INDEX)
        )
    raw, signature = _content(packed, size, path), None
    pending = _next_member(packed, path)
    if pending is not None and pending[0] == SIGNATURE:
        if pending[1] > INDEX_LIMIT:
            raise ArtifactError("{}: its signature has {} bytes: not one of EdgeKit".format(path, pending[1]))
        signature = _content(packed, pending[1], path)
        pending = _next_member(packed, path)
    return Bundle(raw, signature, str(path)), pending


def _next_member(packed, path):
    """(name, size) of the next member, or None at the end. Only plain ustar files are let through."""
    header = _exactly(packed, _BLOCK, path)
    if header == bytes(_BLOCK):
        return None
    try:
        info = tarfile.TarInfo.frombuf(header, "ascii", "strict")
    except (tarfile.HeaderError, ValueError) as error:
        raise ArtifactError("{}: damaged archive ({})".format(path, error)) from error
    if info.type not in (tarfile.REGTYPE, tarfile.AREGTYPE):
        raise ArtifactError("{}: {!r} is no plain file; a bundle holds nothing else".format(path, info.name))
    if not _good_name(info.name) or info.size < 0:
        raise ArtifactError("{}: the name {!r} is not one that a bundle may hold".format(path, info.name))
    return info.name, info.size


def _good_name(name):
    return len(name) <= 100 and bool(_NAME.fullmatch(name)) and not name.endswith("/")


def _exactly(packed, size, path):
    data = packed.read(size)
    if len(data) != size:
        raise ArtifactError("{}: cut short. Copy it again.".format(path))
    return data


def _content(packed, size, path):
    data = _exactly(packed, size, path)
    _exactly(packed, -size % _BLOCK, path)
    return data


def _parse_index(raw, source):
    try:
        index = json.loads(raw.decode("utf-8"))
        if index["format"] != FORMAT:
            raise ArtifactError(
                "{}: bundle format {!r}, this EdgeKit reads {}. Make the bundle again.".format(
                    source, index["format"], FORMAT
                )
            )
        for name, record in index["files"].items():
            good = _good_name(name) and _SHA256.fullmatch(record["sha256"]) and type(record["bytes"]) is int
            if not good or record["bytes"] < 0:
                raise ValueError("file {!r}".format(name))
            _check_place(name, source)
        if sum(record["bytes"] for record in index["files"].values()) > TOTAL_LIMIT:
            raise ValueError("more than {} GB of files".format(TOTAL_LIMIT >> 30))
        if not isinstance(index["board"]["name"], str):
            raise TypeError("the board's name is no text")
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError(
            "{}: its {} is wrong ({}: {})".format(source, INDEX, type(error).__name__, error)
        ) from error
    return index


def _check_place(name, source):
    """Raise ArtifactError for a file that would lie where the board keeps an engine or a result of its own."""
    folder, inside, _ = name.partition("/")
    if name not in FILES and not (inside and folder in FOLDERS):
        raise ArtifactError(
            "{}: lists {!r}; a bundle holds {} and {}/, and nothing else: engines and results are made on the board. "
            "Do not use it; make the bundle again: edgekit bundle ARTIFACT --board BOARD".format(
                source, name, ", ".join(FILES), "/, ".join(FOLDERS)
            )
        )


def _need_room(folder, size):
    free = shutil.disk_usage(folder).free
    if free < size + SPARE:
        raise ArtifactError(
            "{}: {:.0f} MB free, the bundle needs {:.0f} MB. Free some space.".format(
                folder, free / 1e6, (size + SPARE) / 1e6
            )
        )


def _unpack_files(packed, pending, bundle, folder, path, progress):
    left, done = dict(bundle.files), 0
    while pending is not None:
        name, size = pending
        record = left.pop(name, None)
        if record is None or record["bytes"] != size:
            raise ArtifactError("{}: holds {!r} ({} bytes), which is not listed so".format(path, name, size))
        _unpack_one(packed, os.path.join(folder, name), size, record["sha256"], path)
        done += size
        if progress is not None:
            progress(done, bundle.size)
        pending = _next_member(packed, path)
    if left:
        raise ArtifactError("{}: lacks {!r}, which it lists. Copy it again.".format(path, sorted(left)[0]))
    end = packed.read(_LONGEST_END + 1)
    if len(end) > _LONGEST_END or end.strip(b"\0"):
        raise ArtifactError("{}: goes on behind its end, with what is not listed. Copy it again.".format(path))


def _unpack_one(packed, target, size, sha256, path):
    os.makedirs(os.path.dirname(target), exist_ok=True)
    digest, left = hashlib.sha256(), size
    with open(target, "wb") as handle:
        while left:
            block = _exactly(packed, min(left, _CHUNK), path)
            digest.update(block)
            handle.write(block)
            left -= len(block)
        handle.flush()
        os.fsync(handle.fileno())
    _exactly(packed, -size % _BLOCK, path)
    if digest.hexdigest() != sha256:
        raise ArtifactError(
            "{}: SHA-256 of {} is {}..., listed is {}...; the bundle was changed or damaged".format(
                path, os.path.basename(target), digest.hexdigest()[:12], sha256[:12]
            )
        )


def _write(path, data):
    with open(path, "wb") as handle:
        handle.write(data)


def verify_folder(folder):
    """Read an unpacked bundle's index and verify every file again. Returns the Bundle; raises ArtifactError."""
    bundle = read_folder(folder)
    for name, record in sorted(bundle.files.items()):
        path = os.path.join(str(folder), name)
        if os.path.islink(path) or not os.path.isfile(path):
            raise ArtifactError("{}: is missing, or is no plain file. Install the bundle again.".format(path))
        if _record(path) != {"bytes": record["bytes"], "sha256": record["sha256"]}:
            raise ArtifactError("{}: changed after it was installed. Install the bundle again.".format(path))
    return bundle


def read_folder(folder):
    """The Bundle of an unpacked folder; the files are not looked at. Raises ArtifactError."""
    parts = []  # type: list
    for name in (INDEX, SIGNATURE):
        try:
            with open(os.path.join(str(folder), name), "rb") as handle:
                parts.append(handle.read(INDEX_LIMIT))
        except FileNotFoundError:
            parts.append(None)
    if parts[0] is None:
        raise ArtifactError("{}: not an unpacked bundle (no {} in it)".format(folder, INDEX))
    return Bundle(parts[0], parts[1], str(folder))
