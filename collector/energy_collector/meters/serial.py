# SPDX-License-Identifier: Apache-2.0
"""A device's serial number, in its registers."""

from __future__ import annotations

from energy_collector.bus import ReadRegisters
from energy_collector.meters.profile import Serial
from energy_collector.meters.registers import HEADER, Field, Unpacker


def request(place: Serial) -> ReadRegisters:
    """The request for it."""
    return ReadRegisters(place.function, place.address, place.size)


def decode(place: Serial, answer: bytes) -> str | None:
    """The serial number in an answer; None where the device has none (an empty text, zero)."""
    if place.type != "string":
        number = Unpacker([Field(place.address, place.type, place.order)], place.address)(answer)[0]
        return str(number) if number else None
    data = answer[HEADER : HEADER + 2 * place.size]
    if place.order.low_byte_first:
        data = bytes(byte for high, low in zip(data[::2], data[1::2], strict=True) for byte in (low, high))
    text = data.split(b"\0")[0].decode("utf-8", "replace").strip()
    return text or None
