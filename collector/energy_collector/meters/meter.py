# SPDX-License-Identifier: Apache-2.0
"""A meter: asks its bus for the registers of its profile and makes records of them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from typing import NamedTuple

from energy_collector import quality
from energy_collector.bus import Bus, BusError
from energy_collector.bus.errors import ExceptionAnswerError
from energy_collector.config import MeterConfig
from energy_collector.journal import Faults, log
from energy_collector.meters import serial
from energy_collector.meters.learned import Learned
from energy_collector.meters.profile import Profile, Serial, point_name
from energy_collector.meters.values import Counter
from energy_collector.reading import Layout, Record, nulls

Stamp = Callable[[], int]


class Poll(NamedTuple):
    """What one poll brought, and the first error that some of it is null for."""

    records: list[Record]
    error: BusError | None


def is_silence(error: BusError) -> bool:
    """Nobody answers: to ask the same unit for more would only take time. A gateway says so with 0x0A and 0x0B."""
    if isinstance(error, ExceptionAnswerError):
        return error.code in (0x0A, 0x0B)
    return error.quality in (quality.BAD_NO_ANSWER, quality.BAD_CONNECTION)


def is_refusal(error: BusError) -> bool:
    """The device does not give these registers, or not with one request: illegal function, address or length."""
    return isinstance(error, ExceptionAnswerError) and error.code in (1, 2, 3)


class Meter(ABC):
    """One meter of the configuration.

    `points` are the full names and units of all that it delivers, `counters` those that roll over. `serial` is what
    the device says of itself, None where it says nothing. `exchanged` is true from the poll that finds another
    serial number than the one before until the next poll begins: it is about the records of that poll.
    """

    def __init__(self, config: MeterConfig, profile: Profile, learned: Learned | None = None) -> None:
        self.config = config
        self.profile = profile
        self.points: dict[str, str] = {}
        self.counters: dict[str, Counter] = {}
        self.serial: str | None = None
        self.exchanged = False
        # Without a file of it, what the meter finds out ends with it.
        self._learned = learned or Learned(None, Faults())
        # The connection on which the device has told its serial number; None when it has to be asked.
        self._connection: int | None = None
        self._all: Layout | None = None

    async def poll(self, bus: Bus, stamp: Stamp) -> Poll:
        """Ask for everything once; an error becomes null readings."""
        self.exchanged = False
        if not bus.connected or self._connection != bus.counters["connects"]:
            error = await self._identify(bus)
            if error is not None:
                return self.unanswered(stamp(), error)
        poll = await self.read(bus, stamp)
        if poll.error is not None and is_silence(poll.error):
            self._connection = None
        elif self._connection != bus.counters["connects"]:
            # The connection is a new one since: whose registers were these? An error is met with the next poll again.
            await self._identify(bus)
        return poll

    @abstractmethod
    async def read(self, bus: Bus, stamp: Stamp) -> Poll:
        """The registers alone, as a probe wants them: who the device is stays as it is."""

    @property
    def states(self) -> set[str]:
        """Points that are one of a few words and not a quantity."""
        reverse = self.config.reverse
        names = [point.name for point in self.profile.points if point.bits is not None]
        return {self._name(point_name(name, reverse=reverse)) for name in names}

    def unanswered(self, time: int, error: BusError) -> Poll:
        """A poll that brought nothing."""
        if self._all is None:
            self._all = self._layout_of(self.points)
        return Poll([nulls(self._all, time, error.quality)], error)

    def _name(self, point: str) -> str:
        return f"{self.config.name}/{point}"

    def _layout_of(self, names: Iterable[str]) -> Layout:
        points = tuple(names)
        return Layout(points, tuple(self.points[name] for name in points))

    async def _serial_place(self, bus: Bus) -> Serial | None:  # noqa: ARG002  (some have to look for it)
        """Where the serial number is. Raises BusError."""
        return self.profile.serial

    async def _identify(self, bus: Bus) -> BusError | None:
        """Read the serial number; returns an error where the device cannot be talked to now."""
        try:
            place = await self._serial_place(bus)
            if place is not None:
                answer = await bus.call(self.config.unit, serial.request(place))
                await self._take_serial(serial.decode(place, answer.data), bus.config.endpoint)
        except BusError as error:
            if error.quality == quality.BAD_FRAME:
                # Asked again with the next poll.
                return None
            if not is_refusal(error):
                return error
            log.warning("meter %s: it does not give its serial number: %s", self.config.name, error.text)
        self._connection = bus.counters["connects"]
        return None

    async def _take_serial(self, found: str | None, endpoint: str) -> None:
        self.serial = found
        known = self._learned.serial(endpoint, self.config.unit)
        if found is None or found == known:
            return
        if known is not None:
            log.warning(
                "meter %s: another device answers, serial number %s; before it was %s",
                self.config.name,
                found,
                known,
            )
            self.exchanged = True
            self._forget()
        self._learned.set_serial(endpoint, self.config.unit, found)
        await self._learned.save()

    def _forget(self) -> None:  # noqa: B027  (not every kind of meter knows something)
        """Forget what was learned about the device: it is another one."""
