from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from ansible_collections.wattfleet.energy.plugins.module_utils import _modbus, _probe

from .conftest import FakeCollector, Peer, registers_device

MakePeer = Callable[..., Peer]
MakeCollector = Callable[[dict[str, Any]], FakeCollector]
FLOAT = dict(zip((0, 1), struct.unpack(">2H", struct.pack(">f", 231.4)), strict=True))


def meter(**options: Any) -> dict[str, Any]:
    return _probe.with_defaults({"timeout": 0.2, **options})


def at(peer: Peer, **options: Any) -> dict[str, Any]:
    return meter(host="127.0.0.1", port=peer.port, framing=peer.framing, **{"unit": 1, **options})


@pytest.fixture
def nowhere(tmp_path: Path) -> str:
    return str(tmp_path / "no.sock")


def test_value_and_identification(make_peer: MakePeer, nowhere: str) -> None:
    registers = registers_device(FLOAT)

    def device(unit: int, pdu: bytes) -> bytes | None:
        if pdu[0] == 43:
            return bytes([43, 14, 1, 1, 0, 0, 1, 0, 7]) + b"Eastron"
        return registers(unit, pdu)

    peer = make_peer(device)
    asked = at(peer, address=0, type="float32", expected=231.0, tolerance=0.01, identify=True)
    (result,) = _probe.probe_all([asked], nowhere)
    assert result["reachable"]
    assert result["matches"]
    assert result["findings"] == []
    assert result["value"] == pytest.approx(231.4, abs=1e-4)
    assert result["identification"] == {"VendorName": "Eastron"}
    assert result["transport"] == "direct"
    assert result["failure"] is None
    assert result["latency"] > 0


def test_no_identification_is_no_failure(make_peer: MakePeer, nowhere: str) -> None:
    (result,) = _probe.probe_all([at(make_peer(registers_device({0: 1})), identify=True)], nowhere)
    assert (result["identification"], result["failure"]) == ({}, None)


def test_difference_is_explained(make_peer: MakePeer, nowhere: str) -> None:
    peer = make_peer(registers_device({5: 2314}))
    (result,) = _probe.probe_all([at(peer, address=5, expected=231.4)], nowhere)
    assert not result["matches"]
    assert [finding["finding"] for finding in result["findings"]] == ["scale"]


def test_an_exception_proves_that_the_device_is_there(make_peer: MakePeer, nowhere: str) -> None:
    (result,) = _probe.probe_all([at(make_peer(registers_device({})))], nowhere)
    assert result["reachable"]
    assert result["failure"] is None


def test_a_wrong_register_is_a_failure_of_a_device_that_is_there(make_peer: MakePeer, nowhere: str) -> None:
    (result,) = _probe.probe_all([at(make_peer(registers_device({})), address=7)], nowhere)
    assert result["reachable"]
    assert result["failure"]["code"] == "MODBUS_EXCEPTION"
    assert result["failure"]["error"].startswith("Modbus Error 0x02")


def test_gateway_answers_for_a_silent_device(make_peer: MakePeer, nowhere: str) -> None:
    (result,) = _probe.probe_all([at(make_peer(lambda _unit, pdu: bytes([pdu[0] | 0x80, 0x0B])))], nowhere)
    assert not result["reachable"]
    assert "Modbus Error 0x0B" in result["failure"]["error"]


def test_one_dead_meter_does_not_hide_the_others(make_peer: MakePeer, nowhere: str) -> None:
    peer = make_peer(registers_device({0: 1}, units=(1, 3)), _modbus.RTU_OVER_TCP)
    results = _probe.probe_all([at(peer, unit=unit) for unit in (1, 2, 3)], nowhere)
    assert [result["reachable"] for result in results] == [True, False, True]
    assert [result["unit"] for result in results] == [1, 2, 3]


def test_one_bus_is_never_asked_twice_at_once(make_peer: MakePeer, nowhere: str) -> None:
    under_way = threading.Lock()
    overlaps: list[int] = []
    answer = registers_device({0: 1}, units=tuple(range(1, 9)))

    def device(unit: int, pdu: bytes) -> bytes | None:
        if not under_way.acquire(blocking=False):
            overlaps.append(unit)
            return None
        with under_way_released(under_way):
            return answer(unit, pdu)

    peer = make_peer(device)
    results = _probe.probe_all([at(peer, unit=unit) for unit in range(1, 9)], nowhere)
    assert all(result["reachable"] for result in results)
    assert overlaps == []
    assert peer.connections == 1


class under_way_released:  # noqa: N801 (reads as the statement it is used in)
    def __init__(self, lock: threading.Lock) -> None:
        self._lock = lock

    def __enter__(self) -> None: ...

    def __exit__(self, *_exception: object) -> None:
        self._lock.release()


def test_running_collector_is_the_one_master(make_peer: MakePeer, make_collector: MakeCollector) -> None:
    peer = make_peer(registers_device({0: 1}))
    collector = make_collector({"read": {"ok": True, "registers": [17255, 26214]}})
    asked = at(peer, bus="hall", function=4, address=0, type="float32")
    (result,) = _probe.probe_all([asked], collector.path)
    assert result["transport"] == "collector"
    assert result["value"] == pytest.approx(231.4, abs=1e-4)
    assert peer.connections == 0
    assert collector.requests == [
        {"op": "read", "bus": "hall", "unit": 1, "function": 4, "address": 0, "count": 2}
    ]


def test_a_bus_without_a_name_is_refused_while_the_collector_runs(
    make_peer: MakePeer, make_collector: MakeCollector
) -> None:
    peer = make_peer(registers_device({0: 1}))
    collector = make_collector({})
    with pytest.raises(_probe.OptionError, match="one master of its buses"):
        _probe.probe_all([at(peer)], collector.path)
    assert peer.connections == 0
    (result,) = _probe.probe_all([at(peer)], collector.path, "direct")
    assert result["reachable"]


def test_meter_by_name(make_collector: MakeCollector) -> None:
    readings = [
        {"point": "main/active_power", "value": 4200.0, "unit": "W", "quality": "good"},
        {"point": "main/frequency", "value": None, "unit": "Hz", "quality": "bad_sensor"},
    ]
    collector = make_collector({"read_meter": {"ok": True, "time": "now", "readings": readings}})
    (result,) = _probe.probe_all([meter(meter="main")], collector.path)
    assert result["name"] == "main"
    assert result["reachable"]
    assert result["readings"] == readings
    assert result["failure"]["code"] == "BAD_QUALITY"
    assert result["failure"]["error"] == "no value for main/frequency (bad_sensor)"


def test_meter_without_any_value_is_not_reachable(make_collector: MakeCollector) -> None:
    readings = [{"point": f"main/p{i}", "value": None, "quality": "bad_no_answer"} for i in range(7)]
    collector = make_collector({"read_meter": {"ok": True, "readings": readings}})
    (result,) = _probe.probe_all([meter(meter="main")], collector.path)
    assert not result["reachable"]
    assert "and 2 more" in result["failure"]["error"]


@pytest.mark.parametrize(
    ("error", "code", "reachable"),
    [
        ("main: Modbus Error 0x0B (gateway target device failed to respond)", "MODBUS_EXCEPTION", False),
        ("Modbus Error 0x02: illegal data address", "MODBUS_EXCEPTION", True),
        ("CRC Error: in a frame of 9 bytes", "CRC_ERROR", False),
        ("REGISTER_READ_FAILURE: no answer within 1000 ms", "NO_ANSWER", False),
        ("REGISTER_READ_FAILURE: unit 2 answered", "FRAME_ERROR", False),
        ("EHOSTUNREACH: no connection to 192.168.10.20:502 (No route to host)", "EHOSTUNREACH", False),
        ("ENODEV: no connection to /dev/ttyS9 (No such file)", "CONNECTION_FAILED", False),
        ("no bus 'hall'", "COLLECTOR", False),
    ],
)
def test_the_collectors_failures(
    make_collector: MakeCollector, error: str, code: str, reachable: bool
) -> None:
    collector = make_collector({"read": {"ok": False, "error": error, "cause": "the cause it gives"}})
    (result,) = _probe.probe_all([meter(bus="hall", unit=1, address=0)], collector.path)
    assert result["failure"] == {"code": code, "error": error, "cause": "the cause it gives"}
    assert result["reachable"] is reachable


@pytest.mark.parametrize("line", [b"not json\n", b"[]\n", b'{"registers": [1]}\n', b'{"ok": 1}\n'])
def test_nonsense_on_the_control_socket(make_collector: MakeCollector, line: bytes) -> None:
    collector = make_collector({"read": line})
    (result,) = _probe.probe_all([meter(bus="hall", unit=1, address=0)], collector.path)
    assert result["failure"]["code"] == "COLLECTOR"


def test_too_few_registers_from_the_collector(make_collector: MakeCollector) -> None:
    collector = make_collector({"read": {"ok": True, "registers": [1]}})
    (result,) = _probe.probe_all([meter(bus="hall", unit=1, address=0, type="float32")], collector.path)
    assert result["failure"]["error"] == "the collector's answer has no 2 registers"


def test_socket_file_of_a_collector_that_died(make_peer: MakePeer, tmp_path: Path) -> None:
    path = tmp_path / "stale.sock"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as left_behind:
        left_behind.bind(str(path))
    (result,) = _probe.probe_all([at(make_peer(registers_device({0: 1})), bus="hall")], str(path))
    assert result["transport"] == "direct"
    assert result["reachable"]


def test_serial_bus_without_a_collector(nowhere: str) -> None:
    (result,) = _probe.probe_all([meter(meter="main", bus="serial", unit=4)], nowhere)
    assert result["failure"]["code"] == "COLLECTOR_STOPPED"
    assert "without `host`" in result["failure"]["error"]


def test_collector_wanted_but_not_running(nowhere: str) -> None:
    with pytest.raises(_probe.OptionError, match=r"start energy-gateway\.service"):
        _probe.probe_all([meter(meter="main")], nowhere, "collector")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({}, "name the collector's `meter`, or give the `unit` id"),
        ({"unit": 256}, "unit 256 is outside of 0 to 255"),
        ({"unit": 1, "port": 0}, "port 0 is outside"),
        ({"unit": 1, "timeout": 0.0}, "timeout 0 must be above 0 s"),
        ({"unit": 1, "tolerance": -0.1}, "tolerance -0.1 must not be negative"),
        ({"unit": 1, "expected": 5.0}, "`expected` needs the `address`"),
        ({"unit": 1, "address": 65535, "type": "float32"}, "address 65535 with count 2 leaves 0 to 65535"),
        ({"unit": 1, "address": 0, "count": 126}, "count 126 is outside of 1 to 125"),
        ({"unit": 1, "address": 0, "count": 1, "type": "uint32"}, "count 1 is too few: uint32 takes 2"),
        ({"unit": 1, "address": 0, "function": 1, "expected": 1.0}, "functions 1 and 2 read bits"),
        ({"unit": 1, "ct_ratio": "200"}, "write primary:secondary"),
        ({"meter": "main", "address": 5}, "named by `bus`, `unit` and `address`"),
    ],
)
def test_contradicting_options(options: dict[str, Any], message: str) -> None:
    with pytest.raises(_probe.OptionError) as caught:
        meter(**options)
    assert message in str(caught.value)


def test_bits_through_the_collector(make_collector: MakeCollector) -> None:
    collector = make_collector({"read": {"ok": True, "bits": [1, 0, 1]}})
    (result,) = _probe.probe_all([meter(bus="plc", unit=1, function=2, address=0, count=3)], collector.path)
    assert result["registers"] == [1, 0, 1]
    assert result["value"] is None
