"""A real Chromium, driven through its DevTools protocol by the standard library alone."""

from __future__ import annotations

import base64
import itertools
import json
import os
import re
import shutil
import socket
import struct
import subprocess
import tempfile
import threading
import time
import urllib.parse
import urllib.request
from pathlib import Path
from typing import Any

PROGRAMS = ("chromium", "chromium-browser", "google-chrome")
_FLAGS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--hide-scrollbars")
_SECONDS = 60


def find_browser() -> str | None:
    """The path of an installed Chromium, or None."""
    return next((found for name in PROGRAMS if (found := shutil.which(name))), None)


class Browser:
    """One page: ``goto``, ``js``, ``click``, ``resize``, ``screenshot``. ``errors``: what its console complains of."""

    def __init__(self, program: str) -> None:
        self._profile = tempfile.mkdtemp(prefix="chromium-")
        command = [program, *_FLAGS, "--remote-debugging-port=0", f"--user-data-dir={self._profile}", "about:blank"]
        self._child = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True)
        self.errors: list[str] = []
        self._numbers = itertools.count(1)
        self._connect(self._page_address(self._port()))
        for domain in ("Runtime", "Log", "Page"):
            self.send(f"{domain}.enable")

    def _port(self) -> int:
        assert self._child.stderr is not None
        for line in self._child.stderr:
            found = re.search(r"DevTools listening on ws://[^:]+:(\d+)/", line)
            if found:
                threading.Thread(target=self._child.stderr.read, daemon=True).start()
                return int(found.group(1))
        raise AssertionError("Chromium ended before it listened")

    @staticmethod
    def _page_address(port: int) -> str:
        end = time.monotonic() + _SECONDS
        while time.monotonic() < end:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/json") as answer:
                pages = [p for p in json.load(answer) if p["type"] == "page"]
            if pages:
                return str(pages[0]["webSocketDebuggerUrl"])
            time.sleep(0.1)
        raise AssertionError("Chromium has no page")

    def _connect(self, address: str) -> None:
        parts = urllib.parse.urlsplit(address)
        self._socket = socket.create_connection((parts.hostname, parts.port), _SECONDS)
        key = base64.b64encode(os.urandom(16)).decode()
        lines = f"Host: {parts.netloc}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
        self._socket.sendall(f"GET {parts.path} HTTP/1.1\r\n{lines}Sec-WebSocket-Key: {key}\r\n\r\n".encode())
        self._file = self._socket.makefile("rb")
        while self._file.readline().strip():
            pass

    # -- the protocol -------------------------------------------------------------------------------------------------
    def send(self, method: str, **params: Any) -> Any:
        """Call a method and wait for its result."""
        number = next(self._numbers)
        data = json.dumps({"id": number, "method": method, "params": params}).encode()
        size = bytes([0x80 | len(data)]) if len(data) < 126 else b"\xfe" + struct.pack(">H", len(data))
        self._socket.sendall(b"\x81" + size + bytes(4) + data)  # masked with zeros
        while True:
            message = self._receive()
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _receive(self) -> Any:
        text, last = b"", False
        while not last:
            head, size = self._file.read(2)
            if size in (126, 127):
                size = int.from_bytes(self._file.read(2 if size == 126 else 8), "big")
            text, last = text + self._file.read(size), bool(head & 0x80)
        return json.loads(text)

    def _note(self, message: Any) -> None:
        if message["method"] == "Runtime.exceptionThrown":
            self.errors.append(str(message["params"]["exceptionDetails"]))
        if message["method"] == "Log.entryAdded" and message["params"]["entry"]["level"] == "error":
            self.errors.append(message["params"]["entry"]["text"])

    # -- what a person does -------------------------------------------------------------------------------------------
    def goto(self, address: str) -> None:
        self.send("Page.navigate", url=address)

    def js(self, expression: str) -> Any:
        """The value of an expression; a promise is waited for."""
        answer = self.send("Runtime.evaluate", expression=expression, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait(self, expression: str, seconds: float = 30.0) -> Any:
        """Wait until an expression is true; gives its value."""
        end = time.monotonic() + seconds
        while True:
            value = self.js(expression)
            if value:
                return value
            assert time.monotonic() < end, f"not within {seconds:g} s: {expression}; {self.errors}"
            time.sleep(0.05)

    def click(self, selector: str, part: float = 0.5) -> None:
        """A real click of the mouse on an element, at this part of its width."""
        find = f"const e = document.querySelector({json.dumps(selector)}); e.scrollIntoView({{block: 'center'}});"
        box = self.js(
            f"(() => {{ {find} const r = e.getBoundingClientRect(); return [r.x, r.y, r.width, r.height]; }})()"
        )
        at = {"x": box[0] + box[2] * part, "y": box[1] + box[3] / 2, "button": "left", "clickCount": 1}
        for kind in ("mousePressed", "mouseReleased"):
            self.send("Input.dispatchMouseEvent", type=kind, **at)

    def resize(self, width: int, height: int, phone: bool = False, dark: bool = False) -> None:
        scale = 2 if phone else 1
        size = {"width": width, "height": height, "deviceScaleFactor": scale, "mobile": phone}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        feature = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[feature])

    def screenshot(self, path: Path) -> None:
        """The whole page as PNG."""
        data = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)["data"]
        path.write_bytes(base64.b64decode(data))

    def close(self) -> None:
        self._socket.close()
        self._child.terminate()
        self._child.wait(_SECONDS)
        shutil.rmtree(self._profile, ignore_errors=True)
