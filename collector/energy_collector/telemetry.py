# SPDX-License-Identifier: Apache-2.0
"""/var/log/energy/telemetry.log: one line for each batch that the hub has committed."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

from energy_collector.operations import iso


class TelemetryLog:
    """Appends lines. The file is opened anew each time, so that it can be rotated by renaming it."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, lines: Iterable[str]) -> None:
        """Append lines; raises OSError."""
        text = "".join(f"{line}\n" for line in lines)
        if text:
            with self._path.open("a", encoding="ascii") as stream:
                stream.write(text)


def line(now: int, stream: str, sequence: int, readings: int, puback: int | None) -> str:
    """A line. Times are ms UTC; `puback` is None where a batch was sent by an earlier run of the service."""
    return (
        f"{iso(now)} stream={stream} sequence={sequence} readings={readings}"
        f" puback={iso(puback) or '-'} committed={iso(now)}"
    )
