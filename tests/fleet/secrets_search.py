# SPDX-License-Identifier: Apache-2.0
"""Finds private keys and passwords by what they are made of, in whatever form they have leaked.

A public key and a certificate share half of their bytes with the private key. So what is looked for are the numbers
that nobody but the owner knows (the exponents and primes of RSA, the scalar of a curve, a seed), as bytes, in
hexadecimal, and in base64 at each of the three places where they may begin in it.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable
from dataclasses import dataclass

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

# Bytes of a number that are looked for: none of 24 is found by chance.
_LENGTH = 24
# Of those that grep looks for, line by line: two of them side by side are 32 characters of base64, and of lines that
# are at least as long one of the two is always whole.
_PIECE = 12


@dataclass(frozen=True)
class Needle:
    """One form of one secret."""

    secret: str
    form: str
    data: bytes


def of_key(name: str, data: bytes) -> list[Needle]:
    """What to look for of a private key, which is PEM, or bytes as they are."""
    return [one for number in _numbers(data) for one in _forms(name, number)]


def pieces_of_key(name: str, data: bytes) -> list[Needle]:
    """The same for grep, which sees a line at a time: none has a line break, and one is whole wherever lines break."""
    return [one for number in _numbers(data) for one in _pieces(name, number)]


def of_password(name: str, text: str) -> list[Needle]:
    """What to look for of a password or passphrase."""
    data = text.encode()
    assert len(data) >= 12, f"{name} is too short to be told from chance"
    return [Needle(name, "text", data), Needle(name, "base64", base64.b64encode(data).rstrip(b"=")[:-1])]


def search(needles: Iterable[Needle], haystack: bytes) -> list[Needle]:
    """The needles that are in `haystack`, line breaks or not."""
    joined = haystack.replace(b"\\r", b"").replace(b"\\n", b"").replace(b"\r", b"").replace(b"\n", b"")
    # Indented, as YAML shows what has several lines.
    unspaced = joined.replace(b" ", b"")
    return [one for one in needles if one.data in haystack or one.data in joined or one.data in unspaced]


def _numbers(data: bytes) -> list[bytes]:
    if b"PRIVATE KEY-----" not in data:
        return [data.strip()]
    if b"OPENSSH PRIVATE KEY" in data:
        return _private_numbers(serialization.load_ssh_private_key(data, None))
    return _private_numbers(serialization.load_pem_private_key(data, None))


def _private_numbers(key: object) -> list[bytes]:
    if isinstance(key, rsa.RSAPrivateKey):
        found = key.private_numbers()
        numbers = [found.d, found.p, found.q, found.dmp1, found.dmq1, found.iqmp]
        return [one.to_bytes((one.bit_length() + 7) // 8, "big") for one in numbers]
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return [key.private_numbers().private_value.to_bytes((key.key_size + 7) // 8, "big")]
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return [key.private_bytes_raw()]
    raise TypeError(f"no kind of key that the fleet uses: {type(key).__name__}")


def _forms(name: str, number: bytes) -> list[Needle]:
    head = number[:_LENGTH]
    needles = [
        Needle(name, "bytes", head),
        Needle(name, "hexadecimal", head.hex().encode()),
        Needle(name, "hexadecimal", head.hex().upper().encode()),
    ]
    for skipped in range(3):
        # Of the last character some bits belong to what follows.
        whole = number[skipped : skipped + _LENGTH]
        needles.append(Needle(name, "base64", base64.b64encode(whole).rstrip(b"=")[:-1]))
    return needles


def _pieces(name: str, number: bytes) -> list[Needle]:
    assert len(number) >= 2 * _PIECE + 2, f"{name} is too short to be told from chance"
    begins = range(len(number) - _PIECE + 1)
    plain = next(
        piece
        for piece in (number[begin : begin + _PIECE] for begin in begins)
        if b"\n" not in piece and b"\0" not in piece
    )
    needles = [Needle(name, "bytes", plain)]
    for begin in (0, _PIECE):
        digits = number[begin : begin + _PIECE].hex()
        needles.append(Needle(name, "hexadecimal", digits.encode()))
        needles.append(Needle(name, "hexadecimal", digits.upper().encode()))
        for skipped in range(3):
            # Twelve bytes are sixteen characters, and none of them is anybody else's.
            piece = number[begin + skipped : begin + skipped + _PIECE]
            needles.append(Needle(name, "base64", base64.b64encode(piece)))
    return needles
