# SPDX-License-Identifier: Apache-2.0
"""Buses against real sockets and a real terminal: late, wrong, broken and missing answers."""

from __future__ import annotations

import asyncio
import errno
import os
import time
import tty
from collections.abc import Coroutine
from typing import Any

import pytest
from energy_collector import quality
from energy_collector.bus import Bus, BusError, Diagnostics, Identify, ReadBits, ReadRegisters
from energy_collector.bus.errors import NoConnectionError
from energy_collector.bus.line import TcpLine
from energy_collector.config import BusConfig, MeterConfig
from energy_collector.meters.making import make
from energy_collector.reading import readings

from tests.ports import free_port

from .collector_support import ModbusServer, holding_device, input_device
from .modbus_peers import Peer, crc, mbap, registers


def rtu_bus(port: int, timeout: float = 0.2) -> Bus:
    return Bus(BusConfig("line", "rtu-over-tcp", "127.0.0.1", port, timeout=timeout))


def tcp_bus(port: int, timeout: float = 0.2) -> Bus:
    return Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", port, timeout=timeout))


def run(test: Coroutine[Any, Any, None]) -> None:
    asyncio.run(test)


async def failure(bus: Bus, unit: int, request: Any) -> BusError:
    with pytest.raises(BusError) as caught:
        await bus.call(unit, request)
    return caught.value


ONE = ReadRegisters(3, 0, 1)


def test_a_late_rtu_answer_is_never_taken_for_the_next_ones() -> None:
    async def test() -> None:
        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            if request[3] == 7:
                # Later than the time-out, and of just the form that the next request expects.
                await asyncio.sleep(0.3)
            writer.write(crc(registers(1, request[3])))

        async with Peer(answer, 8) as peer:
            bus = rtu_bus(peer.port)
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).quality == quality.BAD_NO_ANSWER
            assert ONE.decode((await bus.call(1, ReadRegisters(3, 9, 1))).data) == [9]
            bus.close()

    run(test())


def test_a_request_has_its_time_before_it_leaves(monkeypatch: pytest.MonkeyPatch) -> None:
    # On a machine that is busy the device may have measured before the process goes on behind the writing.
    order = []
    write = TcpLine.write

    def leave(line: TcpLine, frame: bytes) -> None:
        write(line, frame)
        order.append("left")

    def stamp() -> int:
        order.append("stamped")
        return 5

    async def test() -> None:
        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(crc(registers(1, 7)))

        async with Peer(answer, 8) as peer:
            bus = rtu_bus(peer.port)
            assert (await bus.call(1, ONE, stamp)).stamp == 5
            bus.close()
        assert order == ["stamped", "left"]

    monkeypatch.setattr(TcpLine, "write", leave)
    run(test())


def test_a_late_tcp_answer_is_dropped_by_its_transaction() -> None:
    async def test() -> None:
        async def answer(request: bytes, writer: asyncio.StreamWriter) -> None:
            transaction = int.from_bytes(request[:2], "big")
            frame = mbap(transaction, registers(1, request[9]))
            if request[9] == 7:
                asyncio.get_running_loop().call_later(0.3, writer.write, frame)
            else:
                await asyncio.sleep(0.15)
                writer.write(frame)

        async with Peer(answer, 12) as peer:
            bus = tcp_bus(peer.port)
            assert (await failure(bus, 1, ReadRegisters(3, 7, 1))).kind == "timeouts"
            for number in (8, 9):
                assert ONE.decode((await bus.call(1, ReadRegisters(3, number, 1))).data) == [number]
            assert peer.connections == 1
            bus.close()

    run(test())


GOOD = crc(registers(1, 42))


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (GOOD[:-1] + b"\x00", "crc_errors", "CRC Error"),
        (crc(registers(2, 42)), "frame_errors", "unit 1 was asked, 2 answers"),
        (crc(bytes([1, 4, 2, 0, 42])), "frame_errors", "function 3 was asked for, 4 answers"),
        (crc(bytes([1, 3, 1, 0, 42])), "frame_errors", "1 bytes announced"),
        (GOOD + b"\x00", "frame_errors", "1 bytes follow the answer"),
        (GOOD[:4], "timeouts", "REGISTER_READ_FAILURE: the answer ended after 4 bytes"),
        (crc(bytes([1, 0x83, 2])), "exceptions", "Modbus Error 0x02: illegal data address"),
        (crc(bytes([1, 0x83, 0x0B])), "exceptions", "Modbus Error 0x0B"),
    ],
)
def test_no_value_from_a_bad_frame(answer: bytes, kind: str, text: str) -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(answer if len(peer.requests) == 1 else GOOD)

        async with Peer(give, 8) as peer:
            bus = rtu_bus(peer.port)
            error = await failure(bus, 1, ONE)
            assert error.kind == kind
            assert text in error.text
            assert bus.counters[kind] == bus.unit_counters[1][kind] == 1
            is_short = len(answer) < len(GOOD) and kind == "timeouts"
            assert bus.counters["short"] == bus.unit_counters[1]["short"] == is_short
            # The line is fit for the next request.
            assert ONE.decode((await bus.call(1, ONE)).data) == [42]
            bus.close()

    run(test())


@pytest.mark.parametrize(
    "answer",
    [
        b"\x00\x01\x00\x01\x00\x05" + registers(1, 42),
        b"\x00\x01\x00\x00\x00\x00\x01",
        mbap(1, registers(2, 42)),
        mbap(1, registers(1, 42, 43)),
        mbap(1, bytes([1, 0x83])),
    ],
)
def test_no_value_from_a_bad_tcp_frame(answer: bytes) -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            transaction = int.from_bytes(request[:2], "big")
            writer.write(answer if len(peer.requests) == 1 else mbap(transaction, registers(1, 42)))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port)
            assert (await failure(bus, 1, ONE)).quality == quality.BAD_FRAME
            assert ONE.decode((await bus.call(1, ONE)).data) == [42]
            assert peer.connections == 2
            bus.close()

    run(test())


def test_never_two_requests_at_once_and_in_the_order_asked() -> None:
    async def test() -> None:
        under_way = 0

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal under_way
            under_way += 1
            assert under_way == 1
            await asyncio.sleep(0.01)
            under_way -= 1
            writer.write(crc(registers(request[0], request[3])))

        async with Peer(give, 8) as peer:
            bus = rtu_bus(peer.port)
            answers = await asyncio.gather(
                *(bus.call(1 + number % 3, ReadRegisters(3, number, 1)) for number in range(20))
            )
            assert [ONE.decode(answer.data) for answer in answers] == [[number] for number in range(20)]
            assert [request[3] for request in peer.requests] == list(range(20))
            bus.close()

    run(test())


def test_nothing_listens() -> None:
    async def test() -> None:
        bus = tcp_bus(free_port())
        error = await failure(bus, 1, ONE)
        assert error.text.startswith("CONNECTION_REFUSED: no connection to 127.0.0.1:")
        assert error.quality == quality.BAD_CONNECTION

    run(test())


def test_causes_of_a_connection_that_fails() -> None:
    unreachable = NoConnectionError("192.0.2.1:502", OSError(errno.EHOSTUNREACH, "No route to host"))
    assert unreachable.text.startswith("EHOSTUNREACH: no connection to 192.0.2.1:502")
    assert "power" in unreachable.cause


def test_a_silent_peer_is_connected_to_anew() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            if peer.connections > 1:
                writer.write(mbap(int.from_bytes(request[:2], "big"), registers(1, 42)))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port, 0.05)
            for _ in range(3):
                assert (await failure(bus, 1, ONE)).kind == "timeouts"
            assert ONE.decode((await bus.call(1, ONE)).data) == [42]
            assert bus.counters["connects"] == 2
            bus.close()

    run(test())


def test_a_gateway_that_hangs_up_is_connected_to_anew() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            if len(peer.requests) == 1:
                writer.close()
            else:
                writer.write(mbap(int.from_bytes(request[:2], "big"), registers(1, 42)))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port)
            assert (await failure(bus, 1, ONE)).quality == quality.BAD_CONNECTION
            assert ONE.decode((await bus.call(1, ONE)).data) == [42]
            bus.close()

    run(test())


def test_a_serial_line() -> None:
    async def test() -> None:
        master, slave = os.openpty()
        tty.setraw(master)
        loop = asyncio.get_running_loop()

        def answer() -> None:
            request = os.read(master, 256)
            if request[3] != 5:
                # In two pieces, as a slow line delivers it.
                frame = crc(registers(request[0], request[3]))
                os.write(master, frame[:3])
                loop.call_later(0.02, os.write, master, frame[3:])

        loop.add_reader(master, answer)
        bus = Bus(BusConfig("line", "rtu", device=os.ttyname(slave), baudrate=19200, parity="E", timeout=1))
        assert ONE.decode((await bus.call(3, ReadRegisters(3, 9, 1))).data) == [9]
        assert (await failure(bus, 3, ReadRegisters(3, 5, 1))).kind == "timeouts"
        assert ONE.decode((await bus.call(3, ReadRegisters(3, 8, 1))).data) == [8]
        loop.remove_reader(master)
        bus.close()
        os.close(master)
        os.close(slave)

    run(test())


def test_a_missing_serial_device() -> None:
    async def test() -> None:
        error = await failure(Bus(BusConfig("line", "rtu", device="/dev/ttyNONE")), 1, ONE)
        assert error.text.startswith("ENODEV: no connection to /dev/ttyNONE")

    run(test())


def test_bits_diagnostics_and_identification() -> None:
    async def test() -> None:
        answers = {
            1: bytes([1, 1, 2, 0b101, 0b1]),
            8: bytes([1, 8, 0, 11, 1, 2]),
            0x2B: bytes([1, 0x2B, 14, 1, 1, 0, 0, 2, 0, 2]) + b"AB" + bytes([1, 1]) + b"C",
        }

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(crc(answers[request[1]]))

        for size, message, value in (
            (8, ReadBits(1, 0, 9), [True, False, True] + [False] * 5 + [True]),
            (8, Diagnostics(11), 0x0102),
            (7, Identify(), {"VendorName": "AB", "ProductCode": "C"}),
        ):
            async with Peer(give, size) as peer:
                bus = rtu_bus(peer.port)
                assert message.decode((await bus.call(1, message)).data) == value  # type: ignore[attr-defined]  # both messages have a decode
                bus.close()

    run(test())


def poll(port: int, profile: str, **more: Any) -> dict[str, tuple[float | None, int]]:
    """One poll of a meter at pymodbus's server: value and quality by point."""

    async def once() -> dict[str, tuple[float | None, int]]:
        meter = make(MeterConfig("m", "hall", 1, profile, 10.0, **more))
        bus = tcp_bus(port, 1.0)
        found = await meter.poll(bus, lambda: 1000)
        bus.close()
        assert {one.point for one in readings(found.records)} <= set(meter.points)
        return {one.point.removeprefix("m/"): (one.value, one.quality) for one in readings(found.records)}

    return asyncio.run(once())


def sunspec_map(base: int, *models: tuple[int, list[int]]) -> list[int]:
    found = [0x5375, 0x6E53]
    for number, body in models:
        found += [number, len(body), *body]
    return [*found, 0xFFFF, 0]


@pytest.mark.parametrize("base", [40000, 50000, 0])
def test_sunspec_models_are_found_wherever_they_are(base: int) -> None:
    body = [0xFFFF] * 50
    body[14 - 2], body[15 - 2] = 2512, 1
    body[16 - 2], body[17 - 2] = 5001, 0x10000 - 2
    body[24 - 2], body[25 - 2], body[26 - 2] = 1, 0, 0
    body[33 - 2], body[37 - 2] = 0x8000, 0
    device = holding_device(1, base, sunspec_map(base, (1, [0x2020] * 66), (103, body)))
    with ModbusServer([device]) as server:
        found = poll(server.port, "sunspec-inverter", role="generation")
    assert found["active_power"] == (-25120.0, quality.GOOD)
    assert found["frequency"] == (50.01, quality.GOOD)
    assert found["energy_export"] == (65536.0, quality.GOOD)
    assert found["temperature"] == (None, quality.BAD_SENSOR)
    assert found["voltage_l1"] == (None, quality.BAD_SENSOR)


def test_a_device_without_the_model_is_badly_configured() -> None:
    device = holding_device(1, 40000, sunspec_map(40000, (1, [0] * 66)))
    with ModbusServer([device]) as server:
        found = poll(server.port, "sunspec-battery")
    assert set(found.values()) == {(None, quality.BAD_CONFIGURATION)}


def test_a_point_comes_from_the_first_model_that_has_it() -> None:
    battery = [0xFFFF] * 62
    battery[11 - 2], battery[56 - 2] = 55, 0
    battery[47 - 2], battery[63 - 2], battery[16 - 2] = 1500, 0, 3
    measurement = [0xFFFF] * 153
    measurement[19 - 2 : 23 - 2] = [0, 0, 1, 0]
    measurement[23 - 2 : 27 - 2] = [0, 0, 0, 500]
    measurement[120 - 2] = 1
    device = holding_device(1, 40000, sunspec_map(40000, (802, battery), (701, measurement)))
    with ModbusServer([device]) as server:
        found = poll(server.port, "sunspec-battery", role="storage")
    assert found["state_of_charge"] == (55.0, quality.GOOD)
    assert found["active_power"] == (-1500.0, quality.GOOD)
    assert found["energy_export"] == (655360.0, quality.GOOD)
    assert found["energy_import"] == (5000.0, quality.GOOD)


def test_one_refused_block_leaves_the_others_their_values() -> None:
    floats = [word for _ in range(40) for word in (0x4366, 0x3334)]
    with ModbusServer([input_device(1, 0, floats)]) as server:
        found = poll(server.port, "eastron-sdm630")
    assert found["voltage_l1"] == (230.2, quality.GOOD)
    assert found["voltage_l1_l2"] == (None, quality.BAD_DEVICE_FAILURE)
    assert found["power_factor"][1] == quality.UNCERTAIN_OUT_OF_RANGE


def test_a_meter_that_cannot_be_reached_is_null_everywhere() -> None:
    start = time.monotonic()
    found = poll(free_port(), "carlo-gavazzi-em24")
    assert set(found.values()) == {(None, quality.BAD_CONNECTION)}
    assert len(found) == 21
    # Refused at once: no request waits for a time-out.
    assert time.monotonic() - start < 10
