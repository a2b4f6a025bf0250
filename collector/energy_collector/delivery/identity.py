# SPDX-License-Identifier: Apache-2.0
"""The key that signs batches, and the statement by which the gateway's certificate vouches for it.

Files are read aside, in a child process, and what reads them is imported there only.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from energy_collector.aside import aside
from energy_collector.errors import UnusableError

STATEMENT_PREFIX = b"energy/v1/key\0"


class IdentityError(UnusableError):
    """A key or certificate that cannot be used; the message is one line for the operator."""


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The Ed25519 key in `path`, made there when it is missing. Raises IdentityError."""
    return Ed25519PrivateKey.from_private_bytes(aside(lambda: _read_or_make(path)))


def _read_or_make(path: Path) -> bytes:
    from cryptography.hazmat.primitives import serialization

    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return _make(path)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be read: {error.strerror}") from error
    if stat.S_IMODE(path.stat().st_mode) & 0o077:
        raise IdentityError(f"{path}: others may read this private key; chmod 600 it")
    try:
        key = serialization.load_pem_private_key(data, None)
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{path}: is no PEM private key without a password") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise IdentityError(f"{path}: is no Ed25519 key")
    return _raw(key)


def _raw(key: Ed25519PrivateKey) -> bytes:
    from cryptography.hazmat.primitives import serialization

    return key.private_bytes(
        serialization.Encoding.Raw, serialization.PrivateFormat.Raw, serialization.NoEncryption()
    )


def _make(path: Path) -> bytes:
    import secrets

    from cryptography.hazmat.primitives import serialization

    key = Ed25519PrivateKey.generate()
    data = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    new = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as stream:
                stream.write(data)
                stream.flush()
                os.fsync(stream.fileno())
            # A link, unlike a rename, does not replace a key that someone else has made meanwhile.
            os.link(new, path)
        finally:
            new.unlink(missing_ok=True)
        _sync_folder(path.parent)
    except FileExistsError:
        return _read_or_make(path)
    except OSError as error:
        raise IdentityError(f"{path}: cannot be made: {error.strerror}") from error
    return _raw(key)


def _sync_folder(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def key_statement(
    key: Ed25519PrivateKey, site: str, certificate: Path, certificate_key: Path
) -> dict[str, str]:
    """The `key` of the status message. Raises IdentityError."""
    return aside(lambda: _statement(key, site, certificate, certificate_key))


def _statement(key: Ed25519PrivateKey, site: str, certificate: Path, certificate_key: Path) -> dict[str, str]:
    import base64

    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa

    public = key.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    message = STATEMENT_PREFIX + site.encode() + b"\0" + public
    try:
        pem = certificate.read_text(encoding="ascii")
        vouching = serialization.load_pem_private_key(certificate_key.read_bytes(), None)
    except OSError as error:
        raise IdentityError(f"{error.filename}: cannot be read: {error.strerror}") from error
    except (ValueError, TypeError) as error:
        raise IdentityError(f"{certificate_key}: is no PEM private key without a password") from error
    if isinstance(vouching, rsa.RSAPrivateKey):
        signature = vouching.sign(message, padding.PKCS1v15(), hashes.SHA256())
    elif isinstance(vouching, ec.EllipticCurvePrivateKey):
        signature = vouching.sign(message, ec.ECDSA(hashes.SHA256()))
    else:
        raise IdentityError(f"{certificate_key}: is neither an RSA nor an EC key")
    return {
        "public": base64.b64encode(public).decode(),
        "statement": base64.b64encode(signature).decode(),
        "certificate": pem,
    }
