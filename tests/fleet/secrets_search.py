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


@dataclass(frozen=True)
class Needle:
    """One form of one secret."""

    secret: str
    form: str
    data: bytes


def of_key(name: str, data: bytes) -> list[Needle]:
    """What to look for of a private key, which is PEM, or bytes as they are."""
    if b"PRIVATE KEY-----" not in data:
        return _forms(name, [data.strip()])
    if b"OPENSSH PRIVATE KEY" in data:
        key: object = serialization.load_ssh_private_key(data, None)
    else:
        key = serialization.load_pem_private_key(data, None)
    return _forms(name, _private_numbers(key))


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


def _forms(name: str, numbers: list[bytes]) -> list[Needle]:
    needles = []
    for number in numbers:
        head = number[:_LENGTH]
        needles.append(Needle(name, "bytes", head))
        needles.append(Needle(name, "hexadecimal", head.hex().encode()))
        needles.append(Needle(name, "hexadecimal", head.hex().upper().encode()))
        for skipped in range(3):
            # Of the last character some bits belong to what follows.
            whole = number[skipped : skipped + _LENGTH]
            needles.append(Needle(name, "base64", base64.b64encode(whole).rstrip(b"=")[:-1]))
    return needles
