"""``edgekit_board.pyz``: the runtime as one file for a board's own Python, with nothing of the rest."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

NAME = "edgekit_board.pyz"
_PACKAGE = Path(__file__).resolve().parents[1]
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest that zip knows: the same sources give the same bytes
_SHEBANG = b"#!/usr/bin/env python3\n"
_MAIN = """\
import sys

from edgekit.runtime.onboard.main import main

sys.exit(main(sys.argv[1:]))
"""


def board_zip() -> bytes:
    """The zip application: ``edgekit/__init__.py``, ``edgekit/runtime`` and a ``__main__.py``.

    Stored, not compressed: the bytes, and so the bundle's digest, do not depend on the zlib at hand.
    """
    buffer = io.BytesIO()
    buffer.write(_SHEBANG)
    with zipfile.ZipFile(buffer, "a", zipfile.ZIP_STORED) as archive:
        _add(archive, "__main__.py", _MAIN.encode())
        for file in board_files():
            _add(archive, file.relative_to(_PACKAGE.parent).as_posix(), file.read_bytes())
    return buffer.getvalue()


def board_files() -> list[Path]:
    """The files of the package that run on a board."""
    inside = (p for p in (_PACKAGE / "runtime").rglob("*") if p.is_file() and _wanted(p))
    return [_PACKAGE / "__init__.py", *sorted(inside)]


def _wanted(path: Path) -> bool:
    return "__pycache__" not in path.parts and not path.name.startswith(".")


def _add(archive: zipfile.ZipFile, name: str, data: bytes) -> None:
    info = zipfile.ZipInfo(name, _EPOCH)
    info.external_attr = 0o644 << 16
    info.create_system = 3  # Unix, on every system
    archive.writestr(info, data)
