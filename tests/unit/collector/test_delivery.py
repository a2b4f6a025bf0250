# SPDX-License-Identifier: Apache-2.0
"""Which batch is sent when, in simulated time: the book-keeping with a hub that answers as a test wants."""

from __future__ import annotations

from collections import Counter

import pytest
from energy_collector.config import DeliveryConfig
from energy_collector.delivery.window import BACKLOG_BYTES, BACKLOG_WINDOW, LIVE_WINDOW, Delivery, TokenBucket

RESEND = 30.0


class Site:
    """A gateway's sending loop around `Delivery`: `buffer` holds sequence -> readings."""

    def __init__(self, config: DeliveryConfig | None = None, backlog: int = 0, readings: int = 160) -> None:
        self.now = 1000.0
        self.readings = readings
        self.buffer = dict.fromkeys(range(1, backlog + 1), readings)
        self.newest = backlog
        self.delivery = Delivery(config or DeliveryConfig(), RESEND)
        self.sent: list[tuple[float, int]] = []
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
    site = Site(backlog=5)
    site.connect(start=30)
    assert site.send() == [1, 2, 3, 4, 5]


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


@pytest.mark.parametrize(("readings", "most"), [(160, 32), (5000, 1), (100_000, 1), (10, BACKLOG_WINDOW)])
def test_the_backlog_under_way_is_bounded(readings: int, most: int) -> None:
    site = Site(DeliveryConfig(1e9, 5000, 0), backlog=500, readings=readings)
    site.connect()
    assert len(site.send()) == most
    site.now += 1
    assert site.send() == []
    assert most == 1 or 4 * readings * (most - 1) < BACKLOG_BYTES


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


def test_a_lost_puback_changes_nothing_and_a_late_one_belongs_to_its_batch() -> None:
    site = Site(backlog=0)
    site.connect()
    site.seal()
    site.send()
    site.now += RESEND
    site.send()
    site.delivery.received(1, 5)
    assert site.delivery.is_under_way(1)
    site.delivery.received(2, 7)
    site.delivery.received(99, 9)
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
