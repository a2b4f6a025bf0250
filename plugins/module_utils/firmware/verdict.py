# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Whether this gateway takes a release now: its model, what it runs and has taken before, and the image on its disk."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from .manifest import Manifest, Refused
from .versions import parts

BLOCK = 1 << 20


@dataclass(frozen=True)
class Gateway:
    """`version` is what the device itself tells; `number` the highest release that was taken, `taken` its digest."""

    model: str
    version: str
    number: int = 0
    taken: str = ""


def check_manifest(manifest: Manifest, digest: str, gateway: Gateway, now: datetime) -> None:
    """Raises Refused with the reason; `digest` is that of the manifest's bytes, `now` UTC."""
    if gateway.model not in manifest.models:
        raise Refused(
            f"the release is for {', '.join(manifest.models)}, and this gateway is a {gateway.model}"
        )
    if now >= manifest.expires:
        raise Refused(
            f"the release expired on {manifest.expires:%Y-%m-%d %H:%M} UTC; it is {now:%Y-%m-%d %H:%M}"
        )
    if manifest.number < gateway.number or (manifest.number == gateway.number and digest != gateway.taken):
        raise Refused(
            f"release number {manifest.number} is a replay: this gateway has taken number {gateway.number}"
        )
    old, new = parts(gateway.version), parts(manifest.version)
    if new < old and not manifest.downgrade:
        raise Refused(
            f"{manifest.version} is older than {gateway.version}, which runs, and the release is no downgrade"
        )
    if manifest.minimum is not None and old < parts(manifest.minimum):
        raise Refused(f"{gateway.version} runs, and this release needs {manifest.minimum} to start from")
    if old in {parts(one) for one in manifest.forbidden}:
        raise Refused(f"this release must not be installed over {gateway.version}")


def check_image(manifest: Manifest, path: Path) -> None:
    """Read the image back from the disk and compare it. Raises Refused, OSError."""
    found = path.stat().st_size
    if found != manifest.length:
        raise Refused(
            f"{path.name} has {found} bytes, and the manifest says {manifest.length}: it is not whole"
        )
    hashed = hashlib.sha256()
    with path.open("rb") as stream:
        # What is still in memory only says what was sent, not what the disk has kept.
        os.fsync(stream.fileno())
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        while block := stream.read(BLOCK):
            hashed.update(block)
    if hashed.hexdigest() != manifest.sha256:
        raise Refused(
            f"{path.name} is not what was signed: SHA-256 {hashed.hexdigest()[:16]}…, not {manifest.sha256[:16]}…"
        )
