"""Sources of pictures. ``open_source(spec, ...)`` says which class a ``--source`` means; a source is used like a file:

``with source: for picture in source: ...`` gives ``Picture``; it ends when the file does or the stream breaks off.
Opening, and every step of the loop, may block in a driver for as long as the driver likes: ``capture`` watches that.
"""

import contextlib
import glob
import os
import re
from typing import Any

import cv2

from ..errors import BadConfig, BadInput
from ..images import read_image
from . import strings
from .mjpeg import MjpegStream, is_mjpeg, open_url
from .options import IMAGE_SUFFIXES as SUFFIXES
from .options import file_of

FOLDER_FPS = 5.0  # of images that carry no times
FILE_FPS = 25.0  # of video files that do not tell theirs
MOST_FPS = 240.0  # above it a file's word is a time base
_FEW = 5  # pictures that a whole file may give fewer than it tells
_MP4_BEGINS = (b"ftyp", b"moov", b"mdat", b"wide", b"free", b"skip")
_MJPG = int.from_bytes(b"MJPG", "little")  # as cv2 writes a four-character code
_FFMPEG_OPTIONS = "OPENCV_FFMPEG_CAPTURE_OPTIONS"
_LOW_DELAY = "rtsp_transport;tcp|fflags;nobuffer|flags;low_delay"


class Picture(object):
    """image: uint8 BGR, or None for one that could not be decoded; seconds: of the file's own time, else None."""

    __slots__ = ("image", "name", "seconds")

    def __init__(self, image, seconds=None, name=None):
        self.image = image
        self.seconds = seconds
        self.name = name


class Options(object):
    """What a user may ask of a source: (width, height) or None, frames a second or None, timeout in seconds."""

    def __init__(self, size=None, fps=None, timeout=10.0, flip=0, loop=False):
        self.size = size
        self.fps = fps
        self.timeout = timeout
        self.flip = flip
        self.loop = loop

    def wishes(self):
        """The names of those that not every source can follow, and that were given."""
        return [name for name in ("size", "fps", "flip", "loop") if getattr(self, name)]


class Source(object):
    """name: as the user wrote it; shown: the same without a password.

    live: it can come again after it broke off, and cannot be asked to wait
    rate: frames a second of a file once it is open; None for a live source
    length: pictures of a file or folder once it is open, by its own word; None where that is not told
    missing: pictures that a file which was cut off should have had, once it is read through
    notes: sentences about what was asked of it and is not so, once it is open
    follows: which ``Options.wishes`` it can follow
    """

    live = True
    rate: Any = None
    length: Any = None
    missing = 0
    notes: Any = ()
    follows: Any = ()

    def __init__(self, name, options):
        self.name = name
        self.shown = strings.without_password(name)
        self.options = options

    def __enter__(self):
        self.open()
        return self

    def check(self):
        """Raise BadInput for what can be seen to be missing without opening anything."""

    def __exit__(self, *exc_info):
        self.close()

    def open(self):
        raise NotImplementedError(type(self).__name__ + ".open")

    def __iter__(self):
        raise NotImplementedError(type(self).__name__ + ".__iter__")

    def close(self):
        """Give the device or the connection back."""


class _Cv2Source(Source):
    """Everything that cv2.VideoCapture reads."""

    _capture: Any = None

    def _make(self):
        raise NotImplementedError(type(self).__name__ + "._make")

    def _refused(self):
        """The message for a source that did not open."""
        raise NotImplementedError(type(self).__name__ + "._refused")

    def open(self):
        self._capture = self._make()
        if not self._capture.isOpened():
            self._capture.release()
            raise BadInput(self._refused())

    def __iter__(self):
        while True:
            done, image = self._capture.read()
            if not done:
                return
            yield Picture(image)

    def close(self):
        if self._capture is not None:
            self._capture.release()
            self._capture = None


class V4l2(_Cv2Source):
    """A USB camera, /dev/videoN; MJPEG where it offers that, for raw frames fill the bus."""

    follows = ("size", "fps")

    def __init__(self, name, device, options):
        super(V4l2, self).__init__(name, options)
        self._device = device

    def check(self):
        if not os.path.exists(self._device):
            raise BadInput(self._refused())

    def _make(self):
        self.check()
        capture = cv2.VideoCapture(self._device, cv2.CAP_V4L2)
        capture.set(cv2.CAP_PROP_FOURCC, _MJPG)
        if self.options.size:
            capture.set(cv2.CAP_PROP_FRAME_WIDTH, self.options.size[0])
            capture.set(cv2.CAP_PROP_FRAME_HEIGHT, self.options.size[1])
        if self.options.fps:
            capture.set(cv2.CAP_PROP_FPS, self.options.fps)
        # Not CAP_PROP_BUFFERSIZE 1: OpenCV gives a buffer back at the next read, and until then a driver with no other
        # one drops what the camera sends: every second frame. Nothing grows old in four, as the capture never waits.
        return capture

    def open(self):
        super(V4l2, self).open()
        self.notes = list(self._differences())

    def _differences(self):
        """What the driver made of the size and the rate; it takes the nearest that the camera has."""
        get = self._capture.get
        size = int(get(cv2.CAP_PROP_FRAME_WIDTH)), int(get(cv2.CAP_PROP_FRAME_HEIGHT))
        if self.options.size and size != tuple(self.options.size):
            yield "--size {}x{}: the camera gives {}x{}".format(*(tuple(self.options.size) + size))
        fps = get(cv2.CAP_PROP_FPS)
        if self.options.fps and fps > 0 and abs(fps - self.options.fps) > 0.02 * self.options.fps:
            yield "--fps {:g}: the camera gives {:g} at this size".format(self.options.fps, fps)

    def _refused(self):
        have = ", ".join(sorted(glob.glob("/dev/video*"))) or "no camera device at all"
        why = "is not there" if not os.path.exists(self._device) else "cannot be opened (in use, or no right to)"
        return "{}: {} {}; there is: {}. On a Jetson TX2 video0 is the CSI sensor: use csi://0.".format(
            self.shown, self._device, why, have
        )


class GStreamer(_Cv2Source):
    """Any GStreamer string that ends in an appsink. follows: what a board's string has a place for."""

    def __init__(self, name, pipeline, options, follows=()):
        super(GStreamer, self).__init__(name, options)
        self._pipeline = pipeline
        self.follows = follows

    def _make(self):
        strings.require_gstreamer(self.shown)
        return cv2.VideoCapture(self._pipeline, cv2.CAP_GSTREAMER)

    def _refused(self):
        return "{}: GStreamer did not start it. Try it by itself: gst-launch-1.0 -v {}".format(
            self.shown, strings.without_password(re.sub(r"!\s*appsink.*$", "! fakesink", self._pipeline))
        )


@contextlib.contextmanager
def _network_options():
    """FFmpeg's options for low delay while a stream is opened; a file read with them would lose its last picture."""
    given = os.environ.get(_FFMPEG_OPTIONS)
    if given is not None:  # the user knows better
        yield
        return
    os.environ[_FFMPEG_OPTIONS] = _LOW_DELAY
    try:
        yield
    finally:
        del os.environ[_FFMPEG_OPTIONS]


class Network(_Cv2Source):
    """RTSP, MPEG-TS over UDP, HLS and whatever else FFmpeg reads from a network."""

    def _make(self):
        with _network_options():
            return self._capture_of(self.name)

    def _capture_of(self, address):
        wait = int(self.options.timeout * 1000)
        names = ("CAP_PROP_OPEN_TIMEOUT_MSEC", "CAP_PROP_READ_TIMEOUT_MSEC")
        parameters = [v for n in names if hasattr(cv2, n) for v in (getattr(cv2, n), wait)]
        if not parameters:  # OpenCV before 4.5.2: the watch over the reading thread has to do
            return cv2.VideoCapture(address, cv2.CAP_FFMPEG)
        return cv2.VideoCapture(address, cv2.CAP_FFMPEG, parameters)

    def _refused(self):
        return "{}: no stream there (nobody answers, no such path, or a wrong password). Try: ffprobe {}".format(
            self.shown, self.shown
        )


class VideoFile(_Cv2Source):
    """A video file, with the time of each picture."""

    live = False
    follows = ("fps", "loop")

    def _make(self):
        return cv2.VideoCapture(self.name)

    def _refused(self):
        return "{}: not a video that OpenCV can read. Try: ffprobe {}".format(self.shown, self.shown)

    def open(self):
        super(VideoFile, self).open()
        self.rate, self.length = _rate(self._capture, self.options), _length(self._capture)

    def __iter__(self):
        count = 0
        for picture in super(VideoFile, self).__iter__():
            picture.seconds = count / self.rate
            count += 1
            yield picture
        missing = (self.length or 0) - count
        # a count alone is no proof: an edit list leaves pictures out that are counted
        if missing > _FEW and cut_off(self.name):
            self.missing = missing


def _rate(capture, options):
    """Frames a second of an open file."""
    told = capture.get(cv2.CAP_PROP_FPS)
    return float(options.fps or (told if 0 < told <= MOST_FPS else FILE_FPS))


def _length(capture):
    """Pictures of an open file, or None: FFmpeg answers with a number below 1 where it does not know."""
    count = int(capture.get(cv2.CAP_PROP_FRAME_COUNT))
    return count if count > 0 else None


def cut_off(path):
    """Whether an MP4 or AVI file says that it is longer than it is. False for others, which need not tell a length."""
    size, at = os.path.getsize(path), 0
    with open(path, "rb") as handle:
        while at < size:
            handle.seek(at)
            head = handle.read(16)
            length = int.from_bytes(head[:4], "big")
            if head[:4] == b"RIFF":
                length = 8 + int.from_bytes(head[4:8], "little")
            elif at == 0 and head[4:8] not in _MP4_BEGINS:
                return False
            elif length == 1:  # the length is in the next eight bytes
                length = int.from_bytes(head[8:16], "big")
            if length < 8:  # to the end of the file, or no box
                return False
            at += length
    return at > size


class Folder(Source):
    """The images of a folder in the order of their names. One that is damaged is given as None and passed over."""

    live = False
    follows = ("fps", "loop")

    def open(self):
        paths = [os.path.join(self.name, n) for n in sorted(os.listdir(self.name))]
        self._paths = [p for p in paths if p.lower().endswith(SUFFIXES)]
        if not self._paths:
            raise BadInput("{}: no images in this folder (looked for {})".format(self.name, ", ".join(SUFFIXES)))
        self.rate, self.length = float(self.options.fps or FOLDER_FPS), len(self._paths)

    def __iter__(self):
        for number, path in enumerate(self._paths):
            try:
                image = read_image(path)
            except BadInput:
                image = None
            yield Picture(image, number / self.rate, os.path.basename(path))


class Http(Network):
    """Motion JPEG over HTTP, as network cameras and phones send it; other media (HLS, MP4) by FFmpeg.

    What tells how many pictures it has is a file: it is played once, at its own pace.
    """

    _stream: Any = None
    follows = ("fps", "loop")  # it may be a file: only the answer tells

    def _make(self):
        return self._capture_of(self.name)  # not with the options of streams, which cost a file pictures

    def open(self):
        response = open_url(self.name, self.options.timeout)
        if is_mjpeg(response):
            self._stream = MjpegStream(self.name, response)
        else:
            response.close()
            super(Http, self).open()
            self.length = _length(self._capture)
            if self.length is not None:
                self.live, self.rate = False, _rate(self._capture, self.options)
        if self.live:
            self.notes = ["--{}: not followed, this address is a stream".format(w) for w in self.options.wishes()]

    def __iter__(self):
        if self._stream is not None:
            return (Picture(image) for image in self._stream)
        pictures = super(Http, self).__iter__()
        if self.live:
            return pictures
        return (Picture(p.image, number / self.rate) for number, p in enumerate(pictures))

    def close(self):
        if self._stream is not None:
            self._stream.close()
            self._stream = None
        super(Http, self).close()


def open_source(spec, options=None, board=None):
    """The source that a text means, not opened yet.

    BadInput for a text that means nothing, with what it could be; BadConfig for options that the source cannot follow
    """
    source = _source_of(str(spec), options or Options(), board or {})
    ignored = [name for name in source.options.wishes() if name not in source.follows]
    if ignored:
        can = ", ".join("--" + name for name in source.follows)
        raise BadConfig(
            "{}: this source cannot follow --{}; {}. Leave it out.".format(
                source.shown, " and --".join(ignored), "it follows " + can if can else "it gives what it gives"
            )
        )
    return source


def _source_of(spec, options, board):
    if " ! " in spec:
        return GStreamer(spec, spec, options)
    scheme = spec.partition("://")[0] if "://" in spec else ""
    if scheme:
        return _by_scheme(scheme, spec, options, board)
    if re.match(r"^\d+$", spec) or re.match(r"^/dev/video\d+$", spec) or spec.startswith("/dev/v4l/"):
        device = "/dev/video" + spec if spec.isdigit() else spec
        return _usb(spec, device, options, board)
    if os.path.isdir(spec):
        return Folder(spec, options)
    if os.path.isfile(spec):
        return VideoFile(spec, options)
    raise BadInput(
        "{}: no such video file or folder of images. A source is 0 or /dev/videoN (USB), csi://0, rtsp://..., "
        "http://..., udp://..., a video file, a folder of images, or a GStreamer string (with ' ! ' in it).".format(
            strings.without_password(spec)
        )
    )


def _by_scheme(scheme, spec, options, board):
    if scheme == "csi":
        return _csi(spec, options, board)
    if scheme in ("http", "https"):
        return Http(spec, options)
    if scheme == "rtsp" and strings.has_gstreamer():
        pipeline = strings.fill(board, "rtsp", _values(options, uri=spec))
        if pipeline:
            return GStreamer(spec, pipeline, options, strings.asked_by(board, "rtsp"))
    if scheme == "file":
        return _source_of(file_of(spec), options, board)
    if scheme in ("rtsp", "rtsps", "rtmp", "udp", "tcp", "rtp", "srt"):
        return Network(spec, options)
    raise BadInput(
        "{}: no sources of the kind {}://; there are csi, rtsp, http, https, udp, tcp, rtmp and srt.".format(
            strings.without_password(spec), scheme
        )
    )


def _csi(spec, options, board):
    sensor = spec[len("csi://") :] or "0"
    if not sensor.isdigit():
        raise BadInput("{}: expected csi:// and the sensor's number, for example csi://0".format(spec))
    pipeline = strings.fill(board, "csi", _values(options, sensor_id=int(sensor)))
    if pipeline is None:
        raise BadInput("{}: {} or give a whole GStreamer string as the source.".format(spec, _no_string(board)))
    return GStreamer(spec, pipeline, options, strings.asked_by(board, "csi"))


def _no_string(board):
    """Why there is no string for a CSI camera, and what to give."""
    if board:
        return "board {} has no string for a CSI camera. Name another board,".format(board.get("name", "of board.json"))
    return (
        "no board was named, and the string for a CSI camera is a board's. Name it (--board jetson-tx2; on the board "
        "itself it stands in board.json beside the model),"
    )


def _usb(spec, device, options, board):
    """V4L2 by OpenCV; only an OpenCV without it needs the board's GStreamer string."""
    if not strings.backend_built("v4l/v4l2") and strings.has_gstreamer() and os.path.exists(device):
        pipeline = strings.fill(board, "usb", _values(options, device=device))
        if pipeline:
            return GStreamer(spec, pipeline, options, strings.asked_by(board, "usb"))
    return V4l2(spec, device, options)


def _values(options, **more):
    """What fills the places of a board's string. {size} is empty where the user gave none: a stream keeps its own."""
    width, height = options.size or (1280, 720)
    size = "width={},height={},".format(*options.size) if options.size else ""
    fps = options.fps or 30
    return dict(
        more, width=width, height=height, size=size, fps=max(1, round(fps)), rate=strings.fraction(fps),
        flip=options.flip,
    )  # fmt: skip
