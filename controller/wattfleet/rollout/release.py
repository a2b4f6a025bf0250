# SPDX-License-Identifier: Apache-2.0
"""A release as it lies on the controller: the signed manifest and the image (docs/reference/firmware-release.md).

Whether its signatures are good is for each gateway to judge, which knows whom it trusts. Here it is only read, so that
a plan can be made and a wrong file is noticed before the first site is bothered with it.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wattfleet.errors import WattfleetError
from wattfleet.rollout.model import Release

BLOCK = 1 << 20


class ReleaseError(WattfleetError):
    """The files are no release, or do not belong together; one line."""


@dataclass(frozen=True)
class ReleaseFiles:
    """Where a release's two files are, and what they say."""

    manifest: Path
    image: Path
    release: Release
    image_digest: str


def read_release(manifest: Path, image: Path, install: float, now: datetime) -> ReleaseFiles:
    """Raises ReleaseError where the image is not what the manifest says, or the manifest has expired."""
    content, digest = _content(manifest)
    try:
        kind, version = str(content["kind"]), str(content["version"])
        length, sha256 = int(content["length"]), str(content["sha256"])
        models = tuple(str(model) for model in content["models"])
        expires = datetime.fromisoformat(str(content["expires"]))
    except (KeyError, TypeError, ValueError) as error:
        raise ReleaseError(f"{manifest}: not the manifest of a release: {error}") from None
    if expires.tzinfo is None:
        expires = expires.replace(tzinfo=UTC)
    if expires <= now:
        raise ReleaseError(f"{manifest}: expired on {expires:%Y-%m-%d %H:%M} UTC: sign the release again")
    size, found = _measure(image)
    if size != length:
        raise ReleaseError(f"{image}: has {size} bytes, {manifest} says {length}")
    if found != sha256:
        raise ReleaseError(f"{image}: has the SHA-256 {found}, {manifest} says {sha256}")
    release = Release(kind, version, length, digest, models, install)
    return ReleaseFiles(manifest.resolve(), image.resolve(), release, found)


def _content(path: Path) -> tuple[dict[str, Any], str]:
    """The manifest within its envelope, and the SHA-256 of its bytes."""
    try:
        data = base64.b64decode(json.loads(path.read_bytes())["manifest"], validate=True)
        content = json.loads(data)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read: {error.strerror}") from None
    except (ValueError, KeyError, TypeError, binascii.Error):
        raise ReleaseError(f"{path}: not a signed manifest: make one with `wattfleet release sign`") from None
    if not isinstance(content, dict):
        raise ReleaseError(f"{path}: the manifest is {content!r}, expected a mapping")
    return content, hashlib.sha256(data).hexdigest()


def _measure(path: Path) -> tuple[int, str]:
    hashed = hashlib.sha256()
    size = 0
    try:
        with path.open("rb") as file:
            while block := file.read(BLOCK):
                hashed.update(block)
                size += len(block)
    except OSError as error:
        raise ReleaseError(f"{path}: cannot be read: {error.strerror}") from None
    return size, hashed.hexdigest()
