# SPDX-License-Identifier: Apache-2.0
"""A checkpoint: what the hub signs of all its sites' trees at one moment (docs/reference/checkpoint-format.md)."""

from __future__ import annotations

import hashlib
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from energy_hub.evidence import merkle
from energy_hub.evidence.keys import is_signed, key_id, raw

SITE_PREFIX = b"energy/v1/site\0"
NO_PREVIOUS = bytes(32)
_BODY = re.compile(
    r"energy/v1/checkpoint\n"
    r"number ([1-9][0-9]{0,17})\n"
    r"time (\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3})Z\n"
    r"previous ([0-9a-f]{64})\n"
    r"sites (0|[1-9][0-9]{0,8})\n"
    r"root ([0-9a-f]{64})\n"
    r"key ([0-9a-f]{16})\n",
    re.ASCII,
)


class CheckpointError(ValueError):
    """A text is no checkpoint."""


@dataclass(frozen=True, slots=True)
class SiteTree:
    """One site's tree as a checkpoint has it."""

    size: int
    root: bytes


@dataclass(frozen=True, slots=True)
class Body:
    """What is signed. `root` is that of a tree over the sites, `key` the id of the hub's key."""

    number: int
    time: datetime
    previous: bytes
    sites: int
    root: bytes
    key: str

    def text(self) -> str:
        time = self.time.astimezone(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
        return (
            f"energy/v1/checkpoint\nnumber {self.number}\ntime {time}\nprevious {self.previous.hex()}\n"
            f"sites {self.sites}\nroot {self.root.hex()}\nkey {self.key}\n"
        )


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """A body as text, with its signature and the 32 bytes of the key."""

    text: str
    signature: bytes
    key: bytes

    @property
    def digest(self) -> bytes:
        """What the next checkpoint names, and a time stamp is made of."""
        return hashlib.sha256(self.text.encode() + self.signature).digest()

    def body(self) -> Body:
        """Raises CheckpointError."""
        match = _BODY.fullmatch(self.text)
        if match is None:
            raise CheckpointError("is no checkpoint of version 1")
        try:
            time = datetime.fromisoformat(match[2]).replace(tzinfo=UTC)
        except ValueError:
            raise CheckpointError(f"has time {match[2]}") from None
        return Body(
            int(match[1]), time, bytes.fromhex(match[3]), int(match[4]), bytes.fromhex(match[5]), match[6]
        )

    def is_signed(self) -> bool:
        return is_signed(self.key, self.signature, self.text.encode())


def site_leaf(site: str, tree: SiteTree) -> bytes:
    """The hash of a site's leaf in the tree over the sites."""
    name = site.encode()
    return merkle.leaf_hash(
        SITE_PREFIX + struct.pack(">B", len(name)) + name + struct.pack(">Q", tree.size) + tree.root
    )


def fleet_root(sites: Mapping[str, SiteTree]) -> bytes:
    """The root of the tree over the sites, in the order of their names as bytes."""
    return merkle.root(site_leaf(name, sites[name]) for name in sorted(sites))


def sign(
    key: Ed25519PrivateKey, number: int, time: datetime, previous: bytes, sites: Mapping[str, SiteTree]
) -> Checkpoint:
    public = raw(key.public_key())
    body = Body(number, time, previous, len(sites), fleet_root(sites), key_id(public))
    text = body.text()
    return Checkpoint(text, key.sign(text.encode()), public)
