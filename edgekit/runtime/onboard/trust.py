"""Whose signature is on a bundle, and whether it is one that is trusted.

``bundle.sig`` is {"algorithm": "ed25519", "key": base64, "signature": base64} over CONTEXT + bundle.json, which holds
the hash of every file. Trusted keys are OpenSSH public keys ("ssh-ed25519 AAAA... comment"), one per line.
"""

import base64
import binascii
import hashlib
import json
import os
import re

from ..errors import ArtifactError, BadInput
from . import ed25519

CONTEXT = b"edgekit bundle 1\n"
_HEAD = b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20"  # of the wire form in an OpenSSH public key
_LINE = re.compile(r"(?:^|\s)ssh-ed25519\s+([A-Za-z0-9+/=]+)")


def fingerprint(key):
    """The fingerprint that ``ssh-keygen -l`` shows: SHA256:..."""
    return "SHA256:" + base64.b64encode(hashlib.sha256(_HEAD + key).digest()).decode().rstrip("=")


def read_keys(path):
    """The Ed25519 public keys (32 bytes each) of a file. Raises BadInput when there is none in it."""
    try:
        with open(str(path), encoding="utf-8", errors="replace") as handle:
            text = handle.read(1 << 20)
    except OSError as error:
        raise BadInput("{}: cannot be read ({})".format(path, error.strerror)) from error
    keys = [_key(match.group(1)) for line in text.splitlines() for match in [_LINE.search(line)] if match]
    if not keys or None in keys:
        found = "a private key; the public one is in the file that ends in .pub" if "PRIVATE KEY" in text else "none"
        raise BadInput(
            "{}: needed Ed25519 public keys (lines 'ssh-ed25519 AAAA...'), found {}. "
            "Make a pair: ssh-keygen -t ed25519 -f edgekit-key".format(path, found)
        )
    return keys


def _key(text):
    try:
        data = base64.b64decode(text, validate=True)
    except binascii.Error:
        return None
    return data[len(_HEAD) :] if data.startswith(_HEAD) and len(data) == len(_HEAD) + 32 else None


def check_signature(bundle, trusted, source):
    """Who signed a bundle. ``trusted`` is a list of keys, or None when nobody in particular has to have signed it.

    Returns the fingerprint, or None for a bundle that is not signed and need not be. Raises ArtifactError for a
    signature that is wrong (always), and for one that is missing or of another key when ``trusted`` is given.
    """
    if bundle.signature is None:
        if trusted is not None:
            raise ArtifactError(
                "{}: is not signed, and only bundles signed by {} are trusted here. "
                "Sign it: edgekit bundle ... --sign KEY".format(source, _names(trusted))
            )
        return None
    key, signature = _parse(bundle.signature, source)
    if not ed25519.verify(key, CONTEXT + bundle.raw, signature):
        raise ArtifactError("{}: its signature is wrong: it was changed after it was signed".format(source))
    if trusted is not None and key not in trusted:
        raise ArtifactError("{}: is signed by {}, trusted are {}".format(source, fingerprint(key), _names(trusted)))
    return fingerprint(key)


def _names(keys):
    return ", ".join(fingerprint(key) for key in keys) or "nobody"


def _parse(raw, source):
    try:
        record = json.loads(raw.decode("utf-8"))
        key, signature = (base64.b64decode(record[name], validate=True) for name in ("key", "signature"))
        if record["algorithm"] != "ed25519":
            raise ValueError("algorithm {!r}".format(record["algorithm"]))
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise ArtifactError("{}: its signature cannot be read ({})".format(source, error)) from error
    return key, signature


def board_keys(home):
    """The keys of ``trusted_keys`` in the board's EdgeKit folder, or None when there is no such file."""
    path = os.path.join(home, "trusted_keys")
    return read_keys(path) if os.path.exists(path) else None
