# SPDX-License-Identifier: Apache-2.0
"""The SQLite file beneath the buffer: opened by two services at once, put aside when it is damaged.

A lock file beside it is held shared during each transaction and alone while the file is made or put aside, so that
nobody writes to a file that has just been put aside.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime, timezone
from pathlib import Path

from energy_collector.errors import UnusableError
from energy_collector.storage import wal
from energy_collector.storage.chunk import CorruptError

BUSY_TIMEOUT = 30.0
# docs/decisions/0020-buffer-in-chunks.md says how these were chosen.
PAGE_SIZE = 512
CHECKPOINT_PAGES = 1000
# Pages kept in memory, in KiB: each is written once and read once. SQLite would take 2000.
CACHE = 256
# What the write-ahead log is cut back to after a checkpoint, in bytes. Below that its blocks are used again, so that a
# commit changes nothing of the file but the bytes of one or two blocks.
WAL_LIMIT = 4 << 20
# Room that is kept for the day when the disk is full, in bytes: what SQLite needs to take its log into the file once
# more. Without it not even what the hub has could be deleted.
RESERVE = 1 << 20
# Files put aside that are kept: the newest, and older ones while all together are not larger.
KEPT = 3
KEPT_BYTES = 512 << 20
# A file of up to this size is checked whole when it is opened, in bytes.
CHECKED_BYTES = 32 << 20
# What SQLite says of a file that is damaged, or was never one of its own.
DAMAGED = ("malformed", "not a database", "unsupported file format")


class BufferUnusableError(UnusableError):
    """The file cannot be used as a buffer; the message is one line for the operator."""


class BufferReplacedError(UnusableError):
    """The file was put aside, by us or by the other service; a new one is to be opened. One line."""


class BufferFile:
    """A connection. `set_up` makes the tables or refuses the file with CorruptError. Raises BufferUnusableError."""

    def __init__(self, path: Path, set_up: Callable[[sqlite3.Connection], None]) -> None:
        self.path = path
        # Why files were put aside by this connection, a line each.
        self.put_aside: list[str] = []
        try:
            self._lock = os.open(f"{path}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BufferUnusableError(f"{path}: unable to open: {error.strerror}") from error
        opened: list[sqlite3.Connection] = []
        try:
            with self._locked(fcntl.LOCK_EX):
                try:
                    self._open(set_up, opened)
                except (sqlite3.DatabaseError, CorruptError) as error:
                    if not is_damage(error):
                        raise
                    self._put_aside(str(error))
                    for one in opened:
                        _keep(one)
                    opened.clear()
                    self._open(set_up, opened)
        except (sqlite3.Error, CorruptError, OSError) as error:
            for one in opened:
                one.close()
            os.close(self._lock)
            raise BufferUnusableError(f"{path}: {error}") from error

    def _open(self, set_up: Callable[[sqlite3.Connection], None], opened: list[sqlite3.Connection]) -> None:
        if self.path.exists():
            if not self.path.stat().st_size:
                raise CorruptError("the file is empty")
            damage = wal.damage(self.path)
            if damage:
                raise CorruptError(damage)
        self.db = sqlite3.connect(
            self.path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
        )
        opened.append(self.db)
        self._prepare(set_up)
        found = self.path.stat()
        self._identity = (found.st_dev, found.st_ino)
        self.reserve()

    def _prepare(self, set_up: Callable[[sqlite3.Connection], None]) -> None:
        self.db.execute(f"PRAGMA page_size = {PAGE_SIZE}")
        self.db.execute("PRAGMA journal_mode = WAL")
        self.db.execute(f"PRAGMA cache_size = -{CACHE}")
        self.db.execute("PRAGMA synchronous = FULL")
        self.db.execute(f"PRAGMA wal_autocheckpoint = {CHECKPOINT_PAGES}")
        self.db.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT}")
        self.db.execute("PRAGMA cell_size_check = ON")
        # Debian's SQLite overwrites with zeros what is deleted: four times the writes of a sealed batch.
        self.db.execute("PRAGMA secure_delete = OFF")
        if self.path.stat().st_size <= CHECKED_BYTES:
            found = self.db.execute("PRAGMA quick_check(1)").fetchone()[0]
            if found != "ok":
                raise CorruptError(f"malformed: {found}")
        self.db.execute("BEGIN IMMEDIATE")
        try:
            set_up(self.db)
            self.db.execute("COMMIT")
        except BaseException:
            _roll_back(self.db)
            raise

    @contextmanager
    def _locked(self, how: int) -> Iterator[None]:
        fcntl.flock(self._lock, how)
        try:
            yield
        finally:
            fcntl.flock(self._lock, fcntl.LOCK_UN)

    def replaced(self) -> bool:
        """Whether another file, or none, has taken the place of this one."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return True
        return (found.st_dev, found.st_ino) != self._identity

    @contextmanager
    def guarded(self) -> Iterator[None]:
        """Puts the file aside when what is done with it shows that it is damaged; raises BufferReplacedError then."""
        try:
            yield
        except (sqlite3.DatabaseError, CorruptError) as error:
            if not is_damage(error):
                raise
            with self._locked(fcntl.LOCK_EX):
                if not self.replaced():
                    self._put_aside(str(error))
            raise BufferReplacedError(f"{self.path}: {error}; it was put aside") from error

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """BEGIN IMMEDIATE; committed at the end, rolled back on an error."""
        with self.guarded(), self._locked(fcntl.LOCK_SH):
            if self.replaced():
                raise BufferReplacedError(f"{self.path} was put aside by the other service")
            self.db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self.db.execute("COMMIT")
            except BaseException:
                _roll_back(self.db)
                raise

    def reserve(self) -> None:
        """Set room aside, unless it is, or there is none."""
        path = Path(f"{self.path}.reserve")
        if path.exists():
            return
        try:
            with path.open("wb") as file:
                os.posix_fallocate(file.fileno(), 0, RESERVE)
        except OSError:
            path.unlink(missing_ok=True)

    def release(self) -> bool:
        """Give the room back for a transaction that deletes; False when there is none."""
        try:
            Path(f"{self.path}.reserve").unlink()
        except OSError:
            return False
        self.db.execute("PRAGMA wal_checkpoint").fetchall()
        return True

    def close(self) -> None:
        """Close the connection."""
        with self._locked(fcntl.LOCK_SH):
            if self.replaced():
                _keep(self.db)
            else:
                self.db.close()
        os.close(self._lock)

    # Files put aside.

    def _put_aside(self, why: str) -> None:
        """Rename the file, and remove the oldest ones that were renamed before."""
        now = time.time()
        stamp = datetime.fromtimestamp(int(now), timezone.utc).strftime("%Y%m%dT%H%M%S")
        target = f"{self.path}.corrupt-{stamp}.{int(now * 1000) % 1000:03d}Z"
        # The file itself last: killed in between, it has lost its log only, and is put aside at the next start.
        for suffix in ("-shm", "-wal", ""):
            old = Path(f"{self.path}{suffix}")
            if old.exists():
                old.rename(f"{target}{suffix}")
        self.put_aside.append(f"{why}; kept as {target}")
        count = quarantined(self.path) + 1
        os.pwrite(self._lock, f"{count}\n".encode(), 0)
        kept_bytes = 0
        aside = sorted(self.path.parent.glob(f"{self.path.name}.corrupt-*Z"), reverse=True)
        for number, one in enumerate(aside):
            files = [found for suffix in ("", "-wal", "-shm") if (found := Path(f"{one}{suffix}")).exists()]
            kept_bytes += sum(file.stat().st_size for file in files)
            if number and (number >= KEPT or kept_bytes > KEPT_BYTES):
                for file in files:
                    file.unlink()


def quarantined(path: Path) -> int:
    """How many files were put aside since the first one was made."""
    try:
        return int(Path(f"{path}.lock").read_text(encoding="ascii") or 0)
    except (OSError, ValueError):
        return 0


def is_damage(error: Exception) -> bool:
    """Whether an error says that the file is damaged, rather than the disk full or away."""
    return isinstance(error, CorruptError) or any(text in str(error) for text in DAMAGED)


def _roll_back(db: sqlite3.Connection) -> None:
    # A full disk has SQLite roll back by itself.
    if db.in_transaction:
        db.execute("ROLLBACK")


def _keep(db: sqlite3.Connection) -> None:
    """Never close a connection to a file that was renamed, at the end of the process neither: SQLite would remove the
    log of the new file with it, since it knows the log by its name only. The frame of a thread that waits for ever is
    what Python never clears."""

    def wait(_: sqlite3.Connection) -> None:
        threading.Event().wait()

    threading.Thread(target=wait, args=(db,), name="kept connection", daemon=True).start()
