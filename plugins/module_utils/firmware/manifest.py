# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The manifest of a release: what it is, for whom, and who says so.

An envelope carries the manifest's own bytes and the signatures over them, so that nothing has to be written the same
way twice. Ed25519 (RFC 8032) signs PREFIX and the bytes; a release needs signatures by a threshold of different keys,
so that one stolen key is not enough. The idea of threshold and growing number is The Update Framework's (TUF
specification 1.0, sections 5 and 6).
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import datetime, timezone
from typing import Any

from .versions import is_version

PREFIX = b"energy/v1/release\0"
FORMAT = 1
# A manifest is a few hundred bytes; what is larger is none.
LARGEST = 64 * 1024


class Refused(Exception):  # noqa: N818  (a verdict)
    """A release is not taken; one line says why."""


@dataclass(frozen=True)
class Manifest:
    """What is to be installed. `length` is in bytes, `sha256` in hex, `expires` UTC.

    `number` only grows from release to release: what is older than a release that was taken is a replay. An
    installed version below `minimum` has to be brought there first; one in `forbidden` must not be updated by this.
    `downgrade` says that an older version is meant.
    """

    kind: str
    version: str
    number: int
    models: tuple[str, ...]
    length: int
    sha256: str
    expires: datetime
    minimum: str | None = None
    forbidden: tuple[str, ...] = ()
    downgrade: bool = False


@dataclass(frozen=True)
class Trust:
    """The keys that may sign releases, by their id, and how many of them it takes."""

    threshold: int
    keys: dict[str, bytes]


def key_id(public: bytes) -> str:
    """Names a public key: the first 16 hex digits of its SHA-256."""
    return hashlib.sha256(public).hexdigest()[:16]


def open_envelope(envelope: bytes, trust: Trust) -> tuple[Manifest, str]:
    """The manifest of an envelope that enough keys have signed, and the SHA-256 of its bytes. Raises Refused."""
    content = _json(envelope, "the release's manifest")
    data = _base64(content.get("manifest"), "manifest")
    signatures = content.get("signatures")
    if not isinstance(signatures, list) or not signatures:
        raise Refused("the manifest is not signed")
    signers = {one for one in (_signer(entry, data, trust) for entry in signatures) if one}
    if len(signers) < trust.threshold:
        raise Refused(
            f"the manifest has good signatures by {len(signers)} of the keys that this gateway trusts, "
            f"and needs {trust.threshold}"
        )
    return parse(data), hashlib.sha256(data).hexdigest()


def _signer(entry: Any, data: bytes, trust: Trust) -> str | None:
    """The key of a signature that is good; None for one of an unknown key. Raises Refused for a bad one."""
    # Imported here: the collection is imported on controllers and gateways that never see a release.
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    if not isinstance(entry, dict) or not isinstance(entry.get("key"), str):
        raise Refused("a signature of the manifest names no key")
    name = entry["key"]
    if name not in trust.keys:
        return None
    signature = _base64(entry.get("signature"), f"signature by {name}")
    try:
        Ed25519PublicKey.from_public_bytes(trust.keys[name]).verify(signature, PREFIX + data)
    except InvalidSignature:
        raise Refused(
            f"the signature by {name} does not fit: the manifest was changed after it was signed"
        ) from None
    return name


def parse(data: bytes) -> Manifest:
    """A manifest's bytes. Raises Refused, naming the field."""
    content = _json(data, "the manifest")
    if content.get("format") != FORMAT:
        raise Refused(f"format: {content.get('format')!r} is not known here, {FORMAT} is")
    known = {
        "format", "kind", "version", "number", "models", "length", "sha256", "expires", "minimum", "forbidden",
        "downgrade",
    }  # fmt: skip
    # What is signed and not understood might be a condition.
    strange = sorted(set(content) - known)
    if strange:
        raise Refused(f"{strange[0]}: is not known here")
    _check(content.get("kind") in ("firmware", "collector"), "kind", content, "firmware or collector")
    _check(is_version(content.get("version")), "version", content, "a version such as 2.4.1")
    _check(_is_count(content.get("number")), "number", content, "a whole number from 1 on")
    _check(_is_names(content.get("models")), "models", content, "a list of model names")
    _check(_is_count(content.get("length")), "length", content, "a number of bytes")
    digest = content.get("sha256")
    is_digest = isinstance(digest, str) and len(digest) == 64 and not set(digest) - set("0123456789abcdef")
    _check(is_digest, "sha256", content, "64 hex digits")
    minimum, forbidden = content.get("minimum"), content.get("forbidden", [])
    _check(minimum is None or is_version(minimum), "minimum", content, "a version such as 2.4.1")
    _check(
        isinstance(forbidden, list) and all(map(is_version, forbidden)),
        "forbidden",
        content,
        "a list of versions",
    )
    _check(isinstance(content.get("downgrade", False), bool), "downgrade", content, "true or false")
    return Manifest(
        kind=content["kind"],
        version=content["version"],
        number=content["number"],
        models=tuple(content["models"]),
        length=content["length"],
        sha256=content["sha256"],
        expires=_moment(content.get("expires")),
        minimum=minimum,
        forbidden=tuple(forbidden),
        downgrade=content.get("downgrade", False),
    )


def _json(data: bytes, what: str) -> dict[str, Any]:
    if len(data) > LARGEST:
        raise Refused(f"{what} has {len(data)} bytes, more than {LARGEST}")
    try:
        content = json.loads(data.decode("utf-8"))
    except ValueError as error:
        raise Refused(f"{what} is not JSON: {error}") from None
    if not isinstance(content, dict):
        raise Refused(f"{what} is not a JSON object")
    return content


def _base64(value: Any, what: str) -> bytes:
    try:
        return base64.b64decode(value, validate=True)
    except (TypeError, ValueError, binascii.Error):
        raise Refused(f"{what}: expected base64") from None


def _moment(value: Any) -> datetime:
    try:
        return datetime.strptime(value, "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=timezone.utc)
    except (TypeError, ValueError):
        raise Refused(f"expires: found {value!r}, expected a time in UTC like 2027-01-01T00:00:00Z") from None


def _is_count(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool) and value > 0


def _is_names(value: Any) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(one, str) and one for one in value)


def _check(holds: bool, field: str, content: dict[str, Any], expected: str) -> None:
    if not holds:
        raise Refused(f"{field}: found {content.get(field)!r}, expected {expected}")
