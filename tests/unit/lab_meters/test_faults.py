# SPDX-License-Identifier: Apache-2.0
"""Each fault, seen from a plain socket: the bytes that really come."""

import socket
import struct
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any

import pytest
from wattfleet_lab.meters.framing import crc16

from .conftest import Simulator

READ_VOLTAGE = bytes((4, 0, 0, 0, 2))


class Wire:
    """A client that shows bytes as they come."""

    def __init__(self, simulator: Simulator, address: str) -> None:
        self.socket = socket.create_connection((address, simulator.port(address)), timeout=5)
        self.serial = address == "127.0.1.2"

    def frame(self, unit: int, pdu: bytes) -> bytes:
        if self.serial:
            body = bytes((unit,)) + pdu
            return body + crc16(body).to_bytes(2, "little")
        return struct.pack(">HHHB", 1, 0, len(pdu) + 1, unit) + pdu

    def ask(self, unit: int, pdu: bytes = READ_VOLTAGE, wait: float = 5) -> bytes:
        """The bytes of the answer; empty when the connection was closed. Raises TimeoutError on silence."""
        self.socket.settimeout(wait)
        self.socket.sendall(self.frame(unit, pdu))
        return self.socket.recv(512)


@pytest.fixture
def wire(simulator: Simulator) -> Iterator[Callable[[str], Wire]]:
    made: list[Wire] = []

    def make(address: str) -> Wire:
        made.append(Wire(simulator, address))
        return made[-1]

    yield make
    assert simulator.ask(op="clear")["ok"]
    for one in made:
        one.socket.close()


def put(simulator: Simulator, **fault: Any) -> None:
    answer = simulator.ask(op="fault", site="plant-a", **fault)
    assert answer["ok"], answer


def good(frame: bytes) -> bool:
    return len(frame) > 4 and crc16(frame[:-2]) == int.from_bytes(frame[-2:], "little")


def test_silent_then_well(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    line = wire("127.0.1.2")
    put(simulator, meter="press", kind="silent", count=1)
    with pytest.raises(TimeoutError):
        line.ask(11, wait=0.5)
    assert good(line.ask(11))
    assert [row[-1] for row in simulator.answers()[-2:]] == ["silent", "answered"]


def test_another_meter_is_not_touched(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="press", kind="silent")
    assert good(wire("127.0.1.2").ask(12))


def test_bad_crc(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, listener="127.0.1.2:0", kind="bad_crc", count=1)
    answer = wire("127.0.1.2").ask(11)
    assert len(answer) == 9
    assert not good(answer)
    assert simulator.answers()[-1][-1] == "corrupt"


def test_truncate(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="main", kind="truncate", count=1)
    whole = len(wire("127.0.1.1").ask(2))
    assert len(wire("127.0.1.1").ask(1)) == whole // 2


def test_exception(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="main", kind="exception", code=6, count=1)
    assert wire("127.0.1.1").ask(1)[7:] == b"\x84\x06"


def test_late_answer_leaves_the_line_free(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="press", kind="late", delay=0.8, count=1)
    line = wire("127.0.1.2")
    with pytest.raises(TimeoutError):
        line.ask(11, wait=0.3)
    assert line.ask(12)[0] == 12
    assert line.socket.recv(512)[0] == 11
    assert [row[-1] for row in simulator.answers()[-2:]] == ["late", "answered"]


def test_slow_answer_holds_the_line_and_overlaps_are_counted(
    simulator: Simulator, wire: Callable[[str], Wire]
) -> None:
    def overlaps() -> int:
        return int(simulator.ask(op="stats")["sites"]["plant-a"]["127.0.1.2:0"]["overlaps"])

    before = overlaps()
    put(simulator, meter="press", kind="slow", delay=0.5, count=1)
    first, second = wire("127.0.1.2"), wire("127.0.1.2")
    requests = simulator.ask(op="stats")["sites"]["plant-a"]["127.0.1.2:0"]["requests"]
    first.socket.sendall(first.frame(11, READ_VOLTAGE))
    while simulator.ask(op="stats")["sites"]["plant-a"]["127.0.1.2:0"]["requests"] == requests:
        time.sleep(0.01)
    second.socket.sendall(second.frame(12, READ_VOLTAGE))
    assert second.socket.recv(512)[0] == 12
    first.socket.setblocking(False)
    assert first.socket.recv(512)[0] == 11  # came before the second one
    assert overlaps() == before + 1
    assert good(second.ask(12))
    assert overlaps() == before + 1


def test_drop_connection(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="main", kind="drop_connection", count=1)
    with suppress(ConnectionResetError):
        assert wire("127.0.1.1").ask(1) == b""
    assert simulator.answers()[-1][-1] == "dropped"


def test_wrong_unit(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="press", kind="wrong_unit", count=1)
    answer = wire("127.0.1.2").ask(11)
    assert good(answer)
    assert answer[0] == 12


def test_broken_wire(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="io", kind="broken_wire", channel="flow-temperature")
    line = wire("127.0.1.3")
    raw = struct.unpack(">8H", line.ask(1, bytes((3, 0, 0, 0, 8)))[9:])
    assert raw[2] == 0
    assert raw[0] > 0
    assert simulator.ask(op="clear", site="plant-a")["cleared"] == 1
    assert struct.unpack(">8H", line.ask(1, bytes((3, 0, 0, 0, 8)))[9:])[2] > 0


def test_noise(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    """At a rate of 1 a request is either lost (and counted as a bus error) or its answer is damaged."""

    def errors() -> int:
        return int(simulator.ask(op="stats")["sites"]["plant-a"]["127.0.1.2:0"]["bus_errors"])

    before = errors()
    put(simulator, listener="127.0.1.2:0", kind="noise", rate=1.0)
    line = wire("127.0.1.2")
    lost = damaged = 0
    for _ in range(12):
        try:
            assert not good(line.ask(11, wait=0.3))
            damaged += 1
        except TimeoutError:
            lost += 1
    assert damaged
    assert lost == errors() - before > 0


def test_request_with_bad_crc_is_not_answered(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    line = wire("127.0.1.2")
    line.socket.sendall(b"\x0b\x04\x00\x00\x00\x02\x00\x00")
    line.socket.settimeout(0.3)
    with pytest.raises(TimeoutError):
        line.socket.recv(512)
    assert good(line.ask(11))


def test_faults_end_with_time_and_are_listed(simulator: Simulator, wire: Callable[[str], Wire]) -> None:
    put(simulator, meter="main", kind="silent", **{"for": 1000})
    listed = simulator.ask(op="faults")["faults"]
    assert [fault["kind"] for fault in listed] == ["silent"]
    assert 900 < listed[0]["seconds_left"] <= 1000
    assert simulator.ask(op="clear", id=listed[0]["id"])["cleared"] == 1
    put(simulator, meter="main", kind="silent", **{"for": 0.001})
    while simulator.ask(op="faults")["faults"]:
        time.sleep(0.01)
    assert len(wire("127.0.1.1").ask(1)) == 13


@pytest.mark.parametrize(
    ("fault", "says"),
    [
        ({"site": "plant-a", "kind": "rain"}, "kind 'rain' is unknown"),
        ({"site": "nowhere", "kind": "silent"}, "site 'nowhere' is not running"),
        ({"site": "plant-a", "meter": "x", "kind": "silent"}, "meter 'x' does not exist"),
        ({"site": "plant-a", "listener": "x", "kind": "silent"}, "listener 'x' does not exist"),
        ({"site": "plant-a", "meter": "main", "kind": "bad_crc"}, "needs RTU framing"),
        (
            {"site": "plant-a", "meter": "io", "kind": "broken_wire", "channel": "x"},
            "channel 'x' does not exist",
        ),
        ({"site": "plant-a", "kind": "slow", "delay": "x"}, "delay 'x': a number is expected"),
        ({"site": "plant-a", "kind": "slow", "speed": 1}, "unknown key 'speed'"),
        ({"site": "plant-a", "kind": "noise", "rate": 2}, "not a probability"),
        ({"site": "plant-a", "kind": "silent", "count": 0}, "count 0: a number above zero"),
    ],
)
def test_bad_faults_are_refused(simulator: Simulator, fault: dict[str, Any], says: str) -> None:
    answer = simulator.ask(op="fault", **fault)
    assert not answer["ok"]
    assert says in answer["error"]
