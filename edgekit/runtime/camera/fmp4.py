"""Fragmented MP4 of JPEG pictures, written piece by piece: what is on the disk can be played at every moment.

``cv2.VideoWriter`` writes the index of an MP4 when it is released, so a killed process or a full disk leaves a file
that nothing plays; and it hides every write error. Here the head goes first and each fragment brings its own index
(ISO/IEC 14496-12, movie fragments; 14496-14 for the sample entry; object type 0x6C is JPEG).
"""

import struct

TIMESCALE = 90000
_LONGEST = (1 << 32) - 1  # ticks of one picture, 13 hours: what the field holds. The fragment after it has its own time


class Fragments(object):
    """Bytes of the file: ``head()`` first, then ``fragment(jpegs, durations)`` for each group of pictures.

    width, height: pixels of every picture. durations: seconds that each picture is shown.
    """

    def __init__(self, width, height):
        self._size = (width, height)
        self._sequence = 0
        self._time = 0

    def head(self):
        """ftyp and moov: one video track without samples."""
        return _box(b"ftyp", b"isom", _u32(0x200), b"isomiso5mp41") + _box(
            b"moov", _movie_header(), self._track(), _box(b"mvex", _full(b"trex", 0, 0, _u32(1, 1, 0, 0, 0)))
        )

    def fragment(self, jpegs, durations):
        """moof and mdat of some pictures."""
        self._sequence += 1
        ticks = [max(round(d * TIMESCALE), 1) for d in durations]
        rows = b"".join(_u32(min(t, _LONGEST), len(j)) for t, j in zip(ticks, jpegs))  # noqa: B905 - Python 3.6
        offset = len(self._moof(rows, len(jpegs), 0)) + 8
        moof = self._moof(rows, len(jpegs), offset)
        self._time += sum(ticks)
        return moof + _box(b"mdat", *jpegs)

    def _moof(self, rows, count, offset):
        header = _full(b"tfhd", 0, 0x020000, _u32(1))  # offsets count from the moof
        moment = _full(b"tfdt", 1, 0, struct.pack(">Q", self._time))
        run = _full(b"trun", 0, 0x000301, _u32(count, offset), rows)  # data offset, durations, sizes
        return _box(b"moof", _full(b"mfhd", 0, 0, _u32(self._sequence)), _box(b"traf", header, moment, run))

    def _track(self):
        width, height = self._size
        header = _full(
            b"tkhd", 0, 3, _u32(0, 0, 1, 0, 0, 0, 0), bytes(8), _MATRIX, struct.pack(">II", width << 16, height << 16)
        )
        media = _full(b"mdhd", 0, 0, _u32(0, 0, TIMESCALE, 0), struct.pack(">HH", 0x55C4, 0))
        handler = _full(b"hdlr", 0, 0, _u32(0), b"vide", bytes(12), b"video\0")
        reference = _full(b"dref", 0, 0, _u32(1), _full(b"url ", 0, 1))
        tables = [
            _full(name, 0, 0, _u32(*[0] * n)) for name, n in ((b"stts", 1), (b"stsc", 1), (b"stsz", 2), (b"stco", 1))
        ]
        table = _box(b"stbl", _full(b"stsd", 0, 0, _u32(1), self._sample_entry()), *tables)
        information = _box(b"minf", _full(b"vmhd", 0, 1, bytes(8)), _box(b"dinf", reference), table)
        return _box(b"trak", header, _box(b"mdia", media, handler, information))

    def _sample_entry(self):
        width, height = self._size
        entry = bytes(6) + struct.pack(">H", 1) + bytes(16) + struct.pack(">HH", width, height)
        entry += _u32(0x480000, 0x480000, 0) + struct.pack(">H", 1) + bytes(32) + struct.pack(">Hh", 24, -1)
        decoder = _descriptor(0x04, bytes([0x6C, 0x11]) + bytes(11))
        stream = _descriptor(0x03, struct.pack(">HB", 1, 0) + decoder + _descriptor(0x06, b"\x02"))
        return _box(b"mp4v", entry, _full(b"esds", 0, 0, stream))


_MATRIX = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def _movie_header():
    return _full(b"mvhd", 0, 0, _u32(0, 0, TIMESCALE, 0, 0x10000, 0x01000000, 0, 0), _MATRIX, bytes(24), _u32(2))


def _u32(*values):
    return struct.pack(">{}I".format(len(values)), *values)


def _box(name, *parts):
    body = b"".join(parts)
    return struct.pack(">I4s", 8 + len(body), name) + body


def _full(name, version, flags, *parts):
    return _box(name, struct.pack(">I", version << 24 | flags), *parts)


def _descriptor(tag, body):
    return bytes([tag, len(body)]) + body
