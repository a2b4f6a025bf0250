# SPDX-License-Identifier: Apache-2.0
"""Reading messages: paths, numbers and times, and what is none."""

from __future__ import annotations

import datetime as dt
import json
from typing import Any

import pytest
from energy_collector.radio.message import MAX_MESSAGE, MISSING, UnreadableError, dig, moment, number, read

NOON = 1767268800000  # 2026-01-01T12:00:00Z


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("2026-01-01T12:00:00Z", NOON),
        ("2026-01-01T12:00:00.941Z", NOON + 941),
        # zigbee2mqtt, ISO_8601_local.
        ("2026-01-01T13:00:00.500+01:00", NOON + 500),
        ("2026-01-01T06:30:00-0530", NOON),
        # ChirpStack: nanoseconds, cut and not rounded.
        ("2026-01-01T12:00:00.775999999+00:00", NOON + 775),
        ("2026-01-01T12:00:00.7+00:00", NOON + 700),
        # A leap second is the first one of the next minute.
        ("2016-12-31T23:59:60Z", 1483228800000),
        ("2026-01-01T12:00:00", None),
        ("2026-02-30T12:00:00Z", None),
        ("2026-01-01T12:00:61Z", None),
        ("2026-01-01", None),
        ("1 minute ago", None),
        ("", None),
        ("0001-01-01T00:00:00+10:00", None),
        ("1969-12-31T23:59:59Z", None),
        ("٢٠٢٦-01-01T12:00:00Z", None),
    ],
)
def test_times_in_words(text: str, expected: int | None) -> None:
    assert moment(text, "auto") == moment(text, "iso") == expected
    assert moment(text, "epoch_ms") is None


@pytest.mark.parametrize(
    ("value", "form", "expected"),
    [
        (NOON, "auto", NOON),
        (NOON + 0.9, "epoch_ms", NOON),
        (NOON // 1000, "epoch_s", NOON),
        (NOON / 1000 + 0.25, "epoch_s", NOON + 250),
        (NOON, "iso", None),
        (0, "auto", None),
        (-5, "auto", None),
        (1e300, "auto", None),
        (True, "auto", None),
        (None, "auto", None),
        ([NOON], "auto", None),
        (10**400, "epoch_s", None),
        (1e306, "epoch_s", None),
    ],
)
def test_times_in_numbers(value: Any, form: str, expected: int | None) -> None:
    assert moment(value, form) == expected


def test_a_time_is_that_of_the_calendar() -> None:
    for day in range(0, 40_000, 997):
        when = dt.datetime(1970, 1, 2, 3, 4, 5, 678_000, tzinfo=dt.timezone.utc) + dt.timedelta(days=day)
        assert moment(when.isoformat(), "iso") == round(when.timestamp() * 1000)


@pytest.mark.parametrize("value", ["12.5", True, False, None, [1], {}, float("nan"), float("inf"), 10**400])
def test_what_is_no_number(value: Any) -> None:
    assert number(value) is None


def test_paths() -> None:
    document = {"object": {"1": 25, "a.b": 3, "list": [{"rssi": -36}]}, "none": None}
    assert dig(document, ("object", 1)) == 25
    assert dig(document, ("object", "a.b")) == 3
    assert dig(document, ("object", "list", 0, "rssi")) == -36
    assert dig(document, ("none",)) is None
    for path in [("x",), ("object", "list", 1), ("object", "list", "rssi"), ("none", "x"), ("object", 1, 0)]:
        assert dig(document, path) is MISSING


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        (b"", "is not JSON"),
        (b"\x00\xff\x80", "is not JSON"),
        (b'{"power": 1', "is not JSON"),
        (b'{"power": 01}', "is not JSON"),
        (b"[" * 60_000, "is not JSON"),
        (b"9" * 60_000, "is not JSON"),
        (b"[1]", "no JSON object"),
        (b'"online"', "no JSON object"),
        (b" " * (MAX_MESSAGE + 1), "longer than 65536 bytes"),
    ],
)
def test_what_cannot_be_read(payload: bytes, why: str) -> None:
    with pytest.raises(UnreadableError, match=why):
        read(payload)


def test_what_can_be_read() -> None:
    assert read(json.dumps({"power": 1.5}).encode()) == {"power": 1.5}
