"""Signatures: RFC 8032's own vectors, the cryptography library as a second opinion, and whom a board trusts."""

import base64
import json
import shutil
import subprocess

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgekit.deploy.signing import sign_index
from edgekit.runtime.errors import ArtifactError, BadInput
from edgekit.runtime.onboard import ed25519, trust
from edgekit.runtime.onboard.archive import Bundle

RAW = b'{"format": 1, "board": {"name": "b"}, "files": {}}'

# RFC 8032, section 7.1: public key, message, signature
VECTORS = [
    (
        "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a",
        "",
        "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe"
        "24655141438e7a100b",
    ),
    (
        "3d4017c3e843895a92b70aa74d1b7ebc9c982ccf2ec4968cc0cd55f12af4660c",
        "72",
        "92a009a9f0d4cab8720e820b5f642540a2b27b5416503f8fb3762223ebdb69da085ac1e43e15996e458f3613d0f11d8c387b2eaeb4302a"
        "eeb00d291612bb0c00",
    ),
    (
        "fc51cd8e6218a1a38da47ed00230f0580816ed13ba3303ac5deb911548908025",
        "af82",
        "6291d657deec24024827e69c3abe01a30ce548a284743a445e3680d7db5ac3ac18ff9b538d16f290ae67f760984dc6594a7c15e9716ed2"
        "8dc027beceea1ec40a",
    ),
]


@pytest.mark.parametrize(("key", "message", "signature"), VECTORS)
def test_the_standards_vectors(key, message, signature):
    key, message, signature = (bytes.fromhex(text) for text in (key, message, signature))
    assert ed25519.verify(key, message, signature)
    assert not ed25519.verify(key, message + b"!", signature)
    for at in (0, 31, 32, 63):
        wrong = bytearray(signature)
        wrong[at] ^= 1
        assert not ed25519.verify(key, message, bytes(wrong))


def test_forms_that_fit_anything_are_refused():
    key, message, signature = (bytes.fromhex(text) for text in VECTORS[1])
    s = int.from_bytes(signature[32:], "little") + ed25519.L  # the same number, written in another way
    assert not ed25519.verify(key, message, signature[:32] + s.to_bytes(32, "little"))
    neutral = (1).to_bytes(32, "little")
    assert not ed25519.verify(neutral, message, neutral + bytes(32))
    assert not ed25519.verify(b"short", message, signature)
    assert not ed25519.verify(b"\xff" * 32, message, signature)


@settings(max_examples=25, deadline=None)
@given(seed=st.binary(min_size=32, max_size=32), message=st.binary(max_size=200), flip=st.integers(0, 511))
def test_agrees_with_the_cryptography_library(seed, message, flip):
    module = pytest.importorskip("cryptography.hazmat.primitives.asymmetric.ed25519")
    private = module.Ed25519PrivateKey.from_private_bytes(seed)
    key, signature = private.public_key().public_bytes_raw(), bytearray(private.sign(message))
    assert ed25519.verify(key, message, bytes(signature))
    signature[flip // 8] ^= 1 << flip % 8
    assert not ed25519.verify(key, message, bytes(signature))


@pytest.fixture
def keys(tmp_path):
    """Two key pairs of ssh-keygen: paths of the private ones."""
    pytest.importorskip("cryptography")
    if shutil.which("ssh-keygen") is None:
        pytest.skip("needs ssh-keygen")
    for name in ("ours", "theirs"):
        make = ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name} key", "-f", tmp_path / name]
        subprocess.run(make, check=True)
    return tmp_path / "ours", tmp_path / "theirs"


def public(key):
    return trust.read_keys(f"{key}.pub")


def test_a_signed_bundle_is_known_by_its_key(keys):
    ours, theirs = keys
    bundle = Bundle(RAW, sign_index(RAW, ours))
    shown = subprocess.run(["ssh-keygen", "-lf", f"{ours}.pub"], capture_output=True, text=True, check=True).stdout
    name = trust.check_signature(bundle, public(ours), "b.tar.gz")
    assert name == shown.split()[1]
    assert trust.check_signature(bundle, None, "b.tar.gz") == name
    assert trust.check_signature(bundle, public(theirs) + public(ours), "b.tar.gz") == name
    with pytest.raises(ArtifactError, match=r"is signed by SHA256:.*, trusted are SHA256:"):
        trust.check_signature(bundle, public(theirs), "b.tar.gz")


def test_what_is_not_signed_or_wrongly_signed_is_refused(keys):
    ours, _ = keys
    assert trust.check_signature(Bundle(RAW), None, "b") is None
    with pytest.raises(ArtifactError, match="is not signed"):
        trust.check_signature(Bundle(RAW), public(ours), "b")
    changed = Bundle(RAW + b" ", sign_index(RAW, ours))
    for trusted in (None, public(ours)):  # a wrong signature is refused even where none is needed
        with pytest.raises(ArtifactError, match="its signature is wrong"):
            trust.check_signature(changed, trusted, "b")


@pytest.mark.parametrize(
    "text",
    [
        *(b"", b"[]", b"{}", b'{"algorithm": "rsa", "key": "AA==", "signature": "AA=="}', b'{"key": 5}', b"\xff"),
        b"[" * 100_000,
    ],
)
def test_a_signature_file_that_makes_no_sense(text):
    with pytest.raises(ArtifactError, match="cannot be read"):
        trust.check_signature(Bundle(RAW, text), None, "b")


def test_key_files(keys, tmp_path):
    ours, _ = keys
    (tmp_path / "list").write_text(f"# who may sign\n\n{(tmp_path / 'ours.pub').read_text()}\nssh-rsa AAAA old\n")
    assert trust.read_keys(tmp_path / "list") == public(ours)
    with pytest.raises(BadInput, match="found a private key; the public one is in the file that ends in"):
        trust.read_keys(ours)
    with pytest.raises(BadInput, match="found none"):
        trust.read_keys(__file__)
    with pytest.raises(BadInput, match="cannot be read"):
        trust.read_keys(tmp_path / "no such file")
    short = base64.b64encode(b"\x00\x00\x00\x0bssh-ed25519\x00\x00\x00\x20abc").decode()
    (tmp_path / "short").write_text(f"ssh-ed25519 {short}\n")
    with pytest.raises(BadInput, match="Ed25519 public keys"):
        trust.read_keys(tmp_path / "short")


def test_signing_keys_of_other_kinds(keys, tmp_path):
    ours, _ = keys
    with pytest.raises(BadInput, match="is a public key"):
        sign_index(RAW, f"{ours}.pub")
    with pytest.raises(BadInput, match="no such file"):
        sign_index(RAW, tmp_path / "none")
    for kind, name in (("ecdsa", "other"), ("ed25519", "locked")):
        phrase = "secret" if name == "locked" else ""
        make = ["ssh-keygen", "-q", "-t", kind, "-N", phrase, "-f", tmp_path / name]
        subprocess.run(make, check=True)
    with pytest.raises(BadInput, match="needed an Ed25519 key"):
        sign_index(RAW, tmp_path / "other")
    with pytest.raises(BadInput, match="passphrase"):
        sign_index(RAW, tmp_path / "locked")
    assert json.loads(sign_index(RAW, ours))["algorithm"] == "ed25519"


def test_a_boards_own_list(keys, tmp_path):
    ours, _ = keys
    assert trust.board_keys(str(tmp_path)) is None
    (tmp_path / "trusted_keys").write_text((tmp_path / "ours.pub").read_text())
    assert trust.board_keys(str(tmp_path)) == public(ours)
