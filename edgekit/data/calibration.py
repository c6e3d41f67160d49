"""Named image sets for calibration and evaluation, pinned by hash: a folder with ``set.yaml`` and the images.

The same name gives the same pixels everywhere, so an INT8 model or an mAP can be traced to the images behind it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal

import yaml
from pydantic import Field, ValidationError, field_validator, model_validator

from ..config import Section, explain, read_mapping
from ..paths import expanded, share, unknown_name
from ..progress import Count
from ..runtime.artifact import file_sha256, new_file, value_sha256
from ..runtime.errors import BadConfig, BadInput
from .coco import CocoSet, read_coco
from .imagefile import SUFFIXES, list_images, read_image
from .problems import Problems

SET_FILE = "set.yaml"
Sha256 = Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
Text = Annotated[str, Field(min_length=1)]


class ImageEntry(Section):
    """One image: its file, relative to the images' folder, and the SHA-256 of its bytes."""

    file: Text
    sha256: Sha256

    @field_validator("file")
    @classmethod
    def _inside(cls, file: str) -> str:
        path = PurePosixPath(file)
        if path.is_absolute() or ".." in path.parts:
            raise ValueError(f"expected a path inside the images' folder, got {file!r}")
        return file


class SetFile(Section):
    """What ``set.yaml`` says.

    images_root: folder of the images, relative to the set's folder; ``~`` is the home folder
    annotations: a COCO file in the set's folder, whose file names are relative to images_root
    recipe: the recipe that the set is recommended for
    """

    name: Text
    description: str = ""
    purpose: Literal["calibration", "evaluation"]
    licence: Text
    attribution: Text
    source: Text
    recipe: str | None = None
    images_root: str = "."
    annotations: str | None = None
    annotations_sha256: Sha256 | None = None
    images: Annotated[tuple[ImageEntry, ...], Field(min_length=1)]

    @model_validator(mode="after")
    def _consistent(self) -> SetFile:
        files = [entry.file for entry in self.images]
        if any("\0" in path for path in (self.images_root, self.annotations or "", *files)):
            raise ValueError("a path has a NUL character in it")
        twice = sorted({f for f in files if files.count(f) > 1}) if len(set(files)) != len(files) else []
        if twice:
            raise ValueError(f"images: listed twice: {', '.join(twice[:5])}")
        if (self.annotations is None) != (self.annotations_sha256 is None):
            raise ValueError("annotations and annotations_sha256 go together: give both or neither")
        return self


@dataclass(frozen=True)
class ImageSet:
    """A verified set. ``digest`` is of content alone: the images in order, and the annotations.

    images_root: the folder that names in ``annotations`` are relative to
    purpose: "calibration" or "evaluation"; a plain folder of images is for calibration
    """

    name: str
    folder: Path
    images: tuple[Path, ...]
    annotations: Path | None
    digest: str
    images_root: Path
    purpose: str = "calibration"

    def __len__(self) -> int:
        return len(self.images)

    def coco(self, classes: Sequence[str] | None = None) -> CocoSet:
        """The annotated set, checked; see ``read_coco``. Raises BadInput where there are no annotations."""
        if self.annotations is None:
            raise BadInput(f"{self.folder}: set {self.name!r} has no annotations, so nothing can be measured on it")
        coco = read_coco(self.annotations, self.images_root, classes)
        problems = Problems(self.annotations)
        for path in sorted({s.path for s in coco.samples} ^ set(self.images)):
            where = SET_FILE if path in set(self.images) else "the annotations"
            problems.add(str(path), f"only in {where}; both must list the same images")
        problems.raise_any()
        return coco


def set_names() -> list[str]:
    """Names of the shipped sets."""
    return sorted(p.parent.name for p in share("calibration").glob(f"*/{SET_FILE}"))


def load_set(name_or_path: str | Path, progress: Count | None = None) -> ImageSet:
    """Load and verify a set: the name of a shipped one, a folder with ``set.yaml``, or a plain folder of images.

    progress: called with (done, total) while hashes are computed

    Raises BadConfig for an unknown name or a wrong set.yaml; BadInput for an empty set, and for images that are missing
    or changed (named, up to ten).
    """
    folder = _find(name_or_path)
    file = folder / SET_FILE
    if not file.is_file():
        return _plain(folder, progress)
    values = _read_set(file)
    root = (folder / expanded(values.images_root)).resolve()
    problems = Problems(file)
    images = tuple(root / entry.file for entry in values.images)
    for done, (path, entry) in enumerate(zip(images, values.images, strict=True), 1):
        _verify(path, entry.sha256, problems)
        if progress is not None:
            progress(done, len(images))
    annotations = folder / values.annotations if values.annotations else None
    if annotations is not None:
        _verify(annotations, values.annotations_sha256, problems)
    problems.advice = f"If the change is meant, write {SET_FILE} anew; else restore the files."
    problems.raise_any()
    digest = value_sha256([[entry.sha256 for entry in values.images], values.annotations_sha256])
    return ImageSet(values.name, folder, images, annotations, digest, root, values.purpose)


def shared_images(calibration: ImageSet, evaluation: CocoSet) -> int:
    """How many images of the evaluation set are calibrated with, by content: a copy under another name counts."""
    sizes = {path.stat().st_size for path in calibration.images}
    alike = [sample.path for sample in evaluation.samples if sample.path.stat().st_size in sizes]
    hashes = {_sha256(path) for path in calibration.images} if alike else set()
    return sum(_sha256(path) in hashes for path in alike)


def _find(name_or_path: str | Path) -> Path:
    """A shipped set goes first, so that a name means the same in every folder; ``./name`` is a path."""
    name = str(name_or_path)
    if not isinstance(name_or_path, Path) and name in set_names():
        return share("calibration") / name
    path = expanded(name)
    if name and path.is_dir():
        return path.resolve()
    if path.exists() and name:
        raise BadInput(
            f"{path}: expected a folder of images, or one with {SET_FILE} (to measure on also a COCO file, .json); "
            "found another file"
        )
    raise unknown_name("image set", name, set_names(), "A path to a folder of images works too.")


def _read_set(file: Path) -> SetFile:
    try:
        values = read_mapping(file)
        if values.get("images") in (None, []):
            raise BadInput(f"{file}: the set is empty: {_how_to_fill(file.parent)}")
        return SetFile(**values)
    except ValidationError as error:
        raise BadConfig(explain(SetFile, file, error)) from error
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({error.strerror})") from error


def _how_to_fill(folder: Path) -> str:
    kinds = ", ".join(sorted(SUFFIXES))
    return f"put images ({kinds}) into {folder}, 64 or more typical ones for calibration, or name another set"


def _plain(folder: Path, progress: Count | None) -> ImageSet:
    images = list_images(folder)
    if not images:
        raise BadInput(f"{folder}: no images in this folder: {_how_to_fill(folder)}")
    hashes = []
    for done, path in enumerate(images, 1):
        hashes.append(_sha256(path))
        if progress is not None:
            progress(done, len(images))
    return ImageSet(folder.name, folder, tuple(images), None, value_sha256([hashes, None]), folder)


def _sha256(path: Path) -> str:
    try:
        return file_sha256(path)
    except OSError as error:
        raise BadInput(f"{path}: cannot be read ({error.strerror})") from error


def _verify(path: Path, expected: str | None, problems: Problems) -> None:
    if not path.is_file():
        problems.add(str(path), "listed in the set but missing")
        return
    found = _sha256(path)
    if found != expected:
        problems.add(str(path), f"SHA-256 is {found[:12]}..., the set says {str(expected)[:12]}...: the file changed")


def write_set(
    folder: Path,
    *,
    licence: str,
    attribution: str,
    source: str,
    name: str | None = None,
    description: str = "",
    purpose: Literal["calibration", "evaluation"] = "calibration",
    recipe: str | None = None,
    images_root: str = ".",
    annotations: str | None = None,
    progress: Count | None = None,
) -> ImageSet:
    """Make ``set.yaml`` from a folder of images, in one piece, and return the set.

    Every image is decoded once and the annotations are read, so that a set that was written can be used. With
    annotations the set has the images that they name, else all in ``images_root``. Arguments as in ``SetFile``; name:
    the folder's own where None. An existing set.yaml is replaced.

    Raises BadInput when there are no images, or one of them or the annotations cannot be used.
    """
    folder = Path(folder).resolve()
    root = (folder / expanded(images_root)).resolve()
    values: dict[str, Any] = {
        "name": name or folder.name,
        "description": description,
        "purpose": purpose,
        "licence": licence,
        "attribution": attribution,
        "source": source,
        "recipe": recipe,
        "images_root": images_root,
        "annotations": annotations,
        "annotations_sha256": _sha256(folder / annotations) if annotations else None,
        "images": _entries(root, folder / annotations if annotations else None, progress),
    }
    file = folder / SET_FILE
    try:
        SetFile(**values)
    except ValidationError as error:
        raise BadConfig(explain(SetFile, file, error)) from error
    with new_file(file) as handle:
        yaml.safe_dump({k: v for k, v in values.items() if v not in (None, "")}, handle, sort_keys=False, width=120)
    return load_set(folder)


def _entries(root: Path, annotations: Path | None, progress: Count | None) -> list[dict[str, str]]:
    """Hashes of the images of a new set, each of which can be decoded."""
    if not root.is_dir():
        raise BadInput(f"{root}: no such folder of images")
    coco = read_coco(annotations, root) if annotations else None
    images = list_images(root) if coco is None else sorted({sample.path for sample in coco.samples})
    if not images:
        raise BadInput(f"{root}: no images in this folder: {_how_to_fill(root)}")
    problems = Problems(root)
    entries = []
    for done, path in enumerate(images, 1):
        try:
            read_image(path)
        except BadInput as error:
            problems.add(path.name, str(error))
        entries.append({"file": path.relative_to(root).as_posix(), "sha256": _sha256(path)})
        if progress is not None:
            progress(done, len(images))
    problems.raise_any()
    return entries
