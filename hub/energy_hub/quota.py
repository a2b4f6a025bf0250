# SPDX-License-Identifier: Apache-2.0
"""What one site may send, so that none takes the hub from the others.

Over its quota a site's batches wait here for their turn, and the broker waits for their receipt. It waits for so many
and no more, so those that wait are few; the rest is let go, and the gateway sends it again because nobody has
acknowledged it. Nothing is lost: the site is slower.

How many readings a batch has is known when it has been read, a thousand bytes may be a hundred thousand. So each is
charged then, and before the next one of its site is read, it is looked at whether the site is in debt.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, replace

from energy_hub.batch import Body
from energy_hub.config import Quota
from energy_hub.link import BrokerLink, Message
from energy_hub.pipeline import MAX_STATUS

# Statuses that a site may send: it has one to tell when it connects, when it ends, and now and then between.
STATUSES, STATUS_BURST = 1.0, 30.0
# A batch that nobody known has signed counts as so many. A gateway that is not known yet has its status before them,
# and sends again what came too early.
UNSIGNED = 4
# Bytes of a body that take as long to read as a reading; the bodies of collectors have fewer for each.
BYTES_OF_A_READING = 40
# What a batch of a known key costs that is put aside as it is: reading it may have taken as long as so many readings.
PUT_ASIDE = 20_000


def cost(body: Body | None) -> float:
    """Of a batch, in readings."""
    return PUT_ASIDE if body is None else max(body.readings, body.size / BYTES_OF_A_READING)


class Bucket:
    """Tokens that come at a rate, up to what has gathered in `burst` s. What costs more than there is goes into debt,
    so that something large passes, too, and whoever sent it waits the longer."""

    def __init__(self, rate: float, burst: float, now: float) -> None:
        self._rate = rate
        self._most = rate * burst
        self._tokens = self._most
        self._now = now

    def has_some(self, now: float) -> bool:
        """Without a rate there is no bound."""
        self._tokens = min(self._most, self._tokens + self._rate * (now - self._now))
        self._now = now
        return self._rate == 0 or self._tokens > 0

    def take(self, cost: float) -> None:
        self._tokens -= cost


@dataclass(slots=True)
class _Site:
    batches: Bucket
    bytes: Bucket
    readings: Bucket
    waiting: deque[Message]

    def admits(self, message: Message, now: float) -> bool:
        if not all(bucket.has_some(now) for bucket in (self.batches, self.bytes, self.readings)):
            return False
        self.charge(message, 1)
        return True

    def charge(self, message: Message, times: int) -> None:
        self.batches.take(times)
        self.bytes.take(times * len(message.payload))

    def take_back(self, message: Message) -> None:
        self.batches.take(-1)
        self.bytes.take(-len(message.payload))


class Quotas:
    """By site, which is the topic. `in_flight` is what the broker hands over before it waits for receipts: at most a
    quarter of it waits here, and an eighth of one site, so that there is always room for the others.

    Lanes have threads of their own, and read batches there."""

    def __init__(self, quota: Quota, in_flight: int) -> None:
        self._quota = quota
        self._most = in_flight // 4
        self._most_of_one = in_flight // 8
        self._sites: dict[str, _Site] = {}
        self._count = 0
        self._turn = threading.Lock()

    def admit(self, message: Message, now: float) -> bool | None:
        """True: within the quota; False: it waits here; None: there is no room to wait, let it go."""
        if not (self._quota.batches or self._quota.bytes or self._quota.readings):
            return True
        with self._turn:
            site = self._sites.get(message.topic)
            if site is None:
                site = self._sites[message.topic] = self._new(now)
            if not site.waiting and site.admits(message, now):
                return True
            return self._wait(site, message)

    def admit_to_reading(self, message: Message, now: float) -> bool | None:
        """The same for one that was admitted, and is about to be read: what was read since may have been too much."""
        with self._turn:
            site = self._sites.get(message.topic)
            if site is None or site.readings.has_some(now):
                return True
            site.take_back(message)
            return self._wait(site, message)

    def charge(self, message: Message, readings: float) -> None:
        """It was read, and had so many."""
        with self._turn:
            site = self._sites.get(message.topic)
            if site is not None:
                site.readings.take(readings)

    def charge_unsigned(self, message: Message) -> None:
        """It was let in, and nobody known has signed it."""
        with self._turn:
            site = self._sites.get(message.topic)
            if site is not None:
                site.charge(message, UNSIGNED - 1)

    def due(self, now: float) -> list[Message]:
        """Those whose turn has come. What came by a connection that is no more comes again by itself."""
        found: list[Message] = []
        if not self._count:
            return found
        with self._turn:
            for site in self._sites.values():
                while site.waiting:
                    if site.waiting[0].is_current:
                        if not site.admits(site.waiting[0], now):
                            break
                        found.append(site.waiting[0])
                    site.waiting.popleft()
                    self._count -= 1
        return found

    def _new(self, now: float) -> _Site:
        rates = self._quota.batches, self._quota.bytes, self._quota.readings
        batches, size, readings = (Bucket(rate, self._quota.burst, now) for rate in rates)
        return _Site(batches, size, readings, deque())

    def _wait(self, site: _Site, message: Message) -> bool | None:
        if len(site.waiting) >= self._most_of_one or self._count >= self._most:
            return None
        site.waiting.append(message)
        self._count += 1
        return False


class Statuses:
    """The same for statuses, each of which is a transaction of its own. Only the newest tells how a site is: over its
    quota that one is kept here for its turn, and those before it are forgotten."""

    def __init__(self) -> None:
        self._buckets: dict[str, Bucket] = {}
        # By link as well: what a site has left behind at one broker must not replace what it says at another.
        self._kept: dict[tuple[str, BrokerLink], Message] = {}

    def admit(self, message: Message, now: float) -> bool:
        """False: it is taken care of, and the broker may have its receipt."""
        bucket = self._buckets.get(message.topic)
        if bucket is None:
            bucket = self._buckets[message.topic] = Bucket(STATUSES, STATUS_BURST, now)
        place = (message.topic, message.link)
        if place not in self._kept and bucket.has_some(now):
            bucket.take(1)
            return True
        # What is larger is refused whenever it is looked at.
        if len(message.payload) <= MAX_STATUS:
            # Its receipt is given now, and must not be given again.
            self._kept[place] = replace(message, qos=0)
        return False

    def due(self, now: float) -> list[Message]:
        """Those whose turn has come."""
        places = [place for place in self._kept if self._buckets[place[0]].has_some(now)]
        for topic, _ in places:
            self._buckets[topic].take(1)
        return [self._kept.pop(place) for place in places]
