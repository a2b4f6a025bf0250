# SPDX-License-Identifier: Apache-2.0
"""Long steps say what they do and how long it took, on standard error."""

from __future__ import annotations

import sys
import time


class Progress:
    """One line a phase; on a terminal the running phase counts its seconds in place."""

    def __init__(self) -> None:
        self._tty = sys.stderr.isatty()
        self._phase = ""
        self._since = 0.0

    def start(self, phase: str) -> None:
        self.done()
        self._phase, self._since = phase, time.monotonic()
        if self._tty:
            self.tick()
        else:
            print(f"==> {phase} …", file=sys.stderr, flush=True)

    def tick(self, detail: str = "") -> None:
        """Shows that the phase still runs, optionally with a count."""
        if self._tty and self._phase:
            seconds = f"{time.monotonic() - self._since:.0f} s"
            print(f"\r\033[K==> {self._phase} …", detail, seconds, end="", file=sys.stderr, flush=True)

    def done(self) -> None:
        if not self._phase:
            return
        seconds = time.monotonic() - self._since
        if self._tty:
            print(f"\r\033[K==> {self._phase}: {seconds:.1f} s", file=sys.stderr, flush=True)
        elif seconds >= 1:
            print(f"    {self._phase}: {seconds:.1f} s", file=sys.stderr, flush=True)
        self._phase = ""

    def say(self, line: str) -> None:
        self.done()
        print(line, file=sys.stderr, flush=True)
