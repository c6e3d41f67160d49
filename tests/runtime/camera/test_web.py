"""The page's server: who may look, what is served, and that no viewer slows anybody."""

import base64
import contextlib
import http.client
import json
import os
import socket
import struct
import threading
import time

import cv2
import numpy as np
import pytest

from edgekit.runtime.camera import web as module
from edgekit.runtime.camera.hub import Hub
from edgekit.runtime.camera.overlay import Painter
from edgekit.runtime.camera.stats import Stats
from edgekit.runtime.camera.web import Server
from edgekit.runtime.camera.websocket import accept_key, frame
from edgekit.runtime.errors import BadConfig

from .conftest import ABOUT, CLASSES, result, wait_for


@pytest.fixture
def serve():
    """Starts a server with a hub; gives (server, hub)."""
    started = []

    def start(host="127.0.0.1", port=0):
        stats = Stats()
        hub = Hub(ABOUT, CLASSES, 0.3, 0.1, Painter(CLASSES, 0.3), stats)
        server = Server(hub, host, port)
        server.start()
        started.append((server, hub))
        hub.sample(status(stats))
        return server, hub

    yield start
    for server, hub in started:
        hub.close()
        server.stop()


def status(stats):
    return {"live": stats.live(), "sensors": [], "state": "live", "trouble": None, "events": [], "sinks": []}


def get(server, path, headers=None, method="GET"):
    """(status, headers, body) of a request as it is written: no client tidies the path."""
    connection = http.client.HTTPConnection("127.0.0.1", server.server_address[1], timeout=10)
    with contextlib.closing(connection):
        connection.putrequest(method, path, skip_host=bool(headers and "Host" in headers))
        for name, value in (headers or {}).items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        return answer.status, dict(answer.headers), answer.read()


class Page:
    """A viewer: the client's half of the WebSocket."""

    def __init__(self, server, **headers):
        self.socket = socket.create_connection(("127.0.0.1", server.server_address[1]), 10)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = {"Host": f"127.0.0.1:{server.server_address[1]}", "Upgrade": "websocket", "Connection": "Upgrade"}
        lines |= {"Sec-WebSocket-Key": key, "Sec-WebSocket-Version": "13", **headers}
        head = "".join(f"{n.replace('_', '-')}: {v}\r\n" for n, v in lines.items())
        self.socket.sendall(f"GET /ws HTTP/1.1\r\n{head}\r\n".encode())
        self.file = self.socket.makefile("rb")
        self.status = int(self.file.readline().split()[1])
        answer = dict(line.decode().strip().split(": ", 1) for line in iter(self.file.readline, b"\r\n"))
        if self.status == 101:
            assert answer["Sec-WebSocket-Accept"] == accept_key(key)

    def read(self):
        """(kind, payload) of the next message."""
        head, size = self.file.read(2)
        if size == 126:
            (size,) = struct.unpack(">H", self.file.read(2))
        elif size == 127:
            (size,) = struct.unpack(">Q", self.file.read(8))
        return head & 15, self.file.read(size)

    def picture(self):
        """The next picture's JSON and image; texts between are passed over."""
        while True:
            kind, data = self.read()
            if kind == 2:
                (size,) = struct.unpack(">I", data[:4])
                image = cv2.imdecode(np.frombuffer(data[4 + size :], np.uint8), cv2.IMREAD_COLOR)
                return json.loads(data[4 : 4 + size]), image

    def send(self, text):
        data = text.encode()
        mask = os.urandom(4)
        masked = bytes(b ^ mask[i % 4] for i, b in enumerate(data))
        self.socket.sendall(bytes([0x81, 0x80 | len(data)]) + mask + masked)

    def close(self):
        self.file.close()
        self.socket.close()


# -- who may look -----------------------------------------------------------------------------------------------------
@pytest.mark.parametrize("path", ["/", "/page.js", "/charts.js", "/page.css", "/icon.svg", "/status.json"])
def test_the_page_and_its_parts(serve, path):
    code, headers, body = get(serve()[0], path)
    assert code == 200
    assert len(body) == int(headers["Content-Length"]) > 10
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert "default-src 'self'" in headers["Content-Security-Policy"]


@pytest.mark.parametrize(
    "path",
    ["/../../etc/passwd", "/..%2f..%2fetc/passwd", "/page.html", "//etc/passwd", "/web.py", "/%2e%2e/web.py",
     "/page.js/..", "/static/../page.js", "/page.css%00.py", "/ws/../page.js", "/?../../etc/passwd=1&x"],
)  # fmt: skip
def test_no_path_leads_to_a_file(serve, path):
    code, _, body = get(serve()[0], path)
    assert code == 404 or (path.startswith("/?") and code == 200)
    assert b"root:" not in body
    assert b"import" not in body


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1.evil.example", "evil.example:80", ""])
def test_on_loopback_other_names_are_refused(serve, host):
    assert get(serve()[0], "/", {"Host": host})[0] == 403


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "localhost:9999", "[::1]:80"])
def test_on_loopback_its_own_names_are_not(serve, host):
    assert get(serve()[0], "/", {"Host": host})[0] == 200


def test_on_loopback_there_is_no_token(serve):
    server, _ = serve()
    assert server.token is None
    assert server.address == f"http://127.0.0.1:{server.server_address[1]}/"


@pytest.mark.parametrize("path", ["/", "/page.js", "/stream.mjpg", "/frame.jpg", "/status.json", "/ws", "/nothing"])
@pytest.mark.parametrize("query", ["", "?token=", "?token=wrong", "?Token=x"])
def test_on_another_address_nothing_is_served_without_the_token(serve, path, query):
    server, _ = serve("0.0.0.0")
    assert get(server, path + query)[0] == 403
    assert get(server, path, {"Cookie": f"{server.cookie}=wrong"})[0] == 403


def test_the_token_moves_from_the_address_into_a_cookie(serve):
    server, _ = serve("0.0.0.0")
    assert server.token in server.address
    assert len(server.token) >= 20
    code, headers, _ = get(server, f"/?token={server.token}")
    assert (code, headers["Location"]) == (303, "/")
    assert "HttpOnly" in headers["Set-Cookie"]
    assert "SameSite=Strict" in headers["Set-Cookie"]
    cookie = headers["Set-Cookie"].partition(";")[0]
    assert get(server, "/", {"Cookie": cookie})[0] == 200
    assert get(server, f"/status.json?token={server.token}")[0] == 200  # for programs, which know no cookies


def test_every_run_has_another_token(serve):
    assert serve("0.0.0.0")[0].token != serve("0.0.0.0")[0].token


def test_two_runs_of_one_machine_do_not_take_each_others_cookie(serve):
    """A browser sends all cookies of a host to each of its ports, and keeps one of each name."""
    jar = {}
    servers = [serve("0.0.0.0")[0] for _ in range(2)]
    for server in servers:
        name, _, value = get(server, f"/?token={server.token}")[1]["Set-Cookie"].partition(";")[0].partition("=")
        jar[name] = value
    for server in servers:
        assert get(server, "/", {"Cookie": "; ".join(f"{n}={v}" for n, v in jar.items())})[0] == 200


@pytest.mark.parametrize("cookie", ["a=b; =;;=", "\xff=\xfe", "{name}", "{name}=" + "x" * 5000])
def test_odd_cookies_are_no_token(serve, cookie):
    server, _ = serve("0.0.0.0")
    assert get(server, "/", {"Cookie": cookie.replace("{name}", server.cookie)})[0] == 403


@pytest.mark.parametrize(("origin", "code"), [(None, 101), ("own", 101), ("http://evil.example", 403), ("null", 403)])
def test_a_web_socket_comes_from_the_page_itself(serve, origin, code):
    server, _ = serve()
    own = f"http://127.0.0.1:{server.server_address[1]}"
    headers = {} if origin is None else {"Origin": own if origin == "own" else origin}
    page = Page(server, **headers)
    assert page.status == code
    page.close()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "OPTIONS"])
def test_nothing_can_be_changed(serve, method):
    assert get(serve()[0], "/", method=method)[0] == 501


@pytest.mark.parametrize(
    "request_bytes", [b"\r\n\r\n", b"GET\r\n\r\n", b"\x16\x03\x01\x02" * 20, b"GET / HTTP/1.1\r\n" * 90]
)
def test_nonsense_does_not_hurt(serve, request_bytes):
    server, _ = serve()
    with socket.create_connection(("127.0.0.1", server.server_address[1]), 5) as connection:
        connection.sendall(request_bytes)
    assert get(server, "/")[0] == 200


def test_a_port_in_use_is_told_or_passed_over(serve, monkeypatch):
    taken, _ = serve()
    with pytest.raises(BadConfig, match="cannot be used"):
        serve(port=taken.server_address[1])
    monkeypatch.setattr(module, "DEFAULT_PORT", taken.server_address[1])
    assert serve(port=None)[0].server_address[1] != taken.server_address[1]


@pytest.mark.parametrize(("host", "port"), [("203.0.113.77", 0), ("no.such.host.invalid", 0), ("127.0.0.1", 99999)])
def test_an_address_that_is_not_ours_is_told(serve, host, port):
    with pytest.raises(BadConfig, match="cannot be used"):
        serve(host, port)


# -- what is served ---------------------------------------------------------------------------------------------------
def test_a_viewer_gets_pictures_with_their_boxes_and_the_numbers(serve):
    server, hub = serve()
    page = Page(server)
    hello = json.loads(page.read()[1])
    assert (hello["type"], hello["model"], hello["score"], hello["floor"]) == ("hello", "bright", 0.3, 0.1)
    assert [c["name"] for c in hello["classes"]] == CLASSES
    assert len(hello["history"]) == 1
    assert json.loads(page.read()[1])["type"] == "status"
    hub.write(result(7, boxes=[[1, 2, 30, 40], [5, 5, 9, 9], [0, 0, 8, 8]], ids=[3, 0, -1], classes=[1, 0, 0]))
    about, image = page.picture()
    assert (about["number"], about["width"], about["height"]) == (7, 192, 128)
    assert about["boxes"] == [[1, 2, 30, 40, 0.9, 1, 3], [5, 5, 9, 9, 0.9, 0, 0]]  # the double is not shown
    assert image.shape == (128, 192, 3)
    page.close()


def test_large_pictures_are_sent_smaller_and_their_boxes_stay_in_pixels_of_the_frame(serve):
    server, hub = serve()
    page = Page(server)
    wait_for(lambda: hub.viewers == 1)
    hub.write(result(1, image=np.zeros((1080, 1920, 3), np.uint8), boxes=[[1900, 1000, 1920, 1080]]))
    about, image = page.picture()
    assert image.shape == (720, 1280, 3)
    assert (about["width"], about["boxes"][0][:4]) == (1920, [1900, 1000, 1920, 1080])
    page.close()


def test_a_viewer_gets_the_newest_picture_never_a_queue(serve):
    server, hub = serve()
    page = Page(server)
    wait_for(lambda: hub.viewers == 1)
    for number in range(1, 60):  # a viewer that confirms nothing has two pictures on their way, and no third
        hub.write(result(number))
        time.sleep(0.005)
    numbers = [page.picture()[0]["number"] for _ in range(2)]
    page.send(str(numbers[0]))
    assert page.picture()[0]["number"] == 59
    page.close()


def test_the_age_on_the_screen_is_measured_by_confirmations(serve):
    server, hub = serve()
    page = Page(server)
    wait_for(lambda: hub.viewers == 1)
    hub.write(result(1))
    number = page.picture()[0]["number"]
    time.sleep(0.1)
    page.send(str(number))
    time.sleep(0.1)
    hub.write(result(2))
    page.picture()
    hub.sample(status(Stats()))
    texts = [json.loads(data) for kind, data in [page.read()] if kind == 1]
    assert texts[-1]["screen_ms"] >= 100
    page.close()


def test_nobody_looks_nothing_is_encoded(serve, monkeypatch):
    _, hub = serve()
    monkeypatch.setattr("edgekit.runtime.camera.hub.pack", lambda result: pytest.fail("encoded for nobody"))
    hub.write(result(1))


def test_a_late_viewer_gets_the_last_picture_at_once(serve):
    server, hub = serve()
    hub.write(result(5))
    page = Page(server)
    assert page.picture()[0]["number"] == 5
    page.close()


def test_motion_jpeg_for_players(serve):
    from edgekit.runtime.camera.sources import Options, open_source

    server, hub = serve()
    stop = threading.Event()

    def feed():
        number = 0
        while not stop.wait(0.02):
            number += 1
            hub.write(result(number, boxes=[[10, 40, 80, 100]]))

    feeder = threading.Thread(target=feed)
    feeder.start()
    with open_source(f"{server.address}stream.mjpg", Options(timeout=5)) as source:  # our own reader reads it
        pictures = [p.image for p, _ in zip(source, range(3), strict=False)]
    stop.set()
    feeder.join()
    assert [p.shape for p in pictures] == [(128, 192, 3)] * 3
    blue, green, _ = pictures[0][60, 10].astype(int)
    assert blue > 150  # the box is drawn, in the class's colour
    assert green > 100
    assert get(server, "/frame.jpg")[2][:2] == b"\xff\xd8"


def test_before_the_first_picture_there_is_none(serve):
    assert get(serve()[0], "/frame.jpg")[0] == 503


def test_a_request_for_the_socket_without_an_upgrade(serve):
    assert get(serve()[0], "/ws")[0] == 426


# -- many, slow and vanished viewers ----------------------------------------------------------------------------------
def test_eight_viewers_and_a_dozen_that_do_not_read_slow_nobody(serve):
    server, hub = serve()
    stuck = [Page(server) for _ in range(12)]  # never read, never confirm
    pages = [Page(server) for _ in range(8)]
    wait_for(lambda: hub.viewers == 20)
    seen = [[] for _ in pages]

    def look(page, numbers):
        with contextlib.suppress(OSError, ValueError):
            while True:
                about, _ = page.picture()
                numbers.append(about["number"])
                page.send(str(about["number"]))

    for page, numbers in zip(pages, seen, strict=True):
        threading.Thread(target=look, args=(page, numbers), daemon=True).start()
    longest = 0.0
    for number in range(1, 61):
        begun = time.perf_counter()
        hub.write(result(number))
        longest = max(longest, time.perf_counter() - begun)
        time.sleep(0.03)
    wait_for(lambda: all(numbers and numbers[-1] == 60 for numbers in seen))
    assert all(len(numbers) >= 15 for numbers in seen)
    assert all(numbers == sorted(set(numbers)) for numbers in seen)
    assert longest < 1.0
    for page in stuck + pages:
        page.close()
    hub.sample(status(Stats()))  # comes every second in a run, and finds who is gone
    wait_for(lambda: hub.viewers == 0)


def test_a_viewer_that_is_gone_before_the_first_word_is_counted_out():
    class Gone:
        def send(self, kind, data):
            raise BrokenPipeError

    hub = Hub(ABOUT, CLASSES, 0.3, 0.1, Painter(CLASSES, 0.3), Stats())
    with pytest.raises(BrokenPipeError):
        module.Viewer(hub, Gone()).serve()
    assert hub.viewers == 0


def test_a_viewer_that_confirms_nothing_is_put_out(serve, monkeypatch):
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.3)
    server, hub = serve()
    page = Page(server)
    wait_for(lambda: hub.viewers == 1)
    for number in range(1, 4):
        hub.write(result(number))
        time.sleep(0.05)
    wait_for(lambda: hub.viewers == 0)
    page.close()


@pytest.mark.parametrize(
    "data", [b"\x81\x01a", b"\x81\xff" + b"\0" * 20, b"\x81\xfe\xff\xff" + b"\0" * 20, b"\x81\x83\0\0\0\0abc"]
)
def test_a_viewer_that_breaks_the_protocol_is_put_out(serve, data):
    server, hub = serve()
    page = Page(server)
    wait_for(lambda: hub.viewers == 1)
    page.socket.sendall(data)
    hub.write(result(1))
    wait_for(lambda: hub.viewers == 0)
    page.close()


def test_players_that_went_away_leave_their_places_while_there_is_no_picture(serve, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    server, hub = serve()
    players = [socket.create_connection(("127.0.0.1", server.server_address[1]), 10) for _ in range(3)]
    for player in players:
        player.sendall(b"GET /stream.mjpg HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n")
        assert b"200 OK" in player.recv(1 << 12)
    assert get(server, "/")[0] == 503
    for player in players[:2]:
        player.close()
    hub.sample(status(Stats()))  # comes every second in a run
    wait_for(lambda: get(server, "/")[0] == 200)
    hub.write(result(1))  # the third one is still served
    wait_for(lambda: b"--edgekit" in players[2].recv(1 << 12))
    players[2].close()


def test_too_many_connections_are_refused_at_once(serve, monkeypatch):
    monkeypatch.setattr(module, "MOST_CONNECTIONS", 3)
    server, hub = serve()
    pages = [Page(server) for _ in range(3)]
    wait_for(lambda: hub.viewers == 3)
    code, headers, text = get(server, "/")
    assert (code, headers["Retry-After"]) == (503, "10")
    assert b"all places are taken" in text
    silent = socket.create_connection(("127.0.0.1", server.server_address[1]), 10)  # asks nothing
    begun = time.monotonic()
    assert get(server, "/")[0] == 503
    assert time.monotonic() - begun < 5
    silent.close()
    pages[0].close()
    hub.write(result(1))
    wait_for(lambda: hub.viewers == 2)
    assert get(server, "/")[0] == 200
    for page in pages[1:]:
        page.close()


def test_a_page_that_says_goodbye_is_let_go(serve):
    server, hub = serve()
    page = Page(server)
    wait_for(lambda: hub.viewers == 1)
    page.socket.sendall(bytes([0x88, 0x82, 0, 0, 0, 0]) + struct.pack(">H", 1000))
    hub.sample(status(Stats()))
    wait_for(lambda: hub.viewers == 0)
    page.close()


@pytest.mark.parametrize("size", [0, 125, 126, 65535, 65536])
def test_frames_of_every_length(size):
    data = frame(2, b"x" * size)
    assert data[0] == 0x82
    assert data.endswith(b"x" * size)
    assert len(data) == size + (2 if size < 126 else 4 if size < 65536 else 10)


def test_the_accept_key_of_the_standard():
    assert accept_key("dGhlIHNhbXBsZSBub25jZQ==") == "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="
