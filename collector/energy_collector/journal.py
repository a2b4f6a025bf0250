# SPDX-License-Identifier: Apache-2.0
"""Lines for the journal: one when a fault begins, a count while it lasts, one when it is over."""

from __future__ import annotations

import logging
import sys
import time
from dataclasses import dataclass

# A fault that lasts is told again so often, in s.
REMINDER = 3600.0

log = logging.getLogger("energy")

# sd-daemon(3): journald reads the priority from the start of a line.
PRIORITIES = {logging.DEBUG: 7, logging.INFO: 6, logging.WARNING: 4, logging.ERROR: 3, logging.CRITICAL: 2}


class _Formatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        line = record.getMessage().replace("\n", " | ")
        return f"<{PRIORITIES.get(record.levelno, 5)}>{line}"


def set_up() -> None:
    """Send our lines to standard error, where systemd takes them up."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(_Formatter())
    log.handlers[:] = [handler]
    log.setLevel(logging.INFO)
    log.propagate = False


@dataclass
class _Fault:
    text: str
    since: float
    told: float
    count: int = 1


class Faults:
    """Faults by what they concern. A fault with another text is a new one; repeated ones are counted."""

    def __init__(self) -> None:
        self._open: dict[str, _Fault] = {}

    def report(self, subject: str, text: str, cause: str) -> None:
        """A fault of `subject` has happened."""
        now = time.monotonic()
        fault = self._open.get(subject)
        if fault is None or fault.text != text:
            self._open[subject] = _Fault(text, now if fault is None else fault.since, now)
            log.warning("%s: %s. Likely cause: %s", subject, text, cause)
            return
        fault.count += 1
        if now - fault.told >= REMINDER:
            fault.told = now
            log.warning(
                "%s: %s (%d times since %.0f min)", subject, text, fault.count, (now - fault.since) / 60
            )

    def over(self, subject: str) -> None:
        """`subject` is well."""
        fault = self._open.pop(subject, None)
        if fault is not None:
            seconds = time.monotonic() - fault.since
            log.info(
                "%s: well again after %.0f s (last: %s, %d times)", subject, seconds, fault.text, fault.count
            )
