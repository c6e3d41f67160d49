"""What a --source means, and what each kind gives; with real servers on loopback."""

import http.server
import os
import re
import shutil
import threading
import time

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera import strings
from edgekit.runtime.camera.capture import Capture
from edgekit.runtime.camera.mjpeg import decode
from edgekit.runtime.camera.sources import (
    Folder,
    GStreamer,
    Http,
    Network,
    Options,
    Picture,
    Source,
    V4l2,
    VideoFile,
    open_source,
)
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.errors import BadConfig, BadInput, BoardLacks

from .conftest import scene, wait_for

TX2 = {
    "name": "jetson-tx2",
    "camera": {
        "csi": "nvarguscamerasrc sensor-id={sensor_id} ! video/x-raw,width={width},height={height},framerate={fps}/1 "
        "! nvvidconv flip-method={flip} ! appsink drop=1 max-buffers=1",
        "rtsp": "rtspsrc location={uri} ! appsink",
    },
}


@pytest.mark.parametrize(
    ("spec", "kind"),
    [
        ("0", V4l2),
        ("/dev/video3", V4l2),
        ("/dev/v4l/by-id/usb-camera", V4l2),
        ("rtsp://camera/stream", Network),
        ("udp://127.0.0.1:5000", Network),
        ("http://camera/video", Http),
        ("videotestsrc ! appsink", GStreamer),
        ("csi://0", GStreamer),
    ],
)
def test_a_text_means_a_source(spec, kind):
    assert type(open_source(spec, board=TX2)) is kind


def test_files_and_folders(clip, folder, tmp_path):
    blank = tmp_path / "my clip.mp4"
    shutil.copyfile(clip, blank)
    assert type(open_source(clip)) is VideoFile
    assert type(open_source(f"file://{clip}")) is VideoFile
    assert type(open_source(blank.as_uri())) is VideoFile  # file:///.../my%20clip.mp4
    assert type(open_source(folder)) is Folder


@pytest.mark.parametrize("spec", ["nothing.mp4", "", "gopher://x", "csi://front", "/dev/null/x", "video0"])
def test_a_text_that_means_nothing_is_told(spec):
    with pytest.raises(BadInput):
        open_source(spec, board=TX2)


def test_the_csi_string_is_the_boards_with_its_places_filled():
    source = open_source("csi://1", Options(size=(640, 360), fps=60, flip=2), TX2)
    assert source._pipeline.startswith("nvarguscamerasrc sensor-id=1 ! video/x-raw,width=640,height=360,framerate=60/1")
    assert "flip-method=2" in source._pipeline


@pytest.mark.parametrize(
    ("fps", "expected"),
    [
        (30, "30/1"), (30.0, "30/1"), (29.97, "30000/1001"), (59.94, "60000/1001"), (23.976, "24000/1001"),
        (0.5, "1/2"), (12.5, "25/2"), (29.9, "299/10"), (1000, "1000/1"),
    ],
)  # fmt: skip
def test_rates_are_fractions_in_gstreamers_strings(fps, expected):
    assert strings.fraction(fps) == expected


def test_old_strings_with_whole_rates_still_work():
    source = open_source("csi://0", Options(fps=29.97), TX2)
    assert "width=1280,height=720,framerate=30/1" in source._pipeline
    assert "framerate=1/1" in open_source("csi://0", Options(fps=0.5), TX2)._pipeline


def test_a_stream_keeps_its_size_unless_one_is_asked_for(monkeypatch):
    from edgekit.board import load_board

    monkeypatch.setattr(strings, "has_gstreamer", lambda: True)
    board = load_board("jetson-tx2").model_dump(mode="json", include={"camera"})
    assert "video/x-raw,format=BGRx" in open_source("rtsp://c/s", board=board)._pipeline
    small = open_source("rtsp://c/s", Options(size=(640, 360)), board)
    assert "video/x-raw,width=640,height=360,format=BGRx" in small._pipeline


@pytest.mark.parametrize(
    ("spec", "follows"),
    [
        ("0", {"size", "fps"}),
        ("csi://0", {"size", "fps", "flip"}),
        ("rtsp://camera/stream", set()),
        ("http://camera/video", {"fps", "loop"}),
        ("videotestsrc ! appsink", set()),
        ("{clip}", {"fps", "loop"}),
        ("file://{clip}", {"fps", "loop"}),
        ("{folder}", {"fps", "loop"}),
    ],
)
def test_what_a_source_cannot_follow_is_refused(spec, follows, clip, folder):
    spec = spec.format(clip=clip, folder=folder)
    for name, value in {"size": (640, 360), "fps": 15.0, "flip": 2, "loop": True}.items():
        if name in follows:
            open_source(spec, Options(**{name: value}), TX2)
        else:
            with pytest.raises(BadConfig, match=f"cannot follow --{name}"):
                open_source(spec, Options(**{name: value}), TX2)


def test_csi_without_a_board_names_the_way_out():
    with pytest.raises(BadInput, match="--board jetson-tx2"):
        open_source("csi://0")


def test_every_boards_camera_strings_have_only_known_places():
    from edgekit.board import board_names, load_board
    from edgekit.runtime.camera.sources import _values

    values = _values(Options(), sensor_id=0, device="/dev/video1", uri="rtsp://x")
    filled = 0
    for name in board_names():
        board = load_board(name).model_dump(mode="json", include={"camera"})
        for kind in ("csi", "usb", "rtsp"):
            text = strings.fill(board, kind, values)
            if text is not None:
                filled += 1
                assert "{" not in text
                assert "appsink" in text
    assert filled >= 3


def test_a_string_with_an_unknown_place_is_told():
    with pytest.raises(BadConfig, match="mode"):
        strings.fill({"camera": {"csi": "src mode={mode} ! appsink"}}, "csi", {"width": 1})


@pytest.mark.skipif(strings.has_gstreamer(), reason="this OpenCV has GStreamer")
def test_without_gstreamer_its_strings_are_refused_with_advice():
    with pytest.raises(BoardLacks, match="pip uninstall opencv"), open_source("videotestsrc ! appsink"):
        pass


def test_a_camera_that_is_not_there_is_told():
    with pytest.raises(BadInput, match=r"/dev/video97 is not there.*csi://0"), open_source("97"):
        pass


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("rtsp://admin:secret@10.0.0.1/s", "rtsp://admin:***@10.0.0.1/s"),
        ("rtsp://:secret@10.0.0.1/s", "rtsp://:***@10.0.0.1/s"),
        ("rtspsrc location=rtsp://a:b@c/s ! appsink", "rtspsrc location=rtsp://a:***@c/s ! appsink"),
        ("http://10.0.0.1:8080/s", "http://10.0.0.1:8080/s"),
        ("street.mp4", "street.mp4"),
        ("rtsp://admin:p@ss@cam/stream", "rtsp://admin:***@cam/stream"),
        ("rtsp://admin:pa/ss@cam/s", "rtsp://admin:***@cam/s"),
        ("rtsp://admin:pa ss@cam/s", "rtsp://admin:***@cam/s"),
        ("rtsp://a@b:c@cam/s", "rtsp://a@b:***@cam/s"),
        ("rtsp://user@cam:554/s", "rtsp://user@cam:554/s"),
        (
            "rtsp://10.0.0.5:554/user=admin_password=tlJwpbo6_channel=1_stream=0.sdp",
            "rtsp://10.0.0.5:554/user=admin_password=***_channel=1_stream=0.sdp",
        ),
        ("http://cam/video.cgi?user=admin&pwd=se_cr=et", "http://cam/video.cgi?user=admin&pwd=***"),
        ("http://cam/v?PASS=secret&size=2", "http://cam/v?PASS=***&size=2"),
        ("http://cam/v?api_key=secret&Token=x", "http://cam/v?api_key=***&Token=***"),
        ("srt://cam:9000?passphrase=secret&mode=caller", "srt://cam:9000?passphrase=***&mode=caller"),
        (
            "rtspsrc location=rtsp://cam/s user-id=admin user-pw=secret ! appsink",
            "rtspsrc location=rtsp://cam/s user-id=admin user-pw=*** ! appsink",
        ),
        ('rtspsrc user-pw = "my \\"secret" ! appsink', "rtspsrc user-pw = *** ! appsink"),
        ("rtspsrc user-pw=(string)my\\ secret ! appsink", "rtspsrc user-pw=(string)*** ! appsink"),
        ("x264enc key-int-max=30 ! appsink drop=1", "x264enc key-int-max=30 ! appsink drop=1"),
    ],
)
def test_passwords_are_not_shown(text, shown):
    assert strings.without_password(text) == shown


@pytest.mark.parametrize(
    "address",
    ["http://me:secret@127.0.0.1:9/x", "http://127.0.0.1:9/x?pwd=secret and", "cam?pwd=secret", "gopher://a:secret@x"],
)
def test_a_password_is_not_in_the_message_either(address):
    with pytest.raises(BadInput) as caught, open_source(address, Options(timeout=1)):
        pass
    assert "secret" not in str(caught.value)


def test_an_address_that_is_none_is_told():
    with pytest.raises(BadInput, match=r"http://\[bad/x: cannot be opened"), open_source("http://[bad/x"):
        pass


# -- files ------------------------------------------------------------------------------------------------------------
def test_a_video_gives_its_pictures_with_their_times(clip):
    with open_source(clip) as source:
        pictures = list(source)
    assert len(pictures) == 40
    assert source.rate == 20.0
    assert [p.seconds for p in pictures[:3]] == [0.0, 0.05, 0.1]
    assert pictures[0].image.shape == (128, 192, 3)


def test_a_video_can_be_given_another_pace(clip):
    with open_source(clip, Options(fps=10)) as source:
        assert [p.seconds for p in list(source)[:3]] == [0.0, 0.1, 0.2]


def test_a_damaged_image_of_a_folder_is_none(folder):
    with open_source(folder) as source:
        pictures = list(source)
    assert [p.image is None for p in pictures] == [False, False, True, False, False, False]
    assert [p.name for p in pictures[:2]] == ["0.jpg", "1.jpg"]


def test_a_stream_that_was_tried_costs_a_file_no_picture(clip):
    """FFmpeg's options for streams come from the environment; they must not stay there."""
    with pytest.raises(BadInput), open_source("tcp://127.0.0.1:9", Options(timeout=1)):
        pass
    assert "OPENCV_FFMPEG_CAPTURE_OPTIONS" not in os.environ
    with open_source(clip) as source:
        assert len(list(source)) == 40


def test_a_folder_without_images_is_told(tmp_path):
    with pytest.raises(BadInput, match="no images"), open_source(tmp_path):
        pass


def test_a_file_that_is_no_video_is_told(tmp_path):
    path = tmp_path / "text.mp4"
    path.write_text("no video")
    with pytest.raises(BadInput, match="ffprobe"), open_source(path):
        pass


# -- Motion JPEG over HTTP --------------------------------------------------------------------------------------------
JPEGS = [cv2.imencode(".jpg", scene(i))[1].tobytes() for i in range(4)]


@pytest.fixture
def listen():
    """Starts a server on loopback that answers every GET by ``answer(handler)``; gives its address."""
    servers = []

    def start(answer):
        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self):
                answer(self)

            def log_message(self, *args):
                pass

        servers.append(http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler))
        threading.Thread(target=servers[-1].serve_forever, daemon=True).start()
        return f"http://127.0.0.1:{servers[-1].server_address[1]}/"

    yield start
    for server in servers:
        server.shutdown()
        server.server_close()


@pytest.fixture
def camera(listen):
    """Serves a body under a content type; ``serve(parts, ...)`` gives its address."""

    def serve(parts, boundary="--frame", length=True, kind="multipart/x-mixed-replace; boundary=frame", user=None):
        def answer(handler):
            if user and handler.headers.get("Authorization") != user:
                handler.send_response(401)
                handler.send_header("WWW-Authenticate", 'Basic realm="camera"')
                handler.end_headers()
                return
            handler.send_response(200)
            handler.send_header("Content-Type", kind)
            handler.end_headers()
            for part in parts:
                head = f"{boundary}\r\nContent-Type: image/jpeg\r\n"
                head += f"Content-Length: {len(part) if length is True else length}\r\n" if length else ""
                handler.wfile.write(head.encode() + b"\r\n" + part + b"\r\n")

        return listen(answer)

    return serve


@pytest.mark.parametrize("length", [True, False, -1])  # what is told of a part that has no end is not believed
@pytest.mark.parametrize("boundary", ["frame", '"--frame"', "--frame"])
def test_motion_jpeg_of_every_dialect(camera, length, boundary):
    kind = f"multipart/x-mixed-replace;boundary={boundary}"
    with open_source(camera([*JPEGS, JPEGS[0]], length=length, kind=kind), Options(timeout=5)) as source:
        images = [p.image for p in source]
    assert len(images) >= 4  # without lengths the last picture has no end
    np.testing.assert_array_equal(images[0], decode(JPEGS[0]))


def test_damaged_pictures_of_a_stream_are_none(camera):
    parts = [JPEGS[0], JPEGS[1][:200], b"", b"no picture", JPEGS[2]]
    with open_source(camera(parts), Options(timeout=5)) as source:
        assert [p.image is not None for p in source] == [True, False, False, False, True]


def test_a_stream_over_http_tells_what_it_does_not_follow(camera):
    with open_source(camera(JPEGS), Options(timeout=5, fps=10, loop=True)) as source:
        assert [n.partition(":")[0] for n in source.notes] == ["--fps", "--loop"]


def test_user_and_password_of_the_address_are_used(camera):
    address = camera(JPEGS, user="Basic bWU6aXQncw==").replace("http://", "http://me:it%27s@")
    with open_source(address, Options(timeout=5)) as source:
        assert len(list(source)) == 4


@pytest.mark.parametrize("user", [None, "Basic xx"])
def test_an_address_that_gives_no_stream_is_told(camera, user):
    with pytest.raises(BadInput), open_source(camera([b"hello"], kind="text/html", user=user), Options(timeout=2)):
        pass


def test_a_server_that_never_answers_is_given_up():
    import socket

    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        begun = time.monotonic()
        address = f"http://127.0.0.1:{server.getsockname()[1]}/"
        with pytest.raises(BadInput, match=r"no answer in 0\.5 s"), open_source(address, Options(timeout=0.5)):
            pass
        assert time.monotonic() - begun < 5


# -- real streams by ffmpeg -------------------------------------------------------------------------------------------
def test_motion_jpeg_of_ffmpeg(clip, ffmpeg, free_port):
    address, kind = f"http://127.0.0.1:{free_port}/", "multipart/x-mixed-replace;boundary=ffmpeg"
    ffmpeg("-re", "-i", clip, "-f", "mpjpeg", "-content_type", kind, "-listen", "1", address)
    assert first_pictures(address, 5)[0].shape == (128, 192, 3)


@pytest.mark.parametrize("protocol", ["tcp", "udp"])
def test_mpeg_ts_of_ffmpeg(clip, ffmpeg, free_port, protocol):
    address = f"{protocol}://127.0.0.1:{free_port}"
    encode = ("-stream_loop", "-1", "-re", "-i", clip, "-c:v", "mpeg2video", "-g", "5", "-f", "mpegts")
    ffmpeg(*encode, address + ("?listen=1" if protocol == "tcp" else "?pkt_size=1316"))
    assert first_pictures(address, 5)[0].shape == (128, 192, 3)


def first_pictures(address, count, seconds=30):
    """The first pictures; a server that is just starting is asked again."""
    end = time.monotonic() + seconds
    while True:
        try:
            with open_source(address, Options(timeout=10)) as source:
                images = [p.image for p, _ in zip(source, range(count), strict=False)]
            if len(images) == count:
                return images
        except BadInput:
            pass
        assert time.monotonic() < end, f"no stream at {address}"
        time.sleep(0.2)


@pytest.fixture
def mpeg_ts(ffmpeg, tmp_path):
    """Bytes of two seconds of MPEG-TS in a size."""

    def make(size):
        path = tmp_path / f"{size}.ts"
        source = ("-f", "lavfi", "-i", f"testsrc=size={size}:rate=10:duration=2")
        assert ffmpeg("-y", *source, "-c:v", "mpeg2video", "-g", "5", "-f", "mpegts", path).wait(60) == 0
        return path.read_bytes()

    return make


def test_a_stream_whose_size_changes_is_read_through(mpeg_ts, tmp_path):
    """OpenCV 4 gives pictures of the new size, OpenCV 5 scales them to the first one's; both go on."""
    path = tmp_path / "both.ts"
    path.write_bytes(mpeg_ts("320x240") + mpeg_ts("640x360") + mpeg_ts("320x240"))
    with open_source(path) as source:
        shapes = [p.image.shape for p in source]
    assert len(shapes) >= 50
    assert set(shapes) <= {(240, 320, 3), (360, 640, 3)}


def test_a_damaged_stream_is_read_through(mpeg_ts, tmp_path):
    data = bytearray(mpeg_ts("320x240"))
    for at in np.random.default_rng(0).integers(2000, len(data), 60):
        data[at] ^= 0x5A
    path = tmp_path / "damaged.ts"
    path.write_bytes(data)
    with open_source(path) as source:
        assert sum(p.image is not None for p in source) >= 10


# -- files that are cut off, files over HTTP --------------------------------------------------------------------------
@pytest.fixture
def video(ffmpeg, tmp_path):
    """Makes four seconds of video, 20 pictures a second."""

    def make(name, *arguments):
        path = tmp_path / name
        source = ("-f", "lavfi", "-i", "testsrc=size=192x128:rate=20:duration=4")
        assert ffmpeg("-y", *source, *arguments, path).wait(60) == 0
        return path

    return make


FASTSTART = ("-c:v", "mpeg4", "-movflags", "+faststart")


@pytest.mark.parametrize(
    ("name", "arguments", "told"),
    [("v.mp4", FASTSTART, True), ("v.avi", ("-c:v", "mpeg4"), True), ("v.ts", ("-c:v", "mpeg2video"), False)],
)
def test_a_video_that_is_cut_off_tells_what_is_missing(video, name, arguments, told):
    """MPEG-TS has no count of its pictures."""
    path = video(name, *arguments)
    with open_source(path) as source:
        whole = len(list(source))
        assert (whole, source.missing) == (80, 0)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 6 // 10])
    with open_source(path) as source:
        read = len(list(source))
        assert read < 75
        assert source.missing == (80 - read if told else 0)


def test_a_whole_file_may_leave_pictures_out_that_it_counts(video, ffmpeg, tmp_path):
    """An edit list, as phones and ffmpeg write it where the beginning was cut away; and uneven times in Matroska."""
    whole, trimmed = video("v.mp4", "-c:v", "mpeg4", "-g", "60"), tmp_path / "trimmed.mp4"
    assert ffmpeg("-y", "-ss", "1.5", "-i", whole, "-c", "copy", trimmed).wait(60) == 0
    uneven = video("v.mkv", "-vf", "select=lt(mod(n\\,10)\\,3)", "-vsync", "vfr", "-c:v", "mpeg4")
    for path in (trimmed, uneven):
        with open_source(path) as source:
            counted = source._capture.get(cv2.CAP_PROP_FRAME_COUNT)
            assert len(list(source)) < counted - 5
            assert source.missing == 0


@pytest.fixture
def served(listen):
    """Serves a file; gives its address."""

    def serve(path):
        def answer(handler):
            data = path.read_bytes()
            handler.send_response(200)
            handler.send_header("Content-Type", "video/mp4")
            handler.send_header("Content-Length", str(len(data)))
            handler.end_headers()
            handler.wfile.write(data)

        return listen(answer) + path.name

    return serve


def test_a_file_over_http_is_played_once_at_its_own_pace(video, served):
    address, stats, frames = served(video("v.mp4", *FASTSTART)), Stats(), []
    capture = Capture(lambda: open_source(address, Options(timeout=5)), stats, threading.Event(), timeout=5)
    begun = time.monotonic()
    capture.start(frames.append)
    wait_for(lambda: capture.watch() or capture.ended)
    assert time.monotonic() - begun > 3.9
    time.sleep(0.7)  # a live source would be opened again
    assert (len(frames), stats.reconnects, capture.rate) == (80, 0, 20.0)


# -- a USB camera by a driver of ours ---------------------------------------------------------------------------------
class Driver:
    """cv2.VideoCapture of a camera that has one size and one rate."""

    asked: dict[int, float]

    def __init__(self, device, backend):
        Driver.asked = {}

    def isOpened(self):
        return True

    def set(self, what, value):
        Driver.asked[what] = value

    def get(self, what):
        return {cv2.CAP_PROP_FRAME_WIDTH: 640.0, cv2.CAP_PROP_FRAME_HEIGHT: 480.0, cv2.CAP_PROP_FPS: 29.97}[what]

    def read(self):
        return False, None

    def release(self):
        pass


@pytest.mark.parametrize(
    ("options", "notes"),
    [
        (Options(), []),
        (Options(size=(640, 480), fps=30), []),
        (Options(size=(1280, 720), fps=60), ["--size 1280x720: the camera gives 640x480", "--fps 60: .* gives 29.97"]),
    ],
)
def test_a_usb_camera_tells_what_it_gives_instead_of_what_was_asked(monkeypatch, options, notes):
    monkeypatch.setattr(cv2, "VideoCapture", Driver)
    with V4l2("0", "/dev/null", options) as source:
        assert len(source.notes) == len(notes)
        assert all(re.match(n, found) for n, found in zip(notes, source.notes, strict=True))
    assert cv2.CAP_PROP_BUFFERSIZE not in Driver.asked  # one buffer halves the rate of uvcvideo


def test_what_a_camera_notes_is_told_once(monkeypatch):
    monkeypatch.setattr("edgekit.runtime.camera.capture.RETRY_FIRST", 0.01)
    opened, stats, stop = [], Stats(), threading.Event()

    class Noted(Source):
        notes = ("--size 9x9: the camera gives 8x8",)

        def open(self):
            opened.append(self)

        def __iter__(self):
            return iter([Picture(scene(0))])

    capture = Capture(lambda: Noted("noted", Options()), stats, stop)
    capture.start(lambda frame: None)
    wait_for(lambda: len(opened) > 2)
    stop.set()
    capture.join(5)
    assert [e["text"] for e in stats.events].count(Noted.notes[0]) == 1
