# SPDX-License-Identifier: Apache-2.0
"""Which batch to send when: pure book-keeping over the batches that are under way on one connection.

What is sealed while the connection is up is live, and goes at once. What was left from before is the backlog:
it goes oldest first behind the live batches, at a pace, and only as far ahead of the hub's acknowledgements as
does not hold up a live batch for longer than its own interval. The hub takes batches in any order.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from energy_collector.config import DeliveryConfig

# Batches under way without the hub's acknowledgement. The hub commits in fractions of a second; the window
# covers a slow link. Live and backlog have windows of their own, so that neither takes the other's place.
LIVE_WINDOW = 16
BACKLOG_WINDOW = 64
# Backlog under way, in bytes: at first on a connection, at least, and at most. A single batch may be larger.
FIRST_BYTES = 2 << 10
LEAST_BYTES = 1 << 10
# And until the hub has acknowledged some of it: a fleet that comes back in one moment brings so much of each site.
FIRST_CEILING = 8 << 10
BACKLOG_BYTES = 64 << 10
# What is under way queues somewhere before the hub, and a live batch queues behind it. How much later than without a
# queue the broker's PUBACKs come, in parts of a batch's interval: the window grows up to the one and shrinks from the
# other on. Until it shows, the queue may have doubled.
NO_QUEUE, QUEUE = 0.25, 0.5
# A batch that is never acknowledged is sent again at twice the distance each time, up to this, in s. The distance
# begins when the broker has the batch: until its PUBACK comes, the batch is on its way, and one more of it would only
# queue behind it (and fill a thin line for good). A broker that never sends any gets it again after this time.
LONGEST_RESEND = 600.0


class TokenBucket:
    """Lets `rate` units a second through, and `burst` at once after a rest."""

    def __init__(self, rate: float, burst: float) -> None:
        self._rate = rate
        self._burst = burst
        self._level = burst
        self._at = 0.0

    def fill(self, now: float, start: float) -> None:
        """Full now; more flows in from `start` on."""
        self._level = self._burst
        self._at = max(now, start)

    def wait(self, now: float) -> float:
        """How long until something may go through, in s; a bucket in debt pays that back first."""
        self._flow(now)
        if self._level > 0:
            return 0.0
        # A little more than nothing has to be in it.
        return max(self._at - now, 0.0) + (1 - self._level) / self._rate

    def take(self, now: float, count: float) -> None:
        """Something goes through: it may be more than is there, which leaves a debt."""
        self._flow(now)
        self._level -= count

    def _flow(self, now: float) -> None:
        if now > self._at:
            self._level = min(self._level + (now - self._at) * self._rate, self._burst)
            self._at = now


@dataclass
class UnderWay:
    """A batch that was sent. `last` and `due` are monotonic s, `sent` and `puback` are ms UTC.

    `distance` (s) passes between its PUBACK and the next try.
    """

    sequence: int
    readings: int
    size: int
    live: bool
    message: int
    last: float
    due: float
    distance: float
    sent: int
    tries: int = 1
    puback: int | None = None


class Delivery:
    """The windows of batches under way. Times called `now` are monotonic s.

    `interval` is that of a batch, `resend` the time after which one is sent again, both in s.
    """

    def __init__(self, config: DeliveryConfig, interval: float, resend: float) -> None:
        self._config = config
        self._resend = resend
        self._interval = interval
        # Bytes of backlog that may be under way; the shortest time that a PUBACK took on this
        # connection; and when the window was halved: what was sent before tells nothing about its new size.
        self._window = FIRST_BYTES
        self._shortest = math.inf
        self._halved = 0.0
        # How far the window may grow, by what the hub's acknowledgements tell.
        self._ceiling = FIRST_CEILING
        self._bucket = TokenBucket(config.backlog_rate, config.backlog_burst)
        self._under_way: dict[int, UnderWay] = {}
        self._by_message: dict[int, int] = {}
        # Repetitions that wait for a PUBACK to make room.
        self._held: set[int] = set()
        # Highest sequence that is backlog, and the highest ones sent of backlog and live.
        self._newest = 0
        self.backlog_cursor = 0
        self.live_cursor = 0
        # When the newest of the acknowledged batches was sent, and when the hub last said something.
        self._proven = 0.0
        self._heard = 0.0

    def connected(self, newest: int, now: float, start: float) -> None:
        """A new connection: everything is sent again, what is newer than `newest` first.

        The backlog's bucket is full, so that what a short interruption has left goes at once; it fills up
        again only `start` s later.
        """
        self._under_way.clear()
        self._by_message.clear()
        self._held.clear()
        self.backlog_cursor = 0
        self._newest = self.live_cursor = newest
        self._proven = 0.0
        self._heard = now
        self._window = FIRST_BYTES
        self._shortest = math.inf
        self._halved = now
        self._ceiling = FIRST_CEILING
        self._bucket.fill(now, now + start)

    # What may be sent.

    def live_room(self, now: float) -> int:
        """How many more live batches may be sent."""
        return max(LIVE_WINDOW - sum(one.live for one in self._waited_for(now)), 0)

    def is_backlog(self, sequence: int) -> bool:
        """Whether a batch is older than the connection."""
        return sequence <= self._newest

    def is_under_way(self, sequence: int) -> bool:
        """Whether a batch was sent on this connection and not acknowledged yet."""
        return sequence in self._under_way

    def backlog_wait(self, now: float) -> float | None:
        """How long until one more batch of backlog may be sent, in s; None until an acknowledgement comes."""
        ahead = [one for one in self._waited_for(now) if not one.live]
        if ahead and (
            len(ahead) >= BACKLOG_WINDOW
            or sum(one.size for one in ahead) >= self._window
            or sum(one.readings for one in ahead) >= self._config.backlog_burst
        ):
            return None
        return self._bucket.wait(now)

    def _waited_for(self, now: float) -> list[UnderWay]:
        """The batches that fill the windows. One that is overdue while the hub has acknowledged later ones
        was refused or has got lost, and must not hold up the others."""
        return [
            one
            for one in self._under_way.values()
            if one.last >= self._proven or now < one.last + self._resend
        ]

    def overdue(self, now: float) -> list[int]:
        """Batches to be sent again, in order of their sequences.

        Of those that are not live, no more than the backlog's window holds beside what is on its way to the broker:
        all that a broker has forgotten is due at the same time, and would stand before the live batches in the line.
        """
        due = sorted(
            (one for one in self._under_way.values() if now >= one.due), key=lambda one: one.sequence
        )
        on_its_way = sum(
            one.size for one in self._under_way.values() if not one.live and one.message in self._by_message
        )
        self._held.clear()
        again = []
        for one in due:
            if not one.live:
                if on_its_way and on_its_way + one.size > self._window:
                    self._held.add(one.sequence)
                    continue
                on_its_way += one.size
            again.append(one.sequence)
        return again

    def next_due(self) -> float | None:
        """When the next batch has to be sent again; those that wait for a PUBACK are not asked."""
        return min(
            (one.due for one in self._under_way.values() if one.sequence not in self._held), default=None
        )

    # What has happened.

    def sent(self, sequence: int, readings: int, size: int, message: int, now: float, wall: int) -> None:
        """A batch was handed to the link; `wall` is ms UTC. `message` is 0 when the link does not take it."""
        live = sequence > self._newest
        before = self._under_way.get(sequence)
        # Not before the broker has it, if it ever gets there.
        due = now + (max(LONGEST_RESEND, self._resend) if message else self._resend)
        if before is None:
            self._under_way[sequence] = UnderWay(
                sequence, readings, size, live, message, now, due, self._resend, wall
            )
        else:
            self._by_message.pop(before.message, None)
            before.distance = min(self._resend * 2**before.tries, max(LONGEST_RESEND, self._resend))
            before.due = due if message else now + before.distance
            before.tries += 1
            before.message, before.last = message, now
        if message:
            self._by_message[message] = sequence
        if live:
            self.live_cursor = max(self.live_cursor, sequence)
        elif before is None:
            self.backlog_cursor = max(self.backlog_cursor, sequence)
            self._bucket.take(now, readings)

    def move_mark(self, newest: int) -> None:
        """What is not newer than `newest` and was not sent yet is backlog, even if it was sealed later than the
        connection came up."""
        self._newest = self.live_cursor = max(newest, self.live_cursor)

    @property
    def has_backlog(self) -> bool:
        """Whether there may be backlog that was not sent yet."""
        return self.backlog_cursor < self._newest

    def end_backlog(self) -> None:
        """There is none any more."""
        self.backlog_cursor = max(self.backlog_cursor, self._newest)

    def skip(self, sequence: int) -> None:
        """A batch of backlog needs no sending."""
        self.backlog_cursor = max(self.backlog_cursor, sequence)

    def received(self, message: int, now: float, wall: int | None) -> None:
        """The broker has answered a message (PUBACK); `wall` is ms UTC, None when it refuses the message."""
        one = self._under_way.get(self._by_message.pop(message, 0))
        if one is not None:
            one.due = now + one.distance
            self._set_window(one, now)
            if one.puback is None:
                one.puback = wall

    def _set_window(self, one: UnderWay, now: float) -> None:
        """How long a batch took to the broker sets the backlog's window: it doubles in a round trip while there is
        no queue, and is halved once for each that shows."""
        took = now - one.last
        self._shortest = min(self._shortest, took)
        queue = (took - self._shortest) / self._interval
        if queue <= NO_QUEUE:
            self._window = min(self._window + (0 if one.live else one.size), self._ceiling)
        elif queue > QUEUE and one.last >= self._halved:
            self._window = max(self._window // 2, LEAST_BYTES)
            self._halved = now

    def _set_ceiling(self, one: UnderWay, now: float) -> None:
        """How long a batch took to the hub's acknowledgement bounds the window: behind the broker there may be a queue
        of many sites' backlogs, in which live batches wait too, and of which no PUBACK tells. A hub that was away has
        the same effect, until the next round trips."""
        queue = math.inf if one.tries > 1 else (now - one.last) / self._interval
        if queue <= NO_QUEUE:
            self._ceiling = min(self._ceiling + one.size, BACKLOG_BYTES)
        elif queue > QUEUE and one.last >= self._halved:
            self._ceiling = self._window = max(min(self._window, self._ceiling) // 2, LEAST_BYTES)
            self._halved = now

    def heard(self, newest: int, now: float) -> None:
        """The hub has acknowledged something.

        After a long silence that ended just now, what could not be sent meanwhile is backlog as after an
        outage of the link, and what was sent is soon sent again: nobody knows whether the broker has kept it.
        """
        if now - self._heard > self._resend:
            self.move_mark(newest)
            for one in self._under_way.values():
                one.live = False
                if one.message not in self._by_message:
                    one.due = min(one.due, now + self._resend)
        self._heard = now

    def forget(self, sequence: int) -> UnderWay | None:
        """A batch is committed, or has left the buffer."""
        one = self._under_way.pop(sequence, None)
        if one is not None:
            if self._heard >= one.last:
                self._set_ceiling(one, self._heard)
            self._by_message.pop(one.message, None)
            self._proven = max(self._proven, one.last)
        return one
