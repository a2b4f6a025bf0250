# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""Ledgers: files with one JSON object a line that are only ever appended to. The one reader and the one writer of the
collection.

The format is docs/reference/certificate-ledger.md, with vectors beside it that every reader is held against.
"""

from __future__ import annotations

import fcntl
import json
import os
import typing as t
from pathlib import Path

from ansible_collections.wattfleet.energy.plugins.module_utils.durable_file import sync_folder

Entry = dict[str, t.Any]


class NoEntryError(ValueError):
    """A line that no power cut explains; the message names it, in one line."""


def read(path: Path, needed: t.Sequence[str] = ()) -> tuple[list[Entry], list[str]]:
    """The entries of a ledger, and a sentence about its last line where that is torn.

    Each entry has the keys `needed`. Raises NoEntryError: who overlooks an entry leaves a certificate valid."""
    try:
        with path.open("rb") as ledger:
            # Not while a writer is in the middle of a line.
            fcntl.flock(ledger, fcntl.LOCK_SH)
            data = ledger.read()
    except FileNotFoundError:
        return [], []
    found: list[Entry] = []
    torn: list[str] = []
    lines = data.split(b"\n")
    for number, line in enumerate(lines, 1):
        entry = _object(line)
        if entry is not None:
            missing = [key for key in needed if key not in entry]
            if missing:
                raise NoEntryError(
                    f"{path}, line {number}: without {' and '.join(missing)}; put the line right first"
                )
            found.append(entry)
        elif line and number == len(lines):
            # What follows the last end of line is the only place where a power cut leaves a part of an entry.
            torn.append(
                f"{path}: the last line is torn and left out: {_shown(line)!r}. The power was cut while it was "
                "written, before anything was done with it"
            )
        elif line.strip():
            raise NoEntryError(
                f"{path}, line {number}: {_shown(line)!r} is no entry; put the line right first"
            )
    return found, torn


def append(path: Path, entries: t.Sequence[Entry]) -> str:
    """Append entries, on the disk when this returns. A torn last line gives way to them, and is returned."""
    ledger = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(ledger, fcntl.LOCK_EX)
        size = os.fstat(ledger).st_size
        tail = _everything(ledger, size).rpartition(b"\n")[2]
        torn = ""
        data = "".join(json.dumps(entry) + "\n" for entry in entries).encode()
        if tail and _object(tail) is not None:
            data = b"\n" + data
        elif tail:
            # Joined with the next entry it would spoil that too. Nobody has acted on it: its writer never came back.
            os.ftruncate(ledger, size - len(tail))
            torn = _shown(tail)
        # A file system that is full may take a part of it.
        while data:
            data = data[os.write(ledger, data) :]
        os.fsync(ledger)
        if size == 0:
            sync_folder(path.parent)
    finally:
        os.close(ledger)
    return torn


def _object(line: bytes) -> Entry | None:
    try:
        found = json.loads(line)
    except ValueError:
        return None
    return found if isinstance(found, dict) else None


def _everything(ledger: int, size: int) -> bytes:
    data = b""
    while len(data) < size:
        part = os.pread(ledger, size - len(data), len(data))
        if not part:
            break
        data += part
    return data


def _shown(line: bytes) -> str:
    return line[:80].decode(errors="replace")
