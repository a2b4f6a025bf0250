# SPDX-License-Identifier: Apache-2.0
"""The control socket: one JSON object a line each way.

Every answer has `ok`; when it is false, `error` is one line.
"""

import asyncio
import json
import os
import socket
import time
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from wattfleet_lab.meters import truth
from wattfleet_lab.meters.answers import KINDS, NO_METER
from wattfleet_lab.meters.faults import SERIAL_ONLY, FaultError
from wattfleet_lab.meters.fleet import Fleet, RunningSite

ANSWERS_AT_ONCE = 100_000
_LINE_LIMIT = 1 << 20

Message = dict[str, Any]


class RequestError(ValueError):
    """A control request that cannot be served; the message says why."""


class Control:
    """The control socket of a fleet."""

    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet
        self._operations: dict[str, Callable[[Mapping[str, Any]], Message]] = {
            "answers": self._answers,
            "clear": self._clear,
            "fault": self._fault,
            "faults": self._faults,
            "stats": self._stats,
            "status": self._status,
            "totals": self._totals,
        }

    async def open(self, path: Path) -> asyncio.Server:
        """Listen on a unix socket (mode 0600). Raises OSError when another process is listening there."""
        if path.is_socket():
            if _is_served(path):
                raise OSError(f"{path}: another simulator is listening there")
            path.unlink(missing_ok=True)
        before = os.umask(0o177)
        try:
            return await asyncio.start_unix_server(self._serve, str(path), limit=_LINE_LIMIT)
        finally:
            os.umask(before)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                writer.write(json.dumps(self.handle(line), separators=(",", ":")).encode() + b"\n")
                await writer.drain()
        except (ConnectionError, ValueError, asyncio.CancelledError):
            pass  # the client went away, or its line is longer than any request
        finally:
            writer.close()

    def handle(self, line: bytes) -> Message:
        """Answer one request."""
        try:
            request = json.loads(line)
        except ValueError as error:
            return {"ok": False, "error": f"not JSON: {error}"}
        operation = self._operations.get(str(request.get("op"))) if isinstance(request, dict) else None
        if operation is None:
            return {"ok": False, "error": f"an op is expected, known are {', '.join(self._operations)}"}
        try:
            return {"ok": True, **operation(request)}
        except (RequestError, FaultError) as error:
            return {"ok": False, "error": str(error)}

    def _site(self, request: Mapping[str, Any]) -> RunningSite:
        name = request.get("site")
        running = self._fleet.sites.get(str(name))
        if running is None:
            known = ", ".join(list(self._fleet.sites)[:5]) or "none"
            raise RequestError(f"site {name!r} is not running, running are {known}")
        return running

    def _status(self, _request: Mapping[str, Any]) -> Message:
        return {
            "pid": os.getpid(),
            "sites": {
                name: {"meters": running.meters, "ports": running.ports()}
                for name, running in self._fleet.sites.items()
            },
        }

    def _totals(self, request: Mapping[str, Any]) -> Message:
        given = request.get("at")
        try:
            at = time.time() if given is None else truth.seconds(datetime.fromisoformat(str(given)))
            names = [self._site(request).config.site] if "site" in request else list(self._fleet.sites)
            sites = {name: truth.site_totals(self._fleet.sites[name].physics, at) for name in names}
        except RequestError:
            raise
        except ValueError as error:
            raise RequestError(f"at {given!r}: {error}") from error
        return {"at": datetime.fromtimestamp(at, UTC).isoformat(), "sites": sites}

    def _answers(self, request: Mapping[str, Any]) -> Message:
        running = self._site(request)
        since, most = _count(request, "since", 0), _count(request, "limit", ANSWERS_AT_ONCE)
        entries = []
        for sequence, at, meter, unit, function, address, count, kind in running.log.since(since, most):
            name = None if meter == NO_METER else running.meters[meter]
            row = [sequence, at, running.config.site, name, unit, function, address, count, KINDS[kind]]
            entries.append(row)
        return {
            "answers": entries,
            "next": entries[-1][0] if entries else max(since, running.log.dropped),
            "last": running.log.last,
            "dropped": running.log.dropped,
        }

    def _stats(self, request: Mapping[str, Any]) -> Message:
        chosen = [self._site(request)] if "site" in request else list(self._fleet.sites.values())
        return {
            "sites": {
                running.config.site: {
                    line.config.name: {
                        **asdict(line.stats),
                        "bus_messages": line.counters.messages,
                        "bus_errors": line.counters.errors,
                    }
                    for line in running.lines
                }
                for running in chosen
            }
        }

    def _fault(self, request: Mapping[str, Any]) -> Message:
        running = self._site(request)
        listener, meter = request.get("listener"), request.get("meter")
        lines = [line for line in running.lines if listener is None or line.config.name == listener]
        if not lines:
            names = ", ".join(line.config.name for line in running.lines)
            raise RequestError(f"listener {listener!r} does not exist, existing are {names}")
        units = [device.unit for line in lines for device in line.devices.values()]
        if meter is not None:
            units = [unit for unit in units if unit.name == meter]
            lines = [line for line in lines if any(unit in line.config.units for unit in units)]
            if not units:
                raise RequestError(
                    f"meter {meter!r} does not exist, existing are {', '.join(running.meters)}"
                )
        kind = request.get("kind")
        if kind in SERIAL_ONLY and not any(line.rtu for line in lines):
            raise RequestError(f"{kind} needs RTU framing: a frame over Modbus TCP has no CRC")
        channels = [channel.name for unit in units for channel in unit.channels]
        if kind == "broken_wire" and request.get("channel") not in channels:
            known = ", ".join(channels) or "none"
            raise RequestError(f"channel {request.get('channel')!r} does not exist, existing are {known}")
        return {"fault": self._fleet.faults.add(request).report()}

    def _faults(self, _request: Mapping[str, Any]) -> Message:
        return {"faults": [fault.report() for fault in self._fleet.faults.active()]}

    def _clear(self, request: Mapping[str, Any]) -> Message:
        site, identifier = request.get("site"), request.get("id")
        return {"cleared": self._fleet.faults.clear(site, identifier)}


def _is_served(path: Path) -> bool:
    with closing(socket.socket(socket.AF_UNIX)) as probe:
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
    return True


def _count(request: Mapping[str, Any], name: str, default: int) -> int:
    value = request.get(name, default)
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise RequestError(f"{name} {value!r}: a whole number is expected")
    return value
