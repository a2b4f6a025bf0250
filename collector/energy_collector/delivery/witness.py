# SPDX-License-Identifier: Apache-2.0
"""What the hub has signed over this site's batches, kept here, where the hub cannot change it
(docs/reference/checkpoint-format.md).

A new one has to prove that it goes on from one that is held. So a hub that has lost or changed what it had received is
found out: it can sign nothing that fits.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import errno
import hashlib
import json
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

# The newest that are held to compare with, and the size of the file at which the older half of it goes.
HELD = 64
MAX_FILE = 1 << 20
# What a message may be at most: a path has a hash of 64 digits for each doubling of the sites and of the batches.
MAX_MESSAGE = 64 << 10

_CHECKPOINT = re.compile(
    r"energy/v1/checkpoint\nnumber ([1-9][0-9]{0,17})\ntime ([0-9T:.-]{23}Z)\nprevious ([0-9a-f]{64})\n"
    r"sites ([1-9][0-9]{0,8})\nroot ([0-9a-f]{64})\nkey [0-9a-f]{16}\n",
    re.ASCII,
)
_SITE_PREFIX = b"energy/v1/site\0"


class RefusedError(ValueError):
    """A witness that is false, or does not go on from what is held; the message says how."""


class Witness(NamedTuple):
    """A line of the file. `digest` is that of checkpoint and signature, `generation` what the hub called its database
    then."""

    number: int
    time: str
    previous: str
    digest: str
    key: bytes
    size: int
    root: bytes
    generation: str = ""


class Witnesses:
    """The file, and the rules for what goes into it."""

    def __init__(self, path: Path, site: str) -> None:
        self._path = path
        self._site = site
        self._held: list[Witness] = []
        self._refused = 0
        self._read = False

    def status(self) -> dict[str, Any]:
        """The part of the status that tells the hub what is held; nothing when nothing is."""
        # A file that cannot be read is told of when the next witness comes.
        with contextlib.suppress(OSError):
            self._load()
        if not self._held and not self._refused:
            return {}
        found: dict[str, Any] = {"refused": self._refused}
        if self._held:
            found |= {"number": self._held[-1].number, "size": self._held[-1].size}
        return {"witness": found}

    @property
    def holds_only_one(self) -> bool:
        """Whether the next one can go on from one alone: the first, or the first of another database."""
        return len(self._held) == 1

    def take(self, payload: bytes, generation: str = "") -> bool:
        """Keep a witness, durably; false for one that is held already, or that cannot prove itself yet. Raises
        RefusedError, OSError.

        `generation` names the hub's database. After another one has taken its place, as when it was restored from a
        backup, what does not go on begins anew, behind what was held: that stays in the file, for an audit."""
        self._load()
        try:
            document, one = _parse(payload, self._site)
            one = one._replace(generation=generation)
            try:
                if not self._goes_on(one, document.get("since")):
                    return False
            except RefusedError:
                if not self._begins_anew(one):
                    raise
                self._held = []
        except RefusedError:
            self._refused += 1
            raise
        document["generation"] = generation
        # How it goes on from the one before is checked, and not needed any more.
        document.pop("since", None)
        self._append(json.dumps(document, separators=(",", ":")).encode() + b"\n")
        self._held = [*self._held[-HELD + 1 :], one]
        return True

    def _goes_on(self, new: Witness, since: object) -> bool:
        if not self._held:
            return True
        last = self._held[-1]
        if new.key != last.key:
            raise RefusedError(f"checkpoint {new.number} is signed with another key than those before it")
        if new.number <= last.number:
            known = next((one for one in self._held if one.number == new.number), None)
            if known is not None and known.digest != new.digest:
                raise RefusedError(f"checkpoint {new.number} is another one than the one that is held")
            if known is None and new.time > last.time:
                # The hub counts anew. One that is older in time too was kept by a broker that is behind.
                raise RefusedError(f"checkpoint {new.number} was signed after {last.number}, which is held")
            return False
        if new.time < last.time:
            # Of a database that was set back, as a broker still has it.
            return False
        if new.number == last.number + 1 and new.previous != last.digest:
            raise RefusedError(f"checkpoint {new.number} does not follow {last.number}, which is held")
        if new.size < last.size:
            raise RefusedError(
                f"checkpoint {new.number} knows {new.size} batches of this site, {last.number} knew {last.size}"
            )
        if new.size == last.size:
            if new.root != last.root:
                raise RefusedError(f"checkpoint {new.number} has another tree of the same {new.size} batches")
            return True
        return self._is_proven(new, since)

    def _begins_anew(self, new: Witness) -> bool:
        last = self._held[-1]
        is_other = bool(last.generation) and bool(new.generation) and new.generation != last.generation
        return is_other and new.key == last.key and new.time > last.time

    def _is_proven(self, new: Witness, since: object) -> bool:
        """Whether its tree begins with one that is held. The hub sends the proof that our status asks for, so that
        after an outage one or two may come without it."""
        if not isinstance(since, dict):
            return False
        base = next((one for one in reversed(self._held) if one.size == since.get("size")), None)
        if base is None:
            return False
        if not is_consistent(base.size, base.root, new.size, new.root, _hashes(since.get("path"))):
            raise RefusedError(
                f"checkpoint {new.number}: its tree of {new.size} batches does not begin with the {base.size}"
                f" that checkpoint {base.number} was signed over"
            )
        return True

    # The file.

    def _load(self) -> None:
        if self._read:
            return
        try:
            data = self._path.read_bytes()
        except FileNotFoundError:
            data = b""
        lines = data.split(b"\n")
        # What follows the last line break was cut by a loss of power, and the hub sends it again.
        held = [one for one in map(self._known, lines[-HELD - 1 : -1]) if one is not None]
        self._held = [one for one in held if one.generation == held[-1].generation]
        if lines[-1]:
            os.truncate(self._path, len(data) - len(lines[-1]))
        self._read = True

    def _known(self, line: bytes) -> Witness | None:
        """A line of the file; None for a damaged one, since the next one says as much."""
        try:
            document, one = _parse(line, self._site)
        except RefusedError:
            return None
        generation = document.get("generation")
        return one._replace(generation=generation) if isinstance(generation, str) else one

    def _append(self, line: bytes) -> None:
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(handle).st_size
            if size == 0 or size + len(line) <= MAX_FILE:
                whole = False
                try:
                    whole = os.write(handle, line) == len(line)
                    os.fsync(handle)
                finally:
                    if not whole:
                        # Half a line would spoil the next one.
                        os.ftruncate(handle, size)
                if not whole:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                return
        finally:
            os.close(handle)
        self._halve(line)

    def _halve(self, line: bytes) -> None:
        data = self._path.read_bytes()
        kept = data[data.index(b"\n", len(data) // 2) + 1 :]
        new = self._path.with_name(f"{self._path.name}.new")
        handle = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        with os.fdopen(handle, "wb") as file:
            file.write(kept + line)
            file.flush()
            os.fsync(handle)
        new.rename(self._path)
        folder = os.open(self._path.parent, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(folder)
        finally:
            os.close(folder)


def _parse(payload: bytes, site: str) -> tuple[dict[str, Any], Witness]:
    """A message that is proven to be what it says. Raises RefusedError."""
    if len(payload) > MAX_MESSAGE:
        raise RefusedError(f"{len(payload)} bytes, a witness has at most {MAX_MESSAGE}")
    try:
        data = json.loads(payload)
        text, size, index = data["checkpoint"], data["size"], data["index"]
        signature = base64.b64decode(data["signature"], validate=True)
        key = base64.b64decode(data["key"], validate=True)
        root, path = bytes.fromhex(data["root"]), _hashes(data["path"])
        match = _CHECKPOINT.fullmatch(text)
    except (ValueError, KeyError, TypeError, binascii.Error, RecursionError) as error:
        raise RefusedError(f"it is no witness: {error}") from None
    if match is None or type(size) is not int or type(index) is not int or not 0 < size < 1 << 63:
        raise RefusedError("it is no witness: checkpoint, size or index has the wrong form")
    if data.get("site") != site:
        raise RefusedError(f"it is of site {data.get('site')!r:.40}")
    try:
        Ed25519PublicKey.from_public_bytes(key).verify(signature, text.encode())
    except (InvalidSignature, ValueError):
        raise RefusedError(f"checkpoint {match[1]} is not signed by the key that it names") from None
    name = site.encode()
    leaf = _leaf(_SITE_PREFIX + bytes([len(name)]) + name + size.to_bytes(8, "big") + root)
    if root_from_inclusion(leaf, index, int(match[4]), path) != bytes.fromhex(match[5]):
        raise RefusedError(f"checkpoint {match[1]} was not signed over this tree")
    digest = hashlib.sha256(text.encode() + signature).hexdigest()
    return data, Witness(int(match[1]), match[2], match[3], digest, key, size, root)


def _hashes(path: object) -> list[bytes]:
    if not isinstance(path, list) or len(path) > 128:
        raise RefusedError("it is no witness: a path has the wrong form")
    try:
        return [bytes.fromhex(one) for one in path]
    except (TypeError, ValueError):
        raise RefusedError("it is no witness: a path has the wrong form") from None


# RFC 9162, section 2.1.


def _leaf(data: bytes) -> bytes:
    return hashlib.sha256(b"\0" + data).digest()


def _node(left: bytes, right: bytes) -> bytes:
    return hashlib.sha256(b"\1" + left + right).digest()


def root_from_inclusion(leaf: bytes, index: int, size: int, path: Sequence[bytes]) -> bytes | None:
    """Section 2.1.3.2; None for a path that does not fit the place."""
    if not 0 <= index < size:
        return None
    last, found = size - 1, leaf
    for one in path:
        if last == 0:
            return None
        if index & 1 or index == last:
            found = _node(one, found)
            while index and not index & 1:
                index, last = index >> 1, last >> 1
        else:
            found = _node(found, one)
        index, last = index >> 1, last >> 1
    return found if last == 0 else None


def is_consistent(old: int, old_root: bytes, size: int, root: bytes, path: Sequence[bytes]) -> bool:
    """Section 2.1.4.2, for 0 < `old` < `size`: whether the smaller tree is the beginning of the larger one."""
    hashes = [old_root, *path] if old & (old - 1) == 0 else list(path)
    if not hashes:
        return False
    place, last = old - 1, size - 1
    while place & 1:
        place, last = place >> 1, last >> 1
    first = second = hashes[0]
    for one in hashes[1:]:
        if last == 0:
            return False
        if place & 1 or place == last:
            first, second = _node(one, first), _node(one, second)
            while place and not place & 1:
                place, last = place >> 1, last >> 1
        else:
            second = _node(second, one)
        place, last = place >> 1, last >> 1
    return last == 0 and first == old_root and second == root
