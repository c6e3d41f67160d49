"""Annotated MP4 that can be played whatever happens: fragments of H.264 by ffmpeg, or of JPEG by ourselves."""

import contextlib
import errno
import os
import re
import shutil
import subprocess
import threading
from typing import Any

import cv2
import numpy as np

from ..errors import BadInput
from .fmp4 import Fragments
from .mkv import RawPictures
from .options import core_count

_QUALITY = 85
# A fragment is written when it holds so much; a crash or a full disk costs at most one
_FRAGMENT_SECONDS, _FRAGMENT_PICTURES, _FRAGMENT_BYTES = 1.0, 60, 1 << 20
_BORDER = 24  # grey level around a picture of another shape
_LAST_DURATION = 0.04  # of the last picture, whose successor never came
_CLOSING_SECONDS = 20.0


def best_encoder():
    """ "ffmpeg" where that program is installed and knows H.264, else "mjpeg"."""
    return "ffmpeg" if shutil.which("ffmpeg") is not None and b" libx264 " in _said("-encoders") else "mjpeg"


def open_video(path, size, fps=None, encoder="mjpeg"):
    """A writer of uint8 BGR pictures [h, w, 3] of ``size`` (width, height): ``write(picture, seconds)``, ``close()``.

    fps: a constant rate; None: the pictures carry their times. encoder: "ffmpeg", or "mjpeg".
    Errors of the disk come as OSError from ``write`` or ``close``.
    """
    return {"ffmpeg": FfmpegVideo, "mjpeg": JpegVideo}[encoder](path, size, fps)


def fitted(picture, size):
    """The picture, or its scaled copy with borders where it has another size; a video's size cannot change."""
    height, width = picture.shape[:2]
    if (width, height) == size:
        return picture
    scale = min(size[0] / float(width), size[1] / float(height))
    wide, high = max(1, int(width * scale)), max(1, int(height * scale))
    out = np.full((size[1], size[0], 3), _BORDER, np.uint8)
    left, top = (size[0] - wide) // 2, (size[1] - high) // 2
    out[top : top + high, left : left + wide] = cv2.resize(picture, (wide, high), interpolation=cv2.INTER_AREA)
    return out


class JpegVideo(object):
    """JPEG pictures in fragments of one second. Needs nothing but cv2's JPEG encoder; files are large."""

    def __init__(self, path, size, fps):
        self._file = create(path)
        self._size, self._fps = size, fps
        self._fragments = Fragments(*size)
        self._jpegs, self._times = [], []
        self._write(self._fragments.head())

    def write(self, picture, seconds):
        data = encode_jpeg(fitted(picture, self._size), _QUALITY)
        if self._jpegs and self._is_full(seconds):
            self._flush(seconds)
        self._jpegs.append(data)
        self._times.append(seconds)

    def _is_full(self, seconds):
        long = seconds - self._times[0] >= _FRAGMENT_SECONDS or len(self._jpegs) >= _FRAGMENT_PICTURES
        return long or sum(map(len, self._jpegs)) >= _FRAGMENT_BYTES

    def _flush(self, following):
        if self._fps:
            durations = [1.0 / self._fps] * len(self._times)
        else:
            durations = [b - a for a, b in zip(self._times, self._times[1:] + [following])]  # noqa: B905
        jpegs, self._jpegs, self._times = self._jpegs, [], []
        self._write(self._fragments.fragment(jpegs, durations))

    def _write(self, data):
        """All of it or none: what a full disk leaves of a fragment is cut off again."""
        write_whole(self._file, data)

    def close(self):
        try:
            if self._jpegs:
                self._flush(self._times[-1] + _LAST_DURATION)
        finally:
            self._file.close()


class FfmpegVideo(object):
    """H.264 by the ffmpeg program, whose output comes back here and is written here: so disk errors are seen."""

    def __init__(self, path, size, fps):
        self._file = create(path)
        self._size = size
        self._even = (size[0] // 2 * 2, size[1] // 2 * 2)  # H.264 with 4:2:0 takes no odd sizes
        self._error: Any = None
        self._times = None if fps else RawPictures(*self._even)
        # a group of its own: Ctrl-C in a terminal must not end the encoder before the last picture is in it
        self._child: Any = subprocess.Popen(
            _command(self._even, fps),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        self._copier = threading.Thread(target=self._copy, name="mp4 file", daemon=True)
        self._copier.start()
        if self._times is not None:
            self._feed(self._times.head())

    def _copy(self):
        try:
            for data in iter(lambda: self._child.stdout.read1(1 << 16), b""):
                _write_all(self._file, data)
        except OSError as error:
            self._error = error
            self._child.kill()

    def write(self, picture, seconds):
        picture = fitted(picture, self._size)[: self._even[1], : self._even[0]]
        if self._times is not None:
            self._feed(self._times.before(seconds))
        self._feed(np.ascontiguousarray(picture).tobytes())

    def _feed(self, data):
        try:
            self._child.stdin.write(data)
        except OSError as error:
            self._copier.join(1.0)
            raise self._error or OSError(errno.EPIPE, "ffmpeg ended while it was recording") from error
        if self._error is not None:
            raise self._error

    def close(self):
        try:
            self._child.stdin.close()
        except OSError:  # it died before; why is in self._error
            self._child.kill()
        self._copier.join(_CLOSING_SECONDS)
        if self._copier.is_alive():
            self._child.kill()
            self._copier.join()
        code = self._child.wait()
        self._child.stdout.close()
        self._file.close()
        if self._error is not None:
            raise self._error
        if code != 0:  # killed, by the kernel without memory for one: its last pictures, or all, are not in the file
            raise OSError(errno.EPIPE, "ffmpeg ended with code {} while it was recording".format(code))


def encode_jpeg(picture, quality):
    """JPEG bytes of a uint8 BGR picture."""
    done, data = cv2.imencode(".jpg", picture, [cv2.IMWRITE_JPEG_QUALITY, quality])
    if not done:
        raise ValueError("OpenCV could not encode a picture of shape {}".format(picture.shape))
    return data.tobytes()


def create(path):
    """Open a file for writing, unbuffered, and empty it. BadInput when the place is wrong."""
    handle = open_kept(path)
    empty(handle)
    return handle


def empty(handle):
    """Cut everything off a file that was opened for writing."""
    with contextlib.suppress(OSError):  # a device or a pipe has no length
        handle.truncate(0)


def check_place(path):
    """BadInput when no file can be written there. What lies there stays, for a source may yet fail to open."""
    new = not os.path.lexists(str(path))
    open_kept(path).close()
    if new:
        os.remove(str(path))


def open_kept(path):
    """Open a file for writing, unbuffered, at its start; what is in it stays. BadInput when the place is wrong."""
    folder = os.path.dirname(os.path.abspath(str(path)))
    try:
        os.makedirs(folder, exist_ok=True)
        return os.fdopen(os.open(str(path), os.O_WRONLY | os.O_CREAT, 0o666), "wb", 0)
    except OSError as error:
        raise BadInput("{}: cannot be written ({}). Choose another place.".format(path, error.strerror)) from error


def write_whole(handle, data):
    """Write all of ``data`` to an unbuffered file, or cut off what was written of it and raise the OSError."""
    begin = handle.tell() if handle.seekable() else None
    try:
        _write_all(handle, data)
    except OSError:
        if begin is not None:
            with contextlib.suppress(OSError):  # a device has no length
                handle.truncate(begin)
        raise


def _write_all(handle, data):
    view = memoryview(data)
    while view:
        view = view[handle.write(view) :]


def _command(size, fps):
    if fps:
        raw = ["-f", "rawvideo", "-pix_fmt", "bgr24", "-s", "{}x{}".format(*size), "-framerate", "{:g}".format(fps)]
    else:  # nothing has to be guessed of it, so ffmpeg need not wait for pictures before it begins
        raw = ["-fpsprobesize", "0", "-f", "matroska"]
    # on one core each millisecond is the network's: a third of the time for a file a third larger
    preset = "ultrafast" if core_count() == 1 else "veryfast"
    encode = ["-c:v", "libx264", "-preset", preset, "-tune", "zerolatency", "-crf", "23", "-pix_fmt", "yuv420p"]
    encode += ["-g", "30", "-threads", "1", "-fps_mode" if _version() >= 6 else "-vsync", "passthrough"]
    fragments = [
        "-f",
        "mp4",
        "-movflags",
        "frag_keyframe+empty_moov+default_base_moof",
        "-flush_packets",
        "1",
        "pipe:1",
    ]
    return ["ffmpeg", "-hide_banner", "-loglevel", "error"] + raw + ["-i", "pipe:0"] + encode + fragments


def _version():
    """ffmpeg's major version; a build from its repository, which has no number, counts as new."""
    found = re.search(rb"ffmpeg version n?(\d+)\.", _said("-version"))
    return int(found.group(1)) if found else 99


def _said(option):
    done = subprocess.run(["ffmpeg", "-hide_banner", option], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    return done.stdout
