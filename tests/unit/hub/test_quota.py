# SPDX-License-Identifier: Apache-2.0
"""A site that sends too much waits, and nobody else does."""

from __future__ import annotations

from typing import cast

from energy_hub.batch import Body
from energy_hub.config import Quota
from energy_hub.link import BrokerLink, Inbox, Message
from energy_hub.pipeline import MAX_STATUS
from energy_hub.quota import PUT_ASIDE, STATUS_BURST, Quotas, Statuses, cost


class Link:
    connection = 1


LINK = Link()


def batch(site: str, size: int = 100, number: int = 0) -> Message:
    link = cast(BrokerLink, LINK)
    return Message(f"energy/v1/{site}/batch", bytes(size), False, number, 1, link, LINK.connection)


def test_it_waits_for_its_turn_and_the_other_site_does_not() -> None:
    quotas = Quotas(Quota(batches=2, bytes=0, readings=0, burst=5), in_flight=80)
    flood = [batch("a", number=number) for number in range(12)]
    assert [quotas.admit(one, 0.0) for one in flood] == [True] * 10 + [False] * 2
    assert quotas.admit(batch("b"), 0.0) is True
    assert quotas.due(0.0) == []
    assert quotas.due(0.5) == flood[10:11]
    assert quotas.due(1.0) == flood[11:]
    assert quotas.due(9.0) == []


def test_what_waits_is_bounded_by_site_and_in_all() -> None:
    quotas = Quotas(Quota(batches=1, bytes=0, readings=0, burst=1), in_flight=80)
    for site, admitted in (("a", 10), ("b", 10), ("c", 0)):
        answers = [quotas.admit(batch(site), 0.0) for _ in range(21)]
        assert answers == [True] + [False] * admitted + [None] * (20 - admitted)


def test_bytes_count_and_a_large_batch_passes_with_a_debt() -> None:
    quotas = Quotas(Quota(batches=0, bytes=100, readings=0, burst=10), in_flight=80)
    assert quotas.admit(batch("a", 5000), 0.0) is True
    assert quotas.admit(batch("a", 1), 0.0) is False
    assert quotas.due(39.9) == []
    assert len(quotas.due(40.1)) == 1


def test_what_came_by_a_connection_that_is_no_more_is_forgotten() -> None:
    quotas = Quotas(Quota(batches=1, bytes=0, readings=0, burst=1), in_flight=80)
    assert [quotas.admit(batch("a"), 0.0) for _ in range(2)] == [True, False]
    LINK.connection += 1
    assert quotas.due(0.0) == []
    assert quotas.admit(batch("a"), 10.0) is True


def test_what_nobody_known_has_signed_costs_more() -> None:
    quotas = Quotas(Quota(batches=10, bytes=10_000, readings=0, burst=4), in_flight=80)
    for number in range(10):
        assert quotas.admit(batch("a", number=number), 0.0)
        quotas.charge_unsigned(batch("a", number=number))
    # As many as were let in, and no more.
    assert quotas.admit(batch("a"), 0.0) is False
    assert quotas.admit(batch("b"), 0.0) is True
    assert len(quotas.due(0.2)) == 1
    quotas.charge_unsigned(batch("a", size=100_000))
    assert quotas.admit(batch("a"), 20.0) is False
    assert quotas.admit(batch("b"), 20.0) is True


def test_readings_are_charged_when_they_are_known_and_the_next_is_not_read_before_they_are_paid() -> None:
    quotas = Quotas(Quota(batches=3, bytes=0, readings=100, burst=1), in_flight=80)
    group = [batch("a", number=number) for number in range(3)]
    assert [quotas.admit(one, 0.0) for one in group] == [True] * 3
    # What comes first is as large as it likes.
    assert quotas.admit_to_reading(group[0], 0.0) is True
    quotas.charge(group[0], 1100)
    assert [quotas.admit_to_reading(one, 0.0) for one in group[1:]] == [False, False]
    assert quotas.admit(batch("b"), 0.0) is True
    assert quotas.admit_to_reading(batch("b"), 0.0) is True
    assert quotas.due(9.9) == []
    # They have not used up the quota of batches, and both were admitted once.
    assert quotas.due(10.1) == group[1:]
    assert quotas.admit_to_reading(group[1], 10.1) is True
    quotas.charge(group[1], 100)
    assert quotas.admit_to_reading(group[2], 10.1) is False


def test_what_may_not_be_read_yet_waits_in_the_same_room() -> None:
    quotas = Quotas(Quota(batches=0, bytes=0, readings=1, burst=1), in_flight=80)
    group = [batch("a", number=number) for number in range(12)]
    assert all(quotas.admit(one, 0.0) for one in group)
    quotas.charge(group[0], 1000)
    answers = [quotas.admit_to_reading(one, 0.0) for one in group[1:]]
    assert answers == [False] * 10 + [None]


def test_a_batch_taken_back_costs_neither_a_batch_nor_bytes() -> None:
    quotas = Quotas(Quota(batches=2, bytes=200, readings=1, burst=1), in_flight=80)
    first, second = batch("a"), batch("a")
    assert quotas.admit(first, 0.0)
    assert quotas.admit(second, 0.0)
    quotas.charge(first, 1.5)
    assert quotas.admit_to_reading(second, 0.0) is False
    assert quotas.due(0.6) == [second]


def test_what_is_put_aside_and_what_is_long_cost_too() -> None:
    assert cost(Body("a", ())) == 0
    assert cost(Body("a", (), 400_000)) == 10_000
    assert cost(None) == PUT_ASIDE


def test_zero_is_no_bound() -> None:
    quotas = Quotas(Quota(batches=0, bytes=0, readings=0, burst=60), in_flight=8)
    assert all(quotas.admit(batch("a", 10**6), 0.0) for _ in range(1000))
    quotas.charge(batch("a"), 10**6)
    assert quotas.admit_to_reading(batch("a"), 0.0) is True
    quotas = Quotas(Quota(batches=1000, bytes=0, readings=0, burst=60), in_flight=8)
    quotas.admit(batch("a"), 0.0)
    quotas.charge(batch("a"), 10**6)
    assert quotas.admit_to_reading(batch("a"), 0.0) is True


def test_of_the_statuses_of_a_site_that_wait_the_newest_is_there() -> None:
    receipts: list[int] = []

    class Receipts(Link):
        def done(self, message: Message) -> None:
            receipts.append(message.mid)

    here, there = Receipts(), Receipts()
    inbox = Inbox()
    inbox.put(status("a", 1, link=here))
    inbox.put(batch("a", number=2))
    for number in range(3, 1000):
        inbox.put(status("a", number, link=here))
    inbox.put(batch("a", number=1000))
    inbox.put(status("a", 1001, link=there))
    inbox.put(status("b", 1002, link=here))
    assert len(inbox) == 5
    assert receipts == [1, *range(3, 999)]
    # In the place of the first: the key that it brings has signed the batches behind it.
    assert [one.mid for one in iter(lambda: inbox.take(0.0), None)] == [999, 2, 1000, 1001, 1002]
    inbox.put(status("a", 1, link=here))
    inbox.put(status("a", 2, link=there))
    inbox.forget(cast(BrokerLink, here))
    assert [one.mid for one in iter(lambda: inbox.take(0.0), None)] == [2]


def status(site: str, number: int = 0, size: int = 10, link: object = LINK) -> Message:
    return Message(f"energy/v1/{site}/status", bytes(size), True, number, 1, cast(BrokerLink, link), 1)


def test_of_statuses_beyond_the_quota_the_newest_is_looked_at() -> None:
    statuses = Statuses()
    flood = [status("a", number) for number in range(1000)]
    assert sum(statuses.admit(one, 0.0) for one in flood) == STATUS_BURST
    assert statuses.admit(status("b"), 0.0)
    assert statuses.due(0.0) == []
    kept = statuses.due(1.0)
    assert [(one.mid, one.qos) for one in kept] == [(999, 0)], "its receipt was given when it came"
    assert statuses.due(99.0) == []
    assert statuses.admit(status("a"), 99.0)


def test_a_status_waits_behind_the_one_that_is_kept() -> None:
    statuses = Statuses()
    for number in range(int(STATUS_BURST) + 1):
        statuses.admit(status("a", number), 0.0)
    # There is room again, but what is kept is older.
    assert not statuses.admit(status("a", 77), 5.0)
    assert [one.mid for one in statuses.due(5.0)] == [77]


def test_what_is_kept_of_a_site_is_kept_by_broker_and_bounded() -> None:
    other = Link()
    statuses = Statuses()
    for number in range(int(STATUS_BURST)):
        statuses.admit(status("a", number), 0.0)
    statuses.admit(status("a", 100), 0.0)
    statuses.admit(status("a", 101, link=other), 0.0)
    statuses.admit(status("a", 102, size=MAX_STATUS + 1), 0.0)
    assert sorted(one.mid for one in statuses.due(9.0)) == [100, 101]
