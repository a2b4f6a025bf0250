# SPDX-License-Identifier: Apache-2.0
"""RTU framing, where nothing but time and the unit tells a late answer from the next one's."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import tty
from pathlib import Path

import pytest
from energy_collector import quality
from energy_collector.bus import Bus, BusError, ReadRegisters
from energy_collector.bus.bus import Bus as RealBus
from energy_collector.bus.errors import StillLateError
from energy_collector.bus.unit import Unit
from energy_collector.config import BusConfig

from .modbus_peers import Peer, crc, registers
from .test_collector_bus import ONE, failure, rtu_bus, run


def value(answer: object) -> int:
    return ONE.decode(answer.data)[0]  # type: ignore[attr-defined]  # the answer to a read


class Script:
    """A gateway that does for each request what the script says of its register: the delay of the answer, or None
    for no answer; an answer's value is the register's number."""

    def __init__(self, delays: dict[int, float | None]) -> None:
        self._delays = delays
        self.times: list[tuple[int, float]] = []

    async def __call__(self, request: bytes, writer: asyncio.StreamWriter) -> None:
        unit, number = request[0], request[3]
        self.times.append((number, time.monotonic()))
        delay = self._delays.get(number, 0.0)
        if delay is not None:
            asyncio.get_running_loop().call_later(delay, writer.write, crc(registers(unit, number)))


def test_another_unit_is_asked_at_once_and_the_late_answer_is_dropped() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            good = crc(registers(request[0], request[3]))
            if request[3] == 7:
                return
            if request[3] == 8:
                # At once: unit 1 may still answer by now, and does, while unit 2 is waited for.
                may_answer.append(bus.unit(1).late is not None)
                writer.write(crc(registers(1, 7)))
                asyncio.get_running_loop().call_later(0.1, writer.write, good)
            else:
                writer.write(good)

        may_answer: list[bool] = []
        async with Peer(give, 8) as peer:
            bus = rtu_bus(peer.port, 0.4)
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
            assert value(await bus.call(2, ReadRegisters(3, 8, 1))) == 8
            assert may_answer == [True]
            assert bus.counters["stale"] == bus.unit_counters[1]["stale"] == 1
            # It owes us nothing any more, and has shown that it is slow.
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 9
            assert bus.unit(1).timeout == pytest.approx(0.6)
            assert bus.unit(2).timeout == 0.4
            bus.close()

    run(test())


def test_a_late_answer_before_or_behind_the_right_one_or_between_two_is_dropped() -> None:
    async def test() -> None:
        late: list[bytes] = []

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            good = crc(registers(request[0], request[3]))
            if request[3] == 7:
                late.append(good)
            elif request[3] == 10:
                writer.write(late.pop() + good)
            elif request[3] == 11:
                writer.write(good + late[-1][:3])
                asyncio.get_running_loop().call_later(0.02, writer.write, late.pop()[3:])
            else:
                writer.write(good)
                if late:
                    asyncio.get_running_loop().call_later(0.03, writer.write, late.pop())

        async with Peer(give, 8) as peer:
            bus = rtu_bus(peer.port)
            for index, number in enumerate((10, 11, 12), 1):
                assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
                assert value(await bus.call(2, ReadRegisters(3, number, 1))) == number
                assert value(await bus.call(1, ReadRegisters(3, 20, 1))) == 20
                assert bus.counters["stale"] == index
            assert bus.counters["crc_errors"] == bus.counters["frame_errors"] == 0
            bus.close()

    run(test())


async def same_unit_after_a_late_answer(delay: float) -> int:
    script = Script({7: delay})
    async with Peer(script, 8) as peer:
        bus = rtu_bus(peer.port)
        assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
        found = value(await bus.call(1, ReadRegisters(3, 9, 1)))
        bus.close()
        return found


def test_the_same_unit_is_asked_only_when_its_late_answer_has_come() -> None:
    async def test() -> None:
        assert await same_unit_after_a_late_answer(0.45) == 9

    run(test())


def test_who_waits_for_the_line_does_not_get_the_late_answer_of_who_has_it() -> None:
    async def test() -> None:
        async with Peer(Script({7: 0.3}), 8) as peer:
            bus = rtu_bus(peer.port)
            first, second = await asyncio.gather(
                bus.call(1, ReadRegisters(3, 7, 1)),
                bus.call(1, ReadRegisters(3, 9, 1)),
                return_exceptions=True,
            )
            assert isinstance(first, BusError)
            assert value(second) == 9
            assert bus.counters["stale"] == 1
            bus.close()

    run(test())


def test_without_the_guard_the_late_answer_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: what the guard is there for."""

    async def test() -> None:
        # The late answer falls into the next exchange, 0.3 s from either end of it.
        script = Script({7: 0.9, 9: 0.6})
        async with Peer(script, 8) as peer:
            monkeypatch.setattr(Unit, "expect_late", lambda *_: None)
            bus = rtu_bus(peer.port, 0.6)
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 7
            bus.close()

    run(test())


def test_a_unit_that_never_answers_is_asked_again_after_three_time_outs() -> None:
    async def test() -> None:
        script = Script({7: None})
        async with Peer(script, 8) as peer:
            bus = rtu_bus(peer.port, 0.1)
            # Not from when the request came: on a busy machine that is later than when it was sent.
            started = time.monotonic()
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 9
            assert script.times[1][1] - started >= 0.3
            bus.close()

    run(test())


def test_bytes_that_nobody_can_make_sense_of_may_have_been_the_late_answer() -> None:
    async def test() -> None:
        def rave(writer: asyncio.StreamWriter) -> None:
            times.append(time.monotonic())
            writer.write(b"\x01\x03\x02\xff\xff\x00\x00")

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            if request[3] == 7:
                # 0.3 s before the unit would be asked again.
                asyncio.get_running_loop().call_later(1.5, rave, writer)
            else:
                times.append(time.monotonic())
                writer.write(crc(registers(request[0], request[3])))

        times: list[float] = []
        async with Peer(give, 8) as peer:
            bus = rtu_bus(peer.port, 0.6)
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 9
            raved, asked = times
            assert asked - raved >= 0.6
            assert bus.counters["crc_errors"] == 1
            bus.close()

    run(test())


def test_a_request_that_cannot_wait_for_the_late_answer_is_refused() -> None:
    async def test() -> None:
        class Hurry:
            def pause(self, _unit: Unit) -> float:
                return 0.0

            def limit(self, _unit: Unit) -> float:
                return 0.05

        async with Peer(Script({7: None}), 8) as peer:
            bus = rtu_bus(peer.port, 1.0)
            bus.traffic = Hurry()  # type: ignore[assignment]  # a stand-in with what is used of it
            cut = await failure(bus, 1, ReadRegisters(3, 7, 1))
            assert "in the time that the other meters of the bus leave" in cut.text
            error = await failure(bus, 1, ReadRegisters(3, 9, 1))
            assert isinstance(error, StillLateError)
            assert error.quality == quality.BAD_NO_ANSWER
            assert len(peer.requests) == 1
            bus.close()

    run(test())


def test_an_answer_is_owed_beyond_a_reconnect() -> None:
    """Serial device servers pass a late answer on to whoever is connected by then."""

    async def test() -> None:
        late: list[bytes] = []

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            if request[3] == 7:
                late.append(crc(registers(1, 7)))
                writer.close()
                return
            if late:
                writer.write(late.pop())
            writer.write(crc(registers(request[0], request[3])))

        async with Peer(give, 8) as peer:
            bus = rtu_bus(peer.port)
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).quality == quality.BAD_CONNECTION
            assert value(await bus.call(2, ReadRegisters(3, 9, 1))) == 9
            assert bus.counters["stale"] == 1
            bus.close()

    run(test())


def test_a_cancelled_request_still_owes_its_answer() -> None:
    async def test() -> None:
        script = Script({7: 0.3})
        async with Peer(script, 8) as peer:
            bus = rtu_bus(peer.port)
            call = asyncio.ensure_future(bus.call(1, ReadRegisters(3, 7, 1)))
            while not script.times:  # on a busy machine it takes its time to get there
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 9
            assert bus.counters["stale"] == 1
            bus.close()

    run(test())


def test_the_gap_between_requests_is_kept() -> None:
    async def test() -> None:
        script = Script({})
        async with Peer(script, 8) as peer:
            bus = Bus(BusConfig("line", "rtu-over-tcp", "127.0.0.1", peer.port, request_gap=0.05))
            for number in range(4):
                assert value(await bus.call(1, ReadRegisters(3, number, 1))) == number
            gaps = [
                later[1] - earlier[1] for earlier, later in zip(script.times, script.times[1:], strict=False)
            ]
            assert min(gaps) >= 0.05
            bus.close()

    run(test())


class Pty:
    """A serial line of which we hold the far end; `link` is the device's name, as udev gives it."""

    def __init__(self, link: Path) -> None:
        self.link = link
        self.requests = 0

    def plug(self) -> None:
        self._master, self._slave = os.openpty()
        tty.setraw(self._master)
        self.link.symlink_to(os.ttyname(self._slave))
        asyncio.get_running_loop().add_reader(self._master, self._answer)

    def pull(self) -> None:
        self.link.unlink()
        asyncio.get_running_loop().remove_reader(self._master)
        os.close(self._slave)
        os.close(self._master)

    def _answer(self) -> None:
        request = os.read(self._master, 256)
        self.requests += 1
        os.write(self._master, crc(registers(request[0], request[3])))


def serial_bus(device: Path) -> Bus:
    return Bus(BusConfig("line", "rtu", device=str(device), baudrate=19200, timeout=1))


def test_an_adapter_that_is_pulled_out_is_back_when_it_is_plugged_in(tmp_path: Path) -> None:
    async def test() -> None:
        pty = Pty(tmp_path / "ttyUSB0")
        pty.plug()
        bus = serial_bus(pty.link)
        assert value(await bus.call(3, ReadRegisters(3, 9, 1))) == 9
        pty.pull()
        for _ in range(3):
            error = await failure(bus, 3, ONE)
            assert error.quality == quality.BAD_CONNECTION
            assert error.text.startswith("ENODEV")
        assert not bus.connected
        pty.plug()
        deadline = time.monotonic() + 10
        while not bus.connected and time.monotonic() < deadline:
            await asyncio.sleep(0.05)
        assert value(await bus.call(3, ReadRegisters(3, 8, 1))) == 8
        assert bus.counters["connects"] == 2
        bus.close()
        pty.pull()

    run(test())


def test_a_serial_line_has_one_master(tmp_path: Path) -> None:
    async def test() -> None:
        pty = Pty(tmp_path / "ttyUSB0")
        pty.plug()
        first, second = serial_bus(pty.link), serial_bus(pty.link)
        assert value(await first.call(3, ReadRegisters(3, 9, 1))) == 9
        error = await failure(second, 3, ONE)
        assert errno.errorcode[errno.EBUSY] in error.text
        assert value(await first.call(3, ReadRegisters(3, 8, 1))) == 8
        first.close()
        second.close()
        pty.pull()

    run(test())


def test_noise_that_does_not_end_is_told_and_hung_up(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test() -> None:
        async def babble(_request: bytes, writer: asyncio.StreamWriter) -> None:
            for _ in range(100):
                writer.write(os.urandom(20))
                await asyncio.sleep(0.02)

        module = __import__(RealBus.__module__, fromlist=["MAX_NOISE"])
        monkeypatch.setattr(module, "MAX_NOISE", 0.3)
        async with Peer(babble, 8) as peer:
            bus = rtu_bus(peer.port)
            errors: list[BusError] = [await failure(bus, 1, ONE), await failure(bus, 2, ONE)]
            assert all(error.quality == quality.BAD_FRAME for error in errors)
            assert "has not been quiet" in errors[1].text
            assert not bus.connected
            bus.close()

    run(test())
