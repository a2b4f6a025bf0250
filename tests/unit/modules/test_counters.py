from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ansible_collections.wattfleet.energy.plugins.module_utils import _counters, _growth, _modbus, _probe

from .conftest import FakeCollector, Peer, registers_device

MakePeer = Callable[..., Peer]
MakeCollector = Callable[[dict[str, Any]], FakeCollector]


def counting_device(counters: dict[int, int], missing: int = 0x02) -> Callable[[int, bytes], bytes | None]:
    def device(_unit: int, pdu: bytes) -> bytes | None:
        (subfunction,) = struct.unpack(">H", pdu[1:3])
        if subfunction not in counters:
            return bytes([pdu[0] | 0x80, missing])
        return pdu[:3] + struct.pack(">H", counters[subfunction])

    return device


def meter(peer: Peer, **options: Any) -> dict[str, Any]:
    address = {"host": "127.0.0.1", "port": peer.port, "framing": peer.framing}
    return _probe.with_defaults({"name": "main", "unit": 1, "timeout": 0.1, **address, **options})


def test_the_devices_own_counters(make_peer: MakePeer, tmp_path: Path) -> None:
    peer = make_peer(counting_device({0x0B: 100, 0x0C: 3, 0x12: 0}), _modbus.RTU_OVER_TCP)
    counters, failures = _counters.read([meter(peer)], str(tmp_path / "none"))
    assert counters == {"devices": {"main": {"bus_messages": 100, "crc_errors": 3, "overruns": 0}}}
    assert failures == []


def test_a_device_without_function_08_is_asked_once_and_is_no_failure(
    make_peer: MakePeer, tmp_path: Path
) -> None:
    peer = make_peer(counting_device({}, missing=0x01))
    assert _counters.read([meter(peer)], str(tmp_path / "none")) == ({}, [])
    assert len(peer.questions) == 1


def test_a_silent_device_is_a_failure(make_peer: MakePeer, tmp_path: Path) -> None:
    peer = make_peer(lambda _unit, _pdu: None)
    counters, failures = _counters.read([meter(peer)], str(tmp_path / "none"))
    assert counters == {}
    assert [(failure["name"], failure["code"]) for failure in failures] == [("main", "NO_ANSWER")]


def test_through_the_collector(make_peer: MakePeer, make_collector: MakeCollector) -> None:
    peer = make_peer(counting_device({0x0B: 1}))
    counts = {"requests": 10, "crc_errors": 1, "since": "2026-01-01"}

    def diagnostics(request: dict[str, Any]) -> dict[str, Any]:
        if request["subfunction"] == 0x0C:
            return {"ok": True, "data": 9}
        return {"ok": False, "error": "Modbus Error 0x03", "cause": ""}

    collector = make_collector(
        {
            "counters": {"ok": True, "buses": {"hall": counts}, "meters": {"main": counts}},
            "diagnostics": diagnostics,
        }
    )
    counters, failures = _counters.read([meter(peer, bus="hall")], collector.path)
    kept = {"requests": 10, "crc_errors": 1}
    assert counters == {
        "buses": {"hall": kept},
        "meters": {"main": kept},
        "devices": {"main": {"crc_errors": 9}},
    }
    assert failures == []
    assert peer.connections == 0


def test_only_the_collectors_counts(make_collector: MakeCollector) -> None:
    collector = make_collector({"counters": {"ok": True, "buses": {}, "meters": {}}})
    assert _counters.read([], collector.path) == ({"buses": {}, "meters": {}}, [])


def test_no_collector_and_no_meters_is_told(tmp_path: Path) -> None:
    _counts, failures = _counters.read([], str(tmp_path / "none"))
    assert failures[0]["code"] == "COLLECTOR_STOPPED"


def test_failures_of_two_looks() -> None:
    first = [{"name": "main", "code": "NO_ANSWER"}, {"name": "plug", "code": "NO_ANSWER"}]
    second = [{"name": "main", "code": "CRC"}, {"name": "collector", "code": "COLLECTOR_STOPPED"}]
    assert _counters.of_both(first, second) == [*second, first[1]]


def test_growth_of_what_both_looks_know() -> None:
    before = {"buses": {"hall": {"crc_errors": 5, "gone": 1}, "old": {"crc_errors": 1}}}
    after = {"buses": {"hall": {"crc_errors": 7, "new": 2}, "fresh": {"crc_errors": 4}}}
    assert _growth.growth(before, after) == {"buses": {"hall": {"crc_errors": 2}}}


def test_a_counter_that_was_reset_counts_from_zero() -> None:
    before = {"devices": {"main": {"crc_errors": 65530}}}
    after = {"devices": {"main": {"crc_errors": 4}}}
    assert _growth.growth(before, after) == {"devices": {"main": {"crc_errors": 4}}}


def test_growth_against_something_that_is_not_a_look() -> None:
    assert _growth.growth({"buses": None, "x": 1}, {"buses": {"hall": {"crc_errors": 1}}}) == {}


def test_limit() -> None:
    grown = {"buses": {"hall": {"crc_errors": 3, "timeouts": 99}}, "links": {"eth1": {"rx_errors": 2}}}
    assert _growth.exceeded(grown, ["crc_errors", "rx_errors"], 2) == [
        {"kind": "buses", "name": "hall", "counter": "crc_errors", "growth": 3, "limit": 2}
    ]


REGISTERS = [
    {"counter": "crc_errors", "function": 4, "address": 10, "type": "uint32", "word_order": "little"},
    {"counter": "resets", "function": 3, "address": 99, "type": "uint16", "word_order": "big"},
]


def test_counters_in_registers_of_the_device(make_peer: MakePeer, tmp_path: Path) -> None:
    peer = make_peer(registers_device({10: 5, 11: 1}))
    counters, failures = _counters.read([meter(peer, registers=REGISTERS)], str(tmp_path / "none"))
    assert counters == {"devices": {"main": {"crc_errors": 65541}}}
    assert [(one["name"], one["code"]) for one in failures] == [("main/resets", "MODBUS_EXCEPTION")]


def test_counters_in_registers_through_the_collector(make_collector: MakeCollector) -> None:
    collector = make_collector(
        {
            "counters": {"ok": True},
            "diagnostics": {"ok": False, "error": "Modbus Error 0x01", "cause": ""},
            "read": lambda request: {"ok": True, "registers": [7] * request["count"]},
        }
    )
    asked = _probe.with_defaults({"name": "main", "bus": "hall", "unit": 1, "registers": REGISTERS[1:]})
    counters, failures = _counters.read([asked], collector.path)
    assert counters["devices"] == {"main": {"resets": 7}}
    assert failures == []
    assert collector.requests[-1] == {
        "op": "read",
        "bus": "hall",
        "unit": 1,
        "function": 3,
        "address": 99,
        "count": 1,
    }
