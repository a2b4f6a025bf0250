# SPDX-License-Identifier: Apache-2.0
"""Modbus TCP: several requests in flight, gateways that are busy, slow, restarted or half open."""

from __future__ import annotations

import asyncio
import logging
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest
from energy_collector.bus import Bus, ReadRegisters
from energy_collector.bus.turns import Turns
from energy_collector.bus.unit import FAST_ANSWERS
from energy_collector.config import BusConfig, ConfigError
from energy_collector.config_file import parse

from .collector_support import BASIC, document
from .modbus_peers import Peer, SerialGateway, mbap, registers
from .test_collector_bus import ONE, failure, run, tcp_bus

HALF_OPEN = Path(__file__).with_name("half_open.py")


def value(answer: object) -> int:
    return ONE.decode(answer.data)[0]  # type: ignore[attr-defined]  # the answer to a read


def refuse(request: bytes, code: int) -> bytes:
    return mbap(int.from_bytes(request[:2], "big"), bytes([request[6], 0x80 | request[7], code]))


def accept(request: bytes) -> bytes:
    return mbap(int.from_bytes(request[:2], "big"), registers(request[6], request[9]))


@pytest.mark.parametrize("pipeline", [1, 2, 5])
def test_so_many_requests_in_flight_and_answers_in_any_order(pipeline: int) -> None:
    async def test() -> None:
        waiting: list[bytes] = []
        most = 0

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            nonlocal most
            waiting.append(request)
            most = max(most, len(waiting))

            def answer() -> None:
                # The newest first.
                writer.write(accept(waiting.pop()))

            asyncio.get_running_loop().call_later(0.02, answer)

        async with Peer(give, 12) as peer:
            bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", peer.port, pipeline=pipeline))
            answers = await asyncio.gather(
                *(bus.call(1 + number % 3, ReadRegisters(3, number, 1)) for number in range(20))
            )
            assert [value(answer) for answer in answers] == list(range(20))
            assert most == pipeline
            assert peer.connections == 1
            bus.close()

    run(test())


def test_a_lost_connection_takes_all_requests_in_flight_and_they_are_repeated() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            if request[9] == 3 and peer.connections == 1:
                writer.close()
            elif request[9] < 3 or peer.connections > 1:
                writer.write(accept(request))

        async with Peer(give, 12) as peer:
            bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", peer.port, pipeline=4))
            assert value(await bus.call(1, ReadRegisters(3, 0, 1))) == 0
            answers = await asyncio.gather(
                *(bus.call(1, ReadRegisters(3, number, 1)) for number in range(1, 5))
            )
            assert [value(one) for one in answers] == [1, 2, 3, 4]
            assert bus.counters["connects"] == 2
            assert bus.counters["retries"] >= 2
            bus.close()

    run(test())


@pytest.mark.parametrize("code", [0x0A, 0x0B])
def test_exceptions_of_the_gateway_never_close_the_connection(code: int) -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(refuse(request, code) if request[6] == 1 else accept(request))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port)
            for _ in range(10):
                error = await failure(bus, 1, ONE)
                assert f"Modbus Error 0x{code:02X}" in error.text
                assert error.is_silence
            assert value(await bus.call(2, ReadRegisters(3, 9, 1))) == 9
            assert peer.connections == 1
            bus.close()

    run(test())


def test_how_long_a_gateway_waits_for_a_dead_unit_is_known_until_that_answers() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            if request[9] == 7:
                asyncio.get_running_loop().call_later(0.2, writer.write, refuse(request, 0x0B))
            else:
                writer.write(accept(request))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port, 2.0)
            await failure(bus, 1, ReadRegisters(3, 7, 1))
            assert bus.unit(1).hold >= 0.2
            await bus.call(1, ONE)
            assert bus.unit(1).hold == 0.0
            bus.close()

    run(test())


def test_a_slow_unit_is_given_more_time_and_a_fast_one_less_again(caplog: pytest.LogCaptureFixture) -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(refuse(request, 0x0B) if request[9] == 7 else accept(request))

        caplog.set_level(logging.INFO, "energy")
        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port, 1.0)
            for seconds in (1.5, 2.0, 2.5, 3.0, 3.0):
                await failure(bus, 1, ReadRegisters(3, 7, 1))
                assert bus.unit(1).timeout == seconds
            assert bus.unit(2).timeout == 1.0
            for _ in range(4 * FAST_ANSWERS):
                await bus.call(1, ONE)
            assert bus.unit(1).timeout == 1.0
            bus.close()

    run(test())
    assert [record.getMessage() for record in caplog.records if record.name == "energy"] == [
        "bus hall, unit 1: time-out raised to 1500 ms (Modbus Error 0x0B: gateway target failed to respond)",
        "bus hall, unit 1: time-out back to 1000 ms (20 fast answers in a row)",
    ]


def test_an_answer_that_comes_late_raises_the_time_out_of_its_unit() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            asyncio.get_running_loop().call_later(0.3, writer.write, accept(request))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port, 0.2)
            await failure(bus, 1, ONE)
            await failure(bus, 1, ONE)
            assert bus.counters["stale"] == bus.unit_counters[1]["stale"] == 1
            assert bus.unit(1).timeout == pytest.approx(0.3)
            bus.close()

    run(test())


@pytest.mark.parametrize(("code", "times"), [(0x06, 3), (0x05, 2)])
def test_a_busy_device_is_asked_again_and_others_meanwhile(code: int, times: int) -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            busy = request[6] == 1 and sum(one[6] == 1 for one in peer.requests) <= times
            writer.write(refuse(request, code) if busy else accept(request))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port)
            first, second = await asyncio.gather(
                bus.call(1, ReadRegisters(3, 4, 1)), bus.call(2, ReadRegisters(3, 5, 1))
            )
            assert (value(first), value(second)) == (4, 5)
            assert [one[6] for one in peer.requests[:3]] == [1, 2, 1]
            assert bus.unit_counters[1]["retries"] == times
            peer.requests.clear()
            bus.close()

    run(test())


def test_a_device_that_stays_busy_is_told_so() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(refuse(request, 0x06))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port)
            error = await failure(bus, 1, ONE)
            assert "Modbus Error 0x06: device busy" in error.text
            assert len(peer.requests) == 4
            bus.close()

    run(test())


def test_a_restarted_gateway_loses_no_request() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(accept(request))

        async with Peer(give, 12) as peer:
            bus = tcp_bus(peer.port)
            assert value(await bus.call(1, ReadRegisters(3, 1, 1))) == 1
            peer.stop()
            await asyncio.sleep(0.05)
            assert (await failure(bus, 1, ONE)).text.startswith("CONNECTION_REFUSED")
            await peer.start()
            deadline = time.monotonic() + 10
            while not bus.connected and time.monotonic() < deadline:
                await asyncio.sleep(0.02)
            # It was connected to without a request that would have had to fail first.
            assert value(await bus.call(1, ReadRegisters(3, 2, 1))) == 2
            # Restarted between two requests: we learn of it by asking.
            peer.stop()
            await peer.start()
            assert value(await bus.call(1, ReadRegisters(3, 3, 1))) == 3
            bus.close()

    run(test())


def test_requests_are_refused_at_once_while_the_gateway_is_away() -> None:
    async def test() -> None:
        # An address that swallows the first packet of a connection: a listener whose queue is full.
        with socket.socket() as full:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            fillers = [socket.socket() for _ in range(4)]
            for one in fillers:
                one.setblocking(False)
                one.connect_ex(full.getsockname())
            bus = tcp_bus(full.getsockname()[1], 1.0)
            started = time.monotonic()
            first = await failure(bus, 1, ONE)
            took = time.monotonic() - started
            assert first.text.startswith("EHOSTUNREACH")
            started = time.monotonic()
            for _ in range(32):
                await failure(bus, 1, ONE)
            assert time.monotonic() - started < took
            bus.close()
            for one in fillers:
                one.close()

    run(test())


def test_one_socket_whatever_happens() -> None:
    async def test() -> None:
        async with SerialGateway(is_tcp=True, patience=5.0) as gateway:
            gateway.dead = {1}
            bus = tcp_bus(gateway.port, 0.05)
            for _ in range(12):
                await failure(bus, 1, ONE)
            assert bus.counters["connects"] >= 2
            assert gateway.most_connections == 1
            bus.close()

    run(test())


def test_a_gateway_that_needs_a_pause_after_connecting_gets_it() -> None:
    async def test() -> None:
        came: list[float] = []

        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            came.append(time.monotonic())
            writer.write(accept(request))

        async with Peer(give, 12) as peer:
            bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", peer.port, connect_delay=0.15))
            started = time.monotonic()
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 9
            assert came[0] - started >= 0.15
            bus.close()

    run(test())


def test_the_pause_after_connecting_is_not_cut_by_those_who_ask_meanwhile() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(accept(request))

        async with Peer(give, 12) as peer:
            peer.stop()
            bus = Bus(BusConfig("hall", "modbus-tcp", "127.0.0.1", peer.port, connect_delay=1.5))
            assert (await failure(bus, 1, ONE)).text.startswith("CONNECTION_REFUSED")
            await peer.start()
            deadline = time.monotonic() + 10
            while not bus.connected and time.monotonic() < deadline:
                await asyncio.sleep(0.05)
                if not bus.connected:
                    await asyncio.gather(bus.call(1, ONE), return_exceptions=True)
            assert value(await bus.call(1, ReadRegisters(3, 9, 1))) == 9
            assert peer.connections == 1
            bus.close()

    run(test())


def test_the_connection_is_watched() -> None:
    async def test() -> None:
        async def give(request: bytes, writer: asyncio.StreamWriter) -> None:
            writer.write(accept(request))

        async with Peer(give, 12) as peer:
            config = BusConfig("hall", "modbus-tcp", "127.0.0.1", peer.port, keepalive=7, user_timeout=2.5)
            bus = Bus(config)
            await bus.call(1, ONE)
            line = bus._connector.line
            sock = line._socket  # type: ignore[union-attr]  # a line over TCP
            assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 7
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 2500
            assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY) == 1
            bus.close()

    run(test())


def test_who_waits_for_a_turn_may_give_up() -> None:
    async def test() -> None:
        turns = Turns(1)
        await turns.take()
        waiting = [asyncio.create_task(turns.take()) for _ in range(3)]
        await asyncio.sleep(0)
        waiting[0].cancel()
        turns.give()
        # Its turn has come, and it gives up in the same moment.
        waiting[1].cancel()
        await asyncio.wait(waiting)
        assert [one.cancelled() for one in waiting] == [True, True, False]
        turns.give()
        await asyncio.wait_for(turns.take(), 1)

    run(test())


def test_what_a_bus_may_be_told(tmp_path: Path) -> None:
    more = {"pipeline": 4, "request_gap": 0.02, "connect_delay": 0.1, "keepalive": 10, "user_timeout": 3}
    bus = parse(document(tmp_path, buses=[BASIC["buses"][0] | more])).buses[0]
    assert {key: getattr(bus, key) for key in more} == more
    with pytest.raises(ConfigError) as caught:
        parse(document(tmp_path, buses=[BASIC["buses"][0] | {"type": "rtu-over-tcp", "pipeline": 2}]))
    assert caught.value.faults == [
        "buses[0].pipeline: only answers on modbus-tcp can be told apart by their transaction"
    ]


def test_half_open_and_back_within_one_poll() -> None:
    """A gateway that goes away without a word, and one that comes back having forgotten the connection: in a
    network namespace whose packets are dropped."""
    found = subprocess.run(
        ["unshare", "--net", sys.executable, str(HALF_OPEN)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    if "Operation not permitted" in found.stderr:
        pytest.skip("a network namespace takes the rights of root")
    assert found.returncode == 0, found.stdout + found.stderr
    assert "back within one poll" in found.stdout
