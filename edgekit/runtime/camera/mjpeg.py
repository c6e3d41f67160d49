"""Motion JPEG over HTTP (multipart/x-mixed-replace): read by the standard library, so that its time-outs are ours."""

import http.client
import re
import socket
import urllib.error
import urllib.parse
import urllib.request

import cv2
import numpy as np

from ..errors import BadInput
from ..images import FLAGS, check_whole
from .strings import without_password

_MAX_PART = 32 << 20  # bytes of one picture; more is no camera
_MAX_LINE = 4096


class MjpegStream(object):
    """Iterate to get uint8 BGR images; None for one that is cut short or cannot be decoded.

    Ends when the server closes, or is silent for as long as the response's time-out.
    """

    def __init__(self, url, response):
        self.url = url
        self._response = response
        boundary = re.search(r'boundary="?([^";]+)"?', response.headers.get("Content-Type", ""))
        if boundary is None:
            raise BadInput("{}: the server names no boundary between the pictures".format(without_password(url)))
        self._boundary = boundary.group(1).strip().lstrip("-").encode("latin-1")
        self._begun = False  # the boundary before the next part has been read

    def __iter__(self):
        try:
            for data in self._parts():
                yield decode(data)
        except (OSError, http.client.HTTPException, ValueError):
            return  # broken off; the capture opens it again

    def _parts(self):
        while True:
            length = self._headers()
            if length is not None:
                yield self._response.read(length)
            else:
                yield self._until_boundary()

    def _headers(self):
        """Read to the end of a part's headers. Its Content-Length, or None when it tells none."""
        length = None
        while True:
            line = self._line(_MAX_LINE).strip()
            if self._is_boundary(line):
                self._begun = True
            elif line.lower().startswith(b"content-length:"):
                told = int(line.partition(b":")[2])
                length = min(told, _MAX_PART) if told >= 0 else None  # read(-1) would wait for the end of the stream
            elif not line and self._begun:
                self._begun = False
                return length

    def _until_boundary(self):
        parts, size = [], 0
        while size < _MAX_PART:
            line = self._line(1 << 16)
            if self._is_boundary(line):
                self._begun = True
                break
            parts.append(line)
            size += len(line)
        return b"".join(parts)

    def _line(self, limit):
        line = self._response.readline(limit)
        if not line:
            raise OSError("the server closed the stream")
        return line

    def _is_boundary(self, line):
        return line.startswith(b"--") and line.strip().strip(b"-") == self._boundary.strip(b"-")

    def close(self):
        self._response.close()


def decode(data):
    """JPEG bytes as uint8 BGR; None when they are cut short or no picture."""
    try:
        check_whole("frame", data)
        image = cv2.imdecode(np.frombuffer(data, np.uint8), FLAGS) if data else None
    except (BadInput, cv2.error):
        return None
    return image


def is_mjpeg(response):
    """Whether an HTTP response is a stream of JPEG pictures."""
    return response.headers.get("Content-Type", "").lower().startswith("multipart/x-mixed-replace")


def open_url(url, timeout):
    """The HTTP response of an address; BadInput that says why when there is none within ``timeout`` seconds."""
    try:
        bare, user, password = _split_user(url)
        known = urllib.request.HTTPPasswordMgrWithDefaultRealm()
        if user is not None:
            known.add_password(None, bare, user, password or "")
        handlers = (urllib.request.HTTPBasicAuthHandler(known), urllib.request.HTTPDigestAuthHandler(known))
        return urllib.request.build_opener(*handlers).open(bare, timeout=timeout)
    except (urllib.error.URLError, OSError, http.client.HTTPException, ValueError) as error:
        reason = getattr(error, "reason", None) or error
        if isinstance(reason, socket.timeout):
            reason = "no answer in {:g} s".format(timeout)
        raise BadInput("{}: cannot be opened ({}).".format(without_password(url), without_password(reason))) from error


def _split_user(url):
    """(address without user and password, user, password); cameras have them in the address, HTTP does not."""
    parts = urllib.parse.urlsplit(url)
    host = parts.netloc.rpartition("@")[2]
    user, password = (None if v is None else urllib.parse.unquote(v) for v in (parts.username, parts.password))
    return urllib.parse.urlunsplit(parts._replace(netloc=host)), user, password
