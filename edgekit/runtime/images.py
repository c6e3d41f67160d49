"""Reading image files: whole or not at all, in the geometry that COCO boxes are made for."""

import contextlib
import os
import re
import struct
import threading

import cv2
import numpy as np

from .errors import BadInput

# COCO records give width, height and boxes of the stored pixels, and its tools never turn an image by its EXIF tag, so
# the tag is ignored here too. IMREAD_COLOR makes uint8 BGR of grey, 16-bit, palette and alpha images.
FLAGS = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION

# Stuffed zeros, restart markers, TEM and fill bytes are no segments: a scan goes on over them.
_JPEG_MARKER = re.compile(b"\xff[^\x00\x01\xd0-\xd8\xff]")
_JPEG_END = 0xD9
# Some cameras pad the scan to a multiple of four bytes. More than that before its end is damage, and so is anything
# before another marker: of one image the decoder tells its first complaint alone, which would hide the next.
_JPEG_PADDING = re.compile(b"Corrupt JPEG data: [1-4] extraneous bytes before marker 0xd9")
_COMPLAINTS = (b"Corrupt JPEG data", b"Premature end of JPEG", b"libpng error")
_STDERR = 2
_PIPE_BYTES = 1 << 16
_stderr_lock = threading.Lock()


def read_image(path):
    """An image file as uint8 BGR [height, width, 3], in the orientation in which it is stored.

    Raises BadInput naming the file when it is missing, empty, not an image, cut short or damaged. cv2 alone would fill
    the missing part of a JPEG with grey and say nothing.
    """
    data = read_bytes(path)
    check_whole(path, data)
    try:
        with _decoder_complaints() as complaints:
            image = cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS)
    except cv2.error as error:
        raise BadInput("{}: cannot be decoded ({}). Replace the file.".format(path, _one_line(error))) from error
    if image is None:
        raise BadInput("{}: not a readable image (corrupt, or of an unknown format). Replace the file.".format(path))
    if complaints:
        raise BadInput("{}: corrupt image ({}). Replace the file.".format(path, complaints[0]))
    return image


def check_whole(path, data):
    """BadInput when the bytes of a JPEG, PNG, WebP or BMP end too early; ``path`` is for the message only."""
    for signature, (name, whole) in _WHOLE.items():
        if data.startswith(signature) and not whole(data):
            raise BadInput(
                "{}: truncated {} ({} bytes, its end is missing). Replace the file.".format(path, name, len(data))
            )


def jpeg_segments(data):
    """Marker segments of a JPEG: (marker, first byte of the content, first byte behind it), while there are any.

    Between segments and in a scan the next marker is searched for, as decoders do. The end-of-image marker is the last;
    that of an embedded thumbnail lies inside a segment and is not seen.
    """
    at = 2
    while True:
        found = _JPEG_MARKER.search(data, at)
        if found is None:
            return
        marker, start = data[found.start() + 1], found.end()
        if marker == _JPEG_END:
            yield marker, start, start
            return
        at = start + int.from_bytes(data[start : start + 2], "big")
        if at > len(data):
            return
        yield marker, start + 2, at


def read_bytes(path, size=-1):
    """The first ``size`` bytes of an image file, or all. BadInput naming it when it is missing, unreadable or empty."""
    try:
        with open(str(path), "rb") as handle:
            data = handle.read(size)
    except FileNotFoundError as error:
        raise BadInput("{}: no such image file".format(path)) from error
    except OSError as error:
        raise BadInput("{}: cannot be read ({})".format(path, error.strerror)) from error
    except ValueError as error:  # a NUL in the name
        raise BadInput("{!r}: cannot be read ({})".format(path, error)) from error
    if not data:
        raise BadInput("{}: the image file is empty. Replace the file.".format(path))
    return data


def _jpeg_whole(data):
    return any(marker == _JPEG_END for marker, _, _ in jpeg_segments(data))


def _png_whole(data):
    at = 8
    while at + 8 <= len(data):
        length, kind = struct.unpack_from(">I4s", data, at)
        at += 12 + length
        if kind == b"IEND":
            return at <= len(data)
    return False


def _webp_whole(data):
    return len(data) >= 12 and len(data) >= 8 + struct.unpack_from("<I", data, 4)[0]


def _bmp_whole(data):
    return len(data) >= 6 and len(data) >= struct.unpack_from("<I", data, 2)[0]


_WHOLE = {
    b"\xff\xd8": ("JPEG", _jpeg_whole),
    b"\x89PNG\r\n\x1a\n": ("PNG", _png_whole),
    b"RIFF": ("WebP", _webp_whole),
    b"BM": ("BMP", _bmp_whole),
}


@contextlib.contextmanager
def _decoder_complaints():
    """Collect what libjpeg and libpng complain about while the block runs.

    For a damaged JPEG scan cv2 returns an image with grey or shifted blocks, and gives no sign but a line that libjpeg
    writes to file descriptor 2; so that is where it must be read. Lines of anybody else are passed on.
    """
    complaints = []  # type: list[str]
    with _stderr_lock:
        try:
            kept = os.dup(_STDERR)
        except OSError:  # a process without stderr: nothing to read there
            yield complaints
            return
        reader, writer = os.pipe()
        for end in (reader, writer):
            os.set_blocking(end, False)  # a full pipe drops lines; it must not stop the decoder
        try:
            os.dup2(writer, _STDERR)
            yield complaints
        finally:
            os.dup2(kept, _STDERR)
            os.close(writer)
            for line in _waiting(reader).splitlines(True):
                if not line.startswith(_COMPLAINTS):
                    os.write(_STDERR, line)
                elif not _JPEG_PADDING.match(line):
                    complaints.append(line.decode("utf-8", "replace").strip())
            os.close(reader)
            os.close(kept)


def _waiting(reader):
    """What a pipe holds. A process that another thread is just starting has its other end too: no end of file then."""
    try:
        return os.read(reader, _PIPE_BYTES)
    except BlockingIOError:
        return b""


def _one_line(error):
    return " ".join(str(error).split())
