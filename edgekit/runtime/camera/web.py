"""The web page: one port, standard library only, no file of the disk behind any address.

It listens on 127.0.0.1; on any other address (``--bind``) every request must bring a random token, first in the
address, then as a cookie. On 127.0.0.1 a Host header of another name is refused, so that no web site can reach the page
by a name that it points here; and a WebSocket must come from the page itself.
"""

import contextlib
import errno
import hmac
import http.cookies
import http.server
import json
import pkgutil
import secrets
import select
import socket
import socketserver
import threading
import urllib.parse
from collections import OrderedDict, deque
from typing import Any

import numpy as np

from ..errors import BadConfig
from .hub import since
from .websocket import BINARY, TEXT, WebSocket, WebSocketError, accept_key

DEFAULT_PORT = 8642
_PORTS_TRIED = 20
MOST_CONNECTIONS = 64
SILENT_SECONDS = 10.0  # a viewer that takes or confirms nothing for so long is gone
IN_FLIGHT = 2  # pictures on their way to one viewer; a slow one gets fewer, not older ones
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
_REFUSED_SECONDS = 0.2  # for the request of one viewer too many: a socket that is closed before it has read resets
_FULL_TEXT = b"all places are taken; close a page or a player that looks at this camera\n"
_FULL = (
    b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: text/plain; charset=utf-8\r\nRetry-After: 10\r\n"
    b"Connection: close\r\nContent-Length: " + str(len(_FULL_TEXT)).encode() + b"\r\n\r\n" + _FULL_TEXT
)
_PART = "--edgekit\r\nContent-Type: image/jpeg\r\nContent-Length: {}\r\n\r\n"

FILES = {
    "/": ("page.html", "text/html; charset=utf-8"),
    "/page.css": ("page.css", "text/css; charset=utf-8"),
    "/page.js": ("page.js", "text/javascript; charset=utf-8"),
    "/charts.js": ("charts.js", "text/javascript; charset=utf-8"),
    "/icon.svg": ("icon.svg", "image/svg+xml"),
}
_HEADERS = OrderedDict(
    [
        ("Cache-Control", "no-store"),
        ("X-Content-Type-Options", "nosniff"),
        ("X-Frame-Options", "DENY"),
        ("Referrer-Policy", "no-referrer"),
        (
            "Content-Security-Policy",
            "default-src 'self'; img-src 'self' blob:; frame-ancestors 'none'; base-uri 'none'",
        ),
    ]
)


class Server(socketserver.ThreadingMixIn, http.server.HTTPServer):
    """Serves a hub. ``start()`` begins in a thread, ``stop()`` ends; ``address`` is what a browser opens."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = 32

    def __init__(self, hub, host="127.0.0.1", port=None):
        self.hub = hub
        self.loopback = host in _LOOPBACK
        self.token = None if self.loopback else secrets.token_urlsafe(16)
        self.address_family = socket.AF_INET6 if ":" in host else socket.AF_INET
        self._slots = threading.BoundedSemaphore(MOST_CONNECTIONS)
        self._bind(host, port)

    def _bind(self, host, port):
        wanted = [port] if port is not None else [DEFAULT_PORT + i for i in range(_PORTS_TRIED)] + [0]
        for i, number in enumerate(wanted):
            try:
                super(Server, self).__init__((host, number), Handler)
                return
            except (OSError, OverflowError) as error:
                if getattr(error, "errno", None) == errno.EADDRNOTAVAIL or isinstance(error, socket.gaierror):
                    raise BadConfig(
                        "--bind {}: cannot be used, it is no address of this machine ({}). All of its addresses: "
                        "--bind 0.0.0.0".format(host, getattr(error, "strerror", error))
                    ) from error
                if i + 1 == len(wanted):
                    raise BadConfig(
                        "--web: {}:{} cannot be used ({}). Choose another port, or leave it out.".format(
                            host, number, getattr(error, "strerror", None) or error
                        )
                    ) from error

    @property
    def cookie(self):
        """The cookie's name. Browsers do not keep the cookies of two ports apart, and each run has its own token."""
        return "edgekit-token-{}".format(self.server_address[1])

    @property
    def address(self):
        host, port = str(self.server_address[0]), self.server_address[1]
        if host in ("0.0.0.0", "::"):
            host = own_address()
        host = "[{}]".format(host) if ":" in host else host
        return "http://{}:{}/{}".format(host, port, "?token=" + self.token if self.token else "")

    def start(self):
        threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.2}, name="web", daemon=True).start()

    def stop(self):
        self.shutdown()
        self.server_close()

    def process_request(self, request, client_address):
        if self._slots.acquire(blocking=False):
            super(Server, self).process_request(request, client_address)
            return
        with contextlib.suppress(OSError), contextlib.closing(request):
            request.settimeout(_REFUSED_SECONDS)
            with contextlib.suppress(OSError):
                request.recv(1 << 16)
            request.sendall(_FULL)

    def process_request_thread(self, request, client_address):
        try:
            super(Server, self).process_request_thread(request, client_address)
        finally:
            self._slots.release()

    def handle_error(self, request, client_address):
        """A viewer that went away in the middle of an answer is nothing to tell."""


def own_address():
    """The address by which other machines reach this one; nothing is sent to find it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # an address of documents: only the route to it is looked up
            return probe.getsockname()[0]
        except OSError:
            return socket.gethostname()


class Handler(http.server.BaseHTTPRequestHandler):
    """One connection, in a thread of its own."""

    protocol_version = "HTTP/1.1"
    server_version, sys_version = "EdgeKit", ""
    timeout = SILENT_SECONDS
    server: Any

    def do_GET(self):
        path, query = self._split()
        refusal = self._refusal(query)
        if refusal:
            self._answer(403, "text/plain; charset=utf-8", refusal.encode())
        elif self.server.token and "token" in query:
            self._move_token_to_cookie(path)
        elif path in FILES:
            self._file(*FILES[path])
        elif path in _ROUTES:
            _ROUTES[path](self)
        else:
            self._answer(404, "text/plain; charset=utf-8", b"no such page\n")

    def log_message(self, format, *args):
        """Viewers are no events of the run."""

    # -- who may look ---------------------------------------------------------------------------------------------
    def _split(self):
        parts = urllib.parse.urlsplit(self.path)
        return parts.path, urllib.parse.parse_qs(parts.query)

    def _refusal(self, query):
        """Why this request is not answered; empty when it is."""
        host = urllib.parse.urlsplit("//" + self.headers.get("Host", "")).hostname
        if self.server.loopback and host not in _LOOPBACK:
            return "this page is served to 127.0.0.1 and localhost only\n"
        if self.server.token and not self._knows_token(query):
            return "this page needs the token that the camera printed: open the whole address, with ?token=...\n"
        return ""

    def _knows_token(self, query):
        try:
            cookies = http.cookies.SimpleCookie(self.headers.get("Cookie", ""))
        except http.cookies.CookieError:
            cookies = http.cookies.SimpleCookie()
        name = self.server.cookie
        given = query.get("token", [])[:1] + ([cookies[name].value] if name in cookies else [])
        return any(hmac.compare_digest(g.encode(), self.server.token.encode()) for g in given)

    def _move_token_to_cookie(self, path):
        cookie = "{}={}; HttpOnly; SameSite=Strict; Path=/".format(self.server.cookie, self.server.token)
        if path in _STREAMS:  # players know no cookies
            _ROUTES[path](self)
            return
        self._answer(303, "text/plain", b"", [("Set-Cookie", cookie), ("Location", path if path in FILES else "/")])

    # -- answers --------------------------------------------------------------------------------------------------
    def _answer(self, code, kind, body, more=()):
        self.send_response(code)
        for name, value in [("Content-Type", kind), ("Content-Length", str(len(body)))] + list(more):
            self.send_header(name, value)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(body)

    def _file(self, name, kind):
        self._answer(200, kind, pkgutil.get_data(__package__, name))

    def _status(self):
        self._answer(200, "application/json", json.dumps(self.server.hub.status()).encode())

    def _picture(self):
        packet = self.server.hub.newest()
        if packet is None:
            self._answer(503, "text/plain; charset=utf-8", b"no picture yet\n")
        else:
            self._answer(200, "image/jpeg", self.server.hub.painted(packet))

    def _motion_jpeg(self):
        """The picture with its boxes, for players and <img>."""
        self.close_connection = True
        self.send_response(200)
        self.send_header("Content-Type", "multipart/x-mixed-replace; boundary=edgekit")
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        self.end_headers()
        hub, number, status = self.server.hub, 0, 0
        while hub.serving:
            packet, _, status = hub.wait(number, status, SILENT_SECONDS)
            if packet is not None:
                number, jpeg = packet.number, hub.painted(packet)
                self.wfile.write(_PART.format(len(jpeg)).encode() + jpeg + b"\r\n")
            elif gone(self.connection):  # while there is nothing to send, no write fails
                return

    def _web_socket(self):
        key, origin = self.headers.get("Sec-WebSocket-Key"), self.headers.get("Origin")
        if not key or self.headers.get("Upgrade", "").lower() != "websocket":
            self._answer(426, "text/plain; charset=utf-8", b"a WebSocket is served here\n", [("Upgrade", "websocket")])
            return
        if origin is not None and urllib.parse.urlsplit(origin).netloc != self.headers.get("Host"):
            self._answer(403, "text/plain; charset=utf-8", b"another site's page may not look\n")
            return
        self.close_connection = True
        self.send_response(101)
        for name, value in (("Upgrade", "websocket"), ("Connection", "Upgrade")):
            self.send_header(name, value)
        self.send_header("Sec-WebSocket-Accept", accept_key(key))
        self.end_headers()
        try:
            Viewer(self.server.hub, WebSocket(self.connection)).serve()
        except (OSError, WebSocketError, ValueError):
            return  # it went away, is too slow, or is no page of ours


def gone(connection):
    """Whether the other side has closed the connection. What it may have sent is read away: nothing is expected."""
    try:
        return bool(select.select([connection], [], [], 0)[0]) and not connection.recv(1 << 12)
    except OSError:  # reset
        return True


class Viewer(object):
    """One open page. It confirms each picture that it has drawn, which tells how old pictures are on its screen."""

    def __init__(self, hub, web_socket):
        self._hub = hub
        self._socket = web_socket
        self._on_way: Any = OrderedDict()  # number -> captured
        self._screen: Any = deque(maxlen=60)  # ms from capture until the confirmation was here

    def serve(self):
        about = self._hub.enter()
        try:
            self._socket.send(TEXT, about)
            self._loop()
        finally:
            self._hub.leave()

    def _loop(self):
        number = status_number = 0
        while self._hub.serving and self._socket.open:
            packet, status, status_number = self._hub.wait(number, status_number, SILENT_SECONDS)
            if status is not None:
                screen = round(float(np.median(self._screen)), 1) if self._screen else None
                self._socket.send(TEXT, json.dumps(dict(status, screen_ms=screen)).encode())
            if packet is not None:
                number = packet.number
                self._on_way[number] = packet.captured
                self._socket.send(BINARY, packet.data)
            self._confirm(0)
            if len(self._on_way) >= IN_FLIGHT and not self._confirm(SILENT_SECONDS):
                return

    def _confirm(self, timeout):
        """Read confirmations; False when none came within ``timeout`` seconds."""
        messages = self._socket.messages(timeout)
        for message in messages:
            captured = self._on_way.pop(int(message), None)
            if captured is not None:
                self._screen.append(since(captured))
        return bool(messages)


_ROUTES = {
    "/ws": Handler._web_socket,
    "/stream.mjpg": Handler._motion_jpeg,
    "/frame.jpg": Handler._picture,
    "/status.json": Handler._status,
}
_STREAMS = ("/stream.mjpg", "/frame.jpg", "/status.json")
