"""Image files: their size and orientation without decoding. Decoding is ``runtime.images``."""

from __future__ import annotations

import os
import struct
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ..progress import Progress, tell
from ..runtime.errors import BadInput
from ..runtime.images import check_whole, jpeg_segments, read_bytes, read_image
from ..words import counted
from .problems import MAX_PROBLEMS

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

# EXIF orientation -> what makes stored pixels of shown ones: are x and y swapped, and then x or y counted from the end
_TURNS = {
    1: (False, (False, False)),
    2: (False, (True, False)),
    3: (False, (True, True)),
    4: (False, (False, True)),
    5: (True, (False, False)),
    6: (True, (False, True)),
    7: (True, (True, True)),
    8: (True, (True, False)),
}

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # frame headers: DHT, JPG and DAC lie among them
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class ImageHeader:
    """width, height: stored pixels; orientation: EXIF 1..8, where 5..8 swap the sides on display."""

    width: int
    height: int
    orientation: int = 1


def read_header(path: Path) -> ImageHeader:
    """Size and EXIF orientation of an image file, from its first bytes for JPEG and PNG, else by decoding it.

    Raises BadInput naming the file when it is missing, truncated or not an image.
    """
    data = read_bytes(path, _HEAD_BYTES)
    if data.startswith(_PNG):
        _whole_png_tail(path)
        return _png_header(path, data)
    if data.startswith(_JPEG):
        if _read_tail(path, 2) != b"\xff\xd9":  # something may follow the end: then only a full walk can tell
            check_whole(path, read_bytes(path))
        header = _jpeg_header(data) or _jpeg_header(read_bytes(path))
        if header is None:
            raise BadInput(f"{path}: corrupt JPEG (no frame header). Replace the file.")
        return header
    height, width = read_image(path).shape[:2]
    return ImageHeader(width, height)


def shown_to_stored(points: np.ndarray, orientation: int) -> np.ndarray:
    """Points [..., 2] (x, y as shares of the picture as shown) -> the same as shares of the stored pixels."""
    swapped, from_end = _TURNS[orientation]
    points = points[..., ::-1] if swapped else points
    return np.where(from_end, 1 - points, points)


def stored_to_shown(points: np.ndarray, orientation: int) -> np.ndarray:
    """The way back."""
    swapped, from_end = _TURNS[orientation]
    points = np.where(from_end, 1 - points, points)
    return points[..., ::-1] if swapped else points


def check_images(paths: Sequence[Path], progress: Progress | None = None) -> None:
    """Raise BadInput that names the images which cannot be read whole, ten of them at most, before long work begins."""
    faults = []
    for done, path in enumerate(paths, 1):
        try:
            read_image(path)
        except BadInput as error:
            faults.append(str(error))
        tell(progress, "check images", done, len(paths))
    if faults:
        more = [f"and {len(faults) - MAX_PROBLEMS} more"] if len(faults) > MAX_PROBLEMS else []
        raise BadInput("\n".join([*faults[:MAX_PROBLEMS], *more]))


def _read_tail(path: Path, size: int) -> bytes:
    with open(path, "rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - size))
        return handle.read()


def _whole_png_tail(path: Path) -> None:
    if b"IEND" not in _read_tail(path, 64):
        check_whole(path, read_bytes(path))


def _png_header(path: Path, data: bytes) -> ImageHeader:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise BadInput(f"{path}: corrupt PNG (no IHDR chunk). Replace the file.")
    width, height = struct.unpack(">II", data[16:24])
    return ImageHeader(width, height)


def _jpeg_header(data: bytes) -> ImageHeader | None:
    orientation = 1
    for marker, start, end in jpeg_segments(data):
        if marker == 0xE1 and data[start : start + 6] == b"Exif\0\0":
            orientation = _exif_orientation(data[start + 6 : end])
        if marker in _JPEG_SOF and len(data) >= start + 5:
            height, width = struct.unpack(">HH", data[start + 1 : start + 5])
            return ImageHeader(width, height, orientation)
    return None


def _exif_orientation(tiff: bytes) -> int:
    """Tag 0x0112 of the first directory; 1 (upright) where there is none or the block is damaged."""
    order = {b"II": "<", b"MM": ">"}.get(tiff[:2])
    if order is None or len(tiff) < 8:
        return 1
    (at,) = struct.unpack(order + "I", tiff[4:8])
    if at + 2 > len(tiff):
        return 1
    (count,) = struct.unpack(order + "H", tiff[at : at + 2])
    for i in range(count):
        entry = tiff[at + 2 + 12 * i : at + 14 + 12 * i]
        if len(entry) == 12 and struct.unpack(order + "H", entry[:2])[0] == 0x0112:
            (value,) = struct.unpack(order + "H", entry[8:10])
            return value if 1 <= value <= 8 else 1
    return 1


def left_out(folders: Sequence[Path], images: Sequence[Path], unsized: int) -> dict[str, Any]:
    """What a reader of images tells beside its counts, where there is any: ``unsized`` boxes without area, what else
    lies in the folders, and a note of photos with an EXIF rotation.
    """
    note = turned_text(sum(read_header(path).orientation != 1 for path in images))
    told = {"boxes_without_area": unsized, "other_files": _other_files(folders, images), "note": note}
    return {key: value for key, value in told.items() if value}


def turned_text(turned: int) -> str:
    """What to say of so many photos with an EXIF rotation, which are read as they are stored; "" of none."""
    if not turned:
        return ""
    return f"{counted(turned, 'image')} with an EXIF rotation, which turns nothing: boxes are of the stored pixels"


def _other_files(folders: Sequence[Path], images: Sequence[Path]) -> dict[str, int]:
    """What else lies in folders and below them, by suffix: nobody should think that it was read."""
    read = set(images)
    names = (
        "links to folders" if path.is_dir() else path.suffix.lower() or "no suffix"
        for folder in folders
        for path in folder.rglob("*")
        if path not in read and (path.is_symlink() or not path.is_dir())
    )
    return dict(sorted(Counter(names).items(), key=lambda item: (-item[1], item[0])))


def list_images(folder: Path) -> list[Path]:
    """The image files of a folder (not hidden, not in its sub-folders), in name order. BadInput if it is unreadable."""
    try:
        return sorted(p for p in folder.iterdir() if p.suffix.lower() in SUFFIXES and p.name[0] != "." and p.is_file())
    except OSError as error:
        raise BadInput(f"{folder}: cannot be read ({error.strerror})") from error
