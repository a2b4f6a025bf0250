# SPDX-License-Identifier: Apache-2.0
"""The search for secrets finds them in every form in which they leak, and takes nothing public for one."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import textwrap
from pathlib import Path

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa

from tests.fleet.secrets_search import Needle, of_key, of_password, pieces_of_key, search

KEYS = {
    "rsa": rsa.generate_private_key(public_exponent=65537, key_size=2048),
    "ec": ec.generate_private_key(ec.SECP256R1()),
    "ed25519": ed25519.Ed25519PrivateKey.generate(),
}


def pem(kind: str, form: serialization.PrivateFormat = serialization.PrivateFormat.PKCS8) -> bytes:
    return KEYS[kind].private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())


@pytest.mark.parametrize("kind", KEYS)
def test_a_key_is_found_in_every_form(kind: str) -> None:
    needles = of_key(kind, pem(kind))
    der = KEYS[kind].private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    body = b"".join(line for line in pem(kind).splitlines() if b"-----" not in line)
    leaks = {
        "PEM": pem(kind),
        "JSON": json.dumps({"content": pem(kind).decode()}).encode(),
        "YAML": textwrap.indent(pem(kind).decode(), "        ").encode(),
        "one line": body,
        "DER": b"before" + der + b"after",
        "base64 of the PEM's bytes that do not begin at a line": base64.b64encode(b"x" + der),
        "hexadecimal": der.hex().encode(),
    }
    if kind != "ed25519":
        leaks["PKCS1"] = pem(kind, serialization.PrivateFormat.TraditionalOpenSSL)
    for name, leak in leaks.items():
        assert search(needles, b"something\n" + leak + b"\nelse"), f"{kind} as {name} is not found"


def by_grep(pieces: list[Needle], data: bytes, folder: Path) -> bool:
    """Whether grep finds one of these."""
    file = folder / "data"
    file.write_bytes(data)
    command = ["grep", "--quiet", "--fixed-strings", "--text", "--file=-", str(file)]
    words = b"\n".join(one.data for one in pieces) + b"\n"
    done = subprocess.run(command, input=words, check=False, env={**os.environ, "LC_ALL": "C"})
    assert done.returncode in (0, 1)
    return done.returncode == 0


@pytest.mark.parametrize("kind", KEYS)
def test_grep_finds_a_key_wherever_lines_break(kind: str, tmp_path: Path) -> None:
    pieces = pieces_of_key(kind, pem(kind))
    der = KEYS[kind].private_bytes(
        serialization.Encoding.DER, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    for before in (b"", b"x", b"xy"):
        text = base64.b64encode(before + der).decode()
        for width in range(32, 80):
            lines = "\n".join(textwrap.wrap(text, width)).encode()
            assert by_grep(pieces, lines, tmp_path), f"{kind} in lines of {width} is not found"
    for leak in (pem(kind), b"before" + der + b"after", der.hex().encode(), der.hex().upper().encode()):
        assert by_grep(pieces, leak, tmp_path)
    public = KEYS[kind].public_key()
    for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER):
        shown = public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        assert not by_grep(pieces, shown, tmp_path)


@pytest.mark.parametrize("kind", KEYS)
def test_what_is_public_is_no_leak(kind: str) -> None:
    public = KEYS[kind].public_key()
    shown = [
        public.public_bytes(encoding, serialization.PublicFormat.SubjectPublicKeyInfo)
        for encoding in (serialization.Encoding.PEM, serialization.Encoding.DER)
    ]
    assert search(of_key(kind, pem(kind)), b"".join(shown) + shown[1].hex().encode()) == []


def test_an_encrypted_key_is_no_leak() -> None:
    encrypted = KEYS["ec"].private_bytes(
        serialization.Encoding.PEM,
        serialization.PrivateFormat.PKCS8,
        serialization.BestAvailableEncryption(b"correct horse"),
    )
    assert search(of_key("ec", pem("ec")), encrypted) == []


def test_passwords_and_seeds() -> None:
    needles = of_password("the passphrase", "correct horse battery")
    for leak in (b"argv: --pass correct horse battery", base64.b64encode(b"correct horse battery")):
        assert search(needles, leak)
    assert search(needles, b"correct horse") == []
    seed = bytes(range(100, 132))
    assert search(of_key("seed", seed), b"x" + seed + b"y")
