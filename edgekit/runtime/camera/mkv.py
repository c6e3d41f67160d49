"""Raw pictures with their times, in the container that ffmpeg reads them from a pipe in: Matroska (RFC 9559).

``-f rawvideo`` has no times: ffmpeg would give a picture the moment at which it reads it, which is late by whatever the
sink lagged behind.
"""

import struct

# ffmpeg makes its encoder's clock of the frame rate that is told; 999 is the highest that it believes a Matroska file
_TICK = 1001001  # ns of a picture
_UNKNOWN = b"\x01" + b"\xff" * 7  # length of what goes on until the end


class RawPictures(object):
    """Bytes for ffmpeg: ``head()`` first, then ``before(seconds)`` and the picture's own bytes for each picture.

    width, height: pixels of every picture, uint8 BGR
    """

    def __init__(self, width, height):
        self._size = (width, height)
        self._bytes = 3 * width * height

    def head(self):
        """The file's head, with one track."""
        width, height = self._size
        picture = _part("B0", _number(width)) + _part("BA", _number(height)) + _part("2EB524", b"BGR\x18")
        track = _part("D7", _number(1)) + _part("73C5", _number(1)) + _part("83", _number(1))
        track += _part("86", b"V_UNCOMPRESSED") + _part("23E383", _number(_TICK)) + _part("E0", picture)
        segment = bytes.fromhex("18538067") + _UNKNOWN
        millisecond = _part("1549A966", _part("2AD7B1", _number(1000000)))
        return (
            _part("1A45DFA3", _part("4282", b"matroska"))
            + segment
            + millisecond
            + _part("1654AE6B", _part("AE", track))
        )

    def before(self, seconds):
        """What goes before the bytes of a picture: a cluster of its own, with its moment."""
        block = b"\x81" + struct.pack(">hB", 0, 0x80)  # track 1, at the cluster's moment, complete in itself
        moment = _part("E7", _number(max(0, round(seconds * 1000))))
        block = bytes.fromhex("A3") + _length(len(block) + self._bytes) + block
        return bytes.fromhex("1F43B675") + _length(len(moment) + len(block) + self._bytes) + moment + block


def _part(name, body):
    return bytes.fromhex(name) + _length(len(body)) + body


def _length(count):
    return struct.pack(">Q", count | 1 << 56)


def _number(value):
    return struct.pack(">Q", value)
