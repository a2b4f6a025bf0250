# SPDX-License-Identifier: Apache-2.0
# Copyright: Wattfleet contributors
"""The image that is on its way: what of it the gateway's disk has, and has for certain.

  incoming/<sha256>.image    the bytes so far
  incoming/<sha256>.json     how many of them were brought to the disk: the place where a transfer goes on
  incoming/<sha256>.release  the envelope that the image belongs to

After a power cut a file may be as long as it was written, and hold nothing where nothing was synced. So its length
counts for nothing, and the journal is written after the bytes were synced.
"""

from __future__ import annotations

import fcntl
import json
import os
import select
import signal
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..guard import durable
from .host import FirmwareError, Host
from .store import BASE

# Bytes after which they are brought to the disk: what a power cut can cost.
SYNC = 256 * 1024
READ = 64 * 1024
# Seconds without a byte after which the sender is gone, whatever TCP believes.
SILENT = 60.0
# Bytes that the disk keeps free.
SPARE = 8 * 1024 * 1024


class Incoming:
    """One image, named by its SHA-256."""

    def __init__(self, host: Host, sha256: str) -> None:
        if len(sha256) != 64 or set(sha256) - set("0123456789abcdef"):
            raise FirmwareError(f"found {sha256!r}, expected the SHA-256 of an image")
        self.folder = host.at(BASE) / "incoming"
        self.image = self.folder / f"{sha256}.image"
        self.release = self.folder / f"{sha256}.release"
        self._journal = self.folder / f"{sha256}.json"

    def offset(self) -> int:
        """How many bytes are on the disk for certain."""
        try:
            noted = int(json.loads(self._journal.read_text(encoding="ascii"))["offset"])
            return min(noted, self.image.stat().st_size)
        except (FileNotFoundError, NotADirectoryError):
            return 0
        except (ValueError, KeyError):
            raise FirmwareError(f"{self._journal} is damaged; `forget` the image and send it anew") from None

    def prepare(self, envelope: bytes, length: int) -> None:
        """Make room for one image: others are given up. Raises FirmwareError where the disk is too small."""
        durable.make_directory(self.folder, mode=0o700)
        for path in self.folder.iterdir():
            if path.name != "lock" and not path.name.startswith(self.image.stem):
                durable.remove(path)
        require_space(self.folder, length - self.offset(), "the image on its way")
        if not self.release.exists() or self.release.read_bytes() != envelope:
            durable.write(self.release, envelope)

    def receive(self, stream: int, offset: int, length: int) -> int:
        """Write what comes by a file descriptor, beginning at `offset` of the image. Returns what the disk has then.

        What the disk has already is passed over, so that the same bytes may come twice. The end of the stream, silence
        and SIGTERM or SIGHUP end it alike: what has come is kept.
        """
        with self._alone():
            has = self.offset()
            if offset > has:
                raise FirmwareError(f"these bytes begin at {offset}, and the gateway has {has}")
            handle = os.open(self.image, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
            try:
                os.ftruncate(handle, has)
                if has == 0:
                    durable.sync_file(self.folder)
                return self._write(handle, stream, has, has - offset, length)
            finally:
                os.close(handle)

    def _write(self, handle: int, stream: int, has: int, passed: int, length: int) -> int:
        position = has
        with _until_told() as told:
            while position < length and not told:
                if not select.select([stream], [], [], SILENT)[0]:
                    break
                block = os.read(stream, READ)
                if not block:
                    break
                if passed:
                    passed, block = max(passed - len(block), 0), block[passed:]
                block = block[: length - position]
                written = 0
                while written < len(block):
                    written += os.pwrite(handle, block[written:], position + written)
                position += len(block)
                if position - has >= SYNC:
                    has = self._note(handle, position)
        return self._note(handle, position) if position > has else has

    def _note(self, handle: int, position: int) -> int:
        """Bring the bytes to the disk, then the note that they are there."""
        os.fsync(handle)
        durable.watch("synced", self.image)
        durable.write(self._journal, json.dumps({"offset": position}).encode())
        return position

    def remove(self) -> None:
        """The journal goes first: without it the bytes count for nothing."""
        for path in (self._journal, self.image, self.release):
            if path.exists():
                durable.remove(path)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """One receiver at a time, the latest: one whose link was cut does not know yet that nobody sends any more."""
        durable.make_directory(self.folder, mode=0o700)
        handle = os.open(self.folder / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            deadline = time.monotonic() + 20
            while True:
                try:
                    fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    _end_receiver(os.pread(handle, 20, 0))
                    if time.monotonic() >= deadline:
                        raise FirmwareError("another transfer to this gateway does not end") from None
                    time.sleep(0.1)
            os.ftruncate(handle, 0)
            os.pwrite(handle, str(os.getpid()).encode(), 0)
            yield
        finally:
            os.close(handle)


def _end_receiver(noted: bytes) -> None:
    """Tell a receiver to keep what it has and to end; a process that merely has its number now is left alone."""
    if not noted.isdigit():
        return
    with suppress(OSError):
        if b"energy-firmware" in Path(f"/proc/{int(noted)}/cmdline").read_bytes():
            os.kill(int(noted), signal.SIGTERM)


@contextmanager
def _until_told() -> Iterator[list[int]]:
    """A list that a signal puts something into, and that wakes the wait for the next bytes."""
    told: list[int] = []

    class Told(Exception):  # noqa: N818  (never leaves this function)
        pass

    def tell(number: int, _frame: object) -> None:
        told.append(number)
        raise Told

    before = {number: signal.signal(number, tell) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        yield told
    except Told:
        pass
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def require_space(folder: Path, needed: int, what: str) -> None:
    """Raises FirmwareError unless a file system takes so many bytes more."""
    found = os.statvfs(folder)
    free = found.f_bavail * found.f_frsize
    if needed > 0 and needed + SPARE > free:
        raise FirmwareError(
            f"{folder} has {free >> 20} MiB free, and {what} needs {(needed + SPARE) >> 20} MiB with what stays free"
        )
