# SPDX-License-Identifier: Apache-2.0
"""Log lines: to standard output for the journal and to a file that logrotate may move away."""

from __future__ import annotations

import logging
import sys
import time
import traceback
from collections.abc import Hashable
from logging.handlers import WatchedFileHandler
from pathlib import Path

_LEVELS = {logging.DEBUG: "DBG", logging.INFO: "INF", logging.WARNING: "WRN", logging.ERROR: "ERR"}
# The journal reads a priority in angle brackets off the start of a line (sd-daemon(3)).
_PRIORITIES = {logging.DEBUG: "<7>", logging.INFO: "<6>", logging.WARNING: "<4>", logging.ERROR: "<3>"}


class _Formatter(logging.Formatter):
    """One line a record: time in UTC, level in three letters, message. Line breaks in a message are
    escaped, because part of it may come from the network."""

    def __init__(self, *, for_journal: bool) -> None:
        super().__init__()
        self.for_journal = for_journal

    def format(self, record: logging.LogRecord) -> str:
        level = _LEVELS.get(record.levelno, record.levelname)
        text = f"{level} {record.getMessage()}".replace("\r", "\\r").replace("\n", "\\n")
        if self.for_journal:
            return f"{_PRIORITIES.get(record.levelno, '')}{text}"
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created))
        return f"{stamp}.{int(record.msecs):03}Z {text}"


def set_up(file: Path | None, *, for_journal: bool) -> None:
    """Send the package's log to standard output and, when given, to a file. Raises OSError."""
    log = logging.getLogger("energy_hub")
    log.setLevel(logging.INFO)
    log.handlers.clear()
    stream = logging.StreamHandler(sys.stdout)
    stream.setFormatter(_Formatter(for_journal=for_journal))
    log.addHandler(stream)
    if file is not None:
        handler = WatchedFileHandler(file, encoding="utf-8")
        handler.setFormatter(_Formatter(for_journal=False))
        log.addHandler(handler)


def to_file(text: str) -> None:
    """An error that standard error has already, for the file of `set_up`, where there is one."""
    log = logging.getLogger("energy_hub")
    for handler in log.handlers:
        if isinstance(handler, WatchedFileHandler):
            handler.handle(log.makeRecord(log.name, logging.ERROR, __file__, 0, text, (), None))


def place(error: BaseException) -> str:
    """An exception that nobody has foreseen, in one line: what it is, and where it was raised."""
    at = traceback.extract_tb(error.__traceback__)[-1]
    return f"{error!r} at {Path(at.filename).name}:{at.lineno}"


class Throttle:
    """Lets one line through for each key and period, and counts what it held back."""

    def __init__(self, period: float, limit: int = 10_000) -> None:
        self.period = period
        self.limit = limit
        self._last: dict[Hashable, tuple[float, int]] = {}

    def __call__(self, key: Hashable) -> int | None:
        """None: stay silent. Otherwise the number of lines held back for this key since the last one."""
        now = time.monotonic()
        last, held = self._last.get(key, (None, 0))
        if last is not None and now - last < self.period:
            self._last[key] = (last, held + 1)
            return None
        if len(self._last) >= self.limit:
            self._last.clear()
        self._last[key] = (now, 0)
        return held
