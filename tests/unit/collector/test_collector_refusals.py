# SPDX-License-Identifier: Apache-2.0
"""Devices that refuse some of what their profile says: the rest is read on, and a restart does not learn anew."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import time
from pathlib import Path
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.config import MeterConfig
from energy_collector.journal import Faults
from energy_collector.meters import learned as learned_module
from energy_collector.meters.blocks import REFUSED_POLLS, RETRY, RegisterMeter
from energy_collector.meters.learned import Learned
from energy_collector.meters.profile import Profile
from energy_collector.meters.profile_file import parse

from .register_device import Asking, Device

CONFIG = MeterConfig("m", "hall", 1, "x", 1.0)
REFUSED = (None, quality.BAD_DEVICE_FAILURE)


@pytest.fixture(autouse=True)
def _journal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logging.getLogger("energy"), "propagate", True)


def profile(*addresses: int, **more: Any) -> Profile:
    points = {f"p{at}": {"unit": "V", "address": at, "type": "uint16"} for at in addresses}
    return parse("x", {"model": "Example", "source": "x", "points": points, **more})


def device(*addresses: int) -> Device:
    return Device({at: 100 + at for at in addresses})


def good(*addresses: int) -> dict[str, tuple[float | None, int]]:
    return {f"p{at}": (100.0 + at, quality.GOOD) for at in addresses}


def test_a_hole_between_points_is_read_around_and_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        thing = device(*range(6), *range(8, 14))
        points = profile(*range(6), *range(8, 14))
        path = tmp_path / "learned.json"
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, points, Learned(path, Faults())), bus)
            for _ in range(3):
                assert await asking.poll() == good(*range(6), *range(8, 14))
                assert asking.last.error is None
            assert thing.asked[-2:] == [(3, 0, 6), (3, 8, 6)]
            again = Asking(RegisterMeter(CONFIG, points, Learned(path, Faults())), bus)
            thing.asked.clear()
            assert await again.poll() == good(*range(6), *range(8, 14))
            assert thing.asked == [(3, 0, 6), (3, 8, 6)]

    with caplog.at_level(logging.INFO, "energy"):
        asyncio.run(run())
    assert caplog.text.count("refuses to give registers 5 and 8 together") == 1
    assert len(caplog.records) == 1


def test_a_refused_point_is_null_and_the_others_go_on(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        thing = device(*(at for at in range(20) if at != 7))
        points = profile(*range(20))
        path = tmp_path / "learned.json"
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, points, Learned(path, Faults())), bus)
            expected = {**good(*range(20)), "p7": REFUSED}
            for _ in range(REFUSED_POLLS):
                assert await asking.poll() == expected
                assert asking.last.error is None
            thing.asked.clear()
            assert await asking.poll() == expected
            assert thing.asked == [(3, 0, 7), (3, 8, 12)]
            again = Asking(RegisterMeter(CONFIG, points, Learned(path, Faults())), bus)
            thing.asked.clear()
            assert await again.poll() == expected
            assert thing.asked == [(3, 0, 7), (3, 8, 12)]

    asyncio.run(run())
    assert len(caplog.records) == 1
    assert "it refuses p7 (REGISTER_READ_FAILURE, 3 times)" in caplog.text


def test_times_of_a_point_ascend_while_blocks_are_taken_apart() -> None:
    async def run() -> None:
        thing = device(*(at for at in range(9) if at not in (2, 6)))
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(9)), Learned(None, Faults())), bus)
            newest: dict[str, int] = {}
            for _ in range(6):
                await asking.poll()
                for one in asking.readings():
                    assert one.time > newest.get(one.point, 0)
                    newest[one.point] = one.time
            assert len(newest) == 9

    asyncio.run(run())


def test_a_device_that_starts_up_loses_no_point_for_a_month() -> None:
    async def run() -> None:
        thing = device(*range(8))
        starting = True
        thing.refuses = lambda function, address, count: 2 if starting and address + count > 3 else None
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(8)), Learned(None, Faults())), bus)
            for _ in range(REFUSED_POLLS - 1):
                assert (await asking.poll())["p7"] == REFUSED
            starting = False
            assert await asking.poll() == good(*range(8))
            await asking.poll()
            thing.asked.clear()
            assert await asking.poll() == good(*range(8))
            assert thing.asked == [(3, 0, 8)]

    asyncio.run(run())


def test_one_refusal_by_a_whim_teaches_nothing() -> None:
    async def run() -> None:
        thing = device(*range(8))
        whims = [2]
        thing.refuses = lambda function, address, count: whims.pop() if whims else None
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(8)), Learned(None, Faults())), bus)
            assert await asking.poll() == good(*range(8))
            thing.asked.clear()
            assert await asking.poll() == good(*range(8))
            assert thing.asked == [(3, 0, 8)]

    asyncio.run(run())


def test_a_wrong_profile_is_an_error_and_no_flood_of_requests() -> None:
    async def run() -> None:
        thing = device()
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(8)), Learned(None, Faults())), bus)
            assert set((await asking.poll()).values()) == {REFUSED}
            assert asking.last.error is not None
            assert "Modbus Error 0x02" in asking.last.error.text
            thing.asked.clear()
            await asking.poll()
            assert thing.asked == [(3, 0, 8)]
            # It was another fault: all is well at once when the device gives what it has.
            thing.put(0, *range(100, 108))
            assert await asking.poll() == good(*range(8))

    asyncio.run(run())


def test_silence_in_the_middle_teaches_nothing() -> None:
    async def run() -> None:
        thing = device(*(at for at in range(8) if at != 1))

        def refuses(function: int, address: int, count: int) -> None:
            thing.silent = len(thing.asked) == 2

        thing.refuses = refuses
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(8)), Learned(None, Faults())), bus)
            found = await asking.poll()
            assert len(found) == 8
            assert {code for _, code in found.values()} == {quality.BAD_NO_ANSWER}
            assert asking.last.error is not None
            assert asking.last.error.quality == quality.BAD_NO_ANSWER

    asyncio.run(run())


def test_functions_are_asked_apart() -> None:
    async def run() -> None:
        thing = device(*range(4))
        points = profile(*range(4))
        data = {
            "model": "Example",
            "source": "x",
            "points": {
                f"p{at}": {"unit": "V", "address": at, "type": "uint16", "function": 3 + at % 2}
                for at in range(4)
            },
        }
        points = parse("x", data)
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, points, Learned(None, Faults())), bus)
            assert await asking.poll() == good(*range(4))
            assert thing.asked == [(3, 0, 3), (4, 1, 3)]

    asyncio.run(run())


def test_what_was_learned_is_tried_again_after_a_month(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [time.time()]
    monkeypatch.setattr(time, "time", lambda: now[0])
    path = tmp_path / "learned.json"

    async def run() -> None:
        thing = device(*(at for at in range(6) if at != 3))
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(6)), Learned(path, Faults())), bus)
            for _ in range(REFUSED_POLLS):
                await asking.poll()
            # The firmware was updated.
            thing.put(3, 103)
            assert (await asking.poll())["p3"] == REFUSED
            now[0] += learned_module.LIFETIME + 1
            assert await asking.poll() == good(*range(6))
            thing.asked.clear()
            again = Asking(RegisterMeter(CONFIG, profile(*range(6)), Learned(path, Faults())), bus)
            assert await again.poll() == good(*range(6))
            assert thing.asked == [(3, 0, 6)]

    asyncio.run(run())


def test_points_given_up_come_back_when_the_device_gives_them_again(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async def run() -> None:
        thing = device(*range(8))
        asleep = True
        thing.refuses = lambda function, address, count: 2 if asleep and address + count > 3 else None
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(8)), Learned(None, Faults())), bus)
            for _ in range(REFUSED_POLLS + 1):
                await asking.poll()
            asleep = False
            thing.asked.clear()
            assert (await asking.poll())["p7"] == REFUSED
            assert thing.asked == [(3, 0, 3)]
            # An hour later.
            asking.meter._retry_at -= RETRY
            assert (await asking.poll())["p3"] == (103.0, quality.GOOD)
            assert await asking.poll() == good(*range(8))

    asyncio.run(run())
    assert len(caplog.records) == 1
    assert "it refuses p3, p4, p5, p6, p7 (REGISTER_READ_FAILURE" in caplog.text


def test_another_profile_learns_for_itself(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"

    async def run() -> None:
        thing = device(*(at for at in range(6) if at != 3))
        async with thing.serve() as bus:
            asking = Asking(RegisterMeter(CONFIG, profile(*range(6)), Learned(path, Faults())), bus)
            for _ in range(REFUSED_POLLS):
                await asking.poll()
            other = RegisterMeter(CONFIG, profile(*range(6), max_gap=3), Learned(path, Faults()))
            thing.asked.clear()
            await Asking(other, bus).poll()
            assert (3, 3, 1) in thing.asked

    asyncio.run(run())


@pytest.mark.parametrize(
    "text", ["", "[]", '{"version": 1}', '{"version": 9}', '{"version": 1, "refusals": {"a": 1}}']
)
def test_a_broken_file_is_told_and_not_used(
    text: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "learned.json"
    path.write_text(text)
    found = Learned(path, Faults())
    assert found.serial("a", 1) is None
    assert len(caplog.records) == 1
    found.set_serial("a", 1, "7")
    asyncio.run(found.save())
    assert Learned(path, Faults()).serial("a", 1) == "7"
    assert json.loads(path.read_text())["serials"] == {"a 1": "7"}


def test_a_folder_that_cannot_be_written_is_told_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def run() -> None:
        found = Learned(tmp_path / "missing" / "learned.json", Faults())
        await found.save()
        await found.save()

    asyncio.run(run())
    assert len(caplog.records) == 1
    assert "cannot be written: No such file or directory" in caplog.text


def test_the_file_is_on_the_disk_before_it_takes_the_place_of_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []
    fsync, replace = os.fsync, Path.replace

    def synced(descriptor: int) -> None:
        steps.append(Path(f"/proc/self/fd/{descriptor}").readlink().name)
        fsync(descriptor)

    def replaced(self: Path, target: Path) -> Path:
        steps.append("rename")
        return replace(self, target)

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", replaced)
    asyncio.run(Learned(tmp_path / "learned.json", Faults()).save())
    assert steps == ["learned.json.new", "rename", tmp_path.name]
