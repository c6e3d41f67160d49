"""The server's half of the WebSocket protocol (RFC 6455), as far as a page with pictures needs it."""

import base64
import hashlib
import select
import struct
from typing import Any

_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
TEXT, BINARY, CLOSE, PING, PONG = 1, 2, 8, 9, 10
_LONGEST_MESSAGE = 4096  # of a client; ours sends a few digits


class WebSocketError(Exception):
    """The client breaks the protocol; the connection ends."""


def accept_key(key):
    """The Sec-WebSocket-Accept of a Sec-WebSocket-Key (section 4.2.2)."""
    return base64.b64encode(hashlib.sha1(key.strip().encode("latin-1") + _GUID).digest()).decode()


def frame(kind, payload):
    """One unmasked message in one frame (section 5.2)."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", 0x80 | kind, size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", 0x80 | kind, 126, size)
    else:
        head = struct.pack(">BBQ", 0x80 | kind, 127, size)
    return head + payload


class WebSocket(object):
    """A connection after the handshake. Its socket must have a time-out: ``send`` raises OSError when it passes."""

    def __init__(self, connection):
        self._socket = connection
        self._bytes = b""
        self.open = True

    def send(self, kind, payload):
        self._socket.sendall(frame(kind, payload))

    def messages(self, timeout):
        """The client's text messages that have come; waits up to ``timeout`` seconds for the first bytes."""
        found: Any = []
        if not self.open or not select.select([self._socket], [], [], timeout)[0]:
            return found
        data = self._socket.recv(_LONGEST_MESSAGE)
        if not data:
            self.open = False
        self._bytes += data
        while True:
            message = self._next()
            if message is None:
                return found
            kind, payload = message
            if kind == CLOSE:
                self.open = False
                self.send(CLOSE, payload[:2])
            elif kind == PING:
                self.send(PONG, payload)
            elif kind in (TEXT, BINARY):
                found.append(payload)

    def _next(self):
        """Take one whole frame off the bytes that came; None when there is none yet."""
        if len(self._bytes) < 2:
            return None
        size, at = self._bytes[1] & 0x7F, 2
        if not self._bytes[1] & 0x80 or size == 127:
            raise WebSocketError("a client's frames are masked and short")
        if size == 126:
            if len(self._bytes) < 4:
                return None
            (size,), at = struct.unpack(">H", self._bytes[2:4]), 4
        if size > _LONGEST_MESSAGE:
            raise WebSocketError("a message of {} bytes".format(size))
        if len(self._bytes) < at + 4 + size:
            return None
        mask, kind = self._bytes[at : at + 4], self._bytes[0] & 0x0F
        payload = self._bytes[at + 4 : at + 4 + size]
        self._bytes = self._bytes[at + 4 + size :]
        return kind, bytes(b ^ mask[i % 4] for i, b in enumerate(payload))
