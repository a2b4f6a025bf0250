# SPDX-License-Identifier: Apache-2.0
"""The polling service: asks the meters, stores the readings, answers on the control socket. It knows
nothing of the hub."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from energy_collector import __version__, sources
from energy_collector.aside import aside
from energy_collector.clock import SourceClock, Stamper, synchronised
from energy_collector.config import Config, ConfigError, load
from energy_collector.control import ControlServer, RequestError
from energy_collector.journal import Faults, log
from energy_collector.meters.learned import Learned
from energy_collector.notify import notify, watchdog_interval
from energy_collector.operations import Operations, whole
from energy_collector.polling.buses import Polling
from energy_collector.polling.poller import PolledMeter
from energy_collector.processing import Measured, Processing
from energy_collector.stages.calibration import Calibration
from energy_collector.storage.writer import Writer
from energy_collector.times import iso

if TYPE_CHECKING:
    from energy_collector.metrics import Metrics
    from energy_collector.radio.radios import Radios

# A writer that has not come round for so long hangs in the kernel; systemd then restarts us. In s.
WRITER_PATIENCE = 90.0
STATE_TIMEOUT = 30.0
# What holds for as long as the process runs: a change of these starts it anew.
FIXED = (
    "site",
    "buffer",
    "clock",
    "control_socket",
    "device_mapping",
    "learned",
    "metrics_port",
    "sources",
    "heard",
)
# The longest time for which every sample is given on request, in s.
MAX_RAW = 86400
# How often the stages are asked for what is due without a record, in s.
TICK = 1.0


class Gateway:
    """The service. `run` returns when it is told to stop."""

    def __init__(self, config: Config, path: Path) -> None:
        """`path` is the file that `config` came from; it is read again on SIGHUP."""
        self.config = config
        self._path = path
        self._faults = Faults()
        self._writer = Writer(config.buffer, self._faults)
        self._stop = asyncio.Event()
        self._ready = asyncio.Event()
        self._started = int(time.time() * 1000)

    async def run(self) -> None:
        """Serve until SIGTERM or SIGINT. Raises OSError when it cannot start."""
        # Before anything else: a gateway that runs here already has readings in files that are not ours.
        server = ControlServer(self.config.control_socket, self._handle)
        await server.start()
        try:
            self._writer.open()
            try:
                await self._serve()
            finally:
                self._writer.stop()
        finally:
            await server.stop()

    async def _serve(self) -> None:
        rules = self.config.clock
        clock = SourceClock(
            self._writer.newest,
            settled=self._writer.settled,
            hold=rules.hold,
            in_sync=synchronised if rules.require_sync else None,
        )
        self._clock = clock
        self._writer.follow(clock)
        settled = self._writer.settled
        learned = Learned(self.config.learned, self._faults)
        calibration = Calibration(self.config.device_mapping, learned, self._faults, self._points)
        self._processing = Processing(calibration, lambda _: settled, self._writer.put, self._faults)
        self._polling = Polling(clock, lambda _: settled, self._processing.take, self._faults, learned)
        self._operations = Operations(self._polling.buses, self._polling.meters, clock, calibration.apply)
        self._reloading = asyncio.Lock()
        self._settled = settled
        self._radios: Radios | None = None
        self._radios_begun = asyncio.Event()
        await self._apply(self.config)
        metrics = self._metrics()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stop.set)
        loop.add_signal_handler(signal.SIGHUP, self._on_hangup)
        log.info(
            "%s: %d meters on %d buses%s, version %s",
            self.config.site,
            len(self.config.meters),
            len(self.config.buses),
            self.config.by_radio,
            __version__,
        )
        self._ready.set()
        notify("READY=1")
        tasks: list[asyncio.Task[Any]] = [
            asyncio.create_task(self._polling.failed()),
            asyncio.create_task(self._radios_failed()),
            asyncio.create_task(self._watch()),
            asyncio.create_task(self._tick()),
            asyncio.create_task(self._stop.wait()),
        ]
        tasks += [
            asyncio.create_task(sources.run(source, Stamper(clock, settled), self._processing.take))
            for source in sources.from_config(self.config, self._operations.counters, self._places)
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                # Better to be restarted than to poll half of the site.
                task.result()
        finally:
            notify("STOPPING=1")
            await self._polling.stop()
            if self._radios is not None:
                await self._radios.stop()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._processing.close()
            if metrics is not None:
                metrics.stop()

    async def _radios_failed(self) -> None:
        await self._radios_begun.wait()
        if self._radios is not None:
            await self._radios.failed()

    def _points(self) -> set[str]:
        return {point for one in self._measured().values() for point in one.points}

    def _measured(self) -> dict[str, Measured]:
        """All meters, those that are asked and those that are heard."""
        found: dict[str, Measured] = {name: one.meter for name, one in self._polling.meters.items()}
        if self._radios is not None:
            found.update(self._radios.meters)
        return found

    def _places(self) -> dict[str, str]:
        return {name: one.meter.config.bus for name, one in self._polling.meters.items()}

    def _metrics(self) -> Metrics | None:
        if self.config.metrics_port is None:
            return None
        # Imported here: few ask for it, and its memory is better spent on readings.
        from energy_collector.metrics import Metrics

        return Metrics(self.config.metrics_port, self._status, self._counters)

    def _counters(self) -> dict[str, Any]:
        """What is counted of buses and meters, and of radios where there are any."""
        found = self._operations.counters()
        return found if self._radios is None else {**found, "radios": self._radios.counters()}

    async def _apply(self, config: Config) -> list[str]:
        changed = await self._polling.apply(config)
        if config.radios and self._radios is None:
            # Imported here: few sites have radios, and the others keep their memory.
            from energy_collector.radio.radios import Radios

            self._radios = Radios(
                config.heard, self._clock, self._settled, self._processing.take, self._faults
            )
            self._radios_begun.set()
        if self._radios is not None:
            changed += await self._radios.apply(config)
        self._processing.configure(config, self._measured())
        return changed

    async def _tick(self) -> None:
        while True:
            await asyncio.sleep(TICK)
            self._processing.tick(self._clock.now())
            if self._radios is not None:
                await self._radios.tick()

    # The configuration while the service runs.

    def _on_hangup(self) -> None:
        self._hangup = asyncio.create_task(self._reload_quietly())

    async def _reload_quietly(self) -> None:
        try:
            await self._reload()
        except RequestError:
            # Told in the journal already; there is nobody else to tell.
            return

    async def _reload(self) -> dict[str, Any]:
        """Read the file again and go by it. A file with a fault changes nothing: RequestError."""
        async with self._reloading:
            notify(f"RELOADING=1\nMONOTONIC_USEC={time.monotonic_ns() // 1000}")
            try:
                # In a process of its own, and waited for in a thread: a large file takes longer than a poll at 10 Hz.
                return await self._take(await asyncio.to_thread(aside, lambda: load(self._path)))
            except ConfigError as error:
                for fault in error.faults:
                    log.error("%s is refused, the configuration before it stays: %s", self._path, fault)
                raise RequestError(
                    f"{self._path} is refused: {'; '.join(error.faults)}", "the file has a fault"
                ) from error
            finally:
                notify("READY=1")

    async def _take(self, config: Config) -> dict[str, Any]:
        fixed = [name for name in FIXED if getattr(config, name) != getattr(self.config, name)]
        if fixed:
            log.info("%s: %s changed, starting anew", self._path, ", ".join(fixed))
            self._stop.set()
            return {"changed": fixed, "restarts": True}
        changed = await self._apply(config)
        self.config = config
        log.info(
            "%s is read again: %s",
            self._path,
            f"{', '.join(changed)} changed" if changed else "nothing changed",
        )
        return {"changed": changed, "restarts": False}

    async def _watch(self) -> None:
        interval = watchdog_interval()
        while True:
            await asyncio.sleep(interval or WRITER_PATIENCE)
            if time.monotonic() - self._writer.heartbeat < WRITER_PATIENCE:
                notify("WATCHDOG=1")
            if not self._writer.is_alive():
                raise RuntimeError("the thread that writes the buffer has ended")

    async def _handle(self, request: dict[str, Any]) -> dict[str, Any]:
        await self._ready.wait()
        if request.get("op") == "status":
            return await self._status()
        if request.get("op") == "counters":
            return self._counters()
        if request.get("op") == "reload":
            return await self._reload()
        if request.get("op") == "raw":
            return self._raw(request)
        name = str(request.get("meter"))
        if request.get("op") == "read_meter" and self._radios is not None and name in self._radios.meters:
            return self._radios.read_meter(name, self._operations.calibrate)
        return await self._operations.handle(request)

    def _raw(self, request: Mapping[str, Any]) -> dict[str, Any]:
        """Every sample of some points for a time, besides the statistics."""
        meter, points = str(request.get("meter")), request.get("points")
        seconds = whole(request, "seconds", 1, MAX_RAW)
        if not isinstance(points, list) or not points:
            raise RequestError(f"points is {points!r}, not a list of points", "a fault of the client")
        polled = self._polling.meters.get(meter)
        known = [] if polled is None else [name.partition("/")[2] for name in polled.meter.points]
        for point in points:
            if point not in known:
                raise RequestError(
                    f"{meter} has no point {point!r}", f"its points are {', '.join(known) or 'none'}"
                )
        until = self._clock.now() + seconds * 1000
        try:
            return {"points": self._processing.raw_until(meter, points, until), "until": iso(until)}
        except KeyError:
            raise RequestError(
                f"{meter} has no statistics", "all its samples are stored already; report is not set"
            ) from None

    async def _status(self) -> dict[str, Any]:
        operations = self._operations
        buses = [
            {"name": name, "connected": bus.connected, "last_error": bus.last_error}
            for name, bus in operations.buses.items()
        ]
        meters = [meter_status(name, meter) for name, meter in operations.meters.items()]
        radios: dict[str, Any] = {}
        if self._radios is not None:
            meters += [meter.status() for meter in self._radios.meters.values()]
            radios["radios"] = self._radios.status()
        return {
            "site": self.config.site,
            "version": __version__,
            "pid": os.getpid(),
            "started": iso(self._started),
            "buses": buses,
            **radios,
            "meters": meters,
            "buffer": await self._buffer_state(),
        }

    async def _buffer_state(self) -> dict[str, Any]:
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[dict[str, Any]] = loop.create_future()

        def deliver(state: dict[str, Any]) -> None:
            if not answer.done():
                answer.set_result(state)

        self._writer.ask_state(lambda state: loop.call_soon_threadsafe(deliver, state))
        try:
            state = await asyncio.wait_for(answer, STATE_TIMEOUT)
        except asyncio.TimeoutError:
            raise RequestError("the buffer does not answer", "the disk is very slow or failing") from None
        if "error" in state:
            raise RequestError(f"the buffer cannot be read: {state['error']}", "the disk is failing")
        return {**state, "oldest": iso(state["oldest"])}


def meter_status(name: str, meter: PolledMeter) -> dict[str, Any]:
    """What the control socket tells of a meter."""
    config = meter.meter.config
    return {
        "name": name,
        "bus": config.bus,
        "unit": config.unit,
        "profile": config.profile,
        "last_success": iso(meter.last_success),
        "last_error": meter.last_error,
        "consecutive_failures": meter.failures,
        "serial": meter.meter.serial,
        # How late its requests left, against their schedule.
        "lateness_ms": {"p50": meter.lateness(0.5), "p99": meter.lateness(0.99)},
    }
