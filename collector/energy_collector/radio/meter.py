# SPDX-License-Identifier: Apache-2.0
"""A meter that reports by radio: makes records of its messages, each once, and nulls of its silence.

A point has a record of its own: messages bring now this point and now that one, and a batch cannot hold two layouts
that share one.
"""

from __future__ import annotations

import time
import zlib
from collections import deque
from collections.abc import Callable
from typing import Any, NamedTuple

from energy_collector import quality
from energy_collector.clock import SourceClock, Stamper
from energy_collector.config import RadioMeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.profile import point_name
from energy_collector.meters.values import Counter
from energy_collector.radio.message import MISSING, UnreadableError, dig, moment, number, read
from energy_collector.radio.payload import PayloadPoint
from energy_collector.radio.servers import Server, Uplink
from energy_collector.reading import Layout, Reading, Record, nulls, readings, record
from energy_collector.stages.counters import ENERGY_UNITS
from energy_collector.times import iso

# A message's time may be so much ahead of our clock, in ms: two machines that follow a time server differ by less. A
# reading from the future would have our own clock count as wrong after a restart.
AHEAD = 1000
# A time before this, in ms back from now, is that of a clock that was never set.
OLDEST = 7 * 86_400_000
# Times of each point, and frames of each device, that are remembered to tell what comes twice. So many messages may be
# unconfirmed: where the connection breaks, all of them come again.
REMEMBERED = 16
# A frame that a device repeats comes within so long after the first, in ms.
REPETITION = 60_000
# More messages of one device in a minute than this are a fault, and not taken.
MOST_A_MINUTE = 600

COUNTED = (
    "messages",
    "readings",
    "duplicates",
    "late",
    "retained",
    "without_points",
    "unreadable",
    "unusable",
    "flooded",
    "unknown",
)
SILENT = {
    quality.BAD_CONNECTION: (
        "the server does not publish",
        "its broker cannot be reached, or zigbee2mqtt is stopped",
    ),
    quality.BAD_FRAME: ("messages cannot be read", "something else publishes under its topic"),
    quality.BAD_NO_ANSWER: (
        "does not report",
        "battery or mains, distance to the radio gateway, or its reporting interval is longer than the profile's",
    ),
}


class Flags(NamedTuple):
    """How a message came: kept by the broker from before, and for the second time."""

    retained: bool = False
    repeated: bool = False


NEW = Flags()


class _Point:
    """A point, and what is known of its readings: the `times` that its messages told, and the `newest` of those that
    were believed. `due` is when it is null if nothing comes, on the monotonic clock."""

    __slots__ = (
        "due",
        "has_come",
        "is_counter",
        "last",
        "layout",
        "name",
        "newest",
        "sign",
        "times",
        "what",
    )

    def __init__(self, what: PayloadPoint, config: RadioMeterConfig, due: float) -> None:
        self.what = what
        self.name = point_name(what.name, reverse=config.reverse)
        self.layout = Layout((f"{config.name}/{self.name}",), (what.unit,))
        turned = (-1 if config.reverse else 1) * (-1 if config.mapping.view == "source" else 1)
        self.sign = turned if what.flow else 1
        self.is_counter = what.unit in ENERGY_UNITS
        self.times: deque[int] = deque(maxlen=REMEMBERED)
        self.newest = 0
        self.has_come = False
        self.due = due
        self.last: Record | None = None

    def value(self, raw: Any) -> tuple[float | None, int]:
        """What a field says, seen from the site."""
        found = number(raw)
        if found is not None:
            found = number(self.sign * (found * self.what.scale + self.what.offset))
        if found is None:
            return None, quality.BAD_SENSOR
        # Adding zero turns a negative zero into zero, which has one encoding only.
        found = round(found, self.what.decimals) + 0.0
        low, high = self.what.valid or (found, found)
        return found, quality.GOOD if low <= found <= high else quality.UNCERTAIN_OUT_OF_RANGE


class RadioMeter:
    """One meter of the configuration. What it counts, it counts in `counts`, which the radio's meters share."""

    counters: dict[str, Counter] = {}  # noqa: RUF012  (none of them rolls over, and nobody writes to it)
    states: frozenset[str] = frozenset()
    exchanged = False

    def __init__(
        self,
        config: RadioMeterConfig,
        server: Server,
        clock: SourceClock,
        floor: int,
        counts: dict[str, int],
        faults: Faults,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.config = config
        self.stamp = Stamper(clock, floor)
        self.last_success: int | None = None
        self.last_error: str | None = None
        self.failures = 0
        self._server = server
        self._clock = clock
        self._counts = counts
        self._faults = faults
        self._monotonic = monotonic
        self._subject = f"meter {config.name} (radio {config.radio}, {config.device})"
        names = config.points
        due = monotonic() + config.silence
        made = [_Point(point, config, due) for point in config.mapping.points]
        self._points = [point for point in made if not names or point.name in names]
        self.points = {one.layout.points[0]: one.layout.units[0] for one in self._points}
        self._uplinks: deque[tuple[Uplink, int]] = deque(maxlen=REMEMBERED)
        self._checksum = 0
        self._reason = quality.BAD_NO_ANSWER
        self._minute = self._in_minute = 0

    # Messages.

    def take(self, payload: bytes, flags: Flags = NEW) -> list[Record]:
        """What a message brings: nothing for one that cannot be read, or has been here before."""
        if self._is_flood():
            return []
        try:
            document = read(payload)
        except UnreadableError as error:
            self._counts["unreadable"] += 1
            self._reason = quality.BAD_FRAME
            self._fail(str(error), SILENT[quality.BAD_FRAME][1])
            return []
        fields = [(point, dig(document, point.what.path)) for point in self._points]
        fields = [(point, raw) for point, raw in fields if raw is not MISSING]
        if not fields:
            # LoRaWAN devices send frames about themselves too, and a Zigbee plug tells that it was switched.
            self._counts["without_points"] += 1
            return []
        own = moment(dig(document, self.config.mapping.time.path), self.config.mapping.time.format)
        checksum = zlib.crc32(payload)
        uplink = self._server.uplink(document)
        if self._was_here(uplink, own, checksum, flags):
            self._counts["duplicates"] += 1
            return []
        found = self._stamped(own, flags)
        if found is None:
            return []
        self._checksum = checksum
        moment_, doubt = found
        if doubt != quality.GOOD and uplink is not None:
            # A clock that stands still gives all messages one time; a frame is known by its identity.
            own = None
        return self._records(fields, own, moment_, doubt, flags)

    def _is_flood(self) -> bool:
        minute = int(self._monotonic() // 60)
        if minute != self._minute:
            self._minute, self._in_minute = minute, 0
        self._in_minute += 1
        if self._in_minute <= MOST_A_MINUTE:
            return False
        self._counts["flooded"] += 1
        self._fail(
            f"sends more than {MOST_A_MINUTE} messages a minute, the rest is not taken",
            "a loop of an automation, or reporting without a least interval",
        )
        return True

    def _was_here(self, uplink: Uplink | None, own: int | None, checksum: int, flags: Flags) -> bool:
        """Whether a message has come before, apart from the times of its points."""
        if uplink is None:
            # Without a time of its own, only a message that the broker itself marks as repeated is known.
            return own is None and flags.repeated and checksum == self._checksum
        for other, moment_ in self._uplinks:
            if uplink.identity and uplink.identity == other.identity:
                return True
            # The counter begins anew with a session: so it counts within a repetition's time only.
            same = uplink.address and (uplink.address, uplink.number) == (other.address, other.number)
            if same and own is not None and abs(own - moment_) <= REPETITION:
                return True
        self._uplinks.append((uplink, own or 0))
        return False

    def _stamped(self, own: int | None, flags: Flags) -> tuple[int, int] | None:
        """The time of a message and its quality; None for one that is of no use without a time."""
        now = self._clock.now()
        text = cause = ""
        if own is None:
            text, cause = "messages have no time", "advanced.last_seen of zigbee2mqtt is disabled"
        elif self._clock.is_right and own > now + AHEAD:
            text, cause = "its time is ahead of ours", "the server's clock, or ours, is wrong"
        elif self._clock.is_right and own < now - OLDEST:
            text, cause = "its time is more than a week ago", "the clock that stamps its messages is wrong"
        elif self._clock.is_right:
            return own, quality.GOOD
        if flags.retained:
            # Said at some time before we came: it is no measurement of now.
            self._counts["retained"] += 1
            return None
        if text:
            self._faults.report(
                self._subject, f"{text}: the arrival's is taken, and marked uncertain_clock", cause
            )
        return self.stamp(), quality.UNCERTAIN_CLOCK

    def _records(
        self, fields: list[tuple[_Point, Any]], own: int | None, moment_: int, doubt: int, flags: Flags
    ) -> list[Record]:
        found: list[Record] = []
        unusable = 0
        # The device was there when it said so, which may be long ago: what was retained, or has waited at the broker.
        age = max(self._clock.now() - moment_, 0) / 1000
        due = self._monotonic() + max(self.config.silence - age, 0.0)
        is_news = False
        for point, raw in fields:
            if own is not None and own in point.times:
                continue
            is_late = doubt == quality.GOOD and moment_ < point.newest
            if is_late and flags.retained:
                # Heard already, and forgotten if we were killed: as a late one it might be another reading than it was.
                continue
            value, code = point.value(raw)
            unusable += value is None
            if value is not None and code == quality.GOOD:
                # The count of a reading that comes late is in those after it already: it does not count once more.
                code = quality.UNCERTAIN if is_late and point.is_counter else doubt
            point.has_come = True
            if own is not None:
                point.times.append(own)
            found.append(record(point.layout, moment_, [(value, code)]))
            self._counts["late"] += is_late
            if not is_late:
                is_news = True
                point.due, point.last = due, found[-1]
                # The arrival's time may move, and says nothing of when the next message was sent.
                point.newest = moment_ if doubt == quality.GOOD else point.newest
        if not found:
            self._counts["duplicates"] += 1
            return []
        self._counts["readings"] += len(found)
        self._counts["unusable"] += unusable
        if is_news:
            self._heard(moment_, unusable == len(found), sound=not unusable and doubt == quality.GOOD)
        if unusable:
            self._fail("a field is no number", "another firmware or decoder than the profile's")
        return found

    def _heard(self, moment_: int, is_empty: bool, *, sound: bool) -> None:
        self._reason = quality.BAD_NO_ANSWER
        if not is_empty:
            self.last_success = moment_
            self.failures = 0
        if sound:
            self._faults.over(self._subject)

    def _fail(self, text: str, cause: str) -> None:
        self.failures += 1
        self.last_error = text
        self._faults.report(self._subject, text, cause)

    # Silence.

    def gone(self) -> None:
        """The server says that the device does not answer: its points are null at once."""
        now = self._monotonic()
        self._reason = quality.BAD_NO_ANSWER
        for point in self._points:
            point.due = min(point.due, now)

    def tick(self, *, connected: bool) -> list[Record]:
        """Nulls of the points that have been silent for too long, once an interval. `connected` is whether the server
        can be heard at all."""
        now = self._monotonic()
        silent = [point for point in self._points if point.due <= now]
        if silent:
            silent = self._expected(silent)
        if not silent:
            return []
        code = self._reason if connected else quality.BAD_CONNECTION
        moment_ = self.stamp()
        interval = self.config.interval
        for point in silent:
            point.due += interval * ((now - point.due) // interval + 1)
            point.last = nulls(point.layout, moment_, code)
        if all(point.last is None or point.last.time == moment_ for point in self._points):
            self._fail(*SILENT[code])
        return [nulls(point.layout, moment_, code) for point in silent]

    def _expected(self, silent: list[_Point]) -> list[_Point]:
        """Those of the silent points that the device has: a profile names what some of its models do not give. What
        the configuration names is expected, and so is what has come before; of a device never heard, everything."""
        if self.config.points or not any(point.has_come for point in self._points):
            return silent
        for point in silent:
            if not point.has_come:
                point.due += self.config.interval
        return [point for point in silent if point.has_come]

    # What others ask.

    def newest(self, calibrate: Callable[[list[Record]], list[Record]] = list) -> list[Reading]:
        """The newest reading of each point since the service started."""
        return readings(calibrate([point.last for point in self._points if point.last is not None]))

    def status(self) -> dict[str, Any]:
        """What the control socket tells of it: as of any other meter."""
        return {
            "name": self.config.name,
            "bus": self.config.radio,
            "unit": self.config.device,
            "profile": self.config.profile,
            "last_success": iso(self.last_success),
            "last_error": self.last_error,
            "consecutive_failures": self.failures,
            "serial": None,
            "lateness_ms": {"p50": None, "p99": None},
        }

    # What outlasts the service, so that what comes twice is known.

    def remember(self, known: Any) -> None:
        """Take up what `memory` gave; raises TypeError, ValueError or KeyError for anything else."""
        for point in self._points:
            came = known["points"].get(point.name)
            if came is not None:
                point.has_come = True
                point.newest = int(came["newest"])
                point.times.extend(int(one) for one in came["times"])
        for identity, address, count, moment_ in known["uplinks"]:
            self._uplinks.append((Uplink(str(identity), str(address), int(count)), int(moment_)))
        self._checksum = int(known["checksum"])

    def memory(self) -> dict[str, Any]:
        """Times of points and frames that have been here."""
        return {
            "points": {
                point.name: {"newest": point.newest, "times": list(point.times)}
                for point in self._points
                if point.has_come
            },
            "uplinks": [[*uplink, moment_] for uplink, moment_ in self._uplinks],
            "checksum": self._checksum,
        }
