# SPDX-License-Identifier: Apache-2.0
"""All radios of a site, how they change while the service runs, and the file that outlasts it."""

from __future__ import annotations

import asyncio
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from energy_collector import quality
from energy_collector.clock import SourceClock
from energy_collector.config import Config
from energy_collector.control import RequestError
from energy_collector.journal import Faults, log
from energy_collector.radio.meter import RadioMeter
from energy_collector.radio.radio import Radio
from energy_collector.reading import Record
from energy_collector.times import iso

# How old the file may become, in s. What a killed service has not written, the hub finds to be the same reading.
SAVE_INTERVAL = 300.0
# s after which a radio that goes on listening is told once more to end.
CANCEL_AGAIN = 1.0


class Radios:
    """What is heard now. `memory` is the file with what has been heard."""

    def __init__(
        self,
        memory: Path,
        clock: SourceClock,
        floor: int,
        sink: Callable[[list[Record]], None],
        faults: Faults,
    ) -> None:
        self._memory = memory
        self._clock = clock
        self._floor = floor
        self._sink = sink
        self._faults = faults
        self._running: dict[str, tuple[Radio, asyncio.Task[None]]] = {}
        self._known: dict[str, Any] = _load(memory)
        self._saved_at = time.monotonic()
        self._saved: dict[str, Any] = dict(self._known)
        self._failed: asyncio.Future[None] = asyncio.get_running_loop().create_future()

    @property
    def meters(self) -> dict[str, RadioMeter]:
        """All meters by their names."""
        return {one.config.name: one for radio, _ in self._running.values() for one in radio.meters}

    async def apply(self, config: Config) -> list[str]:
        """Listen to what `config` says; radios that it leaves as they are go on. Returns the names of the others."""
        wanted = {one.name: one for one in config.radios}
        ended = [name for name, (radio, _) in self._running.items() if wanted.get(name) != radio.config]
        for name in ended:
            await self._end(name)
        names = {meter.name for radio in config.radios for meter in radio.meters}
        self._known = {name: known for name, known in self._known.items() if name in names}
        begun = [name for name in wanted if name not in self._running]
        for name in begun:
            radio = Radio(config.site, wanted[name], self._clock, self._floor, self._sink, self._faults)
            for meter in radio.meters:
                self._remember(meter)
            task = asyncio.create_task(radio.run())
            task.add_done_callback(self._ended)
            self._running[name] = radio, task
        return sorted({*ended, *begun})

    async def stop(self) -> None:
        """Hang up, and write down what has been heard."""
        for name in list(self._running):
            await self._end(name)
        _save(self._memory, self._known)

    async def failed(self) -> None:
        """Wait for a radio to end by itself, which is a fault of ours, and raise it."""
        await self._failed

    async def _end(self, name: str) -> None:
        radio, task = self._running.pop(name)
        # Once is not always enough: before Python 3.12 wait_for forgets a cancellation that comes together with what it
        # waits for (python/cpython#86296), and messages come all the time.
        while not task.done():
            task.cancel()
            await asyncio.wait([task], timeout=CANCEL_AGAIN)
        for meter in radio.meters:
            self._known[meter.config.name] = meter.memory()
            self._floor = max(self._floor, meter.stamp())

    def _ended(self, task: asyncio.Task[None]) -> None:
        if task.cancelled() or self._failed.done():
            return
        error = task.exception()
        if error is not None:
            self._failed.set_exception(error)

    def _remember(self, meter: RadioMeter) -> None:
        known = self._known.get(meter.config.name)
        if known is None:
            return
        try:
            meter.remember(known)
        except (TypeError, ValueError, KeyError, AttributeError):
            log.warning("%s: is not used for %s: it is damaged", self._memory, meter.config.name)

    async def tick(self) -> None:
        """About once a second."""
        for radio, _ in self._running.values():
            radio.tick()
        now = time.monotonic()
        if now - self._saved_at < SAVE_INTERVAL:
            return
        self._saved_at = now
        for name, meter in self.meters.items():
            self._known[name] = meter.memory()
        if self._known != self._saved:
            self._saved = dict(self._known)
            # A slow disk must not hold up the polling.
            await asyncio.to_thread(_save, self._memory, self._saved)

    # What others ask.

    def status(self) -> list[dict[str, Any]]:
        """Of all radios."""
        return [radio.status() for radio, _ in self._running.values()]

    def counters(self) -> dict[str, dict[str, int]]:
        """Of all radios, since they were begun."""
        return {name: dict(radio.counts) for name, (radio, _) in self._running.items()}

    def read_meter(self, name: str, calibrate: Callable[[list[Record]], list[Record]]) -> dict[str, Any]:
        """The newest readings of a meter: nobody can be asked, only heard. Raises RequestError."""
        meter = self.meters[name]
        found = meter.newest(calibrate)
        if not any(one.value is not None for one in found):
            raise RequestError(
                f"nothing has been heard of {meter.config.device} on radio {meter.config.radio}"
                f" since the service started{f', last: {meter.last_error}' if meter.last_error else ''}",
                "it reports by itself, at its own interval; or its name is written otherwise",
            )
        shown = [
            {"point": one.point, "value": one.value, "unit": one.unit, "quality": quality.name(one.quality)}
            for one in found
        ]
        return {"time": iso(max(one.time for one in found)), "readings": shown}


def _load(path: Path) -> dict[str, Any]:
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(document, dict) or not isinstance(document["meters"], Mapping):
            raise TypeError("it is no mapping of meters")  # noqa: TRY301  (told below like the rest)
        return dict(document["meters"])
    except FileNotFoundError:
        return {}
    except (OSError, ValueError, TypeError, KeyError) as error:
        log.warning("%s: not used, radio messages that come twice may be stored twice once: %r", path, error)
        return {}


def _save(path: Path, meters: Mapping[str, Any]) -> None:
    new = path.with_name(f".{path.name}.new")
    try:
        with new.open("w", encoding="utf-8") as stream:
            json.dump({"meters": meters}, stream, separators=(",", ":"))
            stream.flush()
            os.fsync(stream.fileno())
        new.replace(path)
    except OSError as error:
        log.warning("%s: cannot be written: %s", path, error.strerror)
