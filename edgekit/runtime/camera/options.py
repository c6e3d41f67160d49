"""What a run of the camera can be asked for, checked all at once."""

import os
import re
from typing import Any
from urllib.parse import unquote

from ..errors import BadConfig
from ..machine import affinity

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp", ".ppm", ".tif", ".tiff")  # of a folder as a source
MP4_SUFFIXES = (".mp4", ".m4v")
MOST_TIMEOUT = 24 * 60 * 60  # seconds; OpenCV counts milliseconds in 32 bits
MOST_THREADS = 256  # a runtime asked for thousands makes them all, and the machine stands still


class Options(object):
    """What was asked for; a value that nobody gave has its default. BadConfig lists every problem."""

    artifact: Any = None
    source: Any = None
    runtime: Any = None  # an engine's own, else the first of the board's that fits
    threads: Any = None  # compute threads; all cores but one, which captures, draws and serves
    board: Any = None  # dict as in board.json
    score: Any = 0.3
    size: Any = None  # (width, height) asked of a camera
    fps: Any = None
    flip: Any = 0  # of csi: nvvidconv's flip-method
    timeout: Any = 10.0
    offline: Any = False
    loop: Any = False
    track: Any = True
    count_lines: Any = ()
    zones: Any = None
    window: Any = False
    mp4: Any = None
    jsonl: Any = None
    coco: Any = None
    web: Any = False
    port: Any = None
    bind: Any = None
    open_page: Any = False
    headless: Any = False
    seconds: Any = None
    frames: Any = None
    view_fps: Any = None  # pictures a second, at most, for page, window and recording; None: see sinks.view_pace
    log_every: Any = 5.0
    encoder: Any = None

    def __init__(self, **values):
        unknown = sorted(set(values) - set(Options.__annotations__))
        if unknown:
            raise BadConfig("unknown camera options: {}".format(", ".join(unknown)))
        self.__dict__.update(values)
        if self.bind is not None or self.port is not None:
            self.web = True
        problems = list(self._problems())
        if problems:
            raise BadConfig("; ".join(problems))

    def _problems(self):
        if self.artifact is None:
            yield "ARTIFACT is missing: the folder of an exported network"
        if self.source is None or not str(self.source).strip():
            yield "source is missing (--source): 0, csi://0, rtsp://..., a video file, a folder of images"
        if not 0 <= self.score <= 1:
            yield "--score: expected 0..1, got {}".format(self.score)
        for name in ("timeout", "seconds", "frames", "fps", "threads", "view_fps", "log_every"):
            value = getattr(self, name)
            if value is not None and not 0 < value < float("inf"):
                yield "--{}: expected a number above 0, got {}".format(name.replace("_", "-"), value)
        if MOST_TIMEOUT < self.timeout < float("inf"):
            yield "--timeout: expected at most {} seconds (a day), got {:g}".format(MOST_TIMEOUT, self.timeout)
        if self.threads is not None and self.threads > MOST_THREADS:
            yield "--threads: expected 1..{}, got {}".format(MOST_THREADS, self.threads)
        if self.port is not None and not 0 <= self.port <= 65535:
            yield "the port of the page: expected 0..65535, got {}".format(self.port)
        if self.size is not None and not (len(self.size) == 2 and min(self.size) > 0):
            yield "--size: expected WIDTHxHEIGHT, got {}".format(self.size)
        if self.offline and self.loop:
            yield "--offline and --loop: together they never end; leave one out"
        if self.offline and self.view_fps is not None:
            yield "--offline and --view-fps: every frame is recorded with --offline; leave one out"
        if (self.count_lines or self.zones) and not self.track:
            yield "--count-line and --zone count tracks; leave --no-track out"
        for problem in self._path_problems():
            yield problem

    def _path_problems(self):
        """Files that would be written twice, or over what is read."""
        paths = (("mp4", self.mp4), ("jsonl", self.jsonl), ("coco", self.coco))
        given = [(name, str(path)) for name, path in paths if path is not None]
        real = [os.path.realpath(p) for _, p in given if p]
        if len(set(real)) < len(real):
            yield "two sinks write to the same file"
        source = file_of(self.source)
        for name, path in given:
            if not path:
                yield "--{}: the name of a file is missing".format(name)
            elif _same(path, source) or (_is_image(path) and _same(os.path.dirname(os.path.abspath(path)), source)):
                yield "--{} {}: would overwrite the source; choose another place".format(name, path)
            elif name == "mp4" and not _may_hold_mp4(path):
                yield "--mp4 {}: MP4 is written there; give the file a name that ends in {}".format(
                    path, " or ".join(MP4_SUFFIXES)
                )
            elif self.zones and _same(path, self.zones):
                yield "--{} {}: would overwrite the zone file; choose another place".format(name, path)

    def new_folders(self):
        """The folders of the records that are not there yet, and will be made."""
        folders = [os.path.dirname(os.path.abspath(file)) for file in self._records()]
        return sorted({folder for folder in folders if not os.path.isdir(folder)})

    def older_records(self):
        """The records that are there already, with something in them."""
        return [file for file in self._records() if os.path.isfile(file) and os.path.getsize(file)]

    def _records(self):
        return [str(path) for path in (self.mp4, self.jsonl, self.coco) if path is not None]

    def compute_threads(self):
        """Threads of the inference: as asked, or all cores that may be used but one."""
        return self.threads or max(1, core_count() - 1)


def _may_hold_mp4(path):
    """Whether a file's name tells MP4; a device or a pipe is called as it is."""
    other = os.path.exists(path) and not os.path.isfile(path)
    return other or path.lower().endswith(MP4_SUFFIXES)


def _is_image(path):
    return os.path.exists(path) and path.lower().endswith(IMAGE_SUFFIXES)


def file_of(source):
    """The path that a source names; a file:// URL writes a blank as %20."""
    text = str(source)
    return unquote(text[len("file://") :]) if text.startswith("file://") else text


def _same(path, other):
    """Whether both are there, and are the same file or folder."""
    return os.path.exists(path) and os.path.exists(str(other)) and os.path.samefile(path, str(other))


def core_count():
    cores = affinity()
    return len(cores) if isinstance(cores, list) else 1


def parse_size(text):
    """``1280x720`` as (1280, 720); BadConfig otherwise."""
    match = re.match(r"^(\d{1,5})x(\d{1,5})$", text.strip().lower())
    if match is None or "0" in match.groups():
        raise BadConfig("--size: expected WIDTHxHEIGHT, for example 1280x720, got {!r}".format(text))
    return int(match.group(1)), int(match.group(2))
