# SPDX-License-Identifier: Apache-2.0
"""Processes by (pid, start time): a pid alone may belong to somebody else by the time it is used."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


def start_time(pid: int) -> int | None:
    """Clock ticks from the machine's start to the process's (proc(5), stat, 22); None when it is gone."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()
    # A zombie has ended; only its parent has not looked yet.
    return None if fields[0] == "Z" else int(fields[19])


@dataclass(frozen=True)
class Process:
    """A process that cannot be mistaken for a later one with the same pid."""

    pid: int
    started: int

    @classmethod
    def of(cls, pid: int) -> Process | None:
        started = start_time(pid)
        return None if started is None else cls(pid, started)

    @property
    def alive(self) -> bool:
        return start_time(self.pid) == self.started

    def send(self, signal_number: int) -> bool:
        """Whether the signal went out."""
        if not self.alive:
            return False
        try:
            os.kill(self.pid, signal_number)
        except ProcessLookupError:
            return False
        return True

    def kill(self, wait: float = 10.0) -> bool:
        """SIGKILL, and whether the process is gone afterwards. `wait` is in seconds."""
        self.send(signal.SIGKILL)
        deadline = time.monotonic() + wait
        while self.alive and time.monotonic() < deadline:
            time.sleep(0.02)
        return not self.alive

    def as_json(self) -> list[int]:
        return [self.pid, self.started]


def command_lines() -> Iterable[tuple[int, list[str]]]:
    """(pid, arguments) of every process that has arguments (kernel threads have none)."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            raw = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        if raw:
            yield int(entry.name), raw.decode(errors="replace").rstrip("\0").split("\0")


def children(pid: int) -> list[int]:
    """Pids of the direct children of a process."""
    found: list[int] = []
    for tasks in Path(f"/proc/{pid}/task").glob("*/children"):
        try:
            found += [int(child) for child in tasks.read_text().split()]
        except OSError:
            continue
    return found
