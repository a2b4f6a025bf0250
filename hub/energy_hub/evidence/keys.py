# SPDX-License-Identifier: Apache-2.0
"""The hub's own key, which signs checkpoints: Ed25519, made on the hub, and it never leaves it."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey


class KeyFileError(ValueError):
    """A key file that cannot be used; the message says which, and why."""


def make(path: Path) -> bool:
    """Make a key at `path` and its public half beside it (`.pub`); false when there was one. Raises OSError."""
    if path.exists():
        return False
    key = Ed25519PrivateKey.generate()
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    public = key.public_key().public_bytes(
        serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
    )
    # The public half first: a run that is cut between the two makes both anew.
    _write(path.with_suffix(".pub"), public, 0o644)
    _write(path, pem, 0o600)
    return True


def _write(path: Path, content: bytes, mode: int) -> None:
    new = path.with_name(f"{path.name}.new")
    handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(handle, "wb") as stream:
        os.fchmod(handle, mode)
        stream.write(content)
        stream.flush()
        os.fsync(handle)
    new.rename(path)


def load_private(path: Path) -> Ed25519PrivateKey:
    """Raises KeyFileError, OSError."""
    data = path.read_bytes()
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise KeyFileError(f"{path}: others may read this private key; chmod 600 it")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError):
        raise KeyFileError(f"{path}: expected a PEM private key without a password") from None
    if not isinstance(key, Ed25519PrivateKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key")
    return key


def load_public(path: Path) -> bytes:
    """The 32 bytes of a public key in PEM. Raises KeyFileError, OSError."""
    try:
        key = serialization.load_pem_public_key(path.read_bytes())
    except ValueError:
        raise KeyFileError(f"{path}: expected a PEM public key") from None
    if not isinstance(key, Ed25519PublicKey):
        raise KeyFileError(f"{path}: expected an Ed25519 key")
    return raw(key)


def raw(key: Ed25519PublicKey) -> bytes:
    return key.public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)


def key_id(public: bytes) -> str:
    return hashlib.sha256(public).hexdigest()[:16]


def is_signed(public: bytes, signature: bytes, data: bytes) -> bool:
    try:
        Ed25519PublicKey.from_public_bytes(public).verify(signature, data)
    except (InvalidSignature, ValueError):
        return False
    return True
