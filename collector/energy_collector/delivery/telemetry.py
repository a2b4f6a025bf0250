# SPDX-License-Identifier: Apache-2.0
"""/var/log/energy/telemetry.log: one line for each batch that the hub has committed."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable
from pathlib import Path

from energy_collector.times import iso


class TelemetryLog:
    """Appends lines. The file is opened anew each time, so that it can be rotated by renaming it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, lines: Iterable[str]) -> None:
        """Append lines, all or none of them; raises OSError."""
        data = "".join(f"{line}\n" for line in lines).encode("ascii")
        handle = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            size = os.fstat(handle).st_size
            if os.write(handle, data) < len(data):
                # Half a line would spoil the next one.
                os.ftruncate(handle, size)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        finally:
            os.close(handle)


def line(now: int, stream: str, sequence: int, readings: int, sent: int | None, puback: int | None) -> str:
    """A line. Times are ms UTC; `sent` and `puback` are None where it was not this connection that sent the
    batch."""
    return (
        f"{iso(now)} stream={stream} sequence={sequence} readings={readings}"
        f" sent={iso(sent) or '-'} puback={iso(puback) or '-'} committed={iso(now)}"
    )
