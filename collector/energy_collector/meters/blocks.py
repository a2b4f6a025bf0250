# SPDX-License-Identifier: Apache-2.0
"""Meters that are read in blocks known from their configuration, and that learn what their device refuses."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Sequence
from functools import lru_cache
from typing import NamedTuple

from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.config import MeterConfig
from energy_collector.journal import log
from energy_collector.meters.learned import Learned, Refusals
from energy_collector.meters.meter import Meter, Poll, Stamp, is_refusal, is_silence
from energy_collector.meters.plan import Block, Cut, Span, block, plan
from energy_collector.meters.profile import Point, Profile, point_name
from energy_collector.meters.registers import Field, Unpacker
from energy_collector.meters.values import ChannelConversion, Conversion, Decoder, counter
from energy_collector.reading import Layout, Record, nulls

# A point is given up when it was refused alone in so many polls running that brought other points: a device that
# is just starting may refuse anything.
REFUSED_POLLS = 3
# A device may refuse while it sleeps, and give later: so often one of the points given up is asked for again, in s.
RETRY = 3600.0
# A device that refuses everything (the wrong profile) is not taken apart again for so long, in s.
PATIENCE = 3600.0


class Part(NamedTuple):
    """One request of a poll, with everything about it worked out."""

    block: Block
    request: ReadRegisters
    layout: Layout
    decode: Decoder


class _Round:
    """One poll while it lasts. `alone` are the points that were refused by themselves."""

    def __init__(self, bus: Bus, stamp: Stamp) -> None:
        self.bus = bus
        self.stamp = stamp
        self.records: list[Record] = []
        self.answered = False
        self.error: BusError | None = None
        self.silence: BusError | None = None
        self.alone: list[str] = []
        self.cuts: list[Cut] = []


class BlockMeter(Meter):
    """A meter with `spans` of registers, named as its points are."""

    def __init__(
        self, config: MeterConfig, profile: Profile, learned: Learned | None, spans: Sequence[Span]
    ) -> None:
        super().__init__(config, profile, learned)
        self._spans = spans
        self._suspects: dict[str, int] = {}
        self._refusals: Refusals | None = None
        self._holes = [
            Cut(function, first - 1, last + 1) for function in (3, 4) for first, last in profile.holes
        ]
        self._patience = 0.0
        self._retry_at = time.monotonic() + RETRY

    @property
    def blocks(self) -> list[Block]:
        """What is read with one request each."""
        return [part.block for part in self._parts]

    async def read(self, bus: Bus, stamp: Stamp) -> Poll:
        """Read block by block; a unit that does not answer is not asked for the rest."""
        if self._refusals is None:
            self._refusals = self._learned.refusals(
                bus.config.endpoint, self.config.unit, f"{self.profile.name} {self.profile.digest}"
            )
            # Most devices have refused nothing, and the first poll must not keep the line waiting.
            if self._refusals.cuts or self._refusals.points:
                self._plan()
        elif time.time() >= self._expires:
            self._refusals.forget_old(time.time())
            self._plan()
        one = _Round(bus, stamp)
        for part in self._parts:
            await self._ask(part, one)
        if one.answered:
            self._patience = 0.0
        if self._refused:
            await self._pass_over_refused(one, self._refusals)
        if one.alone or one.cuts or self._suspects:
            await self._learn(one, self._refusals)
        if one.answered and one.error is not None and is_refusal(one.error):
            # The points concerned are null, and the journal tells of them once.
            one.error = None
        return Poll(one.records, one.error)

    @abstractmethod
    def _decoder(self, spans: Sequence[Span], address: int) -> Decoder:
        """What makes values of an answer whose first register is `address`."""

    def _forget(self) -> None:
        self._suspects.clear()
        self._patience = 0.0
        if self._refusals is not None:
            self._refusals.clear()
            self._plan()

    def _plan(self) -> None:
        """Work the requests out, by what is known of the device."""
        cuts = list(self._holes)
        refused: list[str] = []
        self._expires = float("inf")
        if self._refusals is not None:
            cuts += self._refusals.cuts
            refused = [span.name for span in self._spans if span.name in self._refusals.points]
            self._expires = self._refusals.expires
        kept = []
        for span in self._spans:
            if span.name in self._suspects or span.name in refused:
                # What is refused alone is refused in any company.
                cuts += [Cut(span.function, span.address - 1, span.end - 1)]
                cuts += [Cut(span.function, span.address, span.end)]
            if span.name not in refused:
                kept.append(span)
        blocks = plan(kept, self.profile.max_block, self.profile.max_gap, cuts)
        self._parts = [self._part(one) for one in blocks]
        self._refused = [span for span in self._spans if span.name in refused]

    def _part(self, found: Block) -> Part:
        return Part(
            found,
            ReadRegisters(found.function, found.address, found.count),
            self._layout_of(self._name(span.name) for span in found.spans),
            self._decoder(found.spans, found.address),
        )

    async def _ask(self, part: Part, one: _Round) -> BusError | None:
        """Read a part. One that is refused is read in halves, so that only the refused point is null."""
        error = one.silence
        if error is None:
            try:
                answer = await one.bus.call(self.config.unit, part.request, one.stamp)
            except BusError as found:
                error = found
            else:
                one.records.append(Record(part.layout, answer.stamp, *part.decode(answer.data)))
                one.answered = True
                return None
        if one.error is None or is_refusal(one.error):
            one.error = error
        if is_silence(error):
            one.silence = error
        spans = part.block.spans
        if is_refusal(error) and time.monotonic() >= self._patience:
            if len(spans) > 1:
                return await self._ask_halves(part, one)
            one.alone.append(spans[0].name)
        one.records.append(nulls(part.layout, one.stamp(), error.quality))
        return error

    async def _ask_halves(self, part: Part, one: _Round) -> BusError | None:
        spans = part.block.spans
        left, right = block(spans[: len(spans) // 2]), block(spans[len(spans) // 2 :])
        errors = [await self._ask(self._part(left), one), await self._ask(self._part(right), one)]
        for error in errors:
            if error is not None:
                return error
        # Each for itself is given, and both together are not, unless it was a whim.
        try:
            await one.bus.call(self.config.unit, part.request)
        except BusError as error:
            if is_refusal(error):
                end = left.address + left.count
                apart = end <= right.address
                first, last = (
                    (end - 1, right.address) if apart else (left.address, right.address + right.count - 1)
                )
                one.cuts.append(Cut(left.function, first, last))
        return None

    async def _pass_over_refused(self, one: _Round, refusals: Refusals) -> None:
        """The points given up are null; now and then one of them is asked for again."""
        refused = self._refused
        if one.answered and one.silence is None and time.monotonic() >= self._retry_at:
            self._retry_at = time.monotonic() + RETRY
            # Another one each time.
            first, *rest = refused
            self._refused = [*rest, first]
            part = self._part(block([first]))
            try:
                answer = await one.bus.call(self.config.unit, part.request, one.stamp)
            except BusError:
                pass
            else:
                one.records.append(Record(part.layout, answer.stamp, *part.decode(answer.data)))
                log.info(
                    "%s: it has a %s after all; all points are asked for again", self._subject, first.name
                )
                refusals.points.clear()
                self._plan()
                await self._learned.save()
                refused = rest
        if refused:
            layout = self._layout_of(self._name(span.name) for span in refused)
            one.records.append(nulls(layout, one.stamp(), quality.BAD_DEVICE_FAILURE))

    @property
    def _subject(self) -> str:
        return f"meter {self.config.name} (bus {self.config.bus}, unit {self.config.unit})"

    async def _learn(self, one: _Round, refusals: Refusals) -> None:
        """Go by what this poll has shown."""
        if not one.answered:
            # Nothing at all was given: that tells of the device, or of the profile, not of single points.
            if one.alone:
                self._patience = time.monotonic() + PATIENCE
            return
        before = (set(self._suspects), len(refusals.cuts), len(refusals.points))
        asked = {name for name in self._suspects if one.silence is None}
        for name in asked - set(one.alone):
            del self._suspects[name]
        now = time.time()
        for name in one.alone:
            self._suspects[name] = self._suspects.get(name, 0) + 1
        given_up = [name for name, times in self._suspects.items() if times >= REFUSED_POLLS]
        if given_up:
            for name in given_up:
                del self._suspects[name]
                refusals.points[name] = now
            log.warning(
                "%s: it refuses %s (REGISTER_READ_FAILURE, %d times); null until it answers. "
                "Likely cause: the device is not quite a %s; check the meter's profile",
                self._subject,
                ", ".join(given_up),
                REFUSED_POLLS,
                self.profile.model,
            )
        for cut in one.cuts:
            refusals.cuts[cut] = now
            log.info(
                "%s: it refuses to give registers %d and %d together (function %d); they are read apart",
                self._subject,
                cut.first,
                cut.last,
                cut.function,
            )
        if before != (set(self._suspects), len(refusals.cuts), len(refusals.points)):
            self._plan()
        if before[1:] != (len(refusals.cuts), len(refusals.points)):
            await self._learned.save()


# Most meters of a site are alike: they share what does not depend on the meter.
@lru_cache(maxsize=64)
def _wanted(
    points: tuple[Point, ...], chosen: tuple[str, ...], reverse: bool
) -> tuple[dict[str, Point], tuple[Span, ...]]:
    """The points to be read, all where none are chosen, by their names on this site; and where they lie."""
    names = {point: point_name(point.name, reverse=reverse) for point in points}
    wanted = {names[point]: point for point in points if not chosen or names[point] in chosen}
    return wanted, tuple(
        Span(name, point.address, point.size, point.function) for name, point in wanted.items()
    )


class RegisterMeter(BlockMeter):
    """A meter whose points lie at fixed addresses."""

    def __init__(self, config: MeterConfig, profile: Profile, learned: Learned | None = None) -> None:
        self._by_name, spans = _wanted(profile.points, config.points, config.reverse)
        super().__init__(config, profile, learned, spans)
        self.points = {self._name(name): point.unit for name, point in self._by_name.items()}
        for name, point in self._by_name.items():
            rolls = counter(point, config)
            if rolls is not None:
                self.counters[self._name(name)] = rolls
        self._plan()

    def _decoder(self, spans: Sequence[Span], address: int) -> Decoder:
        points = [self._by_name[span.name] for span in spans]
        unpack = Unpacker([point.field for point in points], address)
        return Decoder(unpack, Conversion(points, self.config, self.profile))


class AnalogueMeter(BlockMeter):
    """An analogue module: the configuration says which channels are in use, and what they stand for."""

    def __init__(self, config: MeterConfig, profile: Profile, learned: Learned | None = None) -> None:
        self._channels = {
            channel.name: channel
            for channel in config.channels
            if not config.points or channel.name in config.points
        }
        super().__init__(
            config,
            profile,
            learned,
            [
                Span(channel.name, profile.inputs[channel.input - 1], 1, profile.function)
                for channel in self._channels.values()
            ],
        )
        self.points = {self._name(channel.name): channel.unit for channel in self._channels.values()}
        self._plan()

    def _decoder(self, spans: Sequence[Span], address: int) -> Decoder:
        unpack = Unpacker([Field(span.address, "uint16") for span in spans], address)
        channels = [self._channels[span.name] for span in spans]
        return Decoder(unpack, ChannelConversion(channels, self.profile.full_scale))
