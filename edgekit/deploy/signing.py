"""Signing bundles with an Ed25519 key of OpenSSH; verification, which boards do too, is ``runtime.onboard.trust``."""

from __future__ import annotations

import base64
import json
from pathlib import Path

from ..paths import expanded
from ..runtime.errors import BadInput, MissingDependency
from ..runtime.onboard.trust import CONTEXT


def sign_index(raw: bytes, key_file: str | Path) -> bytes:
    """``bundle.sig`` for the bytes of ``bundle.json``.

    key_file: an Ed25519 private key without a passphrase, in OpenSSH's format (``ssh-keygen -t ed25519``) or PEM.
    Raises MissingDependency without the ``cryptography`` library, BadInput for any other key.
    """
    try:
        from cryptography.hazmat.primitives import serialization
        from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    except ImportError as error:
        raise MissingDependency(
            "signing needs the cryptography library. Install it: pip install 'edgekit[sign]'"
        ) from error
    data = _read(Path(key_file))
    openssh = b"BEGIN OPENSSH PRIVATE KEY" in data
    load = serialization.load_ssh_private_key if openssh else serialization.load_pem_private_key
    try:
        key = load(data, password=None)
    except (ValueError, TypeError) as error:
        raise BadInput(f"{key_file}: {_fault(data, error)}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise BadInput(f"{key_file}: needed an Ed25519 key, found another kind. {_MAKE}")
    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    record = {"algorithm": "ed25519", "key": _text(public), "signature": _text(key.sign(CONTEXT + raw))}
    return (json.dumps(record, sort_keys=True) + "\n").encode()


_MAKE = "Make one: ssh-keygen -t ed25519 -N '' -f edgekit-key"


def _read(file: Path) -> bytes:
    try:
        return expanded(file).read_bytes()
    except OSError as error:
        raise BadInput(f"{file}: cannot be read ({(error.strerror or str(error)).lower()}). {_MAKE}") from error


def _fault(data: bytes, error: Exception) -> str:
    if data.startswith(b"ssh-"):
        return "is a public key; sign with the private one, the file without .pub"
    if "password" in str(error).lower() or "encrypted" in str(error).lower():
        return "has a passphrase, which cannot be asked for here. Use a key of its own for signing. " + _MAKE
    return f"not a private key that can be read ({error}). {_MAKE}"


def _text(data: bytes) -> str:
    return base64.b64encode(data).decode()
