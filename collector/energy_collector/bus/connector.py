# SPDX-License-Identifier: Apache-2.0
"""Keeps the one connection of a bus: at most one socket or handle, and a new one only after the old one is
closed."""

from __future__ import annotations

import asyncio
import errno
import time
from collections.abc import Callable

from energy_collector.bus.errors import NoConnectionError
from energy_collector.bus.line import Line, SerialLine, TcpLine
from energy_collector.config import BusConfig

# The kernel repeats a lost first packet after 1 s, then after 2 and 4 s: beginning anew finds a gateway that has come
# back sooner than waiting does. Every eighth attempt is a long one, for gateways that are far away.
SHORT_ATTEMPT = 0.5
LONG_ATTEMPT = 1.0
LONG_EVERY = 8
# A request begins a new attempt when the last one is so old, and waits so long for it: the first poll that is due
# after the gateway's return is good. The other requests are refused at once.
OLD = 0.4
SHORT_WAIT = 0.25


class Connector:
    """Connects when the first request needs it. After a failure it goes on trying by itself, and nearly all
    requests are refused at once meanwhile: a gateway that is away costs no time."""

    def __init__(self, config: BusConfig, connected: Callable[[Line], None]) -> None:
        """`connected` is called with each new line."""
        self.line: Line | None = None
        self._config = config
        self._connected = connected
        self._attempts = 0
        self._failure: OSError | None = None
        self._begun = 0.0
        # Whether the gateway has been reached, and is given its pause before the first request.
        self._is_delayed = False
        self._trying: asyncio.Task[None] | None = None
        self._first: asyncio.Future[None] | None = None

    async def connect(self, patience: float) -> Line:
        """A line that stands, within `patience` seconds; raises NoConnectionError."""
        self.hang_up()
        now = time.monotonic()
        if self._failure is None:
            if self._trying is None:
                self._begin()
            await self._wait(patience)
        elif now - self._begun >= OLD and not self._is_long and not self._is_delayed:
            self._begin()
            await self._wait(min(patience, SHORT_WAIT))
        if self.line is not None:
            return self.line
        # Each request raises an error of its own: one that is raised again and again grows by a traceback each
        # time.
        failure = self._failure or OSError(errno.ETIMEDOUT, f"no connection within {patience:.2g} s")
        raise NoConnectionError(self._config.endpoint, failure)

    @property
    def _is_long(self) -> bool:
        return self._attempts > 0 and self._attempts % LONG_EVERY == 0

    @property
    def _timeout(self) -> float:
        return (LONG_ATTEMPT if self._is_long else SHORT_ATTEMPT) * max(self._config.timeout, 1.0)

    def hang_up(self) -> None:
        """Close the line that is no more; nothing where one stands or is being made."""
        if self.line is not None and self.line.lost is not None:
            self.drop()

    def drop(self) -> None:
        """Close the line."""
        if self.line is not None:
            self.line.close()
            self.line = None

    def close(self) -> None:
        """Close everything; the next `connect` begins anew."""
        if self._trying is not None:
            self._trying.cancel()
            self._trying = None
        self._failure = None
        self._end_first()
        self.drop()

    def _begin(self) -> None:
        loop = asyncio.get_running_loop()
        before = self._trying
        if before is not None:
            before.cancel()
        self._end_first()
        self._begun = time.monotonic()
        self._first = loop.create_future()
        self._trying = loop.create_task(self._try(before))

    async def _wait(self, patience: float) -> None:
        if self._first is not None:
            await asyncio.wait((self._first,), timeout=patience)

    def _end_first(self) -> None:
        if self._first is not None and not self._first.done():
            self._first.set_result(None)
        self._first = None

    async def _try(self, before: asyncio.Task[None] | None) -> None:
        if before is not None:
            # Its socket has to be closed before ours is opened.
            await asyncio.wait((before,))
        while True:
            self._begun = time.monotonic()
            self._attempts += 1
            try:
                line = await self._open()
            except OSError as error:
                self._failure = error.with_traceback(None)
                self._end_first()
            else:
                break
            await asyncio.sleep(max(self._begun + SHORT_ATTEMPT - time.monotonic(), 0))
        if self._trying is not asyncio.current_task():
            # Cancelled in the moment of success, which asyncio before 3.12 does not always tell.
            line.close()
            return
        self.line = line
        self._attempts = 0
        self._failure = None
        self._trying = None
        self._connected(line)
        self._end_first()

    async def _open(self) -> Line:
        if self._config.type == "rtu":
            return SerialLine.open(self._config)
        line = await TcpLine.open(self._config, self._timeout)
        if self._config.connect_delay:
            self._is_delayed = True
            try:
                await asyncio.sleep(self._config.connect_delay)
            except BaseException:
                line.close()
                raise
            finally:
                self._is_delayed = False
        return line
