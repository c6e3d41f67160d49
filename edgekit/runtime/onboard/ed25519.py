"""Ed25519 signatures (RFC 8032, section 5.1), verification only.

A board's own libraries cannot verify one: JetPack 4 has OpenSSL 1.1.1 (its command cannot), OpenSSH 7.6 (no
``ssh-keygen -Y``) and a Python cryptography of 2.1 (none). Verification handles nothing secret, so plain integers of
Python are safe for it; signing is done on the workstation with the ``cryptography`` library.
"""

import hashlib

P = 2**255 - 19  # the field
L = 2**252 + 27742317777372353535851937790883648493  # order of the base point
D = -121665 * pow(121666, P - 2, P) % P  # of the curve -x^2 + y^2 = 1 + D x^2 y^2
_ROOT = pow(2, (P - 1) // 4, P)  # a square root of -1


def _x_of(y, odd):
    """The x of a point from its y and x's lowest bit (section 5.1.3), or None when there is no such point."""
    square = (y * y - 1) * pow(D * y * y + 1, P - 2, P) % P
    x = pow(square, (P + 3) // 8, P)
    if (x * x - square) % P:
        x = x * _ROOT % P
    if (x * x - square) % P or (x == 0 and odd):
        return None
    return x if x % 2 == odd else P - x


def _decode(data):
    """A point in extended coordinates (X, Y, Z, T) from its 32 bytes, or None."""
    value = int.from_bytes(data, "little")
    y, odd = value & (2**255 - 1), value >> 255
    x = _x_of(y, odd) if y < P else None
    return None if x is None else (x, y, 1, x * y % P)


def _add(p, q):
    """Section 5.1.4: the sum of two points; complete, so it doubles too."""
    a = (p[1] - p[0]) * (q[1] - q[0]) % P
    b = (p[1] + p[0]) * (q[1] + q[0]) % P
    c = 2 * p[3] * q[3] * D % P
    d = 2 * p[2] * q[2] % P
    e, f, g, h = b - a, d - c, d + c, b + a
    return (e * f % P, g * h % P, f * g % P, e * h % P)


def _multiply(scalar, point):
    total = (0, 1, 1, 0)
    while scalar:
        if scalar & 1:
            total = _add(total, point)
        point = _add(point, point)
        scalar >>= 1
    return total


def _same(p, q):
    return (p[0] * q[2] - q[0] * p[2]) % P == 0 and (p[1] * q[2] - q[1] * p[2]) % P == 0


_BASE_Y = 4 * pow(5, P - 2, P) % P
_BASE_X = _x_of(_BASE_Y, 0)
BASE = (_BASE_X, _BASE_Y, 1, _BASE_X * _BASE_Y % P)


def verify(key, message, signature):
    """Whether ``signature`` (64 bytes) of ``message`` is one of ``key`` (32 bytes). Never raises for wrong bytes."""
    if len(key) != 32 or len(signature) != 64:
        return False
    a, r = _decode(key), _decode(signature[:32])
    s = int.from_bytes(signature[32:], "little")
    if a is None or r is None or s >= L:
        return False
    if _same(_multiply(8, a), (0, 1, 1, 0)):  # a key of small order fits any message
        return False
    digest = hashlib.sha512(signature[:32] + key + message).digest()
    k = int.from_bytes(digest, "little") % L
    return _same(_multiply(s, BASE), _add(r, _multiply(k, a)))
