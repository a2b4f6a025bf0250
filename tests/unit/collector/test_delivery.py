# SPDX-License-Identifier: Apache-2.0
"""Which batch is sent when, in simulated time: the book-keeping with a hub that answers as a test wants."""

from __future__ import annotations

from collections import Counter

import pytest
from energy_collector.config import DeliveryConfig
from energy_collector.delivery.backoff import FIRST, LONGEST, ReconnectBackoff
from energy_collector.delivery.window import (
    BACKLOG_BYTES,
    BACKLOG_WINDOW,
    LIVE_WINDOW,
    LONGEST_RESEND,
    Delivery,
    TokenBucket,
)

INTERVAL, RESEND = 10.0, 30.0


class Site:
    """A gateway's sending loop around `Delivery`: `buffer` holds sequence -> readings."""

    def __init__(self, config: DeliveryConfig | None = None, backlog: int = 0, readings: int = 160) -> None:
        self.now = 1000.0
        self.readings = readings
        self.buffer = dict.fromkeys(range(1, backlog + 1), readings)
        self.newest = backlog
        self.delivery = Delivery(config or DeliveryConfig(), INTERVAL, RESEND)
        self.sent: list[tuple[float, int]] = []
        # Whether the broker answers each message at once.
        self.pubacks = True
        self._message = 0

    def connect(self, start: float = 0.0) -> None:
        self.delivery.connected(self.newest, self.now, start)

    def seal(self) -> int:
        self.newest += 1
        self.buffer[self.newest] = self.readings
        return self.newest

    def send(self) -> list[int]:
        """What goes out now, in its order."""
        before = len(self.sent)
        for sequence in self.delivery.overdue(self.now):
            self._hand_over(sequence)
        live = [one for one in sorted(self.buffer) if one > self.delivery.live_cursor]
        for sequence in live[: self.delivery.live_room(self.now)]:
            self._hand_over(sequence)
        while self.delivery.has_backlog and self.delivery.backlog_wait(self.now) == 0:
            waiting = [one for one in sorted(self.buffer) if one > self.delivery.backlog_cursor]
            if not waiting or not self.delivery.is_backlog(waiting[0]):
                self.delivery.end_backlog()
            elif self.delivery.is_under_way(waiting[0]):
                self.delivery.skip(waiting[0])
            else:
                self._hand_over(waiting[0])
        return [sequence for _, sequence in self.sent[before:]]

    def _hand_over(self, sequence: int) -> None:
        self._message += 1
        self.sent.append((self.now, sequence))
        self.delivery.sent(
            sequence, self.buffer[sequence], 4 * self.buffer[sequence], self._message, self.now, 0
        )
        if self.pubacks:
            self.delivery.received(self._message, self.now, 0)

    def puback(self, sequence: int | None = None) -> None:
        """The broker has received all, or one batch."""
        for message, (_, sent) in enumerate(self.sent, 1):
            if sequence in (None, sent):
                self.delivery.received(message, self.now, 0)

    def commit(self, *sequences: int) -> None:
        self.delivery.heard(self.newest, self.now)
        for sequence in sequences:
            self.delivery.forget(sequence)
            del self.buffer[sequence]


def test_live_data_overtakes_the_backlog() -> None:
    site = Site(backlog=10_000)
    site.connect()
    backlog = site.send()
    assert backlog[0] == 1
    assert backlog == sorted(backlog)
    live = site.seal()
    assert site.send() == [live], "no acknowledgement has come, and the live batch goes nevertheless"


def test_a_short_interruption_is_made_up_for_at_once() -> None:
    site = Site(backlog=3)
    site.connect(start=30)
    assert site.send() == [1, 2, 3]


def test_the_backlog_keeps_to_its_rate_and_waits_for_its_start() -> None:
    rate, burst, start = 100.0, 1000, 20.0
    site = Site(DeliveryConfig(rate, burst, start), backlog=2000)
    site.connect(start)
    done = 0
    for step in range(600):
        site.now = 1000.0 + step * 0.1
        sent = site.send()
        site.commit(*sent)
        done += 160 * len(sent)
        allowed = burst + max(step * 0.1 - start, 0) * rate
        assert done <= allowed + 160
    assert done >= burst + 39 * rate


@pytest.mark.parametrize(
    ("readings", "first", "most"), [(160, 4, 32), (1000, 1, 5), (5000, 1, 1), (100_000, 1, 1), (10, 52, 64)]
)
def test_the_backlog_under_way_is_bounded(readings: int, first: int, most: int) -> None:
    site = Site(DeliveryConfig(1e9, 5000, 0), backlog=5000, readings=readings)
    site.pubacks = False
    site.connect()
    under_way = site.send()
    assert len(under_way) == first
    site.now += 0.1
    assert site.send() == []
    for _ in range(20):
        # Nothing queues anywhere, so the window grows.
        site.puback()
        site.commit(*under_way)
        under_way = site.send()
        site.now += 0.1
    assert len(under_way) == most
    assert most <= BACKLOG_WINDOW
    assert most == 1 or 4 * readings * (most - 1) < BACKLOG_BYTES


@pytest.mark.parametrize(("readings", "rate"), [(160, 500.0), (1600, 1300.0), (160, 20_000.0)])
def test_no_backlog_queues_before_a_live_batch_for_longer_than_its_interval(
    readings: int, rate: float
) -> None:
    """A line of `rate` bytes a second with all the room for a queue that a bad modem has."""
    site = Site(DeliveryConfig(1e9, 1_000_000, 0), backlog=300, readings=readings)
    site.pubacks = False
    site.connect()
    size, begin, step = 4 * readings, site.now, 0.05
    free = begin
    arrivals: list[tuple[float, int]] = []
    waits: list[float] = []
    while any(one <= 300 for one in site.buffer):
        site.now += step
        while arrivals and arrivals[0][0] <= site.now:
            arrived = arrivals.pop(0)[1]
            site.puback(arrived)
            site.commit(arrived)
        if len(waits) < (site.now - begin) // INTERVAL:
            site.seal()
        for sequence in site.send():
            if sequence > 300:
                waits.append(max(free - site.now, 0))
            free = max(free, site.now) + size / rate
            arrivals.append((free + 0.3, sequence))
        assert len(site.sent) < 2000, "the line is not filled with repetitions"
    # A batch that has begun is not broken off.
    assert max(waits, default=0) <= INTERVAL + size / rate
    least = 300 * size / (rate - size / INTERVAL)
    assert site.now - begin < 1.5 * least + INTERVAL, "the line is used nevertheless"


def test_many_sites_make_no_queue_at_the_hub_that_live_data_waits_in() -> None:
    """Eight sites with a backlog each, and a hub that commits less in a second than they could send."""
    capacity, step, backlog = 1200.0, 0.2, 200
    sites = [Site(DeliveryConfig(1e9, 5000, 0), backlog=backlog) for _ in range(8)]
    queue: list[tuple[Site, int, float]] = []
    late: list[tuple[float, float]] = []
    room = idle = 0.0
    for site in sites:
        site.connect()
    for turn in range(900):
        now = 1000.0 + turn * step
        for number, site in enumerate(sites):
            site.now = now
            if turn % 50 == 5 * number:
                site.seal()
            queue += [(site, sequence, now) for sequence in site.send()]
        room = min(room + capacity * step, capacity)
        while queue and room >= 160:
            room -= 160
            site, sequence, since = queue.pop(0)
            if sequence not in site.buffer:
                continue  # sent again meanwhile
            site.commit(sequence)
            if sequence > backlog:
                late.append((now, now - since))
        idle += not queue
    assert len(late) > 100
    # So many sites at once make a queue; it is gone before long, and does not come back.
    assert max(wait for now, wait in late if now > 1060) < INTERVAL
    assert idle * step < 20, "the hub has something to do nevertheless"


def test_a_hub_that_never_acknowledges_gets_each_batch_a_bounded_number_of_times() -> None:
    site = Site(backlog=300)
    site.connect()
    for second in range(1800):
        site.now = 1000.0 + second
        if second % 10 == 0:
            site.seal()
        site.send()
    times = Counter(sequence for _, sequence in site.sent)
    # 0, 30, 90, 210, 450, 930 and 1530 s after the first time.
    assert max(times.values()) == 7
    assert len(times) <= LIVE_WINDOW + BACKLOG_WINDOW
    bursts = Counter(int(when) for when, _ in site.sent)
    assert max(bursts.values()) <= LIVE_WINDOW + BACKLOG_WINDOW


def test_after_a_silence_of_the_hub_live_data_comes_first_again() -> None:
    site = Site(backlog=0)
    site.connect()
    for second in range(3600):
        site.now += 1
        if second % 10 == 0:
            site.seal()
        site.send()
    under_way = [one for one in site.buffer if site.delivery.is_under_way(one)]
    assert len(under_way) == LIVE_WINDOW
    site.now += 5
    site.commit(under_way[0])
    live = site.seal()
    assert live in site.send()[: len(under_way) + 1]
    seen: set[int] = set()
    for _ in range(600):
        site.now += 1
        site.send()
        ready = [one for one in site.buffer if site.delivery.is_under_way(one)]
        seen.update(ready)
        site.commit(*ready)
        if not site.buffer:
            break
    assert not site.buffer, "all of it has arrived, each of its own sequence"
    assert seen >= set(range(2, 361)) - {under_way[0]}


def test_refused_batches_do_not_hold_up_the_others() -> None:
    site = Site(backlog=0)
    site.connect()
    refused: set[int] = set()
    for second in range(3000):
        site.now += 1
        if second % 10 == 0:
            sequence = site.seal()
            if sequence % 4 == 0:
                refused.add(sequence)
        for sequence in site.send():
            if sequence not in refused:
                site.commit(sequence)
    assert set(site.buffer) == refused
    assert len(refused) > 2 * LIVE_WINDOW
    times = Counter(sequence for _, sequence in site.sent)
    assert all(times[sequence] == 1 for sequence in times if sequence not in refused)
    assert max(times.values()) <= 9


def test_a_batch_is_not_repeated_while_it_is_still_on_its_way_to_the_broker() -> None:
    site = Site(backlog=0)
    site.pubacks = False
    site.connect()
    site.seal()
    assert site.send() == [1]
    site.now += 3 * RESEND
    assert site.send() == [], "one more would only queue behind the first"
    site.delivery.heard(site.newest, site.now)
    site.now += RESEND
    assert site.send() == [], "not after a silence of the hub either"
    site.delivery.received(1, site.now, 5)
    site.now += RESEND - 1
    assert site.send() == []
    site.now += 1
    assert site.send() == [1], "the broker had it, and the hub said nothing"


def test_a_refused_message_is_tried_again() -> None:
    site = Site(backlog=0)
    site.pubacks = False
    site.connect()
    site.seal()
    site.send()
    site.delivery.received(1, site.now, None)
    site.now += RESEND
    assert site.send() == [1]


def test_a_late_puback_belongs_to_its_batch_and_a_strange_one_to_none() -> None:
    site = Site(backlog=0)
    site.pubacks = False
    site.connect()
    site.seal()
    site.send()
    site.now += LONGEST_RESEND
    assert site.send() == [1], "a broker that answers nothing gets it again now and then"
    site.delivery.received(1, site.now, 5)
    site.delivery.received(99, site.now, 9)
    site.delivery.received(2, site.now, 7)
    one = site.delivery.forget(1)
    assert one is not None
    assert (one.puback, one.tries) == (7, 2)
    assert site.delivery.next_due() is None


def test_a_new_connection_sends_all_that_was_not_acknowledged() -> None:
    site = Site(backlog=3)
    site.connect()
    site.send()
    site.commit(2)
    site.seal()
    site.send()
    site.connect()
    assert site.send() == [1, 3, 4]


def test_a_bucket_pays_its_debt_back() -> None:
    bucket = TokenBucket(100, 1000)
    bucket.fill(0, 10)
    bucket.take(0, 1200)
    assert bucket.wait(0) == pytest.approx(10 + 2.01)
    assert bucket.wait(12) == pytest.approx(0.01)
    assert bucket.wait(12.02) == 0
    assert bucket.wait(1000) == 0
    bucket.take(1000, 999)
    assert bucket.wait(1000) == 0, "no more than the burst has gathered"
    bucket.take(1000, 1)
    assert bucket.wait(1000) > 0


def test_a_hub_that_is_away_is_tried_ever_less_often_and_by_no_two_sites_in_step() -> None:
    sites = [ReconnectBackoff() for _ in range(50)]
    due = FIRST
    for _ in range(10):
        waits = [site.next() for site in sites]
        assert all(due / 2 <= wait <= due for wait in waits)
        assert max(waits) - min(waits) > due / 4
        due = min(2 * due, LONGEST)
    assert due == LONGEST
    sites[0].reset()
    assert sites[0].next() <= FIRST
