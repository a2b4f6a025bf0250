# SPDX-License-Identifier: Apache-2.0
"""/var/lib/energy/learned.json: what was found out about devices, so that a restart does not ask again.

`refusals` by endpoint, unit and profile, `serials` by endpoint and unit, `calibrations` by point: the last ones in
force. The file can be deleted at any time.
"""

from __future__ import annotations

import asyncio
import json
import os
import time
from pathlib import Path
from typing import Any

from energy_collector.journal import Faults, log
from energy_collector.meters.plan import Cut

# A device's firmware may change: what was refused once is asked for again after so long, in s.
LIFETIME = 30 * 86400.0
VERSION = 1


class Refusals:
    """What one device refuses, each with the time (s since 1970) at which that was learned."""

    def __init__(self) -> None:
        self.cuts: dict[Cut, float] = {}
        self.points: dict[str, float] = {}

    @property
    def expires(self) -> float:
        """When the first of them has to be tried again, in s since 1970."""
        return min([*self.cuts.values(), *self.points.values()], default=float("inf")) + LIFETIME

    def forget_old(self, now: float) -> None:
        """Drop what has expired."""
        self.cuts = {cut: at for cut, at in self.cuts.items() if now < at + LIFETIME}
        self.points = {name: at for name, at in self.points.items() if now < at + LIFETIME}

    def clear(self) -> None:
        """Drop all: it is another device."""
        self.cuts.clear()
        self.points.clear()


class Learned:
    """The file. Without a path nothing outlives the process."""

    def __init__(self, path: Path | None, faults: Faults) -> None:
        self._path = path
        self._faults = faults
        self._refusals: dict[str, Refusals] = {}
        self._serials: dict[str, str] = {}
        # Multiplier and offset.
        self.calibrations: dict[str, tuple[float, float]] = {}
        self._saving: set[asyncio.Task[None]] = set()
        self._writing = asyncio.Lock()
        if path is not None:
            self._load(path)

    def refusals(self, endpoint: str, unit: int, profile: str) -> Refusals:
        """Of a device: the same object each time, to be changed by its meter, which then calls `save`."""
        return self._refusals.setdefault(f"{endpoint} {unit} {profile}", Refusals())

    def serial(self, endpoint: str, unit: int) -> str | None:
        """The serial number that was read there last."""
        return self._serials.get(f"{endpoint} {unit}")

    def set_serial(self, endpoint: str, unit: int, serial: str) -> None:
        """Remember a serial number; `save` keeps it."""
        self._serials[f"{endpoint} {unit}"] = serial

    async def save(self) -> None:
        """Write the file. When that fails, the journal says so and polling goes on."""
        if self._path is None:
            return
        # One writer at a time; each takes what is known when its turn comes.
        async with self._writing:
            text = json.dumps(self._document(), indent=1)
            subject = f"what was learned about meters ({self._path})"
            try:
                await asyncio.to_thread(_write, self._path, text)
            except OSError as error:
                cause = "the file system is full or read-only; after a restart it is learned again"
                self._faults.report(subject, f"cannot be written: {error.strerror}", cause)
            else:
                self._faults.over(subject)

    def save_soon(self) -> None:
        """`save`, for a caller that cannot wait."""
        if self._path is not None:
            task = asyncio.get_running_loop().create_task(self.save())
            self._saving.add(task)
            task.add_done_callback(self._saving.discard)

    def _document(self) -> dict[str, Any]:
        return {
            "version": VERSION,
            "refusals": {
                key: {
                    "cuts": [[*cut, int(at)] for cut, at in one.cuts.items()],
                    "points": {name: int(at) for name, at in one.points.items()},
                }
                for key, one in self._refusals.items()
                if one.cuts or one.points
            },
            "serials": self._serials,
            "calibrations": self.calibrations,
        }

    def _load(self, path: Path) -> None:
        try:
            document = json.loads(path.read_text(encoding="utf-8"))
            if document["version"] != VERSION:
                raise ValueError(f"its version is {document['version']}")  # noqa: TRY301  (told below like the rest)
            for key, kept in document["refusals"].items():
                found = Refusals()
                for function, first, last, at in kept["cuts"]:
                    found.cuts[Cut(int(function), int(first), int(last))] = float(at)
                for name, at in kept["points"].items():
                    found.points[str(name)] = float(at)
                found.forget_old(time.time())
                self._refusals[str(key)] = found
            self._serials = {str(key): str(serial) for key, serial in document["serials"].items()}
            for point, (multiplier, offset) in document["calibrations"].items():
                self.calibrations[str(point)] = float(multiplier), float(offset)
        except FileNotFoundError:
            return
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            self._refusals.clear()
            self._serials.clear()
            self.calibrations.clear()
            log.warning("%s: not used, it is learned again: %r", path, error)


def _write(path: Path, text: str) -> None:
    """All of it or nothing, whenever the power fails."""
    fresh = path.with_name(path.name + ".new")
    with fresh.open("w", encoding="utf-8") as stream:
        stream.write(text)
        stream.flush()
        os.fsync(stream.fileno())
    fresh.replace(path)
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
