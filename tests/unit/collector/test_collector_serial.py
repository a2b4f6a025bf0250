# SPDX-License-Identifier: Apache-2.0
"""Which device answers: its serial number, and what happens when that becomes another one."""

from __future__ import annotations

import asyncio
import logging
import struct
from pathlib import Path
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.config import MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters.blocks import REFUSED_POLLS, RegisterMeter
from energy_collector.meters.learned import Learned
from energy_collector.meters.profile import Serial
from energy_collector.meters.profile_file import parse
from energy_collector.meters.registers import Order
from energy_collector.meters.serial import decode

from .register_device import Asking, Device

CONFIG = MeterConfig("m", "hall", 1, "x", 1.0)
PROFILE: dict[str, Any] = {
    "model": "Example",
    "source": "x",
    "serial": {"address": 100, "size": 4},
    "points": {f"p{at}": {"unit": "V", "address": at, "type": "uint16"} for at in range(3)},
}


@pytest.fixture(autouse=True)
def _journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("energy"), "propagate", True)


def text(found: str) -> list[int]:
    return list(struct.unpack(">4H", found.encode().ljust(8, b"\0")))


def device(serial: str) -> Device:
    found = Device({0: 10, 1: 11, 2: 12})
    found.put(100, *text(serial))
    return found


def meter(learned: Learned, **more: Any) -> RegisterMeter:
    return RegisterMeter(CONFIG, parse("x", {**PROFILE, **more}), learned)


@pytest.mark.parametrize(
    ("place", "body", "found"),
    [
        (Serial(0, "string", 4), b"AB123\0xx", "AB123"),
        (Serial(0, "string", 4), b"AB12345 ", "AB12345"),
        (Serial(0, "string", 4), bytes(8), None),
        (Serial(0, "string", 2, order=Order(low_byte_first=True)), b"BA21", "AB12"),
        (Serial(0, "string", 2), b"\xff\xff\xff\xff", "\ufffd" * 4),
        (Serial(0, "uint32", 2), bytes([0, 1, 0, 2]), "65538"),
        (Serial(0, "uint32", 2, order=Order(low_word_first=True)), bytes([0, 2, 0, 1]), "65538"),
        (Serial(0, "uint32", 2), bytes(4), None),
    ],
)
def test_serial_numbers_are_texts_or_numbers(place: Serial, body: bytes, found: str | None) -> None:
    assert decode(place, bytes([3, len(body)]) + body) == found


def test_it_is_asked_for_at_first_and_after_silence_and_reconnects_only() -> None:
    async def run() -> None:
        thing = device("A1")
        question = (3, 100, 4)
        async with thing.serve() as bus:
            asking = Asking(meter(Learned(None, Faults())), bus)
            for _ in range(3):
                await asking.poll()
            assert asking.meter.serial == "A1"
            assert thing.asked.count(question) == 1
            thing.silent = True
            found = await asking.poll()
            assert {code for _, code in found.values()} == {quality.BAD_NO_ANSWER}
            thing.silent = False
            await asking.poll()
            assert thing.asked.count(question) == 2
            await thing.hang_up()
            await asking.poll()
            await asking.poll()
            assert thing.asked.count(question) == 3
            assert not asking.meter.exchanged

    asyncio.run(run())


def test_the_records_of_an_exchanged_meter_can_be_told(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        thing = device("A1")
        async with thing.serve() as bus:
            asking = Asking(meter(Learned(None, Faults())), bus)
            await asking.poll()
            assert not asking.meter.exchanged
            thing.silent = True
            await asking.poll()
            thing.silent = False
            thing.put(100, *text("B2"))
            found = await asking.poll()
            assert found["p0"] == (10.0, quality.GOOD)
            assert asking.meter.exchanged
            assert asking.meter.serial == "B2"
            # Somebody who looks in between does not make it forgotten.
            await asking.meter.read(bus, asking.stamp)
            assert asking.meter.exchanged
            await asking.poll()
            assert not asking.meter.exchanged

    asyncio.run(run())
    assert "another device answers, serial number B2; before it was A1" in caplog.text


def test_a_gateway_that_misses_its_unit_tells_of_silence_too() -> None:
    async def run() -> None:
        thing = device("A1")
        async with thing.serve() as bus:
            asking = Asking(meter(Learned(None, Faults())), bus)
            await asking.poll()
            thing.refuses = lambda function, address, count: 0x0B
            await asking.poll()
            thing.refuses = lambda function, address, count: None
            thing.put(100, *text("B2"))
            await asking.poll()
            assert asking.meter.exchanged

    asyncio.run(run())


def test_an_exchange_while_we_were_away_is_noticed(tmp_path: Path) -> None:
    async def run() -> None:
        path = tmp_path / "learned.json"
        thing = device("A1")
        async with thing.serve() as bus:
            await Asking(meter(Learned(path, Faults())), bus).poll()
            same = Asking(meter(Learned(path, Faults())), bus)
            await same.poll()
            assert not same.meter.exchanged
            thing.put(100, *text("B2"))
            other = Asking(meter(Learned(path, Faults())), bus)
            await other.poll()
            assert other.meter.exchanged

    asyncio.run(run())


def test_what_the_old_device_refused_the_new_one_may_have() -> None:
    async def run() -> None:
        thing = device("A1")
        del thing.registers[1]
        async with thing.serve() as bus:
            asking = Asking(meter(Learned(None, Faults())), bus)
            for _ in range(REFUSED_POLLS):
                await asking.poll()
            thing.put(1, 11)
            assert (await asking.poll())["p1"] == (None, quality.BAD_DEVICE_FAILURE)
            thing.put(100, *text("B2"))
            await thing.hang_up()
            assert (await asking.poll())["p1"] == (11.0, quality.GOOD)

    asyncio.run(run())


def test_a_device_that_does_not_tell_is_read_all_the_same(caplog: pytest.LogCaptureFixture) -> None:
    async def run() -> None:
        thing = Device({0: 10, 1: 11, 2: 12})
        async with thing.serve() as bus:
            asking = Asking(meter(Learned(None, Faults())), bus)
            for _ in range(3):
                assert (await asking.poll())["p0"] == (10.0, quality.GOOD)
            assert asking.meter.serial is None
            assert len(thing.asked) == 4

    asyncio.run(run())
    assert caplog.text.count("does not give its serial number") == 1
