# SPDX-License-Identifier: Apache-2.0
"""Lines for the journal: one when a fault begins, a count while it lasts, one when it is over."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field

# A fault that lasts is told again so often, in s.
REMINDER = 3600.0
# A fault that comes back within so long has never been away: it is counted, not told again. In s.
SETTLED = 300.0
# So many texts of one fault are told. A device that invents a new one each time must not fill the journal.
MAX_TEXTS = 8

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
    """All that goes wrong with one subject, from its first sign to its last."""

    since: float
    told: float
    last: str = ""
    count: int = 0
    texts: set[str] = field(default_factory=set)
    # When it was last seen to be well; None while it is not.
    well: float | None = None
    returned: bool = False


class Faults:
    """Faults by what they concern. Each text of a fault is told once, repetitions are counted.

    A subject that is well and ill in turns (a line with noise) is told once too: its fault is over only when
    it has been well for `SETTLED` seconds.
    """

    def __init__(self, now: Callable[[], float] = time.monotonic) -> None:
        self._now = now
        self._known: dict[str, _Fault] = {}

    def report(self, subject: str, text: str, cause: str) -> None:
        """A fault of `subject` has happened."""
        now = self._now()
        fault = self._known.get(subject)
        if fault is None or (fault.well is not None and now - fault.well >= SETTLED):
            fault = self._known[subject] = _Fault(now, now)
        elif fault.well is not None:
            fault.returned = True
        fault.well = None
        fault.count += 1
        fault.last = text
        if text not in fault.texts and len(fault.texts) < MAX_TEXTS:
            fault.texts.add(text)
            fault.told = now
            log.warning("%s: %s. Likely cause: %s", subject, text, cause)
        elif now - fault.told >= REMINDER:
            fault.told = now
            minutes = (now - fault.since) / 60
            log.warning("%s: %s (%d faults in %.0f min)", subject, text, fault.count, minutes)

    def over(self, subject: str) -> None:
        """`subject` is well."""
        fault = self._known.get(subject)
        if fault is None:
            return
        now = self._now()
        if fault.well is None:
            fault.well = now
            if not fault.returned:
                self._tell_end(subject, fault, now)
        elif now - fault.well >= SETTLED:
            if fault.returned:
                self._tell_end(subject, fault, fault.well)
            del self._known[subject]

    @staticmethod
    def _tell_end(subject: str, fault: _Fault, end: float) -> None:
        seconds = end - fault.since
        log.info(
            "%s: well again after %.0f s (last: %s, %d times)", subject, seconds, fault.last, fault.count
        )
