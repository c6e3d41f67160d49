"""Image files: size without decoding, wholeness, and decoding in the geometry that COCO boxes are made for."""

from __future__ import annotations

import os
import re
import struct
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np

from ..runtime.errors import BadInput

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff"})

# COCO records give width, height and boxes of the stored pixels (pycocotools and its users never turn an image by its
# EXIF tag), so the tag is ignored here too. IMREAD_COLOR makes uint8 BGR of grey, 16-bit, palette and alpha images.
_FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

_JPEG = b"\xff\xd8"
_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # frame headers: DHT, JPG and DAC lie among them
_JPEG_EOI = 0xD9
# Stuffed zeros, restarts, TEM and fill bytes are no segments: a scan goes on over them.
_JPEG_MARKER = re.compile(rb"\xff[^\x00\x01\xd0-\xd8\xff]")
# Some cameras pad the scan to a multiple of four bytes; more than that before a marker means damage.
_JPEG_EXTRANEOUS = re.compile(rb"Corrupt JPEG data: [1-4] extraneous bytes before marker")
_HEAD_BYTES = 1 << 16


@dataclass(frozen=True)
class ImageHeader:
    """width, height: stored pixels; orientation: EXIF 1..8, where 5..8 swap the sides on display."""

    width: int
    height: int
    orientation: int = 1


def read_image(path: Path) -> np.ndarray:
    """Decode an image file to uint8 BGR [h, w, 3], in stored orientation.

    Raises BadInput naming the file when it is missing, empty, not an image, truncated or corrupt.
    """
    data = _read(path)
    check_whole(path, data)
    try:
        with _decoder_complaints() as complaints:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), _FLAGS)
    except cv2.error as error:
        raise BadInput(f"{path}: cannot be decoded ({error.err or error}). Replace the file.") from error
    if image is None:
        raise BadInput(f"{path}: not a readable image (truncated, corrupt or of an unknown format). Replace the file.")
    if complaints:
        raise BadInput(f"{path}: corrupt image ({complaints[0]}). Replace the file, or leave the image out of the set.")
    return image


def read_header(path: Path) -> ImageHeader:
    """Size and EXIF orientation of an image file, from its first bytes for JPEG and PNG, else by decoding it.

    Raises BadInput naming the file when it is missing, truncated or not an image.
    """
    data = _read(path, _HEAD_BYTES)
    if data.startswith(_PNG):
        _whole_png_tail(path)
        return _png_header(path, data)
    if data.startswith(_JPEG):
        if _read_tail(path, 2) != b"\xff\xd9":  # something may follow the end: then only a full walk can tell
            check_whole(path, _read(path))
        header = _jpeg_header(data) or _jpeg_header(_read(path))
        if header is None:
            raise BadInput(f"{path}: corrupt JPEG (no frame header). Replace the file.")
        return header
    height, width = read_image(path).shape[:2]
    return ImageHeader(width, height)


def check_whole(path: Path, data: bytes) -> None:
    """BadInput when the bytes of a JPEG or PNG end before its end marker; decoders fill the rest with grey."""
    if data.startswith(_JPEG) and not _jpeg_is_whole(data):
        raise BadInput(
            f"{path}: truncated or corrupt JPEG ({len(data)} bytes, no end-of-image marker). Replace the file."
        )
    if data.startswith(_PNG) and b"IEND" not in data[-64:] and b"\0\0\0\0IEND\xae\x42\x60\x82" not in data:
        raise BadInput(f"{path}: truncated PNG ({len(data)} bytes, no IEND chunk). Replace the file.")


def _read(path: Path, size: int = -1) -> bytes:
    try:
        with open(path, "rb") as handle:
            data = handle.read(size)
    except FileNotFoundError as error:
        raise BadInput(f"{path}: no such image file") from error
    except (OSError, ValueError) as error:  # ValueError: a NUL in the name
        raise BadInput(f"{path}: cannot be read ({error})") from error
    if not data:
        raise BadInput(f"{path}: the image file is empty. Replace the file.")
    return data


def _read_tail(path: Path, size: int) -> bytes:
    with open(path, "rb") as handle:
        handle.seek(0, os.SEEK_END)
        handle.seek(max(0, handle.tell() - size))
        return handle.read()


def _whole_png_tail(path: Path) -> None:
    if b"IEND" not in _read_tail(path, 64):
        check_whole(path, _read(path))


def _png_header(path: Path, data: bytes) -> ImageHeader:
    if len(data) < 24 or data[12:16] != b"IHDR":
        raise BadInput(f"{path}: corrupt PNG (no IHDR chunk). Replace the file.")
    width, height = struct.unpack(">II", data[16:24])
    return ImageHeader(width, height)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker segments of a JPEG: (marker, first byte of the content, first byte behind it), while there are any.

    Between segments and in a scan the next marker is searched for, as decoders do, over fill bytes and stray ones.
    """
    at = 2
    while (found := _JPEG_MARKER.search(data, at)) is not None:
        marker, start = data[found.start() + 1], found.end()
        if marker == _JPEG_EOI:
            yield marker, start, start
            return
        end = start + int.from_bytes(data[start : start + 2], "big")
        if end > len(data):
            return
        yield marker, start + 2, end
        at = end


def _jpeg_is_whole(data: bytes) -> bool:
    return any(marker == _JPEG_EOI for marker, _, _ in _segments(data))


def _jpeg_header(data: bytes) -> ImageHeader | None:
    orientation = 1
    for marker, start, end in _segments(data):
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


_stderr_lock = threading.Lock()


@contextmanager
def _decoder_complaints() -> Iterator[list[str]]:
    """Collect what libjpeg and libpng complain about while the block runs.

    cv2 returns an image with grey or shifted blocks for a damaged JPEG scan and gives no sign but a line that libjpeg
    writes to file descriptor 2, so that is where it must be read. Lines of anybody else are passed on.
    """
    complaints: list[str] = []
    with _stderr_lock, ExitStack() as closing:
        try:
            kept = os.dup(2)
        except OSError:  # a process without stderr: nothing to read there
            yield complaints
            return
        closing.callback(os.close, kept)
        caught = os.memfd_create("decoder")
        closing.callback(os.close, caught)
        os.dup2(caught, 2)
        try:
            yield complaints
        finally:
            os.dup2(kept, 2)
            for line in os.pread(caught, _HEAD_BYTES, 0).splitlines(keepends=True):
                if not line.startswith((b"Corrupt JPEG data", b"Premature end of JPEG", b"libpng error")):
                    os.write(2, line)
                elif not _JPEG_EXTRANEOUS.match(line):
                    complaints.append(line.decode(errors="replace").strip())
