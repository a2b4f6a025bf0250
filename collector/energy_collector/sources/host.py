# SPDX-License-Identifier: Apache-2.0
"""The gateway's own health."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable
from pathlib import Path

from energy_collector import quality
from energy_collector.reading import Layout, Record, record
from energy_collector.sources.source import Source, Stamp

UNITS = {
    "load": "1",
    "memory_available": "%",
    "disk_free": "%",
    "uptime": "s",
    "clock_synchronised": "1",
}


class HostSource(Source):
    """Load, memory, disk, uptime and clock of the gateway.

    `folder` is on the file system of the buffer. The clock is told where systemd-timesyncd keeps it: the kernel's own
    answer (adjtimex) is closed to a service with ProtectClock, and chrony leaves no file.
    """

    def __init__(self, interval: float, folder: Path, root: Path = Path("/")) -> None:
        super().__init__("host", interval)
        self._folder = folder
        self._proc = root / "proc"
        self._timesync = root / "run" / "systemd" / "timesync"
        self._readers: dict[str, Callable[[], float]] = {
            "load": self._load,
            "memory_available": self._memory_available,
            "disk_free": self._disk_free,
            "uptime": self._uptime,
        }
        if self._timesync.is_dir():
            self._readers["clock_synchronised"] = self._clock_synchronised
        self._layout = Layout(
            tuple(f"host/{name}" for name in self._readers), tuple(UNITS[name] for name in self._readers)
        )

    @property
    def layouts(self) -> tuple[Layout, ...]:
        """One for all."""
        return (self._layout,)

    async def read(self, stamp: Stamp) -> list[Record]:
        """Read all."""
        moment = stamp()
        # A file system that hangs must not hold up the polling.
        values = await asyncio.get_running_loop().run_in_executor(None, self._read)
        return [record(self._layout, moment, values)]

    def _read(self) -> list[tuple[float | None, int]]:
        return [_tried(reader) for reader in self._readers.values()]

    def _load(self) -> float:
        """Processes that run or want to, mean of the last minute, per CPU: above 1 they wait for each other."""
        load = float((self._proc / "loadavg").read_text(encoding="ascii").split()[0])
        return round(load / (os.cpu_count() or 1), 3)

    def _memory_available(self) -> float:
        """What programs can still have without swapping."""
        lines = (self._proc / "meminfo").read_text(encoding="ascii").splitlines()
        sizes = {line.split(":")[0]: int(line.split()[1]) for line in lines if line.endswith(" kB")}
        return round(100 * sizes["MemAvailable"] / sizes["MemTotal"], 1)

    def _disk_free(self) -> float:
        """What the buffer can still have: blocks that are free to others than root."""
        found = os.statvfs(self._folder)
        return round(100 * found.f_bavail / found.f_blocks, 1)

    def _uptime(self) -> float:
        return float((self._proc / "uptime").read_text(encoding="ascii").split()[0])

    def _clock_synchronised(self) -> float:
        """1 when a time server was reached since the start. systemd-timesyncd makes the file then."""
        return float((self._timesync / "synchronized").exists())


def _tried(reader: Callable[[], float]) -> tuple[float | None, int]:
    try:
        return reader(), quality.GOOD
    except (OSError, ValueError, LookupError, ArithmeticError):
        # The file is missing or says something else: the host does not tell.
        return None, quality.BAD_SENSOR
