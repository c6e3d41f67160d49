"""Artifacts: the folders that the pipeline's steps read and write.

A folder holds payload files and ``manifest.json`` (kind, SHA-256 of each payload file, the parents' digests, classes,
preprocess and whatever the kind needs). It is written beside its place and exchanged with it in one rename, so a killed
process leaves the old artifact or the new one. Reading verifies every hash.
"""

import contextlib
import ctypes
import errno
import hashlib
import json
import os
import pathlib
import shlex
import shutil
import tempfile

from .errors import ArtifactError, BadConfig
from .preprocess import LAYOUTS, Preprocess

MANIFEST = "manifest.json"
_USUAL = {MANIFEST, "weights.safetensors", "model.onnx", "model.plan"}
_INHERITED = (
    *("classes", "category_ids", "preprocess", "recipe", "input", "postprocess", "complexity"),
    *("learnable_parameters", "float_modules", "float_layers"),  # where they are known
)
# kind -> the verb that makes it
MAKERS = {
    "checkpoint": "train RECIPE",
    "onnx": "export RECIPE_OR_CHECKPOINT",
    "onnx-int8": "quantize ARTIFACT",
    "engine": "build ARTIFACT --board BOARD",
}
_AT_FDCWD = -100
_RENAME_EXCHANGE = 2


def file_sha256(path):
    """SHA-256 of a file, as hex."""
    digest = hashlib.sha256()
    with open(str(path), "rb") as handle:
        for block in iter(lambda: handle.read(1 << 20), b""):
            digest.update(block)
    return digest.hexdigest()


def value_sha256(value):
    """SHA-256 of any JSON value, independent of key order."""
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()


class Artifact(object):
    """A verified artifact folder. ``manifest`` is the parsed manifest.json."""

    def __init__(self, path, manifest):
        self.path = str(path)
        self.manifest = manifest

    @property
    def kind(self):
        return self.manifest["kind"]

    @property
    def classes(self):
        return list(self.manifest["classes"])

    @property
    def category_ids(self):
        """The COCO id of each class: the manifest's, or 1, 2, 3 ... where it has none."""
        return list(self.manifest.get("category_ids") or range(1, len(self.manifest["classes"]) + 1))

    @property
    def preprocess(self):
        """The Preprocess of the manifest; ArtifactError when it has none or a wrong one."""
        try:
            return Preprocess.from_dict(self.manifest["preprocess"])
        except (KeyError, TypeError, ValueError, OverflowError) as error:
            raise ArtifactError(
                "{}: the manifest's preprocess is wrong ({}: {}). Make the artifact again.".format(
                    self.path, type(error).__name__, error
                )
            ) from error

    @property
    def batch(self):
        """Images that one call of the file takes; 1 where the manifest does not say, or their number is free."""
        shape = self.manifest.get("input", {}).get("shape") or [1]
        return max(1, shape[0])

    @property
    def digest(self):
        """Identity of content and meaning; children record it under ``parents``."""
        return value_sha256(self.manifest)

    def file(self, name):
        """Path of a payload file; ArtifactError when the manifest does not list it."""
        if name not in self.manifest["payload"]:
            have = ", ".join(sorted(self.manifest["payload"]))
            raise ArtifactError("{}: no payload {!r} (it has: {})".format(self.path, name, have))
        return os.path.join(self.path, name)

    def __repr__(self):
        return "Artifact({!r}, kind={!r})".format(self.path, self.kind)


def read_artifact(path, kinds=None):
    """Load and verify an artifact folder.

    kinds: accepted kinds, or None for any. Raises ArtifactError naming the folder or file at fault.
    """
    path = str(path)
    manifest_path = os.path.join(path, MANIFEST)
    if not os.path.isfile(manifest_path):
        raise no_artifact(path)
    manifest = _parse_manifest(manifest_path)
    for name, record in sorted(manifest["payload"].items()):
        _verify(os.path.join(path, name), record)
    if kinds is not None and manifest["kind"] not in kinds:
        raise ArtifactError(
            "{}: found an artifact of kind {!r}, needed {}. Make one with: edgekit {}".format(
                path, manifest["kind"], " or ".join(map(repr, kinds)), MAKERS.get(kinds[0], "export RECIPE")
            )
        )
    return Artifact(path, manifest)


def no_artifact(path, also_missing="", make="edgekit export RECIPE"):
    """What is wrong with a path that is no artifact's folder. A run's folder has artifacts in it, and one is wanted.

    also_missing: what says that it is nothing else that the caller would take, such as ", and no recipe.yaml"
    make: the command that makes one
    """
    path = str(path)
    held = [os.path.join(path, name) for name in (sorted(os.listdir(path)) if os.path.isdir(path) else ())]
    held = [place for place in held if os.path.isfile(os.path.join(place, MANIFEST))]
    if held:
        return ArtifactError("{}: a folder of artifacts, of which one is wanted: {}".format(path, ", ".join(held)))
    what = "no {} in it{}".format(MANIFEST, also_missing) if os.path.exists(path) else "no such folder"
    return ArtifactError("{}: not an artifact ({}). Make one with: {}".format(path, what, make))


def export_again(artifact, board="BOARD"):
    """The command that exports an artifact's network for ``board``, of the checkpoint that it was made of.

    What is not known is a word in capitals: the checkpoint is looked for beside the artifact, where steps write.
    """
    beside = _manifests_beside(artifact.path)
    found, source = artifact.manifest, "RECIPE"
    for step in ("onnx", "checkpoint"):
        digest = found.get("parents", {}).get(step)
        if digest is not None:
            source, found = beside.get(digest, ("CHECKPOINT", {}))
    return "edgekit export {} --board {}".format(shlex.quote(source), board)


def _manifests_beside(path):
    """Digest -> (folder, manifest) of the artifacts in the folder that holds this one."""
    home, names, found = os.path.dirname(os.path.normpath(path)), [], {}
    with contextlib.suppress(OSError):
        names = sorted(os.listdir(home or "."))
    for name in names:
        with contextlib.suppress(ArtifactError):
            manifest = _parse_manifest(os.path.join(home, name, MANIFEST))
            found[value_sha256(manifest)] = os.path.join(home, name), manifest
    return found


def _parse_manifest(path):
    try:
        with open(path, encoding="utf-8") as handle:
            manifest = json.load(handle)
        for name, record in manifest["payload"].items():
            if os.path.basename(name) != name or name in ("", ".", ".."):
                raise ArtifactError("{}: payload name {!r} leaves the folder".format(path, name))
            if not isinstance(record["sha256"], str):
                raise TypeError("payload {}: sha256 is no text".format(name))
        problems = list(_problems(manifest))
        if problems:
            raise ValueError("; ".join(problems))
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ArtifactError(
            "{}: not a valid manifest ({}: {}). Make the artifact again.".format(path, type(error).__name__, error)
        ) from error
    return manifest


def _problems(manifest):
    """What the readers of a manifest could not use, or would take for something else. Most keys may be missing."""
    if not isinstance(manifest["kind"], str):
        yield "kind: expected a text, got {!r}".format(manifest["kind"])
    classes = manifest["classes"]
    if not isinstance(classes, list) or not all(isinstance(name, str) and name for name in classes):
        yield "classes: expected a list of names, got {!r}".format(classes)
        return
    if len(set(classes)) < len(classes):
        yield "classes: expected different names, got {!r}".format(classes)
    ids = manifest.get("category_ids")
    if ids is not None and not (_whole_numbers(ids) and len(set(ids)) == len(ids) == len(classes)):
        yield "category_ids: expected {} different whole numbers, one for each class, got {!r}".format(
            len(classes), ids
        )
    for name in ("input", "recipe", "postprocess"):
        if not isinstance(manifest.get(name, {}), dict):
            yield "{}: expected a mapping of keys, got {!r}".format(name, manifest[name])
            return
    about = manifest.get("input", {})
    if "layout" in about and about["layout"] not in LAYOUTS:
        yield "input.layout: expected one of {}, got {!r}".format(", ".join(LAYOUTS), about["layout"])
    if about.get("shape") is not None and not _whole_numbers(about["shape"]):
        yield "input.shape: expected a list of whole numbers, got {!r}".format(about["shape"])


def _whole_numbers(values):
    return isinstance(values, list) and all(isinstance(v, int) and not isinstance(v, bool) for v in values)


def _verify(path, record):
    if not os.path.isfile(path):
        raise ArtifactError("{}: listed in the manifest but missing. Make the artifact again.".format(path))
    found = file_sha256(path)
    if found != record["sha256"]:
        raise ArtifactError(
            "{}: SHA-256 is {}..., the manifest says {}...; the file changed after it was written. "
            "Make the artifact again.".format(path, found[:12], record["sha256"][:12])
        )


def check_place(path, kind):
    """Whether a result can be written at ``path``, to be asked before the work; nothing is made. Returns the path.

    kind: of the artifact to be written (``new_artifact``); or "file" (``new_file``), or "folder", for files in it
    Raises ArtifactError for what would not be replaced, and BadConfig for a place where nothing can be written.
    """
    place = os.path.realpath(str(path))
    if kind == "file":
        _check_file(place, path)
    elif kind != "folder":
        _check_replaceable(path, kind)
    above = place if kind == "folder" else os.path.dirname(place)
    while not os.path.lexists(above):
        above = os.path.dirname(above)
    if not os.path.isdir(above):
        raise BadConfig("{}: {} is a file, not a folder. Choose another place.".format(path, above))
    if not os.access(above, os.W_OK | os.X_OK):
        raise BadConfig("{}: nothing can be written in {}. Choose another place.".format(path, above))
    try:  # what the rights allow, the file system may refuse: found out now, and not after an hour of measuring
        tempfile.TemporaryFile(dir=above).close()
    except OSError as error:
        reason = (error.strerror or str(error)).lower()
        message = "{}: nothing can be written in {} ({}). Choose another place.".format(path, above, reason)
        raise BadConfig(message) from error
    return path


def check_not_read(results, reads):
    """Raise BadConfig where a result would be written over a file that the same command reads."""
    real = {os.path.realpath(str(file)) for file in reads}
    for path in results:
        if os.path.realpath(str(path)) in real:
            raise BadConfig("{}: is read by this command, and would be overwritten. Choose another place.".format(path))


def inherited(manifest):
    """What a lowered artifact has of the one that it is made from: what its boxes mean, and what it is a form of."""
    return {name: manifest[name] for name in _INHERITED if name in manifest}


def _check_file(place, path):
    """Raise BadConfig unless ``place`` is free or a plain file: a rename over /dev/null takes it from everybody."""
    if os.path.isdir(place):
        raise BadConfig("{}: is a folder, and a file is to be written. Name a file in it.".format(path))
    if os.path.exists(place) and not os.path.isfile(place):
        raise BadConfig("{}: is a device or a pipe, which a file cannot replace. Name a file.".format(path))


def _check_replaceable(path, kind=None):
    """Raise ArtifactError unless ``path`` is free, an empty folder, or an artifact: of ``kind``, where that is given.

    A folder that somebody put files into is theirs: with the artifact they would be deleted.
    """
    path = os.path.realpath(str(path))
    if not os.path.lexists(path) or (os.path.isdir(path) and not os.listdir(path)):
        return
    found = _kind_and_files(path)
    if found is None:
        fault = "exists and is not an artifact"
    elif set(os.listdir(path)) - found[1]:
        fault = "holds {}, which is not the artifact's".format(min(set(os.listdir(path)) - found[1]))
    elif kind is not None and found[0] not in (kind, None):
        fault = "is an artifact of another kind ({}, and {} is to be written)".format(found[0], kind)
    else:
        return
    raise ArtifactError("{}: {}; it will not be replaced. Choose another --out.".format(path, fault))


def _kind_and_files(path):
    """(kind, names of all files) of an artifact; where its manifest is damaged, (None, the names that are usual).

    None for what is no artifact, whatever else may have a manifest.json.
    """
    try:
        with open(os.path.join(path, MANIFEST), encoding="utf-8") as handle:
            manifest = json.load(handle)
    except OSError:
        return None
    except ValueError:
        return None, _USUAL
    if not isinstance(manifest, dict) or "kind" not in manifest or not isinstance(manifest.get("payload"), dict):
        return None
    return manifest["kind"], {MANIFEST} | set(manifest["payload"])


@contextlib.contextmanager
def new_artifact(path, kind, manifest):
    """Write an artifact whole or not at all: ``with new_artifact(path, "onnx", {...}) as folder: write files into it``.

    On a clean exit every file in the folder becomes payload, manifest.json is written and the folder takes its place.
    On any exception (Ctrl-C and a full disk included) the folder is removed and what stood at ``path`` stays.
    ``manifest`` may be filled in until the block ends.
    """
    path = os.path.realpath(str(path))  # through a link: what it points to is replaced, not the link
    parent = os.path.dirname(path)
    os.makedirs(parent, exist_ok=True)
    folder = tempfile.mkdtemp(prefix=".{}.".format(os.path.basename(path)), dir=parent)
    try:
        yield folder
        content = dict(manifest, kind=kind, payload=_payload(folder))
        with open(os.path.join(folder, MANIFEST), "w", encoding="utf-8") as handle:
            json.dump(content, handle, indent=1, sort_keys=True)
            handle.write("\n")
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(folder, 0o755)
        _take_place(folder, path, kind)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _payload(folder):
    paths = {n: os.path.join(folder, n) for n in sorted(os.listdir(folder)) if n != MANIFEST}
    for path in paths.values():
        if not os.path.isfile(path):
            raise ValueError("{}: payload must be plain files".format(path))
    return {n: {"sha256": file_sha256(p), "bytes": os.path.getsize(p)} for n, p in paths.items()}


def _take_place(folder, path, kind):
    """Put ``folder`` at ``path``. Exchange is one system call; afterwards ``folder`` holds what was there before.

    Where the system has none, what was there lies in ``.replaced.*/old`` for the moment between two renames.
    """
    if not os.path.lexists(path):
        os.rename(folder, path)
        return
    _check_replaceable(path, kind)
    if not _exchange(folder, path):
        aside = tempfile.mkdtemp(prefix=".replaced.", dir=os.path.dirname(path))
        old = os.path.join(aside, "old")
        os.rename(path, old)
        try:
            os.rename(folder, path)
        except OSError:
            os.rename(old, path)
            os.rmdir(aside)
            raise
        shutil.rmtree(aside, ignore_errors=True)


def _exchange(a, b):
    """Linux renameat2(RENAME_EXCHANGE); False where the C library or the file system lacks it."""
    rename = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None)
    if rename is None:
        return False
    if rename(_AT_FDCWD, os.fsencode(a), _AT_FDCWD, os.fsencode(b), _RENAME_EXCHANGE) == 0:
        return True
    # EPERM: a container's filter that does not know the call; the plain renames will tell whether it was meant
    if ctypes.get_errno() in (errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP, errno.EPERM):
        return False
    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), b)


@contextlib.contextmanager
def new_file(path, mode="w"):
    """Write one file whole or not at all: opened beside its place, renamed into it on a clean exit.

    Raises BadConfig where a folder, a device or a pipe stands.
    """
    place = os.path.realpath(str(path))
    _check_file(place, path)
    os.makedirs(os.path.dirname(place), exist_ok=True)
    # the suffix stays last: cv2.imwrite chooses the format by it
    stem, suffix = os.path.splitext(os.path.basename(place))
    fd, beside = tempfile.mkstemp(prefix=".{}.".format(stem), suffix=suffix, dir=os.path.dirname(place))
    try:
        with open(fd, mode, encoding=None if "b" in mode else "utf-8") as handle:
            yield handle
            handle.flush()
            os.fsync(handle.fileno())
        os.chmod(beside, 0o644)
        os.rename(beside, place)
    finally:
        if os.path.exists(beside):
            os.unlink(beside)


@contextlib.contextmanager
def new_files(folder):
    """Write several files into ``folder``, each whole: yields an empty one beside it; its files are moved at the end.

    Where something fails before, none is written. What stands in ``folder`` and has no new version stays.
    """
    folder = os.path.realpath(str(folder))
    above = os.path.dirname(folder)
    os.makedirs(above, exist_ok=True)
    beside = tempfile.mkdtemp(prefix=".{}.".format(os.path.basename(folder)), dir=above)
    try:
        yield pathlib.Path(beside)
        for place, _, names in os.walk(beside):
            target = os.path.normpath(os.path.join(folder, os.path.relpath(place, beside)))
            os.makedirs(target, exist_ok=True)
            for name in names:
                os.replace(os.path.join(place, name), os.path.join(target, name))
    finally:
        shutil.rmtree(beside, ignore_errors=True)
