# SPDX-License-Identifier: Apache-2.0
"""Reads messages: JSON, fields by their paths, times in the formats that the servers write. Nobody upstream is trusted
to send what was agreed on."""

from __future__ import annotations

import json
import math
import re
from datetime import datetime, timedelta, timezone
from typing import Any

from energy_collector.radio.payload import Path

# A message of a device has some hundred bytes, with many gateways' rxInfo some thousand.
MAX_MESSAGE = 64 << 10
# RFC 3339, with as many digits of a second as there are: ChirpStack writes nanoseconds.
MOMENT = re.compile(
    r"(\d{4})-(\d\d)-(\d\d)[Tt ](\d\d):(\d\d):(\d\d)(?:\.(\d+))?(?:[Zz]|([+-])(\d\d):?(\d\d))", re.ASCII
)
EPOCH = datetime(1970, 1, 1, tzinfo=timezone.utc)
# A number of ms since 1970 that is no time any more: the year 9999.
MAX_TIME = 253402300799999

MISSING: Any = object()


class UnreadableError(ValueError):
    """A message that cannot be read; the text says why, and is the same for the same reason."""


def read(payload: bytes) -> dict[str, Any]:
    """The message. Raises UnreadableError."""
    if len(payload) > MAX_MESSAGE:
        raise UnreadableError(f"a message is longer than {MAX_MESSAGE} bytes")
    try:
        document = json.loads(payload)
    except (ValueError, RecursionError):
        raise UnreadableError("a message is not JSON") from None
    if not isinstance(document, dict):
        raise UnreadableError("a message is no JSON object")
    return document


def dig(document: Any, path: Path) -> Any:
    """What is at a path, or MISSING."""
    for step in path:
        if isinstance(document, dict):
            document = document.get(str(step), MISSING)
        elif isinstance(document, list) and isinstance(step, int) and step < len(document):
            document = document[step]
        else:
            return MISSING
    return document


def number(value: Any) -> float | None:
    """A JSON number, if it is one that a reading can have: a text is none, true is none, NaN is none."""
    if type(value) not in (int, float):
        return None
    try:
        found = float(value)
    except OverflowError:
        return None
    return found if math.isfinite(found) else None


def moment(value: Any, form: str) -> int | None:
    """A time in ms since 1970 UTC; None for what is none. `auto` takes a text as ISO 8601 and a number as ms."""
    if isinstance(value, str):
        return _from_text(value) if form in ("auto", "iso") else None
    found = number(value)
    if found is None or form == "iso" or not 0 < found <= MAX_TIME:
        return None
    # A whole number stays one: ms of today have 13 digits, a float 15.
    milliseconds = round(value * 1000) if form == "epoch_s" else int(value)
    return milliseconds if 0 < milliseconds <= MAX_TIME else None


def _from_text(text: str) -> int | None:
    match = MOMENT.fullmatch(text)
    if match is None:
        return None
    year, month, day, hour, minute, second = (int(match[index]) for index in range(1, 7))
    try:
        # A leap second is the one after it, as the system clock has it.
        found = datetime(year, month, day, hour, minute, min(second, 59), tzinfo=timezone.utc)
        if match[8]:
            offset = timedelta(hours=int(match[9]), minutes=int(match[10]))
            found = found - offset if match[8] == "+" else found + offset
    except (ValueError, OverflowError):
        return None
    whole = (found - EPOCH) // timedelta(milliseconds=1) + (1000 if second == 60 else 0)
    milliseconds = whole + int((match[7] or "0")[:3].ljust(3, "0"))
    return milliseconds if second <= 60 and 0 < milliseconds <= MAX_TIME else None
